//! Pairing: the entry of an allocator call, its return, and frees. The rules are `tracer_common::pairing`'s.
//!
//! A call in flight is known by the stack pointer at its entry: the outermost call of a thread has the highest one, a nested
//! call a lower one, and an entry at or above it means that the earlier call never returned.

use aya_ebpf::{
    helpers::{bpf_probe_read_user, generated},
    programs::{ProbeContext, RetProbeContext},
};
use tracer_common::{
    abi::{Block, ThreadSlot, target_flags},
    cookie::{Shape, SiteCookie},
    counters::Counter,
    pairing::{
        CallInFlight, EntryDecision, ReallocOutcome, ReturnDecision, can_only_fail, errno_is_failure, is_repeated_free,
        on_entry, on_return, realloc_outcome, requested_bytes, resized_in_place, same_sp,
    },
};

use crate::{
    account, blocks,
    counters::{add, bump, lose},
    maps::control,
    ranges, regs, stack,
    targets::Counted,
    threads::{self, Hit},
};

/// A function that allocates is entered: walk the stack and remember the call.
#[inline(always)]
pub fn enter(ctx: &ProbeContext, shape: Shape) -> u32 {
    let Some(hit) = threads::hit(Counter::HitsEntry) else { return 0 };
    let started = sample(hit.slot);
    // SAFETY: the helper reads the cookie of the attachment that this context belongs to.
    let cookie = SiteCookie(unsafe { generated::bpf_get_attach_cookie(ctx.regs.cast()) });
    let entry = regs::entry(ctx, cookie);
    if hit.slot.in_flight != 0 && !is_outermost(hit.target, hit.slot, entry.sp, 1) {
        return 0;
    }
    let [a, b, c] = entry.args;
    let (size, pointer) = match shape {
        Shape::Size => (a, 0),
        Shape::CountSize => (requested_bytes(a, b), 0),
        Shape::AlignSize => (b, 0),
        Shape::OutAlignSize => (c, a),
        Shape::PointerSize => (b, a),
        Shape::PointerCountSize => (requested_bytes(b, c), a),
        Shape::Pointer | Shape::PointerSizeInPlace => return 0,
    };
    // All that is known goes into the slot before the walk: what is kept across it takes room on the stack, of which Linux 6.1 has
    // none to spare.
    let slot = &mut *hit.slot;
    slot.size = size;
    slot.pointer = pointer;
    slot.freed_pointer = 0;
    slot.old_known = 0;
    slot.entry_sp = entry.sp;
    slot.tail_calls = 0;
    slot.n_pauses = n_pauses();
    slot.in_flight = 1 + if matches!(shape, Shape::PointerSize) && cookie.is_in_place() {
        Shape::PointerSizeInPlace as u16
    } else {
        shape as u16
    };
    let walk = stack::walk(&hit, entry.sp, entry.bp);
    let target = hit.target;
    let slot = &mut *hit.slot;
    slot.stack = stack::id_of(&walk, target.number);
    slot.return_address = walk.return_address;
    let pointer = slot.pointer;
    if matches!(shape, Shape::PointerSize | Shape::PointerCountSize) && pointer != 0 {
        // Out of the table before the allocator can hand the address to another thread; the totals change at the return.
        if let Some(old) = blocks::take(target, pointer) {
            slot.old_known = 1;
            slot.old_size = old.size;
            slot.old_stack = old.stack;
            slot.old_born_ns = old.born_ns;
        }
    }
    finish_sample(started);
    0
}

