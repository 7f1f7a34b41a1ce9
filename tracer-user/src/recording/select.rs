//! `REC[@SNAPSHOT]`: which snapshot of which file.

use std::path::PathBuf;

use thiserror::Error;

use super::model::{Recording, SnapshotInfo, Trigger, Which};

/// A recording and one of its snapshots, as the user named them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference {
    /// The file.
    pub path: PathBuf,
    /// What follows the last `@`.
    pub snapshot: Option<String>,
}

/// Why a recording has no such snapshot.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum SelectError {
    /// No snapshot at all.
    #[error("the recording holds no snapshot")]
    Empty,
    /// None of that name.
    #[error("no snapshot `{wanted}` (known: {known})")]
    Unknown {
        /// What was asked for.
        wanted: String,
        /// What there is.
        known: String,
    },
}

impl Reference {
    /// `file.mtb`, `file.mtb@3`, `file.mtb@label`. A file whose whole name exists is that file, `@` or not.
    pub fn parse(text: &std::ffi::OsStr) -> Self {
        use std::os::unix::ffi::OsStrExt as _;
        let whole = || Self { path: PathBuf::from(text), snapshot: None };
        let bytes = text.as_bytes();
        let Some(at) = bytes.iter().rposition(|byte| *byte == b'@') else { return whole() };
        let Ok(snapshot) = std::str::from_utf8(&bytes[at + 1..]) else { return whole() };
        if PathBuf::from(text).exists() {
            return whole();
        }
        Self { path: PathBuf::from(std::ffi::OsStr::from_bytes(&bytes[..at])), snapshot: Some(snapshot.to_owned()) }
    }
}

impl Reference {
    /// Whether this stands for a snapshot in every recording, so that none can be labelled with it.
    pub fn is_reserved(snapshot: &str) -> bool {
        matches!(snapshot, "start" | "end" | "peak") || snapshot.parse::<usize>().is_ok()
    }
}

impl Recording {
    /// Finds a snapshot by `start` (the first), `end` (the last), `peak`, its number as listed (from 0), or its label; of equal
    /// labels the last. `None` is the last snapshot.
    ///
    /// # Errors
    /// There is none of that name; the known ones are listed.
    pub fn find(&self, wanted: Option<&str>) -> Result<Which, SelectError> {
        let last = self.snapshots.len().checked_sub(1).ok_or(SelectError::Empty)?;
        let Some(wanted) = wanted else { return Ok(Which::Index(last)) };
        match wanted {
            "start" => return Ok(Which::Index(0)),
            "end" => return Ok(Which::Index(last)),
            "peak" => return Ok(Which::Peak),
            _ => {}
        }
        let labelled = |info: &SnapshotInfo| info.meta.label.as_deref() == Some(wanted);
        match wanted.parse::<usize>() {
            Ok(index) if index <= last => Ok(Which::Index(index)),
            _ => self
                .snapshots
                .iter()
                .rposition(labelled)
                .map(Which::Index)
                .ok_or_else(|| SelectError::Unknown { wanted: wanted.to_owned(), known: self.known_snapshots() }),
        }
    }

    /// The snapshots in one line: `0 start, 1 interval, 2 "after warm-up", 3 end, peak`.
    fn known_snapshots(&self) -> String {
        const MAX_LISTED: usize = 20;
        let mut known: Vec<String> = self
            .snapshots
            .iter()
            .enumerate()
            .take(MAX_LISTED)
            .map(|(index, info)| match &info.meta.label {
                Some(label) => format!("{index} \"{label}\""),
                None if info.meta.trigger == Trigger::Interval => index.to_string(),
                None => format!("{index} {}", info.name()),
            })
            .collect();
        if self.snapshots.len() > MAX_LISTED {
            known.push(format!("… {}", self.snapshots.len() - 1));
        }
        known.push("peak".to_owned());
        known.join(", ")
    }
}
