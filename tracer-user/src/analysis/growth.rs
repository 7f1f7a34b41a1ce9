//! Which sites grow steadily over the snapshots of a recording: leak suspects.

use std::time::Duration;

use thiserror::Error;

use super::{
    statistics::{Grouping, Statistic, grouping, is_within},
    trend::{Course, MAX_POINTS, MIN_POINTS, SURE_CHANCE, Trend, evidence, thinned},
};
use crate::{
    options::{Key, ReportOptions},
    recording::{Mark, Recording, Trigger},
    snapshot::{Owner, Snapshot, Totals},
    symbolize::Attribution,
};

/// Chance that any of a recording's sites is called growing although all are noise (Bonferroni's bound): the more sites vary, the
/// surer each must be.
const FALSE_ALARM: f64 = 0.05;
/// Most pairs of points compared in all sites together: about 0.3 s. The more sites, the fewer snapshots are looked at.
const MAX_PAIRS: usize = 50_000_000;
/// Snapshots that are looked at however many sites there are.
const FEWEST_POINTS: usize = 24;

/// How the sites of a recording grew.
#[derive(Clone, Debug)]
pub struct Growth<'a> {
    /// What sites are grouped by.
    pub key: Key,
    /// When the snapshots that are looked at were taken, in seconds since tracing began.
    pub seconds: Vec<f64>,
    /// Number of snapshots that were there, those that are not looked at included.
    pub n_snapshots: usize,
    /// Snapshots left out because the target became another program after them.
    pub n_before_exec: usize,
    /// What was marked in that time.
    pub marks: Vec<&'a Mark>,
    /// The whole target.
    pub total: Series,
    /// Sites that grew: those that still do by their rate, then those that levelled off by what they grew.
    pub sites: Vec<SiteGrowth<'a>>,
    /// Sites that grew, and are outside of the limits asked for.
    pub n_left_out: usize,
    /// Sites that stand still, shrink or fluctuate.
    pub n_steady: usize,
}

/// Bytes over time, and where they go.
#[derive(Clone, Debug)]
pub struct Series {
    /// Live bytes at each of [`Growth::seconds`].
    pub bytes: Vec<u64>,
    /// Their trend.
    pub trend: Trend,
}

/// One site.
#[derive(Clone, Debug)]
pub struct SiteGrowth<'a> {
    /// The site, with its figures at the last snapshot.
    pub line: Statistic<'a>,
    /// Its live bytes.
    pub series: Series,
}

/// Snapshots are too few to tell growth from chance.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("growth needs {MIN_POINTS} snapshots, {of} has {found} (record with --snapshot-every 10s)", of = if *after_exec { "the last program" } else { "the recording" })]
pub struct TooFew {
    /// How many there are.
    pub found: usize,
    /// Others were left out: taken before the target became another program.
    pub after_exec: bool,
}

