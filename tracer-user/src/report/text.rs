//! The text report, in the form that tracemalloc's users know.

use std::{fmt::Write, ops::Range, time::Duration};

use tracer_common::{abi::StackEnd, counters::Counter};

use super::{
    format::{counted, escaped, grouped, percent, short_path, shortened, size, size_f64},
    owner, processes,
};
use crate::{
    analysis::{
        processes::Moment,
        statistics::{Rest, Statistic, Statistics, module_of},
    },
    options::{Domains, Key, ReportOptions, Sort, View},
    snapshot::{Domain, LOSSES, LOSSES_FROM_START, Snapshot, StackStats, Tid, Totals},
    symbolize::{FrameName, Names, Place, module_name},
};

/// Columns up to which the function names after the figures are aligned.
const MAX_ALIGNED: usize = 100;

/// Counters that are no loss, but tell about the target.
const DETAILS: &[Counter] = &[
    Counter::FreesUnknown,
    Counter::Failed,
    Counter::FreesInherited,
    Counter::Execs,
    Counter::MappingsFailed,
    Counter::RemapsUnknown,
    Counter::GivenBackBytes,
];

/// Counters of truncated stacks and the end that each counts.
const TRUNCATIONS: &[(Counter, StackEnd)] = &[
    (Counter::TruncatedDepth, StackEnd::Depth),
    (Counter::TruncatedNoMapping, StackEnd::NoMapping),
    (Counter::TruncatedNoRow, StackEnd::NoRow),
    (Counter::TruncatedUnsupported, StackEnd::Unsupported),
    (Counter::TruncatedReadFailed, StackEnd::ReadFailed),
    (Counter::TruncatedNoProgress, StackEnd::NoProgress),
];

/// The report. `quiet` leaves out details and notes; what is lost always stands in the first line.
pub fn render(snapshot: &Snapshot, statistics: &Statistics<'_>, options: &ReportOptions, quiet: bool) -> String {
    render_since(snapshot, None, statistics, options, quiet)
}

/// The same; rates of many processes are those since an earlier moment, not since each joined.
pub fn render_since(
    snapshot: &Snapshot,
    earlier: Option<&Moment>,
    statistics: &Statistics<'_>,
    options: &ReportOptions,
    quiet: bool,
) -> String {
    let mut out = String::new();
    let (is_of_many, domains) = (snapshot.is_of_many(), options.domains);
    push_line(&mut out, &if is_of_many { processes::header(snapshot, domains) } else { header(snapshot, domains) });
    if let (Domains::All, Some(mmap)) = (domains, &snapshot.mmap) {
        push_line(&mut out, &format!("mmap  {}", sums(mmap, snapshot)));
    }
    push_line(&mut out, &overhead(snapshot));
    if let Some(verdict) = super::verdict::one_line(snapshot) {
        push_line(&mut out, &verdict);
    }
    if !quiet {
        if let Some(details) = details(snapshot) {
            push_line(&mut out, &details);
        }
        for note in &snapshot.notes {
            push_line(&mut out, &format!("note: {}", escaped(note)));
        }
        if is_of_many {
            if let Some(inherited) = processes::inherited(snapshot) {
                push_line(&mut out, &inherited);
            }
            processes::push_top(&mut out, snapshot, earlier, options);
        }
    }
    if let Some(line) = processes::about_peaks(snapshot, statistics.key, statistics.view, statistics.sort) {
        push_line(&mut out, line);
    }
    if let Some(line) = scope(statistics.view, statistics.cumulative) {
        let is_of_peak = matches!(statistics.view, View::Live | View::Peak);
        let by = if is_of_peak { None } else { snapshot.counted_until };
        let by = by.map(|by| format!(", by {:.1} s (only what is live is known at the peak)", by.as_secs_f64()));
        push_line(&mut out, &format!("{line}{}", by.unwrap_or_default()));
    }
    let mut rest = statistics.left_out;
    let mut shown = Vec::new();
    for line in statistics.shown() {
        if shown.len() < options.top { shown.push(line) } else { rest.add(line) }
    }
    if shown.is_empty() && rest.n_lines == 0 {
        push_line(&mut out, "no blocks");
    }
    let heads: Vec<String> =
        shown.iter().enumerate().map(|(i, line)| head(i + 1, line, snapshot, statistics)).collect();
    let width = column(&heads);
    for (line, head) in shown.into_iter().zip(heads) {
        let tail = tail(line, snapshot, statistics.key);
        push_line(&mut out, &if tail.is_empty() { head } else { format!("{head:width$}     {tail}") });
        if statistics.key == Key::Traceback {
            push_traceback(&mut out, line.largest, snapshot, statistics.names, options.depth);
        }
    }
    if let Some(line) = rest_line(&rest, statistics, options) {
        push_line(&mut out, &line);
    }
    out
}

