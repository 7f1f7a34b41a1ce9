//! The traced process and the host it runs on.

pub mod host;
pub mod kernel;
pub mod seccomp;
