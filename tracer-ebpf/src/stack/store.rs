//! Walk → stack id. The frames of a stack are stored once, at first sight; no stack is merged with or replaced by another.

use core::ffi::c_void;

use aya_ebpf::helpers::{bpf_loop, generated};
use tracer_common::{
    abi::{
        COMM_BYTES, FRAME_CLASS_WORDS, FRAME_CLASSES, FreeList, STACK_SLOT_CLAIMED, STACK_SLOT_RETIRED, StackRecord,
        frame_class,
    },
    counters::Counter,
    limits::{MAX_FRAMES, TABLE_PROBES},
};

use super::walk::Walk;
use crate::{
    atomic,
    counters::lose,
    maps::{CURSORS, FRAMES, STACK_INDEX, STACK_THREADS, STACKS, TARGETS, control},
    threads,
};

/// No id, as long as one is looked for: that of events without a stack is their target's number.
const NO_STACK: u32 = 0;

/// The stack's id; that of the target's events without a stack (and counted) when it is new and the tables are full.
#[inline(always)]
pub fn id_of(walk: &Walk, number: u32) -> u32 {
    let Some(control) = control() else { return number };
    let at = walk.hash as u32 & control.stack_mask;
    match STACK_INDEX.get(at) {
        Some(slot) if slot.hash == walk.hash && slot.id != 0 && slot.id < STACK_SLOT_RETIRED => slot.id as u32,
        _ => match find_or_store(walk, at, control.stack_mask) {
            NO_STACK => number,
            id => id,
        },
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
    let Some(slot) = STACK_INDEX.get_ptr_mut(probe.free) else { return not_stored(walk) };
    // SAFETY: pointers into map memory; only the CPU that claimed the slot writes it.
    unsafe {
        let id = &raw mut (*slot).id;
        let is_claimed = atomic::compare_exchange(id, 0, STACK_SLOT_CLAIMED)
            || atomic::compare_exchange(id, STACK_SLOT_RETIRED, STACK_SLOT_CLAIMED);
        if !is_claimed {
            // Another thread took the slot just now: this event's stack is stored a second time, under an id of its own;
            // readers merge equal chains.
            return store(walk);
        }
        let stored = store(walk);
        (*slot).hash = walk.hash;
        // Where it could not be stored the slot is free again, but a search goes on past it.
        core::ptr::write_volatile(id, if stored == NO_STACK { STACK_SLOT_RETIRED } else { u64::from(stored) });
        stored
    }
}

unsafe extern "C" fn look(_n: u32, probe: *mut Probe) -> i64 {
    // SAFETY: bpf_loop hands back the pointer that it was given.
    let probe = unsafe { &mut *probe };
    let Some(slot) = STACK_INDEX.get(probe.at) else { return 1 };
    if slot.id == 0 || slot.id == STACK_SLOT_RETIRED {
        if probe.free == NOWHERE {
            probe.free = probe.at;
        }
        if slot.id == 0 {
            // A search ends at the first slot that is free and was never anything else.
            return 1;
        }
    } else if slot.id != STACK_SLOT_CLAIMED && slot.hash == probe.hash {
        probe.id = slot.id as u32;
        return 1;
    }
    probe.at = (probe.at + 1) & probe.mask;
    0
}

#[inline(always)]
fn not_stored(walk: &Walk) -> u32 {
    if let Some(slot) = threads::slot(walk.slot)
        && let Some(target) = TARGETS.get_ptr_mut(slot.target)
    {
        lose(target, Counter::StacksFull);
    }
    NO_STACK
}

struct Copy {
    slot: u32,
    start: u32,
}

/// Stores frames and record; [`NO_STACK`] (and counted) when a table is full.
#[inline(always)]
fn store(walk: &Walk) -> u32 {
    let Some(slot) = threads::slot(walk.slot) else { return NO_STACK };
    let n_frames = slot.n_frames;
    let class = frame_class(n_frames);
    let Some(place) = reuse(class).or_else(|| fresh(class)).or_else(|| reuse_larger(class)) else {
        return not_stored(walk);
    };
    let mut copy = Copy { slot: walk.slot, start: place.frames_start };
    // SAFETY: the callback's signature is what bpf_loop calls; `copy` outlives the call.
    unsafe { bpf_loop(n_frames, copy_frame as *mut c_void, (&raw mut copy).cast(), 0) };
    if let Some(record) = STACKS.get_ptr_mut(place.id) {
        // SAFETY: the id was handed out to this call alone.
        unsafe {
            *record = StackRecord {
                frames_start: place.frames_start,
                n_frames: n_frames as u16,
                end: walk.end as u8,
                class: place.class as u8,
                target: slot.target,
                serial: slot.serial,
            };
        }
    }
    if control().is_some_and(|control| control.tid_mask != 0) {
        store_thread(place.id, slot.tid);
    }
    place.id
}

/// Where a stack goes.
struct Place {
    id: u32,
    frames_start: u32,
    class: u32,
}

/// An id that was never used, and words that were not.
#[inline(always)]
fn fresh(class: u32) -> Option<Place> {
    let (control, cursors) = (control()?, CURSORS.get_ptr_mut(0)?);
    // SAFETY: a pointer into map memory.
    let (next_stack, next_word) = unsafe { (&raw mut (*cursors).next_stack, &raw mut (*cursors).next_frame_word) };
    // SAFETY: as above. Looked at first, so that tables that are full do not count on for ever.
    let (n_stacks, n_words) = unsafe { (next_stack.read_volatile(), next_word.read_volatile()) };
    let words = u64::from(class + 1) * FRAME_CLASS_WORDS as u64;
    let has_room = |n_stacks: u64, n_words: u64| {
        n_stacks + u64::from(control.n_targets) < u64::from(control.max_stacks)
            && n_words + words <= u64::from(control.max_frame_words)
    };
    if !has_room(n_stacks, n_words) {
        return None;
    }
    let n_stacks = atomic::fetch_add(next_stack, 1);
    let start = atomic::fetch_add(next_word, words);
    let id = (n_stacks + u64::from(control.n_targets)) as u32;
    has_room(n_stacks, start).then_some(Place { id, frames_start: start as u32, class })
}

/// An id that is free again, with room for frames of this class.
#[inline(always)]
fn reuse(class: u32) -> Option<Place> {
    let cursors = CURSORS.get_ptr_mut(0)?;
    let class = class & (FRAME_CLASSES as u32 - 1);
    // SAFETY: in bounds.
    let head = unsafe { (&raw mut (*cursors).free_stacks).cast::<u64>().add(class as usize) };
    // A lost exchange means that another thread came first; four of those in a row do not happen.
    for _attempt in 0..4 {
        // SAFETY: pointers into map memory.
        let list = FreeList(unsafe { head.read_volatile() });
        let id = list.first();
        if id == 0 {
            return None;
        }
        let record = STACKS.get_ptr_mut(id)?;
        // SAFETY: as above; where the list is changed meanwhile, the exchange fails.
        let (next, frames_start) = unsafe {
            ((&raw const (*record).target).read_volatile(), (&raw const (*record).frames_start).read_volatile())
        };
        if atomic::compare_exchange(head, list.0, list.changed_to(next).0) {
            return Some(Place { id, frames_start, class });
        }
    }
    None
}

struct Larger {
    class: u32,
    id: u32,
    frames_start: u32,
}

/// As [`reuse`], with more room than is needed.
#[inline(never)]
fn reuse_larger(class: u32) -> Option<Place> {
    let mut larger = Larger { class, id: NO_STACK, frames_start: 0 };
    // SAFETY: the callback's signature is what bpf_loop calls; `larger` outlives the call.
    unsafe { bpf_loop(FRAME_CLASSES as u32, look_larger as *mut c_void, (&raw mut larger).cast(), 0) };
    (larger.id != NO_STACK).then_some(Place { id: larger.id, frames_start: larger.frames_start, class: larger.class })
}

unsafe extern "C" fn look_larger(_n: u32, larger: *mut Larger) -> i64 {
    // SAFETY: bpf_loop hands back the pointer that it was given.
    let larger = unsafe { &mut *larger };
    larger.class += 1;
    if larger.class >= FRAME_CLASSES as u32 {
        return 1;
    }
    let Some(place) = reuse(larger.class) else { return 0 };
    (larger.id, larger.frames_start) = (place.id, place.frames_start);
    1
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
