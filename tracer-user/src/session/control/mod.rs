//! Commands to a running session: a unix socket that only its owner and root can open. A connection carries one request, a line
//! of JSON, and one answer.

mod client;
mod place;
mod server;

use std::{fmt, time::Duration};

use serde::{Deserialize, Serialize};

pub use client::{ask, none_running, sessions};
pub(super) use server::{Asked, Server};

use crate::{
    recording::Reference,
    report::format::{escaped, grouped, size},
};

/// Longest label or mark in bytes.
pub const MAX_TEXT_BYTES: usize = 256;

/// Longest request or answer in bytes: a text of which every byte is escaped by six, and room.
const MAX_MESSAGE_BYTES: u64 = 4096;

/// For how long one side waits for the other to write its line.
const PATIENCE: Duration = Duration::from_secs(5);

/// What a session can be asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum Request {
    /// A snapshot into its recording.
    Snapshot {
        /// What it shall be called; hostile input.
        label: Option<String>,
    },
    /// A mark in its recording's series.
    Mark {
        /// What it says; hostile input.
        text: String,
    },
    /// Takes the probes away until `Resume`.
    Pause,
    /// Puts the probes back.
    Resume,
    /// How it is.
    Status,
}

/// What a session answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum Answer {
    /// The snapshot is in the recording.
    Snapshot {
        /// Its place there, from 0.
        number: usize,
        /// Bytes live in it.
        current_bytes: u64,
        /// Blocks live in it.
        current_count: u64,
    },
    /// The mark is in the recording.
    Marked,
    /// Every probe is gone.
    Paused,
    /// Every probe is back.
    Resumed,
    /// How the session is.
    Status(Status),
    /// It was not done.
    Refused {
        /// Why.
        reason: String,
    },
}

/// How a session is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Status {
    /// Process id of the target.
    pub pid: u32,
    /// Its name; hostile input.
    pub comm: String,
    /// Seconds since tracing began; `None`: it has not (`--start-after`).
    pub seconds: Option<u64>,
    /// Probes are away.
    pub paused: bool,
    /// Bytes live now.
    pub current_bytes: u64,
    /// Blocks live now.
    pub current_count: u64,
    /// Snapshots recorded; `None`: the session keeps no recording.
    pub n_snapshots: Option<usize>,
}

impl Request {
    /// Holds texts to their bounds.
    ///
    /// # Errors
    /// What is wrong, in one line.
    pub fn check(&self) -> Result<(), String> {
        let (what, text) = match self {
            Self::Snapshot { label: Some(label) } => ("label", label),
            Self::Mark { text } => ("mark", text),
            Self::Snapshot { label: None } | Self::Pause | Self::Resume | Self::Status => return Ok(()),
        };
        if what == "label" && (Reference::is_reserved(text) || text.contains('@')) {
            return Err(format!(
                "`{text}` cannot be a label: REC@TEXT has start, end, peak and numbers for itself, and ends at the last @"
            ));
        }
        match text.len() {
            0 => Err(format!("an empty {what} says nothing")),
            1..=MAX_TEXT_BYTES => Ok(()),
            n => Err(format!("a {what} of {n} bytes is too long (at most {MAX_TEXT_BYTES})")),
        }
    }
}

impl fmt::Display for Answer {
    /// The line that the user reads.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Snapshot { number, current_bytes, current_count } => {
                write!(f, "snapshot {number}: {} in {} blocks", size(*current_bytes), grouped(*current_count))
            }
            Self::Marked => f.write_str("marked"),
            Self::Paused => f.write_str("paused"),
            Self::Resumed => f.write_str("resumed"),
            Self::Status(status) => status.fmt(f),
            Self::Refused { reason } => f.write_str(&escaped(reason)),
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { pid, comm, seconds, paused, current_bytes, current_count, n_snapshots } = self;
        write!(f, "pid {pid} ({}), ", escaped(comm))?;
        match seconds {
            None => f.write_str("not begun")?,
            Some(seconds) if *paused => write!(f, "paused, begun {seconds} s ago")?,
            Some(seconds) => write!(f, "traced for {seconds} s")?,
        }
        write!(f, ": {} in {} blocks", size(*current_bytes), grouped(*current_count))?;
        match n_snapshots {
            Some(1) => f.write_str(", 1 snapshot"),
            Some(n) => write!(f, ", {n} snapshots"),
            None if seconds.is_none() => Ok(()),
            None => f.write_str(", no recording"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_that_are_empty_or_too_long_are_refused() {
        let mark = |n: usize| Request::Mark { text: "x".repeat(n) }.check();
        assert!(mark(0).is_err() && mark(MAX_TEXT_BYTES + 1).is_err());
        assert!(mark(1).is_ok() && mark(MAX_TEXT_BYTES).is_ok());
        assert!(Request::Snapshot { label: Some(String::new()) }.check().is_err());
        assert!(Request::Snapshot { label: None }.check().is_ok());
    }

    #[test]
    fn a_label_hides_no_snapshot_and_can_be_asked_for() {
        let label = |text: &str| Request::Snapshot { label: Some(text.to_owned()) }.check();
        for bad in ["start", "end", "peak", "0", "12", "a@b"] {
            let why = label(bad).expect_err(bad);
            assert!(why.starts_with(&format!("`{bad}` cannot be a label")), "{why}");
        }
        assert!(["Peak", "at the end", "1st", "-1", "1.5"].into_iter().all(|text| label(text).is_ok()));
        assert!(Request::Mark { text: "peak".to_owned() }.check().is_ok());
    }

    #[test]
    fn a_session_that_has_not_begun_says_nothing_of_its_recording() {
        let status = |seconds, n_snapshots| {
            let comm = "server".to_owned();
            Status { pid: 1, comm, seconds, paused: false, current_bytes: 0, current_count: 0, n_snapshots }.to_string()
        };
        assert_eq!(status(None, None), "pid 1 (server), not begun: 0 B in 0 blocks");
        assert_eq!(status(Some(2), None), "pid 1 (server), traced for 2 s: 0 B in 0 blocks, no recording");
        assert!(status(Some(2), Some(1)).ends_with(", 1 snapshot"));
    }

    #[test]
    fn the_longest_text_fits_a_message_however_it_is_escaped() {
        let text = "\u{1}".repeat(MAX_TEXT_BYTES);
        let line = serde_json::to_string(&Request::Mark { text }).expect("plain data");
        assert!((line.len() as u64) < MAX_MESSAGE_BYTES, "{}", line.len());
    }

    #[test]
    fn what_is_no_request_is_refused() {
        let table = [
            "{}",
            "\"shutdown\"",
            "{\"pause\":{\"pid\":1}}",
            "{\"snapshot\":{\"label\":\"a\",\"pid\":1}}",
            "[]",
            "pause",
        ];
        for line in table {
            assert!(serde_json::from_str::<Request>(line).is_err(), "{line}");
        }
        let request: Request = serde_json::from_str("{\"snapshot\":{\"label\":\"a\"}}").expect("a request");
        assert_eq!(request, Request::Snapshot { label: Some("a".to_owned()) });
        assert_eq!(serde_json::from_str::<Request>("\"pause\"").expect("a request"), Request::Pause);
    }

    #[test]
    fn an_answer_cannot_break_out_of_its_line() {
        let refused = Answer::Refused { reason: "no\n\x1b[2J".to_owned() };
        assert!(!refused.to_string().contains(['\n', '\x1b']));
    }
}
