//! The domain `mmap` against programs that keep books of their own, which they hold against the kernel's list of mappings.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail, ensure};
use memtrace_tests::{
    Figure, Program, Report, Session, Stat, Truth, check_mapping_balance, counter,
    process::{Target, Tracing, trace},
    recording,
};
use tempfile::TempDir;
use tracer_user::{
    analysis::statistics::statistics,
    options::{Domains, Key, ReportOptions},
    recording::Recording,
    snapshot::{Counters, Snapshot},
    symbolize::Attribution,
};

/// What a program says of one of its sites.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Books {
    live: Figure,
    peak: Figure,
    allocated: Figure,
}

/// What a program says at one mark.
#[derive(Debug, Default)]
struct Mark {
    /// `KEY=N` of its first line.
    sums: BTreeMap<String, u64>,
    /// By function.
    sites: BTreeMap<String, Books>,
}

/// Reads what a program says until its line `end`.
fn hear_mark(target: &mut Target) -> Result<Mark> {
    let mut mark = Mark::default();
    loop {
        let line = target.hear()?;
        let words: Vec<&str> = line.split(' ').collect();
        match words[..] {
            ["end"] => return Ok(mark),
            ["mark", _, ref sums @ ..] => {
                for sum in sums {
                    let (name, number) = sum.split_once('=').with_context(|| format!("`{line}`"))?;
                    mark.sums.insert(name.to_owned(), number.parse()?);
                }
            }
            ["site", name, ref figures @ ..] => {
                let mut books = Books::default();
                for figure in figures {
                    let (what, figure) = figure.split_once('=').with_context(|| format!("`{line}`"))?;
                    let (bytes, count) = figure.split_once('/').with_context(|| format!("`{line}`"))?;
                    let figure = Figure::new(bytes.parse()?, count.parse()?);
                    match what {
                        "live" => books.live = figure,
                        "peak" => books.peak = figure,
                        "allocated" => books.allocated = figure,
                        other => bail!("it says `{other}`"),
                    }
                }
                mark.sites.insert(name.to_owned(), books);
            }
            _ => bail!("it says `{line}`"),
        }
    }
}

/// Mappings by the function that made them, as a recorded snapshot has them.
fn by_function(recording: &Recording, label: &str) -> Result<(Snapshot, BTreeMap<String, Books>)> {
    let snapshot = recording.snapshot(recording.find(Some(label))?).of_domains(Domains::Mmap);
    let options = ReportOptions { key: Key::Function, domains: Domains::Mmap, ..ReportOptions::default() };
    let lines = statistics(&snapshot, &recording.names, &Attribution::new(&[], false)?, &options);
    let mut found = BTreeMap::new();
    for line in &lines.lines {
        let site = line.site.context("a stack was not stored")?;
        let name = site.name.function.as_deref().map_or_else(|reason| format!("? ({reason:?})"), str::to_owned);
        let totals = line.totals;
        let books = Books {
            live: Figure::new(totals.current_bytes, totals.current_count),
            peak: Figure::new(totals.peak_bytes, totals.peak_count),
            allocated: Figure::new(totals.allocated_bytes, totals.allocated_count),
        };
        ensure!(found.insert(name.clone(), books).is_none(), "two lines are of `{name}`");
    }
    Ok((snapshot, found))
}

/// By name, as the report has it.
fn of_counters(counters: &Counters) -> impl Fn(&str) -> Result<u64> {
    let by_name: BTreeMap<&str, u64> = counters.0.iter().map(|(counter, value)| (counter.name(), *value)).collect();
    move |name| Ok(by_name.get(name).copied().unwrap_or(0))
}

fn check_nothing_lost(snapshot: &Snapshot) -> Result<()> {
    let lost: Vec<_> = snapshot.counters.losses().collect();
    ensure!(lost.is_empty(), "lost: {lost:?}");
    check_mapping_balance(of_counters(&snapshot.counters))
}

/// Asks the session for a labelled snapshot.
fn snapshot(target: &Target, label: &str) -> Result<()> {
    let output = trace(&["snapshot", "--label", label, "--session", &target.pid().to_string()])?;
    ensure!(output.status.success(), "{}", output.stderr);
    Ok(())
}

