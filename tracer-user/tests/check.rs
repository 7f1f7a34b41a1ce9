//! Budgets: each verdict with its figures and sites, and its three forms.
//!
//! `UPDATE_EXPECT=1 cargo test` rewrites the golden files.

use std::{collections::BTreeMap, fs, path::Path, sync::Arc, time::Duration};

use quick_xml::{Reader, events::Event};
use tracer_common::{
    abi::StackEnd,
    addr::{FileVaddr, FrameAddr, UserAddr},
    counters::Counter,
};
use tracer_user::{
    analysis::check::{
        Budget, Budgets, CheckError, Doubt, Found, Limit, Outcome, Quantity, Subject, Suppressions, Unproven, Verdict,
        check, same_program,
    },
    recording::{Builder, Recording, Sample, SessionInfo, SnapshotMeta, Trigger, Which},
    report,
    snapshot::{
        Counters, Frame, Module, ModuleId, ModuleKind, Snapshot, Stack, StackId, StackStats, TargetInfo, Totals,
    },
    symbolize::{Attribution, FrameName, Names},
};

/// A function that allocates: `(module, function, file, line)`, live bytes at each snapshot in blocks of 1 KiB, and what it has
/// allocated and freed again by then.
#[derive(Clone)]
struct Row {
    module: &'static str,
    function: &'static str,
    file: &'static str,
    line: u32,
    live_kib: Vec<u64>,
    churn_kib: u64,
}

fn row(function: &'static str, line: u32, live_kib: &[u64]) -> Row {
    Row {
        module: "/srv/imgsrv",
        function,
        file: "/home/u/src/cache.c",
        line,
        live_kib: live_kib.to_vec(),
        churn_kib: 0,
    }
}

/// What differs between recordings.
#[derive(Clone)]
struct Case {
    rows: Vec<Row>,
    counters: BTreeMap<Counter, u64>,
    running_at_end: bool,
}

fn case(rows: Vec<Row>) -> Case {
    Case { rows, counters: BTreeMap::new(), running_at_end: false }
}

/// A recording of as many snapshots as the rows have figures. `main` called each function.
fn recorded(case: &Case) -> Recording {
    const KIB: u64 = 1024;
    let n_snapshots = case.rows[0].live_kib.len();
    let module = |path: &str| {
        Arc::new(Module {
            kind: ModuleKind::File,
            path: path.into(),
            open_path: path.into(),
            deleted: false,
            build_id: None,
            mappings: Vec::new(),
        })
    };
    let named = |function: &str, file: &str, line| {
        let file = Some(Arc::from(Path::new(file)));
        [FrameName { function: Ok(function.into()), file, line: Some(line), inlined: false }]
    };
    let frame = |module, vaddr| Frame {
        addr: FrameAddr::Return(UserAddr(0x1000 + vaddr + 1)),
        location: Some((ModuleId(module), FileVaddr(vaddr))),
    };
    let mut names = Names::default();
    let mut modules = vec![module("/srv/imgsrv")];
    names.insert(ModuleId(0), FileVaddr(1), named("main", "/home/u/src/main.c", 120).as_slice().into());
    let mut stacks = Vec::new();
    for (n, row) in (1_u32..).zip(&case.rows) {
        let known = modules.iter().position(|module: &Arc<Module>| module.path == Path::new(row.module));
        let n_module = known.unwrap_or(modules.len()) as u32;
        if known.is_none() {
            modules.push(module(row.module));
        }
        let vaddr = 0x100 * u64::from(n);
        names.insert(ModuleId(n_module), FileVaddr(vaddr), named(row.function, row.file, row.line).as_slice().into());
        stacks.push(Arc::new(Stack {
            frames: vec![frame(n_module, vaddr), frame(0, 1)],
            end: StackEnd::Root,
            thread: None,
        }));
    }

    let total_live = |at: usize| case.rows.iter().map(|row| row.live_kib[at]).sum::<u64>();
    let mut builder = Builder::new(SessionInfo { from_start: true, ..SessionInfo::default() });
    for at in 0..n_snapshots {
        let is_last = at + 1 == n_snapshots;
        let peak_at = (0..=at).max_by_key(|&at| total_live(at)).expect("at least one");
        let stats = (0..).zip(&case.rows).zip(&stacks).map(|((id, row), stack)| {
            let (live, peak) = (row.live_kib[at], row.live_kib[peak_at]);
            let most = row.live_kib[..=at].iter().max().expect("at least one");
            let totals = Totals {
                current_bytes: live * KIB,
                current_count: live,
                peak_bytes: peak * KIB,
                peak_count: peak,
                allocated_bytes: (most + row.churn_kib) * KIB,
                allocated_count: most + row.churn_kib,
                freed_bytes: (most + row.churn_kib - live) * KIB,
                freed_count: most + row.churn_kib - live,
                ..Totals::default()
            };
            StackStats { id: StackId(id), stack: Arc::clone(stack), totals }
        });
        let stacks: Vec<_> = stats.collect();
        let mut totals = Totals::default();
        for stack in &stacks {
            totals.add(&stack.totals);
        }
        let snapshot = Snapshot {
            target: TargetInfo {
                pid: 4711,
                comm: "imgsrv".into(),
                exe: Some("/srv/imgsrv".into()),
                running: !is_last || case.running_at_end,
            },
            duration: Duration::from_secs(10 * at as u64),
            from_start: true,
            totals,
            counters: Counters(case.counters.clone()),
            modules: modules.clone(),
            stacks,
            ..Snapshot::default()
        };
        let trigger = if is_last { Trigger::End } else { Trigger::Start };
        builder.snapshot(&snapshot, SnapshotMeta { trigger, ..SnapshotMeta::default() });
    }
    builder.finish(names)
}

