//! A traced process: its modules, their rows and probes in the kernel, and the way from the tables to a snapshot.

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use object::Object as _;
use thiserror::Error;
use tracer_common::{
    abi::{MAPPING_GENERATED, MAPPING_ROWS, Mapping, target_flags},
    counters::Counter,
};

use super::{
    ranges::LiveRanges,
    read_module::{LibraryNotice, R_STATE_OFFSET, ReadModule},
};
use crate::{
    bpf::{
        AttachError, Kernel, LoadError, Notices, RawStack, Reach, TableSizes, TargetError, TargetNumber, TrapCost,
        monotonic_ns,
    },
    options::{Placement, SessionOptions},
    plan::{AllocatorSpec, SpecFunction},
    snapshot::{Frame, ModuleId, ModuleKind, Overhead, Snapshot, Stack, StackStats, TargetInfo, Tid, Totals},
    target::{
        LoadedModule, Modules, Process, ProcessError, host,
        seccomp::{self, ReturnProbes},
    },
    unwind::{Added, RowRange, RowTables},
};

/// Distinct stacks that the tables hold.
const MAX_STACKS: u32 = 1 << 16;

/// Likewise where threads are kept apart; about 400 bytes each.
const MAX_STACKS_BY_THREAD: u32 = 1 << 18;

/// Rows kept free for libraries that the target opens later (8 bytes each).
const SPARE_ROWS: u32 = 1 << 19;

/// Rows kept free for a program that has not mapped its libraries yet.
const SPARE_ROWS_OF_CHILD: u32 = 3 << 19;

/// Fewest thread slots (1.6 KiB each).
const MIN_THREADS: u32 = 1024;

/// Why a process is not traced.
#[derive(Debug, Error)]
pub enum TraceError {
    /// The process itself.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// The kernel side.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// A probe was refused.
    #[error(transparent)]
    Attach(#[from] AttachError),
    /// Mappings cannot be followed.
    #[error("failed to follow mappings")]
    Mappings(#[source] std::io::Error),
    /// The kernel side cannot take it in.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// This host cannot trace.
    #[error("this host cannot trace: {reason}")]
    Host {
        /// What is missing, and the remedy.
        reason: String,
    },
    /// It is gone; what failed failed for that.
    #[error("pid {pid} ({comm}) ended while it was being attached to")]
    Ended {
        /// The process.
        pid: u32,
        /// Its name.
        comm: String,
    },
    /// A return probe would kill the target.
    #[error("refused to trace pid {pid} ({comm}): {reason}")]
    Unsafe {
        /// The process.
        pid: u32,
        /// Its name.
        comm: String,
        /// What would happen, and what to do.
        reason: String,
    },
    /// An allocator that the user described is not there.
    #[error("failed to find the allocator described: {reason}")]
    Allocator {
        /// What is not there, and what is.
        reason: String,
    },
    /// No module defines an allocator that is known.
    #[error(
        "pid {pid} ({comm}): no allocator found; looked for malloc and its family in the symbols of {looked_at}{hint}"
    )]
    NoAllocator {
        /// The process.
        pid: u32,
        /// Its name.
        comm: String,
        /// The modules.
        looked_at: String,
        /// What is special about it.
        hint: &'static str,
    },
}

/// Whose process it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A running one, which must not be stopped.
    Attached,
    /// Our own child, which is stopped while a library that it opened is read.
    Child,
}

/// A process being traced.
pub struct Tracer {
    process: Arc<Process>,
    origin: Origin,
    placement: Placement,
    /// Allocators that the user described.
    allocators: Vec<AllocatorSpec>,
    kernel: Kernel,
    /// Where the domain `mmap` is followed.
    mappings: Option<LiveRanges>,
    /// The process in the kernel's tables.
    target: TargetNumber,
    modules: Modules,
    tables: RowTables<Vec<u8>>,
    /// Each module's rows and the vaddr that their offsets count from.
    ranges: HashMap<ModuleId, (RowRange, u64)>,
    n_sites: usize,
    library_notice: bool,
    trap_cost: TrapCost,
    /// When tracing began: CLOCK_MONOTONIC, ns. Before [`Tracer::begin`]: when it was prepared.
    began_at_ns: u64,
    begun: bool,
    /// The probes are taken away since this time after the beginning.
    paused_since: Option<Duration>,
    /// None: not known.
    cpu_seconds_before: Option<f64>,
    notes: Vec<String>,
}

