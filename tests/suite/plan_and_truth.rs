//! Every probe plan against the truth: the real library, a known number of calls of each function with known sizes, and
//! what the tracer made of them.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
};

use anyhow::{Result, ensure};
use memtrace_tests::{Program, Report, Session, Truth, target_dir};

/// A library that `cargo xtask setup` has unpacked.
fn test_lib(path: &str) -> Result<PathBuf> {
    let path = target_dir().join("test-libs").join(path);
    ensure!(path.exists(), "`{}` is missing (`cargo xtask setup --what tests` fetches it)", path.display());
    Ok(path)
}

/// Runs the program with the other libc's own loader.
fn under_glibc(program: &Program, folder: &str, loader: &str) -> Result<Report> {
    let dir = test_lib(folder)?;
    let args = [OsString::from("--library-path"), dir.clone().into(), program.build()?.into()];
    Session::new().run(dir.join(loader), &args)
}

fn exact_under_glibc(folder: &str, loader: &str) -> Result<()> {
    for name in ["every_function", "page_allocator"] {
        let program = linked_with_glibc(name, folder)?;
        Truth::of(&program)?.check(&under_glibc(&program, folder, loader)?)?;
    }
    Ok(())
}

/// Linked with that very libc: the versions of its symbols must be there when it runs.
fn linked_with_glibc(name: &str, folder: &str) -> Result<Program> {
    let libc = test_lib(folder)?.join("libc.so.6");
    let suite = folder.split('-').next().unwrap_or_default();
    Ok(Program::c(name).variant(suite, &["-Wl,--as-needed", "-Wl,--allow-shlib-undefined", &libc.to_string_lossy()]))
}

fn exact_under_preload(library: &Path, name: &str, runtimes: &[&str]) -> Result<()> {
    let program = Program::c(name);
    preloaded(library, &program, &runtimes.iter().fold(Truth::of(&program)?, |truth, module| truth.runtime(module)))
}

/// Eight threads at once. The frees of unknown blocks are glibc's own, which is not at work here.
fn exact_on_threads(library: &Path, runtimes: &[&str]) -> Result<()> {
    let program = Program::c("eight_threads");
    let truth = Truth::of(&program)?.counter("frees_unknown", 0);
    preloaded(library, &program, &runtimes.iter().fold(truth, |truth, module| truth.runtime(module)))
}

fn preloaded(library: &Path, program: &Program, truth: &Truth) -> Result<()> {
    let path = program.build()?;
    // The tracer starts the program: with LD_PRELOAD for the program alone.
    let preload = format!("LD_PRELOAD={}", library.display());
    let report = Session::new().option("--no-follow-children").run("/usr/bin/env", &[preload.as_ref(), path.as_os_str()])?;
    truth.check(&report)
}

/// musl's library has no unwind information: what is derived of its start code, main's caller, leads on to the program's entry.
fn exact_under_musl(loader: &str) -> Result<()> {
    let loader = test_lib(loader)?;
    let program = Program::c("every_function").compiler("musl-gcc");
    let report = Session::new().run(loader, &[program.build()?])?;
    Truth::of(&program)?.check(&report)?;
    for stat in &report.stats {
        ensure!(
            stat.functions() == ["main", "?", "_start"],
            "{} is not called by main: {:?}",
            stat.site(),
            stat.functions()
        );
    }
    Ok(())
}

#[test]
fn glibc_2_31_is_exact() -> Result<()> {
    exact_under_glibc("bullseye-libc6/lib/x86_64-linux-gnu", "ld-linux-x86-64.so.2")
}

#[test]
fn glibc_2_36_is_exact() -> Result<()> {
    exact_under_glibc("bookworm-libc6/lib/x86_64-linux-gnu", "ld-linux-x86-64.so.2")
}

#[test]
fn glibc_2_41_is_exact() -> Result<()> {
    exact_under_glibc("trixie-libc6/usr/lib/x86_64-linux-gnu", "ld-linux-x86-64.so.2")
}

#[test]
fn newest_glibc_is_exact() -> Result<()> {
    exact_under_glibc("sid-libc6/usr/lib/x86_64-linux-gnu", "ld-linux-x86-64.so.2")
}

/// Its reallocarray is glibc's, which jumps to jemalloc's realloc: one call. It has no pvalloc.
#[test]
fn jemalloc_is_exact() -> Result<()> {
    let library = test_lib("jemalloc/usr/lib/x86_64-linux-gnu/libjemalloc.so.2")?;
    exact_under_preload(&library, "every_function", &["libjemalloc", "libstdc++"])?;
    exact_on_threads(&library, &["libjemalloc", "libstdc++"])
}

#[test]
fn tcmalloc_is_exact() -> Result<()> {
    let library = test_lib("tcmalloc/usr/lib/x86_64-linux-gnu/libtcmalloc_minimal.so.4")?;
    exact_under_preload(&library, "every_function", &["libtcmalloc", "libstdc++"])?;
    exact_under_preload(&library, "page_allocator", &["libtcmalloc", "libstdc++"])?;
    exact_on_threads(&library, &["libtcmalloc", "libstdc++"])
}

#[test]
fn mimalloc_is_exact() -> Result<()> {
    let library = test_lib("mimalloc/usr/lib/x86_64-linux-gnu/libmimalloc.so.2")?;
    exact_under_preload(&library, "every_function", &["libmimalloc"])?;
    exact_under_preload(&library, "page_allocator", &["libmimalloc"])?;
    exact_on_threads(&library, &["libmimalloc"])
}

#[test]
fn musl_is_exact() -> Result<()> {
    exact_under_musl("musl/lib/ld-musl-x86_64.so.1")
}

/// Built with endbr64 at every entry.
#[test]
fn newest_musl_is_exact() -> Result<()> {
    exact_under_musl("sid-musl/usr/lib/ld-musl-x86_64.so.1")
}

#[test]
fn an_allocator_built_for_cet_is_exact() -> Result<()> {
    let library = Program::c("cet_allocator").library().variant("full", &["-fcf-protection=full", "-Wl,-Bsymbolic"]);
    exact_under_preload(&library.build()?, "four_functions", &[])
}
