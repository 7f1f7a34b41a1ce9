//! Many processes in one session: each has its own figures, exact and apart from those of all others, whatever it is and however it
//! ends.
//!
//! The figures are those of the last snapshot of a recording. Of each process: made = live + freed + lost.

use std::{
    fs,
    path::Path,
    process::Command,
    sync::{Mutex, MutexGuard, PoisonError, mpsc},
};

use anyhow::{Context as _, Result, ensure};
use memtrace_tests::{
    Cgroups, Program, TIME_OUT, clean,
    many::{Recorded, check_sums, figures, has_lost_nothing, pids, process},
    process::{Target, check_code_is_as_in_files},
    recording, tracer,
};
use tempfile::TempDir;
use tracer_common::counters::Counter;
use tracer_user::{
    recording::Which,
    snapshot::{ProcessEnd, ProcessId},
};

/// Held by tests that put probes into files for everyone, and by those that look at whether there are any.
static EVERYONE: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    EVERYONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Without randomization two runs of one program get the same addresses for the same calls.
#[test]
fn two_processes_with_equal_addresses_are_apart_and_exact() -> Result<()> {
    let program = Program::c("made_by_number").build()?;
    let start = || Target::spawn(clean("setarch").args(["-R"]).arg(&program));
    let (mut one, mut other) = (start()?, start()?);
    let maps = |target: &Target| -> Result<Vec<String>> {
        let maps = fs::read_to_string(format!("/proc/{}/maps", target.pid()))?;
        Ok(maps.lines().map(|line| line.split_once(' ').map_or(line, |(range, _)| range).to_owned()).collect())
    };
    ensure!(maps(&one)? == maps(&other)?, "their addresses are not equal");
    let (a, b) = (one.pid().to_string(), other.pid().to_string());
    let recorded = Recorded::start(&["--pid", &a, "--pid", &b])?;
    for (target, steps) in [(&mut one, [100, -30, 7]), (&mut other, [50, -20, 500])] {
        for n in steps {
            target.say(&n.to_string())?;
            ensure!(target.hear()? == "done");
        }
    }
    let (_, _) = (one.end()?, other.end()?);
    let snapshot = recorded.outlive()?;
    check_sums(&snapshot)?;
    let (first, second) = (process(&snapshot, a.parse()?)?, process(&snapshot, b.parse()?)?);
    ensure!(figures(first) == (107 * 123, 107, 30), "{first:?}");
    ensure!(figures(second) == (550 * 123, 550, 20), "{second:?}");
    ensure!((first.totals.peak_count, second.totals.peak_count) == (100, 530), "each has its own peak");
    for process in [first, second] {
        has_lost_nothing(process)?;
        ensure!(
            process.comm == "made_by_number" && matches!(process.ended, Some((_, ProcessEnd::Exited))),
            "{process:?}"
        );
    }
    ensure!(snapshot.processes.len() == 2, "{}", pids(&snapshot));
    Ok(())
}

/// `fork_frees.c` under one way of tracing it.
fn fork_is_exact(options: &[&str], is_killed: bool) -> Result<()> {
    let program = Program::c("fork_frees").build()?;
    let arguments: &[&str] = if is_killed { &["hold"] } else { &[] };
    let mut target = Target::start(&program, arguments)?;
    let pid = target.pid().to_string();
    let recorded = Recorded::start(&[&["--pid", &pid], options].concat())?;
    target.go()?;
    let said = target.hear()?;
    let child: u32 = said.strip_prefix("child ").with_context(|| format!("it says `{said}`"))?.parse()?;
    ensure!(target.hear()? == "parent");
    if is_killed {
        // SAFETY: a child of our own child, which holds it.
        ensure!(unsafe { libc::kill(child as libc::pid_t, libc::SIGKILL) } == 0);
    }
    target.go()?;
    ensure!(target.hear()? == "over");
    target.end()?;
    let snapshot = recorded.outlive()?;
    check_sums(&snapshot)?;
    let parent = process(&snapshot, pid.parse()?)?;
    ensure!(figures(parent) == (100 * 123 + 5 * 55, 105, 30), "{parent:?}");
    ensure!(parent.totals.current_bytes == 70 * 123 + 5 * 55, "{parent:?}");
    let child = process(&snapshot, child)?;
    ensure!((child.inherited_bytes, child.inherited_count) == (12_300, 100), "{child:?}");
    ensure!(figures(child) == (770, 10, 2), "{child:?}");
    ensure!(child.counters.get(Counter::FreesInherited) == 40, "{child:?}");
    ensure!(child.parent_pid == Some(parent.pid) && matches!(child.ended, Some((_, ProcessEnd::Exited))), "{child:?}");
    [parent, child].into_iter().try_for_each(has_lost_nothing)
}

