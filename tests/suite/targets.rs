//! Many processes at once, as the kernel side counts them: each process's balance closes, whoever its parent was, whatever it became
//! and whoever had its id before.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail, ensure};
use memtrace_tests::{Cgroups, Program, process::Target, sites_of_libc};
use object::{Object as _, ObjectSection as _, ObjectSymbol as _};
use tracer_common::{
    abi::{Target as Process, TargetState, target_flags},
    addr::FileOffset,
    cookie::{Reg, Shape, SiteCookie},
    counters::Counter,
};
use tracer_user::{
    bpf::{Binding, Heirs, Kernel, KernelScope, Notice, Notices, Reach, TableSizes, TargetNumber},
    snapshot::Totals,
};

const SIZES: TableSizes = TableSizes {
    blocks: 1 << 16,
    threads: 1024,
    stacks: 1 << 12,
    rows: 64,
    by_thread: false,
    targets: 1100,
    mappings: 0,
    range_events_bytes: 0,
};

/// The tracer's side of a test: probes on malloc, realloc and free of the C library that `family.c` uses.
struct Tracer {
    kernel: Kernel,
    notices: Notices,
    library: PathBuf,
    bindings: Vec<Binding>,
    /// `Notices` belong to a runtime.
    _runtime: tokio::runtime::Runtime,
}

/// A process as the kernel side has it: own bytes and blocks live, own blocks ever allocated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Figures {
    live_bytes: u64,
    live: u64,
    allocated: u64,
}

impl Tracer {
    /// Nothing is a target yet; everything that becomes one counts.
    fn new(program: &Target, sizes: TableSizes) -> Result<Self> {
        let (library, bindings) = sites_of_libc(program.pid(), &["malloc", "realloc", "free"])?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
        let mut kernel = Kernel::load(sizes, false)?;
        let notices = {
            let _inside = runtime.enter();
            kernel.notices()?
        };
        kernel.counting(true);
        Ok(Self { kernel, notices, library, bindings, _runtime: runtime })
    }

    fn attach(&mut self, reach: Reach) -> Result<()> {
        Ok(self.kernel.attach(&self.library, &self.bindings, reach)?)
    }

    fn add(&mut self, tgid: u32, flags: u32) -> Result<TargetNumber> {
        Ok(self.kernel.add_target(tgid, start_ns(tgid)?, flags)?)
    }

    /// The living target of a process.
    fn of(&self, tgid: u32) -> Result<TargetNumber> {
        self.kernel.target_of(tgid).with_context(|| format!("pid {tgid} is no target"))
    }

    fn process(&self, number: TargetNumber) -> Result<Process> {
        self.kernel.target(number).with_context(|| format!("no target {number:?}"))
    }

    fn state(&self, number: TargetNumber) -> Result<TargetState> {
        Ok(TargetState::from_u32(self.process(number)?.state))
    }

    /// Its figures, by its own record and by its stacks, which must agree: made = live + freed.
    fn figures(&self, number: TargetNumber) -> Result<Figures> {
        let process = self.process(number)?;
        let (stacks, totals) = self.kernel.read_stacks_of(number);
        ensure!(stacks.iter().all(|stack| stack.target == number));
        let Totals { current_bytes, current_count, allocated_count, freed_count, .. } = totals;
        ensure!(allocated_count == current_count + freed_count, "{totals:?}");
        ensure!(
            (process.totals.peak.current_bytes, process.totals.n_blocks) == (current_bytes, current_count),
            "{process:?}"
        );
        Ok(Figures { live_bytes: current_bytes, live: current_count, allocated: allocated_count })
    }

    fn lost(&self, number: TargetNumber, counter: Counter) -> Result<u64> {
        Ok(Kernel::losses(&self.process(number)?).get(counter))
    }

    fn count(&self, counter: Counter) -> u64 {
        self.kernel.counters().get(counter)
    }

