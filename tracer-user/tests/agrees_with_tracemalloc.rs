//! The oracle is CPython's own `tracemalloc`: the same random traces, filters and keys are fed to it and to us, and both must
//! give the same lines in the same order with the same figures, as numbers and as text. Needs python3 (3.9 or newer).
//!
//! We deviate in one thing: in cumulative statistics recursion counts once here and every time there. The oracle is
//! given stacks without recursion then; ours is tested on its own below.

use std::{
    cell::RefCell,
    collections::HashMap,
    io::{BufRead as _, BufReader, Write as _},
    path::Path,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::Arc,
};

use proptest::{
    prelude::*,
    test_runner::{Config, TestRunner},
};
use serde::Deserialize;
use serde_json::json;
use tracer_common::addr::{FileVaddr, FrameAddr, UserAddr};
use tracer_user::{
    analysis::{
        diff::{Named, diff},
        filter::filtered,
        statistics::{Statistic, statistics},
    },
    options::{FileFilter, Filters, Key, ReportOptions, View},
    report::{
        diff::{Titles, render as render_diff},
        text,
    },
    snapshot::{Frame, Module, ModuleId, ModuleKind, Snapshot, Stack, StackId, StackStats, Totals},
    symbolize::{Attribution, FrameName, Names},
};

/// File and line.
type Position = (&'static str, u32);

/// One block: its size, and its frames, most recent first.
#[derive(Clone, Debug)]
struct Trace {
    size: u64,
    frames: Vec<Position>,
}

#[derive(Clone, Debug)]
struct Case {
    old: Vec<Trace>,
    new: Vec<Trace>,
    key: Key,
    cumulative: bool,
    view: View,
    filters: Filters,
    same_recording: bool,
}

/// Names of at most two components: there a path and its short form are the same. The order of bytes and that of code points
/// must agree, so that one is not ASCII.
const FILES: [&str; 7] = ["a.py", "lib/a.py", "lib/b.py", "lib-x/a.py", "é.c", "[x].py", "z b.c"];

fn any_trace() -> impl Strategy<Value = Trace> {
    // Few distinct values, so that equal lines, ties and recursion are frequent.
    let size = prop_oneof![4 => Just(8_u64), 2 => 0..4_u64, 2 => 90..120_u64, 1 => 0..1_u64 << 44];
    let frames = proptest::collection::vec((proptest::sample::select(&FILES[..]), 1..5_u32), 1..6);
    (size, frames).prop_map(|(size, frames)| Trace { size, frames })
}

fn any_pattern() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        2 => Just("*"), 1 => Just("?"), 1 => Just("[abl]"), 1 => Just("[!a]"), 1 => Just("[a-c]"), 1 => Just("["), 1 => Just("]"),
        1 => Just("[!"), 2 => Just("a"), 1 => Just(".py"), 1 => Just("lib"), 1 => Just("/"), 1 => Just("é"),
    ];
    prop_oneof![
        1 => proptest::sample::select(&FILES[..]).prop_map(str::to_owned),
        3 => proptest::collection::vec(piece, 1..5).prop_map(|pieces| pieces.concat()),
    ]
}

fn any_filters() -> impl Strategy<Value = Filters> {
    let filter = (any::<bool>(), any_pattern(), proptest::option::weighted(0.3, 1..5_u32))
        .prop_map(|(inclusive, pattern, lineno)| FileFilter { inclusive, pattern, lineno });
    (proptest::collection::vec(filter, 0..4), any::<bool>()).prop_map(|(files, all_frames)| Filters {
        files,
        all_frames,
        ..Filters::default()
    })
}

fn any_case() -> impl Strategy<Value = Case> {
    let traces = || proptest::collection::vec(any_trace(), 0..24);
    let grouping = prop_oneof![
        Just((Key::Lineno, false)),
        Just((Key::Filename, false)),
        Just((Key::Traceback, false)),
        Just((Key::Lineno, true)),
        Just((Key::Filename, true)),
    ];
    let view = proptest::sample::select(&[View::Live, View::Peak, View::Allocated, View::Freed][..]);
    (traces(), traces(), grouping, view, any_filters(), any::<bool>()).prop_map(
        |(old, new, (key, cumulative), view, filters, same_recording)| Case {
            old,
            new,
            key,
            cumulative,
            view,
            filters,
            same_recording,
        },
    )
}

