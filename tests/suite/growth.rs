//! Leak suspects, ages, annotated sources and verdicts on recordings of real programs.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
};

use anyhow::{Context as _, Result, ensure};
use memtrace_tests::{
    Guard, Program, clean,
    process::{Target, children, trace},
    tracer,
};
use serde_json::Value;
use tempfile::TempDir;

fn ask(arguments: &[&str], file: &Path) -> Result<String> {
    let (command, rest) = arguments.split_first().context("a command")?;
    let file = file.to_str().context("a plain path")?;
    let output = trace(&[&[*command, file], rest].concat())?;
    ensure!(output.status.success(), "{arguments:?}: {}", output.stderr);
    Ok(output.stdout)
}

fn scratch() -> Result<(TempDir, PathBuf)> {
    let scratch = TempDir::new()?;
    let file = scratch.path().join("recording.mtb");
    Ok((scratch, file))
}

fn site<'a>(found: &'a Value, function: &str) -> Result<(usize, &'a Value)> {
    let sites = found["sites"].as_array().context("sites")?;
    sites.iter().enumerate().find(|(_, site)| site["function"] == function).with_context(|| format!("no {function}"))
}

/// Records `leak_in_churn` and looks for the leak in it.
fn leak_is_first(seconds: u32, leaks_a_second: u32, snapshot_every: &str) -> Result<()> {
    let (_scratch, file) = scratch()?;
    let program = Program::c("leak_in_churn");
    let mut record = clean(tracer()?);
    record.args(["run", "--quiet", "--snapshot-every", snapshot_every, "--record"]).arg(&file).arg("--");
    record.arg(program.build()?).args([seconds.to_string(), leaks_a_second.to_string()]);
    record.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let output = Guard::spawn(&mut record)?.finish()?;
    ensure!(output.status.success(), "{}: {}", output.status, output.stderr);

    let text = ask(&["growth"], &file)?;
    let found: Value = serde_json::from_str(&ask(&["growth", "--json", "-"], &file)?)?;
    let (rank, leak) = site(&found, "leak")?;
    ensure!(rank == 0 && leak["course"] == "grows", "{text}");
    let expected = f64::from(leaks_a_second * 100);
    let rate = leak["bytes_per_second"].as_f64().context("a rate")?;
    // The tracer slows the program down by what its probes cost, and the churn's pace with it.
    ensure!((rate / expected - 1.0).abs() < 0.25, "{rate} instead of {expected}: {text}");
    ensure!(leak["confidence"].as_f64() > Some(0.999), "{text}");
    let (rank, cache) = site(&found, "cache")?;
    ensure!(rank > 0 && cache["course"] == "levels off", "{text}");
    ensure!(site(&found, "churn").is_err(), "{text}");

    let ages: Value = serde_json::from_str(&ask(&["growth", "--age", "--json", "-"], &file)?)?;
    let patterns = ["leak", "cache"].map(|function| site(&ages, function).map(|(_, site)| site["pattern"].clone()));
    let [leak, cache] = patterns;
    ensure!(leak? == "spread" && cache? == "old", "{}", ask(&["growth", "--age"], &file)?);

    let source = program.source().to_str().context("a plain path")?;
    let table = ask(&["annotate", source], &file)?;
    let n_leaked = seconds * leaks_a_second;
    let leak = table.lines().find(|line| line.ends_with("leaked = malloc(100);")).context("the line of the leak")?;
    ensure!(leak.split_whitespace().any(|word| word == n_leaked.to_string()), "{n_leaked} blocks: {table}");
    ensure!(!table.contains('\x1b'), "colours in a file: {table}");
    Ok(())
}

#[test]
fn a_leak_in_churn_is_first_and_a_cache_is_not() -> Result<()> {
    leak_is_first(15, 10, "1s")
}

#[test]
#[ignore = "takes a minute"]
fn a_leak_of_100_bytes_a_second_in_churn_is_first_within_a_minute() -> Result<()> {
    leak_is_first(60, 1, "2s")
}

/// The verdict on `fragmented MODE` while it waits, all its blocks seen.
fn verdict_on(mode: &str) -> Result<String> {
    let (_scratch, file) = scratch()?;
    let mut record = clean(tracer()?);
    record.args(["run", "--quiet", "--record"]).arg(&file).arg("--").arg(Program::c("fragmented").build()?).arg(mode);
    let session = Target::spawn(&mut record)?;
    let [target] = children(session.pid())?.try_into().map_err(|all| anyhow::anyhow!("one child, not {all:?}"))?;
    let output = trace(&["snapshot", "--label", "ready", "--session", &target.to_string()])?;
    ensure!(output.status.success(), "{}", output.stderr);
    let (_, ended) = session.end()?;
    ensure!(ended.status.success(), "the program ended with {}", ended.status);
    ask(&["verdict"], &file)
}

#[test]
fn a_heap_full_of_holes_is_called_fragmented() -> Result<()> {
    let text = verdict_on("most")?;
    ensure!(
        text.contains("for 2507 KiB live: ~98 % is free memory that the allocator keeps (fragmentation), not a leak"),
        "{text}"
    );
    ensure!(text.contains("what grew is not live blocks"), "{text}");
    Ok(())
}

#[test]
fn a_heap_full_of_blocks_is_called_live() -> Result<()> {
    let text = verdict_on("all")?;
    ensure!(text.contains("for 122 MiB live: it is live blocks, not fragmentation"), "{text}");
    ensure!(text.contains("what grew is live blocks"), "{text}");
    Ok(())
}
