//! Who a process is: what snapshots tell of it beside figures.

use tracer_common::abi::{Target, UID_UNKNOWN};

use crate::{
    scope::{Facts, containers::ContainerNames, users},
    snapshot::ProcessStats,
};

/// What `/proc` tells of a process, as snapshots carry it.
pub(super) fn stats_of(facts: &Facts, containers: &mut ContainerNames) -> ProcessStats {
    ProcessStats {
        pid: facts.pid,
        pid_inside: (facts.pid_inside != facts.pid).then_some(facts.pid_inside),
        parent_pid: (facts.parent != 0).then_some(facts.parent),
        comm: facts.comm.clone(),
        exe: facts.exe.clone(),
        user: facts.user.clone().unwrap_or_else(|| facts.uid.to_string()),
        container: facts.cgroup.as_deref().and_then(|group| containers.of(group)).map(|it| it.label().to_owned()),
        cgroup: facts.cgroup.clone(),
        ..ProcessStats::default()
    }
}

/// What is left to tell of a process that had ended before it could be looked at: its name and user, as the kernel side has them, and
/// what it had in common with the process that forked it, or that became it by exec.
pub(super) fn stats_of_ended(target: &Target, origin: Option<&ProcessStats>) -> ProcessStats {
    let pid = target.tgid;
    let comm = target.comm.split(|byte| *byte == 0).next().unwrap_or_default();
    let comm = String::from_utf8_lossy(comm).into_owned();
    let user = match target.uid {
        UID_UNKNOWN => String::new(),
        uid => users::name_of(uid).unwrap_or_else(|| uid.to_string()),
    };
    let unknown = ProcessStats { pid, comm, user, ..ProcessStats::default() };
    origin.map_or(unknown.clone(), |origin| ProcessStats {
        parent_pid: if origin.pid == pid { origin.parent_pid } else { Some(origin.pid) },
        exe: if origin.comm == unknown.comm { origin.exe.clone() } else { None },
        user: if unknown.user.is_empty() { origin.user.clone() } else { unknown.user.clone() },
        container: origin.container.clone(),
        cgroup: origin.cgroup.clone(),
        ..unknown
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
