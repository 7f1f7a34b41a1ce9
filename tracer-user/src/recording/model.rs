//! What a recording holds. Plain data; how it lies in a file is the business of the file format.

use std::{borrow::Cow, collections::BTreeMap, fmt, ops::Range, sync::Arc, time::Duration};

use super::{
    file::{packed::Packed, wire::Budget},
    processes, totals,
};
use crate::{
    snapshot::{
        Counters, Domain, Domains, Module, Overhead, ProcessMemory, ProcessStats, Snapshot, Stack, StackId, StackStats,
        TargetInfo, Tid, Totals,
    },
    symbolize::Names,
};

/// Everything kept of one session.
#[derive(Clone, Debug, Default)]
pub struct Recording {
    /// What was recorded, where and how.
    pub session: SessionInfo,
    /// All modules that frames lie in, by [`crate::snapshot::ModuleId`].
    pub modules: Vec<Arc<Module>>,
    /// All stacks; a [`StackId`] of this recording's snapshots is an index here.
    pub stacks: Vec<Arc<Stack>>,
    /// Names of threads, where threads are kept apart; hostile input.
    pub threads: BTreeMap<Tid, String>,
    /// The snapshots, in the order of time.
    pub snapshots: Vec<SnapshotInfo>,
    /// Totals and memory over time, in the order of time.
    pub series: Vec<Sample>,
    /// What users marked, and what the session noted in time ("paused"), in the order of time.
    pub marks: Vec<Mark>,
    /// Names of all frames, as far as they were resolved.
    pub names: Names,
    /// What is wrong with the recording ("ends in the middle of snapshot 8: the tracer was killed"), one line each.
    pub problems: Vec<String>,
    /// What came after the last snapshot is missing, or cannot be read.
    pub is_cut: bool,
    pub(super) changes: Vec<Changes>,
    /// Totals at the last snapshot, by [`StackId`].
    pub(super) last: Vec<Totals>,
    /// Processes at the last snapshot, by [`crate::snapshot::ProcessId`].
    pub(super) last_processes: Vec<ProcessStats>,
}

/// What changed from one snapshot to the next; checked when it was read.
#[derive(Clone, Debug, Default)]
pub(super) struct Changes {
    /// Totals, for [`totals::apply`].
    pub(super) totals: Packed,
    /// Live blocks by age at this snapshot, all of them, for [`totals::unpack_ages`].
    pub(super) ages: Option<Packed>,
    /// Processes, for [`processes::apply`]; `None`: they are as they were.
    pub(super) processes: Option<Packed>,
}

/// One session.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SessionInfo {
    /// Version of memtrace-bpf that wrote the recording.
    pub version: String,
    /// Kernel release and architecture of the host.
    pub host: String,
    /// When tracing began, in nanoseconds since 1970 (UTC).
    pub started_unix_ns: u64,
    /// The command line of `run`; empty after an attach. Hostile input.
    pub command: Vec<String>,
    /// The traced process.
    pub target: TargetInfo,
    /// Whether tracing began with the process, so that every block was seen.
    pub from_start: bool,
    /// Whether stacks of different threads are kept apart.
    pub by_thread: bool,
}

/// Why a snapshot was taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Trigger {
    /// Tracing began.
    #[default]
    Start = 0,
    /// The session ended.
    End = 1,
    /// `--snapshot-every`.
    Interval = 2,
    /// `--snapshot-on-growth`.
    Growth = 3,
    /// SIGUSR1.
    Signal = 4,
    /// `memtrace-bpf snapshot`.
    Command = 5,
    /// A key on the terminal.
    Key = 6,
    /// The target is about to become another program.
    Exec = 7,
    /// Tracing paused.
    Pause = 8,
}

impl Trigger {
    /// Every trigger, in the order of their numbers.
    pub const ALL: [Self; 9] = [
        Self::Start,
        Self::End,
        Self::Interval,
        Self::Growth,
        Self::Signal,
        Self::Command,
        Self::Key,
        Self::Exec,
        Self::Pause,
    ];

