//! Programs that others wrote: `go tool pprof`, Chromium, Python's validator of JSON schemas.

use std::{
    collections::BTreeSet,
    fs,
    io::{Read as _, Write as _},
    path::Path,
    process::{Command, Stdio},
};

use quick_xml::{Reader, events::Event};
use tempfile::TempDir;
use tracer_user::{options::ReportOptions, options::View, report::export::Format};

use super::{
    fixture::{ALLOCATED_BYTES, LIVE_BYTES, LIVE_COUNT, PEAK_BYTES, export, recording, threaded},
    viewed,
};

/// Runs a program of the set-up; its standard output.
fn output(command: &mut Command) -> String {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| panic!("failed to run `{name}`: {error} (cargo xtask setup --what tests)"));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "`{name}` failed: {stderr}");
    String::from_utf8(output.stdout).expect("text")
}

pub fn gunzip(bytes: &[u8]) -> Vec<u8> {
    let mut plain = Vec::new();
    flate2::read::GzDecoder::new(bytes).read_to_end(&mut plain).expect("gzip");
    plain
}

pub fn pprof(dir: &Path, bytes: &[u8], arguments: &[&str]) -> String {
    let path = dir.join("profile.pb.gz");
    fs::write(&path, bytes).expect("there is room");
    let mut go = Command::new("go");
    go.args(["tool", "pprof", "-symbolize=none"]).args(arguments).arg(&path);
    output(go.env("PPROF_TMPDIR", dir).env("HOME", dir))
}

#[test]
fn pprof_counts_what_the_recording_counts() {
    let dir = TempDir::new().expect("a folder for tests");
    let bytes = export(&recording(), Format::Pprof, &ReportOptions::default(), false);
    for (index, unit, sum) in [
        ("inuse_space", "B", LIVE_BYTES),
        ("inuse_objects", "", LIVE_COUNT),
        ("alloc_space", "B", ALLOCATED_BYTES),
        ("peak_space", "B", PEAK_BYTES),
        ("freed_space", "B", ALLOCATED_BYTES - LIVE_BYTES),
    ] {
        let select = format!("-sample_index={index}");
        let unit_option = if unit.is_empty() { "-unit=auto" } else { "-unit=B" };
        let top = pprof(dir.path(), &bytes, &["-top", "-nodefraction=0", unit_option, &select]);
        assert!(top.contains(&format!("Type: {index}\n")), "{top}");
        assert!(top.contains(&format!("of {sum}{unit} total")), "{top}");
        assert!(top.contains("cache_add") && top.contains("libfoo.so+0x1f30"), "{top}");
        if !index.starts_with("freed") {
            assert!(top.contains("decode (inline)"), "{top}");
            assert!(top.contains("[truncated: no unwind information]") && top.contains("[stack not stored]"), "{top}");
        }
    }
    let by_default = pprof(dir.path(), &bytes, &["-top"]);
    assert!(by_default.contains("Type: inuse_space\n"), "{by_default}");
    let peak = export(&recording(), Format::Pprof, &viewed(View::Peak), false);
    assert!(pprof(dir.path(), &peak, &["-top"]).contains("Type: peak_space\n"));
    let comments = pprof(dir.path(), &bytes, &["-comments"]);
    assert!(comments.contains("allocation counted without a stack"), "{comments}");
}

#[test]
fn pprof_knows_lines_mappings_and_threads() {
    let dir = TempDir::new().expect("a folder for tests");
    let bytes = export(&recording(), Format::Pprof, &ReportOptions::default(), false);
    let raw = pprof(dir.path(), &bytes, &["-raw"]);
    for expected in [
        "Time: 2023-11-14 22:13:23",
        "Duration: 3s",
        "decode /home/u/src/image.c:101",
        "handle /home/u/src/main.c:88",
        "1: 0x7f0000001000/0x7f0000009000/0x1000 /srv/imgsrv aabbccddeeff1122334455667788990001020304",
    ] {
        assert!(raw.contains(expected), "`{expected}` is missing:\n{raw}");
    }
    let lines = pprof(dir.path(), &bytes, &["-top", "-lines"]);
    assert!(lines.contains("cache_add /home/u/src/cache.c:42"), "{lines}");

    let threads = export(&threaded(), Format::Pprof, &ReportOptions::default(), false);
    let tags = pprof(dir.path(), &threads, &["-tags", "-unit=B"]);
    assert!(tags.contains("worker") && tags.contains("thread:") && tags.contains("tid:"), "{tags}");
}

#[test]
fn pprof_shows_a_difference() {
    let dir = TempDir::new().expect("a folder for tests");
    let bytes = export(&recording(), Format::Pprof, &ReportOptions::default(), true);
    let top = pprof(dir.path(), &bytes, &["-top", "-unit=B"]);
    // Seven more blocks of 123 bytes in one stack; all others are as before.
    assert!(top.lines().any(|line| line.trim_start().starts_with("861B") && line.ends_with("cache_add")), "{top}");
    assert!(!top.contains("libfoo.so+0x1f30"), "{top}");
}

