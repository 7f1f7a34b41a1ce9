//! The JSON report, described field by field in docs/json.md. Key order is that of the structs.

use std::{borrow::Cow, io, time::Duration};

use serde::{Serialize, Serializer, ser::SerializeMap};
use tracer_common::counters::Counter;

use super::{
    format::{is_hazard, path_text},
    owner::scope_name,
    processes_json::{ProcessJson, processes},
};
use crate::{
    analysis::{
        processes::Moment,
        statistics::{Statistic, Statistics, module_of},
    },
    options::Key,
    snapshot::{Counters, Home, Module, ModuleKind, Overhead, Owner, Snapshot, StackStats, Tid, Totals},
    symbolize::{FrameName, Names, module_name},
};

/// Version of the form; raised when a field changes its meaning or goes.
pub const SCHEMA: u32 = 1;

/// The report in one line, with a newline at its end. All lines of `statistics` are in it, each with its full traceback.
pub fn render(snapshot: &Snapshot, statistics: &Statistics<'_>) -> String {
    render_since(snapshot, None, statistics)
}

/// The same; rates of many processes are those since an earlier moment, not since each joined.
pub fn render_since(snapshot: &Snapshot, earlier: Option<&Moment>, statistics: &Statistics<'_>) -> String {
    line(&report(snapshot, earlier, statistics))
}

/// Any of our reports in one line, safe to print.
pub(super) fn line(report: &impl Serialize) -> String {
    let mut out = Vec::new();
    let mut serializer = serde_json::Serializer::with_formatter(&mut out, SafeText);
    report.serialize(&mut serializer).expect("a Vec takes every byte, and every key is a string");
    out.push(b'\n');
    String::from_utf8(out).expect("JSON is UTF-8")
}

/// Escapes what serde_json leaves bare and a terminal would obey.
struct SafeText;

impl serde_json::ser::Formatter for SafeText {
    fn write_string_fragment<W: ?Sized + io::Write>(&mut self, writer: &mut W, fragment: &str) -> io::Result<()> {
        if fragment.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
            return writer.write_all(fragment.as_bytes());
        }
        let mut clean = 0;
        for (at, hazard) in fragment.char_indices().filter(|&(_, c)| is_hazard(c)) {
            writer.write_all(&fragment.as_bytes()[clean..at])?;
            for unit in hazard.encode_utf16(&mut [0; 2]) {
                write!(writer, "\\u{unit:04x}")?;
            }
            clean = at + hazard.len_utf8();
        }
        writer.write_all(&fragment.as_bytes()[clean..])
    }
}

#[derive(Serialize)]
struct Report<'a> {
    schema: u32,
    target: TargetJson<'a>,
    duration_ns: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    counted_until_ns: Option<u64>,
    key: &'static str,
    view: &'static str,
    cumulative: bool,
    domain: &'static str,
    totals: TotalsJson,
    mmap: Option<TotalsJson>,
    counters: CountersJson<'a>,
    overhead: OverheadJson,
    #[serde(skip_serializing_if = "Option::is_none")]
    processes: Option<Vec<ProcessJson<'a>>>,
    stats: Vec<StatJson<'a>>,
    notes: &'a [String],
}

#[derive(Serialize)]
pub(super) struct TargetJson<'a> {
    pid: u32,
    comm: &'a str,
    exe: Option<Cow<'a, str>>,
    running: bool,
    from_start: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    scope: Option<Cow<'a, str>>,
}

#[derive(Serialize)]
pub(super) struct TotalsJson {
    current_bytes: u64,
    current_count: u64,
    peak_bytes: u64,
    /// `null`: not known.
    peak_count: Option<u64>,
    allocated_bytes: u64,
    allocated_count: u64,
    freed_bytes: u64,
    freed_count: u64,
}

struct CountersJson<'a>(&'a Counters);

#[derive(Serialize)]
struct OverheadJson {
    hits: u64,
    hits_per_second: f64,
    estimated_share: Option<f64>,
    kernel_map_bytes: u64,
    rss_bytes: u64,
}

