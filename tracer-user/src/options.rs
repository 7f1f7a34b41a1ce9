//! Validated options: what the session and the reports are told. No clap types.

use std::{path::PathBuf, time::Duration};

pub use crate::snapshot::Domains;
use crate::{plan::AllocatorSpec, scope::Scope, snapshot::Domain};

/// What statistics are grouped by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Key {
    /// File and line of the site.
    #[default]
    Lineno,
    /// File of the site.
    Filename,
    /// Function of the site.
    Function,
    /// Module (executable or library) of the site.
    Module,
    /// The whole stack.
    Traceback,
    /// Thread that allocated.
    Thread,
    /// Process that allocated.
    Process,
    /// Container of the process.
    Container,
    /// Command of the process (`comm`).
    Command,
    /// User of the process.
    User,
}

impl Key {
    /// Every one, in the order of the help.
    pub const ALL: [Self; 10] = [
        Self::Lineno,
        Self::Filename,
        Self::Function,
        Self::Module,
        Self::Traceback,
        Self::Thread,
        Self::Process,
        Self::Container,
        Self::Command,
        Self::User,
    ];

    /// Whether lines are about who allocated, not where.
    pub const fn is_owner(self) -> bool {
        matches!(self, Self::Process | Self::Container | Self::Command | Self::User)
    }

    /// Whether a line is about one frame of a stack.
    pub const fn is_frame(self) -> bool {
        matches!(self, Self::Lineno | Self::Filename | Self::Function | Self::Module)
    }

    /// Whether all stacks of a line have their site's module in common.
    pub const fn has_module(self) -> bool {
        self.is_frame() || matches!(self, Self::Traceback)
    }

    /// Whether they have the file in common as well.
    pub const fn has_file(self) -> bool {
        self.has_module() && !matches!(self, Self::Module)
    }

    /// Whether they have the function in common as well.
    pub const fn has_function(self) -> bool {
        self.has_line() || matches!(self, Self::Function)
    }

    /// Whether they have the line in common as well.
    pub const fn has_line(self) -> bool {
        matches!(self, Self::Lineno | Self::Traceback)
    }

    /// The name on the command line and in reports and exports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Lineno => "lineno",
            Self::Filename => "filename",
            Self::Function => "function",
            Self::Module => "module",
            Self::Traceback => "traceback",
            Self::Thread => "thread",
            Self::Process => "process",
            Self::Container => "container",
            Self::Command => "command",
            Self::User => "user",
        }
    }
}

/// Which of a stack's totals a report is about: its `size` and `count`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum View {
    /// What is allocated and not freed.
    #[default]
    Live,
    /// What was live at the moment of the highest total.
    Peak,
    /// What was ever allocated.
    Allocated,
    /// What was ever freed.
    Freed,
    /// The same as freed, with the share that had lived less than 1 ms and 1 s.
    Temporary,
}

impl View {
    /// Every one, in the order of the help.
    pub const ALL: [Self; 5] = [Self::Live, Self::Peak, Self::Allocated, Self::Freed, Self::Temporary];

    /// The name on the command line and in reports and exports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Peak => "peak",
            Self::Allocated => "allocated",
            Self::Freed => "freed",
            Self::Temporary => "temporary",
        }
    }
}

/// Which stacks and lines a report is about, with the meaning of `tracemalloc.Filter`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filters {
    /// File patterns: a stack stays if it matches any inclusive one (or there is none) and no exclusive one.
    pub files: Vec<FileFilter>,
    /// Globs on functions; a stack stays if any matches, or there are none.
    pub functions: Vec<String>,
    /// Globs on modules (path or file name); a stack stays if any matches, or there are none.
    pub modules: Vec<String>,
    /// Pids, or globs on commands; a stack stays if its process matches any, or there are none.
    pub processes: Vec<String>,
    /// All frames of a stack are compared, not only its site.
    pub all_frames: bool,
    /// System libraries and language runtimes are left out.
    pub own_code: bool,
    /// Largest size of a line.
    pub max_size: Option<u64>,
    /// Smallest count of a line.
    pub min_count: u64,
}

/// One `tracemalloc.Filter(inclusive, filename_pattern, lineno)`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileFilter {
    /// Keep what matches, or drop it.
    pub inclusive: bool,
    /// Glob on the file name.
    pub pattern: String,
    /// The line; `None`: any.
    pub lineno: Option<u32>,
}

/// What statistics are sorted by, largest first; then by size, count and name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sort {
    /// Live bytes.
    #[default]
    Size,
    /// Live blocks.
    Count,
    /// Bytes at the peak.
    Peak,
    /// Bytes ever allocated.
    Allocated,
}

impl Sort {
    /// Every one, in the order of the help.
    pub const ALL: [Self; 4] = [Self::Size, Self::Count, Self::Peak, Self::Allocated];

    /// The name on the command line and in reports and exports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Size => "size",
            Self::Count => "count",
            Self::Peak => "peak",
            Self::Allocated => "allocated",
        }
    }
}

/// Where the JSON report goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JsonTarget {
    /// Standard output, in place of the text report.
    Stdout,
    /// A file, written at the end beside the text report.
    File(PathBuf),
}

