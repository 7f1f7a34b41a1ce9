//! Files that are no whole recording, through the binary: one line and exit status 2, or what is whole and a note.

use std::{
    ffi::OsStr,
    fs,
    path::Path,
    process::{Command, Output},
    sync::Arc,
};

use tempfile::TempDir;
use tracer_common::addr::{FrameAddr, UserAddr};
use tracer_user::{
    recording::{Recorder, SessionInfo, SnapshotMeta, Trigger},
    snapshot::{Frame, Snapshot, Stack, StackId, StackStats, Totals},
    symbolize::Names,
};

/// Runs `memtrace-bpf`.
pub fn run<S: AsRef<OsStr>>(arguments: &[S]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_memtrace-bpf")).args(arguments).output().expect("the binary was built")
}

/// The one line that a refused command says.
fn refusal<S: AsRef<OsStr>>(arguments: &[S]) -> String {
    let output = run(arguments);
    let text = String::from_utf8(output.stderr).expect("messages are UTF-8");
    assert_eq!(output.status.code(), Some(2), "{text}");
    assert_eq!(text.lines().count(), 1, "{text}");
    assert!(output.stdout.is_empty(), "something went to standard output");
    text.trim_end().to_owned()
}

/// Two snapshots of one stack, `start` and `after warm-up`.
fn record(path: &Path) {
    let frame = Frame { addr: FrameAddr::Return(UserAddr(0x1234)), location: None };
    let totals =
        Totals { current_bytes: 123, current_count: 1, allocated_bytes: 123, allocated_count: 1, ..Totals::default() };
    let stack = Arc::new(Stack { frames: vec![frame], ..Stack::default() });
    let snapshot =
        Snapshot { totals, stacks: vec![StackStats { id: StackId(1), stack, totals }], ..Snapshot::default() };
    let mut recorder = Recorder::create(path, &SessionInfo::default()).expect("a new file");
    recorder.snapshot(&snapshot, SnapshotMeta::default()).expect("there is room");
    let label = Some("after warm-up".to_owned());
    recorder.snapshot(&snapshot, SnapshotMeta { trigger: Trigger::Command, label, unix_ns: 0 }).expect("there is room");
    recorder.finish(&Names::default()).expect("there is room");
}

#[test]
fn what_is_no_recording_is_refused_in_one_line_by_every_command() {
    let dir = TempDir::new().expect("a folder for tests");
    let file = |name: &str, bytes: &[u8]| {
        let path = dir.path().join(name);
        fs::write(&path, bytes).expect("there is room");
        path
    };
    let whole = dir.path().join("whole.mtb");
    record(&whole);
    let whole = fs::read(&whole).expect("just written");
    let newer = {
        let mut bytes = whole.clone();
        bytes[8] = 7;
        let crc = crc32fast::hash(&bytes[..12]);
        bytes[12..16].copy_from_slice(&crc.to_le_bytes());
        bytes
    };
    let table = [
        (file("program", b"\x7fELF\x02\x01\x01 and more than a header"), "not a recording"),
        (file("empty", b""), "not a recording: it is empty"),
        (file("cut", &whole[..20]), "it ends before its first snapshot: nothing in it is whole"),
        (
            file("newer", &newer),
            "its format is version 7, this memtrace-bpf reads up to version 2 (use a newer memtrace-bpf)",
        ),
        (dir.path().to_owned(), "it is a directory"),
        (dir.path().join("missing"), "No such file or directory (os error 2)"),
        ("/dev/null".into(), "not a regular file"),
    ];
    for (path, why) in &table {
        let expected = format!("memtrace-bpf: failed to open `{}`: {why}", path.display());
        let debug_dir = dir.path().to_str().expect("an ASCII path");
        for (command, options) in [
            ("report", &[] as &[&str]),
            ("diff", &[]),
            ("check", &["--max-peak", "64MiB"]),
            ("resymbolize", &["--debug-dir", debug_dir]),
        ] {
            let mut arguments = vec![OsStr::new(command), path.as_os_str()];
            arguments.extend(options.iter().map(OsStr::new));
            assert_eq!(refusal(&arguments), expected, "{command}");
        }
    }
}

#[test]
fn an_unknown_snapshot_is_refused_with_those_that_are_known() {
    let dir = TempDir::new().expect("a folder for tests");
    let path = dir.path().join("a.mtb");
    record(&path);
    let line = refusal(&["report", &format!("{}@noon", path.display())]);
    assert!(line.contains("no snapshot `noon` (known: 0 start, 1 \"after warm-up\", peak)"), "{line}");
}

#[test]
fn a_recording_that_is_cut_reports_what_is_whole_and_says_so() {
    let dir = TempDir::new().expect("a folder for tests");
    let path = dir.path().join("a.mtb");
    record(&path);
    let bytes = fs::read(&path).expect("just written");
    // Within the second snapshot: before the two chunks of the end, names and none.
    let cut = bytes.len() - 100;
    fs::write(&path, &bytes[..cut]).expect("there is room");
    let output = run(&["report".as_ref(), path.as_os_str()]);
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(text.contains("current 123 B"), "{text}");
    assert!(text.contains("note: it ends in the middle of something at byte"), "{text}");
    assert!(text.contains("; 1 snapshot is whole"), "{text}");
}

#[test]
fn a_folder_of_debug_files_that_is_none_is_refused() {
    let dir = TempDir::new().expect("a folder for tests");
    let path = dir.path().join("a.mtb");
    record(&path);
    let missing = dir.path().join("missing");
    let line = refusal(&["resymbolize".as_ref(), path.as_os_str(), "--debug-dir".as_ref(), missing.as_os_str()]);
    assert_eq!(line, format!("memtrace-bpf: failed to read `{}`: not a directory", missing.display()));
}