/// What a line stands for; what is finer than the key is null.
#[derive(Serialize)]
pub(super) struct KeyJson<'a> {
    domain: &'static str,
    file: Option<Cow<'a, str>>,
    line: Option<u32>,
    function: Option<&'a str>,
    module: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    thread: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    thread_name: Option<&'a str>,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    owner: Option<OwnerJson<'a>>,
}

/// Whose a line is; what is finer than the key, not known or not there is left out.
#[derive(Serialize)]
struct OwnerJson<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    pid: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    comm: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    container: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ended_ns: Option<u64>,
}

#[derive(Serialize)]
struct StatJson<'a> {
    #[serde(flatten)]
    key: KeyJson<'a>,
    size: u64,
    count: u64,
    average: Option<f64>,
    current_size: u64,
    current_count: u64,
    peak_size: u64,
    peak_count: u64,
    allocated_size: u64,
    allocated_count: u64,
    freed_size: u64,
    freed_count: u64,
    freed_within_1ms_count: Option<u64>,
    freed_within_1s_count: Option<u64>,
    stacks: usize,
    truncated: Option<&'static str>,
    traceback: Traceback<'a>,
}

/// Serialized frame by frame: all tracebacks at once would be the largest thing in memory.
pub(super) struct Traceback<'a> {
    pub(super) stack: &'a StackStats,
    pub(super) snapshot: &'a Snapshot,
    pub(super) names: &'a Names,
}

#[derive(Serialize)]
struct FrameJson<'a> {
    function: Option<&'a str>,
    file: Option<Cow<'a, str>>,
    line: Option<u32>,
    module: Option<Cow<'a, str>>,
    address: String,
    inlined: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    missing: Option<String>,
}

fn report<'a>(snapshot: &'a Snapshot, earlier: Option<&Moment>, statistics: &'a Statistics<'a>) -> Report<'a> {
    Report {
        schema: SCHEMA,
        target: TargetJson::new(snapshot),
        duration_ns: nanoseconds(snapshot.duration),
        counted_until_ns: snapshot.counted_until.map(nanoseconds),
        key: statistics.key.name(),
        view: statistics.view.name(),
        cumulative: statistics.cumulative,
        domain: statistics.domains.name(),
        totals: TotalsJson::from(&snapshot.totals),
        mmap: snapshot.mmap.as_ref().map(TotalsJson::from),
        counters: CountersJson(&snapshot.counters),
        overhead: OverheadJson::from(&snapshot.overhead),
        processes: processes(snapshot, earlier),
        stats: statistics.lines.iter().map(|line| StatJson::new(line, snapshot, statistics)).collect(),
        notes: &snapshot.notes,
    }
}

pub(super) fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

impl<'a> TargetJson<'a> {
    pub(super) fn new(snapshot: &'a Snapshot) -> Self {
        let target = &snapshot.target;
        let exe = target.exe.as_deref().map(path_text);
        let scope = snapshot.is_of_many().then(|| scope_name(snapshot));
        let from_start = snapshot.from_start;
        Self { pid: target.pid, comm: &target.comm, exe, running: target.running, from_start, scope }
    }
}

impl From<&Totals> for TotalsJson {
    fn from(totals: &Totals) -> Self {
        Self {
            current_bytes: totals.current_bytes,
            current_count: totals.current_count,
            peak_bytes: totals.peak_bytes,
            peak_count: totals.known_peak_count(),
            allocated_bytes: totals.allocated_bytes,
            allocated_count: totals.allocated_count,
            freed_bytes: totals.freed_bytes,
            freed_count: totals.freed_count,
        }
    }
}

impl Serialize for CountersJson<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(Counter::ALL.len()))?;
        for &counter in Counter::ALL {
            map.serialize_entry(counter.name(), &self.0.get(counter))?;
        }
        map.end()
    }
}

/// JSON has no infinities; serde_json would write null into a field that is a number.
pub(super) const fn finite(value: f64) -> f64 {
    if value.is_finite() { value } else { 0.0 }
}

impl From<&Overhead> for OverheadJson {
    fn from(overhead: &Overhead) -> Self {
        Self {
            hits: overhead.hits,
            hits_per_second: finite(overhead.hits_per_second),
            estimated_share: overhead.estimated_share.map(finite),
            kernel_map_bytes: overhead.kernel_map_bytes,
            rss_bytes: overhead.rss_bytes,
        }
    }
}

