//! What scopes mean on this host: the union of what each of them selects.

use std::{
    fmt, fs,
    path::{Path, PathBuf},
};

use super::{
    CgroupRef, Facts, Hierarchy, Scope, ScopeError,
    containers::{Containers, Pod, pod_of},
    users,
};
use crate::text::glob::Glob;

/// The scopes of a session, looked up. It decides; it keeps no processes.
#[derive(Debug)]
pub struct Selection {
    found: Vec<Found>,
    /// Where there are control groups to look at.
    hierarchy: Option<Hierarchy>,
    myself: u32,
}

#[derive(Debug)]
struct Found {
    scope: Scope,
    what: What,
}

/// What a scope is, here and now.
#[derive(Debug)]
enum What {
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

impl Selection {
    /// Looks scopes up: processes, users and groups must be there, a container must be known (it need not run), and of a
    /// pod one container. Names of processes and executables may come to be later. May block for some seconds, while
    /// container engines are asked.
    ///
    /// # Errors
    /// A scope that is not there.
    pub fn open(scopes: &[Scope]) -> Result<Self, ScopeError> {
        let mut selection = Self { found: Vec::new(), hierarchy: None, myself: std::process::id() };
        let mut containers = None;
        for scope in scopes {
            let what = selection.look_up(scope, &mut containers)?;
            selection.found.push(Found { scope: scope.clone(), what });
        }
        Ok(selection)
    }

    fn look_up(&mut self, scope: &Scope, containers: &mut Option<Containers>) -> Result<What, ScopeError> {
        Ok(match scope {
            Scope::Pid(pid) => {
                let facts = Facts::read(*pid).map_err(|_| ScopeError::NoSuchProcess { pid: *pid })?;
                What::Process { pid: *pid, start_time_ticks: facts.start_time_ticks }
            }
            Scope::Comm(pattern) => What::Comm(Glob::new(pattern)),
            Scope::Exe(path) => What::Exe(path.clone(), fs::canonicalize(path).ok()),
            Scope::User(name) => What::User(users::uid_of(name)?),
            Scope::Cgroup(path) => What::Group(self.hierarchy()?.locate(path)?),
            Scope::Container(name) => {
                let hierarchy = self.hierarchy()?;
                let container = containers.get_or_insert_with(|| Containers::list(hierarchy)).find(name)?;
                What::Container { id: container.id.clone(), group: container.cgroup.clone() }
            }
            Scope::Pod { namespace, name } => {
                let hierarchy = self.hierarchy()?;
                let pod = Pod { namespace: namespace.clone(), name: name.clone() };
                let groups = groups_of(&pod, containers.get_or_insert_with(|| Containers::list(hierarchy)))?;
                What::Pod { pod, groups }
            }
            Scope::All => What::All,
        })
    }

    fn hierarchy(&mut self) -> Result<&Hierarchy, ScopeError> {
        if self.hierarchy.is_none() {
            self.hierarchy = Some(Hierarchy::find()?);
        }
        Ok(self.hierarchy.as_ref().expect("just found"))
    }

    /// Whether a process belongs to a scope. This process and the kernel's own never do.
    pub fn selects(&self, facts: &Facts) -> bool {
        let is_candidate = facts.pid != self.myself && !facts.is_kernel_thread;
        is_candidate && self.found.iter().any(|found| found.what.selects(facts))
    }

    /// The processes that belong to a scope now, in the order of their ids.
    pub fn processes(&self) -> Vec<Facts> {
        let mut selected = Facts::of_all();
        selected.retain(|facts| !facts.is_zombie && self.selects(facts));
        selected.sort_by_key(|facts| facts.pid);
        selected
    }

