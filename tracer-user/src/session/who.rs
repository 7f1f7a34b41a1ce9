//! Who a process is: what snapshots tell of it beside figures, and what containers are called.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use crate::{
    scope::{
        Facts, Hierarchy,
        containers::{Containers, container_of},
    },
    snapshot::ProcessStats,
};

/// Engines are asked again for containers that they did not know no sooner than after this time.
const BETWEEN_LISTS: Duration = Duration::from_secs(30);

/// Digits of a container's id that stand for it where it has no name.
const SHORT_ID_DIGITS: usize = 12;

/// Names of containers, asked for when the first process in one is met.
#[derive(Debug, Default)]
pub(super) struct ContainerNames {
    by_id: HashMap<String, String>,
    asked: Option<Instant>,
}

impl ContainerNames {
    /// The name of the container whose cgroup this is, else its short id; `None`: it is no container's.
    fn of(&mut self, cgroup: &std::path::Path) -> Option<String> {
        let (_, id) = container_of(cgroup)?;
        if !self.by_id.contains_key(id) && self.asked.is_none_or(|asked| asked.elapsed() >= BETWEEN_LISTS) {
            self.asked = Some(Instant::now());
            if let Ok(hierarchy) = Hierarchy::find() {
                let named = Containers::list(&hierarchy).all.into_iter();
                self.by_id.extend(named.map(|container| (container.id.clone(), container.label().to_owned())));
            }
        }
        Some(self.by_id.get(id).cloned().unwrap_or_else(|| id.chars().take(SHORT_ID_DIGITS).collect()))
    }

    /// What `/proc` tells of a process, as snapshots carry it.
    pub(super) fn stats(&mut self, facts: &Facts) -> ProcessStats {
        ProcessStats {
            pid: facts.pid,
            pid_inside: (facts.pid_inside != facts.pid).then_some(facts.pid_inside),
            parent_pid: (facts.parent != 0).then_some(facts.parent),
            comm: facts.comm.clone(),
            exe: facts.exe.clone(),
            user: facts.user.clone().unwrap_or_else(|| facts.uid.to_string()),
            container: facts.cgroup.as_deref().and_then(|cgroup| self.of(cgroup)),
            cgroup: facts.cgroup.clone(),
            ..ProcessStats::default()
        }
    }
}

/// What is left to tell of a process that had ended before it could be looked at: it was forked from `parent`, if that is known.
pub(super) fn stats_of_ended(pid: u32, parent: Option<&ProcessStats>) -> ProcessStats {
    let unknown = ProcessStats { pid, comm: "(ended)".to_owned(), ..ProcessStats::default() };
    parent.map_or(unknown, |parent| ProcessStats {
        pid,
        pid_inside: None,
        parent_pid: Some(parent.pid),
        comm: parent.comm.clone(),
        exe: parent.exe.clone(),
        user: parent.user.clone(),
        container: parent.container.clone(),
        cgroup: parent.cgroup.clone(),
        ..ProcessStats::default()
    })
}

/// Whether these are the facts of the process that started then: `/proc/PID/stat` has the time in ticks, the kernel in ns, and
/// 0 where it was not told.
pub(super) fn is_of_start(facts: &Facts, start_ns: u64) -> bool {
    start_ns == 0 || facts.start_time_ticks == start_ns / ns_per_tick()
}

/// The start time of a process as the kernel's tables have it.
pub(super) fn start_ns(facts: &Facts) -> u64 {
    facts.start_time_ticks * ns_per_tick()
}

/// Length of a clock tick of `/proc` (sysconf(3), `_SC_CLK_TCK`; 100 a second on every Linux that is known).
fn ns_per_tick() -> u64 {
    // SAFETY: a plain library call.
    let per_second = unsafe { libc::sysconf(libc::_SC_CLK_TCK) };
    1_000_000_000 / u64::try_from(per_second).ok().filter(|ticks| *ticks > 0).unwrap_or(100)
}
