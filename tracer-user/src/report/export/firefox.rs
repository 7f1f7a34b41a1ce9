//! A profile of the Firefox Profiler in its processed format, version 55, with a table of native allocations: its views of
//! retained, allocated and freed memory, a memory track, and the recording's snapshots and marks as markers. One thread for each
//! of the target's that is known, else one for all.

use std::{
    collections::{BTreeMap, HashMap},
    io::{self, Write},
    time::Duration,
};

use serde_json::{Value, json};

use super::{
    Source,
    allocations::{Event, events},
    chrome_trace::series,
    pprof::hex,
    text,
    walk::{Walk, Walked},
};
use crate::{
    options::Key,
    report::format::path_text,
    snapshot::{Module, ModuleId, ModuleKind, ProcessId, Tid},
    symbolize::module_name,
};

/// Versions up to the profiler's own are upgraded when a file is opened.
const PREPROCESSED_PROFILE_VERSION: u32 = 55;

/// Writes the profile, a thread at a time.
pub(super) fn write(source: &Source<'_>, out: &mut dyn Write) -> io::Result<()> {
    let mut of_thread: BTreeMap<(Option<ProcessId>, Option<Tid>), Vec<Event>> = BTreeMap::new();
    for event in events(source) {
        let stack = &source.snapshot.stacks[event.stack].stack;
        of_thread.entry((stack.process, stack.thread)).or_default().push(event);
    }
    if of_thread.is_empty() {
        of_thread.insert((None, None), Vec::new());
    }
    write!(out, "{{\"meta\":{},\n\"libs\":{},\n\"pages\":[],\"profilerOverhead\":[],\n", meta(source), libs(source))?;
    let first = of_thread.keys().next().and_then(|(process, _)| *process);
    write!(out, "\"counters\":[{}],\n\"threads\":[", counter(source, first))?;
    let mut earlier = None;
    for (at, ((process, tid), events)) in of_thread.iter().enumerate() {
        if at > 0 {
            out.write_all(b",\n")?;
        }
        serde_json::to_writer(
            &mut *out,
            &thread(source, (*process, *tid), events, First { of_all: at == 0, of_process: earlier != Some(*process) }),
        )?;
        earlier = Some(*process);
    }
    out.write_all(b"]}\n")
}

/// Milliseconds, the format's unit.
fn millis(at: Duration) -> f64 {
    at.as_nanos() as f64 / 1e6
}

fn meta(source: &Source<'_>) -> Value {
    json!({
        "categories": [{ "name": "Other", "color": "grey", "subcategories": ["Other"] }],
        "debug": false,
        "extensions": { "length": 0, "baseURL": [], "id": [], "name": [] },
        "interval": 1,
        "preprocessedProfileVersion": PREPROCESSED_PROFILE_VERSION,
        "processType": 0,
        "product": format!("{}, {}", source.target(), source.moment()),
        "importedFrom": format!("memtrace-bpf {}", source.version),
        "sampleUnits": { "time": "ms", "eventDelay": "ms", "threadCPUDelta": "µs" },
        "oscpu": text(&source.recording.session.host),
        "startTime": source.recording.session.started_unix_ns as f64 / 1e6,
        "symbolicated": true,
        "pausedRanges": [],
        "version": 24,
        "usesOnlyOneStackType": true,
        "sourceCodeIsNotOnSearchfox": true,
        "markerSchema": [{
            "name": "memtrace-bpf",
            "display": ["marker-chart", "marker-table", "timeline-overview"],
            "tooltipLabel": "{marker.data.name}",
            "tableLabel": "{marker.data.name}",
            "chartLabel": "{marker.data.name}",
            "fields": [{ "key": "name", "label": "What", "format": "string" }],
        }],
        // Shown under "Profile Info".
        "extra": [{
            "label": "memtrace-bpf",
            "entries": [
                { "label": "Figures", "format": "string", "value": source.figures() },
                { "label": "Losses", "format": "string", "value": source.losses() },
            ],
        }],
    })
}

fn path(module: &Module) -> String {
    match module.kind {
        ModuleKind::File => text(&path_text(&module.path)),
        ModuleKind::Vdso | ModuleKind::Generated => module_name(module),
    }
}

fn libs(source: &Source<'_>) -> Value {
    let lib = |module: &Module| {
        let (name, path) = (text(&module_name(module)), path(module));
        json!({
            "name": name, "debugName": name, "path": path, "debugPath": path, "arch": null,
            "breakpadId": breakpad_id(module.build_id.as_deref().unwrap_or_default()),
            "codeId": module.build_id.as_deref().map(hex),
        })
    };
    source.snapshot.modules.iter().map(|module| lib(module)).collect()
}

/// A build id in the form of symbol servers: its first 16 bytes as a little-endian GUID, then an age of 0.
fn breakpad_id(build_id: &[u8]) -> String {
    let mut guid = [0_u8; 16];
    let n_known = build_id.len().min(guid.len());
    guid[..n_known].copy_from_slice(&build_id[..n_known]);
    guid[..4].reverse();
    guid[4..6].reverse();
    guid[6..8].reverse();
    format!("{}0", hex(&guid).to_uppercase())
}

