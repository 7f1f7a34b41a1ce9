//! Where the files lie in one target's address space, now and earlier.

use tracer_common::addr::{FileVaddr, UserAddr};

use super::{Files, Process, ProcessError};
use crate::snapshot::{ModuleId, ModuleMapping};

/// The executable mappings of one target.
#[derive(Clone, Debug, Default)]
pub struct Mappings {
    /// As of the last look, sorted by address.
    current: Vec<(ModuleMapping, ModuleId)>,
    /// Those that were seen and are gone: stacks still refer to them. The latest last.
    past: Vec<(ModuleMapping, ModuleId)>,
}

/// Mappings kept that are gone: beyond it the oldest are forgotten.
const MAX_PAST: usize = 1 << 16;

/// What [`Mappings::refresh`] found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Files that no target had mapped before.
    pub fresh: Vec<ModuleId>,
    /// Files that this target had not mapped at the last look, those included.
    pub newly_mapped: Vec<ModuleId>,
    /// Whether anything is mapped otherwise than at the last look.
    pub changed: bool,
}

impl Mappings {
    /// Reads the target's mappings.
    ///
    /// # Errors
    /// They could not be read; the state is as before.
    pub fn refresh(&mut self, process: &Process, files: &mut Files) -> Result<Found, ProcessError> {
        let entries = process.maps()?;
        let mut found = Found::default();
        let mut current = Vec::new();
        for entry in entries.iter().filter(|entry| entry.executable) {
            let Some((id, is_fresh)) = files.of_mapping(process, entry) else { continue };
            if is_fresh {
                found.fresh.push(id);
            }
            if !found.newly_mapped.contains(&id) && !self.current.iter().any(|(_, known)| *known == id) {
                found.newly_mapped.push(id);
            }
            let bias = files.get(id).bias_of(entry);
            let mapping = ModuleMapping { start: entry.start, end: entry.end, bias };
            files.mapped_at(id, mapping);
            current.push((mapping, id));
        }
        current.sort_by_key(|(mapping, _)| mapping.start);
        found.changed = current != self.current;
        let gone = self.current.iter().filter(|known| !current.contains(known)).copied();
        self.past.extend(gone);
        let excess = self.past.len().saturating_sub(MAX_PAST);
        self.past.drain(..excess);
        self.current = current;
        Ok(found)
    }

    /// Executable mappings as of the last look, sorted by address.
    pub fn current(&self) -> &[(ModuleMapping, ModuleId)] {
        &self.current
    }

    /// The files mapped as of the last look, in the order of their first addresses, each once.
    pub fn files(&self) -> Vec<ModuleId> {
        let mut files = Vec::new();
        for (_, id) in &self.current {
            if !files.contains(id) {
                files.push(*id);
            }
        }
        files
    }

    /// Run-time address minus vaddr of a mapped file; 0 where it is not mapped.
    pub fn bias(&self, id: ModuleId) -> u64 {
        self.current.iter().find(|(_, of)| *of == id).map_or(0, |(mapping, _)| mapping.bias)
    }

    /// The file and vaddr of an address; libraries that were unmapped meanwhile are found where they were.
    pub fn locate(&self, addr: UserAddr) -> Option<(ModuleId, FileVaddr)> {
        let after = self.current.partition_point(|(mapping, _)| mapping.start <= addr);
        let here = |mapping: &ModuleMapping| mapping.start <= addr && addr < mapping.end;
        let now = self.current[..after].last().filter(|(mapping, _)| here(mapping));
        let found = now.or_else(|| self.past.iter().find(|(mapping, _)| here(mapping)));
        found.map(|(mapping, id)| (*id, mapping.vaddr(addr)))
    }
}
