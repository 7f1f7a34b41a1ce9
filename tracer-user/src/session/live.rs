//! A session from its start to its end: `attach` and `run`, and what is done at each event.

use std::{
    ffi::OsString,
    io::{self, IsTerminal as _},
    ops::ControlFlow,
    os::unix::process::ExitStatusExt as _,
    path::PathBuf,
    sync::mpsc,
    thread::JoinHandle,
    time::Duration,
};

use anyhow::{Context as _, bail};
use nix::sys::signal::Signal;
use thiserror::Error;
use tokio::time::Instant;

use super::{
    control::{Answer, Server},
    events::{Event, Events, every},
    keys::{Key, Keys},
    memory::MemoryReads,
    output::Output,
    prepare::Wanted,
    recording::{LiveRecording, Reserved, session_info},
    signals::{SignalOrigin, Signals},
    spawn::Child,
    tracer::{Origin, Tracer},
};
use crate::{
    options::SessionOptions,
    recording::Trigger,
    target::{self, Process},
};

/// Time between two looks at what processes have come and gone.
const TIDY_EVERY: Duration = Duration::from_secs(1);

/// From so many probes on the user is told why the end takes its time.
const MANY_PROBES: usize = 50;

/// How a session ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// The exit status of this program: the traced program's own, as shells give it; 0 after an attach.
    pub code: u8,
    /// The recording that was written, whole and with names.
    pub recording: Option<PathBuf>,
}

/// Traces what the scopes of the options select until all of it has ended, the time is up, or a signal ends the session.
///
/// # Errors
/// Nothing of it can be traced, or a report cannot be written.
pub async fn attach(options: SessionOptions) -> anyhow::Result<Ended> {
    let (output, reserved) = outputs(&options).map_err(Unusable)?;
    // Each but the last ends the session in order: the terminal is as before, the recording whole.
    let signals = Signals::block(&[Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGQUIT, Signal::SIGUSR1])?;
    let tracer = prepare_scope(&options, options.start_after.is_some(), &|what| output.progress(what))?;
    output.progress_done();
    let mut session = Session::new(tracer, None, Vec::new(), options, signals, output, reserved)?;
    if io::stdin().is_terminal() {
        session.events.keys = Keys::of_terminal();
    }
    if session.events.start.is_none() {
        session.begin()?;
    }
    let followed = session.follow().await;
    session.finish(followed)
}

/// The tracer of what the scopes of the options select.
pub(super) fn prepare_scope(options: &SessionOptions, paused: bool, progress: &dyn Fn(&str)) -> anyhow::Result<Tracer> {
    let (wanted, notes) = Wanted::of_scopes(options)?;
    let mut tracer = Tracer::prepare_wanted(Wanted { paused, ..wanted }, options, progress)?;
    for note in notes {
        tracer.note(note);
    }
    if !tracer.may_grow() {
        tracer.check_sites()?;
    }
    Ok(tracer)
}

/// Starts a program and traces it from its first allocation to its end.
///
/// # Errors
/// It cannot be started or traced, or a report cannot be written.
pub async fn run(command: &[OsString], options: SessionOptions) -> anyhow::Result<Ended> {
    let (output, reserved) = outputs(&options).map_err(Unusable)?;
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
    let tracer = prepare_child(&mut child, &options, &|what| output.progress(what));
    output.progress_done();
    let tracer = tracer.inspect_err(|_| child.signal(Signal::SIGKILL))?;
    let mut session = Session::new(tracer, Some(child), command.to_vec(), options, signals, output, reserved)?;
    if session.events.start.is_some() {
        session.child.iter_mut().for_each(Child::release);
    } else if let Err(error) = session.begin() {
        session.signal_child(Signal::SIGKILL);
        return Err(error);
    }
    let followed = session.follow().await;
    session.finish(followed)
}

/// What the command line names cannot be used: nothing was begun.
#[derive(Debug, Error)]
#[error("{0:#}")]
pub struct Unusable(anyhow::Error);