/// Where what follows the figures is aligned.
pub(super) fn column(heads: &[String]) -> usize {
    heads.iter().map(|head| head.chars().count()).filter(|&width| width <= MAX_ALIGNED).max().unwrap_or(0)
}

pub(super) fn push_line(out: &mut String, line: &str) {
    out.push_str(line);
    out.push('\n');
}

/// `pid 4711 (imgsrv)  12.4 s  current 15.2 MiB in 100 042 blocks  peak 22.9 MiB  …  nothing lost`
fn header(snapshot: &Snapshot, domains: Domains) -> String {
    format!(
        "pid {} ({})  {}  {}{}  {}",
        snapshot.target.pid,
        shortened(&snapshot.target.comm),
        moment(snapshot),
        of_domain(domains),
        sums(&snapshot.totals, snapshot),
        losses(snapshot),
    )
}

/// `12.4 s`, `peak at 12.4 s`.
pub(super) fn moment(snapshot: &Snapshot) -> String {
    let at = if snapshot.counted_until.is_some() { "peak at " } else { "" };
    format!("{at}{:.1} s", snapshot.duration.as_secs_f64())
}

/// `by 70.0 s: ` before figures that are not of the snapshot's own moment.
pub(super) fn by_then(snapshot: &Snapshot) -> String {
    snapshot.counted_until.map_or_else(String::new, |until| format!("by {:.1} s: ", until.as_secs_f64()))
}

/// What stands before totals that are not the heap's.
pub(super) const fn of_domain(domains: Domains) -> &'static str {
    match domains {
        Domains::Mmap => "mmap  ",
        Domains::Heap | Domains::All => "",
    }
}

/// `current 15.2 MiB in 100 042 blocks  peak 22.9 MiB  allocated 1.2 GiB in 7 000 000`
fn sums(totals: &Totals, snapshot: &Snapshot) -> String {
    format!(
        "current {} in {} blocks  peak {}  {}allocated {} in {}",
        size(totals.current_bytes),
        grouped(totals.current_count),
        size(totals.peak_bytes),
        by_then(snapshot),
        size(totals.allocated_bytes),
        grouped(totals.allocated_count),
    )
}

/// What is missing and by how much; then the share of stacks that are truncated, and of the live bytes that hang on them.
pub(super) fn losses(snapshot: &Snapshot) -> String {
    let counters = &snapshot.counters;
    let from_start = if snapshot.from_start { LOSSES_FROM_START } else { &[] };
    let counted_ones = LOSSES.iter().chain(from_start).filter(|&&counter| counters.get(counter) > 0).map(|&counter| {
        let lost = counted(counters.get(counter), counter);
        match counter {
            Counter::BlocksFull => format!("{lost}: {}", size(counters.get(Counter::BlocksFullBytes))),
            _ => lost,
        }
    });
    let cut = snapshot.is_cut.then(|| "what came after this snapshot, for the recording is not whole".to_owned());
    let lost: Vec<String> = counted_ones.chain(paused(&snapshot.pauses)).chain(cut).collect();
    let mut out = if lost.is_empty() { "nothing lost".to_owned() } else { format!("LOST: {}", lost.join("; ")) };

    let truncated: u64 = TRUNCATIONS.iter().map(|&(counter, _)| counters.get(counter)).sum();
    if truncated > 0 {
        let walked = counters.get(Counter::Unwound).max(truncated);
        let reasons: Vec<String> = TRUNCATIONS
            .iter()
            .filter(|&&(counter, _)| counters.get(counter) > 0)
            .map(|&(counter, end)| format!("{} {}", end.reason().unwrap_or("?"), grouped(counters.get(counter))))
            .collect();
        let share = percent(truncated as f64 / walked as f64);
        let live = live_share_of_truncated(snapshot).map(|share| format!(", {} of live bytes", percent(share)));
        let live = live.unwrap_or_default();
        let _infallible = write!(out, "; {share} of stacks truncated{live}: {}", reasons.join(", "));
    }
    out
}

