//! The interval model against brute force: a table of pages, each with the block that it belongs to.

use std::collections::{BTreeMap, HashMap};

use proptest::{prelude::*, sample::Index};
use tracer_user::{
    ranges::{Call, Operation, PAGE_BYTES, ProcessKey, Ranges},
    snapshot::Totals,
};

/// Pages of the arena that random calls work on.
const PAGES: u64 = 48;
/// Pages that the data segment may take, behind the arena.
const BREAK_PAGES: u64 = 16;
const N_STACKS: u32 = 4;
const PROCESS: ProcessKey = ProcessKey(7);

/// What was mapped by one call.
#[derive(Clone, Copy, Debug)]
struct Block {
    stack: u32,
}

/// The truth, page by page.
#[derive(Clone, Debug, Default)]
struct PageTable {
    pages: BTreeMap<u64, usize>,
    blocks: Vec<Block>,
    break_page: u64,
    allocated: HashMap<u32, (u64, u64)>,
    peak_bytes: u64,
    /// Bytes and blocks by stack at the first moment of the highest total.
    at_peak: BTreeMap<u32, (u64, u64)>,
}

impl PageTable {
    fn new() -> Self {
        Self { break_page: PAGES, ..Self::default() }
    }

    fn map(&mut self, start: u64, n: u64, stack: u32) {
        self.blocks.push(Block { stack });
        for page in start..start + n {
            self.pages.insert(page, self.blocks.len() - 1);
        }
        let allocated = self.allocated.entry(stack).or_default();
        *allocated = (allocated.0 + n * PAGE_BYTES, allocated.1 + 1);
    }

    fn unmap(&mut self, start: u64, n: u64) {
        for page in start..start + n {
            self.pages.remove(&page);
        }
    }

    fn live(&self) -> BTreeMap<u32, (u64, u64)> {
        let mut live: BTreeMap<u32, (u64, u64)> = BTreeMap::new();
        let mut seen = vec![false; self.blocks.len()];
        for &block in self.pages.values() {
            let sums = live.entry(self.blocks[block].stack).or_default();
            sums.0 += PAGE_BYTES;
            sums.1 += u64::from(!std::mem::replace(&mut seen[block], true));
        }
        live
    }

    fn step_done(&mut self) {
        let total = self.pages.len() as u64 * PAGE_BYTES;
        if total > self.peak_bytes {
            (self.peak_bytes, self.at_peak) = (total, self.live());
        }
    }

    /// A run of `n` pages of the arena in which nothing of the truth lies, as the kernel would choose one.
    fn free_run(&self, n: u64, pick: Index) -> Option<u64> {
        let runs: Vec<u64> =
            (0..=PAGES.saturating_sub(n)).filter(|at| self.pages.range(*at..at + n).next().is_none()).collect();
        (!runs.is_empty() && n <= PAGES).then(|| runs[pick.index(runs.len())])
    }
}

#[derive(Clone, Debug)]
enum Event {
    Map { n: u64, pick: Index, stack: u32 },
    Fixed { at: u64, n: u64, stack: u32, anonymous: bool },
    Unmap { at: u64, n: u64 },
    Remap { at: u64, old: u64, new: u64, pick: Index, stack: u32, keeps_old: bool },
    Break { at: u64, stack: u32 },
    ByAllocator { at: u64, n: u64 },
}

fn event() -> impl Strategy<Value = Event> {
    let stack = 0..N_STACKS;
    let at = 0..PAGES - 8;
    prop_oneof![
        4 => (1..8u64, any::<Index>(), stack.clone()).prop_map(|(n, pick, stack)| Event::Map { n, pick, stack }),
        2 => (at.clone(), 1..8u64, stack.clone(), any::<bool>())
            .prop_map(|(at, n, stack, anonymous)| Event::Fixed { at, n, stack, anonymous }),
        3 => (at.clone(), 1..8u64).prop_map(|(at, n)| Event::Unmap { at, n }),
        3 => (at.clone(), 0..6u64, 1..8u64, any::<Index>(), stack.clone(), any::<bool>()).prop_map(
            |(at, old, new, pick, stack, keeps_old)| Event::Remap { at, old, new, pick, stack, keeps_old }
        ),
        1 => (0..BREAK_PAGES, stack).prop_map(|(at, stack)| Event::Break { at, stack }),
        1 => (at, 1..8u64).prop_map(|(at, n)| Event::ByAllocator { at, n }),
    ]
}

