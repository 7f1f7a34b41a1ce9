//! Whether a series grows steadily: a robust slope, how sure it is that there is a trend, and whether it has levelled off. Pure
//! arithmetic on a few dozen points.

/// Most points that a trend is computed from: the slope looks at every pair. [`thinned`] picks them.
pub const MAX_POINTS: usize = 128;
/// Fewest points that can show a trend.
pub const MIN_POINTS: usize = 3;
/// Highest chance at which a single series is taken to grow: one of pure noise in a thousand passes.
pub const SURE_CHANCE: f64 = 0.001;
/// Up to this many points the chance of a trend's strength is counted exactly.
const MAX_EXACT_POINTS: usize = 10;
/// A series has levelled off when the rate of its last third is at most this share of the rate of the whole.
const LEVEL_SHARE: f64 = 0.1;

/// Chance from which what follows the first third does not look like growth.
const PLATEAU_CHANCE: f64 = 0.01;

/// What a series does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Course {
    /// Grows, up to its end.
    Grows,
    /// Grew, and does next to nothing in its last third: a cache that warmed up, initialisation.
    LevelsOff,
    /// No sure growth: noise, a constant, or a decline.
    Steady,
}

/// The trend of a series of bytes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Trend {
    /// Median of the slopes between all pairs of points (Theil–Sen), in bytes per second: up to 29 % of the points may lie
    /// anywhere without moving it far.
    pub bytes_per_second: f64,
    /// The last value less the first, in bytes.
    pub growth_bytes: i64,
    /// Share (0–1) of the intervals in which the series grew.
    pub grew_share: f64,
    /// Share (0–1) of the intervals in which it shrank.
    pub shrank_share: f64,
    /// 1 less the probability that values in random order rise as consistently (one-sided Mann–Kendall test), 0–1.
    pub confidence: f64,
    /// What the series does.
    pub course: Course,
}

impl Trend {
    /// The trend of `values` (bytes) at `seconds`, ascending; both of one length, at least [`MIN_POINTS`] and at most
    /// [`MAX_POINTS`]. Growth is sure when noise would rise as consistently with at most `sure_chance`. `slopes` is scratch.
    pub fn of(seconds: &[f64], values: &[u64], sure_chance: f64, slopes: &mut Vec<f64>) -> Self {
        let n = values.len();
        let growth = |from: usize| values[n - 1] as f64 - values[from] as f64;
        let share = |grew: fn(u64, u64) -> bool| {
            values.windows(2).filter(|pair| grew(pair[0], pair[1])).count() as f64 / (n - 1) as f64
        };
        let bytes_per_second = theil_sen(seconds, values, slopes);
        let late = late(n);
        let late_rate = theil_sen(&seconds[late..], &values[late..], slopes);
        let late_mean = mean_rate(seconds, growth(late), late);
        // A noisy series has either rate near zero by chance, seldom both; one that grows in rare steps has a zero median.
        let is_level = late_rate.max(late_mean) <= LEVEL_SHARE * bytes_per_second.max(mean_rate(seconds, growth(0), 0))
            || is_noisy_plateau(values);
        let course = match evidence(values, sure_chance) {
            Some(_) if is_level => Course::LevelsOff,
            Some(Evidence::Sure) => Course::Grows,
            _ => Course::Steady,
        };
        Self {
            bytes_per_second,
            growth_bytes: (i128::from(values[n - 1]) - i128::from(values[0])).clamp(i64::MIN.into(), i64::MAX.into())
                as i64,
            grew_share: share(|before, after| after > before),
            shrank_share: share(|before, after| after < before),
            confidence: 1.0 - chance(values),
            course,
        }
    }
}

/// What speaks for growth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Evidence {
    /// It grows in every interval, or too consistently for noise.
    Sure,
    /// It rose at some time and stays there: it never shrank, or rose far above what it fluctuates by since.
    Rose,
}

