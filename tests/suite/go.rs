//! Go: its own allocator is not traced and the answer says so; C's, under cgo, is; no probe ever sits in Go's code.

use anyhow::{Result, ensure};
use memtrace_tests::{
    Program, Session, Truth,
    process::{Target, check_code_is_as_in_files, check_refusal, trace},
};

const NO_ARGS: [&str; 0] = [];

/// Attaching to a plain Go program is refused, and it runs on untouched.
fn check_plain(program: &Program) -> Result<()> {
    let mut target = Target::start(&program.build()?, &NO_ARGS)?;
    let output = trace(&["--pid", &target.pid().to_string()])?;
    let line = check_refusal(&output, 1)?;
    ensure!(line.contains("no allocator found") && line.contains("Go program without cgo"), "{line}");
    check_code_is_as_in_files(target.pid())?;
    target.go()?;
    let (last, ended) = target.end()?;
    ensure!(ended.status.success() && last == "right", "{last}: {ended:?}");
    Ok(())
}

#[test]
fn a_plain_go_program_gets_a_clear_answer() -> Result<()> {
    check_plain(&Program::go("plain"))
}

#[test]
fn a_stripped_plain_go_program_gets_the_same_answer() -> Result<()> {
    check_plain(&Program::go("plain").variant("stripped", &["-ldflags=-s -w"]))
}

#[test]
fn a_plain_go_program_that_the_tracer_starts_does_not_run_untraced() -> Result<()> {
    let output = trace(&["run".as_ref(), "--".as_ref(), Program::go("plain").build()?.as_os_str()])?;
    let line = check_refusal(&output, 1)?;
    ensure!(line.contains("Go program without cgo") && !output.stdout.contains("ready"), "{line}");
    Ok(())
}

/// A return probe would be copied along when Go moves the stack.
#[test]
fn a_go_function_that_the_user_describes_is_refused() -> Result<()> {
    let program = Program::go("plain");
    let mut target = Target::start(&program.build()?, &NO_ARGS)?;
    let spec = "alloc=plain-go:runtime.mallocgc(size=arg1,ret=ptr) free=plain-go:runtime.sysFree(ptr=arg1)";
    let output = trace(&["--allocator", spec, "--pid", &target.pid().to_string()])?;
    let line = check_refusal(&output, 1)?;
    ensure!(line.contains("Go"), "{line}");
    check_code_is_as_in_files(target.pid())?;
    target.kill()
}

/// Without symbols nothing says where Go's code ends; C's malloc is in libc, whose code is its own.
#[test]
fn stripped_cgo_is_exact_and_go_runs_on() -> Result<()> {
    let program = Program::go("cgo").variant("stripped", &["-ldflags=-s -w"]);
    let (report, output) = Session::new().run_with_output(program.build()?, &NO_ARGS)?;
    ensure!(output.status.success() && output.stdout.lines().any(|line| line == "right"), "{output:?}");
    // `make` and `release` have no names here: their blocks are told by their size.
    let truth = Truth::of(&Program::go("cgo"))?;
    truth.check_totals(&report, |stat| stat.allocated_count == 0 || stat.allocated_size / stat.allocated_count != 77)
}
