//! The text of leak suspects, and of live bytes by age.

use std::fmt::Write as _;

use super::{
    bar::{amount_bar, range_bar},
    format::{escaped, grouped, percent, shortened, signed_size, size, size_f64},
    owner::subject,
    snapshots::seconds,
    text::{column, label, losses, more_lines, push_line, push_traceback, scope, tail},
};
use crate::{
    analysis::{
        age::{AgeSums, Ages, Pattern},
        growth::{Growth, SiteGrowth},
        trend::{Course, Trend},
    },
    options::{Key, ReportOptions, View},
    snapshot::Snapshot,
    symbolize::Names,
};

const SECONDS_A_DAY: f64 = 86_400.0;
/// Snapshots of which fewer are worth a word: noise passes for growth once in a thousand sites or more.
const FEW_POINTS: usize = 7;
/// Marks shown.
const MAX_MARKS: usize = 8;
/// Lines of the total by age; more generations are summed up.
const MAX_AGE_ROWS: usize = 12;

/// The sites that grow, those that levelled off below them. `snapshot` is the last of the recording called `title`.
pub fn render(growth: &Growth<'_>, snapshot: &Snapshot, names: &Names, title: &str, options: &ReportOptions) -> String {
    let mut out = String::new();
    push_line(&mut out, &header("growth", title, snapshot));
    let (first, last) = (growth.seconds[0], growth.seconds[growth.seconds.len() - 1]);
    let mut scope_line = format!("{} snapshots, {first:.1} s to {last:.1} s", growth.seconds.len());
    if growth.seconds.len() + growth.n_before_exec < growth.n_snapshots {
        let _infallible = write!(scope_line, " (evenly picked of {})", growth.n_snapshots - growth.n_before_exec);
    }
    if growth.n_before_exec > 0 {
        let _infallible = write!(scope_line, "; the {} before exec left out", growth.n_before_exec);
    }
    let total = &growth.total;
    let _infallible = write!(
        scope_line,
        ": current {} ({}), {}  {}",
        size(total.bytes[total.bytes.len() - 1]),
        signed_size(i128::from(total.trend.growth_bytes)),
        match total.trend.course {
            Course::Grows => rate(&total.trend),
            Course::LevelsOff => "levelled off".to_owned(),
            Course::Steady => "no steady growth".to_owned(),
        },
        range_bar(&total.bytes)
    );
    push_line(&mut out, &scope_line);
    if !growth.marks.is_empty() {
        let shown = growth.marks.iter().take(MAX_MARKS);
        let mut marks: Vec<String> =
            shown.map(|mark| format!("{} {}", seconds(mark.at), shortened(&mark.text))).collect();
        if growth.marks.len() > MAX_MARKS {
            marks.push(format!("{} more (see report --list)", growth.marks.len() - MAX_MARKS));
        }
        push_line(&mut out, &format!("marks: {}", marks.join(", ")));
    }
    let n_points = growth.seconds.len();
    if n_points < FEW_POINTS {
        // Of n! orders one rises throughout.
        let share = 1.0 / (2..=n_points).product::<usize>() as f64;
        let note = format!(
            "{n_points} snapshots are few: {} of sites that only fluctuate look as if they grew",
            percent(share)
        );
        push_line(&mut out, &format!("note: {note}"));
    }
    push_notes(&mut out, snapshot, options.cumulative);

    let shown = growth.sites.len().min(options.top);
    let n_growing = growth.sites.iter().filter(|site| site.series.trend.course == Course::Grows).count();
    if n_growing == 0 {
        let within = if growth.n_left_out > 0 { " within the limits" } else { "" };
        push_line(&mut out, &format!("no site{within} grows steadily"));
    }
    let heads: Vec<String> =
        (1..).zip(&growth.sites[..shown]).map(|(rank, site)| head(rank, site, snapshot, growth.key)).collect();
    let width = column(&heads);
    for (at, (site, head)) in growth.sites.iter().zip(heads).enumerate() {
        if at == n_growing {
            push_line(&mut out, "levelled off (nearly no growth in the last third):");
        }
        let tail = tail(&site.line, snapshot, growth.key);
        push_line(&mut out, format!("{head:width$}  {}  {tail}", range_bar(&site.series.bytes)).trim_end());
        if growth.key == Key::Traceback {
            push_traceback(&mut out, site.line.largest, snapshot, names, options.depth);
        }
    }
    let n_hidden = growth.sites.len() - shown;
    let n_still_growing = n_growing.saturating_sub(shown);
    let more = [
        (n_still_growing, "more that grew".to_owned()),
        (n_hidden - n_still_growing, "more that levelled off".to_owned()),
        (growth.n_left_out, format!("that grew left out by {}", options.limits())),
    ];
    let more: Vec<String> = more.into_iter().filter(|(n, _)| *n > 0).map(|(n, what)| format!("{n} {what}")).collect();
    let more = if more.is_empty() { String::new() } else { format!("... {}; ", more.join(", ")) };
    push_line(&mut out, &format!("{more}{} stand still, shrink or fluctuate", grouped(growth.n_steady as u64)));
    out
}

