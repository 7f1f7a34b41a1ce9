//! `cargo xtask bench`: measures on this machine, prints a summary, and keeps it with the raw figures in
//! `bench/runs/<date>-<kernel>/<what>/`.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

use crate::{
    exec::{cargo, clean, output, root, run, say, target_dir},
    run::build_tracer,
    setup::{ensure_packages, is_root},
};

/// What `bench` takes.
#[derive(clap::Args)]
pub struct Options {
    #[command(subcommand)]
    what: What,
}

#[derive(clap::Subcommand)]
enum What {
    /// Nanoseconds added to a malloc and its free: empty programs at the same sites (the floor), ours, ours at the entry of
    /// each function (naive), heaptrack.
    Pair {
        /// Each round measures everything once.
        #[arg(long, default_value_t = 9, value_parser = clap::value_parser!(u32).range(1..))]
        rounds: u32,
    },
    /// Time from the tables to the report: 1 000 000 live blocks, 50 000 stacks, 64 threads.
    Scale,
    /// Size of a recording of 1 000 000 live blocks, 50 000 stacks and 100 snapshots, and time and memory of `report` and
    /// `diff` on it. Needs no root.
    Recording,
    /// Memory of the kernel's tables and of the tracer: 1 000 000 live blocks, 10 000 stacks.
    Memory,
}

/// Measures one thing.
pub fn main(options: &Options) -> Result<()> {
    if let What::Recording = options.what {
        return recording();
    }
    if !is_root() {
        bail!("the benchmarks trace processes: run `sudo -E cargo xtask bench`");
    }
    match options.what {
        What::Pair { rounds } => pair(rounds),
        What::Scale => large("scale", [1_000_000, 50_000, 64]),
        What::Recording => unreachable!("needs no root"),
        What::Memory => large("memory", [1_000_000, 10_000, 8]),
    }
}

fn pair(rounds: u32) -> Result<()> {
    ensure_packages(&["gcc", "libc6-dev", "heaptrack"])?;
    let workload = compile("bench/workloads/deep.c")?;
    let raw = measure(&["pair".into(), workload.into(), rounds.to_string().into()])?;
    keep("pair", &format!("cargo xtask bench pair --rounds {rounds}"), &raw, &pair_summary(&raw)?)
}

fn large(what: &str, numbers: [u32; 3]) -> Result<()> {
    ensure_packages(&["gcc", "libc6-dev"])?;
    let workload = compile("tests/programs/c/many_stacks.c")?;
    let mut arguments = vec!["scale".into(), workload.into()];
    arguments.extend(numbers.map(|number| number.to_string().into()));
    let raw = measure(&arguments)?;
    keep(what, &format!("cargo xtask bench {what}"), &raw, &large_summary(&raw)?)
}

fn recording() -> Result<()> {
    let tracer = build_tracer()?;
    let raw = measure(&["recording".into(), tracer.into()])?;
    keep("recording", "cargo xtask bench recording", &raw, &recording_summary(&raw)?)
}

/// Optimised and without frame pointers, as distributions build theirs.
fn compile(source: &str) -> Result<PathBuf> {
    let out = target_dir().join("bench");
    fs::create_dir_all(&out)?;
    let program = out.join(Path::new(source).file_stem().context("a source file has a name")?);
    let flags = ["-O2", "-g", "-fomit-frame-pointer", "-pthread", "-o"];
    run(clean("gcc").args(flags).arg(&program).arg(source))?;
    Ok(program)
}

/// Runs the release build of `memtrace-bench`, which prints CSV.
fn measure(arguments: &[std::ffi::OsString]) -> Result<String> {
    run(cargo().args(["build", "--locked", "--release", "--package", "memtrace-bench"]))?;
    say("measuring");
    output(clean(target_dir().join("release/memtrace-bench")).args(arguments))
}

/// Prints the summary and writes what a reader needs to believe it, or to repeat it.
fn keep(what: &str, command: &str, raw: &str, summary: &str) -> Result<()> {
    let kernel = output(Command::new("uname").arg("-r"))?;
    let date = output(Command::new("date").arg("+%F"))?;
    let dir = root().join(format!("bench/runs/{}-{}/{what}", date.trim(), kernel.trim()));
    fs::create_dir_all(&dir)?;
    fs::write(dir.join("README.md"), readme(command)?)?;
    fs::write(dir.join("raw.csv"), raw)?;
    fs::write(dir.join("summary.md"), summary)?;
    print!("{summary}");
    say(format!("kept in {}", dir.display()));
    Ok(())
}