/// Attaches with a recording at `file`.
fn record(target: &Target, file: &Path, options: &[&str]) -> Result<Tracing> {
    let file = file.to_str().context("a plain path")?;
    Tracing::attach(target.pid(), &[&["--record", file], options].concat())
}

/// Runs the random mapper, and holds the tracer's figures against its books at each mark.
fn check_random_mapper(program: &Path, seed: &str) -> Result<()> {
    const STEPS: u64 = 12_000;
    const MARKS: u64 = 4;
    let scratch = TempDir::new()?;
    let file = scratch.path().join("recording.mtb");
    let mut target = Target::start(program, &[seed, &STEPS.to_string(), &MARKS.to_string()])?;
    let tracing = record(&target, &file, &["--domain", "mmap"])?;
    target.go()?;
    let mut marks = Vec::new();
    for n in 1..=MARKS {
        let mark = hear_mark(&mut target)?;
        ensure!(mark.sums["steps"] == n * STEPS / MARKS, "mark {n}: {:?}", mark.sums);
        snapshot(&target, &format!("mark {n}"))?;
        marks.push(mark);
        target.go()?;
    }
    let (_, ended) = target.end()?;
    ensure!(ended.status.success(), "the mapper ended with {}: its books are not the kernel's", ended.status);
    ensure!(tracing.finish()?.status.success(), "the tracer failed");

    let recording = recording(&file)?;
    for (n, mark) in (1..).zip(&marks) {
        let (snapshot, found) = by_function(&recording, &format!("mark {n}"))?;
        check_nothing_lost(&snapshot)?;
        let expected: BTreeMap<String, Books> =
            mark.sites.clone().into_iter().filter(|(_, books)| *books != Books::default()).collect();
        ensure!(found == expected, "mark {n}: the books are {expected:#?}, the tracer has {found:#?}");
        ensure!(snapshot.totals.peak_bytes == mark.sums["peak"], "mark {n}: peak {}", snapshot.totals.peak_bytes);
        let given_back = of_counters(&snapshot.counters)("given_back_bytes")?;
        ensure!(given_back == mark.sums["given_back"], "mark {n}: {given_back} B given back");
        let live: u64 = expected.values().map(|books| books.live.bytes).sum();
        ensure!(snapshot.totals.current_bytes == live && live > 0, "mark {n}: {:?}", snapshot.totals);
    }
    Ok(())
}

#[test]
fn twelve_thousand_random_calls_have_the_kernels_figures_at_every_mark() -> Result<()> {
    check_random_mapper(&Program::c("mapper").build()?, "1")
}

#[test]
fn other_calls_have_them_too() -> Result<()> {
    check_random_mapper(&Program::c("mapper").build()?, "20260101")
}

#[test]
fn so_have_they_with_musl() -> Result<()> {
    check_random_mapper(&Program::c("mapper").compiler("musl-gcc").build()?, "3")
}

#[test]
fn so_have_they_in_a_static_program() -> Result<()> {
    check_random_mapper(&Program::c("mapper").variant("static", &["-static"]).build()?, "4")?;
    check_random_mapper(&Program::c("mapper").compiler("musl-gcc").variant("static", &["-static"]).build()?, "5")
}

#[test]
fn threads_that_hand_addresses_to_each_other_are_exact_once_they_stand_still() -> Result<()> {
    for compiler in ["gcc", "musl-gcc"] {
        let program = Program::c("mapper_threads").compiler(compiler).variant("threads", &["-pthread"]).build()?;
        let scratch = TempDir::new()?;
        let file = scratch.path().join("recording.mtb");
        let mut target = Target::start(&program, &["7", "5000"])?;
        let tracing = record(&target, &file, &["--domain", "all"])?;
        target.go()?;
        let mark = hear_mark(&mut target)?;
        snapshot(&target, "joined")?;
        target.go()?;
        let (_, ended) = target.end()?;
        ensure!(ended.status.success(), "the program ended with {}", ended.status);
        ensure!(tracing.finish()?.status.success(), "the tracer failed");

        let (snapshot, mut found) = by_function(&recording(&file)?, "joined")?;
        check_nothing_lost(&snapshot)?;
        // No one's books tell of an exact peak of threads, nor of their stacks, which are made for `main`.
        found.remove("main");
        for books in found.values_mut() {
            books.peak = Figure::default();
        }
        ensure!(found == mark.sites, "{compiler}: the books are {:#?}, the tracer has {found:#?}", mark.sites);
    }
    Ok(())
}

