//! Code without unwind information: stacks through it are whole, or end there and say so.

use anyhow::{Context as _, Result, ensure};
use memtrace_tests::{
    Program, Report, Session, Stat, Truth, check_balance, counter, process::trace, target_dir, walks_at_a_root,
};

const NO_ARGS: [&str; 0] = [];

fn callers() -> Program {
    Program::c("libc_callers").compiler("musl-gcc")
}

fn traced(program: &Program, loader: Option<&str>) -> Result<Report> {
    let session = Session::new().option("--key").option("traceback");
    let Some(loader) = loader else { return session.run(program.build()?, &NO_ARGS) };
    let loader = target_dir().join("test-libs").join(loader);
    ensure!(loader.exists(), "`{}` is missing (`cargo xtask setup --what tests` fetches it)", loader.display());
    session.run(loader, &[program.build()?])
}

/// The stack through a function of libc's, from there on.
fn stack_through<'r>(report: &'r Report, function: &str, caller: &str) -> Result<&'r Stat> {
    let through = |stat: &&Stat| stat.functions().contains(&function) && stat.functions().contains(&caller);
    let stats = &report.stats;
    stats.iter().find(through).with_context(|| {
        format!("no stack {function} < {caller}: {:?}", stats.iter().map(Stat::functions).collect::<Vec<_>>())
    })
}

/// musl's own functions call malloc from frames that nothing describes; so do its start code and the start of its threads.
fn check_callers(report: &Report) -> Result<()> {
    check_balance(report)?;
    ensure!(walks_at_a_root(report)? == (16, 16), "{:?} stacks are whole", walks_at_a_root(report)?);
    // getline's buffer grows once. How large it and a directory are is musl's affair.
    for (function, caller, count) in
        [("strdup", "copy_strings", 11), ("getdelim", "read_line", 2), ("opendir", "open_directory", 1)]
    {
        let stat = stack_through(report, function, caller)?;
        let functions = stat.functions();
        ensure!(functions[..3] == [function, caller, "main"], "{functions:?}");
        ensure!(functions.last() == Some(&"_start") && stat.truncated.is_none(), "{functions:?}");
        ensure!(stat.allocated_count == count, "{stat:?}");
    }
    ensure!(stack_through(report, "strdup", "copy_strings")?.size == 11 * 33);
    let in_thread = report.stats.iter().find(|stat| stat.size == 77).context("the thread's block is missing")?;
    ensure!(in_thread.functions().len() == 3 && in_thread.truncated.is_none(), "{:?}", in_thread.functions());
    Ok(())
}

#[test]
fn stacks_through_musl_are_whole() -> Result<()> {
    check_callers(&traced(&callers(), Some("musl/lib/ld-musl-x86_64.so.1"))?)
}

#[test]
fn stacks_through_the_newest_musl_are_whole() -> Result<()> {
    check_callers(&traced(&callers(), Some("sid-musl/usr/lib/ld-musl-x86_64.so.1"))?)
}

#[test]
fn stacks_of_a_static_musl_program_are_whole() -> Result<()> {
    check_callers(&traced(&callers().variant("static", &["-static"]), None)?)
}

/// Generated code has no file: its frames are walked by frame pointer. One that uses rbp for something else cannot be, and the
/// stack says so.
#[test]
fn stacks_through_generated_code_are_whole_or_say_why_not() -> Result<()> {
    let program = Program::c("generated_code");
    let mut attached = Session::new().option("--key").option("traceback").attach(program.build()?, &NO_ARGS)?;
    attached.go()?;
    let report = attached.finish()?;
    Truth::of(&program)?.counter("truncated_broken_chain", 5).check_totals(&report, |_| false)?;
    let of_size = |bytes: u64| report.stats.iter().find(|stat| stat.size == bytes).context("a line is missing");

    let framed = of_size(7 * 1003)?;
    let functions = framed.functions();
    ensure!(framed.truncated.is_none() && functions[..3] == ["?", "call_framed", "main"], "{functions:?}");
    let frameless = of_size(5 * 505)?;
    ensure!(frameless.functions() == ["?"], "{:?}", frameless.functions());
    ensure!(frameless.truncated.as_deref() == Some("broken chain"), "{:?}", frameless.truncated);
    Ok(())
}

/// Nothing leads to a function of a stripped library but a pointer that is made at run time: no rows are invented for it.
#[test]
fn stacks_end_at_code_that_nothing_leads_to() -> Result<()> {
    let program = Program::c("hidden_code");
    let (report, output) =
        Session::new().option("--key").option("traceback").run_with_output(program.build()?, &NO_ARGS)?;
    ensure!(output.status.success(), "{output:?}");
    let cut = report.stats.iter().find(|stat| stat.size == 3 * 707).context("a line is missing")?;
    ensure!(cut.truncated.as_deref() == Some("no unwind information"), "{:?}", cut.truncated);
    ensure!(counter(&report, "truncated_no_unwind_info")? == 3 && report.totals.current_bytes == 3 * 707 + 2 * 909);
    Ok(())
}

/// The share of stacks, and of the bytes on them, stands in the first line with the reason.
#[test]
fn the_report_tells_the_share_of_truncated_stacks() -> Result<()> {
    let program = Program::c("hidden_code").build()?;
    let output = trace(&["run".as_ref(), "--".as_ref(), program.as_os_str()])?;
    let expected = "60 % of stacks truncated, 54 % of live bytes: no unwind information 3";
    ensure!(output.stdout.lines().next().is_some_and(|first| first.ends_with(expected)), "{}", output.stdout);
    Ok(())
}
