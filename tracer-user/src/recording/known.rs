//! What a recording in the making knows: modules and stacks under ids of its own (after `exec` the kernel's ids start anew),
//! and the latest totals.

use std::{
    collections::{BTreeMap, HashMap},
    path::PathBuf,
    sync::{Arc, Weak},
};

use super::{
    processes::Places,
    stacks::{StackIndex, StackTable},
};
use crate::snapshot::{
    AgeCell, Frame, Module, ModuleId, ModuleKind, ProcessId, ProcessStats, Snapshot, Stack, StackId, Totals,
};

/// Modules, stacks and latest totals.
#[derive(Debug, Default)]
pub(super) struct Known {
    /// By [`ModuleId`].
    pub(super) modules: Vec<Arc<Module>>,
    /// By [`StackId`].
    pub(super) stacks: StackTable,
    /// By [`StackId`]; as of the last snapshot that was kept.
    pub(super) latest: Vec<Totals>,
    /// By [`crate::snapshot::ProcessId`]; as of the last snapshot that was kept.
    pub(super) processes: Vec<ProcessStats>,
    index: StackIndex,
    module_ids: HashMap<ModuleKey, ModuleId>,
    /// Stacks of the last snapshot by where they lie: the kernel's reader hands out the same ones again.
    recent: HashMap<*const Stack, (Weak<Stack>, StackId)>,
    recent_modules: Vec<ModuleId>,
    recent_places: Vec<ProcessId>,
    places: Places,
}

/// What makes a module the same in two snapshots.
type ModuleKey = (ModuleKind, PathBuf, PathBuf, Option<Vec<u8>>);

/// The figures of one snapshot, under the recording's ids.
#[derive(Debug)]
pub(super) struct Figures {
    /// By [`StackId`].
    pub(super) totals: Vec<Totals>,
    /// In the order of stack and generation.
    pub(super) ages: Option<Vec<AgeCell>>,
    /// By [`crate::snapshot::ProcessId`].
    pub(super) processes: Vec<ProcessStats>,
    /// Modules that are new, or not as they were.
    pub(super) modules: Vec<ModuleId>,
}

impl Known {
    /// Gives ids to what a snapshot holds.
    pub(super) fn figures(&mut self, snapshot: &Snapshot) -> Figures {
        let mut changed = Vec::new();
        let (places, processes) = self.places.of(&snapshot.processes, self.processes.len());
        if !places.starts_with(&self.recent_places) {
            self.recent.clear();
        }
        let modules: Vec<ModuleId> = snapshot.modules.iter().map(|module| self.module(module, &mut changed)).collect();
        if !modules.starts_with(&self.recent_modules) {
            self.recent.clear();
        }
        let moved = |frame: Frame| {
            let location = frame.location.and_then(|(id, vaddr)| Some((*modules.get(id.0 as usize)?, vaddr)));
            Frame { location, ..frame }
        };
        let mut ids = HashMap::with_capacity(snapshot.stacks.len());
        let mut recent = HashMap::with_capacity(snapshot.stacks.len());
        let mut totals = Vec::new();
        for stats in &snapshot.stacks {
            let at = Arc::as_ptr(&stats.stack);
            // A weak reference keeps the place from being used again: the same place is the same stack.
            let id = if let Some((_, id)) = self.recent.get(&at) {
                *id
            } else {
                let process = stats.stack.process.and_then(|id| places.get(id.0 as usize)).copied();
                self.stacks.id(&mut self.index, &stats.stack, process, moved)
            };
            recent.insert(at, (Arc::downgrade(&stats.stack), id));
            ids.insert(stats.id, id);
            totals.resize(self.stacks.len(), Totals::default());
            // Equal chains under two ids are one stack.
            totals[id.0 as usize].add(&stats.totals);
        }
        totals.resize(self.stacks.len(), Totals::default());
        (self.recent, self.recent_modules, self.recent_places) = (recent, modules, places);
        let ages = snapshot.ages.as_ref().map(|cells| merged(cells, &ids));
        Figures { totals, ages, processes, modules: changed }
    }

    fn module(&mut self, module: &Arc<Module>, changed: &mut Vec<ModuleId>) -> ModuleId {
        let key = (module.kind, module.path.clone(), module.open_path.clone(), module.build_id.clone());
        let next = ModuleId(self.modules.len() as u32);
        let id = *self.module_ids.entry(key).or_insert(next);
        if id == next {
            self.modules.push(Arc::clone(module));
            changed.push(id);
        } else if self.modules[id.0 as usize] != *module {
            self.modules[id.0 as usize] = Arc::clone(module);
            changed.push(id);
        }
        id
    }
}

/// The cells of stacks that the snapshot holds; those of equal chains summed.
fn merged(cells: &[AgeCell], ids: &HashMap<StackId, StackId>) -> Vec<AgeCell> {
    let mut sums: BTreeMap<(StackId, u32), (u64, u64)> = BTreeMap::new();
    for cell in cells {
        if let Some(&id) = ids.get(&cell.stack) {
            let (bytes, count) = sums.entry((id, cell.generation)).or_default();
            *bytes = bytes.saturating_add(cell.bytes);
            *count = count.saturating_add(cell.count);
        }
    }
    let cell = |((stack, generation), (bytes, count))| AgeCell { stack, generation, bytes, count };
    sums.into_iter().map(cell).collect()
}