#[test]
fn parent_and_child_of_a_fork_free_their_own_blocks() -> Result<()> {
    fork_is_exact(&["--follow-children"], false)
}

#[test]
fn a_forks_child_is_exact_with_probes_for_everyone() -> Result<()> {
    let _alone = alone();
    fork_is_exact(&["--follow-children", "--from-first-allocation"], false)
}

#[test]
fn a_child_that_is_killed_keeps_its_figures() -> Result<()> {
    fork_is_exact(&["--follow-children"], true)
}

/// As `--pid` always was: a child that nobody asked for is none of its business.
#[test]
fn without_following_a_child_is_not_there() -> Result<()> {
    let program = Program::c("fork_frees").build()?;
    let mut target = Target::start::<&str>(&program, &[])?;
    let recorded = Recorded::start(&["--pid", &target.pid().to_string()])?;
    target.go()?;
    ensure!(target.hear()?.starts_with("child ") && target.hear()? == "parent");
    target.go()?;
    ensure!(target.hear()? == "over");
    target.end()?;
    let snapshot = recorded.outlive()?;
    ensure!(snapshot.processes.is_empty() && snapshot.scope.is_empty(), "{}", pids(&snapshot));
    ensure!(snapshot.stacks.iter().all(|stats| stats.stack.process.is_none()));
    ensure!((snapshot.totals.allocated_count, snapshot.totals.freed_count) == (105, 30), "{:?}", snapshot.totals);
    Ok(())
}

/// The new program is a process of its own, under the same id.
#[test]
fn exec_in_a_thread_begins_a_new_program() -> Result<()> {
    let program = Program::c("exec_in_thread").variant("threads", &["-pthread"]).build()?;
    let mut target = Target::start::<&str>(&program, &[])?;
    let pid = target.pid();
    let recorded = Recorded::start(&["--pid", &pid.to_string(), "--follow-children"])?;
    target.go()?;
    ensure!(target.hear()? == "after");
    recorded.await_process(pid)?;
    target.go()?;
    ensure!(target.hear()? == "done");
    target.end()?;
    let snapshot = recorded.outlive()?;
    check_sums(&snapshot)?;
    let [before, after] = &snapshot.processes[..] else { anyhow::bail!("{}", pids(&snapshot)) };
    ensure!((before.pid, after.pid) == (pid, pid));
    ensure!(matches!(before.ended, Some((_, ProcessEnd::Exec))), "{before:?}");
    ensure!(matches!(after.ended, Some((_, ProcessEnd::Exited))), "{after:?}");
    // The thread library keeps a block of its own for the thread.
    let of_sizes = |process: usize, sizes: &[u64]| -> u64 {
        let own = snapshot.stacks.iter().filter(|stats| stats.stack.process == Some(ProcessId(process as u32)));
        own.map(|stats| stats.totals)
            .filter(|totals| sizes.iter().any(|size| totals.allocated_bytes == size * totals.allocated_count))
            .map(|totals| totals.allocated_count)
            .sum()
    };
    ensure!(of_sizes(0, &[123, 77]) == 23 && before.totals.allocated_count <= 24, "{before:?}");
    ensure!(figures(after) == (7 * 51, 7, 0), "{after:?}");
    [before, after].into_iter().try_for_each(has_lost_nothing)
}

