//! Totals: exact sums and the exact peak, by atomics (the model: `tracer_common::peak`).

use aya_ebpf::helpers::generated;
use tracer_common::{
    abi::{Block, Lifetime, ScopeTotals, StackTotals},
    counters::Counter,
};

use crate::{
    atomic,
    blocks::{self, Put},
    counters::lose,
    maps::{SCOPE, TOTALS},
    targets::Counted,
};

/// A step of the target's total that was made; the stacks' parts follow.
#[derive(Clone, Copy)]
pub struct Stepped {
    epoch: u64,
    new_peak: bool,
}

/// Puts a block into the table; `false` (and counted) when it is full. A block at the same address is closed.
#[inline(always)]
pub fn put(target: Counted, address: u64, block: Block) -> bool {
    let (is_in, old) = match blocks::put(target, address, block) {
        Put::New => (true, None),
        Put::Replaced(old) => (true, Some(old)),
        Put::Full(old) => (false, old),
    };
    if let Some(old) = old {
        lose(target.element, Counter::MissedFrees);
        freed(target, old, block.born_ns);
    }
    is_in
}

/// Puts a block back that a reallocation had taken out and left alone, as far as is known. Where its address was handed out again
/// meanwhile, this block is the one that ended.
#[inline(never)]
pub fn put_back(target: Counted, address: u64, old: &Block) {
    let newer = blocks::take(target, address);
    let is_in = blocks::insert(target, address, newer.unwrap_or(*old));
    if newer.is_some() {
        lose(target.element, Counter::MissedFrees);
    } else if is_in {
        return;
    }
    freed(target, *old, now_ns());
}

/// One block more, at its birth.
#[inline(always)]
pub fn allocated(target: Counted, block: Block) {
    let stepped = step(target, block.size, block.born_ns);
    arrived(stepped, block);
}

/// One block less.
#[inline(always)]
pub fn freed(target: Counted, block: Block, now_ns: u64) {
    let stepped = step(target, block.size.wrapping_neg(), now_ns);
    left(stepped, block, now_ns);
}

/// `old` became `new` in one step, at the birth of `new`: the total never shows both.
#[inline(always)]
pub fn moved(target: Counted, old: Block, new: Block) {
    let stepped = step(target, new.size.wrapping_sub(old.size), new.born_ns);
    left(stepped, old, new.born_ns);
    arrived(stepped, new);
}

/// The time: CLOCK_MONOTONIC, ns. Read once an event.
#[inline(always)]
pub fn now_ns() -> u64 {
    // SAFETY: a helper without arguments.
    unsafe { generated::bpf_ktime_get_ns() }
}

/// Changes the current bytes of the target, and of all together, by `bytes` (two's complement), and raises the peaks where they are
/// passed.
#[inline(always)]
fn step(target: Counted, bytes: u64, now_ns: u64) -> Stepped {
    if let Some(scope) = SCOPE.get_ptr_mut(0) {
        raise(scope, bytes, now_ns);
    }
    // SAFETY: a pointer into map memory.
    let totals = unsafe { &raw mut (*target.element).totals };
    // SAFETY: as above.
    let epoch = unsafe { &raw mut (*totals).peak.epoch };
    if raise(totals, bytes, now_ns) {
        return Stepped { epoch: atomic::fetch_add(epoch, 1).wrapping_add(1), new_peak: true };
    }
    // SAFETY: as above.
    Stepped { epoch: unsafe { epoch.read_volatile() }, new_peak: false }
}

/// Whether that made a new peak.
#[inline(always)]
fn raise(totals: *mut ScopeTotals, bytes: u64, now_ns: u64) -> bool {
    // SAFETY: pointers into map memory.
    let (current, peak) = unsafe { (&raw mut (*totals).peak.current_bytes, &raw mut (*totals).peak.peak_bytes) };
    let total = atomic::fetch_add(current, bytes).wrapping_add(bytes);
    if (bytes as i64) <= 0 {
        return false;
    }
    // A lost exchange means that another thread raised the peak meanwhile; four of those in a row do not happen.
    for _attempt in 0..4 {
        // SAFETY: as above.
        let highest = unsafe { peak.read_volatile() };
        if total as i64 <= highest as i64 {
            return false;
        }
        if atomic::compare_exchange(peak, highest, total) {
            // SAFETY: as above. Of two threads that raise the peak at once either's time may stay.
            unsafe { (&raw mut (*totals).peak_at_ns).write_volatile(now_ns) };
            return true;
        }
    }
    false
}

#[inline(always)]
fn arrived(stepped: Stepped, block: Block) {
    let Some(totals) = TOTALS.get_ptr_mut(block.stack) else { return };
    save_peak(stepped, totals);
    // SAFETY: pointers into map memory.
    unsafe {
        atomic::fetch_add(&raw mut (*totals).allocated_bytes, block.size);
        atomic::fetch_add(&raw mut (*totals).allocated_count, 1);
    }
}

#[inline(always)]
fn left(stepped: Stepped, block: Block, now_ns: u64) {
    let Some(totals) = TOTALS.get_ptr_mut(block.stack) else { return };
    save_peak(stepped, totals);
    // SAFETY: pointers into map memory.
    unsafe {
        atomic::fetch_add(&raw mut (*totals).freed_bytes, block.size);
        let count = match Lifetime::of(block.born_ns, now_ns) {
            Lifetime::UnderOneMillisecond => &raw mut (*totals).freed_counts[Lifetime::UnderOneMillisecond as usize],
            Lifetime::UnderOneSecond => &raw mut (*totals).freed_counts[Lifetime::UnderOneSecond as usize],
            Lifetime::Longer => &raw mut (*totals).freed_counts[Lifetime::Longer as usize],
        };
        atomic::fetch_add(count, 1);
    }
}

/// Before a stack changes for the first time since the peak, what it held then is saved.
#[inline(always)]
fn save_peak(stepped: Stepped, totals: *mut StackTotals) {
    if stepped.new_peak {
        return;
    }
    // SAFETY: a pointer into map memory; a race with another thread of the same stack is off by the calls in flight.
    unsafe {
        if (*totals).epoch != stepped.epoch as u32 {
            (*totals).at_peak_bytes = (*totals).allocated_bytes.wrapping_sub((*totals).freed_bytes);
            (*totals).at_peak_count = (*totals).allocated_count.wrapping_sub((*totals).freed_count()) as u32;
            (*totals).epoch = stepped.epoch as u32;
        }
    }
}
