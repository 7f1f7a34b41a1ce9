//! The recording that a session keeps: which snapshots and samples go in, on whose clock, and what becomes of a failed write.

use std::{
    ffi::OsString,
    fs,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use super::{output::Output, tracer::Tracer};
use crate::{
    options::RecordOptions,
    recording::{Mark, RecordError, Recorder, Sample, SessionInfo, Slot, SnapshotMeta, Trigger},
    report::format::{escaped, size},
    snapshot::{MappedBytes, ProcessMemory, Totals},
    symbolize::Names,
    target::memory,
    text::chain,
};

/// A recording being made.
pub(super) struct LiveRecording {
    recorder: Recorder,
    options: RecordOptions,
    /// Zero of the recording's clock: tracing began.
    began: Instant,
    /// What is added to the tracer's clock: another program's began later (exec).
    offset: Duration,
    /// The tracer's clock at each snapshot of its own.
    taken_at: Vec<Duration>,
    /// Snapshots taken of earlier programs.
    n_of_earlier: usize,
    /// Bytes live at the last snapshot.
    last_bytes: u64,
    missing: Missing,
}

/// Snapshots that could not be written.
#[derive(Debug, Default)]
struct Missing {
    n: u64,
    /// When the first of them was to be taken.
    since: Duration,
    /// What the notes say of them.
    note: String,
}

impl Missing {
    /// One more. The note that was, and the one that takes its place.
    fn add(&mut self, at: Duration, trigger: Trigger, error: &RecordError) -> (String, String) {
        self.n += 1;
        let note = match self.n {
            1 => {
                self.since = at;
                format!("a snapshot ({}) is missing", trigger.name())
            }
            n => {
                let (from, to) = (self.since.as_secs_f64(), at.as_secs_f64());
                format!("{n} snapshots are missing, the first at {from:.1} s, the last at {to:.1} s")
            }
        };
        let note = format!("{note}: {}", chain(error));
        (std::mem::replace(&mut self.note, note.clone()), note)
    }
}

/// A snapshot that was taken.
#[derive(Debug)]
pub(super) struct Taken {
    /// Its place in the recording.
    pub(super) number: usize,
    /// What was live.
    pub(super) totals: Totals,
}

impl LiveRecording {
    /// Number of snapshots in the file.
    pub(super) fn n_snapshots(&self) -> usize {
        self.recorder.n_snapshots()
    }

    /// From here on the tracer is that of another program.
    pub(super) fn follow(&mut self, tracer: &Tracer) {
        self.align(tracer);
        self.n_of_earlier = self.n_snapshots();
        self.taken_at.clear();
    }

    /// The tracer's clock has begun anew.
    pub(super) fn align(&mut self, tracer: &Tracer) {
        self.offset = self.began.elapsed().saturating_sub(tracer.elapsed());
    }

    /// Takes a snapshot.
    ///
    /// # Errors
    /// It could not be written; the next one is tried all the same. The tracer's notes say so.
    pub(super) fn snapshot(
        &mut self,
        tracer: &mut Tracer,
        trigger: Trigger,
        label: Option<String>,
    ) -> Result<Taken, RecordError> {
        // Ages take one look at every block, and most of the room of a snapshot.
        let with_ages = label.is_some() || trigger == Trigger::End;
        let mut snapshot = if with_ages { tracer.snapshot_with_ages(&self.taken_at) } else { tracer.snapshot() };
        let taken_at = snapshot.duration;
        snapshot.duration += self.offset;
        snapshot.peak_at = snapshot.peak_at.map(|at| at + self.offset);
        for cell in snapshot.ages.iter_mut().flatten() {
            cell.generation += self.n_of_earlier as u32;
        }
        // A target that has ended has none; that of many processes is theirs.
        snapshot.memory = tracer.process().and_then(|process| memory::read(process.pid).ok());
        let sample = Sample { at: snapshot.duration, totals: snapshot.totals, ..self.now(tracer, snapshot.memory) };
        self.push(tracer, sample);
        let number = self.n_snapshots();
        let meta = SnapshotMeta { trigger, label, unix_ns: unix_ns() };
        if let Err(error) = self.recorder.snapshot(&snapshot, meta) {
            let (earlier, note) = self.missing.add(snapshot.duration, trigger, &error);
            tracer.note_in_place_of(&earlier, note);
            return Err(error);
        }
        self.taken_at.push(taken_at);
        self.last_bytes = snapshot.totals.current_bytes;
        Ok(Taken { number, totals: snapshot.totals })
    }

    /// Adds a sample to the series. Whether the target has grown so much since the last snapshot that another is due.
    pub(super) fn sample(&mut self, tracer: &mut Tracer) -> bool {
        let sample = self.now(tracer, None);
        self.push(tracer, sample);
        self.options
            .snapshot_on_growth
            .is_some_and(|share| share.is_reached(self.last_bytes, sample.totals.current_bytes))
    }

    /// Time since the recording began.
    pub(super) fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    /// Adds a mark at this moment.
    pub(super) fn mark(&mut self, tracer: &mut Tracer, text: String) {
        self.mark_at(tracer, self.elapsed(), text);
    }

    fn mark_at(&mut self, tracer: &mut Tracer, at: Duration, text: String) {
        self.recorder.mark(Mark { at, text });
        let written = self.recorder.flush();
        note_unwritten(tracer, written);
    }

    /// Counting has stopped, or goes on, since `at`: the series and the marks show the gap.
    pub(super) fn mark_gap(&mut self, tracer: &mut Tracer, at: Duration, text: &str) {
        let sample = Sample { at, ..self.now(tracer, None) };
        self.push(tracer, sample);
        self.mark_at(tracer, at, text.to_owned());
    }

    /// The program that ends now is named while its files are open; what was learnt is kept for the end.
    pub(super) fn learn_names(&self, output: &mut Output) {
        self.names(output);
    }

    /// Puts the names of all that was recorded into the file, and closes it. The line that tells the user.
    ///
    /// # Errors
    /// The file could not be written to its end.
    pub(super) fn finish(self, output: &mut Output) -> Result<String, RecordError> {
        let names = self.names(output);
        let (n, path) = (self.n_snapshots(), self.options.path);
        self.recorder.finish(&names)?;
        let bytes = fs::metadata(&path).map_or(0, |file| file.len());
        let path = escaped(&path.to_string_lossy());
        let plural = if n == 1 { "" } else { "s" };
        Ok(format!("recorded {n} snapshot{plural} to {path} ({}): memtrace-bpf report {path}", size(bytes)))
    }

    fn names(&self, output: &mut Output) -> Names {
        output.names(self.recorder.modules(), self.recorder.locations())
    }

    /// A sample of this moment; `memory` is read with snapshots only.
    fn now(&self, tracer: &Tracer, memory: Option<ProcessMemory>) -> Sample {
        Sample {
            at: self.elapsed(),
            totals: tracer.totals(),
            rss_bytes: tracer.rss_bytes(),
            pss_bytes: memory.map(|memory| kinds(&memory).iter().map(|kind| kind.pss_bytes).sum()),
            heap_size_bytes: memory.map(|memory| memory.heap.size_bytes + memory.arenas.size_bytes),
            paused: tracer.is_paused(),
        }
    }

    fn push(&mut self, tracer: &mut Tracer, sample: Sample) {
        let written = self.recorder.sample(sample);
        note_unwritten(tracer, written);
    }
}

/// A full disk is no reason to end a session: what waits goes with the next snapshot.
fn note_unwritten(tracer: &mut Tracer, written: Result<(), RecordError>) {
    if let Err(error) = written {
        tracer.note(format!("samples and marks wait to be recorded: {}", chain(&error)));
    }
}

fn kinds(memory: &ProcessMemory) -> [MappedBytes; 6] {
    let ProcessMemory { heap, arenas, anonymous, stacks, files, other } = *memory;
    [heap, arenas, anonymous, stacks, files, other]
}

fn unix_ns() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64)
}

