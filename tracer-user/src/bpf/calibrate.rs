//! What a trap costs on this host: measured on a function of our own, so that the share of the target's time that the probes
//! take can be estimated.

use std::{error::Error, os::fd::AsFd as _, path::Path, time::Instant};

use aya::programs::{
    ProgramError, UProbe,
    uprobe::{UProbeAttachLocation, UProbeAttachPoint, UProbeScope},
};
use tracer_common::counters::Counter;

use crate::snapshot::Counters;

use super::{
    kernel::{Kernel, os_error},
    trace_events::{Heirs, TraceEvents},
};

/// Seconds that the trap of a hit takes, without our programs' own work.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct TrapCost {
    entry_seconds: f64,
    return_seconds: f64,
}

std::arch::global_asm!(
    ".globl memtrace_bpf_calibrate",
    ".type memtrace_bpf_calibrate, @function",
    "memtrace_bpf_calibrate:",
    "nop",
    "ret",
    ".size memtrace_bpf_calibrate, . - memtrace_bpf_calibrate",
);

unsafe extern "C" {
    fn memtrace_bpf_calibrate();
}

/// Calls timed for each figure; at most a few milliseconds.
const CALLS: u32 = 1000;

impl TrapCost {
    /// Seconds that all hits so far took: their traps, and our programs by the sampled runs' mean.
    pub fn seconds(&self, counters: &Counters) -> f64 {
        let sum = |all: &[Counter]| all.iter().map(|counter| counters.get(*counter)).sum::<u64>();
        let entries = sum(&[Counter::HitsEntry, Counter::HitsFree, Counter::HitsMapping]);
        let returns = sum(&[Counter::HitsReturn, Counter::HitsMappingReturn]);
        let mean_run_ns = counters.get(Counter::SampledNs) as f64 / counters.get(Counter::SampledRuns).max(1) as f64;
        entries as f64 * self.entry_seconds
            + returns as f64 * self.return_seconds
            + (entries + returns) as f64 * mean_run_ns * 1e-9
    }
}

impl Kernel {
    /// Measures [`TrapCost`] on this process; zero where no probe could be attached.
    ///
    /// Uprobes of their own take CAP_SYS_ADMIN since Linux 6.16 and the stable kernels of July 2025 (`perf_uprobe_event_init`,
    /// kernel/events/core.c), before that CAP_PERFMON: this is where it is found out.
    pub fn trap_cost(&mut self) -> TrapCost {
        let Some(offset) = calibration_offset() else { return TrapCost::default() };
        let bare = time_calls();
        // Both probes stay until the object goes: to take one away waits for a grace period of the kernel (0.1 s on 6.18).
        let timed = self.time_own(offset).or_else(|error| {
            self.uprobes_refused = matches!(os_error(error.as_ref()), Some(libc::EACCES | libc::EPERM));
            log::debug!("no uprobes of our own: {error}");
            self.time_events(offset)
        });
        let (entry, both) = timed.unwrap_or_else(|error| {
            log::debug!("what a trap costs is not known: {error}");
            (bare, bare)
        });
        TrapCost { entry_seconds: (entry - bare).max(0.0), return_seconds: (both - entry).max(0.0) }
    }

    /// Mean seconds of a call with an entry probe, and with a return probe too.
    fn time_own(&mut self, offset: u64) -> Result<(f64, f64), Box<dyn Error>> {
        let mut time_with = |program| {
            let uprobe: &mut UProbe =
                self.ebpf.program_mut(program).expect("the object has every program of the list").try_into()?;
            let point = UProbeAttachPoint { location: UProbeAttachLocation::AbsoluteOffset(offset), cookie: None };
            uprobe.attach(point, OWN_FILE, UProbeScope::CallingProcess)?;
            Ok::<_, ProgramError>(time_calls())
        };
        Ok((time_with("empty")?, time_with("empty_return")?))
    }

    /// As [`Self::time_own`], by trace events.
    fn time_events(&self, offset: u64) -> Result<(f64, f64), Box<dyn Error>> {
        let mut events = TraceEvents::new()?;
        events.add_process(std::process::id(), Heirs::None, true)?;
        let mut time_with = |program, is_return| {
            let uprobe: &UProbe =
                self.ebpf.program(program).expect("the object has every program of the list").try_into()?;
            events.define(Path::new(OWN_FILE), offset, is_return, uprobe.fd()?.as_fd(), 0)?;
            Ok::<_, Box<dyn Error>>(time_calls())
        };
        Ok((time_with("empty", false)?, time_with("empty_return", true)?))
    }
}

const OWN_FILE: &str = "/proc/self/exe";

/// Mean seconds of one call.
fn time_calls() -> f64 {
    let started = Instant::now();
    for _ in 0..CALLS {
        // SAFETY: the function above, which only returns.
        unsafe { memtrace_bpf_calibrate() };
    }
    started.elapsed().as_secs_f64() / f64::from(CALLS)
}

/// File offset of the function in our own executable, from the mapping that it lies in.
fn calibration_offset() -> Option<u64> {
    let address = memtrace_bpf_calibrate as *const () as u64;
    let maps = std::fs::read("/proc/self/maps").ok()?;
    let entry =
        crate::target::maps::parse(&maps).into_iter().find(|map| map.start.0 <= address && address < map.end.0)?;
    Some(address - entry.start.0 + entry.offset.0)
}
