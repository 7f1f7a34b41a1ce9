//! Probe plan → attached probes.

use std::{
    error::Error,
    io,
    num::NonZeroU32,
    os::fd::AsFd as _,
    path::{Path, PathBuf},
};

use aya::programs::{
    ProgramError, UProbe,
    uprobe::{UProbeAttachLocation, UProbeAttachPoint, UProbeLinkId, UProbeScope},
};
use thiserror::Error;
use tracer_common::{
    addr::FileOffset,
    cookie::{Shape, SiteCookie},
};

use super::{
    kernel::Kernel,
    trace_events::{Heirs, TraceEvents},
};
use crate::plan::ProbeSite;

/// Why a probe could not be attached.
#[derive(Debug, Error)]
pub enum AttachError {
    /// At its place.
    #[error("failed to attach `{program}` at {path}+{offset:#x}")]
    Site {
        /// The BPF program.
        program: &'static str,
        /// The file.
        path: PathBuf,
        /// Offset in the file.
        offset: u64,
        /// What the kernel said.
        source: Box<dyn Error + Send + Sync>,
    },
    /// To one more process.
    #[error("failed to attach {n_sites} probes to pid {pid}{}", descriptors(.source))]
    Process {
        /// The process.
        pid: u32,
        /// How many there are.
        n_sites: usize,
        /// What the kernel said.
        source: io::Error,
    },
    /// There is no place to define trace events.
    #[error(
        "failed to open the kernel's trace events (needs CAP_SYS_ADMIN; without it CAP_DAC_OVERRIDE and tracefs mounted at /sys/kernel/tracing)"
    )]
    TraceEvents(#[source] io::Error),
    /// Probes for everyone are perf uprobes, which the kernel keeps from this process.
    #[error("this kernel lets only CAP_SYS_ADMIN attach probes that reach more than processes known by --pid")]
    Everyone,
}

fn descriptors(error: &io::Error) -> &'static str {
    if error.raw_os_error() == Some(libc::EMFILE) { " (one open file each; see `ulimit -Hn`)" } else { "" }
}

/// Whose calls a probe traps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reach {
    /// One process's; others pay nothing. To attach takes about 0.1 ms a probe, to take it away 0.1 s.
    Process(u32),
    /// Those of all processes that were named by [`Kernel::attach_process`]; others pay nothing.
    Processes,
    /// Those of every process that maps the file: others pay a trap a call.
    Everyone,
}

/// One place of one file that a probe goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Binding {
    /// What is called there.
    pub shape: Shape,
    /// Where, in the file.
    pub offset: FileOffset,
    /// What the program is told with each hit.
    pub cookie: SiteCookie,
    /// Whether the call's return is probed too.
    pub return_probe: bool,
}

impl From<&ProbeSite> for Binding {
    fn from(site: &ProbeSite) -> Self {
        Self { shape: site.shape, offset: site.file_offset, cookie: site.cookie(), return_probe: site.return_probe }
    }
}

/// A probe on the target: what it takes to attach it again.
#[derive(Debug)]
pub(super) struct Site {
    program: &'static str,
    path: PathBuf,
    offset: FileOffset,
    cookie: Option<SiteCookie>,
    reach: Reach,
    /// `None`: not attached.
    link: Option<Link>,
}

impl Site {
    fn is_return(&self) -> bool {
        matches!(self.program, "leave" | "leave_mapping" | "empty_return")
    }
}

/// What holds a probe.
#[derive(Debug)]
enum Link {
    /// A perf event of its own.
    Own(UProbeLinkId),
    /// A trace event, in [`Kernel::trace_events`].
    Event,
}

impl Kernel {
    /// How to attach what is to reach this far: by trace events where this kernel keeps uprobes of their own from this process.
    ///
    /// # Errors
    /// There is no other way.
    pub fn permitted(&self, reach: Reach) -> Result<Reach, AttachError> {
        match reach {
            _ if !self.uprobes_refused => Ok(reach),
            Reach::Process(_) | Reach::Processes => Ok(Reach::Processes),
            Reach::Everyone => Err(AttachError::Everyone),
        }
    }

