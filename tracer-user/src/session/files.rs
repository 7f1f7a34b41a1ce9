//! What was read of the files that targets execute, once a file: rows in the kernel's tables, probe sites, the loader's notice.

use std::{collections::HashSet, path::Path};

use object::Object as _;
use tokio::sync::mpsc::UnboundedReceiver;

use super::{
    error::TraceError,
    read_module::{GO_HINT, HowToRead, LibraryNotice, ReadModule},
    reads::Reads,
};
use crate::{
    bpf::{Binding, Kernel, MappingBinding},
    options::SessionOptions,
    plan::{self, SpecFunction},
    snapshot::{ModuleId, ModuleKind},
    target::{Files, LoadedModule},
    unwind::{Added, RowRange, RowTables},
};
use tracer_common::addr::FileOffset;

/// What tracing needs of one file.
#[derive(Debug, Default)]
pub(super) struct FileFacts {
    /// Its rows in the kernel's table.
    pub(super) rows: RowRange,
    /// The vaddr that the rows' offsets count from.
    pub(super) base_vaddr: u64,
    /// Its probe sites.
    pub(super) bindings: Vec<Binding>,
    /// Functions that change mappings, where these are followed.
    pub(super) mappings: Vec<MappingBinding>,
    /// Where functions end that may throw.
    pub(super) exits: Vec<FileOffset>,
    /// Set in a dynamic loader.
    pub(super) library_notice: Option<LibraryNotice>,
}

/// All files of a session.
pub(super) struct TracedFiles {
    /// The files themselves.
    pub(super) files: Files,
    /// By [`ModuleId`], as far as they were taken in.
    facts: Vec<FileFacts>,
    tables: RowTables<Vec<u8>>,
    reads: Reads,
    /// Files that are being read.
    unread: HashSet<ModuleId>,
}

/// What was read of new files and is not in the kernel's tables yet.
pub(super) type Unplaced = Vec<(ModuleId, ReadModule)>;

impl TracedFiles {
    /// Knows no file yet; the tables are made when their size is known.
    pub(super) fn new(options: &SessionOptions) -> Self {
        let how = HowToRead {
            placement: options.placement,
            allocators: options.allocators.clone(),
            follows_mappings: options.follows_mappings(),
        };
        Self {
            files: Files::default(),
            facts: Vec::new(),
            tables: RowTables::new(0),
            reads: Reads::new(how),
            unread: HashSet::new(),
        }
    }

    /// Where files come out that were read aside; can be taken once.
    pub(super) fn told(&mut self) -> Option<UnboundedReceiver<Unplaced>> {
        self.reads.told()
    }

    /// Has new files read while the session goes on; until they are placed nothing is known of them.
    pub(super) fn read_aside(&mut self, fresh: &[ModuleId]) {
        for id in fresh {
            self.unread.insert(*id);
            self.make_room(*id);
            self.reads.read(self.files.get(*id).clone());
        }
    }

    /// Whether a file was read.
    pub(super) fn is_known(&self, id: ModuleId) -> bool {
        !self.unread.contains(&id)
    }

    fn make_room(&mut self, id: ModuleId) -> &mut FileFacts {
        let at = id.0 as usize;
        let n = self.facts.len().max(at + 1);
        self.facts.resize_with(n, FileFacts::default);
        &mut self.facts[at]
    }

    /// Room for this many rows; before the first is placed.
    pub(super) fn set_capacity(&mut self, rows: u32) {
        self.tables = RowTables::new(rows);
    }

    /// Reads new files.
    pub(super) fn read(&self, fresh: &[ModuleId], progress: &dyn Fn(&str)) -> Unplaced {
        let read = |id: &ModuleId| {
            let loaded = self.files.get(*id);
            progress(&loaded.module.path.to_string_lossy());
            (*id, self.reads.how.read(loaded))
        };
        fresh.iter().map(read).collect()
    }

