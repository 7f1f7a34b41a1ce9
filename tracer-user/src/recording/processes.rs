//! The processes of a scope at a snapshot, as what changed since the one before.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    time::Duration,
};

use tracer_common::counters::Counter;

use super::{
    file::{
        packed::Packed,
        wire::{Budget, Column, Malformed, Reader, Wire, Writer, unzigzag, zigzag},
    },
    stacks::deltas,
    totals,
};
use crate::snapshot::{ProcessEnd, ProcessId, ProcessStats, Totals};

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
        into.mmap = bool::get(r)?.then(Totals::default);
        Ok(())
    }
}

/// Packs what differs between two lists by [`ProcessId`]; `now` is not the shorter one.
pub(super) fn pack(before: &[ProcessStats], now: &[ProcessStats]) -> Packed {
    let unknown = ProcessStats::default();
    // A place that another process has got begins anew.
    let old =
        |at: usize, new: &ProcessStats| before.get(at).filter(|old| identity(old) == identity(new)).unwrap_or(&unknown);
    let pairs = || now.iter().enumerate().map(|(at, new)| (at, old(at, new), new));
    let mut w = Writer::default();
    w.number((now.len() - before.len()) as u64);

    let is_described = |at: usize, new: &ProcessStats| {
        before.get(at).is_none_or(|old| identity(old) != identity(new) || Description(new).differs(Description(old)))
    };
    let described: Vec<_> = pairs().filter(|(at, _, new)| is_described(*at, new)).collect();
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

    for which in [|of: &ProcessStats| of.totals, |of: &ProcessStats| of.mmap.unwrap_or_default()] {
        let (before, now): (Vec<_>, Vec<_>) = pairs().map(|(_, old, new)| (which(old), which(new))).unzip();
        totals::put(&before, &now, &mut w);
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
        let (process, mut described) = (at(processes, id)?, ProcessStats::default());
        Description::get(&mut described, &mut r)?;
        if identity(&described) == identity(process) {
            let ProcessStats { ended, totals, counters, rss_bytes, mmap, .. } = std::mem::take(process);
            let mmap = described.mmap.map(|none| mmap.unwrap_or(none));
            described = ProcessStats { ended, totals, mmap, counters, rss_bytes, ..described };
        }
        *process = described;
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
        process.ended = how(hows.next()?)?.map(|how| (Duration::from_nanos(when), how));
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

/// What makes a process the same in two snapshots of a session: its pid and when it joined. Sums of processes that ended have no
/// pid: they are told by the command before their number, `sh (12 ended processes)`.
fn identity(process: &ProcessStats) -> (u32, Duration, &str) {
    let command = if process.pid == 0 { process.command() } else { "" };
    (process.pid, process.joined_at, command)
}

/// Gives processes their places in a recording. A session lists them in an order of its own, and may tell one with others when it
/// has ended: its place is then free for another.
#[derive(Debug, Default)]
pub(super) struct Places(HashMap<(u32, Duration, String, usize), u32>);

impl Places {
    /// The place of each process of a snapshot, and the list by place; places of which the snapshot does not tell are empty.
    pub(super) fn of(&mut self, processes: &[ProcessStats], n_places: usize) -> (Vec<ProcessId>, Vec<ProcessStats>) {
        let mut n_equal: HashMap<(u32, Duration, &str), usize> = HashMap::new();
        let keys: Vec<_> = processes
            .iter()
            .map(|process| {
                let (pid, joined_at, command) = identity(process);
                let n_before = n_equal.entry((pid, joined_at, command)).or_default();
                *n_before += 1;
                (pid, joined_at, command.to_owned(), *n_before)
            })
            .collect();
        let told: HashSet<_> = keys.iter().collect();
        self.0.retain(|key, _| told.contains(key));
        let taken: HashSet<u32> = self.0.values().copied().collect();
        let mut free = (0..).filter(|place| !taken.contains(place));
        let mut list = vec![ProcessStats::default(); n_places];
        let mut places = Vec::with_capacity(keys.len());
        for (key, process) in keys.into_iter().zip(processes) {
            let place = *self.0.entry(key).or_insert_with(|| free.next().expect("numbers do not end"));
            let at = place as usize;
            if list.len() <= at {
                list.resize(at + 1, ProcessStats::default());
            }
            list[at] = process.clone();
            places.push(ProcessId(place));
        }
        (places, list)
    }
}