    /// Attaches all of a file's probes; while paused they are only remembered. Return probes come first: an entry
    /// whose return is not probed would leave a call in flight.
    ///
    /// `path` must open the file for as long as probes may be attached again.
    ///
    /// # Errors
    /// The first probe that the kernel refused; those attached before it stay until the [`Kernel`] is dropped.
    pub fn attach(&mut self, path: &Path, bindings: &[Binding], reach: Reach) -> Result<(), AttachError> {
        for binding in bindings.iter().filter(|binding| binding.return_probe) {
            self.attach_one("leave", path, binding.offset, Some(binding.cookie), reach)?;
        }
        for binding in bindings {
            self.attach_one(entry_program(binding.shape), path, binding.offset, Some(binding.cookie), reach)?;
        }
        Ok(())
    }

    /// Attaches return probes alone, at the ends of functions that may throw. To be called before [`Kernel::attach`].
    ///
    /// # Errors
    /// The first probe that the kernel refused.
    pub fn attach_exits(&mut self, path: &Path, exits: &[FileOffset], reach: Reach) -> Result<(), AttachError> {
        exits.iter().try_for_each(|exit| self.attach_one("leave", path, *exit, None, reach))
    }

    /// Attaches the notice of opened libraries to the dynamic loader's `_dl_debug_state`.
    ///
    /// # Errors
    /// The kernel refused the probe.
    pub fn attach_library_notice(&mut self, path: &Path, offset: FileOffset, reach: Reach) -> Result<(), AttachError> {
        self.attach_one("libraries_changed", path, offset, None, reach)
    }

    /// Attaches empty programs at the same sites: the floor of what probes cost.
    ///
    /// # Errors
    /// The first probe that the kernel refused.
    pub fn attach_empty(&mut self, path: &Path, bindings: &[Binding], reach: Reach) -> Result<(), AttachError> {
        for binding in bindings {
            if binding.return_probe {
                self.attach_one("empty_return", path, binding.offset, None, reach)?;
            }
            self.attach_one("empty", path, binding.offset, None, reach)?;
        }
        Ok(())
    }

    /// Number of probes on files of targets.
    pub fn n_probes(&self) -> usize {
        self.sites.len()
    }

    /// Takes every probe away for good; programs and tables stay. Waits for a grace period for each (0.1 s on Linux 6.18).
    pub fn detach(&mut self) {
        self.unlink();
        self.sites.clear();
    }

    /// Takes every probe away; what it takes to attach it again stays.
    pub(super) fn unlink(&mut self) {
        for site in &mut self.sites {
            let Some(Link::Own(link)) = site.link.take() else { continue };
            let uprobe = self.ebpf.program_mut(site.program).expect("every program of the list was loaded");
            let uprobe: Result<&mut UProbe, ProgramError> = uprobe.try_into();
            if let Err(error) = uprobe.and_then(|uprobe| uprobe.detach(link)) {
                log::debug!("failed to detach `{}`: {error}", site.program);
            }
        }
        if let Some(events) = &mut self.trace_events {
            events.clear();
        }
    }

    /// Opens all probes of [`Reach::Processes`] for one more process, also those that are attached later; while paused it is only
    /// remembered. For a process that has them already nothing happens.
    ///
    /// # Errors
    /// The process has ended, or there are too many open files; then it has none of them.
    pub fn attach_process(&mut self, pid: u32, heirs: Heirs) -> Result<(), AttachError> {
        let paused = self.paused;
        let events = self.trace_events()?;
        let n_sites = events.len();
        events.add_process(pid, heirs, !paused).map_err(|source| AttachError::Process { pid, n_sites, source })
    }

    /// Opens all probes of [`Reach::Processes`] anew for a process whose first thread is another since an exec.
    ///
    /// # Errors
    /// As [`Self::attach_process`].
    pub fn attach_process_again(&mut self, pid: u32) -> Result<(), AttachError> {
        let paused = self.paused;
        let events = self.trace_events()?;
        let n_sites = events.len();
        events.renew_process(pid, !paused).map_err(|source| AttachError::Process { pid, n_sites, source })
    }