impl Tracer {
    /// Reads the target's modules, loads the kernel side and attaches the probes. Tracing begins with [`Tracer::begin`].
    ///
    /// # Errors
    /// [`TraceError`]; nothing stays attached.
    pub fn prepare(
        process: Process,
        origin: Origin,
        options: &SessionOptions,
        progress: &dyn Fn(&str),
    ) -> Result<Self, TraceError> {
        let process = Arc::new(process);
        Self::prepare_running(&process, origin, options, false, progress).map_err(|error| ended_or(&process, error))
    }

    /// As [`Self::prepare`], but paused: no probe is attached before [`Self::resume`].
    ///
    /// # Errors
    /// As [`Self::prepare`].
    pub fn prepare_paused(
        process: Process,
        origin: Origin,
        options: &SessionOptions,
        progress: &dyn Fn(&str),
    ) -> Result<Self, TraceError> {
        let process = Arc::new(process);
        Self::prepare_running(&process, origin, options, true, progress).map_err(|error| ended_or(&process, error))
    }

    fn prepare_running(
        process: &Arc<Process>,
        origin: Origin,
        options: &SessionOptions,
        paused: bool,
        progress: &dyn Fn(&str),
    ) -> Result<Self, TraceError> {
        if let Some(reason) = host::refusal(&host::checks(&host::HostFacts::read())) {
            return Err(TraceError::Host { reason });
        }
        check_return_probes(process)?;
        let mut modules = Modules::default();
        let fresh = modules.refresh(process)?;
        let mut read = Vec::new();
        for id in fresh {
            let loaded = modules.get(id);
            progress(&loaded.module.path.to_string_lossy());
            let mut module = ReadModule::read(loaded, options.placement, &options.allocators);
            if options.follows_mappings() {
                module.find_mappings(loaded);
            }
            read.push((id, module));
        }
        let n_rows: usize = read.iter().map(|(_, read)| read.rows.rows.len()).sum();
        let spare = if origin == Origin::Child { SPARE_ROWS_OF_CHILD } else { SPARE_ROWS };
        let sizes = TableSizes {
            blocks: options.max_live_blocks,
            threads: (4 * process.n_threads() as u32).max(MIN_THREADS),
            stacks: if options.by_thread { MAX_STACKS_BY_THREAD } else { MAX_STACKS },
            rows: n_rows as u32 + spare,
            by_thread: options.by_thread,
            range_events_bytes: if options.follows_mappings() { options.mmap_buffer_bytes } else { 0 },
            ..TableSizes::default()
        };
        let mut kernel = Kernel::load(sizes, options.verbose >= 2)?;
        if paused {
            kernel.pause();
        }
        let flags = if origin == Origin::Child { target_flags::STOP_ON_LIBRARY } else { 0 };
        let target = kernel.add_target(process.pid, 0, flags)?;
        let mappings = match options.follows_mappings() {
            true => Some(LiveRanges::start(kernel.range_events()?).map_err(TraceError::Mappings)?),
            false => None,
        };
        let trap_cost = kernel.trap_cost();
        let cpu_seconds_before = process.cpu_seconds();
        let mut tracer = Self {
            process: Arc::clone(process),
            origin,
            placement: options.placement,
            allocators: options.allocators.clone(),
            kernel,
            mappings,
            target,
            modules,
            tables: RowTables::new(sizes.rows),
            ranges: HashMap::new(),
            n_sites: 0,
            library_notice: false,
            trap_cost,
            began_at_ns: monotonic_ns(),
            begun: false,
            paused_since: paused.then_some(Duration::ZERO),
            cpu_seconds_before,
            notes: Vec::new(),
        };
        tracer.take_in(read)?;
        Ok(tracer)
    }

    /// The process.
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// The channel of notices; can be taken once.
    ///
    /// # Errors
    /// The ring buffer could not be opened.
    pub fn notices(&mut self) -> Result<Notices, TraceError> {
        Ok(self.kernel.notices()?)
    }

