//! The one walk that all formats share: a stack → its frames with their texts, outermost first, inlined functions as frames of
//! their own, and a root that says why a truncated stack has no other.

use std::{collections::HashMap, rc::Rc};

use tracer_common::{
    abi::StackEnd,
    addr::{FileVaddr, UserAddr},
};

use super::text;
use crate::{
    analysis::statistics::module_of,
    options::Key,
    report::{format::path_text, owner::home},
    snapshot::{Frame, Home, ModuleId, Owner, ProcessId, Snapshot, StackStats, Tid},
    symbolize::{Names, Place},
};

/// A frame that stands for something in the target, or for the lack of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ExportFrame {
    /// Function, safe to print; what has none is called by its place: `libfoo.so+0x1f30`.
    pub function: String,
    /// Whether the function's name is known.
    pub is_named: bool,
    /// Source file, safe to print, bytes that are no UTF-8 as `\xNN`.
    pub file: Option<String>,
    /// Line of the call, from 1.
    pub line: Option<u32>,
    /// The module; `None`: in no known mapping, or no frame of the target's.
    pub module: Option<ModuleId>,
    /// Which address of [`Walk::addresses`] the frame lies at. `None`: no frame of the target's.
    pub address: Option<usize>,
    /// A thread's root: no code.
    pub thread: Option<Tid>,
}

/// An address that frames lie at.
#[derive(Clone, Debug)]
pub(super) struct Address {
    /// Inside the call, as the target saw it when it was first met.
    pub run_time: UserAddr,
    /// The same in its module.
    pub location: Option<(ModuleId, FileVaddr)>,
    /// Its frames, innermost first; indices of [`Walk::frames`].
    pub frames: Vec<u32>,
}

/// Frames and addresses of the stacks walked so far, each once.
pub(super) struct Walk<'a> {
    snapshot: &'a Snapshot,
    names: &'a Names,
    by_key: HashMap<Result<(ModuleId, FileVaddr), UserAddr>, usize>,
    roots: HashMap<Root, u32>,
    /// By what processes stand at roots, where they do.
    owners: Option<Owners>,
    of_owner: HashMap<Option<ProcessId>, Rc<str>>,
    /// All frames met.
    pub frames: Vec<ExportFrame>,
    /// All addresses met.
    pub addresses: Vec<Address>,
}

/// What tells processes apart at the roots of stacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Owners {
    /// Pid, command and container.
    Process,
    /// Command and container: what processes of two sessions can share.
    Program,
    /// What the key says.
    Key(Key),
}

/// What stands below a stack's own frames.
#[derive(Clone, PartialEq, Eq, Hash)]
enum Root {
    Truncated(StackEnd),
    NotStored,
    Thread(Option<Tid>),
    /// Of a process, container, command or user.
    Owner(Rc<str>),
}

/// A stack's place in a [`Walk`]: what stands at its root, and its addresses, outermost first.
#[derive(Clone, Debug, Default)]
pub(super) struct Walked {
    /// Indices of [`Walk::frames`].
    pub roots: Vec<u32>,
    /// Indices of [`Walk::addresses`].
    pub addresses: Vec<usize>,
}

impl<'a> Walk<'a> {
    /// Walks stacks of `snapshot`.
    pub fn new(snapshot: &'a Snapshot, names: &'a Names) -> Self {
        Self {
            snapshot,
            names,
            by_key: HashMap::new(),
            roots: HashMap::new(),
            owners: None,
            of_owner: HashMap::new(),
            frames: Vec::new(),
            addresses: Vec::new(),
        }
    }

    /// The same; whose a stack is stands at its root.
    pub fn with_owners(snapshot: &'a Snapshot, names: &'a Names, owners: Option<Owners>) -> Self {
        Self { owners, ..Self::new(snapshot, names) }
    }