/// What is recorded, where and how.
pub(super) fn session_info(tracer: &Tracer, command: &[OsString], by_thread: bool) -> SessionInfo {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let snapshot = tracer.snapshot();
    SessionInfo {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        host: format!("{} {}", release.trim(), std::env::consts::ARCH),
        started_unix_ns: unix_ns(),
        command: command.iter().map(|argument| argument.to_string_lossy().into_owned()).collect(),
        target: snapshot.target,
        from_start: snapshot.from_start,
        by_thread,
    }
}

/// The file of a recording to come, held before the target is touched. One that was made for this is taken away again when no
/// recording comes of it.
#[derive(Debug)]
pub(super) struct Reserved {
    slot: Option<Slot>,
    options: RecordOptions,
    is_new: bool,
}

impl Reserved {
    /// Opens the file without changing it.
    ///
    /// # Errors
    /// It cannot be made or written, or is something else.
    pub(super) fn new(options: RecordOptions) -> Result<Self, RecordError> {
        let is_new = !options.path.exists();
        Ok(Self { slot: Some(Slot::open(&options.path)?), options, is_new })
    }

    /// Begins the recording at this moment.
    ///
    /// # Errors
    /// The file cannot be written.
    pub(super) fn begin(mut self, session: &SessionInfo) -> Result<LiveRecording, RecordError> {
        let slot = self.slot.take().expect("taken here only");
        let recorder = slot.begin(session)?;
        self.is_new = false;
        Ok(LiveRecording {
            recorder,
            options: self.options.clone(),
            began: Instant::now(),
            offset: Duration::ZERO,
            taken_at: Vec::new(),
            n_of_earlier: 0,
            last_bytes: 0,
            missing: Missing::default(),
        })
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        if self.is_new
            && let Err(error) = fs::remove_file(&self.options.path)
        {
            log::debug!("failed to remove `{}`: {error}", self.options.path.display());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_missing_snapshot_counts() {
        let error = || RecordError::Write { path: "a.mtb".into(), source: std::io::Error::other("no room") };
        let mut missing = Missing::default();
        let (earlier, first) = missing.add(Duration::from_millis(1200), Trigger::Interval, &error());
        assert_eq!((&*earlier, &*first), ("", "a snapshot (interval) is missing: failed to write `a.mtb`: no room"));
        missing.add(Duration::from_millis(1300), Trigger::Interval, &error());
        let (earlier, third) = missing.add(Duration::from_millis(1500), Trigger::Signal, &error());
        assert!(earlier.starts_with("2 snapshots are missing"), "{earlier}");
        let said = "3 snapshots are missing, the first at 1.2 s, the last at 1.5 s: failed to write `a.mtb`: no room";
        assert_eq!(third, said);
    }
}
