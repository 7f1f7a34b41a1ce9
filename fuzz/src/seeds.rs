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
        AgeCell, Counters, Domain, Frame, MappedBytes, Module, ModuleId, ModuleKind, ModuleMapping, ProcessEnd,
        ProcessId, ProcessMemory, ProcessStats, Snapshot, Stack, StackId, StackStats, TargetInfo, Tid, Totals,
    },
    symbolize::{FrameName, Names, NoSymbol},
};

use crate::random::Random;

/// Files of some hundred bytes to some thousand, one of them of format version 1.
pub fn all() -> Result<Vec<Vec<u8>>> {
    let sizes = [(0, 0), (1, 1), (2, 3), (5, 12), (3, 40), (9, 25)];
    let version1 = Ok(include_bytes!("../../tracer-user/tests/recording/version1/version1.mtb").to_vec());
    sizes.into_iter().map(|(n, stacks)| recording(n, stacks)).chain([version1]).collect()
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
        scope: if n > 0 { "container w\u{1b}eb".into() } else { String::new() },
        processes: (0..if n > 0 { n + 3 } else { 0 }).map(|id| process(id as u32, n)).collect(),
        mmap: Some(Totals { current_bytes: 4096 * n, current_count: n, ..Totals::default() }),
        ..Snapshot::default()
    }
}

fn process(id: u32, n: u64) -> ProcessStats {
    let totals = Totals { allocated_bytes: 123 * n, allocated_count: n, ..Totals::default() };
    ProcessStats {
        // The last is a sum, of more than there can be.
        pid: if u64::from(id) == n + 2 { 0 } else { 4711 + id },
        pid_inside: (id > 0).then_some(id),
        parent_pid: Some(4711),
        comm: format!("worker\u{7}{id} ({} ended processes)", u64::MAX),
        exe: Some("/opt/service".into()),
        user: "root".into(),
        container: id.is_multiple_of(2).then(|| "web\n1".into()),
        cgroup: Some("/docker/0123456789ab".into()),
        joined_at: Duration::from_millis(u64::from(id)),
        ended: (id == 1 && n > 2).then_some((Duration::from_secs(2), ProcessEnd::Exited)),
        from_start: id > 0,
        inherited_bytes: u64::from(id) * 77,
        inherited_count: u64::from(id),
        totals,
        mmap: (id > 1).then_some(totals),
        counters: Counters(BTreeMap::from([(Counter::HitsEntry, 5 * n), (Counter::MissedFrees, u64::from(id))])),
        rss_bytes: (id != 2).then_some(n << 20),
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
            process: (id % 4).checked_sub(1).filter(|_| n > 0).map(ProcessId),
            domain: if id.is_multiple_of(5) { Domain::Mmap } else { Domain::Heap },
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