fn last(recording: &Recording) -> Subject<'_> {
    Subject { recording, which: Which::Index(recording.snapshots.len() - 1) }
}

fn try_check(case: &Case, base: Option<&Case>, budgets: &Budgets, rules: &str) -> Result<Outcome, CheckError> {
    let attribution = Attribution::new(&[], false).expect("no patterns of a user");
    let (recording, base) = (recorded(case), base.map(recorded));
    let suppressions: Suppressions = rules.parse().expect("the rules are well-formed");
    check(last(&recording), base.as_ref().map(last), budgets, &suppressions, &attribution)
}

fn checked(case: &Case, budgets: &Budgets) -> Outcome {
    try_check(case, None, budgets, "").expect("the budgets make sense")
}

fn grown_since(base: &Case, case: &Case, limit: Limit) -> Outcome {
    let budgets = Budgets { max_growth: Some(limit), growth_floor: 64 * 1024, ..Budgets::default() };
    try_check(case, Some(base), &budgets, "").expect("the budgets make sense")
}

fn of(outcome: &Outcome, budget: Budget) -> &tracer_user::analysis::check::Check {
    outcome.checks.iter().find(|check| check.budget == budget).expect("the budget was checked")
}

/// The sites that a check blames: function, value in KiB.
fn blamed(outcome: &Outcome, budget: Budget) -> Vec<(String, u64)> {
    let offenders = &of(outcome, budget).offenders;
    let name = |function: &Result<Arc<str>, _>| function.as_deref().expect("functions have names here").to_owned();
    offenders.iter().map(|offender| (name(&offender.site.function), offender.value / 1024)).collect()
}

const KIB: u64 = 1024;

fn server() -> Case {
    case(vec![row("cache_add", 42, &[10, 400, 300]), row("decode", 101, &[0, 900, 5]), row("log_line", 7, &[1, 1, 1])])
}

#[test]
fn a_total_passes_up_to_its_limit_and_fails_above() {
    for (limit, verdict) in [(1301 * KIB, Verdict::Pass), (1301 * KIB - 1, Verdict::Fail)] {
        let outcome = checked(&server(), &Budgets { max_peak: Some(limit), ..Budgets::default() });
        assert_eq!(of(&outcome, Budget::Total(Quantity::Peak)).verdict, verdict);
        assert_eq!(outcome.passed(), verdict == Verdict::Pass);
    }
    let budgets = Budgets { max_current: Some(306 * KIB), max_allocations: Some(1300), ..Budgets::default() };
    let outcome = checked(&server(), &budgets);
    assert_eq!(of(&outcome, Budget::Total(Quantity::Current)).verdict, Verdict::Pass);
    assert_eq!(of(&outcome, Budget::Total(Quantity::Allocations)).verdict, Verdict::Fail);
}

