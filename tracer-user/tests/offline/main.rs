//! `report` and `diff` on recordings, by the program itself: golden files for their form, one line for whatever is wrong.
//!
//! `UPDATE_EXPECT=1 cargo test` rewrites the golden files.

mod sessions;

use std::{
    path::Path,
    process::{Command, Output},
};

use sessions::{record_build, record_imgsrv, record_other, record_rebuilt, record_run};
use tempfile::TempDir;
use tracer_user::recording::Trigger;

/// A folder with the recordings: `a.mtb`, `b.mtb` of another build of the same program, `other.mtb` of another program.
fn folder() -> TempDir {
    let dir = TempDir::new().expect("a folder for tests");
    record_imgsrv(&dir.path().join("a.mtb"));
    record_rebuilt(&dir.path().join("b.mtb"));
    record_other(&dir.path().join("other.mtb"));
    dir
}

fn run(dir: &TempDir, args: &str) -> Output {
    Command::new(env!("CARGO_BIN_EXE_memtrace-bpf"))
        .args(args.split_whitespace())
        .current_dir(dir)
        .output()
        .expect("the program was built")
}

#[track_caller]
fn text_of(dir: &TempDir, args: &str) -> String {
    let output = run(dir, args);
    assert_eq!(String::from_utf8_lossy(&output.stderr), "", "{args}");
    assert_eq!(output.status.code(), Some(0), "{args}");
    String::from_utf8(output.stdout).expect("reports are text")
}

/// The one line of what is wrong.
#[track_caller]
fn complaint(dir: &TempDir, args: &str) -> String {
    let output = run(dir, args);
    assert_eq!(output.status.code(), Some(2), "{args}: {output:?}");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "", "{args}");
    let line = String::from_utf8(output.stderr).expect("complaints are text");
    assert_eq!(line.lines().count(), 1, "{line}");
    line.strip_prefix("memtrace-bpf: ").expect("the program names itself").trim_end().to_owned()
}

#[track_caller]
fn expect_golden(file: &str, found: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/offline").join(file);
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        std::fs::write(&path, found).expect("the golden folder can be written");
        return;
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(expected == found, "{file} differs (UPDATE_EXPECT=1 rewrites it); found:\n{found}\nexpected:\n{expected}");
}

#[test]
fn a_report_is_about_the_last_snapshot_or_the_one_named() {
    let dir = folder();
    expect_golden("report.txt", &text_of(&dir, "report a.mtb"));
    assert_eq!(text_of(&dir, "report a.mtb@end"), text_of(&dir, "report a.mtb"));
    assert_eq!(text_of(&dir, "report a.mtb@warm"), text_of(&dir, "report a.mtb@1"));
    expect_golden("report_peak.txt", &text_of(&dir, "report a.mtb@peak"));
}

#[test]
fn what_is_not_known_of_the_peak_is_said_to_be_of_the_end() {
    let dir = folder();
    let text = text_of(&dir, "report a.mtb@peak --view allocated");
    let by = "size and count: ever allocated, by 70.0 s (only what is live is known at the peak)";
    assert!(text.lines().any(|line| line == by), "{text}");
    assert!(!text_of(&dir, "report a.mtb --view allocated").contains("by 70.0 s"));
    let json: serde_json::Value = serde_json::from_str(&text_of(&dir, "report a.mtb@peak --json -")).expect("JSON");
    assert_eq!(
        (&json["duration_ns"], &json["counted_until_ns"]),
        (&35_000_000_000_u64.into(), &70_000_000_000_u64.into())
    );
}

#[test]
fn a_verdict_is_on_a_moment_at_which_the_program_ran() {
    let dir = TempDir::new().expect("a folder for tests");
    record_run(&dir.path().join("early.mtb"), &[Trigger::Start]);
    assert_eq!(
        complaint(&dir, "verdict early.mtb"),
        "failed to judge `early.mtb`: the program had ended, and of the snapshots before only the start has its memory, from before it \
         ran (record with --snapshot-every)"
    );
    assert!(text_of(&dir, "verdict early.mtb@start").starts_with("verdict on early.mtb @0 (start)"));
    record_run(&dir.path().join("later.mtb"), &[Trigger::Start, Trigger::Interval]);
    let text = text_of(&dir, "verdict later.mtb");
    let note = "note: the target's memory could not be read at the end: this is the last snapshot that has it";
    assert_eq!(text.lines().nth(1), Some(note));
    assert!(text.starts_with("verdict on later.mtb @1 (interval)"), "{text}");
    assert!(!text_of(&dir, "verdict later.mtb@1").contains("note:"));
}