/// Whether a series may be called anything but [`Course::Steady`]; cheaper than its trend.
pub fn evidence(values: &[u64], sure_chance: f64) -> Option<Evidence> {
    let n = values.len();
    let (first, last) = (values[0], values[n - 1]);
    if last <= first {
        return None;
    }
    let ordered = |in_order: fn(&u64, &u64) -> bool| values.is_sorted_by(in_order);
    if ordered(|before, after| before < after) || chance(values) <= sure_chance {
        return Some(Evidence::Sure);
    }
    let late = &values[late(n)..];
    let (low, high) = late.iter().fold((u64::MAX, 0), |(low, high), value| (low.min(*value), high.max(*value)));
    let has_risen = low.saturating_sub(first) > 2 * (high - low).min(u64::MAX / 2);
    (has_risen || ordered(|before, after| before <= after)).then_some(Evidence::Rose)
}

/// Whether the level of the last third is that of the middle third, next to the growth since the beginning, and nothing since the
/// first third looks like growth: a plateau whose noise is larger than what a slope could tell.
fn is_noisy_plateau(values: &[u64]) -> bool {
    let n = values.len();
    let (first, last) = (n / 3, late(n));
    let (begin, middle, end) =
        (median(&values[..n.div_ceil(10)]), median(&values[first..last.max(first + 1)]), median(&values[last..]));
    end.saturating_sub(middle) as f64 <= LEVEL_SHARE * end.saturating_sub(begin) as f64
        && chance(&values[first..]) > PLATEAU_CHANCE
}

fn median(values: &[u64]) -> u64 {
    let mut values = values.to_vec();
    let middle = values.len() / 2;
    *values.select_nth_unstable(middle).1
}

/// Where the last third of `n` points begins; at least two points.
fn late(n: usize) -> usize {
    n - n.div_ceil(3).max(2)
}

/// Which of `n` points are kept when there are more than `most`: evenly spread, the first and the last among them.
pub fn thinned(n: usize, most: usize) -> Vec<usize> {
    if n <= most {
        return (0..n).collect();
    }
    (0..most).map(|at| at * (n - 1) / (most - 1)).collect()
}

/// Bytes per second from the point `from` to the end.
fn mean_rate(seconds: &[f64], growth: f64, from: usize) -> f64 {
    let elapsed = seconds[seconds.len() - 1] - seconds[from];
    if elapsed > 0.0 { growth / elapsed } else { 0.0 }
}

/// Median of the slopes between all pairs of points that are not at the same time; 0 if there are none.
fn theil_sen(seconds: &[f64], values: &[u64], slopes: &mut Vec<f64>) -> f64 {
    slopes.clear();
    for later in 1..values.len() {
        for earlier in 0..later {
            let elapsed = seconds[later] - seconds[earlier];
            if elapsed > 0.0 {
                slopes.push((values[later] as f64 - values[earlier] as f64) / elapsed);
            }
        }
    }
    if slopes.is_empty() {
        return 0.0;
    }
    let (middle, is_odd) = (slopes.len() / 2, slopes.len() % 2 == 1);
    let (below, &mut upper, _) = slopes.select_nth_unstable_by(middle, f64::total_cmp);
    if is_odd {
        return upper;
    }
    let lower = below.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    f64::midpoint(lower, upper)
}

/// The probability that noise rises as consistently (one-sided Mann–Kendall test). S is the number of pairs that rise less those
/// that fall. Exact where there are few points (counted as if no two values were equal, which errs on the high side), else by the
/// normal distribution with the variance corrected for equal values.
fn chance(values: &[u64]) -> f64 {
    let n = values.len();
    if values.iter().all(|value| *value == values[0]) {
        return 1.0;
    }
    let mut s = 0_i64;
    for (at, later) in values.iter().enumerate() {
        // Narrow sums of a few dozen at most: the compiler makes them vectors.
        let sum: i32 = values[..at].iter().map(|before| i32::from(later > before) - i32::from(later < before)).sum();
        s += i64::from(sum);
    }
    if n <= MAX_EXACT_POINTS {
        return chance_of_at_least(n, s);
    }
    let mut sorted = values.to_vec();
    sorted.sort_unstable();
    let term = |n: usize| (n * (n - 1) * (2 * n + 5)) as f64;
    let ties: f64 = sorted.chunk_by(|a, b| a == b).map(|equal| term(equal.len())).sum();
    let variance = (term(n) - ties) / 18.0;
    // S moves in steps of two, so that half a step is one.
    normal_above((s - s.signum()) as f64 / variance.sqrt())
}

