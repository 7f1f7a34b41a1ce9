//! The files that a target executes, kept open: deleted and replaced ones too, and after the target has ended.

use std::{
    collections::HashMap,
    fs, io,
    os::fd::AsRawFd as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use object::{Object as _, ObjectSegment as _, SegmentFlags, elf::PF_X};
use tracer_common::addr::{FileOffset, FileVaddr, UserAddr};

use super::{
    Process, ProcessError,
    maps::MapEntry,
    root::{Root, Roots},
};
use crate::snapshot::{Module, ModuleId, ModuleKind, ModuleMapping};

/// Largest file whose bytes are read for its unwind information and symbols: 2 GiB.
const MAX_FILE_BYTES: u64 = 2 << 30;

/// Largest vdso that is read out of a target's memory: 1 MiB (it has a few pages).
const MAX_VDSO_BYTES: u64 = 1 << 20;

/// What identifies a mapped file while it is mapped.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum FileKey {
    File {
        device: (u32, u32),
        inode: u64,
    },
    Vdso,
    /// All generated code is one module: it has neither file nor names.
    Generated,
}

/// A module with what keeps its bytes at hand.
#[derive(Debug)]
pub struct LoadedModule {
    /// Its place in [`Modules::all`].
    pub id: ModuleId,
    /// What snapshots carry of it.
    pub module: Arc<Module>,
    key: FileKey,
    /// Keeps `open_path` valid.
    file: Option<fs::File>,
    /// The root of the file system that it was seen in, where that is not ours.
    pub root: Option<Arc<Root>>,
}

impl LoadedModule {
    /// All bytes of the file; empty for generated code.
    ///
    /// # Errors
    /// The file cannot be read or is larger than 2 GiB.
    pub fn bytes(&self) -> io::Result<Vec<u8>> {
        let Some(file) = &self.file else { return Ok(Vec::new()) };
        let length = file.metadata()?.len();
        if length > MAX_FILE_BYTES {
            return Err(io::Error::other(format!("{length} bytes, more than {MAX_FILE_BYTES}")));
        }
        fs::read(&self.module.open_path)
    }

    /// Where code at `vaddr` lies in the file.
    pub fn file_offset(&self, vaddr: FileVaddr) -> Option<FileOffset> {
        executable_segments(self).into_iter().find_map(|segment| {
            let inside = vaddr.0.checked_sub(segment.vaddr)?;
            (inside < segment.length).then(|| FileOffset(segment.offset + inside))
        })
    }

    /// What the row tables know the file by where it has no build id: device and inode.
    pub fn identity(&self) -> Vec<u8> {
        match &self.module.build_id {
            Some(id) => id.clone(),
            None => format!("{:?}", self.key).into_bytes(),
        }
    }
}

/// All modules seen so far of one target. A module stays known after it is unmapped: stacks still refer to it.
#[derive(Debug, Default)]
pub struct Modules {
    all: Vec<LoadedModule>,
    by_key: HashMap<FileKey, usize>,
    /// Executable mappings as of the last look, sorted, with their modules.
    current: Vec<(ModuleMapping, ModuleId)>,
    /// What went wrong with some file, once each.
    pub problems: Vec<String>,
    roots: Roots,
}

impl Modules {
    /// Reads the target's mappings and returns the ids of modules that were not known before.
    ///
    /// # Errors
    /// The mappings could not be read; the state is as before.
    pub fn refresh(&mut self, process: &Process) -> Result<Vec<ModuleId>, ProcessError> {
        let entries = process.maps()?;
        let mut fresh = Vec::new();
        let mut current = Vec::new();
        let mut segments: HashMap<usize, Vec<ExecutableSegment>> = HashMap::new();
        for entry in entries.iter().filter(|entry| entry.executable) {
            let Some(key) = key_of(entry) else { continue };
            let at = if let Some(at) = self.by_key.get(&key) {
                *at
            } else {
                let at = self.add(process, &key, entry);
                fresh.push(self.all[at].id);
                at
            };
            let bias = match key {
                FileKey::Generated => 0,
                FileKey::Vdso | FileKey::File { .. } => {
                    let segments = segments.entry(at).or_insert_with(|| executable_segments(&self.all[at]));
                    bias_of(entry, segments)
                }
            };
            let mapping = ModuleMapping { start: entry.start, end: entry.end, bias };
            current.push((mapping, self.all[at].id));
            let module = Arc::make_mut(&mut self.all[at].module);
            if !module.mappings.contains(&mapping) {
                module.mappings.push(mapping);
            }
        }
        current.sort_by_key(|(mapping, _)| mapping.start);
        self.current = current;
        Ok(fresh)
    }

    /// The module with this id.
    pub fn get(&self, id: ModuleId) -> &LoadedModule {
        &self.all[id.0 as usize]
    }

    /// All modules by id.
    pub fn all(&self) -> &[LoadedModule] {
        &self.all
    }

    /// Executable mappings as of the last look, sorted by address.
    pub fn current(&self) -> &[(ModuleMapping, ModuleId)] {
        &self.current
    }

    /// The module and vaddr of an address; libraries that were unmapped meanwhile are found where they were.
    pub fn locate(&self, addr: UserAddr) -> Option<(ModuleId, FileVaddr)> {
        let after = self.current.partition_point(|(mapping, _)| mapping.start <= addr);
        let here = |mapping: &ModuleMapping| mapping.start <= addr && addr < mapping.end;
        if let Some((mapping, id)) = self.current[..after].last().filter(|(mapping, _)| here(mapping)) {
            return Some((*id, mapping.vaddr(addr)));
        }
        self.all.iter().find_map(|loaded| {
            loaded.module.mappings.iter().find(|mapping| here(mapping)).map(|mapping| (loaded.id, mapping.vaddr(addr)))
        })
    }