/// What happened while the probes were taken away.
fn paused(pauses: &[Range<Duration>]) -> Option<String> {
    let lengths = pauses.iter().map(|pause| pause.end.saturating_sub(pause.start));
    // A forged recording adds up to anything.
    let seconds = lengths.fold(Duration::ZERO, Duration::saturating_add).as_secs_f64();
    match pauses.len() {
        0 => None,
        1 => Some(format!("what happened in a pause of {seconds:.1} s")),
        n => Some(format!("what happened in {n} pauses of {seconds:.1} s together")),
    }
}

/// Live bytes whose stack is truncated, of all; `None` where nothing is live.
fn live_share_of_truncated(snapshot: &Snapshot) -> Option<f64> {
    let bytes = |stack: &StackStats| stack.totals.current_bytes;
    // A forged recording adds up to anything.
    let live = |stacks: &mut dyn Iterator<Item = &StackStats>| stacks.map(bytes).fold(0, u64::saturating_add);
    let all = live(&mut snapshot.stacks.iter());
    let truncated = live(&mut snapshot.stacks.iter().filter(|stack| stack.stack.end != StackEnd::Root));
    (all > 0).then(|| truncated as f64 / all as f64)
}

/// The tool's own cost.
fn overhead(snapshot: &Snapshot) -> String {
    let overhead = &snapshot.overhead;
    format!(
        "{}{}probes {} hits, {}/s, {} of {} CPU  kernel tables {}  tracer {}",
        by_then(snapshot),
        if snapshot.target.running || snapshot.is_of_many() { "" } else { "target ended  " },
        grouped(overhead.hits),
        grouped(overhead.hits_per_second.max(0.0).round() as u64),
        overhead.estimated_share.map_or_else(|| "unknown share".to_owned(), |share| format!("~{}", percent(share))),
        if snapshot.is_of_many() { "the processes'" } else { "the target's" },
        size(overhead.kernel_map_bytes),
        size(overhead.rss_bytes),
    )
}

/// What is no loss but worth a line.
fn details(snapshot: &Snapshot) -> Option<String> {
    let ordinary = if snapshot.from_start { &[] } else { LOSSES_FROM_START };
    let seen: Vec<String> = ordinary
        .iter()
        .chain(DETAILS)
        .filter(|&&counter| snapshot.counters.get(counter) > 0)
        .map(|&counter| counted(snapshot.counters.get(counter), counter))
        .collect();
    (!seen.is_empty()).then(|| format!("also seen: {}", seen.join("; ")))
}

/// What size and count are of, where that is not what is live at the site; and that lines overlap, where they do.
pub(super) fn scope(view: View, cumulative: bool) -> Option<String> {
    let of = match view {
        View::Live => None,
        View::Peak => Some("size and count: live at the peak"),
        View::Allocated => Some("size and count: ever allocated"),
        View::Freed | View::Temporary => Some("size and count: freed while traced"),
    };
    let overlap = cumulative.then_some("cumulative: every frame of a stack counts (recursion once), so lines overlap");
    let said: Vec<&str> = overlap.into_iter().chain(of).collect();
    (!said.is_empty()).then(|| said.join("; "))
}

/// `#1 src/cache.c:42: size=15.2 MiB, count=100000, average=159 B`
fn head(rank: usize, line: &Statistic<'_>, snapshot: &Snapshot, statistics: &Statistics<'_>) -> String {
    let totals = &line.totals;
    let mut out = format!("#{rank} {}: {}", label(line, snapshot, statistics.key), figures(totals, statistics.view));
    out.push_str(&average(statistics.view.size(totals), statistics.view.count(totals)));
    out.push_str(&sorted_figures(totals, statistics));
    if statistics.view == View::Temporary && statistics.lifetimes_known && totals.freed_count > 0 {
        let share = |count: u64| percent(count as f64 / totals.freed_count as f64);
        let (soon, later) = (share(totals.freed_within_1ms_count), share(totals.freed_within_1s_count));
        let _infallible = write!(out, ", within 1 ms {soon}, within 1 s {later}");
    }
    out
}

