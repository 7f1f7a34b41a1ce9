//! One address space: disjoint intervals of anonymous memory, each a piece of the block that one call mapped.

use std::{collections::BTreeMap, ops::Range};

use tracer_common::abi::Lifetime;

use super::{
    account::Change,
    call::{Call, Operation},
};

/// Bytes of a page on x86-64.
pub const PAGE_BYTES: u64 = 4096;

/// Replacements remembered while the unmapping that made room for them may still come; each is one call in flight.
const MAX_REPLACED: usize = 1024;

/// The anonymous memory of one process.
#[derive(Clone, Debug, Default)]
pub struct AddressSpace {
    /// By their first address; disjoint.
    pieces: BTreeMap<u64, Piece>,
    blocks: Blocks,
    /// End of the data segment, a whole page; `None`: not known.
    break_end: Option<u64>,
    /// What was ended because its address was mapped again.
    replaced: Vec<Replaced>,
    noted: Noted,
}

/// What was met beside the totals.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Noted {
    /// Ranges mapped again while still held for mapped, whose unmapping was never seen.
    pub missed_unmaps: u64,
    /// mremap calls on memory that is not known; what they map is not counted.
    pub remaps_unknown: u64,
    /// brk calls before the end of the data segment was known; what they map is not counted.
    pub breaks_unknown: u64,
}

impl Noted {
    /// Adds another's.
    pub fn add(&mut self, other: Self) {
        self.missed_unmaps += other.missed_unmaps;
        self.remaps_unknown += other.remaps_unknown;
        self.breaks_unknown += other.breaks_unknown;
    }
}

#[derive(Clone, Copy, Debug)]
struct Piece {
    end: u64,
    block: u32,
}

/// What one call mapped.
#[derive(Clone, Copy, Debug)]
struct Block {
    /// The stack that mapped it; `None`: inherited from the process that this one was forked from.
    stack: Option<u32>,
    /// When the call that mapped it returned: CLOCK_MONOTONIC, ns.
    born_ns: u64,
    /// Bytes of all its pieces.
    left_bytes: u64,
}

#[derive(Clone, Debug)]
struct Replaced {
    range: Range<u64>,
    /// When the call that took its place returned: an unmapping entered later is of something else.
    until_ns: u64,
}

/// Which of the pieces in a range a call ends.
#[derive(Clone, Copy)]
enum Which {
    /// Those mapped before this time.
    BornBefore(u64),
    All,
}

impl AddressSpace {
    /// That of a process just forked from this one's.
    #[must_use]
    pub fn forked(&self) -> Self {
        let mut blocks = self.blocks.clone();
        blocks.all.iter_mut().for_each(|block| block.stack = None);
        Self { pieces: self.pieces.clone(), blocks, break_end: self.break_end, ..Self::default() }
    }

    /// Where the data segment ends, from another source than its calls, which know better.
    pub fn know_break(&mut self, end: u64) {
        self.break_end.get_or_insert(end);
    }

    /// What was met beside the totals.
    pub fn noted(&self) -> Noted {
        Noted { missed_unmaps: self.noted.missed_unmaps + self.replaced.len() as u64, ..self.noted }
    }

