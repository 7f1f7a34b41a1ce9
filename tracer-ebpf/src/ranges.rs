//! Calls that change mappings: noted at their entry, told to the loader at their return. What they come to is the loader's model.

use core::ffi::c_void;

use aya_ebpf::{
    helpers::{bpf_loop, bpf_probe_read_user, generated},
    programs::{ProbeContext, RetProbeContext},
};
use tracer_common::{
    abi::{StackEnd, Target, ThreadSlot},
    counters::Counter,
    limits::MAX_FRAMES,
    pairing::{EntryDecision, is_trampoline, on_entry, same_sp},
    ranges::{ENDED, FORKED, INSIDE_ALLOCATOR, RangeCall, RangeCalls, RangeEvent, RangeFunction, gives_back},
};

use crate::{
    account, alloc,
    counters::bump,
    maps::{RANGE_CALLS, RANGE_EVENTS, TARGETS, control},
    stack,
    threads::{self, Hit},
};

/// Sets stacks of this domain apart from those of the heap: a chain of both is two stacks.
const DOMAIN_SEED: u64 = 0x6D6D_6170_646F_6D61;

/// A function that changes mappings is entered; the attach cookie tells which.
#[inline(always)]
pub fn enter(ctx: &ProbeContext) -> u32 {
    let Some(hit) = threads::hit(Counter::HitsMapping) else { return 0 };
    // SAFETY: the helper reads the cookie of the attachment that this context belongs to.
    let cookie = unsafe { generated::bpf_get_attach_cookie(ctx.regs.cast()) };
    let Some(function) = RangeFunction::from_u32(cookie as u32) else { return 0 };
    // SAFETY: the context of a uprobe program is the `pt_regs` of the interrupted thread.
    let regs = unsafe { &*ctx.regs };
    let args = [regs.rdi, regs.rsi, regs.rdx, regs.rcx, regs.r8];
    let is_idle = match function {
        // The question where the data segment ends.
        RangeFunction::Brk => args[0] == 0,
        RangeFunction::Madvise => !gives_back(args[2]),
        _ => false,
    };
    if is_idle {
        bump(Counter::MappingsIdle);
        return 0;
    }
    let Some(calls) = own_calls(hit.index, hit.slot) else { return 0 };
    let (sp, entered_ns, function) = (regs.rsp, account::now_ns(), function as u16);
    if calls.outer.function != 0 {
        if sp < calls.outer.entry_sp {
            let RangeCall { stack, flags, .. } = calls.outer;
            calls.inner = RangeCall { entry_sp: sp, entered_ns, args, function, stack, flags };
            return 0;
        }
        if sp == calls.outer.entry_sp && is_trampoline(return_address(sp)) {
            // It jumped here as its last act.
            bump(Counter::MappingsNested);
            calls.outer.args = args;
            calls.outer.function = function;
            return 0;
        }
        bump(Counter::MappingReturnsLost);
    }
    let mut is_inside = is_inside_allocator(hit.slot, sp);
    let mut stack = 0;
    if !is_inside && RangeFunction::from_u32(u32::from(function)).is_some_and(RangeFunction::maps) {
        let mut walk = stack::walk(&hit, sp, regs.rbp);
        let is_whole = walk.end == StackEnd::Root as u32;
        is_inside = is_inside_free(calls, &hit, sp, is_whole);
        if !is_inside {
            walk.hash ^= DOMAIN_SEED;
            stack = stack::id_of(&walk, hit.target.number);
        }
    }
    calls.inner.function = 0;
    calls.inner_function = 0;
    let flags = if is_inside { INSIDE_ALLOCATOR } else { 0 };
    calls.outer = RangeCall { entry_sp: sp, entered_ns, args, function, stack, flags };
    0
}

/// A function that changes mappings returns.
#[inline(always)]
pub fn leave(ctx: &RetProbeContext) -> u32 {
    let Some(Hit { slot, index, .. }) = threads::hit(Counter::HitsMappingReturn) else { return 0 };
    let Some(calls) = calls(index) else { return 0 };
    if calls.tid != slot.tid || calls.serial != slot.serial || calls.outer.function == 0 {
        return 0;
    }
    // SAFETY: the context of a uretprobe program is the `pt_regs` at the return.
    let regs = unsafe { &*ctx.regs };
    let result = regs.rax;
    let entry_sp = regs.rsp.wrapping_sub(8);
    if calls.inner.function != 0 && calls.inner.entry_sp == entry_sp {
        let call = calls.inner;
        calls.inner.function = 0;
        calls.inner_function = u32::from(call.function);
        calls.inner_result = result;
        calls.inner_address = call.args[0];
        tell(&call, result, slot);
    } else if calls.outer.entry_sp == entry_sp {
        let call = calls.outer;
        let is_told = calls.is_told(result);
        calls.outer.function = 0;
        if is_told {
            bump(Counter::MappingsNested);
        } else {
            tell(&call, result, slot);
        }
    }
    // Else the second return of a call that ended in a jump, or the return of one that changes nothing.
    0
}

/// Tells of a finished call.
#[inline(always)]
fn tell(call: &RangeCall, result: u64, slot: &ThreadSlot) {
    if RangeFunction::from_u32(u32::from(call.function)).is_none_or(|function| function.failed(result)) {
        bump(Counter::MappingsFailed);
        return;
    }
    let RangeCall { args, entered_ns, stack, function, flags, .. } = *call;
    let event = RangeEvent {
        args,
        result,
        entered_ns,
        returned_ns: account::now_ns(),
        serial: slot.serial,
        target: slot.target,
        stack,
        function,
        flags,
    };
    if put(event) {
        bump(Counter::MappingsTold);
        if flags & INSIDE_ALLOCATOR != 0 {
            bump(Counter::MappingsOfAllocators);
        }
    }
}

