//! The tracer's JSON as docs/json.md describes it, as far as tests look at it.

use std::collections::BTreeMap;

use serde::Deserialize;

/// One report.
#[derive(Clone, Debug, Deserialize)]
pub struct Report {
    /// Version of the form.
    pub schema: u32,
    /// The whole target.
    pub totals: Totals,
    /// Mappings of the whole target, where they are followed and asked for.
    pub mmap: Option<Totals>,
    /// By name.
    pub counters: BTreeMap<String, u64>,
    /// The tracer's own cost.
    pub overhead: Overhead,
    /// The lines.
    pub stats: Vec<Stat>,
    /// What a reader should know.
    pub notes: Vec<String>,
}

/// Bytes and blocks of the whole target.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[expect(missing_docs, reason = "docs/json.md describes each")]
pub struct Totals {
    pub current_bytes: u64,
    pub current_count: u64,
    pub peak_bytes: u64,
    /// Not known of many processes together.
    pub peak_count: Option<u64>,
    pub allocated_bytes: u64,
    pub allocated_count: u64,
    pub freed_bytes: u64,
    pub freed_count: u64,
}

/// What tracing costs.
#[derive(Clone, Copy, Debug, Deserialize)]
#[expect(missing_docs, reason = "docs/json.md describes each")]
pub struct Overhead {
    pub hits: u64,
    pub estimated_share: Option<f64>,
    pub kernel_map_bytes: u64,
    pub rss_bytes: u64,
}

/// One line of the report.
#[derive(Clone, Debug, Deserialize)]
#[expect(missing_docs, reason = "docs/json.md describes each")]
pub struct Stat {
    pub domain: String,
    pub file: Option<String>,
    pub line: Option<u32>,
    pub function: Option<String>,
    pub module: Option<String>,
    pub size: u64,
    pub count: u64,
    pub peak_size: u64,
    pub peak_count: u64,
    pub allocated_size: u64,
    pub allocated_count: u64,
    pub stacks: u64,
    pub truncated: Option<String>,
    pub traceback: Vec<Frame>,
}

/// A frame of the line's largest stack.
#[derive(Clone, Debug, Deserialize)]
#[expect(missing_docs, reason = "docs/json.md describes each")]
pub struct Frame {
    pub function: Option<String>,
    pub file: Option<String>,
    pub line: Option<u32>,
    pub module: Option<String>,
    pub address: String,
    pub inlined: bool,
    pub missing: Option<String>,
}

/// Bytes in blocks, written `bytes/blocks`.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct Figure {
    /// Sizes asked for.
    pub bytes: u64,
    /// Blocks or calls.
    pub count: u64,
}

impl std::fmt::Debug for Figure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.bytes, self.count)
    }
}

impl Figure {
    /// So many bytes in so many blocks.
    pub const fn new(bytes: u64, count: u64) -> Self {
        Self { bytes, count }
    }
}

impl std::ops::Sub for Figure {
    type Output = Self;

    /// Never negative: a test that subtracts too much sees a figure that is too large.
    fn sub(self, other: Self) -> Self {
        Self { bytes: self.bytes.wrapping_sub(other.bytes), count: self.count.wrapping_sub(other.count) }
    }
}

impl std::ops::Add for Figure {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self { bytes: self.bytes + other.bytes, count: self.count + other.count }
    }
}

impl Stat {
    /// Live now.
    pub fn live(&self) -> Figure {
        Figure::new(self.size, self.count)
    }

    /// Live at the target's peak.
    pub fn peak(&self) -> Figure {
        Figure::new(self.peak_size, self.peak_count)
    }

    /// Ever allocated.
    pub fn allocated(&self) -> Figure {
        Figure::new(self.allocated_size, self.allocated_count)
    }

    /// `file:line`, or what there is.
    pub fn site(&self) -> String {
        let file = self.file.as_deref().or(self.module.as_deref()).unwrap_or("?");
        self.line.map_or_else(|| file.to_owned(), |line| format!("{file}:{line}"))
    }

    /// The functions of its traceback, innermost first.
    pub fn functions(&self) -> Vec<&str> {
        self.traceback.iter().map(|frame| frame.function.as_deref().unwrap_or("?")).collect()
    }
}

impl Totals {
    /// Live now.
    pub fn current(&self) -> Figure {
        Figure::new(self.current_bytes, self.current_count)
    }

    /// Live at the highest total.
    pub fn peak(&self) -> Figure {
        Figure::new(self.peak_bytes, self.peak_count.unwrap_or(0))
    }

    /// Ever allocated.
    pub fn allocated(&self) -> Figure {
        Figure::new(self.allocated_bytes, self.allocated_count)
    }

    /// Ever freed.
    pub fn freed(&self) -> Figure {
        Figure::new(self.freed_bytes, self.freed_count)
    }
}

impl std::fmt::Display for Totals {
    /// `KEY=N …`, as test programs print their own books.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "current_bytes={} current_count={} ", self.current_bytes, self.current_count)?;
        let peak_count = self.peak_count.map_or_else(|| "null".to_owned(), |count| count.to_string());
        write!(f, "peak_bytes={} peak_count={peak_count} ", self.peak_bytes)?;
        write!(f, "allocated_bytes={} allocated_count={} ", self.allocated_bytes, self.allocated_count)?;
        write!(f, "freed_bytes={} freed_count={}", self.freed_bytes, self.freed_count)
    }
}