    /// The name in reports and exports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::End => "end",
            Self::Interval => "interval",
            Self::Growth => "growth",
            Self::Signal => "signal",
            Self::Command => "command",
            Self::Key => "key",
            Self::Exec => "exec",
            Self::Pause => "pause",
        }
    }
}

/// What a session knows of a snapshot beside the snapshot itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SnapshotMeta {
    /// Why it was taken.
    pub trigger: Trigger,
    /// The name given by the user; hostile input (any user that owns the session may send it).
    pub label: Option<String>,
    /// When it was taken, in nanoseconds since 1970 (UTC).
    pub unix_ns: u64,
}

/// Said of the peak of many processes.
const OWN_PEAKS: &str =
    "at the peak of all together; each process that ran then is shown at its own peak, which may be another moment";

/// What a process was at an earlier moment.
#[derive(Clone, Copy)]
enum Then {
    NotYet,
    Ran,
    Ended,
}

impl Then {
    fn of(process: &ProcessStats, moment: Duration) -> Self {
        match process.ended {
            Some((at, _)) if at <= moment => Self::Ended,
            _ if process.joined_at > moment => Self::NotYet,
            _ => Self::Ran,
        }
    }

    /// What was live: of a process that ran at most its own peak, of one that had ended what it left.
    fn show(self, totals: &mut Totals, at_peak: impl Fn(&mut Totals)) {
        match self {
            Self::NotYet => (totals.current_bytes, totals.current_count) = (0, 0),
            Self::Ran => at_peak(totals),
            Self::Ended => {}
        }
    }
}

/// One snapshot without its stacks.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SnapshotInfo {
    /// Why, when and under which name it was taken.
    pub meta: SnapshotMeta,
    /// Time since tracing began.
    pub at: Duration,
    /// The target as it was then.
    pub target: TargetInfo,
    /// Sums over all stacks.
    pub totals: Totals,
    /// When the highest total was reached, since tracing began.
    pub peak_at: Option<Duration>,
    /// What was seen, lost, truncated or refused until then.
    pub counters: Counters,
    /// The tool's own cost until then.
    pub overhead: Overhead,
    /// What the address space held.
    pub memory: Option<ProcessMemory>,
    /// Notes until then.
    pub notes: Vec<String>,
    /// What selected processes; empty: `target` alone.
    pub scope: String,
    /// Sums over all stacks of mappings.
    pub mmap: Option<Totals>,
}

impl SnapshotInfo {
    /// What `snapshot` says beside its stacks.
    pub(super) fn of(snapshot: &Snapshot, meta: SnapshotMeta) -> Self {
        Self {
            meta,
            at: snapshot.duration,
            target: snapshot.target.clone(),
            totals: snapshot.totals,
            peak_at: snapshot.peak_at,
            counters: snapshot.counters.clone(),
            overhead: snapshot.overhead,
            memory: snapshot.memory,
            notes: snapshot.notes.clone(),
            scope: snapshot.scope.clone(),
            mmap: snapshot.mmap,
        }
    }

    /// Sums over the stacks of some kinds of memory.
    pub fn totals_of(&self, domains: Domains) -> Totals {
        let mut totals = if domains.has(Domain::Heap) { self.totals } else { Totals::default() };
        self.mmap.iter().filter(|_| domains.has(Domain::Mmap)).for_each(|mmap| totals.add(mmap));
        totals
    }

    /// What the snapshot is called in messages: its label, else its trigger.
    pub fn name(&self) -> &str {
        self.meta.label.as_deref().unwrap_or_else(|| self.meta.trigger.name())
    }
}

/// Totals and memory at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sample {
    /// Time since tracing began.
    pub at: Duration,
    /// Sums over all stacks; rates are differences of two samples.
    pub totals: Totals,
    /// The target's resident memory in bytes (`/proc/PID/statm`).
    pub rss_bytes: Option<u64>,
    /// The same, shared pages divided by the number of their users; read at snapshots only.
    pub pss_bytes: Option<u64>,
    /// Address space of the heap mappings in bytes (`[heap]` and glibc's arenas); read at snapshots only.
    pub heap_size_bytes: Option<u64>,
    /// Probes are detached: totals stand still and miss what happens.
    pub paused: bool,
}