/// Probability that S of `n` different values in random order is at least `s`.
fn chance_of_at_least(n: usize, s: i64) -> f64 {
    // Permutations by their number of falling pairs: the k-th value falls below 0 … k-1 of the earlier ones.
    let mut by_falling = vec![1.0_f64];
    for k in 2..=n {
        let mut next = vec![0.0; by_falling.len() + k - 1];
        for (falling, &permutations) in by_falling.iter().enumerate() {
            next[falling..falling + k].iter_mut().for_each(|sum| *sum += permutations);
        }
        by_falling = next;
    }
    let pairs = (n * (n - 1) / 2) as i64;
    let total: f64 = by_falling.iter().sum();
    let as_strong: f64 = (0..).zip(&by_falling).filter(|(falling, _)| pairs - 2 * falling >= s).map(|(_, p)| p).sum();
    as_strong / total
}

/// The upper tail of the standard normal distribution, to 1e-7 (Abramowitz and Stegun, Handbook of Mathematical Functions,
/// 26.2.17).
fn normal_above(z: f64) -> f64 {
    let t = 1.0 / (1.0 + 0.231_641_9 * z.abs());
    let series = [1.330_274_429, -1.821_255_978, 1.781_477_937, -0.356_563_782, 0.319_381_530]
        .iter()
        .fold(0.0, |sum, factor| (sum + factor) * t);
    let above = (-0.5 * z * z).exp() / (2.0 * std::f64::consts::PI).sqrt() * series;
    if z >= 0.0 { above } else { 1.0 - above }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn every(interval: f64, values: &[u64]) -> Trend {
        let seconds: Vec<f64> = (0..values.len()).map(|at| at as f64 * interval).collect();
        Trend::of(&seconds, values, SURE_CHANCE, &mut Vec::new())
    }

    /// Noise that is the same on every run: 0..below.
    fn noise(below: u64) -> impl FnMut() -> u64 {
        let mut state = 0x2545_f491_4f6c_dd1d_u64;
        move || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 11) % below
        }
    }

    #[test]
    fn a_straight_line_grows_at_its_rate() {
        let trend = every(2.0, &(0..30).map(|at| 1000 + at * 200).collect::<Vec<_>>());
        assert_eq!((trend.bytes_per_second, trend.growth_bytes, trend.course), (100.0, 5800, Course::Grows));
        assert_eq!((trend.grew_share, trend.shrank_share), (1.0, 0.0));
        assert!(trend.confidence > 0.999_999, "{trend:?}");
    }

    #[test]
    fn outliers_do_not_move_the_rate() {
        let mut values: Vec<u64> = (0..30).map(|at| at * 200).collect();
        (values[3], values[17], values[25]) = (50_000_000, 0, 90_000_000);
        let trend = every(2.0, &values);
        assert!((trend.bytes_per_second - 100.0).abs() < 20.0, "{trend:?}");
        assert_eq!(trend.course, Course::Grows);
    }

    #[test]
    fn a_cache_that_fills_and_stops_levels_off() {
        let fills_for =
            |seconds: u64| every(2.0, &(0..30).map(|at| (at * 2).min(seconds) * 100_000).collect::<Vec<_>>());
        for seconds in [2, 6, 10, 20, 38] {
            assert_eq!(fills_for(seconds).course, Course::LevelsOff, "{seconds} s of 58");
        }
        assert_eq!(fills_for(58).course, Course::Grows);
        // It stays full give or take some.
        let mut some = noise(30_000);
        let values: Vec<u64> = (0..30).map(|at| at.min(5) * 1_000_000 + some()).collect();
        assert_eq!(every(2.0, &values).course, Course::LevelsOff);
    }

    #[test]
    fn noise_and_declines_are_steady() {
        let mut some = noise(1_000_000);
        for _ in 0..50 {
            let values: Vec<u64> = (0..30).map(|_| some()).collect();
            let trend = every(2.0, &values);
            assert_eq!(trend.course, Course::Steady, "{trend:?}");
        }
        assert_eq!(every(1.0, &[7; 30]).course, Course::Steady);
        assert!(every(1.0, &[7; 5]).confidence.abs() < 1e-9, "no pair rises");
        let falls = every(1.0, &(0..30).rev().collect::<Vec<_>>());
        assert_eq!((falls.course, falls.bytes_per_second), (Course::Steady, -1.0));
        assert!(falls.confidence < 0.001);
    }

    #[test]
    fn a_cache_that_is_full_and_fluctuates_levels_off() {
        // As a synthetic service of 50 000 stacks showed: a tenth of the time to fill, then 10 % up and down.
        for seed in 0..50 {
            let mut some = noise(30_000);
            for _ in 0..seed {
                some();
            }
            let values: Vec<u64> = (0..71_u64).map(|at| at.min(7) * 20_000 + some() * at.min(7) / 7).collect();
            let trend = every(14.0, &values);
            assert_ne!(trend.course, Course::Grows, "{trend:?}");
        }
    }

    #[test]
    fn growth_in_rare_steps_is_growth() {
        for phase in 0..10 {
            let values: Vec<u64> = (0..60).map(|at| (at + phase) / 10 * 4096).collect();
            let trend = every(1.0, &values);
            assert_eq!((trend.course, trend.shrank_share), (Course::Grows, 0.0), "{phase}: {trend:?}");
            assert!((trend.bytes_per_second - 409.6).abs() < 50.0, "{trend:?}");
        }
    }

    #[test]
    fn growth_within_noise_is_found_with_enough_points() {
        let mut some = noise(20_000);
        let values: Vec<u64> = (0..100).map(|at| at * 300 + some()).collect();
        let trend = every(1.0, &values);
        assert_eq!(trend.course, Course::Grows, "{trend:?}");
        assert!((trend.bytes_per_second - 300.0).abs() < 60.0, "{trend:?}");
    }

    #[test]
    fn few_points_must_grow_without_exception() {
        assert_eq!(every(1.0, &[1, 2, 3]).course, Course::Grows);
        assert_eq!(every(1.0, &[1, 3, 2, 4]).course, Course::Steady);
        assert_eq!(every(1.0, &[1, 2, 3, 3, 3]).course, Course::LevelsOff);
        assert_eq!(every(1.0, &[1, 2, 2, 2, 3]).course, Course::Steady);
        // 1/3! and 1/5! of all orders rise throughout.
        assert!((every(1.0, &[1, 2, 3]).confidence - (1.0 - 1.0 / 6.0)).abs() < 1e-12);
        assert!((every(1.0, &[1, 2, 3, 4, 5]).confidence - (1.0 - 1.0 / 120.0)).abs() < 1e-12);
    }

    #[test]
    fn exact_and_approximate_chances_agree() {
        // Kendall, Rank Correlation Methods, appendix table 1: n = 10, S >= 19 has a chance of 0.054, S >= 29 of 0.0046.
        assert!((chance_of_at_least(10, 19) - 0.054).abs() < 5e-4);
        assert!((chance_of_at_least(10, 29) - 0.0046).abs() < 5e-5);
        for (z, above) in [(0.0, 0.5), (1.0, 0.158_655_3), (-1.959_964, 0.975), (3.090_232, 0.001)] {
            assert!((normal_above(z) - above).abs() < 1e-6, "{z}");
        }
        // Far out, where many sites are compared: 1 less erf is 1.973e-9 / 2 at 6 standard deviations.
        assert!((normal_above(6.0) / 9.866e-10 - 1.0).abs() < 0.01);
    }

    #[test]
    fn snapshots_at_one_moment_are_no_slope() {
        let trend = Trend::of(&[1.0, 1.0, 1.0], &[1, 2, 3], SURE_CHANCE, &mut Vec::new());
        assert!(trend.bytes_per_second.abs() < 1e-9);
    }

    #[test]
    fn thinning_keeps_both_ends() {
        assert_eq!(thinned(5, 8), [0, 1, 2, 3, 4]);
        let kept = thinned(1000, 128);
        assert_eq!((kept.len(), kept[0], kept[127]), (128, 0, 999));
        assert!(kept.windows(2).all(|pair| pair[0] < pair[1]));
    }
}
