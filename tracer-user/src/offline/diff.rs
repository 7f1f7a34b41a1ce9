//! `diff`: what changed between two snapshots, as tracemalloc's `compare_to`.

use std::path::Path;

use anyhow::ensure;

use super::{
    open::open,
    output::{check_writable, write},
    select::{find, select, title, within_limits},
};
use crate::{
    analysis::{
        diff::{Diff, Named, diff as compare},
        filter::{NothingLeft, Removed},
    },
    options::{JsonTarget, Key, ReportOptions},
    recording::{Recording, Reference, Which},
    report::{
        diff::{Titles, render},
        diff_json,
    },
    symbolize::Attribution,
};

/// `diff A[@S] [B[@S]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiffOptions {
    /// The older snapshot.
    pub old: Reference,
    /// The newer one; `None`: the last of `old`, whose first is then the older where no other is named.
    pub new: Option<Reference>,
    /// What the report shows.
    pub report: ReportOptions,
    /// The report as JSON.
    pub json: Option<JsonTarget>,
}

/// Runs the command; the exit status.
///
/// # Errors
/// A recording cannot be read, the two have nothing in common, filters leave nothing, or the output cannot be written.
pub fn diff(options: &DiffOptions) -> anyhow::Result<u8> {
    let (old_path, new_path) = (&options.old.path, options.new.as_ref().map_or(&options.old.path, |new| &new.path));
    check_writable(options.json.as_ref(), &[old_path, new_path])?;
    let attribution = Attribution::new(&options.report.plumbing, options.report.raw_leaf)?;
    let old_recording = open(old_path)?;
    let other = if new_path == old_path { None } else { Some(open(new_path)?) };
    let new_recording = other.as_ref().unwrap_or(&old_recording);

    let first_and_last = options.new.is_none() && options.old.snapshot.is_none();
    ensure!(
        !first_and_last || old_recording.snapshots.len() > 1,
        "failed to compare the first and the last snapshot of `{}`: it holds {}",
        old_path.display(),
        old_recording.snapshots.len()
    );
    let old_which =
        if first_and_last { Which::Index(0) } else { find(&old_recording, old_path, options.old.snapshot.as_deref())? };
    let new_which =
        find(new_recording, new_path, options.new.as_ref().and_then(|reference| reference.snapshot.as_deref()))?;

    let old = select(&old_recording, old_which, &attribution, &options.report)?;
    let new = select(new_recording, new_which, &attribution, &options.report)?;
    if old.snapshot.stacks.is_empty() && new.snapshot.stacks.is_empty() {
        let sum = |a: Removed, b: Removed| {
            let mut totals = a.totals;
            totals.add(&b.totals);
            Removed { n_stacks: a.n_stacks + b.n_stacks, of_stacks: a.of_stacks + b.of_stacks, totals }
        };
        let removed = sum(old.removed, new.removed);
        let hint = new.hint.clone().or_else(|| old.hint.clone());
        ensure!(removed.n_stacks == 0, NothingLeft { removed, hint });
    }
    let found = compare(
        Named { snapshot: &old.snapshot, names: &old_recording.names },
        Named { snapshot: &new.snapshot, names: &new_recording.names },
        other.is_none(),
        &attribution,
        &options.report,
    );
    if other.is_some() && is_disjoint(&found) {
        // What filters leave may well be new or gone, and every line may have moved; the recordings as they are must share something.
        let key = if options.report.key.has_line() { Key::Function } else { options.report.key };
        let whole = ReportOptions { key, ..options.report.clone() };
        let old = old_recording.snapshot(old_which).of_domains(options.report.domains);
        let new = new_recording.snapshot(new_which).of_domains(options.report.domains);
        let all = compare(
            Named { snapshot: &old, names: &old_recording.names },
            Named { snapshot: &new, names: &new_recording.names },
            false,
            &attribution,
            &whole,
        );
        ensure!(
            !is_disjoint(&all),
            "failed to compare `{}` with `{}`: they have nothing in common (none of {} and {} lines match)",
            old_path.display(),
            new_path.display(),
            all.n_vanished,
            all.n_new
        );
    }
    within_limits(!found.lines.is_empty(), found.left_out.n_lines, &options.report)?;
    let old_title = titled(old_path, &old_recording, old_which);
    let new_title = titled(new_path, new_recording, new_which);
    let titles = Titles { old: &old_title, new: &new_title };
    write(options.json.as_ref(), || render(&found, titles, &options.report), || diff_json::render(&found, titles))?;
    Ok(0)
}

fn titled(path: &Path, recording: &Recording, which: Which) -> String {
    format!("{} @{}", path.display(), title(recording, which))
}

/// No line is in both, though both have some.
const fn is_disjoint(found: &Diff<'_>) -> bool {
    found.n_common == 0 && found.n_vanished > 0 && found.n_new > 0
}
