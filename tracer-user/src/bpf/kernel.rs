//! Loads the object and owns the tables.

use std::{
    collections::BTreeMap,
    fs, io,
    mem::offset_of,
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd},
};

use aya::{
    Ebpf, EbpfError, EbpfLoader,
    maps::{Map, MapData, PerCpuArray},
    programs::{ProgramError, RawTracePoint, UProbe},
};
use aya_log::EbpfLogger;
use thiserror::Error;
use tracer_common::{
    abi::{Control, Cursors, Mapping, ScopeTotals, StackRecord, StackThread, StackTotals, Target, TaskLayout},
    counters::{COUNTER_WORDS, Counter},
    limits::MAX_RULES,
    unwind::{PackedRule, UnwindRow},
};

use super::{
    attach::Site, btf, events::Notices, mappings::Ranges, mmap::MappedArray, tables::TableSizes, targets::TargetNumber,
    trace_events::TraceEvents,
};
use crate::{
    snapshot::Counters,
    text::{causes, chain},
};

/// The compiled object; see `tracer-ebpf/prebuilt/manifest.json` for what it was built from.
static OBJECT: &[u8] =
    aya::include_bytes_aligned!(concat!(env!("CARGO_MANIFEST_DIR"), "/../tracer-ebpf/prebuilt/memtrace.bpf.o"));

/// Why the kernel side could not be set up.
#[derive(Debug, Error)]
pub enum LoadError {
    /// The object as a whole was refused.
    #[error("failed to load the BPF object{}", remedy(.0))]
    Object(#[source] Box<EbpfError>),
    /// A program was refused.
    #[error("failed to load BPF program `{name}`")]
    Program {
        /// Its name.
        name: &'static str,
        /// What the kernel said.
        source: Box<ProgramError>,
    },
    /// A map is missing or has another form: the object and this program do not belong together.
    #[error("failed to use BPF map `{name}`")]
    Map {
        /// Its name.
        name: &'static str,
        /// What is wrong with it.
        source: io::Error,
    },
}

fn remedy(error: &EbpfError) -> &'static str {
    match os_error(error) {
        Some(libc::EPERM | libc::EACCES) => " (needs CAP_BPF and CAP_PERFMON; try sudo)",
        Some(libc::ENOMEM) => " (not enough memory for the tables; see --max-live-blocks)",
        _ => "",
    }
}