/// Of both domains.
fn run_all(program: &Path) -> Result<Report> {
    Session::new().option("--domain").option("all").run::<&str>(program, &[])
}

#[test]
fn what_malloc_maps_is_the_heaps_alone() -> Result<()> {
    for compiler in ["gcc", "musl-gcc"] {
        let program = Program::c("huge_blocks").compiler(compiler);
        let mut report = run_all(&program.build()?)?;
        let mappings: Vec<_> = report.stats.extract_if(.., |stat| stat.domain == "mmap").collect();
        Truth::of(&program)?.check(&report)?;
        // musl's loader, which is its libc, maps for itself before the program starts.
        let (own, loaders): (Vec<_>, Vec<_>) =
            mappings.iter().partition(|stat| stat.site().ends_with("huge_blocks.c:12"));
        let [own] = own[..] else { bail!("{compiler}: the program's line is not there: {mappings:?}") };
        ensure!(own.allocated() == Figure::new(123 * 4096, 1), "{compiler}: allocated {:?}", own.allocated());
        ensure!(own.live() == Figure::new(100 * 4096, 1), "{compiler}: live {:?}", own.live());
        ensure!(loaders.is_empty() || compiler == "musl-gcc", "{compiler}: {loaders:?}");
        let whole = report.mmap.context("mappings are followed")?;
        let sum = |figure: fn(&Stat) -> Figure| mappings.iter().map(figure).fold(Figure::default(), |a, b| a + b);
        ensure!(whole.current() == sum(Stat::live), "{compiler}: {:?}", whole.current());
        ensure!(whole.freed() == sum(Stat::allocated) - sum(Stat::live), "{compiler}: {:?}", whole.freed());
        ensure!(counter(&report, "mappings_of_allocators")? > 0, "{compiler}: malloc maps nothing here");
        check_mapping_balance(|name| counter(&report, name))?;
    }
    Ok(())
}

#[test]
fn without_the_option_nothing_of_it_is_there() -> Result<()> {
    let program = Program::c("huge_blocks");
    let report = Session::new().run::<&str>(program.build()?, &[])?;
    ensure!(report.mmap.is_none(), "{:?}", report.mmap);
    ensure!(report.stats.iter().all(|stat| stat.domain == "heap"), "{:?}", report.stats);
    for name in ["hits_mapping", "hits_mapping_return", "mappings_told"] {
        ensure!(counter(&report, name)? == 0, "{name}: {}", counter(&report, name)?);
    }
    Truth::of(&program)?.check(&report)
}

#[test]
fn calls_that_do_not_fit_the_buffer_are_counted_and_told() -> Result<()> {
    let scratch = TempDir::new()?;
    let file = scratch.path().join("recording.mtb");
    let mut target = Target::start(&Program::c("mapper").build()?, &["6", "2000", "1"])?;
    let tracing = record(&target, &file, &["--domain", "mmap", "--mmap-buffer", "4K"])?;
    // A tracer that stands still takes nothing out of the buffer.
    tracing.signal(libc::SIGSTOP)?;
    target.go()?;
    hear_mark(&mut target)?;
    tracing.signal(libc::SIGCONT)?;
    snapshot(&target, "lost")?;
    target.go()?;
    target.end()?;
    let output = tracing.finish()?;
    let first = output.stdout.lines().next().unwrap_or_default();
    ensure!(first.contains("LOST: ") && first.contains("--mmap-buffer"), "the first line is `{first}`");
    let recording = recording(&file)?;
    let counters = recording.snapshot(recording.find(Some("lost"))?).counters;
    let lost = of_counters(&counters)("mappings_lost")?;
    ensure!(lost > 100, "{lost} calls were lost");
    check_mapping_balance(of_counters(&counters))
}

