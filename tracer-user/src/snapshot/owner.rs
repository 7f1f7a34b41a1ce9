//! Whose a stack is.

use std::time::Duration;

use super::model::{ProcessEnd, ProcessId, ProcessStats, Snapshot, Stack, TargetInfo};

/// The process that a stack belongs to, as far as it is told.
#[derive(Clone, Copy, Debug)]
pub enum Owner<'a> {
    /// One of [`Snapshot::processes`].
    One(ProcessId, &'a ProcessStats),
    /// The target, where the snapshot has but one process.
    Target(&'a TargetInfo),
}

/// Where a process runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Home<'a> {
    /// Nobody looked.
    NotKnown,
    /// In no container.
    Host,
    /// In the container of this name; hostile input.
    Container(&'a str),
}

impl Snapshot {
    /// Whether its figures are those of more than one process, or of a scope that may hold more.
    pub fn is_of_many(&self) -> bool {
        !self.scope.is_empty() || self.processes.len() > 1
    }

    /// The processes that it tells of.
    pub fn told(&self) -> impl Iterator<Item = (ProcessId, &ProcessStats)> {
        (0..).map(ProcessId).zip(&self.processes).filter(|(_, process)| !process.is_empty())
    }

    /// Whose a stack is. `None`: it is not known of which of the processes.
    pub fn owner(&self, stack: &Stack) -> Option<Owner<'_>> {
        let one = |id: ProcessId| self.processes.get(id.0 as usize).map(|process| Owner::One(id, process));
        match (stack.process, self.processes.len()) {
            (Some(id), _) => one(id),
            (None, 0) => Some(Owner::Target(&self.target)),
            (None, 1) => one(ProcessId(0)),
            (None, _) => None,
        }
    }
}

impl<'a> Owner<'a> {
    /// Its pid in the initial namespace; 0: the sum of several.
    pub const fn pid(self) -> u32 {
        match self {
            Self::One(_, process) => process.pid,
            Self::Target(target) => target.pid,
        }
    }

    /// Its command; of a sum the one that all had; hostile input.
    pub fn command(self) -> &'a str {
        match self {
            Self::One(_, process) => process.command(),
            Self::Target(target) => &target.comm,
        }
    }

    /// What it is called: its command, and the number of processes of a sum; hostile input.
    pub fn comm(self) -> &'a str {
        match self {
            Self::One(_, process) => &process.comm,
            Self::Target(target) => &target.comm,
        }
    }

    /// Its user; hostile input.
    pub fn user(self) -> Option<&'a str> {
        match self {
            Self::One(_, process) => Some(process.user.as_str()).filter(|user| !user.is_empty()),
            Self::Target(_) => None,
        }
    }

    /// Where it runs.
    pub fn home(self) -> Home<'a> {
        match self {
            Self::One(_, process) => process.container.as_deref().map_or(Home::Host, Home::Container),
            Self::Target(_) => Home::NotKnown,
        }
    }

    /// When and how it ended, where that is known.
    pub const fn ended(self) -> Option<(Duration, ProcessEnd)> {
        match self {
            Self::One(_, process) => process.ended,
            Self::Target(_) => None,
        }
    }

    /// When it joined; the target was there from the start.
    pub const fn joined_at(self) -> Duration {
        match self {
            Self::One(_, process) => process.joined_at,
            Self::Target(_) => Duration::ZERO,
        }
    }
}
