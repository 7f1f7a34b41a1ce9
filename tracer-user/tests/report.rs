//! Reports are functions of a snapshot: golden files for their form, properties for their sums, order and safety.
//!
//! `UPDATE_EXPECT=1 cargo test` rewrites the golden files.

use std::{collections::BTreeMap, path::Path, sync::Arc, time::Duration};

use proptest::prelude::*;
use tracer_common::{
    abi::StackEnd,
    addr::{FileVaddr, FrameAddr, UserAddr},
    counters::Counter,
};
use tracer_user::{
    analysis::statistics::{Statistics, statistics},
    options::{Key, ReportOptions, Sort},
    report::{json, text},
    snapshot::{
        Counters, Frame, Module, ModuleId, ModuleKind, Overhead, Snapshot, Stack, StackId, StackStats, TargetInfo,
        Totals,
    },
    symbolize::{Attribution, FrameName, Names, NoSymbol},
};

const KEYS: [Key; 5] = [Key::Lineno, Key::Filename, Key::Function, Key::Module, Key::Traceback];
const SORTS: [Sort; 4] = [Sort::Size, Sort::Count, Sort::Peak, Sort::Allocated];

/// Run-time address minus file vaddr of the n-th module in these tests.
const fn bias(module: u32) -> u64 {
    0x7f00_0000_0000 + ((module as u64) << 32)
}

fn module(kind: ModuleKind, path: &str) -> Arc<Module> {
    Arc::new(Module {
        kind,
        path: path.into(),
        open_path: path.into(),
        deleted: false,
        build_id: None,
        mappings: Vec::new(),
    })
}

/// A frame whose names are looked up at `vaddr`.
fn frame(module: u32, vaddr: u64) -> Frame {
    Frame {
        addr: FrameAddr::Return(UserAddr(bias(module) + vaddr + 1)),
        location: Some((ModuleId(module), FileVaddr(vaddr))),
    }
}

fn name(function: &str, file: &str, line: u32, inlined: bool) -> FrameName {
    FrameName {
        function: Ok(function.into()),
        file: Some(Arc::from(Path::new(file))),
        line: (line > 0).then_some(line),
        inlined,
    }
}

fn totals(current: (u64, u64), peak: (u64, u64), allocated: (u64, u64)) -> Totals {
    Totals {
        current_bytes: current.0,
        current_count: current.1,
        peak_bytes: peak.0,
        peak_count: peak.1,
        allocated_bytes: allocated.0,
        allocated_count: allocated.1,
        freed_bytes: allocated.0 - current.0,
        freed_count: allocated.1 - current.1,
        ..Totals::default()
    }
}

fn stack(id: u32, frames: Vec<Frame>, end: StackEnd, totals: Totals) -> StackStats {
    StackStats { id: StackId(id), stack: Arc::new(Stack { frames, end, ..Stack::default() }), totals }
}

const IMGSRV: u32 = 0;
const LIBC: u32 = 1;
const LIBFOO: u32 = 2;
const JIT: u32 = 3;

