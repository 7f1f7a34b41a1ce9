//! Exports of many processes: each form tells them apart in its own way.

use serde_json::Value;

use tempfile::TempDir;

use crate::{folder, json_of, run};

/// What an export writes; what it has no room for stands on standard error.
#[track_caller]
fn text_of(dir: &TempDir, args: &str) -> String {
    let output = run(dir, args);
    assert_eq!(output.status.code(), Some(0), "{args}: {output:?}");
    let said = String::from_utf8(output.stderr).expect("text");
    assert!(said.lines().all(|line| line.contains("has no room to say it: LOST: 4")), "{said}");
    String::from_utf8(output.stdout).expect("exports are text")
}

#[test]
fn in_folded_stacks_the_process_is_the_root() {
    let dir = folder();
    let text = text_of(&dir, "export web.mtb -f folded -o -");
    let expected = "\
        [pid 100 nginx, container web];main (nginx/main.c:3);cache_add (nginx/cache.c:42) 100000\n\
        [pid 100 nginx, container web];main (nginx/main.c:3);parse (nginx/conf.c:7) 4000\n\
        [pid 101 nginx, container web];main (nginx/main.c:3);cache_add (nginx/cache.c:42) 24000\n\
        [pid 200 nginx, container web2];main (nginx/main.c:3);cache_add (nginx/cache.c:42) 10000\n\
        [pid 300 batch];main (nginx/main.c:3);cache_add (nginx/cache.c:42) 30000\n\
        [pid 300 sh];main (nginx/main.c:3);parse (nginx/conf.c:7) 200\n\
        [pid 400 redis];main (nginx/main.c:3);poll (nginx/loop.c:9) 700\n";
    assert_eq!(text, expected);
    let text = text_of(&dir, "export web.mtb -f folded --by container -o -");
    let roots: Vec<&str> = text.lines().filter_map(|line| line.split_once(';')).map(|(root, _)| root).collect();
    assert_eq!(
        roots,
        ["[<no container>]"; 3]
            .into_iter()
            .chain(["[container web2]"])
            .chain(["[container web]"; 2])
            .collect::<Vec<_>>()
    );
}

#[test]
fn a_difference_shows_the_processes_of_one_command_and_container_as_one() {
    let text = text_of(&folder(), "export web.mtb -f folded --base later.mtb -o -");
    assert!(
        text.contains("[nginx, container web];main (nginx/main.c:3);cache_add (nginx/cache.c:42) 124000 124000"),
        "{text}"
    );
}

#[test]
fn every_form_holds_every_process() {
    let dir = folder();
    for format in ["flamegraph", "speedscope", "firefox", "chrome-trace", "json"] {
        let text = text_of(&dir, &format!("export web.mtb -f {format} -o -"));
        for name in ["nginx", "batch", "redis", "web2"] {
            // The Firefox Profiler has no place for containers.
            assert!(text.contains(name) || (format, name) == ("firefox", "web2"), "{format} lacks {name}");
        }
    }
}

#[test]
fn pprof_tells_processes_by_labels() {
    use std::io::Read as _;
    let output = run(&folder(), "export web.mtb -f pprof -o -");
    let mut profile = Vec::new();
    flate2::read::GzDecoder::new(&output.stdout[..]).read_to_end(&mut profile).expect("gzip");
    let holds = |text: &str| profile.windows(text.len()).any(|window| window == text.as_bytes());
    for text in ["pid", "comm", "container", "user", "nginx", "batch", "web2", "nobody"] {
        assert!(holds(text), "{text}");
    }
    assert!(!holds("[pid"), "labels, not frames");
}

