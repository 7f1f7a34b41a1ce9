//! Unwind rows of files that are broken, stripped or unusual: what was understood, plus counted problems.

use std::{fs, path::Path, process::Command, time::Duration, time::Instant};

use iced_x86::{Decoder, DecoderOptions, Mnemonic};
use object::{Object as _, ObjectSection as _, ObjectSymbol as _};
use proptest::prelude::*;
use tracer_common::unwind::{Regs, RuleKind, Step, step};
use tracer_user::unwind::{
    ModuleRows, Problem, RowsError, module_rows, module_rows_with,
    rows::{MAX_CFI_BYTES, MAX_ROWS_PER_MODULE},
    vdso::vdso_rows,
};

const LOADER: &str = "/lib64/ld-linux-x86-64.so.2";

fn loader() -> Vec<u8> {
    fs::read(LOADER).expect("read the loader")
}

fn assert_well_formed(module: &ModuleRows) {
    assert!(module.rows.len() <= MAX_ROWS_PER_MODULE * 2);
    assert!(module.rows.is_sorted_by(|(a, _), (b, _)| a < b), "offsets ascend");
    assert!(module.rows.is_sorted_by(|(_, a), (_, b)| a != b), "neighbours differ");
}

/// `file[range]` of the loader's `.eh_frame`.
fn eh_frame_range(elf: &[u8]) -> std::ops::Range<usize> {
    let file = object::File::parse(elf).expect("parse ELF");
    let (offset, size) = file.section_by_name(".eh_frame").and_then(|s| s.file_range()).expect(".eh_frame");
    offset as usize..(offset + size) as usize
}

#[test]
fn a_file_without_section_headers_has_the_same_rows() {
    let whole = loader();
    let mut stripped = whole.clone();
    // e_shoff, then e_shnum and e_shstrndx.
    stripped[40..48].fill(0);
    stripped[60..64].fill(0);

    let (expected, rows) = (module_rows(&whole).expect("rows"), module_rows(&stripped).expect("rows"));

    assert!(expected.rows.len() > 1000);
    assert_eq!(rows.rows, expected.rows);
}

#[test]
fn broken_section_headers_are_counted_and_the_program_headers_used() {
    let whole = loader();
    let mut broken = whole.clone();
    broken[40..48].fill(0xff);

    let rows = module_rows(&broken).expect("rows");

    assert_eq!(rows.problems.count(Problem::HeadersBroken), 1);
    assert_eq!(rows.rows, module_rows(&whole).expect("rows").rows);
}

/// Debian's glibc 2.36: `_start` and `_dl_start_user` of the loader, 61 bytes that no FDE covers; the call of `_dl_init`
/// in them runs every library's constructors.
#[test]
fn the_loaders_entry_is_a_root_up_to_the_next_function() {
    let elf = loader();
    let entry = object::File::parse(&*elf).expect("parse ELF").entry();

    let module = module_rows(&elf).expect("rows");

    let row = module.rows.partition_point(|&(start, _)| u64::from(start) <= entry - module.base_vaddr) - 1;
    assert_eq!(module.rows[row].1.kind, RuleKind::Root);
    assert_eq!(u64::from(module.rows[row].0), entry - module.base_vaddr);
    assert!(module.rows[row + 1].0 - module.rows[row].0 <= 256);
}

#[test]
fn glibcs_thread_entries_and_signal_trampoline_have_their_kinds() {
    let elf = fs::read("/lib/x86_64-linux-gnu/libc.so.6").expect("read libc");
    let module = module_rows(&elf).expect("rows");
    let of_kind = |kind| module.rows.iter().filter(|(_, rule)| rule.kind == kind).copied().collect::<Vec<_>>();

    // clone, clone3 and the entry point.
    assert!(of_kind(RuleKind::Root).len() >= 3, "{:?}", of_kind(RuleKind::Root));
    // At the handler's return rsp points to the ucontext_t.
    assert!(matches!(of_kind(RuleKind::SignalFrame)[..], [(_, rule)] if rule.cfa_off == 0));
}

