//! A live session's recording: what makes a snapshot, what it holds, pauses, and who may ask for what.

use std::{
    fs,
    os::unix::{fs::PermissionsExt as _, process::CommandExt as _},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};
use memtrace_tests::{
    Guard, Output, Program, clean, copy_program, names_of_snapshots,
    process::{Target, Tracing, check_code_is_as_in_files, check_refusal, children, send, trace},
    recording,
    terminal::Terminal,
    tracer,
};
use tempfile::TempDir;
use tracer_user::recording::{Recording, Sample, Which};

/// What step `a` makes.
const A: (u64, u64) = (100 * 123, 100);
/// What step `b` makes.
const B: (u64, u64) = (50 * 77, 50);
const NOBODY: u32 = 65534;
/// Root's sockets.
const SOCKETS: &str = "/run/memtrace-bpf";

fn steps() -> Result<Target> {
    Target::start::<&str>(&Program::c("steps").build()?, &[])
}

/// Attaches with a recording at `file`, and comes back when its first snapshot is taken.
fn record(target: &Target, file: &Path, options: &[&str]) -> Result<Tracing> {
    let file = file.to_str().context("a plain path")?;
    let tracing = Tracing::attach(target.pid(), &[&["--record", file], options].concat())?;
    tracing.await_log("(start)")?;
    Ok(tracing)
}

/// Asks the session with this target; it must do as asked.
fn ask(target: &Target, request: &[&str]) -> Result<String> {
    let output = trace(&[request, &["--session", &target.pid().to_string()]].concat())?;
    ensure!(output.status.success(), "{request:?}: {}", output.stderr);
    Ok(output.stdout)
}

/// Ends a session by a signal, and opens what it recorded.
fn end(tracing: Tracing, file: &Path) -> Result<Recording> {
    tracing.signal(libc::SIGINT)?;
    let output = tracing.finish()?;
    ensure!(output.status.success(), "the tracer ended with {}", output.status);
    recording(file)
}

fn live(recording: &Recording, name: &str) -> Result<(u64, u64)> {
    let snapshot = recording.snapshot(recording.find(Some(name))?);
    let stacks = snapshot
        .stacks
        .iter()
        .fold((0, 0), |(bytes, count), stack| (bytes + stack.totals.current_bytes, count + stack.totals.current_count));
    let totals = (snapshot.totals.current_bytes, snapshot.totals.current_count);
    ensure!(stacks == totals, "`{name}`: the stacks sum to {stacks:?}, the total is {totals:?}");
    Ok(totals)
}

fn plus((bytes, count): (u64, u64), (more_bytes, more): (u64, u64)) -> (u64, u64) {
    (bytes + more_bytes, count + more)
}

fn scratch() -> Result<(TempDir, PathBuf)> {
    let scratch = TempDir::new()?;
    let file = scratch.path().join("recording.mtb");
    Ok((scratch, file))
}

#[test]
fn labelled_snapshots_of_a_program_that_stands_still_are_exact() -> Result<()> {
    let (_scratch, file) = scratch()?;
    let mut target = steps()?;
    let tracing = record(&target, &file, &[])?;
    target.step("a")?;
    ask(&target, &["snapshot", "--label", "after a"])?;
    target.step("b")?;
    let told = ask(&target, &["snapshot", "--label", "after b"])?;
    ensure!(told.starts_with("snapshot 2: ") && told.contains("150 blocks"), "it says `{told}`");
    target.step("f")?;
    ask(&target, &["mark", "a is gone"])?;
    let recording = end(tracing, &file)?;
    let names = names_of_snapshots(&recording);
    ensure!(names == ["start", "command after a", "command after b", "end"], "{names:?}");
    let found = ["start", "after a", "after b", "end", "peak"].map(|name| live(&recording, name));
    let found: Vec<_> = found.into_iter().collect::<Result<_>>()?;
    ensure!(found == [(0, 0), A, plus(A, B), B, plus(A, B)], "{found:?}");
    let marks: Vec<&str> = recording.marks.iter().map(|mark| mark.text.as_str()).collect();
    ensure!(marks == ["a is gone"], "{marks:?}");
    let times: Vec<_> = recording.snapshots.iter().map(|info| info.at).collect();
    ensure!(times.is_sorted() && recording.marks[0].at >= times[2], "{times:?}, {:?}", recording.marks);
    ensure!(recording.problems.is_empty(), "{:?}", recording.problems);
    let (_, ended) = target.end()?;
    ensure!(ended.status.success(), "the target ended with {}", ended.status);
    Ok(())
}

