//! Arguments of `annotate`.

use std::{ffi::OsString, path::PathBuf};

use clap::Args;
use tracer_user::{offline::AnnotateOptions, recording::Reference};

use super::view::StackArgs;

/// What `annotate` takes.
#[derive(Debug, Args)]
pub(super) struct AnnotateArgs {
    /// Recording, and the snapshot by label, number, start, end or peak [default: end]
    #[arg(value_name = "REC[@SNAPSHOT]")]
    reference: OsString,
    /// The source file
    #[arg(value_name = "SOURCE")]
    source: PathBuf,
    /// What the debug information calls the source, where its own path does not tell
    #[arg(long = "as", value_name = "PATH")]
    called: Option<PathBuf>,
    /// Print only lines with memory and N lines around them [default: the whole source]
    #[arg(long, value_name = "N")]
    context: Option<usize>,
    #[command(flatten)]
    stacks: StackArgs,
}

impl AnnotateArgs {
    /// The validated options.
    pub(super) fn validated(self) -> AnnotateOptions {
        AnnotateOptions {
            reference: Reference::parse(&self.reference),
            source: self.source,
            called: self.called,
            context: self.context,
            report: self.stacks.validated(),
        }
    }
}
