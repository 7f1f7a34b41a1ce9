//! One traced process: who it is, and where the files lie in its address space.

use std::sync::Arc;

use tracer_common::abi::{MAPPING_GENERATED, MAPPING_ROWS, Mapping};

use super::{error::TraceError, files::TracedFiles, read_module::R_STATE_OFFSET};
use crate::{
    snapshot::{ModuleId, ModuleKind},
    target::{Mappings, Process},
};

/// A process of the scope that has not ended.
pub(super) struct Traced {
    /// The process.
    pub(super) process: Arc<Process>,
    /// Its address space as of the last look.
    pub(super) mappings: Mappings,
    /// Files that it has or had mapped, whose probes are attached for it.
    pub(super) attached: Vec<ModuleId>,
}

impl Traced {
    /// Nothing is known of its mappings yet.
    pub(super) fn new(process: Arc<Process>) -> Self {
        Self { process, mappings: Mappings::default(), attached: Vec::new() }
    }

    /// Its mappings as the programs search them.
    pub(super) fn kernel_mappings(&self, files: &TracedFiles) -> Vec<Mapping> {
        let mapping = |(mapping, id): &(crate::snapshot::ModuleMapping, ModuleId)| {
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
        self.mappings.current().iter().map(mapping).collect()
    }

    /// Run-time address of the state of its dynamic loader's list of libraries. `None`: it has no loader that tells; 0: one that
    /// does not tell its state.
    pub(super) fn r_state(&self, files: &TracedFiles) -> Option<u64> {
        self.mappings.files().into_iter().find_map(|id| {
            let notice = files.facts(id).library_notice?;
            let bias = self.mappings.bias(id);
            Some(notice.r_debug.map_or(0, |r_debug| r_debug.0.wrapping_add(bias) + R_STATE_OFFSET))
        })
    }

    /// Whether any allocator function of its files is probed.
    pub(super) fn has_sites(&self, files: &TracedFiles) -> bool {
        self.attached.iter().any(|id| !files.facts(*id).bindings.is_empty())
    }

    /// The error that says which of its files were looked at in vain.
    pub(super) fn no_allocator(&self, files: &TracedFiles) -> TraceError {
        let mapped = &self.attached;
        TraceError::NoAllocator {
            pid: self.process.pid,
            comm: self.process.comm.clone(),
            looked_at: files.names(mapped),
            hint: files.hint(mapped, self.process.exe.as_deref()).unwrap_or(""),
        }
    }
}
