//! A target is never harmed: not by a tracer that is killed, not by many that come and go, not by where or how it runs.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};
use memtrace_tests::{
    Program, Report, Session, clean,
    process::{Target, Tracing, check_code_is_as_in_files, children, send, status_kib},
    sites_of_libc, tracer,
};
use tempfile::TempDir;
use tracer_common::counters::Counter;
use tracer_user::bpf::{Binding, Kernel, Reach, TableSizes};

fn busy_threads(n_threads: &str) -> Result<Target> {
    Target::start(&Program::c("busy_threads").variant("threads", &["-pthread"]).build()?, &[n_threads])
}

/// The target checked every byte of its blocks; it must find them all right.
fn check_is_right(target: Target) -> Result<()> {
    let (verdict, output) = target.end()?;
    ensure!(output.status.success(), "the target ended with {}", output.status);
    let rounds: u64 = verdict.strip_prefix("right: ").with_context(|| format!("it says `{verdict}`"))?.parse()?;
    ensure!(rounds > 0, "it did nothing");
    Ok(())
}

/// A report of 200 ms of a process, whatever it did before.
fn follow_up(pid: u32) -> Result<Report> {
    let output = Tracing::attach(pid, &["--duration", "200ms", "--json", "-"])?.finish()?;
    serde_json::from_str(&output.stdout).with_context(|| format!("no report but `{}`", output.stdout))
}

#[test]
fn a_killed_tracer_leaves_no_probe_and_a_working_target() -> Result<()> {
    let target = busy_threads("8")?;
    let before = check_code_is_as_in_files(target.pid())?;
    for round in 0..3 {
        let tracing = Tracing::attach::<&str>(target.pid(), &[])?;
        ensure!(
            check_code_is_as_in_files(target.pid()).is_err(),
            "round {round}: no probe is seen where there are some"
        );
        tracing.signal(libc::SIGKILL)?;
        tracing.finish()?;
        let after = check_code_is_as_in_files(target.pid()).with_context(|| format!("round {round}"))?;
        ensure!(after >= before, "{before} bytes of code before, {after} after");
    }
    let report = follow_up(target.pid())?;
    ensure!(report.totals.allocated_count > 0, "nothing seen after three killed tracers: {:?}", report.totals);
    check_is_right(target)
}

/// A thread that is killed while it takes a breakpoint away leaves it in the target (6.18: "leaking uprobe"). The report is out
/// before the probes are gone, so that a signal then falls into that time.
#[test]
fn a_signal_while_the_probes_are_taken_away_waits_until_they_are_gone() -> Result<()> {
    let target = busy_threads("2")?;
    for round in 0..3 {
        let mut tracing = Tracing::attach::<&str>(target.pid(), &[])?;
        let mut report = BufReader::new(tracing.take_stdout().context("stdout is a pipe")?);
        tracing.signal(libc::SIGINT)?;
        report.read_line(&mut String::new())?;
        tracing.signal(libc::SIGTERM)?;
        tracing.finish()?;
        check_code_is_as_in_files(target.pid()).with_context(|| format!("round {round}"))?;
    }
    check_is_right(target)
}

#[test]
fn a_killed_tracer_leaves_its_own_program_running() -> Result<()> {
    let program = Program::c("live_blocks").build()?;
    let mut command = clean(tracer()?);
    let mut tracer = Target::spawn(command.args(["run", "--quiet", "--"]).arg(&program).arg("10"))?;
    let child = *children(tracer.pid())?.first().context("the tracer has a child")?;
    // Where a library that it opens would make the tracer stop it: nobody else would make it run on.
    send(child, libc::SIGSTOP)?;
    // Without a probe it is as ever, on the pipes that it shared with the tracer.
    tracer.kill()?;
    check_code_is_as_in_files(child)?;
    tracer.go()?;
    ensure!(tracer.hear()? == "made");
    let (rest, _) = tracer.end()?;
    ensure!(rest.is_empty(), "it says `{rest}`");
    Ok(())
}

/// What probes leave: the pages of code that they were on, copied from the file for good, and the page of the return
/// trampoline. Nothing else, however often.
///
/// Each cycle probes malloc, its return, and free. More functions would only take longer: to take one probe away waits for a
/// grace period, 0.1 s on Linux 6.18, one after the other on the whole host (`event_mutex`).
#[test]
fn two_hundred_cycles_leave_the_target_right_and_small() -> Result<()> {
    const CYCLES: usize = 200;
    // Two tracers of one process: one's probes go while the other's stay.
    const AT_A_TIME: usize = 2;
    // A page for each function's code, and the trampoline's.
    const PAGES_KIB: u64 = 3 * 4;
    // What the target itself may have more of: 2 threads × 64 blocks of at most 509 B.
    const OWN_KIB: u64 = 2 * 64 * 509 / 1024 + 1;
    let target = busy_threads("2")?;
    let probes = Probes::of(&target)?;
    // Reads all of its code, so that pages of it are resident already.
    check_code_is_as_in_files(target.pid())?;
    let before = status_kib(target.pid(), "VmRSS")?;
    std::thread::scope(|scope| {
        let cycles = || probes.attach_and_detach(CYCLES / AT_A_TIME);
        let threads: Vec<_> = (0..AT_A_TIME).map(|_| scope.spawn(cycles)).collect();
        threads.into_iter().try_for_each(|thread| thread.join().expect("a cycle does not panic"))
    })?;
    check_code_is_as_in_files(target.pid())?;
    let after = status_kib(target.pid(), "VmRSS")?;
    println!("resident: {before} KiB before, {after} KiB after {CYCLES} cycles");
    ensure!(after <= before + PAGES_KIB + OWN_KIB, "{before} KiB became {after} KiB");
    ensure!(follow_up(target.pid())?.totals.allocated_count > 0, "nothing seen after {CYCLES} cycles");
    check_is_right(target)
}