#[test]
fn a_failed_total_names_the_sites_of_its_own_quantity() {
    let budgets = Budgets { max_peak: Some(0), max_current: Some(0), ..Budgets::default() };
    let outcome = checked(&server(), &budgets);
    let names = |budget| blamed(&outcome, budget);
    assert_eq!(
        names(Budget::Total(Quantity::Peak)),
        [("decode".into(), 900), ("cache_add".into(), 400), ("log_line".into(), 1)]
    );
    assert_eq!(names(Budget::Total(Quantity::Current))[0], ("cache_add".into(), 300));
}

#[test]
fn leaks_are_what_is_live_at_exit_less_what_is_suppressed() {
    let budgets = Budgets { max_leaked: Some(0), ..Budgets::default() };
    let rules = "# known\nleak:^cache_add$\nleak:nothing_like_it\nleak:src/cache.c\n";
    let outcome = try_check(&server(), None, &budgets, "leak:^cache_add$\nleak:nothing_like_it\n").expect("sense");
    assert_eq!(of(&outcome, Budget::Leaked).found, Found::Amount { value: 6 * KIB, count: 6 });
    assert_eq!(blamed(&outcome, Budget::Leaked), [("decode".into(), 5), ("log_line".into(), 1)]);
    let taken: Vec<_> = outcome.suppressed.iter().map(|rule| (rule.line, rule.bytes / KIB, rule.count)).collect();
    assert_eq!(taken, [(1, 300, 300), (2, 0, 0)]);

    let outcome = try_check(&server(), None, &budgets, rules).expect("sense");
    assert!(outcome.passed(), "the file of every site is suppressed");
    // The caller and the module of every stack count as well as its site.
    for rule in ["leak:main.c", "leak:^main$", "leak:/srv/*"] {
        assert!(try_check(&server(), None, &budgets, rule).expect("sense").passed(), "{rule}");
    }
}

#[test]
fn a_block_without_a_stack_is_a_leak_as_well() {
    let mut recording = recorded(&server());
    let at = recording.snapshots.len() - 1;
    recording.snapshots[at].totals.current_bytes += 77;
    let attribution = Attribution::new(&[], false).expect("no patterns of a user");
    let budgets = Budgets { max_leaked: Some(0), ..Budgets::default() };
    let all: Suppressions = "leak:main".parse().expect("a rule");
    let outcome = check(last(&recording), None, &budgets, &all, &attribution).expect("sense");
    assert!(matches!(of(&outcome, Budget::Leaked).found, Found::Amount { value: 77, .. }));
}

#[test]
fn what_a_running_process_leaves_is_not_known() {
    let budgets = Budgets { max_leaked: Some(1 << 30), allow_loss: true, ..Budgets::default() };
    let outcome = checked(&Case { running_at_end: true, ..server() }, &budgets);
    assert_eq!(of(&outcome, Budget::Leaked).verdict, Verdict::CannotTell(Unproven::StillRunning));
    assert!(!outcome.passed());
}

#[test]
fn a_loss_leaves_a_budget_unproven_but_an_exceeded_one_exceeded() {
    let lossy = Case { counters: [(Counter::BlocksFull, 4000), (Counter::Nested, 9)].into(), ..server() };
    let budgets = Budgets { max_peak: Some(1 << 30), max_current: Some(0), ..Budgets::default() };
    let outcome = checked(&lossy, &budgets);
    assert_eq!(outcome.doubts, [Doubt::Lost(Counter::BlocksFull, 4000)]);
    assert_eq!(of(&outcome, Budget::Total(Quantity::Peak)).verdict, Verdict::CannotTell(Unproven::Lost));
    assert_eq!(of(&outcome, Budget::Total(Quantity::Current)).verdict, Verdict::Fail);

    let allowed = checked(&lossy, &Budgets { max_peak: Some(1 << 30), allow_loss: true, ..Budgets::default() });
    assert!(allowed.passed() && allowed.doubts.len() == 1, "what was lost is still told");
}

