//! The structs that kernel and user space share. All `repr(C)`, integers only, explicit padding, size asserted.

use crate::{
    limits,
    peak::{ScopePeak, StackPeak},
    unwind::Step,
};

/// What the loader tells the programs; one element, written by the loader, read at every hit.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Control {
    /// The mapping list in force: [`MappingList`], one word so that it changes at once.
    pub mappings: u64,
    /// Run-time address of `_r_debug.r_state` in the target's dynamic loader; 0 = unknown.
    pub r_state_addr: u64,
    /// The target's process id in the initial namespace; 0 = probes are attached, but nothing is traced.
    pub tgid: u32,
    /// Size of the thread table minus one (a power of two minus one).
    pub thread_mask: u32,
    /// Size of the stack index minus one (a power of two minus one).
    pub stack_mask: u32,
    /// Stacks that the tables can hold.
    pub max_stacks: u32,
    /// Words that the frame pool can hold.
    pub max_frame_words: u32,
    /// 1: stop the target (our own child) with SIGSTOP when it has mapped a library, until the loader has read it.
    pub stop_on_library: u32,
    /// Take the time of one in (this + 1) runs; a power of two minus one.
    pub sample_mask: u32,
    /// Number of buckets of the table of blocks.
    pub n_buckets: u32,
    /// Live blocks that the table may hold.
    pub max_blocks: u32,
    /// The process whose exec is announced, also while tracing is paused; 0 = none.
    pub exec_tgid: u32,
    /// What of a thread's id becomes part of its stacks: all bits to keep threads apart, else 0.
    pub tid_mask: u32,
    /// Number of times that the probes were taken away: calls in flight from before never return as far as we see.
    pub n_pauses: u32,
}
const _: () = assert!(size_of::<Control>() == 64);

/// Which mapping list is in force: bits 0–15 its length, bit 16 its half of the array, 32–63 its generation (raised with each
/// list; part of the pc cache's key).
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MappingList(pub u64);

impl MappingList {
    /// The list that comes after this one, in the other half.
    #[must_use]
    pub const fn next(self, n_mappings: u32) -> Self {
        let generation = (self.0 >> 32).wrapping_add(1) & 0xffff;
        Self((n_mappings as u64 & 0xffff) | ((self.half() as u64 ^ 1) << 16) | (generation << 32))
    }

    /// Its half of the array: 0 or 1.
    #[inline(always)]
    pub const fn half(self) -> u32 {
        (self.0 >> 16) as u32 & 1
    }

    /// Number of mappings.
    #[inline(always)]
    pub const fn len(self) -> u32 {
        self.0 as u32 & 0xffff
    }

    /// Whether it has none.
    pub const fn is_empty(self) -> bool {
        self.len() == 0
    }

    /// Key bits for the pc cache: the generation in bits 48–63, where user addresses have none.
    #[inline(always)]
    pub const fn cache_key(self, pc: u64) -> u64 {
        pc ^ ((self.0 >> 32) << 48)
    }
}
const _: () = assert!(limits::MAX_MAPPINGS < 1 << 16);

/// Cursors that the programs move; one element, written by the programs only.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Cursors {
    /// Next stack id. Ids start at 1; 0 is [`NO_STACK`]. May run past `max_stacks` when the table is full.
    pub next_stack: u64,
    /// Next free word of the frame pool. May run past the end when the pool is full.
    pub next_frame_word: u64,
}
const _: () = assert!(size_of::<Cursors>() == 16);

/// The stack id of events whose stack could not be stored.
pub const NO_STACK: u32 = 0;

/// One executable mapping of the target.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mapping {
    /// First address.
    pub start: u64,
    /// First address past it.
    pub end: u64,
    /// Run-time address of the module's row offset 0: `pc - bias` is what rows are searched by.
    pub bias: u64,
    /// Index of the module's first row in the table of rows.
    pub row_start: u32,
    /// Number of the module's rows.
    pub row_count: u32,
    /// 0: rows; 1: generated code, walked by frame pointer.
    pub kind: u32,
    #[doc(hidden)]
    pub _pad: u32,
}
const _: () = assert!(size_of::<Mapping>() == 40);

