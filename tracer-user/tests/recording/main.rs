//! The file of a recording: what was written comes back; what was not written whole, or not by us, does no harm.

mod bad_input;
mod resymbolize;
mod sessions;
mod support;

use std::{fs, sync::Arc, time::Duration};

use proptest::{prelude::*, strategy::ValueTree as _};
use sessions::{Step, session};
use support::{contents, in_memory, record, record_to};
use tempfile::TempDir;
use tracer_common::{
    addr::{FrameAddr, UserAddr},
    counters::Counter,
};
use tracer_user::{
    recording::{
        Builder, ReadError, RecordError, Recorder, Recording, Sample, SessionInfo, SnapshotMeta, Trigger, Which,
        rewrite_names,
    },
    snapshot::{
        Counters, Domain, Frame, ProcessEnd, ProcessId, ProcessStats, Snapshot, Stack, StackId, StackStats, Totals,
    },
    symbolize::Names,
};

proptest! {
    #[test]
    fn what_was_written_comes_back(session in session()) {
        let bytes = record(&session);
        let read = Recording::read_from(&bytes[..], bytes.len() as u64).expect("just written");
        prop_assert_eq!(&read.problems, &Vec::<String>::new());
        prop_assert_eq!(contents(&read), contents(&in_memory(&session)));
    }

    #[test]
    fn a_file_cut_anywhere_holds_what_is_before_the_cut(session in session(), cut in any::<prop::sample::Index>()) {
        let bytes = record(&session);
        let cut = &bytes[..cut.index(bytes.len())];
        let whole = Recording::read_from(&bytes[..], bytes.len() as u64).expect("just written");
        match Recording::read_from(cut, cut.len() as u64) {
            Ok(read) => {
                prop_assert_eq!(read.problems.len(), 1);
                prop_assert!(read.problems[0].contains("the tracer was killed"), "{:?}", read.problems);
                prop_assert!(read.is_cut);
                let n = read.snapshots.len();
                prop_assert_eq!(&read.snapshots[..], &whole.snapshots[..n]);
                for index in (0..n).map(Which::Index) {
                    prop_assert_eq!(read.snapshot(index).stacks, whole.snapshot(index).stacks);
                }
                prop_assert_eq!(&read.series[..], &whole.series[..read.series.len()]);
            }
            Err(ReadError::Cut | ReadError::Empty) => {}
            Err(error) => prop_assert!(false, "{}", error),
        }
    }
}

#[test]
fn what_does_not_end_is_told_with_what_is_whole() {
    let dir = TempDir::new().expect("a folder for tests");
    let path = dir.path().join("a.mtb");
    let mut recorder = Recorder::create(&path, &SessionInfo::default()).expect("a new file");
    let empty = Recording::read(&path).expect("the session is whole");
    assert_eq!(
        empty.problems,
        ["its end is missing: the tracer was killed, or its disk was full; 0 snapshots are whole"]
    );
    recorder.snapshot(&Snapshot::default(), SnapshotMeta::default()).expect("there is room");
    drop(recorder);
    assert!(Recording::read(&path).expect("a snapshot is whole").problems[0].ends_with("; 1 snapshot is whole"));
}

#[test]
fn damage_in_the_middle_leaves_what_is_before_it() {
    let dir = TempDir::new().expect("a folder for tests");
    let path = dir.path().join("a.mtb");
    let mut recorder = Recorder::create(&path, &SessionInfo::default()).expect("a new file");
    recorder.snapshot(&Snapshot::default(), SnapshotMeta::default()).expect("there is room");
    let middle = fs::metadata(&path).expect("it was made").len();
    recorder.snapshot(&Snapshot::default(), SnapshotMeta::default()).expect("there is room");
    recorder.finish(&Names::default()).expect("there is room");

    let mut bytes = fs::read(&path).expect("it was made");
    bytes[middle as usize + 25] ^= 1;
    fs::write(&path, &bytes).expect("there is room");
    let read = Recording::read(&path).expect("a snapshot is whole");
    assert_eq!(read.snapshots.len(), 1);
    let expected =
        format!("it is damaged at byte {middle} (the checksum differs): what follows is left out; 1 snapshot is whole");
    assert_eq!(read.problems, [expected]);
    // What lies behind the damage is not thrown away.
    assert!(matches!(rewrite_names(&path, &Names::default()), Err(ReadError::DamagedAt { .. })));
    assert_eq!(fs::read(&path).expect("still there"), bytes);
}

