//! Files of targets whose root is not ours: debug files come from there.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, ensure};
use memtrace_tests::{
    Program, Session, Truth, clean, copy_program,
    process::{Target, trace},
};
use object::Object as _;
use tempfile::TempDir;

/// Where Debian has it; it is on no ordinary path.
const CHROOT: &str = "/usr/sbin/chroot";

/// A static program; what strips it keeps its build id.
fn program() -> Program {
    Program::c("attach_midway").compiler("musl-gcc").variant("static", &["-static", "-Wl,--build-id"])
}

fn run_in(dir: &Path, program: &str, args: &[&str]) -> Result<()> {
    let output =
        clean(program).args(args).current_dir(dir).output().with_context(|| format!("failed to run {program}"))?;
    ensure!(output.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// A root with the stripped program, and its debug file below `/usr/lib/debug`, which is an absolute link.
fn make_root() -> Result<(TempDir, PathBuf)> {
    let root = TempDir::new()?;
    let built = program().build()?;
    copy_program(&built, &root.path().join("program"))?;
    let bytes = fs::read(&built)?;
    let elf = object::File::parse(&*bytes)?;
    let id = elf.build_id()?.context("the linker makes a build id")?;
    let hex = id.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().concat();
    let debug = root.path().join("opt/debug/.build-id").join(&hex[..2]).join(format!("{}.debug", &hex[2..]));
    fs::create_dir_all(debug.parent().context("it has a parent")?)?;
    fs::create_dir_all(root.path().join("usr/lib"))?;
    symlink("/opt/debug", root.path().join("usr/lib/debug"))?;
    let debug_path = debug.to_str().context("an ASCII path")?;
    run_in(root.path(), "objcopy", &["--only-keep-debug", "program", debug_path])?;
    run_in(root.path(), "strip", &["--strip-all", "program"])?;
    Ok((root, debug))
}

/// A stripped static program: its debug file alone says where its allocator is, and what its lines are.
#[test]
fn a_stripped_program_in_a_root_of_its_own_is_exact_to_the_line() -> Result<()> {
    let (root, debug) = make_root()?;
    let root_path = root.path().to_str().context("an ASCII path")?;
    let mut attached = Session::new().attach(CHROOT, &[root_path, "/program"])?;
    attached.go()?;
    Truth::of(&program())?.check(&attached.finish()?)?;

    // The same without it: nothing is known.
    fs::remove_file(debug)?;
    let mut command = clean(CHROOT);
    let mut target = Target::spawn(command.args([root_path, "/program"]))?;
    let output = trace(&["--pid", &target.pid().to_string()])?;
    ensure!(!output.status.success() && output.stderr.contains("stripped"), "{}", output.stderr);
    target.kill()
}
