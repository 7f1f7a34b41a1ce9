//! A recording with one stack of each kind that exports treat on its own. Its sums stand beside the stacks.

use std::{ffi::OsStr, os::unix::ffi::OsStrExt as _, path::Path, sync::Arc, time::Duration};

use tracer_common::{
    abi::StackEnd,
    addr::{FileVaddr, FrameAddr, UserAddr},
    counters::Counter,
};
use tracer_user::{
    options::ReportOptions,
    recording::{Builder, Mark, Recorder, Recording, Sample, SessionInfo, SnapshotMeta, Trigger, Which},
    report::export::{Base, Format, Source},
    snapshot::{
        Frame, Module, ModuleId, ModuleKind, ModuleMapping, Snapshot, Stack, StackId, StackStats, TargetInfo, Tid,
        Totals,
    },
    symbolize::{Attribution, FrameName, Names, NoSymbol},
};

/// Build id of the program.
pub const BUILD_ID: [u8; 20] =
    [0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88, 0x99, 0x00, 1, 2, 3, 4];

/// Sums of the fixture at its end.
pub const LIVE_BYTES: u64 = 123 * 8 + 4096 + 777 + 64 + 31;
pub const LIVE_COUNT: u64 = 8 + 1 + 7 + 1 + 1;
pub const PEAK_BYTES: u64 = 200 * 8 + 8192 + 777 + 64 + 31;
pub const ALLOCATED_BYTES: u64 = 1000 * 8 + 12_288 + 777 + 64 + 31;

/// Run-time address minus file vaddr of the n-th module.
const fn bias(module: u32) -> u64 {
    0x7f00_0000_0000 + ((module as u64) << 32)
}

pub fn module(n: u32, path: &[u8], build_id: Option<Vec<u8>>) -> Arc<Module> {
    let path = Path::new(OsStr::from_bytes(path));
    Arc::new(Module {
        kind: ModuleKind::File,
        path: path.into(),
        open_path: path.into(),
        deleted: false,
        build_id,
        mappings: vec![ModuleMapping {
            start: UserAddr(bias(n) + 0x1000),
            end: UserAddr(bias(n) + 0x9000),
            bias: bias(n),
        }],
    })
}

pub fn frame(module: u32, vaddr: u64) -> Frame {
    Frame {
        addr: FrameAddr::Return(UserAddr(bias(module) + vaddr + 1)),
        location: Some((ModuleId(module), FileVaddr(vaddr))),
    }
}

pub fn name(function: &str, file: &[u8], line: u32, inlined: bool) -> FrameName {
    let file = Some(Arc::from(Path::new(OsStr::from_bytes(file))));
    FrameName { function: Ok(function.into()), file, line: Some(line), inlined }
}

pub fn totals(current: (u64, u64), peak: (u64, u64), allocated: (u64, u64)) -> Totals {
    Totals {
        current_bytes: current.0,
        current_count: current.1,
        peak_bytes: peak.0,
        peak_count: peak.1,
        allocated_bytes: allocated.0,
        allocated_count: allocated.1,
        freed_bytes: allocated.0 - current.0,
        freed_count: allocated.1 - current.1,
        freed_within_1ms_count: (allocated.1 - current.1) / 2,
        freed_within_1s_count: allocated.1 - current.1,
    }
}

pub fn stack(id: u32, frames: Vec<Frame>, end: StackEnd, totals: Totals) -> StackStats {
    StackStats { id: StackId(id), stack: Arc::new(Stack { frames, end, ..Stack::default() }), totals }
}

pub fn snapshot(at: Duration, modules: Vec<Arc<Module>>, stacks: Vec<StackStats>) -> Snapshot {
    let mut sum = Totals::default();
    for stack in &stacks {
        sum.add(&stack.totals);
    }
    let mut snapshot = Snapshot {
        target: TargetInfo { pid: 4711, comm: "imgsrv".into(), exe: Some("/srv/imgsrv".into()), running: true },
        duration: at,
        from_start: true,
        totals: sum,
        modules,
        stacks,
        ..Snapshot::default()
    };
    snapshot.counters.0.insert(Counter::StacksFull, 1);
    snapshot
}

fn modules() -> Vec<Arc<Module>> {
    vec![
        module(0, b"/srv/imgsrv", Some(BUILD_ID.to_vec())),
        module(1, b"/usr/lib/libc.so.6", None),
        module(2, b"/opt/foo/libfoo.so", None),
    ]
}

fn names() -> Names {
    let mut names = Names::default();
    let mut put = |module, vaddr, found: &[FrameName]| names.insert(ModuleId(module), FileVaddr(vaddr), found.into());
    put(0, 0x1010, &[name("cache_add", b"/home/u/src/cache.c", 42, false)]);
    put(
        0,
        0x1020,
        &[name("decode", b"/home/u/src/image.c", 101, true), name("handle", b"/home/u/src/main.c", 88, false)],
    );
    put(0, 0x1030, &[name("main", b"/home/u/src/main.c", 120, false)]);
    put(1, 0x1100, &[name("__libc_start_call_main", b"../sysdeps/libc_start_call_main.h", 58, false)]);
    put(2, 0x1f30, &[FrameName::unknown(NoSymbol::Stripped)]);
    names
}