    /// Nothing was lost anywhere.
    fn check_nothing_lost(&self) -> Result<()> {
        for counter in tracer_user::snapshot::LOSSES {
            ensure!(self.count(*counter) == 0, "{} {}", self.count(*counter), counter.name());
        }
        Ok(())
    }
}

const fn figures(live_bytes: u64, live: u64, allocated: u64) -> Figures {
    Figures { live_bytes, live, allocated }
}

fn family() -> Result<Target> {
    Target::start::<&str>(&Program::c("family").variant("threads", &["-pthread"]).build()?, &[])
}

/// Has it do a step; what it answers.
fn ask(program: &mut Target, line: &str) -> Result<String> {
    program.say(line)?;
    program.hear()
}

fn step(program: &mut Target, line: &str) -> Result<()> {
    let answer = ask(program, line)?;
    ensure!(answer == "done", "told `{line}`, it says `{answer}`");
    Ok(())
}

/// A step whose answer is a process id.
fn step_to_pid(program: &mut Target, line: &str) -> Result<u32> {
    let answer = ask(program, line)?;
    answer.parse().with_context(|| format!("told `{line}`, it says `{answer}`"))
}

/// `/proc/PID/stat`, in ns of CLOCK_BOOTTIME.
fn start_ns(pid: u32) -> Result<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let ticks: u64 =
        stat.rsplit_once(") ").and_then(|(_, rest)| rest.split(' ').nth(19)?.parse().ok()).context("a start time")?;
    Ok(ticks * TICK_NS)
}

/// USER_HZ is 100 on x86-64.
const TICK_NS: u64 = 10_000_000;

/// What `figures` come to for a parent and the child that it forks, however the child's probes came about.
fn check_fork(
    program: &mut Target,
    tracer: &mut Tracer,
    parent: TargetNumber,
    follow: impl Fn(&mut Tracer, u32) -> Result<()>,
) -> Result<()> {
    step(program, "make 100 123")?;
    let child_pid = step_to_pid(program, "fork")?;
    let child = tracer.of(child_pid)?;
    follow(tracer, child_pid)?;
    for line in ["c free 40", "c regrow 5 200", "c make 7 77", "free 10", "c free 3"] {
        step(program, line)?;
    }
    // The child's oldest are 52 of its parent's (100 − 40 − 5 − 3), then its own.
    ensure!(tracer.figures(parent)? == figures(90 * 123, 90, 100));
    ensure!(tracer.figures(child)? == figures(5 * 200 + 7 * 77, 12, 12), "{:?}", tracer.figures(child)?);
    ensure!(tracer.lost(child, Counter::FreesInherited)? == 48);
    let record = tracer.process(child)?;
    ensure!((record.inherited_bytes, record.inherited_blocks) == (12_300, 100), "{record:?}");
    ensure!((record.tgid, record.parent) == (child_pid, parent.0) && record.flags & target_flags::INHERITED != 0);
    ensure!(record.start_ns / TICK_NS == start_ns(child_pid)? / TICK_NS, "started at {} ns", record.start_ns);
    ensure!(tracer.count(Counter::FreesUnknown) == 0 && tracer.count(Counter::ReallocsUnknown) == 0);
    // Both know the same addresses: what one does leaves the other's alone.
    step(program, "c free 64")?;
    ensure!(tracer.figures(child)? == figures(0, 0, 12));
    ensure!(tracer.lost(child, Counter::FreesInherited)? == 100);
    step(program, "c exit 3")?;
    let ended = tracer.process(child)?;
    ensure!(TargetState::from_u32(ended.state) == TargetState::Exited && ended.exit_code >> 8 == 3, "{ended:?}");
    ensure!(ended.ended_at_ns > ended.joined_at_ns && ended.counted == 0);
    step(program, "free 90")?;
    ensure!(tracer.figures(parent)? == figures(0, 0, 100));
    ensure!(tracer.count(Counter::ForksFollowed) == 1);
    tracer.check_nothing_lost()
}

