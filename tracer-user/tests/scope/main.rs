//! Reports on many processes, by the program itself and by what it is made of.
//!
//! `UPDATE_EXPECT=1 cargo test` rewrites the golden files.

mod exports;
mod fixture;
mod places;

use std::{
    path::Path,
    process::{Command, Output},
};

use fixture::{HOSTILE, cases, record};
use serde_json::Value;
use tempfile::TempDir;

/// `web.mtb`: a scope of six processes; `later.mtb`: the same programs under other pids; `evil.mtb`: with a hostile name.
fn folder() -> TempDir {
    let dir = TempDir::new().expect("a folder for tests");
    record(&dir.path().join("web.mtb"), &cases("redis"), "container web and others");
    let mut later = cases("redis");
    for case in &mut later {
        case.stats.pid += 5000;
    }
    later.reverse();
    record(&dir.path().join("later.mtb"), &later, "container web and others");
    let mut evil = cases(HOSTILE);
    for case in &mut evil {
        case.stats.container = case.stats.container.as_ref().map(|_| HOSTILE.to_owned());
        case.stats.user = HOSTILE.into();
    }
    record(&dir.path().join("evil.mtb"), &evil, HOSTILE);
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

#[track_caller]
fn json_of(dir: &TempDir, args: &str) -> Value {
    serde_json::from_str(&text_of(dir, args)).expect("JSON")
}

#[track_caller]
fn expect_golden(file: &str, found: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/scope").join(file);
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        std::fs::write(&path, found).expect("the golden folder can be written");
        return;
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(expected == found, "{file} differs (UPDATE_EXPECT=1 rewrites it); found:\n{found}\nexpected:\n{expected}");
}

#[test]
fn a_report_begins_with_the_scope_and_its_first_processes() {
    let text = text_of(&folder(), "report web.mtb");
    expect_golden("report.txt", &text);
    let table =
        text.lines().skip_while(|line| !line.starts_with("processes by")).take_while(|line| !line.starts_with('#'));
    assert!(table.into_iter().all(|line| line.chars().count() <= 100), "{text}");
}

#[test]
fn there_is_a_line_for_each_process_container_command_and_user() {
    let dir = folder();
    for key in ["process", "container", "command", "user"] {
        let text = text_of(&dir, &format!("report web.mtb --by {key}"));
        expect_golden(&format!("by_{key}.txt"), &text);
        assert_eq!(text_of(&dir, &format!("report web.mtb --key {key}")), text);
    }
}

#[test]
fn views_sorts_and_limits_hold_for_processes_as_for_other_keys() {
    let dir = folder();
    expect_golden(
        "by_process_peak.txt",
        &text_of(&dir, "report web.mtb --by process --view peak --sort count --top 2"),
    );
    let few = text_of(&dir, "report web.mtb --by process --min-size 90K");
    assert!(few.contains("#1 pid 100 (nginx)") && !few.contains("#2 ") && few.contains("... 5 more lines"), "{few}");
}

#[test]
fn a_filter_keeps_one_process_by_pid_or_command() {
    let dir = folder();
    let one = text_of(&dir, "report web.mtb --by process --process 101");
    assert!(one.contains("#1 pid 101 (nginx)") && !one.contains("#2 "), "{one}");
    let named = text_of(&dir, "report web.mtb --by process --process ngin* --process 400");
    assert!(named.contains("#4 ") && !named.contains("(batch)") && !named.contains("#5 "), "{named}");
    let output = run(&dir, "report web.mtb --process 10");
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("nothing left: filters removed all 7 stacks"));
}

#[test]
fn at_the_peak_of_all_what_had_ended_holds_what_it_left() {
    let dir = folder();
    let text = text_of(&dir, "report web.mtb@peak --by process");
    expect_golden("report_peak.txt", &text);
    assert!(
        text.contains("current 166 KiB, 29.5 KiB in 302 left by ended ones  peak 166 KiB"),
        "blocks are not known: {text}"
    );
    // Another peak, before `batch` ended, `sh` had its exec, and 101 was there.
    let mut cases = cases("redis");
    cases[3].stats.joined_at = std::time::Duration::from_secs(70);
    record(&dir.path().join("late.mtb"), &cases, "container web");
    let text = text_of(&dir, "report late.mtb@peak --by process");
    assert!(!text.contains("pid 101") && text.contains("pid 300 (batch)"), "{text}");
}

#[test]
fn json_tells_every_process_with_a_balance_that_closes() {
    let report = json_of(&folder(), "report web.mtb --json - --by process");
    let processes = report["processes"].as_array().expect("a list");
    assert_eq!(processes.len(), 6);
    let number = |value: &Value, of: &str| value[of].as_u64().unwrap_or_else(|| panic!("{of} of {value}"));
    let mut sum = 0;
    for process in processes {
        let balance = &process["balance"];
        assert_eq!(
            number(balance, "made"),
            number(balance, "live") + number(balance, "freed") + number(balance, "lost")
        );
        sum += number(&process["totals"], "current_bytes");
    }
    assert_eq!(sum, number(&report["totals"], "current_bytes"));
    let of = |pid: u64, end: &str| {
        let found = processes.iter().find(|one| one["pid"] == pid && one["end"].as_str().unwrap_or("") == end);
        found.unwrap_or_else(|| panic!("no {pid} {end}"))
    };
    assert_eq!(of(200, "")["balance"]["lost"], 4);
    assert_eq!((&of(101, "")["inherited_bytes"], &of(101, "")["parent_pid"]), (&5000.into(), &100.into()));
    assert_eq!(of(101, "")["counters"], serde_json::json!({ "frees_unknown": 3 }));
    assert_eq!((&of(300, "exec")["ended_ns"], &of(300, "exec")["comm"]), (&7_000_000_000_u64.into(), &"sh".into()));
    // 10 s a step: 10 blocks of 100 B in each.
    assert_eq!(of(200, "")["growth_bytes_per_second"], 100.0);
    assert_eq!(report["target"]["scope"], "container web and others");
    assert_eq!(report["stats"].as_array().expect("a list").len(), 6);
}

