//! The structs that kernel and user space share. All `repr(C)`, integers only, explicit padding, size asserted.

use crate::{
    counters, limits,
    peak::{ScopePeak, StackPeak},
    unwind::Step,
};

/// What the loader tells the programs; one element, written by the loader, read at every hit.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Control {
    /// 0: probes may be attached, but nothing is counted.
    pub counting: u32,
    /// Size of the thread table minus one (a power of two minus one).
    pub thread_mask: u32,
    /// Size of the stack index minus one (a power of two minus one).
    pub stack_mask: u32,
    /// Stacks that the tables can hold, the reserved ids included; see [`Self::n_targets`].
    pub max_stacks: u32,
    /// Words that the frame pool can hold.
    pub max_frame_words: u32,
    /// Take the time of one in (this + 1) runs; a power of two minus one.
    pub sample_mask: u32,
    /// Number of buckets of the table of blocks.
    pub n_buckets: u32,
    /// Live blocks that the table may hold.
    pub max_blocks: u32,
    /// What of a thread's id becomes part of its stacks: all bits to keep threads apart, else 0.
    pub tid_mask: u32,
    /// Number of times that the probes were taken away: calls in flight from before never return as far as we see.
    pub n_pauses: u32,
    /// Size of the table of targets. Stack ids below it are reserved: the id that equals a target's number is that of its
    /// events whose stack could not be stored.
    pub n_targets: u32,
    /// Process id of the tracer, which never joins; 0 = none.
    pub own_tgid: u32,
    /// 1: every process joins at its first hit.
    pub scope_all: u32,
    /// Bit n: some cgroup of the scope lies n levels below the root of the v2 hierarchy.
    pub cgroup_levels: u32,
    /// 1: forks and execs of processes that are no targets are announced too.
    pub watch_everyone: u32,
    /// 1: calls that change mappings are told, and the life of targets beside them ([`crate::ranges`]).
    pub follow_mappings: u32,
    /// Size of the pc → rule cache minus one (a power of two minus one).
    pub pc_cache_mask: u32,
    #[doc(hidden)]
    pub _pad: u32,
    /// Where the kernel keeps what is read of a task.
    pub task: TaskLayout,
}
const _: () = assert!(size_of::<Control>() == 72 + size_of::<TaskLayout>());

/// Byte offsets in `struct task_struct` (and `signal_struct`) of the running kernel, from its BTF. All 0 = not known: forks are not
/// followed.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TaskLayout {
    /// `task_struct.tgid`.
    pub tgid: u32,
    /// `task_struct.mm`: equal in two processes that share their memory.
    pub mm: u32,
    /// `task_struct.signal`.
    pub signal: u32,
    /// `task_struct.group_leader`: its start time is the process's.
    pub group_leader: u32,
    /// `task_struct.start_boottime`, ns; `/proc/PID/stat` shows it in ticks.
    pub start_boottime: u32,
    /// `task_struct.exit_code`, as `wait` tells it.
    pub exit_code: u32,
    /// `signal_struct.live`: threads that have not ended.
    pub live: u32,
    #[doc(hidden)]
    pub _pad: u32,
}
const _: () = assert!(size_of::<TaskLayout>() == 32);

/// Which mapping list is in force: a range of the pool of mappings. Bits 0–15 its first element, 16–31 its length, 32–63 its
/// generation: no two lists have the same one, so that the word alone tells lists apart (the pc cache's key). 0 = no list.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct MappingList(pub u64);

impl MappingList {
    /// A list of `len` mappings from `start` on.
    #[must_use]
    pub const fn new(start: u16, len: u16, generation: u32) -> Self {
        Self(start as u64 | ((len as u64) << 16) | ((generation as u64) << 32))
    }

    /// Index of its first mapping.
    #[inline(always)]
    pub const fn start(self) -> u32 {
        self.0 as u32 & 0xffff
    }

    /// Number of mappings.
    #[inline(always)]
    pub const fn len(self) -> u32 {
        (self.0 >> 16) as u32 & 0xffff
    }

    /// Whether it has none.
    #[inline(always)]
    pub const fn is_empty(self) -> bool {
        self.len() == 0
    }

