//! What cannot be traced is refused in one clear line; what is merely broken is traced, and the report says what it lacks.

use std::{
    fs,
    io::Read as _,
    os::unix::{fs::PermissionsExt as _, process::ExitStatusExt as _},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};
use memtrace_tests::{
    Guard, Program, Session, clean, counter,
    process::{Target, Tracing, check_code_is_as_in_files, check_refusal, trace},
    tracer,
};
use object::{Object as _, ObjectSection as _};
use tempfile::TempDir;

/// Could not.
const FAILURE: i32 = 1;
/// A command line that makes no sense.
const USAGE: i32 = 2;

#[test]
fn a_command_line_that_makes_no_sense_is_told_in_one_line() -> Result<()> {
    let table: [(&[&str], &str); 8] = [
        (&["--pid", "self"], "'self' for '--pid <PID>'"),
        (&["--bogus"], "'--bogus'"),
        (&["--quiet"], "which process?"),
        (&["run"], "<CMD>"),
        (&["plan"], "--file"),
        (&["--key", "colour", "--pid", "1"], "lineno"),
        (&["--interval", "soon", "--pid", "1"], "unknown unit `soon`"),
        (&["--max-live-blocks", "0", "--pid", "1"], "'--max-live-blocks <N>'"),
    ];
    for (arguments, expected) in table {
        let output = trace(arguments)?;
        let line = check_refusal(&output, USAGE)?;
        ensure!(line.contains(expected), "{arguments:?}: {line}");
    }
    Ok(())
}

#[test]
fn a_pid_without_a_process_is_refused() -> Result<()> {
    // The largest pid that Linux can have is 2^22.
    let output = trace(&["--pid", "4194305"])?;
    ensure!(check_refusal(&output, FAILURE)? == "memtrace-bpf: no process with pid 4194305");
    Ok(())
}

#[test]
fn a_kernel_thread_is_refused() -> Result<()> {
    let pid = kernel_thread()?;
    let output = trace(&["--pid", &pid.to_string()])?;
    let line = check_refusal(&output, FAILURE)?;
    ensure!(line.contains("is a kernel thread"), "{line}");
    Ok(())
}

#[test]
fn a_zombie_is_refused() -> Result<()> {
    let mut child = Command::new("true").spawn()?;
    // SAFETY: `info` is a place for waitid to write to; WNOWAIT leaves the zombie.
    let waited = unsafe {
        let mut info: libc::siginfo_t = std::mem::zeroed();
        libc::waitid(libc::P_PID, child.id(), &raw mut info, libc::WEXITED | libc::WNOWAIT)
    };
    let output = trace(&["--pid", &child.id().to_string()]);
    child.wait()?;
    ensure!(waited == 0, "waitid failed");
    let output = output?;
    let line = check_refusal(&output, FAILURE)?;
    ensure!(line.contains("is a zombie"), "{line}");
    Ok(())
}

#[test]
fn a_32_bit_process_is_refused() -> Result<()> {
    let flags = ["-m32", "-static", "-nostdlib", "-ffreestanding", "-fno-stack-protector"];
    let line = refused_while_it_runs(&Program::c("pause_32").variant("static", &flags).build()?)?;
    ensure!(line.contains("is a 32-bit process"), "{line}");
    Ok(())
}

#[test]
fn a_static_program_without_symbols_is_refused() -> Result<()> {
    let program = static_without_symbols()?;
    let line = refused_while_it_runs(&program)?;
    ensure!(line.contains("no allocator found") && line.contains("static and stripped"), "{line}");
    // Started by the tracer, it does not run at all: nothing of it would be seen.
    let output = trace(&[Path::new("run"), Path::new("--"), &program])?;
    let line = check_refusal(&output, FAILURE)?;
    ensure!(line.contains("static and stripped"), "{line}");
    Ok(())
}

/// What tells a Go program is its `.go.buildinfo`; its allocator has no name that is looked for, as in any stripped file.
#[test]
fn a_go_program_without_cgo_is_refused() -> Result<()> {
    let scratch = TempDir::new()?;
    let program = scratch.path().join("go_program");
    let note = scratch.path().join("buildinfo");
    fs::write(&note, b"\xff Go buildinf:")?;
    let mut command = clean("objcopy");
    command.arg("--add-section").arg(format!(".go.buildinfo={}", note.display()));
    command.arg(static_without_symbols()?).arg(&program);
    let output = Guard::spawn(with_pipes(&mut command))?.finish()?;
    ensure!(output.status.success(), "{}", output.stderr);
    let line = refused_while_it_runs(&program)?;
    ensure!(line.contains("Go program without cgo"), "{line}");
    Ok(())
}

#[test]
fn a_command_that_is_not_there_is_127_and_one_that_cannot_run_126() -> Result<()> {
    let output = trace(&["run", "--", "/no/such/command"])?;
    ensure!(check_refusal(&output, 127)? == "memtrace-bpf: failed to run `/no/such/command`: not found");
    let scratch = TempDir::new()?;
    let plain_file = scratch.path().join("plain");
    fs::write(&plain_file, "text")?;
    let output = trace(&[Path::new("run"), Path::new("--"), &plain_file])?;
    let line = check_refusal(&output, 126)?;
    ensure!(line.contains("plain") && line.contains("ermission denied"), "{line}");
    Ok(())
}

