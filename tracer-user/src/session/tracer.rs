//! The tracer of a scope: one kernel side, the files of its processes, and those processes.

use std::{sync::Arc, time::Duration};

use super::{
    error::{TraceError, check_return_probes, ended_or},
    files::{TracedFiles, Unplaced},
    traced::Traced,
};
use crate::{
    bpf::{Kernel, Notices, TableSizes, TrapCost, monotonic_ns},
    options::{Placement, SessionOptions},
    snapshot::ModuleId,
    target::{Files, Process, host},
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

/// Whose process it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A running one, which must not be stopped.
    Attached,
    /// Our own child, which is stopped while a library that it opened is read.
    Child,
}

/// The processes of a scope being traced.
pub struct Tracer {
    pub(super) kernel: Kernel,
    pub(super) files: TracedFiles,
    pub(super) traced: Traced,
    pub(super) origin: Origin,
    placement: Placement,
    library_notice: bool,
    pub(super) trap_cost: TrapCost,
    /// When tracing began: CLOCK_MONOTONIC, ns. Before [`Tracer::begin`]: when it was prepared.
    pub(super) began_at_ns: u64,
    pub(super) begun: bool,
    /// The probes are taken away since this time after the beginning.
    pub(super) paused_since: Option<Duration>,
    /// None: not known.
    pub(super) cpu_seconds_before: Option<f64>,
    pub(super) notes: Vec<String>,
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
        let mut files = TracedFiles::new(options.placement, options.allocators.clone());
        let mut traced = Traced::new(Arc::clone(process));
        let found = traced.mappings.refresh(process, &mut files.files)?;
        let read = files.read(&found.fresh, progress);
        let n_rows: usize = read.iter().map(|(_, read)| read.rows.rows.len()).sum();
        let spare = if origin == Origin::Child { SPARE_ROWS_OF_CHILD } else { SPARE_ROWS };
        let sizes = TableSizes {
            blocks: options.max_live_blocks,
            threads: (4 * process.n_threads() as u32).max(MIN_THREADS),
            stacks: if options.by_thread { MAX_STACKS_BY_THREAD } else { MAX_STACKS },
            rows: n_rows as u32 + spare,
            by_thread: options.by_thread,
        };
        files.set_capacity(sizes.rows);
        let mut kernel = Kernel::load(sizes, options.verbose >= 2)?;
        if paused {
            kernel.pause();
            kernel.watch_exec(Some(process.pid));
        }
        let trap_cost = kernel.trap_cost();
        let cpu_seconds_before = process.cpu_seconds();
        let mut tracer = Self {
            kernel,
            files,
            traced,
            origin,
            placement: options.placement,
            library_notice: false,
            trap_cost,
            began_at_ns: monotonic_ns(),
            begun: false,
            paused_since: paused.then_some(Duration::ZERO),
            cpu_seconds_before,
            notes: Vec::new(),
        };
        tracer.take_in(read, &found.newly_mapped)?;
        Ok(tracer)
    }

    /// The process.
    pub fn process(&self) -> &Process {
        &self.traced.process
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
        self.cpu_seconds_before = self.traced.process.cpu_seconds();
        self.kernel.trace(Some(self.traced.process.pid));
        log::info!("tracing pid {}", self.traced.process.pid);
    }

    /// Tracing ends; the tables stay as they are.
    pub fn end(&self) {
        self.kernel.trace(None);
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
        check_return_probes(&self.traced.process)?;
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

    pub(super) fn since_began(&self, at_ns: u64) -> Duration {
        Duration::from_nanos(at_ns.saturating_sub(self.began_at_ns))
    }

    /// Whether the target's dynamic loader will tell when its libraries are loaded.
    pub fn awaits_libraries(&self) -> bool {
        self.library_notice && !self.is_paused()
    }

    /// Takes the probes away, in a thread of its own: the kernel takes them one after the other and waits for a grace period
    /// each time (0.1 s a probe on 6.18); `when_gone` then runs in that thread. What remains keeps the files open, so
    /// that they can still be named.
    ///
    /// This process must not be killed meanwhile: a thread that dies while it takes a breakpoint away leaves it in the target
    /// (`uprobe_unregister_nosync`, kernel/events/uprobes.c of 6.18: "leaking uprobe").
    pub fn detach(self, when_gone: impl FnOnce() + Send + 'static) -> (Files, std::thread::JoinHandle<()>) {
        let Self { files, kernel, .. } = self;
        let detach = move || {
            drop(kernel);
            when_gone();
        };
        (files.files, std::thread::spawn(detach))
    }

    /// Whether there is something to trace in a process that has its libraries.
    ///
    /// # Errors
    /// No allocator is probed, or one that the user described is not mapped.
    pub fn check_sites(&self) -> Result<(), TraceError> {
        let missing = self.unmapped_allocator().or_else(|| (!self.has_sites()).then(|| self.no_allocator()));
        missing.map_or(Ok(()), |error| Err(ended_or(&self.traced.process, error)))
    }

    /// Whether any allocator function is probed.
    pub fn has_sites(&self) -> bool {
        self.traced.has_sites(&self.files)
    }

    /// The error for an allocator described in a module that is not mapped.
    pub fn unmapped_allocator(&self) -> Option<TraceError> {
        self.files.unmapped_allocator(&self.traced.attached)
    }

    /// The error that says which modules were looked at in vain.
    pub fn no_allocator(&self) -> TraceError {
        self.traced.no_allocator(&self.files)
    }

    /// Looks at the target's mappings again: new modules' rows and probes go into the kernel.
    ///
    /// # Errors
    /// The mappings could not be read (the target has ended), or a probe was refused.
    pub fn refresh(&mut self) -> Result<(), TraceError> {
        let found = self.traced.mappings.refresh(&self.traced.process, &mut self.files.files)?;
        let read = self.files.read(&found.fresh, &|_| ());
        self.take_in(read, &found.newly_mapped)
    }

    /// Rows, then mappings, then probes: a stack that a new probe brings finds its rows.
    fn take_in(&mut self, read: Unplaced, newly_mapped: &[ModuleId]) -> Result<(), TraceError> {
        let notes = self.files.place(read, &self.kernel)?;
        for note in notes {
            self.note(note);
        }
        let left_out = self.kernel.put_mappings(&self.traced.kernel_mappings(&self.files));
        if left_out > 0 {
            self.note(format!(
                "{left_out} executable mappings do not fit the table: stacks through them are truncated"
            ));
        }
        if let Some(r_state) = self.traced.r_state(&self.files) {
            self.kernel.watch_libraries(r_state, self.origin == Origin::Child);
            self.library_notice = true;
        }
        for id in newly_mapped {
            if !self.traced.attached.contains(id) {
                self.attach(*id)?;
                self.traced.attached.push(*id);
            }
        }
        Ok(())
    }

    fn attach(&mut self, id: ModuleId) -> Result<(), TraceError> {
        let pid = self.traced.process.pid;
        let (facts, path) = (self.files.facts(id), self.files.open_path(id));
        if let Some(notice) = facts.library_notice {
            self.kernel.attach_library_notice(path, notice.offset, pid)?;
        }
        match self.placement {
            Placement::Empty => self.kernel.attach_empty(path, &facts.bindings, pid)?,
            Placement::Planned | Placement::Naive => {
                self.kernel.attach_exits(path, &facts.exits, pid)?;
                self.kernel.attach(path, &facts.bindings, pid)?;
            }
        }
        Ok(())
    }

    /// Adds a note to all later snapshots, once.
    pub fn note(&mut self, note: String) {
        log::info!("{note}");
        if !self.notes.contains(&note) {
            self.notes.push(note);
        }
    }
}
