//! Small recordings, made as sessions make them, that together hold everything that a recording can hold.

use std::{collections::BTreeMap, fs, path::Path, sync::Arc, time::Duration};

use anyhow::Result;
use tracer_common::{
    abi::StackEnd,
    addr::{FileVaddr, FrameAddr, UserAddr},
    counters::Counter,
};
use tracer_user::{
    recording::{Mark, Recorder, Sample, SessionInfo, SnapshotMeta, Trigger},
    snapshot::{
        AgeCell, Counters, Frame, MappedBytes, Module, ModuleId, ModuleKind, ModuleMapping, ProcessMemory, Snapshot,
        Stack, StackId, StackStats, TargetInfo, Tid, Totals,
    },
    symbolize::{FrameName, Names, NoSymbol},
};

use crate::random::Random;

/// Files of some hundred bytes to some thousand.
pub fn all() -> Result<Vec<Vec<u8>>> {
    [(0, 0), (1, 1), (2, 3), (5, 12), (3, 40), (9, 25)].into_iter().map(|(n, stacks)| recording(n, stacks)).collect()
}

fn recording(n_snapshots: u64, n_stacks: u32) -> Result<Vec<u8>> {
    let mut random = Random(u64::from(n_stacks));
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("seed.mtb");
    let session = SessionInfo {
        version: "0.1.0".into(),
        host: "6.1.0 x86_64".into(),
        command: vec!["./service".into(), "--port=8080".into()],
        ..SessionInfo::default()
    };
    let mut recorder = Recorder::create(&path, &session)?;
    for n in 0..n_snapshots {
        recorder.sample(Sample { at: Duration::from_secs(n), rss_bytes: Some(1 << 20), ..Sample::default() })?;
        recorder.mark(Mark { at: Duration::from_secs(n), text: "mark \u{1b}[31m".into() });
        let label = (n == 1).then(|| "after warm-up".to_owned());
        let meta = SnapshotMeta { trigger: Trigger::Interval, label, unix_ns: n };
        recorder.snapshot(&snapshot(n, n_stacks, &mut random), meta)?;
    }
    recorder.finish(&names())?;
    Ok(fs::read(path)?)
}

fn snapshot(n: u64, n_stacks: u32, random: &mut Random) -> Snapshot {
    let mapped = MappedBytes { size_bytes: 1 << 24, rss_bytes: 1 << 20, pss_bytes: 1 << 19, n_mappings: 3 };
    let stacks = (0..n_stacks).map(|id| stack(id, n, random)).collect();
    Snapshot {
        target: TargetInfo { pid: 4711, comm: "ser\u{7}vice".into(), exe: Some("/opt/service".into()), running: true },
        duration: Duration::from_secs(n + 1),
        peak_at: Some(Duration::from_millis(n)),
        counters: Counters(BTreeMap::from([(Counter::HitsEntry, 7 * n), (Counter::TruncatedNoRow, n)])),
        modules: modules(),
        stacks,
        threads: BTreeMap::from([(Tid(1), "main".into()), (Tid(2), "worker".into())]),
        memory: Some(ProcessMemory { heap: mapped, arenas: mapped, ..ProcessMemory::default() }),
        ages: n.is_multiple_of(2).then(|| {
            let cell = |id| AgeCell { stack: StackId(id), generation: n as u32, bytes: 123, count: 1 };
            (0..n_stacks).map(cell).collect()
        }),
        notes: vec!["libfoo.so: 3 broken unwind entries".into()],
        ..Snapshot::default()
    }
}

fn stack(id: u32, n: u64, random: &mut Random) -> StackStats {
    let frame = |at: u64| {
        let addr = FrameAddr::Return(UserAddr(0x7f00_0000_1000 + at * 5));
        let vaddr = FileVaddr(addr.lookup().0 - 0x7f00_0000_0000);
        Frame { addr, location: (!at.is_multiple_of(7)).then_some((ModuleId((at % 2) as u32), vaddr)) }
    };
    let frames = (0..=u64::from(id) % 9).rev().map(|depth| frame(depth * 3 + u64::from(id) % (depth + 1))).collect();
    let (allocated, size) = (1 + n * (1 + u64::from(id) % 3), 123);
    let freed = random.below(allocated as usize + 1) as u64;
    let live = allocated - freed;
    StackStats {
        id: StackId(id),
        stack: Arc::new(Stack {
            frames,
            end: StackEnd::from_u8((id % 3) as u8),
            thread: Some(Tid(1 + id % 2)),
            ..Stack::default()
        }),
        totals: Totals {
            current_bytes: live * size,
            current_count: live,
            peak_bytes: allocated * size,
            peak_count: allocated,
            allocated_bytes: allocated * size,
            allocated_count: allocated,
            freed_bytes: freed * size,
            freed_count: freed,
            freed_within_1ms_count: freed / 2,
            freed_within_1s_count: freed,
        },
    }
}

fn modules() -> Vec<Arc<Module>> {
    let module = |path: &str, build_id| {
        Arc::new(Module {
            kind: ModuleKind::File,
            path: path.into(),
            open_path: path.into(),
            deleted: false,
            build_id,
            mappings: vec![ModuleMapping { start: UserAddr(4096), end: UserAddr(8192), bias: 0x7f00_0000_0000 }],
        })
    };
    vec![module("/opt/service", Some(vec![7; 20])), module("/usr/lib/lib<b>&\u{1b}[0m.so", None)]
}

fn names() -> Names {
    let mut names = Names::default();
    for at in 0..30_u32 {
        let name = |function: Result<Arc<str>, NoSymbol>, inlined| FrameName {
            file: function.is_ok().then(|| Arc::from(Path::new("src/cache.c"))),
            line: function.is_ok().then_some(21 + at),
            function,
            inlined,
        };
        let list = match at % 3 {
            0 => vec![name(Err(NoSymbol::FileBroken("broken\nhere".into())), false)],
            1 => vec![name(Ok("cache_put".into()), false)],
            _ => vec![name(Ok("inlined<T>".into()), true), name(Ok("main".into()), false)],
        };
        names.insert(ModuleId(at % 2), FileVaddr(0x0fff + u64::from(at) * 5), list.into());
    }
    names
}
