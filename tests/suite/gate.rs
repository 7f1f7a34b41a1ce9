//! `run --check`: whose exit status it is, and that nothing stays behind.

use std::fs;

use anyhow::{Result, ensure};
use memtrace_tests::{Guard, Output, Program, clean, process::check_refusal, tracer};
use tempfile::TempDir;

/// Runs `memtrace-bpf run ARGUMENTS` with temporary files in a folder of its own, which must be empty after that.
fn run(arguments: &[&str]) -> Result<Output> {
    let scratch = TempDir::new()?;
    let mut command = clean(tracer()?);
    command.arg("run").args(arguments).env("TMPDIR", scratch.path());
    command.stdin(std::process::Stdio::null());
    command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    let output = Guard::spawn(&mut command)?.finish()?;
    let left: Vec<_> = fs::read_dir(scratch.path())?.flatten().map(|entry| entry.path()).collect();
    ensure!(left.is_empty(), "left behind: {left:?}");
    Ok(output)
}

fn ends_with(output: &Output, code: i32) -> Result<()> {
    ensure!(
        output.status.code() == Some(code),
        "{} instead of {code}:\n{}{}",
        output.status,
        output.stdout,
        output.stderr
    );
    Ok(())
}

#[test]
fn a_program_that_succeeds_ends_with_the_verdict() -> Result<()> {
    let program = Program::c("single_thread").build()?;
    let program = program.to_str().expect("a plain path");
    let output = run(&["--check", "--max-peak", "1G", "--", program])?;
    ends_with(&output, 0)?;
    ensure!(output.stdout.ends_with("1 budget checked: 1 ok\n"), "{}", output.stdout);
    ensure!(!output.stderr.contains("recorded"), "a recording that nobody asked for is named: {}", output.stderr);
    let output = run(&["--check", "--max-allocations", "1", "--", program])?;
    ends_with(&output, 3)?;
    ensure!(output.stdout.contains("#1 c/single_thread.c:"), "no site: {}", output.stdout);
    Ok(())
}

#[test]
fn a_program_that_fails_keeps_its_status() -> Result<()> {
    for (script, code) in [("exit 7", 7), ("kill -9 $$", 128 + 9)] {
        let output = run(&["--check", "--max-allocations", "0", "--", "sh", "-c", script])?;
        ends_with(&output, code)?;
        ensure!(output.stdout.contains("FAIL  allocations"), "the outcome is told all the same: {}", output.stdout);
    }
    Ok(())
}

#[test]
fn what_was_lost_cannot_be_told() -> Result<()> {
    // One block has room, and a shell needs more.
    let lossy = ["--max-live-blocks", "1", "--check", "--max-peak", "1G"];
    let output = run(&[&lossy[..], &["--", "sh", "-c", "echo $(echo x)"]].concat())?;
    ends_with(&output, 3)?;
    ensure!(output.stdout.contains("????  peak") && output.stdout.contains("LOST: "), "{}", output.stdout);
    let output = run(&[&lossy[..], &["--allow-loss", "--", "sh", "-c", "echo $(echo x)"]].concat())?;
    ends_with(&output, 0)?;
    ensure!(output.stdout.contains("allowed by --allow-loss"), "{}", output.stdout);
    Ok(())
}

#[test]
fn what_makes_no_sense_is_told_before_the_program_runs() -> Result<()> {
    let dir = TempDir::new()?;
    let ran = dir.path().join("ran");
    let rules = dir.path().join("leaks.supp");
    fs::write(&rules, "leak:x\nleak\n")?;
    let (ran_text, rules) = (ran.to_str().expect("a plain path"), rules.to_str().expect("a plain path"));
    let table: [(&[&str], &str); 5] = [
        (&["--check"], "--max-peak"),
        (&["--max-peak", "1G"], "with --check"),
        (&["--check", "--max-leaked", "0", "--suppressions", rules], "leaks.supp:2: `leak`"),
        (&["--check", "--max-growth", "5%", "--baseline", "/nonexistent.mtb"], "`/nonexistent.mtb`"),
        (&["--check", "--max-peak", "1G", "--junit", "/nonexistent/x.xml"], "`/nonexistent/x.xml`"),
    ];
    for (arguments, why) in table {
        let output = run(&[arguments, &["--", "touch", ran_text]].concat())?;
        let line = check_refusal(&output, 2)?;
        ensure!(line.contains(why), "{arguments:?}: {line}");
        ensure!(!ran.exists(), "{arguments:?}: the program ran");
    }
    Ok(())
}

#[test]
fn json_on_standard_output_stays_json() -> Result<()> {
    let output = run(&["--json", "-", "--check", "--max-peak", "1G", "--", "/bin/true"])?;
    ends_with(&output, 0)?;
    serde_json::from_str::<serde_json::Value>(&output.stdout)?;
    ensure!(output.stderr.contains("1 budget checked: 1 ok"), "{}", output.stderr);
    Ok(())
}