#[test]
fn a_pause_or_a_broken_file_is_a_loss() {
    let attribution = Attribution::new(&[], false).expect("no patterns of a user");
    let budgets = Budgets { max_peak: Some(1 << 30), ..Budgets::default() };
    let doubts = |change: &dyn Fn(&mut Recording)| {
        let mut recording = recorded(&server());
        change(&mut recording);
        check(last(&recording), None, &budgets, &Suppressions::default(), &attribution).expect("sense").doubts
    };
    assert_eq!(doubts(&|_| ()), []);
    let pause = |recording: &mut Recording, at| {
        recording.series.push(Sample { at: Duration::from_secs(at), paused: true, ..Sample::default() });
    };
    assert_eq!(doubts(&|recording| pause(recording, 5)), [Doubt::Paused]);
    // After the snapshot.
    assert_eq!(doubts(&|recording| pause(recording, 21)), []);
    assert_eq!(doubts(&|recording| recording.snapshots[1].meta.trigger = Trigger::Pause), [Doubt::Paused]);
    assert_eq!(doubts(&|recording| recording.problems.push("cut".into())), [Doubt::Broken("cut".into())]);
}

#[test]
fn a_site_may_grow_from_the_first_snapshot_by_its_limit() {
    let budgets = |limit| Budgets { max_site_growth: Some(limit), growth_floor: 64 * KIB, ..Budgets::default() };
    let outcome = checked(&server(), &budgets(Limit::Bytes(290 * KIB)));
    assert!(outcome.passed(), "290 KiB are 290 KiB");
    let outcome = checked(&server(), &budgets(Limit::Bytes(290 * KIB - 1)));
    assert_eq!(blamed(&outcome, Budget::SiteGrowth), [("cache_add".into(), 300)]);
    // `decode` grew from nothing, which is any percentage, but by 5 KiB only.
    let outcome = checked(&server(), &budgets(Limit::Share(1.0)));
    assert_eq!(blamed(&outcome, Budget::SiteGrowth), [("cache_add".into(), 300)]);
    assert!(checked(&server(), &budgets(Limit::Share(29.0))).passed(), "from 10 to 300 KiB is 2900 %");
}

#[test]
fn growth_since_a_baseline_is_held_against_each_total_and_each_site() {
    let base = case(vec![row("cache_add", 42, &[1000, 1000]), row("decode", 101, &[1000, 1000])]);
    // One grows as the other shrinks: the totals stay.
    let moved = case(vec![row("cache_add", 42, &[1000, 1200]), row("decode", 101, &[1000, 800])]);
    let outcome = grown_since(&base, &moved, Limit::Share(0.05));
    assert_eq!(of(&outcome, Budget::Growth(Quantity::Current)).verdict, Verdict::Pass);
    assert_eq!(blamed(&outcome, Budget::GrowthOfSites(Quantity::Current)), [("cache_add".into(), 1200)]);
    assert_eq!(
        outcome.count(|verdict| verdict == Verdict::Fail),
        5,
        "live, peak, allocated of one site; all allocations"
    );

    let same = grown_since(&base, &base, Limit::Share(0.0));
    assert!(same.passed() && same.checks.len() == 7);
    let bytes = grown_since(&base, &moved, Limit::Bytes(200 * KIB));
    assert!(bytes.passed() && bytes.checks.len() == 6, "a limit in bytes says nothing of a number of allocations");
}

#[test]
fn growth_below_the_floor_is_noise() {
    let base = case(vec![row("cache_add", 42, &[10])]);
    let at_floor = case(vec![row("cache_add", 42, &[74])]);
    let above = case(vec![row("cache_add", 42, &[75])]);
    let verdict = |case| of(&grown_since(&base, case, Limit::Share(0.05)), Budget::Growth(Quantity::Peak)).verdict;
    assert_eq!(verdict(&at_floor), Verdict::Pass);
    assert_eq!(verdict(&above), Verdict::Fail);
}

#[test]
fn a_function_whose_lines_moved_is_compared_as_one() {
    let base = case(vec![row("cache_add", 42, &[500]), row("cache_add", 44, &[500])]);
    let moved = case(vec![row("cache_add", 52, &[500]), row("cache_add", 54, &[510])]);
    assert!(grown_since(&base, &moved, Limit::Share(0.05)).passed());
    let grown = case(vec![row("cache_add", 52, &[500]), row("cache_add", 54, &[900])]);
    let outcome = grown_since(&base, &grown, Limit::Share(0.05));
    assert_eq!(blamed(&outcome, Budget::GrowthOfSites(Quantity::Current)), [("cache_add".into(), 1400)]);

    // With the same lines each is compared on its own.
    let shifted = case(vec![row("cache_add", 42, &[700]), row("cache_add", 44, &[300])]);
    let outcome = grown_since(&base, &shifted, Limit::Share(0.05));
    assert_eq!(blamed(&outcome, Budget::GrowthOfSites(Quantity::Current)), [("cache_add".into(), 700)]);
}

