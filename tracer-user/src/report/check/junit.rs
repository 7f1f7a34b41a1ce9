//! The outcome of a check as JUnit XML: a test case for each budget.

use quick_junit::{NonSuccessKind, Report, TestCase, TestCaseStatus, TestSuite};

use super::words;
use crate::{
    analysis::check::{Check, Outcome, Verdict},
    report::format::escaped,
};

/// The outcome, with `top` sites of each exceeded budget.
pub fn render(outcome: &Outcome, top: usize) -> String {
    let mut suite = TestSuite::new("memory");
    suite.set_time(outcome.traced);
    let program = escaped(&outcome.program);
    let doubts = words::doubts(outcome);
    for check in &outcome.checks {
        let mut case = TestCase::new(words::title(check.budget), status(check, &doubts, top));
        case.set_classname(program.as_str());
        suite.add_test_case(case);
    }
    let mut report = Report::new("memtrace-bpf check");
    report.add_test_suite(suite);
    report.to_string().expect("writing to memory does not fail, and the names were made valid XML")
}

fn status(check: &Check, doubts: &[String], top: usize) -> TestCaseStatus {
    let (kind, message, details) = match check.verdict {
        Verdict::Pass => return TestCaseStatus::success(),
        Verdict::Fail => ("exceeded", format!("{}, {}", words::found(check), words::allowed(check)), sites(check, top)),
        Verdict::CannotTell(reason) => {
            ("cannot tell", format!("cannot tell: {}", words::unproven(reason)), doubts.join("\n"))
        }
    };
    let mut status = TestCaseStatus::non_success(NonSuccessKind::Failure);
    status.set_type(kind).set_message(message);
    if !details.is_empty() {
        status.set_description(details);
    }
    status
}

fn sites(check: &Check, top: usize) -> String {
    let quantity = check.budget.quantity();
    let mut lines: Vec<String> = check
        .offenders
        .iter()
        .take(top)
        .map(|offender| {
            let (position, function) = (words::position(&offender.site), words::function(&offender.site));
            format!("{position}: {} {function}", words::figures(quantity, offender)).trim_end().to_owned()
        })
        .collect();
    if let Some(more) = check.offenders.len().checked_sub(top).filter(|&more| more > 0) {
        lines.push(format!("... {more} more"));
    }
    lines.join("\n")
}