/// Live bytes by age, in total and by site.
pub fn render_ages(
    ages: &Ages<'_>,
    snapshot: &Snapshot,
    names: &Names,
    title: &str,
    options: &ReportOptions,
) -> String {
    let mut out = String::new();
    push_line(&mut out, &header("age", title, snapshot));
    let all = ages.generations.first().map_or(0.0, |generation| generation.oldest_seconds);
    push_line(
        &mut out,
        &format!(
            "live bytes by age, {} generations; bars run from the oldest ({}) to now",
            ages.generations.len(),
            age(all)
        ),
    );
    push_line(&mut out, &format!("total: {}", age_figures(&ages.total)));
    let each = ages.generations.len().div_ceil(MAX_AGE_ROWS).max(1);
    let sum = |of: &[u64]| of.iter().fold(0_u64, |sum, one| sum.saturating_add(*one));
    let sums = ages.total.bytes.chunks(each).zip(ages.total.counts.chunks(each));
    for (generations, (bytes, counts)) in ages.generations.chunks(each).zip(sums) {
        let (bytes, count) = (sum(bytes), sum(counts));
        let (Some(oldest), Some(youngest), 1..) = (generations.first(), generations.last(), count) else { continue };
        let (youngest, oldest) = (age(youngest.youngest_seconds), age(oldest.oldest_seconds));
        let share = percent(bytes as f64 / ages.total.sum().max(1) as f64);
        push_line(&mut out, &format!("  {youngest} to {oldest} old: size={}, count={count}, {share}", size(bytes)));
    }
    push_notes(&mut out, snapshot, options.cumulative);
    let shown = ages.sites.len().min(options.top);
    let heads: Vec<String> = (1..)
        .zip(&ages.sites[..shown])
        .map(|(rank, site)| format!("#{rank} {}: {}", label(&site.line, snapshot, ages.key), age_figures(&site.sums)))
        .collect();
    let width = column(&heads);
    for (site, head) in ages.sites.iter().zip(heads) {
        let tail = tail(&site.line, snapshot, ages.key);
        push_line(&mut out, format!("{head:width$}  {tail}").trim_end());
        if ages.key == Key::Traceback {
            push_traceback(&mut out, site.line.largest, snapshot, names, options.depth);
        }
    }
    if let Some(line) = more_lines(ages.sites.len() - shown + ages.n_left_out, ages.n_left_out, options) {
        push_line(&mut out, &line);
    }
    out
}

fn header(what: &str, title: &str, snapshot: &Snapshot) -> String {
    format!("{what} of {}  {}  {}", shortened(title), subject(snapshot), losses(snapshot))
}

fn push_notes(out: &mut String, snapshot: &Snapshot, cumulative: bool) {
    for note in &snapshot.notes {
        push_line(out, &format!("note: {}", escaped(note)));
    }
    if let Some(line) = scope(View::Live, cumulative) {
        push_line(out, &line);
    }
}

/// `#1 src/leak.c:12: +100 B/s (8437 KiB a day), size=5900 B (+5800 B), grew in 100 % of intervals, confidence >99.9 %`
fn head(rank: usize, site: &SiteGrowth<'_>, snapshot: &Snapshot, key: Key) -> String {
    let trend = &site.series.trend;
    let totals = &site.line.totals;
    let figures = format!("size={} ({})", size(totals.current_bytes), signed_size(i128::from(trend.growth_bytes)));
    let pace = match trend.course {
        Course::Grows => format!("{} ({} a day), ", rate(trend), size_f64(trend.bytes_per_second * SECONDS_A_DAY)),
        Course::LevelsOff | Course::Steady => String::new(),
    };
    format!(
        "#{rank} {}: {pace}{figures}, count={}, grew in {} of intervals, confidence {}",
        label(&site.line, snapshot, key),
        totals.current_count,
        percent(trend.grew_share),
        confidence(trend.confidence)
    )
}

/// `+100 B/s`, `+0.3 B/s`.
fn rate(trend: &Trend) -> String {
    let rate = trend.bytes_per_second;
    if rate.abs() < 10.0 { format!("{rate:+.1} B/s") } else { format!("{}/s", signed_size(rate.round() as i128)) }
}

/// Never 100 %: a test on samples is not certain.
fn confidence(share: f64) -> String {
    if share > 0.999 { ">99.9 %".to_owned() } else { format!("{:.1} %", (share * 1000.0).floor() / 10.0) }
}

fn age_figures(sums: &AgeSums) -> String {
    let count = sums.counts.iter().fold(0_u64, |sum, count| sum.saturating_add(*count));
    let pattern = match sums.pattern {
        Some(Pattern::Spread) => ", of all ages (leak-like)",
        Some(Pattern::Old) => ", all old (initialisation)",
        Some(Pattern::New) => ", all new (work in progress)",
        Some(Pattern::Mixed) => ", of mixed ages",
        None => "",
    };
    format!(
        "size={}, count={count}, median age ~{}{pattern}  [{}]",
        size(sums.sum()),
        age(sums.median_seconds),
        amount_bar(&sums.bytes)
    )
}

/// `0.5 s`, `90 s`, `17 min`, `5.2 h`.
fn age(seconds: f64) -> String {
    if seconds < 10.0 {
        format!("{seconds:.1} s")
    } else if seconds < 120.0 {
        format!("{seconds:.0} s")
    } else if seconds < 7200.0 {
        format!("{:.0} min", seconds / 60.0)
    } else {
        format!("{:.1} h", seconds / 3600.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn confidence_is_never_certain_and_never_rounded_up() {
        for (share, expected) in [(1.0, ">99.9 %"), (0.9995, ">99.9 %"), (0.9989, "99.8 %"), (0.0, "0.0 %")] {
            assert_eq!(confidence(share), expected);
        }
    }

    #[test]
    fn ages_are_in_the_unit_that_people_use() {
        for (seconds, expected) in [(0.25, "0.2 s"), (60.0, "60 s"), (600.0, "10 min"), (18_720.0, "5.2 h")] {
            assert_eq!(age(seconds), expected);
        }
    }
}
