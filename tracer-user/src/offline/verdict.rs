//! `verdict`: leak or fragmentation: live bytes against resident memory.

use anyhow::{Context as _, bail, ensure};

use super::{
    open::open,
    output::print,
    select::{find, title},
};
use crate::{
    analysis::verdict::{Change, Verdict},
    options::Domains,
    recording::{Reference, Trigger, Which},
    report::verdict::render,
};

/// `verdict REC[@SNAPSHOT]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerdictOptions {
    /// The snapshot.
    pub reference: Reference,
}

/// Runs the command; the exit status.
///
/// # Errors
/// A recording cannot be read, the target's memory was not read with the snapshot, or the output cannot be written.
pub fn verdict(options: &VerdictOptions) -> anyhow::Result<u8> {
    let path = &options.reference.path;
    let recording = open(path)?;
    let has_memory = |index: &usize| recording.snapshots[*index].memory.is_some();
    let all = 0..recording.snapshots.len();
    let end = find(&recording, path, None)?;
    // A program that was started has not run yet when the first snapshot is taken.
    let before_it_ran =
        |index: usize| recording.session.from_start && recording.snapshots[index].meta.trigger == Trigger::Start;
    let which = match options.reference.snapshot.as_deref() {
        // A target that has ended has no memory at the end.
        None => match all.clone().rfind(has_memory) {
            Some(index) if before_it_ran(index) && end != Which::Index(index) => bail!(
                "failed to judge `{}`: the program had ended, and of the snapshots before only the start has its memory, from before it ran (record with --snapshot-every)",
                path.display()
            ),
            found => found.map_or(end, Which::Index),
        },
        wanted => find(&recording, path, wanted)?,
    };
    let mut snapshot = recording.snapshot(which).of_domains(Domains::Heap);
    if options.reference.snapshot.is_none() && which != end {
        snapshot.notes.insert(
            0,
            "the target's memory could not be read at the end: this is the last snapshot that has it".to_owned(),
        );
    }
    snapshot.notes.extend(recording.problems.iter().cloned());
    ensure!(
        !snapshot.is_of_many(),
        "failed to judge snapshot {which} of `{}`: it is of many processes, and resident memory is each one's own (trace one with --pid)",
        path.display()
    );
    let found = Verdict::of(&snapshot).with_context(|| {
        format!(
            "failed to judge snapshot {which} of `{}`: it has no memory of the target (the target had ended, or could not be read)",
            path.display()
        )
    })?;
    let first = all.clone().find(has_memory).map(Which::Index).filter(|first| *first != which);
    let change = first.and_then(|first| Change::between(&recording.snapshot(first).of_domains(Domains::Heap), &found));
    let title = format!("{} @{}", path.display(), title(&recording, which));
    print(&render(&snapshot, &found, change.as_ref(), &title))?;
    Ok(0)
}