/// A child that shares its parent's memory until its exec counts for its parent, and as a program of its own after it.
#[test]
fn what_vfork_and_posix_spawn_start_is_exact() -> Result<()> {
    let program = Program::c("spawns").build()?;
    let mut target = Target::start::<&str>(&program, &[])?;
    let pid = target.pid();
    let recorded = Recorded::start(&["--pid", &pid.to_string(), "--follow-children"])?;
    target.go()?;
    ensure!(target.hear()? == "done");
    target.end()?;
    let snapshot = recorded.outlive()?;
    check_sums(&snapshot)?;
    let parent = process(&snapshot, pid)?;
    ensure!((parent.totals.current_bytes, parent.totals.current_count) == (10 * 123 + 4 * 51, 14), "{parent:?}");
    has_lost_nothing(parent)?;
    let children: Vec<_> = snapshot.processes.iter().filter(|process| process.pid != pid).collect();
    ensure!(children.len() == 2, "{}", pids(&snapshot));
    for child in children {
        ensure!(figures(child) == (6 * 77, 6, 0), "{child:?}");
        has_lost_nothing(child)?;
    }
    Ok(())
}

/// Starts a program under a given process id.
fn start_as(pid: u32, program: &std::path::Path) -> Result<Option<Target>> {
    fs::write("/proc/sys/kernel/ns_last_pid", (pid - 1).to_string()).context("failed to choose the next process id")?;
    let target = Target::start::<&str>(program, &[])?;
    Ok(if target.pid() == pid { Some(target) } else { None })
}

#[test]
fn a_process_id_that_is_used_again_is_another_process() -> Result<()> {
    let _alone = alone();
    let program = Program::c("made_by_number").variant("id_used_again", &[]).build()?;
    let recorded = Recorded::start(&["--exe", &program.to_string_lossy()])?;
    let mut first = Target::start::<&str>(&program, &[])?;
    let pid = first.pid();
    recorded.await_process(pid)?;
    first.say("100")?;
    ensure!(first.hear()? == "done");
    first.end()?;
    // Somebody else may be first to take the id.
    let second = (0..100).find_map(|_| start_as(pid, &program).transpose()).context("the id was not to be had")?;
    let mut second = second?;
    recorded.await_process(pid)?;
    second.say("7")?;
    ensure!(second.hear()? == "done");
    second.end()?;
    let snapshot = recorded.end()?;
    check_sums(&snapshot)?;
    let with_pid: Vec<_> = snapshot.processes.iter().filter(|process| process.pid == pid).collect();
    let [first, second] = with_pid[..] else { anyhow::bail!("{}", pids(&snapshot)) };
    ensure!((figures(first), figures(second)) == ((12_300, 100, 0), (861, 7, 0)), "{}", pids(&snapshot));
    ensure!(first.ended.is_some_and(|(at, _)| at <= second.joined_at), "{first:?} {second:?}");
    Ok(())
}

/// `run` follows: a shell's programs are exact from their first allocation on, and it waits for none but its own child.
#[test]
fn what_a_program_starts_is_traced_from_its_first_allocation() -> Result<()> {
    let program = Program::c("exact_blocks").build()?;
    let scratch = TempDir::new()?;
    let file = scratch.path().join("session.mtb").to_string_lossy().into_owned();
    let script = format!("{0} 10 && {0} 20; exit 5", program.display());
    let output = memtrace_tests::process::trace(&["run", "--record", &file, "--", "sh", "-c", &script])?;
    ensure!(output.status.code() == Some(5), "{}: {}", output.status, output.stderr);
    let recording = recording(scratch.path().join("session.mtb").as_path())?;
    let snapshot = recording.snapshot(Which::Index(recording.snapshots.len() - 1));
    check_sums(&snapshot)?;
    ensure!(snapshot.from_start, "{}", pids(&snapshot));
    let programs: Vec<_> = snapshot.processes.iter().filter(|process| process.comm == "exact_blocks").collect();
    ensure!(programs.len() == 2, "{}", pids(&snapshot));
    for process in &snapshot.processes {
        has_lost_nothing(process)?;
    }
    ensure!(programs.iter().all(|process| process.from_start), "{programs:?}");
    Ok(())
}

