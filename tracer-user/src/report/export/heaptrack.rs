//! A text summary in the shape of heaptrack_print: most calls, peak consumers, most temporary allocations, leaks, totals.

use std::{
    cmp::Reverse,
    io::{self, Write},
};

use super::{Source, text};
use crate::{
    analysis::statistics::{Statistic, module_of, statistics},
    options::{Key, ReportOptions},
    report::format::{grouped, path_text, percent, size},
    snapshot::{StackStats, Totals},
    symbolize::Place,
};

/// A section: its heading, what it is sorted by, and what is said of a line.
type Section = (&'static str, fn(&Totals) -> u64, fn(&Totals) -> String);

const SECTIONS: &[Section] = &[
    (
        "MOST CALLS TO ALLOCATION FUNCTIONS",
        |totals| totals.allocated_count,
        |totals| {
            format!(
                "{} of {} in all, {} at the peak",
                several(totals.allocated_count, "allocation"),
                size(totals.allocated_bytes),
                size(totals.peak_bytes)
            )
        },
    ),
    (
        "PEAK MEMORY CONSUMERS",
        |totals| totals.peak_bytes,
        |totals| {
            format!(
                "{} in {} at the peak, of {}",
                size(totals.peak_bytes),
                several(totals.peak_count, "block"),
                several(totals.allocated_count, "allocation")
            )
        },
    ),
    (
        "MOST TEMPORARY ALLOCATIONS",
        |totals| totals.freed_within_1ms_count,
        |totals| {
            let share = totals.freed_within_1ms_count as f64 / totals.allocated_count.max(1) as f64;
            let temporary = grouped(totals.freed_within_1ms_count);
            format!(
                "{temporary} freed within 1 ms, {} of {}",
                percent(share),
                several(totals.allocated_count, "allocation")
            )
        },
    ),
    (
        "MEMORY STILL HELD",
        |totals| totals.current_bytes,
        |totals| format!("{} in {}", size(totals.current_bytes), several(totals.current_count, "block")),
    ),
];

/// `1 block`, `2 blocks`.
fn several(n: u64, thing: &str) -> String {
    format!("{} {thing}{}", grouped(n), if n == 1 { "" } else { "s" })
}

/// Writes the sections, then the totals.
pub(super) fn write(source: &Source<'_>, out: &mut dyn Write) -> io::Result<()> {
    // All lines count here, whatever the smallest size asked for.
    let options = ReportOptions { key: Key::Lineno, min_size: 0, cumulative: false, ..source.options.clone() };
    let statistics = statistics(source.snapshot, source.names, source.attribution, &options);
    writeln!(out, "{}, {}", source.target(), source.moment())?;
    writeln!(out, "{}\n", source.losses())?;
    for (heading, value, figures) in SECTIONS {
        let mut lines: Vec<&Statistic<'_>> = statistics.lines.iter().filter(|line| value(&line.totals) > 0).collect();
        // Stable: equal lines keep the report's order.
        lines.sort_by_key(|line| Reverse(value(&line.totals)));
        writeln!(out, "{heading}")?;
        if lines.is_empty() {
            writeln!(out, "none")?;
        }
        for line in lines.into_iter().take(options.top) {
            writeln!(out, "{} from", figures(&line.totals))?;
            stack(source, line, out)?;
        }
        writeln!(out)?;
    }
    totals(source, out)
}

/// The line's largest stack, innermost frame first.
fn stack(source: &Source<'_>, line: &Statistic<'_>, out: &mut dyn Write) -> io::Result<()> {
    let stats: &StackStats = line.largest;
    let mut n_left = source.options.depth;
    for frame in &stats.stack.frames {
        let (id, address) = match frame.location {
            Some((id, vaddr)) => (Some(id), vaddr.0),
            None => (None, frame.addr.lookup().0),
        };
        let module = module_of(source.snapshot, id);
        for name in source.names.of(frame).iter() {
            if n_left == 0 {
                return writeln!(out, "    …");
            }
            n_left -= 1;
            let place = || text(&Place { module, address }.to_string());
            writeln!(out, "  {}", name.function.as_deref().map_or_else(|_| place(), text))?;
            if let Some(file) = &name.file {
                writeln!(out, "    at {}:{}", text(&path_text(file)), name.line.unwrap_or(0))?;
            }
            if let Some(module) = module {
                writeln!(out, "    in {}", text(&path_text(&module.path)))?;
            }
        }
    }
    match stats.stack.end.reason() {
        Some(reason) => writeln!(out, "  [truncated: {reason}]"),
        None if stats.stack.frames.is_empty() => writeln!(out, "  [stack not stored]"),
        None => Ok(()),
    }
}

fn totals(source: &Source<'_>, out: &mut dyn Write) -> io::Result<()> {
    let sum = source.shown();
    let until = source.snapshot.counted_until.unwrap_or(source.snapshot.duration);
    let seconds = until.as_secs_f64();
    let rate = |count: u64| {
        if seconds > 0.0 { format!(" ({}/s)", grouped((count as f64 / seconds) as u64)) } else { String::new() }
    };
    writeln!(out, "total runtime: {seconds:.2}s")?;
    writeln!(out, "calls to allocation functions: {}{}", grouped(sum.allocated_count), rate(sum.allocated_count))?;
    let temporary = sum.freed_within_1ms_count;
    writeln!(out, "temporary allocations (freed within 1 ms): {}{}", grouped(temporary), rate(temporary))?;
    writeln!(out, "peak heap memory consumption: {}", size(sum.peak_bytes))?;
    // Resident memory is sampled: of a short program there may be none but the sample before it ran.
    let samples = source.recording.series.iter().filter(|sample| sample.at <= until);
    let resident: Vec<_> = samples.filter_map(|sample| Some((sample.at, sample.rss_bytes?))).collect();
    let is_past_peak = match source.snapshot.peak_at {
        Some(peak) => resident.last().is_some_and(|(at, _)| *at >= peak),
        None => resident.len() > 1,
    };
    if let Some(highest) = resident.iter().map(|(_, bytes)| *bytes).max().filter(|_| is_past_peak) {
        let n = grouped(resident.len() as u64);
        writeln!(out, "peak RSS of the target: {} (highest of {n} samples)", size(highest))?;
    }
    let running = if source.snapshot.target.running { " (still running: not all of it is a leak)" } else { "" };
    let blocks = several(sum.current_count, "block");
    writeln!(out, "total memory leaked: {} in {blocks}{running}", size(sum.current_bytes))
}
