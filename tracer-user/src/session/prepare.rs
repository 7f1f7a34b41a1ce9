//! Before tracing begins: which processes there are, what their files hold, tables of the right size, probes in place.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use anyhow::bail;
use tracer_common::{
    abi::target_flags,
    limits::{MAX_POOLED_MAPPINGS, MAX_TARGETS},
};

use super::{
    archive::Archive,
    error::{TraceError, check_return_probes, ended_or},
    files::TracedFiles,
    ranges::LiveRanges,
    traced::Traced,
    tracer::{Main, Origin, Tracer},
    who::{start_ns, stats_of},
};
use crate::{
    bpf::{Kernel, KernelScope, Reach, TableSizes, monotonic_ns},
    options::SessionOptions,
    scope::{
        Facts, Scope, Selection,
        containers::{ContainerNames, Places},
    },
    target::{Process, ProcessError, host, seccomp},
};

/// Distinct stacks that the tables hold.
const MAX_STACKS: u32 = 1 << 16;

/// Likewise where many processes are traced; about 370 bytes each.
const MAX_STACKS_OF_MANY: u32 = 1 << 17;

/// Likewise where threads are kept apart.
const MAX_STACKS_BY_THREAD: u32 = 1 << 18;

/// Rows kept free for libraries that a target opens later (8 bytes each).
const SPARE_ROWS: u32 = 1 << 19;

/// Rows kept free for programs that have not mapped their libraries yet.
const SPARE_ROWS_OF_CHILD: u32 = 3 << 19;

/// Rows kept free for programs that join: a browser or a compiler has a million.
const SPARE_ROWS_OF_MANY: u32 = 1 << 22;

/// Fewest thread slots (3.2 KiB each).
const MIN_THREADS: u32 = 1024;

/// Likewise where processes come and go.
const MIN_THREADS_OF_MANY: u32 = 8192;

/// What is to be traced, and how.
pub(super) struct Wanted {
    /// The processes that are there.
    pub(super) processes: Vec<Process>,
    /// What selects others, which need not be there yet.
    pub(super) selection: Option<Selection>,
    /// How far the probes reach.
    pub(super) reach: Reach,
    /// What a process forks, and becomes by exec, is traced too.
    pub(super) follow: bool,
    /// Whose the processes are.
    pub(super) origin: Origin,
    /// The probes are not attached before [`Tracer::resume`].
    pub(super) paused: bool,
}

impl Wanted {
    /// One process for itself: no other pays anything.
    pub(super) fn one(process: Process, origin: Origin) -> Self {
        let reach = Reach::Process(process.pid);
        Self { processes: vec![process], selection: None, reach, follow: false, origin, paused: false }
    }

    /// A program that was started for the session. What it starts is traced too, unless that is not wanted.
    pub(super) fn of_child(process: Process, origin: Origin, options: &SessionOptions) -> Self {
        let follow = options.follow_children.unwrap_or(true);
        let reach = match (options.from_first_allocation, follow) {
            (true, true) => Reach::Everyone,
            (false, true) => Reach::Processes,
            // Nobody joins later.
            (_, false) => Reach::Process(process.pid),
        };
        Self { reach, follow, ..Self::one(process, origin) }
    }

    /// What the scopes of the options select now, and what is to be told of processes that cannot be traced.
    ///
    /// # Errors
    /// A scope that is not there, or the only process cannot be traced.
    pub(super) fn of_scopes(options: &SessionOptions) -> anyhow::Result<(Self, Vec<String>)> {
        if let [Scope::Pid(pid)] = options.scopes[..] {
            let process = Process::open(pid)?;
            let follow = options.follow_children.unwrap_or(options.from_first_allocation);
            let wanted = Self::of_child(
                process,
                Origin::Attached,
                &SessionOptions { follow_children: Some(follow), ..options.clone() },
            );
            return Ok((wanted, Vec::new()));
        }
        let selection = Selection::open(&options.scopes)?;
        let only_pids = options.scopes.iter().all(|scope| matches!(scope, Scope::Pid(_)));
        let follows = selection.is_all() || selection.goes_by_groups();
        let reach = if only_pids && !options.from_first_allocation { Reach::Processes } else { Reach::Everyone };
        let (processes, errors) = open_all(&selection);
        if only_pids && processes.is_empty() {
            bail!("no process of {selection} can be traced: {}", errors.join("; "));
        }
        let wanted = Self {
            processes,
            selection: Some(selection),
            reach,
            follow: options.follow_children.unwrap_or(follows),
            origin: Origin::Attached,
            paused: false,
        };
        Ok((wanted, errors))
    }

