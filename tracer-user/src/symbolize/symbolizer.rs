//! Resolves the addresses of a snapshot with blazesym, a module at a time, and remembers what it found.

use std::{
    cell::Cell,
    collections::{BTreeSet, HashMap, HashSet},
    ffi::OsStr,
    fs::File,
    os::{fd::AsRawFd, unix::ffi::OsStrExt},
    panic::{self, AssertUnwindSafe, UnwindSafe},
    path::{Path, PathBuf},
    sync::{Arc, Once},
};

use blazesym::symbolize::{
    self as blaze, CodeInfo, Input, Reason, Sym, Symbolized,
    source::{Elf, Source},
};
use tracer_common::addr::FileVaddr;

use super::{
    debug_file::{self, ElfFacts},
    name::{FrameName, Names, NoSymbol},
};
use crate::{
    snapshot::{Module, ModuleId, ModuleKind, Snapshot},
    target::Root,
};

/// Longest function name or path kept of one frame, in bytes: mangled names can unfold to megabytes.
const MAX_NAME_BYTES: usize = 8 * 1024;
/// Deepest nesting of inlined functions kept at one address.
const MAX_INLINED: usize = 256;

const NO_DIRECTORIES: [&str; 0] = [];

/// How names are looked up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SymbolizeOptions {
    /// Roots of separate debug files, searched in this order.
    pub debug_roots: Vec<PathBuf>,
    /// Read only files whose build id is known to be the module's: of a recording that may come from elsewhere, or from long
    /// ago, the path alone says nothing.
    pub only_by_build_id: bool,
}

impl Default for SymbolizeOptions {
    fn default() -> Self {
        Self { debug_roots: vec![PathBuf::from(debug_file::USUAL_ROOT)], only_by_build_id: false }
    }
}

/// How far a [`Symbolizer::resolve`] is.
#[derive(Clone, Copy, Debug)]
pub struct Progress<'a> {
    /// The module whose names are read next; `None` when done.
    pub module: Option<&'a Path>,
    /// Modules done.
    pub done: usize,
    /// Modules that frames lie in.
    pub total: usize,
}

/// Turns addresses into names. Keeps what it learnt, and the files open, between calls, so that a refreshed report costs
/// only its new addresses and a target that ended can still be named.
pub struct Symbolizer {
    options: SymbolizeOptions,
    /// Roots of targets, where debug files are looked for first: a file that bears the build id is the right one wherever it is.
    target_roots: Vec<Arc<Root>>,
    blaze: blaze::Symbolizer,
    modules: HashMap<ModuleKey, NamedModule>,
    strings: Interner,
}

/// What makes a module the same in two snapshots.
type ModuleKey = (ModuleKind, PathBuf, PathBuf, Option<Vec<u8>>);

struct NamedModule {
    files: Result<Files, NoSymbol>,
    names: HashMap<FileVaddr, Arc<[FrameName]>>,
}

/// The opened files that name a module's addresses; one of them at least.
struct Files {
    /// The module's file, and whether its DWARF is to be read.
    main: Option<(File, Dwarf)>,
    /// The verified separate debug file, asked first, and whether its DWARF is to be read.
    debug: Option<(File, Dwarf)>,
}

impl Symbolizer {
    /// A symbolizer that has read nothing yet.
    pub fn new(options: SymbolizeOptions) -> Self {
        // The files are ours: each is opened once and reached by its descriptor, so blazesym never needs to look again.
        // Without directories it also follows no links of its own but to a file's neighbours.
        let blaze = blaze::Symbolizer::builder().enable_auto_reload(false).set_debug_dirs(Some(NO_DIRECTORIES)).build();
        Self { options, target_roots: Vec::new(), blaze, modules: HashMap::new(), strings: Interner::default() }
    }

    /// Looks for debug files in these targets' roots too. Modules whose files were opened before keep what was found then.
    pub fn look_in(&mut self, roots: &[Arc<Root>]) {
        self.target_roots = roots.to_vec();
    }

