//! Snapshots of a session → a recording in memory.

use super::{
    known::Known,
    model::{Changes, Mark, Recording, Sample, SessionInfo, SnapshotInfo, SnapshotMeta},
    processes,
    totals::{pack, pack_ages},
};
use crate::{snapshot::Snapshot, symbolize::Names};

/// Makes a recording in memory.
#[derive(Debug, Default)]
pub struct Builder {
    recording: Recording,
    known: Known,
}

impl Builder {
    /// An empty recording.
    pub fn new(session: SessionInfo) -> Self {
        Self { recording: Recording { session, ..Recording::default() }, ..Self::default() }
    }

    /// Adds a snapshot.
    pub fn snapshot(&mut self, snapshot: &Snapshot, meta: SnapshotMeta) {
        let figures = self.known.figures(snapshot);
        let totals = pack(&self.known.latest, &figures.totals);
        let ages = figures.ages.as_deref().map(pack_ages);
        let processes = processes::pack(&self.known.processes, &figures.processes);
        self.recording.changes.push(Changes { totals, ages, processes: Some(processes) });
        (self.known.latest, self.known.processes) = (figures.totals, figures.processes);
        self.recording.threads.extend(snapshot.threads.clone());
        self.recording.snapshots.push(SnapshotInfo::of(snapshot, meta));
    }

    /// Adds a sample of the series.
    pub fn sample(&mut self, sample: Sample) {
        self.recording.series.push(sample);
    }

    /// Adds a mark.
    pub fn mark(&mut self, mark: Mark) {
        self.recording.marks.push(mark);
    }

    /// The recording, with the names of its frames.
    pub fn finish(self, names: Names) -> Recording {
        let Self { recording, known } = self;
        let stacks = known.stacks.expand(0).collect();
        Recording {
            stacks,
            modules: known.modules,
            last: known.latest,
            last_processes: known.processes,
            names,
            ..recording
        }
    }
}
