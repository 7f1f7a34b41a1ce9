//! Snapshot and statistics → bytes. Opens nothing, asks no clock.

mod format;

pub use format::escaped;
pub mod check;
pub mod json;
pub mod text;