#[test]
fn in_a_trace_each_process_has_its_counter_until_it_ends() {
    let trace = json_of(&folder(), "export web.mtb -f chrome-trace -o -");
    let events = trace["traceEvents"].as_array().expect("a list");
    let live = |pid: u64| -> Vec<(f64, u64)> {
        let of = |event: &&Value| event["pid"] == pid && event["name"] == "live bytes" && event["ph"] == "C";
        let figures =
            |event: &Value| (event["ts"].as_f64().expect("a time"), event["args"]["bytes"].as_u64().expect("bytes"));
        events.iter().filter(of).map(figures).collect()
    };
    let second = 1e6;
    // `sh` execs at 7 s, before the first snapshot; `batch` follows it under its pid, and exits at 50 s.
    let batch = [(7.0, 0), (10.0, 6000), (20.0, 12000), (30.0, 18000), (40.0, 24000), (50.0, 0)];
    assert_eq!(live(300), batch.map(|(at, bytes)| (at * second, bytes)));
    assert_eq!(live(100), [(10.0 * second, 104_000)]);
    let names: Vec<&str> =
        events.iter().filter(|e| e["name"] == "process_name").filter_map(|e| e["args"]["name"].as_str()).collect();
    assert!(names.contains(&"sh → batch") && names.contains(&"nginx, container web2"), "{names:?}");
}

#[test]
fn in_a_firefox_profile_each_process_has_a_thread() {
    let profile = json_of(&folder(), "export web.mtb -f firefox -o -");
    let threads = profile["threads"].as_array().expect("a list");
    assert_eq!(threads.len(), 6);
    let mut pids: Vec<&str> = threads.iter().filter_map(|thread| thread["pid"].as_str()).collect();
    pids.dedup();
    assert_eq!(pids.len(), 6, "{pids:?}");
    assert!(threads.iter().all(|thread| thread["isMainThread"] == true));
    assert_eq!(profile["counters"][0]["pid"], threads[0]["pid"]);
}

#[test]
fn a_table_by_process_has_columns_for_it() {
    let dir = folder();
    let table = text_of(&dir, "export web.mtb -f csv --by process -o -");
    let mut lines = table.lines();
    assert!(lines.next().expect("a header").starts_with("pid,command,container,user,ended_seconds,file,line,"));
    assert!(lines.next().expect("a line").starts_with("100,nginx,web,www,,,,,,,104000,1040,100,"), "{table}");
    assert!(table.contains("\n300,batch,,root,50.000,"), "{table}");
    let by_user = text_of(&dir, "export web.mtb -f csv --by user -o -");
    assert!(by_user.contains("\n,,,www,,"), "{by_user}");
    let markdown = text_of(&dir, "export web.mtb -f markdown --by process -o -");
    assert!(markdown.contains("| `pid 300 (batch) exited at 50.0 s` |"), "{markdown}");
}

#[test]
fn no_hostile_name_leaves_its_place_in_an_export() {
    let dir = folder();
    for format in
        ["folded", "flamegraph", "speedscope", "firefox", "chrome-trace", "json", "csv", "markdown", "heaptrack"]
    {
        let has_keys = !matches!(format, "firefox" | "chrome-trace" | "heaptrack");
        for key in ["", "--by process"].into_iter().filter(|key| has_keys || key.is_empty()) {
            let text = text_of(&dir, &format!("export evil.mtb -f {format} {key} -o -"));
            let hazard = text.chars().find(|c| (c.is_control() && *c != '\n') || *c == '\u{202e}');
            assert_eq!(hazard, None, "{format} {key}");
        }
    }
    let table = text_of(&dir, "export evil.mtb -f csv --by process -o -");
    let mut reader = csv_records(&table);
    assert!(reader.all(|record| record.len() == 23), "{table}");
    for line in text_of(&dir, "export evil.mtb -f folded -o -").lines() {
        assert!(line.rsplit_once(' ').expect("bytes").1.parse::<u64>().is_ok(), "{line}");
        assert_eq!(line.split(';').count(), 3, "{line}");
    }
}

fn csv_records(table: &str) -> impl Iterator<Item = csv::StringRecord> {
    let mut reader = csv::ReaderBuilder::new().has_headers(false).from_reader(table.as_bytes());
    reader.records().map(|record| record.expect("a record")).collect::<Vec<_>>().into_iter()
}
