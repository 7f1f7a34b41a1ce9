//! Calls that change mappings: their probes, and the ring buffer that they are told through.

use std::{
    io,
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd},
    path::Path,
};

use aya::maps::{MapData, RingBuf};
use tracer_common::{
    addr::FileOffset,
    cookie::SiteCookie,
    ranges::{RangeEvent, RangeFunction},
};

use super::{
    attach::{AttachError, Reach},
    kernel::{Kernel, LoadError, take},
    snapshot::RawStack,
    targets::TargetNumber,
};
use crate::snapshot::{Domain, StackId, Totals};

/// One function of one file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MappingBinding {
    /// What is called there.
    pub function: RangeFunction,
    /// Its entry, in the file.
    pub offset: FileOffset,
}

/// The channel of finished calls.
pub struct RangeEvents {
    ring: RingBuf<MapData>,
}

impl Kernel {
    /// Attaches the probes of functions that change mappings, at entries and returns.
    ///
    /// # Errors
    /// The first probe that the kernel refused.
    pub fn attach_mappings(
        &mut self,
        path: &Path,
        bindings: &[MappingBinding],
        reach: Reach,
    ) -> Result<(), AttachError> {
        for program in ["leave_mapping", "enter_mapping"] {
            for binding in bindings {
                let cookie = SiteCookie(u64::from(binding.function as u32));
                self.attach_one(program, path, binding.offset, Some(cookie), reach)?;
            }
        }
        Ok(())
    }

    /// The channel of calls that change mappings; can be taken once.
    ///
    /// # Errors
    /// The ring buffer could not be opened.
    pub fn range_events(&mut self) -> Result<RangeEvents, LoadError> {
        let ring = take(&mut self.ebpf, "RANGE_EVENTS")?;
        let ring = RingBuf::try_from(ring).map_err(io::Error::other);
        Ok(RangeEvents { ring: ring.map_err(|source| LoadError::Map { name: "RANGE_EVENTS", source })? })
    }

    /// A stack of this target that has mapped memory, with its totals.
    pub fn mapping_stack(&self, target: TargetNumber, id: u32, totals: Totals) -> RawStack {
        let (frames, end) = self.frames_of(id as usize);
        let thread = self.thread_of(id as usize);
        // An id is of one domain only: that of the heap's events without a stack is the target's number.
        let id = if id == target.0 { StackId(u32::MAX - id) } else { StackId(id) };
        RawStack { id, target, frames, end, thread, totals, domain: Domain::Mmap }
    }
}

impl RangeEvents {
    /// Takes all that are there out, in the order in which the programs put them in.
    pub fn drain(&mut self, mut each: impl FnMut(&RangeEvent)) {
        while let Some(item) = self.ring.next() {
            if item.len() < size_of::<RangeEvent>() {
                continue;
            }
            // SAFETY: the programs write `RangeEvent`s only; length checked; integers only; the buffer need not be aligned.
            let event = unsafe { std::ptr::read_unaligned(item.as_ptr().cast::<RangeEvent>()) };
            each(&event);
        }
    }

    /// Readable when there are some.
    ///
    /// # Errors
    /// The descriptor could not be duplicated.
    pub fn readable(&self) -> io::Result<std::os::fd::OwnedFd> {
        // SAFETY: the ring buffer owns its descriptor and keeps it open.
        let fd = unsafe { BorrowedFd::borrow_raw(self.ring.as_raw_fd()) };
        fd.as_fd().try_clone_to_owned()
    }
}