/// Holds that patterns are well-formed and that reports and the recording can be written, before anything is touched.
fn outputs(options: &SessionOptions) -> anyhow::Result<(Output, Option<Reserved>)> {
    let output = Output::new(options.clone())?;
    Ok((output, options.record.clone().map(Reserved::new).transpose()?))
}

/// Opens the child, which stands at its first instruction, and prepares its tracer.
fn prepare_child(child: &mut Child, options: &SessionOptions, progress: &dyn Fn(&str)) -> anyhow::Result<Tracer> {
    if let Some(status) = child.ended() {
        bail!("the program ended before it ran ({status})");
    }
    let process = Process::open(child.pid())?;
    let paused = options.start_after.is_some();
    let origin = if paused { Origin::Attached } else { Origin::Child };
    let wanted = Wanted { paused, ..Wanted::of_child(process, origin, options) };
    let tracer = Tracer::prepare_wanted(wanted, options, progress)?;
    if !paused && !tracer.has_sites() && !tracer.awaits_libraries() {
        return Err(tracer.no_allocator().into());
    }
    Ok(tracer)
}

/// A tracer with its sources of events and its outputs.
pub(super) struct Session {
    pub(super) tracer: Tracer,
    pub(super) events: Events,
    /// The program that was started here.
    pub(super) child: Option<Child>,
    /// Its command line; empty after an attach.
    command: Vec<OsString>,
    /// Whether the target may be stopped: a child that is traced from its first instruction.
    pub(super) origin: Origin,
    pub(super) options: SessionOptions,
    pub(super) output: Output,
    pub(super) recording: Option<LiveRecording>,
    /// Until the recording begins.
    reserved: Option<Reserved>,
    /// Tracing has begun: `--start-after` is over.
    pub(super) begun: bool,
    pub(super) last_maps: Instant,
    /// The target's resident memory, for refreshed reports.
    memory: MemoryReads,
    /// The threads that take the probes of earlier programs away.
    pub(super) detaching: Vec<JoinHandle<()>>,
    /// How often Ctrl-C came.
    interrupts: u32,
    /// The scope has no process, and the user was told so.
    pub(super) is_waiting: bool,
    /// What the last key did.
    key_note: String,
}

impl Session {
    fn new(
        mut tracer: Tracer,
        child: Option<Child>,
        command: Vec<OsString>,
        options: SessionOptions,
        signals: Signals,
        output: Output,
        reserved: Option<Reserved>,
    ) -> anyhow::Result<Self> {
        let whole = child.is_some() && options.start_after.is_none();
        let origin = if whole { Origin::Child } else { Origin::Attached };
        let mut events = Events::new(signals, &mut tracer)?;
        events.start = options.start_after.map(|time| Instant::now() + time);
        let (pid, _) = tracer.name();
        events.requests =
            Server::open(pid).inspect_err(|error| log::info!("no control socket for this session: {error}")).ok();
        if let Some(time) = options.start_after {
            log::info!("waits {time:?} before the probes are attached");
        }
        Ok(Self {
            tracer,
            events,
            child,
            command,
            origin,
            options,
            output,
            recording: None,
            reserved,
            begun: false,
            last_maps: Instant::now(),
            memory: MemoryReads::default(),
            detaching: Vec::new(),
            interrupts: 0,
            is_waiting: false,
            key_note: String::new(),
        })
    }

    /// Tracing begins, and with it the recording and every clock.
    fn begin(&mut self) -> anyhow::Result<()> {
        self.events.start = None;
        if let Some(reserved) = self.reserved.take() {
            let session = session_info(&self.tracer, &self.command, self.options.by_thread);
            self.recording = Some(reserved.begin(&session)?);
        }
        if let Some(record) = &self.options.record {
            self.events.sample = Some(every(record.sample_every));
            self.events.snapshot = record.snapshot_every.map(every);
        }
        self.events.refresh = self.options.interval.map(every);
        self.events.deadline = self.options.duration.map(|duration| Instant::now() + duration);
        if self.tracer.is_many() {
            self.events.tidy = Some(every(TIDY_EVERY));
        }
        self.begun = true;
        if self.origin == Origin::Child {
            self.load_child(true)
        } else {
            self.tracer.begin();
            self.is_waiting = self.tracer.is_waiting();
            self.say_if_waiting();
            self.record(Trigger::Start);
            Ok(())
        }
    }

