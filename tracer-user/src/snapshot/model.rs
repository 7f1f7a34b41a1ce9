//! The types of a snapshot. Knows neither BPF nor names.

use std::{collections::BTreeMap, fmt, ops::Range, path::PathBuf, sync::Arc, time::Duration};

use tracer_common::{
    abi::StackEnd,
    addr::{FileVaddr, FrameAddr, UserAddr},
    counters::Counter,
};

/// Everything known of one target at one moment.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// The traced process; of a scope of many, the one that was named or started, else all zero.
    pub target: TargetInfo,
    /// What selects processes, as the user gave it ("container web"). Empty: `target` alone.
    pub scope: String,
    /// The processes of the scope by [`ProcessId`], those that have ended included. Empty: `target` alone.
    pub processes: Vec<ProcessStats>,
    /// Time since tracing began.
    pub duration: Duration,
    /// Of the peak alone, which is known by its live figures only: when the snapshot was taken that all others (allocated, freed,
    /// counters, overhead) are of. `None`: all are of `duration`.
    pub counted_until: Option<Duration>,
    /// Whether tracing began with the process (`run`), so that every block was seen.
    pub from_start: bool,
    /// Sums over all stacks of the heap. Of many processes: current is exact, peak is the highest total of them together.
    pub totals: Totals,
    /// Sums over all stacks of [`Domain::Mmap`]. `None`: mappings are not followed in this session.
    pub mmap: Option<Totals>,
    /// When the highest total was reached, since tracing began. `None`: not known.
    pub peak_at: Option<Duration>,
    /// What was seen, lost, truncated or refused.
    pub counters: Counters,
    /// When the probes were taken away, since tracing began, in the order of time; a pause that lasts ends with the snapshot.
    pub pauses: Vec<Range<Duration>>,
    /// What came after it is missing: it is the last whole one of a recording that is not.
    pub is_cut: bool,
    /// The tool's own cost.
    pub overhead: Overhead,
    /// Code that frames can lie in, by [`ModuleId`].
    pub modules: Vec<Arc<Module>>,
    /// Stacks with their totals, in the order of their ids.
    pub stacks: Vec<StackStats>,
    /// Names of the target's threads, those that have ended included where they were seen; hostile input. Empty where threads
    /// are not kept apart ([`Stack::thread`]).
    pub threads: BTreeMap<Tid, String>,
    /// What the target's address space held. `None`: not read (it costs the target its mapping lock for a moment).
    pub memory: Option<ProcessMemory>,
    /// Live blocks by stack and time of birth. `None`: not read (it takes one look at every block).
    pub ages: Option<Vec<AgeCell>>,
    /// What was met on the way that a reader should know ("libfoo.so: 3 broken unwind entries"), one line each.
    pub notes: Vec<String>,
}

/// The traced process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TargetInfo {
    /// Process id in the initial namespace.
    pub pid: u32,
    /// `/proc/PID/comm`; hostile input, escape before printing.
    pub comm: String,
    /// `/proc/PID/exe`, where readable.
    pub exe: Option<PathBuf>,
    /// Whether the process was still running.
    pub running: bool,
}

/// Index into [`Snapshot::processes`]. The same process may have another in the next snapshot: it is told by its pid and the
/// time it joined.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProcessId(pub u32);

/// One process of a scope of many: who it is, and its sums.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ProcessStats {
    /// Process id in the initial namespace. Another process may have had it before, and after.
    pub pid: u32,
    /// Its id in its own PID namespace, where that is another.
    pub pid_inside: Option<u32>,
    /// The process that it was forked from; `None`: not known.
    pub parent_pid: Option<u32>,
    /// `/proc/PID/comm`; hostile input.
    pub comm: String,
    /// `/proc/PID/exe` as it shows inside its own root; hostile input.
    pub exe: Option<PathBuf>,
    /// The user it runs as, else the number.
    pub user: String,
    /// The container it runs in: its name, else its short id; hostile input. `None`: on the host.
    pub container: Option<String>,
    /// Its v2 cgroup, from the hierarchy's root; hostile input.
    pub cgroup: Option<PathBuf>,
    /// When it came to be counted, since tracing began.
    pub joined_at: Duration,
    /// When and how it ended.
    pub ended: Option<(Duration, ProcessEnd)>,
    /// Whether every block was seen from its first one on.
    pub from_start: bool,
    /// Bytes that its parent held when it was forked. They are not part of its totals; frees of them are counted as
    /// `frees_inherited`.
    pub inherited_bytes: u64,
    /// Blocks of those.
    pub inherited_count: u64,
    /// Sums over its stacks of the heap; the peak is its own.
    pub totals: Totals,
    /// Sums over its mappings, as [`Snapshot::mmap`].
    pub mmap: Option<Totals>,
    /// What was lost or refused of this process alone.
    pub counters: Counters,
    /// Its resident memory in bytes. `None`: not read, or it has ended.
    pub rss_bytes: Option<u64>,
}

