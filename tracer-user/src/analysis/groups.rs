//! Stacks → lines. One set of groups can take two snapshots, of one recording or of two, so that their lines can be compared:
//! groups know modules by what makes them the same in both.

use std::{borrow::Cow, cmp::Reverse, collections::HashMap, ffi::OsStr, path::Path, sync::Arc, time::Duration};

use tracer_common::abi::StackEnd;

use super::{
    frames::{Frames, NameAt, Site},
    statistics::Statistic,
};
use crate::{
    options::{Key, ReportOptions},
    snapshot::{Domain, Home, ModuleId, Snapshot, StackId, StackStats, Tid, Totals},
    symbolize::FrameName,
};

/// A group, by its place in [`Groups`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct GroupId(u32);

/// A module as two snapshots see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct SharedModule {
    /// Equal for a module of the one snapshot and one of the other that are taken for the same.
    pub(super) id: u32,
    /// Equal where the same address means the same code as well.
    pub(super) space: Space,
    /// The other snapshot has another build of this module: an address says nothing there, but a function's name does.
    pub(super) is_rebuilt: bool,
}

/// Within what an address means something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Space(pub(super) u32);

/// One of the snapshots that are grouped.
pub(super) struct Side<'a> {
    /// The snapshot.
    pub(super) snapshot: &'a Snapshot,
    /// What its modules are, by [`ModuleId`].
    pub(super) modules: Vec<SharedModule>,
    /// What the other snapshot calls source files that this one calls otherwise.
    pub(super) files: HashMap<&'a Path, &'a Arc<Path>>,
    /// Of addresses in no known mapping.
    pub(super) unmapped: Space,
    /// Ids of threads and processes mean the same in all sides; else threads are told by their names, processes by container and
    /// command.
    pub(super) is_one_session: bool,
}

/// The space of addresses in no mapping, where there is but one process.
pub(super) const UNMAPPED: Space = Space(u32::MAX);

impl<'a> Side<'a> {
    /// A snapshot that is compared with nothing, or with another of its own recording.
    pub(super) fn alone(snapshot: &'a Snapshot) -> Self {
        let modules = (0..snapshot.modules.len() as u32)
            .map(|id| SharedModule { id, space: Space(id), is_rebuilt: false })
            .collect();
        Self { snapshot, modules, files: HashMap::new(), unmapped: UNMAPPED, is_one_session: true }
    }