#[test]
fn a_json_file_that_cannot_be_is_told_before_the_program_starts() -> Result<()> {
    let scratch = TempDir::new()?;
    let marker = scratch.path().join("started");
    let json = scratch.path().join("missing/report.json");
    let arguments = [Path::new("run"), Path::new("--json"), &json, Path::new("--"), Path::new("touch"), &marker];
    let output = trace(&arguments)?;
    let line = check_refusal(&output, USAGE)?;
    ensure!(line.contains("missing/report.json") && line.contains("No such file or directory"), "{line}");
    ensure!(!marker.exists(), "the program was started");
    Ok(())
}

#[test]
fn where_unwind_information_is_broken_the_code_itself_tells_and_a_note_says_so() -> Result<()> {
    let scratch = TempDir::new()?;
    let program = with_broken_sections(&scratch, &[".eh_frame"])?;
    let mut attached = Session::new().attach(&program, &["10"])?;
    attached.go()?;
    attached.await_line("made")?;
    let report = attached.end_with(7)?;
    ensure!((report.totals.current_bytes, report.totals.current_count) == (1230, 10), "{:?}", report.totals);
    ensure!(counter(&report, "truncated_no_unwind_info")? == 0, "{:?}", report.counters);
    let stat = report.stats.first().context("a line")?;
    ensure!(stat.functions().contains(&"main") && stat.truncated.is_none(), "{stat:?}");
    let note = report.notes.iter().find(|note| note.contains("broken") && note.contains("could not be parsed"));
    ensure!(note.is_some_and(|note| note.chars().any(|c| c.is_ascii_digit())), "{:?}", report.notes);
    Ok(())
}

#[test]
fn broken_debug_information_costs_the_names_with_a_reason() -> Result<()> {
    let scratch = TempDir::new()?;
    let program = with_broken_sections(&scratch, &[".debug_info", ".debug_line", ".debug_abbrev"])?;
    let mut attached = Session::new().attach(&program, &["10"])?;
    attached.go()?;
    attached.await_line("made")?;
    let report = attached.end_with(7)?;
    ensure!((report.totals.current_bytes, report.totals.current_count) == (1230, 10), "{:?}", report.totals);
    let frame = report.stats.first().and_then(|stat| stat.traceback.first()).context("a line with a frame")?;
    ensure!(frame.function.as_deref() == Some("main") && frame.line.is_none(), "{frame:?}");
    ensure!(frame.missing.as_deref() == Some("no line info"), "{frame:?}");
    Ok(())
}

/// At whatever point of the attaching a target ends: a report, or a line that says so.
#[test]
fn a_target_that_ends_while_it_is_attached_to_is_reported_or_refused() -> Result<()> {
    let program = Program::c("ends_after").build()?;
    for step in 0..16 {
        let target = Target::start(&program, &[(15 * step).to_string()])?;
        let output = trace(&["--pid", &target.pid().to_string()])?;
        if output.status.code() == Some(0) {
            ensure!(output.stdout.starts_with("pid ") && output.stdout.contains("(ends_after)"), "{output:?}");
        } else {
            let line = check_refusal(&output, FAILURE)?;
            let is_clear = ["ended while it was being attached to", "is a zombie", "no process with pid"];
            ensure!(is_clear.iter().any(|reason| line.contains(reason)), "step {step}: {line}");
        }
        let (_, ended) = target.end()?;
        ensure!(ended.status.success(), "step {step}: the target ended with {}", ended.status);
    }
    Ok(())
}

#[test]
fn a_full_table_is_told_first_and_by_how_much() -> Result<()> {
    let program = Program::c("live_blocks").build()?;
    let mut target = Target::start(&program, &["5000"])?;
    let tracing = Tracing::attach(target.pid(), &["--max-live-blocks", "1000"])?;
    target.go()?;
    ensure!(target.hear()? == "made");
    tracing.signal(libc::SIGINT)?;
    let report = tracing.finish()?.stdout;
    let first = report.lines().next().unwrap_or_default();
    ensure!(first.contains("LOST: 4 000 allocations not tracked"), "{first}");
    ensure!(first.contains("the table of live blocks was full (see --max-live-blocks): 480 KiB"), "{first}");

    let mut attached = Session::new().option("--max-live-blocks").option("1000").attach(&program, &["5000"])?;
    attached.go()?;
    attached.await_line("made")?;
    let report = attached.end_with(7)?;
    ensure!(report.totals.current_count == 1000 && report.totals.current_bytes == 123 * 1000, "{:?}", report.totals);
    ensure!(counter(&report, "blocks_full")? == 4000, "{:?}", report.counters);
    ensure!(counter(&report, "blocks_full_bytes")? == 123 * 4000, "{:?}", report.counters);
    Ok(())
}