/// A function whose frame only unwind information describes: GCC realigns its stack by way of r10.
fn build_realigned(dir: &Path, flags: &[&str]) -> Vec<u8> {
    let (source, program) = (dir.join("a.c"), dir.join("a"));
    fs::write(
        &source,
        "#include <alloca.h>\n\
         __attribute__((noipa)) void sink(void *a, void *b) { *(char *)a = *(char *)b; }\n\
         void realigned(int a, int b, int c, int d, int e, int f, int g) {\n\
             _Alignas(64) char buffer[64]; for (int i = 0; i < g; i++) sink(buffer, alloca(i + a)); }\n\
         int main(void) { realigned(1, 2, 3, 4, 5, 6, 7); return 0; }",
    )
    .expect("write source");
    run(Command::new("gcc").args(["-O1", "-fno-inline", "-o"]).args([&program, &source]).args(flags));
    fs::read(program).expect("read program")
}

fn run(command: &mut Command) {
    assert!(command.status().expect("start").success(), "{command:?}");
}

fn is_described(module: &ModuleRows) -> bool {
    module.rows.iter().any(|(_, rule)| rule.kind == RuleKind::DerefRbp)
}

/// A program whose functions only `.debug_frame` describes, compressed.
#[test]
fn debug_frame_fills_what_eh_frame_leaves_out() {
    let dir = tempfile::tempdir().expect("temporary directory");

    let without = build_realigned(dir.path(), &["-fno-asynchronous-unwind-tables"]);
    let with = build_realigned(dir.path(), &["-g", "-fno-asynchronous-unwind-tables", "-gz=zlib"]);

    assert!(object::File::parse(&*with).expect("parse ELF").section_by_name(".debug_frame").is_some());
    assert!(!is_described(&module_rows(&without).expect("rows")));
    assert!(is_described(&module_rows(&with).expect("rows")));
}

#[test]
fn the_debug_frame_of_a_debug_file_fills_likewise() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let with = build_realigned(dir.path(), &["-g", "-fno-asynchronous-unwind-tables"]);
    let (program, debug, stripped) = (dir.path().join("a"), dir.path().join("a.debug"), dir.path().join("stripped"));
    run(Command::new("objcopy").arg("--only-keep-debug").args([&program, &debug]));
    run(Command::new("objcopy").arg("--strip-all").args([&program, &stripped]));
    let (stripped, debug) = (fs::read(stripped).expect("read"), fs::read(debug).expect("read"));

    let alone = module_rows(&stripped).expect("rows");
    let helped = module_rows_with(&stripped, Some(&debug)).expect("rows");

    assert!(alone.is_bare && !is_described(&alone));
    assert_eq!(helped.rows, module_rows(&with).expect("rows").rows);
    assert!(is_described(&helped));
}

#[test]
fn other_files_are_refused_with_the_reason() {
    let mut arm = loader();
    arm[18..20].copy_from_slice(&183u16.to_le_bytes());
    let mut elf32 = loader();
    elf32[4] = 1;

    assert_eq!(module_rows(b"#!/bin/sh\n"), Err(RowsError::NotElf));
    assert_eq!(module_rows(&[]), Err(RowsError::NotElf));
    assert_eq!(module_rows(&elf32), Err(RowsError::NotElf));
    assert_eq!(module_rows(&arm), Err(RowsError::NotX86_64(183)));
}

/// The running kernel's vdso in this process.
#[test]
fn the_vdso_in_memory_has_rows_for_its_functions() {
    let maps = fs::read_to_string("/proc/self/maps").expect("read maps");
    let line = maps.lines().find(|line| line.ends_with("[vdso]")).expect("a vdso");
    let (start, end) = line.split(' ').next().and_then(|range| range.split_once('-')).expect("a range");
    let [start, end] = [start, end].map(|hex| u64::from_str_radix(hex, 16).expect("an address"));
    let mut image = vec![0; (end - start) as usize];
    let memory = fs::File::open("/proc/self/mem").expect("open memory");
    std::os::unix::fs::FileExt::read_exact_at(&memory, &mut image, start).expect("read the vdso");

    let module = vdso_rows(&image).expect("rows");

    assert_well_formed(&module);
    assert_eq!(module.base_vaddr, 0);
    assert_eq!(module.problems.iter().filter(|(problem, _)| !problem.is_unsupported_row()).count(), 0);
    let file = object::File::parse(&*image).expect("the image is whole");
    let functions = file.dynamic_symbols().filter(|symbol| symbol.size() > 0);
    let mut n_functions = 0;
    for function in functions {
        let rule = module.lookup(function.address() as u32).expect("a row");
        assert!(!matches!(rule.kind, RuleKind::None | RuleKind::Unsupported), "{function:?}: {rule:?}");
        n_functions += 1;
    }
    assert!(n_functions >= 4, "{n_functions}");
}

