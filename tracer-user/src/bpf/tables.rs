//! Capacities of the kernel's tables.

use tracer_common::{
    abi::BUCKET_SLOTS,
    limits::{MAX_MAPPINGS, MAX_POOLED_MAPPINGS, MAX_TARGETS},
};

/// How much of what the tables can hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TableSizes {
    /// Live blocks of all processes.
    pub blocks: u32,
    /// Threads at one time; rounded up to a power of two.
    pub threads: u32,
    /// Distinct stacks of all processes.
    pub stacks: u32,
    /// Unwind rows of all modules.
    pub rows: u32,
    /// Stacks of different threads are kept apart, with their threads.
    pub by_thread: bool,
    /// Processes that are counted at one time, or have ended and are not retired yet; at most [`MAX_TARGETS`].
    pub targets: u32,
    /// Executable mappings of all processes; at least two lists of [`MAX_MAPPINGS`], at most [`MAX_POOLED_MAPPINGS`].
    pub mappings: u32,
    /// Bytes of the ring buffer for calls that change mappings; 0: they are not followed.
    pub range_events_bytes: u32,
}

impl Default for TableSizes {
    /// For one small process and the programs that it becomes.
    fn default() -> Self {
        Self {
            blocks: 4096,
            threads: 64,
            stacks: 1024,
            rows: 64,
            by_thread: false,
            targets: 64,
            mappings: 0,
            range_events_bytes: 0,
        }
    }
}

/// Words of the frame pool for each stack.
const FRAME_WORDS_PER_STACK: u32 = 32;

impl TableSizes {
    pub(super) fn thread_slots(self) -> u32 {
        self.threads.max(64).next_power_of_two()
    }

    /// Number 0 is none.
    pub(super) fn target_slots(self) -> u32 {
        (self.targets + 1).clamp(2, MAX_TARGETS)
    }

    /// Stack ids, those reserved for events without a stack included.
    pub(super) fn stack_ids(self) -> u32 {
        self.stacks + self.target_slots()
    }

    pub(super) fn stack_slots(self) -> u32 {
        (self.stacks * 2).next_power_of_two()
    }

    /// Buckets of the table of blocks, two thirds full when it holds all that it may: then one block in some hundred is spilled
    /// (simulated: 0.3 % of a first million, 1.3 % after four million were freed and made at random).
    pub(super) fn buckets(self) -> u32 {
        (self.blocks.saturating_mul(3) / 2).div_ceil(BUCKET_SLOTS as u32).max(1)
    }

    pub(super) fn spilled_blocks(self) -> u32 {
        (self.blocks / 16).max(64)
    }

    pub(super) fn stack_threads(self) -> u32 {
        if self.by_thread { self.stack_ids() } else { 1 }
    }

    pub(super) fn frame_words(self) -> u32 {
        self.stacks * FRAME_WORDS_PER_STACK
    }

    /// Slots of the pc → rule cache, 16 bytes each: many processes run code at many more addresses.
    pub(super) fn pc_cache_slots(self) -> u32 {
        if self.targets > 64 { 1 << 18 } else { 1 << 14 }
    }

    /// A power of two and whole pages, as the kernel wants ring buffers.
    pub(super) fn range_events_bytes(self) -> u32 {
        self.range_events_bytes.max(4096).next_power_of_two()
    }

    pub(super) fn range_calls(self) -> u32 {
        if self.range_events_bytes > 0 { self.thread_slots() } else { 1 }
    }

    pub(super) fn pooled_mappings(self) -> u32 {
        self.mappings.clamp(2 * MAX_MAPPINGS, MAX_POOLED_MAPPINGS)
    }
}
