//! `diff`: what changed between two snapshots, as tracemalloc's `compare_to`.

use crate::{options::ReportOptions, recording::Reference};

/// `diff A[@S] [B[@S]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiffOptions {
    /// The older snapshot.
    pub old: Reference,
    /// The newer one; `None`: first against last of `old`.
    pub new: Option<Reference>,
    /// What the report shows.
    pub report: ReportOptions,
}

/// Runs the command; the exit status.
///
/// # Errors
/// A recording cannot be read, or the output not written.
pub fn diff(options: &DiffOptions) -> anyhow::Result<u8> {
    anyhow::bail!("`diff` is not there yet: {options:?}")
}
