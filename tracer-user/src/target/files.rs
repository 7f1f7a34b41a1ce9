//! The files that targets execute, each once however many map it, kept open: deleted and replaced ones too, and after the
//! targets have ended.

use std::{
    collections::HashMap,
    fs, io,
    os::fd::AsRawFd as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use object::{Object as _, ObjectSegment as _, SegmentFlags, elf::PF_X};
use tracer_common::addr::{FileOffset, FileVaddr};

use super::{
    Process,
    maps::MapEntry,
    root::{Root, Roots},
};
use crate::snapshot::{Module, ModuleId, ModuleKind, ModuleMapping};

/// Largest file whose bytes are read for its unwind information and symbols: 2 GiB.
const MAX_FILE_BYTES: u64 = 2 << 30;

/// Largest vdso that is read out of a target's memory: 1 MiB (it has a few pages).
const MAX_VDSO_BYTES: u64 = 1 << 20;

/// Mappings of one file that snapshots tell of. Of many processes, each with its own, the first ones do.
const MAX_MAPPINGS_TOLD: usize = 64;

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
#[derive(Clone, Debug)]
pub struct LoadedModule {
    /// Its place in [`Files::all`].
    pub id: ModuleId,
    /// What snapshots carry of it.
    pub module: Arc<Module>,
    key: FileKey,
    /// Keeps `open_path` valid.
    file: Option<Arc<fs::File>>,
    /// The root of the file system that it was seen in, where that is not ours.
    pub root: Option<Arc<Root>>,
    /// Where its code lies in the file and in memory.
    segments: Vec<ExecutableSegment>,
}

impl LoadedModule {
    /// Whether its bytes are at hand.
    pub fn is_open(&self) -> bool {
        self.file.is_some()
    }

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
        self.segments.iter().find_map(|segment| {
            let inside = vaddr.0.checked_sub(segment.vaddr)?;
            (inside < segment.length).then(|| FileOffset(segment.offset + inside))
        })
    }

    /// Run-time address minus vaddr of one of its mappings: from the segment that the mapping's file offset lies in.
    pub(super) fn bias_of(&self, entry: &MapEntry) -> u64 {
        if self.module.kind == ModuleKind::Generated {
            return 0;
        }
        let offset = entry.offset.0;
        let covering = self.segments.iter().find(|segment| {
            let start = segment.offset & !(PAGE_BYTES - 1);
            offset >= start && offset < segment.offset.saturating_add(segment.length)
        });
        let vaddr = covering.map_or(offset, |segment| segment.vaddr.wrapping_add(offset).wrapping_sub(segment.offset));
        entry.start.0.wrapping_sub(vaddr)
    }

    /// What is the same of one file wherever an overlay shows it; `None`: there is no file.
    ///
    /// An overlay has a device of its own and the inode number of the layer below, in the lower half where that file system's
    /// numbers are marked by layer (Documentation/filesystems/overlayfs.rst, "xino").
    fn likeness(&self) -> Option<Likeness<'_>> {
        use std::os::unix::fs::MetadataExt as _;
        let file = self.file.as_ref().filter(|_| self.module.kind == ModuleKind::File)?;
        let of = file.metadata().ok()?;
        Some(Likeness {
            size_bytes: of.size(),
            inode: of.ino() as u32,
            changed_at: (of.mtime(), of.mtime_nsec()),
            build_id: self.module.build_id.as_deref(),
        })
    }

    /// Whether a breakpoint lies at this place of the file in every address space that maps it now: the kernel puts those that
    /// are for everyone into our own mapping too.
    ///
    /// # Errors
    /// The file may not be mapped.
    fn has_breakpoint(&self, offset: FileOffset) -> io::Result<bool> {
        use std::os::unix::fs::FileExt as _;
        let Some(file) = &self.file else { return Ok(false) };
        let page = offset.0 & !(PAGE_BYTES - 1);
        let mapping = ExecutablePage::of(file, page)?;
        let (mut mapped, mut written) = ([0], [0]);
        // By a system call: where the file is cut short meanwhile, that fails, while an access would end this process.
        fs::File::open("/proc/self/mem")?.read_exact_at(&mut mapped, mapping.0 as u64 + (offset.0 - page))?;
        file.read_exact_at(&mut written, offset.0)?;
        Ok(mapped != written)
    }

    /// What the row tables know the file by where it has no build id: device and inode.
    pub fn identity(&self) -> Vec<u8> {
        match &self.module.build_id {
            Some(id) => id.clone(),
            None => format!("{:?}", self.key).into_bytes(),
        }
    }
}

