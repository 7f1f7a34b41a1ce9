//! All maps. Sizes given here are the smallest; the loader sets `max_entries` from the targets and the options.

use aya_ebpf::{
    macros::map,
    maps::{Array, HashMap, PerCpuArray, RingBuf},
};
use tracer_common::{
    abi::{
        Block, BlockKey, Bucket, Control, Cursors, Mapping, ScopeTotals, StackRecord, StackSlot, StackThread,
        StackTotals, Target, TargetRef, ThreadSlot,
    },
    counters::COUNTER_WORDS,
    limits::{EVENTS_BYTES, MAX_CGROUPS, MAX_MAPPINGS, MAX_RULES},
    ranges::RangeCalls,
    unwind::{PackedRule, UnwindRow},
};

/// `BPF_F_MMAPABLE` (include/uapi/linux/bpf.h, since 5.5): the loader reads the tables by memory read.
const MMAPABLE: u32 = 1 << 10;

/// One element: what the loader tells the programs. Writer: loader. Reader: every program.
#[map]
pub static CONTROL: Array<Control> = Array::with_max_entries(1, MMAPABLE);

/// One element: what is handed out next, and what is free again. Writer and reader: programs, loader (atomics).
#[map]
pub static CURSORS: Array<Cursors> = Array::with_max_entries(1, MMAPABLE);

/// target number → process that is counted. Writer: programs, loader. Reader: every program, loader. Entries: as many numbers as the
/// loader allows; 0 is none.
#[map]
pub static TARGETS: Array<Target> = Array::with_max_entries(2, MMAPABLE);

/// tgid → target that the process belongs to. Writer: programs, loader. Reader: programs, at a thread's first hit. Entries: twice the
/// targets, as processes that share another's memory have one too. Preallocated: an insert cannot fail for want of memory.
#[map]
pub static TARGET_OF: HashMap<u32, TargetRef> = HashMap::with_max_entries(4, 0);

/// cgroup id (v2) → its level below the root: the scope. Writer: loader. Reader: programs, at a process's first hit.
#[map]
pub static SCOPE_CGROUPS: HashMap<u64, u32> = HashMap::with_max_entries(MAX_CGROUPS, 0);

/// tid (open addressing from `tid & mask`) → thread state. Writer and reader: the thread itself; released at thread exit.
/// Entries: a power of two of at least four times the targets' threads.
#[map]
pub static THREADS: Array<ThreadSlot> = Array::with_max_entries(64, MMAPABLE);

/// hash of target and address → bucket of live blocks. Writer: programs; loader, where a target has ended. Reader: both. Entries: so that one and a half
/// times `--max-live-blocks` fit. Preallocated: an insert cannot fail for want of memory in the middle of a burst.
#[map]
pub static BLOCKS: Array<Bucket> = Array::with_max_entries(1, MMAPABLE);

/// (target, address) → live block, for the few that fit neither of their two buckets. Writer and reader: as of `BLOCKS`.
/// Entries: a sixteenth of `--max-live-blocks`.
#[map]
pub static SPILLED_BLOCKS: HashMap<BlockKey, Block> = HashMap::with_max_entries(1, 0);

/// hash → stack id (open addressing). Writer: programs; loader, where a target has ended. Reader: programs. Entries: twice the
/// stacks, a power of two.
#[map]
pub static STACK_INDEX: Array<StackSlot> = Array::with_max_entries(64, MMAPABLE);

/// stack id → whose it is and where its frames lie. Writer: programs, once per id; loader, where a target has ended. Reader: loader.
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

/// One element: current bytes and peak of all targets together, number of blocks. Writer: programs, loader (atomics). Reader: both.
#[map]
pub static SCOPE: Array<ScopeTotals> = Array::with_max_entries(1, MMAPABLE);

/// Executable mappings: each target's list is a sorted range. Writer: loader (ranges that no list in force has). Reader: walk.
#[map]
pub static MAPPINGS: Array<Mapping> = Array::with_max_entries(2 * MAX_MAPPINGS, MMAPABLE);

/// Unwind rows of all modules, each module's a sorted range. Writer: loader (append only). Reader: walk. Entries: what the targets'
/// modules need and room for libraries that they open later.
#[map]
pub static ROWS: Array<UnwindRow> = Array::with_max_entries(64, MMAPABLE);

/// Interned unwind rules. Writer: loader (append only). Reader: walk.
#[map]
pub static RULES: Array<PackedRule> = Array::with_max_entries(MAX_RULES, MMAPABLE);

/// pc and list of mappings → rule, direct mapped. `check` binds pc, list and rule together, so that a torn entry never matches.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct PcCacheEntry {
    pub check: u64,
    pub rule: u64,
}

/// See [`PcCacheEntry`]. Writer and reader: walk. Entries: a power of two, by the number of targets.
#[map]
pub static PC_CACHE: Array<PcCacheEntry> = Array::with_max_entries(64, 0);

/// Code pages already reported as unknown, by hash of target and page: one notice a page is enough.
#[map]
pub static UNKNOWN_PAGES: Array<u64> = Array::with_max_entries(UNKNOWN_SLOTS, 0);

/// A power of two.
pub const UNKNOWN_SLOTS: u32 = 1024;

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
