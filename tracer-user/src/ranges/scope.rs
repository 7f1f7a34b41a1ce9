//! The anonymous memory of all processes of a session.

use std::collections::HashMap;

use tracer_common::peak::ScopePeak;

use super::{
    account::{Account, Change},
    call::Call,
    space::AddressSpace,
};

/// A process, as the programs' events name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProcessKey(pub u32);

/// One process: what is mapped, and its sums.
#[derive(Clone, Debug, Default)]
pub struct ProcessRanges {
    /// What is mapped.
    pub space: AddressSpace,
    /// Sums by stack.
    pub account: Account,
}

/// All processes.
#[derive(Clone, Debug, Default)]
pub struct Ranges {
    processes: HashMap<ProcessKey, ProcessRanges>,
    peak: ScopePeak,
    changes: Vec<Change>,
}

impl Ranges {
    /// Applies a finished call of a process, known or new.
    pub fn apply(&mut self, process: ProcessKey, call: &Call) {
        let ProcessRanges { space, account } = self.processes.entry(process).or_default();
        self.changes.clear();
        space.apply(call, &mut self.changes);
        if !self.changes.is_empty() {
            account.step(&self.changes, call.returned_ns);
            self.peak.change(Change::total(&self.changes));
        }
    }

    /// A process was forked: it has what its parent has, and its sums begin at zero. The bytes and blocks that it inherits.
    pub fn forked(&mut self, parent: ProcessKey, child: ProcessKey) -> (u64, u64) {
        let space = self.processes.get(&parent).map(|parent| parent.space.forked()).unwrap_or_default();
        let inherited = space.inherited();
        self.processes.insert(child, ProcessRanges { space, account: Account::default() });
        inherited
    }

    /// A process has ended, or has become another program: its memory is gone, its sums are handed over as they were then.
    pub fn ended(&mut self, process: ProcessKey) -> Option<ProcessRanges> {
        let ended = self.processes.remove(&process)?;
        self.peak.change(-(ended.account.totals().current_bytes as i64));
        Some(ended)
    }

    /// Where the data segment of a process ends.
    pub fn set_break(&mut self, process: ProcessKey, end: u64) {
        self.processes.entry(process).or_default().space.set_break(end);
    }

    /// A process.
    pub fn get(&self, process: ProcessKey) -> Option<&ProcessRanges> {
        self.processes.get(&process)
    }

    /// The processes that have not ended, in no order.
    pub fn processes(&self) -> impl Iterator<Item = (ProcessKey, &ProcessRanges)> {
        self.processes.iter().map(|(key, process)| (*key, process))
    }

    /// The highest total that all processes ever had together, in bytes.
    pub fn peak_bytes(&self) -> u64 {
        self.peak.peak_bytes
    }
}