/// Does an event to the truth; the call that the model is told, if the event can happen.
fn happen(truth: &mut PageTable, event: &Event) -> Option<(Operation, u32, bool)> {
    let bytes = |pages: u64| pages * PAGE_BYTES;
    match *event {
        Event::Map { n, pick, stack } => {
            let at = truth.free_run(n, pick)?;
            truth.map(at, n, stack);
            Some((Operation::Map { start: bytes(at), bytes: bytes(n), anonymous: true, fixed: false }, stack, false))
        }
        Event::Fixed { at, n, stack, anonymous } => {
            truth.unmap(at, n);
            if anonymous {
                truth.map(at, n, stack);
            }
            Some((Operation::Map { start: bytes(at), bytes: bytes(n), anonymous, fixed: true }, stack, false))
        }
        Event::Unmap { at, n } => {
            truth.unmap(at, n);
            Some((Operation::Unmap { start: bytes(at), bytes: bytes(n) }, 0, false))
        }
        Event::Remap { at, old, new, pick, stack, keeps_old } => {
            // The kernel takes memory of one mapping only: known or unknown as a whole.
            let known = (at..at + old.max(1)).filter(|page| truth.pages.contains_key(page)).count() as u64;
            if known != 0 && known != old.max(1) {
                return None;
            }
            let keeps_old = keeps_old || old == 0;
            let in_place = !keeps_old && truth.pages.range(at + old..at + new.max(old)).next().is_none();
            let to = if in_place { at } else { truth.free_run(new, pick)? };
            // Unknown memory lies in the arena too, where the truth sees nothing.
            if known == 0 && !in_place && to < at + old && at < to + new {
                return None;
            }
            if !keeps_old {
                truth.unmap(at, old);
            }
            if known > 0 {
                truth.map(to, new, stack);
            }
            let (old_start, start) = (bytes(at), bytes(to));
            let (old_bytes, bytes) = (bytes(old), bytes(new));
            Some((Operation::Remap { old_start, old_bytes, start, bytes, keeps_old, fixed: false }, stack, false))
        }
        Event::Break { at, stack } => {
            let (before, to) = (truth.break_page, PAGES + at);
            if to > before {
                truth.map(before, to - before, stack);
            } else {
                truth.unmap(to, before - to);
            }
            truth.break_page = to;
            Some((Operation::Break { end: bytes(to) }, stack, false))
        }
        Event::ByAllocator { at, n } => {
            truth.unmap(at, n);
            Some((Operation::Map { start: bytes(at), bytes: bytes(n), anonymous: true, fixed: true }, 0, true))
        }
    }
}

fn compare(ranges: &Ranges, truth: &PageTable) -> Result<(), TestCaseError> {
    let Some(process) = ranges.get(PROCESS) else {
        prop_assert!(truth.pages.is_empty());
        return Ok(());
    };
    let mut pages = BTreeMap::new();
    for (range, stack) in process.space.ranges() {
        prop_assert!(range.start < range.end);
        for page in range.start / PAGE_BYTES..range.end / PAGE_BYTES {
            prop_assert!(pages.insert(page, stack).is_none(), "two ranges hold page {}", page);
        }
    }
    let expected: BTreeMap<u64, u32> =
        truth.pages.iter().map(|(page, block)| (*page, truth.blocks[*block].stack)).collect();
    prop_assert_eq!(pages, expected);
    let live = truth.live();
    for (stack, totals) in process.account.stacks() {
        let (current_bytes, current_count) = live.get(&stack).copied().unwrap_or_default();
        let (allocated_bytes, allocated_count) = truth.allocated.get(&stack).copied().unwrap_or_default();
        prop_assert_eq!((totals.current_bytes, totals.current_count), (current_bytes, current_count));
        prop_assert_eq!((totals.allocated_bytes, totals.allocated_count), (allocated_bytes, allocated_count));
        prop_assert_eq!(totals.freed_bytes, allocated_bytes - current_bytes);
        prop_assert_eq!(totals.freed_count, allocated_count - current_count);
    }
    Ok(())
}

