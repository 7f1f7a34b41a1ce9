//! Leak suspects and ages of blocks, on recordings made in memory.

use std::{collections::HashMap, path::Path, sync::Arc, time::Duration};

use tracer_common::addr::{FileVaddr, FrameAddr, UserAddr};
use tracer_user::{
    analysis::{
        age::{Pattern, ages},
        growth::{Growth, TooFew, growth},
        trend::Course,
    },
    options::{Filters, Key, ReportOptions},
    recording::{Builder, Mark, Recording, SessionInfo, SnapshotMeta, Trigger, Which},
    report,
    snapshot::{
        AgeCell, Frame, Module, ModuleId, ModuleKind, Snapshot, Stack, StackId, StackStats, TargetInfo, Totals,
    },
    symbolize::{Attribution, FrameName, Names},
};

/// A site: its function, and its live bytes and blocks at a time in seconds.
type Site<'a> = (&'a str, Box<dyn Fn(u64) -> (u64, u64) + 'a>);

/// A recording with a snapshot at each of `seconds`; the n-th site is in line n of `app.c`.
fn record(sites: &[Site<'_>], seconds: &[u64]) -> Recording {
    record_with(sites, seconds, |_| Trigger::Interval, |_| None)
}

fn record_with(
    sites: &[Site<'_>],
    seconds: &[u64],
    trigger: impl Fn(u64) -> Trigger,
    ages: impl Fn(u64) -> Option<Vec<AgeCell>>,
) -> Recording {
    let module = Arc::new(Module {
        kind: ModuleKind::File,
        path: "/usr/bin/app".into(),
        open_path: "/usr/bin/app".into(),
        deleted: false,
        build_id: None,
        mappings: Vec::new(),
    });
    let mut names = Names::default();
    let mut stacks = Vec::new();
    for (number, (function, _)) in (1..).zip(sites) {
        let name = FrameName {
            function: Ok((*function).into()),
            file: Some(Arc::from(Path::new("/home/u/src/app.c"))),
            line: Some(number),
            inlined: false,
        };
        let vaddr = FileVaddr(u64::from(number));
        names.insert(ModuleId(0), vaddr, [name].as_slice().into());
        let addr = FrameAddr::Return(UserAddr(u64::from(number) + 1));
        let frames = vec![Frame { addr, location: Some((ModuleId(0), vaddr)) }];
        stacks.push(Arc::new(Stack { frames, ..Stack::default() }));
    }
    let target = TargetInfo { pid: 4711, comm: "app".into(), exe: None, running: true };
    let mut builder = Builder::new(SessionInfo { target: target.clone(), from_start: true, ..SessionInfo::default() });
    for &at in seconds {
        let mut totals = Totals::default();
        let stacks = (0..)
            .zip(&stacks)
            .zip(sites)
            .map(|((id, stack), (_, live))| {
                let (current_bytes, current_count) = live(at);
                let of_stack = Totals {
                    current_bytes,
                    current_count,
                    allocated_bytes: 1,
                    allocated_count: 1,
                    ..Totals::default()
                };
                totals.add(&of_stack);
                StackStats { id: StackId(id), stack: Arc::clone(stack), totals: of_stack }
            })
            .collect();
        let snapshot = Snapshot {
            target: target.clone(),
            duration: Duration::from_secs(at),
            from_start: true,
            totals,
            modules: vec![Arc::clone(&module)],
            stacks,
            ages: ages(at),
            ..Snapshot::default()
        };
        builder.snapshot(&snapshot, SnapshotMeta { trigger: trigger(at), ..SnapshotMeta::default() });
    }
    builder.finish(names)
}

/// Noise that is the same on every run: 0..below, by time.
fn noise(seed: u64, at: u64, below: u64) -> u64 {
    let mut state = (seed << 32 | at).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    for _ in 0..3 {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
    }
    (state >> 11) % below
}

/// 100 B/s in blocks of 100 B, a cache that fills at 100 KiB/s and stops after 10 s, and 40 sites of churn, each holding up to
/// 2 MiB of a stream of 50 MB/s at any moment.
fn leak_in_churn(n_churn: u64) -> Vec<Site<'static>> {
    let mut sites: Vec<Site<'static>> = vec![
        ("initialise", Box::new(|_| (5 << 20, 40))),
        ("cache", Box::new(|at| (at.min(10) * 100 * 1024, at.min(10) * 100))),
    ];
    for number in 0..n_churn {
        sites.push((
            "churn",
            Box::new(move |at| {
                let bytes = noise(number, at, 2 << 20);
                (bytes, bytes >> 12)
            }),
        ));
    }
    sites.push(("leak", Box::new(|at| (at * 100, at))));
    sites
}

