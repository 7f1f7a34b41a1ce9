//! `verdict`: leak or fragmentation: live bytes against resident memory.

use crate::recording::Reference;

/// `verdict REC[@SNAPSHOT]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerdictOptions {
    /// The snapshot.
    pub reference: Reference,
}

/// Runs the command; the exit status.
///
/// # Errors
/// A recording cannot be read, or the output not written.
pub fn verdict(options: &VerdictOptions) -> anyhow::Result<u8> {
    anyhow::bail!("`verdict` is not there yet: {options:?}")
}
