//! `export`: a recording in the form of other tools.

use std::path::PathBuf;

use crate::{options::ReportOptions, recording::Reference};

/// `export REC[@SNAPSHOT] -f FORMAT -o FILE`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExportOptions {
    /// The snapshot.
    pub reference: Reference,
    /// The older snapshot of a differential flame graph.
    pub base: Option<Reference>,
    /// The form.
    pub format: String,
    /// Where it goes; `-`: standard output.
    pub output: PathBuf,
    /// What is left out, and which totals are exported.
    pub report: ReportOptions,
}

/// Runs the command; the exit status.
///
/// # Errors
/// A recording cannot be read, or the output not written.
pub fn export(options: &ExportOptions) -> anyhow::Result<u8> {
    anyhow::bail!("`export` is not there yet: {options:?}")
}
