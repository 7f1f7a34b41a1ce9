//! Where a command's report goes.

use std::{
    fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail, ensure};

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

/// A file that a command reads or writes, with what the user calls it: `--json`, `the recording`.
pub type NamedFile<'a> = (&'a str, &'a Path);

/// Holds that nothing is written over what is read, or by two.
///
/// # Errors
/// A file that is to be written is one of the others.
pub fn check_distinct(read: &[NamedFile<'_>], written: &[NamedFile<'_>]) -> anyhow::Result<()> {
    for (at, (what, path)) in written.iter().enumerate() {
        let mut others = read.iter().chain(&written[..at]);
        if let Some((other, _)) = others.find(|(_, other)| is_same_file(path, other)) {
            bail!("failed to write `{}`: {what} and {other} are one file", path.display());
        }
    }
    Ok(())
}

/// Whether both are one file, by whatever name or link, that there is or that would be made. What devices and pipes are given is
/// no file.
pub(super) fn is_same_file(one: &Path, other: &Path) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    let identity = |path: &Path| {
        let metadata = fs::metadata(path).ok()?;
        Some((metadata.is_file(), metadata.dev(), metadata.ino()))
    };
    match (identity(one), identity(other)) {
        (Some(one), Some(other)) => one.0 && one == other,
        (None, None) => matches!((place(one), place(other)), (Some(one), Some(other)) if one == other),
        _ => false,
    }
}

/// Where a file that is not there yet would lie.
fn place(path: &Path) -> Option<PathBuf> {
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    Some(fs::canonicalize(dir).ok()?.join(path.file_name()?))
}