#[test]
fn a_forked_child_has_its_own_blocks_and_frees_its_parents() -> Result<()> {
    let mut program = family()?;
    let mut tracer = Tracer::new(&program, SIZES)?;
    let parent = tracer.add(program.pid(), target_flags::FOLLOW)?;
    tracer.attach(Reach::Everyone)?;
    check_fork(&mut program, &mut tracer, parent, |_, _| Ok(()))?;
    let told = tracer.notices.take();
    let forks: Vec<_> = told.iter().filter(|notice| matches!(notice, Notice::Fork { .. })).collect();
    ensure!(
        matches!(forks[..], [Notice::Fork { parent: Some(from), parent_tgid, child: Some(_), .. }]
            if *from == parent && *parent_tgid == program.pid()),
        "{forks:?}"
    );
    ensure!(told.iter().filter(|notice| matches!(notice, Notice::Exited { .. })).count() == 1, "{told:?}");
    Ok(())
}

/// Probes that are opened for each process: the child has none until it is followed, and an onlooker never.
#[test]
fn processes_are_probed_one_by_one() -> Result<()> {
    let (mut program, mut onlooker) = (family()?, family()?);
    let mut tracer = Tracer::new(&program, SIZES)?;
    let parent = tracer.add(program.pid(), target_flags::FOLLOW)?;
    tracer.kernel.attach_process(program.pid(), Heirs::None)?;
    tracer.attach(Reach::Processes)?;
    check_fork(&mut program, &mut tracer, parent, |tracer, pid| Ok(tracer.kernel.attach_process(pid, Heirs::None)?))?;
    step(&mut onlooker, "make 10 10")?;
    ensure!(tracer.count(Counter::HitsOutside) == 0, "an onlooker was trapped");
    let hits = tracer.count(Counter::HitsEntry);
    tracer.kernel.release_process(program.pid());
    step(&mut program, "make 10 10")?;
    ensure!(tracer.count(Counter::HitsEntry) == hits, "hits of a process that was released");
    // A pause takes the events away, and the processes have them again after it.
    tracer.kernel.attach_process(program.pid(), Heirs::None)?;
    tracer.kernel.pause();
    tracer.kernel.attach_again()?;
    tracer.kernel.resume();
    step(&mut program, "make 10 10")?;
    ensure!(tracer.count(Counter::HitsEntry) == hits + 10);
    let group = format!("memtrace_bpf_{}_", std::process::id());
    ensure!(tracefs("cat uprobe_events")?.contains(&group), "events of a group that is not looked for");
    drop(tracer);
    let left = tracefs("cat uprobe_events")?;
    ensure!(!left.contains(&group), "trace events are left:\n{left}");
    Ok(())
}

/// Runs a command in a tracefs that nobody else sees; what it prints.
fn tracefs(command: &str) -> Result<String> {
    let script = format!("mount --make-rprivate / && mount -t tracefs memtrace-test /mnt && cd /mnt && {command}");
    let output = Command::new("unshare").args(["--mount", "sh", "-c", &script]).output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?)
}

/// What a killed tracer left is deleted by the next one; what a living one has is not.
#[test]
fn trace_events_of_dead_tracers_are_deleted() -> Result<()> {
    let mut program = family()?;
    let living = program.pid();
    let started = start_ns(living)? / TICK_NS;
    // The living process's id with another start time: of one that had the id before.
    let groups = [format!("memtrace_bpf_{living}_{}", started - 1), format!("memtrace_bpf_{living}_{started}")];
    for group in &groups {
        tracefs(&format!("echo 'p:{group}/p0 /bin/sh:0x40' >>uprobe_events"))?;
    }
    let mut tracer = Tracer::new(&program, SIZES)?;
    let attached = tracer.kernel.attach_process(living, Heirs::None);
    let left = tracefs("cat uprobe_events")?;
    tracefs(&format!("echo '-:{}/p0' >>uprobe_events", groups[1]))?;
    attached?;
    ensure!(!left.contains(&groups[0]) && left.contains(&groups[1]), "{left}");
    step(&mut program, "make 1 1")
}