#[test]
fn speedscope_files_follow_the_published_schema() {
    let dir = TempDir::new().expect("a folder for tests");
    for (at, recording) in [recording(), threaded()].iter().enumerate() {
        let path = dir.path().join(format!("{at}.speedscope.json"));
        fs::write(&path, export(recording, Format::Speedscope, &ReportOptions::default(), false))
            .expect("there is room");
        assert_schema(&path);
    }
    let profile: serde_json::Value =
        serde_json::from_slice(&fs::read(dir.path().join("0.speedscope.json")).expect("written")).expect("JSON");
    let profiles = profile["profiles"].as_array().expect("a list");
    let sums: Vec<u64> = profiles.iter().map(|profile| profile["endValue"].as_u64().expect("a number")).collect();
    assert_eq!(sums, [LIVE_BYTES, PEAK_BYTES, ALLOCATED_BYTES, ALLOCATED_BYTES - LIVE_BYTES]);
    let n_frames = profile["shared"]["frames"].as_array().expect("a list").len() as u64;
    for profile in profiles {
        let samples = profile["samples"].as_array().expect("a list");
        let weights = profile["weights"].as_array().expect("a list");
        assert_eq!(samples.len(), weights.len());
        let sum: u64 = weights.iter().filter_map(serde_json::Value::as_u64).sum();
        assert_eq!(profile["endValue"], sum);
        let frames = samples.iter().flat_map(|sample| sample.as_array().expect("a list"));
        assert!(frames.clone().count() > 0 && frames.into_iter().all(|frame| frame.as_u64() < Some(n_frames)));
    }
}

/// Asks Python's jsonschema; Debian's interpreter is the one that its package serves.
pub fn assert_schema(path: &Path) {
    let schema = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/export/speedscope/file-format-schema.json");
    let script = "import json, sys, jsonschema\n\
                  jsonschema.Draft7Validator(json.load(open(sys.argv[1]))).validate(json.load(open(sys.argv[2])))";
    output(Command::new("/usr/bin/python3").args(["-c", script]).arg(schema).arg(path));
}

/// An XML parser finds a well-formed picture with no element or attribute but inferno's and ours; all texts of it.
pub fn assert_svg(svg: &[u8]) -> Vec<String> {
    const ELEMENTS: &[&str] =
        &["svg", "defs", "linearGradient", "stop", "style", "script", "text", "g", "title", "rect"];
    let mut reader = Reader::from_reader(svg);
    let mut seen = BTreeSet::new();
    let mut texts = Vec::new();
    let (mut open, mut n_scripts, mut text) = (0, 0, String::new());
    loop {
        match reader.read_event().expect("well-formed XML") {
            Event::Start(element) => {
                open += 1;
                text.clear();
                seen.insert(check_element(&element, &mut n_scripts));
            }
            Event::Empty(element) => drop(seen.insert(check_element(&element, &mut n_scripts))),
            Event::End(_) => {
                open -= 1;
                texts.push(std::mem::take(&mut text));
            }
            Event::Text(part) => text.push_str(&part.decode().expect("UTF-8")),
            Event::GeneralRef(part) => {
                let name = part.decode().expect("UTF-8");
                let resolved = match part.resolve_char_ref().expect("a reference") {
                    Some(c) => c.to_string(),
                    None => quick_xml::escape::resolve_predefined_entity(&name).expect("a known entity").to_owned(),
                };
                text.push_str(&resolved);
            }
            Event::Eof => break,
            _ => {}
        }
    }
    assert_eq!(open, 0);
    assert!(n_scripts <= 1, "{n_scripts} scripts");
    assert!(seen.iter().all(|element| ELEMENTS.contains(&element.as_str())), "{seen:?}");
    texts
}

fn check_element(element: &quick_xml::events::BytesStart<'_>, n_scripts: &mut usize) -> String {
    let name = String::from_utf8(element.name().as_ref().to_vec()).expect("UTF-8");
    *n_scripts += usize::from(name == "script");
    for attribute in element.attributes() {
        let attribute = attribute.expect("a name and a value");
        let key = String::from_utf8(attribute.key.as_ref().to_vec()).expect("UTF-8");
        // `onload` of the root starts inferno's script.
        assert!(!key.starts_with("on") || (name == "svg" && key == "onload"), "{name} {key}");
        assert!(!key.contains("href"), "{name} {key}");
    }
    name
}

#[test]
fn flame_graphs_are_well_formed_and_say_the_sums() {
    let texts = assert_svg(&export(&recording(), Format::Flamegraph, &ReportOptions::default(), false));
    let says = |expected: &str| texts.iter().any(|text| text.contains(expected));
    assert!(says("live bytes of imgsrv (pid 4711), snapshot 2 end, 3.0 s"), "{texts:?}");
    assert!(says("LOST: 1 allocation counted without a stack"), "{texts:?}");
    assert!(says("all (5,952 bytes, 100%)"), "{texts:?}");
    assert!(says("cache_add (src/cache.c:42) (984 bytes, 16.53%)"), "{texts:?}");

    let differs = assert_svg(&export(&recording(), Format::Flamegraph, &ReportOptions::default(), true));
    assert!(differs.iter().any(|text| text.contains("(984 bytes, 16.53%; +")), "{differs:?}");
}

#[test]
fn a_browser_draws_the_flame_graph() {
    let dir = TempDir::new().expect("a folder for tests");
    let dom = browse(dir.path(), &export(&recording(), Format::Flamegraph, &ReportOptions::default(), false));
    // inferno's script sets widths in the view's own units when it has run.
    assert!(dom.contains("cache_add (src/cache.c:42) (984 bytes, 16.53%)"), "{dom}");
    assert!(!dom.contains("parsererror"), "{dom}");
}

/// What Chromium makes of a picture, after its script has run.
pub fn browse(dir: &Path, svg: &[u8]) -> String {
    let path = dir.join("graph.svg");
    fs::File::create(&path).and_then(|mut file| file.write_all(svg)).expect("there is room");
    let mut chromium = Command::new("chromium");
    chromium
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"])
        .arg(format!("--user-data-dir={}", dir.join("profile").display()))
        .arg("--dump-dom")
        .arg(format!("file://{}", path.display()));
    output(chromium.env("HOME", dir))
}