    /// The names of all frames of `snapshot`. `progress` is called before each module whose files must be read.
    pub fn resolve(&mut self, snapshot: &Snapshot, progress: &dyn Fn(Progress<'_>)) -> Names {
        let frames = snapshot.stacks.iter().flat_map(|stack| &stack.stack.frames);
        self.resolve_locations(&snapshot.modules, frames.filter_map(|frame| frame.location), progress)
    }

    /// The names at `locations`, where ids are indices into `modules`. `progress` is called before each module whose files
    /// must be read.
    pub fn resolve_locations(
        &mut self,
        modules: &[Arc<Module>],
        locations: impl IntoIterator<Item = (ModuleId, FileVaddr)>,
        progress: &dyn Fn(Progress<'_>),
    ) -> Names {
        let mut wanted: HashMap<ModuleId, BTreeSet<FileVaddr>> = HashMap::new();
        let mut seen = HashSet::new();
        for location in locations {
            if seen.insert(location) {
                wanted.entry(location.0).or_default().insert(location.1);
            }
        }
        let mut wanted: Vec<_> = wanted.into_iter().collect();
        wanted.sort_unstable_by_key(|&(id, _)| id);

        let mut names = Names::default();
        let total = wanted.len();
        for (done, (id, vaddrs)) in wanted.into_iter().enumerate() {
            let Some(module) = modules.get(id.0 as usize) else { continue };
            let key = (module.kind, module.path.clone(), module.open_path.clone(), module.build_id.clone());
            let known = self.modules.entry(key).or_insert_with(|| NamedModule {
                files: open(module, &self.options, &self.target_roots),
                names: HashMap::new(),
            });
            let new: Vec<u64> = vaddrs.iter().filter(|v| !known.names.contains_key(v)).map(|v| v.0).collect();
            if !new.is_empty() {
                progress(Progress { module: Some(&module.path), done, total });
                let found = match &known.files {
                    Ok(files) => look_up(&self.blaze, files, &new, &mut self.strings),
                    Err(reason) => vec![vec![FrameName::unknown(reason.clone())]; new.len()],
                };
                known.names.extend(new.iter().map(|&v| FileVaddr(v)).zip(found.into_iter().map(Arc::from)));
            }
            for vaddr in vaddrs {
                if let Some(found) = known.names.get(&vaddr) {
                    names.insert(id, vaddr, Arc::clone(found));
                }
            }
        }
        progress(Progress { module: None, done: total, total });
        names
    }
}

impl Default for Symbolizer {
    fn default() -> Self {
        Self::new(SymbolizeOptions::default())
    }
}

/// Opens a module's file and its debug file.
fn open(module: &Module, options: &SymbolizeOptions, target_roots: &[Arc<Root>]) -> Result<Files, NoSymbol> {
    if module.kind == ModuleKind::Generated {
        return Err(NoSymbol::GeneratedCode);
    }
    let find_debug = |facts: &ElfFacts| {
        let in_targets = target_roots.iter().find_map(|root| debug_file::find_within(&module.path, facts, root));
        in_targets.or_else(|| debug_file::find(&module.path, facts, &options.debug_roots))
    };
    let with_dwarf = |(file, facts): (File, ElfFacts)| {
        let dwarf = Dwarf::of(&facts, &file);
        (file, dwarf)
    };
    match open_main(module, options) {
        Ok((main, facts)) => {
            let debug = if facts.has_dwarf { None } else { find_debug(&facts) };
            Ok(Files { main: Some(with_dwarf((main, facts))), debug: debug.map(with_dwarf) })
        }
        // A debug file that bears the build id is as good, wherever the module's own file is.
        Err(reason) => {
            let facts = ElfFacts { build_id: module.build_id.clone(), ..ElfFacts::default() };
            let debug = find_debug(&facts).ok_or(reason)?;
            Ok(Files { main: None, debug: Some(with_dwarf(debug)) })
        }
    }
}

/// Opens a module's own file, if it is the one that was mapped.
fn open_main(module: &Module, options: &SymbolizeOptions) -> Result<(File, ElfFacts), NoSymbol> {
    let main = debug_file::open_regular(&module.open_path)
        .map_err(|error| NoSymbol::FileUnreadable(error.to_string().into()))?;
    let facts = ElfFacts::read(&main).map_err(|error| NoSymbol::FileBroken(error.to_string().into()))?;
    match (&module.build_id, &facts.build_id) {
        (Some(mapped), Some(found)) if mapped != found => Err(NoSymbol::FileReplaced),
        (Some(_), Some(_)) => Ok((main, facts)),
        _ if options.only_by_build_id => Err(NoSymbol::FileUnreadable("no build id says that it is the same".into())),
        _ => Ok((main, facts)),
    }
}

/// The names at each of `vaddrs`, in their order, each non-empty.
fn look_up(blaze: &blaze::Symbolizer, files: &Files, vaddrs: &[u64], strings: &mut Interner) -> Vec<Vec<FrameName>> {
    let best = match (&files.debug, &files.main) {
        (Some((debug, dwarf)), _) => ask(blaze, debug, *dwarf, vaddrs, strings),
        // With broken DWARF (or a debug link to a wrong file) the symbol table still says the function.
        (None, Some((main, dwarf))) => {
            ask(blaze, main, *dwarf, vaddrs, strings).or_else(|_| ask(blaze, main, Dwarf::No, vaddrs, strings))
        }
        (None, None) => unreachable!("one of them was opened"),
    };
    let mut names = match best {
        Ok(names) => names,
        Err(what) => vec![vec![FrameName::unknown(NoSymbol::FileBroken(what))]; vaddrs.len()],
    };

    // What the debug file does not know, or knows only the line of, the file's own symbols may name.
    let Some((main, _)) = &files.main else { return names };
    let nameless: Vec<usize> = (0..names.len())
        .filter(|&i| names[i].last().is_some_and(|outermost| outermost.function.is_err()))
        .filter(|&i| files.debug.is_some() || names[i].iter().any(|name| name.file.is_some()))
        .collect();
    let left: Vec<u64> = nameless.iter().map(|&i| vaddrs[i]).collect();
    if !left.is_empty()
        && let Ok(symbols) = ask(blaze, main, Dwarf::No, &left, strings)
    {
        for (i, mut symbol) in nameless.into_iter().zip(symbols) {
            if let (Some(outermost), Some(symbol)) = (names[i].last_mut(), symbol.pop()) {
                outermost.function = symbol.function;
            }
        }
    }
    names
}

/// Whether DWARF is read or symbol tables only.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Dwarf {
    Yes,
    No,
}

impl Dwarf {
    /// DWARF is read where there is any, and where blazesym, following the file's links, would not open a neighbour that
    /// is no regular file: opening a FIFO that a target planted would never return.
    fn of(facts: &ElfFacts, file: &File) -> Self {
        let real_path = fd_path(file).canonicalize().unwrap_or_default();
        let mut links = facts.debug_link.iter().map(|(name, _)| name).chain(&facts.alt_link);
        let harmless = links.all(|name| {
            let neighbour = real_path.with_file_name(OsStr::from_bytes(name));
            neighbour.metadata().map_or(true, |metadata| metadata.is_file())
        });
        if facts.has_dwarf && harmless { Self::Yes } else { Self::No }
    }
}

/// A path to the very file that is open, deleted or not.
fn fd_path(file: &File) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()))
}

