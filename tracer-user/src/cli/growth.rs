//! Arguments of `growth`.

use std::path::PathBuf;

use clap::Args;
use tracer_user::offline::GrowthOptions;

use super::{
    args::json_target,
    view::{LineArgs, StackArgs},
};

/// What `growth` takes.
#[derive(Debug, Args)]
pub(super) struct GrowthArgs {
    /// The recording
    #[arg(value_name = "REC")]
    path: PathBuf,
    #[command(flatten)]
    lines: LineArgs,
    #[command(flatten)]
    stacks: StackArgs,
    /// Live bytes by the age of their blocks instead, at the last snapshot that has ages
    #[arg(long)]
    age: bool,
    /// Write the result as JSON to FILE, or to standard output in place of the text (-)
    #[arg(long, value_name = "FILE|-")]
    json: Option<PathBuf>,
}

impl GrowthArgs {
    /// The validated options.
    pub(super) fn validated(self) -> GrowthOptions {
        GrowthOptions {
            path: self.path,
            report: self.lines.validated(self.stacks),
            age: self.age,
            json: self.json.map(json_target),
        }
    }
}
