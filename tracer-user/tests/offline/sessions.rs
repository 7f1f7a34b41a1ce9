//! Recordings of an image server, of its next build, and of another program.

use std::{collections::BTreeMap, path::Path, sync::Arc, time::Duration};

use tracer_common::{
    abi::StackEnd,
    addr::{FileVaddr, FrameAddr, UserAddr},
};
use tracer_user::{
    recording::{Recorder, SessionInfo, SnapshotMeta, Trigger},
    snapshot::{
        Frame, MappedBytes, Module, ModuleId, ModuleKind, ProcessMemory, Snapshot, Stack, StackId, StackStats,
        TargetInfo, Tid, Totals,
    },
    symbolize::{FrameName, Names, NoSymbol},
};

const APP: u32 = 0;
const CURL: u32 = 1;
const FOO: u32 = 2;

/// A program whose own code lies `moved` bytes further in its file than in the first build.
struct Program {
    app: &'static str,
    build: u8,
    moved: u64,
    names: Names,
}

impl Program {
    fn new(app: &'static str, build: u8, moved: u64) -> Self {
        let mut program = Self { app, build, moved, names: Names::default() };
        let own = |function: &str, file: &str, line| FrameName {
            function: Ok(function.into()),
            file: Some(Arc::from(Path::new("/home/u/imgsrv/src").join(file))),
            line: Some(line),
            inlined: false,
        };
        let libfoo = FrameName::unknown(NoSymbol::Stripped);
        let curl = FrameName { function: Ok("curl_easy_init".into()), ..FrameName::unknown(NoSymbol::Stripped) };
        program.put(APP, 0x100, &[own("cache_add", "cache.c", 42)]);
        program.put(
            APP,
            0x200,
            &[FrameName { inlined: true, ..own("decode", "image.c", 101) }, own("handle", "main.c", 88)],
        );
        program.put(APP, 0x300, &[own("main", "main.c", 120)]);
        program.put(APP, 0x400, &[own("Pool::grow(unsigned long)", "pool.cc", 7)]);
        program.put(APP, 0x600, &[own("index_add", "index.c", 9)]);
        program.put(CURL, 0x500, &[curl]);
        program.put(FOO, 0x700, &[libfoo]);
        program
    }

    fn put(&mut self, module: u32, vaddr: u64, names: &[FrameName]) {
        self.names.insert(ModuleId(module), self.vaddr(module, vaddr), names.into());
    }

    const fn vaddr(&self, module: u32, vaddr: u64) -> FileVaddr {
        FileVaddr(if module == APP { vaddr + self.moved } else { vaddr })
    }

    fn stack(&self, id: u32, frames: &[(u32, u64)], thread: Option<u32>, totals: Totals) -> StackStats {
        let frame = |&(module, vaddr): &(u32, u64)| {
            let vaddr = self.vaddr(module, vaddr);
            let addr = UserAddr(0x1000_0000 * u64::from(module + 1) + vaddr.0 + 1);
            Frame { addr: FrameAddr::Return(addr), location: Some((ModuleId(module), vaddr)) }
        };
        let frames = frames.iter().map(frame).collect();
        let stack = Stack { frames, end: StackEnd::Root, thread: thread.map(Tid), ..Stack::default() };
        StackStats { id: StackId(id), stack: Arc::new(stack), totals }
    }

    fn snapshot(&self, at: Duration, stacks: Vec<StackStats>) -> Snapshot {
        let mut totals = Totals::default();
        for stack in &stacks {
            totals.add(&stack.totals);
        }
        let module = |path: &str, build: u8| {
            Arc::new(Module {
                kind: ModuleKind::File,
                path: path.into(),
                open_path: path.into(),
                deleted: false,
                build_id: Some(vec![build; 20]),
                mappings: Vec::new(),
            })
        };
        Snapshot {
            target: TargetInfo {
                pid: 4711,
                comm: self.app.rsplit('/').next().expect("a name").into(),
                exe: Some(self.app.into()),
                running: true,
            },
            duration: at,
            totals,
            peak_at: Some(at / 2),
            modules: vec![
                module(self.app, self.build),
                module("/usr/lib/libcurl.so.4", 200),
                module("/opt/foo/libfoo.so", self.build + 100),
            ],
            stacks,
            threads: BTreeMap::from([(Tid(4711), "imgsrv".to_owned()), (Tid(4712), "worker".to_owned())]),
            ..Snapshot::default()
        }
    }
}

/// Bytes and blocks live and at the peak; as many bytes again were freed, half of the blocks at once.
fn totals(live: (u64, u64), peak: (u64, u64)) -> Totals {
    Totals {
        current_bytes: live.0,
        current_count: live.1,
        peak_bytes: peak.0,
        peak_count: peak.1,
        allocated_bytes: live.0 * 2 + 7,
        allocated_count: live.1 * 2 + 1,
        freed_bytes: live.0 + 7,
        freed_count: live.1 + 1,
        freed_within_1ms_count: live.1 / 2,
        freed_within_1s_count: live.1,
    }
}

fn write(path: &Path, program: &Program, by_thread: bool, snapshots: &[(Snapshot, Trigger, Option<&str>)]) {
    let info = SessionInfo {
        version: "0.1.0".into(),
        host: "test".into(),
        started_unix_ns: 1_700_000_000_000_000_000,
        target: snapshots[0].0.target.clone(),
        by_thread,
        ..SessionInfo::default()
    };
    let mut recorder = Recorder::create(path, &info).expect("a new file");
    for (snapshot, trigger, label) in snapshots {
        let unix_ns = info.started_unix_ns + snapshot.duration.as_nanos() as u64;
        let meta = SnapshotMeta { trigger: *trigger, label: label.map(str::to_owned), unix_ns };
        recorder.snapshot(snapshot, meta).expect("there is room");
    }
    recorder.finish(&program.names).expect("there is room");
}

