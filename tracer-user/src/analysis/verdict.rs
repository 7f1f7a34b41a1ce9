//! Leak or fragmentation: what of a process' resident memory is live blocks. Resident memory is measured, live blocks are known;
//! what lies between them is bounded, and said to be no more than that.

use std::time::Duration;

use tracer_common::counters::Counter;

use crate::snapshot::{ProcessMemory, Snapshot, Totals};

/// What glibc's malloc adds to a block: its size field (malloc/malloc.c, `SIZE_SZ`).
const HEADER_BYTES: u64 = 8;
/// Sizes of its chunks are multiples of this.
const CHUNK_ALIGNMENT: u64 = 16;
/// Its smallest chunk (`MINSIZE`).
const SMALLEST_CHUNK: u64 = 32;
/// A heap with less resident memory is not worth a verdict.
const SMALL_BYTES: u64 = 1 << 20;
/// Share of the resident heap from which it is mostly live.
const MOSTLY_LIVE: f64 = 0.75;
/// Share of the resident heap from which it is mostly not live.
const MOSTLY_NOT_LIVE: f64 = 0.5;

/// Counters that say that blocks may be live without being known.
const UNSEEN: [Counter; 7] = [
    Counter::BlocksFull,
    Counter::ThreadsFull,
    Counter::LostReturns,
    Counter::UnpairedReturns,
    Counter::OutUnreadable,
    Counter::HitsPaused,
    Counter::ReallocsUnknown,
];

/// What a snapshot says of the target's resident memory.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Verdict {
    /// Resident memory by kind.
    pub memory: ProcessMemory,
    /// All of it, in bytes.
    pub rss_bytes: u64,
    /// Bytes and blocks that are live as far as they are known.
    pub totals: Totals,
    /// What the allocator adds to them in bytes; estimated as glibc's, from each stack's average size.
    pub overhead_bytes: u64,
    /// In which memory the blocks lie.
    pub basis: Basis,
    /// Resident memory of the basis in bytes.
    pub basis_rss_bytes: u64,
    /// Of this, what is at least not live blocks nor their overhead: more, where live blocks were never touched.
    pub not_live_bytes: u64,
    /// Every live block is known: seen from the start, and nothing lost.
    pub is_complete: bool,
    /// What follows.
    pub conclusion: Conclusion,
}

/// Where live blocks lie, as far as the figures tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Basis {
    /// They fit into glibc's heap and arenas.
    Heap,
    /// They do not: large blocks with mappings of their own, or another allocator's heap.
    HeapAndAnonymous,
}

/// What the resident memory of the basis is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Conclusion {
    /// Too little to matter.
    Small,
    /// More is live than resident: blocks that were never touched, or are swapped out.
    Untouched,
    /// Live blocks.
    Live,
    /// Free memory that the allocator keeps.
    Free,
    /// Some of both.
    Mixed,
    /// Known blocks are the smaller part, and the rest is free memory or blocks of before tracing, which cannot be told apart.
    FreeOrUnseen,
    /// Known blocks are the smaller part, and the rest is free memory, or memory mapped for something else.
    FreeOrMapped,
}