/// Follows each site of `snapshot`, the recording's last, through the recording.
///
/// # Errors
/// There are too few snapshots.
pub fn growth<'a>(
    recording: &'a Recording,
    snapshot: &'a Snapshot,
    attribution: &Attribution,
    options: &ReportOptions,
) -> Result<Growth<'a>, TooFew> {
    // At exec all blocks of the old program are gone; in a scope of many it is a process that ends.
    let is_exec = |place: &usize| !snapshot.is_of_many() && recording.snapshots[*place].meta.trigger == Trigger::Exec;
    let n_snapshots = recording.snapshots.len();
    let last_exec = (0..n_snapshots.saturating_sub(1)).rfind(is_exec);
    let first = last_exec.map_or(0, |exec| exec + 1);
    let found = n_snapshots - first;
    if found < MIN_POINTS {
        return Err(TooFew { found, after_exec: first > 0 });
    }
    let Grouping { lines, members } = grouping(snapshot, &recording.names, attribution, options);
    let affordable = (2 * MAX_PAIRS / lines.len().max(1)).isqrt().clamp(FEWEST_POINTS, MAX_POINTS);
    let points: Vec<usize> = thinned(found, affordable).into_iter().map(|at| first + at).collect();
    let seconds: Vec<f64> = points.iter().map(|&at| recording.snapshots[at].at.as_secs_f64()).collect();
    let all = series_of(recording, snapshot, &members, lines.len(), &points);

    let is_constant = |bytes: &[u64]| bytes.iter().all(|at| *at == bytes[0]);
    let n_varying = all.chunks_exact(points.len()).filter(|bytes| !is_constant(bytes)).count();
    let sure_chance = SURE_CHANCE.min(FALSE_ALARM / n_varying.max(1) as f64);
    let mut slopes = Vec::new();
    let n_lines = lines.len();
    let (mut sites, mut n_left_out) = (Vec::new(), 0);
    for (line, bytes) in lines.into_iter().zip(all.chunks_exact(points.len())) {
        if evidence(bytes, sure_chance).is_none() {
            continue;
        }
        let trend = Trend::of(&seconds, bytes, sure_chance, &mut slopes);
        if trend.course == Course::Steady {
            continue;
        }
        if is_within(options, trend.growth_bytes.unsigned_abs(), line.totals.current_count) {
            sites.push(SiteGrowth { line, series: Series { bytes: bytes.to_vec(), trend } });
        } else {
            n_left_out += 1;
        }
    }
    sites.sort_unstable_by(order);
    let bytes: Vec<u64> =
        points.iter().map(|&at| recording.snapshots[at].totals_of(options.domains).current_bytes).collect();
    let trend = Trend::of(&seconds, &bytes, SURE_CHANCE, &mut slopes);
    let from = recording.snapshots[points[0]].at;
    Ok(Growth {
        key: options.key,
        marks: recording.marks.iter().filter(|mark| mark.at >= from).collect(),
        seconds,
        n_snapshots,
        n_before_exec: first,
        total: Series { bytes, trend },
        n_left_out,
        n_steady: n_lines - sites.len() - n_left_out,
        sites,
    })
}

/// Live bytes of each line at each of `points`, line by line.
fn series_of(
    recording: &Recording,
    snapshot: &Snapshot,
    members: &[(u32, u32)],
    n_lines: usize,
    points: &[usize],
) -> Vec<u64> {
    // Before a process joined, its place may have been another's.
    let member = |&(stack, line): &(u32, u32)| {
        let stats = &snapshot.stacks[stack as usize];
        let joined_at = snapshot.owner(&stats.stack).map(Owner::joined_at).unwrap_or_default();
        (stats.id.0, line, joined_at)
    };
    let members: Vec<(u32, u32, Duration)> = members.iter().map(member).collect();
    let mut all = vec![0_u64; n_lines * points.len()];
    let mut sums = vec![0_u64; n_lines];
    let mut next = 0;
    recording.each_snapshot(|at, totals: &[Totals]| {
        if points.get(next) != Some(&at) {
            return;
        }
        sums.fill(0);
        let now = recording.snapshots[at].at;
        for &(stack, line, joined_at) in &members {
            if now < joined_at {
                continue;
            }
            let sum = &mut sums[line as usize];
            *sum = sum.saturating_add(totals[stack as usize].current_bytes);
        }
        for (bytes, sum) in all.chunks_exact_mut(points.len()).zip(&sums) {
            bytes[next] = *sum;
        }
        next += 1;
    });
    all
}

/// What still grows, fastest first; then what levelled off, by growth. The place in the snapshot makes it total.
fn order(a: &SiteGrowth<'_>, b: &SiteGrowth<'_>) -> std::cmp::Ordering {
    let (x, y) = (&a.series.trend, &b.series.trend);
    let by_rate = match x.course {
        Course::Grows => y.bytes_per_second.total_cmp(&x.bytes_per_second),
        Course::LevelsOff | Course::Steady => std::cmp::Ordering::Equal,
    };
    x.course
        .cmp(&y.course)
        .then(by_rate)
        .then(y.growth_bytes.cmp(&x.growth_bytes))
        .then(a.line.largest.id.cmp(&b.line.largest.id))
}
