//! Notices from the programs, awaited.

use std::io;

use aya::maps::{Map, MapData, RingBuf};
use tokio::io::{Interest, unix::AsyncFd};
use tracer_common::{
    abi::{Event, EventKind},
    addr::UserAddr,
};

/// A notice of the kernel side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notice {
    /// The dynamic loader has mapped or unmapped libraries.
    Libraries,
    /// A walk met code that no mapping covers.
    UnknownCode(UserAddr),
    /// The target called exec; tracing is paused.
    Exec,
}

/// The channel.
pub struct Notices {
    ring: AsyncFd<RingBuf<MapData>>,
}

impl Notices {
    pub(super) fn new(map: Map) -> io::Result<Self> {
        let ring = RingBuf::try_from(map).map_err(io::Error::other)?;
        // SAFETY: the ring buffer owns its descriptor and keeps it open until the `AsyncFd` is dropped.
        let ring = unsafe { AsyncFd::register_with_interest(ring, Interest::READABLE)? };
        Ok(Self { ring })
    }

    /// Waits for notices and returns all that are there.
    ///
    /// # Errors
    /// The descriptor could not be polled.
    pub async fn next(&mut self) -> io::Result<Vec<Notice>> {
        loop {
            let mut guard = self.ring.readable_mut().await?;
            let notices = drain(guard.get_inner_mut());
            guard.clear_ready();
            if !notices.is_empty() {
                return Ok(notices);
            }
        }
    }
}

impl Notices {
    /// Forgets the notices that are there.
    pub fn discard(&mut self) {
        drain(self.ring.get_mut());
    }
}

fn drain(ring: &mut RingBuf<MapData>) -> Vec<Notice> {
    let mut notices = Vec::new();
    while let Some(item) = ring.next() {
        if item.len() < size_of::<Event>() {
            continue;
        }
        // SAFETY: the programs write `Event`s only; length checked; Pod; the buffer need not be aligned.
        let event = unsafe { std::ptr::read_unaligned(item.as_ptr().cast::<Event>()) };
        notices.push(match event.kind {
            kind if kind == EventKind::UnknownCode as u32 => Notice::UnknownCode(UserAddr(event.address)),
            kind if kind == EventKind::Exec as u32 => Notice::Exec,
            _ => Notice::Libraries,
        });
    }
    notices
}
