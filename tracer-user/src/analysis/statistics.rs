//! Groups the stacks of a snapshot by what a report's lines stand for, as `tracemalloc.Snapshot.statistics` does.

use std::{cmp::Ordering, collections::HashMap, path::Path, sync::Arc};

use tracer_common::{
    abi::StackEnd,
    addr::{FileVaddr, UserAddr},
};

use crate::{
    options::{Key, ReportOptions, Sort},
    snapshot::{Frame, Module, ModuleId, Snapshot, StackStats, Totals},
    symbolize::{
        Attribution, FrameName, Names, Place,
        attribute::{Candidate, Fallback},
    },
};

/// The lines of a report, borrowed from the snapshot and its names.
#[derive(Clone, Debug)]
pub struct Statistics<'a> {
    /// What lines stand for.
    pub key: Key,
    /// What they are sorted by.
    pub sort: Sort,
    /// Lines of at least the smallest size asked for, in the order of the report.
    pub lines: Vec<Statistic<'a>>,
    /// Lines below it.
    pub small: Rest,
    /// The names that tracebacks are printed with.
    pub names: &'a Names,
}

/// Lines that are only summed up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rest {
    /// How many.
    pub n_lines: usize,
    /// Their sum.
    pub totals: Totals,
}

/// One line: all stacks of one site, file, function, module or traceback.
#[derive(Clone, Copy, Debug)]
pub struct Statistic<'a> {
    /// The site of [`largest`](Self::largest); with coarser keys only the part that is the key is common to all stacks.
    /// `None`: the stack could not be stored.
    pub site: Option<Site<'a>>,
    /// Sums over the stacks.
    pub totals: Totals,
    /// Number of stacks summed.
    pub n_stacks: usize,
    /// The stack with the highest value of what lines are sorted by.
    pub largest: &'a StackStats,
}

/// Where a stack is attributed.
#[derive(Clone, Copy, Debug)]
pub struct Site<'a> {
    /// Function, file and line.
    pub name: &'a FrameName,
    /// The module; `None`: in no known mapping.
    pub module: Option<ModuleId>,
    /// The vaddr that names were looked up by; the run-time address where there is no module.
    pub address: u64,
    /// Every frame of the stack was plumbing; this is the best of them.
    pub is_plumbing: bool,
}

impl Site<'_> {
    /// The module's record.
    pub fn module<'s>(&self, snapshot: &'s Snapshot) -> Option<&'s Module> {
        module_of(snapshot, self.module)
    }

    /// Module and address.
    pub fn place<'s>(&self, snapshot: &'s Snapshot) -> Place<'s> {
        Place { module: self.module(snapshot), address: self.address }
    }
}

/// The record of a module.
pub fn module_of(snapshot: &Snapshot, id: Option<ModuleId>) -> Option<&Module> {
    id.and_then(|id| snapshot.modules.get(id.0 as usize)).map(Arc::as_ref)
}

impl Sort {
    /// The value that a line is sorted by: bytes, or blocks for [`Sort::Count`].
    pub const fn value(self, totals: &Totals) -> u64 {
        match self {
            Self::Size => totals.current_bytes,
            Self::Count => totals.current_count,
            Self::Peak => totals.peak_bytes,
            Self::Allocated => totals.allocated_bytes,
        }
    }

    /// The bytes that [`ReportOptions::min_size`] is compared with.
    const fn bytes(self, totals: &Totals) -> u64 {
        match self {
            Self::Count => totals.current_bytes,
            other => other.value(totals),
        }
    }
}

/// Groups, sums and sorts the stacks of `snapshot`.
pub fn statistics<'a>(
    snapshot: &'a Snapshot,
    names: &'a Names,
    attribution: &Attribution,
    options: &ReportOptions,
) -> Statistics<'a> {
    let mut frames = Frames::empty(snapshot, names, attribution);
    let mut groups: HashMap<Group<'a>, usize> = HashMap::new();
    let mut lines: Vec<Statistic<'a>> = Vec::new();
    let mut indices = Vec::new();
    for stack in &snapshot.stacks {
        indices.clear();
        indices.extend(stack.stack.frames.iter().map(|frame| frames.index(frame)));
        let site = frames.site(&indices);
        let group = frames.group(options.key, site.as_ref(), &indices, stack.stack.end);
        let line = *groups.entry(group).or_insert_with(|| {
            lines.push(Statistic { site, totals: Totals::default(), n_stacks: 0, largest: stack });
            lines.len() - 1
        });
        let line = &mut lines[line];
        line.totals.add(&stack.totals);
        line.n_stacks += 1;
        let value = |stack: &StackStats| (options.sort.value(&stack.totals), std::cmp::Reverse(stack.id));
        if value(stack) > value(line.largest) {
            line.largest = stack;
            line.site = site;
        }
    }
    drop(groups);

    lines.sort_unstable_by(|a, b| order(options, snapshot, a, b));
    let n_large = lines.iter().filter(|line| options.sort.bytes(&line.totals) >= options.min_size).count();
    let mut small = Rest::default();
    if n_large < lines.len() {
        lines.retain(|line| {
            let large = options.sort.bytes(&line.totals) >= options.min_size;
            if !large {
                small.add(line);
            }
            large
        });
    }
    Statistics { key: options.key, sort: options.sort, lines, small, names }
}

