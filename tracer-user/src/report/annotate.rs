//! A source file with the memory of each line beside it, in the columns of memory_profiler's `%mprun`.

use std::fmt::Write as _;

use super::{
    format::{escaped, path_text, signed_size, size},
    owner::subject,
};
use crate::{
    analysis::annotate::{Annotation, Increment, LineMemory},
    snapshot::Snapshot,
};

/// Longest source line printed, in characters.
const MAX_SHOWN_CHARS: usize = 160;
/// Columns that a tab goes on to.
const TAB_COLUMNS: usize = 4;
/// A line with at least this share of the file's live bytes is coloured.
const HEAVY_SHARE: f64 = 0.1;

/// How a source is printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AnnotateLayout {
    /// Terminal colours.
    pub colours: bool,
    /// Lines printed around those with memory. `None`: the whole source.
    pub context: Option<usize>,
}

/// The table. `title` is the snapshot's, `source` the text (any bytes), `warnings` what is known of its age.
pub fn render(
    annotation: &Annotation,
    snapshot: &Snapshot,
    title: &str,
    source: &[u8],
    warnings: &[String],
    layout: AnnotateLayout,
) -> String {
    let mut out = String::new();
    let _infallible = writeln!(out, "Filename: {}", escaped(&path_text(&annotation.file)));
    let _infallible = writeln!(out, "Snapshot: {}  {}", escaped(title), subject(snapshot));
    for warning in warnings.iter().chain(&snapshot.notes) {
        let _infallible = writeln!(out, "note: {}", escaped(warning));
    }
    if annotation.cumulative {
        out.push_str("cumulative: every frame of a stack counts (recursion once), so lines overlap\n");
    }
    if annotation.lines.is_empty() {
        out.push_str("no memory is attributed to its lines: its frames only call what allocates (try --cumulative)\n");
    }
    let lines: Vec<&[u8]> = source.strip_suffix(b"\n").unwrap_or(source).split(|byte| *byte == b'\n').collect();
    let increment = match annotation.increment {
        Increment::SinceFirst => "Increment",
        Increment::Allocated => "Allocated",
    };
    let head = format!(
        "{:>7}  {:>11}  {:>11}  {increment:>12}  {:>11}  Line Contents",
        "Line #", "Mem usage", "Peak", "Occurrences"
    );
    let _infallible = writeln!(out, "\n{head}\n{}", "=".repeat(head.len()));

    let heavy = annotation.lines.values().map(|line| line.totals.current_bytes).fold(0_u64, u64::saturating_add) as f64
        * HEAVY_SHARE;
    let mut last_shown = 0;
    for (number, text) in (1_u32..).zip(&lines) {
        if !is_shown(number, annotation, layout.context) {
            continue;
        }
        if number > last_shown + 1 {
            let _infallible = writeln!(out, "{:>7}", "...");
        }
        last_shown = number;
        let memory = annotation.lines.get(&number);
        let row = format!("{number:>7}  {}  {}", cells(memory), contents(text));
        push_row(&mut out, row.trim_end(), memory, heavy, layout.colours);
    }
    if (last_shown as usize) < lines.len() {
        let _infallible = writeln!(out, "{:>7}", "...");
    }
    push_strays(&mut out, annotation, lines.len());
    out
}

fn is_shown(number: u32, annotation: &Annotation, context: Option<usize>) -> bool {
    let Some(context) = context else { return true };
    let context = u32::try_from(context).unwrap_or(u32::MAX);
    let around = number.saturating_sub(context).max(1)..=number.saturating_add(context);
    annotation.lines.range(around).next().is_some()
}

/// Mem usage, peak, increment, occurrences; blank where there is nothing.
fn cells(memory: Option<&LineMemory>) -> String {
    let Some(LineMemory { totals, increment_bytes }) = memory else { return " ".repeat(11 + 2 + 11 + 2 + 12 + 2 + 11) };
    let (live, peak) = (size(totals.current_bytes), size(totals.peak_bytes));
    format!("{live:>11}  {peak:>11}  {:>12}  {:>11}", signed_size(*increment_bytes), totals.current_count)
}

fn push_row(out: &mut String, row: &str, memory: Option<&LineMemory>, heavy: f64, colours: bool) {
    let colour = match memory {
        _ if !colours => "",
        None => "\x1b[2m",
        Some(memory) if memory.totals.current_bytes > 0 && memory.totals.current_bytes as f64 >= heavy => "\x1b[1;31m",
        Some(_) => "\x1b[33m",
    };
    let reset = if colour.is_empty() { "" } else { "\x1b[0m" };
    let _infallible = writeln!(out, "{colour}{row}{reset}");
}

/// Memory of the file that stands beside no line: the source is not the one that was built.
fn push_strays(out: &mut String, annotation: &Annotation, n_lines: usize) {
    let strays = annotation.lines.iter().filter(|(number, _)| **number == 0 || **number as usize > n_lines);
    let (mut n_beyond, mut bytes) = (0, 0_u64);
    for (&number, memory) in strays {
        if number == 0 {
            let _infallible = writeln!(out, "{:>7}  {}  (line unknown)", "?", cells(Some(memory)));
        } else {
            n_beyond += 1;
            bytes = bytes.saturating_add(memory.totals.current_bytes);
        }
    }
    if n_beyond > 0 {
        let _infallible = writeln!(
            out,
            "note: {n_beyond} lines with {} lie beyond the end: the source is not the one that was built",
            size(bytes)
        );
    }
}

/// A source line, safe to print: no control characters, tabs as blanks, bounded.
fn contents(text: &[u8]) -> String {
    // A character takes four bytes at most.
    let bounded = &text[..text.len().min(4 * MAX_SHOWN_CHARS + 4)];
    let bounded = bounded.strip_suffix(b"\r").unwrap_or(bounded);
    let mut line = String::new();
    for (column, c) in String::from_utf8_lossy(bounded).chars().enumerate() {
        if column == MAX_SHOWN_CHARS {
            line.push('…');
            break;
        }
        if c == '\t' {
            let columns = line.chars().count();
            line.extend(std::iter::repeat_n(' ', TAB_COLUMNS - columns % TAB_COLUMNS));
        } else {
            line.push_str(&escaped(c.encode_utf8(&mut [0; 4])));
        }
    }
    line
}
