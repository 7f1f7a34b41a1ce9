//! Where the probes go: each file's once, as far as the scope reaches.

use super::{error::TraceError, tracer::Tracer};
use crate::{
    bpf::{AttachError, Heirs, Reach, monotonic_ns},
    options::Placement,
    snapshot::ModuleId,
    text::chain,
};

impl Tracer {
    /// Attaches the probes of files that have none yet. Of a scope of many, a file whose probes are refused is a note.
    ///
    /// # Errors
    /// A probe was refused.
    pub(super) fn attach(&mut self, mapped: &[ModuleId]) -> Result<(), TraceError> {
        let mut fresh = Vec::new();
        for id in mapped {
            if self.attached.contains_key(id) {
                continue;
            }
            if let Some(twin) = self.twin(*id) {
                self.attached.insert(*id, self.attached[&twin]);
                let path = |id: ModuleId| self.files.files.get(id).module.path.display();
                log::info!("{} is {} in another overlay", path(*id), path(twin));
                continue;
            }
            match self.attach_file(*id) {
                Ok(()) => {}
                Err(error) if self.is_many => {
                    let path = self.files.files.get(*id).module.path.display().to_string();
                    self.note(format!("{path}: its allocators are not all traced: {}", chain(&error)));
                }
                Err(error) => return Err(error.into()),
            }
            self.attached.insert(*id, monotonic_ns());
            fresh.push(*id);
        }
        // After all allocators: what one of them maps is told by its call in flight.
        for id in fresh {
            let (facts, path) = (self.files.facts(id), self.files.open_path(id));
            match self.kernel.attach_mappings(path, &facts.mappings, self.reach) {
                Ok(()) => {}
                Err(error) if self.is_many => {
                    let path = self.files.files.get(id).module.path.display().to_string();
                    self.note(format!("{path}: its mappings are not all traced: {}", chain(&error)));
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// On overlayfs the containers of an image share the file below, and a probe on it fires in all of them: it is attached once.
    fn twin(&self, id: ModuleId) -> Option<ModuleId> {
        if self.reach != Reach::Everyone {
            return None;
        }
        let site = self.files.facts(id).bindings.first()?;
        let offset = (!self.is_paused()).then_some(site.offset);
        self.files.files.twin(id, offset, self.attached.keys().copied())
    }

    fn attach_file(&mut self, id: ModuleId) -> Result<(), AttachError> {
        let (facts, path, reach) = (self.files.facts(id), self.files.open_path(id), self.reach);
        if let Some(notice) = facts.library_notice {
            self.kernel.attach_library_notice(path, notice.offset, reach)?;
        }
        match self.placement {
            Placement::Empty => self.kernel.attach_empty(path, &facts.bindings, reach),
            Placement::Planned | Placement::Naive => {
                self.kernel.attach_exits(path, &facts.exits, reach)?;
                self.kernel.attach(path, &facts.bindings, reach)
            }
        }
    }

    /// Opens the probes for one more process, where they do not reach everyone. One that has ended meanwhile has none.
    ///
    /// # Errors
    /// There is no room for them.
    pub(super) fn open_probes(&mut self, pid: u32) -> Result<(), TraceError> {
        if self.reach != Reach::Processes {
            return Ok(());
        }
        let heirs = if self.follow { Heirs::Children } else { Heirs::None };
        match self.kernel.attach_process(pid, heirs) {
            Err(AttachError::Process { source, .. }) if source.raw_os_error() == Some(libc::ESRCH) => Ok(()),
            outcome => Ok(outcome?),
        }
    }

    /// Opens the probes anew for a process whose first thread is another since an exec.
    ///
    /// # Errors
    /// There is no room for them.
    pub(super) fn renew_probes(&mut self, pid: u32) -> Result<(), TraceError> {
        if self.reach == Reach::Processes {
            self.kernel.attach_process_again(pid)?;
        }
        Ok(())
    }
}