/// The probes of malloc and free in a target's C library.
struct Probes {
    pid: u32,
    library: PathBuf,
    bindings: Vec<Binding>,
}

impl Probes {
    fn of(target: &Target) -> Result<Self> {
        let pid = target.pid();
        let (library, bindings) = sites_of_libc(pid, &["malloc", "free"])?;
        Ok(Self { pid, library, bindings })
    }

    fn attach_and_detach(&self, times: usize) -> Result<()> {
        let mut kernel = Kernel::load(TableSizes::default(), false)?;
        kernel.add_target(self.pid, 0, 0)?;
        kernel.counting(true);
        for _ in 0..times {
            let hits_before = kernel.counters().get(Counter::HitsReturn);
            kernel.attach(&self.library, &self.bindings, Reach::Process(self.pid))?;
            // Not before calls are in flight is it taken away again.
            while kernel.counters().get(Counter::HitsReturn) < hits_before + 1000 {
                std::thread::yield_now();
            }
            kernel.detach();
        }
        Ok(())
    }
}

/// On a kernel where return probes kill filtered processes the target is refused (see target/seccomp.rs); on all others it is
/// traced and lives.
#[test]
fn a_target_under_a_seccomp_filter_lives() -> Result<()> {
    let mut attached = match Session::new().attach::<&str>(Program::c("under_seccomp").build()?, &[]) {
        Err(refused) if format!("{refused:#}").contains("seccomp filter") => return Ok(()),
        attached => attached?,
    };
    attached.go()?;
    attached.await_line("made")?;
    let report = attached.finish()?;
    let totals = report.totals;
    ensure!((totals.allocated_count, totals.allocated_bytes) == (123, 123 * 77), "{totals:?}");
    ensure!((totals.current_count, totals.current_bytes) == (100, 7700), "{totals:?}");
    Ok(())
}

#[test]
fn a_target_that_is_stopped_and_continued_is_traced_on() -> Result<()> {
    let mut target = Target::start(&Program::c("live_blocks").build()?, &["100"])?;
    target.signal(libc::SIGSTOP)?;
    let tracing = Tracing::attach(target.pid(), &["--json", "-"])?;
    target.go()?;
    target.signal(libc::SIGCONT)?;
    ensure!(target.hear()? == "made");
    target.signal(libc::SIGSTOP)?;
    tracing.signal(libc::SIGINT)?;
    let output = tracing.finish()?;
    let report: Report = serde_json::from_str(&output.stdout)?;
    ensure!((report.totals.current_count, report.totals.current_bytes) == (100, 12_300), "{:?}", report.totals);
    check_code_is_as_in_files(target.pid())?;
    target.signal(libc::SIGCONT)?;
    let (_, ended) = target.end()?;
    ensure!(ended.status.code() == Some(7), "the target ended with {}", ended.status);
    Ok(())
}

/// Its files lie on a file system that only its own mount namespace has, and its root is there: no path of its mappings
/// leads anywhere here.
#[test]
fn a_target_in_a_mount_namespace_of_its_own_is_traced_by_its_own_files() -> Result<()> {
    let scratch = TempDir::new()?;
    let program = Program::c("live_blocks").build()?;
    // Fills a tmpfs with the program and its libraries, by the paths that the loader looks under, and goes there.
    let script = r#"
        set -e
        mount --make-rprivate /
        mount -t tmpfs memtrace-test "$1"
        cp "$2" "$1/program"
        ldd "$2" | grep -o '/[^ ]*' | while read -r file; do
            mkdir -p "$1$(dirname "$file")"
            cp "$file" "$1$file"
        done
        exec chroot "$1" /program 100
    "#;
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", script, "sh"]).arg(scratch.path()).arg(&program);
    let mut target = Target::spawn(&mut command)?;
    ensure!(!Path::new("/program").exists(), "/program is to be there only in the target's namespace");
    let maps = fs::read_to_string(format!("/proc/{}/maps", target.pid()))?;
    ensure!(maps.contains("/program\n"), "not in its root:\n{maps}");
    let tracing = Tracing::attach(target.pid(), &["--json", "-"])?;
    target.go()?;
    ensure!(target.hear()? == "made");
    tracing.signal(libc::SIGINT)?;
    let report: Report = serde_json::from_str(&tracing.finish()?.stdout)?;
    ensure!((report.totals.current_count, report.totals.current_bytes) == (100, 12_300), "{:?}", report.totals);
    let site = report.stats.first().context("a line")?;
    ensure!(site.function.as_deref() == Some("main") && site.line.is_some(), "{site:?}");
    ensure!(site.truncated.is_none(), "{site:?}");
    check_code_is_as_in_files(target.pid())?;
    let (_, ended) = target.end()?;
    ensure!(ended.status.code() == Some(7), "the target ended with {}", ended.status);
    ensure!(fs::read_dir(scratch.path())?.next().is_none(), "the file system was seen outside its namespace");
    Ok(())
}
