//! Everything that wakes a session, and the one place where it is waited for.

use std::{
    future::pending,
    io,
    os::fd::{AsFd, OwnedFd},
    time::Duration,
};

use anyhow::Context as _;
use nix::sys::signal::Signal;
use tokio::{
    io::{Interest, unix::AsyncFd},
    sync::mpsc::UnboundedReceiver,
    time::{Instant, Interval, MissedTickBehavior, interval_at, sleep_until},
};

use super::{
    control::{Asked, Server},
    files::Unplaced,
    keys::{Key, Keys},
    signals::{SignalOrigin, Signals},
    tracer::Tracer,
};
use crate::bpf::{Notice, Notices};

/// What wakes the loop.
pub(super) enum Event {
    /// From the kernel side.
    Notices(Vec<Notice>),
    /// To this process.
    Signal(Signal, SignalOrigin),
    /// A file was read aside.
    Read(Unplaced),
    /// On the terminal.
    Key(Key),
    /// On the control socket.
    Asked(Asked),
    /// The target has ended.
    TargetEnded,
    /// `--duration` is over.
    TimeIsUp,
    /// `--start-after` is over.
    Start,
    /// A refreshed report is due.
    Refresh,
    /// The series' next sample is due.
    Sample,
    /// `--snapshot-every`.
    Snapshot,
    /// Processes that have ended are archived, and lost notices found.
    Tidy,
}

/// The sources of events. Those that are `None` are silent.
pub(super) struct Events {
    pub(super) signals: Signals,
    pub(super) notices: Notices,
    reads: Option<UnboundedReceiver<Unplaced>>,
    target_ended: Option<AsyncFd<OwnedFd>>,
    pub(super) keys: Option<Keys>,
    pub(super) requests: Option<Server>,
    pub(super) deadline: Option<Instant>,
    pub(super) start: Option<Instant>,
    pub(super) refresh: Option<Interval>,
    pub(super) sample: Option<Interval>,
    pub(super) snapshot: Option<Interval>,
    pub(super) tidy: Option<Interval>,
}

impl Events {
    /// Ends all other sources.
    pub(super) fn into_signals(self) -> Signals {
        self.signals
    }

    /// Signals, and what a tracer has to tell: the kernel side's notices, files that were read, and the end of the target, where it is
    /// one.
    ///
    /// # Errors
    /// The target cannot be watched, or the tracer was followed before.
    pub(super) fn new(signals: Signals, tracer: &mut Tracer) -> anyhow::Result<Self> {
        Ok(Self {
            signals,
            notices: tracer.notices()?,
            reads: tracer.reads(),
            target_ended: tracer.process().map(ending).transpose()?,
            keys: None,
            requests: None,
            deadline: None,
            start: None,
            refresh: None,
            sample: None,
            snapshot: None,
            tidy: None,
        })
    }

    /// Follows another tracer, and its target.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub(super) fn follow(&mut self, tracer: &mut Tracer) -> anyhow::Result<()> {
        self.target_ended = tracer.process().map(ending).transpose()?;
        self.notices = tracer.notices()?;
        self.reads = tracer.reads();
        Ok(())
    }

    /// From here on the end of the first target ends nothing.
    pub(super) fn forget_target(&mut self) {
        self.target_ended = None;
    }

    /// Waits for the next event; of several the first in this order.
    ///
    /// # Errors
    /// A descriptor could not be read.
    pub(super) async fn next(&mut self) -> anyhow::Result<Event> {
        tokio::select! {
            biased;
            signal = self.signals.next() => { let (signal, origin) = signal?; Ok(Event::Signal(signal, origin)) }
            notices = self.notices.next() => Ok(Event::Notices(notices?)),
            read = read(&mut self.reads) => Ok(Event::Read(read)),
            ended = ended(self.target_ended.as_ref()) => { ended?; Ok(Event::TargetEnded) }
            () = moment(self.deadline) => Ok(Event::TimeIsUp),
            key = key(&mut self.keys) => Ok(Event::Key(key)),
            asked = asked(&mut self.requests) => Ok(Event::Asked(asked)),
            () = moment(self.start) => Ok(Event::Start),
            () = tick(&mut self.tidy) => Ok(Event::Tidy),
            () = tick(&mut self.snapshot) => Ok(Event::Snapshot),
            () = tick(&mut self.sample) => Ok(Event::Sample),
            () = tick(&mut self.refresh) => Ok(Event::Refresh),
        }
    }
}

/// Ticks from one period on; those that came while the session was busy are left out.
pub(super) fn every(period: Duration) -> Interval {
    let mut interval = interval_at(Instant::now() + period, period);
    interval.set_missed_tick_behavior(MissedTickBehavior::Skip);
    interval
}

/// A pidfd is readable when its process has ended.
fn ending(target: &impl AsFd) -> anyhow::Result<AsyncFd<OwnedFd>> {
    let fd = target.as_fd().try_clone_to_owned().context("failed to watch the target")?;
    // SAFETY: the descriptor is owned by the `AsyncFd` and stays open until that is dropped.
    unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) }.context("failed to watch the target")
}

async fn ended(target: Option<&AsyncFd<OwnedFd>>) -> io::Result<()> {
    match target {
        Some(target) => {
            target.readable().await?.retain_ready();
            Ok(())
        }
        None => pending().await,
    }
}

async fn moment(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => pending().await,
    }
}

async fn tick(interval: &mut Option<Interval>) {
    match interval {
        Some(interval) => {
            interval.tick().await;
        }
        None => pending().await,
    }
}

async fn read(reads: &mut Option<UnboundedReceiver<Unplaced>>) -> Unplaced {
    match reads {
        Some(reads) => match reads.recv().await {
            Some(read) => read,
            None => pending().await,
        },
        None => pending().await,
    }
}

async fn key(keys: &mut Option<Keys>) -> Key {
    match keys {
        Some(keys) => keys.next().await,
        None => pending().await,
    }
}

async fn asked(requests: &mut Option<Server>) -> Asked {
    match requests {
        Some(requests) => requests.next().await,
        None => pending().await,
    }
}
