//! Stacks kept once, as a tree from their outermost frames: stacks of one program share most of theirs.

use std::{collections::HashMap, sync::Arc};

use tracer_common::{
    abi::StackEnd,
    addr::{FileVaddr, FrameAddr, UserAddr},
};

use super::file::wire::{Column, Malformed, Reader, Writer, unzigzag, zigzag};
use crate::snapshot::{Domain, Frame, ModuleId, ProcessId, Stack, StackId, Tid};

/// Distinct frames, the tree of chains, and the stacks, each by the order of first sight.
#[derive(Debug, Default)]
pub(super) struct StackTable {
    frames: Vec<Frame>,
    nodes: Vec<Node>,
    stacks: Vec<Row>,
    /// Processes that stacks refer to have ids below this.
    n_processes: usize,
}

/// Finds what a [`StackTable`] holds; only writers need it.
#[derive(Debug, Default)]
pub(super) struct StackIndex {
    frames: HashMap<Frame, u32>,
    nodes: HashMap<Node, u32>,
    stacks: HashMap<Row, StackId>,
}

/// A chain: one frame called by another chain. Node 0, which is not stored, is the empty chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Node {
    caller: u32,
    frame: u32,
}

/// A stack: its chain, how its walk ended, who allocated and what.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Row {
    node: u32,
    end: StackEnd,
    thread: Option<Tid>,
    process: Option<ProcessId>,
    domain: Domain,
}

/// How much of a table there is, or was written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Extent {
    frames: usize,
    nodes: usize,
    stacks: usize,
}

impl StackTable {
    /// The id of a stack of this process, new or known; `moved` gives its frames their modules.
    pub(super) fn id(
        &mut self,
        index: &mut StackIndex,
        stack: &Stack,
        process: Option<ProcessId>,
        moved: impl Fn(Frame) -> Frame,
    ) -> StackId {
        let mut node = 0;
        for frame in stack.frames.iter().rev() {
            let frame = moved(*frame);
            let next = self.frames.len() as u32;
            let frame = *index.frames.entry(frame).or_insert_with(|| {
                self.frames.push(frame);
                next
            });
            let chain = Node { caller: node, frame };
            node = *index.nodes.entry(chain).or_insert_with(|| {
                self.nodes.push(chain);
                self.nodes.len() as u32
            });
        }
        let Stack { frames: _, end, thread, process: _, domain } = *stack;
        let row = Row { node, end, thread, process, domain };
        *index.stacks.entry(row).or_insert_with(|| {
            self.stacks.push(row);
            StackId(self.stacks.len() as u32 - 1)
        })
    }

    /// Number of stacks.
    pub(super) const fn len(&self) -> usize {
        self.stacks.len()
    }

    /// How many processes there must be for all of the stacks to have theirs; only readers ask.
    pub(super) const fn n_processes(&self) -> usize {
        self.n_processes
    }

    /// How much there is.
    pub(super) const fn extent(&self) -> Extent {
        Extent { frames: self.frames.len(), nodes: self.nodes.len(), stacks: self.stacks.len() }
    }

