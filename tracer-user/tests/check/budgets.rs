//! What each budget allows, and what it says.

use std::time::Duration;

use tracer_common::counters::Counter;
use tracer_user::{
    analysis::check::{
        Budget, Budgets, CheckError, Doubt, Found, Limit, Quantity, Subject, Suppressions, Unproven, Verdict, check,
        same_program,
    },
    recording::{Recording, Sample, Trigger, Which},
    report,
    snapshot::TargetInfo,
    symbolize::Attribution,
};

use super::fixture::*;

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
    let matches = |rules: &str| {
        let outcome = try_check(&server(), None, &budgets, rules).expect("sense");
        let text = report::check::text(&outcome, 5);
        (outcome.suppressed.iter().map(|rule| rule.matches).collect::<Vec<_>>(), text.contains("match nothing"))
    };
    // What an earlier line took out is matched all the same.
    assert_eq!(matches("leak:src/cache.c\nleak:^cache_add$\n"), (vec![true, true], false));
    assert_eq!(matches("leak:src/cache.c\nleak:nothing_like_it\n"), (vec![true, false], true));
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
fn growth_begins_with_the_program_and_not_with_the_one_before_exec() {
    let attribution = Attribution::new(&[], false).expect("no patterns of a user");
    let budgets = Budgets { max_site_growth: Some(Limit::Bytes(0)), ..Budgets::default() };
    let none = Suppressions::default();
    let mut recording = recorded(&case(vec![row("cache_add", 42, &[10, 400, 300])]));
    assert!(!check(last(&recording), None, &budgets, &none, &attribution).expect("sense").passed());
    recording.snapshots[0].meta.trigger = Trigger::Exec;
    assert!(check(last(&recording), None, &budgets, &none, &attribution).expect("sense").passed(), "400 → 300 KiB");
    recording.snapshots[1].meta.trigger = Trigger::Exec;
    let refused = check(last(&recording), None, &budgets, &none, &attribution).expect_err("nothing before");
    assert_eq!(refused, CheckError::NoEarlierSnapshot(Which::Index(2)));
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
fn a_program_under_another_name_is_the_same_program() {
    let base = case(vec![row("cache_add", 42, &[500])]);
    let renamed = Row { module: "/srv/imgsrv-2", ..row("cache_add", 42, &[500]) };
    let renamed = Case { exe: "/srv/imgsrv-2", ..case(vec![renamed]) };
    let outcome = grown_since(&base, &renamed, Limit::Share(0.0));
    let sites = of(&outcome, Budget::GrowthOfSites(Quantity::Current));
    assert_eq!((sites.verdict, sites.found), (Verdict::Pass, Found::Sites { n_over: 0, n_compared: 1 }));
}

#[test]
fn losses_of_the_baseline_are_losses() {
    let base = Case { counters: [(Counter::ThreadsFull, 1)].into(), ..server() };
    let outcome = grown_since(&base, &server(), Limit::Share(0.05));
    assert_eq!(of(&outcome, Budget::Growth(Quantity::Peak)).verdict, Verdict::CannotTell(Unproven::Lost));
    assert!(report::check::text(&outcome, 5).contains("LOST: baseline: 1 call not seen"));
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
