//! Arguments of `verdict`.

use std::ffi::OsString;

use clap::Args;
use tracer_user::{offline::VerdictOptions, recording::Reference};

/// What `verdict` takes.
#[derive(Debug, Args)]
pub(super) struct VerdictArgs {
    /// Recording, and the snapshot by label, number, start, end or peak [default: end]
    #[arg(value_name = "REC[@SNAPSHOT]")]
    reference: OsString,
}

impl VerdictArgs {
    /// The validated options.
    pub(super) fn validated(self) -> VerdictOptions {
        VerdictOptions { reference: Reference::parse(&self.reference) }
    }
}
