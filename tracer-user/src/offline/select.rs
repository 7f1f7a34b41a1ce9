//! From a reference to the snapshot that a report is about: found, filtered, and fit for what is asked.

use anyhow::{Context as _, ensure};

use crate::{
    analysis::{
        filter::{Filtered, filtered},
        statistics::groupable,
    },
    options::{Domains, ReportOptions},
    recording::{Recording, Which},
    report::snapshots::utc,
    snapshot::Snapshot,
    symbolize::Attribution,
};

/// Finds a snapshot; `None` is the last one.
///
/// # Errors
/// There is none of that name.
pub(super) fn find(recording: &Recording, path: &std::path::Path, wanted: Option<&str>) -> anyhow::Result<Which> {
    recording.find(wanted).with_context(|| format!("failed to find the snapshot in `{}`", path.display()))
}

/// A snapshot without what the filters leave out, with the recording's problems among its notes.
///
/// # Errors
/// It cannot be grouped by what is asked for.
pub(super) fn select(
    recording: &Recording,
    which: Which,
    attribution: &Attribution,
    options: &ReportOptions,
) -> anyhow::Result<Filtered> {
    let snapshot = of_domains(recording.snapshot(which), options.domains)?;
    groupable(&snapshot, options.key).context("failed to group by thread")?;
    let mut filtered = filtered(&snapshot, &recording.names, attribution, &options.filters);
    filtered.snapshot.notes.extend(recording.problems.iter().cloned());
    Ok(filtered)
}

/// Checks that the limits on lines left any, if there were any.
///
/// # Errors
/// They left none.
pub(super) fn within_limits(is_any_left: bool, n_left_out: usize, options: &ReportOptions) -> anyhow::Result<()> {
    let lines = if n_left_out == 1 { "the only line".to_owned() } else { format!("all {n_left_out} lines") };
    ensure!(is_any_left || n_left_out == 0, "nothing left: {} removed {lines}", options.limits());
    Ok(())
}

/// What a snapshot says of some kinds of memory.
///
/// # Errors
/// Mappings are asked for, and were not recorded.
pub(super) fn of_domains(snapshot: Snapshot, domains: Domains) -> anyhow::Result<Snapshot> {
    ensure!(
        domains == Domains::Heap || snapshot.mmap.is_some(),
        "failed to show domain {}: mappings were not recorded (record with --domain mmap or all)",
        domains.name()
    );
    Ok(snapshot.of_domains(domains))
}

/// What a snapshot is called in reports: `3 (after warm-up), 2026-01-31 12:00:00 UTC`.
pub(super) fn title(recording: &Recording, which: Which) -> String {
    let Which::Index(index) = which else { return "peak".to_owned() };
    let info = &recording.snapshots[index];
    let time = utc(info.meta.unix_ns).map(|time| format!(", {time}"));
    format!("{index} ({}){}", info.name(), time.unwrap_or_default())
}
