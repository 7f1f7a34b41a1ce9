//! Gives a recording's file other names.

use std::{
    fs,
    io::{self, BufReader, Write as _},
    path::Path,
};

use tempfile::NamedTempFile;

use super::{
    chunk::{self, Chunks, Kind, Stop},
    names,
    packed::Packed,
    read::{ReadError, check_header, open_regular},
    wire::Budget,
};
use crate::symbolize::Names;

/// Replaces the names in the file at `path`. Everything else stays as it is, to the byte; the new file takes the place of the
/// old one when it is whole.
///
/// # Errors
/// The file cannot be read, is damaged or being recorded to, or the new one cannot be written beside it.
pub fn rewrite_names(path: &Path, names: &Names) -> Result<(), ReadError> {
    let path = fs::canonicalize(path)?;
    let file = open_regular(&path)?;
    let metadata = file.metadata()?;
    if let Err(fs::TryLockError::WouldBlock) = file.try_lock() {
        return Err(io::Error::other("it is still being recorded").into());
    }
    let dir = path.parent().expect("a canonical path to a file has a parent");
    let mut new = NamedTempFile::new_in(dir)?;

    let mut file = BufReader::new(file);
    let version = check_header(&mut file, metadata.len())?;
    new.write_all(&chunk::header(version))?;
    let mut chunks = Chunks::new(file, metadata.len());
    let budget = Budget::unlimited();
    let mut has_end = false;
    loop {
        match chunks.next(&budget) {
            Ok(None) | Err(Stop::Cut(_)) => break,
            Ok(Some((Kind::NAMES, _))) => {}
            Ok(Some((Kind::END, _))) => has_end = true,
            Ok(Some((kind, packed))) => write(&mut new, kind, &packed)?,
            Err(Stop::Damaged(at, why)) => return Err(ReadError::DamagedAt { at, why }),
            Err(Stop::Io(error)) => return Err(error.into()),
        }
    }
    write(&mut new, Kind::NAMES, &Packed::new(&names::put(names).0))?;
    if has_end {
        write(&mut new, Kind::END, &Packed::default())?;
    }
    new.as_file().set_permissions(metadata.permissions())?;
    new.as_file().sync_all()?;
    new.persist(&path).map_err(|error| error.error)?;
    Ok(())
}

fn write(file: &mut NamedTempFile, kind: Kind, packed: &Packed) -> io::Result<()> {
    let mut bytes = Vec::new();
    chunk::append(&mut bytes, kind, packed);
    file.write_all(&bytes)
}
