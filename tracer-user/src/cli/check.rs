//! Arguments of `check`.

use std::ffi::OsString;

use clap::Args;
use tracer_user::{offline::CheckOptions, recording::Reference};

use super::view::ViewArgs;

/// What `check` takes.
#[derive(Debug, Args)]
pub(super) struct CheckArgs {
    /// Recording, and the snapshot by label, number, start, end or peak [default: end]
    #[arg(value_name = "REC[@SNAPSHOT]")]
    reference: OsString,
    #[command(flatten)]
    view: ViewArgs,
}

impl CheckArgs {
    /// The validated options.
    pub(super) fn validated(self) -> CheckOptions {
        CheckOptions { reference: Reference::parse(&self.reference), report: self.view.validated() }
    }
}