// The oracle.

struct Oracle {
    child: Child,
    requests: ChildStdin,
    answers: BufReader<ChildStdout>,
}

#[derive(Deserialize)]
struct Answer {
    kept: u64,
    statistics: Vec<Line>,
    diff: Vec<Line>,
}

/// A line of a report: its frames, outermost first, its numbers, and how it is printed.
#[derive(Debug, Deserialize, PartialEq)]
struct Line {
    frames: Vec<(String, u32)>,
    numbers: Vec<i64>,
    text: String,
}

impl Oracle {
    fn start() -> Self {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tracemalloc_oracle.py");
        let mut child = Command::new("python3")
            .arg(script)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("python3 is on the PATH (`cargo xtask setup` installs it)");
        let requests = child.stdin.take().expect("piped");
        let answers = BufReader::new(child.stdout.take().expect("piped"));
        Self { child, requests, answers }
    }

    fn ask(&mut self, case: &Case) -> Answer {
        let traces =
            |traces: &[Trace]| traces.iter().map(|trace| json!([trace.size, trace.frames])).collect::<Vec<_>>();
        let filter = |filter: &FileFilter| json!({"inclusive": filter.inclusive, "pattern": filter.pattern, "lineno": filter.lineno});
        let request = json!({
            "old": traces(&case.old),
            "new": traces(&case.new),
            "key": match case.key {
                Key::Lineno => "lineno",
                Key::Filename => "filename",
                _ => "traceback",
            },
            "cumulative": case.cumulative,
            "filters": case.filters.files.iter().map(filter).collect::<Vec<_>>(),
            "all_frames": case.filters.all_frames,
        });
        writeln!(self.requests, "{request}").expect("the oracle reads");
        let mut line = String::new();
        self.answers.read_line(&mut line).expect("the oracle writes text");
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error} in the oracle's answer {line:?}"))
    }
}

impl Drop for Oracle {
    fn drop(&mut self) {
        self.child.kill().expect("the oracle is ours");
        self.child.wait().expect("the oracle is our child");
    }
}

// Ours.

/// Blocks → totals of stacks. Frames of every third line are inlined into the next frame, so that they share an address.
fn snapshot_of(traces: &[Trace], view: View, build: u8) -> (Snapshot, Names) {
    let mut names = Names::default();
    let mut vaddrs: HashMap<Vec<Position>, u64> = HashMap::new();
    let mut ids: HashMap<&[Position], usize> = HashMap::new();
    let mut stacks: Vec<StackStats> = Vec::new();
    for trace in traces {
        let at = *ids.entry(&trace.frames).or_insert_with(|| {
            let frames = trace.frames.split_inclusive(|&(_, line)| line % 3 != 0).map(|inlined| {
                let next = vaddrs.len() as u64;
                let vaddr = *vaddrs.entry(inlined.to_vec()).or_insert(next);
                if vaddr == next {
                    let name = |(at, &(file, line)): (usize, &Position)| FrameName {
                        function: Ok(format!("work_{line}").into()),
                        file: Some(Arc::from(Path::new(file))),
                        line: Some(line),
                        inlined: at + 1 < inlined.len(),
                    };
                    names.insert(ModuleId(0), FileVaddr(vaddr), inlined.iter().enumerate().map(name).collect());
                }
                Frame { addr: FrameAddr::Return(UserAddr(vaddr + 1)), location: Some((ModuleId(0), FileVaddr(vaddr))) }
            });
            let stack = Stack { frames: frames.collect(), ..Stack::default() };
            let id = StackId(stacks.len() as u32);
            stacks.push(StackStats { id, stack: Arc::new(stack), totals: Totals::default() });
            stacks.len() - 1
        });
        let (bytes, count) = figures(&mut stacks[at].totals, view);
        *bytes += trace.size;
        *count += 1;
    }
    let module = Module {
        kind: ModuleKind::File,
        path: "/opt/app".into(),
        open_path: "/opt/app".into(),
        deleted: false,
        build_id: Some(vec![build]),
        mappings: Vec::new(),
    };
    (Snapshot { stacks, modules: vec![Arc::new(module)], ..Snapshot::default() }, names)
}

