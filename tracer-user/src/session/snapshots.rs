//! Tables → snapshot: addresses become places in files, sums get their owners.

use std::{collections::BTreeMap, fs, sync::Arc, time::Duration};

use tracer_common::counters::Counter;

use super::{
    ended::{add, located},
    error::TraceError,
    ranges::Mapped,
    tracer::{Origin, Tracer},
};
use crate::{
    bpf::{RawStack, TargetNumber},
    snapshot::{Counters, Overhead, ProcessId, ProcessStats, Snapshot, Stack, StackStats, TargetInfo, Tid, Totals},
    target::memory,
};

impl Tracer {
    /// The sums over all stacks as of now, of processes that have ended too: next to nothing beside a snapshot.
    pub fn totals(&self) -> Totals {
        let mut totals = self.kernel.read_totals();
        totals.add(&self.archive.totals());
        self.with_scope_peak(totals)
    }

    /// Resident memory of all processes, in bytes; pages that they share count once each. `None`: that of none is known.
    pub(super) fn rss_bytes(&self) -> Option<u64> {
        let living = self.targets.values().filter(|traced| traced.is_running());
        let rss = living.filter_map(|traced| memory::rss_bytes(traced.stats.pid).ok().filter(|bytes| *bytes > 0));
        rss.reduce(u64::saturating_add)
    }

    /// What the session is called: its process, else its own id and what it traces.
    pub(super) fn name(&self) -> (u32, String) {
        match (self.main(), &self.selection) {
            (Some(main), _) => (main.stats.pid, main.stats.comm.clone()),
            (None, Some(selection)) => (std::process::id(), selection.to_string()),
            (None, None) => (std::process::id(), String::new()),
        }
    }

