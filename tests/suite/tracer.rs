//! What a session asks of a tracer beside a report: threads kept apart, lifetimes, the time of the peak, ages, pauses.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use memtrace_tests::{
    Program,
    process::{Target, check_code_is_as_in_files},
};
use tracer_common::counters::Counter;
use tracer_user::{
    bpf::monotonic_ns,
    options::SessionOptions,
    session::{Origin, Tracer},
    snapshot::{AgeCell, Snapshot, StackId, Tid},
    target::Process,
};

fn options() -> SessionOptions {
    SessionOptions { max_live_blocks: 1 << 16, ..SessionOptions::default() }
}

/// Probes on the target; tracing has not begun.
fn prepare(target: &Target, options: &SessionOptions) -> Result<Tracer> {
    Ok(Tracer::prepare(Process::open(target.pid())?, Origin::Attached, options, &|_| ())?)
}

fn trace(target: &Target, options: &SessionOptions) -> Result<Tracer> {
    let mut tracer = prepare(target, options)?;
    tracer.begin();
    Ok(tracer)
}

/// Lets `made_by_number.c` do one step.
fn step(target: &mut Target, n: i64) -> Result<()> {
    target.say(&n.to_string())?;
    let answer = target.hear()?;
    ensure!(answer == "done", "it says `{answer}`");
    Ok(())
}

fn current(snapshot: &Snapshot) -> (u64, u64) {
    (snapshot.totals.current_bytes, snapshot.totals.current_count)
}

/// 8000 blocks through 500 paths by 8 threads: 8 divides neither 500 nor is prime to it, so that each thread comes by 125 paths.
#[test]
fn threads_kept_apart_change_no_total() -> Result<()> {
    let program = Program::c("many_stacks").variant("threads", &["-pthread"]).build()?;
    let bytes: u64 = (0..8000).map(|b| 9 + 2 * (b % 40)).sum();
    for by_thread in [false, true] {
        let mut target = Target::start(&program, &["8000", "500", "8"])?;
        let tracer = trace(&target, &SessionOptions { by_thread, ..options() })?;
        target.go()?;
        ensure!(target.hear()?.starts_with("truth: "));
        let mut threads: BTreeSet<u32> = fs::read_dir(format!("/proc/{}/task", target.pid()))?
            .map(|task| Ok(task?.file_name().to_string_lossy().parse()?))
            .collect::<Result<_>>()?;
        threads.remove(&target.pid());
        let snapshot = tracer.snapshot();
        ensure!(current(&snapshot) == (bytes, 8000), "{:?}", snapshot.totals);
        ensure!(snapshot.counters.get(Counter::StacksFull) == 0);
        if !by_thread {
            ensure!(snapshot.stacks.len() == 500, "{} stacks", snapshot.stacks.len());
            ensure!(snapshot.threads.is_empty() && snapshot.stacks.iter().all(|stack| stack.stack.thread.is_none()));
            continue;
        }
        let mut by_thread: BTreeMap<Tid, (usize, u64)> = BTreeMap::new();
        for stack in &snapshot.stacks {
            let (paths, blocks) = by_thread.entry(stack.stack.thread.context("a stack without thread")?).or_default();
            *paths += 1;
            *blocks += stack.totals.current_count;
        }
        let expected: BTreeMap<Tid, (usize, u64)> = threads.iter().map(|tid| (Tid(*tid), (125, 1000))).collect();
        ensure!(by_thread == expected, "{by_thread:?}");
        // A thread's name has at most 15 bytes.
        let names: BTreeMap<Tid, String> =
            threads.iter().map(|tid| (Tid(*tid), "many_stacks-thr".to_owned())).collect();
        ensure!(snapshot.threads == names, "{:?}", snapshot.threads);
        target.end()?;
        let after = tracer.snapshot();
        ensure!(after.threads == names, "names of ended threads: {:?}", after.threads);
    }
    Ok(())
}