fn figures(totals: &Totals, view: View) -> String {
    format!("size={}, count={}", size(view.size(totals)), view.count(totals))
}

/// `, average=159 B`; nothing where there is no block.
pub(super) fn average(size_bytes: u64, count: u64) -> String {
    if count == 0 { String::new() } else { format!(", average={}", size_f64(size_bytes as f64 / count as f64)) }
}

/// What the line is sorted by, where that is not its size or count; of processes all that there is.
fn sorted_figures(totals: &Totals, statistics: &Statistics<'_>) -> String {
    match (statistics.sort, statistics.view) {
        _ if statistics.key.is_owner() => {
            let (peak, allocated) = (size(totals.peak_bytes), size(totals.allocated_bytes));
            format!(", peak={peak}, allocated={allocated} in {}", totals.allocated_count)
        }
        (Sort::Size | Sort::Count, _) | (Sort::Peak, View::Peak) | (Sort::Allocated, View::Allocated) => String::new(),
        (Sort::Peak, _) => format!(", peak={} in {}", size(totals.peak_bytes), totals.peak_count),
        (Sort::Allocated, _) => format!(", allocated={} in {}", size(totals.allocated_bytes), totals.allocated_count),
    }
}

fn rest_line(rest: &Rest, statistics: &Statistics<'_>, options: &ReportOptions) -> Option<String> {
    let more = more_lines(rest.n_lines, statistics.left_out.n_lines, options)?;
    let sum = format!(": {}{}", figures(&rest.totals, statistics.view), sorted_figures(&rest.totals, statistics));
    let sum = if statistics.cumulative { "" } else { &sum };
    Some(format!("{more}{sum}"))
}

/// `... 12 more lines (5 left out by --min-size)`; `None`: all are shown.
pub(super) fn more_lines(n_lines: usize, n_left_out: usize, options: &ReportOptions) -> Option<String> {
    let lines = if n_lines == 1 { "line" } else { "lines" };
    let left_out = match n_left_out {
        0 => String::new(),
        n if n == n_lines => format!(" (left out by {})", options.limits()),
        n => format!(" ({n} left out by {})", options.limits()),
    };
    (n_lines > 0).then(|| format!("... {n_lines} more {lines}{left_out}"))
}

/// What a line stands for; `[mmap]` where it is not of the heap.
pub(super) fn label(line: &Statistic<'_>, snapshot: &Snapshot, key: Key) -> String {
    let label = place(line, snapshot, key);
    match line.largest.stack.domain {
        Domain::Heap => label,
        Domain::Mmap => format!("{label} [mmap]"),
    }
}

fn place(line: &Statistic<'_>, snapshot: &Snapshot, key: Key) -> String {
    if key.is_owner() {
        return owner::label(line, snapshot, key);
    }
    if key == Key::Thread {
        return thread(line.largest.stack.thread, snapshot);
    }
    let Some(site) = &line.site else { return format!("<no stack> ({})", no_stack_reason(line.largest)) };
    let module = || site.module(snapshot).map_or_else(|| "<no module>".to_owned(), |m| shortened(&module_name(m)));
    match key {
        Key::Filename => match &site.name.file {
            Some(file) => short_path(file),
            None => format!("{} ({})", module(), missing(site.name)),
        },
        Key::Function => match &site.name.function {
            Ok(function) => shortened(function),
            Err(_) => position(site.name, site.place(snapshot)),
        },
        Key::Module => module(),
        _ => position(site.name, site.place(snapshot)),
    }
}

/// `thread 4712 (worker)`
fn thread(thread: Option<Tid>, snapshot: &Snapshot) -> String {
    let Some(thread) = thread else { return "<thread not recorded>".to_owned() };
    let name = snapshot.threads.get(&thread).map(|name| format!(" ({})", shortened(name)));
    format!("thread {thread}{}", name.unwrap_or_default())
}