/// The image server of the issue, with one stack of each kind that a report treats on its own.
fn imgsrv() -> (Snapshot, Names) {
    let mut names = Names::default();
    let mut put = |module, vaddr, found: &[FrameName]| names.insert(ModuleId(module), FileVaddr(vaddr), found.into());
    put(IMGSRV, 0x10, &[name("cache_add", "/home/u/imgsrv/src/cache.c", 42, false)]);
    put(
        IMGSRV,
        0x20,
        &[
            name("decode", "/home/u/imgsrv/src/image.c", 101, true),
            name("handle", "/home/u/imgsrv/src/main.c", 88, false),
        ],
    );
    put(IMGSRV, 0x30, &[name("main", "/home/u/imgsrv/src/main.c", 120, false)]);
    put(IMGSRV, 0x40, &[name("xmalloc", "/home/u/imgsrv/src/util.c", 7, false)]);
    put(IMGSRV, 0x50, &[FrameName { file: None, line: None, ..name("main.cold", "-", 0, false) }]);
    put(LIBC, 0x100, &[name("_IO_file_doallocate", "./libio/filedoalloc.c", 101, false)]);
    put(LIBC, 0x200, &[name("__libc_start_call_main", "../sysdeps/nptl/libc_start_call_main.h", 58, false)]);
    put(LIBFOO, 0x1f30, &[FrameName::unknown(NoSymbol::Stripped)]);
    put(JIT, 0x7000, &[FrameName::unknown(NoSymbol::GeneratedCode)]);

    let main = [frame(IMGSRV, 0x30), frame(LIBC, 0x200)];
    let below_main = |frames: &[Frame]| frames.iter().chain(&main).copied().collect::<Vec<_>>();
    let stacks = vec![
        stack(0, vec![], StackEnd::Root, totals((300, 3), (300, 3), (300, 3))),
        stack(
            1,
            below_main(&[frame(IMGSRV, 0x10), frame(IMGSRV, 0x20)]),
            StackEnd::Root,
            totals((15_000_000, 94_000), (22_000_000, 130_000), (900_000_000, 1_000_000)),
        ),
        // The same line by way of a wrapper.
        stack(
            2,
            below_main(&[frame(IMGSRV, 0x40), frame(IMGSRV, 0x10), frame(IMGSRV, 0x20)]),
            StackEnd::Root,
            totals((938_355, 6000), (1_000_000, 6500), (200_000_000, 200_000)),
        ),
        stack(3, below_main(&[frame(LIBFOO, 0x1f30)]), StackEnd::Root, totals((4096, 1), (8192, 2), (12_288, 3))),
        stack(4, vec![frame(JIT, 0x7000)], StackEnd::NoRow, totals((1000, 10), (0, 0), (1000, 10))),
        stack(5, vec![frame(LIBC, 0x100)], StackEnd::NoMapping, totals((1024, 1), (1024, 1), (1024, 1))),
        stack(6, below_main(&[frame(IMGSRV, 0x50)]), StackEnd::Root, totals((0, 0), (2048, 2), (50_000, 100))),
        stack(
            7,
            vec![Frame { addr: FrameAddr::Return(UserAddr(0xdead_beef)), location: None }, frame(IMGSRV, 0x20)],
            StackEnd::NoProgress,
            totals((64, 1), (64, 1), (64, 1)),
        ),
        // Differs from stack 1 in its id only.
        stack(
            8,
            below_main(&[frame(IMGSRV, 0x10), frame(IMGSRV, 0x20)]),
            StackEnd::Root,
            totals((0, 0), (0, 0), (160, 1)),
        ),
    ];
    let mut sum = Totals::default();
    for stack in &stacks {
        sum.add(&stack.totals);
    }
    let counters = BTreeMap::from([
        (Counter::HitsEntry, 1_203_441),
        (Counter::HitsReturn, 1_203_441),
        (Counter::HitsFree, 1_103_399),
        (Counter::Unwound, 1_203_441),
    ]);
    let snapshot = Snapshot {
        target: TargetInfo {
            pid: 4711,
            comm: "imgsrv".into(),
            exe: Some("/home/u/imgsrv/imgsrv".into()),
            running: true,
        },
        duration: Duration::from_millis(12_400),
        from_start: false,
        totals: sum,
        counters: Counters(counters),
        overhead: Overhead {
            hits: 3_510_281,
            hits_per_second: 283_087.2,
            estimated_share: Some(0.031),
            kernel_map_bytes: 50_331_648,
            rss_bytes: 32_715_571,
        },
        modules: vec![
            module(ModuleKind::File, "/home/u/imgsrv/imgsrv"),
            module(ModuleKind::File, "/usr/lib/x86_64-linux-gnu/libc.so.6"),
            module(ModuleKind::File, "/opt/foo/libfoo.so"),
            module(ModuleKind::Generated, ""),
        ],
        stacks,
        ..Snapshot::default()
    };
    (snapshot, names)
}

fn attribution() -> Attribution {
    Attribution::new(&[], false).expect("no patterns of a user")
}