#[test]
fn names_are_in_the_file_and_the_last_line_says_where() -> Result<()> {
    let (_scratch, file) = scratch()?;
    let mut target = steps()?;
    let tracing = record(&target, &file, &[])?;
    target.step("a")?;
    tracing.signal(libc::SIGINT)?;
    let last = tracing.await_log("recorded ")?;
    let shown = file.display();
    ensure!(last.starts_with(&format!("recorded 2 snapshots to {shown} (")), "{last}");
    ensure!(last.ends_with(&format!("): memtrace-bpf report {shown}")), "{last}");
    ensure!(tracing.finish()?.status.success());
    let recording = recording(&file)?;
    let functions: Vec<String> = recording
        .stacks
        .iter()
        .flat_map(|stack| &stack.frames)
        .flat_map(|frame| recording.names.of(frame).to_vec())
        .filter_map(|name| name.function.ok().map(|function| function.to_string()))
        .collect();
    ensure!(functions.iter().any(|function| function == "make_a"), "{functions:?}");
    ensure!(functions.iter().any(|function| function == "main"), "{functions:?}");
    let session = &recording.session;
    ensure!(session.target.pid == target.pid() && session.target.comm == "steps", "{session:?}");
    ensure!(!session.from_start && session.command.is_empty() && session.started_unix_ns > 0, "{session:?}");
    Ok(())
}

#[test]
fn every_trigger_makes_its_snapshot() -> Result<()> {
    let (_scratch, file) = scratch()?;
    let mut target = steps()?;
    let options = ["--sample-every", "20ms", "--snapshot-on-growth", "10%", "--snapshot-every", "3s"];
    let tracing = record(&target, &file, &options)?;
    target.step("a")?;
    tracing.await_log("(growth)")?;
    tracing.await_log("(interval)")?;
    tracing.signal(libc::SIGUSR1)?;
    tracing.await_log("(signal)")?;
    ask(&target, &["snapshot"])?;
    tracing.await_log("(command)")?;
    let recording = end(tracing, &file)?;
    let names = names_of_snapshots(&recording);
    let mut expected = ["start", "growth", "interval", "signal", "command", "end"].iter();
    let mut next = expected.next();
    for name in &names {
        if Some(&name.as_str()) == next {
            next = expected.next();
        }
    }
    ensure!(next.is_none(), "{names:?}");
    ensure!(names.iter().filter(|name| *name == "growth").count() == 1, "it grew once: {names:?}");
    ensure!(recording.series.len() > 2, "{:?}", recording.series);
    ensure!(recording.series.is_sorted_by_key(|sample| sample.at), "{:?}", recording.series);
    ensure!(recording.series.iter().all(|sample| sample.rss_bytes.is_some()), "{:?}", recording.series);
    ensure!(recording.snapshots.iter().all(|info| info.memory.is_some()), "{:?}", recording.snapshots);
    Ok(())
}

#[test]
fn keys_take_a_snapshot_and_end_the_session_and_the_terminal_is_as_before() -> Result<()> {
    let (_scratch, file) = scratch()?;
    let target = steps()?;
    // By key, by signal, and by what the kernel makes of ^\.
    for way in ["q", "SIGTERM", "\x1c"] {
        let mut terminal = Terminal::open()?;
        ensure!(terminal.is_ordinary()?);
        let mut command = clean(tracer()?);
        command.args(["--verbose", "--pid", &target.pid().to_string(), "--record"]).arg(&file);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let tracing = Tracing::spawn(terminal.control(&mut command)?)?;
        tracing.await_log("tracing pid")?;
        // Once it is traced the keys are taken.
        tracing.await_log("(start)")?;
        terminal.press("xs")?;
        tracing.await_log("(key)")?;
        ensure!(!terminal.is_ordinary()?, "keys are taken as lines");
        match way {
            "SIGTERM" => tracing.signal(libc::SIGTERM)?,
            key => terminal.press(key)?,
        }
        let output = tracing.finish()?;
        ensure!(output.status.success(), "{way:?}: the tracer ended with {}", output.status);
        ensure!(terminal.is_ordinary()?, "{way:?}: the terminal is not as before");
        let names = names_of_snapshots(&recording(&file)?);
        ensure!(names == ["start", "key", "end"], "{way:?}: {names:?}");
    }
    Ok(())
}

