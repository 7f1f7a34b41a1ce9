//! Names of real programs, compiled here, with `nm` and `addr2line` as the oracle. Needs gcc, g++, rustc and binutils.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    os::fd::AsRawFd,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
};

use object::Object;
use tempfile::TempDir;
use tracer_common::addr::{FileVaddr, FrameAddr, UserAddr};
use tracer_user::{
    snapshot::{Frame, Module, ModuleId, ModuleKind, Snapshot, Stack, StackId, StackStats, Totals},
    symbolize::{Attribution, FrameName, Names, NoSymbol, SymbolizeOptions, Symbolizer},
};

const C_PROGRAM: &str = r"#include <stdlib.h>
static inline __attribute__((always_inline)) void *inner(size_t n) {
    return malloc(n * 3);
}
static inline __attribute__((always_inline)) void *middle(size_t n) {
    return inner(n + 1);
}
__attribute__((noinline)) void *outer(size_t n) {
    return middle(n * 2);
}
int main(int argc, char **argv) {
    (void)argv;
    free(outer((size_t)argc));
    return 0;
}
";

const CPP_PROGRAM: &str = r"#include <string>
#include <vector>
namespace shop {
struct Row { std::string name; int n; };
__attribute__((noinline)) void fill(std::vector<Row> &rows, int n) {
    for (int i = 0; i < n; i++)
        rows.push_back(Row{std::string(100, 'x'), i});
}
__attribute__((noinline)) int *single(int n) {
    return new int[static_cast<unsigned>(n)];
}
}
int main(int argc, char **) {
    std::vector<shop::Row> rows;
    shop::fill(rows, argc);
    delete[] shop::single(argc);
    return static_cast<int>(rows.size());
}
";

const RUST_PROGRAM: &str = r"
pub struct Cache { rows: Vec<Vec<u8>> }
impl Cache {
    #[inline(never)]
    pub fn add(&mut self, n: usize) {
        self.rows.push(vec![1; n]);
    }
}
fn main() {
    let mut cache = Cache { rows: Vec::new() };
    cache.add(std::env::args().count());
    std::process::exit(cache.rows.len() as i32);
}
";