    /// The file as both snapshots call it.
    fn file(&self, file: &'a Path) -> &'a Path {
        self.files.get(file).map_or(file, |other| other)
    }

    /// Names with their files as both snapshots call them.
    fn shared_names(&self, names: &'a [FrameName]) -> Cow<'a, [FrameName]> {
        let other = |name: &FrameName| self.files.get(name.file.as_deref()?).map(|other| Arc::clone(other));
        if self.files.is_empty() || names.iter().all(|name| other(name).is_none()) {
            return Cow::Borrowed(names);
        }
        let shared = |name: &FrameName| FrameName { file: other(name).or_else(|| name.file.clone()), ..name.clone() };
        Cow::Owned(names.iter().map(shared).collect())
    }

    fn module(&self, id: Option<ModuleId>) -> Option<SharedModule> {
        id.and_then(|id| self.modules.get(id.0 as usize)).copied()
    }
}

/// What stacks are grouped by.
#[derive(PartialEq, Eq, Hash)]
enum Group<'a> {
    /// File and line; 0 where the line is unknown. Between two recordings also the function: code above moves lines, and another
    /// function's line is another one.
    Line(&'a OsStr, u32, Option<&'a str>),
    File(&'a OsStr),
    /// Function, file and module.
    Function(&'a str, Option<&'a OsStr>, Option<u32>),
    Module(Option<u32>),
    /// No line, file or function is known: the call site itself.
    Address(Space, u64),
    /// [`Identity`] of each frame; a truncated stack is never a complete one.
    Traceback(Box<[u32]>, StackEnd),
    Thread(Option<Tid>),
    ThreadNamed(&'a str),
    /// Pid and the time it joined.
    Process(u32, Duration),
    /// Where and as what it runs: a process of another session.
    Program(Home<'a>, &'a str),
    Container(Home<'a>),
    Command(&'a str),
    User(Option<&'a str>),
    /// It is not known whose the stack is.
    NoOwner,
    /// The stack could not be stored.
    NoStack(StackEnd),
}

/// Equal for frames that a report cannot tell apart (two calls on one line).
#[derive(PartialEq, Eq, Hash)]
enum Identity<'a> {
    Named(Option<u32>, Cow<'a, [FrameName]>),
    Address(Space, u64),
}

/// The groups met so far.
pub(super) struct Groups<'a> {
    key: Key,
    cumulative: bool,
    /// Lines of different domains are different lines.
    known: HashMap<(Domain, Group<'a>), GroupId>,
    /// Of the stack that is being counted.
    domain: Domain,
    identities: HashMap<Identity<'a>, u32>,
}

/// The lines of one side, and which line a group is. All that a stack touches lies together: there are millions of frames to
/// count, and each line is met in no order.
struct Lines<'a, M> {
    found: Vec<Line<'a>>,
    /// By group.
    slots: Vec<Slot>,
    /// Told the place of each stack with the place of each line that it counts for.
    member: M,
}

struct Line<'a> {
    group: GroupId,
    statistic: Statistic<'a>,
    /// What the largest stack has.
    largest: Value,
}

/// Where a group's line is.
#[derive(Clone, Copy, Default)]
struct Slot {
    /// Its place in [`Lines::found`], from 1; 0: it has none yet.
    place: u32,
    /// The last stack that counted for it, from 1: recursion counts once.
    counted: u32,
}

/// What makes a stack the largest of its line: the sort's value; of equal ones the first id.
type Value = (u64, Reverse<StackId>);

/// A stack that is counted.
#[derive(Clone, Copy)]
struct Counted<'a> {
    /// From 1.
    number: u32,
    stats: &'a StackStats,
    value: Value,
}

/// What one side's distinct frames belong to in one domain, as far as it was asked for.
#[derive(Default)]
struct Known {
    groups: Vec<Box<[GroupId]>>,
    identities: Vec<Option<u32>>,
}

impl<'a> Groups<'a> {
    /// None yet.
    pub(super) fn new(key: Key, cumulative: bool) -> Self {
        Self { key, cumulative, known: HashMap::new(), domain: Domain::Heap, identities: HashMap::new() }
    }

    /// Sums the stacks of one side up, a line for each of its groups, in the order they were met.
    pub(super) fn lines(
        &mut self,
        side: &Side<'a>,
        frames: &mut Frames<'a, '_>,
        options: &ReportOptions,
    ) -> Vec<(GroupId, Statistic<'a>)> {
        self.lines_and_members(side, frames, options, |_, _| ())
    }

    /// The same; `member` is told the place of each stack in its snapshot with the place of each line that it counts for.
    pub(super) fn lines_and_members(
        &mut self,
        side: &Side<'a>,
        frames: &mut Frames<'a, '_>,
        options: &ReportOptions,
        member: impl FnMut(u32, u32),
    ) -> Vec<(GroupId, Statistic<'a>)> {
        let ReportOptions { sort, view, .. } = *options;
        let mut lines = Lines { found: Vec::new(), slots: Vec::new(), member };
        let mut of_domains = [Known::default(), Known::default()];
        let mut indices = Vec::new();
        for (number, stack) in (1..).zip(&side.snapshot.stacks) {
            frames.index_all(&stack.stack, &mut indices);
            self.domain = stack.stack.domain;
            let known = &mut of_domains[self.domain as usize];
            let value = (sort.value(view, &stack.totals), Reverse(stack.id));
            let counted = Counted { number, stats: stack, value };
            let Some(site) = frames.site_at(&indices) else {
                let group = match self.key {
                    Key::Thread => self.thread(side, stack),
                    key if key.is_owner() => self.owner(side, stack),
                    _ => self.group(Group::NoStack(stack.stack.end)),
                };
                lines.add(group, || None, counted);
                continue;
            };
            match self.key {
                Key::Traceback => {
                    let identities = indices.iter().map(|&frame| self.identity(side, frames, known, frame));
                    let group = Group::Traceback(identities.collect(), stack.stack.end);
                    lines.add(self.group(group), || Some(frames.site(site)), counted);
                }
                Key::Thread => lines.add(self.thread(side, stack), || Some(frames.site(site)), counted),
                key if key.is_owner() => lines.add(self.owner(side, stack), || Some(frames.site(site)), counted),
                _ if !self.cumulative => {
                    let group = self.of_name(side, frames, known, site);
                    lines.add(group, || Some(frames.site(site)), counted);
                }
                _ => {
                    for &frame in &indices {
                        let groups = self.of_names(side, frames, known, frame);
                        for (name, group) in (0..).zip(groups) {
                            let at = NameAt { frame, name, is_plumbing: false };
                            lines.add(*group, || Some(frames.site(at)), counted);
                        }
                    }
                }
            }
        }
        lines.found.into_iter().map(|line| (line.group, line.statistic)).collect()
    }

    fn group(&mut self, group: Group<'a>) -> GroupId {
        let next = GroupId(self.known.len() as u32);
        *self.known.entry((self.domain, group)).or_insert(next)
    }

    fn thread(&mut self, side: &Side<'a>, stack: &StackStats) -> GroupId {
        let thread = stack.stack.thread;
        let name = thread.and_then(|thread| side.snapshot.threads.get(&thread));
        self.group(match name {
            Some(name) if !side.is_one_session => Group::ThreadNamed(name),
            _ => Group::Thread(thread),
        })
    }

    fn owner(&mut self, side: &Side<'a>, stack: &StackStats) -> GroupId {
        let group = side.snapshot.owner(&stack.stack).map(|owner| match self.key {
            Key::Container => Group::Container(owner.home()),
            Key::Command => Group::Command(owner.command()),
            Key::User => Group::User(owner.user()),
            // The sum of several has no pid.
            _ if side.is_one_session && owner.pid() != 0 => Group::Process(owner.pid(), owner.joined_at()),
            _ => Group::Program(owner.home(), owner.command()),
        });
        self.group(group.unwrap_or(Group::NoOwner))
    }

    /// The group of a name.
    fn of_name(&mut self, side: &Side<'a>, frames: &Frames<'a, '_>, known: &mut Known, at: NameAt) -> GroupId {
        self.of_names(side, frames, known, at.frame)[at.name as usize]
    }

    /// The groups of all names of a distinct frame.
    fn of_names<'k>(
        &mut self,
        side: &Side<'a>,
        frames: &Frames<'a, '_>,
        known: &'k mut Known,
        frame: u32,
    ) -> &'k [GroupId] {
        let at = frame as usize;
        if known.groups.len() <= at {
            known.groups.resize(frames.infos().len(), Box::default());
        }
        // A frame has a name at least.
        if known.groups[at].is_empty() {
            let names = 0..frames.infos()[at].names.len() as u32;
            let sites = names.map(|name| frames.site(NameAt { frame, name, is_plumbing: false }));
            known.groups[at] = sites.map(|site| self.group(self.name_group(side, &site))).collect();
        }
        &known.groups[at]
    }

    fn name_group(&self, side: &Side<'a>, site: &Site<'a>) -> Group<'a> {
        let module = side.module(site.module);
        let id = module.map(|module| module.id);
        let space = module.map_or(side.unmapped, |module| module.space);
        let address = || Group::Address(space, site.address);
        let file = site.name.file.as_deref().map(|file| side.file(file).as_os_str());
        let function = site.name.function.as_deref().ok();
        match self.key {
            Key::Filename => file.map_or(Group::Module(id), Group::File),
            Key::Function => function.map_or_else(address, |function| Group::Function(function, file, id)),
            Key::Module => Group::Module(id),
            _ => match (file, function, module) {
                (Some(file), ..) => {
                    Group::Line(file, site.name.line.unwrap_or(0), function.filter(|_| !side.is_one_session))
                }
                (None, Some(function), Some(module)) if module.is_rebuilt => Group::Function(function, None, id),
                _ => address(),
            },
        }
    }

