//! The outcome of a check for a pull request comment or a job summary (GitHub and GitLab flavours).
//!
//! Names from targets stand in HTML blocks only. Markdown is not parsed there (CommonMark 0.31, §4.6, kind 6: to the next blank
//! line), so that `&`, `<`, `>` and quotes are all there is to escape; and names have no line breaks left.

use std::fmt::Write;

use super::words;
use crate::{
    analysis::check::{Check, Outcome, Verdict},
    report::format::shortened,
};

/// The outcome, with `top` sites of each exceeded budget.
pub fn render(outcome: &Outcome, top: usize) -> String {
    let sign = if outcome.passed() { "✅" } else { "❌" };
    let mut out = format!("### {sign} Memory check: {}\n\n", words::summary(outcome));
    let _infallible = write!(
        out,
        "<p>Program <code>{}</code>{}, traced for {:.1} s{}.</p>\n\n",
        html(&shortened(&outcome.program)),
        match &outcome.scope {
            Some((_, n)) if *n > 1 => format!(", {n} processes together"),
            _ => String::new(),
        },
        outcome.traced.as_secs_f64(),
        if outcome.from_start { " from its start" } else { "; blocks from before the attach are not counted" },
    );
    let doubts = words::doubts(outcome);
    if !doubts.is_empty() {
        let allowed = if outcome.allow_loss { " (allowed by <code>--allow-loss</code>)" } else { "" };
        let _infallible = write!(out, "<p><b>Lost</b>{allowed}: {}</p>\n\n", html(&doubts.join("; ")));
    }
    out.push_str("| | Budget | Found | Allowed |\n|---|---|---|---|\n");
    for check in &outcome.checks {
        let found = match check.verdict {
            Verdict::CannotTell(reason) => format!("{}; cannot tell: {}", words::found(check), words::unproven(reason)),
            _ => words::found(check),
        };
        let _infallible = writeln!(
            out,
            "| {} | {} | {found} | {} |",
            mark(check.verdict),
            words::title(check.budget),
            words::allowed(check)
        );
    }
    for check in outcome.checks.iter().filter(|check| !check.offenders.is_empty()) {
        push_sites(&mut out, check, top);
    }
    if let Some(taken) = words::suppressed(outcome) {
        let _infallible = write!(out, "\n<p>Suppressed: {taken}</p>\n");
    }
    let unused: Vec<_> = outcome.suppressed.iter().filter(|rule| !rule.matches).collect();
    if !unused.is_empty() {
        let rules = unused
            .iter()
            .map(|rule| format!("line {} <code>leak:{}</code>", rule.line, html(&shortened(&rule.pattern))));
        let _infallible =
            write!(out, "\n<p>Suppressions that match nothing: {}</p>\n", rules.collect::<Vec<_>>().join(", "));
    }
    out
}

const fn mark(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Pass => "✅",
        Verdict::Fail => "❌",
        Verdict::CannotTell(_) => "❔",
    }
}

fn push_sites(out: &mut String, check: &Check, top: usize) {
    let _infallible =
        write!(out, "\n<details open><summary>Sites: {}</summary>\n<table>\n", words::title(check.budget));
    out.push_str("<tr><th>Site</th><th>Function</th><th>Figures</th></tr>\n");
    for offender in check.offenders.iter().take(top) {
        let _infallible = writeln!(
            out,
            "<tr><td><code>{}</code></td><td><code>{}</code></td><td>{}</td></tr>",
            html(&words::position(&offender.site)),
            html(&words::function(&offender.site)),
            words::figures(check.budget.quantity(), offender),
        );
    }
    if let Some(more) = check.offenders.len().checked_sub(top).filter(|&more| more > 0) {
        let _infallible = writeln!(out, "<tr><td colspan=\"3\">… {more} more</td></tr>");
    }
    out.push_str("</table>\n</details>\n");
}

/// Text as HTML has it.
fn html(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}