/// A moment with a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark {
    /// Time since tracing began.
    pub at: Duration,
    /// What is said of it; hostile input.
    pub text: String,
}

/// A snapshot of a recording.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// By its place in [`Recording::snapshots`].
    Index(usize),
    /// The moment of the highest total: what the last snapshot knows of the peak, as if it had been taken then.
    Peak,
}

impl fmt::Display for Which {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // Numbers are what `Reference` understands.
            Self::Index(index) => write!(f, "{index}"),
            Self::Peak => f.write_str("peak"),
        }
    }
}

impl Recording {
    /// A whole snapshot. Stacks that never allocated until then are left out. At [`Which::Peak`] every stack's current figures
    /// are those at the peak, and freed is allocated less those, though blocks allocated later count too. Of many processes they
    /// are those at each one's own peak if it ran at the peak of all, what it left if it had ended, and 0 if it had not begun.
    ///
    /// # Panics
    /// The snapshot is not there.
    pub fn snapshot(&self, which: Which) -> Snapshot {
        let index = match which {
            Which::Index(index) => index,
            Which::Peak => self.snapshots.len() - 1,
        };
        let all = self.totals_at(index);
        let info = &self.snapshots[index];
        let mut snapshot = Snapshot {
            target: info.target.clone(),
            duration: info.at,
            counted_until: None,
            from_start: self.session.from_start,
            totals: info.totals,
            peak_at: info.peak_at,
            counters: info.counters.clone(),
            pauses: self.pauses(index),
            is_cut: self.is_cut && index + 1 == self.snapshots.len(),
            overhead: info.overhead,
            modules: self.modules.clone(),
            threads: self.threads.clone(),
            memory: info.memory,
            ages: self.changes[index].ages.as_ref().map(|ages| {
                totals::unpack_ages(ages, self.stacks.len(), &Budget::unlimited(), &mut Vec::new())
                    .expect("checked when it was read")
            }),
            stacks: (0..)
                .zip(&*all)
                .filter(|(_, totals)| totals.allocated_count > 0)
                .map(|(id, totals)| StackStats {
                    id: StackId(id),
                    stack: Arc::clone(&self.stacks[id as usize]),
                    totals: *totals,
                })
                .collect(),
            notes: info.notes.clone(),
            scope: info.scope.clone(),
            processes: self.processes_at(index).into_owned(),
            mmap: info.mmap,
        };
        if which == Which::Peak {
            let at_peak = |totals: &mut Totals| {
                totals.current_bytes = totals.peak_bytes;
                totals.current_count = totals.peak_count;
            };
            at_peak(&mut snapshot.totals);
            snapshot.mmap.iter_mut().for_each(at_peak);
            let moment = info.peak_at.unwrap_or(info.at);
            let then: Vec<Then> = snapshot.processes.iter().map(|process| Then::of(process, moment)).collect();
            for stats in &mut snapshot.stacks {
                let of = stats.stack.process.and_then(|id| then.get(id.0 as usize)).copied();
                of.unwrap_or(Then::Ran).show(&mut stats.totals, at_peak);
            }
            for (process, then) in snapshot.processes.iter_mut().zip(then) {
                process.ended = process.ended.filter(|(at, _)| *at <= moment);
                then.show(&mut process.totals, at_peak);
                process.mmap.iter_mut().for_each(|mmap| then.show(mmap, at_peak));
            }
            if snapshot.is_of_many() {
                snapshot.notes.push(OWN_PEAKS.to_owned());
            }
            (snapshot.duration, snapshot.counted_until) = (moment, Some(info.at));
            (snapshot.memory, snapshot.ages) = (None, None);
        }
        snapshot
    }

