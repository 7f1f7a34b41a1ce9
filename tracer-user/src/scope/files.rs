//! Files whose size others decide: read up to a cap.

use std::{
    fs::File,
    io::{self, Read as _},
    path::Path,
};

/// The whole file, if it has at most `cap` bytes.
///
/// # Errors
/// It cannot be read, or is larger (`FileTooLarge`).
pub fn read(path: &Path, cap: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(cap + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > cap {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("larger than {cap} bytes")));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_without_end_is_refused() {
        assert_eq!(read(Path::new("/dev/zero"), 10).expect_err("too large").kind(), io::ErrorKind::FileTooLarge);
        assert_eq!(read(Path::new("/dev/null"), 0).expect("empty"), b"");
    }
}
