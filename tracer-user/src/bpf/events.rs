//! Notices from the programs, awaited.

use std::io;

use aya::maps::{Map, MapData, RingBuf};
use tokio::io::{Interest, unix::AsyncFd};
use tracer_common::{
    abi::{Event, EventKind},
    addr::UserAddr,
};

use super::targets::TargetNumber;

/// A notice of the kernel side. It tells where to look: by the time it is read, a target may have ended, or its number belong to
/// another. Process and thread ids are those of the initial namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notice {
    /// A target's dynamic loader has mapped or unmapped libraries. `None`: the process is no target.
    Libraries {
        /// The target.
        target: Option<TargetNumber>,
        /// The process.
        tgid: u32,
        /// The thread that loads.
        tid: u32,
    },
    /// A walk met code that no mapping of its target covers.
    UnknownCode {
        /// The target.
        target: TargetNumber,
        /// Where.
        address: UserAddr,
    },
    /// A process was forked: by a target, or by anyone where everyone is watched.
    Fork {
        /// The parent; `None`: it is no target.
        parent: Option<TargetNumber>,
        /// The parent's process id.
        parent_tgid: u32,
        /// The child's process id.
        child_tgid: u32,
        /// The child, where it is a target of its own from its beginning on.
        child: Option<TargetNumber>,
    },
    /// A process called exec: a target, or anyone where everyone is watched.
    Exec {
        /// The process, which keeps its id.
        tgid: u32,
        /// The program that it was, which has ended; `None`: it was no target of its own.
        old: Option<TargetNumber>,
        /// The program that it is, where that is a target.
        new: Option<TargetNumber>,
        /// Another thread than the first one called it, and took that one's place: perf events on the process are gone.
        by_thread: bool,
    },
    /// A target's last thread ended.
    Exited {
        /// The target.
        target: TargetNumber,
        /// Its process id.
        tgid: u32,
    },
    /// A process of the scope became a target at a hit.
    Joined {
        /// The target.
        target: TargetNumber,
        /// Its process id.
        tgid: u32,
    },
}

impl Notice {
    /// What an event says; `None`: nothing that is known here.
    fn of(event: &Event) -> Option<Self> {
        let target = TargetNumber::of(event.target);
        let new = TargetNumber::of(event.new_target);
        let tgid = event.tgid;
        let is = |kind: EventKind| event.kind == kind as u32;
        if is(EventKind::Libraries) {
            Some(Self::Libraries { target, tgid, tid: event.tid })
        } else if is(EventKind::UnknownCode) {
            Some(Self::UnknownCode { target: target?, address: UserAddr(event.argument) })
        } else if is(EventKind::Fork) {
            Some(Self::Fork { parent: target, parent_tgid: tgid, child_tgid: event.argument as u32, child: new })
        } else if is(EventKind::Exec) {
            Some(Self::Exec { tgid, old: target, new, by_thread: event.argument != u64::from(tgid) })
        } else if is(EventKind::Exited) {
            Some(Self::Exited { target: target?, tgid })
        } else if is(EventKind::Joined) {
            Some(Self::Joined { target: target?, tgid })
        } else {
            None
        }
    }
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

    /// The notices that are there now.
    pub fn take(&mut self) -> Vec<Notice> {
        drain(self.ring.get_mut())
    }

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
        notices.extend(Notice::of(&event));
    }
    notices
}
