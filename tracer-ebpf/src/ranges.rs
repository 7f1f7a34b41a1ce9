//! Calls that change mappings: noted at their entry, told to the loader at their return. What they come to is the loader's model.

use aya_ebpf::{
    helpers::{bpf_get_current_pid_tgid, bpf_probe_read_user, generated},
    programs::{ProbeContext, RetProbeContext},
};
use tracer_common::{
    abi::{NO_STACK, ThreadSlot},
    counters::Counter,
    pairing::{EntryDecision, is_trampoline, on_entry, same_sp},
    ranges::{INSIDE_ALLOCATOR, RangeCall, RangeCalls, RangeEvent, RangeFunction, gives_back},
};

use crate::{
    account, alloc,
    counters::bump,
    maps::{RANGE_CALLS, RANGE_EVENTS},
    stack, threads,
};

/// Sets stacks of this domain apart from those of the heap: a chain of both is two stacks.
const DOMAIN_SEED: u64 = 0x6D6D_6170_646F_6D61;

/// A function that changes mappings is entered; the attach cookie tells which.
#[inline(always)]
pub fn enter(ctx: &ProbeContext) -> u32 {
    let Some(control) = alloc::tracing() else { return 0 };
    bump(Counter::HitsMapping);
    // SAFETY: the helper reads the cookie of the attachment that this context belongs to.
    let cookie = unsafe { generated::bpf_get_attach_cookie(ctx.regs.cast()) };
    let Some(function) = RangeFunction::from_u32(cookie as u32) else { return 0 };
    // SAFETY: the context of a uprobe program is the `pt_regs` of the interrupted thread.
    let regs = unsafe { &*ctx.regs };
    let args = [regs.rdi, regs.rsi, regs.rdx, regs.rcx, regs.r8];
    let changes_nothing = match function {
        // The question where the data segment ends.
        RangeFunction::Brk => args[0] == 0,
        RangeFunction::Madvise => !gives_back(args[2]),
        _ => false,
    };
    if changes_nothing {
        return 0;
    }
    let tid = bpf_get_current_pid_tgid() as u32;
    let Some(index) = threads::of(tid) else { return 0 };
    let (Some(slot), Some(calls)) = (threads::slot(index), calls(index)) else { return 0 };
    if calls.tid != tid || calls.n_pauses != control.n_pauses {
        // Another thread's, or from before the probes were taken away.
        calls.tid = tid;
        calls.n_pauses = control.n_pauses;
        calls.outer.function = 0;
    }
    let sp = regs.rsp;
    let now_ns = account::now_ns();
    if calls.outer.function != 0 {
        if sp < calls.outer.entry_sp {
            let RangeCall { stack, flags, .. } = calls.outer;
            calls.inner =
                RangeCall { entry_sp: sp, entered_ns: now_ns, args, function: function as u32, stack, flags, _pad: 0 };
            return 0;
        }
        if sp == calls.outer.entry_sp && is_trampoline(return_address(sp)) {
            calls.outer.args = args;
            calls.outer.function = function as u32;
            return 0;
        }
        bump(Counter::MappingReturnsLost);
    }
    let is_inside = is_inside_allocator(slot, sp);
    let mut stack = NO_STACK;
    if is_inside {
        bump(Counter::Nested);
    } else if function.maps() {
        let mut walk = stack::walk(index, sp, regs.rbp);
        walk.hash ^= DOMAIN_SEED;
        stack = stack::id_of(&walk);
    }
    calls.inner.function = 0;
    calls.inner_function = 0;
    calls.outer = RangeCall {
        entry_sp: sp,
        entered_ns: now_ns,
        args,
        function: function as u32,
        stack,
        flags: if is_inside { INSIDE_ALLOCATOR } else { 0 },
        _pad: 0,
    };
    0
}

/// A function that changes mappings returns.
#[inline(always)]
pub fn leave(ctx: &RetProbeContext) -> u32 {
    if alloc::tracing().is_none() {
        return 0;
    }
    bump(Counter::HitsMappingReturn);
    let pid_tgid = bpf_get_current_pid_tgid();
    let Some(index) = threads::of(pid_tgid as u32) else { return 0 };
    let Some(calls) = calls(index) else { return 0 };
    // SAFETY: the context of a uretprobe program is the `pt_regs` at the return.
    let regs = unsafe { &*ctx.regs };
    let result = regs.rax;
    let entry_sp = regs.rsp.wrapping_sub(8);
    if calls.tid != pid_tgid as u32 {
        return 0;
    }
    let call = if calls.outer.function != 0 && calls.inner.function != 0 && calls.inner.entry_sp == entry_sp {
        calls.inner_function = calls.inner.function;
        calls.inner_result = result;
        calls.inner_address = calls.inner.args[0];
        calls.inner.function = 0;
        RangeCall { function: calls.inner_function, ..calls.inner }
    } else if calls.outer.entry_sp == entry_sp && calls.outer.function != 0 {
        let call = calls.outer;
        let is_told = calls.is_told(result);
        calls.outer.function = 0;
        if is_told {
            bump(Counter::Nested);
            return 0;
        }
        call
    } else {
        // The second return of a call that ended in a jump, or the return of a call that changes nothing.
        return 0;
    };
    tell(&call, result, (pid_tgid >> 32) as u32);
    0
}

/// Puts a finished call into the ring buffer; lost ones are counted.
#[inline(always)]
fn tell(call: &RangeCall, result: u64, target: u32) {
    let Some(function) = RangeFunction::from_u32(call.function) else { return };
    if function.failed(result) {
        bump(Counter::Failed);
        return;
    }
    let event = RangeEvent {
        args: call.args,
        result,
        entered_ns: call.entered_ns,
        returned_ns: account::now_ns(),
        target,
        function: call.function,
        stack: call.stack,
        flags: call.flags,
    };
    match RANGE_EVENTS.reserve::<RangeEvent>(0) {
        Some(mut entry) => {
            entry.write(event);
            entry.submit(0);
        }
        None => bump(Counter::MappingsLost),
    }
}

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

/// The word at a stack pointer; 0 where it cannot be read.
#[inline(always)]
fn return_address(sp: u64) -> u64 {
    // SAFETY: the helper checks the address.
    unsafe { bpf_probe_read_user(sp as *const u64) }.unwrap_or(0)
}

/// The thread's calls in flight, by the index of its slot.
#[inline(always)]
fn calls(index: u32) -> Option<&'static mut RangeCalls> {
    // SAFETY: used by its own thread only, whose programs do not nest.
    RANGE_CALLS.get_ptr_mut(index).map(|calls| unsafe { &mut *calls })
}
