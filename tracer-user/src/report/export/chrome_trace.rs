//! Memory over time in the trace event format that Perfetto and chrome://tracing open: counters from the recording's series,
//! marks and snapshots as instants.

use std::{
    collections::{BTreeMap, HashMap},
    io::{self, Write},
    time::Duration,
};

use serde_json::{Value, json};

use super::{Source, text};
use crate::recording::{Recording, Sample};

/// Writes the events one a line, in the order of time.
pub(super) fn write(source: &Source<'_>, out: &mut dyn Write) -> io::Result<()> {
    // The totals of many processes are nobody's own.
    let pid = if source.snapshot.is_of_many() { 0 } else { source.recording.session.target.pid };
    let mut events = vec![json!({
        "ph": "M", "name": "process_name", "pid": pid, "tid": 0, "ts": 0, "args": { "name": source.target() },
    })];
    let mut timed = counters(source.recording, pid);
    if source.snapshot.is_of_many() {
        events.extend(names(source));
        timed.extend(processes(source.recording));
    }
    timed.extend(instants(source.recording, pid));
    timed.sort_by_key(|(at, _)| *at);
    events.extend(timed.into_iter().map(|(_, event)| event));

    write!(out, "{{\"displayTimeUnit\":\"ms\",\"otherData\":{},\n\"traceEvents\":[\n", about(source))?;
    let last = events.len() - 1;
    for (at, event) in events.iter().enumerate() {
        writeln!(out, "{event}{}", if at < last { "," } else { "" })?;
    }
    out.write_all(b"]}\n")
}

fn about(source: &Source<'_>) -> Value {
    json!({
        "exporter": format!("memtrace-bpf {}", source.version),
        "target": source.target(),
        "figures": source.figures(),
        "losses": source.losses(),
        "started_unix_ns": source.recording.session.started_unix_ns,
    })
}

/// Microseconds, the format's unit; a fraction is allowed.
fn micros(at: Duration) -> f64 {
    at.as_nanos() as f64 / 1000.0
}

fn counter(pid: u32, at: Duration, name: &str, args: &Value) -> (Duration, Value) {
    (at, json!({ "ph": "C", "name": name, "pid": pid, "tid": 0, "ts": micros(at), "args": args }))
}

fn counters(recording: &Recording, pid: u32) -> Vec<(Duration, Value)> {
    let mut events = Vec::new();
    let mut earlier: Option<Sample> = None;
    for sample in &series(recording) {
        let at = sample.at;
        let totals = &sample.totals;
        let mut put = |name, args: Value| events.push(counter(pid, at, name, &args));
        put("live bytes", json!({ "bytes": totals.current_bytes }));
        put("live blocks", json!({ "blocks": totals.current_count }));
        put("peak bytes", json!({ "bytes": totals.peak_bytes }));
        for (name, bytes) in [
            ("resident bytes (RSS)", sample.rss_bytes),
            ("resident bytes, shared divided (PSS)", sample.pss_bytes),
            ("heap mappings", sample.heap_size_bytes),
        ] {
            if let Some(bytes) = bytes {
                put(name, json!({ "bytes": bytes }));
            }
        }
        if let Some(earlier) = earlier {
            let seconds = at.saturating_sub(earlier.at).as_secs_f64();
            // Counters hold from their event on: a pause, in which nothing is seen, must not show the rate before it.
            let is_seen = !earlier.paused;
            let rate = |now: u64, then: u64| if is_seen { now.saturating_sub(then) as f64 / seconds } else { 0.0 };
            if seconds > 0.0 {
                let then = &earlier.totals;
                let args = json!({
                    "allocated": rate(totals.allocated_bytes, then.allocated_bytes),
                    "freed": rate(totals.freed_bytes, then.freed_bytes),
                });
                // What happened until a sample is the rate since the one before.
                events.push(counter(pid, earlier.at, "bytes per second", &args));
            }
        }
        earlier = Some(*sample);
    }
    events
}

/// What each process is called; the programs of one pid in their order.
fn names(source: &Source<'_>) -> Vec<Value> {
    let mut by_pid: BTreeMap<u32, Vec<(Duration, String)>> = BTreeMap::new();
    for (_, process) in source.snapshot.told().filter(|(_, process)| process.pid != 0) {
        let container = process.container.as_deref().map(|name| format!(", container {}", text(name)));
        let name = format!("{}{}", text(&process.comm), container.unwrap_or_default());
        by_pid.entry(process.pid).or_default().push((process.joined_at, name));
    }
    let name = |(pid, mut names): (u32, Vec<(Duration, String)>)| {
        names.sort();
        let names: Vec<String> = names.into_iter().map(|(_, name)| name).collect();
        json!({
            "ph": "M", "name": "process_name", "pid": pid, "tid": 0, "ts": 0, "args": { "name": names.join(" → ") },
        })
    };
    by_pid.into_iter().map(name).collect()
}

/// Live bytes of each process at the snapshots at which they changed; 0 from its end on.
fn processes(recording: &Recording) -> Vec<(Duration, Value)> {
    let mut events = Vec::new();
    let mut last: HashMap<(u32, Duration), u64> = HashMap::new();
    recording.each_processes(|index, processes| {
        for process in processes.iter().filter(|process| process.pid != 0) {
            let (at, bytes) = match process.ended {
                Some((at, _)) => (at, 0),
                None => (recording.snapshots[index].at, process.totals.current_bytes),
            };
            if last.insert((process.pid, process.joined_at), bytes) != Some(bytes) {
                events.push(counter(process.pid, at, "live bytes", &json!({ "bytes": bytes })));
            }
        }
    });
    events
}

/// The series; where there is none, the totals of the snapshots.
pub(super) fn series(recording: &Recording) -> Vec<Sample> {
    if !recording.series.is_empty() {
        return recording.series.clone();
    }
    let sample =
        |info: &crate::recording::SnapshotInfo| Sample { at: info.at, totals: info.totals, ..Sample::default() };
    recording.snapshots.iter().map(sample).collect()
}

fn instants(recording: &Recording, pid: u32) -> Vec<(Duration, Value)> {
    let instant = |at: Duration, name: String| {
        // Scope "p": drawn across the process.
        (at, json!({ "ph": "i", "s": "p", "name": name, "pid": pid, "tid": 0, "ts": micros(at) }))
    };
    let mut events: Vec<_> = recording.marks.iter().map(|mark| instant(mark.at, text(&mark.text))).collect();
    for (index, info) in recording.snapshots.iter().enumerate() {
        events.push(instant(info.at, format!("snapshot {index} {}", text(info.name()))));
    }
    // A session marks its pauses itself, at their very time.
    let is_marked = recording.marks.iter().any(|mark| mark.text == "paused");
    let mut paused = false;
    for sample in recording.series.iter().filter(|_| !is_marked) {
        if sample.paused != paused {
            paused = sample.paused;
            events.push(instant(sample.at, if paused { "tracing paused" } else { "tracing resumed" }.to_owned()));
        }
    }
    events
}
