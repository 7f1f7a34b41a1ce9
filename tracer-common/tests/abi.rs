//! What the shared structs mean, where a bit too few would show as a wrong number.

use tracer_common::abi::{Block, Lifetime, StackTotals};

#[test]
fn a_packed_block_comes_back_and_is_never_0() {
    for (size, stack) in [(0, 0), (1, 0), (Block::SIZE_LIMIT - 1, 0), (0, (1 << 24) - 2), (123, 65_535)] {
        let block = Block { size, born_ns: 77, stack, _pad: 0 };
        assert_ne!(block.pack(), 0);
        assert_eq!(Block::unpack(block.pack(), 77), block);
    }
}

#[test]
fn lifetimes_are_told_apart_at_exactly_1_ms_and_1_s() {
    const BORN: u64 = 5_000_000_000;
    for (age_ns, expected) in [
        (-3, Lifetime::UnderOneMillisecond),
        (0, Lifetime::UnderOneMillisecond),
        (999_999, Lifetime::UnderOneMillisecond),
        (1_000_000, Lifetime::UnderOneSecond),
        (999_999_999, Lifetime::UnderOneSecond),
        (1_000_000_000, Lifetime::Longer),
        (86_400_000_000_000, Lifetime::Longer),
    ] {
        assert_eq!(Lifetime::of(BORN, BORN.wrapping_add_signed(age_ns)), expected, "{age_ns} ns");
    }
}

#[test]
fn a_stack_saved_in_another_epoch_was_at_the_peak_what_it_is_now() {
    let totals = StackTotals {
        allocated_bytes: 300,
        allocated_count: 3,
        freed_bytes: 100,
        freed_counts: [1, 0, 0],
        at_peak_bytes: 70,
        at_peak_count: 2,
        epoch: 6,
    };
    for (scope_epoch, expected) in [(6, (70, 2)), (7, (200, 2)), (0, (200, 2)), ((1 << 32) + 7, (200, 2))] {
        assert_eq!(totals.peak(scope_epoch).at_peak(scope_epoch), expected, "epoch {scope_epoch}");
    }
}