/// File and line of what a line stands for: one frame, or all of a traceback's, outermost first.
fn frames_of(line: &Statistic<'_>, names: &Names, key: Key) -> Vec<(String, u32)> {
    let text = |name: &FrameName| name.file.as_deref().and_then(Path::to_str).expect("all have files").to_owned();
    let site = line.site.expect("all have frames").name;
    match key {
        Key::Filename => vec![(text(site), 0)],
        Key::Lineno => vec![(text(site), site.line.expect("all have lines"))],
        _ => {
            let stack = line.largest.stack.frames.iter().rev();
            let all = stack.flat_map(|frame| names.of(frame).iter().rev());
            all.map(|name| (text(name), name.line.expect("all have lines"))).collect()
        }
    }
}

/// The text of each line: what stands between its rank and its function, with a file's line 0 as tracemalloc has it.
fn lines_of(report: &str, key: Key) -> Vec<String> {
    let lines = report.lines().filter(|line| line.starts_with('#'));
    lines
        .map(|line| {
            let line = line.split_once(' ').expect("a rank").1;
            let line =
                line.split("     ").next().expect("a line").trim_end_matches(" (new)").trim_end_matches(" (vanished)");
            match key {
                Key::Filename => line.replacen(": size=", ":0: size=", 1),
                // tracemalloc calls a traceback by its oldest frame, we by its site.
                Key::Traceback => line[line.find("size=").expect("a size")..].to_owned(),
                _ => line.to_owned(),
            }
        })
        .collect()
}

fn expected_text(line: &Line, key: Key) -> String {
    let start = if key == Key::Traceback { line.text.find("size=").expect("a size") } else { 0 };
    line.text[start..].to_owned()
}

fn check(case: &Case, oracle: &mut Oracle) -> Result<(), TestCaseError> {
    let expected = oracle.ask(case);
    let options = ReportOptions {
        key: case.key,
        cumulative: case.cumulative,
        view: case.view,
        filters: case.filters.clone(),
        top: usize::MAX,
        ..ReportOptions::default()
    };
    let attribution = Attribution::new(&[], false).expect("no patterns");
    let (old, old_names) = snapshot_of(&case.old, case.view, 1);
    // Within one recording both have the same frames at the same addresses.
    let (new, new_names) = if case.same_recording {
        let mut both = case.old.clone();
        both.extend(case.new.iter().cloned());
        snapshot_of(&both, case.view, 1)
    } else {
        snapshot_of(&case.new, case.view, 2)
    };
    let (new, old_names) =
        if case.same_recording { (less(new, &old, case.view), new_names.clone()) } else { (new, old_names) };
    let old = filtered(&old, &old_names, &attribution, &options.filters);
    let new = filtered(&new, &new_names, &attribution, &options.filters);

    let found = statistics(&new.snapshot, &new_names, &attribution, &options);
    let count = |totals: &Totals| case.view.count(totals);
    let kept: u64 = new.snapshot.stacks.iter().map(|stack| count(&stack.totals)).sum();
    prop_assert_eq!(kept, expected.kept);
    let numbers = |line: &Statistic<'_>| vec![case.view.size(&line.totals) as i64, count(&line.totals) as i64];
    // Stacks of the older snapshot only are known here and not there.
    let lines = found.lines.iter().filter(|line| count(&line.totals) > 0);
    let ours: Vec<_> = lines.map(|line| (frames_of(line, &new_names, case.key), numbers(line))).collect();
    let theirs: Vec<_> = expected.statistics.iter().map(|line| (line.frames.clone(), line.numbers.clone())).collect();
    prop_assert_eq!(ours, theirs);
    let report = text::render(&new.snapshot, &found, &options, false);
    let theirs: Vec<_> = expected.statistics.iter().map(|line| expected_text(line, case.key)).collect();
    prop_assert_eq!(lines_of(&report, case.key), theirs);

    let old_named = Named { snapshot: &old.snapshot, names: &old_names };
    let new_named = Named { snapshot: &new.snapshot, names: &new_names };
    let found = diff(old_named, new_named, case.same_recording, &attribution, &options);
    let ours: Vec<_> = found
        .lines
        .iter()
        .map(|line| {
            let (latest, is_new) = line.latest();
            let names = if is_new { &new_names } else { &old_names };
            let numbers = [i128::from(line.size), line.size_diff, i128::from(line.count), line.count_diff];
            (frames_of(&latest, names, case.key), numbers.map(|number| number as i64).to_vec())
        })
        .collect();
    let theirs: Vec<_> = expected.diff.iter().map(|line| (line.frames.clone(), line.numbers.clone())).collect();
    prop_assert_eq!(ours, theirs);
    let report = render_diff(&found, Titles { old: "a", new: "b" }, &options);
    let theirs: Vec<_> = expected.diff.iter().map(|line| expected_text(line, case.key)).collect();
    prop_assert_eq!(lines_of(&report, case.key), theirs);
    Ok(())
}

