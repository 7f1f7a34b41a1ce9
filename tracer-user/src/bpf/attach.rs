//! Probe plan → attached probes.

use std::{
    num::NonZeroU32,
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

use super::kernel::Kernel;

/// Why a probe could not be attached.
#[derive(Debug, Error)]
#[error("failed to attach `{program}` at {path}+{offset:#x}")]
pub struct AttachError {
    program: &'static str,
    path: PathBuf,
    offset: u64,
    source: Box<ProgramError>,
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

/// A probe on the target: what it takes to attach it again.
#[derive(Debug)]
pub(super) struct Site {
    program: &'static str,
    path: PathBuf,
    offset: FileOffset,
    cookie: Option<SiteCookie>,
    pid: u32,
    /// `None`: not attached.
    link: Option<UProbeLinkId>,
}

impl Kernel {
    /// Attaches all of a file's probes for one process; while paused they are only remembered. Return probes come first: an entry
    /// whose return is not probed would leave a call in flight.
    ///
    /// `path` must open the file for as long as probes may be attached again.
    ///
    /// # Errors
    /// The first probe that the kernel refused; those attached before it stay until the [`Kernel`] is dropped.
    pub fn attach(&mut self, path: &Path, bindings: &[Binding], pid: u32) -> Result<(), AttachError> {
        for binding in bindings.iter().filter(|binding| binding.return_probe) {
            self.attach_one("leave", path, binding.offset, Some(binding.cookie), pid)?;
        }
        for binding in bindings {
            self.attach_one(entry_program(binding.shape), path, binding.offset, Some(binding.cookie), pid)?;
        }
        Ok(())
    }

    /// Attaches return probes alone, at the ends of functions that may throw. To be called before [`Kernel::attach`].
    ///
    /// # Errors
    /// The first probe that the kernel refused.
    pub fn attach_exits(&mut self, path: &Path, exits: &[FileOffset], pid: u32) -> Result<(), AttachError> {
        exits.iter().try_for_each(|exit| self.attach_one("leave", path, *exit, None, pid))
    }

    /// Attaches the notice of opened libraries to the dynamic loader's `_dl_debug_state`.
    ///
    /// # Errors
    /// The kernel refused the probe.
    pub fn attach_library_notice(&mut self, path: &Path, offset: FileOffset, pid: u32) -> Result<(), AttachError> {
        self.attach_one("libraries_changed", path, offset, None, pid)
    }

    /// Attaches empty programs at the same sites: the floor of what probes cost.
    ///
    /// # Errors
    /// The first probe that the kernel refused.
    pub fn attach_empty(&mut self, path: &Path, bindings: &[Binding], pid: u32) -> Result<(), AttachError> {
        for binding in bindings {
            if binding.return_probe {
                self.attach_one("empty_return", path, binding.offset, None, pid)?;
            }
            self.attach_one("empty", path, binding.offset, None, pid)?;
        }
        Ok(())
    }

    /// Takes every probe away for good; programs and tables stay. Waits for a grace period for each (0.1 s on Linux 6.18).
    pub fn detach(&mut self) {
        self.unlink();
        self.sites.clear();
    }

    /// Takes every probe away; what it takes to attach it again stays.
    pub(super) fn unlink(&mut self) {
        for site in &mut self.sites {
            let Some(link) = site.link.take() else { continue };
            let uprobe = self.ebpf.program_mut(site.program).expect("every program of the list was loaded");
            let uprobe: Result<&mut UProbe, ProgramError> = uprobe.try_into();
            if let Err(error) = uprobe.and_then(|uprobe| uprobe.detach(link)) {
                log::debug!("failed to detach `{}`: {error}", site.program);
            }
        }
    }

    /// Ends a pause as far as the probes go: attaches all of them, in the order in which they came. Nothing counts yet.
    ///
    /// # Errors
    /// The first probe that the kernel refused; then none is attached.
    pub fn attach_again(&mut self) -> Result<(), AttachError> {
        let mut sites = std::mem::take(&mut self.sites);
        let attached = sites.iter_mut().try_for_each(|site| self.attach_site(site));
        self.sites = sites;
        self.paused = attached.is_err();
        attached.inspect_err(|_| self.unlink())
    }

    pub(super) fn attach_one(
        &mut self,
        program: &'static str,
        path: &Path,
        offset: FileOffset,
        cookie: Option<SiteCookie>,
        pid: u32,
    ) -> Result<(), AttachError> {
        let mut site = Site { program, path: path.to_path_buf(), offset, cookie, pid, link: None };
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
        let failed = |source| AttachError {
            program: site.program,
            path: site.path.clone(),
            offset: site.offset.0,
            source: Box::new(source),
        };
        let uprobe = self.ebpf.program_mut(site.program).expect("every program of the list was loaded");
        let uprobe: &mut UProbe = uprobe.try_into().map_err(failed)?;
        let scope = NonZeroU32::new(site.pid).map_or(UProbeScope::AllProcesses, UProbeScope::OneProcess);
        let location = UProbeAttachLocation::AbsoluteOffset(site.offset.0);
        let point = UProbeAttachPoint { location, cookie: site.cookie.map(|cookie| cookie.0) };
        site.link = Some(uprobe.attach(point, &site.path, scope).map_err(failed)?);
        Ok(())
    }
}

fn entry_program(shape: Shape) -> &'static str {
    match shape {
        Shape::Size => "enter_size",
        Shape::CountSize => "enter_count_size",
        Shape::AlignSize => "enter_align_size",
        Shape::OutAlignSize => "enter_out_align_size",
        Shape::PointerSize => "enter_pointer_size",
        Shape::PointerCountSize => "enter_pointer_count_size",
        Shape::Pointer => "enter_pointer",
    }
}