    /// What a pc is combined with (exclusive or) to make a key of the pc cache: spreads the list's word over all bits, so that
    /// equal keys of two lists would need pcs that differ in just the bits that the lists' spread words do (2^-64).
    #[inline(always)]
    pub const fn cache_seed(self) -> u64 {
        let spread = self.0.wrapping_mul(0xD6E8_FEB8_6659_FD93);
        (spread ^ (spread >> 32)).wrapping_mul(0xD6E8_FEB8_6659_FD93)
    }
}
const _: () = assert!(limits::MAX_MAPPINGS < 1 << 16 && limits::MAX_POOLED_MAPPINGS <= 1 << 16);

/// Cursors that both sides move, by atomics; one element.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Cursors {
    /// Stack ids handed out for the first time; the next is [`Control::n_targets`] more. May run past the end when the table is
    /// full.
    pub next_stack: u64,
    /// Next free word of the frame pool. May run past the end when the pool is full.
    pub next_frame_word: u64,
    /// The last serial given to a target.
    pub last_serial: u64,
    /// Target numbers that are free: [`FreeList`], linked through [`Target::parent`].
    pub free_targets: u64,
    /// Stack ids that are free again, by [`frame_class`] of the frame words that they bring: [`FreeList`]s, linked through
    /// [`StackRecord::target`].
    pub free_stacks: [u64; FRAME_CLASSES],
}
const _: () = assert!(size_of::<Cursors>() == 32 + 8 * FRAME_CLASSES);

/// The head of a list of free elements, as one word: bits 0–31 the first element (0 = the list is empty), 32–63 a number that each
/// change raises, so that a compare-exchange finds out that the list was changed meanwhile.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FreeList(pub u64);

impl FreeList {
    /// The first element; 0 = none.
    #[inline(always)]
    pub const fn first(self) -> u32 {
        self.0 as u32
    }

    /// The head after a change that makes `first` the first element.
    #[inline(always)]
    #[must_use]
    pub const fn changed_to(self, first: u32) -> Self {
        Self(((self.0 >> 32).wrapping_add(1) << 32) | first as u64)
    }
}

/// Frame words are handed out in multiples of this many.
pub const FRAME_CLASS_WORDS: usize = 8;
/// Number of sizes in which frame words are handed out.
pub const FRAME_CLASSES: usize = limits::MAX_FRAMES / FRAME_CLASS_WORDS;

/// The class of a stack of `n_frames`: its frames have room for (class + 1) × [`FRAME_CLASS_WORDS`].
#[inline(always)]
pub const fn frame_class(n_frames: u32) -> u32 {
    n_frames.saturating_sub(1) / FRAME_CLASS_WORDS as u32
}

/// A process that is counted; indexed by its *target number* (1 or more). A number is used again for another process when the loader
/// has retired its target; a serial never is.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Target {
    /// Its [`MappingList`], one word so that it changes at once.
    pub mappings: u64,
    /// `serial` while its hits are counted, else 0.
    pub counted: u32,
    /// Tells this target from every other, earlier or later.
    pub serial: u32,
    /// Run-time address of `_r_debug.r_state` in its dynamic loader; 0 = unknown.
    pub r_state_addr: u64,
    /// Process id in the initial namespace.
    pub tgid: u32,
    /// Bits of [`target_flags`].
    pub flags: u32,
    /// [`TargetState`].
    pub state: u32,
    /// Number of the target that it was forked from, or that called exec; 0 = none or unknown. May have been retired. Of a free
    /// number: the next free one.
    pub parent: u32,
    /// When the process started: CLOCK_BOOTTIME, ns; with `tgid` its identity. In full where the kernel side took it in, else in
    /// whole clock ticks, as `/proc/PID/stat` tells it.
    pub start_ns: u64,
    /// Id of its cgroup (v2) when it joined; 0 = unknown.
    pub cgroup: u64,
    /// When it came to be counted: CLOCK_MONOTONIC, ns.
    pub joined_at_ns: u64,
    /// Its own current bytes, peak and number of blocks.
    pub totals: ScopeTotals,
    /// When it ended: CLOCK_MONOTONIC, ns; 0 = it has not.
    pub ended_at_ns: u64,
    /// Bytes that its parent held when it was forked, as far as the parent had made them itself; its own totals are without them.
    pub inherited_bytes: u64,
    /// Blocks of those.
    pub inherited_blocks: u64,
    /// Bytes of `totals` that were taken out of those of all targets together when it ended.
    pub left_bytes: u64,
    /// As `wait` tells it, valid in state `Exited`.
    pub exit_code: u32,
    /// Real user id in the initial namespace when it joined, where the kernel side took it in; else [`UID_UNKNOWN`].
    pub uid: u32,
    /// What was lost of this process alone: indexed as [`counters::PER_TARGET`].
    pub losses: [u64; counters::PER_TARGET_WORDS],
    /// Its name when it joined, ended by a 0 where it is shorter: of one that ends before anybody looks at it there is no other.
    pub comm: [u8; COMM_BYTES],
    #[doc(hidden)]
    pub _pad_to_cache_line: [u64; 6],
}
const _: () = assert!(size_of::<Target>() == 320);

