//! Snapshot and statistics → bytes. Opens nothing, asks no clock.

pub(crate) mod format;

pub use format::escaped;
pub mod json;
pub mod text;