/// [`Mapping::kind`]: code with rows.
pub const MAPPING_ROWS: u32 = 0;
/// [`Mapping::kind`]: generated code without rows.
pub const MAPPING_GENERATED: u32 = 1;

/// One thread's state and scratch memory. Owned by that thread: uprobe programs can be preempted, so per-CPU scratch would mix
/// two stacks.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct ThreadSlot {
    /// Thread id in the initial namespace; 0 = free slot.
    pub tid: u32,
    /// 1 + [`crate::cookie::Shape`] of the call in flight; 0 = none.
    pub in_flight: u32,
    /// Stack pointer at the outermost call's entry, where its return address lies.
    pub entry_sp: u64,
    /// Requested bytes.
    pub size: u64,
    /// Old block of a realloc, or the out-pointer of posix_memalign.
    pub pointer: u64,
    /// Size of the old block of a realloc.
    pub old_size: u64,
    /// Stack of the old block of a realloc.
    pub old_stack: u32,
    /// 1: the old block was known and taken out of the table.
    pub old_known: u32,
    /// Stack id of the call in flight.
    pub stack: u32,
    /// Frames in `frames`.
    pub n_frames: u32,
    /// First address of the bytes in `chunk`; 0 = nothing read.
    pub chunk_base: u64,
    /// Runs of our programs on this thread, for sampling their time.
    pub runs: u64,
    /// Return address of the call in flight; see [`crate::pairing::CallInFlight`].
    pub return_address: u64,
    /// Return hits due for jumps between traced functions; see [`crate::pairing::CallInFlight`].
    pub tail_calls: u32,
    /// [`Control::n_pauses`] when the call in flight was entered.
    pub n_pauses: u32,
    /// Chunks that would pass this address are read so that they end there: the end of the stack's mapping, once met; 0 = not
    /// met.
    pub chunk_limit: u64,
    /// Time of birth of the old block of a realloc.
    pub old_born_ns: u64,
    #[doc(hidden)]
    pub _pad: [u32; 6],
    /// The walk's return addresses, innermost first.
    pub frames: [u64; limits::MAX_FRAMES],
    /// A piece of the user stack.
    pub chunk: [u64; limits::STACK_CHUNK_BYTES / 8],
}
const _: () = assert!(size_of::<ThreadSlot>() == 128 + 8 * limits::MAX_FRAMES + limits::STACK_CHUNK_BYTES);

/// A slot of the stack index (open addressing, insert only).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct StackSlot {
    /// 64-bit hash over the address chain and the tgid.
    pub hash: u64,
    /// The stack's id; 0 = free; [`STACK_SLOT_CLAIMED`] = being written.
    pub id: u64,
}
/// [`StackSlot::id`] while its hash is being written.
pub const STACK_SLOT_CLAIMED: u64 = u64::MAX;

/// One stored stack.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct StackRecord {
    /// Index of its first frame in the frame pool.
    pub frames_start: u32,
    /// Number of frames.
    pub n_frames: u16,
    /// How the walk ended: [`StackEnd`].
    pub end: u8,
    #[doc(hidden)]
    pub _pad: u8,
}
const _: () = assert!(size_of::<StackRecord>() == 8);

/// The thread that a stack belongs to, where threads are kept apart.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StackThread {
    /// Its id in the initial namespace; 0 = threads are not kept apart.
    pub tid: u32,
    /// Its name when the stack was stored, ended by a 0 where it is shorter.
    pub comm: [u8; COMM_BYTES],
    #[doc(hidden)]
    pub _pad: u32,
}
const _: () = assert!(size_of::<StackThread>() == 24);

/// Bytes of a thread's name (`TASK_COMM_LEN`, include/linux/sched.h).
pub const COMM_BYTES: usize = 16;

/// Set in a stored frame's bit 63 when the address is exact (a frame interrupted by a signal) and not a return address. User
/// addresses never have that bit.
pub const FRAME_EXACT: u64 = 1 << 63;