    /// Passes on what the BPF side has logged (`-vv`).
    pub fn flush_log(&mut self) {
        self.kernel.flush_log();
    }

    /// Tracing begins.
    pub fn begin(&mut self) {
        self.began_at_ns = monotonic_ns();
        self.begun = true;
        self.cpu_seconds_before = self.process.cpu_seconds();
        self.kernel.counting(true);
        self.mappings.iter().for_each(|mappings| mappings.begin(&self.kernel, self.target));
        log::info!("tracing pid {}", self.process.pid);
    }

    /// Tracing ends; the tables stay as they are.
    pub fn end(&self) {
        self.kernel.counting(false);
    }

    /// Takes every probe away, so that the target runs as if it were not traced; the tables stay. It takes about 0.1 s a probe on
    /// Linux 6.18, while which nothing counts any more. Calls in flight are lost.
    pub fn pause(&mut self) {
        if self.paused_since.is_some() {
            return;
        }
        let since = self.elapsed();
        self.kernel.pause();
        self.paused_since = Some(since);
        log::info!("paused after {:.1} s", since.as_secs_f64());
    }

    /// Attaches the probes again, those for libraries that were mapped meanwhile included, and goes on.
    ///
    /// # Errors
    /// The target has ended, it would be killed by return probes now, or a probe was refused; it stays paused.
    pub fn resume(&mut self) -> Result<(), TraceError> {
        let Some(since) = self.paused_since else { return Ok(()) };
        check_return_probes(&self.process)?;
        self.refresh()?;
        self.kernel.attach_again()?;
        self.paused_since = None;
        if self.begun {
            self.kernel.resume();
            self.note(format!(
                "paused from {:.1} s to {:.1} s: blocks allocated meanwhile are unknown, blocks freed meanwhile still count as live",
                since.as_secs_f64(),
                self.elapsed().as_secs_f64()
            ));
        }
        Ok(())
    }

    /// Whether the probes are taken away.
    pub fn is_paused(&self) -> bool {
        self.paused_since.is_some()
    }

    /// Time since tracing began, pauses included: the clock of a snapshot's `duration` and `peak_at`.
    pub fn elapsed(&self) -> Duration {
        self.since_began(monotonic_ns())
    }

    fn since_began(&self, at_ns: u64) -> Duration {
        Duration::from_nanos(at_ns.saturating_sub(self.began_at_ns))
    }

    /// Whether the target's dynamic loader will tell when its libraries are loaded.
    pub fn awaits_libraries(&self) -> bool {
        self.library_notice && !self.is_paused()
    }

    /// Takes the probes away, in a thread of its own: the kernel takes them one after the other and waits for a grace period
    /// each time (0.1 s a probe on 6.18); `when_gone` then runs in that thread. What remains keeps the modules' files open, so
    /// that they can still be named.
    ///
    /// This process must not be killed meanwhile: a thread that dies while it takes a breakpoint away leaves it in the target
    /// (`uprobe_unregister_nosync`, kernel/events/uprobes.c of 6.18: "leaking uprobe").
    pub fn detach(self, when_gone: impl FnOnce() + Send + 'static) -> (Modules, std::thread::JoinHandle<()>) {
        let Self { modules, kernel, .. } = self;
        let detach = move || {
            drop(kernel);
            when_gone();
        };
        (modules, std::thread::spawn(detach))
    }

    /// Whether there is something to trace in a process that has its libraries.
    ///
    /// # Errors
    /// No allocator is probed, or one that the user described is not mapped.
    pub fn check_sites(&self) -> Result<(), TraceError> {
        let missing = self.unmapped_allocator().or_else(|| (!self.has_sites()).then(|| self.no_allocator()));
        missing.map_or(Ok(()), |error| Err(ended_or(&self.process, error)))
    }

    /// Whether any allocator function is probed, or one that maps memory, where these are followed.
    pub fn has_sites(&self) -> bool {
        self.n_sites > 0
    }

    /// The error for an allocator described in a module that is not mapped.
    pub fn unmapped_allocator(&self) -> Option<TraceError> {
        let is_mapped =
            |function: &SpecFunction| self.modules.all().iter().any(|loaded| function.is_of(&loaded.module.path));
        let missing = self.allocators.iter().flat_map(|spec| &spec.functions).find(|function| !is_mapped(function))?;
        Some(TraceError::Allocator {
            reason: format!("`{}` is not mapped (mapped: {})", missing.module, self.mapped_files()),
        })
    }