#[test]
fn what_happens_in_a_pause_is_not_counted_and_the_gap_is_marked() -> Result<()> {
    let (_scratch, file) = scratch()?;
    let mut target = steps()?;
    check_code_is_as_in_files(target.pid())?;
    let tracing = record(&target, &file, &["--sample-every", "20ms"])?;
    target.step("a")?;
    ensure!(check_code_is_as_in_files(target.pid()).is_err(), "no probe is seen where there are some");
    ensure!(ask(&target, &["pause"])? == "paused\n");
    check_code_is_as_in_files(target.pid()).context("while paused")?;
    let refused = trace(&["pause", "--session", &target.pid().to_string()])?;
    ensure!(check_refusal(&refused, 1)?.contains("paused already"));
    target.step("b")?;
    ask(&target, &["snapshot", "--label", "in the gap"])?;
    ensure!(ask(&target, &["resume"])? == "resumed\n");
    ensure!(check_code_is_as_in_files(target.pid()).is_err(), "no probe after the pause");
    target.step("b")?;
    ask(&target, &["snapshot", "--label", "after"])?;
    let recording = end(tracing, &file)?;
    let names = names_of_snapshots(&recording);
    ensure!(names == ["start", "pause", "command in the gap", "command after", "end"], "{names:?}");
    ensure!(live(&recording, "1")? == A && live(&recording, "in the gap")? == A);
    ensure!(live(&recording, "after")? == plus(A, B));
    let marks: Vec<&str> = recording.marks.iter().map(|mark| mark.text.as_str()).collect();
    ensure!(marks == ["paused", "resumed"], "{marks:?}");
    let (begins, ends) = (recording.marks[0].at, recording.marks[1].at);
    let inside = |sample: &&Sample| sample.at > begins && sample.at < ends;
    ensure!(recording.series.iter().filter(inside).all(|sample| sample.paused), "{:?}", recording.series);
    ensure!(recording.series.iter().any(|sample| sample.at == begins && sample.paused), "where does the gap begin?");
    ensure!(recording.series.iter().any(|sample| sample.at == ends && !sample.paused), "where does the gap end?");
    ensure!(recording.series.iter().filter(inside).count() > 0, "nothing of the gap: {:?}", recording.series);
    ensure!(recording.series.iter().filter(|sample| !inside(sample)).any(|sample| !sample.paused));
    Ok(())
}

#[test]
fn before_start_after_nothing_is_attached() -> Result<()> {
    let (_scratch, file) = scratch()?;
    let mut target = steps()?;
    let file_text = file.to_str().context("a plain path")?;
    let mut command = clean(tracer()?);
    let pid = target.pid().to_string();
    command.args(["--verbose", "--pid", &pid, "--start-after", "1h", "--record", file_text]);
    let tracing = Tracing::spawn(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()))?;
    tracing.await_log("waits")?;
    target.step("a")?;
    check_code_is_as_in_files(target.pid())?;
    let refused = trace(&["snapshot", "--session", &pid])?;
    ensure!(check_refusal(&refused, 1)?.contains("not begun"), "{}", refused.stderr);
    ask(&target, &["resume"])?;
    ensure!(check_code_is_as_in_files(target.pid()).is_err(), "no probe is seen where there are some");
    target.step("b")?;
    let recording = end(tracing, &file)?;
    ensure!(names_of_snapshots(&recording) == ["start", "end"]);
    ensure!(live(&recording, "end")? == B, "{:?}", live(&recording, "end"));
    Ok(())
}