    /// `--start-after` is over. What the process is by now is read anew: it may have called exec, and opened libraries.
    pub(super) fn start(&mut self) -> anyhow::Result<()> {
        let progress = |what: &str| self.output.progress(what);
        let mut tracer = match &self.child {
            None => prepare_scope(&self.options, false, &progress)?,
            Some(child) => {
                let wanted = Wanted::of_child(Process::open(child.pid())?, Origin::Attached, &self.options);
                Tracer::prepare_wanted(wanted, &self.options, &progress)?
            }
        };
        self.output.progress_done();
        self.events.follow(&mut tracer)?;
        self.tracer = tracer;
        self.begin()
    }

    /// Does what each event asks for until the session ends.
    async fn follow(&mut self) -> anyhow::Result<()> {
        loop {
            self.tracer.flush_log();
            match self.events.next().await? {
                Event::Notices(notices) => self.noticed(&notices).await?,
                Event::Read(read) => self.tracer.take_read(read),
                Event::Signal(signal, origin) if self.signalled(signal, origin).is_break() => return Ok(()),
                Event::Key(Key::Quit) | Event::TimeIsUp => return Ok(()),
                Event::TargetEnded if self.target_ended() => return Ok(()),
                Event::TargetEnded | Event::Signal(..) => {}
                Event::Key(Key::Snapshot) => self.snapshot_by_key()?,
                Event::Asked(asked) => self.answer(asked)?,
                Event::Start => self.start()?,
                Event::Refresh => self.refresh()?,
                Event::Sample => self.sample(),
                Event::Snapshot => self.record(Trigger::Interval),
                Event::Tidy => self.tidy(),
            }
            if self.begun && self.child.is_none() && self.tracer.is_many() && self.tracer.is_over() {
                return Ok(());
            }
        }
    }

    /// Whether the session ends with its first process: those that it has started may go on after it.
    fn target_ended(&mut self) -> bool {
        if self.child.is_some() || !self.tracer.is_many() || !self.begun {
            return true;
        }
        self.events.forget_target();
        self.tracer.is_over()
    }

