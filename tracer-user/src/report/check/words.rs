//! The words and figures that all forms of a check's outcome share. Names come out with their hazards spelled out.

use std::fmt::Write;

use crate::{
    analysis::check::{
        Allowed, Budget, Check, Doubt, Found, Limit, Offender, Outcome, Quantity, SiteName, Suppressed, Unproven,
        Verdict,
    },
    report::format::{counted, escaped, grouped, percent, short_path, shortened, size},
};

/// Which process; of many, that the budgets are for all of them.
pub(super) fn subject(outcome: &Outcome) -> String {
    let program = format!("pid {} ({})", outcome.pid, shortened(&outcome.program));
    let Some((scope, n_processes)) = &outcome.scope else { return program };
    let scope = if scope.is_empty() { program } else { shortened(scope) };
    match n_processes {
        1 => format!("{scope}, 1 process"),
        n => format!("{scope}, {n} processes together"),
    }
}

/// What is checked.
pub(super) const fn title(budget: Budget) -> &'static str {
    match budget {
        Budget::Total(Quantity::Peak) => "peak",
        Budget::Total(Quantity::Current) => "current",
        Budget::Total(Quantity::Allocated) => "allocated",
        Budget::Total(Quantity::Allocations) => "allocations",
        Budget::Leaked => "leaked",
        Budget::SiteGrowth => "growth of each site",
        Budget::Growth(Quantity::Peak) => "growth of peak",
        Budget::Growth(Quantity::Current) => "growth of current",
        Budget::Growth(Quantity::Allocated) => "growth of allocated",
        Budget::Growth(Quantity::Allocations) => "growth of allocations",
        Budget::GrowthOfSites(Quantity::Peak) => "growth of each site at the peak",
        Budget::GrowthOfSites(Quantity::Current) => "growth of each site, live",
        Budget::GrowthOfSites(Quantity::Allocated | Quantity::Allocations) => "growth of each site, allocated",
    }
}

/// One word.
pub(super) const fn verdict(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Pass => "ok",
        Verdict::Fail => "FAIL",
        Verdict::CannotTell(_) => "cannot tell",
    }
}

/// What there is: `22.9 MiB in 130 000 blocks`, `4096 B → 8192 B (+4096 B, +100 %)`, `3 of 17 sites exceed it`.
pub(super) fn found(check: &Check) -> String {
    let quantity = check.budget.quantity();
    match check.found {
        Found::Amount { value, .. } if !quantity.is_bytes() => grouped(value),
        // The peak of many processes is known in bytes alone.
        Found::Amount { value: value @ 1.., count: 0 } if quantity == Quantity::Peak => size(value),
        Found::Amount { value, count } => format!("{} in {}", size(value), blocks(count)),
        Found::Change { before, after } => {
            let mut text = format!("{} → {}", amount(quantity, before), amount(quantity, after));
            if before != after {
                let _infallible = write!(text, " ({}{})", signed(quantity, before, after), share(before, after));
            }
            text
        }
        Found::Sites { n_over, n_compared } => {
            format!("{} of {} sites exceed it", grouped(n_over as u64), grouped(n_compared as u64))
        }
    }
}

/// What may be: `at most 64.0 MiB`, `at most +5 % or +64.0 KiB`.
pub(super) fn allowed(check: &Check) -> String {
    let quantity = check.budget.quantity();
    match check.allowed {
        Allowed::AtMost(limit) => format!("at most {}", amount(quantity, limit)),
        Allowed::Growth(Limit::Bytes(bytes), _) => format!("at most +{}", size(bytes)),
        Allowed::Growth(Limit::Share(share), None) => format!("at most +{}", plain_percent(share)),
        Allowed::Growth(Limit::Share(share), Some(floor)) => {
            format!("at most +{} or +{}", plain_percent(share), size(floor))
        }
    }
}

/// Why a budget is unproven.
pub(super) const fn unproven(reason: Unproven) -> &'static str {
    match reason {
        Unproven::Lost => "not everything was seen",
        Unproven::StillRunning => "the process was still running when the recording ended: what it leaves is not known",
    }
}