    /// Whether there may come to be more than one process.
    fn is_many(&self) -> bool {
        !matches!(self.reach, Reach::Process(_))
    }
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
        Self::prepare_wanted(Wanted::one(process, origin), options, progress)
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
        Self::prepare_wanted(Wanted { paused: true, ..Wanted::one(process, origin) }, options, progress)
    }

    /// As [`Self::prepare`], of any number of processes. What is wrong with one of many is a note.
    ///
    /// # Errors
    /// As [`Self::prepare`].
    pub(super) fn prepare_wanted(
        wanted: Wanted,
        options: &SessionOptions,
        progress: &dyn Fn(&str),
    ) -> Result<Self, TraceError> {
        if let Some(reason) = host::refusal(&host::checks(&host::HostFacts::read())) {
            return Err(TraceError::Host { reason });
        }
        if wanted.reach == Reach::Everyone
            && let Some(kernel) = seccomp::affected(seccomp::HOST_ARCH, &crate::target::kernel::running_release())
        {
            return Err(TraceError::EveryoneUnsafe { kernel });
        }
        let is_many = wanted.is_many();
        let is_single = wanted.selection.is_none() && wanted.processes.len() == 1;
        let mut files = TracedFiles::new(options);
        let mut containers = ContainerNames::new(Places::default());
        let mut notes = Vec::new();
        let mut fresh = Vec::new();
        let mut found = Vec::new();
        let mut n_threads = 0;
        for process in wanted.processes {
            let process = Arc::new(process);
            match look_first(&process, &mut files, &mut containers) {
                Ok((traced, start_ns, mut of_process)) => {
                    fresh.append(&mut of_process);
                    n_threads += process.n_threads() as u32;
                    found.push((traced, start_ns));
                }
                Err(error) if is_single => return Err(ended_or(&process, error)),
                Err(error) => notes.push(ended_or(&process, error).to_string()),
            }
        }
        let read = files.read(&fresh, progress);
        let n_rows: usize = read.iter().map(|(_, read)| read.rows.rows.len()).sum();
        let sizes = sizes(options, is_many, wanted.origin, n_rows as u32, n_threads);
        files.set_capacity(sizes.rows);
        let mut kernel = Kernel::load(sizes, options.verbose >= 2)?;
        if wanted.paused {
            kernel.pause();
        }
        let mappings = if options.follows_mappings() {
            Some(LiveRanges::start(kernel.range_events()?).map_err(TraceError::Mappings)?)
        } else {
            None
        };
        let trap_cost = kernel.trap_cost();
        let reach = kernel.permitted(wanted.reach)?;
        let mut tracer = Self {
            kernel,
            mappings,
            files,
            targets: BTreeMap::new(),
            archive: Archive::default(),
            main: None,
            selection: wanted.selection,
            groups: Vec::new(),
            is_many,
            origin: wanted.origin,
            follow: wanted.follow,
            reach,
            placement: options.placement,
            attached: HashMap::new(),
            n_joined_late: 0,
            containers,
            trap_cost,
            began_at_ns: monotonic_ns(),
            begun: false,
            paused_since: wanted.paused.then_some(Duration::ZERO),
            pauses: Vec::new(),
            notes: Vec::new(),
        };
        for note in notes {
            tracer.note(note);
        }
        let process = found.first().and_then(|(traced, _)| traced.process.clone());
        let placed = tracer.place_first(read, found, is_single);
        placed.map_err(|error| match process {
            Some(process) if is_single => ended_or(&process, error),
            _ => error,
        })?;
        Ok(tracer)
    }

    /// Rows, then processes with their mappings, then probes: a stack that a new probe brings finds its rows.
    fn place_first(
        &mut self,
        read: super::files::Unplaced,
        found: Vec<(Traced, u64)>,
        is_single: bool,
    ) -> Result<(), TraceError> {
        for note in self.files.place(read, &self.kernel)? {
            self.note(note);
        }
        self.select_in_kernel()?;
        for (traced, start_ns) in found {
            let mappings = traced.kernel_mappings(&self.files);
            let number = self.kernel.add_mapped_target(traced.stats.pid, start_ns, self.flags(), &mappings)?;
            if is_single {
                self.main = Some(Main { pid: traced.stats.pid, number });
            }
            let r_state = traced.r_state(&self.files);
            let mut traced = Traced { serial: self.kernel.target(number).map_or(0, |target| target.serial), ..traced };
            traced.stats.from_start = self.origin == Origin::Child;
            self.targets.insert(number, traced);
            if let Some(r_state) = r_state {
                self.kernel.watch_libraries(number, r_state);
            }
        }
        let pids: Vec<u32> = self.targets.values().map(|traced| traced.stats.pid).collect();
        if self.reach == Reach::Processes {
            for pid in pids {
                self.open_probes(pid)?;
            }
        }
        let mut mapped: Vec<_> = self.targets.values().flat_map(|traced| traced.mapped.clone()).collect();
        mapped.sort();
        mapped.dedup();
        self.attach(&mapped)
    }

    /// What the kernel side is told of a new target.
    pub(super) fn flags(&self) -> u32 {
        let follow = if self.follow { target_flags::FOLLOW } else { 0 };
        let stop = match self.origin {
            Origin::Attached => 0,
            Origin::Child if self.follow => target_flags::STOP_ON_LIBRARY | target_flags::STOP_CHILDREN,
            Origin::Child => target_flags::STOP_ON_LIBRARY,
        };
        follow | stop
    }

    /// Tells the kernel side what joins by itself.
    pub(super) fn select_in_kernel(&mut self) -> Result<(), TraceError> {
        let mut scope = KernelScope { own_tgid: std::process::id(), ..KernelScope::default() };
        if let Some(selection) = &self.selection {
            scope.all = selection.is_all();
            scope.cgroups = selection.cgroups().iter().map(|cgroup| (cgroup.id, cgroup.level)).collect();
            scope.watch_everyone = selection.needs_facts() && !scope.all;
        }
        self.groups = scope.cgroups.iter().map(|(id, _)| *id).collect();
        Ok(self.kernel.set_scope(&scope)?)
    }
}

