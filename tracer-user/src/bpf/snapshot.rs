//! Tables → stacks and totals, by one read of memory; its cost does not depend on the number of live blocks.

use std::collections::{BTreeMap, BTreeSet};

use tracer_common::{
    abi::{FRAME_EXACT, StackEnd},
    addr::{FrameAddr, UserAddr},
    limits::MAX_FRAMES,
};

use super::{kernel::Kernel, targets::TargetNumber};
use crate::snapshot::{Domain, StackId, Tid, Totals};

/// A stack as the kernel has it: addresses only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawStack {
    /// The kernel's id; another stack's once its target is retired.
    pub id: StackId,
    /// Whose stack it is.
    pub target: TargetNumber,
    /// Return addresses, innermost first.
    pub frames: Vec<FrameAddr>,
    /// How the walk ended.
    pub end: StackEnd,
    /// The thread that allocated, where threads are kept apart, and its name when the stack was first seen.
    pub thread: Option<(Tid, String)>,
    /// Its totals.
    pub totals: Totals,
    /// What it allocates.
    pub domain: Domain,
}

/// Bytes of a scope: exact figures of all its processes together, which living ones hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ScopeBytes {
    /// Live now.
    pub current_bytes: u64,
    /// The highest total ever.
    pub peak_bytes: u64,
    /// When that was reached: CLOCK_MONOTONIC, ns. `None`: nothing was ever live.
    pub peak_at_ns: Option<u64>,
}

impl Kernel {
    /// All stacks of all targets that ever allocated, and their sums: `peak_*` of each are those of its own process's peak.
    pub fn read_stacks(&self) -> (Vec<RawStack>, Totals) {
        self.read_stacks_where(|_| true)
    }

    /// The stacks of one target, and their sums.
    pub fn read_stacks_of(&self, number: TargetNumber) -> (Vec<RawStack>, Totals) {
        self.read_stacks_where(|target| target == number)
    }

    fn read_stacks_where(&self, is_wanted: impl Fn(TargetNumber) -> bool) -> (Vec<RawStack>, Totals) {
        let mut sums = Totals::default();
        let mut stacks = Vec::new();
        for (id, target, totals) in self.stack_totals() {
            if !is_wanted(target) {
                continue;
            }
            sums.add(&totals);
            let (frames, end) = self.frames_of(id);
            let (thread, domain) = (self.thread_of(id), Domain::Heap);
            stacks.push(RawStack { id: StackId(id as u32), target, frames, end, thread, totals, domain });
        }
        (stacks, sums)
    }

    /// The stacks of each of these targets; one look at every stack for all of them.
    pub fn read_stacks_of_all(&self, numbers: &[TargetNumber]) -> BTreeMap<TargetNumber, Vec<RawStack>> {
        let wanted: BTreeSet<TargetNumber> = numbers.iter().copied().collect();
        let (stacks, _) = self.read_stacks_where(|target| wanted.contains(&target));
        let mut by_target = BTreeMap::<TargetNumber, Vec<RawStack>>::new();
        for stack in stacks {
            by_target.entry(stack.target).or_default().push(stack);
        }
        by_target
    }

    /// The sums of all stacks of all targets alone.
    pub fn read_totals(&self) -> Totals {
        let mut sums = Totals::default();
        self.stack_totals().for_each(|(_, _, totals)| sums.add(&totals));
        sums
    }

    /// The sums of each target's stacks, by its number; targets that never allocated are left out. One look at every stack.
    pub fn read_totals_by_target(&self) -> BTreeMap<TargetNumber, Totals> {
        let mut by_target = BTreeMap::<TargetNumber, Totals>::new();
        self.stack_totals().for_each(|(_, target, totals)| by_target.entry(target).or_default().add(&totals));
        by_target
    }

    /// What living processes hold together, exact at every moment.
    pub fn scope_bytes(&self) -> ScopeBytes {
        let scope = self.scope.get(0).unwrap_or_default();
        ScopeBytes {
            current_bytes: scope.peak.current_bytes,
            peak_bytes: scope.peak.peak_bytes,
            peak_at_ns: (scope.peak_at_ns > 0).then_some(scope.peak_at_ns),
        }
    }

    /// Id, target and totals of every stack that ever allocated. The stacks of a target that has just been retired may be left out.
    fn stack_totals(&self) -> impl Iterator<Item = (usize, TargetNumber, Totals)> + '_ {
        let targets: Vec<(u32, u64)> = (0..self.targets.len())
            .filter_map(|n| self.targets.get(n))
            .map(|target| (target.serial, target.totals.peak.epoch))
            .collect();
        (1..self.n_stacks()).filter_map(move |id| {
            let number = if id < self.first_stack() {
                id as u32
            } else {
                let record = self.stacks.get(id).filter(|record| record.serial != 0)?;
                let (serial, _) = targets.get(record.target as usize)?;
                (*serial == record.serial).then_some(record.target)?
            };
            let (_, epoch) = *targets.get(number as usize)?;
            Some((id, TargetNumber(number), self.totals_of(id, epoch)?))
        })
    }

    /// The first id that is no target's for its events without a stack.
    pub(super) fn first_stack(&self) -> usize {
        self.targets.len()
    }

    /// One more than the highest id handed out so far.
    pub(super) fn n_stacks(&self) -> usize {
        let handed_out = self.cursors.get(0).map_or(0, |cursors| cursors.next_stack);
        (self.first_stack() + handed_out as usize).min(self.stacks.len())
    }

    fn totals_of(&self, id: usize, epoch: u64) -> Option<Totals> {
        let totals = self.totals.get(id)?;
        if totals.allocated_count == 0 {
            return None;
        }
        let peak = totals.peak(epoch);
        let (peak_bytes, peak_count) = peak.at_peak(epoch);
        let [within_1ms, within_1s, _longer] = totals.freed_counts;
        Some(Totals {
            current_bytes: peak.live_bytes,
            current_count: peak.live_count,
            peak_bytes,
            peak_count,
            allocated_bytes: totals.allocated_bytes,
            allocated_count: totals.allocated_count,
            freed_bytes: totals.allocated_bytes - peak.live_bytes,
            freed_count: totals.allocated_count - peak.live_count,
            freed_within_1ms_count: within_1ms,
            freed_within_1s_count: within_1ms + within_1s,
        })
    }

    pub(super) fn thread_of(&self, id: usize) -> Option<(Tid, String)> {
        let thread = self.stack_threads.get(id).filter(|thread| thread.tid != 0)?;
        let comm = thread.comm.split(|byte| *byte == 0).next().unwrap_or_default();
        Some((Tid(thread.tid), String::from_utf8_lossy(comm).into_owned()))
    }

    pub(super) fn frames_of(&self, id: usize) -> (Vec<FrameAddr>, StackEnd) {
        let record = match self.stacks.get(id) {
            Some(record) if id >= self.first_stack() => record,
            _ => return (Vec::new(), StackEnd::NotStored),
        };
        let start = record.frames_start as usize;
        let n_frames = usize::from(record.n_frames).min(MAX_FRAMES);
        let frames = (start..start + n_frames)
            .filter_map(|at| self.frames.get(at))
            .map(|word| {
                if word & FRAME_EXACT == 0 {
                    FrameAddr::Return(UserAddr(word))
                } else {
                    FrameAddr::Exact(UserAddr(word & !FRAME_EXACT))
                }
            })
            .collect();
        (frames, StackEnd::from_u8(record.end))
    }
}