fn compare_peak(ranges: &Ranges, truth: &PageTable) -> Result<(), TestCaseError> {
    let Some(process) = ranges.get(PROCESS) else { return Ok(()) };
    prop_assert_eq!(process.account.totals().peak_bytes, truth.peak_bytes);
    prop_assert_eq!(ranges.peak_bytes(), truth.peak_bytes);
    for (stack, totals) in process.account.stacks() {
        let at_peak = truth.at_peak.get(&stack).copied().unwrap_or_default();
        prop_assert_eq!((totals.peak_bytes, totals.peak_count), at_peak);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn every_step_is_brute_forces(events in prop::collection::vec(event(), 0..120)) {
        let mut truth = PageTable::new();
        let mut ranges = Ranges::default();
        ranges.know_break(PROCESS, PAGES * PAGE_BYTES);
        let mut now = 0;
        for event in &events {
            let Some((operation, stack, inside_allocator)) = happen(&mut truth, event) else { continue };
            truth.step_done();
            let call = Call { operation, stack, entered_ns: now, returned_ns: now + 1, inside_allocator };
            ranges.apply(PROCESS, &call);
            now += 1;
            compare(&ranges, &truth)?;
            compare_peak(&ranges, &truth)?;
        }
        prop_assert_eq!(ranges.get(PROCESS).map_or(0, |process| process.noted.missed_unmaps), 0);
    }

    /// Calls of several threads took effect in the order of `steps`; each was entered some time before and returned some time after.
    /// Each is told at some moment between its effect and its return.
    #[test]
    fn concurrent_calls_come_to_the_same_in_the_order_in_which_they_are_told(
        steps in prop::collection::vec(concurrent(), 0..60),
    ) {
        let mut truth = PageTable::new();
        let mut free_at = [0_u64; 4];
        // When the program came to know of each block.
        let mut known_at: Vec<u64> = Vec::new();
        let mut calls = Vec::new();
        for (n, step) in (1_u64..).zip(&steps) {
            let effect = 100 * n;
            let thread = &mut free_at[step.thread];
            if *thread >= effect {
                continue;
            }
            let mut entered_ns = effect.saturating_sub(step.before).max(*thread);
            let operation = if step.maps {
                let Some(at) = truth.free_run(step.n, step.pick) else { continue };
                truth.map(at, step.n, step.stack);
                Operation::Map { start: at * PAGE_BYTES, bytes: step.n * PAGE_BYTES, anonymous: true, fixed: false }
            } else {
                // Only what was known to be mapped is unmapped, whole or in part.
                let usable: Vec<(u64, usize)> =
                    truth.pages.iter().map(|(page, block)| (*page, *block)).filter(|(_, block)| known_at[*block] < effect).collect();
                if usable.is_empty() {
                    continue;
                }
                let (at, block) = usable[step.pick.index(usable.len())];
                let n = (at..at + step.n).take_while(|page| truth.pages.get(page) == Some(&block)).count() as u64;
                entered_ns = entered_ns.max(known_at[block] + 1);
                let (old_start, old_bytes) = (at * PAGE_BYTES, n * PAGE_BYTES);
                truth.unmap(at, n);
                match truth.free_run(step.n, step.pick) {
                    Some(to) if step.moves && (to + step.n <= at || at + n <= to) => {
                        truth.map(to, step.n, step.stack);
                        let (start, bytes) = (to * PAGE_BYTES, step.n * PAGE_BYTES);
                        Operation::Remap { old_start, old_bytes, start, bytes, keeps_old: false, fixed: false }
                    }
                    _ => Operation::Unmap { start: old_start, bytes: old_bytes },
                }
            };
            let returned_ns = effect + step.after;
            *thread = returned_ns + 1;
            known_at.resize(truth.blocks.len(), returned_ns);
            let call = Call { operation, stack: step.stack, entered_ns, returned_ns, inside_allocator: false };
            calls.push((effect + step.told.min(step.after), call));
        }
        let mut ranges = Ranges::default();
        calls.sort_by_key(|(told_ns, _)| *told_ns);
        for (_, call) in &calls {
            ranges.apply(PROCESS, call);
        }
        compare(&ranges, &truth)?;
        prop_assert_eq!(ranges.get(PROCESS).map_or(0, |process| process.noted.missed_unmaps), 0);
    }
}

#[derive(Clone, Debug)]
struct Step {
    thread: usize,
    maps: bool,
    /// Moves elsewhere what else it would unmap.
    moves: bool,
    n: u64,
    stack: u32,
    before: u64,
    /// How long after its effect it is told, and returns.
    told: u64,
    after: u64,
    pick: Index,
}

fn concurrent() -> impl Strategy<Value = Step> {
    let times = (0..400_u64, 0..400_u64, 0..400_u64);
    let what = (any::<bool>(), any::<bool>());
    (0..4_usize, what, 1..6_u64, 0..N_STACKS, times, any::<Index>()).prop_map(
        |(thread, (maps, moves), n, stack, (before, told, after), pick)| Step {
            thread,
            maps,
            moves,
            n,
            stack,
            before,
            told,
            after,
            pick,
        },
    )
}

fn call(operation: Operation, stack: u32, entered_ns: u64, returned_ns: u64) -> Call {
    Call { operation, stack, entered_ns, returned_ns, inside_allocator: false }
}

const fn map(start: u64, bytes: u64) -> Operation {
    Operation::Map { start, bytes, anonymous: true, fixed: false }
}

fn totals(ranges: &Ranges, process: ProcessKey) -> Totals {
    ranges.get(process).map(|process| process.account.totals()).unwrap_or_default()
}

#[test]
fn a_block_ends_with_its_last_piece() {
    let mut ranges = Ranges::default();
    ranges.apply(PROCESS, &call(map(0x10000, 0x4000), 1, 0, 1));
    ranges.apply(PROCESS, &call(Operation::Unmap { start: 0x11000, bytes: 0x2000 }, 2, 2, 3));
    let middle_gone = totals(&ranges, PROCESS);
    assert_eq!((middle_gone.current_bytes, middle_gone.current_count), (0x2000, 1), "two pieces of one block");
    assert_eq!((middle_gone.freed_bytes, middle_gone.freed_count), (0x2000, 0));
    ranges.apply(PROCESS, &call(Operation::Unmap { start: 0, bytes: 0x20000 }, 2, 4, 2_000_000_000));
    let gone = totals(&ranges, PROCESS);
    assert_eq!((gone.freed_bytes, gone.freed_count, gone.freed_within_1s_count), (0x4000, 1, 0));
}

#[test]
fn mremap_moves_a_block_to_the_stack_that_called_it_in_one_step() {
    let mut ranges = Ranges::default();
    ranges.apply(PROCESS, &call(map(0x10000, 0x4000), 1, 0, 1));
    let grow = Operation::Remap {
        old_start: 0x10000,
        old_bytes: 0x4000,
        start: 0x90000,
        bytes: 0x6000,
        keeps_old: false,
        fixed: false,
    };
    ranges.apply(PROCESS, &call(grow, 2, 2, 3));
    let all = totals(&ranges, PROCESS);
    assert_eq!((all.current_bytes, all.current_count, all.peak_bytes), (0x6000, 1, 0x6000), "never both at once");
    assert_eq!((all.allocated_bytes, all.allocated_count, all.freed_bytes), (0xa000, 2, 0x4000));
}

#[test]
fn memory_given_back_stays_mapped_and_is_noted_at_its_stack() {
    let mut ranges = Ranges::default();
    ranges.apply(PROCESS, &call(map(0x10000, 0x4000), 5, 0, 1));
    ranges.apply(PROCESS, &call(Operation::GiveBack { start: 0x12000, bytes: 0x9000 }, 6, 2, 3));
    assert_eq!(totals(&ranges, PROCESS).current_bytes, 0x4000);
    let account = &ranges.get(PROCESS).expect("it has mapped something").account;
    assert_eq!(account.given_back().collect::<Vec<_>>(), [(5, 0x2000)]);
    assert_eq!(account.given_back_bytes(), 0x2000);
}

#[test]
fn an_unmapping_that_no_call_told_is_counted() {
    let mut ranges = Ranges::default();
    ranges.apply(PROCESS, &call(map(0x10000, 0x4000), 1, 0, 1));
    // By a raw system call it was unmapped; the kernel hands a part of it out again.
    ranges.apply(PROCESS, &call(map(0x11000, 0x1000), 2, 5, 6));
    assert_eq!(ranges.get(PROCESS).expect("it has mapped something").noted.missed_unmaps, 1);
    let all = totals(&ranges, PROCESS);
    assert_eq!((all.current_bytes, all.current_count), (0x4000, 2), "the rest may be there still");
    // An unmapping entered later is of something else.
    ranges.apply(PROCESS, &call(Operation::Unmap { start: 0x10000, bytes: 0x4000 }, 0, 7, 8));
    assert_eq!(ranges.get(PROCESS).expect("still there").noted.missed_unmaps, 1);
    assert_eq!(totals(&ranges, PROCESS).current_bytes, 0);
}

#[test]
fn a_forked_process_unmaps_its_own_memory_only() {
    let child = ProcessKey(8);
    let mut ranges = Ranges::default();
    ranges.know_break(PROCESS, 0x1000);
    ranges.apply(PROCESS, &call(map(0x10000, 0x4000), 1, 0, 1));
    ranges.forked(PROCESS, child);
    assert_eq!(ranges.get(child).expect("forked").inherited, (0x4000, 1));
    ranges.apply(child, &call(Operation::Unmap { start: 0x10000, bytes: 0x1000 }, 0, 2, 3));
    ranges.apply(child, &call(Operation::Break { end: 0x3000 }, 3, 4, 5));
    assert_eq!(totals(&ranges, PROCESS).current_bytes, 0x4000);
    let own = totals(&ranges, child);
    assert_eq!((own.current_bytes, own.allocated_bytes, own.freed_bytes), (0x2000, 0x2000, 0));
    assert_eq!(ranges.get(child).expect("forked").space.inherited(), (0x3000, 1));
    assert_eq!(ranges.peak_bytes(), 0x6000, "of both together");
    ranges.ended(child);
    ranges.apply(child, &call(map(0x90000, 0x9000), 3, 6, 7));
    assert_eq!(ranges.current_bytes(), 0x4000, "what has ended holds nothing");
    assert_eq!(ranges.remove(child).expect("forked").account.totals().current_bytes, 0x2000, "but did at its end");
    assert!(ranges.get(child).is_none());
}

#[test]
fn memory_that_is_not_known_is_not_counted_when_it_is_moved() {
    let mut ranges = Ranges::default();
    let remap = Operation::Remap {
        old_start: 0x10000,
        old_bytes: 0x1000,
        start: 0x50000,
        bytes: 0x2000,
        keeps_old: false,
        fixed: false,
    };
    ranges.apply(PROCESS, &call(remap, 1, 0, 1));
    ranges.apply(PROCESS, &call(Operation::Break { end: 0x9000 }, 1, 2, 3));
    assert_eq!(totals(&ranges, PROCESS), Totals::default());
    let noted = ranges.get(PROCESS).expect("it has called").noted;
    assert_eq!((noted.remaps_unknown, noted.breaks_unknown), (1, 1));
}
