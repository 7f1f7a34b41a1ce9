//! The loop over everything that can happen while a target is traced.

use std::{
    ffi::OsString,
    io,
    os::{
        fd::{AsFd as _, AsRawFd as _},
        unix::process::ExitStatusExt as _,
    },
    time::Duration,
};

use anyhow::Context as _;
use nix::sys::{
    signal::{SigSet, Signal},
    signalfd::{SfdFlags, SignalFd},
};
use tokio::{
    io::unix::AsyncFd,
    time::{Instant, interval_at, sleep, sleep_until},
};

use super::{
    output::Output,
    spawn::{Child, Pause},
    tracer::{Origin, Tracer},
};
use crate::{
    bpf::{Notice, Notices},
    options::SessionOptions,
    target::Process,
};

/// How a session ended: the exit status of this program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended(pub u8);

/// Everything that wakes the loop.
enum Event {
    /// From the kernel side.
    Notices(Vec<Notice>),
    /// To this process.
    Signal(Signal, SignalOrigin),
    /// The target has ended.
    TargetEnded,
    /// A refreshed report is due.
    Refresh,
    /// `--duration` is over.
    TimeIsUp,
}

/// Who sent a signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SignalOrigin {
    /// The terminal, to the whole foreground group: a child has it already.
    Terminal,
    /// A process, to this one alone.
    Process,
}

/// Traces a running process until it ends, the time is up, or a signal ends the session.
///
/// # Errors
/// The process cannot be traced, or a report cannot be written.
pub async fn attach(pid: u32, options: SessionOptions) -> anyhow::Result<Ended> {
    let mut output = Output::new(options.clone())?;
    let signals = Signals::block(&[Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP])?;
    let process = Process::open(pid)?;
    let mut tracer = Tracer::prepare(process, Origin::Attached, &options, &|what| output.progress(what))?;
    output.progress_done();
    tracer.begin();
    let mut session = Session::new(tracer, options, signals)?;
    loop {
        match session.next_event().await? {
            Event::Notices(notices) if notices.contains(&Notice::Exec) => {
                session.start_again(Origin::Attached)?;
                session.tracer.begin();
            }
            Event::Notices(_) => session.libraries_changed().await,
            Event::Refresh => output.refresh(&session.tracer.snapshot())?,
            Event::Signal(..) | Event::TimeIsUp | Event::TargetEnded => break,
        }
    }
    session.finish(&mut output)?;
    Ok(Ended(0))
}

/// Starts a program and traces it from its first allocation to its end.
///
/// # Errors
/// It cannot be started or traced, or a report cannot be written.
pub async fn run(command: &[OsString], options: SessionOptions) -> anyhow::Result<Ended> {
    let mut output = Output::new(options.clone())?;
    let mut child = Child::spawn(command)?;
    // Blocked after the spawn: the child has the signals as they were.
    let signals = Signals::block(&[
        Signal::SIGINT,
        Signal::SIGTERM,
        Signal::SIGHUP,
        Signal::SIGQUIT,
        Signal::SIGUSR1,
        Signal::SIGUSR2,
        Signal::SIGWINCH,
    ])?;
    let started = start(&mut child, options, signals, &output);
    output.progress_done();
    let mut session = started.inspect_err(|_| child.signal(Signal::SIGKILL))?;
    // Whatever fails from here on, the program is not left standing.
    let interrupts = follow(&mut session, &mut child, &mut output).await.inspect_err(|_| child.resume())?;
    if session.tracer.process().is_running() {
        session.tracer.note(format!("pid {} was left running", child.pid()));
    }
    session.finish(&mut output)?;
    Ok(exit_code(&mut child, interrupts))
}

/// Takes in the child, which stands at its first instruction, and its libraries; then lets it run.
fn start(child: &mut Child, options: SessionOptions, signals: Signals, output: &Output) -> anyhow::Result<Session> {
    let tracer = prepare_child(child, &options, &|what| output.progress(what))?;
    if !tracer.has_sites() && !tracer.awaits_libraries() {
        return Err(tracer.no_allocator().into());
    }
    let mut session = Session::new(tracer, options, signals)?;
    session.load_child(child)?;
    Ok(session)
}

