//! Arguments of `growth`.

use std::path::PathBuf;

use clap::Args;
use tracer_user::offline::GrowthOptions;

use super::view::ViewArgs;

/// What `growth` takes.
#[derive(Debug, Args)]
pub(super) struct GrowthArgs {
    /// The recording.
    #[arg(value_name = "REC")]
    path: PathBuf,
    #[command(flatten)]
    view: ViewArgs,
    /// Live bytes by age of the block instead.
    #[arg(long)]
    age: bool,
}

impl GrowthArgs {
    /// The validated options.
    pub(super) fn validated(self) -> GrowthOptions {
        GrowthOptions { path: self.path, report: self.view.validated(), age: self.age }
    }
}
