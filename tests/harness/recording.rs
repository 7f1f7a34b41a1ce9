//! Recordings that a session left.

use std::path::Path;

use anyhow::{Context as _, Result};
use tracer_user::recording::Recording;

/// Opens a recording.
pub fn recording(path: &Path) -> Result<Recording> {
    Recording::read(path).with_context(|| format!("`{}` is no recording", path.display()))
}

/// What its snapshots are called, in their order: trigger, and label where there is one.
pub fn names_of_snapshots(recording: &Recording) -> Vec<String> {
    let named = recording.snapshots.iter().map(|info| match &info.meta.label {
        Some(label) => format!("{} {label}", info.meta.trigger.name()),
        None => info.meta.trigger.name().to_owned(),
    });
    named.collect()
}