/// Takes the blocks of `old` out of those of both, which leaves the stacks of both: a recording knows them all.
fn less(mut both: Snapshot, old: &Snapshot, view: View) -> Snapshot {
    for stack in &old.stacks {
        let (bytes, count) = figures(&mut both.stacks[stack.id.0 as usize].totals, view);
        *bytes -= view.size(&stack.totals);
        *count -= view.count(&stack.totals);
    }
    both
}

/// The bytes and the blocks that a view is about.
const fn figures(totals: &mut Totals, view: View) -> (&mut u64, &mut u64) {
    match view {
        View::Live => (&mut totals.current_bytes, &mut totals.current_count),
        View::Peak => (&mut totals.peak_bytes, &mut totals.peak_count),
        View::Allocated => (&mut totals.allocated_bytes, &mut totals.allocated_count),
        View::Freed | View::Temporary => (&mut totals.freed_bytes, &mut totals.freed_count),
    }
}

#[test]
fn statistics_filters_and_comparisons_are_those_of_tracemalloc() {
    let oracle = RefCell::new(Oracle::start());
    let mut runner = TestRunner::new(Config { cases: 500, ..Config::with_source_file(file!()) });
    let outcome = runner.run(&any_case(), |case| check(&case, &mut oracle.borrow_mut()));
    outcome.unwrap_or_else(|failure| panic!("{failure}"));
}

#[test]
fn docs_have_a_row_for_everything_that_tracemalloc_offers() {
    let docs = include_str!("../../docs/tracemalloc.md");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tracemalloc_names.py");
    let output = Command::new("python3").arg(script).output().expect("python3 is on the PATH");
    let names = String::from_utf8(output.stdout).expect("names are text");
    assert!(names.lines().count() > 30, "{names}");
    let rows: Vec<&str> = docs.lines().filter(|line| line.starts_with("| ")).collect();
    for name in names.lines() {
        let wanted = [format!("`{name}`"), format!("`{name}(")];
        let has_row = rows
            .iter()
            .any(|row| wanted.iter().any(|name| row[2..].split(" | ").next().is_some_and(|cell| cell.contains(name))));
        assert!(has_row, "docs/tracemalloc.md has no row for `{name}`");
    }
}

#[test]
fn recursion_counts_once_in_cumulative_statistics() {
    let traces = [
        Trace { size: 100, frames: vec![("a.py", 1), ("a.py", 2), ("a.py", 1), ("lib/b.py", 1)] },
        Trace { size: 10, frames: vec![("a.py", 2), ("lib/b.py", 1)] },
    ];
    let (snapshot, names) = snapshot_of(&traces, View::Live, 1);
    let attribution = Attribution::new(&[], false).expect("no patterns");
    let sizes = |key| {
        let options = ReportOptions { key, cumulative: true, ..ReportOptions::default() };
        let found = statistics(&snapshot, &names, &attribution, &options);
        let line = |line: &Statistic<'_>| (frames_of(line, &names, key).remove(0), line.totals.current_bytes);
        found.lines.iter().map(line).collect::<Vec<_>>()
    };
    let position = |file: &str, line| (file.to_owned(), line);
    let lines = [(position("lib/b.py", 1), 110), (position("a.py", 2), 110), (position("a.py", 1), 100)];
    assert_eq!(sizes(Key::Lineno), lines);
    assert_eq!(sizes(Key::Filename), [(position("lib/b.py", 0), 110), (position("a.py", 0), 110)]);
}
