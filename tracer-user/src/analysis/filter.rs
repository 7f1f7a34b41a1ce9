//! Leaves stacks out of a snapshot, as `tracemalloc.Snapshot.filter_traces` does.

use std::{
    borrow::Cow,
    collections::{BTreeSet, HashMap, HashSet},
    ffi::OsStr,
    fmt,
    path::{Component, Path},
};

use thiserror::Error;

use super::{
    frames::{Frames, NameAt, module_of},
    own_code::OwnCode,
};
use crate::{
    options::{FileFilter, Filters},
    snapshot::{Module, Owner, Snapshot, Stack, Totals},
    symbolize::{Attribution, FrameName, Names, attribute::qualified_name, module_name},
    text::{glob::Glob, near},
};

/// What a frame without source file and without module is called, as in tracemalloc.
const UNKNOWN: &str = "<unknown>";

/// What filters leave.
#[derive(Clone, Debug)]
pub struct Filtered {
    /// The stacks that stay. Its totals are still those of the whole target; if anything was removed, a note says how much.
    pub snapshot: Snapshot,
    /// What went.
    pub removed: Removed,
    /// What to try if nothing is left.
    pub hint: Option<String>,
}

/// How much filters removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Removed {
    /// Stacks removed.
    pub n_stacks: usize,
    /// Stacks there were.
    pub of_stacks: usize,
    /// Sums over the stacks removed.
    pub totals: Totals,
}

/// Filters that leave no stack.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("nothing left: filters removed {removed} ({})", hint.as_deref().unwrap_or("try fewer filters, or --all-frames"))]
pub struct NothingLeft {
    /// How much that was.
    pub removed: Removed,
    /// What to try.
    pub hint: Option<String>,
}

impl fmt::Display for Removed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { n_stacks, of_stacks, totals } = self;
        if n_stacks == of_stacks {
            write!(f, "all {of_stacks} stacks ")?;
        } else {
            write!(f, "{n_stacks} of {of_stacks} stacks ")?;
        }
        write!(
            f,
            "({} B in {} blocks live, {} B at the peak)",
            totals.current_bytes, totals.current_count, totals.peak_bytes
        )
    }
}

impl Filtered {
    /// The same, unless something was there and nothing of it is left.
    ///
    /// # Errors
    /// The filters removed every stack.
    pub fn non_empty(self) -> Result<Self, NothingLeft> {
        if self.removed.n_stacks > 0 && self.snapshot.stacks.is_empty() {
            return Err(NothingLeft { removed: self.removed, hint: self.hint });
        }
        Ok(self)
    }
}

impl Filters {
    /// Whether any stack can be left out; limits on the size of a line leave stacks alone.
    fn leave_out_stacks(&self) -> bool {
        let any = [&self.functions, &self.modules, &self.processes].into_iter().any(|globs| !globs.is_empty());
        !self.files.is_empty() || any || self.own_code
    }
}

/// Applies filters. A stack stays if its site (with `all_frames`: any of its frames, inlined ones included) matches any inclusive
/// pattern and none of the exclusive ones, any function pattern, any module pattern, and is own code, as far as these are asked
/// for.
///
/// A file is compared in two forms: as the debug information spells it, and by its last two components, as reports print it, so
/// that what stands in a report can be pasted into a filter. A frame without source file stands under its module's path, one
/// without module under `<unknown>`. A function is compared as it is demangled, and without its arguments. A module is compared by
/// path and by file name. A process is compared by pid and command.
pub fn filtered(snapshot: &Snapshot, names: &Names, attribution: &Attribution, filters: &Filters) -> Filtered {
    let of_stacks = snapshot.stacks.len();
    let mut removed = Removed { of_stacks, ..Removed::default() };
    let mut kept = snapshot.clone();
    if !filters.leave_out_stacks() {
        return Filtered { snapshot: kept, removed, hint: None };
    }
    let mut judge = Judge::new(filters, snapshot);
    let mut frames = Frames::empty(snapshot, names, attribution);
    let mut indices = Vec::new();
    kept.stacks.retain(|stack| {
        frames.index_all(&stack.stack, &mut indices);
        let stays = judge.keeps_process(&stack.stack) && judge.keeps(&frames, &indices);
        if !stays {
            removed.n_stacks += 1;
            removed.totals.add(&stack.totals);
        }
        stays
    });
    if removed.n_stacks > 0 {
        if let Some(ages) = &mut kept.ages {
            let left: HashSet<_> = kept.stacks.iter().map(|stack| stack.id).collect();
            ages.retain(|cell| left.contains(&cell.stack));
        }
        kept.notes.push(format!("filters removed {removed}"));
    }
    let hint = if kept.stacks.is_empty() { hint(filters, &frames) } else { None };
    Filtered { snapshot: kept, removed, hint }
}