/// How a walk ended. Anything but `Root` is a truncated stack.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum StackEnd {
    /// At an outermost frame: the stack is complete.
    Root = 0,
    /// At [`limits::MAX_FRAMES`].
    Depth = 1,
    /// At code of a module that was not loaded into the tables yet.
    NoMapping = 2,
    /// At code without unwind information.
    NoRow = 3,
    /// At a rule that the tables cannot express.
    Unsupported = 4,
    /// Where the stack could not be read.
    ReadFailed = 5,
    /// Where the chain did not move up.
    NoProgress = 6,
}

impl StackEnd {
    /// The end with number `n`.
    pub const fn from_u8(n: u8) -> Self {
        match n {
            0 => Self::Root,
            1 => Self::Depth,
            2 => Self::NoMapping,
            3 => Self::NoRow,
            4 => Self::Unsupported,
            5 => Self::ReadFailed,
            _ => Self::NoProgress,
        }
    }

    /// The end that a step without a caller means.
    pub const fn of(step: Step) -> Self {
        match step {
            Step::Root => Self::Root,
            Step::NoRow => Self::NoRow,
            Step::Unsupported => Self::Unsupported,
            Step::ReadFailed => Self::ReadFailed,
            Step::Caller | Step::Interrupted | Step::NoProgress => Self::NoProgress,
        }
    }

    /// The reason a report prints for a truncated stack; `None` for a complete one.
    pub const fn reason(self) -> Option<&'static str> {
        match self {
            Self::Root => None,
            Self::Depth => Some("more than 127 frames"),
            Self::NoMapping => Some("module not loaded yet"),
            Self::NoRow => Some("no unwind information"),
            Self::Unsupported => Some("unwind rule not supported"),
            Self::ReadFailed => Some("stack not readable"),
            Self::NoProgress => Some("broken chain"),
        }
    }
}

/// Key of a live block.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BlockKey {
    /// The target (its tgid).
    pub target: u64,
    /// Address that the allocator returned.
    pub address: u64,
}

/// A live block.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Block {
    /// Requested bytes.
    pub size: u64,
    /// When the allocator returned it: CLOCK_MONOTONIC, ns.
    pub born_ns: u64,
    /// Stack id.
    pub stack: u32,
    #[doc(hidden)]
    pub _pad: u32,
}

impl Block {
    /// Sizes from here on (1 TiB) do not fit [`Block::pack`]; such blocks are kept in the spill table.
    pub const SIZE_LIMIT: u64 = 1 << 40;

    /// Size and stack in one word, which is never 0: one more than bits 0–39 the size, 40–63 the stack id.
    #[inline(always)]
    pub const fn pack(self) -> u64 {
        (self.size | ((self.stack as u64) << 40)) + 1
    }

    /// The block of such a word.
    #[inline(always)]
    pub const fn unpack(packed: u64, born_ns: u64) -> Self {
        let packed = packed - 1;
        Self { size: packed & (Self::SIZE_LIMIT - 1), born_ns, stack: (packed >> 40) as u32, _pad: 0 }
    }
}

/// Slots of one bucket of the table of blocks.
pub const BUCKET_SLOTS: usize = 8;

/// A bucket of the table of blocks, three cache lines: a search reads the first one only. An address has two buckets; blocks
/// that fit neither are kept in the spill table.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bucket {
    /// Addresses; 0 = free slot.
    pub addresses: [u64; BUCKET_SLOTS],
    /// [`Block::pack`]; 0 = free slot, or one that is just being filled.
    pub packed: [u64; BUCKET_SLOTS],
    /// Times of birth: CLOCK_MONOTONIC, ns. Written before `packed`.
    pub born_ns: [u64; BUCKET_SLOTS],
}
const _: () = assert!(size_of::<Bucket>() == 192);

/// How long a block lived, as far as totals tell: the index of [`StackTotals::freed_counts`].
#[repr(usize)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lifetime {
    /// Less than 1 ms.
    UnderOneMillisecond = 0,
    /// Less than 1 s, but not less than 1 ms.
    UnderOneSecond = 1,
    /// 1 s or longer.
    Longer = 2,
}

impl Lifetime {
    /// Number of classes.
    pub const COUNT: usize = 3;

