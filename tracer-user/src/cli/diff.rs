//! Arguments of `diff`.

use std::ffi::OsString;

use clap::Args;
use tracer_user::{offline::DiffOptions, recording::Reference};

use super::view::ViewArgs;

/// What `diff` takes.
#[derive(Debug, Args)]
pub(super) struct DiffArgs {
    /// The recording and the older snapshot
    #[arg(value_name = "A[@SNAPSHOT]")]
    old: OsString,
    /// The newer snapshot [default: the last of A, compared with the first]
    #[arg(value_name = "B[@SNAPSHOT]")]
    new: Option<OsString>,
    #[command(flatten)]
    view: ViewArgs,
}

impl DiffArgs {
    /// The validated options.
    pub(super) fn validated(self) -> DiffOptions {
        DiffOptions {
            old: Reference::parse(&self.old),
            new: self.new.map(|text| Reference::parse(&text)),
            report: self.view.validated(),
        }
    }
}
