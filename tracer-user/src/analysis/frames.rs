//! The distinct frames of a snapshot, each named and judged once, and the site of a stack.

use std::{collections::HashMap, sync::Arc};

use tracer_common::addr::{FileVaddr, UserAddr};

use crate::{
    snapshot::{Frame, Module, ModuleId, Snapshot, Stack},
    symbolize::{
        Attribution, FrameName, Names, Place,
        attribute::{Candidate, Fallback},
    },
};

/// Where a stack is attributed.
#[derive(Clone, Copy, Debug)]
pub struct Site<'a> {
    /// Function, file and line.
    pub name: &'a FrameName,
    /// The module; `None`: in no known mapping.
    pub module: Option<ModuleId>,
    /// The vaddr that names were looked up by; the run-time address where there is no module.
    pub address: u64,
    /// Every frame of the stack was plumbing; this is the best of them. Never set where every frame counts.
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

/// What is known of each distinct frame of a snapshot.
pub(super) struct Frames<'a, 's> {
    snapshot: &'a Snapshot,
    names: &'a Names,
    attribution: &'s Attribution,
    indices: HashMap<Result<(ModuleId, FileVaddr), UserAddr>, u32>,
    infos: Vec<FrameInfo<'a>>,
}

/// One distinct frame.
pub(super) struct FrameInfo<'a> {
    /// Its names, the innermost inlined function first; never empty.
    pub(super) names: &'a [FrameName],
    /// Its module.
    pub(super) module: Option<ModuleId>,
    /// As in [`Site`].
    pub(super) address: u64,
    candidate: Candidate,
}

/// A name of a distinct frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NameAt {
    /// Index of the distinct frame.
    pub(super) frame: u32,
    /// Index of the name among the frame's.
    pub(super) name: u32,
    /// As in [`Site`].
    pub(super) is_plumbing: bool,
}

impl<'a, 's> Frames<'a, 's> {
    /// Of no frame yet.
    pub(super) fn empty(snapshot: &'a Snapshot, names: &'a Names, attribution: &'s Attribution) -> Self {
        Self { snapshot, names, attribution, indices: HashMap::new(), infos: Vec::new() }
    }

    /// Where the frames are from.
    pub(super) const fn snapshot(&self) -> &'a Snapshot {
        self.snapshot
    }

    /// The frames met so far, by index.
    pub(super) fn infos(&self) -> &[FrameInfo<'a>] {
        &self.infos
    }

    /// Replaces `indices` by those of a stack's frames, innermost first.
    pub(super) fn index_all(&mut self, stack: &Stack, indices: &mut Vec<u32>) {
        indices.clear();
        indices.extend(stack.frames.iter().map(|frame| self.index(frame)));
    }

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
        let candidate = self.attribution.judge(module_of(self.snapshot, module), names);
        let index = self.infos.len() as u32;
        self.infos.push(FrameInfo { names, module, address, candidate });
        self.indices.insert(key, index);
        index
    }

    /// Where a stack's site is: its innermost name that is not plumbing; failing that, the best frame there is.
    pub(super) fn site_at(&self, stack: &[u32]) -> Option<NameAt> {
        let info = |frame: u32| &self.infos[frame as usize];
        for &frame in stack {
            if let Some(name) = info(frame).candidate.site {
                return Some(NameAt { frame, name: name as u32, is_plumbing: false });
            }
        }
        let mut best: Option<(u32, Fallback)> = None;
        for &frame in stack {
            let fallback = info(frame).candidate.fallback;
            if best.is_none_or(|(_, rank)| fallback > rank) {
                best = Some((frame, fallback));
            }
        }
        let (frame, _) = best?;
        // Of names inlined into each other, the outermost is the nearest to the program's own code.
        Some(NameAt { frame, name: info(frame).names.len() as u32 - 1, is_plumbing: true })
    }

    /// What is there.
    pub(super) fn site(&self, at: NameAt) -> Site<'a> {
        let info = &self.infos[at.frame as usize];
        let name = &info.names[at.name as usize];
        Site { name, module: info.module, address: info.address, is_plumbing: at.is_plumbing }
    }
}
