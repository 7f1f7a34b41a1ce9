//! What a module's bytes tell, before anything goes into the kernel: rows, probe sites, the dynamic loader's notice.

use std::{io::Read as _, path::PathBuf};

use object::{Object as _, ObjectSymbol as _};
use tracer_common::addr::{FileOffset, FileVaddr};

use super::error::TraceError;
use crate::{
    bpf::{Binding, MappingBinding},
    options::Placement,
    plan::{self, AllocatorSpec, Input, MappingSite, PlanError, ProbePlan, Problem, plan_ranges},
    snapshot::ModuleKind,
    symbolize::debug_file::{self, ElfFacts},
    target::{Files, LoadedModule, Mappings, Process},
    unwind::{ModuleRows, RowsError, module_rows, module_rows_with},
};

/// What is looked for in modules.
#[derive(Clone)]
pub(super) struct HowToRead {
    /// Where probes go.
    pub(super) placement: Placement,
    /// Allocators that the user described.
    pub(super) allocators: Vec<AllocatorSpec>,
    /// Functions that change mappings are looked for.
    pub(super) follows_mappings: bool,
}

impl HowToRead {
    /// Reads a module's file.
    pub(super) fn read(&self, loaded: &LoadedModule) -> ReadModule {
        let mut read = ReadModule::read(loaded, self.placement, &self.allocators);
        if self.follows_mappings {
            read.find_mappings(loaded);
        }
        read
    }
}

/// What a module's bytes tell, before anything goes into the kernel.
pub(super) struct ReadModule {
    /// How its frames are unwound.
    pub(super) rows: ModuleRows,
    /// Its probe sites.
    pub(super) bindings: Vec<Binding>,
    /// Functions that change mappings.
    pub(super) mappings: Vec<MappingBinding>,
    /// Where functions end that may throw.
    pub(super) exits: Vec<FileOffset>,
    /// Set in the dynamic loader.
    pub(super) library_notice: Option<LibraryNotice>,
    /// What could not be understood, one line each.
    pub(super) problems: Vec<String>,
    /// An allocator was described for this module by a symbol that it has not.
    pub(super) misdescribed: Option<String>,
}

impl ReadModule {
    /// Reads a module's file.
    fn read(loaded: &LoadedModule, placement: Placement, allocators: &[AllocatorSpec]) -> Self {
        let mut problems = Vec::new();
        let bytes = loaded.bytes().unwrap_or_else(|error| {
            problems.push(format!("failed to read: {error}"));
            Vec::new()
        });
        if bytes.is_empty() {
            let (rows, bindings) = (ModuleRows::default(), Vec::new());
            return Self {
                rows,
                bindings,
                mappings: Vec::new(),
                exits: Vec::new(),
                library_notice: None,
                problems,
                misdescribed: None,
            };
        }
        let rows = rows_of_module(loaded, &bytes).unwrap_or_else(|error| {
            problems.push(error.to_string());
            ModuleRows::default()
        });
        for (problem, n) in rows.problems.iter() {
            if problem.is_unsupported_row() {
                // Every libc has some; a stack that meets one says so itself.
                log::debug!("{}: {n} {}", loaded.module.path.display(), problem.sentence());
            } else {
                problems.push(format!("{n} {}", problem.sentence()));
            }
        }
        let plan = match placement {
            Placement::Planned | Placement::Empty => plan_of_module(loaded, &bytes, allocators),
            Placement::Naive => plan::plan_naive(&bytes),
        };
        let mut exits = Vec::new();
        let mut misdescribed = None;
        let bindings = match (loaded.module.kind, plan) {
            (ModuleKind::File, Ok(plan)) => {
                let is_named = |problem: &&Problem| matches!(problem, Problem::NoSuchSymbol { .. });
                misdescribed = plan.problems.iter().find(is_named).map(ToString::to_string);
                problems.extend(plan.problems.iter().map(ToString::to_string));
                exits = plan.sites.iter().flat_map(|site| site.exits.iter().copied()).collect();
                plan.sites.iter().map(Binding::from).collect()
            }
            (ModuleKind::File, Err(error)) => {
                problems.push(error.to_string());
                Vec::new()
            }
            _ => Vec::new(),
        };
        Self {
            rows,
            bindings,
            mappings: Vec::new(),
            exits,
            library_notice: library_notice(loaded, &bytes),
            problems,
            misdescribed,
        }
    }
}

impl ReadModule {
    /// Looks for functions that change mappings.
    fn find_mappings(&mut self, loaded: &LoadedModule) {
        if loaded.module.kind != ModuleKind::File {
            return;
        }
        // What is wrong with the file was told by the plan for its allocator.
        let Ok(plan) = loaded.bytes().map_err(drop).and_then(|bytes| plan_ranges(&bytes).map_err(drop)) else { return };
        self.problems.extend(plan.problems.iter().map(ToString::to_string));
        let binding = |site: &MappingSite| MappingBinding { function: site.function, offset: site.file_offset };
        self.mappings = plan.sites.iter().map(binding).collect();
    }
}

