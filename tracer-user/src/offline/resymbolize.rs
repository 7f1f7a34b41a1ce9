//! `resymbolize`: names looked up again, with more debug files.

use std::path::PathBuf;

/// `resymbolize REC --debug-dir DIR`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResymbolizeOptions {
    /// The recording.
    pub path: PathBuf,
    /// Roots of debug files.
    pub debug_dirs: Vec<PathBuf>,
}

/// Runs the command; the exit status.
///
/// # Errors
/// A recording cannot be read, or the output not written.
pub fn resymbolize(options: &ResymbolizeOptions) -> anyhow::Result<u8> {
    anyhow::bail!("`resymbolize` is not there yet: {options:?}")
}
