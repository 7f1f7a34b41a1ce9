//! `check`: the CI gate: budgets and baselines.

use crate::{options::ReportOptions, recording::Reference};

/// `check REC`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckOptions {
    /// The snapshot.
    pub reference: Reference,
    /// How sites are told.
    pub report: ReportOptions,
}

/// Runs the command; the exit status.
///
/// # Errors
/// A recording cannot be read, or the output not written.
pub fn check(options: &CheckOptions) -> anyhow::Result<u8> {
    anyhow::bail!("`check` is not there yet: {options:?}")
}
