//! A recording's places of processes that the session tells no more are used again: what was theirs is not the next one's.

use std::{sync::Arc, time::Duration};

use tracer_user::{
    analysis::growth::growth,
    options::{Key, ReportOptions},
    recording::{Builder, SessionInfo, SnapshotMeta, Which},
    report::export::{Format, Source},
    snapshot::{ProcessId, ProcessStats, Snapshot, Stack, StackId, StackStats, Totals},
    symbolize::{Attribution, Names},
};

/// At 10 s a step, pid 1 holds 9000 B in the first five snapshots, and is told no more; pid 2 joins at 55 s and gains 100 B a step.
fn snapshot(step: u64) -> Snapshot {
    let (pid, joined, bytes) = if step < 5 { (1, 0, 9000) } else { (2, 55, 100 * (step - 4)) };
    let totals = Totals {
        current_bytes: bytes,
        current_count: 1,
        allocated_bytes: bytes,
        allocated_count: 1,
        ..Totals::default()
    };
    let process = ProcessStats { pid, joined_at: Duration::from_secs(joined), totals, ..ProcessStats::default() };
    let stack = Arc::new(Stack { process: Some(ProcessId(0)), ..Stack::default() });
    Snapshot {
        scope: "container web".into(),
        duration: Duration::from_secs(10 * (step + 1)),
        totals,
        processes: vec![process],
        stacks: vec![StackStats { id: StackId(7), stack, totals }],
        ..Snapshot::default()
    }
}

#[test]
fn what_grew_in_its_place_before_is_not_its_growth() {
    let mut builder = Builder::new(SessionInfo::default());
    (0..15).for_each(|step| builder.snapshot(&snapshot(step), SnapshotMeta::default()));
    let recording = builder.finish(Names::default());
    assert_eq!(recording.stacks.len(), 1, "the stack of pid 1 is that of pid 2 now");
    let attribution = Attribution::new(&[], false).expect("no patterns of a user");
    let options = ReportOptions { key: Key::Process, ..ReportOptions::default() };
    let last = recording.snapshot(Which::Index(14));
    let found = growth(&recording, &last, &attribution, &options).expect("fifteen snapshots");
    assert_eq!(found.sites.len(), 1);
    let expected: Vec<u64> = [0; 5].into_iter().chain((1..=10).map(|n| 100 * n)).collect();
    assert_eq!(found.sites[0].series.bytes, expected);

    let source = Source {
        recording: &recording,
        which: Which::Index(14),
        snapshot: &last,
        names: &recording.names,
        base: None,
        options: &options,
        attribution: &attribution,
        version: "0.1.0",
    };
    let mut profile = Vec::new();
    Format::Firefox.write(&source, &mut profile).expect("memory takes all");
    let profile: serde_json::Value = serde_json::from_slice(&profile).expect("JSON");
    let weights = profile["threads"][0]["nativeAllocations"]["weight"].as_array().expect("a list");
    assert_eq!(weights.iter().filter_map(serde_json::Value::as_i64).sum::<i64>(), 1000);
    assert_eq!(weights.len(), 10, "nothing of the 9000 B of pid 1");
}
