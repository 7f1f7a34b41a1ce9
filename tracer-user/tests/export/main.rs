//! Exports are read by programs and libraries that others wrote, and must say there what the recording says.
//!
//! `UPDATE_EXPECT=1 cargo test` rewrites the golden files. The programs are set up by `cargo xtask setup --what tests`.

mod command;
mod firefox;
mod fixture;
mod hostile;
mod programs;

use std::{collections::BTreeMap, fs, path::Path, time::Duration};

use fixture::{ALLOCATED_BYTES, LIVE_BYTES, LIVE_COUNT, PEAK_BYTES, export, recording, text, threaded};
use serde_json::Value;
use tracer_common::abi::StackEnd;
use tracer_user::{
    options::{Key, ReportOptions, View},
    recording::{Builder, Mark, Recording, Sample, SessionInfo, SnapshotMeta},
    report::export::Format,
    symbolize::Names,
};

fn by(key: Key) -> ReportOptions {
    ReportOptions { key, ..ReportOptions::default() }
}

fn viewed(view: View) -> ReportOptions {
    ReportOptions { view, ..ReportOptions::default() }
}

fn check_golden(name: &str, actual: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/export").join(name);
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        fs::create_dir_all(path.parent().expect("a file in a folder")).expect("the sources are writable");
        fs::write(&path, actual).expect("the sources are writable");
    }
    let expected = fs::read_to_string(&path).expect("the golden file is there");
    assert_eq!(actual, expected, "{name} (UPDATE_EXPECT=1 rewrites it)");
}

#[test]
fn folded_stacks_and_their_differences() {
    let recording = recording();
    check_golden("folded.txt", &text(&recording, Format::Folded, &ReportOptions::default()));
    check_golden("folded_function.txt", &text(&recording, Format::Folded, &by(Key::Function)));
    check_golden("folded_module.txt", &text(&recording, Format::Folded, &by(Key::Module)));
    check_golden("folded_thread.txt", &text(&threaded(), Format::Folded, &by(Key::Thread)));
    let differs = export(&recording, Format::Folded, &by(Key::Function), true);
    check_golden("folded_difference.txt", &String::from_utf8(differs).expect("text"));
}

#[test]
fn inferno_reads_what_is_folded() {
    for (view, sum) in [(View::Live, LIVE_BYTES), (View::Peak, PEAK_BYTES), (View::Allocated, ALLOCATED_BYTES)] {
        let folded = export(&recording(), Format::Folded, &viewed(view), false);
        // As a differential of nothing and the stacks, inferno tells each stack's count.
        let mut read = Vec::new();
        let options = inferno::differential::Options::default();
        inferno::differential::from_readers(options, &b""[..], &folded[..], &mut read).expect("folded stacks");
        let read = String::from_utf8(read).expect("text");
        let counts = read.lines().map(|line| line.rsplit(' ').next().and_then(|count| count.parse::<u64>().ok()));
        assert_eq!(counts.collect::<Option<Vec<_>>>().expect("numbers").iter().sum::<u64>(), sum, "{view:?}");
        assert_eq!(read.lines().count(), 5);
    }
}

#[test]
fn a_trace_of_counters_marks_and_snapshots() {
    let trace = text(&recording(), Format::ChromeTrace, &ReportOptions::default());
    check_golden("chrome_trace.json", &trace);
    let trace: Value = serde_json::from_str(&trace).expect("JSON");
    let events = trace["traceEvents"].as_array().expect("a list");
    // The rules of the trace event format for the three phases used, and Perfetto's: in the order of time.
    let mut last = 0.0;
    for event in events {
        let (phase, at) = (event["ph"].as_str().expect("text"), event["ts"].as_f64().expect("a number"));
        assert!(at >= last && event["pid"].is_u64() && event["name"].is_string(), "{event}");
        last = at;
        match phase {
            "C" => {
                let series = event["args"].as_object().expect("series");
                assert!(!series.is_empty() && series.values().all(Value::is_number), "{event}");
            }
            "i" => assert_eq!(event["s"], "p", "{event}"),
            "M" => assert!(event["args"]["name"].is_string(), "{event}"),
            _ => panic!("no phase of ours: {event}"),
        }
    }
    let named = |name: &str| events.iter().filter(|event| event["name"] == name).count();
    assert_eq!((named("live bytes"), named("warm-up done"), named("snapshot 1 warm")), (4, 1, 1));
    assert_eq!((named("tracing paused"), named("tracing resumed")), (1, 1));
    // Four samples have three gaps; in the last nothing was seen.
    assert_eq!(named("bytes per second"), 3);
    let seen = events.iter().rfind(|event| event["name"] == "bytes per second").expect("counted above");
    assert_eq!(seen["args"]["allocated"], 0.0);
}