impl ProcessStats {
    /// Whether it stands for no process: in a recording, the place of one that is told with others by now.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Its command. The sum of several that ended (pid 0) is called `sh (12 ended processes)`: the command that all had.
    pub fn command(&self) -> &str {
        self.sum().map_or(&self.comm, |(command, _)| command)
    }

    /// How many processes it stands for: one, unless it is a sum of several that ended.
    pub fn n_processes(&self) -> u64 {
        self.sum().map_or(1, |(_, n)| n)
    }

    fn sum(&self) -> Option<(&str, u64)> {
        let (command, n) = self.comm.strip_suffix(" ended processes)").filter(|_| self.pid == 0)?.rsplit_once(" (")?;
        Some((command, n.parse().ok()?))
    }
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ProcessEnd {
    /// Its last thread ended.
    Exited,
    /// It became another program, which is a process of its own here.
    Exec,
    /// It left the scope, or was let go.
    Released,
}

/// Kind of memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Domain {
    /// Blocks of allocators: the malloc family.
    #[default]
    Heap,
    /// Anonymous mappings that the program itself makes.
    Mmap,
}

/// Bytes and blocks of a whole target.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Bytes live now.
    pub current_bytes: u64,
    /// Blocks live now.
    pub current_count: u64,
    /// Bytes live at the moment of the highest total.
    pub peak_bytes: u64,
    /// Blocks live at that moment; 0 with bytes: not known, see [`Totals::known_peak_count`].
    pub peak_count: u64,
    /// Bytes ever allocated (a realloc counts its new size).
    pub allocated_bytes: u64,
    /// Blocks ever allocated (a realloc counts as one).
    pub allocated_count: u64,
    /// Bytes ever freed (a realloc counts its old size).
    pub freed_bytes: u64,
    /// Blocks ever freed.
    pub freed_count: u64,
    /// Of the freed blocks, those that had lived less than 1 ms.
    pub freed_within_1ms_count: u64,
    /// Of the freed blocks, those that had lived less than 1 s (those of less than 1 ms included).
    pub freed_within_1s_count: u64,
}

impl Totals {
    /// Blocks live at the moment of the highest total; `None` where only its bytes are known: of many processes together.
    pub const fn known_peak_count(&self) -> Option<u64> {
        if self.peak_bytes > 0 && self.peak_count == 0 { None } else { Some(self.peak_count) }
    }

    /// Adds another's figures, each on its own.
    pub const fn add(&mut self, other: &Self) {
        let Self {
            current_bytes,
            current_count,
            peak_bytes,
            peak_count,
            allocated_bytes,
            allocated_count,
            freed_bytes,
            freed_count,
            freed_within_1ms_count,
            freed_within_1s_count,
        } = other;
        self.current_bytes = self.current_bytes.saturating_add(*current_bytes);
        self.current_count = self.current_count.saturating_add(*current_count);
        self.peak_bytes = self.peak_bytes.saturating_add(*peak_bytes);
        self.peak_count = self.peak_count.saturating_add(*peak_count);
        self.allocated_bytes = self.allocated_bytes.saturating_add(*allocated_bytes);
        self.allocated_count = self.allocated_count.saturating_add(*allocated_count);
        self.freed_bytes = self.freed_bytes.saturating_add(*freed_bytes);
        self.freed_count = self.freed_count.saturating_add(*freed_count);
        self.freed_within_1ms_count = self.freed_within_1ms_count.saturating_add(*freed_within_1ms_count);
        self.freed_within_1s_count = self.freed_within_1s_count.saturating_add(*freed_within_1s_count);
    }
}

/// Values of all counters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters(pub BTreeMap<Counter, u64>);

impl Counters {
    /// A counter's value; 0 where it was never bumped.
    pub fn get(&self, counter: Counter) -> u64 {
        self.0.get(&counter).copied().unwrap_or(0)
    }
}