    /// The targets' roots that are not ours.
    pub fn roots(&self) -> &[Arc<Root>] {
        self.roots.all()
    }

    fn add(&mut self, process: &Process, key: &FileKey, entry: &MapEntry) -> usize {
        let (kind, file) = match key {
            FileKey::Generated => (ModuleKind::Generated, Ok(None)),
            FileKey::Vdso => (ModuleKind::Vdso, dump_vdso(process, entry).map(Some)),
            FileKey::File { .. } => (ModuleKind::File, open_mapped(process.pid, entry).map(Some)),
        };
        let file = file.unwrap_or_else(|error| {
            self.problems.push(format!("failed to open `{}`: {error}", entry.path.display()));
            None
        });
        let open_path = match &file {
            Some(file) => PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd())),
            None => entry.path.clone(),
        };
        let at = self.all.len();
        let build_id = file.as_ref().and_then(|_| build_id(&open_path));
        let path = if kind == ModuleKind::Generated { PathBuf::from("[generated code]") } else { entry.path.clone() };
        let module = Module { kind, path, open_path, deleted: entry.deleted, build_id, mappings: Vec::new() };
        let id = ModuleId(at as u32);
        let root = self.roots.of(process.pid);
        self.all.push(LoadedModule { id, module: Arc::new(module), key: key.clone(), file, root });
        self.by_key.insert(key.clone(), at);
        at
    }
}

fn key_of(entry: &MapEntry) -> Option<FileKey> {
    if entry.is_file() {
        return Some(FileKey::File { device: entry.device, inode: entry.inode });
    }
    match entry.path.to_str() {
        Some("[vdso]") => Some(FileKey::Vdso),
        // `[vsyscall]` and `[uprobes]` (the return trampoline's page) are the kernel's, not code that calls an allocator.
        Some("[vsyscall]" | "[uprobes]") => None,
        _ => Some(FileKey::Generated),
    }
}

/// The very file that is mapped: through `map_files`, so deleted, replaced and other namespaces' files are found; where that
/// is not permitted, by path if the inode is still the mapped one.
fn open_mapped(pid: u32, entry: &MapEntry) -> io::Result<fs::File> {
    let link = format!("/proc/{pid}/map_files/{:x}-{:x}", entry.start, entry.end);
    fs::File::open(link).or_else(|denied| {
        use std::os::unix::fs::MetadataExt as _;
        let file = Root::at(Path::new(&format!("/proc/{pid}/root")))?.open_regular(&entry.path)?;
        if file.metadata()?.ino() == entry.inode { Ok(file) } else { Err(denied) }
    })
}

/// Copies the vdso out of the target's memory into an unnamed file, so that names and rows are read as from any module.
fn dump_vdso(process: &Process, entry: &MapEntry) -> io::Result<fs::File> {
    use std::{io::Write as _, os::fd::FromRawFd as _};
    let length = (entry.end.0 - entry.start.0).min(MAX_VDSO_BYTES);
    let image = process.read_memory(entry.start, length as usize)?;
    // SAFETY: a valid C string; the result is checked.
    let fd = unsafe { libc::memfd_create(c"vdso".as_ptr(), libc::MFD_CLOEXEC) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a descriptor that the kernel has just made and nobody else owns.
    let mut file = unsafe { fs::File::from_raw_fd(fd) };
    file.write_all(&image)?;
    Ok(file)
}

/// An executable segment (`PT_LOAD` with `PF_X`): where it lies in the file and in memory.
#[derive(Clone, Copy, Debug)]
struct ExecutableSegment {
    offset: u64,
    length: u64,
    vaddr: u64,
}

fn executable_segments(loaded: &LoadedModule) -> Vec<ExecutableSegment> {
    let Some(file) = &loaded.file else { return Vec::new() };
    let cache = object::read::ReadCache::new(file);
    let Ok(elf) = object::File::parse(&cache) else { return Vec::new() };
    elf.segments()
        .filter(|segment| matches!(segment.flags(), SegmentFlags::Elf { p_flags, .. } if p_flags & PF_X == PF_X))
        .map(|segment| {
            let (offset, length) = segment.file_range();
            ExecutableSegment { offset, length, vaddr: segment.address() }
        })
        .collect()
}

const PAGE_BYTES: u64 = 4096;

/// Run-time address minus vaddr: from the segment that the mapping's file offset lies in.
fn bias_of(entry: &MapEntry, segments: &[ExecutableSegment]) -> u64 {
    let offset = entry.offset.0;
    let covering = segments.iter().find(|segment| {
        let start = segment.offset & !(PAGE_BYTES - 1);
        offset >= start && offset < segment.offset.saturating_add(segment.length)
    });
    let vaddr = covering.map_or(offset, |segment| segment.vaddr.wrapping_add(offset).wrapping_sub(segment.offset));
    entry.start.0.wrapping_sub(vaddr)
}

fn build_id(path: &Path) -> Option<Vec<u8>> {
    let file = fs::File::open(path).ok()?;
    let cache = object::read::ReadCache::new(file);
    object::File::parse(&cache).ok()?.build_id().ok()?.map(<[u8]>::to_vec)
}
