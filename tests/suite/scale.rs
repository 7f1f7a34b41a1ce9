//! Large targets: nothing is lost, totals are exact, and the tables stay small. How long a report takes is measured by
//! `cargo xtask bench scale`, not here.

use anyhow::{Result, ensure};
use memtrace_tests::{Program, Report, Session, check_balance};

const MIB: u64 = 1 << 20;

#[test]
fn a_million_blocks_and_50_000_stacks_of_64_threads_are_exact() -> Result<()> {
    let report = trace(1_000_000, 50_000, 64)?;
    ensure!(report.stats.iter().map(|stat| stat.stacks).sum::<u64>() == 50_000);
    ensure!(report.stats.len() == 50_000, "{} tracebacks", report.stats.len());
    // Block b goes through path b % 50 000, and 40 divides that: all 20 blocks of a path have one size.
    for stat in &report.stats {
        ensure!(stat.count == 20 && stat.size % 20 == 0 && (stat.size / 20) % 2 == 1, "{stat:?}");
        ensure!(stat.truncated.is_none(), "{stat:?}");
    }
    Ok(())
}

#[test]
fn a_million_blocks_and_10_000_stacks_take_at_most_160_mib() -> Result<()> {
    let report = trace(1_000_000, 10_000, 8)?;
    let (kernel, own) = (report.overhead.kernel_map_bytes, report.overhead.rss_bytes);
    println!("kernel tables {} MiB, tracer {} MiB", kernel / MIB, own / MIB);
    ensure!(kernel > 0 && own > 0);
    ensure!(kernel + own <= 160 * MIB, "{} MiB", (kernel + own) / MIB);
    Ok(())
}

/// Traces `many_stacks` by traceback: its totals must be the truth, and nothing lost.
fn trace(blocks: u64, stacks: u64, threads: u64) -> Result<Report> {
    let program = Program::c("many_stacks").variant("threads", &["-pthread"]).build()?;
    let arguments = [blocks, stacks, threads].map(|number| number.to_string());
    let mut attached = Session::new().option("--key").option("traceback").attach(&program, &arguments)?;
    attached.go()?;
    attached.await_line("truth: ")?;
    let report = attached.finish()?;
    let totals = report.totals;
    let bytes: u64 = (0..blocks).map(|b| 9 + 2 * (b % 40)).sum();
    ensure!((totals.current_count, totals.current_bytes) == (blocks, bytes), "{totals:?}");
    ensure!((totals.peak_count, totals.peak_bytes) == (Some(blocks), bytes), "{totals:?}");
    ensure!((totals.allocated_count, totals.allocated_bytes) == (blocks, bytes), "{totals:?}");
    ensure!((totals.freed_count, totals.freed_bytes) == (0, 0), "{totals:?}");
    check_balance(&report)?;
    Ok(report)
}
