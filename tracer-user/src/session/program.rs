//! What the target does: it opens libraries, calls exec, and as a child of ours stands until its libraries are taken in.

use std::time::Duration;

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tokio::time::{Instant, sleep};

use super::{
    live::Session,
    spawn::{Child, Pause},
    tracer::{Origin, Tracer},
};
use crate::{bpf::Notice, recording::Trigger, target::Process};

/// Mapping lists are kept in two halves; a program that is just walking may still use the old one (microseconds).
const BETWEEN_MAPPING_LISTS: Duration = Duration::from_millis(5);

impl Session {
    /// Acts on what the kernel side has noticed.
    ///
    /// # Errors
    /// The target cannot be traced any further.
    pub(super) async fn noticed(&mut self, notices: &[Notice]) -> anyhow::Result<()> {
        if self.tracer.is_many() {
            self.noticed_of_many(notices).await;
            return Ok(());
        }
        if !self.begun {
            return Ok(());
        }
        if notices.iter().any(|notice| matches!(notice, Notice::Exec { .. })) {
            if self.origin == Origin::Child
                && let Some(child) = &mut self.child
            {
                child.watch_again()?;
            }
            return self.start_again();
        }
        // A target that ends meanwhile is no error here.
        sleep(BETWEEN_MAPPING_LISTS.saturating_sub(self.last_maps.elapsed())).await;
        self.refresh_maps();
        let has_libraries = notices.iter().any(|notice| matches!(notice, Notice::Libraries { .. }));
        if has_libraries && self.origin == Origin::Child {
            self.signal_child(Signal::SIGCONT);
        }
        Ok(())
    }

    async fn noticed_of_many(&mut self, notices: &[Notice]) {
        // Code that is generated all the time must not keep the session busy; what stands for us must not wait.
        if notices.iter().all(|notice| matches!(notice, Notice::UnknownCode { .. })) {
            sleep(BETWEEN_MAPPING_LISTS.saturating_sub(self.last_maps.elapsed())).await;
        }
        let stopped = self.tracer.take_notices(notices);
        for pid in stopped {
            go_on(pid);
        }
        self.last_maps = Instant::now();
        self.tracer.archive_ended(false);
    }

    /// Once a second, where processes come and go: what notices have not told, what has ended, what a scope may have become.
    pub(super) fn tidy(&mut self) {
        self.tracer.reconcile();
        self.tracer.archive_ended(true);
        self.tracer.look_for_groups();
        if self.begun && self.tracer.is_waiting() != self.is_waiting {
            self.is_waiting = !self.is_waiting;
            self.say_if_waiting();
        }
    }

    /// Tells the user why nothing happens.
    pub(super) fn say_if_waiting(&self) {
        if self.is_waiting && !self.options.quiet {
            let (_, scope) = self.tracer.name();
            eprintln!("memtrace-bpf: waiting for a process of {}", crate::report::escaped(&scope));
        }
    }

    /// Reads what the target has mapped since the last look.
    pub(super) fn refresh_maps(&mut self) {
        self.last_maps = Instant::now();
        if let Err(error) = self.tracer.refresh()
            && self.tracer.process().is_some_and(Process::is_running)
        {
            self.tracer.note(format!("libraries opened later are not all traced: {error}"));
        }
    }

    /// After exec the process is another program: everything is read anew, the totals start at zero. A recording goes on.
    pub(super) fn start_again(&mut self) -> anyhow::Result<()> {
        let (pid, before) = self.tracer.name();
        let process = Process::open(pid)?;
        let now = process.comm.clone();
        let prepare = if self.tracer.is_paused() { Tracer::prepare_paused } else { Tracer::prepare };
        let mut tracer = prepare(process, self.origin, &self.options, &|_| ())?;
        if self.origin == Origin::Attached && !tracer.has_sites() {
            // It runs on meanwhile: its libraries may have come since its mappings were read, or are still to come.
            if let Err(error) = tracer.refresh()
                && tracer.process().is_some_and(Process::is_running)
            {
                return Err(error.into());
            }
            if !tracer.awaits_libraries() {
                tracer.check_sites()?;
            }
        }
        tracer.note(format!("pid {pid} ({before}) called exec: figures are those of the new program"));
        self.events.follow(&mut tracer)?;
        let earlier = std::mem::replace(&mut self.tracer, tracer);
        // Its probes go in a thread of their own, while the new program is traced already; its files stay open.
        let (modules, detaching) = earlier.detach(|| ());
        self.detaching.push(detaching);
        if self.origin == Origin::Child {
            self.load_child(false)?;
        } else {
            self.tracer.begin();
        }
        if let Some(recording) = &mut self.recording {
            recording.follow(&self.tracer);
            recording.mark(&mut self.tracer, format!("exec: {now}"));
            recording.learn_names(&mut self.output);
        }
        drop(modules);
        Ok(())
    }

    /// Runs a watched child until its libraries are loaded, taking each in before it runs any of its code.
    pub(super) fn load_child(&mut self, is_start: bool) -> anyhow::Result<()> {
        self.tracer.begin();
        if is_start {
            self.record(Trigger::Start);
        }
        let Some(child) = &mut self.child else { return Ok(()) };
        if !self.tracer.awaits_libraries() {
            child.release();
            return Ok(());
        }
        loop {
            let Some(child) = &mut self.child else { return Ok(()) };
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
        self.events.notices.discard();
        self.child.iter_mut().for_each(Child::release);
        Ok(())
    }
}

/// Ends a stop that the BPF side made.
pub(super) fn go_on(pid: u32) {
    if let Err(error) = kill(Pid::from_raw(pid as i32), Signal::SIGCONT) {
        log::debug!("kill({pid}, SIGCONT): {error}");
    }
}
