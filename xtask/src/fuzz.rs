//! `cargo xtask fuzz recording`: opens mutated recordings, and keeps what came of it in `fuzz/runs/<date>-<kernel>/`.

use std::{fmt::Write as _, fs, process::Command, time::Instant};

use anyhow::Result;

use crate::exec::{cargo, clean, output, root, run, say, target_dir};

/// What `fuzz` takes.
#[derive(clap::Args)]
pub struct Options {
    #[command(subcommand)]
    what: What,
}

#[derive(clap::Subcommand)]
enum What {
    /// Files of recordings: no panic, no memory beyond what a file of its size may take, always a reason.
    Recording {
        /// Files opened.
        #[arg(long, default_value_t = 1_000_000)]
        cases: u64,
        /// What the run did follows from it.
        #[arg(long, default_value_t = 1)]
        seed: u64,
    },
}

/// Runs the fuzzer with checks for overflow; a failure is kept as a file and ends the run.
pub fn main(options: &Options) -> Result<()> {
    let What::Recording { cases, seed } = options.what;
    run(cargo().args(["build", "--locked", "--profile", "fuzz", "--package", "memtrace-fuzz"]))?;
    say(format!("opening {cases} mutated recordings"));
    let started = Instant::now();
    let program = target_dir().join("fuzz/memtrace-fuzz");
    let raw = output(clean(program).args([cases.to_string(), seed.to_string()]))?;
    let seconds = started.elapsed().as_secs();

    let kernel = output(Command::new("uname").arg("-r"))?;
    let date = output(Command::new("date").arg("+%F"))?;
    let commit = output(clean("git").args(["describe", "--always", "--dirty", "--exclude=*"]))?;
    let rustc = output(clean("rustc").arg("--version"))?;
    let mut text = format!(
        "# `cargo xtask fuzz recording --cases {cases} --seed {seed}`\n\nCommit {}, {}, Linux {}, {seconds} s. Built with \
         checks for overflow and debug assertions.\n\n| | |\n|---|---:|\n",
        commit.trim(),
        rustc.trim(),
        kernel.trim()
    );
    for (what, value) in raw.lines().skip(1).filter_map(|line| line.split_once(',')) {
        writeln!(text, "| {what} | {value} |")?;
    }
    let dir = root().join(format!("fuzz/runs/{}-{}", date.trim(), kernel.trim()));
    fs::create_dir_all(&dir)?;
    fs::write(dir.join("recording.md"), &text)?;
    print!("{text}");
    say(format!("kept in {}", dir.display()));
    Ok(())
}
