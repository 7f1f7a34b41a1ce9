//! Snapshot and statistics → bytes. Opens nothing, asks no clock.

mod bar;
pub(crate) mod format;

pub mod export;
pub use format::escaped;
pub mod annotate;
pub mod check;
pub mod diff;
pub mod diff_json;
pub mod growth;
pub mod growth_json;
pub mod json;
pub mod owner;
mod processes;
mod processes_json;
pub mod snapshots;
pub mod text;
pub mod verdict;
