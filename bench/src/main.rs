//! `memtrace-bench`: measures, prints CSV on standard output. `cargo xtask bench` builds the workloads, runs this and keeps
//! what it prints.

mod pair;
mod recording;
mod scale;
mod synthetic;
mod workload;

use std::process::ExitCode;

use anyhow::{Result, bail};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match measure(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("memtrace-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn measure(arguments: &[String]) -> Result<()> {
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["pair", workload, rounds] => pair::measure(workload, rounds.parse()?),
        ["scale", workload, blocks, stacks, threads] => {
            scale::measure(workload, blocks.parse()?, stacks.parse()?, threads.parse()?)
        }
        ["recording", tracer] => recording::measure(tracer),
        ["recording-file", path] => recording::make(path),
        _ => bail!(
            "usage: memtrace-bench pair WORKLOAD ROUNDS | scale WORKLOAD BLOCKS STACKS THREADS | recording MEMTRACE_BPF"
        ),
    }
}
