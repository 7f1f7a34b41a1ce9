//! `/proc/PID/maps`, parsed from bytes (paths need not be UTF-8).

use std::{ffi::OsString, os::unix::ffi::OsStringExt as _, path::PathBuf};

use tracer_common::addr::{FileOffset, UserAddr};

/// One line of `/proc/PID/maps` (proc(5)).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MapEntry {
    /// First address.
    pub start: UserAddr,
    /// First address past it.
    pub end: UserAddr,
    /// `rwxp`, a `-` where a right is lacking; `s` in place of `p`: shared.
    pub permissions: [u8; 4],
    /// Whether instructions may be fetched from it.
    pub executable: bool,
    /// Offset in the file.
    pub offset: FileOffset,
    /// Device as `major:minor`.
    pub device: (u32, u32),
    /// Inode; 0 for anonymous memory.
    pub inode: u64,
    /// Path, `[vdso]` and the like, or empty; without ` (deleted)`.
    pub path: PathBuf,
    /// The path ended in ` (deleted)`.
    pub deleted: bool,
}

impl MapEntry {
    /// Whether a file is behind it.
    pub fn is_file(&self) -> bool {
        self.inode != 0
    }
}

/// Parses a whole file; lines that are not of the documented form are left out (a newer kernel's extension must not stop us).
pub fn parse(maps: &[u8]) -> Vec<MapEntry> {
    maps.split(|byte| *byte == b'\n').filter_map(parse_line).collect()
}

/// One line without its end, as it also heads each mapping of `/proc/PID/smaps`.
pub(super) fn parse_line(line: &[u8]) -> Option<MapEntry> {
    // 7f12c000-7f12d000 r-xp 00001000 fe:00 131        /usr/lib/libc.so.6 (deleted)
    let mut rest = line;
    let mut field = || {
        let start = rest.iter().position(|byte| *byte != b' ')?;
        let tail = &rest[start..];
        let end = tail.iter().position(|byte| *byte == b' ').unwrap_or(tail.len());
        rest = &tail[end..];
        std::str::from_utf8(&tail[..end]).ok()
    };
    let (start, end) = field()?.split_once('-')?;
    let permissions: [u8; 4] = field()?.as_bytes().try_into().ok()?;
    let offset = field()?;
    let (major, minor) = field()?.split_once(':')?;
    let inode = field()?.parse().ok()?;
    let path = &rest[rest.iter().position(|byte| *byte != b' ').unwrap_or(rest.len())..];
    let (path, deleted) = match path.strip_suffix(b" (deleted)") {
        Some(path) => (path, true),
        None => (path, false),
    };
    let hex = |text| u64::from_str_radix(text, 16).ok();
    Some(MapEntry {
        start: UserAddr(hex(start)?),
        end: UserAddr(hex(end)?),
        permissions,
        executable: permissions[2] == b'x',
        offset: FileOffset(hex(offset)?),
        device: (u32::from_str_radix(major, 16).ok()?, u32::from_str_radix(minor, 16).ok()?),
        inode,
        path: unescaped(path),
        deleted,
    })
}

/// The kernel writes a newline of a path as `\012`, and nothing else otherwise than it is (`show_map_vma`, fs/proc/task_mmu.c): who
/// has just that in a file's name is misunderstood.
fn unescaped(path: &[u8]) -> PathBuf {
    const NEWLINE: &[u8] = b"\\012";
    let mut out = Vec::with_capacity(path.len());
    let mut rest = path;
    while let Some(at) = rest.windows(NEWLINE.len()).position(|window| window == NEWLINE) {
        out.extend_from_slice(&rest[..at]);
        out.push(b'\n');
        rest = &rest[at + NEWLINE.len()..];
    }
    out.extend_from_slice(rest);
    OsString::from_vec(out).into()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn a_newline_in_a_path_is_one() {
        let line =
            b"7f00a000-7f00b000 r-xp 00002000 fe:01 4242                       /tmp/my\\012lib\\x.so (deleted)\n";
        let [entry] = parse(line).try_into().expect("one line");
        assert_eq!((entry.path.as_path(), entry.deleted), (Path::new("/tmp/my\nlib\\x.so"), true));
    }

    #[test]
    fn a_deleted_library_with_spaces_in_its_path() {
        let line = b"7f00a000-7f00b000 r-xp 00002000 fe:01 4242                       /tmp/my lib.so (deleted)\n";
        let [entry] = parse(line).try_into().expect("one line");
        assert_eq!(entry.path, Path::new("/tmp/my lib.so"));
        assert!(entry.deleted && entry.executable && entry.is_file());
        assert_eq!((entry.start, entry.offset, entry.device), (UserAddr(0x7f00_a000), FileOffset(0x2000), (0xfe, 1)));
    }

    #[test]
    fn anonymous_memory_and_vdso() {
        let entries =
            parse(b"00400000-00401000 rwxp 00000000 00:00 0 \n7ffe0000-7ffe2000 r-xp 00000000 00:00 0   [vdso]\n");
        assert_eq!(entries.len(), 2);
        assert!(!entries[0].is_file() && entries[0].path.as_os_str().is_empty());
        assert_eq!(entries[1].path, Path::new("[vdso]"));
    }

    #[test]
    fn a_line_of_another_form_is_left_out() {
        assert!(parse(b"not a mapping\n\n7f-").is_empty());
    }
}
