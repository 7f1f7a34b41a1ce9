//! Totals: exact sums and the exact peak, by atomics (the model: `tracer_common::peak`).

use tracer_common::{
    abi::{Block, StackTotals},
    counters::Counter,
};

use crate::{
    atomic,
    blocks::{self, Put},
    counters::bump,
    maps::{SCOPE, TOTALS},
};

/// A step of the scope's total that was made; the stacks' parts follow.
#[derive(Clone, Copy)]
pub struct Stepped {
    epoch: u64,
    new_peak: bool,
}

/// Puts a block into the table; `false` (and counted) when it is full. A block at the same address is closed.
#[inline(always)]
pub fn put(target: u64, address: u64, block: Block) -> bool {
    match blocks::put(target, address, block) {
        Put::New => true,
        Put::Replaced(old) => {
            bump(Counter::MissedFrees);
            freed(old);
            true
        }
        Put::Full => false,
    }
}

/// One block more.
#[inline(always)]
pub fn allocated(block: Block) {
    let stepped = step(block.size);
    arrived(stepped, block);
}

/// One block less.
#[inline(always)]
pub fn freed(block: Block) {
    let stepped = step(block.size.wrapping_neg());
    left(stepped, block);
}

/// `old` became `new` in one step: the total never shows both.
#[inline(always)]
pub fn moved(old: Block, new: Block) {
    let stepped = step(new.size.wrapping_sub(old.size));
    left(stepped, old);
    arrived(stepped, new);
}

/// Changes the scope's current bytes by `bytes` (two's complement) and raises the peak where it is passed.
#[inline(always)]
fn step(bytes: u64) -> Stepped {
    let Some(scope) = SCOPE.get_ptr_mut(0) else { return Stepped { epoch: 0, new_peak: false } };
    // SAFETY: pointers into map memory.
    let (current, peak, epoch) = unsafe {
        (&raw mut (*scope).peak.current_bytes, &raw mut (*scope).peak.peak_bytes, &raw mut (*scope).peak.epoch)
    };
    let total = atomic::fetch_add(current, bytes).wrapping_add(bytes);
    if (bytes as i64) > 0 {
        // A lost exchange means that another thread raised the peak meanwhile; four of those in a row do not happen.
        for _attempt in 0..4 {
            // SAFETY: as above.
            let highest = unsafe { core::ptr::read_volatile(peak) };
            if total as i64 <= highest as i64 {
                break;
            }
            if atomic::compare_exchange(peak, highest, total) {
                let epoch = atomic::fetch_add(epoch, 1).wrapping_add(1);
                return Stepped { epoch, new_peak: true };
            }
        }
    }
    // SAFETY: as above.
    Stepped { epoch: unsafe { core::ptr::read_volatile(epoch) }, new_peak: false }
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
fn left(stepped: Stepped, block: Block) {
    let Some(totals) = TOTALS.get_ptr_mut(block.stack) else { return };
    save_peak(stepped, totals);
    // SAFETY: pointers into map memory.
    unsafe {
        atomic::fetch_add(&raw mut (*totals).freed_bytes, block.size);
        atomic::fetch_add(&raw mut (*totals).freed_count, 1);
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
        if (*totals).epoch != stepped.epoch {
            (*totals).at_peak_bytes = (*totals).allocated_bytes.wrapping_sub((*totals).freed_bytes);
            (*totals).at_peak_count = (*totals).allocated_count.wrapping_sub((*totals).freed_count);
            (*totals).epoch = stepped.epoch;
        }
    }
}