    /// The identity of a distinct frame.
    fn identity(&mut self, side: &Side<'a>, frames: &Frames<'a, '_>, known: &mut Known, frame: u32) -> u32 {
        let at = frame as usize;
        if known.identities.len() <= at {
            known.identities.resize(at + 1, None);
        }
        if let Some(identity) = known.identities[at] {
            return identity;
        }
        let info = &frames.infos()[at];
        let module = side.module(info.module);
        let is_named = if module.is_some_and(|module| module.is_rebuilt) {
            info.names.iter().all(|name| name.function.is_ok())
        } else {
            info.names.iter().all(|name| name.missing().is_none())
        };
        let identity = if is_named {
            Identity::Named(module.map(|module| module.id), side.shared_names(info.names))
        } else {
            Identity::Address(module.map_or(side.unmapped, |module| module.space), info.address)
        };
        let next = self.identities.len() as u32;
        let identity = *self.identities.entry(identity).or_insert(next);
        known.identities[at] = Some(identity);
        identity
    }
}

impl<'a, M: FnMut(u32, u32)> Lines<'a, M> {
    /// Counts a stack for a group, if it did not yet.
    fn add(&mut self, group: GroupId, site: impl Fn() -> Option<Site<'a>>, stack: Counted<'a>) {
        let at = group.0 as usize;
        if self.slots.len() <= at {
            self.slots.resize(at + 1, Slot::default());
        }
        let slot = &mut self.slots[at];
        if slot.counted == stack.number {
            return;
        }
        slot.counted = stack.number;
        if slot.place == 0 {
            let statistic = Statistic { site: site(), totals: Totals::default(), n_stacks: 0, largest: stack.stats };
            self.found.push(Line { group, statistic, largest: stack.value });
            slot.place = self.found.len() as u32;
        }
        (self.member)(stack.number - 1, slot.place - 1);
        let line = &mut self.found[slot.place as usize - 1];
        line.statistic.totals.add(&stack.stats.totals);
        line.statistic.n_stacks += 1;
        if stack.value > line.largest {
            line.largest = stack.value;
            line.statistic.largest = stack.stats;
            line.statistic.site = site();
        }
    }
}