/// Follows the running child until it ends, the time is up, or Ctrl-C twice. Returns how often Ctrl-C came.
async fn follow(session: &mut Session, child: &mut Child, output: &mut Output) -> anyhow::Result<u32> {
    let mut interrupts = 0;
    loop {
        match session.next_event().await? {
            Event::Notices(notices) if notices.contains(&Notice::Exec) => {
                child.watch_again()?;
                session.start_again(Origin::Child)?;
                session.load_child(child)?;
            }
            Event::Notices(notices) => {
                session.libraries_changed().await;
                if notices.contains(&Notice::Libraries) {
                    child.resume();
                }
            }
            Event::Refresh => output.refresh(&session.tracer.snapshot())?,
            Event::Signal(signal, origin) => {
                if origin == SignalOrigin::Process {
                    child.signal(signal);
                }
                if signal == Signal::SIGINT {
                    interrupts += 1;
                }
                if interrupts == 2 {
                    return Ok(interrupts);
                }
            }
            Event::TimeIsUp | Event::TargetEnded => return Ok(interrupts),
        }
    }
}

/// The child's own status, as shells give it; of one left running: 130 after Ctrl-C twice, else 0.
fn exit_code(child: &mut Child, interrupts: u32) -> Ended {
    match child.try_wait() {
        Some(status) => {
            let killed = status.signal().map(|signal| 128 + signal);
            Ended(status.code().or(killed).unwrap_or(1) as u8)
        }
        None => Ended(if interrupts >= 2 { 130 } else { 0 }),
    }
}

/// Opens the child, which stands at its first instruction, and prepares its tracer.
fn prepare_child(child: &mut Child, options: &SessionOptions, progress: &dyn Fn(&str)) -> anyhow::Result<Tracer> {
    if let Some(status) = child.ended() {
        anyhow::bail!("the program ended before it ran ({status})");
    }
    let process = Process::open(child.pid())?;
    Ok(Tracer::prepare(process, Origin::Child, options, progress)?)
}

/// A tracer with its sources of events.
struct Session {
    tracer: Tracer,
    notices: Notices,
    signals: Signals,
    target_ended: AsyncFd<std::os::fd::OwnedFd>,
    options: SessionOptions,
    refresh: Option<tokio::time::Interval>,
    deadline: Option<Instant>,
    last_maps: Instant,
}

/// Mapping lists are kept in two halves; a program that is just walking may still use the old one (microseconds).
const BETWEEN_MAPPING_LISTS: Duration = Duration::from_millis(5);

impl Session {
    fn new(mut tracer: Tracer, options: SessionOptions, signals: Signals) -> anyhow::Result<Self> {
        let notices = tracer.notices()?;
        let target_ended = pidfd(&tracer)?;
        let refresh = options.interval.map(|period| interval_at(Instant::now() + period, period));
        let deadline = options.duration.map(|duration| Instant::now() + duration);
        Ok(Self { tracer, notices, signals, target_ended, options, refresh, deadline, last_maps: Instant::now() })
    }

    async fn next_event(&mut self) -> anyhow::Result<Event> {
        let refresh = async {
            match &mut self.refresh {
                Some(interval) => {
                    interval.tick().await;
                }
                None => std::future::pending().await,
            }
        };
        let deadline = async {
            match self.deadline {
                Some(deadline) => sleep_until(deadline).await,
                None => std::future::pending().await,
            }
        };
        self.tracer.flush_log();
        tokio::select! {
            biased;
            signal = self.signals.next() => { let (signal, origin) = signal?; Ok(Event::Signal(signal, origin)) }
            notices = self.notices.next() => Ok(Event::Notices(notices?)),
            ended = self.target_ended.readable() => { ended?.retain_ready(); Ok(Event::TargetEnded) }
            () = deadline => Ok(Event::TimeIsUp),
            () = refresh => Ok(Event::Refresh),
        }
    }