#[test]
fn deep_stacks_that_differ_in_one_frame_are_within_the_limit() {
    let frame = |at: u64| Frame { addr: FrameAddr::Return(UserAddr(at)), location: None };
    let totals = Totals { allocated_count: 1, ..Totals::default() };
    let stack = |id: u32| StackStats {
        id: StackId(id),
        stack: Arc::new(Stack {
            frames: std::iter::once(u64::from(id) + 1000).chain(0..127).map(frame).collect(),
            ..Stack::default()
        }),
        totals,
    };
    let snapshot = Snapshot { stacks: (0..20_000).map(stack).collect(), ..Snapshot::default() };
    let dir = TempDir::new().expect("a folder for tests");
    let path = dir.path().join("a.mtb");
    let mut recorder = Recorder::create(&path, &SessionInfo::default()).expect("a new file");
    recorder.snapshot(&snapshot, SnapshotMeta::default()).expect("there is room");
    recorder.finish(&Names::default()).expect("there is room");
    let read = Recording::read(&path).expect("just written");
    assert_eq!((read.problems.len(), read.stacks.len()), (0, 20_000), "{:?}", read.problems);
}

#[test]
fn a_process_is_met_again_wherever_the_session_lists_it_and_its_place_is_free_when_it_is_told_no_more() {
    let process = |pid, at, bytes| ProcessStats {
        pid,
        comm: "worker".into(),
        joined_at: Duration::from_secs(at),
        totals: Totals { allocated_bytes: bytes, allocated_count: 1, ..Totals::default() },
        ..ProcessStats::default()
    };
    let sum = |n: u64| ProcessStats { comm: format!("sh ({n} ended processes)"), ..process(0, 0, 1000 * n) };
    let stack = |id: u32, bytes| StackStats {
        id: StackId(id),
        stack: Arc::new(Stack { process: Some(ProcessId(id)), ..Stack::default() }),
        totals: Totals { allocated_bytes: bytes, allocated_count: 1, ..Totals::default() },
    };
    let snapshot = |processes: Vec<ProcessStats>| Snapshot {
        stacks: (0..).zip(&processes).map(|(id, process)| stack(id, process.totals.allocated_bytes)).collect(),
        processes,
        ..Snapshot::default()
    };
    let mut builder = Builder::new(SessionInfo::default());
    for processes in [
        vec![process(1, 0, 11), process(2, 0, 12), process(3, 0, 13)],
        // 1 ended, and is listed behind; 2 is told with others; pid 3 is another process.
        vec![process(3, 5, 23), sum(1), process(1, 0, 21)],
        vec![sum(2), process(3, 5, 33)],
    ] {
        builder.snapshot(&snapshot(processes), SnapshotMeta::default());
    }
    let recording = builder.finish(Names::default());
    let told = |index| -> Vec<(u32, u64, u64, u64)> {
        let snapshot = recording.snapshot(Which::Index(index));
        let processes = (0..).map(ProcessId).zip(&snapshot.processes).filter(|(_, process)| !process.is_empty());
        let of = |id| snapshot.stacks.iter().filter(move |stats| stats.stack.process == Some(id));
        processes
            .map(|(id, process)| {
                let bytes = of(id).map(|stats| stats.totals.allocated_bytes).sum();
                (process.pid, process.joined_at.as_secs(), process.totals.allocated_bytes, bytes)
            })
            .collect()
    };
    assert_eq!(told(0), [(1, 0, 11, 11), (2, 0, 12, 12), (3, 0, 13, 13)]);
    assert_eq!(told(1), [(1, 0, 21, 21), (3, 5, 23, 23), (0, 0, 1000, 1000)]);
    assert_eq!(told(2), [(3, 5, 33, 33), (0, 0, 2000, 2000)]);
    assert_eq!(recording.stacks.len(), 3, "stacks of a place are used again too");
}

