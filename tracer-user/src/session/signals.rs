//! Signals as events, with their origin.

use std::{
    io,
    os::fd::{AsFd as _, AsRawFd as _},
};

use anyhow::Context as _;
use nix::sys::{
    signal::{SigSet, Signal},
    signalfd::{SfdFlags, SignalFd},
};
use tokio::io::{Interest, unix::AsyncFd};

/// Who sent a signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SignalOrigin {
    /// The terminal, to the whole foreground group: a child has it already.
    Terminal,
    /// A process, to this one alone.
    Process,
}

/// What asks a process to end.
const ENDING: [Signal; 4] = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGQUIT];

/// Blocked signals, read one by one. Dropping it forgets those that wait, and gives them their ordinary meaning back.
pub(super) struct Signals {
    fd: AsyncFd<SignalFd>,
    blocked: SigSet,
}

impl Signals {
    /// From here on these signals are events.
    pub(super) fn block(signals: &[Signal]) -> anyhow::Result<Self> {
        let blocked: SigSet = signals.iter().copied().collect();
        blocked.thread_block().context("failed to block signals")?;
        let fd = SignalFd::with_flags(&blocked, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)
            .context("failed to open a signalfd")?;
        // SAFETY: the descriptor is owned by the `AsyncFd` and stays open until that is dropped.
        let fd = unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) }?;
        Ok(Self { fd, blocked })
    }

    /// Those of them that end a process, for a thread that may be ended by them.
    pub(super) fn deferred(&self) -> Deferred {
        Deferred(ENDING.into_iter().filter(|signal| self.blocked.contains(*signal)).collect())
    }

    /// Waits for the next one.
    ///
    /// # Errors
    /// The descriptor could not be read.
    pub(super) async fn next(&mut self) -> io::Result<(Signal, SignalOrigin)> {
        loop {
            let mut guard = self.fd.readable_mut().await?;
            match guard.get_inner_mut().read_signal() {
                Ok(Some(info)) => {
                    // The terminal's signals come from the kernel (si_code SI_KERNEL, sigaction(2)).
                    let origin =
                        if info.ssi_code == libc::SI_KERNEL { SignalOrigin::Terminal } else { SignalOrigin::Process };
                    let signal = Signal::try_from(info.ssi_signo as i32).map_err(io::Error::from)?;
                    return Ok((signal, origin));
                }
                Ok(None) => guard.clear_ready(),
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// The blocked signals that end a process.
#[derive(Clone, Copy, Debug)]
pub(super) struct Deferred(SigSet);

impl Deferred {
    /// Takes them in this thread from now on: one that waits ends the process here.
    pub(super) fn take(self) {
        if let Err(error) = self.0.thread_unblock() {
            log::debug!("failed to unblock signals: {error}");
        }
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        while let Ok(Some(late)) = self.fd.get_mut().read_signal() {
            log::debug!("signal {} came too late", late.ssi_signo);
        }
        if let Err(error) = self.blocked.thread_unblock() {
            log::debug!("failed to unblock signals (fd {}): {error}", self.fd.get_ref().as_fd().as_raw_fd());
        }
    }
}
