//! The target's life: libraries, threads, exec. Rare events; the loader is told through the ring buffer.

use aya_ebpf::{
    helpers::{bpf_get_current_pid_tgid, bpf_probe_read_user, generated},
    programs::{ProbeContext, RawTracePointContext},
};
use aya_log_ebpf::{debug, info};
use tracer_common::{
    abi::{Event, EventKind},
    counters::Counter,
};

use crate::{
    counters::bump,
    maps::{CONTROL, EVENTS, control},
    threads,
};

const SIGSTOP: u32 = 19;
/// `r_debug.r_state` when the list of libraries is whole (glibc elf/link.h, musl ldso/dynlink.c).
const RT_CONSISTENT: u32 = 0;

/// The dynamic loader announces a change of its list.
#[inline(always)]
pub fn libraries_changed(ctx: &ProbeContext) -> u32 {
    let Some(control) = control() else { return 0 };
    if control.r_state_addr != 0 {
        // SAFETY: the helper checks the address.
        let state = unsafe { bpf_probe_read_user(control.r_state_addr as *const u32) };
        if state != Ok(RT_CONSISTENT) {
            return 0;
        }
    }
    let stopped = stop(control.stop_on_library);
    debug!(ctx, "libraries changed in thread {}, stop {}", bpf_get_current_pid_tgid() as u32, stopped);
    notify(EventKind::Libraries, 0);
    0
}

/// A thread of any process ends.
#[inline(always)]
pub fn thread_exit() -> i32 {
    if threads::release(bpf_get_current_pid_tgid() as u32) {
        bump(Counter::ThreadsEnded);
    }
    0
}

/// A process calls exec. If it is the target, tracing pauses until the loader has read the new program.
#[inline(always)]
pub fn exec(ctx: &RawTracePointContext) -> i32 {
    let tgid = (bpf_get_current_pid_tgid() >> 32) as u32;
    let Some(control) = CONTROL.get_ptr_mut(0) else { return 0 };
    // SAFETY: a pointer into map memory.
    unsafe {
        if tgid == 0 || (*control).exec_tgid != tgid {
            return 0;
        }
        (*control).tgid = 0;
        (*control).exec_tgid = 0;
    }
    bump(Counter::Execs);
    // SAFETY: a pointer into map memory.
    let stopped = stop(unsafe { (*control).stop_on_library });
    info!(ctx, "process {} calls exec, stop {}", tgid, stopped);
    notify(EventKind::Exec, 0);
    0
}

/// Stops our own child until the loader has read what is new; the signal is delivered before the thread runs on in user mode.
/// Before the notice: the loader's SIGCONT must not come first. Returns 0 or the helper's error.
#[inline(always)]
fn stop(wanted: u32) -> i64 {
    if wanted == 0 {
        return 0;
    }
    // SAFETY: a helper without pointers.
    unsafe { generated::bpf_send_signal(SIGSTOP) }
}

/// Puts a notice into the ring buffer; lost notices are counted.
pub fn notify(kind: EventKind, address: u64) {
    let pid_tgid = bpf_get_current_pid_tgid();
    let event = Event { kind: kind as u32, tgid: (pid_tgid >> 32) as u32, tid: pid_tgid as u32, _pad: 0, address };
    match EVENTS.reserve::<Event>(0) {
        Some(mut entry) => {
            entry.write(event);
            entry.submit(0);
        }
        None => bump(Counter::EventsLost),
    }
}
