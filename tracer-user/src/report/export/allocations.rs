//! Allocations and frees that would give a recording's figures: its snapshots know sums, and some viewers want single events.

use std::{collections::HashMap, time::Duration};

use super::Source;
use crate::{
    options::View,
    recording::Which,
    snapshot::{Owner, StackId, StackStats, Totals},
};

/// An allocation, or its free.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Event {
    /// When, at the latest: the snapshot that first counts it.
    pub at: Duration,
    /// Which stack: an index of the snapshot's.
    pub stack: usize,
    /// The same for an allocation and its free, else unique; from 1.
    pub address: u64,
    /// Bytes; negative for a free.
    pub bytes: i64,
}

/// Events written at most. A recording of many snapshots and stacks has more: then only the exported snapshot counts.
const MAX_EVENTS: usize = 2_000_000;

/// Sums of one stack until a moment.
#[derive(Clone, Copy, Debug)]
struct Until {
    at: Duration,
    allocated: u64,
    freed: u64,
}

/// All events, in the order of time. Of one stack what was allocated first is taken to be freed first: which block it was is
/// not recorded. Live, allocated and freed bytes of every stack are exact at every snapshot.
pub(super) fn events(source: &Source<'_>) -> Vec<Event> {
    let histories = match source.which {
        Which::Index(last) if source.options.view != View::Peak => recorded(source, last),
        _ => None,
    };
    let histories = histories
        .unwrap_or_else(|| source.snapshot.stacks.iter().map(|stats| vec![end(source, &stats.totals)]).collect());
    let mut events = Vec::new();
    let mut address = 0;
    for (stack, history) in histories.iter().enumerate() {
        first_in_first_out(history, |at, freed_at, size| {
            address += 1;
            let bytes = i64::try_from(size).unwrap_or(i64::MAX);
            events.push(Event { at, stack, address, bytes });
            if let Some(at) = freed_at {
                events.push(Event { at, stack, address, bytes: -bytes });
            }
        });
    }
    // Stable: an allocation stays before its free.
    events.sort_by_key(|event| event.at);
    events
}

/// The exported snapshot alone: what it calls live was allocated, and the rest of what was allocated was freed.
fn end(source: &Source<'_>, totals: &Totals) -> Until {
    let live = match source.options.view {
        View::Peak => View::Peak.size(totals),
        _ => totals.current_bytes,
    };
    let allocated = totals.allocated_bytes.max(live);
    Until { at: source.snapshot.duration, allocated, freed: allocated - live }
}

/// Each stack's sums at every snapshot up to `last` at which they changed. `None`: too many.
fn recorded(source: &Source<'_>, last: usize) -> Option<Vec<Vec<Until>>> {
    let stacks = &source.snapshot.stacks;
    let place: HashMap<StackId, usize> = stacks.iter().enumerate().map(|(at, stats)| (stats.id, at)).collect();
    // Before a process joined, its stacks may have been another's.
    let joined_at = |stats: &StackStats| source.snapshot.owner(&stats.stack).map(Owner::joined_at).unwrap_or_default();
    let joined_at: Vec<Duration> = stacks.iter().map(joined_at).collect();
    let mut histories: Vec<Vec<Until>> = vec![Vec::new(); stacks.len()];
    let mut n_changes = 0;
    source.recording.each_snapshot(|index, totals| {
        if index > last || 2 * n_changes > MAX_EVENTS {
            return;
        }
        let at = source.recording.snapshots[index].at;
        for (id, totals) in (0..).zip(totals) {
            let Some(&place) = place.get(&StackId(id)) else { continue };
            if at < joined_at[place] {
                continue;
            }
            let history = &mut histories[place];
            let (allocated, freed) = history.last().map_or((0, 0), |until| (until.allocated, until.freed));
            // Sums never shrink and nothing is freed twice, unless the recording is forged.
            let now_allocated = totals.allocated_bytes.max(allocated);
            let now_freed = now_allocated.saturating_sub(totals.current_bytes).max(freed);
            if (now_allocated, now_freed) != (allocated, freed) {
                history.push(Until { at, allocated: now_allocated, freed: now_freed });
                n_changes += 1;
            }
        }
    });
    (2 * n_changes <= MAX_EVENTS).then_some(histories)
}

/// Cuts a history into pieces: when each was allocated, when it was freed, and its bytes.
fn first_in_first_out(history: &[Until], mut piece: impl FnMut(Duration, Option<Duration>, u64)) {
    let mut allocated_before = 0;
    let mut freed_before = 0;
    let mut freeing = history.iter();
    let mut next_free = freeing.next();
    for until in history {
        let mut left = until.allocated - allocated_before;
        allocated_before = until.allocated;
        while left > 0 {
            // Frees are counted from the first byte allocated, so that each is of the oldest byte not freed yet.
            while next_free.is_some_and(|free| free.freed <= freed_before) {
                next_free = freeing.next();
            }
            let size = next_free.map_or(left, |free| left.min(free.freed - freed_before));
            piece(until.at, next_free.map(|free| free.at), size);
            freed_before += if next_free.is_some() { size } else { 0 };
            left -= size;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pieces(history: &[(u64, u64, u64)]) -> Vec<(u64, Option<u64>, u64)> {
        let history: Vec<Until> = history
            .iter()
            .map(|&(at, allocated, freed)| Until { at: Duration::from_secs(at), allocated, freed })
            .collect();
        let mut pieces = Vec::new();
        first_in_first_out(&history, |at, freed, size| pieces.push((at.as_secs(), freed.map(|at| at.as_secs()), size)));
        pieces
    }

    #[test]
    fn what_came_first_is_freed_first() {
        assert_eq!(pieces(&[(1, 100, 30)]), [(1, Some(1), 30), (1, None, 70)]);
        assert_eq!(
            pieces(&[(1, 100, 0), (2, 150, 120), (3, 150, 150)]),
            [(1, Some(2), 100), (2, Some(2), 20), (2, Some(3), 30)]
        );
        assert_eq!(pieces(&[]), []);
    }

    proptest! {
        #[test]
        fn pieces_add_up_to_the_sums_at_every_snapshot(steps in prop::collection::vec((0_u64..50, 0_u64..50), 1..12)) {
            let mut history = Vec::new();
            let (mut allocated, mut freed) = (0, 0);
            for (at, (more, less)) in (1..).zip(steps) {
                allocated += more;
                freed = (freed + less).min(allocated);
                history.push((at, allocated, freed));
            }
            let pieces = pieces(&history);
            for &(now, allocated, freed) in &history {
                let allocated_until: u64 = pieces.iter().filter(|piece| piece.0 <= now).map(|piece| piece.2).sum();
                let is_freed = |piece: &&(u64, Option<u64>, u64)| piece.1.is_some_and(|at| at <= now);
                let freed_until: u64 = pieces.iter().filter(is_freed).map(|piece| piece.2).sum();
                prop_assert_eq!((allocated_until, freed_until), (allocated, freed));
            }
            prop_assert!(pieces.iter().all(|(at, freed, size)| *size > 0 && freed.is_none_or(|freed| freed >= *at)));
        }
    }
}
