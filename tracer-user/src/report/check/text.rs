//! The outcome of a check on one screen.

use super::words;
use crate::{
    analysis::check::{Check, Outcome, Verdict},
    report::format::shortened,
};

/// The outcome, with `top` sites of each exceeded budget.
pub fn render(outcome: &Outcome, top: usize) -> String {
    let mut lines = vec![format!(
        "check of {}  {:.1} s  {}",
        words::subject(outcome),
        outcome.traced.as_secs_f64(),
        if outcome.from_start { "traced from its start" } else { "blocks from before the attach are not counted" },
    )];
    let doubts = words::doubts(outcome);
    if !doubts.is_empty() {
        let remedy = if outcome.allow_loss { "allowed by --allow-loss" } else { "--allow-loss checks all the same" };
        lines.push(format!("LOST: {} ({remedy})", doubts.join("; ")));
    }

    let columns =
        |of: fn(&Check) -> String| outcome.checks.iter().map(|check| of(check).chars().count()).max().unwrap_or(0);
    let titles = columns(|check| words::title(check.budget).to_owned());
    let found = columns(words::found);
    for check in &outcome.checks {
        lines.push(format!(
            "{:4}  {:titles$}  {:found$}  {}",
            short_verdict(check.verdict),
            words::title(check.budget),
            words::found(check),
            words::allowed(check),
        ));
        if let Verdict::CannotTell(reason) = check.verdict {
            lines.push(format!("      cannot tell: {}", words::unproven(reason)));
        }
        sites(&mut lines, check, top);
    }

    lines.extend(words::suppressed(outcome).map(|taken| format!("suppressed: {taken}")));
    let unused = outcome.suppressed.iter().filter(|rule| !rule.matches);
    let unused: Vec<_> = unused.map(|rule| format!("line {} leak:{}", rule.line, shortened(&rule.pattern))).collect();
    if !unused.is_empty() {
        lines.push(format!("suppressions that match nothing: {}", unused.join(", ")));
    }
    lines.push(words::summary(outcome));
    lines.join("\n") + "\n"
}

const fn short_verdict(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::CannotTell(_) => "????",
        other => words::verdict(other),
    }
}

/// The sites of a check, each a line.
fn sites(lines: &mut Vec<String>, check: &Check, top: usize) {
    let quantity = check.budget.quantity();
    let shown = check.offenders.iter().take(top);
    let heads: Vec<String> = (1..)
        .zip(shown.clone())
        .map(|(rank, offender)| {
            format!("      #{rank} {}: {}", words::position(&offender.site), words::figures(quantity, offender))
        })
        .collect();
    let width = heads.iter().map(|head| head.chars().count()).max().unwrap_or(0);
    for (head, offender) in heads.iter().zip(shown) {
        let function = words::function(&offender.site);
        lines.push(if function.is_empty() { head.clone() } else { format!("{head:width$}     {function}") });
    }
    if let Some(more) = check.offenders.len().checked_sub(top).filter(|&more| more > 0) {
        lines.push(format!("      ... {more} more site{}", if more == 1 { "" } else { "s" }));
    }
}
