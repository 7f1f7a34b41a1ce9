//! The life of processes: libraries, threads, fork, exec. Rare events; the loader is told through the ring buffer.

use aya_ebpf::{
    helpers::{bpf_get_current_pid_tgid, bpf_probe_read_user, generated},
    programs::{ProbeContext, RawTracePointContext},
};
use aya_log_ebpf::{debug, info};
use tracer_common::{
    abi::{Event, EventKind, TargetState, target_flags},
    counters::Counter,
};

use crate::{
    counters::bump,
    maps::{EVENTS, control},
    ranges,
    targets::{self, Birth},
    task::{self, Task},
    threads,
};

const SIGSTOP: u32 = 19;
/// `r_debug.r_state` when the list of libraries is whole (glibc elf/link.h, musl ldso/dynlink.c).
const RT_CONSISTENT: u32 = 0;

/// The dynamic loader announces a change of its list.
#[inline(always)]
pub fn libraries_changed(ctx: &ProbeContext) -> u32 {
    let of = targets::of_word(targets::find_or_join(current_tgid()));
    let Some(target) = targets::counted(of.number, of.serial) else { return 0 };
    // SAFETY: an element of the table of targets.
    let (r_state_addr, flags) = unsafe { ((*target.element).r_state_addr, (*target.element).flags) };
    if r_state_addr != 0 {
        // SAFETY: the helper checks the address.
        let state = unsafe { bpf_probe_read_user(r_state_addr as *const u32) };
        if state != Ok(RT_CONSISTENT) {
            return 0;
        }
    }
    let stopped = stop(flags);
    debug!(ctx, "libraries changed in thread {}, stop {}", bpf_get_current_pid_tgid() as u32, stopped);
    notify(EventKind::Libraries, target.number, 0, 0);
    0
}

/// A process or a thread is made; it has not run yet. A process that a followed one forks is a target of its own from its beginning on.
#[inline(always)]
pub fn fork(ctx: &RawTracePointContext) -> i32 {
    let (parent, child) = (Task(ctx.arg(0)), Task(ctx.arg(1)));
    let (tgid, child_tgid) = (current_tgid(), child.tgid());
    if !task::is_layout_known() || child_tgid == tgid || child.memory() == 0 {
        return 0;
    }
    let Some((of, target)) = targets::entry_of(tgid).and_then(|of| Some((of, targets::counted(of.number, of.serial)?)))
    else {
        if control().is_some_and(|control| control.watch_everyone != 0) {
            notify(EventKind::Fork, 0, u64::from(child_tgid), 0);
        }
        return 0;
    };
    if child.memory() == parent.memory() {
        // Until it calls exec it works on its parent's blocks.
        targets::set_entry(child_tgid, of);
        notify(EventKind::Fork, target.number, u64::from(child_tgid), 0);
        return 0;
    }
    // SAFETY: an element of the table of targets.
    let (flags, mappings) = unsafe { ((*target.element).flags, (*target.element).mappings) };
    let mut number = 0;
    if let Some(flags) = flags_of_child(flags, tgid) {
        let birth = Birth {
            tgid: child_tgid,
            leader: child,
            flags: flags | target_flags::INHERITED,
            parent: of.number,
            mappings,
        };
        number = start(&birth);
        if number != 0 {
            bump(Counter::ForksFollowed);
            ranges::forked(of.number, number);
        }
    }
    notify(EventKind::Fork, of.number, u64::from(child_tgid), number);
    0
}

/// A process has called exec: its memory is new, and so is the target that it is, if it is followed.
#[inline(always)]
pub fn exec(ctx: &RawTracePointContext) -> i32 {
    let tgid = current_tgid();
    // The thread that calls takes the leader's id; the slot under its own is left.
    let caller = ctx.arg::<i32>(1) as u32;
    threads::release(caller);
    threads::release(tgid);
    let entry = targets::entry_of(tgid);
    let Some((of, target)) = entry.and_then(|of| Some((of, targets::counted(of.number, of.serial)?))) else {
        if entry.is_some() {
            targets::remove_entry(tgid);
        }
        // At its first hit would be too late: its allocator may be in a file that has no probes yet.
        if !targets::join_at_exec(tgid) && control().is_some_and(|control| control.watch_everyone != 0) {
            notify(EventKind::Exec, 0, u64::from(caller), 0);
        }
        return 0;
    };
    // SAFETY: an element of the table of targets.
    let (owner, flags) = unsafe { ((*target.element).tgid, (*target.element).flags) };
    let is_alias = owner != tgid;
    if !is_alias {
        targets::end(target, TargetState::Exec);
        ranges::ended(target.element);
        bump(Counter::Execs);
    }
    let own_flags = if is_alias { descent(flags) } else { flags };
    let followed = flags_of_child(flags, tgid).is_some();
    let mut number = 0;
    if followed {
        const KEPT: u32 = target_flags::FOLLOW | target_flags::STOP_ON_LIBRARY | target_flags::STOP_CHILDREN;
        let flags = own_flags & KEPT | target_flags::FROM_EXEC;
        number = start(&Birth { tgid, leader: Task::current(), flags, parent: of.number, mappings: 0 });
    }
    if number == 0 {
        targets::remove_entry(tgid);
    }
    let stopped = stop(own_flags);
    info!(ctx, "process {} calls exec, stop {}", tgid, stopped);
    notify(EventKind::Exec, if is_alias { 0 } else { of.number }, u64::from(caller), number);
    0
}

