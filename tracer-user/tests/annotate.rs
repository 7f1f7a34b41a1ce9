//! A source with the memory of each line, from recordings made in memory.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use tracer_common::addr::{FileVaddr, FrameAddr, UserAddr};
use tracer_user::{
    analysis::annotate::{Annotation, Increment, NoFile, annotate, find_file},
    options::ReportOptions,
    report::annotate::{AnnotateLayout, render},
    snapshot::{Frame, ModuleId, Snapshot, Stack, StackId, StackStats, TargetInfo, Totals},
    symbolize::{Attribution, FrameName, Names},
};

/// Frames of a stack, innermost first, as (file, line).
type Frames<'a> = &'a [(&'a str, u32)];

/// A snapshot of stacks with their live bytes; two snapshots made with one `Names` share addresses.
fn snapshot(stacks: &[(Frames<'_>, u64)], names: &mut Names) -> Snapshot {
    let mut all = Totals::default();
    let mut vaddr = 0;
    let mut stats = Vec::new();
    for (id, (frames, bytes)) in (0..).zip(stacks) {
        let mut stack = Vec::new();
        for (file, line) in *frames {
            vaddr += 1;
            let name = FrameName {
                function: Ok("f".into()),
                file: Some(Arc::from(Path::new(file))),
                line: (*line > 0).then_some(*line),
                inlined: false,
            };
            names.insert(ModuleId(0), FileVaddr(vaddr), [name].as_slice().into());
            let addr = FrameAddr::Return(UserAddr(vaddr + 1));
            stack.push(Frame { addr, location: Some((ModuleId(0), FileVaddr(vaddr))) });
        }
        let totals = Totals {
            current_bytes: *bytes,
            current_count: bytes / 100,
            peak_bytes: bytes * 2,
            allocated_bytes: bytes * 3,
            allocated_count: 1,
            ..Totals::default()
        };
        all.add(&totals);
        let stack = Arc::new(Stack { frames: stack, ..Stack::default() });
        stats.push(StackStats { id: StackId(id), stack, totals });
    }
    let target = TargetInfo { pid: 7, comm: "app".into(), ..TargetInfo::default() };
    Snapshot { target, totals: all, stacks: stats, ..Snapshot::default() }
}

const CACHE: &str = "/build/app/src/cache.c";
const MAIN: &str = "/build/app/src/main.c";

fn annotated(before: Option<u64>, cumulative: bool) -> (Annotation, Snapshot) {
    let mut names = Names::default();
    let stacks = |bytes: u64| {
        [(&[(CACHE, 2), (MAIN, 9)][..], bytes), (&[(CACHE, 4), (CACHE, 2)][..], 100), (&[(MAIN, 3)][..], 700)]
    };
    let first = before.map(|bytes| snapshot(&stacks(bytes), &mut names));
    let last = snapshot(&stacks(20_000), &mut names);
    let attribution = Attribution::new(&[], false).expect("no patterns of a user");
    let options = ReportOptions { cumulative, ..ReportOptions::default() };
    (annotate(Path::new(CACHE), &last, first.as_ref(), &names, &attribution, &options), last)
}

const SOURCE: &[u8] = b"int f(void) {\n\tx = malloc(200);\n}\nchar *y = malloc(1); // \x1b[31m\xff\n";

#[test]
fn the_table_is_this_text() {
    let (annotation, snapshot) = annotated(Some(5000), false);
    let text = render(&annotation, &snapshot, "app.mtb @3", SOURCE, &[], AnnotateLayout::default());
    assert_eq!(
        text,
        "\
Filename: /build/app/src/cache.c
Snapshot: app.mtb @3  pid 7 (app)

\x20Line #    Mem usage         Peak     Increment  Occurrences  Line Contents
===========================================================================
\x20     1                                                       int f(void) {
\x20     2     19.5 KiB     39.1 KiB     +14.6 KiB          200      x = malloc(200);
\x20     3                                                       }
\x20     4        100 B        200 B          +0 B            1  char *y = malloc(1); // \\x1b[31m�
"
    );
}

#[test]
fn increments_are_against_the_first_snapshot_or_all_that_was_allocated() {
    let (since_first, _) = annotated(Some(5000), false);
    assert_eq!((since_first.increment, since_first.lines[&2].increment_bytes), (Increment::SinceFirst, 15_000));
    let (shrunk, _) = annotated(Some(90_000), false);
    assert_eq!(shrunk.lines[&2].increment_bytes, -70_000);
    let (alone, _) = annotated(None, false);
    assert_eq!((alone.increment, alone.lines[&2].increment_bytes), (Increment::Allocated, 60_000));
}

#[test]
fn callers_count_when_cumulative_and_a_line_once_a_stack() {
    let (own, _) = annotated(None, false);
    assert_eq!((own.lines[&2].totals.current_bytes, own.lines[&4].totals.current_bytes), (20_000, 100));
    let (all, _) = annotated(None, true);
    assert_eq!((all.lines[&2].totals.current_bytes, all.lines[&4].totals.current_bytes), (20_100, 100));
}

#[test]
fn a_source_that_was_changed_shows_what_stands_beside_no_line() {
    let (annotation, snapshot) = annotated(None, false);
    let text =
        render(&annotation, &snapshot, "app.mtb", b"one\ntwo\n", &["it changed".into()], AnnotateLayout::default());
    assert!(text.contains("note: it changed\n"), "{text}");
    assert!(text.contains("1 lines with 100 B lie beyond the end"), "{text}");
}

#[test]
fn colours_are_only_there_when_asked_for_and_hostile_sources_make_none() {
    let (annotation, snapshot) = annotated(None, false);
    let plain = render(&annotation, &snapshot, "a", SOURCE, &[], AnnotateLayout::default());
    assert!(!plain.contains('\x1b'), "{plain}");
    let layout = AnnotateLayout { colours: true, context: None };
    assert!(render(&annotation, &snapshot, "a", SOURCE, &[], layout).contains("\x1b[1;31m      2"));
}

#[test]
fn context_leaves_out_what_is_far() {
    let (annotation, snapshot) = annotated(None, false);
    let source: Vec<String> = (1..=100).map(|line| format!("line {line}")).collect();
    let source = source.join("\n");
    let layout = AnnotateLayout { colours: false, context: Some(1) };
    let text = render(&annotation, &snapshot, "a", source.as_bytes(), &[], layout);
    let shown: Vec<&str> = text.lines().filter_map(|line| line.split("  line ").nth(1)).collect();
    assert_eq!(shown, ["1", "2", "3", "4", "5"]);
    assert!(text.ends_with("    ...\n"), "{text}");
}

#[test]
fn a_long_line_is_cut() {
    let (annotation, snapshot) = annotated(None, false);
    let text = render(&annotation, &snapshot, "a", &vec![b'x'; 100_000], &[], AnnotateLayout::default());
    assert!(text.lines().all(|line| line.chars().count() < 300) && text.contains("x…"));
}

#[test]
fn a_source_is_found_by_its_path_else_by_the_longest_common_end() {
    let mut names = Names::default();
    let files: Vec<(&str, u32)> = ["/build/a/src/util.c", "/build/b/src/util.c", "lib/list.c", "/usr/src/app/Main.c"]
        .map(|file| (file, 1))
        .to_vec();
    let snapshot = snapshot(&[(&files, 100)], &mut names);
    let find = |source: &str| find_file(&snapshot, &names, Path::new(source));
    assert_eq!(find("/build/a/src/util.c"), Ok(PathBuf::from("/build/a/src/util.c")));
    assert_eq!(find("/home/me/b/src/util.c"), Ok(PathBuf::from("/build/b/src/util.c")));
    assert_eq!(find("list.c"), Ok(PathBuf::from("lib/list.c")));
    assert_eq!(
        find("/home/me/src/util.c"),
        Err(NoFile::Ambiguous(vec!["/build/a/src/util.c".into(), "/build/b/src/util.c".into()]))
    );
    let unknown = find("/home/me/main.c").expect_err("names of files are told apart by case");
    assert!(unknown.to_string().starts_with("no frame lies in it (near: /usr/src/app/Main.c, "), "{unknown}");
    let nothing = find_file(&Snapshot::default(), &names, Path::new("a.c")).expect_err("no frames");
    assert_eq!(nothing.to_string(), "no frame lies in it (no frame has line information)");
}