/// `src/cache.c:42`, or `libfoo.so+0x1f30 (no symbols)`.
fn position(name: &FrameName, place: Place<'_>) -> String {
    match (&name.file, name.line) {
        (Some(file), Some(line)) => format!("{}:{line}", short_path(file)),
        (Some(file), None) => format!("{}:?", short_path(file)),
        (None, _) => format!("{} ({})", shortened(&place.to_string()), missing(name)),
    }
}

fn missing(name: &FrameName) -> String {
    name.missing().map_or_else(String::new, |reason| shortened(&reason))
}

fn no_stack_reason(stack: &StackStats) -> &'static str {
    stack.stack.end.reason().unwrap_or("table of stacks full")
}

/// What stands after a line's figures.
pub(super) fn tail(line: &Statistic<'_>, snapshot: &Snapshot, key: Key) -> String {
    if key.is_owner() {
        return owner::tail(line, snapshot, key);
    }
    let Some(site) = &line.site else { return String::new() };
    let mut out = match key {
        Key::Lineno | Key::Traceback => site.name.function.as_deref().map(shortened).unwrap_or_default(),
        Key::Function => {
            let file = site.name.file.as_deref().map(short_path);
            let module = site.module(snapshot).map(|module| format!("({})", shortened(&module_name(module))));
            [file, module].into_iter().flatten().collect::<Vec<_>>().join(" ")
        }
        _ => String::new(),
    };
    // With the rest of the stack missing, plumbing is all there is to show; without this it would look like the culprit.
    if let Some(reason) = line.largest.stack.end.reason()
        && site.is_plumbing
        && key != Key::Traceback
    {
        let _infallible = write!(out, "{}(truncated: {reason})", if out.is_empty() { "" } else { " " });
    }
    out
}

/// The frames of a stack, innermost first, each inlined function a frame of its own.
pub(super) fn push_traceback(out: &mut String, stack: &StackStats, snapshot: &Snapshot, names: &Names, depth: usize) {
    let mut left = depth;
    let mut n_hidden = 0;
    for frame in &stack.stack.frames {
        let module = module_of(snapshot, frame.location.map(|(module, _)| module));
        let address = frame.location.map_or(frame.addr.lookup().0, |(_, vaddr)| vaddr.0);
        for name in names.of(frame).iter() {
            if left == 0 {
                n_hidden += 1;
                continue;
            }
            left -= 1;
            let mut line = String::from("    ");
            if let Ok(function) = &name.function {
                let inlined = if name.inlined { " (inlined)" } else { "" };
                let _infallible = write!(line, "{}{inlined}  ", shortened(function));
            }
            line.push_str(&position(name, Place { module, address }));
            if let (Some(_), Some(module)) = (&name.file, module) {
                let _infallible = write!(line, "  {}", shortened(&module_name(module)));
            }
            push_line(out, &line);
        }
    }
    if n_hidden > 0 {
        push_line(out, &format!("    … {n_hidden} more frames"));
    }
    if let Some(reason) = stack.stack.end.reason() {
        push_line(out, &format!("    … truncated: {reason}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Counters that no line of the report is about: each is a plain amount of what went well.
    const ORDINARY: &[Counter] = &[
        Counter::HitsEntry,
        Counter::HitsReturn,
        Counter::HitsFree,
        Counter::HitsPaused,
        Counter::HitsOutside,
        Counter::Nested,
        Counter::FreesOfNull,
        Counter::ThreadsEnded,
        Counter::Unwound,
        Counter::ForksFollowed,
        Counter::Joined,
        Counter::TargetsEnded,
        Counter::SampledNs,
        Counter::SampledRuns,
        Counter::Reallocs,
        Counter::HitsMapping,
        Counter::HitsMappingReturn,
        Counter::MappingsTold,
        Counter::MappingsOfAllocators,
        Counter::MappingsNested,
        Counter::MappingsIdle,
        // Printed beside `BlocksFull`.
        Counter::BlocksFullBytes,
    ];

    #[test]
    fn every_counter_is_a_loss_a_truncation_a_detail_or_ordinary() {
        let truncations = TRUNCATIONS.iter().map(|(counter, _)| counter);
        let lists = [LOSSES, LOSSES_FROM_START, DETAILS, ORDINARY];
        let mut listed: Vec<_> = lists.into_iter().flatten().chain(truncations).copied().collect();
        listed.sort_unstable();
        assert_eq!(listed, Counter::ALL);
    }
}
