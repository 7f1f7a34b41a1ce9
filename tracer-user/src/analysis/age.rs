//! How old the live blocks are. A snapshot's ages say between which two snapshots each live block was allocated: a generation.

use std::collections::HashMap;

use super::statistics::{Grouping, Statistic, grouping, is_within};
use crate::{
    options::{Key, ReportOptions},
    snapshot::{AgeCell, Snapshot},
    symbolize::{Attribution, Names},
};

/// Equal parts of the time that tells a site's course.
const N_PARTS: usize = 4;
/// Fewest generations that can tell it.
const MIN_GENERATIONS: usize = 4;
/// Each part of the time holds at least this share of the bytes of a site that is spread evenly.
const EVEN_SHARE: f64 = 0.5 / N_PARTS as f64;
/// A site is all old or all new when this share of its bytes lies in the first or last part.
const NEARLY_ALL: f64 = 0.9;

/// Live bytes by age.
#[derive(Clone, Debug)]
pub struct Ages<'a> {
    /// What sites are grouped by.
    pub key: Key,
    /// The generations, oldest first.
    pub generations: Vec<Generation>,
    /// Of the whole snapshot.
    pub total: AgeSums,
    /// Sites with live blocks, the largest first.
    pub sites: Vec<SiteAges<'a>>,
    /// Sites with live blocks that are outside of the limits asked for.
    pub n_left_out: usize,
}

/// Blocks allocated between two snapshots.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Generation {
    /// Age of the youngest, in seconds before the snapshot.
    pub youngest_seconds: f64,
    /// Age of the oldest.
    pub oldest_seconds: f64,
}

/// Live blocks by generation.
#[derive(Clone, Debug, PartialEq)]
pub struct AgeSums {
    /// Bytes, by generation.
    pub bytes: Vec<u64>,
    /// Blocks, by generation.
    pub counts: Vec<u64>,
    /// Median age of a live byte in seconds, taken as spread evenly within its generation.
    pub median_seconds: f64,
    /// What this looks like. `None`: too few snapshots to tell.
    pub pattern: Option<Pattern>,
}

/// What live blocks by age look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pattern {
    /// From every part of the time: like a leak, or a cache that replaces its entries.
    Spread,
    /// Nearly all from the first part of the time: initialisation, or a cache that filled.
    Old,
    /// Nearly all from the last part: work in progress, or growth that has just begun.
    New,
    /// None of these.
    Mixed,
}

/// One site.
#[derive(Clone, Debug)]
pub struct SiteAges<'a> {
    /// The site, with its figures at the snapshot.
    pub line: Statistic<'a>,
    /// Its live blocks.
    pub sums: AgeSums,
}

/// Sums the ages of `snapshot` up by site. `taken_at_seconds`: when the snapshots until then were taken, its own last, in seconds
/// since tracing began. `None`: the snapshot has no ages.
pub fn ages<'a>(
    snapshot: &'a Snapshot,
    taken_at_seconds: &[f64],
    names: &'a Names,
    attribution: &Attribution,
    options: &ReportOptions,
) -> Option<Ages<'a>> {
    let cells = snapshot.ages.as_ref()?;
    let (&now, earlier) = taken_at_seconds.split_last()?;
    // Generation 0 begins with tracing itself: blocks of before are not known.
    let begins = std::iter::once(0.0).chain(earlier.iter().copied());
    let ends = earlier.iter().copied().chain([now]);
    let age = |at: f64| (now - at).max(0.0);
    let generations: Vec<Generation> = begins
        .zip(ends)
        .map(|(begin, end)| Generation { youngest_seconds: age(end), oldest_seconds: age(begin) })
        .collect();

    let by_stack = by_stack(cells);
    let Grouping { lines, members } = grouping(snapshot, names, attribution, options);
    let mut sums = vec![(Vec::new(), Vec::new()); lines.len()];
    for (stack, line) in members {
        let cells = by_stack.get(&snapshot.stacks[stack as usize].id).map_or(&[][..], Vec::as_slice);
        let (bytes, counts) = &mut sums[line as usize];
        for cell in cells {
            add(bytes, counts, cell, generations.len());
        }
    }
    let mut total = (vec![0; generations.len()], vec![0; generations.len()]);
    for cell in cells {
        add(&mut total.0, &mut total.1, cell, generations.len());
    }

    let mut sites: Vec<(u64, SiteAges<'a>)> = lines
        .into_iter()
        .zip(sums)
        .filter(|(_, (bytes, _))| !bytes.is_empty())
        .map(|(line, (bytes, counts))| {
            (sum(&bytes), SiteAges { line, sums: AgeSums::new(bytes, counts, &generations) })
        })
        .collect();
    let n_sites = sites.len();
    sites.retain(|(bytes, site)| is_within(options, *bytes, sum(&site.sums.counts)));
    sites.sort_unstable_by(|(x, a), (y, b)| y.cmp(x).then(a.line.largest.id.cmp(&b.line.largest.id)));
    Some(Ages {
        key: options.key,
        total: AgeSums::new(total.0, total.1, &generations),
        generations,
        n_left_out: n_sites - sites.len(),
        sites: sites.into_iter().map(|(_, site)| site).collect(),
    })
}