    /// The names of all mapped files, for messages.
    fn mapped_files(&self) -> String {
        let name =
            |loaded: &LoadedModule| loaded.module.path.file_name().map(|name| name.to_string_lossy().into_owned());
        let files = self.modules.all().iter().filter(|loaded| loaded.module.kind == ModuleKind::File);
        let names: Vec<_> = files.map(|loaded| name(loaded).unwrap_or_default()).collect();
        if names.is_empty() { "no file".to_owned() } else { names.join(", ") }
    }

    /// The error that says which modules were looked at in vain.
    pub fn no_allocator(&self) -> TraceError {
        let hint = self.modules.all().iter().find_map(|loaded| {
            let bytes = loaded.bytes().ok()?;
            let elf = object::File::parse(&*bytes).ok()?;
            if elf.section_by_name(".go.buildinfo").is_some() || elf.section_by_name(".gopclntab").is_some() {
                return Some("; this is a Go program without cgo, whose own allocator is not traced");
            }
            let is_exe = self.process.exe.as_deref() == Some(&loaded.module.path);
            let has_symbols = elf.symbols().next().is_some() || elf.dynamic_symbols().next().is_some();
            (is_exe && !has_symbols)
                .then_some("; the executable is static and stripped: install its debug file (found by build id or debug link), trace a build with symbols, or describe its allocator with --allocator")
        });
        TraceError::NoAllocator {
            pid: self.process.pid,
            comm: self.process.comm.clone(),
            looked_at: self.mapped_files(),
            hint: hint.unwrap_or(""),
        }
    }

    /// Looks at the target's mappings again: new modules' rows and probes go into the kernel.
    ///
    /// # Errors
    /// The mappings could not be read (the target has ended), or a probe was refused.
    pub fn refresh(&mut self) -> Result<(), TraceError> {
        let fresh = self.modules.refresh(&self.process)?;
        let read = fresh
            .into_iter()
            .map(|id| {
                let loaded = self.modules.get(id);
                let mut read = ReadModule::read(loaded, self.placement, &self.allocators);
                if self.mappings.is_some() {
                    read.find_mappings(loaded);
                }
                (id, read)
            })
            .collect();
        self.take_in(read)
    }

    /// Rows, then mappings, then probes: a stack that a new probe brings finds its rows.
    fn take_in(&mut self, read: Vec<(ModuleId, ReadModule)>) -> Result<(), TraceError> {
        let mut bindings = Vec::new();
        for (id, read) in read {
            let path = self.modules.get(id).module.path.clone();
            if let Some(reason) = read.misdescribed {
                return Err(TraceError::Allocator { reason: format!("{}: {reason}", path.display()) });
            }
            for problem in read.problems {
                self.note(format!("{}: {problem}", path.display()));
            }
            let identity = self.modules.get(id).identity();
            let added = self.tables.add(identity, &read.rows);
            if added == Added::Full {
                self.note(format!("{}: no room for its unwind rows; stacks through it are truncated", path.display()));
            }
            self.ranges.insert(id, (added.range(), read.rows.base_vaddr));
            bindings.push((id, read.bindings, read.mappings, read.exits, read.library_notice));
        }
        self.upload();
        let mut mapping_sites = Vec::new();
        for (id, bindings, mappings, exits, library_notice) in bindings {
            let open_path = self.modules.get(id).module.open_path.clone();
            if let Some(notice) = library_notice {
                self.watch_libraries(id, &open_path, notice)?;
            }
            if !bindings.is_empty() {
                log::info!("{} probe sites in {}", bindings.len(), self.modules.get(id).module.path.display());
                match self.placement {
                    Placement::Empty => {
                        self.kernel.attach_empty(&open_path, &bindings, Reach::Process(self.process.pid))?;
                    }
                    Placement::Planned | Placement::Naive => {
                        self.kernel.attach_exits(&open_path, &exits, Reach::Process(self.process.pid))?;
                        self.kernel.attach(&open_path, &bindings, Reach::Process(self.process.pid))?;
                    }
                }
                self.n_sites += bindings.len();
            }
            if !mappings.is_empty() {
                log::info!("{} mapping functions in {}", mappings.len(), self.modules.get(id).module.path.display());
                mapping_sites.push((open_path, mappings));
            }
        }
        // After all allocators: what one of them maps is told by its call in flight.
        for (open_path, mappings) in mapping_sites {
            self.kernel.attach_mappings(&open_path, &mappings, Reach::Process(self.process.pid))?;
            self.n_sites += mappings.len();
        }
        Ok(())
    }

