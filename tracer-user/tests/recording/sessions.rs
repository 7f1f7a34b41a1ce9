//! Random sessions for the tests of the file format: snapshots of a target that allocates, loads libraries, starts threads and
//! may call exec, with marks and samples between them.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc, time::Duration};

use proptest::prelude::*;
use tracer_common::{
    abi::StackEnd,
    addr::{FileVaddr, FrameAddr, UserAddr},
    counters::Counter,
};
use tracer_user::{
    recording::{Mark, Sample, SessionInfo, SnapshotMeta, Trigger},
    snapshot::{
        AgeCell, Counters, Domain, Frame, MappedBytes, Module, ModuleId, ModuleKind, ModuleMapping, Overhead,
        ProcessEnd, ProcessId, ProcessMemory, ProcessStats, Snapshot, Stack, StackId, StackStats, TargetInfo, Tid,
        Totals,
    },
    symbolize::{FrameName, Names, NoSymbol},
};

/// What a session told its recorder, in order.
#[derive(Clone, Debug)]
pub enum Step {
    Snapshot(Box<Snapshot>, SnapshotMeta),
    Sample(Sample),
    Mark(Mark),
    Flush,
}

/// A session: its description, its steps, its names.
#[derive(Clone, Debug)]
pub struct Session {
    pub info: SessionInfo,
    pub steps: Vec<Step>,
    pub names: Vec<(ModuleId, FileVaddr, Vec<FrameName>)>,
}

impl Session {
    pub fn names(&self) -> Names {
        let mut names = Names::default();
        for (module, vaddr, list) in &self.names {
            names.insert(*module, *vaddr, list.as_slice().into());
        }
        names
    }
}

/// Modules that sessions draw from.
const N_MODULES: u32 = 4;

pub fn session() -> impl Strategy<Value = Session> {
    let steps = proptest::collection::vec(
        prop_oneof![
            3 => (snapshot(), meta()).prop_map(|(snapshot, meta)| Step::Snapshot(Box::new(snapshot), meta)),
            2 => sample().prop_map(Step::Sample),
            1 => (duration(), text()).prop_map(|(at, text)| Step::Mark(Mark { at, text })),
            1 => Just(Step::Flush),
        ],
        0..8,
    );
    let names = proptest::collection::vec((0..N_MODULES, 0..64_u64, proptest::collection::vec(name(), 1..4)), 0..20);
    (info(), steps, names).prop_map(|(info, mut steps, names)| {
        // Names refer to modules that a snapshot holds.
        steps.push(Step::Snapshot(
            Box::new(Snapshot { modules: modules(), ..Snapshot::default() }),
            SnapshotMeta::default(),
        ));
        let names = names.into_iter().map(|(id, at, names)| (ModuleId(id), FileVaddr(at), names)).collect();
        Session { info, steps, names }
    })
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof!["[a-z ]{0,12}", Just("\x1b[31m<\"&\n\u{202e}".to_owned()), any::<String>()]
}

fn number() -> impl Strategy<Value = u64> {
    prop_oneof![4 => 0..300_u64, 1 => any::<u64>()]
}

fn duration() -> impl Strategy<Value = Duration> {
    any::<u64>().prop_map(Duration::from_nanos)
}

fn info() -> impl Strategy<Value = SessionInfo> {
    (text(), text(), number(), proptest::collection::vec(text(), 0..3), target(), any::<bool>(), any::<bool>())
        .prop_map(|(version, host, started_unix_ns, command, target, from_start, by_thread)| SessionInfo {
            version,
            host,
            started_unix_ns,
            command,
            target,
            from_start,
            by_thread,
        })
}

fn target() -> impl Strategy<Value = TargetInfo> {
    (any::<u32>(), text(), proptest::option::of(text()), any::<bool>())
        .prop_map(|(pid, comm, exe, running)| TargetInfo { pid, comm, exe: exe.map(PathBuf::from), running })
}

fn meta() -> impl Strategy<Value = SnapshotMeta> {
    (0..Trigger::ALL.len(), proptest::option::of(text()), number()).prop_map(|(trigger, label, unix_ns)| SnapshotMeta {
        trigger: Trigger::ALL[trigger],
        label,
        unix_ns,
    })
}

