//! What the user asks of a running session, on the control socket, by signal, by key or by time: snapshots, marks, pauses.

use super::{
    control::{Answer, Asked, Request, Status},
    live::Session,
    recording::{LiveRecording, Taken},
};
use crate::{recording::Trigger, text::chain};

/// What a session without `--record` says.
const NO_RECORDING: &str = "the session keeps no recording (start it with --record FILE)";

/// What one says that still waits.
const NOT_BEGUN: &str = "tracing has not begun (--start-after)";

impl Session {
    /// Carries out what was asked for on the control socket.
    pub(super) fn answer(&mut self, asked: Asked) -> anyhow::Result<()> {
        let refused = |reason: &str| Answer::Refused { reason: reason.to_owned() };
        let answer = match asked.request.clone() {
            Request::Status => Answer::Status(self.status()),
            Request::Resume if !self.begun => {
                self.start()?;
                Answer::Resumed
            }
            _ if !self.begun => refused(NOT_BEGUN),
            Request::Snapshot { label } => self.record_or_refuse(Trigger::Command, label),
            Request::Mark { text } => match &mut self.recording {
                Some(recording) => {
                    recording.mark(&mut self.tracer, text);
                    Answer::Marked
                }
                None => refused(NO_RECORDING),
            },
            Request::Pause if self.tracer.is_paused() => refused("it is paused already"),
            Request::Pause => {
                self.pause();
                Answer::Paused
            }
            Request::Resume if !self.tracer.is_paused() => refused("it is not paused"),
            Request::Resume => match self.resume() {
                Ok(()) => Answer::Resumed,
                Err(error) => refused(&format!("{error:#}")),
            },
        };
        asked.answer(answer);
        Ok(())
    }

    pub(super) fn status(&self) -> Status {
        let (pid, comm) = self.tracer.name();
        let totals = self.tracer.totals();
        Status {
            pid,
            comm,
            seconds: self.begun.then(|| self.tracer.elapsed().as_secs()),
            paused: self.tracer.is_paused(),
            current_bytes: totals.current_bytes,
            current_count: totals.current_count,
            n_snapshots: self.recording.as_ref().map(LiveRecording::n_snapshots),
        }
    }

    /// The probes go; the recording shows where the gap begins, and what was live then.
    pub(super) fn pause(&mut self) {
        // Counting stops at once; to take the probes away takes seconds.
        let since = self.recording.as_ref().map(LiveRecording::elapsed);
        self.tracer.pause();
        if let Some((recording, since)) = self.recording.as_mut().zip(since) {
            recording.mark_gap(&mut self.tracer, since, "paused");
        }
        self.record(Trigger::Pause);
    }

    pub(super) fn resume(&mut self) -> anyhow::Result<()> {
        self.tracer.resume()?;
        if let Some(recording) = &mut self.recording {
            let since = recording.elapsed();
            recording.mark_gap(&mut self.tracer, since, "resumed");
        }
        Ok(())
    }

    pub(super) fn sample(&mut self) {
        if let Some(recording) = &mut self.recording
            && recording.sample(&mut self.tracer)
        {
            self.record(Trigger::Growth);
        }
    }

    /// A snapshot into the recording, if there is one.
    pub(super) fn record(&mut self, trigger: Trigger) {
        if let Answer::Refused { reason } = self.record_or_refuse(trigger, None) {
            log::debug!("no {} snapshot: {reason}", trigger.name());
        }
    }

    pub(super) fn record_or_refuse(&mut self, trigger: Trigger, label: Option<String>) -> Answer {
        if !self.begun {
            return Answer::Refused { reason: NOT_BEGUN.to_owned() };
        }
        let Some(recording) = &mut self.recording else {
            return Answer::Refused { reason: NO_RECORDING.to_owned() };
        };
        match recording.snapshot(&mut self.tracer, trigger, label) {
            Ok(Taken { number, totals }) => {
                log::info!("snapshot {number} ({})", trigger.name());
                let (current_bytes, current_count) = (totals.current_bytes, totals.current_count);
                Answer::Snapshot { number, current_bytes, current_count }
            }
            Err(error) => Answer::Refused { reason: chain(&error) },
        }
    }
}
