//! Walk → stack id. The frames of a stack are stored once, at first sight; no stack is merged with or replaced by another.

use core::ffi::c_void;

use aya_ebpf::helpers::{bpf_loop, generated};
use tracer_common::{
    abi::{COMM_BYTES, NO_STACK, STACK_SLOT_CLAIMED, StackRecord},
    counters::Counter,
    limits::{MAX_FRAMES, TABLE_PROBES},
};

use super::walk::Walk;
use crate::{
    atomic,
    counters::bump,
    maps::{CURSORS, FRAMES, STACK_INDEX, STACK_THREADS, STACKS, control},
    threads,
};

/// The stack's id; [`NO_STACK`] (and counted) when it is new and the tables are full.
#[inline(always)]
pub fn id_of(walk: &Walk) -> u32 {
    let Some(control) = control() else { return NO_STACK };
    let at = walk.hash as u32 & control.stack_mask;
    match STACK_INDEX.get(at) {
        Some(slot) if slot.hash == walk.hash && slot.id != 0 && slot.id != STACK_SLOT_CLAIMED => slot.id as u32,
        _ => find_or_store(walk, at, control.stack_mask),
    }
}

struct Probe {
    hash: u64,
    at: u32,
    mask: u32,
    id: u32,
    free: u32,
}

const NOWHERE: u32 = u32::MAX;

#[inline(never)]
fn find_or_store(walk: &Walk, at: u32, mask: u32) -> u32 {
    let mut probe = Probe { hash: walk.hash, at, mask, id: NO_STACK, free: NOWHERE };
    // SAFETY: the callback's signature is what bpf_loop calls; `probe` outlives the call.
    unsafe { bpf_loop(TABLE_PROBES, look as *mut c_void, (&raw mut probe).cast(), 0) };
    if probe.id != NO_STACK {
        return probe.id;
    }
    let Some(slot) = STACK_INDEX.get_ptr_mut(probe.free) else {
        bump(Counter::StacksFull);
        return NO_STACK;
    };
    // SAFETY: pointers into map memory; only the CPU that claimed the slot writes it.
    unsafe {
        if !atomic::compare_exchange(&raw mut (*slot).id, 0, STACK_SLOT_CLAIMED) {
            // Another thread took the slot just now: this event's stack is stored a second time, under an id of its own; the
            // loader merges equal chains.
            return store(walk);
        }
        let id = store(walk);
        (*slot).hash = walk.hash;
        core::ptr::write_volatile(&raw mut (*slot).id, u64::from(id));
        id
    }
}

unsafe extern "C" fn look(_n: u32, probe: *mut Probe) -> i64 {
    // SAFETY: bpf_loop hands back the pointer that it was given.
    let probe = unsafe { &mut *probe };
    let Some(slot) = STACK_INDEX.get(probe.at) else { return 1 };
    if slot.id == 0 {
        // Insert only, no deletion: a chain ends at its first free slot.
        probe.free = probe.at;
        return 1;
    }
    if slot.id != STACK_SLOT_CLAIMED && slot.hash == probe.hash {
        probe.id = slot.id as u32;
        return 1;
    }
    probe.at = (probe.at + 1) & probe.mask;
    0
}

struct Copy {
    slot: u32,
    start: u32,
}

/// Stores frames and record; [`NO_STACK`] (and counted) when a table is full.
#[inline(always)]
fn store(walk: &Walk) -> u32 {
    let (Some(control), Some(cursors)) = (control(), CURSORS.get_ptr_mut(0)) else { return NO_STACK };
    let Some(slot) = threads::slot(walk.slot) else { return NO_STACK };
    let n_frames = u64::from(slot.n_frames);
    // SAFETY: a pointer into map memory.
    let (next_stack, next_word) = unsafe { (&raw mut (*cursors).next_stack, &raw mut (*cursors).next_frame_word) };
    let id = atomic::fetch_add(next_stack, 1).wrapping_add(1);
    let start = atomic::fetch_add(next_word, n_frames);
    if id >= u64::from(control.max_stacks) || start + n_frames > u64::from(control.max_frame_words) {
        bump(Counter::StacksFull);
        return NO_STACK;
    }
    let mut copy = Copy { slot: walk.slot, start: start as u32 };
    // SAFETY: the callback's signature is what bpf_loop calls; `copy` outlives the call.
    unsafe { bpf_loop(n_frames as u32, copy_frame as *mut c_void, (&raw mut copy).cast(), 0) };
    if let Some(record) = STACKS.get_ptr_mut(id as u32) {
        // SAFETY: the id was handed out to this call alone.
        unsafe {
            *record =
                StackRecord { frames_start: start as u32, n_frames: n_frames as u16, end: walk.end as u8, _pad: 0 };
        }
    }
    if control.tid_mask != 0 {
        store_thread(id as u32, slot.tid);
    }
    id as u32
}

/// Where threads are kept apart: whose stack it is. The name is taken now, as the thread may be gone when the loader looks.
#[inline(always)]
fn store_thread(id: u32, tid: u32) {
    if let Some(thread) = STACK_THREADS.get_ptr_mut(id) {
        // SAFETY: the id was handed out to this call alone; the helper writes the name's bytes only (a failure leaves zeros).
        unsafe {
            (*thread).tid = tid;
            generated::bpf_get_current_comm((&raw mut (*thread).comm).cast(), COMM_BYTES as u32);
        }
    }
}

unsafe extern "C" fn copy_frame(n: u32, copy: *mut Copy) -> i64 {
    // SAFETY: bpf_loop hands back the pointer that it was given.
    let copy = unsafe { &mut *copy };
    let Some(slot) = threads::slot(copy.slot) else { return 1 };
    let Some(word) = FRAMES.get_ptr_mut(copy.start.wrapping_add(n)) else { return 1 };
    // SAFETY: the words from `start` on were handed out to this call alone.
    unsafe { *word = slot.frames[n as usize & (MAX_FRAMES - 1)] };
    0
}