#[test]
fn a_build_in_another_folder_is_the_same_program() {
    let base = case(vec![row("cache_add", 42, &[500])]);
    let elsewhere = Row { module: "/tmp/ci/imgsrv", file: "/runner/src/cache.c", ..row("cache_add", 42, &[500]) };
    let outcome = grown_since(&base, &case(vec![elsewhere]), Limit::Share(0.0));
    assert_eq!(of(&outcome, Budget::GrowthOfSites(Quantity::Current)).verdict, Verdict::Pass);
}

#[test]
fn losses_of_the_baseline_are_losses() {
    let base = Case { counters: [(Counter::ThreadsFull, 1)].into(), ..server() };
    let outcome = grown_since(&base, &server(), Limit::Share(0.05));
    assert_eq!(of(&outcome, Budget::Growth(Quantity::Peak)).verdict, Verdict::CannotTell(Unproven::Lost));
    assert!(report::check::text(&outcome, 5).contains("LOST: baseline: 1 calls not seen"));
}

#[test]
fn what_makes_no_sense_is_refused() {
    let attribution = Attribution::new(&[], false).expect("no patterns of a user");
    let recording = recorded(&server());
    let at = |which, budgets: Budgets| {
        let subject = Subject { recording: &recording, which };
        check(subject, None, &budgets, &Suppressions::default(), &attribution).expect_err("no sense")
    };
    let leaked = Budgets { max_leaked: Some(0), ..Budgets::default() };
    let grown = Budgets { max_site_growth: Some(Limit::Bytes(0)), ..Budgets::default() };
    let since = Budgets { max_growth: Some(Limit::Bytes(0)), ..Budgets::default() };
    assert_eq!(at(Which::Index(1), leaked), CheckError::LeaksBeforeExit(Which::Index(1)));
    assert_eq!(at(Which::Peak, leaked), CheckError::LeaksBeforeExit(Which::Peak));
    assert_eq!(at(Which::Index(0), grown), CheckError::NoEarlierSnapshot(Which::Index(0)));
    assert_eq!(at(Which::Index(2), since), CheckError::NoBaseline);
    assert_eq!(at(Which::Index(2), Budgets::default()), CheckError::NoBudget);

    let target = |exe: Option<&str>, comm: &str| TargetInfo {
        exe: exe.map(Into::into),
        comm: comm.into(),
        ..TargetInfo::default()
    };
    assert_eq!(same_program(&target(Some("/a/imgsrv"), "x"), &target(Some("/b/imgsrv"), "y")), Ok(()));
    assert!(same_program(&target(Some("/a/imgsrv"), "x"), &target(Some("/a/other"), "x")).is_err());
    assert!(same_program(&target(None, "imgsrv"), &target(Some("/a/imgsrv"), "y")).is_ok());
}

fn expect_golden(name: &str, found: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        fs::write(&path, found).expect("the golden file is writable");
    }
    let expected = fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(found, expected, "{name} (UPDATE_EXPECT=1 rewrites it)");
}

/// Fails in every way.
fn mixed() -> Outcome {
    let budgets = Budgets {
        max_peak: Some(1 << 20),
        max_current: Some(1 << 20),
        max_leaked: Some(0),
        max_allocations: Some(1000),
        max_site_growth: Some(Limit::Bytes(100 * KIB)),
        max_growth: Some(Limit::Share(0.05)),
        growth_floor: 64 * KIB,
        ..Budgets::default()
    };
    let base = case(vec![row("cache_add", 42, &[10, 100, 100]), row("decode", 101, &[0, 890, 5])]);
    let mut server = server();
    server.rows[2].churn_kib = 500;
    let rules = "leak:^log_line$\nleak:gone_since_1.2\n";
    try_check(&server, Some(&base), &budgets, rules).expect("the budgets make sense")
}

