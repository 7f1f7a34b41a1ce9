//! What scopes mean on this host: the union of what each of them selects.

use std::{fmt, fs, path::PathBuf};

use super::{
    CgroupRef, Facts, Hierarchy, Scope, ScopeError,
    containers::{Containers, Places, Pod},
    meaning::{What, groups_of},
    users,
};
use crate::{
    target::{Process, ProcessError},
    text::glob::Glob,
};

/// The scopes of a session, looked up. It decides; it keeps no processes.
#[derive(Debug)]
pub struct Selection {
    found: Vec<Found>,
    /// Where there are control groups to look at.
    hierarchy: Option<Hierarchy>,
    places: Places,
    myself: u32,
}

#[derive(Debug)]
struct Found {
    scope: Scope,
    what: What,
}

impl Selection {
    /// Looks scopes up: processes, users and groups must be there, a container must be known (it need not run), and of a
    /// pod one container. Names of processes and executables may come to be later. May block for some seconds, while
    /// container engines are asked.
    ///
    /// # Errors
    /// A scope that is not there.
    pub fn open(scopes: &[Scope]) -> Result<Self, ScopeError> {
        Self::open_in(scopes, Places::default())
    }

    /// Likewise, with engines that keep their records elsewhere.
    ///
    /// # Errors
    /// A scope that is not there.
    pub fn open_in(scopes: &[Scope], places: Places) -> Result<Self, ScopeError> {
        let mut selection = Self { found: Vec::new(), hierarchy: None, places, myself: std::process::id() };
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
                // Held while its start time is read, so that both are of one process.
                let process = Process::open(*pid)?;
                let gone = |_| ProcessError::NoSuchProcess { pid: *pid };
                let start_time_ticks = Facts::read(*pid).map_err(gone)?.start_time_ticks;
                drop(process);
                What::Process { pid: *pid, start_time_ticks }
            }
            Scope::Comm(pattern) => What::Comm(Glob::new(pattern)),
            Scope::Exe(path) => What::Exe(path.clone(), fs::canonicalize(path).ok()),
            Scope::User(name) => What::User(users::uid_of(name)?),
            Scope::Cgroup(path) => What::Group(Self::hierarchy(&mut self.hierarchy)?.locate(path)?),
            Scope::Container(name) => {
                let container = self.containers(containers)?.find(name)?;
                What::Container { id: container.id.clone(), group: container.cgroup.clone() }
            }
            Scope::Pod { namespace, name } => {
                let pod = Pod { namespace: namespace.clone(), name: name.clone() };
                let groups = groups_of(&pod, self.containers(containers)?)?;
                What::Pod { pod, groups }
            }
            Scope::All => What::All,
        })
    }

    fn hierarchy(found: &mut Option<Hierarchy>) -> Result<&Hierarchy, ScopeError> {
        match found {
            Some(hierarchy) => Ok(hierarchy),
            None => Ok(found.insert(Hierarchy::find()?)),
        }
    }

    /// Asked for once, however many scopes want them.
    fn containers<'a>(&mut self, asked: &'a mut Option<Containers>) -> Result<&'a Containers, ScopeError> {
        let hierarchy = Self::hierarchy(&mut self.hierarchy)?;
        Ok(asked.get_or_insert_with(|| Containers::list(hierarchy, &self.places)))
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

    /// Ids of the processes in its control groups now.
    pub fn members(&self) -> Vec<u32> {
        let Some(hierarchy) = &self.hierarchy else { return Vec::new() };
        self.found.iter().flat_map(|found| found.what.groups()).flat_map(|group| hierarchy.members(group)).collect()
    }

    /// The control groups whose processes all belong to a scope, with their numbers of this moment: a container that is
    /// started again has a new group. Those that do not exist now are left out; [`Self::awaited`] names them.
    pub fn cgroups(&self) -> Vec<CgroupRef> {
        let Some(hierarchy) = &self.hierarchy else { return Vec::new() };
        let groups = self.found.iter().flat_map(|found| found.what.groups());
        groups.filter_map(|group| hierarchy.reference(group).ok()).collect()
    }

    /// Looks again for containers and pods without a group: they did not run, were started again, or made anew under their
    /// old name. Whether something has changed. Does nothing while each has its group; else the engines are asked, which may
    /// take some seconds.
    pub fn look_again(&mut self) -> bool {
        let Some(hierarchy) = &self.hierarchy else { return false };
        let is_there = |group: &PathBuf| hierarchy.reference(group).is_ok();
        let mut containers = None;
        let mut changed = false;
        for Found { scope, what } in &mut self.found {
            if !matches!(what, What::Container { .. } | What::Pod { .. }) || what.groups().iter().any(is_there) {
                continue;
            }
            let containers = containers.get_or_insert_with(|| Containers::list(hierarchy, &self.places));
            if let Some(now) = what.now(scope, containers) {
                changed |= now.groups() != what.groups();
                *what = now;
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

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(pid: u32) -> Facts {
        Facts {
            pid,
            start_time_ticks: 100,
            parent: 1,
            comm: "worker".to_owned(),
            exe: Some("/usr/bin/worker".into()),
            uid: 33,
            user: Some("www-data".to_owned()),
            cgroup: Some("/docker/abc/init".into()),
            pid_inside: 1,
            is_kernel_thread: false,
            is_zombie: false,
        }
    }

    fn of(what: What) -> Selection {
        let found = vec![Found { scope: Scope::All, what }];
        Selection { found, hierarchy: None, places: Places::none(), myself: 77 }
    }

    #[test]
    fn each_kind_of_scope_decides_by_its_own_fact() {
        let comm = |pattern: &str| What::Comm(Glob::new(pattern));
        for (n, (what, expected)) in [
            (What::Process { pid: 5, start_time_ticks: 100 }, true),
            (What::Process { pid: 5, start_time_ticks: 99 }, false),
            (What::Process { pid: 6, start_time_ticks: 100 }, false),
            (comm("work*"), true),
            (comm("work"), false),
            (What::Exe("/usr/bin/worker".into(), None), true),
            (What::Exe("/usr/local/bin/worker".into(), Some("/usr/bin/worker".into())), true),
            (What::Exe("/bin/worker".into(), None), false),
            (What::User(33), true),
            (What::User(0), false),
            (What::Group("/docker/abc".into()), true),
            (What::Group("/docker/ab".into()), false),
            (What::Group("/".into()), true),
            (What::Container { id: "abc".into(), group: Some("/docker/abc".into()) }, true),
            (What::Container { id: "abc".into(), group: None }, false),
            (What::All, true),
        ]
        .into_iter()
        .enumerate()
        {
            assert_eq!(of(what).selects(&facts(5)), expected, "row {n}");
        }
    }

    #[test]
    fn this_process_and_the_kernels_are_nobodys() {
        assert!(!of(What::All).selects(&facts(77)));
        assert!(!of(What::All).selects(&Facts { is_kernel_thread: true, ..facts(5) }));
        let myself = std::process::id();
        let all = Selection::open(&[Scope::All]).expect("all there is");
        assert!(all.is_all() && all.processes().iter().all(|facts| facts.pid != myself && !facts.is_kernel_thread));
        let error = Selection::open(&[Scope::Pid(myself)]).expect_err("itself");
        assert_eq!(error.to_string(), format!("pid {myself} is this tracer itself"));
    }

    #[test]
    fn a_name_that_the_kernel_cut_is_compared_whole() {
        let long = Facts { comm: "a-rather-long-n".into(), exe: Some("/opt/a-rather-long-name".into()), ..facts(5) };
        let comm = |pattern: &str| of(What::Comm(Glob::new(pattern)));
        assert!(comm("a-rather-long-name").selects(&long) && comm("a-rather-long-n").selects(&long));
        assert!(!comm("worker").selects(&Facts { comm: "renamed".into(), ..facts(5) }));
    }

    #[test]
    fn scopes_add_up_and_keep_their_names() {
        let scopes = [Scope::Comm("no-such-name-*".into()), Scope::User("root".into()), Scope::Exe("/x".into())];
        let selection = Selection::open(&scopes).expect("they may come to be");
        assert_eq!(selection.to_string(), "command no-such-name-*, user root, executable /x");
        assert!(selection.needs_facts() && !selection.is_all() && selection.awaited().is_empty());
        assert!(selection.selects(&Facts { uid: 0, ..facts(5) }) && !selection.selects(&facts(5)));
        assert_eq!((selection.pids(), selection.cgroups()), (vec![], vec![]));
    }

    #[test]
    fn a_process_is_selected_by_its_id_as_long_as_it_is_the_same() {
        let mut child =
            std::process::Command::new("cat").stdin(std::process::Stdio::piped()).spawn().expect("cat starts");
        let selection = Selection::open(&[Scope::Pid(child.id())]).expect("it runs");
        assert_eq!(selection.pids(), [child.id()]);
        let found: Vec<u32> = selection.processes().iter().map(|facts| facts.pid).collect();
        assert_eq!(found, [child.id()]);
        drop(child.stdin.take());
        child.wait().expect("a child of ours");
        assert!(selection.processes().is_empty());
        assert!(matches!(Selection::open(&[Scope::Pid(u32::MAX / 2)]), Err(ScopeError::Process(_))));
    }
}
