//! `report`: which line holds the memory at one snapshot.

use std::path::Path;

use super::{
    open::open,
    output::{check_writable, print, write},
    select::{find, select, title, within_limits},
};
use crate::{
    analysis::statistics::statistics,
    options::{JsonTarget, ReportOptions},
    recording::{Recording, Reference, Which},
    report::{json, snapshots, text},
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
    /// The snapshots that there are, in place of a report.
    pub list: bool,
}

/// Runs the command; the exit status.
///
/// # Errors
/// A recording cannot be read, filters leave nothing, or the output cannot be written.
pub fn report(options: &RecordingReportOptions) -> anyhow::Result<u8> {
    let path = &options.reference.path;
    check_writable(options.json.as_ref(), &[path])?;
    let attribution = Attribution::new(&options.report.plumbing, options.report.raw_leaf)?;
    let recording = open(path)?;
    if options.list {
        print(&snapshots::render(&recording))?;
        return Ok(0);
    }
    let which = find(&recording, path, options.reference.snapshot.as_deref())?;
    let mut snapshot = select(&recording, which, &attribution, &options.report)?.non_empty()?.snapshot;
    snapshot.notes.insert(0, told(path, &recording, which));
    let lines = statistics(&snapshot, &recording.names, &attribution, &options.report);
    within_limits(lines.shown().next().is_some(), lines.left_out.n_lines, &options.report)?;
    write(
        options.json.as_ref(),
        || text::render(&snapshot, &lines, &options.report, false),
        || json::render(&snapshot, &lines),
    )?;
    Ok(0)
}

/// What the report is about, for its first note.
fn told(path: &Path, recording: &Recording, which: Which) -> String {
    let list = match recording.snapshots.len() {
        1 => String::new(),
        n => format!("; --list shows all {n}"),
    };
    format!("{} @{}{list}", path.display(), title(recording, which))
}