/// Breakpoints lie only where somebody asked for them: a process that shares the libraries of a target runs its files' own code.
#[test]
fn others_pay_nothing_unless_probes_are_for_everyone() -> Result<()> {
    let _alone = alone();
    let program = Program::c("made_by_number").build()?;
    let (mut one, mut other, bystander) = (
        Target::start::<&str>(&program, &[])?,
        Target::start::<&str>(&program, &[])?,
        Target::start::<&str>(&program, &[])?,
    );
    let (a, b) = (one.pid().to_string(), other.pid().to_string());
    for scopes in [&["--pid", &a][..], &["--pid", &a, "--pid", &b], &["--pid", &a, "--follow-children"]] {
        let recorded = Recorded::start(scopes)?;
        ensure!(check_code_is_as_in_files(one.pid()).is_err(), "no probe is seen where there are some");
        check_code_is_as_in_files(bystander.pid())?;
        if scopes.len() == 4 {
            ensure!(check_code_is_as_in_files(other.pid()).is_err(), "no probe is seen where there are some");
        } else {
            check_code_is_as_in_files(other.pid())?;
        }
        for target in [&mut one, &mut other] {
            target.say("10")?;
            ensure!(target.hear()? == "done");
        }
        let snapshot = recorded.end()?;
        ensure!(snapshot.counters.get(Counter::HitsOutside) == 0, "{:?}", snapshot.counters);
        check_code_is_as_in_files(one.pid())?;
    }
    let recorded = Recorded::start(&["--pid", &a, "--from-first-allocation"])?;
    ensure!(check_code_is_as_in_files(bystander.pid()).is_err(), "probes for everyone are everywhere");
    let snapshot = recorded.end()?;
    ensure!(snapshot.notes.iter().any(|note| note.contains("pay a trap a call")), "{:?}", snapshot.notes);
    check_code_is_as_in_files(bystander.pid())?;
    Ok(())
}

/// Many short lives beside some that last 150 ms: no figure is wrong, and every one that lasts is there.
fn short_lives_are_exact(arguments: &[&str]) -> Result<()> {
    let _alone = alone();
    let program = Program::c("short_lives").build()?;
    let recorded = Recorded::start(&["--all"])?;
    let mut target = Target::start(&program, arguments)?;
    target.go()?;
    let mut lasting = Vec::new();
    let n_short: u64 = loop {
        let said = target.hear()?;
        match said.split_once(' ') {
            Some(("long", pid)) => lasting.push(pid.parse::<u32>()?),
            Some(("done", n)) => break n.parse()?,
            _ => anyhow::bail!("it says `{said}`"),
        }
    };
    target.end()?;
    let snapshot = recorded.end()?;
    check_sums(&snapshot)?;
    let ours: Vec<_> = snapshot.processes.iter().filter(|process| process.comm.starts_with("short_lives")).collect();
    for pid in &lasting {
        let processes = ours.iter().filter(|process| process.pid == *pid && process.totals.allocated_count > 0);
        // In a minute an id may come again.
        let mut exact = processes.filter(|process| figures(process) == (5 * 41, 5, 2));
        ensure!(exact.next().is_some(), "no process {pid} among {} of {}", ours.len(), snapshot.processes.len());
    }
    let is_ours = |id: ProcessId| snapshot.processes[id.0 as usize].comm.starts_with("short_lives");
    let of_size: u64 = snapshot
        .stacks
        .iter()
        .filter(|stats| stats.stack.process.is_some_and(is_ours))
        .filter(|stats| stats.totals.allocated_bytes == 41 * stats.totals.allocated_count)
        .map(|stats| stats.totals.allocated_count)
        .sum();
    let get = |counter| snapshot.counters.get(counter);
    let made = 5 * (n_short + lasting.len() as u64);
    println!(
        "{n_short} short and {} lasting processes; {of_size} of {made} blocks; {} notices lost, {} processes without room; kernel {} MiB, tracer {} MiB",
        lasting.len(),
        get(Counter::EventsLost),
        get(Counter::TargetsFull),
        snapshot.overhead.kernel_map_bytes >> 20,
        snapshot.overhead.rss_bytes >> 20
    );
    ensure!(of_size <= made, "{of_size} blocks, though {made} were made");
    if get(Counter::TargetsFull) + get(Counter::StacksFull) + get(Counter::ThreadsFull) == 0 {
        ensure!(of_size == made, "{of_size} of {made} blocks, and nothing is said to be lost");
    }
    ensure!(snapshot.overhead.rss_bytes < 512 << 20, "the tracer has {} bytes", snapshot.overhead.rss_bytes);
    Ok(())
}

