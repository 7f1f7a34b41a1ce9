//! A snapshot in the forms of other tools. One file a format; each a function of a [`Source`], written into what it is given.

mod allocations;
mod chrome_trace;
mod csv;
mod firefox;
mod flamegraph;
mod folded;
mod heaptrack;
mod json;
mod labels;
mod markdown;
mod pprof;
mod proto;
mod speedscope;
mod walk;

use std::io::{self, Write};

use walk::Owners;

use super::{
    format::{escaped, grouped, is_hazard, size},
    owner::subject,
    text::{by_then, losses},
};
use crate::{
    options::{Filters, Key, ReportOptions, View},
    recording::{Recording, Which},
    snapshot::{Snapshot, Totals},
    symbolize::{Attribution, Names},
};

/// What is exported.
#[derive(Clone, Copy, Debug)]
pub struct Source<'a> {
    /// The recording that the snapshot is of: its series, marks and other snapshots.
    pub recording: &'a Recording,
    /// Which of its snapshots.
    pub which: Which,
    /// That snapshot, less what filters leave out.
    pub snapshot: &'a Snapshot,
    /// Names of its frames.
    pub names: &'a Names,
    /// An older snapshot that differences are made against.
    pub base: Option<Base<'a>>,
    /// Which totals are weights, and what a frame or line stands for.
    pub options: &'a ReportOptions,
    /// Where lines are attributed.
    pub attribution: &'a Attribution,
    /// Version of this program.
    pub version: &'a str,
}

/// The older side of a difference.
#[derive(Clone, Copy, Debug)]
pub struct Base<'a> {
    /// The snapshot, less what filters leave out.
    pub snapshot: &'a Snapshot,
    /// Names of its frames.
    pub names: &'a Names,
}

/// A form to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// One stack a line.
    Folded,
    /// Flame graph.
    Flamegraph,
    /// Profile of Go's pprof.
    Pprof,
    /// Profile of speedscope.
    Speedscope,
    /// Profile of the Firefox Profiler.
    Firefox,
    /// Counters over time.
    ChromeTrace,
    /// The JSON report.
    Json,
    /// A table for spreadsheets.
    Csv,
    /// A table for a pull request.
    Markdown,
    /// A text summary.
    Heaptrack,
}

