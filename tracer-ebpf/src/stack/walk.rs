//! The walk: from the caller of the allocator up to a root, by rows, without frame pointers.

use core::ffi::c_void;

use aya_ebpf::helpers::{bpf_loop, bpf_probe_read_user, generated};
use tracer_common::{
    abi::{FRAME_EXACT, MappingList, StackEnd, ThreadSlot},
    counters::Counter,
    limits::{MAX_FRAMES, STACK_CHUNK_BYTES},
    unwind::{Regs, Step, step},
};

use super::code;
use crate::{
    bound,
    counters::bump,
    maps::control,
    threads::{self, Hit},
};

/// What a walk found; its frames lie in the thread's slot.
#[repr(C)]
pub struct Walk {
    regs: Regs,
    /// Hash over the address chain, seeded with the target's serial (and the thread, where threads are kept apart); finished with
    /// the end.
    pub hash: u64,
    /// The first of the frames.
    pub return_address: u64,
    /// Index of the thread's slot.
    pub slot: u32,
    /// How it ended: a [`StackEnd`].
    pub end: u32,
    list: MappingList,
    /// What the list makes the pc cache's keys of.
    seed: u64,
    /// Size of the pc cache minus one.
    cache_mask: u32,
    /// 0: pc is a return address; 1: pc is exact.
    exact: u32,
}

/// Walks the stack of a thread that stands at a function's entry: `sp` points at the return address.
#[inline(always)]
pub fn walk(hit: &Hit, sp: u64, bp: u64) -> Walk {
    // SAFETY: an element of the table of targets.
    let list = MappingList(unsafe { (&raw const (*hit.target.element).mappings).read_volatile() });
    let mut walk = Walk {
        regs: Regs { pc: 0, sp: sp.wrapping_add(8), bp },
        hash: u64::from(hit.slot.serial),
        return_address: 0,
        slot: hit.index,
        end: StackEnd::Depth as u32,
        list,
        seed: list.cache_seed(),
        cache_mask: code::cache_mask(),
        exact: 0,
    };
    if let Some(control) = control() {
        walk.hash |= u64::from(hit.slot.tid & control.tid_mask) << 32;
    }
    // Spread first: serials and pcs differ in the same low bits, so that one would make up for the other.
    walk.hash = mix(0, walk.hash);
    if let Some(slot) = threads::slot(hit.index) {
        slot.chunk_base = 0;
        // Counted in map memory: a counter that starts as a known 0 makes the verifier walk every value.
        slot.n_frames = 0;
        match read_word(slot, sp) {
            Some(pc) => {
                walk.regs.pc = pc;
                walk.return_address = pc;
                // SAFETY: the callback's signature is what bpf_loop calls; `walk` outlives the call.
                unsafe { bpf_loop(MAX_FRAMES as u32, frame as *mut c_void, (&raw mut walk).cast(), 0) };
            }
            None => walk.end = StackEnd::ReadFailed as u32,
        }
    }
    count(walk.end);
    walk.hash = mix(walk.hash, u64::from(walk.end));
    walk
}

unsafe extern "C" fn frame(_n: u32, walk: *mut Walk) -> i64 {
    // SAFETY: bpf_loop hands back the pointer that it was given.
    let walk = unsafe { &mut *walk };
    let Some(slot) = threads::slot(walk.slot) else { return 1 };
    let pc = walk.regs.pc;
    let n_frames = slot.n_frames;
    slot.frames[n_frames as usize & (MAX_FRAMES - 1)] = pc | (u64::from(walk.exact) * FRAME_EXACT);
    slot.n_frames = n_frames.wrapping_add(1);
    walk.hash = mix(walk.hash, pc);
    let lookup = if walk.exact == 0 { pc.wrapping_sub(1) } else { pc };
    let Some(rule) = code::rule_at(lookup, walk.list, walk.seed, walk.slot, walk.cache_mask) else {
        walk.end = StackEnd::NoMapping as u32;
        return 1;
    };
    match step(rule, &mut walk.regs, |addr| read_word(slot, addr)) {
        Step::Caller => walk.exact = 0,
        Step::Interrupted => walk.exact = 1,
        ended => {
            walk.end = StackEnd::of(ended) as u32;
            return 1;
        }
    }
    0
}