/// Looks at a process for the first time: with its start time, and the files that nobody had mapped before.
fn look_first(
    process: &Arc<Process>,
    files: &mut TracedFiles,
    containers: &mut ContainerNames,
) -> Result<(Traced, u64, Vec<crate::snapshot::ModuleId>), TraceError> {
    check_return_probes(process)?;
    let pid = process.pid;
    let facts =
        Facts::read(pid).map_err(|source| ProcessError::Read { path: format!("/proc/{pid}/stat").into(), source })?;
    let mut traced = Traced::new(0, Some(Arc::clone(process)), stats_of(&facts, containers));
    let found = traced.look(files)?;
    Ok((traced, start_ns(&facts), found.fresh))
}

fn sizes(options: &SessionOptions, is_many: bool, origin: Origin, n_rows: u32, n_threads: u32) -> TableSizes {
    let spare_rows = match origin {
        _ if is_many && origin == Origin::Attached => SPARE_ROWS_OF_MANY,
        Origin::Child => SPARE_ROWS_OF_CHILD,
        Origin::Attached => SPARE_ROWS,
    };
    let stacks = match (options.by_thread, is_many) {
        (true, _) => MAX_STACKS_BY_THREAD,
        (false, true) => MAX_STACKS_OF_MANY,
        (false, false) => MAX_STACKS,
    };
    let sizes = TableSizes {
        blocks: options.max_live_blocks,
        threads: (4 * n_threads).max(if is_many { MIN_THREADS_OF_MANY } else { MIN_THREADS }),
        stacks,
        rows: n_rows.saturating_add(spare_rows),
        by_thread: options.by_thread,
        range_events_bytes: if options.follows_mappings() { options.mmap_buffer_bytes } else { 0 },
        ..TableSizes::default()
    };
    if is_many { TableSizes { targets: MAX_TARGETS - 1, mappings: MAX_POOLED_MAPPINGS, ..sizes } } else { sizes }
}

/// Opens the processes that are selected now. What ends meanwhile, or has no memory, is no news.
fn open_all(selection: &Selection) -> (Vec<Process>, Vec<String>) {
    let mut processes = Vec::new();
    let mut errors = Vec::new();
    for facts in selection.processes() {
        match Process::open(facts.pid) {
            Ok(process) => processes.push(process),
            Err(
                ProcessError::NoSuchProcess { .. } | ProcessError::Zombie { .. } | ProcessError::KernelThread { .. },
            ) => {}
            Err(error) => errors.push(error.to_string()),
        }
    }
    (processes, errors)
}