/// A function that allocates returns: count its block.
#[inline(always)]
pub fn leave(ctx: &RetProbeContext) -> u32 {
    let Some(Hit { target, slot, .. }) = threads::hit(Counter::HitsReturn) else { return 0 };
    let started = sample(slot);
    // SAFETY: the context of a uretprobe program is the `pt_regs` at the return.
    let regs = unsafe { &*ctx.regs };
    let in_flight = slot.in_flight;
    if is_from_before_a_pause(slot) {
        lose(target.element, Counter::UnpairedReturns);
        abandon(target, slot);
        return 0;
    }
    match on_return(&call(slot), regs.rsp) {
        ReturnDecision::Matched => {}
        ReturnDecision::Nested => return 0,
        ReturnDecision::TailCall => {
            slot.tail_calls = slot.tail_calls.wrapping_sub(1);
            return 0;
        }
        ReturnDecision::Unpaired => {
            lose(target.element, Counter::UnpairedReturns);
            return 0;
        }
        ReturnDecision::UnpairedAndLost => {
            lose(target.element, Counter::UnpairedReturns);
            abandon(target, slot);
            return 0;
        }
    }
    slot.in_flight = 0;
    let returned = regs.rax;
    let new = Block { size: slot.size, born_ns: account::now_ns(), stack: slot.stack, _pad: 0 };
    if in_flight == 1 + Shape::PointerSize as u16 || in_flight == 1 + Shape::PointerCountSize as u16 {
        reallocated(target, slot, new, returned);
    } else if in_flight == 1 + Shape::PointerSizeInPlace as u16 {
        reallocated(target, slot, new, resized_in_place(slot.pointer, new.size, returned));
    } else if in_flight == 1 + Shape::OutAlignSize as u16 {
        // posix_memalign returns an error number (an int), the block through its out-pointer.
        if errno_is_failure(returned) {
            lose(target.element, Counter::Failed);
        } else {
            // SAFETY: the helper checks the address.
            match unsafe { bpf_probe_read_user(slot.pointer as *const u64) } {
                Ok(address) => allocated(target, address, new),
                Err(_) => lose(target.element, Counter::OutUnreadable),
            }
        }
    } else {
        allocated(target, returned, new);
    }
    finish_sample(started);
    0
}

/// `free(ptr)` is entered: its block goes before the allocator can hand the address out again.
#[inline(always)]
pub fn free(ctx: &ProbeContext) -> u32 {
    let Some(Hit { target, slot, index }) = threads::hit(Counter::HitsFree) else { return 0 };
    let started = sample(slot);
    // SAFETY: the helper reads the cookie of the attachment that this context belongs to.
    let cookie = SiteCookie(unsafe { generated::bpf_get_attach_cookie(ctx.regs.cast()) });
    let entry = regs::entry(ctx, cookie);
    if slot.in_flight != 0 && !is_outermost(target, slot, entry.sp, 0) {
        return 0;
    }
    let pointer = entry.args[0];
    if pointer == 0 {
        bump(Counter::FreesOfNull);
    } else if let Some(block) = blocks::take(target, pointer) {
        account::freed(target, block, account::now_ns());
    } else if is_repeated_free(slot.freed_pointer, slot.freed_sp, pointer, entry.sp) {
        bump(Counter::Nested);
    } else {
        unknown(target, Counter::FreesUnknown);
    }
    slot.freed_pointer = pointer;
    slot.freed_sp = entry.sp;
    ranges::freeing(index, slot, entry.sp);
    finish_sample(started);
    0
}

#[inline(always)]
fn allocated(target: Counted, address: u64, block: Block) {
    if address == 0 || can_only_fail(block.size) {
        lose(target.element, Counter::Failed);
    } else if account::put(target, address, block) {
        account::allocated(target, block);
    }
}

#[inline(always)]
fn reallocated(target: Counted, slot: &ThreadSlot, new: Block, returned: u64) {
    let old_known = slot.old_known != 0;
    let old = old_block(slot);
    let outcome = match realloc_outcome(slot.pointer, new.size, returned) {
        _ if can_only_fail(new.size) => ReallocOutcome::Failed,
        outcome => outcome,
    };
    match outcome {
        ReallocOutcome::Failed => {
            lose(target.element, Counter::Failed);
            if old_known {
                account::put_back(target, slot.pointer, &old);
            }
        }
        ReallocOutcome::Freed if old_known => account::freed(target, old, new.born_ns),
        ReallocOutcome::Freed => unknown(target, Counter::FreesUnknown),
        ReallocOutcome::Allocated => allocated(target, returned, new),
        ReallocOutcome::Moved | ReallocOutcome::Resized if old_known => {
            bump(Counter::Reallocs);
            if account::put(target, returned, new) {
                account::moved(target, old, new);
            } else {
                account::freed(target, old, new.born_ns);
            }
        }
        ReallocOutcome::Moved | ReallocOutcome::Resized => {
            unknown(target, Counter::ReallocsUnknown);
            allocated(target, returned, new);
        }
    }
}

