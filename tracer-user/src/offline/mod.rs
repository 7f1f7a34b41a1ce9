//! Commands on recordings: open, select, filter, analyse, render. They need neither root nor the machine of the recording.

mod annotate;
mod check;
mod diff;
mod export;
mod growth;
mod open;
mod output;
mod report;
mod resymbolize;
mod select;
mod verdict;

pub use annotate::{AnnotateOptions, annotate};
pub use check::{CheckOptions, Gate, GateOptions, check};
pub use diff::{DiffOptions, diff};
pub use export::{ExportOptions, ExportOutput, export};
pub use growth::{GrowthOptions, growth};
pub use output::{NamedFile, check_distinct};
pub use report::{RecordingReportOptions, report};
pub use resymbolize::{ResymbolizeOptions, resymbolize};
pub use verdict::{VerdictOptions, verdict};
