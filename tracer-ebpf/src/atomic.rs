//! Atomics on map memory (BPF ISA v3: fetch-add and compare-exchange).

use core::intrinsics::{AtomicOrdering::SeqCst, atomic_cxchg, atomic_xadd};

/// `*p += by` (wrapping); returns the value before.
///
/// `p` must point into map memory.
#[inline(always)]
pub fn fetch_add(p: *mut u64, by: u64) -> u64 {
    // SAFETY: callers pass pointers that a map lookup returned; the verifier checks bounds and alignment.
    unsafe { atomic_xadd::<u64, u64, { SeqCst }>(p, by) }
}

/// `*p = new` if `*p == old`; tells whether it was.
///
/// `p` must point into map memory.
#[inline(always)]
pub fn compare_exchange(p: *mut u64, old: u64, new: u64) -> bool {
    // SAFETY: as in `fetch_add`.
    unsafe { atomic_cxchg::<u64, { SeqCst }, { SeqCst }>(p, old, new).1 }
}

/// As [`compare_exchange`], 32 bits.
#[inline(always)]
pub fn compare_exchange_32(p: *mut u32, old: u32, new: u32) -> bool {
    // SAFETY: as in `fetch_add`.
    unsafe { atomic_cxchg::<u32, { SeqCst }, { SeqCst }>(p, old, new).1 }
}