/// One CIE of 16 MiB of no-ops, run once for each of its FDEs.
#[test]
fn a_long_program_shared_by_many_functions_ends_soon() {
    const CIE_BYTES: usize = 16 << 20;
    let mut elf = loader();
    let range = eh_frame_range(&elf);
    let vaddr = range.start as u64;
    // The section moves to the end of the file: its header says where.
    let file = object::File::parse(&*elf).expect("parse ELF");
    let index = file.section_by_name(".eh_frame").expect(".eh_frame").index().0;
    let section_headers = u64::from_le_bytes(elf[40..48].try_into().expect("8 bytes")) as usize;
    let mut section = Vec::new();
    section.extend((CIE_BYTES as u32 - 4).to_le_bytes());
    section.extend([0, 0, 0, 0, 1, b'z', b'R', 0, 1, 0x78, 16, 1, 0x1b, 0x0c, 7, 8, 0x90, 1]);
    section.resize(CIE_BYTES, 0);
    for n in 0..1000u32 {
        let here = section.len() as u32;
        section.extend(16u32.to_le_bytes());
        section.extend((here + 4).to_le_bytes());
        section.extend((0x2000 + n * 4).wrapping_sub(vaddr as u32 + here + 8).to_le_bytes());
        section.extend(4u32.to_le_bytes());
        section.extend([0; 4]);
    }
    let header = section_headers + index * 64;
    let (offset, size) = (elf.len() as u64, section.len() as u64);
    elf[header + 24..header + 32].copy_from_slice(&offset.to_le_bytes());
    elf[header + 32..header + 40].copy_from_slice(&size.to_le_bytes());
    elf.extend(section);
    let begin = Instant::now();

    let module = module_rows(&elf).expect("rows");

    assert_eq!(module.problems.count(Problem::TooMuchCfi), 1, "{:?}", module.problems);
    assert!(!module.rows.is_empty());
    assert!(begin.elapsed() < Duration::from_secs(50), "{MAX_CFI_BYTES} bytes took {:?}", begin.elapsed());
}

/// The loader, its `.eh_frame` ended before its first entry: all code is without unwind information.
fn bare_loader() -> Vec<u8> {
    let mut elf = loader();
    let section = eh_frame_range(&elf);
    elf[section.start..section.start + 4].fill(0);
    elf
}

#[test]
fn a_file_without_unwind_information_has_rows_of_its_code() {
    let module = module_rows(&bare_loader()).expect("rows");

    assert!(module.is_bare && module.rows.len() > 500, "{} rows", module.rows.len());
    assert_well_formed(&module);
}

