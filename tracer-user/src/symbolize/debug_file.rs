//! Finds the separate debug file of a stripped ELF file: by build id, then by `.gnu_debuglink`, each verified.
//!
//! blazesym follows debug links itself, but relative to the path that it was given. Ours is mostly `/proc/self/fd/N` of
//! a mapped (perhaps deleted) file, and it looks by build id only where there is also a link. So the search is done here.

use std::{
    ffi::OsStr,
    fs::{File, OpenOptions},
    io::{self, Read},
    os::unix::{ffi::OsStrExt, fs::OpenOptionsExt},
    path::{Component, Path, PathBuf},
};

use object::{Object, ObjectSection, ReadCache};

use crate::target::Root;

/// Longest build id that is looked up (GNU ld writes 20 bytes, lld at most 32).
const MAX_BUILD_ID_BYTES: usize = 64;
/// Largest debug file whose checksum is computed. Chromium's, the largest known, is about 4 GiB.
const MAX_CHECKSUM_BYTES: u64 = 8 << 30;

/// What the search needs to know of an ELF file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ElfFacts {
    /// GNU build id.
    pub build_id: Option<Vec<u8>>,
    /// `.gnu_debuglink`: file name and CRC-32 of the whole debug file.
    pub debug_link: Option<(Vec<u8>, u32)>,
    /// `.gnu_debugaltlink`: path of the file that `dwz` moved shared DWARF to.
    pub alt_link: Option<Vec<u8>>,
    /// The file carries DWARF itself.
    pub has_dwarf: bool,
}

impl ElfFacts {
    /// Reads the facts of an opened ELF file.
    pub fn read(file: &File) -> object::Result<Self> {
        let cache = ReadCache::new(file);
        let elf = object::File::parse(&cache)?;
        let has_dwarf = [".debug_info", ".zdebug_info"].into_iter().any(|name| {
            // `objcopy --only-keep-debug` keeps other sections' headers as NOBITS; DWARF must have bytes.
            elf.section_by_name(name).is_some_and(|section| section.file_range().is_some_and(|(_, size)| size > 0))
        });
        Ok(Self {
            // Broken notes or links only cost the debug file, not the symbols.
            build_id: elf.build_id().ok().flatten().map(<[u8]>::to_vec),
            debug_link: elf.gnu_debuglink().ok().flatten().map(|(name, crc)| (name.to_vec(), crc)),
            alt_link: elf.gnu_debugaltlink().ok().flatten().map(|(path, _)| path.to_vec()),
            has_dwarf,
        })
    }
}

/// Where distributions keep debug files.
pub const USUAL_ROOT: &str = "/usr/lib/debug";

/// Opens the debug file of the ELF file that is mapped from `path`, if one of the candidates is really its debug file.
pub fn find(path: &Path, facts: &ElfFacts, roots: &[PathBuf]) -> Option<(File, ElfFacts)> {
    find_by(path, facts, roots, &open_regular)
}

/// Likewise, among the files that a target with another root sees.
pub fn find_within(path: &Path, facts: &ElfFacts, root: &Root) -> Option<(File, ElfFacts)> {
    find_by(path, facts, &[PathBuf::from(USUAL_ROOT)], &|candidate| root.open_regular(candidate))
}

fn find_by(
    path: &Path,
    facts: &ElfFacts,
    roots: &[PathBuf],
    open: &dyn Fn(&Path) -> io::Result<File>,
) -> Option<(File, ElfFacts)> {
    let by_build_id = facts.build_id.iter().flat_map(|id| build_id_candidates(id, roots));
    let by_link = facts.debug_link.iter().flat_map(|(name, _)| link_candidates(path, name, roots));
    let by_path = facts.build_id.iter().flat_map(|_| path_candidates(path, roots));
    by_build_id.chain(by_link).chain(by_path).find_map(|candidate| {
        let file = open(&candidate).ok()?;
        let found = ElfFacts::read(&file).ok()?;
        belongs(&file, &found, facts).then_some((file, found))
    })
}

/// `ROOT/.build-id/ab/cdef….debug`, the layout of GDB and all distributions.
fn build_id_candidates(id: &[u8], roots: &[PathBuf]) -> Vec<PathBuf> {
    let (2..=MAX_BUILD_ID_BYTES) = id.len() else { return Vec::new() };
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().concat();
    roots.iter().map(|root| root.join(".build-id").join(hex(&id[..1])).join(hex(&id[1..]) + ".debug")).collect()
}

