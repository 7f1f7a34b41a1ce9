//! The processes of a scope at one moment: which hold most, grow most, allocate most.

use std::{cmp::Reverse, collections::HashMap, time::Duration};

use crate::snapshot::{ProcessStats, Snapshot, Totals};

/// What a later look at the same scope is compared with. Kept by who looks again.
#[derive(Clone, Debug, Default)]
pub struct Moment {
    at: Duration,
    /// By pid and the time it joined.
    totals: HashMap<(u32, Duration), Totals>,
}

/// One process with its rates.
#[derive(Clone, Copy, Debug)]
pub struct ProcessLine<'a> {
    /// The process.
    pub process: &'a ProcessStats,
    /// Live bytes gained a second since the earlier moment, or since it joined where that was later; negative: lost.
    pub growth: f64,
    /// Bytes allocated a second in that time.
    pub allocating: f64,
}

/// What processes are ranked by, the largest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rank {
    /// Live bytes.
    Live,
    /// Growth of the live bytes.
    Growth,
    /// Bytes allocated a second.
    Allocating,
    /// Bytes at the process's own peak.
    Peak,
    /// Bytes allocated in all its time.
    Allocated,
}

/// The first processes of each order.
#[derive(Clone, Debug, Default)]
pub struct TopProcesses<'a> {
    /// Since when rates are taken; `None`: since each process joined.
    pub since: Option<Duration>,
    /// Whether any runs. If so only those that do are ranked, and by what they do now; else all, by what they did.
    pub any_runs: bool,
    /// How many are ranked.
    pub n_ranked: usize,
    /// Each order with its first ones, without those that are not above zero in it.
    pub orders: Vec<(Rank, Vec<ProcessLine<'a>>)>,
}

impl Moment {
    /// What is needed of a snapshot.
    pub fn of(snapshot: &Snapshot) -> Self {
        let totals = snapshot.told().map(|(_, process)| ((process.pid, process.joined_at), process.totals)).collect();
        Self { at: snapshot.duration, totals }
    }
}

/// Shorter times count as this: what a process allocates when it starts says nothing of a rate.
const SHORTEST_SECONDS: f64 = 1.0;

impl<'a> ProcessLine<'a> {
    /// A process of `snapshot` against an earlier moment.
    pub fn of(process: &'a ProcessStats, snapshot: &Snapshot, earlier: Option<&Moment>) -> Self {
        let line = Self::new(process, snapshot.duration, earlier);
        let counted_until = |until| Self::new(process, until, earlier).allocating;
        Self { allocating: snapshot.counted_until.map_or(line.allocating, counted_until), ..line }
    }

    /// A process `now` (since tracing began) against an earlier moment.
    pub fn new(process: &'a ProcessStats, now: Duration, earlier: Option<&Moment>) -> Self {
        let then = earlier.and_then(|earlier| earlier.totals.get(&(process.pid, process.joined_at)));
        let since = earlier.filter(|_| then.is_some()).map_or(process.joined_at, |earlier| earlier.at);
        let until = process.ended.map_or(now, |(at, _)| at);
        let then = then.copied().unwrap_or_default();
        let seconds = until.saturating_sub(since).as_secs_f64().max(SHORTEST_SECONDS);
        let rate = |bytes: f64| bytes / seconds;
        let totals = &process.totals;
        Self {
            process,
            growth: rate(totals.current_bytes as f64 - then.current_bytes as f64),
            allocating: rate(totals.allocated_bytes.saturating_sub(then.allocated_bytes) as f64),
        }
    }

    fn value(&self, rank: Rank) -> f64 {
        let totals = &self.process.totals;
        match rank {
            Rank::Live => totals.current_bytes as f64,
            Rank::Growth => self.growth,
            Rank::Allocating => self.allocating,
            Rank::Peak => totals.peak_bytes as f64,
            Rank::Allocated => totals.allocated_bytes as f64,
        }
    }
}

