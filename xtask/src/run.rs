//! `cargo xtask run [-- ARGS…]`: the main job in one command. Without arguments it traces a small leaking program, with
//! arguments it passes them to `memtrace-bpf`.

use std::{
    ffi::OsString,
    fs,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

use crate::{
    exec::{cargo, clean, root, run, target_dir, which},
    setup::{ensure_packages, is_root},
};

/// What `run` takes.
#[derive(clap::Args)]
pub struct Options {
    /// For memtrace-bpf, for example `--pid 4711`; without, a leaking demo program is traced.
    #[arg(last = true)]
    arguments: Vec<OsString>,
}

/// Builds what is needed and becomes `memtrace-bpf`.
pub fn main(options: &Options) -> Result<()> {
    let tracer = build_tracer()?;
    let arguments = if options.arguments.is_empty() {
        let demo = build_demo()?;
        vec!["run".into(), "--".into(), demo.into()]
    } else {
        options.arguments.clone()
    };
    let mut command = as_root(&tracer)?;
    // Relative paths among the arguments are the caller's.
    command.current_dir(std::env::current_dir()?).args(arguments);
    // From here on signals, streams and the exit status are the tracer's own.
    let error = command.exec();
    Err(error).with_context(|| format!("failed to start `{}`", tracer.display()))
}

/// The release build of `memtrace-bpf`.
pub fn build_tracer() -> Result<PathBuf> {
    run(cargo().args(["build", "--locked", "--release", "--package", "tracer-user"]))?;
    Ok(target_dir().join("release/memtrace-bpf"))
}

/// A program that grows at one line. Optimised and without frame pointers, as distributions build theirs.
fn build_demo() -> Result<PathBuf> {
    if which("gcc").is_none() {
        ensure_packages(&["gcc", "libc6-dev"])?;
    }
    let out = target_dir().join("demo");
    fs::create_dir_all(&out)?;
    let program = out.join("demo_leak");
    // A relative source path is what the report shows.
    let source = "tests/programs/c/demo_leak.c";
    run(clean("gcc").current_dir(root()).args(["-O2", "-g", "-fomit-frame-pointer", "-o"]).arg(&program).arg(source))?;
    Ok(program)
}

fn as_root(program: &Path) -> Result<Command> {
    if is_root() {
        return Ok(clean(program));
    }
    let Some(sudo) = which("sudo") else {
        bail!(
            "tracing needs root (or CAP_BPF, CAP_PERFMON and CAP_SYS_PTRACE), and there is no sudo: run this as root"
        );
    };
    let mut command = clean(sudo);
    command.arg(program);
    Ok(command)
}