/// Command, versions, machine.
fn readme(command: &str) -> Result<String> {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo")?;
    let cpu = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
    let cpu = cpu.map_or("unknown", |(_, name)| name.trim());
    let n_cpus = cpuinfo.lines().filter(|line| line.starts_with("processor")).count();
    let virtualised = if cpuinfo.contains(" hypervisor") { ", virtual machine" } else { "" };
    let load = fs::read_to_string("/proc/loadavg")?;
    let version = |command: &mut Command| {
        output(command).ok().and_then(|text| text.lines().next().map(str::to_owned)).unwrap_or("not there".into())
    };
    let mut git = clean("git");
    git.args(["describe", "--always", "--dirty", "--exclude=*"]);
    let facts = [
        ("Commit", version(&mut git)),
        ("Kernel", version(Command::new("uname").args(["-srvm"]))),
        ("CPU", format!("{n_cpus} × {cpu}{virtualised}")),
        ("C library", version(Command::new("ldd").arg("--version"))),
        ("Compiler of the workload", version(clean("gcc").arg("--version"))),
        ("heaptrack", version(clean("heaptrack").arg("--version"))),
        ("Load when it ended", load.split_whitespace().take(3).collect::<Vec<_>>().join(" ")),
    ];
    let mut text =
        format!("# `{command}`\n\nRaw figures: `raw.csv`. What they come to: `summary.md`.\n\n| | |\n|---|---|\n");
    for (name, value) in facts {
        writeln!(text, "| {name} | {value} |")?;
    }
    Ok(text)
}

/// Nanoseconds of CPU time for one pair, each round's figure.
type Samples = BTreeMap<(u32, String), Vec<f64>>;

/// The table of `bench pair`.
fn pair_summary(raw: &str) -> Result<String> {
    let samples = pair_samples(raw)?;
    let depths: Vec<u32> =
        samples.keys().map(|(depth, _)| *depth).collect::<std::collections::BTreeSet<_>>().into_iter().collect();
    let rounds = samples.values().map(Vec::len).max().unwrap_or(0);
    let mut text = format!(
        "Nanoseconds of the target's CPU time for one malloc and its free; {rounds} rounds, in each every line once.\n\
         `added` is the median less the baseline's median; `× floor` compares what is added.\n\n\
         | stack depth | what | median | min | max | added | × floor |\n|---:|---|---:|---:|---:|---:|---:|\n"
    );
    for depth in depths {
        let of = |mode: &str| samples.get(&(depth, mode.to_owned())).map(Vec::as_slice).unwrap_or_default();
        let baseline = median(of("baseline"));
        let floor = median(of("floor")) - baseline;
        for mode in ["baseline", "floor", "ours", "naive", "heaptrack"] {
            let figures = of(mode);
            let added = median(figures) - baseline;
            let (min, max) =
                (figures.iter().copied().fold(f64::INFINITY, f64::min), figures.iter().copied().fold(0.0, f64::max));
            let relative = match mode {
                "baseline" => " | ".to_owned(),
                _ => format!("{added:.0} | {:.2}", added / floor),
            };
            writeln!(text, "| {depth} | {mode} | {:.0} | {min:.0} | {max:.0} | {relative} |", median(figures))?;
        }
    }
    Ok(text)
}

fn pair_samples(raw: &str) -> Result<Samples> {
    let mut samples = Samples::new();
    for line in raw.lines().skip(1) {
        let fields: Vec<&str> = line.split(',').collect();
        let [_, mode, depth, pairs, spent_ns] = fields[..] else { bail!("not a line of figures: `{line}`") };
        let ns = spent_ns.parse::<f64>()? / pairs.parse::<f64>()?;
        samples.entry((depth.parse()?, mode.to_owned())).or_default().push(ns);
    }
    Ok(samples)
}

fn median(figures: &[f64]) -> f64 {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => sorted[n / 2],
        n => f64::midpoint(sorted[n / 2 - 1], sorted[n / 2]),
    }
}