pub fn totals() -> impl Strategy<Value = Totals> {
    let counts = (1..50_u64, 0..50_u64, 1..10_u64, any::<bool>());
    prop_oneof![
        // As sessions have them: blocks of one size, freed = allocated less live.
        4 => counts.prop_map(|(allocated, freed, size, at_peak)| {
            let (freed, size) = (freed.min(allocated), size * 123);
            let live = allocated - freed;
            let peak = if at_peak { live } else { allocated };
            Totals {
                current_bytes: live * size,
                current_count: live,
                peak_bytes: peak * size,
                peak_count: peak,
                allocated_bytes: allocated * size,
                allocated_count: allocated,
                freed_bytes: freed * size,
                freed_count: freed,
                freed_within_1ms_count: freed / 3,
                freed_within_1s_count: freed / 2,
            }
        }),
        1 => proptest::array::uniform10(any::<u64>()).prop_map(|n| Totals {
            current_bytes: n[0],
            current_count: n[1],
            peak_bytes: n[2],
            peak_count: n[3],
            allocated_bytes: n[4],
            allocated_count: n[5].max(1),
            freed_bytes: n[6],
            freed_count: n[7],
            freed_within_1ms_count: n[8],
            freed_within_1s_count: n[9],
        }),
    ]
}

fn sample() -> impl Strategy<Value = Sample> {
    let known = || proptest::option::of(number());
    (duration(), totals(), known(), known(), known(), any::<bool>()).prop_map(
        |(at, totals, rss_bytes, pss_bytes, heap_size_bytes, paused)| Sample {
            at,
            totals,
            rss_bytes,
            pss_bytes,
            heap_size_bytes,
            paused,
        },
    )
}

fn snapshot() -> impl Strategy<Value = Snapshot> {
    let stacks = proptest::collection::vec((stack(), totals()), 0..12);
    let ages = proptest::option::of(proptest::collection::vec((0..12_u32, 0..5_u32, number(), number()), 0..10));
    let threads = proptest::collection::btree_map((0..9_u32).prop_map(Tid), text(), 0..3);
    let notes = proptest::collection::vec(text(), 0..3);
    let figures = (totals(), number(), number(), proptest::option::of(memory()), 0.0..1e9_f64);
    let many = (text(), proptest::collection::vec(process(), 0..6), proptest::option::of(totals()));
    (target(), duration(), stacks, ages, threads, notes, figures, 0..=N_MODULES as usize, many).prop_map(
        |(target, duration, stacks, ages, threads, notes, figures, n_modules, (scope, processes, mmap))| {
            let (totals, hits, nested, memory, rate) = figures;
            Snapshot {
                scope,
                mmap,
                target,
                duration,
                counted_until: None,
                from_start: false,
                totals,
                peak_at: Some(duration / 2),
                counters: Counters(BTreeMap::from([(Counter::HitsEntry, hits), (Counter::Nested, nested)])),
                overhead: Overhead {
                    hits,
                    hits_per_second: rate,
                    estimated_share: Some(rate / 1e9),
                    ..Overhead::default()
                },
                modules: modules().split_off(N_MODULES as usize - n_modules),
                stacks: (0..)
                    .zip(stacks)
                    .map(|(id, (mut stack, totals))| {
                        stack.process = stack.process.filter(|id| (id.0 as usize) < processes.len());
                        StackStats { id: StackId(id), stack: Arc::new(stack), totals }
                    })
                    .collect(),
                threads,
                memory,
                ages: ages.map(|cells| {
                    let cell =
                        |(stack, generation, bytes, count)| AgeCell { stack: StackId(stack), generation, bytes, count };
                    cells.into_iter().map(cell).collect()
                }),
                notes,
                processes,
                ..Snapshot::default()
            }
        },
    )
}