#[test]
fn until_exec_a_vfork_child_works_on_its_parents_blocks() -> Result<()> {
    let mut program = family()?;
    let mut tracer = Tracer::new(&program, SIZES)?;
    let parent = tracer.add(program.pid(), target_flags::FOLLOW)?;
    tracer.attach(Reach::Everyone)?;
    step(&mut program, "make 2 100")?;
    let child_pid = step_to_pid(&mut program, "vfork 31")?;
    let child = tracer.of(child_pid)?;
    ensure!(child != parent && tracer.figures(parent)? == figures(231, 3, 3));
    let record = tracer.process(child)?;
    ensure!(record.flags & target_flags::FROM_EXEC != 0 && record.flags & target_flags::INHERITED == 0);
    step(&mut program, "c make 4 9")?;
    let before = tracer.figures(child)?;
    step(&mut program, "c make 5 10")?;
    ensure!(tracer.figures(child)? == figures(before.live_bytes + 50, before.live + 5, before.allocated + 5));
    step(&mut program, "c exit 0")?;
    ensure!(tracer.state(child)? == TargetState::Exited && tracer.state(parent)? == TargetState::Active);
    step(&mut program, "free 3")?;
    ensure!(tracer.figures(parent)? == figures(0, 0, 3));
    tracer.check_nothing_lost()
}

#[test]
fn exec_in_a_thread_ends_a_target_and_begins_another() -> Result<()> {
    for (flags, is_followed) in [(target_flags::FOLLOW, true), (0, false)] {
        let mut program = family()?;
        let mut tracer = Tracer::new(&program, SIZES)?;
        let pid = program.pid();
        let old = tracer.add(pid, flags)?;
        tracer.attach(Reach::Everyone)?;
        step(&mut program, "make 3 7")?;
        ensure!(ask(&mut program, "exec")? == "ready");
        ensure!(tracer.state(old)? == TargetState::Exec);
        let ended = tracer.figures(old)?;
        ensure!(ended.live >= 4, "{ended:?}");
        let told = tracer.notices.take();
        let new = tracer.kernel.target_of(pid);
        ensure!(new.is_some() == is_followed);
        ensure!(told.contains(&Notice::Exec { tgid: pid, old: Some(old), new, by_thread: true }), "{told:?}");
        let outside = tracer.count(Counter::HitsOutside);
        // The old program's addresses mean nothing in the new one.
        step(&mut program, "make 6 13")?;
        step(&mut program, "free 2")?;
        ensure!(tracer.figures(old)? == ended, "figures of a program that is gone have changed");
        match new {
            Some(new) => {
                ensure!(tracer.process(new)?.tgid == pid && tracer.process(new)?.serial != tracer.process(old)?.serial);
                ensure!(tracer.figures(new)? == figures(4 * 13, 4, 6), "{:?}", tracer.figures(new)?);
            }
            // 6 entries and returns, 2 frees; others on the host are trapped too.
            None => ensure!(tracer.count(Counter::HitsOutside) >= outside + 14),
        }
        ensure!(tracer.count(Counter::Execs) == 1);
        ensure!(tracer.kernel.scope_bytes().current_bytes == if is_followed { 4 * 13 } else { 0 });
    }
    Ok(())
}