#[test]
fn a_killed_tracer_leaves_a_recording_that_opens_and_a_target_that_runs_on() -> Result<()> {
    let (_scratch, file) = scratch()?;
    let mut target = steps()?;
    let tracing = record(&target, &file, &[])?;
    target.step("a")?;
    ask(&target, &["snapshot", "--label", "last"])?;
    let socket = Path::new(SOCKETS).join(format!("{}.sock", target.pid()));
    ensure!(socket.exists(), "no control socket");
    tracing.signal(libc::SIGKILL)?;
    tracing.finish()?;
    let left = recording(&file)?;
    ensure!(names_of_snapshots(&left) == ["start", "command last"]);
    ensure!(live(&left, "last")? == A);
    ensure!(!left.problems.is_empty(), "nothing is said of the missing end");
    target.step("b")?;
    check_code_is_as_in_files(target.pid())?;
    // The next session cleans up, whichever target it has; one of another test may have done so already.
    let other = steps()?;
    let tracing = Tracing::attach::<&str>(other.pid(), &[])?;
    ensure!(!socket.exists(), "the dead socket is still there");
    let own = Path::new(SOCKETS).join(format!("{}.sock", other.pid()));
    ensure!(own.exists(), "no control socket");
    tracing.signal(libc::SIGINT)?;
    tracing.finish()?;
    ensure!(!own.exists(), "the socket outlived its session");
    let (_, ended) = target.end()?;
    ensure!(ended.status.success(), "the target ended with {}", ended.status);
    Ok(())
}

#[test]
fn another_user_cannot_ask() -> Result<()> {
    let scratch = TempDir::new()?;
    fs::set_permissions(scratch.path(), fs::Permissions::from_mode(0o755))?;
    let program = scratch.path().join("memtrace-bpf");
    copy_program(tracer()?, &program)?;
    let target = steps()?;
    let tracing = Tracing::attach::<&str>(target.pid(), &[])?;
    let socket = Path::new(SOCKETS).join(format!("{}.sock", target.pid()));
    let mode = |path: &Path| anyhow::Ok(fs::metadata(path)?.permissions().mode() & 0o777);
    ensure!((mode(Path::new(SOCKETS))?, mode(&socket)?) == (0o700, 0o600));
    let as_nobody = || -> Result<Output> {
        let mut command = clean(&program);
        command.args(["pause", "--session", &target.pid().to_string()]).env("XDG_RUNTIME_DIR", "/run");
        command.uid(NOBODY).gid(NOBODY).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Guard::spawn(&mut command)?.finish()
    };
    let refused = as_nobody()?;
    ensure!(check_refusal(&refused, 1)?.contains("no session"), "{}", refused.stderr);
    // Were the directory open to all, as through a mistake of root's, the peer is still looked at.
    fs::set_permissions(SOCKETS, fs::Permissions::from_mode(0o755))?;
    fs::set_permissions(&socket, fs::Permissions::from_mode(0o666))?;
    let refused = as_nobody();
    fs::set_permissions(SOCKETS, fs::Permissions::from_mode(0o700))?;
    check_refusal(&refused?, 1)?;
    ensure!(ask(&target, &["resume"]).is_err_and(|error| error.to_string().contains("not paused")));
    tracing.signal(libc::SIGINT)?;
    tracing.finish()?;
    Ok(())
}

#[test]
fn of_several_sessions_one_must_be_chosen() -> Result<()> {
    let (_first_scratch, first_file) = scratch()?;
    let (_second_scratch, second_file) = scratch()?;
    let (first, mut second) = (steps()?, steps()?);
    let tracings = (record(&first, &first_file, &[])?, record(&second, &second_file, &[])?);
    let refused = trace(&["snapshot"])?;
    let line = check_refusal(&refused, 1)?;
    let shown = |target: &Target| format!("{} steps", target.pid());
    ensure!(
        line.contains("--session PID") && line.contains(&shown(&first)) && line.contains(&shown(&second)),
        "{line}"
    );
    let line = trace(&["snapshot", "--session", "1"])?;
    ensure!(check_refusal(&line, 1)?.contains(&shown(&first)), "{}", line.stderr);
    second.step("a")?;
    ask(&second, &["snapshot", "--label", "here"])?;
    let listed = trace(&["sessions"])?.stdout;
    let line = listed.lines().find(|line| line.starts_with(&format!("pid {} (steps)", second.pid())));
    ensure!(line.is_some_and(|line| line.ends_with("in 100 blocks, 2 snapshots")), "{listed}");
    let first = end(tracings.0, &first_file)?;
    let second = end(tracings.1, &second_file)?;
    ensure!(names_of_snapshots(&first) == ["start", "end"]);
    ensure!(names_of_snapshots(&second) == ["start", "command here", "end"]);
    Ok(())
}

#[test]
fn a_session_without_a_recording_says_so() -> Result<()> {
    let target = steps()?;
    let tracing = Tracing::attach::<&str>(target.pid(), &[])?;
    for request in [&["snapshot"][..], &["mark", "now"]] {
        let refused = trace(&[request, &["--session", &target.pid().to_string()]].concat())?;
        ensure!(check_refusal(&refused, 1)?.contains("--record FILE"), "{}", refused.stderr);
    }
    tracing.signal(libc::SIGINT)?;
    tracing.finish()?;
    Ok(())
}