/// Five stacks: by way of an inlined function; through a library without names; truncated; in no mapping; not stored.
fn stacks(scale: u64) -> Vec<StackStats> {
    let main = [frame(0, 0x1030), frame(1, 0x1100)];
    let below_main = |frames: &[Frame]| frames.iter().chain(&main).copied().collect::<Vec<_>>();
    let nowhere = Frame { addr: FrameAddr::Return(UserAddr(0xdead_beef)), location: None };
    vec![
        stack(
            0,
            below_main(&[frame(0, 0x1010), frame(0, 0x1020)]),
            StackEnd::Root,
            totals((123 * scale, scale), (200 * scale, scale), (1000 * scale, 10 * scale)),
        ),
        stack(1, below_main(&[frame(2, 0x1f30)]), StackEnd::Root, totals((4096, 1), (8192, 2), (12_288, 3))),
        stack(2, vec![frame(0, 0x1020)], StackEnd::NoRow, totals((777, 7), (777, 7), (777, 7))),
        stack(3, vec![nowhere, frame(0, 0x1030)], StackEnd::Root, totals((64, 1), (64, 1), (64, 1))),
        stack(4, vec![], StackEnd::Root, totals((31, 1), (31, 1), (31, 1))),
    ]
}

/// Three snapshots, one labelled; four samples, of which one paused; one mark.
fn parts() -> (SessionInfo, Vec<(Snapshot, SnapshotMeta)>, Vec<Sample>, Mark) {
    let session = SessionInfo {
        version: "0.1.0".into(),
        host: "Linux 6.18.0 x86_64".into(),
        started_unix_ns: 1_700_000_000_000_000_000,
        command: vec!["./imgsrv".into(), "--port".into(), "8080".into()],
        target: TargetInfo { pid: 4711, comm: "imgsrv".into(), exe: None, running: true },
        from_start: true,
        by_thread: false,
    };
    let meta = |trigger, label: Option<&str>, unix_ns| SnapshotMeta { trigger, label: label.map(Into::into), unix_ns };
    let snapshots = vec![
        (snapshot(Duration::from_secs(1), modules(), stacks(1)), meta(Trigger::Start, None, 1)),
        (snapshot(Duration::from_secs(2), modules(), stacks(4)), meta(Trigger::Command, Some("warm"), 2)),
        (snapshot(Duration::from_secs(3), modules(), stacks(8)), meta(Trigger::End, None, 3)),
    ];
    let sample = |millis, current, allocated| Sample {
        at: Duration::from_millis(millis),
        totals: totals((current, 1), (current, 1), (allocated, 2)),
        rss_bytes: Some(current * 2),
        paused: millis == 2000,
        ..Sample::default()
    };
    let series = vec![sample(500, 100, 100), sample(1000, 300, 500), sample(2000, 250, 700), sample(3000, 250, 700)];
    (session, snapshots, series, Mark { at: Duration::from_millis(1500), text: "warm-up done".into() })
}

/// The recording in memory.
pub fn recording() -> Recording {
    let (session, snapshots, series, mark) = parts();
    let mut builder = Builder::new(session);
    for (snapshot, meta) in &snapshots {
        builder.snapshot(snapshot, meta.clone());
    }
    for sample in series {
        builder.sample(sample);
    }
    builder.mark(mark);
    builder.finish(names())
}

/// The same in a file.
pub fn record(path: &Path) {
    let (session, snapshots, series, mark) = parts();
    let mut recorder = Recorder::create(path, &session).expect("a new file");
    for (snapshot, meta) in &snapshots {
        recorder.snapshot(snapshot, meta.clone()).expect("there is room");
    }
    for sample in series {
        recorder.sample(sample).expect("there is room");
    }
    recorder.mark(mark);
    recorder.finish(&names()).expect("there is room");
}

/// One snapshot of these stacks alone.
pub fn recording_of(modules: Vec<Arc<Module>>, stacks: Vec<StackStats>, names: Names) -> Recording {
    let mut builder = Builder::new(SessionInfo::default());
    builder.snapshot(&snapshot(Duration::from_secs(1), modules, stacks), SnapshotMeta::default());
    builder.finish(names)
}

/// Stacks of three frames under a thread each.
pub fn threaded() -> Recording {
    let mut stacks = stacks(2);
    for (n, stats) in (100..).zip(&mut stacks) {
        Arc::make_mut(&mut stats.stack).thread = Some(Tid(n));
    }
    let mut builder = Builder::new(SessionInfo { by_thread: true, ..SessionInfo::default() });
    let mut snapshot = snapshot(Duration::from_secs(1), modules(), stacks);
    snapshot.threads.insert(Tid(100), "worker".into());
    builder.snapshot(&snapshot, SnapshotMeta::default());
    builder.finish(names())
}

/// A recording in a format; the last snapshot, against the first where `differs`.
pub fn export(recording: &Recording, format: Format, options: &ReportOptions, differs: bool) -> Vec<u8> {
    let attribution = Attribution::new(&[], false).expect("no patterns");
    let which = Which::Index(recording.snapshots.len() - 1);
    let (snapshot, base) = (recording.snapshot(which), recording.snapshot(Which::Index(0)));
    let source = Source {
        recording,
        which,
        snapshot: &snapshot,
        names: &recording.names,
        base: differs.then_some(Base { snapshot: &base, names: &recording.names }),
        options,
        attribution: &attribution,
        version: "0.1.0",
    };
    assert!(source.is_summable());
    let mut out = Vec::new();
    format.write(&source, &mut out).expect("a Vec takes every byte");
    out
}

/// The same as text.
pub fn text(recording: &Recording, format: Format, options: &ReportOptions) -> String {
    String::from_utf8(export(recording, format, options, false)).expect("exports are UTF-8")
}