    /// The control groups whose processes all belong to a scope, with their numbers of this moment: a container that is
    /// started again has a new group. Those that do not exist now are left out; [`Self::awaited`] names them.
    pub fn cgroups(&self) -> Vec<CgroupRef> {
        let Some(hierarchy) = &self.hierarchy else { return Vec::new() };
        let groups = self.found.iter().flat_map(|found| found.what.groups());
        groups.filter_map(|group| hierarchy.reference(group).ok()).collect()
    }

    /// Looks again for containers without a group: they did not run, or were started again elsewhere. Whether something
    /// has changed. Asks the tree of groups only; of pods the engines too.
    pub fn look_again(&mut self) -> bool {
        let Some(hierarchy) = &self.hierarchy else { return false };
        let is_there = |group: &Path| hierarchy.reference(group).is_ok();
        let mut changed = false;
        for found in &mut self.found {
            match &mut found.what {
                What::Container { id, group } if !group.as_deref().is_some_and(is_there) => {
                    let now = Containers::group_of(hierarchy, id);
                    changed |= now.is_some();
                    *group = now.or(group.take());
                }
                What::Pod { pod, groups } if !groups.iter().any(|group| is_there(group)) => {
                    if let Ok(now) = groups_of(pod, &Containers::list(hierarchy)) {
                        changed |= now != *groups;
                        *groups = now;
                    }
                }
                _ => {}
            }
        }
        changed
    }

    /// The scopes that have no control group now, of those that go by one: containers that do not run, groups that were
    /// removed.
    pub fn awaited(&self) -> Vec<&Scope> {
        let Some(hierarchy) = &self.hierarchy else { return Vec::new() };
        let is_there = |group: &PathBuf| hierarchy.reference(group).is_ok();
        let awaited =
            self.found.iter().filter(|found| found.what.goes_by_groups() && !found.what.groups().iter().any(is_there));
        awaited.map(|found| &found.scope).collect()
    }

    /// The processes that were asked for by their ids.
    pub fn pids(&self) -> Vec<u32> {
        let pid = |found: &Found| match found.what {
            What::Process { pid, .. } => Some(pid),
            _ => None,
        };
        self.found.iter().filter_map(pid).collect()
    }

    /// Whether it selects by control groups: of containers, of pods, or given as such.
    pub fn goes_by_groups(&self) -> bool {
        self.found.iter().any(|found| found.what.goes_by_groups())
    }

    /// Whether every process of the host belongs to it.
    pub fn is_all(&self) -> bool {
        self.found.iter().any(|found| matches!(found.what, What::All))
    }

    /// Whether new processes can only be judged by their [`Facts`]: by name, executable or user.
    pub fn needs_facts(&self) -> bool {
        self.found.iter().any(|found| matches!(found.what, What::Comm(_) | What::Exe(..) | What::User(_)))
    }
}

/// The pod's own group, else those of its containers: a container of it that is started later is in the former.
fn groups_of(pod: &Pod, containers: &Containers) -> Result<Vec<PathBuf>, ScopeError> {
    let groups = containers.of_pod(pod)?.into_iter().filter_map(|container| container.cgroup.as_deref());
    let mut groups: Vec<PathBuf> = groups.map(|group| pod_of(group).unwrap_or_else(|| group.to_owned())).collect();
    groups.sort();
    groups.dedup();
    Ok(groups)
}

impl What {
    fn selects(&self, facts: &Facts) -> bool {
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

    fn goes_by_groups(&self) -> bool {
        matches!(self, Self::Group(_) | Self::Container { .. } | Self::Pod { .. })
    }

    fn groups(&self) -> &[PathBuf] {
        match self {
            Self::Group(group) | Self::Container { group: Some(group), .. } => std::slice::from_ref(group),
            Self::Pod { groups, .. } => groups,
            _ => &[],
        }
    }
}

impl fmt::Display for Selection {
    /// `container web, pid 4711`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, found) in self.found.iter().enumerate() {
            let before = if n == 0 { "" } else { ", " };
            write!(f, "{before}{}", found.scope)?;
        }
        Ok(())
    }
}