#[test]
fn short_lives_beside_lasting_ones_are_all_seen() -> Result<()> {
    short_lives_are_exact(&["400"])
}

#[test]
#[ignore = "takes a minute: 12 000 processes, 200 a second"]
fn a_minute_of_short_lives_is_seen_in_bounded_memory() -> Result<()> {
    short_lives_are_exact(&["12000", "200"])
}

#[test]
fn a_session_that_ends_leaves_no_probe_in_any_process() -> Result<()> {
    let _alone = alone();
    let program = Program::c("fork_frees").build()?;
    let mut target = Target::start(&program, &["hold"])?;
    let recorded = Recorded::start(&["--pid", &target.pid().to_string(), "--follow-children"])?;
    target.go()?;
    let said = target.hear()?;
    let child: u32 = said.strip_prefix("child ").with_context(|| format!("it says `{said}`"))?.parse()?;
    ensure!(target.hear()? == "parent");
    ensure!(check_code_is_as_in_files(child).is_err(), "no probe is seen where there are some");
    recorded.end()?;
    check_code_is_as_in_files(target.pid())?;
    check_code_is_as_in_files(child)?;
    // SAFETY: a child of our own child, which holds it.
    ensure!(unsafe { libc::kill(child as libc::pid_t, libc::SIGKILL) } == 0);
    target.end()?;
    Ok(())
}

#[test]
fn a_scope_without_processes_waits_for_one() -> Result<()> {
    let _alone = alone();
    let program = Program::c("made_by_number").variant("awaited", &[]).build()?;
    let recorded = Recorded::start(&["--exe", &program.to_string_lossy()])?;
    recorded.tracing.await_log("waiting for a process of executable")?;
    let mut target = Target::start::<&str>(&program, &[])?;
    recorded.await_process(target.pid())?;
    target.say("11")?;
    ensure!(target.hear()? == "done");
    let snapshot = recorded.end()?;
    ensure!(figures(process(&snapshot, target.pid())?) == (11 * 123, 11, 0), "{}", pids(&snapshot));
    Ok(())
}

/// No file has probes when the first process comes: nor does one that calls exec in the group make itself known by a hit, nor one that
/// is moved into it.
#[test]
fn a_cgroup_without_processes_takes_in_what_comes() -> Result<()> {
    let _alone = alone();
    let cgroups = Cgroups::new()?;
    let scope = cgroups.outer().to_string_lossy();
    // Static, of musl: each a file of its own, and nothing allocates before main.
    let program = |name| Program::c("made_by_number").compiler("musl-gcc").variant(name, &["-static"]).build();
    let recorded = Recorded::start(&["--cgroup", &scope])?;
    recorded.tracing.await_log("waiting for a process of cgroup")?;
    let procs = cgroups.inner().join("cgroup.procs");
    let enter_and_exec = |program: &Path| {
        let script = "echo $$ > \"$0\"; exec \"$1\"";
        Target::spawn(clean("sh").args(["-c", script]).args([procs.as_path(), program]))
    };
    let mut first = enter_and_exec(&program("first-in-cgroup")?)?;
    recorded.await_process(first.pid())?;
    let mut moved = Target::start::<&str>(&program("moved-to-cgroup")?, &[])?;
    cgroups.enter(moved.pid())?;
    recorded.await_process(moved.pid())?;
    let mut second = enter_and_exec(&program("first-in-cgroup")?)?;
    for (target, n) in [(&mut first, 11), (&mut moved, 7), (&mut second, 5)] {
        target.say(&n.to_string())?;
        ensure!(target.hear()? == "done");
    }
    let snapshot = recorded.end()?;
    check_sums(&snapshot)?;
    for (target, n, is_whole) in [(&first, 11, false), (&moved, 7, false), (&second, 5, true)] {
        let found = process(&snapshot, target.pid())?;
        ensure!(figures(found) == (n * 123, n, 0) && found.from_start == is_whole, "{found:?}");
    }
    ensure!(snapshot.counters.get(Counter::JoinedLate) == 2, "{:?}", snapshot.counters);
    Ok(())
}