/// The number of the system's error that is behind one of aya's.
pub(super) fn os_error(error: &(dyn std::error::Error + 'static)) -> Option<i32> {
    causes(error).find_map(|error| error.downcast_ref::<io::Error>())?.raw_os_error()
}

/// The loaded object and its tables. Dropping it detaches every probe.
pub struct Kernel {
    pub(super) ebpf: Ebpf,
    /// Probes on the target, in the order in which they are attached.
    pub(super) sites: Vec<Site>,
    /// They are known, but not attached.
    pub(super) paused: bool,
    /// Where [`super::Reach::Processes`] is used.
    pub(super) trace_events: Option<TraceEvents>,
    /// The kernel lets this process open no perf uprobe: known once [`Kernel::trap_cost`] has tried.
    pub(super) uprobes_refused: bool,
    /// What the programs log, when asked for.
    log: Option<EbpfLogger<&'static dyn log::Log>>,
    control: MappedArray<Control>,
    pub(super) cursors: MappedArray<Cursors>,
    pub(super) stacks: MappedArray<StackRecord>,
    pub(super) stack_threads: MappedArray<StackThread>,
    pub(super) frames: MappedArray<u64>,
    pub(super) totals: MappedArray<StackTotals>,
    pub(super) scope: MappedArray<ScopeTotals>,
    pub(super) targets: MappedArray<Target>,
    pub(super) mappings: MappedArray<Mapping>,
    pub(super) ranges: Ranges,
    rows: MappedArray<UnwindRow>,
    rules: MappedArray<PackedRule>,
    counters: PerCpuArray<MapData, [u64; COUNTER_WORDS]>,
    sizes: TableSizes,
}

/// Programs that are attached to functions, by name in the object.
const UPROBES: &[&str] = &[
    "enter_size",
    "enter_count_size",
    "enter_align_size",
    "enter_out_align_size",
    "enter_pointer_size",
    "enter_pointer_count_size",
    "enter_pointer",
    "leave",
    "libraries_changed",
    "empty",
    "empty_return",
];

/// Programs that are attached to functions that change mappings.
const MAPPING_UPROBES: &[&str] = &["enter_mapping", "leave_mapping"];

/// Programs that follow the life of processes, by name in the object and tracepoint.
const RAW_TRACEPOINTS: &[(&str, &str)] = &[
    ("process_fork", "sched_process_fork"),
    ("process_exec", "sched_process_exec"),
    ("thread_exit", "sched_process_exit"),
];

impl Kernel {
    /// Loads the object with tables of these sizes. Nothing is attached to the target yet.
    ///
    /// # Errors
    /// The kernel refused the object, a program or a map.
    pub fn load(sizes: TableSizes, verbose: bool) -> Result<Self, LoadError> {
        let mut loader = EbpfLoader::new();
        loader
            .map_max_entries("BLOCKS", sizes.buckets())
            .map_max_entries("SPILLED_BLOCKS", sizes.spilled_blocks())
            .map_max_entries("THREADS", sizes.thread_slots())
            .map_max_entries("STACK_INDEX", sizes.stack_slots())
            .map_max_entries("STACKS", sizes.stack_ids())
            .map_max_entries("TOTALS", sizes.stack_ids())
            .map_max_entries("STACK_THREADS", sizes.stack_threads())
            .map_max_entries("FRAMES", sizes.frame_words())
            .map_max_entries("RANGE_EVENTS", sizes.range_events_bytes())
            .map_max_entries("RANGE_CALLS", sizes.range_calls())
            .map_max_entries("ROWS", sizes.rows)
            .map_max_entries("TARGETS", sizes.target_slots())
            // Processes that share another's memory have an entry too.
            .map_max_entries("TARGET_OF", 2 * sizes.target_slots())
            .map_max_entries("PC_CACHE", sizes.pc_cache_slots())
            .map_max_entries("MAPPINGS", sizes.pooled_mappings());
        let level: u8 = if verbose { 4 } else { 0 };
        loader.override_global("AYA_LOG_LEVEL", &level, false);
        let task = btf::task_layout().unwrap_or_else(|error| {
            log::warn!("forks are not followed: {}", chain(&error));
            TaskLayout::default()
        });
        let mut ebpf = loader.load(OBJECT).map_err(|error| LoadError::Object(Box::new(error)))?;
        let mapping_programs: &[&str] = if sizes.range_events_bytes > 0 { MAPPING_UPROBES } else { &[] };
        for name in UPROBES.iter().chain(mapping_programs) {
            let program = ebpf.program_mut(name).expect("the object has every program of the list");
            let program: &mut UProbe = program.try_into().expect("a uprobe");
            program.load().map_err(|error| LoadError::Program { name, source: Box::new(error) })?;
            if let Ok(info) = program.info() {
                log::debug!("program {name}: {:?} instructions verified", info.verified_instruction_count());
            }
        }
        for (name, tracepoint) in RAW_TRACEPOINTS {
            let program = ebpf.program_mut(name).expect("the object has every program of the list");
            let program: &mut RawTracePoint = program.try_into().expect("a raw tracepoint");
            let refused = |error| LoadError::Program { name, source: Box::new(error) };
            program.load().map_err(refused)?;
            program.attach(tracepoint).map_err(refused)?;
        }
        let counters = PerCpuArray::try_from(take(&mut ebpf, "COUNTERS")?)
            .map_err(|error| LoadError::Map { name: "COUNTERS", source: io::Error::other(error) })?;
        let log = if verbose {
            EbpfLogger::init(&mut ebpf).map_err(|error| log::warn!("no log of the BPF side: {error}")).ok()
        } else {
            None
        };
        let kernel = Self {
            control: mapped(&mut ebpf, "CONTROL")?,
            cursors: mapped(&mut ebpf, "CURSORS")?,
            stacks: mapped(&mut ebpf, "STACKS")?,
            stack_threads: mapped(&mut ebpf, "STACK_THREADS")?,
            frames: mapped(&mut ebpf, "FRAMES")?,
            totals: mapped(&mut ebpf, "TOTALS")?,
            scope: mapped(&mut ebpf, "SCOPE")?,
            targets: mapped(&mut ebpf, "TARGETS")?,
            ranges: Ranges::new(sizes.pooled_mappings()),
            mappings: mapped(&mut ebpf, "MAPPINGS")?,
            rows: mapped(&mut ebpf, "ROWS")?,
            rules: mapped(&mut ebpf, "RULES")?,
            counters,
            log,
            ebpf,
            sites: Vec::new(),
            paused: false,
            trace_events: None,
            uprobes_refused: false,
            sizes,
        };
        kernel.control.set(
            0,
            Control {
                thread_mask: sizes.thread_slots() - 1,
                stack_mask: sizes.stack_slots() - 1,
                max_stacks: sizes.stack_ids(),
                max_frame_words: sizes.frame_words(),
                n_buckets: sizes.buckets(),
                max_blocks: sizes.blocks,
                tid_mask: if sizes.by_thread { u32::MAX } else { 0 },
                sample_mask: 255,
                follow_mappings: u32::from(sizes.range_events_bytes > 0),
                n_targets: sizes.target_slots(),
                pc_cache_mask: sizes.pc_cache_slots() - 1,
                task,
                ..Control::default()
            },
        );
        (1..sizes.target_slots()).rev().for_each(|number| kernel.give_back(TargetNumber(number)));
        Ok(kernel)
    }

    /// The channel of notices; can be taken once.
    ///
    /// # Errors
    /// The ring buffer could not be opened.
    pub fn notices(&mut self) -> Result<Notices, LoadError> {
        let map = take(&mut self.ebpf, "EVENTS")?;
        Notices::new(map).map_err(|source| LoadError::Map { name: "EVENTS", source })
    }

    /// Begins or ends the counting of all targets; probes stay attached.
    pub fn counting(&self, counting: bool) {
        self.write_control(offset_of!(Control, counting), u32::from(counting));
    }

    /// Nothing counts from here on, and every probe goes; tables stay. Processes still join, fork, exec and end. A call in flight is
    /// lost: its thread's next hit finds that.
    pub fn pause(&mut self) {
        self.counting(false);
        self.paused = true;
        self.unlink();
        let n_pauses = self.control.get(0).map_or(0, |control| control.n_pauses);
        self.write_control(offset_of!(Control, n_pauses), n_pauses.wrapping_add(1));
    }

    /// Counts on after [`Self::pause`] and [`Self::attach_again`].
    pub fn resume(&self) {
        self.counting(true);
    }

    /// Appends rows at `start`; `false` when the table is too small.
    pub fn put_rows(&self, start: usize, rows: &[UnwindRow]) -> bool {
        start + rows.len() <= self.rows.len() && rows.iter().enumerate().all(|(n, row)| self.rows.set(start + n, *row))
    }

    /// Appends rules at `start`; `false` when the table is too small.
    pub fn put_rules(&self, start: usize, rules: &[PackedRule]) -> bool {
        start + rules.len() <= MAX_RULES as usize
            && rules.iter().enumerate().all(|(n, rule)| self.rules.set(start + n, *rule))
    }

    /// Values of all counters, summed over CPUs.
    pub fn counters(&self) -> Counters {
        let Ok(per_cpu) = self.counters.get(&0, 0) else { return Counters::default() };
        let sum = |counter: &Counter| per_cpu.iter().map(|words| words[*counter as usize]).sum();
        let mut counters: BTreeMap<Counter, u64> =
            Counter::ALL.iter().map(|counter| (*counter, sum(counter))).collect();
        counters.insert(Counter::RunsMissed, self.runs_missed());
        Counters(counters)
    }

    /// Runs that the kernel left out because the program was running on that CPU already: where raw tracepoints can be preempted.
    fn runs_missed(&self) -> u64 {
        let fds = RAW_TRACEPOINTS.iter().filter_map(|(name, _)| {
            let program: &RawTracePoint = self.ebpf.program(name)?.try_into().ok()?;
            program.fd().ok()
        });
        fds.map(|fd| fdinfo(fd.as_fd(), "recursion_misses:")).sum()
    }

    /// Passes on what the programs have logged since the last call.
    pub fn flush_log(&mut self) {
        if let Some(log) = &mut self.log {
            log.flush();
        }
    }

    /// Capacities.
    pub fn sizes(&self) -> TableSizes {
        self.sizes
    }

    /// Memory of all maps as the kernel accounts it (`memlock` of each map's fdinfo), in bytes.
    pub fn map_bytes(&self) -> u64 {
        let mapped = [
            self.control.map(),
            self.cursors.map(),
            self.stacks.map(),
            self.stack_threads.map(),
            self.frames.map(),
            self.totals.map(),
            self.scope.map(),
            self.targets.map(),
            self.mappings.map(),
            self.rows.map(),
            self.rules.map(),
        ];
        let kept = self.ebpf.maps().filter_map(|(_, map)| match map {
            Map::Array(data) | Map::HashMap(data) | Map::PerCpuArray(data) | Map::RingBuf(data) => Some(data),
            _ => None,
        });
        let taken = u64::from(self.sizes.range_events_bytes);
        mapped.into_iter().chain(kept).map(memlock_bytes).sum::<u64>() + taken
    }

    /// Writes one field (its offset is `offset_of!(Control, …)`, its type `T`).
    pub(super) fn write_control<T>(&self, offset: usize, value: T) {
        if let Some(control) = self.control.element(0) {
            // SAFETY: a field of the one element; volatile, because the programs read it at any time. One aligned word each.
            unsafe { std::ptr::write_volatile(control.cast::<u8>().add(offset).cast::<T>(), value) };
        }
    }
}

fn memlock_bytes(map: &MapData) -> u64 {
    fdinfo(map.fd().as_fd(), "memlock:")
}

/// A number that the kernel tells of a map or program; 0 where it does not.
fn fdinfo(fd: BorrowedFd<'_>, key: &str) -> u64 {
    let text = fs::read_to_string(format!("/proc/self/fdinfo/{}", fd.as_raw_fd())).unwrap_or_default();
    text.lines().find_map(|line| line.strip_prefix(key)?.trim().parse().ok()).unwrap_or(0)
}

pub(super) fn take(ebpf: &mut Ebpf, name: &'static str) -> Result<Map, LoadError> {
    ebpf.take_map(name).ok_or_else(|| LoadError::Map { name, source: io::Error::from(io::ErrorKind::NotFound) })
}

fn mapped<T: aya::Pod>(ebpf: &mut Ebpf, name: &'static str) -> Result<MappedArray<T>, LoadError> {
    MappedArray::new(take(ebpf, name)?).map_err(|source| LoadError::Map { name, source })
}
