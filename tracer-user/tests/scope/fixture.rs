//! A recording of a scope of many: two containers of one image and a worker on the host, in which a process forks, one execs, one ends
//! and leaves memory behind, and one is named by an attacker. Made without a kernel; its sums add up.

use std::{collections::BTreeMap, path::Path, sync::Arc, time::Duration};

use tracer_common::{
    addr::{FileVaddr, FrameAddr, UserAddr},
    counters::Counter,
};
use tracer_user::{
    recording::{Recorder, SessionInfo, SnapshotMeta, Trigger},
    snapshot::{
        Counters, Frame, Module, ModuleId, ModuleKind, ModuleMapping, ProcessEnd, ProcessId, ProcessStats, Snapshot,
        Stack, StackId, StackStats, Totals,
    },
    symbolize::{FrameName, Names},
};

/// A name that tries everything.
pub const HOSTILE: &str = "e\u{1b}[2J\n;=`|<b>\u{202e}";

/// A process of the fixture: its stacks are `(site, blocks of 100 B allocated, freed)`, a figure for each snapshot.
pub struct Case {
    pub stats: ProcessStats,
    pub stacks: Vec<(u64, Vec<(u64, u64)>)>,
}

fn seconds(at: u64) -> Duration {
    Duration::from_secs(at)
}

fn process(pid: u32, comm: &str, user: &str, container: Option<&str>, joined: u64) -> ProcessStats {
    ProcessStats {
        pid,
        comm: comm.into(),
        exe: Some(format!("/usr/bin/{comm}").into()),
        user: user.into(),
        container: container.map(Into::into),
        cgroup: container.map(|name| format!("/docker/{name}").into()),
        joined_at: seconds(joined),
        rss_bytes: Some(1 << 20),
        ..ProcessStats::default()
    }
}

/// What is traced, in the order of a session that lists those that ended first.
pub fn cases(host: &str) -> Vec<Case> {
    let grow = |from: u64| (1..=10).map(|n| (n * from, 0)).collect::<Vec<_>>();
    let flat = |live: u64| (1..=10).map(|n| (live + n * 50, n * 50)).collect::<Vec<_>>();
    let ended = |at, how, stats| ProcessStats { ended: Some((seconds(at), how)), rss_bytes: None, ..stats };
    let forked = ProcessStats {
        parent_pid: Some(100),
        pid_inside: Some(7),
        inherited_bytes: 5000,
        inherited_count: 50,
        counters: Counters([(Counter::FreesUnknown, 3)].into()),
        ..process(101, "nginx", "www", Some("web"), 20)
    };
    let lossy = Counters([(Counter::BlocksFull, 4), (Counter::BlocksFullBytes, 400)].into());
    let leaver = ProcessStats { from_start: true, ..process(300, "sh", "root", None, 5) };
    vec![
        Case { stats: ended(7, ProcessEnd::Exec, leaver.clone()), stacks: vec![(1, vec![(5, 3); 10])] },
        Case {
            stats: ended(50, ProcessEnd::Exited, process(300, "batch", "root", None, 7)),
            stacks: vec![(0, (1..=10).map(|n: u64| (80 * n.min(5), 20 * n.min(5))).collect())],
        },
        Case { stats: process(100, "nginx", "www", Some("web"), 0), stacks: vec![(0, flat(1000)), (1, flat(40))] },
        Case { stats: forked, stacks: vec![(0, (1..=10).map(|n: u64| (n.saturating_sub(2) * 30, 0)).collect())] },
        Case {
            stats: ProcessStats { counters: lossy, ..process(200, "nginx", "www", Some("web2"), 0) },
            stacks: vec![(0, grow(10))],
        },
        Case { stats: process(400, host, "nobody", None, 0), stacks: vec![(2, flat(7))] },
    ]
}

fn totals((allocated, freed): (u64, u64), peak: u64) -> Totals {
    Totals {
        current_bytes: (allocated - freed) * 100,
        current_count: allocated - freed,
        peak_bytes: peak * 100,
        peak_count: peak,
        allocated_bytes: allocated * 100,
        allocated_count: allocated,
        freed_bytes: freed * 100,
        freed_count: freed,
        ..Totals::default()
    }
}

