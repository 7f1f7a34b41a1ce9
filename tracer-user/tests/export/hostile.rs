//! Names come from targets: whatever is in them, they leave no field of any format.

use std::{fs, sync::Arc};

use proptest::prelude::*;
use pulldown_cmark::{Event, Options, Parser, Tag, TagEnd};
use serde_json::Value;
use tempfile::TempDir;
use tracer_common::{abi::StackEnd, addr::FileVaddr};
use tracer_user::{
    options::{Key, ReportOptions},
    recording::Recording,
    report::export::Format,
    snapshot::{ModuleId, Tid},
    symbolize::Names,
};

use super::{
    by,
    fixture::{export, frame, module, name, recording_of, stack, text, totals},
    programs,
};

/// What has a meaning in one of the formats, on a terminal or to a reader.
const HOSTILE: &[&str] = &[
    "</title></text><script>alert(1)</script>",
    "]]><svg onload=alert(1)>",
    "&lt;&amp;&#0;<!-- ",
    "\"'`${x}`",
    "a;b;c 1 2 3",
    "evil 18446744073709551615",
    "# comment",
    "| a | b |\n|---|---|",
    "`a` | <b>x</b> [l](javascript:x) ![i](x) @user #1",
    "=cmd|'/C calc'!A0",
    "+1\t-1,\"2\"",
    "@SUM(1+1)",
    "\x1b[2J\x1b]0;title\x07",
    "\r\nadded: line",
    "\u{202e}txt.exe\u{2066}\u{200b}\u{feff}",
    "\u{0}\u{b}\u{7f}\u{85}\u{9b}\u{2028}",
    "\u{fffe}\u{ffff}\u{1fffe}",
    "",
    " ",
    ";",
    "\\",
    "\\|",
    "größe→ok",
];

fn hostile() -> impl Strategy<Value = String> {
    prop_oneof![
        proptest::sample::select(HOSTILE).prop_map(str::to_owned),
        proptest::collection::vec(proptest::sample::select(HOSTILE), 2..4).prop_map(|parts| parts.concat()),
        any::<String>(),
    ]
}

/// A file's path, which need not be UTF-8.
fn hostile_path() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        hostile().prop_map(String::into_bytes),
        hostile().prop_map(|text| [b"/src/\xff\xfe/", text.as_bytes()].concat()),
        proptest::collection::vec(any::<u8>(), 0..20),
    ]
}

/// Two stacks of hostile names, one of them in a module without names.
fn recording_with(function: &str, file: &[u8], path: &[u8], comm: &str) -> Recording {
    let mut names = Names::default();
    names.insert(ModuleId(0), FileVaddr(0x1010), [name(function, file, 7, false)].as_slice().into());
    names.insert(ModuleId(0), FileVaddr(0x1020), [name("main", b"main.c", 1, false)].as_slice().into());
    let mut stacks = vec![
        stack(0, vec![frame(0, 0x1010), frame(0, 0x1020)], StackEnd::Root, totals((123, 1), (123, 1), (246, 2))),
        stack(1, vec![frame(1, 0x1f30), frame(0, 0x1010)], StackEnd::NoRow, totals((77, 7), (77, 7), (77, 7))),
    ];
    for stats in &mut stacks {
        Arc::make_mut(&mut stats.stack).thread = Some(Tid(9));
    }
    let modules = vec![module(0, b"/srv/app", None), module(1, path, None)];
    let mut recording = recording_of(modules, stacks, names);
    recording.threads.insert(Tid(9), comm.to_owned());
    for info in &mut recording.snapshots {
        comm.clone_into(&mut info.target.comm);
        info.meta.label = Some(function.to_owned());
        info.notes.push(comm.to_owned());
    }
    comm.clone_into(&mut recording.session.target.comm);
    recording.session.command = vec![function.to_owned()];
    comm.clone_into(&mut recording.session.host);
    recording.problems.push(function.to_owned());
    let mark = tracer_user::recording::Mark { at: std::time::Duration::from_millis(1), text: function.to_owned() };
    recording.marks.push(mark);
    recording
}

/// No byte of a text format that a terminal would obey, or that reorders or hides text.
fn assert_harmless(format: Format, bytes: &[u8]) {
    let text = std::str::from_utf8(bytes).expect("exports are UTF-8");
    let hazard = text.chars().find(|&c| {
        (c.is_control() && c != '\n')
            || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}')
    });
    // inferno's own script and style are indented by tabs.
    let hazard = hazard.filter(|&c| !(format == Format::Flamegraph && c == '\t'));
    assert_eq!(hazard, None, "{}", format.name());
}

fn assert_folded(recording: &Recording, key: Key) {
    let folded = text(recording, Format::Folded, &by(key));
    let mut sum = 0;
    for line in folded.lines() {
        let (stack, count) = line.rsplit_once(' ').expect("two columns");
        sum += count.parse::<u64>().expect("a count");
        assert!(stack.split(';').all(|frame| !frame.is_empty()), "{line}");
        let last = stack.rsplit(' ').next().expect("a word");
        assert!(
            !stack.contains(' ') || last.is_empty() || last.bytes().any(|byte| !byte.is_ascii_digit() && byte != b'.'),
            "{line}"
        );
    }
    assert_eq!(sum, 200, "{folded}");
    assert!(folded.lines().count() <= 2, "{folded}");
    // Each stack's depth is that of the recording: no name is two frames, none is lost.
    if key == Key::Function {
        let depths: Vec<usize> = folded.lines().map(|line| line.split(';').count()).collect();
        assert!(depths == [3, 2] || depths == [2, 3], "{folded}");
    }
}