/// A target was forked from the one with this number: its calls come after this, and its parent's earlier ones before.
#[inline(always)]
pub fn forked(parent: u32, child: u32) {
    if let (Some(parent), Some(child)) = (TARGETS.get_ptr_mut(parent), TARGETS.get_ptr_mut(child)) {
        // SAFETY: elements of the table of targets.
        unsafe { life(FORKED, child, u64::from((*parent).serial)) };
    }
}

/// A target has ended.
#[inline(always)]
pub fn ended(target: *mut Target) {
    life(ENDED, target, 0);
}

#[inline(always)]
fn life(what: u16, target: *mut Target, argument: u64) {
    if control().is_none_or(|control| control.follow_mappings == 0) {
        return;
    }
    // SAFETY: an element of the table of targets.
    let serial = unsafe { (*target).serial };
    let now_ns = account::now_ns();
    put(RangeEvent {
        args: [argument, 0, 0, 0, 0],
        result: 0,
        entered_ns: now_ns,
        returned_ns: now_ns,
        serial,
        target: 0,
        stack: 0,
        function: what,
        flags: 0,
    });
}

/// Puts an event into the ring buffer; `false` (and counted) when it is full.
#[inline(always)]
fn put(event: RangeEvent) -> bool {
    let Some(mut entry) = RANGE_EVENTS.reserve::<RangeEvent>(0) else {
        bump(Counter::MappingsLost);
        return false;
    };
    entry.write(event);
    // Whoever asks for figures takes all out first: the loader is woken to make room only, which costs more than the rest of a call.
    let is_filling = RANGE_EVENTS.query(AVAILABLE_BYTES) >= RANGE_EVENTS.query(RING_BYTES) / 8;
    entry.submit(if is_filling { FORCE_WAKEUP } else { NO_WAKEUP });
    true
}

/// `BPF_RB_AVAIL_DATA`, `BPF_RB_RING_SIZE` (include/uapi/linux/bpf.h, since 5.8).
const AVAILABLE_BYTES: u64 = 0;
const RING_BYTES: u64 = 1;

/// `BPF_RB_NO_WAKEUP`, `BPF_RB_FORCE_WAKEUP`.
const NO_WAKEUP: u64 = 1;
const FORCE_WAKEUP: u64 = 2;

/// Whether an allocator call in flight makes the call, by running deeper on the stack or by a jump as its last act.
#[inline(always)]
fn is_inside_allocator(slot: &ThreadSlot, sp: u64) -> bool {
    if slot.in_flight == 0 || alloc::is_from_before_a_pause(slot) {
        return false;
    }
    let call = alloc::call(slot);
    match on_entry(&call, sp) {
        EntryDecision::Nested => true,
        EntryDecision::SameSp => matches!(same_sp(&call, return_address(sp)), EntryDecision::TailCall),
        _ => false,
    }
}

/// A free is entered. It has no return probe; what it maps (glibc: an arena, where it is the thread's first call) is told by the stack.
#[inline(always)]
pub fn freeing(index: u32, slot: &ThreadSlot, sp: u64) {
    if control().is_none_or(|control| control.follow_mappings == 0) {
        return;
    }
    if let Some(calls) = own_calls(index, slot) {
        calls.free_return = return_address(sp);
        calls.free_sp = sp;
    }
}

/// Whether the last free that the thread entered makes the call: its return address is on the stack just walked. Where the walk did not
/// reach the end, it lies where it lay.
#[inline(always)]
fn is_inside_free(calls: &RangeCalls, hit: &Hit, sp: u64, is_whole: bool) -> bool {
    if calls.free_return == 0 || sp >= calls.free_sp {
        return false;
    }
    let mut search = Search { wanted: calls.free_return, slot: hit.index, found: 0 };
    // SAFETY: the callback's signature is what bpf_loop calls; `search` outlives the call.
    unsafe { bpf_loop(hit.slot.n_frames, look as *mut c_void, (&raw mut search).cast(), 0) };
    search.found != 0 || (!is_whole && return_address(calls.free_sp) == calls.free_return)
}

struct Search {
    wanted: u64,
    slot: u32,
    found: u32,
}

unsafe extern "C" fn look(n: u32, search: *mut Search) -> i64 {
    // SAFETY: bpf_loop hands back the pointer that it was given.
    let search = unsafe { &mut *search };
    let Some(slot) = threads::slot(search.slot) else { return 1 };
    if slot.frames[n as usize & (MAX_FRAMES - 1)] == search.wanted {
        search.found = 1;
        return 1;
    }
    0
}

/// The word at a stack pointer; 0 where it cannot be read.
#[inline(always)]
fn return_address(sp: u64) -> u64 {
    // SAFETY: the helper checks the address.
    unsafe { bpf_probe_read_user(sp as *const u64) }.unwrap_or(0)
}

/// The thread's calls in flight, empty where they were another's or from before the probes were taken away.
#[inline(always)]
fn own_calls(index: u32, slot: &ThreadSlot) -> Option<&'static mut RangeCalls> {
    let calls = calls(index)?;
    let n_pauses = alloc::n_pauses();
    if calls.tid != slot.tid || calls.serial != slot.serial || calls.n_pauses != n_pauses {
        calls.tid = slot.tid;
        calls.serial = slot.serial;
        calls.n_pauses = n_pauses;
        calls.outer.function = 0;
        calls.free_return = 0;
    }
    Some(calls)
}

/// The thread's calls in flight, by the index of its slot.
#[inline(always)]
fn calls(index: u32) -> Option<&'static mut RangeCalls> {
    // SAFETY: used by its own thread only, whose programs do not nest.
    RANGE_CALLS.get_ptr_mut(index).map(|calls| unsafe { &mut *calls })
}