#[test]
fn lifetimes_and_the_time_of_the_peak_are_the_targets_own() -> Result<()> {
    let mut target = Target::start::<&str>(&Program::c("lifetimes").build()?, &[])?;
    let mut tracer = prepare(&target, &options())?;
    let before_begin = monotonic_ns();
    tracer.begin();
    let after_begin = monotonic_ns();
    ensure!(tracer.snapshot().peak_at.is_none(), "a peak before anything was allocated");
    target.go()?;
    let said = target.hear()?;
    let truth = said.strip_prefix("truth: ").with_context(|| format!("it says `{said}`"))?;
    let truth: Vec<u64> = truth.split(' ').map(str::parse).collect::<Result<_, _>>()?;
    let [within_1ms, near_1ms, within_1s, near_1s, made_after, made_before] = truth[..] else {
        anyhow::bail!("{truth:?}")
    };
    let snapshot = tracer.snapshot();
    let totals = snapshot.totals;
    ensure!((totals.freed_count, totals.current_count) == (116, 0), "{totals:?}");
    ensure!(within_1ms > 0 && within_1s >= within_1ms + 11, "no figures to compare: {said}");
    let (ours_1ms, ours_1s) = (totals.freed_within_1ms_count, totals.freed_within_1s_count);
    ensure!((within_1ms..=within_1ms + near_1ms).contains(&ours_1ms), "{ours_1ms} of less than 1 ms; {said}");
    ensure!((within_1s..=within_1s + near_1s).contains(&ours_1s), "{ours_1s} of less than 1 s; {said}");
    ensure!(snapshot.counters.get(Counter::Reallocs) == 1);
    // The moment is since the beginning, which lies between two readings.
    let peak_at = snapshot.peak_at.context("no time of the peak")?.as_nanos() as u64;
    ensure!(
        before_begin + peak_at <= made_before && after_begin + peak_at >= made_after,
        "the peak {peak_at} ns after {before_begin}–{after_begin} lies outside {made_after}–{made_before}"
    );
    ensure!(snapshot.duration.as_nanos() as u64 > peak_at);
    Ok(())
}

#[test]
fn ages_are_counted_by_the_snapshots_before_a_birth() -> Result<()> {
    let mut target = Target::start::<&str>(&Program::c("made_by_number").build()?, &[])?;
    let tracer = trace(&target, &SessionOptions { max_live_blocks: 6000, ..options() })?;
    let mut taken_at = Vec::new();
    for (made, freed) in [(1000, 0), (2000, 500), (3000, 1000)] {
        step(&mut target, made)?;
        step(&mut target, -freed)?;
        taken_at.push(tracer.elapsed());
    }
    let snapshot = tracer.snapshot_with_ages(&taken_at[..2]);
    let ages = snapshot.ages.as_deref().context("no ages")?;
    // The oldest were freed first: all of the first 1000, 500 of the next 2000.
    let stack = ages.first().context("a cell")?.stack;
    let cell = |generation, count| AgeCell { stack, generation, bytes: 123 * count, count };
    ensure!(ages == [cell(1, 1500), cell(2, 3000)], "{ages:?}");
    ensure!(current(&snapshot) == (4500 * 123, 4500), "{:?}", snapshot.totals);
    ensure!(snapshot.stacks.iter().any(|stats| stats.id == stack));
    ensure!(tracer.snapshot().ages.is_none(), "ages that nobody asked for");
    Ok(())
}

/// As many blocks as the table may hold: the cells sum to the totals, stack by stack.
#[test]
fn ages_sum_to_the_totals_of_each_stack() -> Result<()> {
    let program = Program::c("many_stacks").variant("threads", &["-pthread"]).build()?;
    let mut target = Target::start(&program, &["60000", "500", "8"])?;
    let tracer = trace(&target, &SessionOptions { max_live_blocks: 60_000, by_thread: true, ..options() })?;
    target.go()?;
    ensure!(target.hear()?.starts_with("truth: "));
    let snapshot = tracer.snapshot_with_ages(&[Duration::ZERO]);
    let ages = snapshot.ages.as_deref().context("no ages")?;
    let mut sums: BTreeMap<StackId, (u64, u64)> = BTreeMap::new();
    for cell in ages {
        ensure!(cell.generation == 1, "{cell:?}: before the beginning");
        let (bytes, count) = sums.entry(cell.stack).or_default();
        *bytes += cell.bytes;
        *count += cell.count;
    }
    let live: BTreeMap<StackId, (u64, u64)> = snapshot
        .stacks
        .iter()
        .map(|stats| (stats.id, (stats.totals.current_bytes, stats.totals.current_count)))
        .collect();
    ensure!(sums == live);
    ensure!(sums.values().map(|(_, count)| count).sum::<u64>() == 60_000);
    ensure!(tracer.totals() == snapshot.totals, "{:?} is not {:?}", tracer.totals(), snapshot.totals);
    Ok(())
}

