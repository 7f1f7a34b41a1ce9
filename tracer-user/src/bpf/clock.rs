//! The clock of the programs.

use nix::time::{ClockId, clock_gettime};

/// The time that `bpf_ktime_get_ns` tells: CLOCK_MONOTONIC, ns (it does not count suspended time).
pub fn monotonic_ns() -> u64 {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).expect("every Linux has CLOCK_MONOTONIC");
    now.tv_sec() as u64 * 1_000_000_000 + now.tv_nsec() as u64
}