    /// Where the distinct frames lie.
    pub(super) fn locations(&self) -> impl Iterator<Item = (ModuleId, FileVaddr)> + '_ {
        self.frames.iter().filter_map(|frame| frame.location)
    }

    /// The stacks themselves, from the one with this number on.
    pub(super) fn expand(&self, from: usize) -> impl Iterator<Item = Arc<Stack>> + '_ {
        self.stacks[from..].iter().map(|row| {
            Arc::new(Stack {
                frames: self.chain(row.node).map(|node| self.frames[node.frame as usize]).collect(),
                end: row.end,
                thread: row.thread,
                process: row.process,
                domain: row.domain,
            })
        })
    }

    /// A chain from its innermost frame outwards.
    fn chain(&self, node: u32) -> impl Iterator<Item = Node> {
        let at = |node: u32| node.checked_sub(1).map(|index| self.nodes[index as usize]);
        std::iter::successors(at(node), move |node| at(node.caller))
    }

    /// Appends what came since `from`, column by column.
    pub(super) fn put_since(&self, from: Extent, w: &mut Writer) {
        let frames = &self.frames[from.frames..];
        w.number(frames.len() as u64);
        w.column(frames.iter().map(|frame| u64::from(matches!(frame.addr, FrameAddr::Exact(_)))));
        w.column(deltas(frames.iter().map(|frame| frame.addr.raw().0)));
        w.column(frames.iter().map(|frame| frame.location.map_or(0, |(module, _)| u64::from(module.0) + 1)));
        w.column(deltas(frames.iter().map(|frame| bias(frame).unwrap_or(0))));

        let nodes = &self.nodes[from.nodes..];
        w.number(nodes.len() as u64);
        // A chain mostly hangs on the one made just before it: the distance is 1.
        w.column((from.nodes as u64 + 1..).zip(nodes).map(|(own, node)| own - u64::from(node.caller)));
        w.column(nodes.iter().map(|node| u64::from(node.frame)));

        let stacks = &self.stacks[from.stacks..];
        w.number(stacks.len() as u64);
        w.column(deltas(stacks.iter().map(|row| u64::from(row.node))));
        w.column(stacks.iter().map(|row| row.end as u64));
        w.column(stacks.iter().map(|row| row.thread.map_or(0, |tid| u64::from(tid.0) + 1)));
        w.column(deltas(stacks.iter().map(|row| row.process.map_or(0, |id| u64::from(id.0) + 1))));
        w.column(stacks.iter().map(|row| match row.domain {
            Domain::Heap => 0,
            Domain::Mmap => 1,
        }));
    }

    /// Reads what [`put_since`](Self::put_since) wrote. The memory of the stacks themselves is charged too. After an error
    /// the table is of no use.
    pub(super) fn get_more(
        &mut self,
        n_modules: usize,
        depths: &mut Vec<u32>,
        r: &mut Reader<'_>,
    ) -> Result<(), Malformed> {
        let n_frames = r.count(2 * size_of::<Frame>())?;
        let (mut exact, mut addrs, mut modules, mut biases) = (r.column()?, r.column()?, r.column()?, r.column()?);
        let (mut addr, mut bias) = (0_u64, 0_u64);
        for _ in 0..n_frames {
            addr = addr.wrapping_add(unzigzag(addrs.next()?));
            bias = bias.wrapping_add(unzigzag(biases.next()?));
            let addr = match exact.next()? {
                0 => FrameAddr::Return(UserAddr(addr)),
                1 => FrameAddr::Exact(UserAddr(addr)),
                _ => return Err(Malformed::Number),
            };
            let location = match modules.next32()?.checked_sub(1) {
                Some(id) if (id as usize) < n_modules => {
                    Some((ModuleId(id), FileVaddr(addr.lookup().0.wrapping_sub(bias))))
                }
                Some(_) => return Err(Malformed::Id),
                None => None,
            };
            self.frames.push(Frame { addr, location });
        }
        [exact, addrs, modules, biases].iter().try_for_each(Column::end)?;

        let n_nodes = r.count(2 * (size_of::<Node>() + size_of::<u32>()))?;
        let (mut callers, mut frames) = (r.column()?, r.column()?);
        for _ in 0..n_nodes {
            let own = self.nodes.len() as u64 + 1;
            let caller = own.checked_sub(callers.next()?).filter(|caller| *caller < own).ok_or(Malformed::Id)? as u32;
            let frame = frames.next32()?;
            if frame as usize >= self.frames.len() {
                return Err(Malformed::Id);
            }
            let depth = caller.checked_sub(1).map_or(0, |index| depths[index as usize]) + 1;
            self.nodes.push(Node { caller, frame });
            depths.push(depth);
        }
        [callers, frames].iter().try_for_each(Column::end)?;

        let n_stacks = r.count(2 * (size_of::<Row>() + size_of::<Arc<Stack>>()) + size_of::<Stack>() + 16)?;
        let (mut nodes, mut ends, mut threads) = (r.column()?, r.column()?, r.column()?);
        let (mut processes, mut domains) =
            if r.version() >= 2 { (r.column()?, r.column()?) } else { (Column::Zeros, Column::Zeros) };
        let (mut node, mut process) = (0_u64, 0_u64);
        for _ in 0..n_stacks {
            node = node.wrapping_add(unzigzag(nodes.next()?));
            if node > self.nodes.len() as u64 {
                return Err(Malformed::Id);
            }
            let end = ends.next()?;
            let end = u8::try_from(end).map_err(|_| Malformed::Number).map(StackEnd::from_u8)?;
            let thread =
                threads.next()?.checked_sub(1).map(u32::try_from).transpose().map_err(|_| Malformed::Number)?;
            process = process.wrapping_add(unzigzag(processes.next()?));
            let process32 = u32::try_from(process).map_err(|_| Malformed::Number)?;
            self.n_processes = self.n_processes.max(process32 as usize);
            let domain = match domains.next()? {
                0 => Domain::Heap,
                1 => Domain::Mmap,
                _ => return Err(Malformed::Number),
            };
            let process = process32.checked_sub(1).map(ProcessId);
            let row = Row { node: node as u32, end, thread: thread.map(Tid), process, domain };
            let depth = row.node.checked_sub(1).map_or(0, |index| depths[index as usize]);
            r.charge(u64::from(depth), size_of::<Frame>())?;
            self.stacks.push(row);
        }
        [nodes, ends, threads, processes, domains].iter().try_for_each(Column::end)
    }
}

/// Run-time address less file vaddr: one number for all frames of a mapping.
fn bias(frame: &Frame) -> Option<u64> {
    frame.location.map(|(_, vaddr)| frame.addr.lookup().0.wrapping_sub(vaddr.0))
}

/// The differences between neighbours, zigzag.
pub(super) fn deltas(numbers: impl Iterator<Item = u64>) -> impl Iterator<Item = u64> {
    let mut last = 0_u64;
    numbers.map(move |n| zigzag(n.wrapping_sub(std::mem::replace(&mut last, n))))
}
