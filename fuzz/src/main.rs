//! `memtrace-fuzz CASES SEED`: opens mutated recordings. Each must open or be refused with a reason, without a panic, and within
//! the memory that a file of its size may take. What a run did follows from its seed.

mod counting;
mod mutate;
mod random;
mod seeds;

use std::{
    collections::BTreeMap,
    panic::{self, AssertUnwindSafe},
    process::ExitCode,
};

use anyhow::{Context as _, Result, bail, ensure};
use counting::Counting;
use random::Random;
use tracer_user::{
    analysis::statistics::statistics,
    options::{Key, ReportOptions},
    recording::{Recording, Which, read_limit_bytes},
    report::text,
    symbolize::Attribution,
};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// A report is made of one recording in so many: it costs more than reading.
const REPORT_EVERY: u64 = 16;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match fuzz(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("memtrace-fuzz: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn fuzz(arguments: &[String]) -> Result<()> {
    let [cases, seed] = arguments else { bail!("usage: memtrace-fuzz CASES SEED") };
    let (cases, seed): (u64, u64) = (cases.parse()?, seed.parse()?);
    let mut random = Random(seed);
    let seeds = seeds::all()?;
    let attribution = Attribution::new(&[], false)?;
    let mut outcomes: BTreeMap<String, u64> = BTreeMap::new();
    let mut most_of_limit = 0.0_f64;
    for case in 0..cases {
        let bytes = mutate::mutated(&seeds, &mut random);
        let outcome = panic::catch_unwind(AssertUnwindSafe(|| open(&bytes, &attribution, case)));
        let failed = |why: &str| -> Result<()> {
            let path = std::env::temp_dir().join(format!("memtrace-fuzz-{seed}-{case}.mtb"));
            std::fs::write(&path, &bytes)?;
            bail!("case {case} of seed {seed}: {why} (kept as `{}`)", path.display())
        };
        match outcome {
            Ok(Ok((outcome, share))) => {
                *outcomes.entry(outcome).or_default() += 1;
                most_of_limit = most_of_limit.max(share);
            }
            Ok(Err(error)) => failed(&format!("{error:#}"))?,
            Err(_) => failed("a panic")?,
        }
    }
    println!("what,value");
    println!("cases,{cases}");
    println!("seed,{seed}");
    println!("panics,0");
    println!("beyond the memory limit,0");
    println!("most memory in percent of the limit,{:.1}", most_of_limit * 100.0);
    for (outcome, n) in outcomes {
        println!("{outcome},{n}");
    }
    Ok(())
}

/// Opens a file and looks at everything in it: what came of it, and the share of its memory limit that reading took.
fn open(bytes: &[u8], attribution: &Attribution, case: u64) -> Result<(String, f64)> {
    let limit = read_limit_bytes(bytes.len() as u64);
    counting::restart();
    let read = Recording::read_from(bytes, bytes.len() as u64);
    let peak = counting::peak_bytes();
    ensure!(peak <= limit, "{peak} bytes were allocated for a file of {}, {limit} are allowed", bytes.len());
    let share = peak as f64 / limit as f64;
    let recording = match read {
        Ok(recording) => recording,
        Err(error) => {
            let reason = error.to_string();
            ensure!(!reason.is_empty() && !reason.contains('\n'), "no reason in one line: `{reason}`");
            let class = if reason.contains("format is version") { "a newer format" } else { &reason };
            return Ok((format!("refused: {}", class.replace(',', ";")), share));
        }
    };
    for (index, _) in recording.snapshots.iter().enumerate() {
        let snapshot = recording.snapshot(Which::Index(index));
        let frames = snapshot.stacks.iter().flat_map(|stack| &stack.stack.frames);
        let n_names: usize = frames.map(|frame| recording.names.of(frame).len()).sum();
        ensure!(n_names < usize::MAX, "counted");
    }
    if !recording.snapshots.is_empty() && case.is_multiple_of(REPORT_EVERY) {
        let key = if case.is_multiple_of(2 * REPORT_EVERY) { Key::Process } else { Key::Lineno };
        let options = ReportOptions { key, ..ReportOptions::default() };
        let snapshot = recording.snapshot(Which::Peak);
        let lines = statistics(&snapshot, &recording.names, attribution, &options);
        let text = text::render(&snapshot, &lines, &options, false);
        let control = text.chars().find(|c| c.is_control() && *c != '\n');
        ensure!(control.is_none(), "the report holds {control:?}");
        text.lines().next().context("a report has a first line")?;
    }
    let problem = if recording.problems.is_empty() { "opened: whole" } else { "opened: with a problem told" };
    Ok((problem.to_owned(), share))
}