fn run(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output().unwrap_or_else(|error| panic!("{program}: {error}"));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {args:?}: {stderr}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn text(path: &Path) -> &str {
    path.to_str().expect("temporary paths are UTF-8")
}

/// Compiles `source` in `dir` and gives the program's path.
fn compile(dir: &Path, compiler: &str, source_name: &str, source: &str, args: &[&str]) -> PathBuf {
    let source_path = dir.join(source_name);
    fs::write(&source_path, source).expect("the source can be written");
    let program = dir.join("prog");
    let mut all = vec![text(&source_path), "-o", text(&program)];
    all.extend(args);
    run(compiler, &all);
    program
}

fn compile_c(dir: &Path) -> PathBuf {
    compile(dir, "gcc", "prog.c", C_PROGRAM, &["-g", "-O2", "-Wl,--build-id=sha1"])
}

/// A module whose file is `path`.
fn module(path: &Path) -> Module {
    Module {
        kind: ModuleKind::File,
        path: path.to_path_buf(),
        open_path: path.to_path_buf(),
        deleted: false,
        build_id: None,
        mappings: Vec::new(),
    }
}

/// A snapshot with one stack of one frame for each address.
fn snapshot(module: Module, vaddrs: &[u64]) -> Snapshot {
    let frame =
        |&vaddr| Frame { addr: FrameAddr::Exact(UserAddr(vaddr)), location: Some((ModuleId(0), FileVaddr(vaddr))) };
    let stats = |(id, vaddr)| StackStats {
        id: StackId(id),
        stack: Arc::new(Stack { frames: vec![frame(vaddr)], ..Stack::default() }),
        totals: Totals::default(),
    };
    Snapshot { modules: vec![Arc::new(module)], stacks: (1..).zip(vaddrs).map(stats).collect(), ..Snapshot::default() }
}

/// The names at each of `vaddrs`.
fn names_at(symbolizer: &mut Symbolizer, module: &Module, vaddrs: &[u64]) -> Vec<Arc<[FrameName]>> {
    let snapshot = snapshot(module.clone(), vaddrs);
    let names: Names = symbolizer.resolve(&snapshot, &|_| ());
    snapshot.stacks.iter().map(|stack| Arc::clone(names.of(&stack.stack.frames[0]))).collect()
}

/// Start and end of each function, by its mangled name.
fn functions(program: &Path) -> BTreeMap<String, (u64, u64)> {
    let parse = |hex| u64::from_str_radix(hex, 16).expect("nm prints hexadecimal");
    run("nm", &["-S", "--defined-only", text(program)])
        .lines()
        .filter_map(|line| match line.split_whitespace().collect::<Vec<_>>()[..] {
            [start, size, "t" | "T" | "W", name] => Some((name.to_owned(), (parse(start), parse(start) + parse(size)))),
            _ => None,
        })
        .collect()
}

/// What addr2line says of each address: function and `file:line`, the innermost inlined function first.
fn addr2line(program: &Path, vaddrs: &[u64]) -> Vec<Vec<(String, String)>> {
    let hex: Vec<String> = vaddrs.iter().map(|vaddr| format!("{vaddr:#x}")).collect();
    let mut args = vec!["-a", "-i", "-f", "-C", "-e", text(program)];
    args.extend(hex.iter().map(String::as_str));
    let output = run("addr2line", &args);
    let mut found: Vec<Vec<(String, String)>> = Vec::new();
    let mut lines = output.lines();
    while let Some(line) = lines.next() {
        if line.starts_with("0x") {
            found.push(Vec::new());
            continue;
        }
        let place = lines.next().expect("a place follows each function");
        let place = place.split(" (discriminator").next().unwrap_or(place);
        found.last_mut().expect("an address comes first").push((line.to_owned(), place.to_owned()));
    }
    found
}

/// The names in addr2line's form.
fn as_addr2line(names: &[FrameName]) -> Vec<(String, String)> {
    let place = |name: &FrameName| {
        let file = name.file.as_ref().map_or("??".to_owned(), |file| file.display().to_string());
        format!("{file}:{}", name.line.map_or("?".to_owned(), |line| line.to_string()))
    };
    names.iter().map(|name| (name.function.as_deref().unwrap_or("??").to_owned(), place(name))).collect()
}

#[test]
fn every_address_of_a_c_program_is_named_as_addr2line_does() {
    let dir = TempDir::new().expect("a temporary folder");
    let program = compile_c(dir.path());
    let functions = functions(&program);
    let vaddrs: Vec<u64> = ["outer", "main"].iter().flat_map(|name| functions[*name].0..functions[*name].1).collect();

    let found = names_at(&mut Symbolizer::default(), &module(&program), &vaddrs);

    let expected = addr2line(&program, &vaddrs);
    for ((vaddr, found), expected) in vaddrs.iter().zip(&found).zip(&expected) {
        assert_eq!(&as_addr2line(found), expected, "at {vaddr:#x}");
    }
    let deepest = found.iter().max_by_key(|names| names.len()).expect("there are addresses");
    let flags: Vec<_> = deepest.iter().map(|name| (name.function.as_deref().expect("named"), name.inlined)).collect();
    assert_eq!(flags, [("inner", true), ("middle", true), ("outer", false)]);
}

#[test]
fn cpp_names_are_demangled_and_the_site_is_the_users_line() {
    let dir = TempDir::new().expect("a temporary folder");
    let program = compile(dir.path(), "g++", "prog.cpp", CPP_PROGRAM, &["-g", "-O1"]);
    let functions = functions(&program);
    let (start, end) = functions["_ZN4shop4fillERSt6vectorINS_3RowESaIS1_EEi"];
    let vaddrs: Vec<u64> = (start..end).collect();

    let found = names_at(&mut Symbolizer::default(), &module(&program), &vaddrs);

    let attribution = Attribution::new(&[], false).expect("no patterns of a user");
    let mut through_containers = 0;
    for names in &found {
        let outermost = names.last().expect("never empty");
        let function = outermost.function.as_deref().expect("named");
        assert!(function.starts_with("shop::fill(std::vector<shop::Row"), "{function}");
        let site = attribution.judge(Some(&module(&program)), names).site.expect("the user's function is no plumbing");
        let file = names[site].file.as_deref().expect("compiled with -g");
        assert!(file.ends_with("prog.cpp"), "site {:?} of {names:#?}", names[site]);
        through_containers += usize::from(site > 0);
    }
    assert!(through_containers > 0, "push_back is inlined");

    // Instantiated in the program's own module, and plumbing all the same.
    let mut n_instances = 0;
    for (name, &(start, _)) in functions.iter().filter(|(name, _)| name.starts_with("_ZNSt6vector")) {
        let names = &names_at(&mut Symbolizer::default(), &module(&program), &[start])[0];
        assert_eq!(attribution.judge(Some(&module(&program)), names).site, None, "{name}: {names:#?}");
        n_instances += 1;
    }
    assert!(n_instances > 0, "the vector grows in a function of its own");
}

#[test]
fn rust_names_are_demangled_and_the_site_is_the_users_line() {
    let dir = TempDir::new().expect("a temporary folder");
    let program =
        compile(dir.path(), "rustc", "prog.rs", RUST_PROGRAM, &["-g", "-Copt-level=2", "--crate-name", "prog"]);
    let functions = functions(&program);
    let (_, &(start, end)) = functions.iter().find(|(name, _)| name.contains("Cache3add")).expect("not inlined");
    let vaddrs: Vec<u64> = (start..end).collect();

    let found = names_at(&mut Symbolizer::default(), &module(&program), &vaddrs);

    let attribution = Attribution::new(&[], false).expect("no patterns of a user");
    let mut through_std = 0;
    for names in &found {
        let outermost = names.last().expect("never empty").function.as_deref().expect("named");
        assert_eq!(outermost, "prog::Cache::add");
        let site = attribution.judge(Some(&module(&program)), names).site.expect("the user's function is no plumbing");
        // Code of line 0 has a function only.
        if let Some(file) = &names[site].file {
            assert!(file.ends_with("prog.rs"), "{names:#?}");
            through_std += usize::from(site > 0);
        }
    }
    assert!(through_std > 0, "Vec::push is inlined");
}

#[test]
fn a_stripped_program_says_that_it_has_no_symbols() {
    let dir = TempDir::new().expect("a temporary folder");
    let program = compile_c(dir.path());
    let (start, _) = functions(&program)["outer"];
    run("strip", &[text(&program)]);
    let found = names_at(&mut Symbolizer::default(), &module(&program), &[start]);
    assert_eq!(found[0][..], [FrameName::unknown(NoSymbol::Stripped)]);
    assert_eq!(found[0][0].missing().as_deref(), Some("no symbols"));
}

#[test]
fn without_debug_information_the_symbol_table_names_functions() {
    let dir = TempDir::new().expect("a temporary folder");
    let program = compile_c(dir.path());
    let (start, _) = functions(&program)["outer"];
    run("strip", &["-g", text(&program)]);
    let found = names_at(&mut Symbolizer::default(), &module(&program), &[start, 1]);
    assert_eq!(found[0][0].function.as_deref(), Ok("outer"));
    assert_eq!(found[0][0].missing().as_deref(), Some("no line info"));
    assert_eq!(found[1][..], [FrameName::unknown(NoSymbol::NotCovered)]);
}

/// A stripped program and its debug file, with the innermost names that `outer` must get from it.
struct Split {
    dir: TempDir,
    program: PathBuf,
    debug: PathBuf,
    vaddr: u64,
    expected: Arc<[FrameName]>,
}

fn split(args: &[&str]) -> Split {
    let dir = TempDir::new().expect("a temporary folder");
    let program = compile(dir.path(), "gcc", "prog.c", C_PROGRAM, args);
    let (start, end) = functions(&program)["outer"];
    let vaddrs: Vec<u64> = (start..end).collect();
    let all = names_at(&mut Symbolizer::default(), &module(&program), &vaddrs);
    let (at, expected) = all.iter().enumerate().max_by_key(|(_, names)| names.len()).expect("there are addresses");
    assert_eq!(expected.len(), 3, "both functions are inlined");
    let debug = dir.path().join("prog.debug");
    run("objcopy", &["--only-keep-debug", text(&program), text(&debug)]);
    run("strip", &[text(&program)]);
    Split { vaddr: vaddrs[at], expected: Arc::clone(expected), dir, program, debug }
}

impl Split {
    fn names(&self, module: &Module, root: &Path) -> Arc<[FrameName]> {
        let mut symbolizer =
            Symbolizer::new(SymbolizeOptions { debug_roots: vec![root.to_path_buf()], ..SymbolizeOptions::default() });
        names_at(&mut symbolizer, module, &[self.vaddr]).remove(0)
    }

    fn link(&self) {
        run("objcopy", &["--add-gnu-debuglink", text(&self.debug), text(&self.program)]);
    }

    fn move_debug_to(&self, path: &Path) {
        fs::create_dir_all(path.parent().expect("a file in a folder")).expect("folders can be made");
        fs::rename(&self.debug, path).expect("the debug file can be moved");
    }
}

/// The very file, opened and then deleted: what a kept descriptor of a target's file is.
fn deleted(program: &Path) -> (File, Module) {
    let file = File::open(program).expect("the program was compiled");
    fs::remove_file(program).expect("it can be deleted");
    let open_path = PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()));
    (file, Module { open_path, deleted: true, ..module(program) })
}