/// Asks blazesym for one file. The error says what is broken in it.
fn ask(
    blaze: &blaze::Symbolizer,
    file: &File,
    dwarf: Dwarf,
    vaddrs: &[u64],
    strings: &mut Interner,
) -> Result<Vec<Vec<FrameName>>, Arc<str>> {
    let mut elf = Elf::new(fd_path(file));
    elf.debug_syms = dwarf == Dwarf::Yes;
    let source = Source::Elf(elf);
    // blazesym 0.2.7 panics on some broken files (a line row with a file index out of range, a symbol that wraps around);
    // a hostile file must not end the tracer. Its caches are write-once cells, so a panic leaves none half written.
    let found = match quietly(AssertUnwindSafe(|| blaze.symbolize(&source, Input::VirtOffset(vaddrs)))) {
        Ok(found) => found.map_err(|error| Arc::from(error.to_string()))?,
        Err(_) if vaddrs.len() == 1 => return Err(Arc::from("its debug information broke the reader")),
        // One address must not cost the others their names.
        Err(_) => {
            let one = |vaddr| match ask(blaze, file, dwarf, &[vaddr], strings) {
                Ok(mut found) => found.swap_remove(0),
                Err(what) => vec![FrameName::unknown(NoSymbol::FileBroken(what))],
            };
            return Ok(vaddrs.iter().copied().map(one).collect());
        }
    };
    Ok(found
        .iter()
        .map(|found| match found {
            Symbolized::Sym(symbol) => frames(symbol, strings),
            Symbolized::Unknown(Reason::MissingSyms) => vec![FrameName::unknown(NoSymbol::Stripped)],
            Symbolized::Unknown(Reason::IgnoredError) => {
                vec![FrameName::unknown(NoSymbol::FileBroken("unreadable debug information at this address".into()))]
            }
            Symbolized::Unknown(_) => vec![FrameName::unknown(NoSymbol::NotCovered)],
        })
        .collect())
}