struct Found {
    courses: Vec<(String, Course)>,
    text: String,
    json: serde_json::Value,
    rate: f64,
}

fn find(recording: &Recording, options: &ReportOptions) -> Result<Found, TooFew> {
    let attribution = Attribution::new(&[], false).expect("no patterns of a user");
    let last = Which::Index(recording.snapshots.len().saturating_sub(1));
    let snapshot = recording.snapshot(last);
    let found: Growth<'_> = growth(recording, &snapshot, &attribution, options)?;
    let function = |line: &tracer_user::analysis::statistics::Statistic<'_>| {
        line.site.expect("every stack has frames").name.function.as_deref().expect("a name").to_owned()
    };
    Ok(Found {
        courses: found.sites.iter().map(|site| (function(&site.line), site.series.trend.course)).collect(),
        rate: found.sites.first().map_or(0.0, |site| site.series.trend.bytes_per_second),
        text: report::growth::render(&found, &snapshot, &recording.names, "app.mtb", options),
        json: serde_json::from_str(&report::growth_json::render(&found, &snapshot, &recording.names)).expect("JSON"),
    })
}

fn every_two_seconds() -> Vec<u64> {
    (0..=60).step_by(2).collect()
}

#[test]
fn a_leak_of_100_bytes_a_second_in_churn_is_first_and_a_cache_is_not() {
    let recording = record(&leak_in_churn(40), &every_two_seconds());
    let found = find(&recording, &ReportOptions::default()).expect("snapshots enough");
    assert_eq!(
        found.courses,
        [("leak".to_owned(), Course::Grows), ("cache".to_owned(), Course::LevelsOff)],
        "{}",
        found.text
    );
    assert!((found.rate - 100.0).abs() < 1.0, "{}", found.rate);
    assert_eq!(found.json["sites"][0]["function"], "leak");
    assert_eq!(found.json["sites"][1]["course"], "levels off");
    assert_eq!(found.json["steady_sites"], 41);
}

#[test]
fn the_report_of_growth_is_this_text() {
    let recording = record(&leak_in_churn(0), &every_two_seconds());
    let found = find(&recording, &ReportOptions::default()).expect("snapshots enough");
    assert_eq!(
        found.text,
        "\
growth of app.mtb  pid 4711 (app)  nothing lost
31 snapshots, 0.0 s to 60.0 s: current 6126 KiB (+1006 KiB), levelled off  ▁▂▄▆████████████████████
#1 src/app.c:3: +100 B/s (8438 KiB a day), size=6000 B (+6000 B), count=60, grew in 100 % of intervals, confidence >99.9 %  ▁▁▁▁▂▂▃▃▃▃▄▄▅▅▅▆▆▆▇▇▇███  leak
levelled off (nearly no growth in the last third):
#2 src/app.c:2: size=1000 KiB (+1000 KiB), count=1000, grew in 17 % of intervals, confidence >99.9 %  ▁▂▄▆████████████████████  cache
1 stand still, shrink or fluctuate
"
    );
}

#[test]
fn marks_stand_beside_what_grew() {
    let mut recording = record(&leak_in_churn(0), &every_two_seconds());
    let mark = |at, text: &str| Mark { at: Duration::from_secs(at), text: text.into() };
    recording.marks = vec![mark(10, "warm-up done"), mark(30, "load\n")];
    let text = find(&recording, &ReportOptions::default()).expect("snapshots enough").text;
    assert_eq!(text.lines().nth(2), Some("marks: 10.0 s warm-up done, 30.0 s load\\n"));
    let list = report::snapshots::render(&recording);
    assert!(list.ends_with("mark after 10.0 s: warm-up done\nmark after 30.0 s: load\\n\n"), "{list}");
}