impl Verdict {
    /// The verdict on a snapshot. `None`: its memory was not read, or live bytes are those of many processes and resident memory that
    /// of one.
    pub fn of(snapshot: &Snapshot) -> Option<Self> {
        let memory = snapshot.memory.filter(|_| !snapshot.is_of_many())?;
        let ProcessMemory { heap, arenas, anonymous, stacks, files, other } = memory;
        let sum = |kinds: &[u64]| kinds.iter().fold(0_u64, |sum, bytes| sum.saturating_add(*bytes));
        let totals = snapshot.totals;
        let overhead_bytes = overhead(snapshot);
        let used_bytes = totals.current_bytes.saturating_add(overhead_bytes);
        let heap_bytes = sum(&[heap.rss_bytes, arenas.rss_bytes]);
        let (basis, basis_rss_bytes) = if used_bytes <= heap_bytes {
            (Basis::Heap, heap_bytes)
        } else {
            (Basis::HeapAndAnonymous, sum(&[heap_bytes, anonymous.rss_bytes]))
        };
        let not_live_bytes = basis_rss_bytes.saturating_sub(used_bytes);
        let is_complete = snapshot.from_start
            && snapshot.pauses.is_empty()
            && UNSEEN.iter().all(|&counter| snapshot.counters.get(counter) == 0);
        let share = not_live_bytes as f64 / basis_rss_bytes.max(1) as f64;
        let conclusion = if totals.current_bytes.max(basis_rss_bytes) < SMALL_BYTES {
            Conclusion::Small
        } else if totals.current_bytes > basis_rss_bytes {
            Conclusion::Untouched
        } else if 1.0 - share >= MOSTLY_LIVE {
            Conclusion::Live
        } else if basis == Basis::HeapAndAnonymous {
            Conclusion::FreeOrMapped
        } else if !is_complete {
            Conclusion::FreeOrUnseen
        } else if share >= MOSTLY_NOT_LIVE {
            Conclusion::Free
        } else {
            Conclusion::Mixed
        };
        Some(Self {
            memory,
            rss_bytes: sum(&[heap, arenas, anonymous, stacks, files, other].map(|kind| kind.rss_bytes)),
            totals,
            overhead_bytes,
            basis,
            basis_rss_bytes,
            not_live_bytes,
            is_complete,
            conclusion,
        })
    }
}

/// Chunks of each stack's average size, less the bytes asked for. A snapshot that was filtered lacks stacks: those take what the
/// others do on average.
fn overhead(snapshot: &Snapshot) -> u64 {
    let (mut bytes, mut count) = (0_u64, 0_u64);
    for stack in &snapshot.stacks {
        let totals = &stack.totals;
        let Some(average) = totals.current_bytes.checked_div(totals.current_count) else { continue };
        let chunk =
            (average.saturating_add(HEADER_BYTES)).checked_next_multiple_of(CHUNK_ALIGNMENT).unwrap_or(u64::MAX);
        let added = chunk.max(SMALLEST_CHUNK) - average;
        bytes = bytes.saturating_add(added.saturating_mul(totals.current_count));
        count = count.saturating_add(totals.current_count);
    }
    let all = snapshot.totals.current_count;
    if count == 0 {
        HEADER_BYTES.saturating_mul(all)
    } else {
        (u128::from(bytes) * u128::from(all) / u128::from(count)) as u64
    }
}

/// What grew between two snapshots of a recording.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// When the earlier one was taken.
    pub since: Duration,
    /// Growth of live bytes.
    pub live_bytes: i128,
    /// Growth of the resident memory that blocks lie in, as the later snapshot's verdict says.
    pub basis_rss_bytes: i128,
    /// What follows.
    pub grown: Grown,
}

/// What grew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Grown {
    /// Resident memory did not grow by anything that matters.
    Nothing,
    /// Live blocks.
    Live,
    /// Something else: free memory that the allocator keeps, or blocks of before that were touched late. Blocks of before tracing
    /// cannot be what grew.
    NotLive,
    /// Both.
    Both,
}

impl Change {
    /// Compares a snapshot with an earlier one. `None`: the earlier one's memory was not read.
    pub fn between(before: &Snapshot, verdict: &Verdict) -> Option<Self> {
        let memory = before.memory?;
        let anonymous = match verdict.basis {
            Basis::Heap => 0,
            Basis::HeapAndAnonymous => i128::from(memory.anonymous.rss_bytes),
        };
        let rss_before = i128::from(memory.heap.rss_bytes) + i128::from(memory.arenas.rss_bytes) + anonymous;
        let basis_rss_bytes = i128::from(verdict.basis_rss_bytes) - rss_before;
        let live_bytes = i128::from(verdict.totals.current_bytes) - i128::from(before.totals.current_bytes);
        let overhead = i128::from(verdict.overhead_bytes) - i128::from(overhead(before));
        let share = (live_bytes + overhead) as f64 / basis_rss_bytes.max(1) as f64;
        let grown = if basis_rss_bytes < i128::from(SMALL_BYTES) {
            Grown::Nothing
        } else if share >= MOSTLY_LIVE {
            Grown::Live
        } else if share <= 1.0 - MOSTLY_LIVE {
            Grown::NotLive
        } else {
            Grown::Both
        };
        Some(Self { since: before.duration, live_bytes, basis_rss_bytes, grown })
    }
}
