//! Blocks and totals: exact sums and the exact peak, by atomics (the model: `tracer_common::peak`).

use tracer_common::{
    abi::{Block, BlockKey, StackTotals},
    counters::Counter,
};

use crate::{
    atomic,
    counters::{add, bump},
    maps::{BLOCKS, SCOPE, TOTALS},
};

/// A step of the scope's total that was made; the stacks' parts follow.
#[derive(Clone, Copy)]
pub struct Stepped {
    epoch: u64,
    new_peak: bool,
}

/// `BPF_ANY`, `BPF_NOEXIST` (include/uapi/linux/bpf.h).
const ANY: u64 = 0;
const NO_EXIST: u64 = 1;
const EEXIST: i32 = -17;

/// Takes a block out of the table.
#[inline(always)]
pub fn take(target: u64, address: u64) -> Option<Block> {
    let key = BlockKey { target, address };
    // SAFETY: the value is copied at once; only the thread that frees a block removes it.
    let block = unsafe { BLOCKS.get(key) }.copied()?;
    match BLOCKS.remove(key) {
        Ok(()) => Some(block),
        Err(_) => None,
    }
}

/// Puts a block into the table; `false` (and counted) when it is full.
#[inline(always)]
pub fn put(target: u64, address: u64, block: Block) -> bool {
    let key = BlockKey { target, address };
    match BLOCKS.insert(key, block, NO_EXIST) {
        Ok(()) => true,
        Err(EEXIST) => replace(&key, &block),
        Err(_) => full(block.size),
    }
}

/// The allocator handed out an address that counts as live: its free was missed. The old block is closed.
#[inline(never)]
fn replace(key: &BlockKey, block: &Block) -> bool {
    // SAFETY: the value is copied at once.
    if let Some(old) = unsafe { BLOCKS.get(key) }.copied() {
        bump(Counter::MissedFrees);
        freed(old);
    }
    match BLOCKS.insert(key, block, ANY) {
        Ok(()) => true,
        Err(_) => full(block.size),
    }
}

fn full(size: u64) -> bool {
    bump(Counter::BlocksFull);
    add(Counter::BlocksFullBytes, size);
    false
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
    let (current, peak, epoch) =
        unsafe { (&raw mut (*scope).current_bytes, &raw mut (*scope).peak_bytes, &raw mut (*scope).epoch) };
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
        atomic::fetch_add(&raw mut (*totals).peak.live_bytes, block.size);
        atomic::fetch_add(&raw mut (*totals).peak.live_count, 1);
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
        atomic::fetch_add(&raw mut (*totals).peak.live_bytes, block.size.wrapping_neg());
        atomic::fetch_add(&raw mut (*totals).peak.live_count, 1u64.wrapping_neg());
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
        let peak = &raw mut (*totals).peak;
        if (*peak).epoch != stepped.epoch {
            (*peak).at_peak_bytes = (*peak).live_bytes;
            (*peak).at_peak_count = (*peak).live_count;
            (*peak).epoch = stepped.epoch;
        }
    }
}