/// Why figures may be too low.
pub(super) fn doubt(doubt: &Doubt) -> String {
    match doubt {
        Doubt::Lost(counter, amount) => counted(*amount, *counter),
        Doubt::Paused => "tracing was paused for a while".to_owned(),
        Doubt::Broken(what) => format!("the recording is not whole: {}", escaped(what)),
    }
}

/// All doubts, those of the baseline named as such.
pub(super) fn doubts(outcome: &Outcome) -> Vec<String> {
    let own = outcome.doubts.iter().map(doubt);
    own.chain(outcome.baseline_doubts.iter().map(|doubt_| format!("baseline: {}", doubt(doubt_)))).collect()
}

/// What suppressions took out: `1024 B in 1 block`; `None`: nothing.
pub(super) fn suppressed(outcome: &Outcome) -> Option<String> {
    let sum = |(bytes, count), rule: &Suppressed| (bytes + rule.bytes, count + rule.count);
    let (bytes, count) = outcome.suppressed.iter().fold((0, 0), sum);
    (count > 0).then(|| format!("{} in {}", size(bytes), blocks(count)))
}

/// `src/cache.c:42`, or `libfoo.so+0x1f30 (no symbols)`.
pub(super) fn position(site: &SiteName) -> String {
    let module = site.module.as_deref().map(shortened);
    match (&site.file, site.line) {
        (Some(file), Some(line)) => format!("{}:{line}", short_path(file)),
        (Some(file), None) => short_path(file),
        (None, _) => {
            let reason = match &site.function {
                Ok(_) => "no line info".to_owned(),
                Err(reason) => shortened(&reason.to_string()),
            };
            match module {
                Some(module) => format!("{module}+{:#x} ({reason})", site.address),
                None if site.address == 0 => "<no stack>".to_owned(),
                None => format!("{:#x} ({reason})", site.address),
            }
        }
    }
}

/// The function's name; empty where it has none.
pub(super) fn function(site: &SiteName) -> String {
    site.function.as_deref().map(shortened).unwrap_or_default()
}

/// `size=776 KiB, count=5000`, `size=8173 KiB (+4428 KiB), count=71332`.
pub(super) fn figures(quantity: Quantity, offender: &Offender) -> String {
    let change =
        offender.before.map_or_else(String::new, |before| format!(" ({})", signed(quantity, before, offender.value)));
    if quantity.is_bytes() {
        format!("size={}{change}, count={}", size(offender.value), offender.count)
    } else {
        format!("count={}{change}", offender.value)
    }
}

/// `5 budgets: 3 ok, 2 exceeded`.
pub(super) fn summary(outcome: &Outcome) -> String {
    let n = outcome.checks.len();
    let (failed, unknown) = (
        outcome.count(|verdict| verdict == Verdict::Fail),
        outcome.count(|verdict| matches!(verdict, Verdict::CannotTell(_))),
    );
    let mut text = format!("{n} budget{} checked: {} ok", if n == 1 { "" } else { "s" }, n - failed - unknown);
    if failed > 0 {
        let _infallible = write!(text, ", {failed} exceeded");
    }
    if unknown > 0 {
        let _infallible = write!(text, ", {unknown} cannot be told");
    }
    text
}

/// `1 block`, `10 000 blocks`.
pub(super) fn blocks(count: u64) -> String {
    format!("{} block{}", grouped(count), if count == 1 { "" } else { "s" })
}

fn amount(quantity: Quantity, value: u64) -> String {
    if quantity.is_bytes() { size(value) } else { grouped(value) }
}

/// `+4428 KiB`.
fn signed(quantity: Quantity, before: u64, after: u64) -> String {
    let sign = if after >= before { '+' } else { '-' };
    format!("{sign}{}", amount(quantity, after.abs_diff(before)))
}

/// `, +12 %`; nothing where there was nothing before.
fn share(before: u64, after: u64) -> String {
    if before == 0 {
        return String::new();
    }
    let sign = if after >= before { '+' } else { '-' };
    format!(", {sign}{}", percent(after.abs_diff(before) as f64 / before as f64))
}

/// The limit as it was given.
fn plain_percent(share: f64) -> String {
    // Rounded to what a user would type: 0.05 × 100 is not 5.
    format!("{} %", (share * 1e6).round() / 1e4)
}