#[test]
fn a_process_lives_as_long_as_its_last_thread() -> Result<()> {
    let mut program = family()?;
    let mut tracer = Tracer::new(&program, SIZES)?;
    let target = tracer.add(program.pid(), 0)?;
    tracer.attach(Reach::Everyone)?;
    step(&mut program, "make 2 50")?;
    step(&mut program, "lead")?;
    let before = tracer.figures(target)?;
    step(&mut program, "make 3 60")?;
    let now = figures(before.live_bytes + 180, before.live + 3, before.allocated + 3);
    ensure!(tracer.figures(target)? == now && tracer.state(target)? == TargetState::Active);
    program.end()?;
    ensure!(tracer.figures(target)? == now && tracer.state(target)? == TargetState::Exited);
    ensure!(tracer.kernel.scope_bytes().current_bytes == 0, "{:?}", tracer.kernel.scope_bytes());
    tracer.check_nothing_lost()
}

#[test]
fn a_process_that_has_anothers_id_is_another() -> Result<()> {
    let mut program = family()?;
    let mut tracer = Tracer::new(&program, SIZES)?;
    tracer.add(program.pid(), target_flags::FOLLOW)?;
    tracer.attach(Reach::Everyone)?;
    let pid = step_to_pid(&mut program, "fork")?;
    let first = tracer.of(pid)?;
    step(&mut program, "c make 5 10")?;
    step(&mut program, "c exit 0")?;
    // It is free until the host's ids have come round.
    step(&mut program, &format!("again {pid}"))?;
    let second = tracer.of(pid)?;
    step(&mut program, "c make 2 30")?;
    ensure!(first != second && tracer.process(first)?.serial != tracer.process(second)?.serial);
    ensure!(tracer.process(first)?.start_ns < tracer.process(second)?.start_ns);
    ensure!(tracer.figures(first)? == figures(50, 5, 5) && tracer.figures(second)? == figures(60, 2, 2));
    Ok(())
}

#[test]
fn processes_of_a_cgroup_join_at_their_first_hit() -> Result<()> {
    let cgroups = Cgroups::new()?;
    let (mut inside, mut outside) = (family()?, family()?);
    cgroups.enter(inside.pid())?;
    let mut tracer = Tracer::new(&inside, SIZES)?;
    tracer.kernel.set_scope(&KernelScope { cgroups: vec![cgroups.scope()?], ..KernelScope::default() })?;
    tracer.attach(Reach::Everyone)?;
    ensure!(tracer.kernel.targets().is_empty());
    for program in [&mut inside, &mut outside] {
        step(program, "make 4 25")?;
        step(program, "free 1")?;
    }
    let joined = tracer.of(inside.pid())?;
    ensure!(tracer.figures(joined)? == figures(75, 3, 4));
    ensure!(tracer.kernel.target_of(outside.pid()).is_none());
    let record = tracer.process(joined)?;
    ensure!(record.flags & target_flags::JOINED != 0 && record.cgroup == cgroups.inner_id()?, "{record:?}");
    ensure!(record.start_ns / TICK_NS == start_ns(inside.pid())? / TICK_NS);
    // What it forks has its parent's blocks, though nobody asked to follow it.
    let child_pid = step_to_pid(&mut inside, "fork")?;
    step(&mut inside, "c free 3")?;
    let child = tracer.of(child_pid)?;
    ensure!(tracer.lost(child, Counter::FreesInherited)? == 3 && tracer.count(Counter::FreesUnknown) == 0);
    // 4 entries, 4 returns, 1 free; others on the host are trapped too.
    ensure!(tracer.count(Counter::HitsOutside) >= 9 && tracer.count(Counter::Joined) == 1);
    let told = tracer.notices.take();
    ensure!(told.contains(&Notice::Joined { target: joined, tgid: inside.pid() }), "{told:?}");
    drop((inside, tracer));
    Ok(())
}

