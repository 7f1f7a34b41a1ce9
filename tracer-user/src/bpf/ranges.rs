//! Calls that change mappings: their probes, and the ring buffer that they are told through.

use std::{
    io,
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd},
    path::Path,
};

use aya::maps::{MapData, RingBuf};
use tracer_common::{
    abi::NO_STACK,
    addr::FileOffset,
    cookie::SiteCookie,
    ranges::{RangeEvent, RangeFunction},
};

use super::{
    attach::AttachError,
    kernel::{Kernel, LoadError, take},
    snapshot::RawStack,
};
use crate::snapshot::{Domain, StackId, Totals};

/// The id of the domain's events without a stack: ids are of one domain only.
const NO_MMAP_STACK: StackId = StackId(u32::MAX);

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
    /// Attaches the probes of functions that change mappings, at entries and returns, for one process.
    ///
    /// # Errors
    /// The first probe that the kernel refused.
    pub fn attach_mappings(&mut self, path: &Path, bindings: &[MappingBinding], pid: u32) -> Result<(), AttachError> {
        for program in ["leave_mapping", "enter_mapping"] {
            for binding in bindings {
                let cookie = SiteCookie(u64::from(binding.function as u32));
                self.attach_one(program, path, binding.offset, Some(cookie), pid)?;
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

    /// A stack that has mapped memory, with its totals.
    pub fn mapping_stack(&self, id: u32, totals: Totals) -> RawStack {
        let (frames, end) = self.frames_of(id as usize);
        let thread = self.thread_of(id as usize);
        let id = if id == NO_STACK { NO_MMAP_STACK } else { StackId(id) };
        RawStack { id, frames, end, thread, totals, domain: Domain::Mmap }
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
