//! Thread slots: found by tid in a few nanoseconds, claimed at a thread's first call, released when it ends. A slot remembers the
//! target that its thread's hits belong to.

use core::ffi::c_void;

use aya_ebpf::helpers::{bpf_get_current_pid_tgid, bpf_loop};
use tracer_common::{abi::ThreadSlot, counters::Counter, limits::TABLE_PROBES};

use crate::{
    atomic,
    counters::bump,
    maps::{THREADS, control},
    targets::{self, Counted},
};

/// A hit that is counted: whose it is.
pub struct Hit {
    /// The target.
    pub target: Counted,
    /// Index of the thread's slot.
    pub index: u32,
    /// The thread's slot.
    pub slot: &'static mut ThreadSlot,
}

struct Probe {
    tid: u32,
    at: u32,
    mask: u32,
    found: u32,
    free: u32,
}

const NOWHERE: u32 = u32::MAX;

/// The current thread's hit, counted as `kind`; `None` (and counted) when nothing is counted now, the process is no target, or the
/// table of threads is full.
#[inline(always)]
pub fn hit(kind: Counter) -> Option<Hit> {
    let control = control()?;
    if control.counting == 0 {
        bump(Counter::HitsPaused);
        return None;
    }
    let pid_tgid = bpf_get_current_pid_tgid();
    let at = pid_tgid as u32 & control.thread_mask;
    if let Some(slot) = slot(at)
        && slot.tid == pid_tgid as u32
        && slot.tgid == (pid_tgid >> 32) as u32
        && let Some(target) = targets::counted(slot.target, slot.serial)
    {
        bump(kind);
        return Some(Hit { target, index: at, slot });
    }
    let index = admit(pid_tgid);
    let slot = slot(index)?;
    let target = targets::counted(slot.target, slot.serial)?;
    bump(kind);
    Some(Hit { target, index, slot })
}

/// The slot with this index.
#[inline(always)]
pub fn slot(index: u32) -> Option<&'static mut ThreadSlot> {
    // SAFETY: a slot is used by its own thread only, whose programs do not nest.
    THREADS.get_ptr_mut(index).map(|slot| unsafe { &mut *slot })
}

/// The thread's slot where it is not found at once, or its target has ended: claimed if it had none. [`NOWHERE`] (and counted) when the
/// process is no target: before a slot is looked for.
#[inline(never)]
fn admit(pid_tgid: u64) -> u32 {
    let (tid, tgid) = (pid_tgid as u32, (pid_tgid >> 32) as u32);
    let of = targets::of_word(targets::find_or_join(tgid));
    if of.number == 0 {
        bump(Counter::HitsOutside);
        return NOWHERE;
    }
    let Some(index) = claim(tid) else { return NOWHERE };
    let Some(slot) = slot(index) else { return NOWHERE };
    if slot.tgid != tgid || slot.serial != of.serial {
        slot.tgid = tgid;
        slot.target = of.number;
        slot.serial = of.serial;
        slot.in_flight = 0;
        slot.tail_calls = 0;
        slot.chunk_base = 0;
        slot.chunk_limit = 0;
        slot.freed_pointer = 0;
    }
    index
}

/// Releases the thread's slot; tells whether it had one.
#[inline(always)]
pub fn release(tid: u32) -> bool {
    let Some(control) = control() else { return false };
    let mut probe =
        Probe { tid, at: tid & control.thread_mask, mask: control.thread_mask, found: NOWHERE, free: NOWHERE };
    search(&mut probe);
    let Some(slot) = slot(probe.found) else { return false };
    slot.in_flight = 0;
    slot.serial = 0;
    slot.tid = 0;
    true
}

/// The thread's slot, its own already or claimed now.
#[inline(always)]
fn claim(tid: u32) -> Option<u32> {
    let mask = control()?.thread_mask;
    // Two new threads may want the same free slot: the loser looks again.
    for _attempt in 0..4 {
        let mut probe = Probe { tid, at: tid & mask, mask, found: NOWHERE, free: NOWHERE };
        search(&mut probe);
        if probe.found != NOWHERE {
            return Some(probe.found);
        }
        let Some(slot) = slot(probe.free) else { break };
        if atomic::compare_exchange_32(&raw mut slot.tid, 0, tid) {
            slot.serial = 0;
            return Some(probe.free);
        }
    }
    bump(Counter::ThreadsFull);
    None
}

fn search(probe: &mut Probe) {
    // SAFETY: the callback's signature is what bpf_loop calls; `probe` outlives the call.
    unsafe { bpf_loop(TABLE_PROBES, look as *mut c_void, (&raw mut *probe).cast(), 0) };
}

unsafe extern "C" fn look(_n: u32, probe: *mut Probe) -> i64 {
    // SAFETY: bpf_loop hands back the pointer that `search` gave it.
    let probe = unsafe { &mut *probe };
    let Some(slot) = THREADS.get(probe.at) else { return 1 };
    if slot.tid == probe.tid {
        probe.found = probe.at;
        return 1;
    }
    if slot.tid == 0 && probe.free == NOWHERE {
        probe.free = probe.at;
    }
    probe.at = (probe.at + 1) & probe.mask;
    0
}