fn by_stack(cells: &[AgeCell]) -> HashMap<crate::snapshot::StackId, Vec<&AgeCell>> {
    let mut by_stack: HashMap<_, Vec<&AgeCell>> = HashMap::new();
    for cell in cells {
        by_stack.entry(cell.stack).or_default().push(cell);
    }
    by_stack
}

/// A generation past the snapshot's own (clocks of several processors) is its own.
fn add(bytes: &mut Vec<u64>, counts: &mut Vec<u64>, cell: &AgeCell, n_generations: usize) {
    bytes.resize(n_generations, 0);
    counts.resize(n_generations, 0);
    let at = (cell.generation as usize).min(n_generations - 1);
    bytes[at] = bytes[at].saturating_add(cell.bytes);
    counts[at] = counts[at].saturating_add(cell.count);
}

fn sum(bytes: &[u64]) -> u64 {
    bytes.iter().fold(0, |sum, bytes| sum.saturating_add(*bytes))
}

impl AgeSums {
    fn new(bytes: Vec<u64>, counts: Vec<u64>, generations: &[Generation]) -> Self {
        let median_seconds = median_age(&bytes, generations);
        let pattern = pattern(&bytes, generations);
        Self { bytes, counts, median_seconds, pattern }
    }

    /// All bytes.
    pub fn sum(&self) -> u64 {
        sum(&self.bytes)
    }
}

fn median_age(bytes: &[u64], generations: &[Generation]) -> f64 {
    let mut left = sum(bytes) as f64 / 2.0;
    for (&bytes, generation) in bytes.iter().zip(generations) {
        let bytes = bytes as f64;
        if bytes >= left && bytes > 0.0 {
            let length = generation.oldest_seconds - generation.youngest_seconds;
            return generation.oldest_seconds - length * (left / bytes);
        }
        left -= bytes;
    }
    0.0
}

/// Looks at the bytes by equal parts of the time, oldest first; a generation's bytes count as spread evenly within it.
fn pattern(bytes: &[u64], generations: &[Generation]) -> Option<Pattern> {
    let all = generations.first()?.oldest_seconds;
    let total = sum(bytes) as f64;
    if generations.len() < MIN_GENERATIONS || all <= 0.0 || total <= 0.0 {
        return None;
    }
    let mut parts = [0.0; N_PARTS];
    for (&bytes, generation) in bytes.iter().zip(generations) {
        // In parts of the time since tracing began.
        let at = |age: f64| (all - age) / all * N_PARTS as f64;
        let (begin, end) = (at(generation.oldest_seconds), at(generation.youngest_seconds));
        let length = end - begin;
        for (part, sum) in (0_u32..).zip(&mut parts) {
            let part = f64::from(part);
            let overlap = (end.min(part + 1.0) - begin.max(part)).max(0.0);
            let holds_moment = length <= 0.0 && (begin.floor().min(N_PARTS as f64 - 1.0) - part).abs() < 0.5;
            let share = if holds_moment {
                1.0
            } else if length > 0.0 {
                overlap / length
            } else {
                0.0
            };
            *sum += share * bytes as f64 / total;
        }
    }
    Some(if parts.iter().all(|share| *share >= EVEN_SHARE) {
        Pattern::Spread
    } else if parts[0] >= NEARLY_ALL {
        Pattern::Old
    } else if parts[N_PARTS - 1] >= NEARLY_ALL {
        Pattern::New
    } else {
        Pattern::Mixed
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Snapshots each second, the last at 8 s: nine generations, the first of no length.
    fn generations() -> Vec<Generation> {
        let at = |generation: usize| (8 - generation) as f64;
        (0..9).map(|g| Generation { youngest_seconds: at(g), oldest_seconds: at(g.saturating_sub(1)) }).collect()
    }

    #[test]
    fn a_leak_is_spread_initialisation_is_old_and_work_is_new() {
        for (bytes, expected) in [
            ([0, 100, 100, 100, 100, 100, 100, 100, 100], Pattern::Spread),
            ([0, 100, 0, 200, 0, 100, 0, 200, 0], Pattern::Spread),
            ([5000, 0, 0, 0, 0, 0, 0, 0, 0], Pattern::Old),
            ([0, 5000, 100, 0, 0, 50, 0, 0, 0], Pattern::Old),
            ([0, 0, 0, 0, 0, 0, 0, 0, 1], Pattern::New),
            ([0, 0, 0, 9, 9, 9, 0, 0, 0], Pattern::Mixed),
        ] {
            assert_eq!(pattern(&bytes, &generations()), Some(expected), "{bytes:?}");
        }
    }

    #[test]
    fn too_few_snapshots_or_bytes_tell_nothing() {
        assert_eq!(pattern(&[1, 1, 1], &generations()[..3]), None);
        assert_eq!(pattern(&[0; 9], &generations()), None);
        assert_eq!(pattern(&[], &[]), None);
    }

    #[test]
    fn the_median_lies_within_its_generation() {
        assert!((median_age(&[0, 100, 0, 0, 0, 0, 0, 0, 0], &generations()) - 7.5).abs() < 1e-9);
        assert!((median_age(&[0, 100, 100, 0, 0, 0, 0, 0, 0], &generations()) - 7.0).abs() < 1e-9);
        assert!((median_age(&[0, 0, 0, 0, 0, 0, 0, 0, 4], &generations()) - 0.5).abs() < 1e-9);
        assert!(median_age(&[0; 9], &generations()).abs() < 1e-9);
    }
}