#[test]
fn snapshots_are_listed_with_what_they_can_be_called_by() {
    expect_golden("list.txt", &text_of(&folder(), "report a.mtb --list"));
}

#[test]
fn each_view_says_what_its_figures_are() {
    let dir = folder();
    for view in ["peak", "allocated", "freed", "temporary"] {
        expect_golden(&format!("view_{view}.txt"), &text_of(&dir, &format!("report a.mtb --view {view}")));
    }
}

#[test]
fn a_cumulative_report_counts_every_frame_and_says_so() {
    let dir = folder();
    expect_golden("cumulative.txt", &text_of(&dir, "report a.mtb --cumulative"));
    expect_golden("cumulative_module.txt", &text_of(&dir, "report a.mtb --cumulative --key module --top 1"));
}

#[test]
fn threads_are_lines_where_they_were_kept_apart() {
    let dir = folder();
    expect_golden("thread.txt", &text_of(&dir, "report b.mtb --key thread"));
    let json = text_of(&dir, "report b.mtb --key thread --json -");
    let parsed: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    let worker = &parsed["stats"][1];
    assert_eq!((&worker["thread"], &worker["thread_name"]), (&4712.into(), &"worker".into()));
    assert_eq!((&worker["file"], &worker["module"]), (&serde_json::Value::Null, &serde_json::Value::Null));
    let complaint = complaint(&dir, "report a.mtb --key thread");
    assert_eq!(complaint, "failed to group by thread: threads are not known: recorded without --by-thread");
}

#[test]
fn filters_say_how_much_they_removed() {
    let dir = folder();
    expect_golden("filtered.txt", &text_of(&dir, "report a.mtb --exclude src/image.c --exclude */cache.c:43"));
    expect_golden("own_code.txt", &text_of(&dir, "report a.mtb --own-code"));
    let lines = |args: &str| {
        let text = text_of(&dir, &format!("report a.mtb {args}"));
        let lines = text.lines().filter(|line| line.starts_with('#'));
        lines.map(|line| line.split(": size=").next().expect("a label")[3..].to_owned()).collect::<Vec<_>>()
    };
    // What a report prints can be pasted into a filter; the whole path works as well.
    assert_eq!(lines("--include src/cache.c:42"), ["src/cache.c:42"]);
    assert_eq!(lines("--include /home/u/imgsrv/src/cache.c"), ["src/cache.c:42"]);
    assert_eq!(lines("--include src/main.c --all-frames").len(), 4);
    assert_eq!(lines("--function cache_*"), ["src/cache.c:42"]);
    assert_eq!(lines("--function Pool::grow"), ["src/pool.cc:7"]);
    assert_eq!(lines("--module libcurl*"), ["libcurl.so.4+0x500 (no line info)"]);
    // A frame without source file stands under its module's path.
    assert_eq!(lines("--include */libcurl.so.4"), ["libcurl.so.4+0x500 (no line info)"]);
    assert_eq!(lines("--max-size 1M --min-count 2"), ["src/pool.cc:7", "src/image.c:101"]);
}

#[test]
fn a_comparison_has_the_form_of_tracemalloc() {
    let dir = folder();
    expect_golden("diff.txt", &text_of(&dir, "diff a.mtb"));
    assert_eq!(text_of(&dir, "diff a.mtb@start a.mtb@end"), text_of(&dir, "diff a.mtb"));
    expect_golden("diff_warm.txt", &text_of(&dir, "diff a.mtb@warm"));
    expect_golden("diff_cumulative.txt", &text_of(&dir, "diff a.mtb@warm --cumulative --key function"));
    expect_golden("diff_peak.txt", &text_of(&dir, "diff a.mtb --sort peak --top 2"));
}

