//! Which counters mean that figures miss something.

use tracer_common::counters::Counter;

use super::model::Counters;

/// Counters of calls or events that the figures miss.
pub const LOSSES: &[Counter] = &[
    Counter::BlocksFull,
    Counter::StacksFull,
    Counter::ThreadsFull,
    Counter::TargetsFull,
    Counter::LostReturns,
    Counter::UnpairedReturns,
    Counter::MissedFrees,
    Counter::OutUnreadable,
    Counter::EventsLost,
    Counter::MappingsLost,
    Counter::MappingReturnsLost,
    Counter::UnmapsMissed,
    Counter::RunsMissed,
    Counter::JoinedLate,
];

/// Counters that are a loss when every block was seen from the start, and ordinary after an attach.
pub const LOSSES_FROM_START: &[Counter] = &[Counter::ReallocsUnknown];

impl Counters {
    /// The losses that were met, each with its amount.
    pub fn losses(&self) -> impl Iterator<Item = (Counter, u64)> {
        LOSSES.iter().map(|&counter| (counter, self.get(counter))).filter(|(_, amount)| *amount > 0)
    }
}