/// What may have been meant by the patterns of files: a name without its folder, or one much like it.
fn hint(filters: &Filters, frames: &Frames<'_, '_>) -> Option<String> {
    let files =
        frames.infos().iter().flat_map(|frame| frame.names).filter_map(|name| name.file.as_deref()?.file_name());
    let files: BTreeSet<Cow<'_, str>> = files.map(OsStr::to_string_lossy).collect();
    let files: Vec<&str> = files.iter().map(AsRef::as_ref).collect();
    filters.files.iter().filter(|filter| filter.inclusive).find_map(|FileFilter { pattern, .. }| {
        let glob = Glob::new(pattern);
        if !pattern.contains('/') && files.iter().any(|file| glob.is_match(file)) {
            return Some(format!("try --include '*/{pattern}'"));
        }
        let near = near::names(pattern.rsplit('/').next().unwrap_or(pattern), &files);
        (!near.is_empty()).then(|| format!("files with frames: {}", near.join(", ")))
    })
}

/// What filters say of one name; with all frames compared, of any of a stack's.
#[derive(Clone, Copy, Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "each is one filter's answer")]
struct Verdict {
    included: bool,
    excluded: bool,
    function: bool,
    module: bool,
    own: bool,
}

/// The filters, compiled, with the verdicts found so far.
struct Judge<'a> {
    filters: &'a Filters,
    snapshot: &'a Snapshot,
    files: Vec<Glob>,
    functions: Vec<Glob>,
    modules: Vec<Glob>,
    processes: Vec<Glob>,
    /// By [`crate::snapshot::ProcessId`].
    known_processes: HashMap<u32, bool>,
    own_code: Option<OwnCode>,
    /// The executable of any process of the scope is somebody's own.
    exes: BTreeSet<Option<&'a Path>>,
    /// By distinct frame, then by name.
    known: Vec<Vec<Option<Verdict>>>,
}

impl<'a> Judge<'a> {
    fn new(filters: &'a Filters, snapshot: &'a Snapshot) -> Self {
        let processes = snapshot.processes.iter().map(|process| process.exe.as_deref());
        let globs = |patterns: &[String]| patterns.iter().map(|pattern| Glob::new(pattern)).collect();
        Self {
            filters,
            snapshot,
            files: filters.files.iter().map(|filter| Glob::new(&filter.pattern)).collect(),
            functions: globs(&filters.functions),
            modules: globs(&filters.modules),
            processes: globs(&filters.processes),
            known_processes: HashMap::new(),
            own_code: filters.own_code.then(OwnCode::new),
            exes: processes.chain([snapshot.target.exe.as_deref()]).collect(),
            known: Vec::new(),
        }
    }

    fn keeps_process(&mut self, stack: &Stack) -> bool {
        if self.processes.is_empty() {
            return true;
        }
        let owner = self.snapshot.owner(stack);
        let of = owner.map_or(u32::MAX, |owner| match owner {
            Owner::One(id, _) => id.0,
            Owner::Target(_) => 0,
        });
        *self.known_processes.entry(of).or_insert_with(|| {
            let pid = owner.map(Owner::pid).filter(|pid| *pid != 0).map(|pid| pid.to_string());
            let is_match = |glob: &Glob, owner: Owner<'_>| glob.is_match(owner.command());
            let wanted = self.filters.processes.iter().zip(&self.processes);
            let mut named =
                wanted.map(|(text, glob)| pid.as_ref() == Some(text) || owner.is_some_and(|o| is_match(glob, o)));
            named.any(|named| named)
        })
    }