/// A thread of any process ends; with the last one the process does.
#[inline(always)]
pub fn thread_exit() -> i32 {
    let tgid = current_tgid();
    if threads::release(bpf_get_current_pid_tgid() as u32) {
        bump(Counter::ThreadsEnded);
    }
    let Some(of) = targets::entry_of(tgid) else { return 0 };
    let task = Task::current();
    if !task.is_last() {
        return 0;
    }
    targets::remove_entry(tgid);
    let Some(target) = targets::counted(of.number, of.serial) else { return 0 };
    // SAFETY: an element of the table of targets.
    let is_own = unsafe { (*target.element).tgid } == tgid;
    if is_own {
        // SAFETY: as above. Before the state that says that it is valid.
        unsafe { (*target.element).exit_code = task.exit_code() };
        if targets::end(target, TargetState::Exited) {
            bump(Counter::TargetsEnded);
            ranges::ended(target.element);
            notify(EventKind::Exited, target.number, 0, 0);
        }
    }
    0
}

/// What a process that a target makes has of its flags.
#[inline(always)]
fn descent(flags: u32) -> u32 {
    let kept = flags & (target_flags::FOLLOW | target_flags::STOP_CHILDREN);
    let stop = if flags & target_flags::STOP_CHILDREN != 0 { target_flags::STOP_ON_LIBRARY } else { 0 };
    kept | stop
}

/// The flags of a process that a target makes; `None`: it is not followed, and the current process, which has this id, is not in the
/// scope.
#[inline(always)]
fn flags_of_child(flags: u32, tgid: u32) -> Option<u32> {
    let is_followed = flags & target_flags::FOLLOW != 0 || targets::in_scope(tgid);
    is_followed.then_some(descent(flags))
}

/// Makes a process a target under a new number; 0 (and counted) when there is none.
#[inline(always)]
fn start(birth: &Birth) -> u32 {
    let Some(number) = targets::take_number() else {
        bump(Counter::TargetsFull);
        return 0;
    };
    let of = targets::begin(number, birth);
    if !targets::set_entry(birth.tgid, of) {
        bump(Counter::TargetsFull);
        targets::give_back(number);
        return 0;
    }
    number
}

/// Stops our own child until the loader has read what is new; the signal is delivered before the thread runs on in user mode.
/// Before the notice: the loader's SIGCONT must not come first. While nothing is counted nobody would let it go on. Returns 0 or the
/// helper's error.
#[inline(always)]
fn stop(flags: u32) -> i64 {
    if flags & target_flags::STOP_ON_LIBRARY == 0 || control().is_none_or(|control| control.counting == 0) {
        return 0;
    }
    // SAFETY: a helper without pointers.
    unsafe { generated::bpf_send_signal(SIGSTOP) }
}

#[inline(always)]
fn current_tgid() -> u32 {
    (bpf_get_current_pid_tgid() >> 32) as u32
}

/// Puts a notice into the ring buffer; lost notices are counted.
pub fn notify(kind: EventKind, target: u32, argument: u64, new_target: u32) {
    let pid_tgid = bpf_get_current_pid_tgid();
    let event = Event {
        kind: kind as u32,
        tgid: (pid_tgid >> 32) as u32,
        tid: pid_tgid as u32,
        target,
        argument,
        new_target,
        _pad: 0,
    };
    match EVENTS.reserve::<Event>(0) {
        Some(mut entry) => {
            entry.write(event);
            entry.submit(0);
        }
        None => bump(Counter::EventsLost),
    }
}