proptest! {
    // All code is followed each time.
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn mutated_code_without_unwind_information_never_panics(
        bytes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..64),
        headers in prop::collection::vec((0usize..1024, any::<u8>()), 0..2),
    ) {
        let mut elf = bare_loader();
        let section = eh_frame_range(&elf);
        for (at, byte) in bytes {
            let at = at.index(section.start);
            elf[at] = byte;
        }
        for (at, byte) in headers {
            elf[at] = byte;
        }
        if let Ok(module) = module_rows(&elf) {
            assert_well_formed(&module);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn mutated_files_never_panic(
        bytes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..64),
        headers in prop::collection::vec((0usize..1024, any::<u8>()), 0..4),
        in_section in any::<bool>(),
    ) {
        let mut elf = loader();
        let section = eh_frame_range(&elf);
        let part = if in_section { section } else { 0..elf.len() };
        for (at, byte) in bytes {
            let at = part.start + at.index(part.len());
            elf[at] = byte;
        }
        for (at, byte) in headers.into_iter().filter(|_| !in_section) {
            elf[at] = byte;
        }
        if let Ok(module) = module_rows(&elf) {
            assert_well_formed(&module);
        }
    }

    #[test]
    fn truncated_files_never_panic(length in any::<prop::sample::Index>()) {
        let elf = loader();
        if let Ok(module) = module_rows(&elf[..length.index(elf.len())]) {
            assert_well_formed(&module);
        }
    }

    /// Words of all ones and zeros where lengths and pointers stand.
    #[test]
    fn huge_lengths_never_panic(at in any::<prop::sample::Index>(), word in prop::sample::select(vec![0u32, u32::MAX, 0x7fff_ffff, 4])) {
        let mut elf = loader();
        let section = eh_frame_range(&elf);
        let at = section.start + at.index(section.len() / 4 - 1) * 4;
        elf[at..at + 4].copy_from_slice(&word.to_le_bytes());
        let module = module_rows(&elf).expect("the headers are whole");
        assert_well_formed(&module);
    }
}

/// Linkage stubs that the linker gave no unwind information: what is derived of them comes to the same caller, at each of their
/// instructions, as what the linker would have said.
#[test]
fn linkage_stubs_without_unwind_information_have_the_linkers_rules() {
    const RSP: u64 = 0x7000_0000;
    let dir = tempfile::tempdir().expect("temporary directory");
    let (source, library) = (dir.path().join("a.c"), dir.path().join("a.so"));
    fs::write(&source, "int one(void), two(void), three(void); int all(void) { return one() + two() + three(); }")
        .expect("write source");
    for flags in [&[][..], &["-fcf-protection=full", "-Wl,-z,ibtplt"]] {
        let mut callers = Vec::new();
        for unwind in ["-Wl,--ld-generated-unwind-info", "-Wl,--no-ld-generated-unwind-info"] {
            let mut build = Command::new("gcc");
            build.args(["-O1", "-shared", "-fPIC", "-Wl,-z,lazy", unwind, "-o"]).args([&library, &source]).args(flags);
            run(&mut build);
            callers.push(callers_of_stubs(&fs::read(&library).expect("read library"), RSP));
        }
        let described_as_plt = callers[0].iter().filter(|(_, kind, _)| *kind == RuleKind::Plt as u8).count();
        let derived_as_rsp = callers[1].iter().filter(|(_, kind, _)| *kind == RuleKind::Rsp as u8).count();
        assert!(described_as_plt >= 9 && derived_as_rsp == callers[1].len(), "{callers:x?}");
        let places = |n: usize| callers[n].iter().map(|(at, _, rsp)| (*at, *rsp)).collect::<Vec<_>>();
        assert_eq!(places(0), places(1));
    }
}

/// Offset of each instruction of the stubs that is reached, kind of its rule, and the caller's rsp.
fn callers_of_stubs(elf: &[u8], rsp: u64) -> Vec<(u64, u8, u64)> {
    let file = object::File::parse(elf).expect("parse ELF");
    let module = module_rows(elf).expect("rows");
    let mut callers = Vec::new();
    for section in file.sections().filter(|section| section.name().is_ok_and(|name| name.starts_with(".plt"))) {
        let data = section.data().expect("section data");
        for instruction in &mut Decoder::with_ip(64, data, section.address(), DecoderOptions::NONE) {
            if instruction.mnemonic() == Mnemonic::Nop {
                continue;
            }
            let rule = module.lookup((instruction.ip() - module.base_vaddr) as u32).expect("a row").pack();
            let mut regs = Regs { pc: instruction.ip(), sp: rsp, bp: 0 };
            assert_eq!(step(rule, &mut regs, |_| Some(1)), Step::Caller, "{:#x}", instruction.ip());
            callers.push((instruction.ip() - section.address(), rule.kind(), regs.sp));
        }
    }
    callers
}