impl<'a> KeyJson<'a> {
    pub(super) fn new(line: &Statistic<'a>, snapshot: &'a Snapshot, key: Key) -> Self {
        let site = line.site.filter(|_| key.has_module());
        let name = site.map(|site| site.name);
        let thread: Option<Tid> = line.largest.stack.thread.filter(|_| key == Key::Thread);
        Self {
            domain: line.largest.stack.domain.name(),
            file: name.filter(|_| key.has_file()).and_then(|name| name.file.as_deref()).map(path_text),
            line: name.filter(|_| key.has_line()).and_then(|name| name.line),
            function: name.filter(|_| key.has_function()).and_then(function),
            module: site.and_then(|site| site.module(snapshot)).map(module_text),
            thread: thread.map(|thread| thread.0),
            thread_name: thread.and_then(|thread| snapshot.threads.get(&thread)).map(String::as_str),
            owner: key.is_owner().then(|| OwnerJson::new(line, snapshot, key)),
        }
    }
}

impl<'a> OwnerJson<'a> {
    fn new(line: &Statistic<'a>, snapshot: &'a Snapshot, key: Key) -> Self {
        let owner = snapshot.owner(&line.largest.stack);
        let by_process = key == Key::Process;
        let container = owner.and_then(|owner| match owner.home() {
            Home::Container(name) => Some(name),
            Home::NotKnown | Home::Host => None,
        });
        let ended = owner.and_then(Owner::ended).map(|(at, _)| nanoseconds(at));
        Self {
            pid: owner.filter(|_| by_process).map(Owner::pid).filter(|pid| *pid != 0),
            comm: owner.filter(|_| by_process || key == Key::Command).map(Owner::command),
            container: container.filter(|_| by_process || key == Key::Container),
            user: owner.filter(|_| by_process || key == Key::User).and_then(Owner::user),
            ended_ns: ended.filter(|_| by_process),
        }
    }
}

impl<'a> StatJson<'a> {
    fn new(line: &Statistic<'a>, snapshot: &'a Snapshot, statistics: &'a Statistics<'a>) -> Self {
        let totals = &line.totals;
        let (size, count) = (statistics.view.size(totals), statistics.view.count(totals));
        Self {
            key: KeyJson::new(line, snapshot, statistics.key),
            size,
            count,
            average: average(size, count),
            current_size: totals.current_bytes,
            current_count: totals.current_count,
            peak_size: totals.peak_bytes,
            peak_count: totals.peak_count,
            allocated_size: totals.allocated_bytes,
            allocated_count: totals.allocated_count,
            freed_size: totals.freed_bytes,
            freed_count: totals.freed_count,
            freed_within_1ms_count: statistics.lifetimes_known.then_some(totals.freed_within_1ms_count),
            freed_within_1s_count: statistics.lifetimes_known.then_some(totals.freed_within_1s_count),
            stacks: line.n_stacks,
            truncated: line.largest.stack.end.reason(),
            traceback: Traceback { stack: line.largest, snapshot, names: statistics.names },
        }
    }
}

/// Bytes a block; `None` where there is none.
pub(super) fn average(size: u64, count: u64) -> Option<f64> {
    (count > 0).then(|| size as f64 / count as f64)
}

fn function(name: &FrameName) -> Option<&str> {
    name.function.as_deref().ok()
}

/// A file's full path; what has none is called as in the text report.
fn module_text(module: &Module) -> Cow<'_, str> {
    match module.kind {
        ModuleKind::File => path_text(&module.path),
        ModuleKind::Vdso | ModuleKind::Generated => Cow::Owned(module_name(module)),
    }
}

impl Serialize for Traceback<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.stack.stack.frames.iter().flat_map(|frame| {
            let module = module_of(self.snapshot, frame.location.map(|(module, _)| module));
            self.names.of(frame).iter().map(move |name| FrameJson {
                function: function(name),
                file: name.file.as_deref().map(path_text),
                line: name.line,
                module: module.map(module_text),
                address: format!("{:#x}", frame.addr.raw()),
                inlined: name.inlined,
                missing: name.missing(),
            })
        }))
    }
}