    /// Closes all probes of [`Reach::Processes`] of a process.
    pub fn release_process(&mut self, pid: u32) {
        if let Some(events) = &mut self.trace_events {
            events.remove_process(pid);
        }
    }

    fn trace_events(&mut self) -> Result<&mut TraceEvents, AttachError> {
        if self.trace_events.is_none() {
            self.trace_events = Some(TraceEvents::new().map_err(AttachError::TraceEvents)?);
        }
        Ok(self.trace_events.as_mut().expect("just made"))
    }

    /// Ends a pause as far as the probes go: attaches all of them, in the order in which they came. Nothing counts yet.
    ///
    /// # Errors
    /// The first probe that the kernel refused; then none is attached.
    pub fn attach_again(&mut self) -> Result<(), AttachError> {
        let mut sites = std::mem::take(&mut self.sites);
        let attached = sites.iter_mut().try_for_each(|site| self.attach_site(site));
        self.sites = sites;
        if let (Ok(()), Some(events)) = (&attached, &mut self.trace_events) {
            events.open_all();
        }
        self.paused = attached.is_err();
        attached.inspect_err(|_| self.unlink())
    }

    pub(super) fn attach_one(
        &mut self,
        program: &'static str,
        path: &Path,
        offset: FileOffset,
        cookie: Option<SiteCookie>,
        reach: Reach,
    ) -> Result<(), AttachError> {
        let mut site = Site { program, path: path.to_path_buf(), offset, cookie, reach, link: None };
        if !self.paused {
            self.attach_site(&mut site)?;
        }
        self.sites.push(site);
        Ok(())
    }

    fn attach_site(&mut self, site: &mut Site) -> Result<(), AttachError> {
        if site.link.is_some() {
            return Ok(());
        }
        let link = if site.reach == Reach::Processes { self.define(site) } else { self.link(site) };
        site.link = Some(link.map_err(|source| AttachError::Site {
            program: site.program,
            path: site.path.clone(),
            offset: site.offset.0,
            source,
        })?);
        Ok(())
    }

    fn link(&mut self, site: &Site) -> Result<Link, Box<dyn Error + Send + Sync>> {
        let uprobe = self.ebpf.program_mut(site.program).expect("every program of the list was loaded");
        let uprobe: &mut UProbe = uprobe.try_into()?;
        let scope = match site.reach {
            Reach::Process(pid) => NonZeroU32::new(pid).map_or(UProbeScope::AllProcesses, UProbeScope::OneProcess),
            Reach::Processes | Reach::Everyone => UProbeScope::AllProcesses,
        };
        let location = UProbeAttachLocation::AbsoluteOffset(site.offset.0);
        let point = UProbeAttachPoint { location, cookie: site.cookie.map(|cookie| cookie.0) };
        Ok(Link::Own(uprobe.attach(point, &site.path, scope)?))
    }

    fn define(&mut self, site: &Site) -> Result<Link, Box<dyn Error + Send + Sync>> {
        self.trace_events()?;
        let uprobe = self.ebpf.program(site.program).expect("every program of the list was loaded");
        let uprobe: &UProbe = uprobe.try_into()?;
        let program = uprobe.fd()?.as_fd();
        let events = self.trace_events.as_mut().expect("made above");
        let cookie = site.cookie.map_or(0, |cookie| cookie.0);
        events.define(&site.path, site.offset.0, site.is_return(), program, cookie)?;
        Ok(Link::Event)
    }
}

fn entry_program(shape: Shape) -> &'static str {
    match shape {
        Shape::Size => "enter_size",
        Shape::CountSize => "enter_count_size",
        Shape::AlignSize => "enter_align_size",
        Shape::OutAlignSize => "enter_out_align_size",
        Shape::PointerSize | Shape::PointerSizeInPlace => "enter_pointer_size",
        Shape::PointerCountSize => "enter_pointer_count_size",
        Shape::Pointer => "enter_pointer",
    }
}