#[test]
fn a_pause_that_the_session_marked_is_one_instant() {
    let mut recording = recording();
    for (at, text) in [(1600, "paused"), (2500, "resumed")] {
        recording.marks.push(Mark { at: Duration::from_millis(at), text: text.into() });
    }
    let trace = text(&recording, Format::ChromeTrace, &ReportOptions::default());
    assert!(trace.contains("\"paused\"") && trace.contains("\"resumed\""), "{trace}");
    assert!(!trace.contains("tracing paused") && !trace.contains("tracing resumed"), "{trace}");
}

#[test]
fn the_json_report_stands_beside_the_recording() {
    let json: Value = serde_json::from_str(&text(&recording(), Format::Json, &ReportOptions::default())).expect("JSON");
    assert_eq!(json["recording"]["snapshots"][1]["label"], "warm");
    assert_eq!(json["recording"]["snapshot"], 2);
    assert_eq!(json["recording"]["marks"][0]["text"], "warm-up done");
    assert_eq!(json["recording"]["series"][2]["paused"], true);
    assert_eq!(json["report"]["totals"]["current_bytes"], LIVE_BYTES);
    assert_eq!(json["report"]["counters"]["stacks_full"], 1);
    let sizes = json["report"]["stats"].as_array().expect("lines").iter().map(|line| line["size"].as_u64());
    assert_eq!(sizes.sum::<Option<u64>>(), Some(LIVE_BYTES));
}

#[test]
fn rows_of_a_table_hold_all_figures() {
    let table = text(&recording(), Format::Csv, &ReportOptions::default());
    check_golden("table.csv", &table);
    let mut reader = csv::Reader::from_reader(table.as_bytes());
    let rows: Vec<BTreeMap<String, String>> = reader.deserialize().collect::<Result<_, _>>().expect("a table");
    let sum = |column: &str| rows.iter().map(|row| row[column].parse::<u64>().expect("a number")).sum::<u64>();
    assert_eq!((sum("size_bytes"), sum("count")), (LIVE_BYTES, LIVE_COUNT));
    assert_eq!((sum("peak_bytes"), sum("allocated_bytes")), (PEAK_BYTES, ALLOCATED_BYTES));
    assert_eq!(sum("freed_bytes"), ALLOCATED_BYTES - LIVE_BYTES);
}

#[test]
fn what_is_finer_than_the_key_is_in_no_row() {
    let row = |recording: &Recording, key: Key| {
        let table = text(recording, Format::Csv, &by(key));
        let mut reader = csv::Reader::from_reader(table.as_bytes());
        let first: BTreeMap<String, String> = reader.deserialize().next().expect("a row").expect("a table");
        let names = ["file", "line", "function", "module", "address"];
        let told: Vec<_> = names.into_iter().filter(|name| !first[*name].is_empty()).collect();
        (told.join(" "), first)
    };
    let recording = recording();
    assert_eq!(row(&recording, Key::Filename).0, "module");
    assert_eq!(row(&recording, Key::Module).0, "module");
    // What has no name is called by its address.
    assert_eq!(row(&recording, Key::Function).0, "module address");
    assert_eq!(row(&recording, Key::Traceback).0, "module address");
    let (told, thread) = row(&threaded(), Key::Thread);
    assert_eq!((told.as_str(), &*thread["thread"], &*thread["thread_name"]), ("", "101", ""));
    let table = |key| text(&threaded(), Format::Markdown, &by(key));
    assert!(table(Key::Thread).contains("| `thread 100 (worker)` |"), "{}", table(Key::Thread));
    assert!(table(Key::Filename).contains("| `src/cache.c` |"), "{}", table(Key::Filename));
    assert!(table(Key::Function).contains("| `cache_add src/cache.c (imgsrv)` |"), "{}", table(Key::Function));
    assert!(table(Key::Module).contains("| `imgsrv` |"), "{}", table(Key::Module));
}

