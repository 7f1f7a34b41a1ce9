//! A table for spreadsheets: one row a line of the report, with all figures; comma-separated after RFC 4180.

use std::io::{self, Write};

use super::{Source, text};
use crate::{
    analysis::statistics::{Statistic, statistics},
    options::Key,
    report::{format::path_text, json::average},
    snapshot::{Home, Snapshot},
    symbolize::module_name,
};

const HEADER: [&str; 18] = [
    "file",
    "line",
    "function",
    "module",
    "address",
    "size_bytes",
    "count",
    "average_bytes",
    "peak_bytes",
    "peak_count",
    "allocated_bytes",
    "allocated_count",
    "freed_bytes",
    "freed_count",
    "freed_within_1ms_count",
    "freed_within_1s_count",
    "stacks",
    "truncated",
];

/// Stands before the others where lines are about processes; what is finer than the key is empty.
const OWNER_HEADER: [&str; 5] = ["pid", "command", "container", "user", "ended_seconds"];

/// The same where they are threads.
const THREAD_HEADER: [&str; 2] = ["thread", "thread_name"];

/// Writes all lines.
pub(super) fn write(source: &Source<'_>, out: &mut dyn Write) -> io::Result<()> {
    let statistics = statistics(source.snapshot, source.names, source.attribution, source.options);
    let mut table = csv::Writer::from_writer(out);
    let key = statistics.key;
    let first_header = match key {
        Key::Thread => &THREAD_HEADER[..],
        key if key.is_owner() => &OWNER_HEADER,
        _ => &[],
    };
    table.write_record(first_header.iter().chain(&HEADER))?;
    for line in &statistics.lines {
        let first = match key {
            Key::Thread => thread(source.snapshot, line).to_vec(),
            key if key.is_owner() => owner(source.snapshot, line, key).to_vec(),
            _ => Vec::new(),
        };
        table.write_record(first.iter().chain(&row(source.snapshot, line, key)))?;
    }
    table.flush()
}

fn thread(snapshot: &Snapshot, line: &Statistic<'_>) -> [String; THREAD_HEADER.len()] {
    let Some(thread) = line.largest.stack.thread else { return Default::default() };
    [thread.to_string(), snapshot.threads.get(&thread).map(|name| cell(name)).unwrap_or_default()]
}

fn owner(snapshot: &Snapshot, line: &Statistic<'_>, key: Key) -> [String; OWNER_HEADER.len()] {
    let Some(owner) = snapshot.owner(&line.largest.stack) else { return Default::default() };
    let by_process = key == Key::Process;
    let told = |wanted: Key, text: Option<&str>| match text {
        Some(text) if by_process || key == wanted => cell(text),
        _ => String::new(),
    };
    let container = match owner.home() {
        Home::Container(name) => Some(name),
        Home::NotKnown | Home::Host => None,
    };
    let ended = owner.ended().filter(|_| by_process).map(|(at, _)| format!("{:.3}", at.as_secs_f64()));
    [
        if by_process && owner.pid() != 0 { owner.pid().to_string() } else { String::new() },
        told(Key::Command, Some(owner.command())),
        told(Key::Container, container),
        told(Key::User, owner.user()),
        ended.unwrap_or_default(),
    ]
}

fn row(snapshot: &Snapshot, line: &Statistic<'_>, key: Key) -> [String; HEADER.len()] {
    // The site is that of the largest stack: what is finer than the key is not the line's.
    let site = line.site.filter(|_| key.has_module());
    let name = site.map(|site| site.name);
    let file = name.filter(|_| key.has_file()).and_then(|name| name.file.as_deref());
    let number = name.filter(|_| key.has_line()).and_then(|name| name.line);
    let function = name.filter(|_| key.has_function()).and_then(|name| name.function.as_deref().ok());
    let module = site.and_then(|site| site.module(snapshot));
    // A function without a name is called by its address.
    let address = site.filter(|_| key.has_line() || (key.has_function() && function.is_none()));
    let totals = &line.totals;
    [
        file.map(|file| cell(&path_text(file))).unwrap_or_default(),
        number.map(|number| number.to_string()).unwrap_or_default(),
        function.map(cell).unwrap_or_default(),
        module.map(|module| cell(&module_name(module))).unwrap_or_default(),
        address.map(|site| format!("{:#x}", site.address)).unwrap_or_default(),
        totals.current_bytes.to_string(),
        totals.current_count.to_string(),
        average(totals.current_bytes, totals.current_count).map(|average| average.to_string()).unwrap_or_default(),
        totals.peak_bytes.to_string(),
        totals.peak_count.to_string(),
        totals.allocated_bytes.to_string(),
        totals.allocated_count.to_string(),
        totals.freed_bytes.to_string(),
        totals.freed_count.to_string(),
        totals.freed_within_1ms_count.to_string(),
        totals.freed_within_1s_count.to_string(),
        line.n_stacks.to_string(),
        line.largest.stack.end.reason().unwrap_or_default().to_owned(),
    ]
}

/// A text that no spreadsheet takes for a formula: what begins like one is put behind an apostrophe (OWASP, CSV injection).
pub(super) fn cell(hostile: &str) -> String {
    let text = text(hostile);
    // Some spreadsheets skip blanks, and take full-width signs for plain ones.
    if text.trim_start().starts_with(['=', '+', '-', '@', '＝', '＋', '－', '＠']) {
        format!("'{text}")
    } else {
        text
    }
}

#[cfg(test)]
mod tests {
    use super::cell;

    #[test]
    fn no_cell_is_a_formula() {
        for text in ["=1+1", "+1", "-1", "@SUM(A1)", " =1", "\u{ff1d}1"] {
            assert_eq!(cell(text), format!("'{text}"));
        }
        assert_eq!(cell("\t=1"), "\\t=1");
        assert_eq!(cell("operator="), "operator=");
    }
}