/// The tool's own cost.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Overhead {
    /// Probe hits, entry and return.
    pub hits: u64,
    /// Hits per second of tracing.
    pub hits_per_second: f64,
    /// Estimated share of the target's CPU time that the probes took, 0–1; an estimate, so reports mark it `~`. None: the
    /// target's time is not known, it had been reaped.
    pub estimated_share: Option<f64>,
    /// Memory of the kernel tables in bytes.
    pub kernel_map_bytes: u64,
    /// Resident memory of the tracer itself in bytes.
    pub rss_bytes: u64,
}

/// Index into [`Snapshot::modules`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ModuleId(pub u32);

/// A file (or the vdso, or generated code) that the target executes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Module {
    /// What it is.
    pub kind: ModuleKind,
    /// Path as the target's maps show it, without ` (deleted)`; hostile input.
    pub path: PathBuf,
    /// Where this process can open the very file that is mapped: `/proc/PID/map_files/…`, `/proc/self/fd/N` of a kept
    /// descriptor (so that it outlives the target), or the path.
    pub open_path: PathBuf,
    /// The file was deleted or replaced on disk since it was mapped.
    pub deleted: bool,
    /// GNU build id, where the file has one.
    pub build_id: Option<Vec<u8>>,
    /// Its executable mappings.
    pub mappings: Vec<ModuleMapping>,
}

/// What a module is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ModuleKind {
    /// An ELF file.
    File,
    /// The kernel's vdso.
    Vdso,
    /// Anonymous executable memory.
    Generated,
}

/// One executable mapping of a module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ModuleMapping {
    /// First address.
    pub start: UserAddr,
    /// First address past it.
    pub end: UserAddr,
    /// Run-time address minus file vaddr, wrapping.
    pub bias: u64,
}

impl ModuleMapping {
    /// The file vaddr of a run-time address in this mapping.
    pub const fn vaddr(&self, addr: UserAddr) -> FileVaddr {
        FileVaddr(addr.0.wrapping_sub(self.bias))
    }
}

/// Dense id of a stack, from the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StackId(pub u32);

/// A call chain.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Stack {
    /// Innermost first; the allocator's own frame is not part of it. Empty when the stack could not be stored.
    pub frames: Vec<Frame>,
    /// How the walk ended; anything but `Root` is a truncated stack.
    pub end: StackEnd,
    /// The thread that allocated. `None`: threads are not kept apart in this session.
    pub thread: Option<Tid>,
    /// The process that allocated. `None`: there is but one.
    pub process: Option<ProcessId>,
    /// What kind of memory it allocates.
    pub domain: Domain,
}

impl Default for Stack {
    /// A complete stack without frames.
    fn default() -> Self {
        Self { frames: Vec::new(), end: StackEnd::Root, thread: None, process: None, domain: Domain::Heap }
    }
}

/// A thread's id in the initial namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tid(pub u32);

impl fmt::Display for Tid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One frame: the address and the module it lies in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Frame {
    /// The address on the stack.
    pub addr: FrameAddr,
    /// The module and the vaddr *to look names up by* (already inside the call for return addresses).
    pub location: Option<(ModuleId, FileVaddr)>,
}

/// A stack with its totals.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StackStats {
    /// The kernel's id.
    pub id: StackId,
    /// The call chain; shared by the snapshots of a recording.
    pub stack: Arc<Stack>,
    /// Bytes and blocks; `peak_*` are those live at the *target's* peak.
    pub totals: Totals,
}

/// What an address space held at one moment, by kind of mapping (`/proc/PID/smaps`, Documentation/filesystems/proc.rst).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProcessMemory {
    /// glibc's main heap: the mapping called `[heap]`.
    pub heap: MappedBytes,
    /// Heaps of glibc's other arenas.
    pub arenas: MappedBytes,
    /// Other anonymous private memory: large blocks, other allocators, plain mmap.
    pub anonymous: MappedBytes,
    /// Stacks of all threads.
    pub stacks: MappedBytes,
    /// Mapped files, the pages that the process wrote included.
    pub files: MappedBytes,
    /// What is none of these: shared memory, the vdso.
    pub other: MappedBytes,
}

/// One kind of mapping.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MappedBytes {
    /// Address space.
    pub size_bytes: u64,
    /// Of this, resident.
    pub rss_bytes: u64,
    /// Resident, shared pages divided by the number of their users.
    pub pss_bytes: u64,
    /// Number of mappings.
    pub n_mappings: u64,
}

/// Live blocks of one stack that were allocated between two snapshots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AgeCell {
    /// Their stack.
    pub stack: StackId,
    /// Number of snapshots taken before they were allocated.
    pub generation: u32,
    /// Their bytes.
    pub bytes: u64,
    /// How many.
    pub count: u64,
}
