//! The small parts of a recording: one table says which fields lie in which order.

use std::{collections::BTreeMap, sync::Arc};

use tracer_common::{addr::UserAddr, counters::Counter};

use super::wire::{Malformed, Reader, Wire, Writer};
use crate::{
    recording::{Mark, Sample, SessionInfo, SnapshotInfo, SnapshotMeta, Trigger},
    snapshot::{
        Counters, MappedBytes, Module, ModuleKind, ModuleMapping, Overhead, ProcessMemory, TargetInfo, Tid, Totals,
    },
};

macro_rules! fields {
    ($($type:ident { $($field:ident),* $(,)? $(; since $version:literal: $($new:ident),*)? })*) => {
        $(impl Wire for $type {
            fn put(&self, w: &mut Writer) {
                let Self { $($field,)* $($($new),*)? } = self;
                $($field.put(w);)*
                $($($new.put(w);)*)?
            }
            fn get(r: &mut Reader<'_>) -> Result<Self, Malformed> {
                Ok(Self {
                    $($field: Wire::get(r)?,)*
                    $($($new: if r.version() >= $version { Wire::get(r)? } else { Default::default() },)*)?
                })
            }
        })*
    };
}

fields! {
    SessionInfo { version, host, started_unix_ns, command, target, from_start, by_thread }
    TargetInfo { pid, comm, exe, running }
    SnapshotInfo { meta, at, target, totals, peak_at, counters, overhead, memory, notes; since 2: scope, mmap }
    SnapshotMeta { trigger, label, unix_ns }
    Totals {
        current_bytes, current_count, peak_bytes, peak_count, allocated_bytes, allocated_count, freed_bytes, freed_count,
        freed_within_1ms_count, freed_within_1s_count,
    }
    Overhead { hits, hits_per_second, estimated_share, kernel_map_bytes, rss_bytes }
    ProcessMemory { heap, arenas, anonymous, stacks, files, other }
    MappedBytes { size_bytes, rss_bytes, pss_bytes, n_mappings }
    Sample { at, totals, rss_bytes, pss_bytes, heap_size_bytes, paused }
    Mark { at, text }
    ModuleMapping { start, end, bias }
}

/// Where a file can be opened is a matter of the machine: only its path is kept.
impl Wire for Module {
    fn put(&self, w: &mut Writer) {
        let Self { kind, path, open_path: _, deleted, build_id, mappings } = self;
        w.number(match kind {
            ModuleKind::File => 0,
            ModuleKind::Vdso => 1,
            ModuleKind::Generated => 2,
        });
        path.put(w);
        deleted.put(w);
        w.number(u64::from(build_id.is_some()));
        if let Some(build_id) = build_id {
            w.bytes(build_id);
        }
        mappings.put(w);
    }
    fn get(r: &mut Reader<'_>) -> Result<Self, Malformed> {
        let kind = match r.number()? {
            0 => ModuleKind::File,
            1 => ModuleKind::Vdso,
            2 => ModuleKind::Generated,
            _ => return Err(Malformed::Number),
        };
        let path = std::path::PathBuf::get(r)?;
        r.charge(path.as_os_str().len() as u64, 1)?;
        Ok(Self {
            kind,
            open_path: path.clone(),
            path,
            deleted: Wire::get(r)?,
            build_id: if bool::get(r)? {
                let bytes = r.bytes()?;
                r.charge(bytes.len() as u64, 1)?;
                Some(bytes.to_vec())
            } else {
                None
            },
            mappings: Wire::get(r)?,
        })
    }
}

impl<T: Wire> Wire for Arc<T> {
    fn put(&self, w: &mut Writer) {
        T::put(self, w);
    }
    fn get(r: &mut Reader<'_>) -> Result<Self, Malformed> {
        // Beside the value: two counts.
        r.charge(1, size_of::<T>() + 16)?;
        T::get(r).map(Self::new)
    }
}

impl Wire for UserAddr {
    fn put(&self, w: &mut Writer) {
        self.0.put(w);
    }
    fn get(r: &mut Reader<'_>) -> Result<Self, Malformed> {
        u64::get(r).map(Self)
    }
}

impl Wire for Trigger {
    fn put(&self, w: &mut Writer) {
        w.number(*self as u64);
    }
    fn get(r: &mut Reader<'_>) -> Result<Self, Malformed> {
        let n = r.number()?;
        Self::ALL.into_iter().find(|trigger| *trigger as u64 == n).ok_or(Malformed::Number)
    }
}

/// By name, so that a list in another order still reads; names of counters that this version does not have are left out.
impl Wire for Counters {
    fn put(&self, w: &mut Writer) {
        w.number(self.0.len() as u64);
        for (counter, value) in &self.0 {
            w.bytes(counter.name().as_bytes());
            w.number(*value);
        }
    }
    fn get(r: &mut Reader<'_>) -> Result<Self, Malformed> {
        let mut counters = BTreeMap::new();
        for _ in 0..r.number()? {
            let (name, value) = (r.bytes()?, r.number()?);
            if let Some(&counter) = Counter::ALL.iter().find(|counter| counter.name().as_bytes() == name) {
                counters.insert(counter, value);
            }
        }
        r.charge(counters.len() as u64, 64)?;
        Ok(Self(counters))
    }
}

/// Threads with their names, ascending.
impl Wire for BTreeMap<Tid, String> {
    fn put(&self, w: &mut Writer) {
        w.number(self.len() as u64);
        for (tid, name) in self {
            w.number(u64::from(tid.0));
            name.put(w);
        }
    }
    fn get(r: &mut Reader<'_>) -> Result<Self, Malformed> {
        let n = r.count(64)?;
        (0..n).map(|_| Ok((Tid(r.number32()?), String::get(r)?))).collect()
    }
}