/// No user has this id (`INVALID_UID`, include/linux/uidgid.h).
pub const UID_UNKNOWN: u32 = u32::MAX;

/// Bits of [`Target::flags`].
pub mod target_flags {
    /// What it forks is counted too, and so is what it becomes by exec.
    pub const FOLLOW: u32 = 1 << 0;
    /// It is our own child: stopped with SIGSTOP when it has mapped a library or called exec, until the loader has read what is new.
    pub const STOP_ON_LIBRARY: u32 = 1 << 1;
    /// `STOP_ON_LIBRARY` holds for what it forks too.
    pub const STOP_CHILDREN: u32 = 1 << 2;
    /// It was forked while its parent was counted, and lives in a copy of its parent's memory: blocks that are unknown are its
    /// parent's.
    pub const INHERITED: u32 = 1 << 3;
    /// The kernel side took it in by itself, at an exec or at a hit: it is in the scope.
    pub const JOINED: u32 = 1 << 4;
    /// It was seen from its first instruction on: it began with an exec that was seen.
    pub const FROM_EXEC: u32 = 1 << 5;
}

/// [`Target::state`].
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TargetState {
    /// The number belongs to no process.
    Free = 0,
    /// It is just being filled in.
    Joining = 1,
    /// A living process.
    Active = 2,
    /// Its last thread ended.
    Exited = 3,
    /// It called exec: the new program is a target of its own.
    Exec = 4,
    /// The loader let it go.
    Released = 5,
}

impl TargetState {
    /// The state with number `n`; unknown numbers are `Free`.
    pub const fn from_u32(n: u32) -> Self {
        match n {
            1 => Self::Joining,
            2 => Self::Active,
            3 => Self::Exited,
            4 => Self::Exec,
            5 => Self::Released,
            _ => Self::Free,
        }
    }

    /// Whether its figures will not change any more.
    pub const fn is_ended(self) -> bool {
        matches!(self, Self::Exited | Self::Exec | Self::Released)
    }
}

/// Which target a process belongs to: the value of the map from tgid to target. A process that shares another's memory (vfork)
/// belongs to that one's.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TargetRef {
    /// Its number.
    pub number: u32,
    /// Its serial: where the target's is another, the entry is out of date.
    pub serial: u32,
}

/// One executable mapping of a target.
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
    /// Process id in the initial namespace.
    pub tgid: u32,
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
    pub old_known: u16,
    /// 1 + [`crate::cookie::Shape`] of the call in flight; 0 = none.
    pub in_flight: u16,
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
    /// The number of the target that the thread's hits belong to.
    pub target: u32,
    /// That target's serial; 0 = none yet.
    pub serial: u32,
    /// The last pointer freed, where the thread has not allocated since; 0 = none. See [`crate::pairing::is_repeated_free`].
    pub freed_pointer: u64,
    /// Stack pointer at the entry of that free.
    pub freed_sp: u64,
    /// The walk's return addresses, innermost first.
    pub frames: [u64; limits::MAX_FRAMES],
    /// A piece of the user stack.
    pub chunk: [u64; limits::STACK_CHUNK_BYTES / 8],
}
const _: () = assert!(size_of::<ThreadSlot>() == 128 + 8 * limits::MAX_FRAMES + limits::STACK_CHUNK_BYTES);

