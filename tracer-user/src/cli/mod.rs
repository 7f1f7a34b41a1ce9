//! The command line: arguments → options. The only importer of clap.

mod args;

pub use args::{Action, Target, parse};
