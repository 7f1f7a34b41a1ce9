//! The target's resident memory for reports of a live process. Reading it costs the target its mapping lock (21 ms for each GiB
//! resident, see [`memory::read`]), so that refreshed reports do it seldom enough to be no burden.

use std::time::{Duration, Instant};

use crate::{snapshot::ProcessMemory, target::memory};

/// Reading may take this share of the time, as 1 in n.
const SELDOM: u32 = 100;
/// Larger targets are read once, for the last report.
const LARGE_BYTES: u64 = 4 << 30;

/// Reads now and then.
#[derive(Debug, Default)]
pub(super) struct MemoryReads {
    not_before: Option<Instant>,
}

impl MemoryReads {
    /// The memory of `pid`, unless it was read too short a time ago for what it costs, or is too large.
    pub(super) fn now_and_then(&mut self, pid: u32) -> Option<ProcessMemory> {
        let before = Instant::now();
        if self.not_before.is_some_and(|moment| before < moment) || memory::rss_bytes(pid).ok()? > LARGE_BYTES {
            return None;
        }
        let read = memory::read(pid).ok();
        let cost: Duration = before.elapsed();
        self.not_before = Some(before + cost * SELDOM);
        read
    }
}