/// Anything at all may change from one snapshot to the next, but that a counter once met stays. Few pids and times, so that
/// processes are met again.
fn process() -> impl Strategy<Value = ProcessStats> {
    let maybe = || proptest::option::of(text());
    let who = (1..4_u32, proptest::option::of(0..9_u32), proptest::option::of(0..9_u32), text(), maybe(), text());
    let joined_at = (0..2_u64).prop_map(Duration::from_millis);
    let place = (maybe(), maybe(), joined_at, any::<bool>());
    let ended = proptest::option::of((
        duration(),
        prop_oneof![Just(ProcessEnd::Exited), Just(ProcessEnd::Exec), Just(ProcessEnd::Released)],
    ));
    let figures = (totals(), proptest::option::of(totals()), number(), number(), proptest::option::of(number()));
    (who, place, ended, figures).prop_map(
        |(
            (pid, pid_inside, parent_pid, comm, exe, user),
            (container, cgroup, joined_at, from_start),
            ended,
            (totals, mmap, inherited, count, rss_bytes),
        )| ProcessStats {
            pid,
            pid_inside,
            parent_pid,
            comm,
            exe: exe.map(PathBuf::from),
            user,
            container,
            cgroup: cgroup.map(PathBuf::from),
            joined_at,
            ended,
            from_start,
            inherited_bytes: inherited,
            inherited_count: count,
            totals,
            mmap,
            counters: Counters(BTreeMap::from([(Counter::HitsEntry, count), (Counter::Nested, inherited)])),
            rss_bytes,
        },
    )
}

fn memory() -> impl Strategy<Value = ProcessMemory> {
    number().prop_map(|n| {
        let bytes = |k: u64| MappedBytes { size_bytes: n, rss_bytes: n / k, pss_bytes: n / k / 2, n_mappings: k };
        ProcessMemory {
            heap: bytes(1),
            arenas: bytes(2),
            anonymous: bytes(3),
            stacks: bytes(4),
            files: bytes(5),
            other: bytes(6),
        }
    })
}

/// Few addresses, so that stacks share frames.
fn stack() -> impl Strategy<Value = Stack> {
    let frame = (0..40_u64, any::<bool>(), proptest::option::of(0..N_MODULES)).prop_map(|(at, exact, module)| {
        let addr = UserAddr(0x7f00_0000_0000 + at * 16);
        let addr = if exact { FrameAddr::Exact(addr) } else { FrameAddr::Return(addr) };
        let location = module.map(|id| (ModuleId(id), FileVaddr(addr.lookup().0.wrapping_sub(u64::from(id) << 40))));
        Frame { addr, location }
    });
    let frames = proptest::collection::vec(frame, 0..8);
    let of = (proptest::option::of((0..9_u32).prop_map(Tid)), proptest::option::of((0..6_u32).prop_map(ProcessId)));
    (frames, 0..7_u8, of, any::<bool>()).prop_map(|(frames, end, (thread, process), mapped)| Stack {
        frames,
        end: StackEnd::from_u8(end),
        thread,
        process,
        domain: if mapped { Domain::Mmap } else { Domain::Heap },
    })
}

fn modules() -> Vec<Arc<Module>> {
    (0..N_MODULES)
        .map(|n| {
            let path = PathBuf::from(format!("/opt/lib{n}\x1b.so"));
            Arc::new(Module {
                kind: [ModuleKind::File, ModuleKind::File, ModuleKind::Vdso, ModuleKind::Generated][n as usize],
                open_path: path.clone(),
                path,
                deleted: n == 1,
                build_id: (n < 2).then(|| vec![n as u8; 20]),
                mappings: vec![ModuleMapping { start: UserAddr(u64::from(n)), end: UserAddr(1 << 40), bias: u64::MAX }],
            })
        })
        .collect()
}

fn name() -> impl Strategy<Value = FrameName> {
    let reason = prop_oneof![
        Just(NoSymbol::Stripped),
        Just(NoSymbol::NotCovered),
        Just(NoSymbol::FileReplaced),
        Just(NoSymbol::NotMapped),
        Just(NoSymbol::GeneratedCode),
        text().prop_map(|text| NoSymbol::FileUnreadable(text.into())),
        text().prop_map(|text| NoSymbol::FileBroken(text.into())),
    ];
    let function = prop_oneof![3 => text().prop_map(|text| Ok(text.into())), 1 => reason.prop_map(Err)];
    (function, proptest::option::of((text(), any::<u32>())), any::<bool>()).prop_map(|(function, place, inlined)| {
        let (file, line) = place.map(|(file, line)| (PathBuf::from(file).into(), line)).unzip();
        FrameName { function, file, line, inlined }
    })
}
