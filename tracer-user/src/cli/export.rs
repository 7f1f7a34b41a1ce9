//! Arguments of `export`.

use std::{ffi::OsString, path::PathBuf};

use clap::Args;
use tracer_user::{offline::ExportOptions, recording::Reference};

use super::view::ViewArgs;

/// What `export` takes.
#[derive(Debug, Args)]
pub(super) struct ExportArgs {
    /// Recording, and the snapshot by label, number, start, end or peak [default: end]
    #[arg(value_name = "REC[@SNAPSHOT]")]
    reference: OsString,
    /// The older snapshot of a differential flame graph.
    #[arg(long, value_name = "REC[@SNAPSHOT]")]
    base: Option<OsString>,
    /// The form.
    #[arg(long, short)]
    format: String,
    /// Where it goes; `-`: standard output.
    #[arg(long, short, value_name = "FILE|-")]
    output: PathBuf,
    #[command(flatten)]
    view: ViewArgs,
}

impl ExportArgs {
    /// The validated options.
    pub(super) fn validated(self) -> ExportOptions {
        ExportOptions {
            reference: Reference::parse(&self.reference),
            base: self.base.map(|text| Reference::parse(&text)),
            format: self.format,
            output: self.output,
            report: self.view.validated(),
        }
    }
}
