//! Arguments of `diff`.

use std::{ffi::OsString, path::PathBuf};

use clap::Args;
use tracer_user::{offline::DiffOptions, recording::Reference};

use super::{args::json_target, view::ViewArgs};

/// What `diff` takes.
#[derive(Debug, Args)]
pub(super) struct DiffArgs {
    /// Recording and the older snapshot, by label, number, start, end or peak [default: the first, or with B the last]
    #[arg(value_name = "A[@SNAPSHOT]")]
    old: OsString,
    /// The same or another recording, and the newer snapshot [default: A, and its last]
    #[arg(value_name = "B[@SNAPSHOT]")]
    new: Option<OsString>,
    #[command(flatten)]
    view: ViewArgs,
    /// Write the comparison as JSON to FILE, or to standard output in place of the text (-)
    #[arg(long, value_name = "FILE|-")]
    json: Option<PathBuf>,
}

impl DiffArgs {
    /// The validated options.
    pub(super) fn validated(self) -> DiffOptions {
        DiffOptions {
            old: Reference::parse(&self.old),
            new: self.new.map(|text| Reference::parse(&text)),
            report: self.view.validated(),
            json: self.json.map(json_target),
        }
    }
}
