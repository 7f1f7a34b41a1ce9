//! The JSON report of the snapshot (docs/json.md), beside what the recording holds.

use std::io::{self, Write};

use serde::Serialize;

use super::{Source, text};
use crate::{
    analysis::statistics::statistics,
    recording::{Sample, SnapshotInfo, Which},
    report::{
        format::path_text,
        json::{self, TotalsJson},
    },
};

#[derive(Serialize)]
struct RecordingJson {
    version: String,
    host: String,
    started_unix_ns: u64,
    command: Vec<String>,
    pid: u32,
    comm: String,
    exe: Option<String>,
    from_start: bool,
    by_thread: bool,
    /// Index of the reported snapshot; null: the peak.
    snapshot: Option<usize>,
    snapshots: Vec<SnapshotJson>,
    series: Vec<SampleJson>,
    marks: Vec<MarkJson>,
    problems: Vec<String>,
}

#[derive(Serialize)]
struct SnapshotJson {
    index: usize,
    trigger: &'static str,
    label: Option<String>,
    unix_ns: u64,
    at_ns: u64,
    #[serde(flatten)]
    totals: TotalsJson,
}

#[derive(Serialize)]
struct SampleJson {
    at_ns: u64,
    current_bytes: u64,
    current_count: u64,
    peak_bytes: u64,
    allocated_bytes: u64,
    freed_bytes: u64,
    rss_bytes: Option<u64>,
    pss_bytes: Option<u64>,
    heap_size_bytes: Option<u64>,
    paused: bool,
}

#[derive(Serialize)]
struct MarkJson {
    at_ns: u64,
    text: String,
}

/// Writes two lines: the recording, and the report as `report --json` has it.
pub(super) fn write(source: &Source<'_>, out: &mut dyn Write) -> io::Result<()> {
    let recording = serde_json::to_string(&recording(source))?;
    let lines = statistics(source.snapshot, source.names, source.attribution, source.options);
    let report = json::render(source.snapshot, &lines);
    write!(out, "{{\"recording\":{recording},\n\"report\":{}}}\n", report.trim_end())
}

fn nanos(at: std::time::Duration) -> u64 {
    u64::try_from(at.as_nanos()).unwrap_or(u64::MAX)
}

fn recording(source: &Source<'_>) -> RecordingJson {
    let recording = source.recording;
    let session = &recording.session;
    RecordingJson {
        version: text(&session.version),
        host: text(&session.host),
        started_unix_ns: session.started_unix_ns,
        command: session.command.iter().map(|word| text(word)).collect(),
        pid: session.target.pid,
        comm: text(&session.target.comm),
        exe: session.target.exe.as_deref().map(|exe| text(&path_text(exe))),
        from_start: session.from_start,
        by_thread: session.by_thread,
        snapshot: match source.which {
            Which::Index(index) => Some(index),
            Which::Peak => None,
        },
        snapshots: recording.snapshots.iter().enumerate().map(|(index, info)| SnapshotJson::new(index, info)).collect(),
        series: recording.series.iter().map(SampleJson::from).collect(),
        marks: recording.marks.iter().map(|mark| MarkJson { at_ns: nanos(mark.at), text: text(&mark.text) }).collect(),
        problems: recording.problems.iter().map(|problem| text(problem)).collect(),
    }
}

impl SnapshotJson {
    fn new(index: usize, info: &SnapshotInfo) -> Self {
        Self {
            index,
            trigger: info.meta.trigger.name(),
            label: info.meta.label.as_deref().map(text),
            unix_ns: info.meta.unix_ns,
            at_ns: nanos(info.at),
            totals: TotalsJson::from(&info.totals),
        }
    }
}

impl From<&Sample> for SampleJson {
    fn from(sample: &Sample) -> Self {
        Self {
            at_ns: nanos(sample.at),
            current_bytes: sample.totals.current_bytes,
            current_count: sample.totals.current_count,
            peak_bytes: sample.totals.peak_bytes,
            allocated_bytes: sample.totals.allocated_bytes,
            freed_bytes: sample.totals.freed_bytes,
            rss_bytes: sample.rss_bytes,
            pss_bytes: sample.pss_bytes,
            heap_size_bytes: sample.heap_size_bytes,
            paused: sample.paused,
        }
    }
}
