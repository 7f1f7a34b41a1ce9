//! Recordings of a server, by what each of its functions holds.

use std::{collections::BTreeMap, path::Path, sync::Arc, time::Duration};

use tracer_common::{
    addr::{FileVaddr, FrameAddr, UserAddr},
    counters::Counter,
};
use tracer_user::{
    analysis::check::{Budget, Budgets, Check, CheckError, Limit, Outcome, Subject, Suppressions, check},
    recording::{Builder, Recorder, Recording, SessionInfo, SnapshotMeta, Trigger, Which},
    snapshot::{
        Counters, Frame, Module, ModuleId, ModuleKind, Snapshot, Stack, StackId, StackStats, TargetInfo, Totals,
    },
    symbolize::{Attribution, FrameName, Names},
};

/// A function that allocates: `(module, function, file, line)`, live bytes at each snapshot in blocks of 1 KiB, and what it has
/// allocated and freed again by then.
#[derive(Clone)]
pub struct Row {
    pub module: &'static str,
    pub function: &'static str,
    pub file: &'static str,
    pub line: u32,
    pub live_kib: Vec<u64>,
    pub churn_kib: u64,
}

pub fn row(function: &'static str, line: u32, live_kib: &[u64]) -> Row {
    Row {
        module: "/srv/imgsrv",
        function,
        file: "/home/u/src/cache.c",
        line,
        live_kib: live_kib.to_vec(),
        churn_kib: 0,
    }
}

/// What differs between recordings.
#[derive(Clone)]
pub struct Case {
    pub rows: Vec<Row>,
    pub counters: BTreeMap<Counter, u64>,
    pub running_at_end: bool,
    pub exe: &'static str,
}

pub fn case(rows: Vec<Row>) -> Case {
    Case { rows, counters: BTreeMap::new(), running_at_end: false, exe: "/srv/imgsrv" }
}

/// As many snapshots as the rows have figures, and the names. `main` called each function.
fn snapshots(case: &Case) -> (Vec<(Snapshot, SnapshotMeta)>, Names) {
    let n_snapshots = case.rows[0].live_kib.len();
    let module = |path: &str| {
        Arc::new(Module {
            kind: ModuleKind::File,
            path: path.into(),
            open_path: path.into(),
            deleted: false,
            build_id: None,
            mappings: Vec::new(),
        })
    };
    let named = |function: &str, file: &str, line| {
        let file = Some(Arc::from(Path::new(file)));
        [FrameName { function: Ok(function.into()), file, line: Some(line), inlined: false }]
    };
    let frame = |module, vaddr| Frame {
        addr: FrameAddr::Return(UserAddr(0x1000 + vaddr + 1)),
        location: Some((ModuleId(module), FileVaddr(vaddr))),
    };
    let mut names = Names::default();
    let mut modules = vec![module("/srv/imgsrv")];
    names.insert(ModuleId(0), FileVaddr(1), named("main", "/home/u/src/main.c", 120).as_slice().into());
    let mut stacks = Vec::new();
    for (n, row) in (1_u32..).zip(&case.rows) {
        let known = modules.iter().position(|module: &Arc<Module>| module.path == Path::new(row.module));
        let n_module = known.unwrap_or(modules.len()) as u32;
        if known.is_none() {
            modules.push(module(row.module));
        }
        let vaddr = 0x100 * u64::from(n);
        names.insert(ModuleId(n_module), FileVaddr(vaddr), named(row.function, row.file, row.line).as_slice().into());
        stacks.push(Arc::new(Stack { frames: vec![frame(n_module, vaddr), frame(0, 1)], ..Stack::default() }));
    }

    let total_live = |at: usize| case.rows.iter().map(|row| row.live_kib[at]).sum::<u64>();
    let mut made = Vec::new();
    for at in 0..n_snapshots {
        let is_last = at + 1 == n_snapshots;
        let peak_at = (0..=at).max_by_key(|&at| total_live(at)).expect("at least one");
        let stats = (0..).zip(&case.rows).zip(&stacks).map(|((id, row), stack)| {
            let (live, peak) = (row.live_kib[at], row.live_kib[peak_at]);
            let most = row.live_kib[..=at].iter().max().expect("at least one");
            let totals = Totals {
                current_bytes: live * KIB,
                current_count: live,
                peak_bytes: peak * KIB,
                peak_count: peak,
                allocated_bytes: (most + row.churn_kib) * KIB,
                allocated_count: most + row.churn_kib,
                freed_bytes: (most + row.churn_kib - live) * KIB,
                freed_count: most + row.churn_kib - live,
                ..Totals::default()
            };
            StackStats { id: StackId(id), stack: Arc::clone(stack), totals }
        });
        let stacks: Vec<_> = stats.collect();
        let mut totals = Totals::default();
        for stack in &stacks {
            totals.add(&stack.totals);
        }
        let snapshot = Snapshot {
            target: TargetInfo {
                pid: 4711,
                comm: "imgsrv".into(),
                exe: Some(case.exe.into()),
                running: !is_last || case.running_at_end,
            },
            duration: Duration::from_secs(10 * at as u64),
            from_start: true,
            totals,
            counters: Counters(case.counters.clone()),
            modules: modules.clone(),
            stacks,
            ..Snapshot::default()
        };
        let trigger = if is_last { Trigger::End } else { Trigger::Start };
        made.push((snapshot, SnapshotMeta { trigger, ..SnapshotMeta::default() }));
    }
    (made, names)
}

