//! One traced process: who it is, and where the files lie in its address space.

use std::sync::Arc;

use tokio::time::Instant;
use tracer_common::abi::{MAPPING_GENERATED, MAPPING_ROWS, Mapping};

use super::{error::TraceError, files::TracedFiles, read_module::R_STATE_OFFSET};
use crate::{
    snapshot::{ModuleId, ModuleKind, ModuleMapping, ProcessStats},
    target::{Found, Mappings, Process, ProcessError},
};

/// A process of the scope, until its figures are archived.
pub(super) struct Traced {
    /// Tells it from others that had, or will have, its target number.
    pub(super) serial: u32,
    /// `None`: it had ended before it could be opened.
    pub(super) process: Option<Arc<Process>>,
    /// Who it is; its figures are filled in when they are asked for.
    pub(super) stats: ProcessStats,
    /// Its address space as of the last look.
    pub(super) mappings: Mappings,
    /// Files that it has or had mapped.
    pub(super) mapped: Vec<ModuleId>,
    /// CPU time that it had used when it joined, in seconds. `None`: not known.
    pub(super) cpu_seconds_before: Option<f64>,
    /// When its mappings were last looked at.
    pub(super) looked_at: Instant,
    /// It ran before its files had probes.
    pub(super) is_late: bool,
    /// It was logged that it has joined.
    pub(super) is_announced: bool,
}

impl Traced {
    /// Nothing is known of its mappings yet.
    pub(super) fn new(serial: u32, process: Option<Arc<Process>>, stats: ProcessStats) -> Self {
        let cpu_seconds_before = process.as_ref().and_then(|process| process.cpu_seconds());
        Self {
            serial,
            process,
            stats,
            mappings: Mappings::default(),
            mapped: Vec::new(),
            cpu_seconds_before,
            looked_at: Instant::now(),
            is_late: false,
            is_announced: false,
        }
    }

    /// Whether it is known to run.
    pub(super) fn is_running(&self) -> bool {
        self.process.as_ref().is_some_and(|process| process.is_running())
    }

    /// Reads its mappings. Of a process that could not be opened there are none.
    ///
    /// # Errors
    /// They could not be read; the state is as before.
    pub(super) fn look(&mut self, files: &mut TracedFiles) -> Result<Found, ProcessError> {
        self.looked_at = Instant::now();
        let Some(process) = &self.process else { return Ok(Found::default()) };
        let found = self.mappings.refresh(process, &mut files.files)?;
        self.mapped
            .extend(found.newly_mapped.iter().filter(|id| !self.mapped.contains(id)).copied().collect::<Vec<_>>());
        Ok(found)
    }

    /// Its mappings as the programs search them.
    pub(super) fn kernel_mappings(&self, files: &TracedFiles) -> Vec<Mapping> {
        let mapping = |(mapping, id): &(ModuleMapping, ModuleId)| {
            let facts = files.facts(*id);
            let is_generated = files.files.get(*id).module.kind == ModuleKind::Generated;
            Mapping {
                start: mapping.start.0,
                end: mapping.end.0,
                bias: mapping.bias.wrapping_add(facts.base_vaddr),
                row_start: facts.rows.start,
                row_count: facts.rows.len,
                kind: if is_generated { MAPPING_GENERATED } else { MAPPING_ROWS },
                _pad: 0,
            }
        };
        // Of a file that is still being read nothing is told: "not loaded yet" is what its stacks are.
        self.mappings.current().iter().filter(|(_, id)| files.is_known(*id)).map(mapping).collect()
    }

    /// Run-time address of the state of its dynamic loader's list of libraries; 0: its loader does not tell. `None`: it has no
    /// loader that gives notice.
    pub(super) fn r_state(&self, files: &TracedFiles) -> Option<u64> {
        self.mappings.files().into_iter().find_map(|id| {
            let notice = files.facts(id).library_notice?;
            let bias = self.mappings.bias(id);
            Some(notice.r_debug.map_or(0, |r_debug| r_debug.0.wrapping_add(bias) + R_STATE_OFFSET))
        })
    }

    /// Whether any of its files defines functions that are probed.
    pub(super) fn has_sites(&self, files: &TracedFiles) -> bool {
        self.mapped.iter().any(|id| files.has_sites(*id))
    }

    /// The error that says which of its files were looked at in vain.
    pub(super) fn no_allocator(&self, files: &TracedFiles) -> TraceError {
        let exe = self.process.as_ref().and_then(|process| process.exe.as_deref());
        TraceError::NoAllocator {
            pid: self.stats.pid,
            comm: self.stats.comm.clone(),
            looked_at: files.names(&self.mapped),
            hint: files.hint(&self.mapped, exe).unwrap_or_default(),
        }
    }
}