/// Words of a chunk that lie below the address that missed: callee-saved registers stand below a return address.
const WORDS_BELOW: u64 = 8;

/// One word of the user stack, through the thread's chunk of it.
#[inline(always)]
fn read_word(slot: &mut ThreadSlot, addr: u64) -> Option<u64> {
    let offset = addr.wrapping_sub(slot.chunk_base);
    if offset < STACK_CHUNK_BYTES as u64 && offset & 7 == 0 {
        let offset = bound::mask::<{ STACK_CHUNK_BYTES as u64 - 8 }>(offset) as usize;
        // SAFETY: the mask keeps the word inside the chunk.
        return Some(unsafe { slot.chunk.as_ptr().byte_add(offset).read() });
    }
    read_chunk(slot, addr)
}

/// Reads a chunk around `addr` and returns its word.
///
/// A chunk must not pass the end of the stack's mapping. Where one did, the fault is met once: the end of the address's page is
/// remembered, and later chunks that would pass it are read so that they end there.
#[inline(never)]
fn read_chunk(slot: &mut ThreadSlot, addr: u64) -> Option<u64> {
    const BYTES: u64 = STACK_CHUNK_BYTES as u64;
    if addr & 7 != 0 {
        // SAFETY: the helper checks the address.
        return unsafe { bpf_probe_read_user(addr as *const u64) }.ok();
    }
    let mut base = addr.wrapping_sub(8 * WORDS_BELOW);
    let limit = slot.chunk_limit;
    if addr < limit && base.wrapping_add(BYTES) > limit {
        base = limit.wrapping_sub(BYTES);
    }
    if !fill(slot, base) {
        let page_end = (addr | 4095).wrapping_add(1);
        slot.chunk_limit = page_end;
        base = page_end.wrapping_sub(BYTES);
        if !fill(slot, base) {
            // A stack of less than a chunk: word by word.
            slot.chunk_base = 0;
            // SAFETY: the helper checks the address.
            return unsafe { bpf_probe_read_user(addr as *const u64) }.ok();
        }
    }
    slot.chunk_base = base;
    let offset = bound::mask::<{ STACK_CHUNK_BYTES as u64 - 8 }>(addr.wrapping_sub(base)) as usize;
    // SAFETY: the mask keeps the word inside the chunk.
    Some(unsafe { slot.chunk.as_ptr().byte_add(offset).read() })
}

#[inline(always)]
fn fill(slot: &mut ThreadSlot, base: u64) -> bool {
    // SAFETY: the destination is a whole chunk of a slot.
    let failed = unsafe {
        generated::bpf_probe_read_user(
            slot.chunk.as_mut_ptr().cast::<c_void>(),
            STACK_CHUNK_BYTES as u32,
            base as *const c_void,
        )
    };
    failed == 0
}

#[inline(always)]
fn mix(hash: u64, word: u64) -> u64 {
    let hash = (hash ^ word).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    hash ^ (hash >> 29)
}

#[inline(always)]
fn count(end: u32) {
    bump(Counter::Unwound);
    if end == StackEnd::Root as u32 {
        return;
    }
    bump(match StackEnd::from_u8(end as u8) {
        StackEnd::Depth | StackEnd::Root => Counter::TruncatedDepth,
        StackEnd::NoMapping => Counter::TruncatedNoMapping,
        StackEnd::NoRow => Counter::TruncatedNoRow,
        StackEnd::Unsupported => Counter::TruncatedUnsupported,
        StackEnd::ReadFailed => Counter::TruncatedReadFailed,
        StackEnd::NoProgress | StackEnd::NotStored => Counter::TruncatedNoProgress,
    });
}
