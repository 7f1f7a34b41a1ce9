//! The containers of this host: what their engines say of them, and what the tree of control groups says without any engine.

mod containerd;
mod docker;
mod ids;
mod kubernetes;
mod list;
mod names;
mod shape;
mod storage;
mod tree;

use std::{fmt, path::PathBuf};

pub(super) use self::shape::pod_of;
pub use self::{
    docker::Socket,
    list::Containers,
    names::ContainerNames,
    shape::{Engine, ID_DIGITS, container_of},
    storage::Store,
};

/// Containers that are looked at: more than any host runs.
const MAX_CONTAINERS: usize = 1 << 16;

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

/// Where engines keep what they know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Places {
    /// Where Docker listens; `None`: it is not asked.
    pub docker: Option<Socket>,
    /// State directories of containerd.
    pub containerd: Vec<PathBuf>,
    /// Stores of Podman and CRI-O.
    pub stores: Vec<Store>,
}

/// Where containerd keeps its state: its own package, Docker's private one, k3s, MicroK8s.
const CONTAINERD_STATES: [&str; 4] = [
    "/run/containerd",
    "/run/docker/containerd/daemon",
    "/run/k3s/containerd",
    "/var/snap/microk8s/common/run/containerd",
];

impl Default for Places {
    /// As packages have them, and `$DOCKER_HOST`.
    fn default() -> Self {
        Self {
            docker: Some(Socket::of_environment()),
            containerd: CONTAINERD_STATES.map(PathBuf::from).to_vec(),
            stores: vec![Store {
                graph_root: "/var/lib/containers/storage".into(),
                run_root: "/run/containers/storage".into(),
            }],
        }
    }
}

impl Places {
    /// No engine is asked: what cgroups tell must do.
    pub const fn none() -> Self {
        Self { docker: None, containerd: Vec::new(), stores: Vec::new() }
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_id_is_cut_only_where_it_is_an_id() {
        let label = |id: &str| {
            let container = Container {
                engine: Engine::Docker,
                id: id.to_owned(),
                name: None,
                image: None,
                pod: None,
                cgroup: None,
            };
            container.label().to_owned()
        };
        assert_eq!(label(&"0a".repeat(32)), "0a0a0a0a0a0a");
        assert_eq!(label("a-rather-long-name"), "a-rather-long-name");
        assert_eq!(label("ü-rather-long-name"), "ü-rather-long-name");
    }
}