/// Counts the end of a block that the trace does not know: in a forked process, one of its parent's.
#[inline(always)]
fn unknown(target: Counted, counter: Counter) {
    // SAFETY: an element of the table of targets.
    let is_inherited = unsafe { (*target.element).flags } & target_flags::INHERITED != 0;
    if is_inherited {
        lose(target.element, Counter::FreesInherited);
    } else {
        lose(target.element, counter);
    }
}

/// Whether an entry while a call is in flight begins an outermost call; the call that it replaces, if so, is closed. A jump
/// from one traced function to another brings `return_hits` further return hits.
#[inline(never)]
fn is_outermost(target: Counted, slot: &mut ThreadSlot, sp: u64, return_hits: u32) -> bool {
    if is_from_before_a_pause(slot) {
        abandon(target, slot);
        return true;
    }
    let call = call(slot);
    let mut decision = on_entry(&call, sp);
    if let EntryDecision::SameSp = decision {
        // SAFETY: the helper checks the address.
        decision = same_sp(&call, unsafe { bpf_probe_read_user(sp as *const u64) }.unwrap_or(0));
    }
    match decision {
        EntryDecision::Outermost => true,
        EntryDecision::Replaces | EntryDecision::SameSp => {
            abandon(target, slot);
            true
        }
        EntryDecision::Nested => {
            bump(Counter::Nested);
            false
        }
        EntryDecision::TailCall => {
            bump(Counter::Nested);
            slot.tail_calls = slot.tail_calls.wrapping_add(return_hits);
            false
        }
    }
}

/// The thread's call in flight as the rules see it.
#[inline(always)]
pub fn call(slot: &ThreadSlot) -> CallInFlight {
    CallInFlight {
        active: slot.in_flight != 0,
        tail_calls: slot.tail_calls,
        entry_sp: slot.entry_sp,
        return_address: slot.return_address,
    }
}

/// A call in flight whose return will never be seen.
#[inline(always)]
fn abandon(target: Counted, slot: &mut ThreadSlot) {
    lose(target.element, Counter::LostReturns);
    slot.in_flight = 0;
    slot.tail_calls = 0;
    if slot.old_known != 0 {
        // What became of the old block is unknown: it stays as it was.
        account::put_back(target, slot.pointer, &old_block(slot));
    }
}

/// Whether the call in flight was entered before the probes were last taken away: its return came unseen, and the thread may be
/// anywhere on its stack by now.
#[inline(always)]
pub fn is_from_before_a_pause(slot: &ThreadSlot) -> bool {
    slot.in_flight != 0 && n_pauses() != slot.n_pauses
}

#[inline(always)]
pub fn n_pauses() -> u32 {
    control().map_or(0, |control| control.n_pauses)
}

/// The block that a reallocation in flight has taken out of the table; meaningless when it has not.
#[inline(always)]
fn old_block(slot: &ThreadSlot) -> Block {
    Block { size: slot.old_size, born_ns: slot.old_born_ns, stack: slot.old_stack, _pad: 0 }
}

/// The time, in one of `sample_mask + 1` runs of a thread; else 0.
#[inline(always)]
fn sample(slot: &mut ThreadSlot) -> u64 {
    slot.runs = slot.runs.wrapping_add(1);
    match control() {
        // SAFETY: a helper without arguments.
        Some(control) if slot.runs & u64::from(control.sample_mask) == 0 => unsafe { generated::bpf_ktime_get_ns() },
        _ => 0,
    }
}

#[inline(always)]
fn finish_sample(started: u64) {
    if started != 0 {
        // SAFETY: a helper without arguments.
        add(Counter::SampledNs, unsafe { generated::bpf_ktime_get_ns() }.wrapping_sub(started));
        bump(Counter::SampledRuns);
    }
}