/// `r_state` in `struct r_debug` on 64-bit: int version + padding, r_map, r_brk (glibc elf/link.h, musl include/link.h).
pub(super) const R_STATE_OFFSET: u64 = 24;

/// Where a dynamic loader announces libraries.
#[derive(Clone, Copy, Debug)]
pub(super) struct LibraryNotice {
    /// `_dl_debug_state`, called when the list changes.
    pub(super) offset: FileOffset,
    /// `_r_debug`, which holds the list's state.
    pub(super) r_debug: Option<FileVaddr>,
}

/// Largest debug file that is read for the names of a stripped module's functions.
const MAX_DEBUG_FILE_BYTES: u64 = 512 << 20;

/// A module's rows, with the help of its debug file where most of its code has no unwind information.
fn rows_of_module(loaded: &LoadedModule, bytes: &[u8]) -> Result<ModuleRows, RowsError> {
    let rows = module_rows(bytes)?;
    if !rows.is_bare || loaded.module.kind != ModuleKind::File {
        return Ok(rows);
    }
    debug_file_of(loaded).map_or(Ok(rows), |debug| module_rows_with(bytes, Some(&debug)))
}

/// A module's plan, with the help of its debug file where it is stripped and shows no allocator.
fn plan_of_module(loaded: &LoadedModule, bytes: &[u8], specs: &[AllocatorSpec]) -> Result<ProbePlan, PlanError> {
    let input = Input { path: &loaded.module.path, specs, ..Input::of(bytes) };
    let plan = plan::plan_with(&input)?;
    if !plan.sites.is_empty() || !plan.is_stripped {
        return Ok(plan);
    }
    match debug_file_of(loaded) {
        Some(debug) => plan::plan_with(&Input { debug: Some(&debug), ..input }),
        None => Ok(plan),
    }
}

fn debug_file_of(loaded: &LoadedModule) -> Option<Vec<u8>> {
    let facts = ElfFacts::read(&debug_file::open_regular(&loaded.module.open_path).ok()?).ok()?;
    let path = &loaded.module.path;
    let within = loaded.root.as_ref().and_then(|root| debug_file::find_within(path, &facts, root));
    let (mut file, _) = within.or_else(|| debug_file::find(path, &facts, &[PathBuf::from(debug_file::USUAL_ROOT)]))?;
    let mut bytes = Vec::new();
    std::io::Seek::rewind(&mut file).ok()?;
    (&file).take(MAX_DEBUG_FILE_BYTES).read_to_end(&mut bytes).ok()?;
    Some(bytes)
}

fn library_notice(loaded: &LoadedModule, bytes: &[u8]) -> Option<LibraryNotice> {
    let elf = object::File::parse(bytes).ok()?;
    let symbol = |name: &str| {
        elf.dynamic_symbols()
            .chain(elf.symbols())
            .find(|symbol| symbol.is_definition() && symbol.name() == Ok(name))
            .map(|symbol| symbol.address())
    };
    let vaddr = symbol("_dl_debug_state")?;
    let offset = loaded.file_offset(FileVaddr(vaddr))?;
    Some(LibraryNotice { offset, r_debug: symbol("_r_debug").map(FileVaddr) })
}

/// What is special about a program in Go.
pub(super) const GO_HINT: &str = "; this is a Go program without cgo, whose own allocator is not traced";

fn go_hint(files: &Files) -> Option<&'static str> {
    let mut modules = files.all().iter().filter_map(|loaded| loaded.bytes().ok());
    modules.any(|bytes| plan::is_go(&bytes)).then_some(GO_HINT)
}

/// The probe plans of a running process, module by module, as text; modules without an allocator are left out.
///
/// # Errors
/// The process cannot be traced, or has no known allocator.
pub fn plan_of(process: &Process) -> Result<String, TraceError> {
    let mut files = Files::default();
    Mappings::default().refresh(process, &mut files)?;
    let mut text = String::new();
    let mut looked_at: Vec<PathBuf> = Vec::new();
    for loaded in files.all().iter().filter(|loaded| loaded.module.kind == ModuleKind::File) {
        looked_at.push(loaded.module.path.clone());
        let Ok(bytes) = loaded.bytes() else { continue };
        if let Ok(plan) = plan_of_module(loaded, &bytes, &[])
            && !plan.sites.is_empty()
        {
            text.push_str(&plan.render(&loaded.module.path.to_string_lossy()));
        }
    }
    if text.is_empty() {
        return Err(TraceError::NoAllocator {
            pid: process.pid,
            comm: process.comm.clone(),
            looked_at: looked_at.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", "),
            hint: go_hint(&files).unwrap_or_default().to_owned(),
        });
    }
    Ok(text)
}
