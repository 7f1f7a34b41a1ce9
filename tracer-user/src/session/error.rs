//! Why a process is not traced.

use std::path::PathBuf;

use thiserror::Error;

use crate::{
    bpf::{AttachError, LoadError, TargetError},
    target::{
        Process, ProcessError,
        seccomp::{self, ReturnProbes},
    },
};

/// Why a process is not traced.
#[derive(Debug, Error)]
pub enum TraceError {
    /// The process itself.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// The kernel side.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// A probe was refused.
    #[error(transparent)]
    Attach(#[from] AttachError),
    /// Mappings cannot be followed.
    #[error("failed to follow mappings")]
    Mappings(#[source] std::io::Error),
    /// The kernel side cannot take it in.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// This host cannot trace.
    #[error("this host cannot trace: {reason}")]
    Host {
        /// What is missing, and the remedy.
        reason: String,
    },
    /// It is gone; what failed failed for that.
    #[error("pid {pid} ({comm}) ended while it was being attached to")]
    Ended {
        /// The process.
        pid: u32,
        /// Its name.
        comm: String,
    },
    /// A return probe would kill the target.
    #[error("refused to trace pid {pid} ({comm}): {reason}")]
    Unsafe {
        /// The process.
        pid: u32,
        /// Its name.
        comm: String,
        /// What would happen, and what to do.
        reason: String,
    },
    /// Return probes that reach everyone would kill others.
    #[error(
        "refused to probe files for everyone: kernel {kernel} kills processes with a seccomp filter at the first return \
         probe ({}; trace processes by --pid)",
        seccomp::FIX_TEXT
    )]
    EveryoneUnsafe {
        /// Its version.
        kernel: String,
    },
    /// There was nothing to trace.
    #[error("no process of {scope} was met")]
    NoProcess {
        /// What was asked for.
        scope: String,
    },
    /// An allocator that the user described is not there.
    #[error("failed to find the allocator described: {reason}")]
    Allocator {
        /// What is not there, and what is.
        reason: String,
    },
    /// No module defines an allocator that is known.
    #[error(
        "pid {pid} ({comm}): no allocator found; looked for malloc and its family in the symbols of {looked_at}{hint}"
    )]
    NoAllocator {
        /// The process.
        pid: u32,
        /// Its name.
        comm: String,
        /// The modules.
        looked_at: String,
        /// What is special about it.
        hint: String,
    },
}

/// What failed for a process that has ended meanwhile failed for that.
pub(super) fn ended_or(process: &Process, error: TraceError) -> TraceError {
    if process.is_running() {
        return error;
    }
    log::debug!("{error}");
    TraceError::Ended { pid: process.pid, comm: process.comm.clone() }
}

/// Refuses a target that a return probe would kill.
pub(super) fn check_return_probes(process: &Process) -> Result<(), TraceError> {
    let path = PathBuf::from(format!("/proc/{}/task", process.pid));
    match seccomp::read(process.pid).map_err(|source| ProcessError::Read { path, source })? {
        ReturnProbes::Safe => Ok(()),
        ReturnProbes::Killed { reason } => {
            Err(TraceError::Unsafe { pid: process.pid, comm: process.comm.clone(), reason })
        }
    }
}