fn with_statistics<R>(
    snapshot: &Snapshot,
    names: &Names,
    options: &ReportOptions,
    use_it: impl FnOnce(&Statistics<'_>) -> R,
) -> R {
    let attribution = Attribution::new(&options.plumbing, options.raw_leaf).expect("patterns of these tests are globs");
    use_it(&statistics(snapshot, names, &attribution, options))
}

fn text_of(snapshot: &Snapshot, names: &Names, options: &ReportOptions, quiet: bool) -> String {
    with_statistics(snapshot, names, options, |lines| text::render(snapshot, lines, options, quiet))
}

fn json_of(snapshot: &Snapshot, names: &Names, options: &ReportOptions) -> String {
    with_statistics(snapshot, names, options, |lines| json::render(snapshot, lines))
}

fn by(key: Key) -> ReportOptions {
    ReportOptions { key, ..ReportOptions::default() }
}

#[track_caller]
fn expect_golden(file: &str, found: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(file);
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        std::fs::write(&path, found).expect("the golden folder can be written");
        return;
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(expected == found, "{file} differs (UPDATE_EXPECT=1 rewrites it); found:\n{found}\nexpected:\n{expected}");
}

/// Breaks compact JSON into lines, so that a golden file shows what changed. Keeps the order of keys.
fn indented(json: &str) -> String {
    let (mut out, mut depth, mut in_text, mut escaped) = (String::new(), 0_usize, false, false);
    for c in json.chars() {
        if in_text {
            in_text = escaped || c != '"';
            escaped = !escaped && c == '\\';
            out.push(c);
            continue;
        }
        match c {
            '{' | '[' => depth += 1,
            '}' | ']' => depth -= 1,
            _ => {}
        }
        let new_line = format!("\n{}", "  ".repeat(depth));
        match c {
            '{' | '[' | ',' => out.extend([c.to_string(), new_line]),
            '}' | ']' => out.extend([new_line, c.to_string()]),
            '"' => {
                in_text = true;
                out.push(c);
            }
            c => out.push(c),
        }
    }
    out
}

#[test]
fn the_report_has_the_form_of_tracemalloc() {
    let (snapshot, names) = imgsrv();
    expect_golden("lineno.txt", &text_of(&snapshot, &names, &by(Key::Lineno), false));
}

#[test]
fn each_key_has_its_label() {
    let (snapshot, names) = imgsrv();
    expect_golden("filename.txt", &text_of(&snapshot, &names, &by(Key::Filename), false));
    expect_golden("function.txt", &text_of(&snapshot, &names, &by(Key::Function), false));
    expect_golden("module.txt", &text_of(&snapshot, &names, &by(Key::Module), false));
}

#[test]
fn tracebacks_show_every_inlined_function_and_why_they_end() {
    let (snapshot, names) = imgsrv();
    expect_golden("traceback.txt", &text_of(&snapshot, &names, &by(Key::Traceback), false));
}

#[test]
fn frames_below_the_depth_asked_for_are_counted() {
    let (snapshot, names) = imgsrv();
    let options = ReportOptions { depth: 2, top: 1, ..by(Key::Traceback) };
    expect_golden("depth.txt", &text_of(&snapshot, &names, &options, false));
}

#[test]
fn what_is_not_shown_is_summed_up() {
    let (snapshot, names) = imgsrv();
    let options = ReportOptions { top: 2, min_size: 500, ..ReportOptions::default() };
    expect_golden("rest.txt", &text_of(&snapshot, &names, &options, false));
}

#[test]
fn the_sorts_own_figure_stands_in_each_line() {
    let (snapshot, names) = imgsrv();
    let sorted = |sort| ReportOptions { sort, top: 3, ..ReportOptions::default() };
    expect_golden("peak.txt", &text_of(&snapshot, &names, &sorted(Sort::Peak), false));
    expect_golden("allocated.txt", &text_of(&snapshot, &names, &sorted(Sort::Allocated), false));
}

#[test]
fn raw_leaf_and_plumbing_move_the_site() {
    let (snapshot, names) = imgsrv();
    let raw = ReportOptions { raw_leaf: true, ..ReportOptions::default() };
    expect_golden("raw_leaf.txt", &text_of(&snapshot, &names, &raw, false));
    let plumbing = ReportOptions { plumbing: vec!["cache_*".into()], ..ReportOptions::default() };
    expect_golden("plumbing.txt", &text_of(&snapshot, &names, &plumbing, false));
}

/// `imgsrv` with every counter set to another number.
fn with_losses() -> (Snapshot, Names) {
    let (mut snapshot, names) = imgsrv();
    snapshot.counters.0 = Counter::ALL.iter().zip((1..).map(|n| n * 1001)).map(|(&c, n)| (c, n)).collect();
    snapshot.counters.0.insert(Counter::Unwound, 1_203_441);
    snapshot.notes = vec!["libfoo.so: 3 broken unwind entries".into()];
    (snapshot, names)
}

#[test]
fn what_is_lost_stands_in_the_first_line_with_its_amount() {
    let (snapshot, names) = with_losses();
    let options = ReportOptions { top: 1, ..ReportOptions::default() };
    expect_golden("losses.txt", &text_of(&snapshot, &names, &options, false));
}

/// The first line of a report without details.
fn first_line(snapshot: &Snapshot, names: &Names) -> String {
    let report = text_of(snapshot, names, &ReportOptions::default(), true);
    report.lines().next().expect("a report has a header").to_owned()
}

/// glibc gives back the cache of a thread that ends through `free`, each block of it a second time.
#[test]
fn a_free_of_an_unknown_block_is_told_and_no_loss() {
    let (mut snapshot, names) = imgsrv();
    snapshot.counters.0.insert(Counter::FreesUnknown, 1);
    for from_start in [false, true] {
        snapshot.from_start = from_start;
        assert!(first_line(&snapshot, &names).ends_with("  nothing lost"));
        let report = text_of(&snapshot, &names, &ReportOptions::default(), false);
        assert!(report.contains("\nalso seen: 1 free of blocks that the trace does not know"), "{report}");
    }
}

#[test]
fn an_unknown_block_that_is_resized_is_a_loss_only_when_all_blocks_were_seen() {
    let (mut snapshot, names) = imgsrv();
    snapshot.counters.0.insert(Counter::ReallocsUnknown, 12);
    assert!(first_line(&snapshot, &names).ends_with("  nothing lost"));
    snapshot.from_start = true;
    assert!(first_line(&snapshot, &names).contains("  LOST: 12 reallocations of blocks"));
}

#[test]
fn pauses_and_what_a_recording_lacks_are_losses() {
    let (mut snapshot, names) = imgsrv();
    let pause = |from, to| Duration::from_millis(from)..Duration::from_millis(to);
    snapshot.pauses = vec![pause(1000, 2500)];
    assert!(first_line(&snapshot, &names).ends_with("  LOST: what happened in a pause of 1.5 s"));
    snapshot.pauses.push(pause(4000, 4250));
    snapshot.is_cut = true;
    assert!(first_line(&snapshot, &names).ends_with(
        "  LOST: what happened in 2 pauses of 1.8 s together; what came after this snapshot, for the recording is not whole"
    ));
}

#[test]
fn a_quiet_report_has_no_details_but_its_losses() {
    let (snapshot, names) = with_losses();
    let options = ReportOptions { top: 1, ..ReportOptions::default() };
    expect_golden("quiet.txt", &text_of(&snapshot, &names, &options, true));
}

#[test]
fn a_target_without_blocks_is_reported() {
    let (mut snapshot, names) = imgsrv();
    snapshot.stacks.clear();
    snapshot.totals = Totals::default();
    snapshot.target.running = false;
    expect_golden("empty.txt", &text_of(&snapshot, &names, &ReportOptions::default(), false));
}

#[test]
fn hostile_names_stay_in_their_line() {
    let (mut snapshot, mut names) = imgsrv();
    let bad = "a\n#1 fake: size=1 B\x1b[2J\u{202e}\u{9b}\0\"\\";
    snapshot.target.comm = bad.into();
    snapshot.notes = vec![bad.into()];
    snapshot.modules = (0..4).map(|_| module(ModuleKind::File, &format!("/x/{bad}"))).collect();
    names.insert(
        ModuleId(IMGSRV),
        FileVaddr(0x10),
        [name(bad, &format!("/s/{bad}/{bad}.c"), 1, false)].as_slice().into(),
    );
    for key in [Key::Lineno, Key::Traceback] {
        let options = ReportOptions { top: 3, ..by(key) };
        expect_golden(&format!("hostile_{key:?}.txt").to_lowercase(), &text_of(&snapshot, &names, &options, false));
    }
    expect_golden("hostile.json", &indented(&json_of(&snapshot, &names, &ReportOptions::default())));
}

#[test]
fn json_has_every_line_counter_and_frame() {
    let (snapshot, names) = with_losses();
    let options = ReportOptions { top: 1, depth: 1, ..ReportOptions::default() };
    expect_golden("lineno.json", &indented(&json_of(&snapshot, &names, &options)));
    expect_golden("module.json", &indented(&json_of(&snapshot, &names, &by(Key::Module))));
}

#[test]
fn docs_name_every_json_field() {
    let docs = include_str!("../../docs/json.md");
    let (snapshot, names) = with_losses();
    let report: serde_json::Value =
        serde_json::from_str(&json_of(&snapshot, &names, &by(Key::Traceback))).expect("JSON");
    let mut fields = Vec::new();
    collect_fields(&report, &mut fields);
    for field in fields {
        assert!(docs.contains(&format!("`{field}`")), "docs/json.md does not describe `{field}`");
    }
    for &counter in Counter::ALL {
        let row = format!("| `{}` | {} |", counter.name(), counter.sentence());
        assert!(docs.contains(&row), "docs/json.md lacks the row\n{row}");
    }
}

fn collect_fields(value: &serde_json::Value, fields: &mut Vec<String>) {
    match value {
        serde_json::Value::Object(object) => {
            for (field, value) in object {
                fields.push(field.clone());
                collect_fields(value, fields);
            }
        }
        serde_json::Value::Array(values) => values.iter().for_each(|value| collect_fields(value, fields)),
        _ => {}
    }
}

#[test]
fn stacks_that_differ_in_their_id_only_are_one_traceback() {
    let (snapshot, names) = imgsrv();
    with_statistics(&snapshot, &names, &by(Key::Traceback), |lines| {
        let merged = lines.lines.iter().find(|line| line.largest.id == StackId(1)).expect("stack 1 is a line");
        assert_eq!((merged.n_stacks, merged.totals.allocated_count), (2, 1_000_001));
        assert_eq!(lines.lines.len(), snapshot.stacks.len() - 1);
    });
}

// Properties.

fn any_text() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-z_:<> ]{0,12}",
        any::<String>(),
        Just("operator new(unsigned long)".to_owned()),
        Just("\x1b]0;owned\x07\r\n\u{2066}".to_owned()),
    ]
}