#[test]
fn the_outcome_fits_on_one_screen() {
    let text = report::check::text(&mixed(), 3);
    expect_golden("check.txt", &text);
    assert!(text.lines().count() <= 50);
    let passed = checked(&server(), &Budgets { max_peak: Some(1 << 30), ..Budgets::default() });
    expect_golden("check_passed.txt", &report::check::text(&passed, 3));
    let lossy = Case { counters: [(Counter::BlocksFull, 4000)].into(), ..server() };
    let lossy = checked(&lossy, &Budgets { max_peak: Some(1 << 30), ..Budgets::default() });
    expect_golden("check_lossy.txt", &report::check::text(&lossy, 3));
}

#[test]
fn markdown_and_junit_say_the_same() {
    expect_golden("check.md", &report::check::markdown(&mixed(), 3));
    expect_golden("check.xml", &report::check::junit(&mixed(), 3));
}

const HOSTILE: &str = "`a`|b</code></td>\n\n# x <img src=x onerror=alert(1)> \"q\" ]]>&amp; @user #1 \x1b[2J\u{202e}\0";

/// The same outcome with a name that tries everything, wherever a name can stand.
fn hostile() -> Outcome {
    let mut rows = server().rows;
    for row in &mut rows {
        (row.module, row.function, row.file) = (HOSTILE, HOSTILE, HOSTILE);
    }
    let mut recording = recorded(&case(rows));
    for info in &mut recording.snapshots {
        info.target.comm = HOSTILE.into();
    }
    recording.problems.push(HOSTILE.into());
    let attribution = Attribution::new(&[], false).expect("no patterns of a user");
    let budgets = Budgets { max_peak: Some(0), max_leaked: Some(0), ..Budgets::default() };
    let rules: Suppressions = "leak:</code>|`*_x_\n".parse().expect("a rule");
    check(last(&recording), None, &budgets, &rules, &attribution).expect("the budgets make sense")
}

#[test]
fn no_name_breaks_out_of_the_text() {
    let text = report::check::text(&hostile(), 10);
    assert!(!text.chars().any(|c| c != '\n' && (c.is_control() || c == '\u{202e}')), "{text:?}");
    assert!(!text.lines().any(|line| line.starts_with('#')), "{text}");
}

#[test]
fn no_name_breaks_out_of_the_markdown() {
    let plain: Vec<_> = report::check::markdown(&mixed(), 10).lines().map(str::to_owned).collect();
    let markdown = report::check::markdown(&hostile(), 10);
    assert!(!markdown.chars().any(|c| c != '\n' && (c.is_control() || c == '\u{202e}')), "{markdown:?}");
    let mut n_html = 0;
    for block in markdown.split("\n\n") {
        let is_html = block.trim_start().starts_with('<');
        if !is_html {
            assert!(!block.contains("alert") && !block.contains("@user"), "a name outside of HTML: {block}");
            continue;
        }
        // Well-formed, with no other elements than those of a plain outcome.
        n_html += 1;
        let mut reader = Reader::from_str(block);
        loop {
            match reader.read_event().expect("an HTML block is well-formed") {
                Event::Start(tag) | Event::Empty(tag) => {
                    let name = String::from_utf8_lossy(tag.name().as_ref()).into_owned();
                    let known = ["p", "b", "code", "details", "summary", "table", "tr", "th", "td"];
                    assert!(known.contains(&name.as_str()), "<{name}>");
                }
                Event::Eof => break,
                _ => {}
            }
        }
    }
    assert!(n_html >= 4, "the names stand in HTML blocks");
    assert!(plain.iter().any(|line| line.starts_with("<table>")));
}

#[test]
fn no_name_breaks_out_of_the_junit() {
    let outcome = hostile();
    let xml = report::check::junit(&outcome, 10);
    let mut reader = Reader::from_str(&xml);
    let (mut cases, mut elements) = (0, Vec::new());
    loop {
        match reader.read_event().expect("well-formed XML") {
            Event::Start(tag) | Event::Empty(tag) => {
                let name = String::from_utf8_lossy(tag.name().as_ref()).into_owned();
                cases += usize::from(name == "testcase");
                for attribute in tag.attributes() {
                    attribute.expect("well-formed attributes").unescape_value().expect("known entities");
                }
                elements.push(name);
            }
            Event::Eof => break,
            _ => {}
        }
    }
    assert_eq!(cases, outcome.checks.len());
    let known = ["testsuites", "testsuite", "testcase", "failure"];
    assert!(elements.iter().all(|name| known.contains(&name.as_str())), "{elements:?}");
}
