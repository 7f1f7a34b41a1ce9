//! A recording held against budgets: what may be live, at the peak, left at exit, and how much more than before.

mod judge;
mod sites;
mod suppressions;

use std::time::Duration;

pub use judge::{CheckError, Subject, check, same_program};
pub use sites::{Pair, SiteName, Sites};
pub use suppressions::{Pattern, Suppression, SuppressionError, Suppressions};
use tracer_common::counters::Counter;

use crate::snapshot::Totals;

/// What is allowed. `None`: anything.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Budgets {
    /// Bytes at the moment of the highest total.
    pub max_peak: Option<u64>,
    /// Bytes live at the snapshot.
    pub max_current: Option<u64>,
    /// Bytes live when the process ended, less what is suppressed.
    pub max_leaked: Option<u64>,
    /// Number of allocations.
    pub max_allocations: Option<u64>,
    /// Growth of any one site from the first snapshot on, live bytes.
    pub max_site_growth: Option<Limit>,
    /// Growth since the baseline: of each total, and of each site.
    pub max_growth: Option<Limit>,
    /// Bytes of growth that a limit in percent always allows.
    pub growth_floor: u64,
    /// What was lost does not matter.
    pub allow_loss: bool,
}

/// How much something may grow.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Limit {
    /// By so many bytes.
    Bytes(u64),
    /// By this share (0.05 is 5 %) of what it was.
    Share(f64),
}

/// One of the figures of [`Totals`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quantity {
    /// Bytes at the peak.
    Peak,
    /// Live bytes.
    Current,
    /// Bytes ever allocated.
    Allocated,
    /// Number of allocations.
    Allocations,
}

impl Quantity {
    /// Its value.
    pub const fn of(self, totals: &Totals) -> u64 {
        match self {
            Self::Peak => totals.peak_bytes,
            Self::Current => totals.current_bytes,
            Self::Allocated => totals.allocated_bytes,
            Self::Allocations => totals.allocated_count,
        }
    }

    /// The number of blocks that the bytes are in.
    pub const fn count(self, totals: &Totals) -> u64 {
        match self {
            Self::Peak => totals.peak_count,
            Self::Current => totals.current_count,
            Self::Allocated | Self::Allocations => totals.allocated_count,
        }
    }

    /// Whether it is bytes; else blocks.
    pub const fn is_bytes(self) -> bool {
        !matches!(self, Self::Allocations)
    }
}

/// One thing that is checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Budget {
    /// `--max-peak`, `--max-current`, `--max-allocations`.
    Total(Quantity),
    /// `--max-leaked`.
    Leaked,
    /// `--max-site-growth`.
    SiteGrowth,
    /// `--max-growth`, of a total.
    Growth(Quantity),
    /// `--max-growth`, of each site.
    GrowthOfSites(Quantity),
}

impl Budget {
    /// The figure that it is about.
    pub const fn quantity(self) -> Quantity {
        match self {
            Self::Total(quantity) | Self::Growth(quantity) | Self::GrowthOfSites(quantity) => quantity,
            Self::Leaked | Self::SiteGrowth => Quantity::Current,
        }
    }
}

/// What became of one budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Held.
    Pass,
    /// Exceeded.
    Fail,
    /// What was seen is within the budget, but not everything was seen.
    CannotTell(Unproven),
}

/// Why a budget that seems to hold may not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unproven {
    /// Something was lost: [`Outcome::doubts`].
    Lost,
    /// The process was still running: what it leaves is not known.
    StillRunning,
}

/// What was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// A figure, and how many blocks it is in.
    Amount {
        /// Bytes, or blocks for [`Quantity::Allocations`].
        value: u64,
        /// Blocks.
        count: u64,
    },
    /// A figure and what it was before.
    Change {
        /// In the baseline.
        before: u64,
        /// Now.
        after: u64,
    },
    /// Sites of which each was compared.
    Sites {
        /// Those that grew too much.
        n_over: usize,
        /// All.
        n_compared: usize,
    },
}

/// What is allowed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Allowed {
    /// Up to this.
    AtMost(u64),
    /// So much more than before; [`Budgets::growth_floor`] where that is in percent.
    Growth(Limit, Option<u64>),
}

/// A site that has its part in an exceeded budget.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offender {
    /// Where.
    pub site: SiteName,
    /// The budget's quantity there.
    pub value: u64,
    /// Blocks.
    pub count: u64,
    /// What it was before, where that is compared.
    pub before: Option<u64>,
}

/// A budget and what became of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Check {
    /// What was checked.
    pub budget: Budget,
    /// What it allows.
    pub allowed: Allowed,
    /// What there is.
    pub found: Found,
    /// Whether that is too much.
    pub verdict: Verdict,
    /// Of a failed check: its sites, the worst first.
    pub offenders: Vec<Offender>,
}

/// Why figures may be too low.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Doubt {
    /// A counter of losses and its value.
    Lost(Counter, u64),
    /// Tracing was paused for a while.
    Paused,
    /// What is wrong with the file.
    Broken(String),
}

/// A suppression and what it took out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Suppressed {
    /// Line in the file, from 1.
    pub line: usize,
    /// What follows `leak:`.
    pub pattern: String,
    /// Anything that was live at exit matches, though an earlier line may have taken it out.
    pub matches: bool,
    /// Bytes that were live at exit and that it is the first line to match.
    pub bytes: u64,
    /// Blocks.
    pub count: u64,
}

/// Everything that a check has found.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// The process's name; hostile input.
    pub program: String,
    /// Its id.
    pub pid: u32,
    /// What selected the processes, and how many there were: budgets are for all of them together. `None`: there was one; hostile input.
    pub scope: Option<(String, u64)>,
    /// How long it was traced until the snapshot.
    pub traced: Duration,
    /// Whether it was traced from its start; else blocks from before are not in the figures.
    pub from_start: bool,
    /// One for each budget.
    pub checks: Vec<Check>,
    /// Why figures may be too low, in the recording; then in the baseline.
    pub doubts: Vec<Doubt>,
    /// The same for the baseline.
    pub baseline_doubts: Vec<Doubt>,
    /// Doubts do not matter.
    pub allow_loss: bool,
    /// Every suppression; empty where leaks were not checked.
    pub suppressed: Vec<Suppressed>,
}

impl Outcome {
    /// Every budget holds.
    pub fn passed(&self) -> bool {
        self.checks.iter().all(|check| check.verdict == Verdict::Pass)
    }

    /// Number of budgets with this verdict.
    pub fn count(&self, wanted: impl Fn(Verdict) -> bool) -> usize {
        self.checks.iter().filter(|check| wanted(check.verdict)).count()
    }
}