fn any_name() -> impl Strategy<Value = FrameName> {
    let function = prop_oneof![
        3 => any_text().prop_map(|text| Ok(Arc::from(text.as_str()))),
        1 => any_text().prop_map(|text| Err(NoSymbol::FileUnreadable(text.as_str().into()))),
        1 => Just(Err(NoSymbol::Stripped)),
    ];
    let file = proptest::option::of(any_text().prop_map(|text| Arc::from(Path::new(&text))));
    (function, file, proptest::option::of(0..50_u32), any::<bool>())
        .prop_map(|(function, file, line, inlined)| FrameName { function, file, line, inlined })
}

fn any_frame() -> impl Strategy<Value = Frame> {
    prop_oneof![
        8 => (0..5_u32, 0..8_u64).prop_map(|(module, vaddr)| frame(module, vaddr)),
        1 => (0..3_u64).prop_map(|addr| Frame { addr: FrameAddr::Exact(UserAddr(addr)), location: None }),
    ]
}

fn any_end() -> impl Strategy<Value = StackEnd> {
    (0..8_u8).prop_map(StackEnd::from_u8)
}

fn any_totals() -> impl Strategy<Value = Totals> {
    // Few distinct values, so that equal lines are frequent.
    let pair = || (0..4_u64, 0..3_u64);
    (pair(), pair(), pair()).prop_map(|(current, peak, more)| {
        totals((current.0 * 7777, current.1), (peak.0 * 999, peak.1), (current.0 * 7777 + more.0, current.1 + more.1))
    })
}

