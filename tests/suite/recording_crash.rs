//! A tracer that is killed, and a full disk: every file opens, and every snapshot whose write was acknowledged is in it, whole.

use std::{
    fs,
    io::{BufRead as _, BufReader, Write as _},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::Arc,
};

use anyhow::{Context as _, Result, bail, ensure};
use tempfile::TempDir;
use tracer_common::{
    abi::StackEnd,
    addr::{FrameAddr, UserAddr},
};
use tracer_user::{
    recording::{Recorder, Recording, SessionInfo, SnapshotMeta},
    snapshot::{Frame, Snapshot, Stack, StackId, StackStats, Totals},
    symbolize::Names,
};

/// Times that each thing goes wrong.
const ROUNDS: u64 = 100;
/// Tells the child where to record.
const PATH_VARIABLE: &str = "MEMTRACE_TEST_RECORDING";
/// The child has recorded all it may.
const MAX_SNAPSHOTS: u64 = 10_000;

#[test]
fn a_tracer_killed_at_any_moment_loses_no_snapshot_that_it_had_written() -> Result<()> {
    let dir = TempDir::new()?;
    let (mut n_torn, mut n_kept) = (0, 0);
    for round in 0..ROUNDS {
        let path = dir.path().join(format!("{round}.mtb"));
        let mut tracer = Tracer::start(&path)?;
        for _ in 0..random(round, 0) % 12 {
            ensure!(matches!(tracer.answer()?, Some(Answer::Written)));
        }
        for _ in 0..random(round, 1) % 400_000 {
            std::hint::spin_loop();
        }
        let written = tracer.kill()?;
        let recording = Recording::read(&path).with_context(|| format!("round {round}"))?;
        check(&recording, &written).with_context(|| format!("round {round}"))?;
        ensure!(recording.problems.len() == 1, "round {round}: {:?}", recording.problems);
        n_torn += u32::from(recording.problems[0].contains("in the middle"));
        n_kept += written.len();
        fs::remove_file(&path)?;
    }
    println!("{ROUNDS} kills: {n_kept} snapshots kept, {n_torn} files torn");
    Ok(())
}

#[test]
fn a_full_disk_loses_only_the_snapshot_that_did_not_fit() -> Result<()> {
    let (mut n_kept, mut n_refused) = (0, 0);
    for round in 0..ROUNDS {
        let disk = Disk::mount(48 + random(round, 2) % 160)?;
        let path = disk.dir.path().join("a.mtb");
        // What another program holds of the disk, and gives back later.
        let filler = disk.dir.path().join("filler");
        fs::write(&filler, vec![1; (random(round, 3) % (32 << 10)) as usize])?;
        let mut tracer = Tracer::start(&path)?;
        let refused = tracer.until_full().with_context(|| format!("round {round}"))?;
        ensure!(refused.contains("a.mtb") && refused.contains("No space left"), "{refused}");
        // Nothing is torn while the tracer is alive.
        let recording = Recording::read(&path)?;
        check(&recording, &tracer.written).with_context(|| format!("round {round}, disk full"))?;
        ensure!(recording.problems[0].contains("end is missing"), "{:?}", recording.problems);

        fs::remove_file(&filler)?;
        tracer.go_on()?;
        let end = if round % 2 == 0 { tracer.until_full().map(drop) } else { Ok(()) };
        end.with_context(|| format!("round {round}, full again"))?;
        let written = tracer.kill()?;
        let recording = Recording::read(&path).with_context(|| format!("round {round}"))?;
        check(&recording, &written).with_context(|| format!("round {round}"))?;
        n_kept += written.len();
        n_refused += 1 + u32::from(round % 2 == 0);
    }
    println!("{ROUNDS} full disks: {n_kept} snapshots kept, {n_refused} refused");
    Ok(())
}

/// Not a test of its own: what the tests above start, and kill.
#[test]
#[ignore = "records until it is killed; started by the other tests"]
fn record_until_killed() -> Result<()> {
    let path = PathBuf::from(std::env::var_os(PATH_VARIABLE).context("started by the other tests only")?);
    let mut recorder = Recorder::create(&path, &SessionInfo::default())?;
    let mut out = std::io::stdout();
    let mut go = std::io::stdin().lines();
    // What the test harness prints before is not for the parent.
    writeln!(out, "\nbegin")?;
    for n in 0..MAX_SNAPSHOTS {
        match recorder.snapshot(&snapshot(n), SnapshotMeta { unix_ns: n, ..SnapshotMeta::default() }) {
            Ok(()) => writeln!(out, "written {n}")?,
            Err(error) => {
                writeln!(out, "full {:#}", anyhow::Error::from(error))?;
                go.next().context("killed instead")??;
            }
        }
    }
    Ok(recorder.finish(&Names::default())?)
}

/// The process that records.
struct Tracer {
    child: Child,
    requests: ChildStdin,
    answers: BufReader<ChildStdout>,
    /// Numbers of the snapshots whose write was acknowledged.
    written: Vec<u64>,
}

enum Answer {
    Written,
    Full(String),
}

