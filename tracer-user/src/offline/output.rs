//! Where a command's report goes.

use std::{
    fs,
    io::{self, Write as _},
    path::Path,
};

use anyhow::{Context as _, ensure};

use crate::options::JsonTarget;

/// Checks that the JSON can be written, before any work is done.
///
/// # Errors
/// Its file cannot be made, or is one of the recordings that the report is about.
pub(super) fn check_writable(json: Option<&JsonTarget>, recordings: &[&Path]) -> anyhow::Result<()> {
    let Some(JsonTarget::File(path)) = json else { return Ok(()) };
    let failed = || format!("failed to open `{}` for the JSON report", path.display());
    ensure!(
        !recordings.iter().any(|recording| is_same_file(recording, path)),
        "{}: it is the recording itself",
        failed()
    );
    fs::OpenOptions::new().create(true).append(true).open(path).map(drop).with_context(failed)
}

/// Writes the text to standard output, the JSON to its file, or the JSON in place of the text.
///
/// # Errors
/// Standard output or the file cannot be written.
pub(super) fn write(
    json: Option<&JsonTarget>,
    make_text: impl FnOnce() -> String,
    make_json: impl FnOnce() -> String,
) -> anyhow::Result<()> {
    match json {
        Some(JsonTarget::Stdout) => return print(&make_json()),
        Some(JsonTarget::File(path)) => write_file(path, &make_json())?,
        None => {}
    }
    print(&make_text())
}

fn write_file(path: &Path, text: &str) -> anyhow::Result<()> {
    fs::write(path, text).with_context(|| format!("failed to write `{}`", path.display()))
}

/// Writes to standard output; a reader that has gone away is no error.
pub(super) fn print(text: &str) -> anyhow::Result<()> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error).context("failed to write the report"),
        _ => Ok(()),
    }
}

/// Whether both are one file, by whatever name or link.
pub(super) fn is_same_file(one: &Path, other: &Path) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    let identity = |path: &Path| fs::metadata(path).map(|metadata| (metadata.dev(), metadata.ino()));
    matches!((identity(one), identity(other)), (Ok(one), Ok(other)) if one == other)
}
