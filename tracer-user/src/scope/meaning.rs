//! What one scope is on this host at this moment.

use std::path::PathBuf;

use super::{
    Facts, Scope, ScopeError,
    containers::{Container, Containers, Pod, pod_of},
};
use crate::text::glob::Glob;

/// What a scope is, here and now.
#[derive(Debug)]
pub(super) enum What {
    /// With its start time, so that a later process with the same id is not meant.
    Process {
        pid: u32,
        start_time_ticks: u64,
    },
    Comm(Glob),
    /// As it was given, and without symbolic links.
    Exe(PathBuf, Option<PathBuf>),
    User(u32),
    /// A group that was given as such.
    Group(PathBuf),
    /// A container's own group; `None`: it does not run.
    Container {
        id: String,
        group: Option<PathBuf>,
    },
    /// The group of a pod, or those of its containers.
    Pod {
        pod: Pod,
        groups: Vec<PathBuf>,
    },
    All,
}

/// The pod's own group, else those of its containers: a container of it that is started later is in the former.
pub(super) fn groups_of(pod: &Pod, containers: &Containers) -> Result<Vec<PathBuf>, ScopeError> {
    let groups = containers.of_pod(pod)?.into_iter().filter_map(|container| container.cgroup.as_deref());
    let mut groups: Vec<PathBuf> = groups.map(|group| pod_of(group).unwrap_or_else(|| group.to_owned())).collect();
    groups.sort();
    groups.dedup();
    Ok(groups)
}

impl What {
    pub(super) fn selects(&self, facts: &Facts) -> bool {
        match self {
            Self::Process { pid, start_time_ticks } => *pid == facts.pid && *start_time_ticks == facts.start_time_ticks,
            Self::Comm(pattern) => {
                pattern.is_match(&facts.comm) || facts.whole_name().is_some_and(|name| pattern.is_match(name))
            }
            Self::Exe(given, real) => facts.exe.as_ref().is_some_and(|exe| exe == given || Some(exe) == real.as_ref()),
            Self::User(uid) => facts.uid == *uid,
            Self::Group(_) | Self::Container { .. } | Self::Pod { .. } => {
                facts.cgroup.as_ref().is_some_and(|of| self.groups().iter().any(|group| of.starts_with(group)))
            }
            Self::All => true,
        }
    }

    /// What a scope of containers is by now; `None`: nothing that runs.
    pub(super) fn now(&self, scope: &Scope, containers: &Containers) -> Option<Self> {
        match (self, scope) {
            (Self::Container { id, .. }, Scope::Container(wanted)) => {
                // By name, or the same one: another that happens to begin with the same digits is not meant.
                let is_meant = |container: &&Container| container.id == *id || container.name.as_ref() == Some(wanted);
                let container = containers.all.iter().filter(is_meant).find(|container| container.cgroup.is_some())?;
                Some(Self::Container { id: container.id.clone(), group: container.cgroup.clone() })
            }
            (Self::Pod { pod, .. }, _) => {
                let groups = groups_of(pod, containers).ok().filter(|groups| !groups.is_empty())?;
                Some(Self::Pod { pod: pod.clone(), groups })
            }
            _ => None,
        }
    }

    pub(super) fn goes_by_groups(&self) -> bool {
        matches!(self, Self::Group(_) | Self::Container { .. } | Self::Pod { .. })
    }

    pub(super) fn groups(&self) -> &[PathBuf] {
        match self {
            Self::Group(group) | Self::Container { group: Some(group), .. } => std::slice::from_ref(group),
            Self::Pod { groups, .. } => groups,
            _ => &[],
        }
    }
}