    /// Reads what the target has mapped since the last look. A target that ends meanwhile is no error here.
    async fn libraries_changed(&mut self) {
        sleep(BETWEEN_MAPPING_LISTS.saturating_sub(self.last_maps.elapsed())).await;
        self.refresh_maps();
    }

    fn refresh_maps(&mut self) {
        self.last_maps = Instant::now();
        if let Err(error) = self.tracer.refresh()
            && self.tracer.process().is_running()
        {
            self.tracer.note(format!("libraries opened later are not all traced: {error}"));
        }
    }

    /// After exec the process is another program: everything is read anew, the totals start at zero.
    fn start_again(&mut self, origin: Origin) -> anyhow::Result<()> {
        let pid = self.tracer.process().pid;
        let comm = self.tracer.process().comm.clone();
        let mut tracer = Tracer::prepare(Process::open(pid)?, origin, &self.options, &|_| ())?;
        tracer.note(format!("pid {pid} ({comm}) called exec: figures are those of the new program"));
        self.notices = tracer.notices()?;
        self.target_ended = pidfd(&tracer)?;
        self.tracer = tracer;
        Ok(())
    }

    /// Runs a watched child until its libraries are loaded, taking each in before it runs any of its code.
    fn load_child(&mut self, child: &mut Child) -> anyhow::Result<()> {
        self.tracer.begin();
        if !self.tracer.awaits_libraries() {
            child.release();
            return Ok(());
        }
        loop {
            match child.run_to_pause()? {
                Pause::Mapped => self.refresh_maps(),
                Pause::Loaded => {
                    self.refresh_maps();
                    break;
                }
                Pause::Ended => return Ok(()),
            }
        }
        // The notices of what has just been taken in: acted on later, they would end the child's next stop.
        self.notices.discard();
        child.release();
        Ok(())
    }

    /// The last snapshot and report. From here on a signal ends this process as it ends any other.
    fn finish(self, output: &mut Output) -> anyhow::Result<()> {
        let Self { mut tracer, signals, notices, .. } = self;
        tracer.end();
        tracer.flush_log();
        drop(notices);
        drop(signals);
        if !tracer.has_sites() {
            tracer.note(tracer.no_allocator().to_string());
        }
        let snapshot = tracer.snapshot();
        // The probes go while the names are looked up; either can take seconds.
        let (modules, detaching) = tracer.detach();
        let result = output.finish(&snapshot);
        drop(modules);
        if detaching.join().is_err() {
            log::error!("failed to take the probes away in order; they go with this process");
        }
        result
    }
}

fn pidfd(tracer: &Tracer) -> anyhow::Result<AsyncFd<std::os::fd::OwnedFd>> {
    let fd = tracer.process().as_fd().try_clone_to_owned().context("failed to watch the target")?;
    // SAFETY: the descriptor is owned by the `AsyncFd` and stays open until that is dropped.
    unsafe { AsyncFd::register_with_interest(fd, tokio::io::Interest::READABLE) }.context("failed to watch the target")
}

/// Signals as events, with their origin. Dropping it gives them their ordinary meaning back.
struct Signals {
    fd: AsyncFd<SignalFd>,
    blocked: SigSet,
}

impl Signals {
    fn block(signals: &[Signal]) -> anyhow::Result<Self> {
        let blocked: SigSet = signals.iter().copied().collect();
        blocked.thread_block().context("failed to block signals")?;
        let fd = SignalFd::with_flags(&blocked, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)
            .context("failed to open a signalfd")?;
        // SAFETY: the descriptor is owned by the `AsyncFd` and stays open until that is dropped.
        let fd = unsafe { AsyncFd::register_with_interest(fd, tokio::io::Interest::READABLE) }?;
        Ok(Self { fd, blocked })
    }

    async fn next(&mut self) -> io::Result<(Signal, SignalOrigin)> {
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

impl Drop for Signals {
    fn drop(&mut self) {
        if let Err(error) = self.blocked.thread_unblock() {
            log::debug!("failed to unblock signals (fd {}): {error}", self.fd.get_ref().as_fd().as_raw_fd());
        }
    }
}
