//! `report`: which line holds the memory at one snapshot.

use std::io::{self, Write as _};

use super::open::open;
use crate::{
    analysis::statistics::statistics,
    options::{JsonTarget, ReportOptions},
    recording::Reference,
    report::text,
    symbolize::Attribution,
};

/// `report REC[@SNAPSHOT]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordingReportOptions {
    /// The snapshot.
    pub reference: Reference,
    /// What the report shows.
    pub report: ReportOptions,
    /// The report as JSON.
    pub json: Option<JsonTarget>,
}

/// Runs the command; the exit status.
///
/// # Errors
/// A recording cannot be read, or the output not written.
pub fn report(options: &RecordingReportOptions) -> anyhow::Result<u8> {
    let recording = open(&options.reference.path)?;
    let snapshot = recording.snapshot(recording.find(options.reference.snapshot.as_deref())?);
    let attribution = Attribution::new(&options.report.plumbing, options.report.raw_leaf)?;
    let lines = statistics(&snapshot, &recording.names, &attribution, &options.report);
    io::stdout().write_all(text::render(&snapshot, &lines, &options.report, false).as_bytes())?;
    Ok(0)
}
