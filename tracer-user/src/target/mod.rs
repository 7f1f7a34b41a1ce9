//! The target: what `/proc` tells of a process, its mappings and the files behind them; and the host it runs on.

pub mod data_segment;
pub mod host;
pub mod kernel;
pub mod maps;
pub mod memory;
pub mod modules;
pub mod process;
pub mod seccomp;

pub use modules::{LoadedModule, Modules};
pub use process::{Process, ProcessError};
