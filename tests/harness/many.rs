//! Sessions of many processes: the figures of each, from the last snapshot of a recording.

use std::{collections::BTreeMap, process::Command};

use anyhow::{Context as _, Result, ensure};
use tempfile::TempDir;
use tracer_common::counters::Counter;
use tracer_user::{
    recording::Which,
    snapshot::{ProcessId, ProcessStats, Snapshot},
};

use crate::{guard::piped, process::Tracing, programs::tracer, recording::recording, session::clean};

/// A tracer that records, with scopes of its own.
#[derive(Debug)]
pub struct Recorded {
    /// The tracer.
    pub tracing: Tracing,
    scratch: TempDir,
}

impl Recorded {
    /// Traces what these arguments select, and comes back when tracing has begun.
    pub fn start(arguments: &[&str]) -> Result<Self> {
        Self::start_by(&mut clean(tracer()?), arguments)
    }

    /// Likewise, by a command of one's own that runs the tracer.
    pub fn start_by(command: &mut Command, arguments: &[&str]) -> Result<Self> {
        let scratch = TempDir::new()?;
        let file = scratch.path().join("session.mtb");
        let file = file.to_string_lossy().into_owned();
        let tracing = Tracing::spawn(piped(command.arg("--verbose").args(arguments).args(["--record", &file])))?;
        tracing.await_log("tracing ")?;
        Ok(Self { tracing, scratch })
    }

    /// Waits until the tracer says that a process has joined.
    pub fn await_process(&self, pid: u32) -> Result<()> {
        self.tracing.await_log(&format!("pid {pid} joined")).map(|_| ())
    }

    /// Ends the session by a signal; the last snapshot.
    pub fn end(self) -> Result<Snapshot> {
        self.tracing.signal(libc::SIGINT)?;
        self.outlive()
    }

    /// Waits for the session to end by itself; the last snapshot.
    pub fn outlive(self) -> Result<Snapshot> {
        let output = self.tracing.finish()?;
        ensure!(output.status.success(), "{}: {}", output.status, output.stderr);
        let recording = recording(&self.scratch.path().join("session.mtb"))?;
        ensure!(!recording.snapshots.is_empty(), "no snapshot");
        Ok(recording.snapshot(Which::Index(recording.snapshots.len() - 1)))
    }
}

/// Holds that each process's stacks sum to its figures, and that the sums of all are those of the whole.
pub fn check_sums(snapshot: &Snapshot) -> Result<()> {
    let mut by_process: BTreeMap<ProcessId, (u64, u64, u64, u64)> = BTreeMap::new();
    for stats in &snapshot.stacks {
        let process = stats.stack.process.context("a stack without a process")?;
        let sums = by_process.entry(process).or_default();
        sums.0 += stats.totals.current_bytes;
        sums.1 += stats.totals.allocated_bytes;
        sums.2 += stats.totals.allocated_count;
        sums.3 += stats.totals.freed_count;
    }
    let mut whole = (0, 0, 0, 0);
    for (n, process) in snapshot.processes.iter().enumerate() {
        let totals = process.totals;
        let own = (totals.current_bytes, totals.allocated_bytes, totals.allocated_count, totals.freed_count);
        let stacks = by_process.remove(&ProcessId(n as u32)).unwrap_or_default();
        ensure!(own == stacks, "{process:?}: its stacks sum to {stacks:?}");
        ensure!(totals.current_count == totals.allocated_count - totals.freed_count, "{totals:?}");
        // Those that are told together did not live at one time.
        ensure!(process.pid == 0 || totals.peak_bytes >= totals.current_bytes, "{totals:?}");
        whole = (whole.0 + own.0, whole.1 + own.1, whole.2 + own.2, whole.3 + own.3);
    }
    ensure!(by_process.is_empty(), "stacks of processes that are not there: {by_process:?}");
    let totals = snapshot.totals;
    let sums = (totals.current_bytes, totals.allocated_bytes, totals.allocated_count, totals.freed_count);
    ensure!(sums == whole, "{sums:?} in all, {whole:?} by processes");
    Ok(())
}

/// The one process with this id.
pub fn process(snapshot: &Snapshot, pid: u32) -> Result<&ProcessStats> {
    let mut with_pid = snapshot.processes.iter().filter(|process| process.pid == pid);
    let process = with_pid.next().with_context(|| format!("no process {pid}: {}", pids(snapshot)))?;
    ensure!(with_pid.next().is_none(), "pid {pid} is there twice: {}", pids(snapshot));
    Ok(process)
}

/// What there is, for messages.
pub fn pids(snapshot: &Snapshot) -> String {
    let told = |process: &ProcessStats| {
        let totals = process.totals;
        format!(
            "{} {} {:?} {}/{}",
            process.pid, process.comm, process.ended, totals.allocated_bytes, totals.allocated_count
        )
    };
    snapshot.processes.iter().map(told).collect::<Vec<_>>().join("; ")
}

/// Allocated bytes, allocated blocks, freed blocks.
pub fn figures(process: &ProcessStats) -> (u64, u64, u64) {
    (process.totals.allocated_bytes, process.totals.allocated_count, process.totals.freed_count)
}

/// Of what it made itself nothing went unseen.
pub fn has_lost_nothing(process: &ProcessStats) -> Result<()> {
    let is_loss = |counter: &Counter| !matches!(counter, Counter::FreesInherited | Counter::Failed);
    let lost: Vec<_> = process.counters.0.iter().filter(|(counter, n)| is_loss(counter) && **n > 0).collect();
    ensure!(lost.is_empty(), "{} ({}) lost {lost:?}", process.pid, process.comm);
    Ok(())
}
