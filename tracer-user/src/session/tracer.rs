//! The tracer of a scope: one kernel side, the files of its processes, and those processes.

use std::{
    collections::{BTreeMap, HashMap},
    ops::Range,
    sync::Arc,
    time::Duration,
};

use tokio::sync::mpsc::UnboundedReceiver;

use super::{
    archive::Archive,
    error::TraceError,
    files::{TracedFiles, Unplaced},
    ranges::LiveRanges,
    traced::Traced,
};
use crate::{
    bpf::{Kernel, Notices, Reach, TargetNumber, TrapCost, monotonic_ns},
    options::Placement,
    scope::{Selection, containers::ContainerNames},
    snapshot::ModuleId,
    target::{Files, Process, Root},
};

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
    /// Where the domain `mmap` is followed.
    pub(super) mappings: Option<LiveRanges>,
    pub(super) files: TracedFiles,
    /// Those that are counted, and those that have ended and are not archived yet.
    pub(super) targets: BTreeMap<TargetNumber, Traced>,
    pub(super) archive: Archive,
    /// The process that was named or started, where it is a single one.
    pub(super) main: Option<Main>,
    /// What selects processes beside those that were named. `None`: nothing does.
    pub(super) selection: Option<Selection>,
    /// The numbers of the scope's cgroups that the kernel side knows: one that is made anew has another.
    pub(super) groups: Vec<u64>,
    /// The scope has, or may come to have, more processes than one.
    pub(super) is_many: bool,
    pub(super) origin: Origin,
    pub(super) follow: bool,
    pub(super) reach: Reach,
    pub(super) placement: Placement,
    /// Files whose probes are attached, or refused, and since when: CLOCK_MONOTONIC, ns.
    pub(super) attached: HashMap<ModuleId, u64>,
    /// Processes that ran before their files had probes.
    pub(super) n_joined_late: u64,
    pub(super) containers: ContainerNames,
    pub(super) trap_cost: TrapCost,
    /// When tracing began: CLOCK_MONOTONIC, ns. Before [`Tracer::begin`]: when it was prepared.
    pub(super) began_at_ns: u64,
    pub(super) begun: bool,
    /// The probes are taken away since this time after the beginning.
    pub(super) paused_since: Option<Duration>,
    /// The pauses that are over, since the beginning.
    pub(super) pauses: Vec<Range<Duration>>,
    pub(super) notes: Vec<String>,
}

/// The one process that a session was started for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Main {
    /// Its id, which it keeps through exec.
    pub(super) pid: u32,
    /// The target that it is now, or was last.
    pub(super) number: TargetNumber,
}

impl Tracer {
    /// The process that was named or started; of a scope of many there is none.
    pub fn process(&self) -> Option<&Process> {
        self.main().and_then(|traced| traced.process.as_deref())
    }

    pub(super) fn main(&self) -> Option<&Traced> {
        self.targets.get(&self.main?.number)
    }

    /// The channel of notices; can be taken once.
    ///
    /// # Errors
    /// The ring buffer could not be opened.
    pub fn notices(&mut self) -> Result<Notices, TraceError> {
        Ok(self.kernel.notices()?)
    }

    /// Files that were read while tracing, for [`Tracer::take_read`]; can be taken once.
    pub(super) fn reads(&mut self) -> Option<UnboundedReceiver<Unplaced>> {
        self.files.told()
    }

    /// Passes on what the BPF side has logged (`-vv`).
    pub fn flush_log(&mut self) {
        self.kernel.flush_log();
    }

    /// Tracing begins.
    pub fn begin(&mut self) {
        self.began_at_ns = monotonic_ns();
        self.begun = true;
        for traced in self.targets.values_mut() {
            traced.cpu_seconds_before = traced.process.as_ref().and_then(|process| process.cpu_seconds());
        }
        self.kernel.counting(true);
        self.targets.values().for_each(|traced| self.know_break(traced));
        match (&self.main, &self.selection) {
            (Some(main), _) => log::info!("tracing pid {}", main.pid),
            (None, Some(selection)) => log::info!("tracing {selection}: {} processes", self.targets.len()),
            (None, None) => log::info!("tracing {} processes", self.targets.len()),
        }
    }

    /// Where the data segment of a process ends, unless its calls or its parent's have told.
    pub(super) fn know_break(&self, traced: &Traced) {
        if let Some(mappings) = &self.mappings {
            mappings.know_break(traced.serial, traced.stats.pid);
        }
    }

    /// Tracing ends; the tables stay as they are.
    pub fn end(&self) {
        self.kernel.counting(false);
    }

    /// Takes every probe away, so that the targets run as if they were not traced; the tables stay. It takes about 0.1 s a probe on
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
        self.check_still_safe()?;
        self.refresh()?;
        self.kernel.attach_again()?;
        self.paused_since = None;
        if self.begun {
            self.kernel.resume();
            self.pauses.push(since..self.elapsed());
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

    /// Number of probes, each of which takes its time to be taken away.
    pub(super) fn n_probes(&self) -> usize {
        if self.is_paused() { 0 } else { self.kernel.n_probes() }
    }

    /// Takes the probes away, in a thread of its own: the kernel takes them one after the other and waits for a grace period
    /// each time (0.1 s a probe on 6.18); `when_gone` then runs in that thread. What remains keeps the files open, so that
    /// they can still be named.
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

    /// The targets' roots that are not ours.
    pub fn roots(&self) -> &[Arc<Root>] {
        self.files.files.roots()
    }

    /// Adds a note to all later snapshots, once.
    pub fn note(&mut self, note: String) {
        if self.notes.contains(&note) {
            return;
        }
        log::info!("{note}");
        if self.notes.len() < MAX_NOTES {
            self.notes.push(note);
        }
    }

    /// The same for a note that says more than an earlier one, which it replaces.
    pub(super) fn note_in_place_of(&mut self, earlier: &str, note: String) {
        match self.notes.iter_mut().find(|known| *known == earlier) {
            Some(known) => *known = note,
            None => self.note(note),
        }
    }
}

/// Notes kept: what hostile processes could fill a report with.
const MAX_NOTES: usize = 200;