/// The cells of the only table, and that nothing else of Markdown came to be.
fn assert_markdown(markdown: &str) {
    let mut n_cells = Vec::new();
    for event in Parser::new_ext(markdown, Options::ENABLE_TABLES) {
        match event {
            Event::Start(Tag::TableRow | Tag::TableHead) => n_cells.push(0),
            Event::End(TagEnd::TableCell) => *n_cells.last_mut().expect("within a row") += 1,
            Event::Start(Tag::Table(_) | Tag::TableCell | Tag::Paragraph | Tag::Heading { .. })
            | Event::End(
                TagEnd::Table | TagEnd::TableRow | TagEnd::TableHead | TagEnd::Paragraph | TagEnd::Heading(_),
            )
            | Event::Text(_)
            | Event::Code(_)
            | Event::SoftBreak => {}
            Event::InlineHtml(html) => assert!(matches!(&*html, "<code>" | "</code>"), "{html}\n{markdown}"),
            other => panic!("{other:?}\n{markdown}"),
        }
    }
    assert!(n_cells.len() >= 2 && n_cells.iter().all(|n| *n == 5), "{n_cells:?}\n{markdown}");
    assert_eq!(markdown.lines().filter(|line| line.starts_with('|')).count(), n_cells.len() + 1, "{markdown}");
}

fn assert_csv(table: &str) {
    let mut reader = csv::Reader::from_reader(table.as_bytes());
    let rows: Vec<csv::StringRecord> = reader.records().collect::<Result<_, _>>().expect("equally long rows");
    assert!((1..=2).contains(&rows.len()), "{table}");
    assert_eq!(table.lines().count(), rows.len() + 1, "{table}");
    for cell in rows.iter().flatten() {
        assert!(!cell.starts_with(['=', '+', '-', '@', '\t', '\r']), "{cell}");
    }
    let sum: u64 = rows.iter().map(|row| row[5].parse::<u64>().expect("a number")).sum();
    assert_eq!(sum, 200);
}

fn check_all(recording: &Recording) {
    for format in Format::ALL.into_iter().filter(|format| !format.is_binary()) {
        let bytes = export(recording, format, &ReportOptions::default(), false);
        assert_harmless(format, &bytes);
        let is_json = matches!(format, Format::Json | Format::Firefox | Format::ChromeTrace | Format::Speedscope);
        if is_json {
            serde_json::from_slice::<Value>(&bytes).unwrap_or_else(|error| panic!("{}: {error}", format.name()));
        }
    }
    for key in [Key::Lineno, Key::Filename, Key::Function, Key::Module, Key::Thread] {
        assert_folded(recording, key);
    }
    programs::assert_svg(&export(recording, Format::Flamegraph, &ReportOptions::default(), true));
    assert_markdown(&text(recording, Format::Markdown, &ReportOptions::default()));
    assert_csv(&text(recording, Format::Csv, &ReportOptions::default()));
    assert!(!programs::gunzip(&export(recording, Format::Pprof, &ReportOptions::default(), false)).is_empty());
    let summary = text(recording, Format::Heaptrack, &ReportOptions::default());
    assert_eq!(summary.lines().filter(|line| line.starts_with("total memory leaked: ")).count(), 1, "{summary}");
}

proptest! {
    #[test]
    fn nothing_breaks_out_of_any_format(
        function in hostile(), file in hostile_path(), path in hostile_path(), comm in hostile(),
    ) {
        check_all(&recording_with(&function, &file, &path, &comm));
    }
}

#[test]
fn every_hostile_name_alone_stays_in_its_field() {
    for text in HOSTILE {
        check_all(&recording_with(text, text.as_bytes(), text.as_bytes(), text));
    }
}

#[test]
fn readers_of_others_take_hostile_names_as_names() {
    let dir = TempDir::new().expect("a folder for tests");
    let all = HOSTILE.concat();
    let recording = recording_with(&all, all.as_bytes(), b"/opt/<b>\xff\"&;.so", "</script>");
    let dom = programs::browse(dir.path(), &export(&recording, Format::Flamegraph, &ReportOptions::default(), false));
    assert_eq!(dom.matches("<script").count(), 1, "only inferno's own");
    assert!(!dom.contains("parsererror") && dom.contains("&lt;script&gt;alert(1)&lt;/script&gt;"), "{dom}");

    let path = dir.path().join("hostile.speedscope.json");
    fs::write(&path, export(&recording, Format::Speedscope, &ReportOptions::default(), false)).expect("there is room");
    programs::assert_schema(&path);

    let raw =
        programs::pprof(dir.path(), &export(&recording, Format::Pprof, &ReportOptions::default(), false), &["-raw"]);
    assert!(raw.contains("<b>\\xff\"&;.so"), "{raw}");
    assert!(raw.chars().all(|c| !c.is_control() || matches!(c, '\n' | '\t')), "{raw}");
}
