//! The list of a recording's snapshots.

use std::{fmt::Write as _, time::Duration};

use super::format::{escaped, grouped, shortened, size};
use crate::recording::{Recording, SnapshotInfo};

/// One line a snapshot: what `REC@…` can be followed by, when and why it was taken, and its totals; then the marks.
pub fn render(recording: &Recording) -> String {
    let rows: Vec<[String; 7]> = recording.snapshots.iter().enumerate().map(row).collect();
    let titles = ["@", "name", "trigger", "time", "after", "current", "peak"].map(str::to_owned);
    let mut widths = [0; 7];
    for row in std::iter::once(&titles).chain(&rows) {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut out = String::new();
    for row in std::iter::once(&titles).chain(&rows) {
        let cells: Vec<String> = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        out.push_str(cells.join("  ").trim_end());
        out.push('\n');
    }
    if let Some(last) = recording.snapshots.last() {
        let at = last.peak_at.map_or_else(|| "at a time not known".to_owned(), |at| format!("after {}", seconds(at)));
        let blocks = last.totals.known_peak_count().map_or_else(String::new, |n| format!(" in {} blocks", grouped(n)));
        let _infallible = writeln!(out, "@peak: {}{blocks}, {at}", size(last.totals.peak_bytes));
    }
    for mark in &recording.marks {
        let _infallible = writeln!(out, "mark after {}: {}", seconds(mark.at), shortened(&mark.text));
    }
    for problem in &recording.problems {
        let _infallible = writeln!(out, "note: {}", escaped(problem));
    }
    out
}

fn row((index, info): (usize, &SnapshotInfo)) -> [String; 7] {
    [
        index.to_string(),
        info.meta.label.as_deref().map_or_else(|| "-".to_owned(), shortened),
        info.meta.trigger.name().to_owned(),
        utc(info.meta.unix_ns).unwrap_or_else(|| "-".to_owned()),
        seconds(info.at),
        format!("{} in {}", size(info.totals.current_bytes), grouped(info.totals.current_count)),
        size(info.totals.peak_bytes),
    ]
}

pub(super) fn seconds(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f64())
}

/// A moment as text, to the second. `None`: it was not recorded, or is beyond what a calendar can say.
pub fn utc(unix_ns: u64) -> Option<String> {
    let moment = jiff::Timestamp::from_nanosecond(i128::from(unix_ns)).ok().filter(|_| unix_ns > 0)?;
    Some(moment.strftime("%Y-%m-%d %H:%M:%S UTC").to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_printed_in_utc() {
        assert_eq!(utc(1_700_000_000_999_999_999).as_deref(), Some("2023-11-14 22:13:20 UTC"));
        assert_eq!(utc(0), None);
        assert!(utc(u64::MAX).is_some());
    }
}