#[test]
fn ctrl_c_brings_the_report_and_leaves_the_target_as_it_was() -> Result<()> {
    let mut target = Target::start(&Program::c("live_blocks").build()?, &["10"])?;
    let tracing = Tracing::attach::<&str>(target.pid(), &[])?;
    target.go()?;
    ensure!(target.hear()? == "made");
    tracing.signal(libc::SIGINT)?;
    let output = tracing.finish()?;
    ensure!(output.status.code() == Some(0), "{}", output.status);
    ensure!(output.stdout.contains("current 1230 B in 10 blocks"), "{}", output.stdout);
    check_code_is_as_in_files(target.pid())?;
    let (_, ended) = target.end()?;
    ensure!(ended.status.code() == Some(7), "the target ended with {}", ended.status);
    Ok(())
}

#[test]
fn a_second_ctrl_c_ends_the_report_at_once() -> Result<()> {
    // The report is larger than a pipe holds (64 KiB), and nobody reads on: the tracer is in the middle of it.
    let program = Program::c("many_stacks").variant("threads", &["-pthread"]).build()?;
    let mut target = Target::start(&program, &["3000", "3000", "2"])?;
    let mut tracing = Tracing::attach(target.pid(), &["--json", "-", "--key", "traceback"])?;
    target.go()?;
    ensure!(target.hear()?.starts_with("truth: "));
    tracing.signal(libc::SIGINT)?;
    let mut report = tracing.take_stdout().context("stdout is a pipe")?;
    report.read_exact(&mut [0])?;
    tracing.signal(libc::SIGINT)?;
    let output = tracing.finish()?;
    ensure!(output.status.signal() == Some(libc::SIGINT), "ended with {}", output.status);
    check_code_is_as_in_files(target.pid())?;
    let (_, ended) = target.end()?;
    ensure!(ended.status.success(), "the target ended with {}", ended.status);
    Ok(())
}

#[test]
fn the_exit_status_is_the_programs() -> Result<()> {
    let table = [("exit 0", 0), ("exit 7", 7), ("kill -9 $$", 128 + 9), ("kill -TERM $$", 128 + 15)];
    for (script, code) in table {
        let output = trace(&["run", "--quiet", "--", "sh", "-c", script])?;
        ensure!(output.status.code() == Some(code), "`{script}`: {} {}", output.status, output.stderr);
        ensure!(output.stdout.contains("(sh)"), "`{script}` has no report: {}", output.stdout);
    }
    Ok(())
}

#[test]
fn a_signal_to_the_tracer_is_passed_on_to_its_program() -> Result<()> {
    let program = Program::c("live_blocks").build()?;
    for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGUSR1] {
        let mut command = clean(tracer()?);
        // The program's `ready` comes through the tracer's stdout.
        let tracer = Target::spawn(command.args(["run", "--quiet", "--"]).arg(&program))?;
        tracer.signal(signal)?;
        let (first_line, ended) = tracer.outlive()?;
        ensure!(ended.status.code() == Some(128 + signal), "signal {signal}: {}", ended.status);
        ensure!(first_line.contains("(live_blocks)"), "signal {signal}: no report but `{first_line}`");
    }
    Ok(())
}

/// Attaches to a running program that is to be refused; it must be as it was, and run on.
fn refused_while_it_runs(program: &Path) -> Result<String> {
    let target = Target::start::<&str>(program, &[])?;
    let output = trace(&["--pid", &target.pid().to_string()])?;
    let line = check_refusal(&output, FAILURE)?.to_owned();
    check_code_is_as_in_files(target.pid())?;
    let (_, ended) = target.end()?;
    ensure!(ended.status.code().is_some(), "the target ended with {}", ended.status);
    Ok(line)
}

fn static_without_symbols() -> Result<PathBuf> {
    Program::c("live_blocks").variant("stripped", &["-static", "-s"]).build()
}

/// A copy of `live_blocks` whose sections of these names are noise.
fn with_broken_sections(scratch: &TempDir, names: &[&str]) -> Result<PathBuf> {
    let mut bytes = fs::read(Program::c("live_blocks").build()?)?;
    let mut random: u32 = 2_463_534_242;
    for name in names {
        let file = object::File::parse(&*bytes)?;
        let section = file.section_by_name(name).with_context(|| format!("no {name}"))?;
        let (start, length) = section.file_range().with_context(|| format!("{name} is not in the file"))?;
        for byte in &mut bytes[start as usize..(start + length) as usize] {
            random ^= random << 13;
            random ^= random >> 17;
            random ^= random << 5;
            *byte = random as u8;
        }
    }
    let program = scratch.path().join("broken");
    fs::write(&program, bytes)?;
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755))?;
    Ok(program)
}

/// The id of some kernel thread.
fn kernel_thread() -> Result<u32> {
    for entry in fs::read_dir("/proc")? {
        let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        // Only kernel threads have no memory while they wait (`Kthread:` says it from 6.8 on).
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let waits = ["State:\tS", "State:\tI"].iter().any(|state| status.contains(state));
        if waits && !status.contains("VmSize:") {
            return Ok(pid);
        }
    }
    anyhow::bail!("no kernel thread is visible: run this in the initial pid namespace")
}

fn with_pipes(command: &mut Command) -> &mut Command {
    use std::process::Stdio;
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped())
}