/// Three snapshots: start, "warm" and end. The cache grows; a pool comes, an early buffer goes.
pub fn record_imgsrv(path: &Path) {
    let program = Program::new("/opt/imgsrv/imgsrv", 1, 0);
    let main = (APP, 0x300);
    let stacks = |cache: u64, pool: u64, early: u64| {
        let mut stacks = vec![
            program.stack(
                0,
                &[(APP, 0x100), (APP, 0x200), main],
                None,
                totals((cache * 200, cache), (cache * 300, cache)),
            ),
            program.stack(1, &[(APP, 0x200), main], None, totals((early, early / 500), (1_000_000, 10))),
            program.stack(2, &[(CURL, 0x500), main], None, totals((4096, 1), (4096, 1))),
            // The same line by way of another, with recursion.
            program.stack(
                3,
                &[(APP, 0x100), (APP, 0x200), (APP, 0x200), main],
                None,
                totals((cache * 10, cache / 10), (cache * 10, cache / 10)),
            ),
            program.stack(4, &[(FOO, 0x700)], None, totals((1027, 1), (1027, 1))),
        ];
        if pool > 0 {
            stacks.push(program.stack(5, &[(APP, 0x400), main], None, totals((pool, 2), (pool, 2))));
        }
        stacks
    };
    write(
        path,
        &program,
        false,
        &[
            (program.snapshot(Duration::from_millis(100), Vec::new()), Trigger::Start, None),
            (program.snapshot(Duration::from_secs(10), stacks(40_000, 0, 50_000)), Trigger::Command, Some("warm")),
            (program.snapshot(Duration::from_secs(70), stacks(81_900, 65_536, 60_000)), Trigger::End, None),
        ],
    );
}

/// The next build: the code moved, the buffer is gone, there is an index; threads are kept apart.
pub fn record_rebuilt(path: &Path) {
    let program = Program::new("/opt/imgsrv/imgsrv", 2, 0x40);
    let main = (APP, 0x300);
    let stacks = vec![
        program.stack(
            0,
            &[(APP, 0x100), (APP, 0x200), main],
            Some(4711),
            totals((9_000_000, 45_000), (9_000_000, 45_000)),
        ),
        program.stack(1, &[(CURL, 0x500), main], Some(4711), totals((4096, 1), (4096, 1))),
        program.stack(2, &[(APP, 0x600), main], Some(4712), totals((2_000_000, 100), (2_000_000, 100))),
        program.stack(3, &[(FOO, 0x700)], Some(4712), totals((1027, 1), (1027, 1))),
    ];
    write(path, &program, true, &[(program.snapshot(Duration::from_mins(1), stacks), Trigger::End, None)]);
}

/// A build of `one.c` in `folder`: `fill` and `leak` allocate one line below the other; `first_line` is that of `fill`.
pub fn record_build(path: &Path, folder: &str, first_line: u32) {
    let mut program = Program::new("/opt/one", first_line as u8, 0);
    program.names = Names::default();
    let file: Arc<Path> = Arc::from(Path::new(folder).join("one.c"));
    for (vaddr, function, line) in [(0x100, "fill", first_line), (0x200, "leak", first_line + 1)] {
        let (function, file) = (Ok(function.into()), Some(Arc::clone(&file)));
        program.put(APP, vaddr, &[FrameName { function, file, line: Some(line), inlined: false }]);
    }
    let stack = |id, vaddr, live| program.stack(id, &[(APP, vaddr)], None, totals(live, live));
    let stacks = vec![stack(0, 0x100, (250_000, 10)), stack(1, 0x200, (500, 1))];
    write(path, &program, false, &[(program.snapshot(Duration::from_secs(1), stacks), Trigger::End, None)]);
}

/// A program that was started, with what its memory was at these moments; at the end it has none.
pub fn record_run(path: &Path, read_at: &[Trigger]) {
    let program = Program::new("/opt/imgsrv/imgsrv", 1, 0);
    let resident = MappedBytes { rss_bytes: 16 << 20, ..MappedBytes::default() };
    let memory = ProcessMemory { heap: resident, ..ProcessMemory::default() };
    let stacks = || vec![program.stack(0, &[(APP, 0x100)], None, totals((15 << 20, 1000), (15 << 20, 1000)))];
    let info = SessionInfo { from_start: true, ..SessionInfo::default() };
    let mut recorder = Recorder::create(path, &info).expect("a new file");
    for (at, trigger) in (1..).zip([Trigger::Start, Trigger::Interval, Trigger::End]) {
        let live = if trigger == Trigger::Start { Vec::new() } else { stacks() };
        let memory = Some(memory).filter(|_| read_at.contains(&trigger));
        let snapshot = Snapshot { memory, from_start: true, ..program.snapshot(Duration::from_secs(at), live) };
        recorder.snapshot(&snapshot, SnapshotMeta { trigger, ..SnapshotMeta::default() }).expect("there is room");
    }
    recorder.finish(&program.names).expect("there is room");
}

/// Another program.
pub fn record_other(path: &Path) {
    let program = Program::new("/opt/other/other", 3, 0);
    let stacks = vec![program.stack(0, &[(APP, 0x600)], None, totals((64, 1), (64, 1)))];
    write(path, &program, false, &[(program.snapshot(Duration::from_secs(1), stacks), Trigger::End, None)]);
}
