//! `growth`: which sites grow steadily: leak suspects.

use std::path::PathBuf;

use crate::options::ReportOptions;

/// `growth REC`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GrowthOptions {
    /// The recording.
    pub path: PathBuf,
    /// What the report shows.
    pub report: ReportOptions,
    /// Live bytes by age of the block instead.
    pub age: bool,
}

/// Runs the command; the exit status.
///
/// # Errors
/// A recording cannot be read, or the output not written.
pub fn growth(options: &GrowthOptions) -> anyhow::Result<u8> {
    anyhow::bail!("`growth` is not there yet: {options:?}")
}
