//! All maps. Sizes given here are the smallest; the loader sets `max_entries` from the target and the options.

use aya_ebpf::{
    macros::map,
    maps::{Array, HashMap, PerCpuArray, RingBuf},
};
use tracer_common::{
    abi::{
        Block, BlockKey, Bucket, Control, Cursors, Mapping, ScopeTotals, StackRecord, StackSlot, StackThread,
        StackTotals, ThreadSlot,
    },
    counters::COUNTER_WORDS,
    limits::{EVENTS_BYTES, MAX_MAPPINGS, MAX_RULES, PC_CACHE_SLOTS},
    ranges::RangeCalls,
    unwind::{PackedRule, UnwindRow},
};

/// `BPF_F_MMAPABLE` (include/uapi/linux/bpf.h, since 5.5): the loader reads the tables by memory read.
const MMAPABLE: u32 = 1 << 10;

/// One element: what the loader tells the programs. Writer: loader. Reader: every program.
#[map]
pub static CONTROL: Array<Control> = Array::with_max_entries(1, MMAPABLE);

/// One element: allocation cursors of the stack tables. Writer: programs. Reader: programs, loader.
#[map]
pub static CURSORS: Array<Cursors> = Array::with_max_entries(1, MMAPABLE);

/// tid (open addressing from `tid & mask`) → thread state. Writer and reader: the thread itself; released at thread exit.
/// Entries: a power of two of at least four times the target's threads.
#[map]
pub static THREADS: Array<ThreadSlot> = Array::with_max_entries(64, MMAPABLE);

/// hash of an address → bucket of live blocks. Writer: programs. Reader: programs, loader (ages). Entries: so that one and a half
/// times `--max-live-blocks` fit. Preallocated: an insert cannot fail for want of memory in the middle of a burst.
#[map]
pub static BLOCKS: Array<Bucket> = Array::with_max_entries(1, MMAPABLE);

/// (target, address) → live block, for the few that fit neither of their two buckets. Writer: programs. Reader: programs, loader.
/// Entries: a sixteenth of `--max-live-blocks`.
#[map]
pub static SPILLED_BLOCKS: HashMap<BlockKey, Block> = HashMap::with_max_entries(1, 0);

/// hash → stack id (open addressing, insert only). Writer and reader: programs. Entries: twice the stacks, a power of two.
#[map]
pub static STACK_INDEX: Array<StackSlot> = Array::with_max_entries(64, MMAPABLE);

/// stack id → where its frames lie. Writer: programs, once per id. Reader: loader.
#[map]
pub static STACKS: Array<StackRecord> = Array::with_max_entries(64, MMAPABLE);

/// stack id → its thread. Writer: programs, once per id, where threads are kept apart. Reader: loader. Entries: as many as stacks
/// where threads are kept apart, else one that is not used.
#[map]
pub static STACK_THREADS: Array<StackThread> = Array::with_max_entries(1, MMAPABLE);

/// Pool of frames, referred to by `STACKS`. Writer: programs, once. Reader: loader. Entries: 32 a stack.
#[map]
pub static FRAMES: Array<u64> = Array::with_max_entries(64, MMAPABLE);

/// stack id → totals. Writer: programs (atomics). Reader: loader.
#[map]
pub static TOTALS: Array<StackTotals> = Array::with_max_entries(64, MMAPABLE);

/// One element: the scope's current bytes, peak and epoch. Writer: programs (atomics). Reader: loader.
#[map]
pub static SCOPE: Array<ScopeTotals> = Array::with_max_entries(1, MMAPABLE);

/// Two halves of `MAX_MAPPINGS`: the target's executable mappings, sorted. Writer: loader (the half not in force). Reader: walk.
#[map]
pub static MAPPINGS: Array<Mapping> = Array::with_max_entries(2 * MAX_MAPPINGS, MMAPABLE);

/// Unwind rows of all modules, each module's a sorted range. Writer: loader (append only). Reader: walk. Entries: what the target's
/// modules need and room for libraries that it opens later.
#[map]
pub static ROWS: Array<UnwindRow> = Array::with_max_entries(64, MMAPABLE);

/// Interned unwind rules. Writer: loader (append only). Reader: walk.
#[map]
pub static RULES: Array<PackedRule> = Array::with_max_entries(MAX_RULES, MMAPABLE);

/// pc → rule, direct mapped. `check` binds pc, generation and rule together, so that a torn entry never matches.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct PcCacheEntry {
    pub check: u64,
    pub rule: u64,
}

/// See [`PcCacheEntry`]. Writer and reader: walk.
#[map]
pub static PC_CACHE: Array<PcCacheEntry> = Array::with_max_entries(PC_CACHE_SLOTS, 0);

/// Code pages already reported as unknown, by hash of the page: one notice a page is enough.
#[map]
pub static UNKNOWN_PAGES: Array<u64> = Array::with_max_entries(64, 0);

/// One element: all counters (index: `Counter`). Writer: programs. Reader: loader (sums over CPUs).
#[map]
pub static COUNTERS: PerCpuArray<[u64; COUNTER_WORDS]> = PerCpuArray::with_max_entries(1, 0);

/// Rare notices to the loader.
#[map]
pub static EVENTS: RingBuf = RingBuf::with_byte_size(EVENTS_BYTES, 0);

/// Finished calls that changed mappings. Writer: programs. Reader: loader. Bytes: `--mmap-buffer` where the domain `mmap` is followed,
/// else a page that is not used.
#[map]
pub static RANGE_EVENTS: RingBuf = RingBuf::with_byte_size(4096, 0);

/// index of a thread's slot → its calls in flight that change mappings. Writer and reader: the thread itself. Entries: as many as
/// `THREADS` where the domain `mmap` is followed, else one that is not used.
#[map]
pub static RANGE_CALLS: Array<RangeCalls> = Array::with_max_entries(1, 0);

/// The control block; there always is one, but the verifier wants to be told.
#[inline(always)]
pub fn control() -> Option<&'static Control> {
    CONTROL.get(0)
}
