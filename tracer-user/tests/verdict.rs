//! Leak or fragmentation, on figures made up and taken from real programs.

use std::{sync::Arc, time::Duration};

use tracer_common::counters::Counter;
use tracer_user::{
    analysis::verdict::{Basis, Change, Conclusion, Grown, Verdict},
    report::verdict::{one_line, render},
    snapshot::{MappedBytes, ProcessMemory, Snapshot, Stack, StackId, StackStats, TargetInfo, Totals},
};

const MIB: u64 = 1 << 20;

fn resident(rss_bytes: u64) -> MappedBytes {
    MappedBytes { size_bytes: rss_bytes, rss_bytes, pss_bytes: rss_bytes, n_mappings: 1 }
}

/// A process seen from its start, with live blocks as (bytes, count) a stack, and resident memory of its heap and of other
/// anonymous memory.
fn snapshot(live: &[(u64, u64)], heap: u64, anonymous: u64) -> Snapshot {
    let mut totals = Totals::default();
    let stacks: Vec<StackStats> = (0..)
        .zip(live)
        .map(|(id, &(current_bytes, current_count))| {
            let of_stack = Totals { current_bytes, current_count, ..Totals::default() };
            totals.add(&of_stack);
            let stack = Arc::new(Stack { frames: Vec::new(), ..Stack::default() });
            StackStats { id: StackId(id), stack, totals: of_stack }
        })
        .collect();
    let memory = ProcessMemory {
        heap: resident(heap),
        anonymous: resident(anonymous),
        stacks: resident(132 << 10),
        files: resident(3 * MIB),
        ..ProcessMemory::default()
    };
    Snapshot {
        target: TargetInfo { pid: 7, comm: "app".into(), running: true, ..TargetInfo::default() },
        duration: Duration::from_secs(10),
        from_start: true,
        totals,
        stacks,
        memory: Some(memory),
        ..Snapshot::default()
    }
}

fn verdict(snapshot: &Snapshot) -> Verdict {
    Verdict::of(snapshot).expect("its memory was read")
}

#[test]
fn a_heap_of_holes_is_fragmentation_and_not_a_leak() {
    let snapshot = snapshot(&[(95 * MIB, 200_000)], 812 * MIB, MIB);
    let found = verdict(&snapshot);
    assert_eq!((found.basis, found.conclusion), (Basis::Heap, Conclusion::Free));
    assert_eq!(
        one_line(&snapshot).as_deref(),
        Some(
            "resident 816 MiB: the heap holds 812 MiB resident for 95.0 MiB live: ~88 % is free memory that the allocator keeps \
             (fragmentation), not a leak"
        )
    );
}

#[test]
fn a_heap_of_live_blocks_is_not_fragmentation() {
    let found = verdict(&snapshot(&[(122 * MIB, 262_144)], 125 * MIB, MIB));
    assert_eq!(found.conclusion, Conclusion::Live);
    // 488 B on average: chunks of 496 B.
    assert_eq!(found.overhead_bytes, 262_144 * 8);
}

#[test]
fn what_the_allocator_adds_to_small_blocks_is_said() {
    // 200 000 blocks of 17 B take 32 B each: 47 % of the heap is no block's own.
    let small = one_line(&snapshot(&[(17 * 200_000, 200_000)], 32 * 200_000, 0)).expect("its memory was read");
    assert!(
        small.contains(
            "it is live blocks and what the allocator adds to blocks so small (~47 % of it), not fragmentation"
        ),
        "{small}"
    );
    let large = one_line(&snapshot(&[(122 * MIB, 262_144)], 125 * MIB, MIB)).expect("its memory was read");
    assert!(large.contains("it is live blocks, not fragmentation"), "{large}");
}

#[test]
fn small_blocks_are_mostly_overhead() {
    // 100 blocks of 8 B take chunks of 32 B; of 24 B, the same; of 25 B, 48 B.
    for (average, chunk) in [(8, 32), (24, 32), (25, 48), (40, 48), (1000, 1008)] {
        let found = verdict(&snapshot(&[(average * 100, 100)], 10 * MIB, 0));
        assert_eq!(found.overhead_bytes, (chunk - average) * 100, "{average}");
    }
}