#[test]
fn twelve_thousand_short_processes_are_within_the_limit() {
    let process = |n: u32| ProcessStats {
        pid: 1000 + n,
        comm: "sh".into(),
        user: "root".into(),
        joined_at: Duration::from_millis(5 * u64::from(n)),
        ended: Some((Duration::from_millis(5 * u64::from(n) + 100), ProcessEnd::Exited)),
        totals: Totals {
            allocated_bytes: 7777,
            allocated_count: 77,
            freed_count: 77,
            freed_bytes: 7777,
            ..Totals::default()
        },
        counters: Counters([(Counter::HitsEntry, 154), (Counter::FreesUnknown, 1)].into()),
        ..ProcessStats::default()
    };
    let snapshot = Snapshot { processes: (0..12_000).map(process).collect(), ..Snapshot::default() };
    let dir = TempDir::new().expect("a folder for tests");
    let path = dir.path().join("a.mtb");
    let mut recorder = Recorder::create(&path, &SessionInfo::default()).expect("a new file");
    recorder.snapshot(&snapshot, SnapshotMeta::default()).expect("there is room");
    recorder.finish(&Names::default()).expect("there is room");
    let read = Recording::read(&path).expect("just written");
    assert_eq!(read.problems, Vec::<String>::new());
    assert_eq!(read.snapshot(Which::Index(0)).processes, snapshot.processes);
}

#[test]
fn a_newer_format_is_refused_with_both_versions() {
    let mut file = b"\x89MTB\r\n\x1a\n\x09\0\0\0".to_vec();
    file.extend(crc32fast::hash(&file).to_le_bytes());
    let error = Recording::read_from(&file[..], 16).expect_err("version 9");
    assert_eq!(
        error.to_string(),
        "its format is version 9, this memtrace-bpf reads up to version 2 (use a newer memtrace-bpf)"
    );
}

/// Made by the last memtrace-bpf that wrote version 1: `run --key thread --record version1.mtb -- ./held`, whose source is beside it.
#[test]
fn a_recording_of_version_1_is_read_and_stays_one() {
    let bytes = include_bytes!("version1/version1.mtb");
    let read = Recording::read_from(&bytes[..], bytes.len() as u64).expect("version 1 is known");
    assert_eq!(read.problems, Vec::<String>::new());
    assert_eq!(read.snapshots.len(), 2);
    let end = read.snapshot(Which::Index(1));
    // 7 blocks of 123 B, 3 of 1001 B, and the 272 B of a thread's control block.
    assert_eq!((end.totals.current_bytes, end.totals.current_count), (7 * 123 + 3 * 1001 + 272, 11));
    let mut live: Vec<(u64, u64)> =
        end.stacks.iter().map(|s| (s.totals.current_bytes, s.totals.current_count)).filter(|live| live.1 > 0).collect();
    live.sort_unstable();
    assert_eq!(live, [(272, 1), (7 * 123, 7), (3 * 1001, 3)]);
    assert!(end.stacks.iter().all(|s| s.stack.process.is_none() && s.stack.domain == Domain::Heap));
    assert_eq!((end.scope.as_str(), end.processes.len(), end.mmap), ("", 0, None));

    let dir = TempDir::new().expect("a folder for tests");
    let path = dir.path().join("a.mtb");
    fs::write(&path, bytes).expect("there is room");
    rewrite_names(&path, &read.names).expect("there is room");
    assert_eq!(fs::read(&path).expect("still there")[8], 1, "its chunks are those of version 1");
    assert_eq!(contents(&Recording::read(&path).expect("just written")), contents(&read));
}