const WITH_BUILD_ID: &[&str] = &["-g", "-O2", "-Wl,--build-id=sha1"];
const WITHOUT_BUILD_ID: &[&str] = &["-g", "-O2", "-Wl,--build-id=none"];

#[test]
fn a_debug_file_is_found_by_build_id() {
    let split = split(WITH_BUILD_ID);
    let bytes = fs::read(&split.program).expect("the program was compiled");
    let elf = object::File::parse(&*bytes).expect("gcc writes ELF");
    let id = elf.build_id().expect("notes are sound").expect("asked for");
    let hex: String = id.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().concat();
    let root = split.dir.path().join("root");
    split.move_debug_to(&root.join(format!(".build-id/{}/{}.debug", &hex[..2], &hex[2..])));

    assert_eq!(split.names(&module(&split.program), &root), split.expected);
    let (_file, module) = deleted(&split.program);
    assert_eq!(split.names(&module, &root), split.expected, "through /proc/self/fd");
}

#[test]
fn a_debug_file_is_found_by_link_in_each_place() {
    for place in ["prog.debug", ".debug/prog.debug", "ROOT"] {
        for args in [WITH_BUILD_ID, WITHOUT_BUILD_ID] {
            let split = split(args);
            split.link();
            let root = split.dir.path().join("root");
            match place {
                "ROOT" => {
                    let dir = split.dir.path().strip_prefix("/").expect("temporary folders are absolute");
                    split.move_debug_to(&root.join(dir).join("prog.debug"));
                }
                place => split.move_debug_to(&split.dir.path().join(place)),
            }
            assert_eq!(split.names(&module(&split.program), &root), split.expected, "{place}");
            let (_file, module) = deleted(&split.program);
            assert_eq!(split.names(&module, &root), split.expected, "{place} through /proc/self/fd");
        }
    }
}

