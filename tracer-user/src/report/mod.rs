//! Snapshot and statistics → bytes. Opens nothing, asks no clock.

mod format;
pub mod json;
pub mod text;