    /// The pauses until a snapshot, of the program that it shows: exec begins the figures anew.
    fn pauses(&self, index: usize) -> Vec<Range<Duration>> {
        let exec = self.snapshots[..index].iter().rfind(|info| info.meta.trigger == Trigger::Exec);
        let (began, until) = (exec.map_or(Duration::ZERO, |exec| exec.at), self.snapshots[index].at);
        let mut pauses = Vec::new();
        let mut since = None;
        for sample in self.series.iter().filter(|sample| sample.at <= until) {
            match since {
                None if sample.paused => since = Some(sample.at),
                Some(from) if !sample.paused => {
                    pauses.push(from..sample.at);
                    since = None;
                }
                _ => {}
            }
        }
        pauses.extend(since.map(|from| from..until));
        pauses.retain(|pause| pause.end > began);
        pauses.into_iter().map(|pause| pause.start.max(began)..pause.end).collect()
    }

    /// The last snapshot whose blocks' ages were recorded.
    pub fn last_with_ages(&self) -> Option<usize> {
        self.changes.iter().rposition(|changes| changes.ages.is_some())
    }

    /// Visits the totals of every stack at every snapshot, in the order of time: the snapshot's index, and totals by
    /// [`StackId`], all of them (zero where not yet seen).
    pub fn each_snapshot(&self, visit: impl FnMut(usize, &[Totals])) {
        if let Some(last) = self.snapshots.len().checked_sub(1) {
            self.each_until(last, visit);
        }
    }

    /// Totals by [`StackId`] at one snapshot.
    fn totals_at(&self, index: usize) -> Cow<'_, [Totals]> {
        if index + 1 == self.changes.len() {
            return Cow::Borrowed(&self.last);
        }
        let mut all = Vec::new();
        self.each_until(index, |at, totals| {
            if at == index {
                all = totals.to_vec();
            }
        });
        Cow::Owned(all)
    }

    /// The processes of a scope of many at one snapshot, by [`crate::snapshot::ProcessId`].
    pub fn processes_at(&self, index: usize) -> Cow<'_, [ProcessStats]> {
        if index + 1 == self.changes.len() {
            return Cow::Borrowed(&self.last_processes);
        }
        Cow::Owned(self.replayed_processes(index))
    }

    /// Processes at a snapshot, from the changes.
    pub(super) fn replayed_processes(&self, index: usize) -> Vec<ProcessStats> {
        let (mut all, mut raw) = (Vec::new(), Vec::new());
        for changed in self.changes.iter().take(index + 1).filter_map(|changes| changes.processes.as_ref()) {
            processes::apply(changed, &mut all, &Budget::unlimited(), &mut raw).expect("checked when it was read");
        }
        all
    }

    /// Totals at the last snapshot, from the changes.
    pub(super) fn replayed(&self) -> Vec<Totals> {
        let mut last = vec![Totals::default(); self.stacks.len()];
        self.each_snapshot(|index, totals| {
            if index + 1 == self.snapshots.len() {
                last = totals.to_vec();
            }
        });
        last
    }

    /// Visits the processes of a scope of many at every snapshot, in the order of time: the snapshot's index, and processes by
    /// [`crate::snapshot::ProcessId`].
    pub fn each_processes(&self, mut visit: impl FnMut(usize, &[ProcessStats])) {
        let (mut all, mut raw) = (Vec::new(), Vec::new());
        for (index, changes) in self.changes.iter().enumerate() {
            if let Some(changed) = &changes.processes {
                processes::apply(changed, &mut all, &Budget::unlimited(), &mut raw).expect("checked when it was read");
            }
            visit(index, &all);
        }
    }

    fn each_until(&self, last: usize, mut visit: impl FnMut(usize, &[Totals])) {
        let mut all: Vec<Totals> = Vec::new();
        let mut raw = Vec::new();
        for (index, changes) in self.changes.iter().enumerate().take(last + 1) {
            totals::apply(&changes.totals, &mut all, self.stacks.len(), &Budget::unlimited(), &mut raw)
                .expect("checked when it was read");
            visit(index, &all);
        }
    }
}