/// A slot of the stack index (open addressing).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct StackSlot {
    /// 64-bit hash over the address chain and the target's serial.
    pub hash: u64,
    /// The stack's id; 0 = free; else [`STACK_SLOT_CLAIMED`] or [`STACK_SLOT_RETIRED`].
    pub id: u64,
}
/// [`StackSlot::id`] while its hash is being written.
pub const STACK_SLOT_CLAIMED: u64 = u64::MAX;
/// [`StackSlot::id`] of a slot whose stack was taken out: free for another, but a search goes on past it.
pub const STACK_SLOT_RETIRED: u64 = u64::MAX - 1;

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
    /// [`frame_class`] of the words that it has in the frame pool.
    pub class: u8,
    /// Number of the target whose stack it is. Of a free id: the next free one.
    pub target: u32,
    /// That target's serial; 0 = the id is free.
    pub serial: u32,
}
const _: () = assert!(size_of::<StackRecord>() == 16);

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
    /// Nowhere: the stack has no frames, as the tables had no room for them.
    NotStored = 7,
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
            7 => Self::NotStored,
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
            Self::NotStored => Some("table of stacks full"),
        }
    }
}

/// Key of a live block in the spill table.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BlockKey {
    /// Number of its target.
    pub target: u64,
    /// Address that the allocator returned.
    pub address: u64,
}

/// User addresses have at most 47 bits, but for programs that ask mmap for more (5-level paging): blocks from here on are kept in the
/// spill table.
pub const ADDRESS_LIMIT: u64 = 1 << 48;

/// Key of a live block in its bucket: never 0. `None`: the address is not below [`ADDRESS_LIMIT`].
#[inline(always)]
pub const fn bucket_key(target: u32, address: u64) -> Option<u64> {
    if address < ADDRESS_LIMIT { Some(address | ((target as u64) << 48)) } else { None }
}

/// The target number in a [`bucket_key`].
#[inline(always)]
pub const fn target_of_key(key: u64) -> u32 {
    (key >> 48) as u32
}
const _: () = assert!(limits::MAX_TARGETS <= 1 << 16 && limits::MAX_TARGETS.is_power_of_two());

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

/// A bucket of the table of blocks, three cache lines: a search reads the first one only. A key has two buckets; blocks that fit
/// neither are kept in the spill table.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bucket {
    /// [`bucket_key`]s; 0 = free slot.
    pub keys: [u64; BUCKET_SLOTS],
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
    /// Bytes live at its target's peak, valid when `epoch` is the target's; see [`StackPeak`].
    pub at_peak_bytes: u64,
    /// Blocks live at its target's peak, valid when `epoch` is the target's; a table of blocks holds fewer than 2^32.
    pub at_peak_count: u32,
    /// The lower half of the target's epoch at the last save: mistaken for another only if a stack rests for exactly 2^32 new
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

    /// The stack's live bytes and what is known of them at its target's peak, whose epoch is `scope_epoch`. The sums are read
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

/// Totals of one target, or of all of them together, on a cache line of their own.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ScopeTotals {
    /// Current, peak and epoch.
    pub peak: ScopePeak,
    /// Blocks in the tables.
    pub n_blocks: u64,
    /// Of these, blocks in the spill table; kept for all together only.
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
    /// The number of the process's target; 0 = it has none.
    pub target: u32,
    /// For `UnknownCode`: the pc. For `Fork`: the child's process id. For `Exec`: the id that the calling thread had.
    pub argument: u64,
    /// For `Fork`: the child's target number; for `Exec`: the new program's. 0 = none.
    pub new_target: u32,
    #[doc(hidden)]
    pub _pad: u32,
}
const _: () = assert!(size_of::<Event>() == 32);

/// What an [`Event`] says.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// The dynamic loader has mapped or unmapped libraries.
    Libraries = 1,
    /// A walk met code that no mapping covers.
    UnknownCode = 2,
    /// A process called exec.
    Exec = 3,
    /// A process was forked.
    Fork = 4,
    /// A target's last thread ended.
    Exited = 5,
    /// A process of the scope became a target at a hit.
    Joined = 6,
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
        super::Target,
        super::TargetRef,
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