    /// Whether the session ends. A child gets what only this process got; with a recording SIGUSR1 is the tracer's, as it is where
    /// there is no child.
    fn signalled(&mut self, signal: Signal, origin: SignalOrigin) -> ControlFlow<()> {
        if signal == Signal::SIGUSR1 && (self.options.record.is_some() || self.child.is_none()) {
            if let Answer::Refused { reason } = self.record_or_refuse(Trigger::Signal, None) {
                eprintln!("memtrace-bpf: SIGUSR1 took no snapshot: {}", crate::report::escaped(&reason));
            }
            return ControlFlow::Continue(());
        }
        if self.child.is_none() {
            return ControlFlow::Break(());
        }
        if origin == SignalOrigin::Process {
            self.signal_child(signal);
        }
        if signal == Signal::SIGINT {
            self.interrupts += 1;
        }
        if self.interrupts == 2 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    pub(super) fn signal_child(&self, signal: Signal) {
        self.child.iter().for_each(|child| child.signal(signal));
    }

    fn snapshot_by_key(&mut self) -> anyhow::Result<()> {
        self.key_note = self.record_or_refuse(Trigger::Key, None).to_string();
        if self.options.interval.is_some() {
            return self.refresh();
        }
        eprintln!("{}", self.key_note);
        Ok(())
    }

    fn refresh(&mut self) -> anyhow::Result<()> {
        let last_line = match (&self.events.keys, &self.recording) {
            (None, _) => String::new(),
            (Some(_), None) => "q: end".to_owned(),
            (Some(_), Some(_)) => format!("s: snapshot, q: end  {}", self.key_note),
        };
        let mut snapshot = self.tracer.snapshot();
        if snapshot.target.pid != 0 {
            snapshot.memory = self.memory.now_and_then(snapshot.target.pid);
        }
        self.output.look_in(self.tracer.roots());
        self.output.refresh(&snapshot, last_line.trim_end())
    }

    /// The last snapshot and report. A signal that ends processes does so once the probes are gone.
    fn finish(self, followed: anyhow::Result<()>) -> anyhow::Result<Ended> {
        let Self {
            mut tracer,
            events,
            mut child,
            mut output,
            mut recording,
            options,
            begun,
            interrupts,
            detaching: earlier,
            ..
        } = self;
        tracer.end();
        tracer.let_go();
        tracer.flush_log();
        // The terminal as it was, no more requests.
        let signals = events.into_signals();
        if let Some(child) = &child
            && tracer.process().is_some_and(Process::is_running)
        {
            tracer.note(format!("pid {} was left running", child.pid()));
        }
        if !begun {
            followed?;
            let Some(child) = &mut child else { bail!("tracing had not begun (--start-after): nothing to report") };
            eprintln!("memtrace-bpf: the program ended before tracing began (--start-after): nothing to report");
            return Ok(Ended { code: exit_code(child, interrupts), recording: None });
        }
        tracer.reconcile();
        tracer.archive_ended(true);
        if let Some(error) = tracer.unmapped_allocator() {
            tracer.note(error.to_string());
        }
        if !tracer.has_sites() {
            tracer.note(tracer.no_allocator().to_string());
        }
        let last = recording.as_mut().map(|recording| recording.snapshot(&mut tracer, Trigger::End, None));
        let mut snapshot = tracer.snapshot();
        if snapshot.target.running {
            snapshot.memory = target::memory::read(snapshot.target.pid).ok();
        }
        // Reaped after the last snapshot: until then it has its CPU time.
        let code = child.as_mut().map_or(0, |child| exit_code(child, interrupts));
        output.look_in(tracer.roots());
        // The probes go while the names are looked up; either can take seconds.
        let n_probes = tracer.n_probes();
        tracer.let_go();
        let (done, wait) = mpsc::channel::<()>();
        let deferred = signals.deferred();
        let (modules, detaching) = tracer.detach(move || {
            let failed = earlier.into_iter().filter_map(|detaching| detaching.join().err()).count();
            if failed > 0 {
                log::error!("failed to take the probes of {failed} earlier programs away in order");
            }
            deferred.take();
            // Signals need a thread that takes them until all is told.
            let _told = wait.recv();
        });
        let recorded = recording.map(|recording| recording.finish(&mut output));
        // What failed first is told; a recording of what came before is kept all the same.
        let reported = followed.and_then(|()| output.finish(&snapshot));
        drop(modules);
        drop(done);
        if n_probes >= MANY_PROBES && !options.quiet && !detaching.is_finished() {
            eprintln!(
                "memtrace-bpf: taking {n_probes} probes away, about 0.1 s each (they must be gone before this ends)"
            );
        }
        if detaching.join().is_err() {
            log::error!("failed to take the probes away in order; they go with this process");
        }
        reported?;
        last.transpose().context("the recording lacks its last snapshot")?;
        if let Some(line) = recorded.transpose().context("the recording lacks its names")?
            && !options.quiet
            && options.record.as_ref().is_some_and(|record| record.is_kept)
        {
            eprintln!("{line}");
        }
        Ok(Ended { code, recording: options.record.map(|record| record.path) })
    }
}

/// The child's own status, as shells give it; of one left running: 130 after Ctrl-C twice, else 0.
fn exit_code(child: &mut Child, interrupts: u32) -> u8 {
    match child.try_wait() {
        Some(status) => {
            let killed = status.signal().map(|signal| 128 + signal);
            status.code().or(killed).unwrap_or(1) as u8
        }
        None if interrupts >= 2 => 130,
        None => 0,
    }
}