    /// The mapped ranges with the stacks that mapped them, ascending; without those that were inherited.
    pub fn ranges(&self) -> impl Iterator<Item = (Range<u64>, u32)> + '_ {
        self.pieces.iter().filter_map(|(start, piece)| Some((*start..piece.end, self.blocks.get(piece.block).stack?)))
    }

    /// Bytes and blocks still mapped that were inherited.
    pub fn inherited(&self) -> (u64, u64) {
        let inherited = self.blocks.all.iter().filter(|block| block.stack.is_none() && block.left_bytes > 0);
        inherited.fold((0, 0), |(bytes, count), block| (bytes + block.left_bytes, count + 1))
    }

    /// Applies a call; what it changed is appended to `changes`, one step of the totals.
    pub fn apply(&mut self, call: &Call, changes: &mut Vec<Change>) {
        match call.operation {
            Operation::Map { start, bytes, anonymous, fixed } => {
                self.make_room(start..start.saturating_add(bytes), fixed, call, changes);
                if anonymous {
                    self.born(start, bytes, call, changes);
                }
            }
            Operation::Unmap { start, bytes } => self.unmap(start..start.saturating_add(bytes), call, changes),
            Operation::Remap { old_start, old_bytes, start, bytes, keeps_old, fixed } => {
                let old = old_start..old_start.saturating_add(old_bytes);
                // All of what mremap takes is one mapping of the kernel's: where a part of it is anonymous, all is.
                let is_known = self.was_mapped(&(old_start..old.end.max(old_start + 1)), call.entered_ns);
                if !keeps_old {
                    self.unmap(old, call, changes);
                }
                self.make_room(start..start.saturating_add(bytes), fixed, call, changes);
                if is_known {
                    self.born(start, bytes, call, changes);
                } else if !call.inside_allocator {
                    self.noted.remaps_unknown += 1;
                }
            }
            Operation::Break { end } => match self.break_end.replace(end) {
                Some(before) if before < end => {
                    self.make_room(before..end, false, call, changes);
                    self.born(before, end - before, call, changes);
                }
                Some(before) => self.unmap(end..before, call, changes),
                None if call.inside_allocator => {}
                None => self.noted.breaks_unknown += 1,
            },
            Operation::GiveBack { start, bytes } => {
                let range = start..start.saturating_add(bytes);
                for (piece, block) in self.overlapping(&range, Which::BornBefore(call.entered_ns)) {
                    let bytes = piece.end.min(range.end) - piece.start.max(range.start);
                    if let Some(stack) = self.blocks.get(block).stack {
                        changes.push(Change::GivenBack { stack, bytes });
                    }
                }
            }
        }
    }

    /// A block begins, unless it is an allocator's.
    fn born(&mut self, start: u64, bytes: u64, call: &Call, changes: &mut Vec<Change>) {
        if call.inside_allocator || bytes == 0 {
            return;
        }
        let block = Block { stack: Some(call.stack), born_ns: call.returned_ns, left_bytes: bytes };
        let block = self.blocks.add(block);
        self.pieces.insert(start, Piece { end: start.saturating_add(bytes), block });
        changes.push(Change::Born { stack: call.stack, bytes });
    }

    /// What was mapped there before the call was entered ends.
    fn unmap(&mut self, range: Range<u64>, call: &Call, changes: &mut Vec<Change>) {
        self.end(&range, Which::BornBefore(call.entered_ns), call, changes);
        self.resolve(&range, call.entered_ns);
    }

    /// Something is mapped there: whatever was is gone. Where the kernel chose the place it had been unmapped already, by a call
    /// that has yet to return or that was not seen.
    fn make_room(&mut self, range: Range<u64>, fixed: bool, call: &Call, changes: &mut Vec<Change>) {
        if fixed {
            self.resolve(&range, call.entered_ns);
            self.end(&range, Which::All, call, changes);
            return;
        }
        for (piece, _) in self.overlapping(&range, Which::All) {
            if self.replaced.len() == MAX_REPLACED {
                self.replaced.remove(0);
                self.noted.missed_unmaps += 1;
            }
            let range = piece.start.max(range.start)..piece.end.min(range.end);
            self.replaced.push(Replaced { range, until_ns: call.returned_ns });
        }
        self.end(&range, Which::All, call, changes);
    }

    /// An unmapping that was entered then explains why what lay there was replaced.
    fn resolve(&mut self, range: &Range<u64>, entered_ns: u64) {
        if self.replaced.is_empty() {
            return;
        }
        let mut left = Vec::with_capacity(self.replaced.len());
        for replaced in self.replaced.drain(..) {
            if entered_ns > replaced.until_ns {
                left.push(replaced);
                continue;
            }
            let Replaced { range: was, until_ns } = replaced;
            for part in [was.start..was.end.min(range.start), was.start.max(range.end)..was.end] {
                if part.start < part.end {
                    left.push(Replaced { range: part, until_ns });
                }
            }
        }
        self.replaced = left;
    }

    /// Takes pieces out, as far as they lie in the range.
    fn end(&mut self, range: &Range<u64>, which: Which, call: &Call, changes: &mut Vec<Change>) {
        for (piece, id) in self.overlapping(range, which) {
            let ended = piece.start.max(range.start)..piece.end.min(range.end);
            self.pieces.remove(&piece.start);
            for part in [piece.start..ended.start, ended.end..piece.end] {
                if part.start < part.end {
                    self.pieces.insert(part.start, Piece { end: part.end, block: id });
                }
            }
            let bytes = ended.end - ended.start;
            let block = self.blocks.take(id, bytes);
            if let Some(stack) = block.stack {
                let last = (block.left_bytes == 0).then(|| Lifetime::of(block.born_ns, call.returned_ns));
                changes.push(Change::Ended { stack, bytes, last });
            }
        }
    }

    /// Pieces that lie in a range at least in part, each with its block.
    fn overlapping(&self, range: &Range<u64>, which: Which) -> Vec<(Range<u64>, u32)> {
        if range.start >= range.end {
            return Vec::new();
        }
        let before = self.pieces.range(..range.start).next_back().filter(|(_, piece)| piece.end > range.start);
        let all = before.into_iter().chain(self.pieces.range(range.clone()));
        let is_meant = |block: u32| match which {
            Which::BornBefore(entered_ns) => self.blocks.get(block).born_ns <= entered_ns,
            Which::All => true,
        };
        all.filter(|(_, piece)| is_meant(piece.block)).map(|(start, piece)| (*start..piece.end, piece.block)).collect()
    }

    /// Whether some of a range was known when a call on it was entered; it may have been mapped again since.
    fn was_mapped(&self, range: &Range<u64>, entered_ns: u64) -> bool {
        let is_replaced = |replaced: &Replaced| {
            let Range { start, end } = replaced.range;
            entered_ns <= replaced.until_ns && start < range.end && range.start < end
        };
        self.replaced.iter().any(is_replaced) || !self.overlapping(range, Which::BornBefore(entered_ns)).is_empty()
    }
}

/// Blocks by the number that their pieces have.
#[derive(Clone, Debug, Default)]
struct Blocks {
    all: Vec<Block>,
    /// Numbers of blocks of which nothing is left.
    free: Vec<u32>,
}

impl Blocks {
    fn get(&self, id: u32) -> Block {
        self.all[id as usize]
    }

    fn add(&mut self, block: Block) -> u32 {
        if let Some(id) = self.free.pop() {
            self.all[id as usize] = block;
            return id;
        }
        self.all.push(block);
        self.all.len() as u32 - 1
    }

    /// Takes bytes of a block away; the block as it is then.
    fn take(&mut self, id: u32, bytes: u64) -> Block {
        let block = &mut self.all[id as usize];
        block.left_bytes -= bytes;
        if block.left_bytes == 0 {
            self.free.push(id);
        }
        *block
    }
}
