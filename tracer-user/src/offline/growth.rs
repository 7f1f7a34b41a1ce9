//! `growth`: which sites grow steadily: leak suspects.

use std::path::PathBuf;

use anyhow::{Context as _, bail};

use super::{
    open::open,
    output::{check_writable, write},
    select::{find, select},
};
use crate::{
    analysis::{age::ages, growth::growth as analyse},
    options::{JsonTarget, ReportOptions},
    recording::{Recording, Reference, Which},
    report::{growth, growth_json},
    symbolize::Attribution,
};

/// `growth REC`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GrowthOptions {
    /// The recording.
    pub path: PathBuf,
    /// What the report shows.
    pub report: ReportOptions,
    /// Live bytes by age of the block instead.
    pub age: bool,
    /// The result as JSON.
    pub json: Option<JsonTarget>,
}

/// Runs the command; the exit status.
///
/// # Errors
/// A recording cannot be read, has too few snapshots (for ages: none with ages), filters leave nothing, or the output cannot be
/// written.
pub fn growth(options: &GrowthOptions) -> anyhow::Result<u8> {
    check_writable(options.json.as_ref(), &[&options.path])?;
    let attribution = Attribution::new(&options.report.plumbing, options.report.raw_leaf)?;
    let reference = Reference::parse(options.path.as_os_str());
    if let Some(snapshot) = reference.snapshot.filter(|_| reference.path.exists()) {
        bail!(
            "failed to analyse `{}`: growth looks at all snapshots of a recording (leave `@{snapshot}` out)",
            reference.path.display()
        );
    }
    let recording = open(&options.path)?;
    if options.age {
        print_ages(&recording, &attribution, options)
    } else {
        print_growth(&recording, &attribution, options)
    }
}

fn print_growth(recording: &Recording, attribution: &Attribution, options: &GrowthOptions) -> anyhow::Result<u8> {
    let last = find(recording, &options.path, None)?;
    let snapshot = select(recording, last, attribution, &options.report)?.non_empty()?.snapshot;
    let title = options.path.display().to_string();
    let found = analyse(recording, &snapshot, attribution, &options.report)
        .with_context(|| format!("failed to analyse `{title}`"))?;
    write(
        options.json.as_ref(),
        || growth::render(&found, &snapshot, &recording.names, &title, &options.report),
        || growth_json::render(&found, &snapshot, &recording.names),
    )?;
    Ok(0)
}

fn print_ages(recording: &Recording, attribution: &Attribution, options: &GrowthOptions) -> anyhow::Result<u8> {
    let title = options.path.display().to_string();
    let last = recording.last_with_ages().with_context(|| {
        format!(
            "failed to analyse `{title}`: no snapshot has ages of blocks (those at the end and those with a label have)"
        )
    })?;
    let snapshot = select(recording, Which::Index(last), attribution, &options.report)?.non_empty()?.snapshot;
    let taken_at: Vec<f64> = recording.snapshots[..=last].iter().map(|info| info.at.as_secs_f64()).collect();
    let found = ages(&snapshot, &taken_at, &recording.names, attribution, &options.report)
        .expect("the snapshot was chosen for its ages");
    let title = format!("{title} @{last}");
    write(
        options.json.as_ref(),
        || growth::render_ages(&found, &snapshot, &recording.names, &title, &options.report),
        || growth_json::render_ages(&found, &snapshot, &recording.names),
    )?;
    Ok(0)
}