/// How reports are made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReportOptions {
    /// Lines shown.
    pub top: usize,
    /// What lines stand for.
    pub key: Key,
    /// Which totals are shown.
    pub view: View,
    /// Of which memory.
    pub domains: Domains,
    /// Every frame of a stack counts, not only its site; recursion once.
    pub cumulative: bool,
    /// What is left out.
    pub filters: Filters,
    /// Their order.
    pub sort: Sort,
    /// Frames shown of a stack.
    pub depth: usize,
    /// Smallest size shown, in bytes of the sort's own quantity.
    pub min_size: u64,
    /// Additional glob patterns (function or file) of frames that are never a site.
    pub plumbing: Vec<String>,
    /// The innermost frame is the site, plumbing or not.
    pub raw_leaf: bool,
}

impl ReportOptions {
    /// The limits on lines that were asked for, as they are typed: `--min-size and --min-count`.
    pub fn limits(&self) -> String {
        let limits = [
            ("--min-size", self.min_size > 0),
            ("--max-size", self.filters.max_size.is_some()),
            ("--min-count", self.filters.min_count > 0),
        ];
        limits
            .into_iter()
            .filter(|(_, is_asked_for)| *is_asked_for)
            .map(|(name, _)| name)
            .collect::<Vec<_>>()
            .join(" and ")
    }
}

impl Default for ReportOptions {
    fn default() -> Self {
        Self {
            top: 10,
            key: Key::default(),
            view: View::default(),
            domains: Domains::default(),
            cumulative: false,
            filters: Filters::default(),
            sort: Sort::default(),
            depth: 16,
            min_size: 0,
            plumbing: Vec::new(),
            raw_leaf: false,
        }
    }
}

/// Where probes go and what runs there. Only benchmarks ask for another than the default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Placement {
    /// The planner's sites.
    #[default]
    Planned,
    /// The entry of each function: what tracers without a planner do.
    Naive,
    /// The planner's sites with programs that do nothing: the floor of what probes cost.
    Empty,
}

/// A share in hundredths of a percent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct BasisPoints(pub u32);

impl BasisPoints {
    /// Whether `after` is larger than `before` by at least this share of it. From nothing, everything is.
    pub fn is_reached(self, before: u64, after: u64) -> bool {
        let grown = u128::from(after.saturating_sub(before));
        grown > 0 && grown * 10_000 >= u128::from(before) * u128::from(self.0)
    }
}

/// What a session records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordOptions {
    /// The file.
    pub path: PathBuf,
    /// The file stays, and is named at the end; else it is there for `--check` alone.
    pub is_kept: bool,
    /// Time between two samples of the series; not zero.
    pub sample_every: Duration,
    /// Time between two snapshots; not zero.
    pub snapshot_every: Option<Duration>,
    /// A snapshot when live bytes have grown by this share since the last one; looked at with each sample.
    pub snapshot_on_growth: Option<BasisPoints>,
}

/// How a session runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SessionOptions {
    /// Which processes are traced: what any of these selects. Of `run` none: it traces its child.
    pub scopes: Vec<Scope>,
    /// Whether processes that a traced one starts are traced too; `None`: as the scopes have it.
    pub follow_children: Option<bool>,
    /// Probes are everyone's and the kernel's side filters, so that a process that joins is traced from its first
    /// allocation; others pay a trap a call.
    pub from_first_allocation: bool,
    /// End after this time.
    pub duration: Option<Duration>,
    /// Time between refreshed reports.
    pub interval: Option<Duration>,
    /// Capacity of the table of live blocks.
    pub max_live_blocks: u32,
    /// Stacks of different threads are kept apart.
    pub by_thread: bool,
    /// Bytes of the buffer for calls that change mappings; used where the report's domains are not the heap alone.
    pub mmap_buffer_bytes: u32,
    /// How reports are made.
    pub report: ReportOptions,
    /// Machine-readable report.
    pub json: Option<JsonTarget>,
    /// Nothing is attached before this time has passed.
    pub start_after: Option<Duration>,
    /// Snapshots and the series between them, in a file.
    pub record: Option<RecordOptions>,
    /// Allocators that the user described.
    pub allocators: Vec<AllocatorSpec>,
    /// No progress, no notes: only reports and errors.
    pub quiet: bool,
    /// 1: the tracer's own decisions; 2: also the BPF side's diagnostics.
    pub verbose: u8,
    /// Where probes go; no option of the command line.
    pub placement: Placement,
}

impl SessionOptions {
    /// Whether the domain `mmap` is followed.
    pub const fn follows_mappings(&self) -> bool {
        self.report.domains.has(Domain::Mmap)
    }
}

/// Default of [`SessionOptions::mmap_buffer_bytes`]: 47 000 calls.
pub const DEFAULT_MMAP_BUFFER_BYTES: u32 = 4 << 20;

/// Default of [`SessionOptions::max_live_blocks`].
pub const DEFAULT_MAX_LIVE_BLOCKS: u32 = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn growth_is_a_share_of_what_was() {
        let ten_percent = BasisPoints(1000);
        assert!(!ten_percent.is_reached(1000, 1099) && ten_percent.is_reached(1000, 1100));
        assert!(!ten_percent.is_reached(0, 0) && ten_percent.is_reached(0, 1));
        assert!(!ten_percent.is_reached(1000, 900) && !BasisPoints(0).is_reached(1000, 1000));
        assert!(ten_percent.is_reached(u64::MAX / 2, u64::MAX));
    }
}