/// Everyone joins but the tracer, whose own frees and allocations trap too.
#[test]
fn the_tracer_itself_never_joins() -> Result<()> {
    let mut program = family()?;
    let mut tracer = Tracer::new(&program, SIZES)?;
    let own_tgid = std::process::id();
    tracer.kernel.set_scope(&KernelScope { all: true, own_tgid, ..KernelScope::default() })?;
    tracer.attach(Reach::Everyone)?;
    drop(std::hint::black_box(vec![0_u8; 1 << 20]));
    step(&mut program, "make 1 1")?;
    let joined = tracer.kernel.targets();
    ensure!(joined.iter().any(|(_, process)| process.tgid == program.pid()), "{joined:?}");
    ensure!(joined.iter().all(|(_, process)| process.tgid != own_tgid), "{joined:?}");
    Ok(())
}

#[test]
fn a_target_that_was_let_go_can_come_back() -> Result<()> {
    let mut program = family()?;
    let mut tracer = Tracer::new(&program, SIZES)?;
    tracer.attach(Reach::Everyone)?;
    let first = tracer.add(program.pid(), 0)?;
    ensure!(tracer.add(program.pid(), 0)? == first, "a process is one target");
    step(&mut program, "make 5 10")?;
    tracer.kernel.end_target(first);
    step(&mut program, "make 5 10")?;
    let second = tracer.add(program.pid(), 0)?;
    step(&mut program, "make 5 10")?;
    // 5 of the first, 5 of nobody.
    step(&mut program, "free 10")?;
    ensure!(tracer.figures(first)? == figures(50, 5, 5) && tracer.state(first)? == TargetState::Released);
    ensure!(tracer.figures(second)? == figures(50, 5, 5) && tracer.lost(second, Counter::FreesUnknown)? == 10);
    ensure!(tracer.kernel.scope_bytes().current_bytes == 50 && tracer.kernel.scope_bytes().peak_bytes == 50);
    ensure!(tracer.kernel.retire(&[first, second])? == 1, "one of them lives");
    ensure!(tracer.kernel.target(first).is_none() && tracer.figures(second)? == figures(50, 5, 5));
    step(&mut program, "free 5")?;
    ensure!(tracer.figures(second)? == figures(0, 0, 5));
    tracer.check_nothing_lost()
}

/// Where no number is free a process is counted as refused, once; where one is again, the next process has it.
#[test]
fn a_full_table_refuses_and_says_so() -> Result<()> {
    let mut program = family()?;
    let mut tracer = Tracer::new(&program, TableSizes { targets: 2, ..SIZES })?;
    tracer.add(program.pid(), target_flags::FOLLOW)?;
    tracer.attach(Reach::Everyone)?;
    step(&mut program, "crowd 3 1 8")?;
    ensure!(tracer.count(Counter::TargetsFull) == 2 && tracer.count(Counter::ForksFollowed) == 1);
    let ended: Vec<_> = ended(&tracer);
    ensure!(tracer.kernel.retire(&ended)? == 1);
    step(&mut program, "crowd 1 1 8")?;
    ensure!(tracer.count(Counter::TargetsFull) == 2 && tracer.count(Counter::ForksFollowed) == 2);
    Ok(())
}

fn ended(tracer: &Tracer) -> Vec<TargetNumber> {
    let targets = tracer.kernel.targets();
    targets
        .into_iter()
        .filter(|(_, process)| TargetState::from_u32(process.state).is_ended())
        .map(|(number, _)| number)
        .collect()
}

