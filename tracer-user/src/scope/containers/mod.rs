//! The containers of this host: what their engines say of them, and what the tree of control groups says without any engine.

mod shape;
mod tree;

use std::{fmt, path::PathBuf};

pub(super) use self::shape::pod_of;
pub use self::shape::{Engine, ID_DIGITS, container_of};
use super::{Hierarchy, ScopeError};
use crate::text::near;

/// Digits of an id that are shown.
const SHORT_ID_DIGITS: usize = 12;

/// A container. Its names come from files and services of others: hostile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Container {
    /// What started it.
    pub engine: Engine,
    /// Its whole id: 64 hexadecimal digits, or the name that a user of containerd gave it.
    pub id: String,
    /// Its name; `None`: nobody tells it.
    pub name: Option<String>,
    /// The image it was made from, where that is told.
    pub image: Option<String>,
    /// The Kubernetes pod that it belongs to.
    pub pod: Option<Pod>,
    /// Its v2 control group, `/docker/<id>`; `None`: it does not run.
    pub cgroup: Option<PathBuf>,
}

/// A Kubernetes pod.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Pod {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

/// An engine that seems to be there and cannot be asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Which one.
    pub engine: Engine,
    /// What was asked, and what happened.
    pub reason: String,
}

/// What is known of this host's containers at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Containers {
    /// Every one, the engines' stopped ones included.
    pub all: Vec<Container>,
    /// Engines that did not say theirs.
    pub problems: Vec<Problem>,
}

impl Container {
    /// The beginning of its id, as engines show it.
    pub fn short_id(&self) -> &str {
        match self.id.get(..SHORT_ID_DIGITS) {
            Some(short) if self.id.len() == ID_DIGITS => short,
            _ => &self.id,
        }
    }

    /// Its name, else its short id.
    pub fn label(&self) -> &str {
        self.name.as_deref().unwrap_or_else(|| self.short_id())
    }
}

impl fmt::Display for Container {
    /// `web (0123456789ab, docker)`, for lists to choose from.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(name) = &self.name {
            write!(f, "{name} ({}, {}", self.short_id(), self.engine)?;
        } else {
            write!(f, "{} ({}", self.short_id(), self.engine)?;
        }
        match &self.pod {
            Some(pod) => write!(f, ", pod {pod})"),
            None => f.write_str(")"),
        }
    }
}

impl fmt::Display for Pod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} does not answer: {}", self.engine, self.reason)
    }
}

impl Containers {
    /// Asks the tree of control groups and every engine. Blocks for some seconds at most.
    pub fn list(hierarchy: &Hierarchy) -> Self {
        let mut found = Self::default();
        found.merge(tree::containers(&hierarchy.walk()));
        found
    }

    /// The group of a container, by its id alone; `None`: it does not run.
    pub fn group_of(hierarchy: &Hierarchy, id: &str) -> Option<PathBuf> {
        tree::containers(&hierarchy.walk()).into_iter().find(|container| container.id == id)?.cgroup
    }

    /// The one that a user means: by its whole name, else by its whole id, else by the beginning of its id. One that runs is
    /// meant rather than one that does not.
    ///
    /// # Errors
    /// None is called so, or several are.
    pub fn find(&self, wanted: &str) -> Result<&Container, ScopeError> {
        let by =
            |is: &dyn Fn(&Container) -> bool| self.all.iter().filter(|container| is(container)).collect::<Vec<_>>();
        let mut found = by(&|container| container.name.as_deref() == Some(wanted));
        if found.is_empty() {
            found = by(&|container| container.id == wanted);
        }
        if found.is_empty() {
            found = by(&|container| container.id.len() == ID_DIGITS && container.id.starts_with(wanted));
        }
        if found.iter().any(|container| container.cgroup.is_some()) {
            found.retain(|container| container.cgroup.is_some());
        }
        match found[..] {
            [one] => Ok(one),
            [] => Err(self.none(wanted)),
            _ => {
                Err(ScopeError::Ambiguous { name: wanted.to_owned(), candidates: found.into_iter().cloned().collect() })
            }
        }
    }

    fn none(&self, wanted: &str) -> ScopeError {
        let names: Vec<&str> = self.all.iter().filter_map(|container| container.name.as_deref()).collect();
        ScopeError::NoSuchContainer {
            name: wanted.to_owned(),
            near: near::names(wanted, &names),
            problems: self.problems.clone(),
        }
    }

    /// The containers of a pod.
    ///
    /// # Errors
    /// There are none.
    pub fn of_pod(&self, pod: &Pod) -> Result<Vec<&Container>, ScopeError> {
        let found: Vec<&Container> = self.all.iter().filter(|container| container.pod.as_ref() == Some(pod)).collect();
        if !found.is_empty() {
            return Ok(found);
        }
        let pods: Vec<String> =
            self.all.iter().filter_map(|container| container.pod.as_ref().map(ToString::to_string)).collect();
        let pod = pod.to_string();
        let near = near::names(&pod, &pods);
        Err(ScopeError::NoSuchPod { pod, near, problems: self.problems.clone() })
    }

    /// Adds what one source knows to what others have said of the same ids. The first to tell something is right.
    fn merge(&mut self, told: Vec<Container>) {
        for container in told {
            match self.all.iter_mut().find(|known| known.id == container.id) {
                Some(known) => known.complete(container),
                None => self.all.push(container),
            }
        }
    }
}

impl Container {
    fn complete(&mut self, other: Self) {
        if matches!(self.engine, Engine::Unknown | Engine::Kubernetes) && other.engine != Engine::Unknown {
            self.engine = other.engine;
        }
        self.name = self.name.take().or(other.name);
        self.image = self.image.take().or(other.image);
        self.pod = self.pod.take().or(other.pod);
        self.cgroup = self.cgroup.take().or(other.cgroup);
    }
}