/// The snapshot at step `n` of ten, 10 s apart.
pub fn snapshot(cases: &[Case], scope: &str, n: usize) -> Snapshot {
    let now = seconds(10 * (n as u64 + 1));
    let (mut processes, mut stacks, mut sums) = (Vec::new(), Vec::new(), Totals::default());
    for case in cases.iter().filter(|case| case.stats.joined_at <= now) {
        let id = ProcessId(processes.len() as u32);
        let mut stats = case.stats.clone();
        stats.ended = stats.ended.filter(|(at, _)| *at <= now);
        stats.totals = Totals::default();
        for (site, steps) in &case.stacks {
            let peak = steps[..=n].iter().map(|(allocated, freed)| allocated - freed).max().unwrap_or(0);
            let totals = totals(steps[n], peak);
            if totals.allocated_count == 0 {
                continue;
            }
            stats.totals.add(&totals);
            let frames = vec![frame(*site), frame(9)];
            let stack = Stack { frames, process: Some(id), ..Stack::default() };
            stacks.push(StackStats { id: StackId(stacks.len() as u32), stack: Arc::new(stack), totals });
        }
        sums.add(&stats.totals);
        processes.push(stats);
    }
    let mut counters = BTreeMap::from([(Counter::Unwound, sums.allocated_count), (Counter::TruncatedNoRow, 2)]);
    for process in &processes {
        for (counter, amount) in &process.counters.0 {
            *counters.entry(*counter).or_default() += amount;
        }
    }
    Snapshot {
        scope: scope.into(),
        duration: now,
        // The highest total of all together: less than the sum of their own peaks.
        totals: Totals { peak_bytes: sums.current_bytes + 1000, peak_count: 0, ..sums },
        peak_at: Some(now.min(seconds(60))),
        counters: Counters(counters),
        modules: vec![Arc::new(Module {
            kind: ModuleKind::File,
            path: "/usr/bin/nginx".into(),
            open_path: "/usr/bin/nginx".into(),
            deleted: false,
            build_id: Some(vec![7; 20]),
            mappings: vec![ModuleMapping { start: UserAddr(0x1000), end: UserAddr(0x9000), bias: 0 }],
        })],
        processes,
        stacks,
        notes: vec!["other processes that call into the probed files pay a trap a call".into()],
        ..Snapshot::default()
    }
}

fn frame(site: u64) -> Frame {
    let addr = FrameAddr::Return(UserAddr(0x1001 + site * 16));
    Frame { addr, location: Some((ModuleId(0), FileVaddr(addr.lookup().0))) }
}

/// Names of all frames.
pub fn names() -> Names {
    let mut names = Names::default();
    for (site, function, file, line) in
        [(0, "cache_add", "cache.c", 42), (1, "parse", "conf.c", 7), (2, "poll", "loop.c", 9), (9, "main", "main.c", 3)]
    {
        let name = FrameName {
            function: Ok(function.into()),
            file: Some(Arc::from(Path::new("/src/nginx").join(file))),
            line: Some(line),
            inlined: false,
        };
        let at = frame(site).location.expect("all frames are in the module").1;
        names.insert(ModuleId(0), at, [name].as_slice().into());
    }
    names
}

/// Writes ten snapshots of these processes.
pub fn record(path: &Path, cases: &[Case], scope: &str) {
    let session = SessionInfo { version: "0.1.0".into(), host: "6.18.0 x86_64".into(), ..SessionInfo::default() };
    let mut recorder = Recorder::create(path, &session).expect("a new file");
    for n in 0..10 {
        let trigger = if n == 9 { Trigger::End } else { Trigger::Interval };
        let meta = SnapshotMeta { trigger, label: None, unix_ns: 0 };
        recorder.snapshot(&snapshot(cases, scope, n), meta).expect("there is room");
    }
    recorder.finish(&names()).expect("there is room");
}
