//! The anonymous memory of all processes of a session.

use std::collections::HashMap;

use tracer_common::{
    peak::ScopePeak,
    ranges::{ENDED, FORKED, RangeEvent},
};

use super::{
    account::{Account, Change},
    call::Call,
    space::{AddressSpace, Noted},
};

/// A process: the serial of its target, which no other ever has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProcessKey(pub u32);

/// One process: what is mapped, and its sums.
#[derive(Clone, Debug, Default)]
pub struct ProcessRanges {
    /// What is mapped; of one that has ended, nothing.
    pub space: AddressSpace,
    /// Sums by stack; of one that has ended, as they were then.
    pub account: Account,
    /// What was met beside the totals.
    pub noted: Noted,
    /// Bytes and blocks that it had from the process that it was forked from.
    pub inherited: (u64, u64),
    has_ended: bool,
}

/// All processes.
#[derive(Clone, Debug, Default)]
pub struct Ranges {
    processes: HashMap<ProcessKey, ProcessRanges>,
    all: ScopePeak,
    peak_at_ns: Option<u64>,
    /// Of processes that were removed.
    removed: (Noted, u64),
    changes: Vec<Change>,
}

impl Ranges {
    /// Takes in what the programs tell: a call, or the begin or end of a process.
    pub fn take(&mut self, event: &RangeEvent) {
        let process = ProcessKey(event.serial);
        match event.function {
            FORKED => self.forked(ProcessKey(event.args[0] as u32), process),
            ENDED => self.ended(process),
            _ => Call::decode(event).iter().for_each(|call| self.apply(process, call)),
        }
    }

    /// Applies a finished call of a process, known or new.
    pub fn apply(&mut self, process: ProcessKey, call: &Call) {
        let ProcessRanges { space, account, noted, has_ended, .. } = self.processes.entry(process).or_default();
        if *has_ended {
            return;
        }
        self.changes.clear();
        space.apply(call, &mut self.changes);
        *noted = space.noted();
        if self.changes.is_empty() {
            return;
        }
        account.step(&self.changes, call.returned_ns);
        if self.all.change(Change::total(&self.changes)) {
            self.peak_at_ns = Some(call.returned_ns);
        }
    }

    /// A process was forked: it has what its parent has, and its sums begin at zero.
    pub fn forked(&mut self, parent: ProcessKey, child: ProcessKey) {
        let space = self.processes.get(&parent).map(|parent| parent.space.forked()).unwrap_or_default();
        let inherited = space.inherited();
        self.processes.insert(child, ProcessRanges { space, inherited, ..ProcessRanges::default() });
    }

    /// A process has ended, or has become another program: its memory is gone, its sums stay as they were.
    pub fn ended(&mut self, process: ProcessKey) {
        let Some(ended) = self.processes.get_mut(&process).filter(|process| !process.has_ended) else { return };
        ended.has_ended = true;
        ended.space = AddressSpace::default();
        self.all.change(-(ended.account.totals().current_bytes as i64));
    }

    /// Forgets a process, after its end.
    pub fn remove(&mut self, process: ProcessKey) -> Option<ProcessRanges> {
        self.ended(process);
        let removed = self.processes.remove(&process)?;
        self.removed.0.add(removed.noted);
        self.removed.1 += removed.account.given_back_bytes();
        Some(removed)
    }

    /// Where the data segment of a process ends, where its calls have not told yet.
    pub fn know_break(&mut self, process: ProcessKey, end: u64) {
        self.processes.entry(process).or_default().space.know_break(end);
    }

    /// What was met beside the totals, of all processes that ever were; and bytes that `madvise` gave back.
    pub fn noted(&self) -> (Noted, u64) {
        let (mut all, mut given_back_bytes) = self.removed;
        for process in self.processes.values() {
            all.add(process.noted);
            given_back_bytes += process.account.given_back_bytes();
        }
        (all, given_back_bytes)
    }

    /// A process.
    pub fn get(&self, process: ProcessKey) -> Option<&ProcessRanges> {
        self.processes.get(&process)
    }

    /// Mapped now by all living processes together, in bytes.
    pub fn current_bytes(&self) -> u64 {
        self.all.current_bytes
    }

    /// The most that living processes ever had mapped together, in bytes.
    pub fn peak_bytes(&self) -> u64 {
        self.all.peak_bytes
    }

    /// When that was: CLOCK_MONOTONIC, ns. `None`: nothing was ever mapped.
    pub fn peak_at_ns(&self) -> Option<u64> {
        self.peak_at_ns
    }
}