/// The track of the target's live bytes; the format wants differences.
fn counter(source: &Source<'_>, process: Option<ProcessId>) -> Value {
    let series = series(source.recording);
    let mut earlier = (0, 0);
    let (mut count, mut number) = (Vec::new(), Vec::new());
    for sample in &series {
        let totals = &sample.totals;
        let operations = totals.allocated_count.saturating_add(totals.freed_count);
        count.push(totals.current_bytes as f64 - earlier.0 as f64);
        number.push(operations.saturating_sub(earlier.1));
        earlier = (totals.current_bytes, operations);
    }
    let many = source.snapshot.is_of_many();
    let about = if many { "Live bytes of all processes" } else { "Live bytes of the traced process" };
    let time: Vec<f64> = series.iter().map(|sample| millis(sample.at)).collect();
    json!({
        "name": "malloc", "category": "Memory", "description": about,
        "pid": pid(source, process), "mainThreadIndex": 0,
        "samples": { "length": time.len(), "time": time, "count": count, "number": number },
    })
}

/// Texts of one thread, each once.
#[derive(Default)]
struct Strings {
    ids: HashMap<String, usize>,
    array: Vec<String>,
}

impl Strings {
    fn id(&mut self, text: &str) -> usize {
        if let Some(&known) = self.ids.get(text) {
            return known;
        }
        self.ids.insert(text.to_owned(), self.array.len());
        self.array.push(text.to_owned());
        self.array.len() - 1
    }
}

/// Frames, functions and stacks of one thread. Each struct is a table of columns of one length.
#[derive(Default)]
struct Tables {
    strings: Strings,
    stack_prefix: Vec<Option<usize>>,
    stack_frame: Vec<u32>,
    stack_ids: HashMap<(Option<usize>, u32), usize>,
    func_name: Vec<usize>,
    func_file: Vec<Option<usize>>,
    func_resource: Vec<i64>,
    func_ids: HashMap<(usize, Option<usize>, i64), usize>,
    frame_func: Vec<usize>,
    frame_line: Vec<Option<u32>>,
    frame_address: Vec<i64>,
    frame_depth: Vec<usize>,
    resource_lib: Vec<u32>,
    resource_name: Vec<usize>,
    resource_ids: HashMap<ModuleId, i64>,
}

impl Tables {
    /// Adds the frames that the walk has met since; their numbers are those of the walk.
    fn add_frames(&mut self, source: &Source<'_>, walk: &Walk<'_>) {
        for (at, frame) in walk.frames.iter().enumerate().skip(self.frame_func.len()) {
            let name = self.strings.id(&frame.function);
            let file = frame.file.as_deref().map(|file| self.strings.id(file));
            let resource = frame.module.map_or(-1, |id| self.resource(source, id));
            let next = self.func_name.len();
            let func = *self.func_ids.entry((name, file, resource)).or_insert(next);
            if func == next {
                self.func_name.push(name);
                self.func_file.push(file);
                self.func_resource.push(resource);
            }
            self.frame_func.push(func);
            self.frame_line.push(frame.line);
            let address = frame.address.map(|at| &walk.addresses[at]);
            let vaddr = address.and_then(|address| address.location).and_then(|(_, vaddr)| i64::try_from(vaddr.0).ok());
            self.frame_address.push(vaddr.unwrap_or(-1));
            // Of functions inlined at one address the outermost has depth 0; they lie side by side, innermost first.
            let last = address.and_then(|address| address.frames.last());
            self.frame_depth.push(last.map_or(0, |last| *last as usize - at));
        }
    }

    fn resource(&mut self, source: &Source<'_>, id: ModuleId) -> i64 {
        if let Some(&known) = self.resource_ids.get(&id) {
            return known;
        }
        let Some(module) = source.snapshot.modules.get(id.0 as usize) else { return -1 };
        let next = self.resource_lib.len() as i64;
        self.resource_lib.push(id.0);
        self.resource_name.push(self.strings.id(&text(&module_name(module))));
        self.resource_ids.insert(id, next);
        next
    }

    fn stack(&mut self, frames: impl Iterator<Item = u32>) -> Option<usize> {
        let mut prefix = None;
        for frame in frames {
            let next = self.stack_frame.len();
            let stack = *self.stack_ids.entry((prefix, frame)).or_insert(next);
            if stack == next {
                self.stack_prefix.push(prefix);
                self.stack_frame.push(frame);
            }
            prefix = Some(stack);
        }
        prefix
    }
}

/// Whether a thread is the first of all, and the first of its process.
#[derive(Clone, Copy)]
struct First {
    of_all: bool,
    of_process: bool,
}

/// A process's id: those of one pid are told apart by a suffix, as the format has it.
fn pid(source: &Source<'_>, process: Option<ProcessId>) -> String {
    let own = process.and_then(|id| Some((id, source.snapshot.processes.get(id.0 as usize)?)));
    own.map_or_else(|| source.snapshot.target.pid.to_string(), |(id, own)| format!("{}.{}", own.pid, id.0))
}