#[test]
fn the_sum_of_ended_processes_counts_for_their_command_as_what_it_is() {
    let dir = TempDir::new().expect("a folder for tests");
    let mut cases = cases("redis");
    cases[0].stats.pid = 0;
    cases[0].stats.comm = "nginx (12 ended processes)".into();
    record(&dir.path().join("sum.mtb"), &cases, "all processes");
    let by_command = text_of(&dir, "report sum.mtb --by command");
    assert!(by_command.contains("  17 processes (4 running, 13 ended)  "), "{by_command}");
    let nginx = by_command.lines().find(|line| line.starts_with("#1 nginx: ")).expect("the largest");
    assert!(nginx.contains("count=1382, ") && nginx.ends_with("  15 processes (3 running)"), "{nginx}");
    let by_process = text_of(&dir, "report sum.mtb --by process");
    assert!(by_process.contains("#6 nginx (12 ended processes): size=200 B"), "{by_process}");
    assert!(text_of(&dir, "report sum.mtb --by process --process nginx").contains("#4 nginx (12 ended processes): "));
    let report = json_of(&dir, "report sum.mtb --json -");
    let sums = report["processes"].as_array().expect("a list").iter().filter(|one| one["pid"].is_null());
    let sums: Vec<_> = sums.map(|one| (one["comm"].as_str(), one["processes"].as_u64())).collect();
    assert_eq!(sums, [(Some("nginx"), Some(12))]);
    // Told by its command, not by a pid that it does not have.
    let diff = text_of(&dir, "diff sum.mtb@0 sum.mtb --by process");
    assert!(diff.contains("nginx (12 ended processes): size=200 B (+0 B)"), "{diff}");
}

#[test]
fn growth_names_the_process_that_grows() {
    let text = text_of(&folder(), "growth web.mtb --by process");
    expect_golden("growth_by_process.txt", &text);
    assert!(text.contains("#1 pid 101 (nginx)") && text.contains("#2 pid 200 (nginx)"), "{text}");
}

#[test]
fn within_a_recording_processes_are_compared_one_by_one() {
    let text = text_of(&folder(), "diff web.mtb@0 web.mtb --by process");
    expect_golden("diff_by_process.txt", &text);
    assert!(text.contains("pid 101 (nginx): size=24.0 KiB") || text.contains("pid 101 (nginx)"), "{text}");
}

#[test]
fn between_recordings_processes_are_those_of_one_command_in_one_container() {
    let dir = folder();
    let text = text_of(&dir, "diff web.mtb@0 later.mtb --by process");
    expect_golden("diff_recordings_by_process.txt", &text);
    assert!(!text.contains("(vanished)") && text.contains("nginx in container web2: "), "{text}");
    expect_golden("diff_by_container.txt", &text_of(&dir, "diff web.mtb@0 later.mtb --by container"));
}

#[test]
fn no_name_of_a_process_container_or_user_reaches_the_terminal() {
    let dir = folder();
    for args in [
        "report evil.mtb",
        "report evil.mtb --json -",
        "report evil.mtb --by process",
        "report evil.mtb --by process --json -",
        "report evil.mtb --by container",
        "report evil.mtb --by command",
        "report evil.mtb --by user",
        "diff evil.mtb@0 web.mtb --by process",
        "growth evil.mtb --by process",
        "check evil.mtb --max-peak 0",
    ] {
        let output = run(&dir, args);
        let text = String::from_utf8(output.stdout).expect("text");
        assert!(!text.is_empty(), "{args}");
        let hazard = text.chars().find(|c| (c.is_control() && *c != '\n') || *c == '\u{202e}');
        assert_eq!(hazard, None, "{args}: {text}");
    }
    assert!(text_of(&dir, "report evil.mtb --by command").contains("#3 e\\x1b[2J\\n;=`|<b>\\u{202e}: "));
}

#[test]
fn keys_of_processes_make_one_line_where_there_is_but_one() {
    let version1 = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/recording/version1/version1.mtb");
    let dir = TempDir::new().expect("a folder for tests");
    for (key, label) in [
        ("process", "pid 1640 (held)"),
        ("container", "<container not recorded>"),
        ("command", "held"),
        ("user", "<user not recorded>"),
    ] {
        let text = text_of(&dir, &format!("report {version1} --by {key}"));
        let line = format!("#1 {label}: size=4136 B, count=11, average=376 B, peak=4259 B, allocated=4644 B in 17");
        assert!(text.contains(&line) && !text.contains("#2"), "{text}");
    }
    let report = json_of(&dir, &format!("report {version1} --by process --json -"));
    assert!(report.get("processes").is_none() && report["target"].get("scope").is_none(), "one process: as it was");
}

#[test]
fn a_verdict_is_of_one_process_and_says_so() {
    let output = run(&folder(), "verdict web.mtb");
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(
        String::from_utf8_lossy(&output.stderr),
        "memtrace-bpf: failed to judge snapshot 9 of `web.mtb`: it is of many processes, and resident memory is each one's own \
         (trace one with --pid)\n"
    );
}

#[test]
fn budgets_are_for_all_processes_together() {
    let output = run(&folder(), "check web.mtb --max-current 100K --allow-loss");
    assert_eq!(output.status.code(), Some(3));
    expect_golden("check.txt", &String::from_utf8_lossy(&output.stdout));
}
