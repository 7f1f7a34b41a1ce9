//! Which container a control group belongs to, for reports: asked once, remembered after it is gone.

use std::{
    collections::{HashMap, HashSet},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use super::{Container, Containers, Places, shape};
use crate::scope::Hierarchy;

/// Containers and groups that are remembered; with more, everything is asked anew.
const MAX_KEPT: usize = 1 << 16;

/// The share of time that goes into asking engines: after a list that took a second, none for 20 s.
const PAUSE_FACTOR: u32 = 20;

/// Containers by their control groups.
#[derive(Debug)]
pub struct ContainerNames {
    places: Places,
    hierarchy: Option<Hierarchy>,
    by_group: HashMap<PathBuf, Container>,
    /// Groups that belonged to no container when the engines were asked.
    others: HashSet<PathBuf>,
    /// No engine is asked before.
    not_before: Option<Instant>,
}

impl ContainerNames {
    /// Knows nothing yet. Without a v2 hierarchy it never will.
    pub fn new(places: Places) -> Self {
        Self {
            places,
            hierarchy: Hierarchy::find().ok(),
            by_group: HashMap::new(),
            others: HashSet::new(),
            not_before: None,
        }
    }

    /// The container of a group (`/docker/<id>`, or one below it); `None`: it belongs to none. Of one that no engine knows,
    /// or has told of yet, its path's engine and id. A group that is new may cost the time of asking: milliseconds, or a
    /// time-out of 2 s where an engine hangs, and a twentieth of all time at most.
    pub fn of(&mut self, group: &Path) -> Option<Container> {
        if let Some(known) = self.known(group).filter(|known| known.name.is_some()) {
            return Some(known.clone());
        }
        if !self.others.contains(group) && self.not_before.is_none_or(|time| Instant::now() >= time) {
            self.ask();
            // Where nobody knows a name now, nobody will.
            self.others.insert(group.to_owned());
        }
        self.known(group).cloned().or_else(|| of_path(group))
    }

    fn known(&self, group: &Path) -> Option<&Container> {
        group.ancestors().find_map(|above| self.by_group.get(above))
    }

    fn ask(&mut self) {
        let Some(hierarchy) = &self.hierarchy else { return };
        if self.by_group.len() >= MAX_KEPT || self.others.len() >= MAX_KEPT {
            self.by_group.clear();
            self.others.clear();
        }
        let begun = Instant::now();
        let told = Containers::list(hierarchy, &self.places);
        let taken: Duration = begun.elapsed();
        self.not_before = Some(Instant::now() + taken * PAUSE_FACTOR);
        for container in told.all {
            if let Some(group) = container.cgroup.clone() {
                self.by_group.insert(group, container);
            }
        }
    }
}

fn of_path(group: &Path) -> Option<Container> {
    let (engine, id, own) = shape::innermost(group)?;
    Some(Container { engine, id: id.to_owned(), name: None, image: None, pod: None, cgroup: Some(own) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_names_its_container_without_any_engine() {
        let mut names = ContainerNames::new(Places::none());
        let id = "0a".repeat(32);
        let group = PathBuf::from(format!("/docker/{id}/init"));
        for _ in 0..2 {
            let found = names.of(&group).expect("its path tells");
            assert_eq!((found.label(), found.short_id()), (&id[..12], &id[..12]));
            assert_eq!(names.of(Path::new("/system.slice/x.service")), None);
        }
    }
}