prop_compose! {
    fn any_snapshot()(
        names in proptest::collection::vec(
            ((0..4_u32, 0..8_u64), proptest::collection::vec(any_name(), 0..3)), 0..30),
        paths in proptest::collection::vec(any_text(), 4),
        stacks in proptest::collection::vec(
            (proptest::collection::vec(any_frame(), 0..6), any_end(), any_totals()), 0..30),
        comm in any_text(),
    ) -> (Snapshot, Names) {
        let (mut snapshot, _) = imgsrv();
        snapshot.target.comm = comm;
        snapshot.modules = paths.iter().map(|path| module(ModuleKind::File, path)).collect();
        snapshot.stacks = (0..).zip(stacks).map(|(id, (frames, end, totals))| stack(id, frames, end, totals)).collect();
        let mut table = Names::default();
        for ((module, vaddr), names) in names {
            table.insert(ModuleId(module), FileVaddr(vaddr), names.into());
        }
        (snapshot, table)
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn lines_sum_to_the_totals_whatever_they_stand_for(
        (snapshot, names) in any_snapshot(), min_size in 0..20_000_u64, raw_leaf in any::<bool>(),
    ) {
        let mut expected = Totals::default();
        for stack in &snapshot.stacks {
            expected.add(&stack.totals);
        }
        for (key, sort) in KEYS.into_iter().flat_map(|key| SORTS.map(|sort| (key, sort))) {
            let options = ReportOptions { key, sort, min_size, raw_leaf, ..ReportOptions::default() };
            let (sum, n_stacks, ordered) = with_statistics(&snapshot, &names, &options, |found| {
                let mut sum = found.left_out.totals;
                for line in &found.lines {
                    sum.add(&line.totals);
                }
                let ordered = found.lines.is_sorted_by_key(|line| std::cmp::Reverse(sort.value(options.view, &line.totals)));
                (sum, found.lines.iter().map(|line| line.n_stacks).sum::<usize>(), ordered)
            });
            // Of what is asked for: a line that holds nothing of it is in no rest.
            let asked_for = |totals: &Totals| (options.view.size(totals), options.view.count(totals), sort.value(options.view, totals));
            prop_assert_eq!(asked_for(&sum), asked_for(&expected));
            prop_assert!(ordered);
            prop_assert!(min_size > 0 || n_stacks == snapshot.stacks.len());
        }
    }

    #[test]
    fn a_report_does_not_depend_on_the_order_of_stacks((snapshot, names) in any_snapshot(), seed in any::<u64>()) {
        let mut shuffled = snapshot.clone();
        shuffled.stacks.sort_by_key(|stack| (u64::from(stack.id.0) + 1).wrapping_mul(seed | 1));
        for key in KEYS {
            prop_assert_eq!(json_of(&snapshot, &names, &by(key)), json_of(&shuffled, &names, &by(key)));
        }
    }

    #[test]
    fn no_name_breaks_a_line_or_the_json((snapshot, names) in any_snapshot()) {
        for key in KEYS {
            let options = ReportOptions { depth: 100, top: 100, ..by(key) };
            let text = text_of(&snapshot, &names, &options, false);
            prop_assert!(!text.chars().any(|c| c != '\n' && c.is_control()), "{text:?}");
            for line in text.lines().skip(2) {
                let known = ["#", "    ", "... ", "no blocks"].iter().any(|start| line.starts_with(start));
                prop_assert!(known, "{line:?}");
            }
            let json = json_of(&snapshot, &names, &options);
            prop_assert_eq!(json.lines().count(), 1);
            let bare = json.trim_end().chars().any(|c| c.is_control() || c == '\u{2066}');
            prop_assert!(!bare, "{json:?}");
            let parsed: serde_json::Value = serde_json::from_str(&json).expect("JSON");
            prop_assert_eq!(parsed["target"]["comm"].as_str(), Some(&*snapshot.target.comm));
        }
    }
}

#[test]
fn a_limit_is_named_and_counts_only_lines_that_there_would_be() {
    let (snapshot, names) = imgsrv();
    let last = |options: &ReportOptions| {
        let text = text_of(&snapshot, &names, options, false);
        text.lines().last().expect("a rest").to_owned()
    };
    // A seventh line has nothing live.
    assert_eq!(
        last(&ReportOptions { min_size: 2000, ..ReportOptions::default() }),
        "... 4 more lines (left out by --min-size): size=2388 B, count=15"
    );
    assert_eq!(
        last(&ReportOptions { min_size: 2000, top: 1, ..ReportOptions::default() }),
        "... 5 more lines (4 left out by --min-size): size=6484 B, count=16"
    );
    let mut all_freed = snapshot.clone();
    for stack in &mut all_freed.stacks {
        (stack.totals.current_bytes, stack.totals.current_count) = (0, 0);
    }
    let options = ReportOptions { min_size: 5, ..ReportOptions::default() };
    assert_eq!(text_of(&all_freed, &names, &options, true).lines().last(), Some("no blocks"));
}

#[test]
fn an_order_leaves_no_line_out() {
    let (snapshot, names) = imgsrv();
    for sort in SORTS {
        let text = text_of(&snapshot, &names, &ReportOptions { sort, top: 100, ..ReportOptions::default() }, false);
        // Live, though not at the peak.
        assert!(text.contains("size=1000 B, count=10"), "{text}");
    }
}

#[test]
fn every_stack_of_a_large_snapshot_is_counted_once() {
    let (snapshot, names) = large(5000, 20);
    let options = by(Key::Lineno);
    with_statistics(&snapshot, &names, &options, |found| {
        assert_eq!(found.lines.iter().map(|line| line.n_stacks).sum::<usize>(), 5000);
    });
}

/// `n` distinct stacks of `depth` frames over 20 000 distinct addresses.
fn large(n: u32, depth: u64) -> (Snapshot, Names) {
    const N_ADDRESSES: u64 = 20_000;
    let (mut snapshot, _) = imgsrv();
    let mut names = Names::default();
    for vaddr in 0..N_ADDRESSES {
        let function = format!("app::module_{}::Type<T>::function_{vaddr}", vaddr % 97);
        let file = format!("/home/u/app/src/module_{}/file_{}.rs", vaddr % 97, vaddr % 997);
        let found = [
            name("alloc::vec::Vec<T,A>::push", "/rustc/0/library/alloc/src/vec/mod.rs", 1999, true),
            name(&function, &file, vaddr as u32 % 2000 + 1, false),
        ];
        names.insert(ModuleId(IMGSRV), FileVaddr(vaddr), found.as_slice().into());
    }
    snapshot.stacks = (0..n)
        .map(|id| {
            let mut state = u64::from(id) * 2 + 1;
            let frames = (0..depth)
                .map(|_| {
                    state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                    frame(IMGSRV, (state >> 33) % N_ADDRESSES)
                })
                .collect();
            let size = u64::from(id % 1000) * 16;
            stack(id + 1, frames, StackEnd::Root, totals((size, 1), (size, 1), (size, 1)))
        })
        .collect();
    (snapshot, names)
}

#[test]
#[ignore = "measures; run with --release -- --ignored --nocapture"]
fn measure_50_000_stacks() {
    let (snapshot, names) = large(50_000, 30);
    let attribution = attribution();
    let cumulative = KEYS[..4].iter().map(|&key| ReportOptions { cumulative: true, ..by(key) });
    for options in KEYS.into_iter().map(by).chain(cumulative) {
        let start = std::time::Instant::now();
        let found = statistics(&snapshot, &names, &attribution, &options);
        let grouped = start.elapsed();
        let start = std::time::Instant::now();
        let text = text::render(&snapshot, &found, &options, false);
        let (printed, start) = (start.elapsed(), std::time::Instant::now());
        let json = json::render(&snapshot, &found);
        println!(
            "{:?} {}: {} lines in {grouped:.1?}, text ({} B) {:.1?}, JSON ({} MiB) {:.1?}",
            options.key,
            if options.cumulative { "cumulative" } else { "of sites" },
            found.lines.len(),
            text.len(),
            printed,
            json.len() >> 20,
            start.elapsed()
        );
    }
}
