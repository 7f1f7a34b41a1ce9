//! The processes of a scope at a snapshot, as what changed since the one before.

use std::collections::BTreeSet;

use tracer_common::counters::Counter;

use super::{
    file::{
        packed::Packed,
        wire::{Budget, Column, Malformed, Reader, Wire, Writer, unzigzag, zigzag},
    },
    stacks::deltas,
    totals,
};
use crate::snapshot::{ProcessEnd, ProcessStats, Totals};

/// Memory of a process while it is read: its place in a list that grows, and its sums beside it.
const PROCESS_BYTES: usize = 2 * (size_of::<ProcessStats>() + 2 * size_of::<Totals>());
/// Memory of a counter's entry; the least that a B-tree takes for the first of them.
const COUNTER_BYTES: usize = 160;

/// What tells a process from others, and what is known of it from its first moment on. Rarely changes.
#[derive(Clone, Copy, PartialEq)]
struct Description<'a>(&'a ProcessStats);

impl Description<'_> {
    fn differs(self, Description(other): Self) -> bool {
        let ProcessStats {
            pid,
            pid_inside,
            parent_pid,
            comm,
            exe,
            user,
            container,
            cgroup,
            joined_at,
            ended: _,
            from_start,
            inherited_bytes,
            inherited_count,
            totals: _,
            mmap,
            counters: _,
            rss_bytes: _,
        } = self.0;
        (*pid, *pid_inside, *parent_pid) != (other.pid, other.pid_inside, other.parent_pid)
            || (comm, exe, user) != (&other.comm, &other.exe, &other.user)
            || (container, cgroup) != (&other.container, &other.cgroup)
            || (*joined_at, *from_start) != (other.joined_at, other.from_start)
            || (*inherited_bytes, *inherited_count) != (other.inherited_bytes, other.inherited_count)
            || mmap.is_some() != other.mmap.is_some()
    }

    fn put(self, w: &mut Writer) {
        let Self(of) = self;
        of.pid.put(w);
        of.pid_inside.put(w);
        of.parent_pid.put(w);
        of.comm.put(w);
        of.exe.put(w);
        of.user.put(w);
        of.container.put(w);
        of.cgroup.put(w);
        of.joined_at.put(w);
        of.from_start.put(w);
        of.inherited_bytes.put(w);
        of.inherited_count.put(w);
        of.mmap.is_some().put(w);
    }

    fn get(into: &mut ProcessStats, r: &mut Reader<'_>) -> Result<(), Malformed> {
        into.pid = Wire::get(r)?;
        into.pid_inside = Wire::get(r)?;
        into.parent_pid = Wire::get(r)?;
        into.comm = Wire::get(r)?;
        into.exe = Wire::get(r)?;
        into.user = Wire::get(r)?;
        into.container = Wire::get(r)?;
        into.cgroup = Wire::get(r)?;
        into.joined_at = Wire::get(r)?;
        into.from_start = Wire::get(r)?;
        into.inherited_bytes = Wire::get(r)?;
        into.inherited_count = Wire::get(r)?;
        into.mmap = bool::get(r)?.then(|| into.mmap.unwrap_or_default());
        Ok(())
    }
}

/// `now`, with those of `before` that it no longer tells of: a process that was there stays in a recording.
pub(super) fn merged(before: &[ProcessStats], now: &[ProcessStats]) -> Vec<ProcessStats> {
    let kept = before.get(now.len()..).unwrap_or_default();
    now.iter().chain(kept).cloned().collect()
}

/// Packs what differs between two lists by [`crate::snapshot::ProcessId`]; `now` is not the shorter one.
pub(super) fn pack(before: &[ProcessStats], now: &[ProcessStats]) -> Packed {
    let unknown = ProcessStats::default();
    let pairs = || now.iter().enumerate().map(|(at, new)| (at, before.get(at).unwrap_or(&unknown), new));
    let mut w = Writer::default();
    w.number((now.len() - before.len()) as u64);

    let described: Vec<_> =
        pairs().filter(|(at, old, new)| *at >= before.len() || Description(new).differs(Description(old))).collect();
    w.number(described.len() as u64);
    for (at, _, new) in described {
        w.number(at as u64);
        Description(new).put(&mut w);
    }

    let fates: Vec<_> =
        pairs().filter(|(_, old, new)| (old.ended, old.rss_bytes) != (new.ended, new.rss_bytes)).collect();
    let rss = |of: &ProcessStats| of.rss_bytes.unwrap_or(0);
    w.number(fates.len() as u64);
    w.column(deltas(fates.iter().map(|(at, ..)| *at as u64)));
    w.column(fates.iter().map(|(.., new)| new.ended.map_or(0, |(_, how)| how_number(how))));
    w.column(deltas(fates.iter().map(|(.., new)| new.ended.map_or(0, |(at, _)| at.as_nanos() as u64))));
    w.column(fates.iter().map(|(.., new)| u64::from(new.rss_bytes.is_some())));
    w.column(fates.iter().map(|(_, old, new)| zigzag(rss(new).wrapping_sub(rss(old)))));

    let sums = |of: &[ProcessStats], which: fn(&ProcessStats) -> Totals| of.iter().map(which).collect::<Vec<_>>();
    for which in [|of: &ProcessStats| of.totals, |of: &ProcessStats| of.mmap.unwrap_or_default()] {
        totals::put(&sums(before, which), &sums(now, which), &mut w);
    }

    let value = |of: &ProcessStats, counter| of.counters.0.get(&counter).copied();
    let counted: Vec<_> = pairs()
        .flat_map(|(at, old, new)| {
            new.counters.0.iter().map(move |(counter, now)| (at, *counter, value(old, *counter), *now))
        })
        .filter(|(.., old, now)| *old != Some(*now))
        .collect();
    let names: Vec<Counter> =
        counted.iter().map(|(_, counter, ..)| *counter).collect::<BTreeSet<_>>().into_iter().collect();
    w.number(names.len() as u64);
    for counter in &names {
        w.bytes(counter.name().as_bytes());
    }
    w.number(counted.len() as u64);
    w.column(deltas(counted.iter().map(|(at, ..)| *at as u64)));
    let place = |counter| names.binary_search(counter).expect("names are those of all rows, ascending");
    w.column(counted.iter().map(|(_, counter, ..)| place(counter) as u64));
    w.column(counted.iter().map(|(.., old, now)| zigzag(now.wrapping_sub(old.unwrap_or(0)))));
    Packed::new(&w.0)
}

