//! Arguments of `resymbolize`.

use std::path::PathBuf;

use clap::Args;
use tracer_user::offline::ResymbolizeOptions;

/// What `resymbolize` takes.
#[derive(Debug, Args)]
pub(super) struct ResymbolizeArgs {
    /// The recording.
    #[arg(value_name = "REC")]
    path: PathBuf,
    /// Root of debug files (repeatable)
    #[arg(long = "debug-dir", required = true, value_name = "DIR")]
    debug_dirs: Vec<PathBuf>,
}

impl ResymbolizeArgs {
    /// The validated options.
    pub(super) fn validated(self) -> ResymbolizeOptions {
        ResymbolizeOptions { path: self.path, debug_dirs: self.debug_dirs }
    }
}