#[test]
fn two_builds_of_a_program_compare() {
    let dir = folder();
    expect_golden("diff_builds.txt", &text_of(&dir, "diff a.mtb b.mtb"));
    for key in ["filename", "function", "module", "traceback"] {
        expect_golden(&format!("diff_builds_{key}.txt"), &text_of(&dir, &format!("diff a.mtb b.mtb --key {key}")));
    }
    expect_golden("diff_filtered.txt", &text_of(&dir, "diff a.mtb b.mtb --exclude src/cache.c --min-size 1K"));
    expect_golden("diff.json", &text_of(&dir, "diff a.mtb b.mtb --json - --min-size 1M"));
}

#[test]
fn a_line_of_another_function_is_another_line() {
    let dir = TempDir::new().expect("a folder for tests");
    record_build(&dir.path().join("old.mtb"), "/home/u/old/src", 8);
    record_build(&dir.path().join("new.mtb"), "/home/u/new/src", 9);
    let lines = |key: &str| -> Vec<String> {
        let text = text_of(&dir, &format!("diff old.mtb new.mtb --key {key}"));
        let lines = text.lines().filter(|line| line.starts_with('#'));
        lines.map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
    };
    assert_eq!(
        lines("lineno"),
        [
            "#1 src/one.c:9: size=244 KiB (+244 KiB), count=10 (+10), average=24.4 KiB fill (new)",
            "#2 src/one.c:8: size=0 B (-244 KiB), count=0 (-10) fill (vanished)",
            "#3 src/one.c:10: size=500 B (+500 B), count=1 (+1), average=500 B leak (new)",
            "#4 src/one.c:9: size=0 B (-500 B), count=0 (-1) leak (vanished)",
        ]
    );
    // A build in another folder is the same program.
    assert_eq!(lines("filename"), ["#1 src/one.c: size=245 KiB (+0 B), count=11 (+0), average=22.2 KiB"]);
    assert_eq!(lines("function").len(), 2);
    record_build(&dir.path().join("moved.mtb"), "/home/u/moved/src", 8);
    for key in ["lineno", "function", "traceback"] {
        let text = text_of(&dir, &format!("diff old.mtb moved.mtb --key {key}"));
        assert!(!text.contains("(new)") && text.contains("#2 "), "{key}: {text}");
    }
}

#[test]
fn a_comparison_with_itself_finds_no_difference() {
    let dir = folder();
    let text = text_of(&dir, "diff a.mtb@end a.mtb@end");
    let lines: Vec<&str> = text.lines().filter(|line| line.starts_with('#')).collect();
    assert_eq!(lines.len(), 5);
    assert!(lines.iter().all(|line| line.contains("(+0 B)") && line.contains("(+0)")), "{text}");
}

#[test]
fn json_stands_beside_the_text_or_in_its_place() {
    let dir = folder();
    let beside = text_of(&dir, "diff a.mtb --json out.json");
    assert_eq!(beside, text_of(&dir, "diff a.mtb"));
    let json = std::fs::read_to_string(dir.path().join("out.json")).expect("written beside the text");
    assert_eq!(json, text_of(&dir, "diff a.mtb --json -"));
    let parsed: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(parsed["stats"][0]["presence"], "new");
}

#[test]
fn an_option_that_would_go_unheeded_is_refused() {
    let dir = folder();
    for args in [
        "growth a.mtb --sort peak",
        "growth a.mtb --view peak",
        "annotate a.mtb a.c --top 3",
        "annotate a.mtb a.c --key module",
    ] {
        let complaint = complaint(&dir, args);
        assert!(complaint.starts_with("unexpected argument"), "{args}: {complaint}");
    }
}

