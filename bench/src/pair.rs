//! What a malloc and its free cost, by stack depth and by what is attached.

use std::process::Command;

use anyhow::{Context as _, Result};
use tracer_user::options::Placement;

use crate::workload::Workload;

/// Return addresses on the stack.
const DEPTHS: [u32; 3] = [5, 20, 50];

/// Pairs before the timed ones: caches and tables fill.
const WARM_UP_PAIRS: u32 = 2_000;

/// heaptrack's library, preloaded by hand: no interpreter beside it, its output goes nowhere. Its best case.
const HEAPTRACK: &str = "/usr/lib/heaptrack/libheaptrack_preload.so";

/// What is attached.
#[derive(Clone, Copy, Debug)]
enum Mode {
    Baseline,
    Probes(Placement),
    Heaptrack,
}

/// With the pairs timed at each depth: about a fifth of a second each.
const MODES: [(&str, Mode, u32); 5] = [
    ("baseline", Mode::Baseline, 5_000_000),
    ("floor", Mode::Probes(Placement::Empty), 100_000),
    ("ours", Mode::Probes(Placement::Planned), 60_000),
    ("naive", Mode::Probes(Placement::Naive), 20_000),
    ("heaptrack", Mode::Heaptrack, 400_000),
];

/// Prints `round,mode,depth,pairs,ns`: each round measures every mode once, so that all see the same weather. A mode whose
/// turn comes first in one round comes last in the next.
pub fn measure(workload: &str, rounds: u32) -> Result<()> {
    println!("round,mode,depth,pairs,ns");
    for round in 0..rounds {
        for turn in 0..MODES.len() {
            let (name, mode, pairs) = MODES[(turn + round as usize) % MODES.len()];
            measure_mode(workload, round, name, mode, pairs).with_context(|| format!("failed to measure {name}"))?;
        }
    }
    Ok(())
}

fn measure_mode(path: &str, round: u32, name: &str, mode: Mode, pairs: u32) -> Result<()> {
    let mut command = Command::new(path);
    if let Mode::Heaptrack = mode {
        command.env("LD_PRELOAD", HEAPTRACK).env("DUMP_HEAPTRACK_OUTPUT", "/dev/null");
    }
    let mut workload = Workload::start(&mut command)?;
    let tracer = match mode {
        Mode::Probes(placement) => Some(workload.trace(placement)?),
        Mode::Baseline | Mode::Heaptrack => None,
    };
    for depth in DEPTHS {
        workload.ask(&format!("{depth} {WARM_UP_PAIRS}"))?;
        let spent_ns: u64 = workload.ask(&format!("{depth} {pairs}"))?.parse()?;
        println!("{round},{name},{depth},{pairs},{spent_ns}");
    }
    drop(tracer);
    Ok(())
}