/// What is known of a format.
struct Row {
    format: Format,
    name: &'static str,
    about: &'static str,
    is_binary: bool,
    has_differences: bool,
    tells_losses: bool,
    /// Which of the options that choose lines, figures and stacks it heeds.
    heeds: &'static [&'static [&'static str]],
    write: fn(&Source<'_>, &mut dyn Write) -> io::Result<()>,
}

/// Options that leave stacks out.
const FILTERS: &[&str] = &["--include", "--exclude", "--function", "--module", "--process", "--own-code"];
/// Forms of whole stacks, by weight.
const WEIGHTS: &[&[&str]] = &[FILTERS, &["--view"]];
/// Forms whose frames are what the key says.
const STACKS: &[&[&str]] = &[FILTERS, &["--view", "--key"]];
/// What decides about lines and their order.
const OF_LINES: &[&str] = &["--view", "--key", "--sort", "--min-size", "--max-size", "--min-count", "--cumulative"];
/// All lines of a report.
const LINES: &[&[&str]] = &[FILTERS, OF_LINES];
/// Its first lines.
const TABLE: &[&[&str]] = &[FILTERS, OF_LINES, &["--top"]];
/// The first lines of orders of its own, with their stacks.
const SUMMARY: &[&[&str]] = &[FILTERS, &["--top", "--depth"]];

#[rustfmt::skip]
const ROWS: &[Row] = &[
    Row { format: Format::Folded, name: "folded", about: "one stack a line, for inferno and flamegraph.pl",
          is_binary: false, has_differences: true, tells_losses: false, write: folded::write,
          heeds: STACKS },
    Row { format: Format::Flamegraph, name: "flamegraph", about: "interactive SVG for a browser; differential with --base",
          is_binary: false, has_differences: true, tells_losses: true, write: flamegraph::write,
          heeds: STACKS },
    Row { format: Format::Pprof, name: "pprof", about: "gzip protobuf for `go tool pprof`",
          is_binary: true, has_differences: true, tells_losses: true, write: pprof::write,
          heeds: WEIGHTS },
    Row { format: Format::Speedscope, name: "speedscope", about: "JSON for speedscope.app",
          is_binary: false, has_differences: false, tells_losses: true, write: speedscope::write,
          heeds: STACKS },
    Row { format: Format::Firefox, name: "firefox", about: "JSON for profiler.firefox.com, with native allocations",
          is_binary: false, has_differences: false, tells_losses: true, write: firefox::write,
          heeds: WEIGHTS },
    Row { format: Format::ChromeTrace, name: "chrome-trace", about: "memory over time as counters, for Perfetto",
          is_binary: false, has_differences: false, tells_losses: true, write: chrome_trace::write,
          heeds: &[] },
    Row { format: Format::Json, name: "json", about: "the JSON report, with the recording's snapshots and marks",
          is_binary: false, has_differences: false, tells_losses: true, write: json::write,
          heeds: LINES },
    Row { format: Format::Csv, name: "csv", about: "every line with all figures, for spreadsheets",
          is_binary: false, has_differences: false, tells_losses: false, write: csv::write,
          heeds: LINES },
    Row { format: Format::Markdown, name: "markdown", about: "a table for a pull request",
          is_binary: false, has_differences: false, tells_losses: true, write: markdown::write,
          heeds: TABLE },
    Row { format: Format::Heaptrack, name: "heaptrack", about: "text summary in the shape of heaptrack_print",
          is_binary: false, has_differences: false, tells_losses: true, write: heaptrack::write,
          heeds: SUMMARY },
];

impl Format {
    /// Every format, in the order of the help.
    pub const ALL: [Self; 10] = [
        Self::Folded,
        Self::Flamegraph,
        Self::Pprof,
        Self::Speedscope,
        Self::Firefox,
        Self::ChromeTrace,
        Self::Json,
        Self::Csv,
        Self::Markdown,
        Self::Heaptrack,
    ];

    fn row(self) -> &'static Row {
        ROWS.iter().find(|row| row.format == self).expect("a test finds a row for each")
    }

    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        self.row().name
    }

    /// What it is good for, in a few words.
    pub fn about(self) -> &'static str {
        self.row().about
    }

    /// Whether a terminal could obey its bytes.
    pub fn is_binary(self) -> bool {
        self.row().is_binary
    }

    /// Whether it can show an older snapshot beside the newer.
    pub fn has_differences(self) -> bool {
        self.row().has_differences
    }

    /// Whether it has room to say what was lost.
    pub fn tells_losses(self) -> bool {
        self.row().tells_losses
    }

    /// Whether an option of reports (`--top`) makes a difference to it.
    pub fn heeds(self, option: &str) -> bool {
        self.row().heeds.iter().any(|options| options.contains(&option))
    }

    /// Writes `source` in this form.
    ///
    /// # Errors
    /// `out` takes no more.
    pub fn write(self, source: &Source<'_>, out: &mut dyn Write) -> io::Result<()> {
        (self.row().write)(source, out)
    }
}