    /// Puts their rows into the kernel's tables. Notes for the user come back.
    ///
    /// # Errors
    /// The user described an allocator of a file that it has not.
    pub(super) fn place(&mut self, read: Unplaced, kernel: &Kernel) -> Result<Vec<String>, TraceError> {
        let mut notes = Vec::new();
        for (id, read) in read {
            let loaded = self.files.get(id);
            let path = loaded.module.path.display();
            if let Some(reason) = read.misdescribed {
                return Err(TraceError::Allocator { reason: format!("{path}: {reason}") });
            }
            notes.extend(read.problems.iter().map(|problem| format!("{path}: {problem}")));
            let added = self.tables.add(loaded.identity(), &read.rows);
            if added == Added::Full {
                notes.push(format!("{path}: no room for its unwind rows; stacks through it are truncated"));
            }
            if !read.bindings.is_empty() {
                log::info!("{} probe sites in {path}", read.bindings.len());
            }
            if !read.mappings.is_empty() {
                log::info!("{} functions that change mappings in {path}", read.mappings.len());
            }
            let facts = FileFacts {
                rows: added.range(),
                base_vaddr: read.rows.base_vaddr,
                bindings: read.bindings,
                mappings: read.mappings,
                exits: read.exits,
                library_notice: read.library_notice,
            };
            *self.make_room(id) = facts;
            self.unread.remove(&id);
        }
        let pending = self.tables.pending();
        if !(kernel.put_rules(pending.first_rule as usize, pending.rules)
            && kernel.put_rows(pending.first_row as usize, pending.rows))
        {
            log::error!("unwind rows do not fit the kernel's tables, though room was made");
        }
        self.tables.mark_uploaded();
        Ok(notes)
    }

    /// Whether a file has functions that are probed.
    pub(super) fn has_sites(&self, id: ModuleId) -> bool {
        let facts = self.facts(id);
        !facts.bindings.is_empty() || !facts.mappings.is_empty()
    }

    /// What is known of a file.
    pub(super) fn facts(&self, id: ModuleId) -> &FileFacts {
        &self.facts[id.0 as usize]
    }

    /// A file's own path, for what opens it.
    pub(super) fn open_path(&self, id: ModuleId) -> &Path {
        &self.files.get(id).module.open_path
    }

    /// The error for an allocator that was described in a file which none of these is.
    pub(super) fn unmapped_allocator(&self, mapped: &[ModuleId]) -> Option<TraceError> {
        let is_mapped =
            |function: &SpecFunction| mapped.iter().any(|id| function.is_of(&self.files.get(*id).module.path));
        let missing =
            self.reads.how.allocators.iter().flat_map(|spec| &spec.functions).find(|function| !is_mapped(function))?;
        Some(TraceError::Allocator {
            reason: format!("`{}` is not mapped (mapped: {})", missing.module, self.names(mapped)),
        })
    }

    /// The names of these files, for messages.
    pub(super) fn names(&self, mapped: &[ModuleId]) -> String {
        let name =
            |loaded: &LoadedModule| loaded.module.path.file_name().map(|name| name.to_string_lossy().into_owned());
        let files = mapped.iter().map(|id| self.files.get(*id)).filter(|file| file.module.kind == ModuleKind::File);
        let names: Vec<_> = files.map(|loaded| name(loaded).unwrap_or_default()).collect();
        if names.is_empty() { "no file".to_owned() } else { names.join(", ") }
    }

    /// What is special about these files, none of which defines an allocator.
    pub(super) fn hint(&self, mapped: &[ModuleId], exe: Option<&Path>) -> Option<String> {
        let unread: Vec<ModuleId> = mapped.iter().copied().filter(|id| !self.files.get(*id).is_open()).collect();
        if unread.iter().any(|id| self.files.get(*id).module.kind == ModuleKind::File) {
            let names = self.names(&unread);
            return Some(format!(
                "; {names} could not be opened, which takes CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH where it is another user's"
            ));
        }
        let hint = mapped.iter().find_map(|id| {
            let loaded = self.files.get(*id);
            let bytes = loaded.bytes().ok()?;
            let elf = object::File::parse(&*bytes).ok()?;
            if plan::is_go(&bytes) {
                return Some(GO_HINT);
            }
            let is_exe = exe == Some(&loaded.module.path);
            let has_symbols = elf.symbols().next().is_some() || elf.dynamic_symbols().next().is_some();
            (is_exe && !has_symbols)
                .then_some("; the executable is static and stripped: install its debug file (found by build id or debug link), trace a build with symbols, or describe its allocator with --allocator")
        });
        hint.map(str::to_owned)
    }
}