#[test]
fn a_debug_file_of_another_build_is_not_used() {
    for args in [WITH_BUILD_ID, WITHOUT_BUILD_ID] {
        let split = split(args);
        split.link();
        // One line more: everything moves.
        let other = split.dir.path().join("other");
        fs::create_dir(&other).expect("a folder can be made");
        let program = compile(&other, "gcc", "prog.c", &format!("int moved = 1;\n{C_PROGRAM}"), args);
        run("objcopy", &["--only-keep-debug", text(&program), text(&split.debug)]);
        let found = split.names(&module(&split.program), Path::new("/nonexistent"));
        assert_eq!(found[..], [FrameName::unknown(NoSymbol::Stripped)], "{args:?}");
    }
}

#[test]
fn a_fifo_in_the_place_of_a_debug_file_does_not_stop_us() {
    let split = split(WITHOUT_BUILD_ID);
    split.link();
    fs::remove_file(&split.debug).expect("it was made");
    run("mkfifo", &[text(&split.debug)]);
    let found = split.names(&module(&split.program), Path::new("/nonexistent"));
    assert_eq!(found[..], [FrameName::unknown(NoSymbol::Stripped)]);
}

#[test]
fn a_replaced_file_is_not_asked() {
    let dir = TempDir::new().expect("a temporary folder");
    let program = compile_c(dir.path());
    let (start, _) = functions(&program)["outer"];
    let replaced = Module { build_id: Some(vec![7; 20]), ..module(&program) };
    let found = names_at(&mut Symbolizer::default(), &replaced, &[start]);
    assert_eq!(found[0][..], [FrameName::unknown(NoSymbol::FileReplaced)]);
}