/// The table of `bench scale` and `bench memory`.
fn large_summary(raw: &str) -> Result<String> {
    let figures: Vec<(&str, f64)> = raw
        .lines()
        .skip(1)
        .map(|line| {
            let (what, value) = line.split_once(',').with_context(|| format!("not a line of figures: `{line}`"))?;
            Ok((what, value.parse()?))
        })
        .collect::<Result<_>>()?;
    let of = |name: &str| figures.iter().find(|(what, _)| *what == name).map_or(f64::NAN, |(_, value)| *value);
    let mib = |bytes: f64| bytes / f64::from(1 << 20);
    let (kernel, peak) = (of("kernel_map_bytes"), of("rss_peak_bytes"));
    let mut text = format!(
        "{} live blocks, {} distinct stacks, {} threads: nothing lost.\n\n",
        of("blocks"),
        of("stacks"),
        of("threads")
    );
    text.push_str("| | |\n|---|---:|\n");
    for (name, what) in [
        ("sums over all stacks (once a second, for the series)", "totals_ms"),
        ("tables read (snapshot)", "snapshot_ms"),
        ("tables and every block read (snapshot with ages)", "snapshot_with_ages_ms"),
        ("names looked up", "names_ms"),
        ("lines made and printed", "report_ms"),
        ("**snapshot to report**", "snapshot_to_report_ms"),
    ] {
        writeln!(text, "| {name} | {:.0} ms |", of(what))?;
    }
    writeln!(text, "| kernel tables | {:.1} MiB |", mib(kernel))?;
    writeln!(text, "| tracer, resident at the snapshot | {:.1} MiB |", mib(of("rss_bytes")))?;
    writeln!(text, "| tracer, most that was ever resident | {:.1} MiB |", mib(peak))?;
    writeln!(text, "| **kernel tables + tracer's most** | {:.1} MiB |", mib(kernel + peak))?;
    text.push_str(
        "\nPages of the tables that the tracer has read are resident in it too: the sum counts them twice.\n",
    );
    Ok(text)
}

/// The table of `bench recording`, each figure beside what it must stay below.
fn recording_summary(raw: &str) -> Result<String> {
    let mut figures: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    for line in raw.lines().skip(1) {
        let (what, value) = line.split_once(',').with_context(|| format!("not a line of figures: `{line}`"))?;
        figures.entry(what).or_default().push(value.parse()?);
    }
    let of = |name: &str| figures.get(name).map(Vec::as_slice).unwrap_or_default();
    let most = |name: &str| of(name).iter().copied().fold(f64::NAN, f64::max);
    let mb = |bytes: f64| bytes / 1e6;
    let mut text = format!(
        "{} live blocks, {} stacks, {} snapshots; between two, {} % of the stacks change. A snapshot takes at most {} ms to \
         write; the names are {:.1} MB of the file.\n\n| | median | min | max | limit |\n|---|---:|---:|---:|---:|\n",
        most("blocks"),
        most("stacks"),
        most("snapshots"),
        most("changed_percent"),
        most("slowest_snapshot_ms"),
        mb(most("names_bytes")),
    );
    writeln!(text, "| size of the file | {:.1} MB | | | 20 MB |", mb(most("file_bytes")))?;
    for name in ["report", "report_traceback", "diff", "diff_traceback"] {
        let [took, cpu, peak] = ["ms", "cpu_ms", "peak_bytes"].map(|what| format!("{name}_{what}"));
        let what = name.replace("_traceback", " --key traceback");
        let min = |name: &str| of(name).iter().copied().fold(f64::NAN, f64::min);
        writeln!(
            text,
            "| `{what}` | {:.0} ms | {:.0} | {:.0} | 1000 ms |",
            median(of(&took)),
            min(&took),
            most(&took)
        )?;
        let figures = [median(of(&cpu)), min(&cpu), most(&cpu)];
        writeln!(text, "| CPU time of `{what}` | {:.0} ms | {:.0} | {:.0} | |", figures[0], figures[1], figures[2])?;
        let [median, min, max] = [median(of(&peak)), min(&peak), most(&peak)].map(mb);
        writeln!(text, "| most memory of `{what}` | {median:.0} MB | {min:.0} | {max:.0} | 300 MB |")?;
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ratio_compares_what_is_added() {
        let raw = "round,mode,depth,pairs,ns\n0,baseline,5,10,100\n0,floor,5,10,1100\n0,ours,5,10,1600\n0,naive,5,1,1010\n\
                   0,heaptrack,5,1,110\n";
        let summary = pair_summary(raw).expect("well-formed figures");
        assert!(summary.contains("| 5 | ours | 160 | 160 | 160 | 150 | 1.50 |"), "{summary}");
        assert!(summary.contains("| 5 | naive | 1010 | 1010 | 1010 | 1000 | 10.00 |"), "{summary}");
    }

    #[test]
    fn the_median_of_an_even_number_lies_between() {
        assert!((median(&[4.0, 1.0, 2.0, 3.0]) - 2.5).abs() < 1e-9);
        assert!((median(&[3.0, 1.0, 2.0]) - 2.0).abs() < 1e-9);
    }
}