#[test]
fn a_process_of_which_nothing_changed_takes_no_room() {
    let process = |pid| ProcessStats { pid, comm: "worker".into(), ..ProcessStats::default() };
    let snapshot = Snapshot { processes: (0..1000).map(process).collect(), ..Snapshot::default() };
    let dir = TempDir::new().expect("a folder for tests");
    let path = dir.path().join("a.mtb");
    let mut recorder = Recorder::create(&path, &SessionInfo::default()).expect("a new file");
    let mut lens = Vec::new();
    for _ in 0..2 {
        recorder.snapshot(&snapshot, SnapshotMeta::default()).expect("there is room");
        lens.push(fs::metadata(&path).expect("it was made").len());
    }
    let mut changed = snapshot.clone();
    changed.processes[500].totals.current_bytes = 123;
    changed.processes[999].counters.0.insert(Counter::Nested, 7);
    recorder.snapshot(&changed, SnapshotMeta::default()).expect("there is room");
    lens.push(fs::metadata(&path).expect("it was made").len());
    let unchanged = lens[1] - lens[0];
    assert!(unchanged < 200 && lens[2] - lens[1] < unchanged + 150, "{lens:?}");
    recorder.finish(&Names::default()).expect("there is room");
    let read = Recording::read(&path).expect("just written");
    assert_eq!(read.snapshot(Which::Index(1)).processes, snapshot.processes);
    assert_eq!(read.snapshot(Which::Index(2)).processes, changed.processes);
}

