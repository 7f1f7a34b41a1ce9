//! What must hold of every report, whatever the program did: made = seen + filtered + lost.

use anyhow::{Context as _, Result, ensure};

use crate::report::{Figure, Report};

/// Ways in which something goes missing or a figure becomes doubtful: 0 unless a test says otherwise.
pub(crate) const LOSSES: [&str; 19] = [
    "frees_unknown",
    "reallocs_unknown",
    "lost_returns",
    "unpaired_returns",
    "missed_frees",
    "blocks_full",
    "stacks_full",
    "threads_full",
    "out_unreadable",
    "events_lost",
    "mappings_lost",
    "mapping_returns_lost",
    "unmaps_missed",
    "truncated_depth",
    "truncated_no_module",
    "truncated_no_unwind_info",
    "truncated_unsupported_rule",
    "truncated_unreadable_stack",
    "truncated_broken_chain",
];

/// A counter by its name.
///
/// # Errors
/// The report has none of that name.
pub fn counter(report: &Report, name: &str) -> Result<u64> {
    report.counters.get(name).copied().with_context(|| format!("the report has no counter `{name}`"))
}

/// Closes the balance of calls that change mappings: each was told, is told by an inner one, changed nothing, failed or was lost.
///
/// # Errors
/// It does not close.
pub fn check_mapping_balance(counters: impl Fn(&str) -> Result<u64>) -> Result<()> {
    let sum = |names: &[&str]| names.iter().try_fold(0, |sum, name| Ok::<_, anyhow::Error>(sum + counters(name)?));
    let made = counters("hits_mapping")?;
    let seen = sum(&["mappings_told", "mappings_nested", "mappings_idle", "mappings_failed"])?;
    let lost = sum(&["mappings_lost", "mapping_returns_lost"])?;
    ensure!(made == seen + lost, "{made} calls of mmap and its kin were made, {seen} seen and {lost} lost");
    Ok(())
}

/// Closes the balance of hits, blocks and lines; the number of reallocations that moved or resized a known block (one
/// hit each, counted both as allocated and as freed).
pub fn check_balance(report: &Report) -> Result<u64> {
    let totals = &report.totals;
    let get = |name| counter(report, name);
    ensure!(
        totals.current() == totals.allocated() - totals.freed(),
        "current {:?} is not allocated {:?} less freed {:?}",
        totals.current(),
        totals.allocated(),
        totals.freed()
    );
    let sum =
        |figure: fn(&crate::Stat) -> Figure| report.stats.iter().map(figure).fold(Figure::default(), |a, b| a + b);
    for (what, lines, whole) in [
        ("live", sum(crate::Stat::live), totals.current()),
        ("allocated", sum(crate::Stat::allocated), totals.allocated()),
    ] {
        ensure!(lines == whole, "{what}: the lines sum to {lines:?}, the total is {whole:?}");
    }
    let (lines, whole) = (sum(crate::Stat::peak), totals.peak());
    let is_of_one = totals.peak_count.is_some();
    ensure!(
        if is_of_one { lines == whole } else { lines.bytes >= whole.bytes },
        "peak: the lines sum to {lines:?}, the total {} is {whole:?}",
        if is_of_one { "of one process" } else { "of processes that may peak one after another" }
    );
    let made = get("hits_entry")? + get("hits_free")?;
    let known = totals.allocated_count
        + (totals.freed_count - get("missed_frees")?)
        + get("failed")?
        + get("nested")?
        + get("frees_of_null")?
        + get("frees_unknown")?
        + get("lost_returns")?
        + get("blocks_full")?
        + get("out_unreadable")?
        + get("threads_full")?;
    let moves = known.checked_sub(made).with_context(|| format!("{made} hits, but only {known} are accounted for"))?;
    ensure!(moves == get("reallocs")?, "{made} hits, {known} accounted for, {} reallocations", get("reallocs")?);
    let (entries, returns) = (get("hits_entry")?, get("hits_return")?);
    ensure!(
        entries + get("unpaired_returns")? == returns + get("lost_returns")?,
        "{entries} entries and {returns} returns do not match"
    );
    Ok(moves)
}

/// Walks that ended at a root, of all walks.
pub fn walks_at_a_root(report: &Report) -> Result<(u64, u64)> {
    let walks = counter(report, "stacks_unwound")?;
    let truncated: u64 =
        report.counters.iter().filter(|(name, _)| name.starts_with("truncated_")).map(|(_, count)| count).sum();
    Ok((walks.checked_sub(truncated).context("more stacks truncated than walked")?, walks))
}

/// At least 99.9 % of all walks end at a root; the rest carry a reason, which is printed.
pub fn check_stacks(report: &Report, what: &str) -> Result<()> {
    let (whole, walks) = walks_at_a_root(report)?;
    let share = whole as f64 / walks as f64;
    println!("{what}: {whole} of {walks} stacks end at a root ({:.4} %)", share * 100.0);
    let mut cut = 0;
    for stat in report.stats.iter().filter(|stat| stat.truncated.is_some()) {
        cut += stat.allocated_count;
        println!(
            "  {} x {}: {} [{}]",
            stat.allocated_count,
            stat.truncated.as_deref().unwrap_or_default(),
            stat.site(),
            stat.functions().join(" < ")
        );
    }
    for (name, count) in report.counters.iter().filter(|(name, count)| name.starts_with("truncated_") && **count > 0) {
        println!("  {name}: {count}");
    }
    ensure!(walks > 0, "no stack was walked");
    ensure!(cut >= walks - whole || whole == walks, "{} stacks were cut, {cut} carry a reason", walks - whole);
    ensure!(whole * 1000 >= walks * 999, "{what}: only {whole} of {walks} stacks end at a root");
    Ok(())
}
