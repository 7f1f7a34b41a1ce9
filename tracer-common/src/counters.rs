//! Every named way in which an event was seen, lost, truncated or refused: one list makes the enum, the names and the
//! sentences.

macro_rules! counters {
    ($($variant:ident, $name:literal, $sentence:literal;)*) => {
        /// Index into the kernel's counter array.
        #[repr(u32)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Counter {
            $(#[doc = $sentence] $variant,)*
        }

        impl Counter {
            /// Every counter, in the order of their indices.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// The name in reports and exports.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// What it counts, in one sentence.
            pub const fn sentence(self) -> &'static str {
                match self { $(Self::$variant => $sentence,)* }
            }
        }
    };
}

counters! {
    HitsEntry, "hits_entry", "probe hits at an allocator's entry";
    HitsReturn, "hits_return", "return-probe hits";
    HitsFree, "hits_free", "probe hits at a freeing function";
    HitsPaused, "hits_paused", "probe hits before tracing began, around a pause or after the end, none of them counted elsewhere";
    Nested, "nested", "calls made by an allocator of its own functions, part of the outer call";
    Failed, "failed", "calls that returned NULL or an error";
    FreesOfNull, "frees_of_null", "frees of NULL";
    FreesUnknown, "frees_unknown", "frees of blocks that the trace does not know: from before the attach, or out of an ended thread's cache";
    ReallocsUnknown, "reallocs_unknown", "reallocations of blocks that the trace does not know; the new block is counted";
    LostReturns, "lost_returns", "calls in flight whose return was never seen (longjmp, a signal, a missed return probe)";
    UnpairedReturns, "unpaired_returns", "returns without a call in flight";
    MissedFrees, "missed_frees", "addresses handed out again while still counted as live: the old block was closed";
    BlocksFull, "blocks_full", "allocations not tracked because the table of live blocks was full (see --max-live-blocks)";
    BlocksFullBytes, "blocks_full_bytes", "bytes of those allocations";
    StacksFull, "stacks_full", "allocations counted without a stack because the table of stacks was full";
    ThreadsFull, "threads_full", "calls not seen because the table of threads was full";
    OutUnreadable, "out_unreadable", "calls whose out-pointer could not be read";
    ThreadsEnded, "threads_ended", "threads of traced processes that ended";
    EventsLost, "events_lost", "notices to the loader that did not fit the event buffer";
    TruncatedDepth, "truncated_depth", "stacks deeper than 127 frames, cut there";
    TruncatedNoMapping, "truncated_no_module", "stacks cut at code of a module that was not loaded into the tables yet";
    TruncatedNoRow, "truncated_no_unwind_info", "stacks cut at code without unwind information";
    TruncatedUnsupported, "truncated_unsupported_rule", "stacks cut at an unwind rule that the tables cannot express";
    TruncatedReadFailed, "truncated_unreadable_stack", "stacks cut where the target's stack could not be read";
    TruncatedNoProgress, "truncated_broken_chain", "stacks cut where the chain of frames did not move up";
    Unwound, "stacks_unwound", "stacks walked";
    Execs, "execs", "calls of exec by traced processes: their blocks were dropped with the old address space";
    SampledNs, "sampled_ns", "nanoseconds spent in the sampled runs of our programs";
    SampledRuns, "sampled_runs", "runs of our programs whose time was taken";
    Reallocs, "reallocs", "reallocations that moved or resized a known block: one hit, counted as freed and as allocated";
    HitsOutside, "hits_outside", "probe hits of processes that are not traced, none of them counted elsewhere";
    FreesInherited, "frees_inherited", "frees by forked processes, reallocations included, of blocks that they had from their parents";
    ForksFollowed, "forks_followed", "processes forked by a traced one that are traced too";
    Joined, "joined", "processes of the scope that came to be traced at their first hit";
    TargetsEnded, "targets_ended", "traced processes whose last thread ended";
    TargetsFull, "targets_full", "processes not traced because the table of processes was full";
    HitsMapping, "hits_mapping", "probe hits at the entry of mmap and its kin (--domain mmap)";
    HitsMappingReturn, "hits_mapping_return", "probe hits at their returns";
    MappingsTold, "mappings_told", "calls of mmap and its kin that succeeded and are accounted for";
    MappingsOfAllocators, "mappings_of_allocators", "of these, calls that an allocator made: what they map is its own";
    MappingsNested, "mappings_nested", "calls of mmap and its kin by functions of the same name, part of the inner call";
    MappingsIdle, "mappings_idle", "calls that change no mapping: brk(0), other advice than to give pages back";
    MappingsFailed, "mappings_failed", "calls of mmap and its kin that returned an error";
    MappingsLost, "mappings_lost", "calls of mmap and its kin that did not fit their buffer (see --mmap-buffer): mappings are wrong from there on";
    MappingReturnsLost, "mapping_returns_lost", "calls of mmap and its kin whose return was never seen";
    UnmapsMissed, "unmaps_missed", "ranges mapped again while still counted as mapped: the old ones were closed";
    RemapsUnknown, "remaps_unknown", "calls of mremap and brk on memory that the trace does not know (a file's, or from before the attach), not counted";
    GivenBackBytes, "given_back_bytes", "bytes of mappings that madvise gave back, still counted as mapped";
    RunsMissed, "runs_missed", "runs of our programs that the kernel left out: forks, execs or ends of threads that were not noticed";
    JoinedLate, "joined_late", "processes that ran before their files had probes: what they allocated until then was not seen";
}

/// Number of counters.
pub const N_COUNTERS: usize = Counter::ALL.len();

/// The kernel reads and writes counters in one array value of this many words.
pub const COUNTER_WORDS: usize = 64;
const _: () = assert!(N_COUNTERS <= COUNTER_WORDS);

/// The counters that each target has of its own too, by their place in [`crate::abi::Target::losses`]: those by which its own balance
/// closes.
pub const PER_TARGET: [Counter; 11] = [
    Counter::Failed,
    Counter::FreesUnknown,
    Counter::FreesInherited,
    Counter::ReallocsUnknown,
    Counter::LostReturns,
    Counter::UnpairedReturns,
    Counter::MissedFrees,
    Counter::BlocksFull,
    Counter::BlocksFullBytes,
    Counter::StacksFull,
    Counter::OutUnreadable,
];

/// Number of [`PER_TARGET`] counters.
pub const PER_TARGET_WORDS: usize = PER_TARGET.len();

/// The place of a counter among [`PER_TARGET`]'s; [`PER_TARGET_WORDS`] when it is none of them.
#[inline(always)]
pub const fn per_target_index(counter: Counter) -> usize {
    let mut n = 0;
    while n < PER_TARGET_WORDS && PER_TARGET[n] as u32 != counter as u32 {
        n += 1;
    }
    n
}