#[test]
fn a_table_for_a_pull_request_has_no_rows_of_nothing() {
    let freed = fixture::stack(0, vec![], StackEnd::Root, fixture::totals((0, 0), (64, 1), (64, 1)));
    let freed = fixture::recording_of(Vec::new(), vec![freed], Names::default());
    let table = text(&freed, Format::Markdown, &ReportOptions::default());
    assert!(table.ends_with("|---:|---:|---:|---:|:---|\n"), "{table}");
    assert!(text(&freed, Format::Markdown, &viewed(View::Peak)).contains("| 64 B |"));
}

#[test]
fn averages_are_those_of_the_report() {
    let stacks = vec![fixture::stack(0, vec![], StackEnd::Root, fixture::totals((5555, 2), (5555, 2), (5555, 2)))];
    let odd = fixture::recording_of(Vec::new(), stacks, Names::default());
    assert!(text(&odd, Format::Csv, &ReportOptions::default()).contains(",5555,2,2777.5,"));
    assert!(text(&odd, Format::Markdown, &ReportOptions::default()).contains("| 5555 B | 100 % | 2 | 2778 B |"));
}

#[test]
fn a_table_for_a_pull_request() {
    let options = ReportOptions { top: 3, ..ReportOptions::default() };
    check_golden("table.md", &text(&recording(), Format::Markdown, &options));
}

#[test]
fn a_summary_in_heaptracks_shape() {
    let options = ReportOptions { top: 2, depth: 3, ..ReportOptions::default() };
    check_golden("heaptrack.txt", &text(&recording(), Format::Heaptrack, &options));
}

#[test]
fn resident_memory_of_before_the_peak_is_not_called_its_peak() {
    let sampled_at = |seconds| {
        let stack = fixture::stack(0, vec![], StackEnd::Root, fixture::totals((64, 1), (64, 1), (64, 1)));
        let mut snapshot = fixture::snapshot(Duration::from_secs(9), Vec::new(), vec![stack]);
        snapshot.peak_at = Some(Duration::from_secs(5));
        let mut builder = Builder::new(SessionInfo::default());
        builder.snapshot(&snapshot, SnapshotMeta::default());
        for at in [0, seconds].map(Duration::from_secs) {
            builder.sample(Sample { at, rss_bytes: Some(28 << 10), ..Sample::default() });
        }
        text(&builder.finish(Names::default()), Format::Heaptrack, &ReportOptions::default())
    };
    assert!(!sampled_at(4).contains("RSS"), "{}", sampled_at(4));
    assert!(sampled_at(5).contains("peak RSS of the target: 28.0 KiB (highest of 2 samples)"), "{}", sampled_at(5));
}

#[test]
fn every_format_with_room_tells_what_was_lost() {
    for format in Format::ALL.into_iter().filter(|format| format.tells_losses()) {
        let bytes = export(&recording(), format, &ReportOptions::default(), false);
        let plain = if format == Format::Pprof { programs::gunzip(&bytes) } else { bytes };
        let text = String::from_utf8_lossy(&plain);
        let is_told = text.contains("allocation counted without a stack") || text.contains("\"stacks_full\":1");
        assert!(is_told, "{}", format.name());
    }
}

#[test]
fn a_recording_without_stacks_is_exported_as_such() {
    let empty = fixture::recording_of(Vec::new(), Vec::new(), Names::default());
    for format in Format::ALL {
        let bytes = export(&empty, format, &ReportOptions::default(), false);
        assert_eq!(bytes.is_empty(), format == Format::Folded, "{}", format.name());
    }
    programs::assert_svg(&export(&empty, Format::Flamegraph, &ReportOptions::default(), false));
}
