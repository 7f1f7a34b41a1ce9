//! Sessions → files and recordings in memory, and what a recording comes to, to compare.

use std::{fmt::Write as _, fs, path::Path};

use tempfile::TempDir;
use tracer_user::recording::{Builder, Recorder, Recording, Which};

use crate::sessions::{Session, Step};

/// The bytes of the file that a session makes.
pub fn record(session: &Session) -> Vec<u8> {
    let dir = TempDir::new().expect("a folder for tests");
    let path = dir.path().join("a.mtb");
    record_to(&path, session);
    fs::read(&path).expect("just written")
}

/// Writes the file that a session makes.
pub fn record_to(path: &Path, session: &Session) {
    let mut recorder = Recorder::create(path, &session.info).expect("a new file");
    for step in &session.steps {
        match step.clone() {
            Step::Snapshot(snapshot, meta) => recorder.snapshot(&snapshot, meta).expect("there is room"),
            Step::Sample(sample) => recorder.sample(sample).expect("there is room"),
            Step::Mark(mark) => recorder.mark(mark),
            Step::Flush => recorder.flush().expect("there is room"),
        }
    }
    recorder.finish(&session.names()).expect("there is room");
}

/// The same without a file.
pub fn in_memory(session: &Session) -> Recording {
    let mut builder = Builder::new(session.info.clone());
    for step in &session.steps {
        match step.clone() {
            Step::Snapshot(snapshot, meta) => builder.snapshot(&snapshot, meta),
            Step::Sample(sample) => builder.sample(sample),
            Step::Mark(mark) => builder.mark(mark),
            Step::Flush => {}
        }
    }
    builder.finish(session.names())
}

/// Everything that a recording holds, as text.
pub fn contents(recording: &Recording) -> String {
    let mut text = format!(
        "{:?}\n{:?}\n{:?}\n{:?}\n{:?}\n{:?}\n{:?}\n",
        recording.session,
        recording.modules,
        recording.stacks,
        recording.threads,
        recording.snapshots,
        recording.series,
        recording.marks
    );
    let mut names: Vec<_> = recording.names.iter().collect();
    names.sort_unstable_by_key(|(at, _)| *at);
    writeln!(text, "{names:?}").expect("a String grows");
    let moments = (0..recording.snapshots.len()).map(Which::Index).chain([Which::Peak]);
    for which in moments.filter(|_| !recording.snapshots.is_empty()) {
        writeln!(text, "{which}: {:?}", recording.snapshot(which)).expect("a String grows");
    }
    recording.each_snapshot(|index, totals| writeln!(text, "{index}: {totals:?}").expect("a String grows"));
    text
}
