//! The command itself, on a recording in a file: each format by its name, and what it refuses.

use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

use tempfile::TempDir;
use tracer_user::{options::ReportOptions, report::export::Format};

use super::fixture;

fn run(dir: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_memtrace-bpf"))
        .arg("export")
        .args(arguments)
        .current_dir(dir)
        .output()
        .expect("the program was built for this test")
}

fn recorded() -> TempDir {
    let dir = TempDir::new().expect("a folder for tests");
    fixture::record(&dir.path().join("a.mtb"));
    dir
}

/// One line of complaint, exit status 2, and no file.
fn refused(dir: &Path, arguments: &[&str]) -> String {
    let output = run(dir, arguments);
    let stderr = String::from_utf8(output.stderr).expect("text");
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    assert!(output.stdout.is_empty());
    stderr
}

fn files(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(dir)
        .expect("a folder")
        .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

#[test]
fn every_format_is_written_by_its_name() {
    let dir = recorded();
    for format in Format::ALL {
        let output = run(dir.path(), &["a.mtb", "-f", format.name(), "-o", "out"]);
        assert!(output.status.success(), "{}: {}", format.name(), String::from_utf8_lossy(&output.stderr));
        assert!(output.stdout.is_empty());
        let written = fs::read(dir.path().join("out")).expect("written");
        let expected = fixture::export(&fixture::recording(), format, &ReportOptions::default(), false);
        assert_eq!(String::from_utf8_lossy(&written), String::from_utf8_lossy(&expected), "{}", format.name());
        let stdout = run(dir.path(), &["a.mtb@end", "-f", format.name(), "-o", "-"]);
        assert_eq!(stdout.stdout, expected, "{}", format.name());
        let told = String::from_utf8(stdout.stderr).expect("text");
        assert_eq!(told.contains("allocation counted without a stack"), !format.tells_losses(), "{told}");
    }
    assert_eq!(files(dir.path()), ["a.mtb", "out"]);
}

#[test]
fn an_option_that_makes_no_difference_is_refused() {
    let dir = recorded();
    let why =
        |option: &[&str], format: &str| refused(dir.path(), &[&["a.mtb", "-o", "out", "-f", format], option].concat());
    assert!(why(&["--top", "3"], "csv").contains("--top makes no difference to csv, but to markdown, heaptrack"));
    assert!(why(&["--min-size", "1K"], "folded").contains("--min-size makes no difference to folded"));
    assert!(why(&["--cumulative"], "flamegraph").contains("but to json, csv, markdown"));
    assert!(why(&["--key", "function"], "heaptrack").contains("--key makes no difference to heaptrack"));
    assert!(why(&["--include", "*.c"], "chrome-trace").contains("--include makes no difference to chrome-trace"));
    assert_eq!(files(dir.path()), ["a.mtb"]);
}

#[test]
fn snapshots_views_and_bases_are_selected() {
    let dir = recorded();
    let folded = |arguments: &[&str]| {
        let output = run(dir.path(), &[&["-f", "folded", "-o", "-", "--key", "function"], arguments].concat());
        String::from_utf8(output.stdout).expect("text")
    };
    assert!(folded(&["a.mtb@start"]).contains(";cache_add 123\n"));
    assert!(folded(&["a.mtb@warm"]).contains(";cache_add 492\n"));
    assert!(folded(&["a.mtb@warm", "--view", "allocated"]).contains(";cache_add 4000\n"));
    assert!(folded(&["a.mtb@peak"]).contains(";cache_add 1600\n"));
    assert!(folded(&["a.mtb", "--base", "a.mtb@start"]).contains(";cache_add 123 984\n"));
}

#[test]
fn filters_leave_stacks_out_of_every_format() {
    let dir = recorded();
    let filter = ["--function", "cache_*"];
    for format in Format::ALL.into_iter().filter(|format| !matches!(format, Format::Pprof | Format::ChromeTrace)) {
        let output = run(dir.path(), &[&["a.mtb", "-f", format.name(), "-o", "-"], &filter[..]].concat());
        let text = String::from_utf8(output.stdout).expect("text");
        assert!(text.contains("cache_add") && !text.contains("libfoo.so+0x1f30"), "{}: {text}", format.name());
    }
    let told = refused(dir.path(), &["a.mtb", "-f", "csv", "-o", "out", "--function", "nothing"]);
    assert!(told.contains("filters removed all 5 stacks"), "{told}");
    assert_eq!(files(dir.path()), ["a.mtb"]);
}

#[test]
fn a_recording_that_ends_early_is_exported_and_told_of() {
    let dir = recorded();
    let bytes = fs::read(dir.path().join("a.mtb")).expect("recorded");
    fs::write(dir.path().join("cut.mtb"), &bytes[..bytes.len() - 9]).expect("there is room");
    let output = run(dir.path(), &["cut.mtb", "-f", "markdown", "-o", "-"]);
    assert!(output.status.success());
    assert!(String::from_utf8(output.stderr).expect("text").contains("the tracer was killed"));
}

#[test]
fn a_file_is_replaced_as_a_whole_and_other_kinds_are_written_to() {
    let dir = recorded();
    let out = dir.path().join("out");
    fs::write(&out, "old").expect("there is room");
    assert!(run(dir.path(), &["a.mtb", "-f", "csv", "-o", "out"]).status.success());
    assert!(fs::read_to_string(&out).expect("written").starts_with("file,line,"));
    assert!(run(dir.path(), &["a.mtb", "-f", "pprof", "-o", "/dev/null"]).status.success());
    std::os::unix::fs::symlink("out", dir.path().join("link")).expect("there is room");
    assert!(run(dir.path(), &["a.mtb", "-f", "markdown", "-o", "link"]).status.success());
    assert!(fs::read_to_string(&out).expect("written").starts_with("### "));
    assert_eq!(files(dir.path()), ["a.mtb", "link", "out"]);
}

#[test]
fn an_output_that_cannot_be_written_is_told_before_the_recording_is_read() {
    let dir = recorded();
    // The recording is not there either: the output is what is told of.
    let told = refused(dir.path(), &["missing.mtb", "-f", "csv", "-o", "no/such/dir/out"]);
    let expected = "failed to write `no/such/dir/out`: No such file or directory (os error 2)\n";
    assert!(told.ends_with(expected), "{told}");
    assert!(refused(dir.path(), &["missing.mtb", "-f", "csv", "-o", "."]).contains("it is a directory"));
    let told = refused(dir.path(), &["a.mtb", "-f", "csv", "-o", "a.mtb"]);
    assert!(told.contains("it is the recording itself"), "{told}");
    let told = refused(dir.path(), &["missing.mtb", "-f", "csv", "-o", "out"]);
    assert!(told.contains("failed to open `missing.mtb`: "), "{told}");
    assert_eq!(files(dir.path()), ["a.mtb"], "nothing is left behind");
}

#[test]
fn what_makes_no_sense_is_one_line() {
    let dir = recorded();
    let told = refused(dir.path(), &["a.mtb@nope", "-f", "csv", "-o", "out"]);
    assert!(told.contains("no snapshot `nope` (known: 0 start, 1 \"warm\", 2 end, peak)"), "{told}");
    let told = refused(dir.path(), &["a.mtb", "-f", "csv", "-o", "out", "--base", "a.mtb@start"]);
    assert!(told.contains("it shows no differences (try folded, flamegraph, pprof, or `diff`)"), "{told}");
    let told = refused(dir.path(), &["a.mtb", "-f", "tarball", "-o", "out"]);
    assert!(told.contains("speedscope"), "the formats are listed: {told}");
    fs::write(dir.path().join("not.mtb"), "hello").expect("there is room");
    let told = refused(dir.path(), &["not.mtb", "-f", "csv", "-o", "out"]);
    assert!(told.contains("failed to open `not.mtb`: "), "{told}");
    assert_eq!(files(dir.path()), ["a.mtb", "not.mtb"]);
}

#[test]
fn binary_is_not_written_to_a_terminal() {
    let dir = recorded();
    // script(1) of util-linux runs the program on a terminal of its own.
    let command = format!("{} export a.mtb -f pprof -o -", env!("CARGO_BIN_EXE_memtrace-bpf"));
    let output = Command::new("script")
        .args(["-qec", &command, "/dev/null"])
        .current_dir(dir.path())
        .output()
        .expect("util-linux is everywhere");
    assert_eq!(output.status.code(), Some(2));
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(told.contains("standard output is a terminal (use -o FILE)"), "{told}");
}