    fn upload(&mut self) {
        let pending = self.tables.pending();
        if !(self.kernel.put_rules(pending.first_rule as usize, pending.rules)
            && self.kernel.put_rows(pending.first_row as usize, pending.rows))
        {
            log::error!("unwind rows do not fit the kernel's tables, though room was made");
        }
        self.tables.mark_uploaded();
        let mappings: Vec<Mapping> = self
            .modules
            .current()
            .iter()
            .map(|(mapping, id)| {
                let (range, base_vaddr) = self.ranges.get(id).copied().unwrap_or_default();
                let generated = self.modules.get(*id).module.kind == ModuleKind::Generated;
                Mapping {
                    start: mapping.start.0,
                    end: mapping.end.0,
                    bias: mapping.bias.wrapping_add(base_vaddr),
                    row_start: range.start,
                    row_count: range.len,
                    kind: if generated { MAPPING_GENERATED } else { MAPPING_ROWS },
                    _pad: 0,
                }
            })
            .collect();
        let left_out = self.kernel.put_mappings(self.target, &mappings);
        if left_out > 0 {
            self.note(format!(
                "{left_out} executable mappings do not fit the table: stacks through them are truncated"
            ));
        }
    }

    fn watch_libraries(
        &mut self,
        id: ModuleId,
        path: &std::path::Path,
        notice: LibraryNotice,
    ) -> Result<(), TraceError> {
        let loaded = self.modules.get(id);
        let bias = loaded.module.mappings.first().map_or(0, |mapping| mapping.bias);
        let r_state = notice.r_debug.map_or(0, |r_debug| r_debug.0.wrapping_add(bias) + R_STATE_OFFSET);
        self.kernel.watch_libraries(self.target, r_state);
        self.kernel.attach_library_notice(path, notice.offset, Reach::Process(self.process.pid))?;
        self.library_notice = true;
        Ok(())
    }

    /// Adds a note to all later snapshots, once.
    pub fn note(&mut self, note: String) {
        log::info!("{note}");
        if !self.notes.contains(&note) {
            self.notes.push(note);
        }
    }

    /// The sums over all stacks as of now: next to nothing beside a snapshot.
    pub fn totals(&self) -> Totals {
        self.kernel.read_totals()
    }

    /// All totals, stacks, modules and counters as of now.
    pub fn snapshot(&self) -> Snapshot {
        let (mut raw_stacks, totals) = self.kernel.read_stacks();
        let duration = self.elapsed();
        let mut counters = self.kernel.counters();
        let mapped = self.mappings.as_ref().map(|mappings| mappings.of_process(&self.kernel, self.target));
        let mmap = mapped.map(|mapped| {
            raw_stacks.extend(mapped.stacks);
            raw_stacks.sort_by_key(|stack| stack.id);
            counters.0.extend(mapped.counters);
            mapped.totals
        });
        let threads = self.thread_names(&raw_stacks);
        let stacks = raw_stacks.into_iter().map(|raw| self.located(raw)).collect();
        let hits = HITS.map(|hit| counters.get(hit));
        let cpu_seconds = self.process.cpu_seconds().zip(self.cpu_seconds_before).map(|(now, before)| now - before);
        let n_hits: u64 = hits.iter().sum();
        Snapshot {
            target: TargetInfo {
                pid: self.process.pid,
                comm: self.process.comm.clone(),
                exe: self.process.exe.clone(),
                running: self.process.is_running(),
            },
            duration,
            from_start: self.origin == Origin::Child,
            totals,
            mmap,
            peak_at: self.kernel.scope_bytes().peak_at_ns.map(|at_ns| self.since_began(at_ns)),
            threads,
            memory: None,
            ages: None,
            overhead: Overhead {
                hits: n_hits,
                hits_per_second: n_hits as f64 / duration.as_secs_f64().max(1e-9),
                estimated_share: cpu_seconds.map(|seconds| share(self.trap_cost.seconds(&counters), seconds)),
                kernel_map_bytes: self.kernel.map_bytes(),
                rss_bytes: own_rss_bytes(),
            },
            counters,
            modules: self.modules.all().iter().map(|loaded| Arc::clone(&loaded.module)).collect(),
            stacks,
            notes: self.all_notes(),
            ..Snapshot::default()
        }
    }

