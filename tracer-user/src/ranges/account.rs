//! Sums of one process by stack, and its exact peak.

use std::collections::HashMap;

use tracer_common::{
    abi::Lifetime,
    peak::{ScopePeak, StackPeak},
};

use crate::snapshot::Totals;

/// One part of what a call changed. All parts of a call are one step of the total.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// A block was mapped.
    Born {
        /// By this stack.
        stack: u32,
        /// Its size.
        bytes: u64,
    },
    /// Bytes of a block are no longer mapped.
    Ended {
        /// The stack that had mapped it.
        stack: u32,
        /// How many.
        bytes: u64,
        /// Set when nothing is left of the block: how long it was there.
        last: Option<Lifetime>,
    },
    /// Bytes of a block were given back, and stay mapped.
    GivenBack {
        /// The stack that had mapped it.
        stack: u32,
        /// How many.
        bytes: u64,
    },
}

impl Change {
    /// What it adds to the mapped bytes.
    fn bytes(self) -> i64 {
        match self {
            Self::Born { bytes, .. } => bytes as i64,
            Self::Ended { bytes, .. } => -(bytes as i64),
            Self::GivenBack { .. } => 0,
        }
    }

    /// What all of them add to the mapped bytes.
    pub fn total(changes: &[Self]) -> i64 {
        changes.iter().map(|change| change.bytes()).sum()
    }
}

/// Sums of one process.
#[derive(Clone, Debug, Default)]
pub struct Account {
    stacks: HashMap<u32, Sums>,
    peak: ScopePeak,
    peak_at_ns: Option<u64>,
    given_back_bytes: u64,
}

/// Sums of one stack.
#[derive(Clone, Copy, Debug, Default)]
struct Sums {
    allocated_bytes: u64,
    allocated_count: u64,
    freed_bytes: u64,
    freed_counts: [u64; Lifetime::COUNT],
    given_back_bytes: u64,
    peak: StackPeak,
}

impl Account {
    /// Takes in what one call changed.
    pub fn step(&mut self, changes: &[Change], now_ns: u64) {
        let new_peak = self.peak.change(Change::total(changes));
        if new_peak {
            self.peak_at_ns = Some(now_ns);
        }
        let epoch = self.peak.epoch;
        for &change in changes {
            let (Change::Born { stack, .. } | Change::Ended { stack, .. } | Change::GivenBack { stack, .. }) = change;
            let sums = self.stacks.entry(stack).or_default();
            match change {
                Change::Born { bytes, .. } => {
                    sums.peak.change(epoch, new_peak, bytes as i64, 1);
                    sums.allocated_bytes += bytes;
                    sums.allocated_count += 1;
                }
                Change::Ended { bytes, last, .. } => {
                    sums.peak.change(epoch, new_peak, -(bytes as i64), -i64::from(last.is_some()));
                    sums.freed_bytes += bytes;
                    if let Some(lifetime) = last {
                        sums.freed_counts[lifetime as usize] += 1;
                    }
                }
                Change::GivenBack { bytes, .. } => {
                    sums.given_back_bytes += bytes;
                    self.given_back_bytes += bytes;
                }
            }
        }
    }

    /// Totals by stack, in no order.
    pub fn stacks(&self) -> impl Iterator<Item = (u32, Totals)> + '_ {
        self.stacks.iter().map(|(stack, sums)| (*stack, sums.totals(self.peak.epoch)))
    }

    /// Sums over all stacks.
    pub fn totals(&self) -> Totals {
        let mut totals = Totals::default();
        self.stacks().for_each(|(_, stack)| totals.add(&stack));
        totals
    }

    /// When the highest total was reached: CLOCK_MONOTONIC, ns. `None`: nothing was ever mapped.
    pub fn peak_at_ns(&self) -> Option<u64> {
        self.peak_at_ns
    }

    /// Bytes that `madvise` gave back, each time anew.
    pub fn given_back_bytes(&self) -> u64 {
        self.given_back_bytes
    }

    /// The same by the stack that had mapped them; those of nothing are left out.
    pub fn given_back(&self) -> impl Iterator<Item = (u32, u64)> + '_ {
        let given_back = self.stacks.iter().map(|(stack, sums)| (*stack, sums.given_back_bytes));
        given_back.filter(|(_, bytes)| *bytes > 0)
    }
}

impl Sums {
    fn totals(&self, epoch: u64) -> Totals {
        let (peak_bytes, peak_count) = self.peak.at_peak(epoch);
        let [within_1ms, within_1s, longer] = self.freed_counts;
        Totals {
            current_bytes: self.peak.live_bytes,
            current_count: self.peak.live_count,
            peak_bytes,
            peak_count,
            allocated_bytes: self.allocated_bytes,
            allocated_count: self.allocated_count,
            freed_bytes: self.freed_bytes,
            freed_count: within_1ms + within_1s + longer,
            freed_within_1ms_count: within_1ms,
            freed_within_1s_count: within_1ms + within_1s,
        }
    }
}
