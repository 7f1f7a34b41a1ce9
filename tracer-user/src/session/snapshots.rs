//! Tables → snapshot: addresses become places in files, sums get their owners.

use std::{collections::BTreeMap, fs, sync::Arc, time::Duration};

use tracer_common::counters::Counter;

use super::tracer::{Origin, Tracer};
use crate::{
    bpf::RawStack,
    snapshot::{Frame, Overhead, Snapshot, Stack, StackStats, TargetInfo, Tid, Totals},
};

impl Tracer {
    /// The sums over all stacks as of now: next to nothing beside a snapshot.
    pub fn totals(&self) -> Totals {
        self.kernel.read_totals()
    }

    /// All totals, stacks, modules and counters as of now.
    pub fn snapshot(&self) -> Snapshot {
        let (raw_stacks, totals) = self.kernel.read_stacks();
        let duration = self.elapsed();
        let counters = self.kernel.counters();
        let threads = self.thread_names(&raw_stacks);
        let stacks = raw_stacks.into_iter().map(|raw| self.located(raw)).collect();
        let hits = [Counter::HitsEntry, Counter::HitsReturn, Counter::HitsFree].map(|hit| counters.get(hit));
        let cpu_seconds =
            self.traced.process.cpu_seconds().zip(self.cpu_seconds_before).map(|(now, before)| now - before);
        let n_hits: u64 = hits.iter().sum();
        Snapshot {
            target: TargetInfo {
                pid: self.traced.process.pid,
                comm: self.traced.process.comm.clone(),
                exe: self.traced.process.exe.clone(),
                running: self.traced.process.is_running(),
            },
            duration,
            from_start: self.origin == Origin::Child,
            totals,
            peak_at: self.kernel.peak_at_ns().map(|at_ns| self.since_began(at_ns)),
            threads,
            memory: None,
            ages: None,
            overhead: Overhead {
                hits: n_hits,
                hits_per_second: n_hits as f64 / duration.as_secs_f64().max(1e-9),
                estimated_share: cpu_seconds.map(|seconds| share(self.trap_cost.seconds(&counters), seconds)),
                kernel_map_bytes: self.kernel.map_bytes(),
                rss_bytes: own_rss_bytes(),
            },
            counters,
            modules: self.files.files.all().iter().map(|loaded| Arc::clone(&loaded.module)).collect(),
            stacks,
            notes: self.all_notes(),
            ..Snapshot::default()
        }
    }

    /// As [`Self::snapshot`], with live blocks by age: their generation is the number of earlier snapshots (`taken_at`: since
    /// tracing began, ascending) that were taken before their birth. It looks at every block.
    pub fn snapshot_with_ages(&self, taken_at: &[Duration]) -> Snapshot {
        let taken_at_ns: Vec<u64> =
            taken_at.iter().map(|at| self.began_at_ns.saturating_add(at.as_nanos() as u64)).collect();
        let ages = self.kernel.read_ages(&taken_at_ns);
        let mut snapshot = self.snapshot();
        match ages {
            Ok(ages) => snapshot.ages = Some(ages),
            Err(error) => snapshot.notes.push(format!("ages of blocks are not known: {error}")),
        }
        snapshot
    }

    /// Addresses → modules.
    fn located(&self, raw: RawStack) -> StackStats {
        let frames =
            raw.frames.iter().map(|addr| Frame { addr: *addr, location: self.traced.mappings.locate(addr.lookup()) });
        let stack = Stack {
            frames: frames.collect(),
            end: raw.end,
            thread: raw.thread.map(|(tid, _)| tid),
            ..Stack::default()
        };
        StackStats { id: raw.id, stack: Arc::new(stack), totals: raw.totals }
    }

    /// Names of the threads that the stacks belong to: their own of now, else the last one that a stack was stored with.
    fn thread_names(&self, stacks: &[RawStack]) -> BTreeMap<Tid, String> {
        let mut names: BTreeMap<Tid, String> = stacks.iter().filter_map(|raw| raw.thread.clone()).collect();
        for (tid, name) in &mut names {
            if let Some(now) = self.traced.process.thread_comm(tid.0) {
                *name = now;
            }
        }
        names
    }

    fn all_notes(&self) -> Vec<String> {
        let paused = self.paused_since.filter(|_| self.begun).map(|since| {
            format!(
                "paused since {:.1} s: blocks allocated since then are unknown, blocks freed since then still count as live",
                since.as_secs_f64()
            )
        });
        self.notes.iter().chain(&self.files.files.problems).cloned().chain(paused).collect()
    }
}

/// Probe time by CPU time; both are estimates, so the share is kept within 0–1.
fn share(probe_seconds: f64, cpu_seconds: f64) -> f64 {
    if cpu_seconds <= 0.0 { 0.0 } else { (probe_seconds / cpu_seconds).clamp(0.0, 1.0) }
}

fn own_rss_bytes() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let kib =
        status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}