/// The order of a report: the sort's value, size and count, largest first; then the name. The stack's id makes it total.
fn order<'a>(options: &ReportOptions, snapshot: &'a Snapshot, a: &Statistic<'a>, b: &Statistic<'a>) -> Ordering {
    let numbers =
        |line: &Statistic<'a>| (options.sort.value(&line.totals), line.totals.current_bytes, line.totals.current_count);
    let path = |line: &Statistic<'a>| {
        let site = line.site?;
        module_of(snapshot, site.module).map(|module| module.path.as_path())
    };
    let function = |line: &Statistic<'a>| {
        let name: &'a FrameName = line.site?.name;
        name.function.as_deref().ok()
    };
    let file = |line: &Statistic<'a>| {
        let name: &'a FrameName = line.site?.name;
        // Lines with a file stand before those without.
        Some((name.file.is_none(), name.file.as_deref(), name.line))
    };
    let by_name = match options.key {
        Key::Lineno | Key::Filename | Key::Traceback => {
            file(a).cmp(&file(b)).then_with(|| function(a).cmp(&function(b))).then_with(|| path(a).cmp(&path(b)))
        }
        Key::Function => function(a).cmp(&function(b)).then_with(|| path(a).cmp(&path(b))),
        Key::Module | Key::Thread => path(a).cmp(&path(b)),
    };
    let address = |line: &Statistic<'a>| line.site.map(|site| site.address);
    numbers(b)
        .cmp(&numbers(a))
        .then(by_name)
        .then_with(|| address(a).cmp(&address(b)))
        .then_with(|| a.largest.id.cmp(&b.largest.id))
}

impl Rest {
    /// Adds a line.
    pub fn add(&mut self, line: &Statistic<'_>) {
        self.n_lines += 1;
        self.totals.add(&line.totals);
    }
}

/// What stacks are grouped by.
#[derive(PartialEq, Eq, Hash)]
enum Group<'a> {
    /// File and line; 0 where the line is unknown.
    Line(&'a Path, u32),
    File(&'a Path),
    Function(&'a str, Option<&'a Path>, Option<ModuleId>),
    Module(Option<ModuleId>),
    /// No line, file or function is known: the call site itself.
    Address(Option<ModuleId>, u64),
    /// [`FrameInfo::identity`] of each frame; a truncated stack is never a complete one.
    Traceback(Box<[u32]>, StackEnd),
    /// The stack could not be stored.
    NoStack(StackEnd),
}

/// What is known of each distinct frame, judged once.
struct Frames<'a, 's> {
    snapshot: &'a Snapshot,
    names: &'a Names,
    attribution: &'s Attribution,
    indices: HashMap<Result<(ModuleId, FileVaddr), UserAddr>, u32>,
    infos: Vec<FrameInfo<'a>>,
    identities: HashMap<Identity<'a>, u32>,
}

struct FrameInfo<'a> {
    names: &'a [FrameName],
    module: Option<ModuleId>,
    address: u64,
    candidate: Candidate,
    /// Equal for frames that a report cannot tell apart (two calls on one line).
    identity: u32,
}

#[derive(PartialEq, Eq, Hash)]
enum Identity<'a> {
    Named(Option<ModuleId>, &'a [FrameName]),
    Address(Option<ModuleId>, u64),
}

impl<'a, 's> Frames<'a, 's> {
    fn empty(snapshot: &'a Snapshot, names: &'a Names, attribution: &'s Attribution) -> Self {
        Self { snapshot, names, attribution, indices: HashMap::new(), infos: Vec::new(), identities: HashMap::new() }
    }

    /// The index in `infos` of a frame.
    fn index(&mut self, frame: &Frame) -> u32 {
        let key = frame.location.ok_or(frame.addr.lookup());
        if let Some(&known) = self.indices.get(&key) {
            return known;
        }
        let (module, address) = match key {
            Ok((module, vaddr)) => (Some(module), vaddr.0),
            Err(address) => (None, address.0),
        };
        let names: &'a [FrameName] = self.names.of(frame);
        let identity = if names.iter().all(|name| name.missing().is_none()) {
            Identity::Named(module, names)
        } else {
            Identity::Address(module, address)
        };
        let next = self.identities.len() as u32;
        let identity = *self.identities.entry(identity).or_insert(next);
        let candidate = self.attribution.judge(module_of(self.snapshot, module), names);
        let index = self.infos.len() as u32;
        self.infos.push(FrameInfo { names, module, address, candidate, identity });
        self.indices.insert(key, index);
        index
    }

