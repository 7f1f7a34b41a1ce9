//! How large the recording of a large target is, and what commands on it take.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use tracer_user::{
    recording::{Recorder, Sample, SessionInfo, SnapshotMeta, Trigger},
    snapshot::Totals,
};

use crate::synthetic::Synthetic;

const BLOCKS: u64 = 1_000_000;
const STACKS: u32 = 50_000;
const SNAPSHOTS: u32 = 100;
/// Samples of the series between two snapshots.
const SAMPLES: u64 = 10;
/// Each command runs so often.
const ROUNDS: u32 = 7;

/// Writes the recording; prints `what,value`.
pub fn make(path: &str) -> Result<()> {
    let mut target = Synthetic::new(STACKS, BLOCKS, 1);
    let mut recorder = Recorder::create(Path::new(path), &SessionInfo::default())?;
    let mut slowest = Duration::ZERO;
    let (mut n_stacks, mut n_blocks, mut changed) = (0, 0, 0);
    let mut before = Vec::new();
    for n in 0..SNAPSHOTS {
        let snapshot = target.step();
        changed +=
            snapshot.stacks.iter().filter(|stack| before.get(stack.id.0 as usize) != Some(&stack.totals)).count();
        before.resize(STACKS as usize, Totals::default());
        for stack in &snapshot.stacks {
            before[stack.id.0 as usize] = stack.totals;
        }
        (n_stacks, n_blocks) = (snapshot.stacks.len(), snapshot.totals.current_count);
        for sample in 0..SAMPLES {
            let at = snapshot.duration + Duration::from_secs(sample);
            recorder.sample(Sample {
                at,
                totals: snapshot.totals,
                rss_bytes: Some(n_blocks * 700),
                ..Sample::default()
            })?;
        }
        let started = Instant::now();
        let trigger = if n == 0 { Trigger::Start } else { Trigger::Interval };
        recorder.snapshot(&snapshot, SnapshotMeta { trigger, ..SnapshotMeta::default() })?;
        slowest = slowest.max(started.elapsed());
    }
    let before_names = fs::metadata(path)?.len();
    recorder.finish(&Synthetic::names())?;
    let bytes = fs::metadata(path)?.len();
    println!("blocks,{n_blocks}");
    println!("stacks,{n_stacks}");
    println!("snapshots,{SNAPSHOTS}");
    println!("changed_percent,{:.1}", changed as f64 * 100.0 / f64::from(STACKS * SNAPSHOTS));
    println!("file_bytes,{bytes}");
    println!("names_bytes,{}", bytes - before_names);
    println!("slowest_snapshot_ms,{}", ms(slowest));
    Ok(())
}

/// Makes the recording in a process of its own, then runs commands of the release build on it; prints `what,value`.
pub fn measure(tracer: &str) -> Result<()> {
    let path = std::env::temp_dir().join(format!("memtrace-bench-{}.mtb", std::process::id()));
    let outcome = measure_at(tracer, &path);
    fs::remove_file(&path).context("failed to remove the recording")?;
    outcome
}

fn measure_at(tracer: &str, path: &Path) -> Result<()> {
    println!("what,value");
    // A child of a large process starts with its parent's peak: this process stays small.
    let made = Command::new(std::env::current_exe()?).arg("recording-file").arg(path).status()?;
    ensure!(made.success(), "the recording was not made: {made}");
    for (name, arguments) in [
        ("report", &["report"] as &[&str]),
        ("report_traceback", &["report", "--key", "traceback"]),
        ("diff", &["diff"]),
        ("diff_traceback", &["diff", "--key", "traceback"]),
    ] {
        for _ in 0..ROUNDS {
            let mut command = Command::new(tracer);
            command.arg(arguments[0]).arg(path).args(&arguments[1..]).stdin(Stdio::null()).stdout(Stdio::null());
            let used = run(&mut command).with_context(|| format!("failed to run {name}"))?;
            println!("{name}_ms,{}", ms(used.time));
            println!("{name}_cpu_ms,{}", ms(used.cpu));
            println!("{name}_peak_bytes,{}", used.peak_bytes);
        }
    }
    Ok(())
}

/// What a command used.
struct Used {
    /// From start to end.
    time: Duration,
    /// In the program and in the kernel: other programs on the machine lengthen it little.
    cpu: Duration,
    /// The most that was ever resident.
    peak_bytes: u64,
}

fn run(command: &mut Command) -> Result<Used> {
    let started = Instant::now();
    let child = command.spawn()?;
    let (mut status, mut usage) = (0, std::mem::MaybeUninit::<libc::rusage>::uninit());
    // SAFETY: both places are ours and of the type that wait4(2) writes.
    let pid = unsafe { libc::wait4(child.id().cast_signed(), &raw mut status, 0, usage.as_mut_ptr()) };
    let time = started.elapsed();
    ensure!(pid == child.id().cast_signed(), "wait4: {}", std::io::Error::last_os_error());
    ensure!(libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0, "wait status {status:#x}");
    // SAFETY: wait4 succeeded, so it filled the structure.
    let usage = unsafe { usage.assume_init() };
    let cpu = [usage.ru_utime, usage.ru_stime].map(|t| Duration::new(t.tv_sec as u64, t.tv_usec as u32 * 1000));
    Ok(Used { time, cpu: cpu[0] + cpu[1], peak_bytes: usage.ru_maxrss as u64 * 1024 })
}

fn ms(duration: Duration) -> String {
    format!("{:.1}", duration.as_secs_f64() * 1000.0)
}