#[test]
fn a_program_that_calls_exec_is_recorded_on() -> Result<()> {
    let (_scratch, file) = scratch()?;
    let mut target = steps()?;
    let tracing = record(&target, &file, &[])?;
    target.step("a")?;
    ask(&target, &["snapshot", "--label", "before"])?;
    ensure!(target.step("x").is_err_and(|error| error.to_string().contains("ready")));
    tracing.await_log("called exec")?;
    tracing.await_log("tracing pid")?;
    target.step("b")?;
    let recording = end(tracing, &file)?;
    ensure!(live(&recording, "before")? == A && live(&recording, "end")? == B, "{:?}", recording.snapshots);
    let marks: Vec<&str> = recording.marks.iter().map(|mark| mark.text.as_str()).collect();
    ensure!(marks.len() == 1 && marks[0].starts_with("exec: "), "{marks:?}");
    let Which::Index(before) = recording.find(Some("before"))? else { anyhow::bail!("`before` is a snapshot") };
    ensure!(recording.snapshots[before].at < recording.marks[0].at, "{:?}", recording.marks);
    ensure!(recording.snapshots.is_sorted_by_key(|info| info.at), "{:?}", recording.snapshots);
    let named = |wanted: &str| {
        let mut frames = recording.stacks.iter().flat_map(|stack| &stack.frames);
        frames.any(|frame| recording.names.of(frame).iter().any(|name| name.function.as_deref() == Ok(wanted)))
    };
    ensure!(named("make_a") && named("make_b"), "the earlier program's functions have no names");
    Ok(())
}

#[test]
fn with_a_recording_the_signal_is_not_passed_on_to_the_program() -> Result<()> {
    let (_scratch, file) = scratch()?;
    let mut command = clean(tracer()?);
    command.args(["run", "--quiet", "--record"]).arg(&file).arg("--").arg(Program::c("steps").build()?);
    let mut tracer = Target::spawn(&mut command)?;
    tracer.step("a")?;
    tracer.signal(libc::SIGUSR1)?;
    let child = *children(tracer.pid())?.first().context("the tracer has a child")?;
    // Answered after the signal: both are the loop's.
    let output = trace(&["mark", "asked", "--session", &child.to_string()])?;
    ensure!(output.status.success(), "{}", output.stderr);
    tracer.step("b")?;
    let (_, ended) = tracer.end()?;
    ensure!(ended.status.success(), "the program ended with {}", ended.status);
    let recording = recording(&file)?;
    let names = names_of_snapshots(&recording);
    ensure!(names == ["start", "signal", "end"], "{names:?}");
    ensure!(live(&recording, "1")? == A && live(&recording, "end")? == plus(A, B));
    ensure!(recording.session.from_start && recording.session.command.len() == 1, "{:?}", recording.session);
    Ok(())
}

#[test]
fn without_a_recording_the_signal_is_answered_and_ends_nothing() -> Result<()> {
    let mut target = steps()?;
    let tracing = Tracing::attach::<&str>(target.pid(), &[])?;
    tracing.signal(libc::SIGUSR1)?;
    tracing.await_log("SIGUSR1 took no snapshot: the session keeps no recording")?;
    ask(&target, &["pause"])?;
    send(tracing.pid(), libc::SIGINT)?;
    ensure!(tracing.finish()?.status.success());
    target.step("f")?;
    Ok(())
}

/// A file system of 64 KiB, gone with it.
struct SmallDisk(TempDir);

impl SmallDisk {
    fn mount() -> Result<Self> {
        let dir = TempDir::new()?;
        let mount =
            Command::new("mount").args(["-t", "tmpfs", "-o", "size=64k", "memtrace-test"]).arg(dir.path()).status()?;
        ensure!(mount.success(), "mount: {mount}");
        Ok(Self(dir))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        Command::new("umount").arg(self.0.path()).status().ok();
    }
}

