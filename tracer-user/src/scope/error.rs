//! Why a scope selects nothing that could ever be.

use std::{fmt, io, path::PathBuf};

use thiserror::Error;

use super::containers::{Container, Problem};
use crate::target::ProcessError;

/// Candidates that are listed at most.
const MAX_LISTED: usize = 8;

/// What is wrong with a scope on this host.
#[derive(Debug, Error)]
pub enum ScopeError {
    /// A process that was asked for by its id.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// No such user.
    #[error("no user `{name}`{}", Near(near))]
    NoSuchUser {
        /// The name asked for.
        name: String,
        /// Users with a name like it.
        near: Vec<String>,
    },
    /// The host has no v2 hierarchy.
    #[error(
        "no cgroup v2 hierarchy is mounted: cgroups and containers cannot be told apart (mount -t cgroup2 none \
         /sys/fs/cgroup, or trace processes by --pid)"
    )]
    NoHierarchy,
    /// Paths of cgroups are relative to an unknown place.
    #[error(
        "this process runs in a cgroup namespace and does not see the host's cgroups (run it on the host, or its \
         container with --cgroupns=host)"
    )]
    Namespace,
    /// No such v2 cgroup.
    #[error("no cgroup `{}` below `{}`{}", path.display(), root.display(), Near(near))]
    NoSuchCgroup {
        /// The path asked for.
        path: PathBuf,
        /// Where the hierarchy is mounted.
        root: PathBuf,
        /// Cgroups with a name like it.
        near: Vec<String>,
    },
    /// A directory of a v1 controller.
    #[error(
        "`{}` is a cgroup of version 1, which the kernel's side cannot tell (try the same path below `{}`)",
        path.display(), root.display()
    )]
    Version1 {
        /// The path asked for.
        path: PathBuf,
        /// Where the v2 hierarchy is mounted.
        root: PathBuf,
    },
    /// No container is called so.
    #[error("no container `{name}`{}{}", Near(near), Engines(problems))]
    NoSuchContainer {
        /// Name or id asked for.
        name: String,
        /// Containers with a name like it.
        near: Vec<String>,
        /// Engines that could not be asked.
        problems: Vec<Problem>,
    },
    /// Several containers are.
    #[error("`{name}` may be {}: take more of the id", Candidates(candidates))]
    Ambiguous {
        /// Name or id asked for.
        name: String,
        /// What it may mean.
        candidates: Vec<Container>,
    },
    /// No container belongs to such a pod.
    #[error("no pod `{pod}`{}{}", Near(near), Engines(problems))]
    NoSuchPod {
        /// Namespace and name asked for.
        pod: String,
        /// Pods with a name like it.
        near: Vec<String>,
        /// Engines that could not be asked.
        problems: Vec<Problem>,
    },
    /// A file of the kernel's could not be read.
    #[error("failed to read `{}`: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
}

/// `: did you mean a, b?`
struct Near<'a>(&'a [String]);

impl fmt::Display for Near<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() { Ok(()) } else { write!(f, " (near: {})", self.0.join(", ")) }
    }
}

/// `: docker does not answer (…)`, and what works all the same.
struct Engines<'a>(&'a [Problem]);

impl fmt::Display for Engines<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return Ok(());
        }
        for problem in self.0 {
            write!(f, ": {problem}")?;
        }
        f.write_str(" (the id of a running container, or --cgroup PATH, works without)")
    }
}

/// `web (0123456789ab, docker) or web (ba9876543210, podman)`.
struct Candidates<'a>(&'a [Container]);

impl fmt::Display for Candidates<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, container) in self.0.iter().take(MAX_LISTED).enumerate() {
            let before = if n == 0 { "" } else { " or " };
            write!(f, "{before}{container}")?;
        }
        match self.0.len().saturating_sub(MAX_LISTED) {
            0 => Ok(()),
            more => write!(f, " or {more} more"),
        }
    }
}
