//! Tables → stacks and totals, by one read of memory; its cost does not depend on the number of live blocks.

use tracer_common::{
    abi::{FRAME_EXACT, NO_STACK, StackEnd},
    addr::{FrameAddr, UserAddr},
    limits::MAX_FRAMES,
};

use super::kernel::Kernel;
use crate::snapshot::{Domain, StackId, Tid, Totals};

/// A stack as the kernel has it: addresses only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawStack {
    /// The kernel's id.
    pub id: StackId,
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

impl Kernel {
    /// All stacks that ever allocated, and their sums.
    pub fn read_stacks(&self) -> (Vec<RawStack>, Totals) {
        let epoch = self.epoch();
        let mut sums = Totals::default();
        let mut stacks = Vec::new();
        for id in 0..self.n_stacks() {
            let Some(totals) = self.totals_of(id, epoch) else { continue };
            sums.add(&totals);
            let (frames, end) = self.frames_of(id);
            let thread = self.thread_of(id);
            stacks.push(RawStack { id: StackId(id as u32), frames, end, thread, totals, domain: Domain::Heap });
        }
        (stacks, sums)
    }

    /// The sums of all stacks alone.
    pub fn read_totals(&self) -> Totals {
        let epoch = self.epoch();
        let mut sums = Totals::default();
        (0..self.n_stacks()).filter_map(|id| self.totals_of(id, epoch)).for_each(|totals| sums.add(&totals));
        sums
    }

    /// When the highest total was reached (CLOCK_MONOTONIC, ns). `None`: nothing was ever live.
    pub fn peak_at_ns(&self) -> Option<u64> {
        self.scope.get(0).map(|scope| scope.peak_at_ns).filter(|at_ns| *at_ns > 0)
    }

    fn epoch(&self) -> u64 {
        self.scope.get(0).map_or(0, |scope| scope.peak.epoch)
    }

    /// Number of ids handed out so far, the one of no stack included.
    fn n_stacks(&self) -> usize {
        let n_stacks = self.cursors.get(0).map_or(0, |cursors| cursors.next_stack + 1);
        (n_stacks as usize).min(self.stacks.len())
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
            Some(record) if id != NO_STACK as usize => record,
            _ => return (Vec::new(), StackEnd::Depth),
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
