//! Snapshot and statistics → bytes. Opens nothing, asks no clock.

mod format;

pub mod export;
pub use format::escaped;
pub mod json;
pub mod text;
