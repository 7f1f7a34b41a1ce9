//! Processes that have ended: their figures and stacks stay, within bounds, when the kernel's tables have let them go.

use std::{
    cmp::Reverse,
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use tracer_common::abi::StackEnd;

use crate::snapshot::{Domain, Frame, ProcessEnd, ProcessId, ProcessStats, Stack, StackId, StackStats, Totals};

/// Ended processes that are told one by one.
const MAX_PROCESSES: usize = 4096;

/// Frames of their stacks, about 40 bytes each.
const MAX_FRAMES: usize = 1 << 20;

/// Stacks that an ended process keeps for itself.
const MIN_STACKS: usize = 64;

/// Processes that lived less than this are told together before those that lived longer.
const SHORT: Duration = Duration::from_millis(100);

/// Commands whose ended processes are told together; those of all others are told as one more.
const MAX_GROUPS: usize = 256;

/// Distinct stacks kept of one such group; the rest count as one without frames.
const MAX_GROUP_STACKS: usize = 4096;

/// One process that has ended.
#[derive(Debug)]
pub(super) struct EndedProcess {
    /// Who it was, and its sums.
    pub(super) stats: ProcessStats,
    /// All that ever allocated.
    pub(super) stacks: Vec<StackStats>,
    /// The smallest of them are told as one.
    pub(super) is_thinned: bool,
}

/// The ended processes of a session.
#[derive(Debug, Default)]
pub(super) struct Archive {
    /// In the order of their ends.
    processes: VecDeque<EndedProcess>,
    n_frames: usize,
    totals: Totals,
    mmap: Totals,
    /// Those that are told together.
    groups: HashMap<GroupName, Group>,
    n_grouped: u64,
    n_thinned: u64,
    /// Ids of archived stacks: from the upper half, which the kernel does not hand out.
    next_id: u32,
}

/// Processes of one command that ended in one way: what was left at an exec is no leak.
type GroupName = (String, Option<ProcessEnd>);

/// Ended processes of one [`GroupName`].
#[derive(Debug, Default)]
struct Group {
    n_processes: u64,
    stats: ProcessStats,
    stacks: HashMap<GroupKey, StackStats>,
}

/// What makes stacks of two processes one: the places in the files, where they are known; kind of memory, and how the walk ended.
type GroupKey = (Vec<(u64, u64)>, Domain, u8);

/// First id of archived stacks.
const FIRST_ID: u32 = 1 << 31;

impl Archive {
    /// Keeps a process that has ended.
    pub(super) fn keep(&mut self, mut ended: EndedProcess) {
        for stats in &mut ended.stacks {
            stats.id = self.id();
        }
        set_process(&mut ended, self.processes.len());
        self.n_frames += n_frames(&ended);
        self.totals.add(&ended.stats.totals);
        ended.stats.mmap.iter().for_each(|mmap| self.mmap.add(mmap));
        self.processes.push_back(ended);
        if self.n_frames > MAX_FRAMES {
            self.thin_out();
        }
        if self.processes.len() > MAX_PROCESSES {
            self.make_room();
        }
    }

    /// An eighth of the room for frames at once, from the processes that have most: the stacks that hold least are told as one.
    fn thin_out(&mut self) {
        while self.n_frames > MAX_FRAMES / 8 * 7 {
            let largest = self.processes.iter_mut().max_by_key(|ended| n_frames(ended));
            let Some(largest) = largest.filter(|ended| ended.stacks.len() > MIN_STACKS) else { break };
            let before = n_frames(largest);
            thin(largest);
            self.n_thinned += u64::from(!largest.is_thinned);
            largest.is_thinned = true;
            self.n_frames -= before - n_frames(largest);
        }
        while self.n_frames > MAX_FRAMES {
            self.make_room();
        }
    }

    /// An eighth of the room for processes at once: those behind one that goes get other places.
    fn make_room(&mut self) {
        let n_kept = self.processes.len() / 8 * 7;
        while self.processes.len() > n_kept {
            let short = self.processes.iter().position(|ended| lifetime(&ended.stats) < SHORT);
            let Some(ended) = self.processes.remove(short.unwrap_or(0)) else { break };
            self.n_frames -= n_frames(&ended);
            self.group(ended);
        }
        for (place, ended) in self.processes.iter_mut().enumerate() {
            set_process(ended, place);
        }
    }

    /// Number of processes whose smallest stacks are told as one.
    pub(super) fn n_thinned(&self) -> u64 {
        self.n_thinned
    }

    /// Number of processes kept, those told together included.
    pub(super) fn len(&self) -> u64 {
        self.processes.len() as u64 + self.n_grouped
    }

    /// Number of processes that are told together with others of their command.
    pub(super) fn n_grouped(&self) -> u64 {
        self.n_grouped
    }

    /// The sums of all of them.
    pub(super) fn totals(&self) -> Totals {
        self.totals
    }

    /// Likewise of their mappings.
    pub(super) fn mmap(&self) -> Totals {
        self.mmap
    }

    /// The first processes of a snapshot, and their stacks.
    pub(super) fn show(&self) -> (Vec<ProcessStats>, Vec<StackStats>) {
        let mut processes: Vec<ProcessStats> = self.processes.iter().map(|ended| ended.stats.clone()).collect();
        let mut stacks: Vec<StackStats> = self.processes.iter().flat_map(|ended| ended.stacks.clone()).collect();
        let mut groups: Vec<_> = self.groups.values().collect();
        groups.sort_by_key(|group| (group.stats.comm.clone(), group.stats.ended.map(|(at, _)| at)));
        for group in groups {
            let process = Some(ProcessId(processes.len() as u32));
            let comm = format!("{} ({} ended processes)", group.stats.comm, group.n_processes);
            processes.push(ProcessStats { comm, ..group.stats.clone() });
            for stats in group.stacks.values() {
                let stack = Arc::new(Stack { process, ..(*stats.stack).clone() });
                stacks.push(StackStats { stack, ..stats.clone() });
            }
        }
        (processes, stacks)
    }

    fn id(&mut self) -> StackId {
        let id = StackId(FIRST_ID | self.next_id);
        self.next_id = self.next_id.wrapping_add(1) & (FIRST_ID - 1);
        id
    }

    fn group(&mut self, ended: EndedProcess) {
        self.n_grouped += 1;
        let end = ended.stats.ended.map(|(_, end)| end);
        let mut name = (ended.stats.comm.clone(), end);
        if !self.groups.contains_key(&name) && self.groups.len() >= MAX_GROUPS {
            "other commands".clone_into(&mut name.0);
        }
        let comm = name.0.clone();
        let group = self.groups.entry(name).or_insert_with(|| Group {
            stats: ProcessStats {
                comm,
                exe: ended.stats.exe.clone(),
                user: ended.stats.user.clone(),
                container: ended.stats.container.clone(),
                joined_at: ended.stats.joined_at,
                from_start: true,
                ..ProcessStats::default()
            },
            ..Group::default()
        });
        group.n_processes += 1;
        let (sums, stats) = (&mut group.stats, &ended.stats);
        sums.from_start &= stats.from_start;
        sums.ended = sums.ended.max_by_time(stats.ended);
        sums.inherited_bytes = sums.inherited_bytes.saturating_add(stats.inherited_bytes);
        sums.inherited_count = sums.inherited_count.saturating_add(stats.inherited_count);
        add_ended(&mut sums.totals, &stats.totals);
        if let Some(mmap) = &stats.mmap {
            add_ended(sums.mmap.get_or_insert_default(), mmap);
        }
        for (counter, value) in &stats.counters.0 {
            *sums.counters.0.entry(*counter).or_default() += value;
        }
        for stats in ended.stacks {
            let mut key = group_key(&stats.stack);
            if group.stacks.len() >= MAX_GROUP_STACKS && !group.stacks.contains_key(&key) {
                key = (Vec::new(), stats.stack.domain, stats.stack.end as u8);
            }
            if let Some(known) = group.stacks.get_mut(&key) {
                known.totals.add(&stats.totals);
            } else {
                // Of many threads, and perhaps cut down to none of its frames.
                let frames = if key.0.is_empty() { Vec::new() } else { stats.stack.frames.clone() };
                let stack = Arc::new(Stack { frames, thread: None, ..(*stats.stack).clone() });
                group.stacks.insert(key, StackStats { stack, ..stats });
            }
        }
    }
}

/// Adds up processes that did not hold their peaks at one time: the highest of any is kept.
fn add_ended(sums: &mut Totals, totals: &Totals) {
    let peak = std::cmp::max_by_key(*sums, *totals, |totals| totals.peak_bytes);
    sums.add(totals);
    (sums.peak_bytes, sums.peak_count) = (peak.peak_bytes, peak.peak_count);
}

/// The later of two ends.
trait Later: Sized {
    fn max_by_time(self, other: Self) -> Self;
}

impl Later for Option<(Duration, ProcessEnd)> {
    fn max_by_time(self, other: Self) -> Self {
        std::cmp::max_by_key(self, other, |end| end.map(|(at, _)| at))
    }
}

/// Halves the number of a process's stacks: those that hold least, then those that allocated least, become one without frames.
fn thin(ended: &mut EndedProcess) {
    ended.stacks.sort_by_key(|stats| {
        Reverse((stats.stack.frames.is_empty(), stats.totals.current_bytes, stats.totals.allocated_bytes))
    });
    let rest = ended.stacks.split_off(ended.stacks.len() / 2);
    for stats in rest {
        let domain = stats.stack.domain;
        let is_rest = |kept: &&mut StackStats| kept.stack.frames.is_empty() && kept.stack.domain == domain;
        if let Some(sum) = ended.stacks.iter_mut().find(is_rest) {
            sum.totals.add(&stats.totals);
        } else {
            let stack = Stack { frames: Vec::new(), end: StackEnd::NotStored, thread: None, ..(*stats.stack).clone() };
            ended.stacks.push(StackStats { stack: Arc::new(stack), ..stats });
        }
    }
}

/// Sets whose stacks they are; those of two snapshots are the same ones as long as the place is.
fn set_process(ended: &mut EndedProcess, place: usize) {
    let process = Some(ProcessId(place as u32));
    for stats in &mut ended.stacks {
        if stats.stack.process != process {
            stats.stack = Arc::new(Stack { process, ..(*stats.stack).clone() });
        }
    }
}

fn n_frames(ended: &EndedProcess) -> usize {
    // Each stack has room for a few words of its own.
    ended.stacks.iter().map(|stats| 4 + stats.stack.frames.len()).sum()
}

fn lifetime(stats: &ProcessStats) -> Duration {
    stats.ended.map_or(Duration::MAX, |(at, _)| at.saturating_sub(stats.joined_at))
}

fn group_key(stack: &Stack) -> GroupKey {
    // Generated code and unknown places lie elsewhere in every process: by their addresses.
    let place = |frame: &Frame| match frame.location {
        Some((module, vaddr)) => (u64::from(module.0) + 1, vaddr.0),
        None => (0, frame.addr.lookup().0),
    };
    (stack.frames.iter().map(place).collect(), stack.domain, stack.end as u8)
}

#[cfg(test)]
mod tests {
    use tracer_common::addr::{FileVaddr, FrameAddr, UserAddr};

    use super::*;
    use crate::snapshot::ModuleId;

    /// A process that lived `ms` milliseconds and left one block of `bytes`, at addresses of its own.
    fn ended(pid: u32, ms: u64, bytes: u64) -> EndedProcess {
        let totals = Totals {
            current_bytes: bytes,
            current_count: 1,
            peak_bytes: bytes,
            peak_count: 1,
            allocated_bytes: bytes,
            allocated_count: 1,
            ..Totals::default()
        };
        let frame = Frame {
            addr: FrameAddr::Return(UserAddr(0x1000 * u64::from(pid) + 0x10)),
            location: Some((ModuleId(3), FileVaddr(0x10))),
        };
        let stack = Stack { frames: vec![frame; 10], end: StackEnd::Root, ..Stack::default() };
        let stats = ProcessStats {
            pid,
            comm: "worker".to_owned(),
            joined_at: Duration::from_secs(1),
            ended: Some((Duration::from_secs(1) + Duration::from_millis(ms), ProcessEnd::Exited)),
            totals,
            ..ProcessStats::default()
        };
        EndedProcess {
            stats,
            stacks: vec![StackStats { id: StackId(7), stack: Arc::new(stack), totals }],
            is_thinned: false,
        }
    }

    #[test]
    fn within_bounds_each_process_is_told_for_itself() {
        let mut archive = Archive::default();
        (1..=3).for_each(|pid| archive.keep(ended(pid, 5, u64::from(pid))));
        let (processes, stacks) = archive.show();
        assert_eq!(processes.iter().map(|process| process.pid).collect::<Vec<_>>(), [1, 2, 3]);
        assert_eq!(
            stacks.iter().map(|stats| stats.stack.process).collect::<Vec<_>>(),
            [0, 1, 2].map(|n| Some(ProcessId(n)))
        );
        let mut ids: Vec<StackId> = stacks.iter().map(|stats| stats.id).collect();
        ids.dedup();
        assert_eq!(ids.len(), 3, "ids are told apart");
        let (_, again) = archive.show();
        assert!(stacks.iter().zip(&again).all(|(one, other)| Arc::ptr_eq(&one.stack, &other.stack)));
    }

    /// Large programs come and go beside small ones: the small ones' stacks stay as they are.
    #[test]
    fn the_frames_of_large_processes_are_told_as_one_before_a_process_goes() {
        let mut archive = Archive::default();
        archive.keep(ended(1, 5, 123));
        for pid in 2..=40 {
            let EndedProcess { stats, stacks, .. } = ended(pid, 5000, 7);
            let stacks = vec![stacks[0].clone(); 4000];
            let mut totals = Totals::default();
            for stats in &stacks {
                totals.add(&stats.totals);
            }
            archive.keep(EndedProcess { stats: ProcessStats { totals, ..stats }, stacks, is_thinned: false });
        }
        let (processes, stacks) = archive.show();
        assert_eq!((processes.len(), archive.n_grouped()), (40, 0));
        assert!(archive.n_frames <= MAX_FRAMES && archive.n_thinned() > 0, "{} frames", archive.n_frames);
        for (place, process) in processes.iter().enumerate() {
            let own = stacks.iter().filter(|stats| stats.stack.process == Some(ProcessId(place as u32)));
            assert_eq!(own.map(|stats| stats.totals.allocated_bytes).sum::<u64>(), process.totals.allocated_bytes);
        }
        let small: Vec<_> = stacks.iter().filter(|stats| stats.stack.process == Some(ProcessId(0))).collect();
        assert!(small.len() == 1 && small[0].stack.frames.len() == 10);
    }

    #[test]
    fn beyond_the_bounds_short_lives_are_told_together_and_no_byte_is_lost() {
        const N: u32 = MAX_PROCESSES as u32 + 500;
        let mut archive = Archive::default();
        for pid in 1..=N {
            // Every second one lives long.
            archive.keep(ended(pid, if pid % 2 == 0 { 5000 } else { 5 }, 123));
        }
        let (processes, stacks) = archive.show();
        let kept = processes.len() - 1;
        let n_grouped = u64::from(N) - kept as u64;
        assert!((1..=MAX_PROCESSES).contains(&kept));
        assert_eq!((archive.len(), archive.n_grouped()), (u64::from(N), n_grouped));
        let group = processes.last().cloned().expect("the group comes last");
        assert_eq!((group.comm, group.pid), (format!("worker ({n_grouped} ended processes)"), 0));
        assert_eq!((group.totals.allocated_count, group.totals.peak_bytes), (n_grouped, 123));
        assert!(
            (2..=N).step_by(2).all(|pid| processes.iter().any(|process| process.pid == pid)),
            "a long life is missing"
        );
        let sum: u64 = stacks.iter().map(|stats| stats.totals.allocated_bytes).sum();
        assert_eq!(sum, 123 * u64::from(N));
        let of_group = stacks.iter().filter(|stats| stats.stack.process == Some(ProcessId(kept as u32)));
        assert_eq!(of_group.count(), 1, "the same place in the same file is one stack");
    }
}