#[test]
fn a_paused_target_runs_its_own_code_and_is_traced_again_afterwards() -> Result<()> {
    let mut target = Target::start::<&str>(&Program::c("made_by_number").build()?, &[])?;
    let mut tracer = trace(&target, &options())?;
    step(&mut target, 100)?;
    ensure!(check_code_is_as_in_files(target.pid()).is_err(), "no probe is seen where there are some");

    tracer.pause();
    ensure!(tracer.is_paused() && !tracer.awaits_libraries());
    check_code_is_as_in_files(target.pid())?;
    step(&mut target, 200)?;
    step(&mut target, -30)?;
    let paused = tracer.snapshot();
    ensure!(current(&paused) == (12_300, 100), "{:?}", paused.totals);
    ensure!(paused.counters.get(Counter::HitsEntry) == 100 && paused.counters.get(Counter::HitsFree) == 0);
    ensure!(paused.notes.iter().any(|note| note.starts_with("paused since ")), "{:?}", paused.notes);

    tracer.resume()?;
    ensure!(!tracer.is_paused());
    ensure!(check_code_is_as_in_files(target.pid()).is_err(), "no probe is back");
    step(&mut target, 300)?;
    // Of the first hundred, after the 30 that went unseen.
    step(&mut target, -20)?;
    let resumed = tracer.snapshot();
    // Of those 30 as many are known to be gone as had their address handed out again.
    let known_gone = resumed.counters.get(Counter::MissedFrees);
    let live = 100 + 300 - 20 - known_gone;
    ensure!(known_gone <= 30 && current(&resumed) == (live * 123, live), "{known_gone}, {:?}", resumed.totals);
    ensure!(resumed.counters.get(Counter::HitsPaused) == 0 && resumed.counters.get(Counter::LostReturns) == 0);
    let notes: Vec<_> = resumed.notes.iter().filter(|note| note.starts_with("paused ")).collect();
    ensure!(notes.len() == 1 && notes[0].starts_with("paused from "), "{notes:?}");

    // Once more: nothing is attached twice.
    tracer.pause();
    check_code_is_as_in_files(target.pid())?;
    tracer.resume()?;
    step(&mut target, 7)?;
    let again = tracer.snapshot();
    ensure!(again.totals.allocated_count == 407, "{:?}", again.totals);
    Ok(())
}

/// The thread goes on deeper on its stack than the call was whose return came during the pause.
#[test]
fn a_call_in_flight_at_a_pause_hides_nothing_afterwards() -> Result<()> {
    let mut target = Target::start::<&str>(&Program::c("own_slow_malloc").build()?, &[])?;
    let mut tracer = trace(&target, &options())?;
    target.go()?;
    ensure!(target.hear()? == "inside");
    tracer.pause();
    tracer.resume()?;
    target.go()?;
    ensure!(target.hear()? == "done");
    let snapshot = tracer.snapshot();
    ensure!(current(&snapshot) == (7 * 123, 7), "{:?}, {:?}", snapshot.totals, snapshot.counters);
    let count = |counter| snapshot.counters.get(counter);
    ensure!((count(Counter::LostReturns), count(Counter::Nested)) == (1, 0), "{:?}", snapshot.counters);
    ensure!(count(Counter::HitsEntry) == 8 && count(Counter::HitsReturn) <= 8, "{:?}", snapshot.counters);
    Ok(())
}

#[test]
fn a_tracer_that_starts_paused_touches_the_target_only_when_it_resumes() -> Result<()> {
    let mut target = Target::start::<&str>(&Program::c("made_by_number").build()?, &[])?;
    let process = Process::open(target.pid())?;
    let mut tracer = Tracer::prepare_paused(process, Origin::Attached, &options(), &|_| ())?;
    ensure!(tracer.is_paused() && tracer.has_sites());
    check_code_is_as_in_files(target.pid())?;
    step(&mut target, 100)?;

    tracer.resume()?;
    tracer.begin();
    step(&mut target, 11)?;
    step(&mut target, -5)?;
    let snapshot = tracer.snapshot();
    ensure!(current(&snapshot) == (11 * 123, 11), "{:?}", snapshot.totals);
    ensure!(snapshot.counters.get(Counter::FreesUnknown) == 5);
    ensure!(snapshot.notes.iter().all(|note| !note.starts_with("paused")), "{:?}", snapshot.notes);
    Ok(())
}
