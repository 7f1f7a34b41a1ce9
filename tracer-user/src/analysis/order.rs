//! What decides between lines of equal figures: their key, in the order in which tracemalloc compares it. A line's is its file
//! and line; a traceback's are those of its frames, the outermost first. Text is compared byte by byte, which for UTF-8 is the
//! order of Python's strings.

use std::ffi::OsStr;

use super::{
    frames::{FrameInfo, Frames, module_of},
    statistics::Statistic,
};
use crate::{
    options::Key,
    snapshot::{Home, ModuleId, Snapshot},
    symbolize::FrameName,
};

/// The order of one line among lines of equal figures; the greatest comes first.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct OrderKey<'a> {
    /// Ranks of all frames, outermost first; empty unless lines are tracebacks.
    traceback: Box<[u32]>,
    label: Label<'a>,
}

/// What a name is compared by, most important first. What is unknown is the smallest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Label<'a> {
    first: Option<&'a [u8]>,
    number: Option<u32>,
    second: Option<&'a [u8]>,
    third: Option<&'a [u8]>,
    /// Only where function, file or line is unknown: two calls on one line are the same.
    address: Option<u64>,
}

/// The rank of each name of each distinct frame among all names, by side and frame; empty unless lines are tracebacks.
pub(super) struct Ranks(Vec<Vec<Box<[u32]>>>);

impl<'a> OrderKey<'a> {
    /// The order of `line`, whose frames are in `frames` with these ranks.
    pub(super) fn new(key: Key, line: &Statistic<'a>, frames: &mut Frames<'a, '_>, ranks: &[Box<[u32]>]) -> Self {
        let mut traceback = Vec::new();
        if key == Key::Traceback {
            let mut indices = Vec::new();
            frames.index_all(&line.largest.stack, &mut indices);
            for &frame in indices.iter().rev() {
                traceback.extend(ranks[frame as usize].iter().rev());
            }
        }
        let label = match (&line.site, key) {
            (_, key) if key.is_owner() => owner(key, frames.snapshot(), line),
            (_, Key::Thread) => Label { number: line.largest.stack.thread.map(|thread| thread.0), ..Label::default() },
            (Some(site), key) => label(key, frames.snapshot(), site.name, site.module, site.address),
            (None, _) => Label::default(),
        };
        Self { traceback: traceback.into(), label }
    }
}

impl Ranks {
    /// Ranks the names of all sides together.
    pub(super) fn of(key: Key, sides: &[&Frames<'_, '_>]) -> Self {
        if key != Key::Traceback {
            return Self(sides.iter().map(|_| Vec::new()).collect());
        }
        let mut names: Vec<(Label<'_>, usize, usize, usize)> = Vec::new();
        for (side, frames) in sides.iter().enumerate() {
            for (frame, FrameInfo { names: found, module, address, .. }) in frames.infos().iter().enumerate() {
                names.extend(found.iter().enumerate().map(|(at, name)| {
                    (label(Key::Lineno, frames.snapshot(), name, *module, *address), side, frame, at)
                }));
            }
        }
        names.sort_unstable();
        let empty = |info: &FrameInfo<'_>| vec![0; info.names.len()].into_boxed_slice();
        let mut ranks: Vec<Vec<Box<[u32]>>> =
            sides.iter().map(|frames| frames.infos().iter().map(empty).collect()).collect();
        let mut rank = 0;
        let mut previous = None;
        for (label, side, frame, at) in names {
            if previous.is_some_and(|previous| previous != label) {
                rank += 1;
            }
            previous = Some(label);
            ranks[side][frame][at] = rank;
        }
        Self(ranks)
    }

    /// Those of one side, by distinct frame.
    pub(super) fn side(&self, side: usize) -> &[Box<[u32]>] {
        &self.0[side]
    }
}

/// Whose the line is.
fn owner<'a>(key: Key, snapshot: &'a Snapshot, line: &Statistic<'a>) -> Label<'a> {
    let Some(owner) = snapshot.owner(&line.largest.stack) else { return Label::default() };
    let home = match owner.home() {
        Home::Container(name) => Some(name.as_bytes()),
        Home::NotKnown | Home::Host => None,
    };
    let comm = Some(owner.command().as_bytes());
    match key {
        Key::Container => Label { first: home, ..Label::default() },
        Key::Command => Label { first: comm, ..Label::default() },
        Key::User => Label { first: owner.user().map(str::as_bytes), ..Label::default() },
        _ => Label { first: comm, number: Some(owner.pid()), second: home, ..Label::default() },
    }
}

fn label<'a>(
    key: Key,
    snapshot: &'a Snapshot,
    name: &'a FrameName,
    module: Option<ModuleId>,
    address: u64,
) -> Label<'a> {
    let module = module_of(snapshot, module).map(|module| module.path.as_os_str().as_encoded_bytes());
    let file = name.file.as_deref().map(|file| OsStr::as_encoded_bytes(file.as_os_str()));
    let function = name.function.as_deref().ok().map(str::as_bytes);
    let address = name.missing().is_some().then_some(address);
    match key {
        Key::Lineno | Key::Traceback | Key::Thread | Key::Process | Key::Container | Key::Command | Key::User => {
            Label { first: file, number: name.line, second: function, third: module, address }
        }
        Key::Filename if file.is_some() => Label { first: file, ..Label::default() },
        Key::Filename | Key::Module => Label { third: module, ..Label::default() },
        Key::Function => {
            let address = address.filter(|_| function.is_none());
            Label { first: function, number: None, second: file, third: module, address }
        }
    }
}
