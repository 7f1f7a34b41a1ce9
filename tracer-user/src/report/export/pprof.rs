//! A profile of Go's pprof: gzipped protobuf with all figures of every stack. With a base, its stacks follow with negative
//! values under the label by which pprof knows the base of a difference.

use std::{
    collections::HashMap,
    io::{self, Write},
};

use flate2::{Compression, write::GzEncoder};
use prost::Message as _;

use super::{
    Source,
    proto::{Function, Label, Line, Location, Mapping, Profile, Sample, ValueType},
    text,
    walk::{ExportFrame, Walk, Walked},
};
use crate::{
    options::{Key, View},
    report::format::path_text,
    snapshot::{Home, Module, ModuleId, ModuleKind, Snapshot, Totals},
    symbolize::{Names, module_name},
};

/// A column of values: its name, unit, view, and where it comes from.
type Column = (&'static str, &'static str, fn(&Totals) -> u64);

/// Go's own heap profiles have the first four, in this order.
const COLUMNS: &[Column] = &[
    ("alloc_objects", "count", |totals| totals.allocated_count),
    ("alloc_space", "bytes", |totals| totals.allocated_bytes),
    ("inuse_objects", "count", |totals| totals.current_count),
    ("inuse_space", "bytes", |totals| totals.current_bytes),
    ("peak_objects", "count", |totals| totals.peak_count),
    ("peak_space", "bytes", |totals| totals.peak_bytes),
    ("freed_objects", "count", |totals| totals.freed_count),
    ("freed_space", "bytes", |totals| totals.freed_bytes),
];

/// Encodes and compresses the profile.
pub(super) fn write(source: &Source<'_>, out: &mut dyn Write) -> io::Result<()> {
    let bytes = profile(source).encode_to_vec();
    let mut gzip = GzEncoder::new(out, Compression::default());
    gzip.write_all(&bytes)?;
    gzip.finish().map(|_| ())
}

fn profile(source: &Source<'_>) -> Profile {
    let mut tables = Tables::default();
    // The string table begins with the empty string.
    tables.string("");
    for &(name, unit, _) in COLUMNS {
        let value_type = ValueType { r#type: tables.string(name), unit: tables.string(unit) };
        tables.profile.sample_type.push(value_type);
    }
    tables.profile.default_sample_type = tables.string(match source.options.view {
        View::Live => "inuse_space",
        View::Peak => "peak_space",
        View::Allocated => "alloc_space",
        View::Freed | View::Temporary => "freed_space",
    });
    tables.add(source.snapshot, source.names, false);
    if let Some(base) = source.base {
        tables.add(base.snapshot, base.names, true);
    }
    for comment in comments(source) {
        let comment = tables.string(&comment);
        tables.profile.comment.push(comment);
    }
    let nanos = |duration: std::time::Duration| i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX);
    tables.profile.duration_nanos = nanos(source.snapshot.duration);
    tables.profile.time_nanos = i64::try_from(source.recording.session.started_unix_ns)
        .unwrap_or(i64::MAX)
        .saturating_add(nanos(source.snapshot.duration));
    tables.profile
}

fn comments(source: &Source<'_>) -> Vec<String> {
    let command: Vec<String> = source.recording.session.command.iter().map(|word| text(word)).collect();
    let mut comments = vec![
        format!("memtrace-bpf {}: {}, {}", source.version, source.target(), source.moment()),
        source.figures(),
        source.losses(),
    ];
    if !command.is_empty() {
        comments.push(format!("command: {}", command.join(" ")));
    }
    comments.extend(source.snapshot.notes.iter().map(|note| text(note)));
    comments
}

/// The profile being made, and where its parts are.
#[derive(Default)]
struct Tables {
    profile: Profile,
    strings: HashMap<String, i64>,
    functions: HashMap<(i64, i64), u64>,
}

/// What one side's stacks share.
struct Side<'a> {
    snapshot: &'a Snapshot,
    walk: Walk<'a>,
    /// Location ids by address, and by root frame.
    of_address: Vec<u64>,
    of_root: HashMap<u32, u64>,
    /// Mapping ids by module and its mapping.
    mappings: HashMap<(ModuleId, Option<usize>), u64>,
}

impl Tables {
    fn string(&mut self, text: &str) -> i64 {
        if let Some(&known) = self.strings.get(text) {
            return known;
        }
        let next = self.profile.string_table.len() as i64;
        self.strings.insert(text.to_owned(), next);
        self.profile.string_table.push(text.to_owned());
        next
    }

