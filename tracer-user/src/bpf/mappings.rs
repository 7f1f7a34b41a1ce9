//! The pool of mappings: each list of a target's executable mappings is a range of it.
//!
//! A list may be used by walkers, and be copied by forks, for a moment after another has taken its place: its range is handed out again
//! when no target has named it for [`GRACE`].

use std::{
    collections::{BTreeMap, HashSet},
    mem::offset_of,
    sync::atomic::Ordering::SeqCst,
    time::{Duration, Instant},
};

use tracer_common::{
    abi::{Mapping, MappingList, Target, TargetState},
    limits::MAX_MAPPINGS,
};

use super::{kernel::Kernel, retire::grace_period, targets::TargetNumber};

/// Longer than any program runs.
const GRACE: Duration = Duration::from_millis(100);

/// Which ranges of the pool are used by which lists.
#[derive(Debug)]
pub(super) struct Ranges {
    /// First element and length of what is free, never adjacent.
    free: BTreeMap<u32, u32>,
    lists: Vec<List>,
    generation: u32,
}

#[derive(Debug)]
struct List {
    word: MappingList,
    /// Since when no target was seen to name it.
    unnamed_since: Option<Instant>,
}

impl Ranges {
    pub(super) fn new(len: u32) -> Self {
        Self { free: BTreeMap::from([(0, len)]), lists: Vec::new(), generation: 0 }
    }

    /// A range for a list of so many mappings, or of fewer where there is no room.
    fn take(&mut self, wanted: u32) -> MappingList {
        let fitting = self.free.iter().find(|(_, len)| **len >= wanted);
        let Some((&start, &len)) = fitting.or_else(|| self.free.iter().max_by_key(|(_, len)| **len)) else {
            return self.next(0, 0);
        };
        let taken = wanted.min(len);
        self.free.remove(&start);
        if len > taken {
            self.free.insert(start + taken, len - taken);
        }
        self.next(start, taken)
    }

    fn next(&mut self, start: u32, len: u32) -> MappingList {
        // A word of 0 would mean that there is no list.
        self.generation = self.generation.checked_add(1).unwrap_or(1);
        let word = MappingList::new(start as u16, len as u16, self.generation);
        self.lists.push(List { word, unnamed_since: None });
        word
    }

    /// Frees lists that are not among `named` and have not been since `before`.
    fn sweep(&mut self, named: &HashSet<u64>, now: Instant, before: Option<Instant>) {
        let mut freed = Vec::new();
        self.lists.retain_mut(|list| {
            if named.contains(&list.word.0) {
                list.unnamed_since = None;
                return true;
            }
            let since = *list.unnamed_since.get_or_insert(now);
            let is_kept = before.is_none_or(|before| since > before);
            if !is_kept {
                freed.push((list.word.start(), list.word.len()));
            }
            is_kept
        });
        freed.into_iter().filter(|(_, len)| *len > 0).for_each(|(start, len)| self.free(start, len));
    }

    fn free(&mut self, mut start: u32, mut len: u32) {
        if let Some(after) = self.free.remove(&(start + len)) {
            len += after;
        }
        if let Some((&before, &before_len)) = self.free.range(..start).next_back()
            && before + before_len == start
        {
            (start, len) = (before, before_len + len);
        }
        self.free.insert(start, len);
    }

    fn largest_free(&self) -> u32 {
        self.free.values().copied().max().unwrap_or(0)
    }

    /// Number of lists that are kept.
    fn len(&self) -> usize {
        self.lists.len()
    }
}

/// Lists kept before unnamed ones are looked for.
const SWEEP_AT_LISTS: usize = 64;

impl Kernel {
    /// Puts a new list of a target's mappings (sorted by address) in force. Those past [`MAX_MAPPINGS`], and those for which the
    /// pool has no room, are left out; their number is returned.
    pub fn put_mappings(&mut self, number: TargetNumber, mappings: &[Mapping]) -> usize {
        let wanted = mappings.len().min(MAX_MAPPINGS as usize) as u32;
        if self.ranges.largest_free() < wanted || self.ranges.len() >= SWEEP_AT_LISTS {
            let now = Instant::now();
            let named = self.named_lists();
            self.ranges.sweep(&named, now, now.checked_sub(GRACE));
        }
        if self.ranges.largest_free() < wanted {
            // No program that runs now runs on when this returns: what was unnamed before it and is after it is free.
            grace_period();
            let named = self.named_lists();
            let now = Instant::now();
            self.ranges.sweep(&named, now, Some(now));
        }
        let list = self.ranges.take(wanted);
        let n = list.len() as usize;
        for (at, mapping) in (list.start() as usize..).zip(&mappings[..n]) {
            self.mappings.set(at, *mapping);
        }
        self.target_field_64(number, offset_of!(Target, mappings)).store(list.0, SeqCst);
        mappings.len() - n
    }

    /// The lists that targets name which live or are just being filled in.
    fn named_lists(&self) -> HashSet<u64> {
        (1..self.targets.len() as u32)
            .map(TargetNumber)
            .filter(|number| matches!(self.state_of(*number), TargetState::Active | TargetState::Joining))
            .map(|number| self.target_field_64(number, offset_of!(Target, mappings)).load(SeqCst))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_comes_back_when_no_target_has_named_it_for_a_while() {
        let mut ranges = Ranges::new(100);
        let (one, two) = (ranges.take(40), ranges.take(60));
        assert_eq!((one.start(), one.len(), two.start(), two.len()), (0, 40, 40, 60));
        assert_eq!(ranges.take(10).len(), 0, "nothing is left");
        let start = Instant::now();
        let named = HashSet::from([two.0]);
        ranges.sweep(&named, start, None);
        assert_eq!(ranges.largest_free(), 0, "unnamed, but only now");
        // A fork copies its word meanwhile.
        ranges.sweep(&HashSet::from([one.0, two.0]), start + GRACE, Some(start));
        ranges.sweep(&named, start + GRACE, Some(start));
        assert_eq!(ranges.largest_free(), 0, "named in between");
        ranges.sweep(&named, start + 2 * GRACE, Some(start + GRACE));
        assert_eq!(ranges.largest_free(), 40);
        let three = ranges.take(50);
        assert_eq!((three.start(), three.len()), (0, 40), "what there is room for");
        assert_ne!(three, one, "lists are told apart");
    }

    #[test]
    fn neighbouring_ranges_are_one_again() {
        let mut ranges = Ranges::new(90);
        let lists = [ranges.take(30), ranges.take(30), ranges.take(30)];
        let now = Instant::now();
        for freed in [0, 2, 1] {
            let named: HashSet<u64> =
                ranges.lists.iter().map(|list| list.word.0).filter(|word| *word != lists[freed].0).collect();
            ranges.sweep(&named, now, Some(now));
        }
        assert_eq!(ranges.free, BTreeMap::from([(0, 90)]));
    }
}