/// Brings `processes` from one snapshot to the next. `raw` is scratch memory. After an error `processes` is of no use.
pub(super) fn apply(
    packed: &Packed,
    processes: &mut Vec<ProcessStats>,
    budget: &Budget,
    raw: &mut Vec<u8>,
) -> Result<(), Malformed> {
    packed.unpack(budget, raw)?;
    let mut r = Reader::new(raw, budget);
    let n_new = r.count(PROCESS_BYTES)?;
    processes.resize(processes.len() + n_new, ProcessStats::default());
    let n_described = r.number()?;
    for _ in 0..n_described {
        let id = r.number()?;
        Description::get(at(processes, id)?, &mut r)?;
    }
    fates(&mut r, processes)?;
    let mut sums: Vec<Totals> = processes.iter().map(|process| process.totals).collect();
    totals::get(&mut r, &mut sums)?;
    for (process, sum) in processes.iter_mut().zip(&sums) {
        process.totals = *sum;
    }
    for (process, sum) in processes.iter().zip(&mut sums) {
        *sum = process.mmap.unwrap_or_default();
    }
    totals::get(&mut r, &mut sums)?;
    for (process, sum) in processes.iter_mut().zip(&sums) {
        process.mmap = process.mmap.map(|_| *sum);
    }
    counters(&mut r, processes)?;
    r.end()
}

fn at(processes: &mut [ProcessStats], id: u64) -> Result<&mut ProcessStats, Malformed> {
    usize::try_from(id).ok().and_then(|id| processes.get_mut(id)).ok_or(Malformed::Id)
}

fn fates(r: &mut Reader<'_>, processes: &mut [ProcessStats]) -> Result<(), Malformed> {
    let n_rows = r.number()?;
    let (mut ids, mut hows, mut whens) = (r.column()?, r.column()?, r.column()?);
    let (mut known, mut rss) = (r.column()?, r.column()?);
    let (mut id, mut when) = (0_u64, 0_u64);
    for row in 0..n_rows {
        let step = unzigzag(ids.next()?);
        // Ids ascend: no more rows than processes.
        if row > 0 && (step == 0 || step > processes.len() as u64) {
            return Err(Malformed::Id);
        }
        id = id.wrapping_add(step);
        when = when.wrapping_add(unzigzag(whens.next()?));
        let process = at(processes, id)?;
        process.ended = how(hows.next()?)?.map(|how| (std::time::Duration::from_nanos(when), how));
        let rss = process.rss_bytes.unwrap_or(0).wrapping_add(unzigzag(rss.next()?));
        process.rss_bytes = (known.next()? != 0).then_some(rss);
    }
    [ids, hows, whens, known, rss].iter().try_for_each(Column::end)
}

/// Names of counters that this version does not have are passed over.
fn counters(r: &mut Reader<'_>, processes: &mut [ProcessStats]) -> Result<(), Malformed> {
    let n_names = r.count(size_of::<Option<Counter>>())?;
    let mut names = Vec::new();
    for _ in 0..n_names {
        let name = r.bytes()?;
        names.push(Counter::ALL.iter().copied().find(|counter| counter.name().as_bytes() == name));
    }
    // A byte a row: a count that lies ends soon.
    let n_rows = r.count(1)?;
    let (mut ids, mut whichs, mut changes) = (r.column()?, r.column()?, r.column()?);
    let mut id = 0_u64;
    for _ in 0..n_rows {
        id = id.wrapping_add(unzigzag(ids.next()?));
        let which = usize::try_from(whichs.next()?).map_err(|_| Malformed::Id)?;
        let change = unzigzag(changes.next()?);
        let process = at(processes, id)?;
        let Some(counter) = names.get(which).ok_or(Malformed::Id)? else { continue };
        if !process.counters.0.contains_key(counter) {
            r.charge(1, COUNTER_BYTES)?;
        }
        let value = process.counters.0.entry(*counter).or_default();
        *value = value.wrapping_add(change);
    }
    [ids, whichs, changes].iter().try_for_each(Column::end)
}

const fn how_number(how: ProcessEnd) -> u64 {
    match how {
        ProcessEnd::Exited => 1,
        ProcessEnd::Exec => 2,
        ProcessEnd::Released => 3,
    }
}

const fn how(number: u64) -> Result<Option<ProcessEnd>, Malformed> {
    Ok(match number {
        0 => None,
        1 => Some(ProcessEnd::Exited),
        2 => Some(ProcessEnd::Exec),
        3 => Some(ProcessEnd::Released),
        _ => return Err(Malformed::Number),
    })
}