    /// The class of a block that is freed at `now_ns`. The clocks of two CPUs may differ by a few nanoseconds: a birth after the
    /// end is a short life.
    #[inline(always)]
    pub const fn of(born_ns: u64, now_ns: u64) -> Self {
        let age_ns = now_ns.wrapping_sub(born_ns) as i64;
        if age_ns < 1_000_000 {
            Self::UnderOneMillisecond
        } else if age_ns < 1_000_000_000 {
            Self::UnderOneSecond
        } else {
            Self::Longer
        }
    }
}

/// Totals of one stack, on a cache line of its own; indexed by stack id.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StackTotals {
    /// Bytes ever allocated.
    pub allocated_bytes: u64,
    /// Blocks ever allocated.
    pub allocated_count: u64,
    /// Bytes ever freed; live = allocated − freed.
    pub freed_bytes: u64,
    /// Blocks ever freed, by [`Lifetime`].
    pub freed_counts: [u64; Lifetime::COUNT],
    /// Bytes live at the scope's peak, valid when `epoch` is the scope's; see [`StackPeak`].
    pub at_peak_bytes: u64,
    /// Blocks live at the scope's peak, valid when `epoch` is the scope's; a table of blocks holds fewer than 2^32.
    pub at_peak_count: u32,
    /// The lower half of the scope's epoch at the last save: mistaken for another only if a stack rests for exactly 2^32 new
    /// peaks, 4 GiB of growth byte by byte.
    pub epoch: u32,
}
const _: () = assert!(size_of::<StackTotals>() == 64);

impl StackTotals {
    /// Blocks ever freed.
    #[inline(always)]
    pub const fn freed_count(&self) -> u64 {
        let [short, middling, long] = self.freed_counts;
        short.wrapping_add(middling).wrapping_add(long)
    }

    /// The stack's live bytes and what is known of them at the scope's peak, whose epoch is `scope_epoch`. The sums are read
    /// while other threads change them: live is never shown as negative.
    pub const fn peak(&self, scope_epoch: u64) -> StackPeak {
        let saved = self.epoch == scope_epoch as u32;
        StackPeak {
            live_bytes: self.allocated_bytes.saturating_sub(self.freed_bytes),
            live_count: self.allocated_count.saturating_sub(self.freed_count()),
            at_peak_bytes: self.at_peak_bytes,
            at_peak_count: self.at_peak_count as u64,
            epoch: if saved { scope_epoch } else { scope_epoch.wrapping_sub(1) },
        }
    }
}

/// Totals of one scope, on a cache line of their own.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ScopeTotals {
    /// Current, peak and epoch.
    pub peak: ScopePeak,
    /// Blocks in the tables.
    pub n_blocks: u64,
    /// Of these, blocks in the spill table.
    pub n_spilled: u64,
    /// When the highest total was reached: CLOCK_MONOTONIC, ns; 0 = never.
    pub peak_at_ns: u64,
    #[doc(hidden)]
    pub _pad: [u64; 2],
}
const _: () = assert!(size_of::<ScopeTotals>() == 64);

/// A notice to the loader, through the ring buffer.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Event {
    /// [`EventKind`].
    pub kind: u32,
    /// Process id in the initial namespace.
    pub tgid: u32,
    /// Thread id in the initial namespace.
    pub tid: u32,
    #[doc(hidden)]
    pub _pad: u32,
    /// For `UnknownCode`: the pc.
    pub address: u64,
}

/// What an [`Event`] says.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// The dynamic loader has mapped or unmapped libraries.
    Libraries = 1,
    /// A walk met code that no mapping covers.
    UnknownCode = 2,
    /// The target called exec.
    Exec = 3,
}

#[cfg(feature = "user")]
mod pod {
    macro_rules! pod {
        ($($t:ty),*) => {$(
            // SAFETY: repr(C) or transparent, integers only, no implicit padding (sizes asserted above).
            unsafe impl aya::Pod for $t {}
        )*};
    }
    pod!(
        super::Control,
        super::Cursors,
        super::Mapping,
        super::ThreadSlot,
        super::StackSlot,
        super::StackRecord,
        super::StackThread,
        super::BlockKey,
        super::Block,
        super::Bucket,
        super::StackTotals,
        super::ScopeTotals,
        super::Event,
        crate::unwind::UnwindRow,
        crate::unwind::PackedRule
    );
}