    /// All totals, stacks, modules and counters as of now.
    pub fn snapshot(&self) -> Snapshot {
        let (mut raw_stacks, sums) = self.kernel.read_stacks();
        let mut totals = sums;
        totals.add(&self.archive.totals());
        let duration = self.elapsed();
        let mut counters = self.kernel.counters();
        counters.0.insert(Counter::JoinedLate, self.n_joined_late);
        let mmap = self.mappings.as_ref().map(|mappings| {
            let targets = self.targets.iter().map(|(number, traced)| (*number, traced.serial));
            let Mapped { stacks, mut totals, peak_bytes, counters: counted } = mappings.of_all(&self.kernel, targets);
            raw_stacks.extend(stacks);
            raw_stacks.sort_by_key(|stack| stack.id);
            counters.0.extend(counted);
            totals.add(&self.archive.mmap());
            if self.is_told_as_many() { Totals { peak_bytes, peak_count: 0, ..totals } } else { totals }
        });
        let threads = self.thread_names(&raw_stacks);
        let (processes, stacks) = self.processes_and_stacks(raw_stacks);
        let pause = self.paused_since.filter(|_| self.begun).map(|since| since..duration);
        Snapshot {
            target: self.target_info(),
            scope: self.scope_text(),
            duration,
            from_start: self.origin == Origin::Child && processes.iter().all(|process| process.from_start),
            totals: self.with_scope_peak(totals),
            mmap,
            peak_at: self.kernel.scope_bytes().peak_at_ns.map(|at_ns| self.since_began(at_ns)),
            overhead: self.overhead(&counters, duration),
            threads,
            counters,
            pauses: self.pauses.iter().cloned().chain(pause).collect(),
            modules: self.files.files.all().iter().map(|loaded| Arc::clone(&loaded.module)).collect(),
            processes,
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

    /// Of many processes the highest total of all together is exact in bytes; how many blocks that were is not known.
    fn with_scope_peak(&self, totals: Totals) -> Totals {
        if !self.is_told_as_many() {
            return totals;
        }
        Totals { peak_bytes: self.kernel.scope_bytes().peak_bytes, peak_count: 0, ..totals }
    }

    /// A session for one process that stayed alone is told as such.
    fn is_told_as_many(&self) -> bool {
        self.is_many && (self.main.is_none() || self.targets.len() as u64 + self.archive.len() > 1)
    }

    fn processes_and_stacks(&self, raw_stacks: Vec<RawStack>) -> (Vec<ProcessStats>, Vec<StackStats>) {
        if !self.is_told_as_many() {
            let located = |raw: RawStack| Some(located(self.targets.get(&raw.target)?, raw));
            return (Vec::new(), raw_stacks.into_iter().filter_map(located).collect());
        }
        let (mut processes, mut stacks) = self.archive.show();
        let mut places: BTreeMap<TargetNumber, ProcessId> = BTreeMap::new();
        for (number, traced) in &self.targets {
            let Some(target) = self.kernel.target(*number) else { continue };
            places.insert(*number, ProcessId(processes.len() as u32));
            let rss = memory::rss_bytes(traced.stats.pid).ok().filter(|bytes| *bytes > 0 && target.ended_at_ns == 0);
            processes.push(ProcessStats { rss_bytes: rss, ..self.stats_of(traced, &target) });
        }
        for raw in raw_stacks {
            // One that joined since the processes were looked at has its stacks in the next snapshot.
            let Some((traced, place)) = self.targets.get(&raw.target).zip(places.get(&raw.target)) else { continue };
            add(&mut processes[place.0 as usize], raw.domain, &raw.totals);
            let mut stats = located(traced, raw);
            stats.stack = Arc::new(Stack { process: Some(*place), ..Arc::unwrap_or_clone(stats.stack) });
            stacks.push(stats);
        }
        (processes, stacks)
    }

    fn target_info(&self) -> TargetInfo {
        self.main().map_or_else(TargetInfo::default, |traced| TargetInfo {
            pid: traced.stats.pid,
            comm: traced.stats.comm.clone(),
            exe: traced.process.as_ref().and_then(|process| process.exe.clone()),
            running: traced.is_running(),
        })
    }

    /// What selects the processes, for reports; empty where it is one.
    pub(super) fn scope_text(&self) -> String {
        if !self.is_told_as_many() {
            return String::new();
        }
        match (&self.selection, self.main()) {
            (Some(selection), _) => selection.to_string(),
            (None, Some(main)) => format!("pid {} and what it started", main.stats.pid),
            (None, None) => String::new(),
        }
    }

    fn overhead(&self, counters: &Counters, duration: Duration) -> Overhead {
        let hits = HITS.map(|hit| counters.get(hit));
        let hits: u64 = hits.iter().sum();
        Overhead {
            hits,
            hits_per_second: hits as f64 / duration.as_secs_f64().max(1e-9),
            estimated_share: self.cpu_seconds().map(|seconds| share(self.trap_cost.seconds(counters), seconds)),
            kernel_map_bytes: self.kernel.map_bytes(),
            rss_bytes: own_rss_bytes(),
        }
    }

    /// CPU time that the processes have used while they were traced. `None`: that of some is not known.
    fn cpu_seconds(&self) -> Option<f64> {
        if self.archive.len() > 0 {
            return None;
        }
        let used = |traced: &super::traced::Traced| {
            let now = traced.process.as_ref()?.cpu_seconds()?;
            Some(now - traced.cpu_seconds_before?)
        };
        self.targets.values().map(used).sum()
    }

    /// Names of the threads that the stacks belong to: their own of now, else the last one that a stack was stored with.
    fn thread_names(&self, stacks: &[RawStack]) -> BTreeMap<Tid, String> {
        let mut names = BTreeMap::new();
        for raw in stacks {
            let Some((tid, stored)) = &raw.thread else { continue };
            let process = self.targets.get(&raw.target).and_then(|traced| traced.process.as_ref());
            names
                .entry(*tid)
                .or_insert_with(|| process.and_then(|process| process.thread_comm(tid.0)).unwrap_or(stored.clone()));
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
        let everyone = self
            .reaches_everyone()
            .then(|| "probes reach everyone: other processes that call into these files pay a trap a call".to_owned());
        let grouped = (self.archive.n_grouped() > 0).then(|| {
            format!("{} of the processes that have ended are told together, by command", self.archive.n_grouped())
        });
        let thinned = (self.archive.n_thinned() > 0).then(|| {
            format!("of {} processes that have ended the smallest stacks are told as one", self.archive.n_thinned())
        });
        let silent = self.n_without_allocator();
        let silent = (self.is_told_as_many() && silent > 0).then(|| {
            let processes = if silent == 1 { "process" } else { "processes" };
            format!("in {silent} {processes} no allocator was found: not traced")
        });
        let notes = self.notes.iter().chain(&self.files.files.problems).cloned();
        let unmapped = (self.mappings.is_some() && !self.has_mapping_sites()).then(|| {
            "no function that maps memory was found: mappings are not seen (programs in Go, and static ones without \
             symbols, call the kernel themselves)"
                .to_owned()
        });
        notes.chain(paused).chain(everyone).chain(grouped).chain(thinned).chain(silent).chain(unmapped).collect()
    }

    /// Living processes none of whose files defines an allocator.
    fn n_without_allocator(&self) -> usize {
        let is_silent = |traced: &&super::traced::Traced| traced.is_running() && !traced.has_sites(&self.files);
        self.targets.values().filter(is_silent).count()
    }

    /// Whether there is something to trace in processes that have their libraries.
    ///
    /// # Errors
    /// No allocator is probed, or one that the user described is not mapped.
    pub fn check_sites(&self) -> Result<(), TraceError> {
        let missing = self.unmapped_allocator().or_else(|| (!self.has_sites()).then(|| self.no_allocator()));
        let Some(error) = missing else { return Ok(()) };
        match self.main().and_then(|traced| traced.process.as_deref()) {
            Some(process) => Err(super::error::ended_or(process, error)),
            None => Err(error),
        }
    }

    /// Whether any allocator function is probed, or one that maps memory, where these are followed.
    pub fn has_sites(&self) -> bool {
        self.attached.keys().any(|id| self.files.has_sites(*id))
    }

    fn has_mapping_sites(&self) -> bool {
        self.attached.keys().any(|id| !self.files.facts(*id).mappings.is_empty())
    }

    /// The error for an allocator described in a module that is not mapped.
    pub fn unmapped_allocator(&self) -> Option<TraceError> {
        let mapped: Vec<_> = self.attached.keys().copied().collect();
        self.files.unmapped_allocator(&mapped)
    }

    /// The error that says which modules were looked at in vain.
    pub fn no_allocator(&self) -> TraceError {
        match self.main().or_else(|| self.targets.values().next()) {
            Some(traced) => traced.no_allocator(&self.files),
            None => TraceError::NoProcess { scope: self.scope_text() },
        }
    }

    /// Whether the main process's dynamic loader will tell when its libraries are loaded.
    pub fn awaits_libraries(&self) -> bool {
        !self.is_paused() && self.main().is_some_and(|traced| traced.r_state(&self.files).is_some())
    }
}

/// Counters of traps that the targets take.
const HITS: [Counter; 5] =
    [Counter::HitsEntry, Counter::HitsReturn, Counter::HitsFree, Counter::HitsMapping, Counter::HitsMappingReturn];

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
