//! The forms of an outcome: as they look, and that no name breaks out of them.

use std::{fs, path::Path};

use quick_xml::{Reader, events::Event};
use tracer_common::counters::Counter;
use tracer_user::{
    analysis::check::{Budgets, Limit, Outcome, Suppressions, check},
    report,
    symbolize::Attribution,
};

use super::fixture::*;

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
