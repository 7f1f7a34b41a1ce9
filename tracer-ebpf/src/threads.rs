//! Thread slots: found by tid in a few nanoseconds, claimed at a thread's first call, released when it ends.

use core::ffi::c_void;

use aya_ebpf::helpers::bpf_loop;
use tracer_common::{abi::ThreadSlot, counters::Counter, limits::TABLE_PROBES};

use crate::{
    atomic,
    counters::bump,
    maps::{THREADS, control},
};

struct Probe {
    tid: u32,
    at: u32,
    mask: u32,
    found: u32,
    free: u32,
}

const NOWHERE: u32 = u32::MAX;

/// The index of the thread's slot, claimed if it had none; `None` (and counted) when the table is full.
#[inline(always)]
pub fn of(tid: u32) -> Option<u32> {
    let mask = control()?.thread_mask;
    let at = tid & mask;
    if THREADS.get(at)?.tid == tid {
        return Some(at);
    }
    claim(tid, mask)
}

/// The slot with this index.
#[inline(always)]
pub fn slot(index: u32) -> Option<&'static mut ThreadSlot> {
    // SAFETY: a slot is used by its own thread only, whose programs do not nest.
    THREADS.get_ptr_mut(index).map(|slot| unsafe { &mut *slot })
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
    slot.tid = 0;
    true
}

#[inline(never)]
fn claim(tid: u32, mask: u32) -> Option<u32> {
    // Two new threads may want the same free slot: the loser looks again.
    for _attempt in 0..4 {
        let mut probe = Probe { tid, at: tid & mask, mask, found: NOWHERE, free: NOWHERE };
        search(&mut probe);
        if probe.found != NOWHERE {
            return Some(probe.found);
        }
        let Some(slot) = slot(probe.free) else { break };
        if atomic::compare_exchange_32(&raw mut slot.tid, 0, tid) {
            slot.in_flight = 0;
            slot.chunk_base = 0;
            slot.chunk_limit = 0;
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