    fn add<'a>(&mut self, snapshot: &'a Snapshot, names: &'a Names, is_base: bool) {
        let mut side = Side {
            snapshot,
            walk: Walk::new(snapshot, names),
            of_address: Vec::new(),
            of_root: HashMap::new(),
            mappings: HashMap::new(),
        };
        // pprof takes the first mapping for the program's.
        let exe = snapshot.target.exe.as_deref();
        if let Some(at) = snapshot.modules.iter().position(|module| Some(&*module.path) == exe) {
            let start = snapshot.modules[at].mappings.first().map_or(0, |range| range.start.0);
            self.mapping(&mut side, ModuleId(at as u32), start);
        }
        let mut walked = Walked::default();
        for stats in &snapshot.stacks {
            // Threads and processes are labels here, not frames.
            side.walk.stack(stats, Key::Lineno, &mut walked);
            for at in side.of_address.len()..side.walk.addresses.len() {
                let location = self.location(&mut side, at);
                side.of_address.push(location);
            }
            let mut location_id: Vec<u64> = walked.addresses.iter().rev().map(|&at| side.of_address[at]).collect();
            for &root in walked.roots.iter().rev() {
                let frame = &side.walk.frames[root as usize];
                let id = *side.of_root.entry(root).or_insert_with(|| self.root(frame));
                location_id.push(id);
            }
            let signed =
                |value: u64| i64::try_from(value).map_or(i64::MAX, |value| if is_base { -value } else { value });
            let value = COLUMNS.iter().map(|(_, _, figure)| signed(figure(&stats.totals))).collect();
            let mut label = Vec::new();
            if let Some(tid) = stats.stack.thread {
                let name = snapshot.threads.get(&tid).map_or_else(|| tid.to_string(), |name| text(name));
                label.push(Label { key: self.string("thread"), str: self.string(&name), num: 0 });
                label.push(Label { key: self.string("tid"), str: 0, num: i64::from(tid.0) });
            }
            if snapshot.is_of_many()
                && let Some(owner) = snapshot.owner(&stats.stack)
            {
                if owner.pid() != 0 {
                    label.push(Label { key: self.string("pid"), str: 0, num: i64::from(owner.pid()) });
                }
                let container = match owner.home() {
                    Home::Container(name) => Some(name),
                    Home::NotKnown | Home::Host => None,
                };
                let known = [("comm", Some(owner.command())), ("container", container), ("user", owner.user())];
                for (key, value) in known.into_iter().filter_map(|(key, value)| Some((key, value?))) {
                    label.push(Label { key: self.string(key), str: self.string(&text(value)), num: 0 });
                }
            }
            if is_base {
                label.push(Label { key: self.string("pprof::base"), str: self.string("true"), num: 0 });
            }
            self.profile.sample.push(Sample { location_id, value, label });
        }
    }

    fn location(&mut self, side: &mut Side<'_>, at: usize) -> u64 {
        let address = side.walk.addresses[at].clone();
        let mapping_id = address.location.map_or(0, |(module, _)| self.mapping(side, module, address.run_time.0));
        let frames = &side.walk.frames;
        let line = address.frames.iter().map(|&frame| self.line(&frames[frame as usize])).collect();
        if let Some(mapping) = (mapping_id as usize).checked_sub(1).map(|at| &mut self.profile.mapping[at]) {
            // What is known of every location; pprof looks the others up where it finds the file.
            let frames = || address.frames.iter().map(|&frame| &frames[frame as usize]);
            mapping.has_functions &= frames().all(|frame| frame.is_named);
            mapping.has_filenames &= frames().all(|frame| frame.file.is_some());
            mapping.has_line_numbers &= frames().all(|frame| frame.line.is_some());
            mapping.has_inline_frames &= mapping.has_functions;
        }
        let id = self.profile.location.len() as u64 + 1;
        self.profile.location.push(Location { id, mapping_id, address: address.run_time.0, line });
        id
    }

    fn root(&mut self, frame: &ExportFrame) -> u64 {
        let line = vec![self.line(frame)];
        let id = self.profile.location.len() as u64 + 1;
        self.profile.location.push(Location { id, mapping_id: 0, address: 0, line });
        id
    }

    fn line(&mut self, frame: &ExportFrame) -> Line {
        let name = self.string(&frame.function);
        let filename = frame.file.as_deref().map_or(0, |file| self.string(file));
        let next = self.profile.function.len() as u64 + 1;
        let function_id = *self.functions.entry((name, filename)).or_insert(next);
        if function_id == next {
            self.profile.function.push(Function { id: next, name, system_name: name, filename });
        }
        Line { function_id, line: frame.line.map_or(0, i64::from) }
    }

    /// The mapping of a module that holds an address; one without range where the module is mapped elsewhere by now.
    fn mapping(&mut self, side: &mut Side<'_>, id: ModuleId, address: u64) -> u64 {
        let Some(module) = side.snapshot.modules.get(id.0 as usize) else { return 0 };
        let range = module.mappings.iter().position(|range| (range.start.0..range.end.0).contains(&address));
        if let Some(&known) = side.mappings.get(&(id, range)) {
            return known;
        }
        let (memory_start, memory_limit, file_offset) = range.map_or((0, 0, 0), |at| {
            let range = &module.mappings[at];
            // Linkers keep offset and vaddr of code equal where they can; the offset itself is not kept.
            (range.start.0, range.end.0, range.vaddr(range.start).0)
        });
        let build_id = module.build_id.as_deref().map(hex).unwrap_or_default();
        let mapping = Mapping {
            id: self.profile.mapping.len() as u64 + 1,
            memory_start,
            memory_limit,
            file_offset,
            filename: self.string(&filename(module)),
            build_id: self.string(&build_id),
            has_functions: true,
            has_filenames: true,
            has_line_numbers: true,
            has_inline_frames: true,
        };
        self.profile.mapping.push(mapping);
        side.mappings.insert((id, range), mapping.id);
        mapping.id
    }
}

fn filename(module: &Module) -> String {
    match module.kind {
        ModuleKind::File => text(&path_text(&module.path)),
        ModuleKind::Vdso | ModuleKind::Generated => module_name(module),
    }
}

/// Bytes as hexadecimal digits.
pub(super) fn hex(bytes: &[u8]) -> String {
    let mut digits = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        let _infallible = std::fmt::Write::write_fmt(&mut digits, format_args!("{byte:02x}"));
    }
    digits
}