#[test]
fn whatever_is_wrong_is_one_line() {
    let dir = folder();
    std::fs::write(dir.path().join("text.mtb"), "not a recording").expect("the folder can be written");
    std::fs::write(dir.path().join("cache.c"), "int main(void);").expect("the folder can be written");
    for (args, expected) in [
        (
            "report a.mtb@nope",
            "failed to find the snapshot in `a.mtb`: no snapshot `nope` (known: 0 start, 1 \"warm\", 2 end, peak)",
        ),
        (
            "diff a.mtb@9",
            "failed to find the snapshot in `a.mtb`: no snapshot `9` (known: 0 start, 1 \"warm\", 2 end, peak)",
        ),
        (
            "report a.mtb --include *.zig",
            "nothing left: filters removed all 6 stacks (17329659 B in 90214 blocks live, 26459659 B at the peak) \
             (try fewer filters, or --all-frames)",
        ),
        (
            "report a.mtb --include cache.c",
            "nothing left: filters removed all 6 stacks (17329659 B in 90214 blocks live, 26459659 B at the peak) \
             (try --include '*/cache.c')",
        ),
        (
            "report a.mtb --include */cachee.c",
            "nothing left: filters removed all 6 stacks (17329659 B in 90214 blocks live, 26459659 B at the peak) \
             (files with frames: cache.c)",
        ),
        ("growth a.mtb@1", "failed to analyse `a.mtb`: growth looks at all snapshots of a recording (leave `@1` out)"),
        (
            "growth other.mtb",
            "failed to analyse `other.mtb`: growth needs 3 snapshots, the recording has 1 (record with --snapshot-every 10s)",
        ),
        (
            "annotate a.mtb@start cache.c",
            "failed to annotate `cache.c`: no stacks are in snapshot 0 (start), 2023-11-14 22:13:20 UTC: nothing had been \
             allocated by then",
        ),
        (
            "annotate a.mtb cache.c --as nonesuch.zig",
            "failed to annotate `cache.c` as `nonesuch.zig`: no frame lies in it (near: /home/u/imgsrv/src/cache.c, \
             /home/u/imgsrv/src/image.c, /home/u/imgsrv/src/main.c, /home/u/imgsrv/src/pool.cc)",
        ),
        ("report a.mtb --min-size 1G", "nothing left: --min-size removed all 5 lines"),
        ("diff a.mtb --min-size 1G", "nothing left: --min-size removed all 5 lines"),
        (
            "diff a.mtb other.mtb",
            "failed to compare `a.mtb` with `other.mtb`: they have nothing in common (none of 5 and 1 lines match)",
        ),
        ("diff other.mtb", "failed to compare the first and the last snapshot of `other.mtb`: it holds 1"),
        (
            "report a.mtb --json none/out.json",
            "failed to open `none/out.json` for the JSON report: No such file or directory (os error 2)",
        ),
        ("diff a.mtb b.mtb --json ./b.mtb", "failed to open `./b.mtb` for the JSON report: it is the recording itself"),
        (
            "report a.mtb --cumulative --key traceback",
            "--cumulative counts frames: it needs --key lineno, filename, function or module (try --help)",
        ),
        (
            "report a.mtb --include :3",
            "invalid value ':3' for '--include <GLOB[:LINE]>': an empty pattern matches nothing (try --help)",
        ),
    ] {
        assert_eq!(complaint(&dir, args), expected, "{args}");
    }
    assert!(complaint(&dir, "report text.mtb").starts_with("failed to open `text.mtb`: "));
    assert!(complaint(&dir, "diff a.mtb gone.mtb").starts_with("failed to open `gone.mtb`: "));
    let both = complaint(&dir, "diff a.mtb@warm --include *.zig");
    assert!(both.starts_with("nothing left: filters removed all 11 stacks ("), "{both}");
}

#[test]
fn docs_name_every_field_of_a_comparison() {
    let docs = include_str!("../../../docs/json.md");
    let dir = folder();
    let mut fields = Vec::new();
    for key in ["traceback", "thread"] {
        let json = text_of(&dir, &format!("diff b.mtb b.mtb --json - --key {key}"));
        collect_fields(&serde_json::from_str(&json).expect("JSON"), &mut fields);
    }
    assert!(fields.iter().any(|field| field == "thread_name"));
    for field in fields {
        assert!(docs.contains(&format!("`{field}`")), "docs/json.md does not describe `{field}`");
    }
}

fn collect_fields(value: &serde_json::Value, fields: &mut Vec<String>) {
    match value {
        serde_json::Value::Object(object) => {
            for (field, value) in object {
                fields.push(field.clone());
                collect_fields(value, fields);
            }
        }
        serde_json::Value::Array(values) => values.iter().for_each(|value| collect_fields(value, fields)),
        _ => {}
    }
}