#[test]
fn a_full_disk_ends_neither_session_nor_target_and_what_waited_is_written_later() -> Result<()> {
    let disk = SmallDisk::mount()?;
    let file = disk.0.path().join("recording.mtb");
    let filler = disk.0.path().join("filler");
    let mut target = steps()?;
    let tracing = record(&target, &file, &[])?;
    target.step("a")?;
    fs::write(&filler, vec![1; 1 << 20]).err().context("the disk is not full")?;
    // Until no byte more fits.
    let asked = (0..10_000).find_map(|n| ask(&target, &["snapshot", "--label", &format!("{n} on a full disk")]).err());
    let refused = asked.context("the disk does not get full")?.to_string();
    ensure!(refused.contains("No space left"), "it says `{refused}`");
    let whole = recording(&file)?;
    fs::remove_file(&filler)?;
    target.step("b")?;
    let told = ask(&target, &["snapshot", "--label", "room again"])?;
    ensure!(told.starts_with(&format!("snapshot {}: ", whole.snapshots.len())), "it says `{told}`");
    let recording = end(tracing, &file)?;
    ensure!(recording.snapshots.len() == whole.snapshots.len() + 2, "{:?}", names_of_snapshots(&recording));
    ensure!(live(&recording, "room again")? == plus(A, B));
    let notes = &recording.snapshots.last().context("a snapshot")?.notes;
    ensure!(notes.iter().any(|note| note.contains("a snapshot (command) is missing")), "{notes:?}");
    target.step("f")?;
    Ok(())
}

#[test]
fn a_recording_that_cannot_be_written_is_refused_before_the_program_runs() -> Result<()> {
    let scratch = TempDir::new()?;
    let marker = scratch.path().join("started");
    let missing = scratch.path().join("missing/recording.mtb");
    let foreign = scratch.path().join("notes.txt");
    fs::write(&foreign, "not a recording")?;
    for file in [missing.as_path(), scratch.path(), &foreign, Path::new("/dev/null")] {
        let mut command = clean(tracer()?);
        command.args(["run", "--record"]).arg(file).args(["--", "touch"]).arg(&marker);
        let output =
            Guard::spawn(command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()))?.finish()?;
        let line = check_refusal(&output, 2)?;
        ensure!(line.contains(&format!("`{}`", file.display())), "{line}");
        ensure!(line.matches("os error").count() <= 1, "{line}");
        ensure!(!marker.exists(), "the program was started");
    }
    // A file made for nothing is taken away again.
    let file = scratch.path().join("recording.mtb");
    let output = trace(&[Path::new("--pid"), Path::new("4194305"), Path::new("--record"), &file])?;
    check_refusal(&output, 1)?;
    ensure!(!file.exists(), "an empty file is left");
    Ok(())
}

#[test]
fn what_makes_no_sense_is_told_in_one_line() -> Result<()> {
    let table: [(&[&str], &str); 6] = [
        (&["--pid", "1", "--record", "x", "--snapshot-on-growth", "10"], "a percent without a sign"),
        (&["--pid", "1", "--snapshot-every", "10s"], "--record"),
        (&["--pid", "1", "--record", "x", "--sample-every", "0"], "not a duration"),
        (&["snapshot", "--label", ""], "an empty label"),
        (&["snapshot", "--label", "peak"], "`peak` cannot be a label"),
        (&["mark"], "<TEXT>"),
    ];
    for (arguments, expected) in table {
        let output = trace(arguments)?;
        let line = check_refusal(&output, 2)?;
        ensure!(line.contains(expected), "{arguments:?}: {line}");
    }
    Ok(())
}

/// The session must read this before it can be told to end: nothing of a slow client holds it up.
#[test]
fn a_slow_client_does_not_hold_up_the_session() -> Result<()> {
    use std::{io::Write as _, os::unix::net::UnixStream};
    let target = steps()?;
    let tracing = Tracing::attach::<&str>(target.pid(), &[])?;
    let socket = Path::new(SOCKETS).join(format!("{}.sock", target.pid()));
    let mut slow = UnixStream::connect(&socket)?;
    slow.write_all(b"{\"snapshot\":")?;
    ask(&target, &["pause"])?;
    let mut endless = UnixStream::connect(&socket)?;
    // Refused after the longest request there is; the rest may find nobody reading.
    let written = endless.write_all(&vec![b'x'; 1 << 20]);
    ask(&target, &["resume"])?;
    drop((slow, endless, written));
    send(tracing.pid(), libc::SIGINT)?;
    ensure!(tracing.finish()?.status.success());
    Ok(())
}