    /// The site of a stack: its innermost name that is not plumbing; failing that, the best frame there is.
    fn site(&self, stack: &[u32]) -> Option<Site<'a>> {
        let infos = || stack.iter().map(|&index| &self.infos[index as usize]);
        if let Some((info, at)) = infos().find_map(|info| info.candidate.site.map(|at| (info, at))) {
            return Some(info.site(info.names.get(at)?, false));
        }
        let mut best: Option<(&FrameInfo<'a>, Fallback)> = None;
        for info in infos() {
            if best.is_none_or(|(_, rank)| info.candidate.fallback > rank) {
                best = Some((info, info.candidate.fallback));
            }
        }
        let (info, _) = best?;
        // Of names inlined into each other, the outermost is the nearest to the program's own code.
        Some(info.site(info.names.last()?, true))
    }

    fn group(&self, key: Key, site: Option<&Site<'a>>, stack: &[u32], end: StackEnd) -> Group<'a> {
        let Some(site) = site else { return Group::NoStack(end) };
        let address = Group::Address(site.module, site.address);
        let file: Option<&'a Path> = site.name.file.as_deref();
        match key {
            Key::Lineno => file.map_or(address, |file| Group::Line(file, site.name.line.unwrap_or(0))),
            Key::Filename => file.map_or(Group::Module(site.module), Group::File),
            Key::Function => match &site.name.function {
                Ok(function) => Group::Function(function, file, site.module),
                Err(_) => address,
            },
            Key::Module | Key::Thread => Group::Module(site.module),
            Key::Traceback => {
                Group::Traceback(stack.iter().map(|&index| self.infos[index as usize].identity).collect(), end)
            }
        }
    }
}

impl<'a> FrameInfo<'a> {
    const fn site(&self, name: &'a FrameName, is_plumbing: bool) -> Site<'a> {
        Site { name, module: self.module, address: self.address, is_plumbing }
    }
}

#[cfg(test)]
mod tests {
    use tracer_common::addr::FrameAddr;

    use super::*;
    use crate::{
        snapshot::{ModuleKind, Stack, StackId},
        symbolize::NoSymbol,
    };

    /// The site of one stack of frames `(module, function)`, innermost first.
    fn site_of(frames: &[(&str, &str)]) -> String {
        let mut names = Names::default();
        let mut modules = Vec::new();
        let mut stack = Vec::new();
        for (n, &(path, function)) in (0..).zip(frames) {
            modules.push(Arc::new(Module {
                kind: ModuleKind::File,
                path: path.into(),
                open_path: path.into(),
                deleted: false,
                build_id: None,
                mappings: Vec::new(),
            }));
            let function = if function.is_empty() { Err(NoSymbol::Stripped) } else { Ok(function.into()) };
            let name = FrameName { function, ..FrameName::unknown(NoSymbol::Stripped) };
            names.insert(ModuleId(n), FileVaddr(1), [name].as_slice().into());
            stack.push(Frame { addr: FrameAddr::Return(UserAddr(2)), location: Some((ModuleId(n), FileVaddr(1))) });
        }
        let snapshot = Snapshot {
            modules,
            stacks: vec![StackStats {
                id: StackId(1),
                stack: Arc::new(Stack { frames: stack, end: StackEnd::Root, thread: None }),
                totals: Totals::default(),
            }],
            ..Snapshot::default()
        };
        let attribution = Attribution::new(&[], false).expect("no patterns of a user");
        let found = statistics(&snapshot, &names, &attribution, &ReportOptions::default());
        let site = found.lines[0].site.expect("the stack has frames");
        site.name.function.as_deref().unwrap_or("?").to_owned()
    }

    const LIBC: &str = "/lib/libc.so.6";
    const LIBSTDCXX: &str = "/lib/libstdc++.so.6";
    const LD: &str = "/lib64/ld-linux-x86-64.so.2";
    const APP: &str = "/usr/bin/app";

    #[test]
    fn the_site_is_the_innermost_frame_that_is_not_plumbing() {
        assert_eq!(site_of(&[(LIBC, "fopen"), (APP, "xmalloc"), (APP, "load"), (APP, "main")]), "load");
        assert_eq!(site_of(&[(LIBSTDCXX, "operator new(unsigned long)"), (APP, ""), (APP, "main")]), "?");
    }

    #[test]
    fn the_pool_of_libstdcxx_is_its_own_and_not_the_loaders() {
        let stack = [(LIBSTDCXX, "pool"), (LD, "call_init"), (LD, "_dl_init"), (LD, "_dl_start_user")];
        assert_eq!(site_of(&stack), "pool");
    }

    #[test]
    fn what_libc_does_before_main_is_not_the_start_of_the_program() {
        assert_eq!(
            site_of(&[(LIBC, "init_cacheinfo"), (LIBC, "__libc_start_main"), (APP, "_start")]),
            "init_cacheinfo"
        );
    }

    #[test]
    fn a_wrapper_of_the_program_stands_before_the_libraries_around_it() {
        assert_eq!(site_of(&[(LIBC, "strdup"), (APP, "xstrdup"), (LIBC, "__libc_start_main")]), "xstrdup");
    }
}
