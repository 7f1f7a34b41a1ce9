//! What a frame is called, or why it has no name. Plain data: nothing here reads files.

use std::{
    collections::HashMap,
    fmt,
    path::Path,
    sync::{Arc, LazyLock},
};

use tracer_common::addr::FileVaddr;

use crate::snapshot::{Frame, Module, ModuleId, ModuleKind};

/// One source-level frame at an address. Where functions were inlined, one address has several.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct FrameName {
    /// Demangled function name, or why there is none; hostile input.
    pub function: Result<Arc<str>, NoSymbol>,
    /// Source file as the debug information spells it; hostile input. `None`: no line information for this address.
    pub file: Option<Arc<Path>>,
    /// Line of the call (or of the instruction itself in the innermost frame), from 1.
    pub line: Option<u32>,
    /// The function has no frame of its own: it was inlined into the next name of the same address.
    pub inlined: bool,
}

impl FrameName {
    /// A frame without a name.
    pub const fn unknown(reason: NoSymbol) -> Self {
        Self { function: Err(reason), file: None, line: None, inlined: false }
    }

    /// Why the frame has no function or no line; `None` when it has both.
    pub fn missing(&self) -> Option<String> {
        match &self.function {
            Err(reason) => Some(reason.to_string()),
            Ok(_) if self.file.is_none() || self.line.is_none() => Some("no line info".to_owned()),
            Ok(_) => None,
        }
    }
}

/// Why an address has no name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum NoSymbol {
    /// The file has no symbol table, and no debug file was found.
    Stripped,
    /// The file has symbols, but none covers the address.
    NotCovered,
    /// The file could not be opened or read; the system's reason.
    FileUnreadable(Arc<str>),
    /// The file that can be opened is not the one that is mapped: its build id differs.
    FileReplaced,
    /// The file's ELF structure or debug information is broken; what was met.
    FileBroken(Arc<str>),
    /// The address lies in no known mapping.
    NotMapped,
    /// Code made at run time: no file describes it.
    GeneratedCode,
}

impl fmt::Display for NoSymbol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stripped => f.write_str("no symbols"),
            Self::NotCovered => f.write_str("no symbol covers it"),
            Self::FileUnreadable(reason) => write!(f, "file unreadable: {reason}"),
            Self::FileReplaced => f.write_str("file replaced by another build"),
            Self::FileBroken(what) => write!(f, "broken file: {what}"),
            Self::NotMapped => f.write_str("not in any mapping"),
            Self::GeneratedCode => f.write_str("made at run time"),
        }
    }
}

/// Where a frame lies, for frames that have nothing better to be called by: `libfoo.so+0x1f30`.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// The module; `None`: in no known mapping.
    pub module: Option<&'a Module>,
    /// The vaddr that names were looked up by; the run-time address where there is no module.
    pub address: u64,
}

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.module {
            Some(module) => write!(f, "{}+{:#x}", module_name(module), self.address),
            None => write!(f, "{:#x}", self.address),
        }
    }
}

/// A module's short name: the last component of its path; hostile input.
pub fn module_name(module: &Module) -> String {
    match module.kind {
        ModuleKind::Generated => "[generated code]".to_owned(),
        ModuleKind::Vdso => "[vdso]".to_owned(),
        ModuleKind::File => module.path.file_name().unwrap_or(module.path.as_os_str()).to_string_lossy().into_owned(),
    }
}

/// The names of all frames of a snapshot.
#[derive(Clone, Debug, Default)]
pub struct Names {
    by_address: HashMap<(ModuleId, FileVaddr), Arc<[FrameName]>>,
}

static NOT_MAPPED: LazyLock<Arc<[FrameName]>> =
    LazyLock::new(|| Arc::from([FrameName::unknown(NoSymbol::NotMapped)].as_slice()));

impl Names {
    /// The names at a frame's address, the innermost inlined function first. Never empty.
    pub fn of(&self, frame: &Frame) -> &Arc<[FrameName]> {
        frame.location.and_then(|location| self.by_address.get(&location)).unwrap_or(&NOT_MAPPED)
    }

    /// Sets the names at an address; an empty list is kept as an uncovered address.
    pub fn insert(&mut self, module: ModuleId, vaddr: FileVaddr, names: Arc<[FrameName]>) {
        let names = if names.is_empty() { Arc::from([FrameName::unknown(NoSymbol::NotCovered)]) } else { names };
        self.by_address.insert((module, vaddr), names);
    }

    /// All addresses with their names, in no order.
    pub fn iter(&self) -> impl Iterator<Item = ((ModuleId, FileVaddr), &Arc<[FrameName]>)> {
        self.by_address.iter().map(|(at, names)| (*at, names))
    }

    /// The names at an address, where it was looked up.
    pub fn at(&self, module: ModuleId, vaddr: FileVaddr) -> Option<&Arc<[FrameName]>> {
        self.by_address.get(&(module, vaddr))
    }

    /// Number of distinct addresses.
    pub fn len(&self) -> usize {
        self.by_address.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.by_address.is_empty()
    }
}