fn session() -> SessionInfo {
    SessionInfo { from_start: true, ..SessionInfo::default() }
}

/// The recording.
pub fn recorded(case: &Case) -> Recording {
    let (snapshots, names) = snapshots(case);
    let mut builder = Builder::new(session());
    for (snapshot, meta) in &snapshots {
        builder.snapshot(snapshot, meta.clone());
    }
    builder.finish(names)
}

/// The same in a file.
pub fn record(case: &Case, path: &Path) {
    let (snapshots, names) = snapshots(case);
    let mut recorder = Recorder::create(path, &session()).expect("the file can be made");
    for (snapshot, meta) in &snapshots {
        recorder.snapshot(snapshot, meta.clone()).expect("the file can be written");
    }
    recorder.finish(&names).expect("the file can be written");
}

pub fn last(recording: &Recording) -> Subject<'_> {
    Subject { recording, which: Which::Index(recording.snapshots.len() - 1) }
}

pub fn try_check(case: &Case, base: Option<&Case>, budgets: &Budgets, rules: &str) -> Result<Outcome, CheckError> {
    let attribution = Attribution::new(&[], false).expect("no patterns of a user");
    let (recording, base) = (recorded(case), base.map(recorded));
    let suppressions: Suppressions = rules.parse().expect("the rules are well-formed");
    check(last(&recording), base.as_ref().map(last), budgets, &suppressions, &attribution)
}

pub fn checked(case: &Case, budgets: &Budgets) -> Outcome {
    try_check(case, None, budgets, "").expect("the budgets make sense")
}

pub fn grown_since(base: &Case, case: &Case, limit: Limit) -> Outcome {
    let budgets = Budgets { max_growth: Some(limit), growth_floor: 64 * 1024, ..Budgets::default() };
    try_check(case, Some(base), &budgets, "").expect("the budgets make sense")
}

pub fn of(outcome: &Outcome, budget: Budget) -> &Check {
    outcome.checks.iter().find(|check| check.budget == budget).expect("the budget was checked")
}

/// The sites that a check blames: function, value in KiB.
pub fn blamed(outcome: &Outcome, budget: Budget) -> Vec<(String, u64)> {
    let offenders = &of(outcome, budget).offenders;
    let name = |function: &Result<Arc<str>, _>| function.as_deref().expect("functions have names here").to_owned();
    offenders.iter().map(|offender| (name(&offender.site.function), offender.value / 1024)).collect()
}

pub const KIB: u64 = 1024;

pub fn server() -> Case {
    case(vec![row("cache_add", 42, &[10, 400, 300]), row("decode", 101, &[0, 900, 5]), row("log_line", 7, &[1, 1, 1])])
}
