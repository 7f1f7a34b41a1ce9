//! A table for a pull request or a job's summary, in GitHub's Markdown.

use std::{
    fmt::Write as _,
    io::{self, Write},
};

use super::{Source, text, view_name};
use crate::{
    analysis::statistics::{Statistic, statistics},
    options::View,
    report::{
        format::{grouped, percent, short_path, shortened, size, size_f64},
        json::average,
        text::{label, tail},
    },
    snapshot::Totals,
};

/// Writes heading, totals and the first lines.
pub(super) fn write(source: &Source<'_>, out: &mut dyn Write) -> io::Result<()> {
    let view = source.options.view;
    let lines = statistics(source.snapshot, source.names, source.attribution, source.options);
    let total = view.size(&source.shown());
    writeln!(out, "### Memory of {}\n", code(&source.target()))?;
    writeln!(out, "{}: {}.\n", code(&source.moment()), source.figures())?;
    writeln!(out, "{}.\n", plain(&source.losses()))?;
    writeln!(out, "| {} bytes | share | blocks | average | where |", view_name(view))?;
    writeln!(out, "|---:|---:|---:|---:|:---|")?;
    let mut rest = Totals::default();
    let mut n_rest = lines.left_out.n_lines;
    rest.add(&lines.left_out.totals);
    for (at, line) in lines.shown().enumerate() {
        if at < source.options.top {
            row(out, view, total, &line.totals, &place(source, line))?;
        } else {
            n_rest += 1;
            rest.add(&line.totals);
        }
    }
    if n_rest > 0 {
        row(out, view, total, &rest, &format!("{} more", grouped(n_rest as u64)))?;
    }
    Ok(())
}

fn row(out: &mut dyn Write, view: View, total: u64, totals: &Totals, place: &str) -> io::Result<()> {
    let bytes = view.size(totals);
    let count = view.count(totals);
    let share = if total > 0 { bytes as f64 / total as f64 } else { 0.0 };
    let average = average(bytes, count).map_or_else(|| "–".to_owned(), size_f64);
    writeln!(out, "| {} | {} | {} | {average} | {place} |", size(bytes), percent(share), grouped(count))
}

fn place(source: &Source<'_>, line: &Statistic<'_>) -> String {
    let key = source.options.key;
    if !key.has_line() {
        return code(format!("{} {}", label(line, source.snapshot, key), tail(line, source.snapshot, key)).trim());
    }
    let Some(site) = line.site else { return "stack not stored".to_owned() };
    let place = || shortened(&site.place(source.snapshot).to_string());
    let function = site.name.function.as_deref().map_or_else(|_| place(), shortened);
    let code_of = match (&site.name.file, site.name.line) {
        (Some(file), Some(line)) => format!("{}:{line} {function}", short_path(file)),
        (Some(file), None) => format!("{} {function}", short_path(file)),
        (None, _) => function,
    };
    let truncated = line.largest.stack.end.reason().map(|reason| format!(" (stack truncated: {reason})"));
    format!("{}{}", code(&code_of), truncated.unwrap_or_default())
}

/// Hostile text as code, which ends neither its span nor its cell. Within a span nothing but the backtick has a meaning
/// (CommonMark 6.1), and the bar in a table (GFM 4.10); with either it becomes an HTML element with references.
fn code(hostile: &str) -> String {
    let text = text(hostile);
    if text.contains(['`', '|']) || text.trim() != text || text.is_empty() {
        format!("<code>{}</code>", references(&text))
    } else {
        format!("`{text}`")
    }
}

/// Our own words: only what has a meaning in Markdown is disarmed.
fn plain(ours: &str) -> String {
    references(ours)
}

/// Everything of ASCII that could be markup, as numeric references: those are never structure (CommonMark 2.5).
fn references(text: &str) -> String {
    let is_plain =
        |c: char| c.is_alphanumeric() || !c.is_ascii() || matches!(c, ' ' | '.' | ',' | ':' | ';' | '/' | '-' | '%');
    let mut out = String::new();
    for c in text.chars() {
        if is_plain(c) {
            out.push(c);
        } else {
            let _infallible = write!(out, "&#{};", c as u32);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::code;

    #[test]
    fn no_text_leaves_its_code_span_or_cell() {
        assert_eq!(code("src/cache.c:42 <b>*x*_y_</b> @me"), "`src/cache.c:42 <b>*x*_y_</b> @me`");
        assert_eq!(code("a|b"), "<code>a&#124;b</code>");
        assert_eq!(code("a`b\\"), "<code>a&#96;b&#92;</code>");
        assert_eq!(code(""), "<code></code>");
    }
}
