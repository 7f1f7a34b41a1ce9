//! The JSON of a comparison, described field by field in docs/json.md.

use serde::Serialize;

use super::json::{KeyJson, SCHEMA, TargetJson, TotalsJson, Traceback, average, line, nanoseconds};
use crate::{
    analysis::diff::{Diff, Named, Presence, StatisticDiff},
    report::diff::Titles,
};

#[derive(Serialize)]
struct DiffJson<'a> {
    schema: u32,
    old: SideJson<'a>,
    new: SideJson<'a>,
    key: &'static str,
    view: &'static str,
    cumulative: bool,
    stats: Vec<StatDiffJson<'a>>,
}

#[derive(Serialize)]
struct SideJson<'a> {
    title: &'a str,
    target: TargetJson<'a>,
    duration_ns: u64,
    totals: TotalsJson,
    notes: &'a [String],
}

#[derive(Serialize)]
struct StatDiffJson<'a> {
    #[serde(flatten)]
    key: KeyJson<'a>,
    size: u64,
    size_diff: i128,
    count: u64,
    count_diff: i128,
    average: Option<f64>,
    presence: &'static str,
    stacks: usize,
    truncated: Option<&'static str>,
    traceback: Traceback<'a>,
}

/// The report in one line, with a newline at its end. All lines are in it, each with its full traceback.
pub fn render(diff: &Diff<'_>, titles: Titles<'_>) -> String {
    line(&DiffJson {
        schema: SCHEMA,
        old: SideJson::new(&diff.old, titles.old),
        new: SideJson::new(&diff.new, titles.new),
        key: diff.key.name(),
        view: diff.view.name(),
        cumulative: diff.cumulative,
        stats: diff.lines.iter().map(|line| StatDiffJson::new(line, diff)).collect(),
    })
}

impl<'a> SideJson<'a> {
    fn new(side: &Named<'a>, title: &'a str) -> Self {
        let snapshot = side.snapshot;
        Self {
            title,
            target: TargetJson::new(snapshot),
            duration_ns: nanoseconds(snapshot.duration),
            totals: TotalsJson::from(&snapshot.totals),
            notes: &snapshot.notes,
        }
    }
}

impl<'a> StatDiffJson<'a> {
    fn new(line: &StatisticDiff<'a>, diff: &Diff<'a>) -> Self {
        let (latest, side) = match (line.new, line.old) {
            (Some(new), _) => (new, diff.new),
            (None, old) => (old.expect("a line is in one snapshot at least"), diff.old),
        };
        Self {
            key: KeyJson::new(&latest, side.snapshot, diff.key),
            size: line.size,
            size_diff: line.size_diff,
            count: line.count,
            count_diff: line.count_diff,
            average: average(line.size, line.count),
            presence: match line.presence() {
                Presence::Both => "both",
                Presence::New => "new",
                Presence::Vanished => "vanished",
            },
            stacks: latest.n_stacks,
            truncated: latest.largest.stack.end.reason(),
            traceback: Traceback { stack: latest.largest, snapshot: side.snapshot, names: side.names },
        }
    }
}