/// GDB's order: the file's own directory, its `.debug`, then the directory below each root.
fn link_candidates(path: &Path, name: &[u8], roots: &[PathBuf]) -> Vec<PathBuf> {
    let name = Path::new(OsStr::from_bytes(name));
    // A link is a bare file name. Anything else would send us to any file that the target likes.
    let mut components = name.components();
    let (Some(Component::Normal(_)), None) = (components.next(), components.next()) else { return Vec::new() };
    let Some(dir) = path.parent().filter(|dir| dir.is_absolute()) else { return Vec::new() };

    let mut candidates = vec![dir.join(name), dir.join(".debug").join(name)];
    for root in roots {
        let below_root = |dir: &Path| root.join(dir.strip_prefix("/").unwrap_or(dir)).join(name);
        candidates.push(below_root(dir));
        // On a merged /usr the same directory has two names, and packages use either.
        match dir.strip_prefix("/usr") {
            Ok(rest) => candidates.push(below_root(&Path::new("/").join(rest))),
            Err(_) => candidates.push(below_root(&Path::new("/usr").join(dir.strip_prefix("/").unwrap_or(dir)))),
        }
    }
    candidates.retain(|candidate| candidate != path);
    candidates
}

/// A root laid out like the machine of the module, or with the files side by side: an unstripped build, or its debug file.
fn path_candidates(path: &Path, roots: &[PathBuf]) -> Vec<PathBuf> {
    let Some(name) = path.file_name().filter(|_| path.is_absolute()) else { return Vec::new() };
    let below: PathBuf = path.components().filter(|part| matches!(part, Component::Normal(_))).collect();
    let with_suffix = |path: PathBuf| {
        let mut debug = path.clone().into_os_string();
        debug.push(".debug");
        [path, PathBuf::from(debug)]
    };
    let of_root = |root: &PathBuf| [root.join(&below), root.join(name)].into_iter().flat_map(with_suffix);
    roots.iter().flat_map(of_root).filter(|candidate| candidate != path).collect()
}

/// Opens without waiting: a FIFO planted beside a target's file must not stop the tracer.
pub fn open_regular(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC).open(path)?;
    if file.metadata()?.is_file() { Ok(file) } else { Err(io::Error::other("not a regular file")) }
}

/// Whether `file` is the debug file that is `wanted`: by build id where both have one, else by the link's CRC.
fn belongs(file: &File, found: &ElfFacts, wanted: &ElfFacts) -> bool {
    match (&wanted.build_id, &found.build_id, &wanted.debug_link) {
        (Some(wanted), Some(found), _) => wanted == found,
        (_, _, Some((_, crc))) => crc32(file).is_ok_and(|found| found == *crc),
        _ => false,
    }
}

fn crc32(mut file: &File) -> io::Result<u32> {
    if file.metadata()?.len() > MAX_CHECKSUM_BYTES {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    // `ReadCache` above seeks before each read; a plain reader starts where it stopped.
    io::Seek::rewind(&mut file)?;
    let mut hasher = crc32fast::Hasher::new();
    let mut buffer = vec![0; 1 << 16];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hasher.finalize()),
            n => hasher.update(&buffer[..n]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_with_a_path_in_it_is_not_followed() {
        let roots = [PathBuf::from("/usr/lib/debug")];
        for name in ["../../etc/passwd", "/etc/passwd", "..", "", "a/b"] {
            assert_eq!(link_candidates(Path::new("/opt/x/prog"), name.as_bytes(), &roots), Vec::<PathBuf>::new());
        }
    }

    #[test]
    fn link_candidates_stand_in_the_order_of_gdb() {
        let roots = [PathBuf::from("/usr/lib/debug")];
        let found = link_candidates(Path::new("/usr/bin/prog"), b"prog.debug", &roots);
        let expected = [
            "/usr/bin/prog.debug",
            "/usr/bin/.debug/prog.debug",
            "/usr/lib/debug/usr/bin/prog.debug",
            "/usr/lib/debug/bin/prog.debug",
        ];
        assert_eq!(found, expected.map(PathBuf::from));
    }

    #[test]
    fn a_build_id_of_odd_length_is_not_looked_up() {
        let roots = [PathBuf::from("/d")];
        assert!(build_id_candidates(&[], &roots).is_empty());
        assert!(build_id_candidates(&[1], &roots).is_empty());
        assert!(build_id_candidates(&[1; 65], &roots).is_empty());
        assert_eq!(build_id_candidates(&[0xab, 0xcd, 0xef], &roots), [PathBuf::from("/d/.build-id/ab/cdef.debug")]);
    }
}
