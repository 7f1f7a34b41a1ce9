//! The JSON of the processes of a scope, described field by field in docs/json.md.

use std::{borrow::Cow, collections::BTreeMap};

use serde::Serialize;
use tracer_common::counters::Counter;

use super::{
    format::path_text,
    json::{TotalsJson, finite, nanoseconds},
    owner::ended,
};
use crate::{
    analysis::processes::{Moment, ProcessLine},
    snapshot::{ProcessStats, Snapshot},
};

/// Counters of blocks that were made and are not among the totals.
const LOST_BLOCKS: [Counter; 4] =
    [Counter::BlocksFull, Counter::LostReturns, Counter::OutUnreadable, Counter::ThreadsFull];

#[derive(Serialize)]
pub(super) struct ProcessJson<'a> {
    pid: Option<u32>,
    pid_inside: Option<u32>,
    parent_pid: Option<u32>,
    processes: u64,
    comm: &'a str,
    exe: Option<Cow<'a, str>>,
    user: Option<&'a str>,
    container: Option<&'a str>,
    cgroup: Option<Cow<'a, str>>,
    joined_ns: u64,
    ended_ns: Option<u64>,
    end: Option<&'static str>,
    from_start: bool,
    inherited_bytes: u64,
    inherited_count: u64,
    totals: TotalsJson,
    #[serde(skip_serializing_if = "Option::is_none")]
    mmap: Option<TotalsJson>,
    balance: BalanceJson,
    growth_bytes_per_second: f64,
    allocated_bytes_per_second: f64,
    rss_bytes: Option<u64>,
    counters: BTreeMap<&'static str, u64>,
}

/// Blocks: made = live + freed + lost.
#[derive(Serialize)]
struct BalanceJson {
    made: u64,
    live: u64,
    freed: u64,
    lost: u64,
}

/// All processes that the snapshot tells of. `None`: it is of one.
pub(super) fn processes<'a>(snapshot: &'a Snapshot, earlier: Option<&Moment>) -> Option<Vec<ProcessJson<'a>>> {
    let line = |process| ProcessJson::new(&ProcessLine::of(process, snapshot, earlier));
    snapshot.is_of_many().then(|| snapshot.told().map(|(_, process)| line(process)).collect())
}

impl<'a> ProcessJson<'a> {
    fn new(line: &ProcessLine<'a>) -> Self {
        let process: &'a ProcessStats = line.process;
        let counted = process.counters.0.iter().filter(|(_, amount)| **amount > 0);
        Self {
            pid: (process.pid != 0).then_some(process.pid),
            pid_inside: process.pid_inside,
            parent_pid: process.parent_pid,
            processes: process.n_processes(),
            comm: process.command(),
            exe: process.exe.as_deref().map(path_text),
            user: Some(process.user.as_str()).filter(|user| !user.is_empty()),
            container: process.container.as_deref(),
            cgroup: process.cgroup.as_deref().map(path_text),
            joined_ns: nanoseconds(process.joined_at),
            ended_ns: process.ended.map(|(at, _)| nanoseconds(at)),
            end: process.ended.map(|(_, how)| ended(how)),
            from_start: process.from_start,
            inherited_bytes: process.inherited_bytes,
            inherited_count: process.inherited_count,
            totals: TotalsJson::from(&process.totals),
            mmap: process.mmap.as_ref().map(TotalsJson::from),
            balance: BalanceJson::of(process),
            growth_bytes_per_second: finite(line.growth),
            allocated_bytes_per_second: finite(line.allocating),
            rss_bytes: process.rss_bytes,
            counters: counted.map(|(counter, amount)| (counter.name(), *amount)).collect(),
        }
    }
}

impl BalanceJson {
    fn of(process: &ProcessStats) -> Self {
        let lost = LOST_BLOCKS.iter().fold(0_u64, |sum, counter| sum.saturating_add(process.counters.get(*counter)));
        let totals = &process.totals;
        Self {
            made: totals.allocated_count.saturating_add(lost),
            live: totals.current_count,
            freed: totals.freed_count,
            lost,
        }
    }
}
