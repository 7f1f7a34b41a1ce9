//! The JSON of leak suspects and of live bytes by age, described field by field in docs/json.md.

use serde::Serialize;

use super::json::{KeyJson, SCHEMA, TargetJson, Traceback, line};
use crate::{
    analysis::{
        age::{AgeSums, Ages, Pattern},
        growth::{Growth, Series},
        statistics::Statistic,
        trend::Course,
    },
    options::Key,
    snapshot::Snapshot,
    symbolize::Names,
};

#[derive(Serialize)]
struct GrowthJson<'a> {
    schema: u32,
    target: TargetJson<'a>,
    key: &'static str,
    snapshots: usize,
    seconds: &'a [f64],
    total: SeriesJson<'a>,
    sites: Vec<SiteJson<'a, SeriesJson<'a>>>,
    left_out_sites: usize,
    steady_sites: usize,
    notes: &'a [String],
}

#[derive(Serialize)]
struct AgesJson<'a> {
    schema: u32,
    target: TargetJson<'a>,
    key: &'static str,
    generations: Vec<GenerationJson>,
    total: AgeSumsJson<'a>,
    sites: Vec<SiteJson<'a, AgeSumsJson<'a>>>,
    notes: &'a [String],
}

#[derive(Serialize)]
struct SiteJson<'a, T> {
    #[serde(flatten)]
    key: KeyJson<'a>,
    size: u64,
    count: u64,
    #[serde(flatten)]
    more: T,
    stacks: usize,
    truncated: Option<&'static str>,
    traceback: Traceback<'a>,
}

#[derive(Serialize)]
struct SeriesJson<'a> {
    course: &'static str,
    bytes_per_second: f64,
    growth_bytes: i64,
    grew_share: f64,
    shrank_share: f64,
    confidence: f64,
    series_bytes: &'a [u64],
}

#[derive(Serialize)]
struct GenerationJson {
    youngest_seconds: f64,
    oldest_seconds: f64,
}

#[derive(Serialize)]
struct AgeSumsJson<'a> {
    bytes: &'a [u64],
    counts: &'a [u64],
    median_seconds: f64,
    pattern: Option<&'static str>,
}

/// The suspects in one line, with a newline at its end.
pub fn render(growth: &Growth<'_>, snapshot: &Snapshot, names: &Names) -> String {
    let site = |line, series| site(line, SeriesJson::new(series), snapshot, names, growth.key);
    self::line(&GrowthJson {
        schema: SCHEMA,
        target: TargetJson::new(snapshot),
        key: growth.key.name(),
        snapshots: growth.n_snapshots,
        seconds: &growth.seconds,
        total: SeriesJson::new(&growth.total),
        sites: growth.sites.iter().map(|found| site(&found.line, &found.series)).collect(),
        left_out_sites: growth.n_left_out,
        steady_sites: growth.n_steady,
        notes: &snapshot.notes,
    })
}

/// Live bytes by age in one line, with a newline at its end.
pub fn render_ages(ages: &Ages<'_>, snapshot: &Snapshot, names: &Names) -> String {
    let site = |line, sums| site(line, AgeSumsJson::new(sums), snapshot, names, ages.key);
    line(&AgesJson {
        schema: SCHEMA,
        target: TargetJson::new(snapshot),
        key: ages.key.name(),
        generations: ages
            .generations
            .iter()
            .map(|at| GenerationJson { youngest_seconds: at.youngest_seconds, oldest_seconds: at.oldest_seconds })
            .collect(),
        total: AgeSumsJson::new(&ages.total),
        sites: ages.sites.iter().map(|found| site(&found.line, &found.sums)).collect(),
        notes: &snapshot.notes,
    })
}

fn site<'a, T>(line: &Statistic<'a>, more: T, snapshot: &'a Snapshot, names: &'a Names, key: Key) -> SiteJson<'a, T> {
    SiteJson {
        key: KeyJson::new(line, snapshot, key),
        size: line.totals.current_bytes,
        count: line.totals.current_count,
        more,
        stacks: line.n_stacks,
        truncated: line.largest.stack.end.reason(),
        traceback: Traceback { stack: line.largest, snapshot, names },
    }
}

impl<'a> SeriesJson<'a> {
    fn new(series: &'a Series) -> Self {
        let trend = &series.trend;
        Self {
            course: match trend.course {
                Course::Grows => "grows",
                Course::LevelsOff => "levels off",
                Course::Steady => "steady",
            },
            bytes_per_second: trend.bytes_per_second,
            growth_bytes: trend.growth_bytes,
            grew_share: trend.grew_share,
            shrank_share: trend.shrank_share,
            confidence: trend.confidence,
            series_bytes: &series.bytes,
        }
    }
}

impl<'a> AgeSumsJson<'a> {
    fn new(sums: &'a AgeSums) -> Self {
        Self {
            bytes: &sums.bytes,
            counts: &sums.counts,
            median_seconds: sums.median_seconds,
            pattern: sums.pattern.map(|pattern| match pattern {
                Pattern::Spread => "spread",
                Pattern::Old => "old",
                Pattern::New => "new",
                Pattern::Mixed => "mixed",
            }),
        }
    }
}
