//! The memory of each line of one source file.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsStr,
    path::{Component, Path, PathBuf},
};

use thiserror::Error;

use super::statistics::statistics;
use crate::{
    options::{Key, ReportOptions},
    snapshot::{Snapshot, Totals},
    symbolize::{Attribution, Names},
};

/// Most files named in a message.
const MAX_NAMED: usize = 5;

/// The lines of one file of the debug information.
#[derive(Clone, Debug)]
pub struct Annotation {
    /// The file, as the debug information spells it; hostile input.
    pub file: PathBuf,
    /// Lines that hold or held memory, by number; 0: the file is known, the line is not.
    pub lines: BTreeMap<u32, LineMemory>,
    /// What [`LineMemory::increment_bytes`] is.
    pub increment: Increment,
    /// Every frame of a stack counts, not only its site.
    pub cumulative: bool,
}

/// The memory of one line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LineMemory {
    /// Its totals at the snapshot.
    pub totals: Totals,
    /// As [`Annotation::increment`] says.
    pub increment_bytes: i128,
}

/// What an increment is measured against.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Increment {
    /// Live bytes less those at the first snapshot.
    SinceFirst,
    /// There is nothing before the snapshot: bytes ever allocated.
    Allocated,
}

/// No file can be told.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum NoFile {
    /// No frame lies in such a file.
    #[error("no frame lies in it ({})", near(.0))]
    Unknown(Vec<PathBuf>),
    /// Several files end alike.
    #[error("several files end like it: {} (give one of these paths with --as)", listed(.0))]
    Ambiguous(Vec<PathBuf>),
}

fn near(files: &[PathBuf]) -> String {
    if files.is_empty() { "no frame has line information".to_owned() } else { format!("near: {}", listed(files)) }
}

fn listed(files: &[PathBuf]) -> String {
    let mut named: Vec<String> = files.iter().take(MAX_NAMED).map(|file| file.display().to_string()).collect();
    if files.len() > MAX_NAMED {
        named.push(format!("… {} more", files.len() - MAX_NAMED));
    }
    named.join(", ")
}

/// Finds `source` among the files of the snapshot's frames: the very path, else the longest common end, in components.
///
/// # Errors
/// No file is called so, or several end alike.
pub fn find_file(snapshot: &Snapshot, names: &Names, source: &Path) -> Result<PathBuf, NoFile> {
    let files: BTreeSet<&Path> = snapshot
        .stacks
        .iter()
        .flat_map(|stack| &stack.stack.frames)
        .flat_map(|frame| names.of(frame).iter())
        .filter_map(|name| name.file.as_deref())
        .collect();
    if let Some(same) = files.get(source) {
        return Ok(same.to_path_buf());
    }
    let wanted = components(source);
    let longest = files.iter().map(|file| common_end(&wanted, &components(file))).max().unwrap_or(0);
    if longest == 0 {
        return Err(NoFile::Unknown(nearest(&files, source)));
    }
    let best: Vec<PathBuf> = files
        .iter()
        .filter(|file| common_end(&wanted, &components(file)) == longest)
        .map(|file| file.to_path_buf())
        .collect();
    match <[PathBuf; 1]>::try_from(best) {
        Ok([one]) => Ok(one),
        Err(several) => Err(NoFile::Ambiguous(several)),
    }
}

/// A path's names, the last first.
pub(super) fn components(path: &Path) -> Vec<&OsStr> {
    path.components()
        .rev()
        .filter_map(|part| if let Component::Normal(name) = part { Some(name) } else { None })
        .collect()
}

/// Number of last components that are equal.
fn common_end(a: &[&OsStr], b: &[&OsStr]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

/// The files whose names begin most alike.
fn nearest(files: &BTreeSet<&Path>, source: &Path) -> Vec<PathBuf> {
    let name = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
    let wanted = name(source);
    let likeness = |path: &Path| name(path).chars().zip(wanted.chars()).take_while(|(a, b)| a == b).count();
    let mut files: Vec<&Path> = files.iter().copied().collect();
    files.sort_by_key(|file| std::cmp::Reverse(likeness(file)));
    files.into_iter().map(Path::to_path_buf).collect()
}

/// The memory of each line of `file` at `snapshot`; increments against `first`, the recording's first snapshot, if that is
/// another.
pub fn annotate(
    file: &Path,
    snapshot: &Snapshot,
    first: Option<&Snapshot>,
    names: &Names,
    attribution: &Attribution,
    options: &ReportOptions,
) -> Annotation {
    let by_line = |snapshot| lines_of(file, snapshot, names, attribution, options);
    let mut lines: BTreeMap<u32, LineMemory> = BTreeMap::new();
    for (line, totals) in by_line(snapshot) {
        let increment_bytes = match first {
            Some(_) => i128::from(totals.current_bytes),
            None => i128::from(totals.allocated_bytes),
        };
        lines.insert(line, LineMemory { totals, increment_bytes });
    }
    for (line, totals) in first.map(by_line).into_iter().flatten() {
        lines.entry(line).or_default().increment_bytes -= i128::from(totals.current_bytes);
    }
    Annotation {
        file: file.to_path_buf(),
        lines,
        increment: if first.is_some() { Increment::SinceFirst } else { Increment::Allocated },
        cumulative: options.cumulative,
    }
}

fn lines_of(
    file: &Path,
    snapshot: &Snapshot,
    names: &Names,
    attribution: &Attribution,
    options: &ReportOptions,
) -> Vec<(u32, Totals)> {
    let by_line = ReportOptions { key: Key::Lineno, min_size: 0, ..options.clone() };
    let found = statistics(snapshot, names, attribution, &by_line);
    let of_file = found.lines.iter().filter_map(|line| {
        let name = line.site?.name;
        (name.file.as_deref() == Some(file)).then_some((name.line.unwrap_or(0), line.totals))
    });
    of_file.collect()
}
