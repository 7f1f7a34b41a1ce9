//! The text of a comparison, each line in the form of tracemalloc's `StatisticDiff`.

use std::fmt::Write as _;

use super::{
    format::{escaped, grouped, shortened, signed_size, size},
    owner::{program, subject},
    text::{average, label, losses, more_lines, push_line, push_traceback, scope, tail},
};
use crate::{
    analysis::diff::{Diff, Presence, RestDiff, StatisticDiff},
    options::{Key, ReportOptions, Sort, View},
    snapshot::{Snapshot, Totals},
};

/// What the two snapshots are called in the report.
#[derive(Clone, Copy, Debug)]
pub struct Titles<'a> {
    /// The older one: file, snapshot and time.
    pub old: &'a str,
    /// The newer one.
    pub new: &'a str,
}

/// The report.
pub fn render(diff: &Diff<'_>, titles: Titles<'_>, options: &ReportOptions) -> String {
    let mut out = String::new();
    let (old, new) = (diff.old.snapshot, diff.new.snapshot);
    push_line(&mut out, &header("old", titles.old, old, None));
    push_line(&mut out, &header("new", titles.new, new, Some(&old.totals)));
    for note in &old.notes {
        let whose = if new.notes.contains(note) { "note" } else { "note (old)" };
        push_line(&mut out, &format!("{whose}: {}", escaped(note)));
    }
    for note in new.notes.iter().filter(|note| !old.notes.contains(note)) {
        push_line(&mut out, &format!("note (new): {}", escaped(note)));
    }
    if let Some(line) = scope(diff.view, diff.cumulative) {
        push_line(&mut out, &line);
    }

    let shown = diff.lines.len().min(options.top);
    let mut rest = diff.left_out;
    diff.lines[shown..].iter().for_each(|line| rest.add(line));
    if shown == 0 && rest.n_lines == 0 {
        push_line(&mut out, "no blocks");
    }
    let heads: Vec<String> = (1..).zip(&diff.lines[..shown]).map(|(rank, line)| head(rank, line, diff)).collect();
    let width = super::text::column(&heads);
    for (line, head) in diff.lines.iter().zip(heads) {
        let tail = marked_tail(line, diff);
        push_line(&mut out, &if tail.is_empty() { head } else { format!("{head:width$}     {tail}") });
        if diff.key == Key::Traceback {
            let (latest, is_new) = line.latest();
            let side = if is_new { diff.new } else { diff.old };
            push_traceback(&mut out, latest.largest, side.snapshot, side.names, options.depth);
        }
    }
    if let Some(line) = rest_line(&rest, diff, options) {
        push_line(&mut out, &line);
    }
    out
}

/// `new: app.mtb@end …  pid 4711 (imgsrv)  current 15.2 MiB (+4428 KiB) in 100 042 blocks (+39 369)  peak 22.9 MiB (+0 B)  nothing lost`
fn header(which: &str, title: &str, snapshot: &Snapshot, before: Option<&Totals>) -> String {
    let totals = &snapshot.totals;
    let less = |now: u64, of: fn(&Totals) -> u64| before.map(|before| i128::from(now) - i128::from(of(before)));
    let bytes = |now: u64, of: fn(&Totals) -> u64| {
        less(now, of).map_or_else(|| size(now), |diff| format!("{} ({})", size(now), signed_size(diff)))
    };
    // How many blocks the peak of many processes was is not known.
    let is_known = |totals: &Totals| totals.current_count > 0 || totals.current_bytes == 0;
    let blocks = match less(totals.current_count, |totals| totals.current_count) {
        _ if !is_known(totals) => String::new(),
        Some(diff) if before.is_some_and(is_known) => {
            format!(" in {} blocks ({diff:+})", grouped(totals.current_count))
        }
        _ => format!(" in {} blocks", grouped(totals.current_count)),
    };
    format!(
        "{which}: {}  {}  {:.1} s  current {}{blocks}  peak {}  {}",
        shortened(title),
        subject(snapshot),
        snapshot.duration.as_secs_f64(),
        bytes(totals.current_bytes, |totals| totals.current_bytes),
        bytes(totals.peak_bytes, |totals| totals.peak_bytes),
        losses(snapshot),
    )
}

/// `#1 src/cache.c:42: size=8173 KiB (+4428 KiB), count=71332 (+39369), average=117 B`
fn head(rank: usize, line: &StatisticDiff<'_>, diff: &Diff<'_>) -> String {
    let (latest, is_new) = line.latest();
    let snapshot = if is_new { diff.new.snapshot } else { diff.old.snapshot };
    let label = if diff.key == Key::Process && !diff.same_recording {
        program(&latest, snapshot)
    } else {
        label(&latest, snapshot, diff.key)
    };
    let mut out = format!("#{rank} {label}: ");
    push_figures(&mut out, (line.size, line.size_diff), (line.count, line.count_diff));
    out.push_str(&average(line.size, line.count));
    let sorted = |name: &str, of: fn(&Totals) -> u64| {
        let value = |line: Option<crate::analysis::statistics::Statistic<'_>>| line.map_or(0, |line| of(&line.totals));
        let (old, new) = (value(line.old), value(line.new));
        format!(", {name}={} ({})", size(new), signed_size(i128::from(new) - i128::from(old)))
    };
    match (diff.sort, diff.view) {
        (Sort::Size | Sort::Count, _) | (Sort::Peak, View::Peak) | (Sort::Allocated, View::Allocated) => {}
        (Sort::Peak, _) => out.push_str(&sorted("peak", |totals| totals.peak_bytes)),
        (Sort::Allocated, _) => out.push_str(&sorted("allocated", |totals| totals.allocated_bytes)),
    }
    out
}

fn push_figures(out: &mut String, (bytes, bytes_diff): (u64, i128), (count, count_diff): (u64, i128)) {
    let _infallible = write!(out, "size={} ({}), count={count} ({count_diff:+})", size(bytes), signed_size(bytes_diff));
}

/// What stands after a line's figures: the function, and that the line is new or vanished.
fn marked_tail(line: &StatisticDiff<'_>, diff: &Diff<'_>) -> String {
    let (latest, is_new) = line.latest();
    let snapshot = if is_new { diff.new.snapshot } else { diff.old.snapshot };
    // Between recordings a line is all processes of a command: nothing of one of them.
    let is_program = diff.key == Key::Process && !diff.same_recording;
    let tail = if is_program { String::new() } else { tail(&latest, snapshot, diff.key) };
    let mark = match line.presence() {
        Presence::Both => return tail,
        Presence::New => "(new)",
        Presence::Vanished => "(vanished)",
    };
    if tail.is_empty() { mark.to_owned() } else { format!("{tail} {mark}") }
}

fn rest_line(rest: &RestDiff, diff: &Diff<'_>, options: &ReportOptions) -> Option<String> {
    let mut out = more_lines(rest.n_lines, diff.left_out.n_lines, options)?;
    if !diff.cumulative {
        out.push_str(": ");
        push_figures(&mut out, (rest.size, rest.size_diff), (rest.count, rest.count_diff));
    }
    Some(out)
}