impl<'a> TopProcesses<'a> {
    /// The first `n` of each order. Equal ones stand by live bytes, pid and time.
    pub fn of(snapshot: &'a Snapshot, earlier: Option<&Moment>, n: usize) -> Self {
        let all = || snapshot.told().map(|(_, process)| process);
        let any_runs = all().any(|process| process.ended.is_none());
        let lines: Vec<ProcessLine<'a>> = all()
            .filter(|process| !any_runs || process.ended.is_none())
            .map(|process| ProcessLine::of(process, snapshot, earlier))
            .collect();
        let top = |rank: Rank| {
            let value = |line: &ProcessLine<'_>| line.value(rank);
            let mut found: Vec<ProcessLine<'a>> = lines.iter().filter(|line| value(line) > 0.0).copied().collect();
            found.sort_by(|a, b| {
                let order = |line: &ProcessLine<'_>| (Reverse(line.process.totals.current_bytes), line.process.pid);
                let equal = || order(a).cmp(&order(b)).then(a.process.joined_at.cmp(&b.process.joined_at));
                value(b).total_cmp(&value(a)).then_with(equal)
            });
            found.truncate(n);
            (rank, found)
        };
        // What was allocated until the peak is not known, and so no rate of it.
        let ranks = if any_runs && snapshot.counted_until.is_none() {
            [Rank::Live, Rank::Growth, Rank::Allocating]
        } else {
            [Rank::Live, Rank::Peak, Rank::Allocated]
        };
        Self {
            since: earlier.map(|earlier| earlier.at),
            any_runs,
            n_ranked: lines.len(),
            orders: ranks.into_iter().map(top).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::ProcessEnd;

    fn process(pid: u32, joined: u64, live: u64, allocated: u64) -> ProcessStats {
        ProcessStats {
            pid,
            joined_at: Duration::from_secs(joined),
            totals: Totals { current_bytes: live, allocated_bytes: allocated, ..Totals::default() },
            ..ProcessStats::default()
        }
    }

    fn snapshot(at: u64, processes: Vec<ProcessStats>) -> Snapshot {
        Snapshot { duration: Duration::from_secs(at), processes, ..Snapshot::default() }
    }

    fn by<'a>(top: &'a TopProcesses<'_>, rank: Rank) -> &'a [ProcessLine<'a>] {
        &top.orders.iter().find(|(of, _)| *of == rank).expect("such an order").1
    }

    fn pids(top: &TopProcesses<'_>, rank: Rank) -> Vec<u32> {
        by(top, rank).iter().map(|line| line.process.pid).collect()
    }

    #[test]
    fn rates_are_since_the_earlier_moment_or_since_a_process_joined() {
        let earlier = Moment::of(&snapshot(10, vec![process(1, 0, 1000, 5000), process(2, 0, 500, 500)]));
        let now = snapshot(20, vec![process(1, 0, 900, 9000), process(2, 0, 700, 700), process(3, 15, 50, 5000)]);
        let top = TopProcesses::of(&now, Some(&earlier), 5);
        assert_eq!((pids(&top, Rank::Live), pids(&top, Rank::Growth)), (vec![1, 2, 3], vec![2, 3]));
        assert_eq!(pids(&top, Rank::Allocating), [3, 1, 2]);
        let growth: Vec<i64> = by(&top, Rank::Live).iter().map(|line| line.growth as i64).collect();
        assert_eq!(growth, [-10, 20, 10]);
        assert_eq!(by(&top, Rank::Allocating)[0].allocating as i64, 1000);
    }

    #[test]
    fn without_an_earlier_moment_a_process_is_judged_by_its_own_time() {
        let now = snapshot(20, vec![process(1, 0, 1000, 1000), process(2, 10, 600, 600)]);
        let top = TopProcesses::of(&now, None, 1);
        assert_eq!((pids(&top, Rank::Live), pids(&top, Rank::Growth), top.since), (vec![1], vec![2], None));
        assert_eq!(by(&top, Rank::Growth)[0].growth as i64, 60);
    }

    #[test]
    fn those_that_ended_stand_back_behind_any_that_runs() {
        let ended = ProcessStats { ended: Some((Duration::from_secs(5), ProcessEnd::Exited)), ..process(1, 0, 99, 99) };
        let both = snapshot(20, vec![ended.clone(), process(2, 0, 1, 1)]);
        assert_eq!(pids(&TopProcesses::of(&both, None, 5), Rank::Live), [2]);
        let alone = snapshot(20, vec![ended]);
        let top = TopProcesses::of(&alone, None, 5);
        assert_eq!((pids(&top, Rank::Live), pids(&top, Rank::Allocated)), (vec![1], vec![1]));
        assert!((by(&top, Rank::Live)[0].growth - 99.0 / 5.0).abs() < 1e-9, "its time ended with it");
    }

    #[test]
    fn a_life_of_less_than_a_second_is_no_rate_of_its_own() {
        let brief = ProcessStats { joined_at: Duration::from_millis(19_995), ..process(1, 0, 80, 80) };
        let now = snapshot(20, vec![brief]);
        assert_eq!(by(&TopProcesses::of(&now, None, 5), Rank::Growth)[0].growth as i64, 80);
    }

    #[test]
    fn another_process_of_the_same_pid_is_another() {
        let earlier = Moment::of(&snapshot(10, vec![process(1, 0, 1000, 5000)]));
        let now = snapshot(20, vec![process(1, 12, 80, 80)]);
        assert_eq!(by(&TopProcesses::of(&now, Some(&earlier), 5), Rank::Growth)[0].growth as i64, 10);
    }
}
