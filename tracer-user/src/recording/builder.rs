//! Snapshots of a session → a recording. Stacks and modules are kept once, under ids of the recording's own: after `exec` the
//! kernel's ids start anew.

use std::{collections::HashMap, sync::Arc};

use tracer_common::addr::FileVaddr;

use super::model::{Changes, Mark, Recording, Sample, SessionInfo, SnapshotInfo, SnapshotMeta};
use crate::{
    snapshot::{AgeCell, Frame, Module, ModuleId, Snapshot, Stack, StackId, Totals},
    symbolize::Names,
};

/// Makes a recording in memory.
#[derive(Debug, Default)]
pub struct Builder {
    recording: Recording,
    stack_ids: HashMap<Arc<Stack>, StackId>,
    module_ids: HashMap<ModuleKey, ModuleId>,
    latest: Vec<Totals>,
}

/// What makes a module the same in two snapshots.
type ModuleKey = (crate::snapshot::ModuleKind, std::path::PathBuf, std::path::PathBuf, Option<Vec<u8>>);

impl Builder {
    /// An empty recording.
    pub fn new(session: SessionInfo) -> Self {
        Self { recording: Recording { session, ..Recording::default() }, ..Self::default() }
    }

    /// Adds a snapshot.
    pub fn snapshot(&mut self, snapshot: &Snapshot, meta: SnapshotMeta) {
        let modules: Vec<ModuleId> = snapshot.modules.iter().map(|module| self.module(module)).collect();
        let mut ids = HashMap::new();
        let mut changes = Changes::default();
        let mut now: HashMap<StackId, Totals> = HashMap::new();
        for stack in &snapshot.stacks {
            let id = self.stack(&stack.stack, &modules);
            ids.insert(stack.id, id);
            // Equal chains under two ids are one stack.
            now.entry(id).or_default().add(&stack.totals);
        }
        for (at, known) in self.latest.iter_mut().enumerate() {
            let id = StackId(at as u32);
            let totals = now.get(&id).copied().unwrap_or_default();
            if *known != totals {
                *known = totals;
                changes.totals.push((id, totals));
            }
        }
        changes.ages = snapshot.ages.as_ref().map(|cells| {
            cells.iter().filter_map(|cell| ids.get(&cell.stack).map(|&stack| AgeCell { stack, ..*cell })).collect()
        });
        self.recording.threads.extend(snapshot.threads.clone());
        self.recording.snapshots.push(SnapshotInfo {
            meta,
            at: snapshot.duration,
            target: snapshot.target.clone(),
            totals: snapshot.totals,
            peak_at: snapshot.peak_at,
            counters: snapshot.counters.clone(),
            overhead: snapshot.overhead,
            memory: snapshot.memory,
            notes: snapshot.notes.clone(),
        });
        self.recording.changes.push(changes);
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
    pub fn finish(mut self, names: Names) -> Recording {
        self.recording.names = names;
        self.recording
    }

    fn module(&mut self, module: &Arc<Module>) -> ModuleId {
        let key = (module.kind, module.path.clone(), module.open_path.clone(), module.build_id.clone());
        let next = ModuleId(self.recording.modules.len() as u32);
        let id = *self.module_ids.entry(key).or_insert(next);
        if id == next {
            self.recording.modules.push(Arc::clone(module));
        } else {
            self.recording.modules[id.0 as usize] = Arc::clone(module);
        }
        id
    }

    fn stack(&mut self, stack: &Arc<Stack>, modules: &[ModuleId]) -> StackId {
        let moved = |(id, vaddr): (ModuleId, FileVaddr)| Some((*modules.get(id.0 as usize)?, vaddr));
        let same = stack.frames.iter().all(|frame| frame.location.is_none_or(|at| moved(at) == Some(at)));
        let stack = if same {
            Arc::clone(stack)
        } else {
            let frame = |frame: &Frame| Frame { location: frame.location.and_then(moved), ..*frame };
            Arc::new(Stack { frames: stack.frames.iter().map(frame).collect(), ..Stack::clone(stack) })
        };
        if let Some(&known) = self.stack_ids.get(&stack) {
            return known;
        }
        let id = StackId(self.recording.stacks.len() as u32);
        self.recording.stacks.push(Arc::clone(&stack));
        self.latest.push(Totals::default());
        self.stack_ids.insert(stack, id);
        id
    }
}
