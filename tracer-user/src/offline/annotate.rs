//! `annotate`: a source file with the memory of each line beside it.

use std::path::PathBuf;

use crate::{options::ReportOptions, recording::Reference};

/// `annotate REC[@SNAPSHOT] SOURCE`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AnnotateOptions {
    /// The snapshot.
    pub reference: Reference,
    /// The source file.
    pub source: PathBuf,
    /// What the report shows.
    pub report: ReportOptions,
}

/// Runs the command; the exit status.
///
/// # Errors
/// A recording cannot be read, or the output not written.
pub fn annotate(options: &AnnotateOptions) -> anyhow::Result<u8> {
    anyhow::bail!("`annotate` is not there yet: {options:?}")
}
