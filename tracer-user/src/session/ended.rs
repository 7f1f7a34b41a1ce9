//! Processes that have ended: their figures go from the kernel's tables into the archive, and make room for others.

use std::sync::Arc;

use tracer_common::abi::{Target, TargetState};

use super::{archive::EndedProcess, traced::Traced, tracer::Tracer};
use crate::{
    bpf::{Kernel, RawStack, TargetNumber},
    snapshot::{Domain, Frame, ProcessEnd, ProcessStats, Stack, StackStats, Totals},
};

/// Ended processes are archived when there are so many: one look at all stacks for all of them.
const BATCH: usize = 256;

impl Tracer {
    /// Archives what has ended, if there is enough of it or `all` are wanted.
    pub(super) fn archive_ended(&mut self, all: bool) {
        if !self.is_many {
            return;
        }
        let has_ended = |number: &TargetNumber| {
            self.kernel.target(*number).is_some_and(|target| TargetState::from_u32(target.state).is_ended())
        };
        let ended: Vec<TargetNumber> = self.targets.keys().copied().filter(has_ended).collect();
        if ended.is_empty() || (!all && ended.len() < BATCH) {
            return;
        }
        let mut by_target = self.kernel.read_stacks_of_all(&ended);
        for number in &ended {
            let Some((traced, target)) = self.targets.get(number).zip(self.kernel.target(*number)) else { continue };
            let mut raw = by_target.remove(number).unwrap_or_default();
            let pid = traced.stats.pid;
            // Where the main process ends, its figures are the session's: they stay where they are.
            if self.main.is_some_and(|main| main.number == *number) {
                continue;
            }
            let mut stats = self.stats_of(traced, &target);
            if let Some(mappings) = &self.mappings {
                raw.extend(mappings.take(&self.kernel, *number, traced.serial));
            }
            let stacks: Vec<StackStats> = raw.into_iter().map(|raw| located(traced, raw)).collect();
            for stack in &stacks {
                add(&mut stats, stack.stack.domain, &stack.totals);
            }
            self.targets.remove(number);
            // A program that another became by exec had the same process id.
            if !self.targets.values().any(|traced| traced.stats.pid == pid) {
                self.kernel.release_process(pid);
            }
            if !is_mere_fork(&stats) {
                self.archive.keep(EndedProcess { stats, stacks, is_thinned: false });
            }
        }
        let retired: Vec<TargetNumber> =
            ended.into_iter().filter(|number| !self.targets.contains_key(number)).collect();
        if let Err(error) = self.kernel.retire(&retired) {
            self.note(format!("tables are not freed of processes that have ended: {error}"));
        }
    }

    /// Who a process is, and what is known of it beside its stacks.
    pub(super) fn stats_of(&self, traced: &Traced, target: &Target) -> ProcessStats {
        let end = match TargetState::from_u32(target.state) {
            TargetState::Exited => Some(ProcessEnd::Exited),
            TargetState::Exec => Some(ProcessEnd::Exec),
            TargetState::Released => Some(ProcessEnd::Released),
            TargetState::Free | TargetState::Joining | TargetState::Active => None,
        };
        ProcessStats {
            ended: end.map(|end| (self.since_began(target.ended_at_ns), end)),
            inherited_bytes: target.inherited_bytes,
            inherited_count: target.inherited_blocks,
            totals: Totals::default(),
            mmap: self.mappings.as_ref().map(|_| Totals::default()),
            counters: Kernel::losses(target),
            ..traced.stats.clone()
        }
    }
}

/// Adds the sums of a stack to its process's.
pub(super) fn add(stats: &mut ProcessStats, domain: Domain, totals: &Totals) {
    match domain {
        Domain::Heap => stats.totals.add(totals),
        Domain::Mmap => stats.mmap.get_or_insert_default().add(totals),
    }
}

/// A fork that became another program before it allocated anything: no process that anybody asks for.
fn is_mere_fork(stats: &ProcessStats) -> bool {
    matches!(stats.ended, Some((_, ProcessEnd::Exec)))
        && stats.totals.allocated_count == 0
        && stats.mmap.is_none_or(|mmap| mmap.allocated_count == 0)
        && stats.counters.0.values().all(|value| *value == 0)
}

/// Addresses → files, by the process's own mappings.
pub(super) fn located(traced: &Traced, raw: RawStack) -> StackStats {
    let frames = raw.frames.iter().map(|addr| Frame { addr: *addr, location: traced.mappings.locate(addr.lookup()) });
    let stack = Stack {
        frames: frames.collect(),
        end: raw.end,
        thread: raw.thread.map(|(tid, _)| tid),
        domain: raw.domain,
        ..Stack::default()
    };
    StackStats { id: raw.id, stack: Arc::new(stack), totals: raw.totals }
}