#[test]
fn what_limits_leave_out_of_what_grew_is_counted_apart() {
    let recording = record(&leak_in_churn(0), &every_two_seconds());
    let last = |options: ReportOptions| {
        let found = find(&recording, &options).expect("snapshots enough");
        assert_eq!(found.json["steady_sites"], 1);
        let last = found.text.lines().last().expect("a line").to_owned();
        (found.courses.len(), found.json["left_out_sites"].clone(), last)
    };
    let only = |max_size, min_count| Filters { max_size, min_count, ..Filters::default() };
    let still = "stand still, shrink or fluctuate";
    for (options, n_found, said) in [
        (ReportOptions { min_size: 10_000, ..ReportOptions::default() }, 1, "--min-size"),
        (ReportOptions { filters: only(Some(10_000), 0), ..ReportOptions::default() }, 1, "--max-size"),
        (ReportOptions { filters: only(None, 100), ..ReportOptions::default() }, 1, "--min-count"),
    ] {
        let expected = (n_found, 1.into(), format!("... 1 that grew left out by {said}; 1 {still}"));
        assert_eq!(last(options), expected);
    }
    let expected = (2, 0.into(), format!("... 1 more that levelled off; 1 {still}"));
    assert_eq!(last(ReportOptions { top: 1, ..ReportOptions::default() }), expected);
}

#[test]
fn fewer_than_three_snapshots_are_refused() {
    for n in [0, 1, 2] {
        let recording = record(&leak_in_churn(1), &every_two_seconds()[..n]);
        if n > 0 {
            assert_eq!(find(&recording, &ReportOptions::default()).err(), Some(TooFew { found: n, after_exec: false }));
        }
    }
    let three = find(&record(&leak_in_churn(0), &[0, 2, 4]), &ReportOptions::default()).expect("snapshots enough");
    assert!(three.text.contains("3 snapshots are few: 17 % of sites"), "{}", three.text);
}

#[test]
fn what_a_program_before_exec_held_does_not_count() {
    let sites: Vec<Site<'_>> = vec![
        ("old", Box::new(|at| if at < 20 { (at * 5000, at) } else { (0, 0) })),
        ("new", Box::new(|at| (at.saturating_sub(20) * 10, at.saturating_sub(20)))),
    ];
    let exec_at = |last: u64| move |at| if at == last { Trigger::Exec } else { Trigger::Interval };
    let recording = record_with(&sites, &every_two_seconds(), exec_at(18), |_| None);
    let found = find(&recording, &ReportOptions::default()).expect("21 snapshots after exec");
    assert_eq!(found.courses, [("new".to_owned(), Course::Grows)]);
    assert!(found.text.contains("the 10 before exec left out"), "{}", found.text);
    let late = record_with(&sites, &every_two_seconds(), exec_at(56), |_| None);
    assert_eq!(find(&late, &ReportOptions::default()).err(), Some(TooFew { found: 2, after_exec: true }));
}

#[test]
fn every_key_groups_the_same_bytes() {
    let recording = record(&leak_in_churn(3), &every_two_seconds());
    for key in [Key::Lineno, Key::Filename, Key::Function, Key::Module, Key::Traceback] {
        for cumulative in [false, true] {
            let options = ReportOptions { key, cumulative, ..ReportOptions::default() };
            let found = find(&recording, &options).expect("snapshots enough");
            if matches!(key, Key::Lineno | Key::Function | Key::Traceback) {
                assert_eq!(found.courses[0].0, "leak", "{key:?}");
            }
        }
    }
}

#[test]
fn thousands_of_snapshots_are_thinned_and_said_so() {
    let recording = record(&leak_in_churn(2), &(0..1000).collect::<Vec<_>>());
    let found = find(&recording, &ReportOptions::default()).expect("snapshots enough");
    assert_eq!(found.courses[0].0, "leak");
    assert!(found.text.contains("128 snapshots") && found.text.contains("evenly picked of 1000"), "{}", found.text);
}

