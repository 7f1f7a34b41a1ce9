//! Arguments of `report`.

use std::{ffi::OsString, path::PathBuf};

use clap::Args;
use tracer_user::{offline::RecordingReportOptions, recording::Reference};

use super::args::json_target;
use super::view::ViewArgs;

/// What `report` takes.
#[derive(Debug, Args)]
pub(super) struct ReportArgs {
    /// Recording, and the snapshot by label, number, start, end or peak (see --list) [default: end]
    #[arg(value_name = "REC[@SNAPSHOT]")]
    reference: OsString,
    #[command(flatten)]
    view: ViewArgs,
    /// Write the report as JSON to FILE, or to standard output in place of the text (-)
    #[arg(long, value_name = "FILE|-")]
    json: Option<PathBuf>,
    /// List the recording's snapshots (number, name, trigger, time, totals) in place of a report
    #[arg(long, conflicts_with = "json")]
    list: bool,
}

impl ReportArgs {
    /// The validated options.
    pub(super) fn validated(self) -> RecordingReportOptions {
        RecordingReportOptions {
            reference: Reference::parse(&self.reference),
            report: self.view.validated(),
            json: self.json.map(json_target),
            list: self.list,
        }
    }
}