/// What an overlay shows of a file as the layer below has it.
#[derive(Debug, PartialEq, Eq)]
struct Likeness<'f> {
    size_bytes: u64,
    /// The lower half.
    inode: u32,
    /// Seconds and ns since 1970.
    changed_at: (i64, i64),
    build_id: Option<&'f [u8]>,
}

/// All files that were seen so far. A file stays known after it is unmapped: stacks still refer to it.
#[derive(Debug, Default)]
pub struct Files {
    all: Vec<LoadedModule>,
    by_key: HashMap<FileKey, ModuleId>,
    /// What went wrong with some file, once each.
    pub problems: Vec<String>,
    roots: Roots,
}

impl Files {
    /// The file behind an executable mapping, and whether it is new. `None`: pages of the kernel's own.
    pub(super) fn of_mapping(&mut self, process: &Process, entry: &MapEntry) -> Option<(ModuleId, bool)> {
        let key = key_of(entry)?;
        if let Some(id) = self.by_key.get(&key) {
            return Some((*id, false));
        }
        Some((self.add(process, key, entry), true))
    }

    /// The file with this id.
    pub fn get(&self, id: ModuleId) -> &LoadedModule {
        &self.all[id.0 as usize]
    }

    /// All files by id.
    pub fn all(&self) -> &[LoadedModule] {
        &self.all
    }

    /// Remembers where a file was mapped, for exports: in the first address spaces that map it.
    pub(super) fn mapped_at(&mut self, id: ModuleId, mapping: ModuleMapping) {
        let module = &mut self.all[id.0 as usize].module;
        if module.mappings.len() < MAX_MAPPINGS_TOLD && !module.mappings.contains(&mapping) {
            Arc::make_mut(module).mappings.push(mapping);
        }
    }

    /// The file among `probed` that this one is in truth, shown by another overlay: a probe that is for everyone and lies at
    /// `offset` of the one lies in the other. `None` for `offset`: there are no probes yet to tell by.
    pub fn twin(
        &self,
        id: ModuleId,
        offset: Option<FileOffset>,
        probed: impl Iterator<Item = ModuleId>,
    ) -> Option<ModuleId> {
        let loaded = self.get(id);
        let likeness = loaded.likeness()?;
        let mut alike = probed.filter(|other| *other != id && self.get(*other).likeness().as_ref() == Some(&likeness));
        // Where it cannot be mapped, that it is alike in all of this must do.
        alike.next().filter(|_| offset.is_none_or(|offset| loaded.has_breakpoint(offset).unwrap_or(true)))
    }

    /// The targets' roots that are not ours.
    pub fn roots(&self) -> &[Arc<Root>] {
        self.roots.all()
    }

    fn add(&mut self, process: &Process, key: FileKey, entry: &MapEntry) -> ModuleId {
        let (kind, file) = match &key {
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
        let build_id = file.as_ref().and_then(|_| build_id(&open_path));
        let path = if kind == ModuleKind::Generated { PathBuf::from("[generated code]") } else { entry.path.clone() };
        let module = Module { kind, path, open_path, deleted: entry.deleted, build_id, mappings: Vec::new() };
        let id = ModuleId(self.all.len() as u32);
        let segments = file.as_ref().map(executable_segments).unwrap_or_default();
        let file = file.map(Arc::new);
        let root = self.roots.of(process.pid);
        self.all.push(LoadedModule { id, module: Arc::new(module), key: key.clone(), file, root, segments });
        self.by_key.insert(key, id);
        id
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

/// A page of a file, mapped as programs map their code (private and executable: what is shared or only read gets no breakpoint,
/// `valid_vma`, kernel/events/uprobes.c).
struct ExecutablePage(*mut libc::c_void);

impl ExecutablePage {
    fn of(file: &fs::File, offset: u64) -> io::Result<Self> {
        let (rights, length) = (libc::PROT_READ | libc::PROT_EXEC, PAGE_BYTES as usize);
        let offset = i64::try_from(offset).map_err(io::Error::other)?;
        // SAFETY: a new mapping at a place of the kernel's choice; the result is checked.
        let page =
            unsafe { libc::mmap(std::ptr::null_mut(), length, rights, libc::MAP_PRIVATE, file.as_raw_fd(), offset) };
        if page == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(Self(page)) }
    }
}

impl Drop for ExecutablePage {
    fn drop(&mut self) {
        // SAFETY: a mapping of one page that nothing else refers to.
        unsafe { libc::munmap(self.0, PAGE_BYTES as usize) };
    }
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

fn executable_segments(file: &fs::File) -> Vec<ExecutableSegment> {
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

fn build_id(path: &Path) -> Option<Vec<u8>> {
    let file = fs::File::open(path).ok()?;
    let cache = object::read::ReadCache::new(file);
    object::File::parse(&cache).ok()?.build_id().ok()?.map(<[u8]>::to_vec)
}
