//! The target: what `/proc` tells of a process, its mappings and the files behind them.

pub mod maps;
pub mod modules;
pub mod process;

pub use modules::{LoadedModule, Modules};
pub use process::{Process, ProcessError};