    /// As [`Self::snapshot`], with live blocks by age: their generation is the number of earlier snapshots (`taken_at`: since
    /// tracing began, ascending) that were taken before their birth. It looks at every block.
    pub fn snapshot_with_ages(&self, taken_at: &[Duration]) -> Snapshot {
        let taken_at_ns: Vec<u64> =
            taken_at.iter().map(|at| self.began_at_ns.saturating_add(at.as_nanos() as u64)).collect();
        let ages = self.kernel.read_ages(&taken_at_ns);
        let mut snapshot = self.snapshot();
        match ages {
            Ok(ages) => snapshot.ages = Some(ages),
            Err(error) => snapshot.notes.push(format!("ages of blocks are not known: {error}")),
        }
        snapshot
    }

    /// Addresses → modules.
    fn located(&self, raw: RawStack) -> StackStats {
        let frames = raw.frames.iter().map(|addr| Frame { addr: *addr, location: self.modules.locate(addr.lookup()) });
        let stack = Stack {
            frames: frames.collect(),
            end: raw.end,
            thread: raw.thread.map(|(tid, _)| tid),
            domain: raw.domain,
            ..Stack::default()
        };
        StackStats { id: raw.id, stack: Arc::new(stack), totals: raw.totals }
    }

    /// Names of the threads that the stacks belong to: their own of now, else the last one that a stack was stored with.
    fn thread_names(&self, stacks: &[RawStack]) -> BTreeMap<Tid, String> {
        let mut names: BTreeMap<Tid, String> = stacks.iter().filter_map(|raw| raw.thread.clone()).collect();
        for (tid, name) in &mut names {
            if let Some(now) = self.process.thread_comm(tid.0) {
                *name = now;
            }
        }
        names
    }

    fn all_notes(&self) -> Vec<String> {
        let paused = self.paused_since.filter(|_| self.begun).map(|since| {
            format!(
                "paused since {:.1} s: blocks allocated since then are unknown, blocks freed since then still count as live",
                since.as_secs_f64()
            )
        });
        self.notes.iter().chain(&self.modules.problems).cloned().chain(paused).collect()
    }
}

/// Counters of traps that the target takes.
const HITS: [Counter; 5] =
    [Counter::HitsEntry, Counter::HitsReturn, Counter::HitsFree, Counter::HitsMapping, Counter::HitsMappingReturn];

/// What failed for a process that has ended meanwhile failed for that.
fn ended_or(process: &Process, error: TraceError) -> TraceError {
    if process.is_running() {
        return error;
    }
    log::debug!("{error}");
    TraceError::Ended { pid: process.pid, comm: process.comm.clone() }
}

/// Probe time by CPU time; both are estimates, so the share is kept within 0–1.
fn share(probe_seconds: f64, cpu_seconds: f64) -> f64 {
    if cpu_seconds <= 0.0 { 0.0 } else { (probe_seconds / cpu_seconds).clamp(0.0, 1.0) }
}

fn own_rss_bytes() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let kib =
        status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}

/// Refuses a target that a return probe would kill.
fn check_return_probes(process: &Process) -> Result<(), TraceError> {
    let path = PathBuf::from(format!("/proc/{}/task", process.pid));
    match seccomp::read(process.pid).map_err(|source| ProcessError::Read { path, source })? {
        ReturnProbes::Safe => Ok(()),
        ReturnProbes::Killed { reason } => {
            Err(TraceError::Unsafe { pid: process.pid, comm: process.comm.clone(), reason })
        }
    }
}