#[test]
fn ages_tell_a_leak_from_initialisation() {
    // Eight snapshots, one each 10 s, the last with ages.
    let seconds: Vec<u64> = (0..8).map(|at| at * 10).collect();
    let cell = |stack, generation, bytes, count| AgeCell { stack: StackId(stack), generation, bytes, count };
    let cells: Vec<AgeCell> = (1..8)
        .map(|generation| cell(1, generation, 1000, 10))
        .chain([cell(0, 0, 1000, 1), cell(0, 1, 63_000, 7), cell(2, 7, 4096, 1)])
        .collect();
    let sites: Vec<Site<'_>> = vec![
        ("initialise", Box::new(|_| (64_000, 8))),
        ("leak", Box::new(|at| (at * 100, at))),
        ("work", Box::new(|_| (4096, 1))),
    ];
    let recording = record_with(&sites, &seconds, |_| Trigger::Interval, |at| (at == 70).then(|| cells.clone()));
    let last = recording.last_with_ages().expect("the last has ages");
    assert_eq!(last, 7);
    let snapshot = recording.snapshot(Which::Index(last));
    let attribution = Attribution::new(&[], false).expect("no patterns of a user");
    let taken_at: Vec<f64> = seconds.iter().map(|at| *at as f64).collect();
    let options = ReportOptions::default();
    let found = ages(&snapshot, &taken_at, &recording.names, &attribution, &options).expect("there are ages");
    let patterns: HashMap<u32, Option<Pattern>> = found
        .sites
        .iter()
        .map(|site| (site.line.site.expect("frames").name.line.expect("a line"), site.sums.pattern))
        .collect();
    assert_eq!(patterns[&1], Some(Pattern::Old));
    assert_eq!(patterns[&2], Some(Pattern::Spread));
    assert_eq!(patterns[&3], Some(Pattern::New));
    assert_eq!(found.total.sum(), 64_000 + 7000 + 4096);
    assert_eq!(
        report::growth::render_ages(&found, &snapshot, &recording.names, "app.mtb @7", &options),
        "\
age of app.mtb @7  pid 4711 (app)  nothing lost
live bytes by age, 8 generations; bars run from the oldest (70 s) to now
total: size=73.3 KiB, count=79, median age ~64 s, of mixed ages  [▁█▁▁▁▁▁▁]
\x20 70 s to 70 s old: size=1000 B, count=1, 1.3 %
\x20 60 s to 70 s old: size=62.5 KiB, count=17, 85 %
\x20 50 s to 60 s old: size=1000 B, count=10, 1.3 %
\x20 40 s to 50 s old: size=1000 B, count=10, 1.3 %
\x20 30 s to 40 s old: size=1000 B, count=10, 1.3 %
\x20 20 s to 30 s old: size=1000 B, count=10, 1.3 %
\x20 10 s to 20 s old: size=1000 B, count=10, 1.3 %
\x20 0.0 s to 10 s old: size=5096 B, count=11, 6.8 %
#1 src/app.c:1: size=62.5 KiB, count=8, median age ~65 s, all old (initialisation)  [▁█      ]   initialise
#2 src/app.c:2: size=7000 B, count=70, median age ~35 s, of all ages (leak-like)  [ ███████]     leak
#3 src/app.c:3: size=4096 B, count=1, median age ~5.0 s, all new (work in progress)  [       █]  work
"
    );
    let json: serde_json::Value =
        serde_json::from_str(&report::growth_json::render_ages(&found, &snapshot, &recording.names)).expect("JSON");
    assert_eq!(json["sites"][1]["pattern"], "spread");
    assert_eq!(json["generations"].as_array().map(Vec::len), Some(8));
}

/// 50 000 stacks in as many sites, 100 snapshots: prints the time; run by hand in release, the figures stand in docs/analysis.md.
#[test]
#[ignore = "a measurement"]
fn cost_of_growth() {
    let churn: Vec<Site<'_>> = (0..50_000_u64)
        .map(|number| -> Site<'_> { ("churn", Box::new(move |at| (noise(number, at, 1 << 20), 1))) })
        .collect();
    let recording = record(&churn, &(0..100).collect::<Vec<_>>());
    let before = std::time::Instant::now();
    let found = find(&recording, &ReportOptions::default()).expect("snapshots enough");
    println!("{:?}, {} of 50 000 noisy sites grew", before.elapsed(), found.courses.len());
    print!("{}", found.text);
}