    /// Finds a stack's frames; with [`Key::Thread`] the thread stands at the root.
    pub fn stack(&mut self, stats: &StackStats, key: Key, walked: &mut Walked) {
        walked.roots.clear();
        walked.addresses.clear();
        let stack = &stats.stack;
        if let Some(owners) = self.owners {
            let snapshot = self.snapshot;
            let label =
                self.of_owner.entry(stack.process).or_insert_with(|| owner_label(snapshot.owner(stack), owners).into());
            let label = Rc::clone(label);
            walked.roots.push(self.root(Root::Owner(label)));
        }
        if key == Key::Thread {
            walked.roots.push(self.root(Root::Thread(stack.thread)));
        }
        match stack.end {
            StackEnd::Root if stack.frames.is_empty() => walked.roots.push(self.root(Root::NotStored)),
            StackEnd::Root => {}
            end => walked.roots.push(self.root(Root::Truncated(end))),
        }
        walked.addresses.extend(stack.frames.iter().rev().map(|frame| self.address(frame)));
    }

    /// All frames of a stack, outermost first.
    pub fn frames_of<'w>(&'w self, walked: &'w Walked) -> impl Iterator<Item = u32> + 'w {
        let of_address = |&address: &usize| self.addresses[address].frames.iter().rev().copied();
        walked.roots.iter().copied().chain(walked.addresses.iter().flat_map(of_address))
    }

    fn root(&mut self, root: Root) -> u32 {
        if let Some(&known) = self.roots.get(&root) {
            return known;
        }
        let (function, thread) = match &root {
            Root::Owner(label) => (label.to_string(), None),
            Root::Truncated(end) => (format!("[truncated: {}]", end.reason().unwrap_or("?")), None),
            Root::NotStored => ("[stack not stored]".to_owned(), None),
            Root::Thread(None) => ("[thread not known]".to_owned(), None),
            Root::Thread(Some(tid)) => {
                let name = self.snapshot.threads.get(tid).map(|name| format!(" {}", text(name))).unwrap_or_default();
                (format!("[thread {tid}{name}]"), Some(*tid))
            }
        };
        let index = self.frames.len() as u32;
        let root_frame =
            ExportFrame { function, is_named: true, file: None, line: None, module: None, address: None, thread };
        self.frames.push(root_frame);
        self.roots.insert(root, index);
        index
    }

    fn address(&mut self, frame: &Frame) -> usize {
        let run_time = frame.addr.lookup();
        let key = frame.location.ok_or(run_time);
        let index = self.addresses.len();
        match self.by_key.entry(key) {
            std::collections::hash_map::Entry::Occupied(known) => return *known.get(),
            std::collections::hash_map::Entry::Vacant(free) => free.insert(index),
        };
        let module_id = frame.location.map(|(module, _)| module);
        let module = module_of(self.snapshot, module_id);
        let address = frame.location.map_or(run_time.0, |(_, vaddr)| vaddr.0);
        let first = self.frames.len() as u32;
        for name in self.names.of(frame).iter() {
            let function = name.function.as_deref();
            self.frames.push(ExportFrame {
                is_named: function.is_ok(),
                function: function.map_or_else(|_| text(&Place { module, address }.to_string()), text),
                file: name.file.as_deref().map(|file| text(&path_text(file))),
                line: name.line,
                module: module_id,
                address: Some(index),
                thread: None,
            });
        }
        let frames = (first..self.frames.len() as u32).collect();
        self.addresses.push(Address { run_time, location: frame.location, frames });
        index
    }
}

/// `[pid 4711 nginx, container web]`.
fn owner_label(owner: Option<Owner<'_>>, owners: Owners) -> String {
    let Some(owner) = owner else { return "[process not known]".to_owned() };
    let container = |owner: Owner<'_>| match owner.home() {
        Home::Container(name) => format!(", container {}", text(name)),
        Home::NotKnown | Home::Host => String::new(),
    };
    match owners {
        Owners::Process if owner.pid() != 0 => {
            format!("[pid {} {}{}]", owner.pid(), text(owner.comm()), container(owner))
        }
        Owners::Key(Key::Container) => format!("[{}]", home(owner.home())),
        Owners::Key(Key::User) => format!("[user {}]", owner.user().map_or_else(|| "not recorded".to_owned(), text)),
        Owners::Key(Key::Command) => format!("[{}]", text(owner.command())),
        Owners::Process => format!("[{}{}]", text(owner.comm()), container(owner)),
        Owners::Program | Owners::Key(_) => format!("[{}{}]", text(owner.command()), container(owner)),
    }
}