/// 100 000 processes, one after the other, through tables for 1100 processes, 4096 stacks and 65 536 blocks.
#[test]
fn any_number_of_processes_fits_in_tables_of_any_size() -> Result<()> {
    const PROCESSES: u64 = 100_000;
    const AT_ONCE: u64 = 1000;
    let mut program = family()?;
    let mut tracer = Tracer::new(&program, SIZES)?;
    let parent = tracer.add(program.pid(), target_flags::FOLLOW)?;
    tracer.attach(Reach::Everyone)?;
    step(&mut program, "make 10 100")?;
    let map_bytes = tracer.kernel.map_bytes();
    let mut sums = BTreeMap::from([("processes", 0), ("blocks", 0), ("bytes", 0), ("inherited", 0)]);
    let mut last_serial = 0;
    for _ in 0..PROCESSES / AT_ONCE {
        step(&mut program, &format!("crowd {AT_ONCE} 3 41"))?;
        tracer.notices.discard();
        let ended = ended(&tracer);
        let totals = tracer.kernel.read_totals_by_target();
        for number in &ended {
            let process = tracer.process(*number)?;
            let totals = totals.get(number).copied().unwrap_or_default();
            ensure!(
                totals.allocated_count == 3,
                "{totals:?} of {process:?}; outside {}",
                tracer.count(Counter::HitsOutside)
            );
            last_serial = last_serial.max(process.serial);
            for (sum, value) in [
                ("processes", 1),
                ("blocks", totals.allocated_count),
                ("bytes", totals.current_bytes),
                ("inherited", process.inherited_blocks),
            ] {
                *sums.get_mut(sum).context("a sum")? += value;
            }
        }
        ensure!(tracer.kernel.retire(&ended)? == ended.len());
        tracer.check_nothing_lost()?;
    }
    let expected = [
        ("processes", PROCESSES),
        ("blocks", 3 * PROCESSES),
        ("bytes", 123 * PROCESSES),
        ("inherited", 10 * PROCESSES),
    ];
    ensure!(sums == BTreeMap::from(expected), "{sums:?}");
    ensure!(u64::from(last_serial) == PROCESSES + 1, "the last serial is {last_serial}");
    ensure!(tracer.kernel.targets().len() == 1 && tracer.figures(parent)? == figures(1000, 10, 10));
    ensure!(tracer.kernel.scope_bytes().current_bytes == 1000 && tracer.kernel.scope_bytes().peak_bytes == 1123);
    ensure!(tracer.kernel.map_bytes() == map_bytes, "the tables have grown");
    ensure!(
        tracer.kernel.read_ages(&[])?.iter().map(|cell| cell.count).sum::<u64>() == 10,
        "blocks of ended processes are left"
    );
    Ok(())
}

/// A `free` that calls the next one: the C library's own, behind a function of the program's that is probed too.
#[test]
fn a_free_inside_a_free_is_no_unknown_one() -> Result<()> {
    let path = Program::c("wrapped_free").build()?;
    let mut program = Target::start::<&str>(&path, &[])?;
    let mut tracer = Tracer::new(&program, SIZES)?;
    let target = tracer.add(program.pid(), 0)?;
    let cookie = SiteCookie::new(0, Reg::ARGS, 0);
    let offset = offset_of(&path, "wrapped_free")?;
    let wrapper = Binding { shape: Shape::Pointer, offset, cookie, return_probe: false };
    tracer.kernel.attach(&path, &[wrapper], Reach::Process(program.pid()))?;
    tracer.attach(Reach::Process(program.pid()))?;
    step(&mut program, "")?;
    // 10 blocks freed through the wrapper, one of them made anew at the same address in between; 2 that are unknown.
    ensure!(tracer.figures(target)? == figures(0, 0, 11), "{:?}", tracer.figures(target)?);
    let counted = [Counter::Nested, Counter::FreesUnknown, Counter::HitsFree].map(|counter| tracer.count(counter));
    ensure!(counted == [13, 2, 26], "nested, unknown, hits: {counted:?}");
    tracer.check_nothing_lost()
}

/// File offset of a function.
fn offset_of(path: &Path, name: &str) -> Result<FileOffset> {
    let bytes = fs::read(path)?;
    let elf = object::File::parse(&*bytes)?;
    let symbol = elf.symbols().find(|symbol| symbol.name() == Ok(name)).with_context(|| format!("no `{name}`"))?;
    let Some(section) = symbol.section_index() else { bail!("`{name}` lies nowhere") };
    let section = elf.section_by_index(section)?;
    let (offset, _) = section.file_range().context("a section of the file")?;
    Ok(FileOffset(symbol.address() - section.address() + offset))
}
