//! How long the way from the tables to a report takes when the target is large.

use std::{
    fs,
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use tracer_user::{
    analysis::statistics::statistics,
    options::{Placement, ReportOptions},
    report,
    symbolize::{Attribution, SymbolizeOptions, Symbolizer},
};

use crate::workload::Workload;

/// Prints `what,value`: times in milliseconds, memory in bytes.
pub fn measure(path: &str, blocks: u32, stacks: u32, threads: u32) -> Result<()> {
    let mut command = Command::new(path);
    command.args([blocks, stacks, threads].map(|number| number.to_string()));
    let mut workload = Workload::start(&mut command)?;
    let tracer = workload.trace(Placement::Planned)?;
    let truth = workload.ask("go")?;
    tracer.end();

    let started = Instant::now();
    let totals = tracer.totals();
    let summed = started.elapsed();

    let started = Instant::now();
    let snapshot = tracer.snapshot();
    let read = started.elapsed();
    let names = Symbolizer::new(SymbolizeOptions::default()).resolve(&snapshot, &|_| ());
    let named = started.elapsed();
    let options = ReportOptions::default();
    let lines = statistics(&snapshot, &names, &Attribution::new(&[], false)?, &options);
    let text = report::text::render(&snapshot, &lines, &options, false);
    let reported = started.elapsed();
    let json = report::json::render(&snapshot, &lines);
    let exported = started.elapsed();

    ensure!(totals == snapshot.totals, "{totals:?} is not {:?}", snapshot.totals);

    let taken_at: Vec<Duration> = (0..100).map(|n| snapshot.duration / 100 * n).collect();
    let started = Instant::now();
    let with_ages = tracer.snapshot_with_ages(&taken_at);
    let aged = started.elapsed();
    let ages = with_ages.ages.context("no ages")?;
    let aged_count: u64 = ages.iter().map(|cell| cell.count).sum();
    ensure!(aged_count == totals.current_count, "{aged_count} blocks by age, {totals:?}");

    let count = format!(" current_count={} ", snapshot.totals.current_count);
    ensure!(truth.contains(&count), "the target says `{truth}`, the report `{text}`");
    let head = text.lines().next().unwrap_or_default();
    ensure!(head.contains("nothing lost"), "the report says `{head}`");

    println!("what,value");
    println!("blocks,{}", snapshot.totals.current_count);
    println!("stacks,{}", snapshot.stacks.len());
    println!("threads,{threads}");
    println!("totals_ms,{}", ms(summed));
    println!("snapshot_ms,{}", ms(read));
    println!("snapshot_with_ages_ms,{}", ms(aged));
    println!("age_cells,{}", ages.len());
    println!("names_ms,{}", ms(named.saturating_sub(read)));
    println!("report_ms,{}", ms(reported.saturating_sub(named)));
    println!("snapshot_to_report_ms,{}", ms(reported));
    println!("json_ms,{}", ms(exported.saturating_sub(reported)));
    println!("json_bytes,{}", json.len());
    println!("kernel_map_bytes,{}", snapshot.overhead.kernel_map_bytes);
    println!("rss_bytes,{}", snapshot.overhead.rss_bytes);
    println!("rss_peak_bytes,{}", rss_peak_bytes()?);
    Ok(())
}

/// The most that this process ever had resident, the making of the report included.
fn rss_peak_bytes() -> Result<u64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let kib = status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB"));
    Ok(kib.context("no VmHWM in /proc/self/status")?.parse::<u64>()? * 1024)
}

fn ms(duration: Duration) -> String {
    format!("{:.1}", duration.as_secs_f64() * 1000.0)
}
