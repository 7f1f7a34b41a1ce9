//! An initramfs: files collected by where they shall lie, written as a cpio archive.
//!
//! Format: "newc" of Documentation/driver-api/early-userspace/buffer-format.rst; the kernel takes it uncompressed.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};

use crate::exec::{clean, output};

/// The end of the archive.
const TRAILER: &str = "TRAILER!!!";
const FILE: u32 = 0o100_000;
const FOLDER: u32 = 0o040_755;

/// What the initramfs will hold; paths are relative to its root.
#[derive(Default)]
pub struct Initrd {
    entries: BTreeMap<PathBuf, (u32, Vec<u8>)>,
}

impl Initrd {
    /// An empty folder, with the folders above it.
    pub fn folder(&mut self, path: impl AsRef<Path>) {
        for dir in path.as_ref().ancestors().filter(|dir| !dir.as_os_str().is_empty()) {
            self.entries.entry(dir.to_path_buf()).or_insert((FOLDER, Vec::new()));
        }
    }

    /// A file from its content.
    pub fn file(&mut self, path: impl AsRef<Path>, mode: u32, content: Vec<u8>) {
        if let Some(dir) = path.as_ref().parent() {
            self.folder(dir);
        }
        self.entries.insert(path.as_ref().to_path_buf(), (FILE | mode, content));
    }

    /// A file of this machine.
    pub fn copy(&mut self, from: &Path, to: impl AsRef<Path>) -> Result<()> {
        let content = fs::read(from).with_context(|| format!("failed to read `{}`", from.display()))?;
        let mode = fs::metadata(from)?.permissions().mode() & 0o777;
        self.file(to, mode, content);
        Ok(())
    }

    /// An executable of this machine, with the loader and the libraries that it needs at the places where it looks.
    pub fn program(&mut self, from: &Path, to: impl AsRef<Path>) -> Result<()> {
        self.copy(from, to)?;
        // A static executable makes ldd fail: nothing to add.
        let libraries = output(clean("ldd").arg(from)).unwrap_or_default();
        for path in libraries.split_whitespace().filter(|word| word.starts_with('/')).map(Path::new) {
            let inside = path.strip_prefix("/").expect("starts with a slash");
            self.copy(path, inside)?;
        }
        Ok(())
    }

    /// The archive.
    pub fn to_cpio(&self) -> Vec<u8> {
        let mut out = Vec::new();
        for (inode, (path, (mode, content))) in (1..).zip(&self.entries) {
            entry(&mut out, inode, *mode, path.to_str().expect("our own names are UTF-8"), content);
        }
        entry(&mut out, 0, 0, TRAILER, &[]);
        out
    }
}

fn entry(out: &mut Vec<u8>, inode: u32, mode: u32, name: &str, content: &[u8]) {
    let n_links = if mode == FOLDER { 2 } else { 1 };
    out.extend_from_slice(b"070701");
    // ino mode uid gid nlink mtime filesize devmajor devminor rdevmajor rdevminor namesize check
    let size = u32::try_from(content.len()).expect("the format is of 32 bits");
    for field in [inode, mode, 0, 0, n_links, 0, size, 0, 0, 0, 0, name.len() as u32 + 1, 0] {
        out.extend_from_slice(format!("{field:08x}").as_bytes());
    }
    out.extend_from_slice(name.as_bytes());
    out.push(0);
    pad(out);
    out.extend_from_slice(content);
    pad(out);
}

/// Header with name, and content, each end at a multiple of four.
fn pad(out: &mut Vec<u8>) {
    out.resize(out.len().next_multiple_of(4), 0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn archive_has_aligned_entries_and_a_trailer() {
        let mut initrd = Initrd::default();
        initrd.file("bin/x", 0o755, b"12345".to_vec());
        let cpio = initrd.to_cpio();
        assert_eq!(cpio.len() % 4, 0);
        let text = String::from_utf8_lossy(&cpio);
        let names: Vec<usize> =
            ["bin\0", "bin/x\0", "TRAILER!!!\0"].iter().filter_map(|name| text.find(name)).collect();
        assert_eq!(names.len(), 3, "all entries are there");
        assert!(names.is_sorted(), "folders come before what lies in them");
        assert!(names.iter().all(|at| (at - 110) % 4 == 0), "a header of 110 bytes starts at a multiple of four");
    }
}