#[test]
fn a_recording_tells_what_of_it_is_asked_for() -> Result<()> {
    let scratch = TempDir::new()?;
    let path = |name: &str| -> PathBuf { scratch.path().join(name) };
    let (both, heap) = (path("both.mtb"), path("heap.mtb"));
    let program = Program::c("huge_blocks").build()?;
    for (file, domain) in [(&both, "all"), (&heap, "heap")] {
        let file = file.to_str().context("a plain path")?;
        let program = program.to_str().context("a plain path")?;
        let output = trace(&["run", "--quiet", "--record", file, "--domain", domain, "--", program])?;
        ensure!(output.status.success(), "{}", output.stderr);
    }
    let report = |file: &Path, domain: &str| -> Result<memtrace_tests::Output> {
        trace(&["report", file.to_str().context("a plain path")?, "--domain", domain])
    };
    let lines = |output: &memtrace_tests::Output| output.stdout.lines().filter(|line| line.starts_with('#')).count();
    let mmap = report(&both, "mmap")?;
    ensure!(
        lines(&mmap) == 1 && mmap.stdout.contains("huge_blocks.c:12 [mmap]: size=400 KiB, count=1"),
        "{}",
        mmap.stdout
    );
    let all = report(&both, "all")?;
    ensure!(lines(&all) == 3 && all.stdout.contains("\nmmap  current 400 KiB in 1 blocks"), "{}", all.stdout);
    let only_heap = report(&both, "heap")?;
    ensure!(lines(&only_heap) == 2 && !only_heap.stdout.contains("mmap"), "{}", only_heap.stdout);
    let refused = report(&heap, "all")?;
    ensure!(
        refused.stderr.contains("mappings were not recorded (record with --domain mmap or all)"),
        "{}",
        refused.stderr
    );
    Ok(())
}

#[test]
fn a_forked_process_has_its_own_mappings_and_an_exec_begins_anew() -> Result<()> {
    let scratch = TempDir::new()?;
    let file = scratch.path().join("recording.mtb");
    let program = Program::c("fork_mappings").build()?;
    let arguments = ["run", "--quiet", "--domain", "all", "--record", file.to_str().context("a plain path")?, "--"];
    let output = trace(&[&arguments[..], &[program.to_str().context("a plain path")?]].concat())?;
    ensure!(output.status.success(), "{}", output.stderr);
    let recording = recording(&file)?;
    let snapshot = recording.snapshot(recording.find(Some("end"))?);
    check_nothing_lost(&snapshot)?;
    let mut found: Vec<_> = snapshot
        .processes
        .iter()
        .map(|process| {
            let mmap = process.mmap.unwrap_or_default();
            (mmap.current_bytes / 4096, mmap.allocated_bytes / 4096, mmap.freed_bytes / 4096)
        })
        .collect();
    found.sort_unstable();
    // The program that the child became, the child, the parent.
    ensure!(found == [(5, 5, 0), (7, 7, 0), (25, 40, 15)], "{found:?} pages mapped, ever mapped, unmapped");
    let whole = snapshot.mmap.context("mappings are followed")?;
    ensure!(whole.current_bytes == 37 * 4096, "{whole:?}");
    ensure!(whole.peak_bytes == 47 * 4096, "40 of the parent and 7 of the child, at one time: {whole:?}");
    Ok(())
}

#[test]
fn an_arena_that_a_free_maps_is_the_allocators() -> Result<()> {
    let program = Program::c("first_call_frees").variant("threads", &["-pthread"]).build()?;
    let report = run_all(&program)?;
    let mappings = || report.stats.iter().filter(|stat| stat.domain == "mmap");
    let sites: Vec<String> = mappings().map(Stat::site).collect();
    ensure!(sites.len() == 1 && sites[0].ends_with("first_call_frees.c:13"), "{sites:?}");
    ensure!(mappings().all(|stat| stat.allocated().count == 1 && stat.allocated().bytes < 64 << 20), "{sites:?}");
    ensure!(counter(&report, "mappings_of_allocators")? > 0, "free maps nothing here");
    check_mapping_balance(|name| counter(&report, name))
}