/// Two overlays over one directory, each in a mount namespace of its own, as the containers of an image are, and the directory itself:
/// the program is one file three times, and its calls count once each.
#[test]
fn a_file_that_overlays_share_is_probed_once() -> Result<()> {
    let _alone = alone();
    // Its allocator is its own: the C library is in it.
    let program = Program::c("made_by_number").variant("overlaid", &["-static"]).build()?;
    let scratch = TempDir::new()?;
    let lower = scratch.path().join("lower");
    fs::create_dir(&lower)?;
    memtrace_tests::copy_program(&program, &lower.join("overlaid_once"))?;
    let script = r#"
        set -e
        mount --make-rprivate /
        mkdir "$1"
        mount -t tmpfs memtrace-test "$1"
        mkdir "$1/upper" "$1/work" "$1/shown"
        mount -t overlay memtrace-test -o "lowerdir=$2,upperdir=$1/upper,workdir=$1/work" "$1/shown"
        exec "$1/shown/overlaid_once"
    "#;
    let overlaid = |name: &str| {
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", script, "sh"]).arg(scratch.path().join(name)).arg(&lower);
        Target::spawn(&mut command)
    };
    let mut targets = [overlaid("one")?, overlaid("other")?, Target::start::<&str>(&lower.join("overlaid_once"), &[])?];
    let recorded = Recorded::start(&["--comm", "overlaid_once"])?;
    for (target, n) in targets.iter_mut().zip([100, 200, 300]) {
        for n in [n, -50] {
            target.say(&n.to_string())?;
            ensure!(target.hear()? == "done");
        }
    }
    let snapshot = recorded.end()?;
    check_sums(&snapshot)?;
    for (target, n) in targets.iter().zip([100, 200, 300]) {
        let process = process(&snapshot, target.pid())?;
        ensure!(figures(process) == (123 * n, n, 50), "{process:?}");
        has_lost_nothing(process)?;
    }
    Ok(())
}

/// Programs of our own tree stand for moments while their files are read: when the session ends in the middle of that, they go on.
#[test]
fn a_session_that_ends_leaves_nothing_standing() -> Result<()> {
    let program = Program::c("short_lives").build()?;
    let mut command = clean(tracer()?);
    let run = command.args(["run", "--quiet", "--duration", "300ms", "--"]).arg(&program).arg("2000");
    // Its pipes are the program's too.
    let mut target = Target::spawn(run)?;
    target.go()?;
    let (sender, done) = mpsc::channel();
    let listener = std::thread::spawn(move || -> Result<()> {
        let n_starts = loop {
            let said = target.hear()?;
            if let Some(n_starts) = said.strip_prefix("done ") {
                break n_starts.parse::<u32>()?;
            }
        };
        sender.send(n_starts).ok();
        target.end().map(|_| ())
    });
    let n_starts = done.recv_timeout(TIME_OUT).context("something of what was started stands still")?;
    ensure!(n_starts >= 2000, "{n_starts}");
    listener.join().expect("the listener does not panic")
}