thread_local! {
    /// Whether this thread's panics are caught, and reported as the reason for a missing name.
    static CAUGHT: Cell<bool> = const { Cell::new(false) };
}

/// Runs `work`, catching a panic without the hook's message: the reader broke over a target's file, not we.
fn quietly<R>(work: impl FnOnce() -> R + UnwindSafe) -> std::thread::Result<R> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let usual = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if !CAUGHT.get() {
                usual(info);
            }
        }));
    });
    CAUGHT.set(true);
    let result = panic::catch_unwind(work);
    CAUGHT.set(false);
    result
}

/// One symbol's frames, the innermost inlined function first.
fn frames(symbol: &Sym<'_>, strings: &mut Interner) -> Vec<FrameName> {
    let inlined = symbol.inlined.iter().take(MAX_INLINED).map(|f| (&*f.name, f.code_info.as_ref(), true));
    let own = (&*symbol.name, symbol.code_info.as_deref(), false);
    let mut frames: Vec<FrameName> = std::iter::once(own)
        .chain(inlined)
        .map(|(function, code, inlined)| FrameName {
            function: if function.is_empty() { Err(NoSymbol::NotCovered) } else { Ok(strings.text(function)) },
            file: located(code).map(|(code, _)| strings.path(&code.to_path())),
            line: located(code).map(|(_, line)| line),
            inlined,
        })
        .collect();
    frames.reverse();
    frames
}

/// A place with a line. Line 0 is DWARF's "no line" (of compiler-made code), and the file beside it is whichever came last:
/// rustc's is often one of the standard library's.
fn located<'c, 'src>(code: Option<&'c CodeInfo<'src>>) -> Option<(&'c CodeInfo<'src>, u32)> {
    let code = code.filter(|code| !code.file.is_empty())?;
    code.line.filter(|&line| line > 0).map(|line| (code, line))
}

/// Keeps one copy of each name.
#[derive(Default)]
struct Interner {
    texts: HashSet<Arc<str>>,
    paths: HashSet<Arc<Path>>,
}

impl Interner {
    fn text(&mut self, text: &str) -> Arc<str> {
        let text = &text[..text.floor_char_boundary(MAX_NAME_BYTES)];
        if let Some(known) = self.texts.get(text) {
            return Arc::clone(known);
        }
        let new: Arc<str> = Arc::from(text);
        self.texts.insert(Arc::clone(&new));
        new
    }

    fn path(&mut self, path: &Path) -> Arc<Path> {
        let path = if path.as_os_str().len() > MAX_NAME_BYTES { Path::new("(path too long)") } else { path };
        if let Some(known) = self.paths.get(path) {
            return Arc::clone(known);
        }
        let new: Arc<Path> = Arc::from(path);
        self.paths.insert(Arc::clone(&new));
        new
    }
}