impl Source<'_> {
    /// Whether every sum of these totals fits the formats' signed 64-bit figures. Only a forged recording has others.
    pub fn is_summable(&self) -> bool {
        [Some(self.snapshot), self.base.map(|base| base.snapshot)].into_iter().flatten().all(|snapshot| {
            let mut sum = Totals::default();
            // Saturates.
            snapshot.stacks.iter().for_each(|stack| sum.add(&stack.totals));
            let figures = [sum.current_bytes, sum.peak_bytes, sum.allocated_bytes, sum.freed_bytes];
            let counts = [sum.current_count, sum.peak_count, sum.allocated_count, sum.freed_count];
            figures.into_iter().chain(counts).all(|figure| i64::try_from(figure).is_ok())
        })
    }

    /// What was lost or truncated until the snapshot, in one line.
    pub fn losses(&self) -> String {
        losses(self.snapshot)
    }

    /// What stands at the roots of stacks, where processes are to be told apart.
    fn owners(&self) -> Option<Owners> {
        match self.options.key {
            Key::Process if self.base.is_none() => Some(Owners::Process),
            Key::Process => Some(Owners::Program),
            key if key.is_owner() => Some(Owners::Key(key)),
            _ if self.snapshot.processes.len() < 2 => None,
            _ if self.base.is_some() => Some(Owners::Program),
            _ => Some(Owners::Process),
        }
    }

    /// `imgsrv (pid 4711)`; of many `container web, 7 processes (5 running)`.
    fn target(&self) -> String {
        if self.snapshot.is_of_many() {
            return text(&subject(self.snapshot));
        }
        let target = &self.snapshot.target;
        format!("{} (pid {})", text(&target.comm), target.pid)
    }

    /// `3 "after warm-up", 12.4 s`.
    fn moment(&self) -> String {
        let seconds = self.snapshot.duration.as_secs_f64();
        let name = match self.which {
            Which::Index(index) => {
                let name = self.recording.snapshots.get(index).map(|info| text(info.name()));
                format!("{index} {}", name.as_deref().unwrap_or("?"))
            }
            Which::Peak => "peak".to_owned(),
        };
        let filtered = if self.options.filters == Filters::default() { "" } else { ", filtered" };
        format!("snapshot {name}, {seconds:.1} s{filtered}")
    }

    /// Sums over all stacks that filters left.
    fn shown(&self) -> Totals {
        let mut sum = Totals::default();
        self.snapshot.stacks.iter().for_each(|stack| sum.add(&stack.totals));
        sum
    }

    /// `live 15.2 MiB in 100 042 blocks, peak 21.9 MiB, allocated …`.
    fn figures(&self) -> String {
        let sum = self.shown();
        format!(
            "live {} in {} blocks, peak {}{}, {}allocated {} in {}, freed {} in {}",
            size(sum.current_bytes),
            grouped(sum.current_count),
            size(sum.peak_bytes),
            sum.known_peak_count().map_or_else(String::new, |n| format!(" in {}", grouped(n))),
            by_then(self.snapshot),
            size(sum.allocated_bytes),
            grouped(sum.allocated_count),
            size(sum.freed_bytes),
            grouped(sum.freed_count),
        )
    }
}

/// The view in words; lifetimes have no place in an export.
const fn view_name(view: View) -> &'static str {
    match view {
        View::Temporary => View::Freed.name(),
        other => other.name(),
    }
}

/// Longest text of a target's that is written in one piece, in characters; longer ones are cut: a name stands in every stack.
const MAX_TEXT_CHARS: usize = 1000;

/// A string of the target's without anything that a terminal would obey, that breaks a line, or that XML cannot hold.
fn text(hostile: &str) -> String {
    let cut = hostile.char_indices().nth(MAX_TEXT_CHARS).map(|(at, _)| at);
    let hostile = &hostile[..cut.unwrap_or(hostile.len())];
    // Noncharacters (Unicode 3.4, D14) are refused by XML 1.0 (2.2 Characters) and by some JSON readers.
    let is_noncharacter =
        |c: char| matches!(c as u32 & 0xffff, 0xfffe | 0xffff) || matches!(c, '\u{fdd0}'..='\u{fdef}');
    let mut out = if hostile.chars().any(is_noncharacter) {
        let spelled = |c: char| if is_noncharacter(c) { format!("\\u{{{:x}}}", c as u32) } else { c.to_string() };
        escaped(&hostile.chars().map(spelled).collect::<String>())
    } else if hostile.chars().any(is_hazard) {
        escaped(hostile)
    } else {
        hostile.to_owned()
    };
    if cut.is_some() {
        out.push('…');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_format_has_one_row_under_a_name_of_its_own() {
        for (at, format) in Format::ALL.into_iter().enumerate() {
            assert_eq!(ROWS[at].format, format, "rows stand in the order of the list");
            assert_eq!(ROWS.iter().filter(|row| row.name == format.name()).count(), 1, "{}", format.name());
        }
        assert_eq!(ROWS.len(), Format::ALL.len());
    }

    #[test]
    fn noncharacters_and_endless_names_do_not_pass() {
        assert_eq!(text("a\u{fffe}\u{1ffff}\u{fdd0}b"), "a\\u{fffe}\\u{1ffff}\\u{fdd0}b");
        assert_eq!(text("größe<&>"), "größe<&>");
        let long = text(&"é".repeat(5000));
        assert_eq!(long.chars().count(), MAX_TEXT_CHARS + 1);
        assert!(long.ends_with('…'));
    }
}
