//! The target: what `/proc` tells of a process, its mappings and the files behind them; and the host it runs on.

pub mod capabilities;
pub mod data_segment;
pub mod files;
pub mod host;
pub mod kernel;
pub mod mappings;
pub mod maps;
pub mod memory;
pub mod process;
pub mod root;
pub mod seccomp;

pub use capabilities::Capabilities;
pub use files::{Files, LoadedModule};
pub use mappings::{Found, Mappings};
pub use process::{Process, ProcessError};
pub use root::Root;