#[test]
fn after_an_attach_free_memory_and_older_blocks_are_not_told_apart() {
    let mut attached = snapshot(&[(5 * MIB, 1000)], 100 * MIB, 0);
    attached.from_start = false;
    assert_eq!(verdict(&attached).conclusion, Conclusion::FreeOrUnseen);
    let mut lossy = snapshot(&[(5 * MIB, 1000)], 100 * MIB, 0);
    lossy.counters.0.insert(Counter::BlocksFull, 1);
    let line = one_line(&lossy).expect("its memory was read");
    assert!(line.contains("not told apart") && !line.contains("fragmentation"), "{line}");
    // What is known to be live is live all the same.
    attached.totals.current_bytes = 90 * MIB;
    assert_eq!(verdict(&attached).conclusion, Conclusion::Live);
}

#[test]
fn blocks_that_were_never_touched_are_no_contradiction() {
    let found = verdict(&snapshot(&[(1 << 30, 1)], MIB, 3 * MIB));
    assert_eq!((found.conclusion, found.not_live_bytes), (Conclusion::Untouched, 0));
    let text = render(&snapshot(&[(1 << 30, 1)], MIB, 3 * MIB), &found, None, "app.mtb");
    assert!(text.contains("4096 KiB") && text.contains("(1, at most)"), "{text}");
}

#[test]
fn another_allocators_free_memory_is_not_called_so() {
    let found = verdict(&snapshot(&[(20 * MIB, 40_000)], 132 << 10, 500 * MIB));
    assert_eq!((found.basis, found.conclusion), (Basis::HeapAndAnonymous, Conclusion::FreeOrMapped));
}

#[test]
fn little_memory_and_none_are_no_case() {
    assert_eq!(verdict(&snapshot(&[(1000, 10)], 132 << 10, 0)).conclusion, Conclusion::Small);
    let ended = Snapshot { memory: None, ..snapshot(&[(1000, 10)], 0, 0) };
    assert!(Verdict::of(&ended).is_none() && one_line(&ended).is_none());
}

#[test]
fn growth_of_the_heap_without_live_blocks_is_told_even_after_an_attach() {
    let at = |live: u64, heap: u64| Snapshot { from_start: false, ..snapshot(&[(live, live / 100)], heap, 0) };
    for (live, heap, expected) in [
        (51 * MIB, 400 * MIB, Grown::NotLive),
        (350 * MIB, 450 * MIB, Grown::Live),
        (150 * MIB, 300 * MIB, Grown::Both),
        (50 * MIB, 100 * MIB, Grown::Nothing),
        (10 * MIB, 20 * MIB, Grown::Nothing),
    ] {
        let change = Change::between(&at(50 * MIB, 100 * MIB), &verdict(&at(live, heap))).expect("both have memory");
        assert_eq!(change.grown, expected, "{live} {heap}");
    }
}

#[test]
fn the_report_is_this_text() {
    let snapshot = snapshot(&[(95 * MIB, 200_000)], 812 * MIB, MIB);
    let before = Snapshot { duration: Duration::ZERO, ..self::snapshot(&[(90 * MIB, 200_000)], 300 * MIB, MIB) };
    let found = verdict(&snapshot);
    let change = Change::between(&before, &found);
    assert_eq!(
        render(&snapshot, &found, change.as_ref(), "app.mtb @3"),
        "\
verdict on app.mtb @3  pid 7 (app)  nothing lost
the heap holds 812 MiB resident for 95.0 MiB live: ~88 % is free memory that the allocator keeps (fragmentation), not a leak
since 0.0 s: live +5120 KiB, resident +512 MiB: what grew is not live blocks: free memory that the allocator keeps (fragmentation), or older blocks touched since
resident     816 MiB
\x20    95.0 MiB    12 %  live blocks (200 000)
\x20    2734 KiB   0.3 %  ~allocator's headers and rounding (as glibc's)
\x20     714 MiB    88 %  ~free memory of the heap, kept by the allocator
\x20    1024 KiB   0.1 %  other anonymous memory (large blocks, other allocators, mmap)
\x20    3072 KiB   0.4 %  file pages
\x20     132 KiB  <0.1 %  stacks (1)
\x20         0 B   0.0 %  other (shared memory, vdso)
"
    );
}