    fn keeps(&mut self, frames: &Frames<'_, '_>, stack: &[u32]) -> bool {
        let mut sum = Verdict::default();
        let mut add = |one: Verdict| {
            sum.included |= one.included;
            sum.excluded |= one.excluded;
            sum.function |= one.function;
            sum.module |= one.module;
            sum.own |= one.own;
        };
        if stack.is_empty() {
            add(self.of_no_frame());
        } else if self.filters.all_frames {
            for &frame in stack {
                for name in 0..frames.infos()[frame as usize].names.len() as u32 {
                    add(self.of(frames, NameAt { frame, name, is_plumbing: false }));
                }
            }
        } else if let Some(at) = frames.site_at(stack) {
            add(self.of(frames, at));
        }
        let has_inclusive = self.filters.files.iter().any(|filter| filter.inclusive);
        (sum.included || !has_inclusive)
            && !sum.excluded
            && (sum.function || self.functions.is_empty())
            && (sum.module || self.modules.is_empty())
            && (sum.own || self.own_code.is_none())
    }

    fn of(&mut self, frames: &Frames<'_, '_>, at: NameAt) -> Verdict {
        let (frame, name) = (at.frame as usize, at.name as usize);
        if self.known.len() <= frame {
            self.known.resize(frame + 1, Vec::new());
        }
        let names = frames.infos()[frame].names;
        if self.known[frame].is_empty() {
            self.known[frame].resize(names.len(), None);
        }
        if let Some(known) = self.known[frame][name] {
            return known;
        }
        let module = module_of(self.snapshot, frames.infos()[frame].module);
        let verdict = self.judge(module, &names[name]);
        self.known[frame][name] = Some(verdict);
        verdict
    }

    fn judge(&self, module: Option<&Module>, name: &FrameName) -> Verdict {
        let path = name.file.as_deref().or_else(|| module.map(|module| module.path.as_path()));
        let mut verdict = self.of_file(path, name.line.filter(|_| name.file.is_some()));
        if let Ok(function) = &name.function {
            let qualified = qualified_name(function);
            verdict.function = self.functions.iter().any(|glob| glob.is_match(function) || glob.is_match(&qualified));
        }
        if let Some(module) = module {
            let (path, short) = (module.path.to_string_lossy(), module_name(module));
            verdict.module = self.modules.iter().any(|glob| glob.is_match(&path) || glob.is_match(&short));
        }
        let mut exes = self.exes.iter().copied();
        verdict.own = self.own_code.as_ref().is_some_and(|own| exes.any(|exe| own.is_own(exe, module, name)));
        verdict
    }

    /// Of a stack that could not be stored: it is nobody's.
    fn of_no_frame(&self) -> Verdict {
        self.of_file(None, None)
    }

    fn of_file(&self, path: Option<&Path>, line: Option<u32>) -> Verdict {
        let full = path.map_or(Cow::Borrowed(UNKNOWN), Path::to_string_lossy);
        let short = path.map_or(Cow::Borrowed(UNKNOWN), short);
        let mut verdict = Verdict::default();
        for (filter, glob) in self.filters.files.iter().zip(&self.files) {
            // What has no line has line 0 in tracemalloc.
            let same_line = filter.lineno.is_none_or(|wanted| wanted == line.unwrap_or(0));
            if same_line && (glob.is_match(&full) || glob.is_match(&short)) {
                *(if filter.inclusive { &mut verdict.included } else { &mut verdict.excluded }) = true;
            }
        }
        verdict
    }
}

/// A path's last two components.
fn short(path: &Path) -> Cow<'_, str> {
    match last_names(path) {
        (Some(dir), Some(file)) => Cow::Owned(format!("{}/{}", dir.to_string_lossy(), file.to_string_lossy())),
        (None, Some(file)) => file.to_string_lossy(),
        _ => path.to_string_lossy(),
    }
}

/// The names that make the short form of a path: the last but one, where there is one, and the last.
pub fn last_names(path: &Path) -> (Option<&OsStr>, Option<&OsStr>) {
    let mut names = path.components().rev().filter_map(|part| match part {
        Component::Normal(name) => Some(name),
        _ => None,
    });
    let last = names.next();
    (names.next(), last)
}