fn thread(
    source: &Source<'_>,
    (process, tid): (Option<ProcessId>, Option<Tid>),
    events: &[Event],
    first: First,
) -> Value {
    let mut tables = Tables::default();
    let mut walk = Walk::new(source.snapshot, source.names);
    let mut walked = Walked::default();
    let mut known: HashMap<usize, Option<usize>> = HashMap::new();
    let mut stacks = Vec::with_capacity(events.len());
    for event in events {
        let stack = *known.entry(event.stack).or_insert_with(|| {
            walk.stack(&source.snapshot.stacks[event.stack], Key::Lineno, &mut walked);
            tables.add_frames(source, &walk);
            tables.stack(walk.frames_of(&walked))
        });
        stacks.push(stack);
    }
    let allocations = json!({
        "length": events.len(), "weightType": "bytes", "stack": stacks,
        "time": events.iter().map(|event| millis(event.at)).collect::<Vec<_>>(),
        "weight": events.iter().map(|event| event.bytes).collect::<Vec<_>>(),
        "memoryAddress": events.iter().map(|event| event.address).collect::<Vec<_>>(),
        "threadId": vec![0; events.len()],
    });
    let markers =
        if first.of_all { markers(source, &mut tables.strings) } else { markers_of(&[], &mut tables.strings) };
    let own = process.and_then(|id| source.snapshot.processes.get(id.0 as usize));
    let name = match tid {
        Some(tid) => source.snapshot.threads.get(&tid).map_or_else(|| format!("thread {tid}"), |name| text(name)),
        None => "all threads".to_owned(),
    };
    let pid = pid(source, process);
    let process = own.map_or_else(|| source.target(), |own| text(&own.comm));
    let (n_frames, n_funcs, n_libs) = (tables.frame_func.len(), tables.func_name.len(), tables.resource_lib.len());
    let none = |n: usize| vec![Value::Null; n];
    json!({
        "name": name, "isMainThread": first.of_process, "processName": process, "processType": "default",
        "pid": pid, "tid": tid.map_or(pid.clone(), |tid| tid.to_string()),
        "processStartupTime": 0, "processShutdownTime": null, "registerTime": 0, "unregisterTime": null,
        "pausedRanges": [], "showMarkersInTimeline": first.of_all,
        "samples": {
            "length": 0, "stack": [], "time": [], "weight": null, "weightType": "samples", "threadCPUDelta": [],
        },
        "nativeAllocations": allocations,
        "markers": markers,
        "stackTable": { "length": tables.stack_frame.len(), "prefix": tables.stack_prefix, "frame": tables.stack_frame },
        "frameTable": {
            "length": n_frames, "address": tables.frame_address, "inlineDepth": tables.frame_depth,
            "category": vec![0; n_frames], "subcategory": vec![0; n_frames], "func": tables.frame_func,
            "nativeSymbol": none(n_frames), "innerWindowID": vec![0; n_frames],
            "line": tables.frame_line, "column": none(n_frames),
        },
        "funcTable": {
            "length": n_funcs, "name": tables.func_name, "isJS": vec![false; n_funcs],
            "relevantForJS": vec![false; n_funcs], "resource": tables.func_resource,
            "fileName": tables.func_file, "lineNumber": none(n_funcs), "columnNumber": none(n_funcs),
        },
        // Type 1: a library.
        "resourceTable": {
            "length": n_libs, "lib": tables.resource_lib, "name": tables.resource_name,
            "host": none(n_libs), "type": vec![1; n_libs],
        },
        "nativeSymbols": { "length": 0, "address": [], "functionSize": [], "libIndex": [], "name": [] },
        "stringArray": tables.strings.array,
    })
}

/// Snapshots and marks until the end of the recording.
fn markers(source: &Source<'_>, strings: &mut Strings) -> Value {
    let recording = source.recording;
    let mut marks: Vec<(Duration, String)> = recording.marks.iter().map(|mark| (mark.at, text(&mark.text))).collect();
    for (index, info) in recording.snapshots.iter().enumerate() {
        marks.push((info.at, format!("snapshot {index} {}", text(info.name()))));
    }
    marks.sort_by_key(|(at, _)| *at);
    markers_of(&marks, strings)
}

fn markers_of(marks: &[(Duration, String)], strings: &mut Strings) -> Value {
    let name = if marks.is_empty() { 0 } else { strings.id("memtrace-bpf") };
    let data = |mark: &str| json!({ "type": "memtrace-bpf", "name": mark });
    let n = marks.len();
    json!({
        "length": n, "category": vec![0; n], "name": vec![name; n],
        // Phase 0: an instant, which has no end.
        "phase": vec![0; n], "startTime": marks.iter().map(|(at, _)| millis(*at)).collect::<Vec<_>>(),
        "endTime": vec![Value::Null; n],
        "data": marks.iter().map(|(_, mark)| mark.as_str()).map(data).collect::<Vec<_>>(),
    })
}