#[test]
fn what_is_no_recording_is_refused() {
    let read = |bytes: &[u8]| Recording::read_from(bytes, bytes.len() as u64).expect_err("no recording").to_string();
    assert_eq!(read(b""), "not a recording: it is empty");
    assert_eq!(read(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\0\0"), "not a recording");
    assert_eq!(read(b"\x89PNG"), "not a recording");
    assert_eq!(read(b"\x89MTB\r\n"), "it ends before its first snapshot: nothing in it is whole");
    assert_eq!(read(b"\x89MTB\r\n\x1a\n\x01\0\0\0\0\0\0\0"), "it is damaged at its start: the checksum differs");
}

#[test]
fn a_file_that_is_no_recording_is_not_overwritten() {
    let dir = TempDir::new().expect("a folder for tests");
    let path = dir.path().join("main.c");
    fs::write(&path, "int main;").expect("there is room");
    let error = Recorder::create(&path, &SessionInfo::default()).expect_err("it is worth keeping");
    assert!(matches!(error, RecordError::Foreign { .. }), "{error}");
    let error = Recorder::create(&path.join("a.mtb"), &SessionInfo::default()).expect_err("no folder");
    let reason = std::error::Error::source(&error).expect("the system's reason").to_string();
    assert!(!error.to_string().contains(&reason), "whoever prints both says it twice: {error}");
    assert_eq!(fs::read_to_string(&path).expect("still there"), "int main;");
}

#[test]
fn an_older_recording_is_replaced_but_not_one_that_is_being_written() {
    let dir = TempDir::new().expect("a folder for tests");
    let path = dir.path().join("a.mtb");
    let mut recorder = Recorder::create(&path, &SessionInfo::default()).expect("a new file");
    recorder.snapshot(&Snapshot::default(), SnapshotMeta::default()).expect("there is room");
    let error = Recorder::create(&path, &SessionInfo::default()).expect_err("a session writes it");
    assert!(matches!(error, RecordError::Busy { .. }), "{error}");
    let error = rewrite_names(&path, &Names::default()).expect_err("a session writes it");
    assert_eq!(error.to_string(), "it is still being recorded");
    drop(recorder);
    Recorder::create(&path, &SessionInfo::default())
        .expect("nobody writes it")
        .finish(&Names::default())
        .expect("room");
    assert_eq!(Recording::read(&path).expect("just written").snapshots.len(), 0);
}

#[test]
fn a_stack_that_is_shared_between_snapshots_is_found_again_whatever_its_id() {
    let runner = &mut proptest::test_runner::TestRunner::deterministic();
    let first = (0..64).find_map(|_| {
        let session = session().new_tree(runner).expect("a strategy without filters").current();
        session.steps.into_iter().find_map(|step| match step {
            Step::Snapshot(snapshot, _) if snapshot.stacks.len() > 5 => Some(*snapshot),
            _ => None,
        })
    });
    let first = first.expect("one of 64 sessions has a snapshot of six stacks");
    let mut second = first.clone();
    second.stacks.remove(0);
    second.stacks.iter_mut().for_each(|stack| stack.id.0 += 7);
    let copied = Snapshot {
        stacks: second
            .stacks
            .iter()
            .cloned()
            .map(|mut stats| {
                stats.stack = Arc::new((*stats.stack).clone());
                stats
            })
            .collect(),
        ..second.clone()
    };
    let [shared, copied] = [second, copied].map(|second| {
        let dir = TempDir::new().expect("a folder for tests");
        let path = dir.path().join("a.mtb");
        let mut recorder = Recorder::create(&path, &SessionInfo::default()).expect("a new file");
        for snapshot in [&first, &second] {
            recorder.snapshot(snapshot, SnapshotMeta::default()).expect("there is room");
        }
        recorder.finish(&Names::default()).expect("there is room");
        fs::read(&path).expect("just written")
    });
    assert_eq!(shared, copied);
}

#[test]
fn rewriting_names_changes_nothing_else() {
    let runner = &mut proptest::test_runner::TestRunner::deterministic();
    let session = session().new_tree(runner).expect("a strategy without filters").current();
    let dir = TempDir::new().expect("a folder for tests");
    let path = dir.path().join("a.mtb");
    record_to(&path, &session);
    let before = Recording::read(&path).expect("just written");
    rewrite_names(&path, &Names::default()).expect("there is room");
    let without = Recording::read(&path).expect("just written");
    assert!(without.names.is_empty() && without.problems.is_empty());
    rewrite_names(&path, &before.names).expect("there is room");
    assert_eq!(contents(&Recording::read(&path).expect("just written")), contents(&before));
    assert_eq!(fs::read_dir(dir.path()).expect("a folder").count(), 1, "nothing is left beside it");
}

#[test]
fn the_pauses_of_a_program_are_known_from_the_series() {
    let seconds = Duration::from_secs;
    let mut builder = Builder::new(SessionInfo::default());
    let mut at = |n, paused, trigger| {
        builder.sample(Sample { at: seconds(n), paused, ..Sample::default() });
        let snapshot = Snapshot { duration: seconds(n), ..Snapshot::default() };
        builder.snapshot(&snapshot, SnapshotMeta { trigger, ..SnapshotMeta::default() });
    };
    at(0, false, Trigger::Start);
    at(2, true, Trigger::Pause);
    at(3, true, Trigger::Interval);
    at(5, false, Trigger::Interval);
    at(6, true, Trigger::Exec);
    at(9, true, Trigger::End);
    let recording = builder.finish(Names::default());
    let pauses = |index| recording.snapshot(Which::Index(index)).pauses;
    assert_eq!((pauses(0), pauses(2)), (vec![], vec![seconds(2)..seconds(3)]));
    assert_eq!(pauses(3), [seconds(2)..seconds(5)]);
    assert_eq!(pauses(5), [seconds(6)..seconds(9)], "exec began the figures anew");
    assert_eq!(recording.snapshot(Which::Peak).pauses, pauses(5));
}