impl Tracer {
    fn start(path: &Path) -> Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .args(["--ignored", "--exact", "--nocapture", "record_until_killed"])
            .env(PATH_VARIABLE, path)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let requests = child.stdin.take().context("stdin is a pipe")?;
        let answers = BufReader::new(child.stdout.take().context("stdout is a pipe")?);
        let mut tracer = Self { child, requests, answers, written: Vec::new() };
        loop {
            match tracer.line()?.as_deref() {
                Some("begin") => return Ok(tracer),
                Some(_) => {}
                None => bail!("the recording process ended before it began"),
            }
        }
    }

    fn line(&mut self) -> Result<Option<String>> {
        let mut line = String::new();
        let n = self.answers.read_line(&mut line)?;
        Ok((n > 0).then(|| line.trim_end().to_owned()))
    }

    /// What became of the next snapshot; `None` when the process has ended.
    fn answer(&mut self) -> Result<Option<Answer>> {
        let Some(line) = self.line()? else { return Ok(None) };
        match line.split_once(' ') {
            Some(("written", n)) => {
                self.written.push(n.parse()?);
                Ok(Some(Answer::Written))
            }
            Some(("full", why)) => Ok(Some(Answer::Full(why.to_owned()))),
            _ => bail!("the recording process said `{line}`"),
        }
    }

    /// Waits until a snapshot is refused: why.
    fn until_full(&mut self) -> Result<String> {
        loop {
            match self.answer()? {
                Some(Answer::Written) => {}
                Some(Answer::Full(why)) => return Ok(why),
                None => bail!("the recording process ended"),
            }
        }
    }

    fn go_on(&mut self) -> Result<()> {
        Ok(writeln!(self.requests, "go on")?)
    }

    /// Kills it: all snapshots that it had acknowledged until then.
    fn kill(mut self) -> Result<Vec<u64>> {
        self.child.kill()?;
        self.child.wait()?;
        while self.answer()?.is_some() {}
        Ok(std::mem::take(&mut self.written))
    }
}

impl Drop for Tracer {
    fn drop(&mut self) {
        // Ended already, where the test did not fail.
        if matches!(self.child.try_wait(), Ok(None)) {
            self.child.kill().and_then(|()| self.child.wait()).expect("a child can be killed");
        }
    }
}

/// A small disk of our own.
struct Disk {
    dir: TempDir,
}

impl Disk {
    fn mount(size_kib: u64) -> Result<Self> {
        let disk = Self { dir: TempDir::new()? };
        let size = format!("size={size_kib}k");
        let status = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(disk.dir.path()).status()?;
        ensure!(status.success(), "failed to mount a tmpfs (needs root): {status}");
        Ok(disk)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazily: a test that failed may still have a file open.
        match Command::new("umount").arg("-l").arg(self.dir.path()).status() {
            Ok(status) if status.success() => {}
            other => eprintln!("failed to unmount `{}`: {other:?}", self.dir.path().display()),
        }
    }
}

/// Every acknowledged snapshot is there, as it was; at most one more, written but not acknowledged any more.
fn check(recording: &Recording, written: &[u64]) -> Result<()> {
    let n = recording.snapshots.len();
    ensure!((written.len()..=written.len() + 1).contains(&n), "{n} snapshots of {}", written.len());
    for (index, info) in recording.snapshots.iter().enumerate() {
        let number = info.meta.unix_ns;
        ensure!(written.get(index).is_none_or(|n| *n == number), "snapshot {index} is number {number}");
    }
    let mut wrong = None;
    recording.each_snapshot(|index, totals| {
        let number = recording.snapshots[index].meta.unix_ns;
        let expected = snapshot(number);
        let is_same = |(at, stats): (usize, &StackStats)| {
            recording.stacks.get(at) == Some(&stats.stack) && totals.get(at) == Some(&stats.totals)
        };
        let later = totals.iter().skip(expected.stacks.len());
        if !expected.stacks.iter().enumerate().all(is_same) || later.into_iter().any(|t| *t != Totals::default()) {
            wrong = wrong.or(Some(number));
        }
    });
    ensure!(wrong.is_none(), "snapshot {wrong:?} is not as it was");
    Ok(())
}

/// The snapshot with this number: some stacks more than the one before, and other totals.
fn snapshot(number: u64) -> Snapshot {
    let stacks = (0..60 + number).map(|id| {
        let frame = |depth| Frame { addr: FrameAddr::Return(UserAddr(random(id, depth) >> 20)), location: None };
        let live = random(number, id) >> 40;
        let allocated = live + number;
        StackStats {
            id: StackId(id as u32),
            stack: Arc::new(Stack {
                frames: (0..=id % 9).map(frame).collect(),
                end: StackEnd::Root,
                ..Stack::default()
            }),
            totals: Totals {
                current_bytes: live * 16,
                current_count: live,
                allocated_bytes: allocated * 16,
                allocated_count: allocated + 1,
                ..Totals::default()
            },
        }
    });
    Snapshot { stacks: stacks.collect(), ..Snapshot::default() }
}

/// A number that follows from two others: the finaliser of SplitMix64 (Steele, Lea and Flood, 2014).
fn random(a: u64, b: u64) -> u64 {
    let z = ((a << 32) | b).wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
