//! The head of a report on many processes: the scope, and its first processes in three orders.

use super::{
    format::{grouped, shortened, signed_size, size, size_f64},
    owner::{cut, numbers_of, scope_name},
    text::{by_then, losses, moment, of_domain, push_line},
};
use crate::{
    analysis::processes::{Moment, ProcessLine, Rank, TopProcesses},
    options::{Domains, Key, ReportOptions, Sort, View},
    snapshot::{Snapshot, Totals},
};

/// Rows of each order.
const MAX_ROWS: usize = 5;
/// Columns of a name, so that a row fits 100.
const NAME_WIDTH: usize = 34;

/// `container web  60.0 s  7 processes (5 running, 2 ended)  current 15.2 MiB in 100 042 blocks, 3088 KiB in 12 left by ended ones
/// peak 22.9 MiB  …  nothing lost`: current is what running ones hold, as the peak is of what they held together.
pub(super) fn header(snapshot: &Snapshot, domains: Domains) -> String {
    let totals = &snapshot.totals;
    let (n_all, n_running) = numbers_of(snapshot.told().map(|(_, process)| process));
    let mut left = Totals::default();
    snapshot.told().filter(|(_, process)| process.ended.is_some()).for_each(|(_, process)| left.add(&process.totals));
    let at_end = match left.current_count {
        0 => String::new(),
        blocks => format!(", {} in {} left by ended ones", size(left.current_bytes), grouped(blocks)),
    };
    // At the peak the total is that of running ones already.
    let running = match snapshot.counted_until {
        Some(_) => *totals,
        None => Totals {
            current_bytes: totals.current_bytes.saturating_sub(left.current_bytes),
            current_count: totals.current_count.saturating_sub(left.current_count),
            ..*totals
        },
    };
    format!(
        "{}  {}  {} {} ({} running, {} ended)  {}current {}{}{at_end}  peak {}  {}allocated {} in {}  {}",
        shortened(&scope_name(snapshot)),
        moment(snapshot),
        grouped(n_all),
        if n_all == 1 { "process" } else { "processes" },
        grouped(n_running),
        grouped(n_all - n_running),
        of_domain(domains),
        size(running.current_bytes),
        blocks(&running),
        size(totals.peak_bytes),
        by_then(snapshot),
        size(totals.allocated_bytes),
        grouped(totals.allocated_count),
        losses(snapshot),
    )
}

/// How many blocks; of the peak of many that is not known.
fn blocks(totals: &Totals) -> String {
    match totals.current_count {
        0 if totals.current_bytes > 0 => String::new(),
        count => format!(" in {} blocks", grouped(count)),
    }
}

/// What forked processes began with: no part of the figures.
pub(super) fn inherited(snapshot: &Snapshot) -> Option<String> {
    let (bytes, n) = snapshot
        .told()
        .filter(|(_, process)| process.inherited_count > 0)
        .fold((0_u64, 0), |(bytes, n), (_, process)| (bytes.saturating_add(process.inherited_bytes), n + 1));
    let whose = if n == 1 { "1 forked process".to_owned() } else { format!("{n} forked processes") };
    (n > 0).then(|| format!("not counted: {} that {whose} had from their parents", size(bytes)))
}

/// How the peaks of lines are to be read, where a report shows them.
pub(super) fn about_peaks(snapshot: &Snapshot, key: Key, view: View, sort: Sort) -> Option<&'static str> {
    let shows_peaks = view == View::Peak || sort == Sort::Peak || key.is_owner();
    (snapshot.is_of_many() && shows_peaks)
        .then_some("peaks of lines: at each process's own peak, so their sum may exceed the peak of all together")
}

/// The first processes by live heap, growth and allocation rate. Empty for a single one.
pub(super) fn push_top(out: &mut String, snapshot: &Snapshot, earlier: Option<&Moment>, options: &ReportOptions) {
    if snapshot.told().count() < 2 {
        return;
    }
    let top = TopProcesses::of(snapshot, earlier, MAX_ROWS.min(options.top));
    let [live, second, third] = &top.orders[..] else { return };
    if top.orders.iter().all(|(_, lines)| lines.is_empty()) {
        return;
    }
    push_line(
        out,
        &format!(
            "{:<13}{:>9} {:>10} {:>13} {:>13}  command (container)",
            "processes by",
            "pid",
            heading(live.0),
            heading(second.0),
            heading(third.0)
        ),
    );
    // Where one order shows all of them, the others say nothing more.
    let n_orders = if live.1.len() == top.n_ranked { 1 } else { top.orders.len() };
    for (rank, lines) in top.orders.iter().take(n_orders) {
        for (at, line) in lines.iter().enumerate() {
            push_line(out, &row(if at == 0 { heading(*rank) } else { "" }, line, [second.0, third.0]));
        }
    }
    let rates = match top.since {
        _ if snapshot.counted_until.is_some() => format!("live: at the peak; {}allocated", by_then(snapshot)),
        _ if !top.any_runs => "live: when it ended".to_owned(),
        None => "rates since joined".to_owned(),
        Some(since) => format!("rates since {:.1} s", since.as_secs_f64()),
    };
    push_line(out, &format!("{rates}; lines of each: --by process; of one only: --process PID"));
}

fn heading(rank: Rank) -> &'static str {
    match rank {
        Rank::Live => "live",
        Rank::Growth => "growth",
        Rank::Allocating => "allocating",
        Rank::Peak => "peak",
        Rank::Allocated => "allocated",
    }
}

fn cell(rank: Rank, line: &ProcessLine<'_>) -> String {
    let totals = &line.process.totals;
    match rank {
        Rank::Live => size(totals.current_bytes),
        Rank::Growth => format!("{}/s", signed_size(line.growth.round() as i128)),
        Rank::Allocating => format!("{}/s", size_f64(line.allocating)),
        Rank::Peak => size(totals.peak_bytes),
        Rank::Allocated => size(totals.allocated_bytes),
    }
}

fn row(order: &str, line: &ProcessLine<'_>, ranks: [Rank; 2]) -> String {
    let process = line.process;
    let container = process.container.as_deref().map(|name| format!(" ({name})")).unwrap_or_default();
    let ended = if process.ended.is_some() && process.pid != 0 { ", ended" } else { "" };
    let pid = if process.pid == 0 { "–".to_owned() } else { process.pid.to_string() };
    let name = cut(&format!("{}{container}{ended}", process.comm), NAME_WIDTH);
    let [live, second, third] = [Rank::Live, ranks[0], ranks[1]].map(|rank| cell(rank, line));
    format!("  {order:<11}{pid:>9} {live:>10} {second:>13} {third:>13}  {name}")
}