#[test]
fn a_module_without_a_readable_file_says_why() {
    let mut symbolizer = Symbolizer::default();
    let reason = |found: &[Arc<[FrameName]>]| found[0][0].missing().expect("no name");
    let missing = names_at(&mut symbolizer, &module(Path::new("/nonexistent/lib.so")), &[16]);
    assert_eq!(reason(&missing), "file unreadable: No such file or directory (os error 2)");
    let folder = names_at(&mut symbolizer, &module(Path::new("/tmp")), &[16]);
    assert_eq!(reason(&folder), "file unreadable: not a regular file");
    let text_file =
        names_at(&mut symbolizer, &module(&Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml")), &[16]);
    assert!(reason(&text_file).starts_with("broken file: "), "{text_file:?}");
    let generated = Module { kind: ModuleKind::Generated, ..module(Path::new("")) };
    assert_eq!(reason(&names_at(&mut symbolizer, &generated, &[16])), "made at run time");
}

/// Random bytes of the tables and debug sections overwritten: each costs names at most.
#[test]
fn broken_debug_information_costs_names_only() {
    let dir = TempDir::new().expect("a temporary folder");
    let program = compile_c(dir.path());
    let (start, end) = functions(&program)["outer"];
    let vaddrs: Vec<u64> = (start..end).collect();
    let sound = fs::read(&program).expect("the program was compiled");
    let mut seed = 1_u64;
    for round in 0..60 {
        let mut bytes = sound.clone();
        for _ in 0..=round % 40 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            // The debug sections and tables lie behind the code and data; the header is kept so that it stays ELF.
            let at = 0x2000 + (seed >> 33) as usize % (bytes.len() - 0x2000);
            bytes[at] = (seed >> 20) as u8;
        }
        let broken = dir.path().join(format!("broken{round}"));
        fs::write(&broken, &bytes).expect("a copy can be written");
        let found = names_at(&mut Symbolizer::default(), &module(&broken), &vaddrs);
        assert!(found.iter().all(|names| !names.is_empty()));
        fs::remove_file(&broken).expect("it was written");
    }
}

/// A symbol of 2^64 - 1 bytes: blazesym 0.2.7 adds it to the symbol's address, which panics where overflow is checked.
#[test]
fn a_symbol_that_wraps_around_does_not_end_us() {
    let dir = TempDir::new().expect("a temporary folder");
    let program = compile_c(dir.path());
    run("strip", &["-g", text(&program)]);
    let functions = functions(&program);
    let ((start, end), (main, _)) = (functions["outer"], functions["main"]);
    let mut bytes = fs::read(&program).expect("the program was compiled");
    // Elf64_Sym ends in st_value, st_size.
    let symbol: Vec<u8> = [start, end - start].iter().flat_map(|word| word.to_le_bytes()).collect();
    let at = bytes.windows(16).position(|window| window == symbol).expect("the symbol is in the table");
    bytes[at + 8..at + 16].fill(0xff);
    fs::write(&program, &bytes).expect("it can be written");

    let found = names_at(&mut Symbolizer::default(), &module(&program), &[start, main]);

    assert_eq!(found[1][0].function.as_deref(), Ok("main"), "other addresses keep their names");
    let broken = found[0][0].missing().is_some_and(|reason| reason.starts_with("broken file: "));
    assert!(broken || found[0][..] == [FrameName::unknown(NoSymbol::NotCovered)], "{found:?}");
}

#[test]
fn a_second_look_reads_no_files() {
    let dir = TempDir::new().expect("a temporary folder");
    let program = compile_c(dir.path());
    let (start, _) = functions(&program)["outer"];
    let mut symbolizer = Symbolizer::default();
    let first = names_at(&mut symbolizer, &module(&program), &[start]);
    fs::remove_file(&program).expect("it was compiled");
    let reads = std::cell::Cell::new(0);
    let again = snapshot(module(&program), &[start]);
    let names = symbolizer.resolve(&again, &|progress| reads.set(reads.get() + usize::from(progress.module.is_some())));
    assert_eq!((names.of(&again.stacks[0].stack.frames[0]), reads.get()), (&first[0], 0));
    // Addresses not seen before are still named from the file that was kept open.
    let later = names_at(&mut symbolizer, &module(&program), &[start + 1]);
    assert_eq!(later[0].last().expect("never empty").function.as_deref(), Ok("outer"));
}

/// The vdso's image, dumped to a file, is named like any other.
#[test]
fn the_vdso_is_named_from_its_image() {
    let maps = fs::read_to_string("/proc/self/maps").expect("maps of our own");
    let Some(line) = maps.lines().find(|line| line.ends_with("[vdso]")) else { return };
    let (start, end) = line.split(' ').next().and_then(|range| range.split_once('-')).expect("START-END");
    let parse = |hex| u64::from_str_radix(hex, 16).expect("maps are hexadecimal");
    let (start, end) = (parse(start), parse(end));
    let mut image = vec![0; (end - start) as usize];
    let memory = File::open("/proc/self/mem").expect("memory of our own");
    std::os::unix::fs::FileExt::read_exact_at(&memory, &mut image, start).expect("the vdso is readable");
    let dir = TempDir::new().expect("a temporary folder");
    let dumped = dir.path().join("vdso");
    fs::write(&dumped, &image).expect("the image can be written");
    let elf = object::File::parse(&*image).expect("the vdso is ELF");
    let symbol = elf.dynamic_symbols().find(|symbol| object::ObjectSymbol::name(symbol) == Ok("__vdso_clock_gettime"));
    let vaddr = object::ObjectSymbol::address(&symbol.expect("every x86-64 and arm64 kernel exports it"));

    let vdso = Module { kind: ModuleKind::Vdso, open_path: dumped, ..module(Path::new("[vdso]")) };
    let found = names_at(&mut Symbolizer::default(), &vdso, &[vaddr]);

    assert!(found[0][0].function.as_deref().is_ok_and(|name| name.ends_with("clock_gettime")), "{found:?}");
}

#[test]
#[ignore = "measures; run with --release -- --ignored --nocapture"]
fn measure_real_files() {
    let candidates = ["/lib/x86_64-linux-gnu/libc.so.6", "/usr/bin/python3.11", "/usr/bin/git"];
    let test_program = std::env::current_exe().expect("we run");
    let mut paths: Vec<PathBuf> = candidates.iter().map(PathBuf::from).filter(|path| path.exists()).collect();
    paths.push(test_program);
    for path in paths {
        let bytes = fs::read(&path).expect("it exists");
        let elf = object::File::parse(&*bytes).expect("it is ELF");
        let code = object::Object::section_by_name(&elf, ".text").expect("it has code");
        let (start, size) = (object::ObjectSection::address(&code), object::ObjectSection::size(&code));
        for n in [10, 5000] {
            let vaddrs: Vec<u64> = (0..n).map(|i| start + size / n * i).collect();
            let mut symbolizer = Symbolizer::default();
            let begin = std::time::Instant::now();
            let found = names_at(&mut symbolizer, &module(&path), &vaddrs);
            let first = begin.elapsed();
            let again = std::time::Instant::now();
            names_at(&mut symbolizer, &module(&path), &vaddrs);
            let lines = found.iter().filter(|names| names[0].line.is_some()).count();
            let named = found.iter().filter(|names| names.last().is_some_and(|name| name.function.is_ok())).count();
            println!(
                "{}: {n} addresses in {first:.1?}, again {:.1?}; {named} named, {lines} with lines; {} MiB resident",
                path.display(),
                again.elapsed(),
                resident_mib()
            );
        }
    }
}

fn resident_mib() -> u64 {
    let status = fs::read_to_string("/proc/self/statm").expect("our own");
    let pages: u64 = status.split(' ').nth(1).and_then(|pages| pages.parse().ok()).expect("a number");
    pages * 4096 / (1 << 20)
}
