//! The planner on real allocators: which instruction each function gets, on every library that it was designed for.
//!
//! The libraries are packages of several Debian releases, unpacked by `cargo xtask setup`. One that is missing fails.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use tracer_user::plan::{
    AllocatorSpec, Execution, Input, ProbePlan, ProbeSite, Problem, plan, plan_naive, plan_ranges, plan_with,
};

const FETCH: &str = "cargo xtask setup";

/// The functions that every program calls all the time.
const HOT: [&str; 4] = ["malloc", "calloc", "realloc", "free"];

/// One library and what was read off its disassembly: `symbol+offset instruction registers`, of the arguments read.
struct Row {
    file: &'static str,
    family: &'static str,
    /// Only a file with these bytes has these sites: a suite that moves on brings another build.
    version: &'static str,
    sites: &'static [&'static str],
}

const GLIBC_2_31: Row = Row {
    file: "bullseye-libc6/lib/x86_64-linux-gnu/libc-2.31.so",
    family: "glibc",
    version: "GLIBC 2.31-13",
    sites: &[
        "malloc+7 push rdi",
        "calloc+0 push rdi,rsi",
        "realloc+0 push rdi,rsi",
        "reallocarray+0 mov rdi,rsi,rdx single-stepped",
        "free+17 jne rdi rsp+24",
        "posix_memalign+0 push rdi,rdx",
        "memalign+4 jmp rsi",
        "valloc+6 push rdi",
        "pvalloc+6 push rdi",
    ],
};

const GLIBC_2_36: Row = Row {
    file: "bookworm-libc6/lib/x86_64-linux-gnu/libc.so.6",
    family: "glibc",
    version: "GLIBC 2.36-9",
    sites: &[
        "malloc+0 push rdi",
        "calloc+0 push rdi,rsi",
        "realloc+0 push rdi,rsi",
        "reallocarray+0 mov rdi,rsi,rdx single-stepped",
        "free+3 je rdi",
        "posix_memalign+7 push rdi,rdx",
        "memalign+7 je rsi",
        "valloc+7 push rdi",
        "pvalloc+7 push rdi",
    ],
};

const GLIBC_2_41: Row = Row {
    file: "trixie-libc6/usr/lib/x86_64-linux-gnu/libc.so.6",
    family: "glibc",
    version: "GLIBC 2.41-12",
    sites: &[
        "malloc+0 push rdi",
        "calloc+0 push rdi,rsi",
        "realloc+0 push rdi,rsi",
        "reallocarray+0 mov rdi,rsi,rdx single-stepped",
        "free+3 je rdi",
        "posix_memalign+7 push rdi,rdx",
        "memalign+7 je rsi",
        "aligned_alloc+0 push rsi",
        "valloc+7 push rdi",
        "pvalloc+7 push rdi",
    ],
};

const GLIBC_2_43: Row = Row {
    file: "sid-libc6/usr/lib/x86_64-linux-gnu/libc.so.6",
    family: "glibc",
    version: "GLIBC 2.43-7",
    sites: &[
        "malloc+3 js rdi",
        "calloc+6 jo rdi,rsi",
        "realloc+6 je rdi,rsi",
        "reallocarray+0 mov rdi,rsi,rdx single-stepped",
        "free+3 je rdi",
        "posix_memalign+23 jne rdi,rdx",
        "memalign+0 jmp rsi",
        "aligned_alloc+7 jne rsi",
        "valloc+14 jmp rsi",
        "pvalloc+21 jb rdx",
    ],
};

const JEMALLOC: Row = Row {
    file: "jemalloc/usr/lib/x86_64-linux-gnu/libjemalloc.so.2",
    family: "jemalloc",
    version: "5.3.0-0-g54eaed1d8b56b1aa528be3bdd1877e59c56fa90c",
    sites: &[
        "malloc+7 ja rdi",
        "calloc+0 push rdi,rsi",
        "realloc+0 push rdi,rsi",
        "free+48 jne rdi",
        "posix_memalign+0 push rdi,rdx",
        "memalign+0 push rsi",
        "aligned_alloc+0 push rsi",
        "valloc+0 push rdi",
        "mallocx+0 push rdi",
        "rallocx+2 jmp rdi,rsi",
        "dallocx+0 push rdi",
        "sdallocx+10 ja rdi",
        "_Znwm+7 ja rdi 3 exits",
        "_ZnwmRKSt9nothrow_t+7 ja rdi",
        "_ZdlPvm+3 je rdi",
        "_ZdaPvm+3 je rdi",
        "xallocx+0 push rdi,rsi",
    ],
};

const TCMALLOC: Row = Row {
    file: "tcmalloc/usr/lib/x86_64-linux-gnu/libtcmalloc_minimal.so.4",
    family: "tcmalloc",
    version: "gperftools 2.10",
    sites: &[
        "malloc+10 jne rdi",
        "calloc+0 push rdi,rsi",
        "realloc+0 push rdi,rsi",
        "free+10 jne rdi",
        "posix_memalign+11 jne rdi,rdx",
        "memalign+10 ja rsi",
        "valloc+0 push rdi",
        "pvalloc+0 push rdi",
        "tc_malloc_skip_new_handler+0 push rdi",
        "tc_free_sized+10 jne rdi",
        "_Znwm+10 jne rdi 4 exits",
        "_ZnwmSt11align_val_t+13 ja rdi 3 exits",
        "_ZnwmRKSt9nothrow_t+10 jne rdi",
        "_ZnwmSt11align_val_tRKSt9nothrow_t+13 ja rdi",
        "_ZdlPvRKSt9nothrow_t+10 jne rdi",
        "_ZdlPvSt11align_val_t+10 jne rdi",
        "_ZdlPvmSt11align_val_t+10 jne rdi",
        "_ZdlPvSt11align_val_tRKSt9nothrow_t+10 jne rdi",
    ],
};

const MIMALLOC: Row = Row {
    file: "mimalloc/usr/lib/x86_64-linux-gnu/libmimalloc.so.2",
    family: "mimalloc",
    version: "",
    sites: &[
        "malloc+21 ja rsi",
        "calloc+18 je rax,rsi",
        "free+6 je rdi",
        "mi_malloc_small+31 je rdi",
        "mi_zalloc+21 ja rsi",
        "mi_zalloc_small+31 je rdi",
        "mi_expand+0 push rdi,rsi",
        "mi_reallocarray+0 push rdi,rsi,rdx",
        "mi_cfree+0 push rdi",
        "mi_posix_memalign+8 je rdi,rdx",
        "mi_memalign+9 jmp rdi",
        "mi_aligned_alloc+9 jmp rdi",
        "mi_valloc+0 push rdi",
        "mi_pvalloc+0 push rdi",
        "mi_heap_malloc+7 ja rsi",
        "mi_heap_malloc_small+20 je rsi",
        "mi_heap_malloc_aligned+7 jne rsi",
        "mi_heap_malloc_aligned_at+3 jmp rsi",
        "mi_heap_zalloc+7 ja rsi",
        "mi_heap_zalloc_aligned_at+6 jmp rsi",
        "mi_heap_calloc+10 je rax,rdx",
        "mi_heap_mallocn+10 je rax,rdx",
        "mi_heap_calloc_aligned_at+16 je rax,rdx",
        "mi_heap_realloc+2 jmp rsi,rdx",
        "mi_heap_realloc_aligned+7 jbe rsi,rdx",
        "mi_heap_reallocf+0 push rsi,rdx",
        "mi_heap_realloc_aligned_at+3 jmp rsi,rdx",
        "mi_heap_rezalloc+5 jmp rsi,rdx",
        "mi_heap_rezalloc_aligned+7 jbe rsi,rdx",
        "mi_heap_rezalloc_aligned_at+6 jmp rsi,rdx",
        "mi_heap_reallocn+10 je rsi,rax,rcx",
        "mi_heap_recalloc+10 je rsi,rax,rcx",
        "mi_heap_recalloc_aligned+13 je rsi,rax,rdx",
        "_Znwm+0 push rdi 2 exits",
        "mi_new_nothrow+7 push rdi",
        "mi_new_aligned_nothrow+0 push rdi",
        "mi_new_n+0 push rdi,rsi 3 exits",
        "mi_new_realloc+0 push rdi,rsi 1 exits",
        "mi_new_reallocn+10 je rdi,rax,rdx 1 exits",
        "mi_heap_alloc_new+0 sub rsi single-stepped 2 exits",
    ],
};

const MUSL: Row = Row {
    file: "musl/lib/x86_64-linux-musl/libc.so",
    family: "musl",
    version: "1.2.3",
    sites: &[
        "malloc+0 jmp rdi",
        "calloc+0 push rdi,rsi",
        "realloc+0 jmp rdi,rsi",
        "reallocarray+6 je rdi,rsi,rdx",
        "free+0 jmp rdi",
        "posix_memalign+0 push rdi,rdx",
        "aligned_alloc+0 push rsi",
        "valloc+8 jmp rsi",
    ],
};

/// A CET build. Its calloc and aligned_alloc move rsp before their first emulated instruction, so that a return probe
/// there would not find the return address: nothing better than the entry exists.
const MUSL_CET: Row = Row {
    file: "sid-musl/usr/lib/x86_64-linux-musl/libc.so",
    family: "musl",
    version: "1.2.6",
    sites: &[
        "malloc+4 jmp rdi",
        "calloc+0 endbr64 rdi,rsi single-stepped",
        "realloc+4 jmp rdi,rsi",
        "reallocarray+13 je rdi,rcx,rdx",
        "free+4 jmp rdi",
        "posix_memalign+13 jbe rdi,rdx",
        "aligned_alloc+0 endbr64 rsi single-stepped",
        "valloc+12 jmp rsi",
    ],
};

#[test]
fn hot_functions_are_never_single_stepped() {
    for row in [GLIBC_2_31, GLIBC_2_36, GLIBC_2_41, GLIBC_2_43, JEMALLOC, TCMALLOC, MIMALLOC, MUSL] {
        assert_hot_functions_emulated(&read_plan(row.file), row.file);
    }
}

#[test]
fn sites_are_those_of_the_disassembly() {
    for row in [GLIBC_2_31, GLIBC_2_36, GLIBC_2_41, GLIBC_2_43, JEMALLOC, TCMALLOC, MIMALLOC, MUSL, MUSL_CET] {
        let elf = read(row.file);
        let plan = plan(&elf).expect("an ELF file");
        assert_eq!(plan.family.map(|family| family.name), Some(row.family), "{}", row.file);
        assert_eq!(plan.problems, [], "{}", row.file);
        if contains(&elf, row.version.as_bytes()) {
            assert_eq!(summary(&plan), row.sites, "{}", row.file);
        } else {
            eprintln!("{}: not version {}, so only its speed is checked", row.file, row.version);
        }
    }
}

#[test]
fn one_address_is_one_site() {
    let plan = read_plan(GLIBC_2_36.file);
    let aliases = |symbol| &plan.sites.iter().find(|site| site.symbol == symbol).expect("a site").aliases;
    assert_eq!(aliases("malloc"), &["__libc_malloc"]);
    assert_eq!(aliases("free"), &["cfree", "__libc_free"]);
    assert_eq!(aliases("memalign"), &["__libc_memalign", "aligned_alloc"]);
}

#[test]
fn each_libc_has_five_functions_that_change_mappings() {
    for row in [GLIBC_2_31, GLIBC_2_36, GLIBC_2_41, GLIBC_2_43, MUSL, MUSL_CET] {
        let plan = plan_ranges(&read(row.file)).expect("an ELF file");
        let symbols: Vec<&str> = plan.sites.iter().map(|site| site.symbol).collect();
        assert_eq!(symbols, ["mmap", "munmap", "mremap", "brk", "madvise"], "{}", row.file);
        assert_eq!(plan.problems, [], "{}", row.file);
    }
}

#[test]
fn of_allocators_only_tcmalloc_defines_functions_that_change_mappings() {
    let symbols = |file: &str| -> Vec<&str> {
        plan_ranges(&read(file)).expect("an ELF file").sites.iter().map(|site| site.symbol).collect()
    };
    assert_eq!(symbols(JEMALLOC.file), [""; 0]);
    assert_eq!(symbols(MIMALLOC.file), [""; 0]);
    let mut found = symbols(TCMALLOC.file);
    found.sort_unstable();
    assert_eq!(found, ["mmap", "mmap64", "mremap", "munmap"], "its mmap64 is another function");
}

#[test]
fn loader_is_no_allocator() {
    // glibc 2.31's loader exports malloc, calloc, realloc and free of its own; later ones do not.
    let old = read_plan("bullseye-libc6/lib/x86_64-linux-gnu/ld-2.31.so");
    assert_eq!(old.sites, []);
    assert_eq!(old.problems, [Problem::Loader { functions: HOT.to_vec() }]);
    let new = read_plan("trixie-libc6/usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2");
    assert_eq!((new.sites, new.problems), (vec![], vec![]));
}

#[test]
fn cet_build_is_probed_behind_endbr64() {
    let dir = tempfile::tempdir().expect("a folder for the library");
    for options in [&["-O2"][..], &["-O3"], &["-O2", "-fno-omit-frame-pointer"]] {
        let library = dir.path().join("libcet_allocator.so");
        let source = workspace().join("tests/programs/c/cet_allocator.c");
        let status = Command::new("gcc")
            .args(options)
            .args(["-fPIC", "-shared", "-fcf-protection=full", "-Wl,-Bsymbolic", "-o"])
            .args([&library, &source])
            .status()
            .unwrap_or_else(|err| panic!("failed to run `gcc`: {err} ({FETCH} installs it)"));
        assert!(status.success(), "gcc {options:?}: {status}");
        let plan = plan(&fs::read(&library).expect("the library")).expect("an ELF file");
        assert_hot_functions_emulated(&plan, &format!("{options:?}"));
        for site in &plan.sites {
            assert!(site.offset_from_entry >= 4, "{site:?} is on endbr64");
        }
        // cfree only jumps to free: probed as well, each call would count twice.
        let free: Vec<_> = plan.sites.iter().filter(|site| !site.return_probe).collect();
        assert_eq!(free.len(), 1, "{options:?}\n{}", plan.render("cet"));
        assert_eq!((free[0].symbol, &free[0].aliases), ("free", &vec!["cfree"]));
    }
}

#[test]
fn naive_placement_is_the_entry_of_every_function() {
    let plan = plan_naive(&read(GLIBC_2_43.file)).expect("an ELF file");
    // Its free_sized and free_aligned_sized only jump to free.
    assert_eq!(plan.sites.len(), GLIBC_2_43.sites.len() + 2);
    for site in &plan.sites {
        assert_eq!((site.offset_from_entry, site.cookie().is_standard()), (0, true), "{site:?}");
    }
    let hot = plan.sites.iter().filter(|site| HOT.contains(&site.symbol));
    let stepped = hot.filter(|site| site.execution == Execution::SingleStepped).count();
    assert_eq!(stepped, 4, "each of glibc 2.43's hot entries is single-stepped");
}

#[test]
fn sites_are_where_the_file_has_them() {
    // The decoder went by addresses: the same instruction must stand at the file offset.
    for file in [GLIBC_2_36.file, JEMALLOC.file, MIMALLOC.file] {
        let elf = read(file);
        for site in plan(&elf).expect("an ELF file").sites {
            let first = elf[usize::try_from(site.file_offset.0).expect("an offset")];
            let is_push = site.instruction.starts_with("push ");
            assert_eq!(is_push, matches!(first, 0x41 | 0x50..=0x57), "{file}: {site:?}");
        }
    }
}

/// A pool of one's own, described on the command line.
#[test]
fn users_functions_are_further_rows() {
    let dir = tempfile::tempdir().expect("a folder for the library");
    let (source, library) = (dir.path().join("pool.c"), dir.path().join("libpool.so.1"));
    let text = "void *pool_take(void *pool, long n) { return (char *)pool + n; }\nvoid pool_give(void *pool, void *p) { (void)pool; (void)p; }\n";
    fs::write(&source, text).expect("a source");
    let status = Command::new("gcc").args(["-O2", "-shared", "-fPIC", "-o"]).args([&library, &source]).status();
    assert!(status.unwrap_or_else(|err| panic!("failed to run `gcc`: {err}")).success());
    let elf = fs::read(&library).expect("the library");
    let planned = |text: &str| {
        let specs = [text.parse::<AllocatorSpec>().expect("it parses")];
        plan_with(&Input { path: &library, specs: &specs, ..Input::of(&elf) }).expect("an ELF file")
    };
    let plan = planned("alloc=libpool:pool_take(size=arg1,ret=ptr) free=libpool:pool_give(ptr=arg1)");
    let sites: Vec<_> = plan.sites.iter().map(|site| (site.name, site.args[0].0, site.return_probe)).collect();
    assert_eq!(sites, [("pool_take", 6, true), ("pool_give", 6, false)], "{}", plan.render("pool"));
    let mistyped = planned("alloc=libpool:pool_tak(size=arg1,ret=ptr) free=libpool:pool_give(ptr=arg1)");
    assert_eq!(mistyped.problems[0].to_string(), "no symbol `pool_tak` (there is pool_take, pool_give)");
    let other = planned("alloc=libother:f(size=arg1,ret=ptr) free=libother:g(ptr=arg1)");
    assert_eq!((other.sites, other.problems), (vec![], vec![]));
}

fn assert_hot_functions_emulated(plan: &ProbePlan, label: &str) {
    for function in HOT {
        let site = plan.sites.iter().find(|site| site.symbol == function || site.aliases.contains(&function));
        let site = site.unwrap_or_else(|| panic!("no site for {function}\n{}", plan.render(label)));
        assert_eq!(site.execution, Execution::Emulated, "{function}\n{}", plan.render(label));
        assert_eq!(site.return_probe, function != "free");
        assert!(!site.return_probe || site.rsp_moved_bytes == 0, "{site:?}");
    }
}

fn summary(plan: &ProbePlan) -> Vec<String> {
    plan.sites.iter().map(summary_of_site).collect()
}

fn summary_of_site(site: &ProbeSite) -> String {
    const NAMES: [&str; 16] =
        ["rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15"];
    let cookie = site.cookie();
    let args = (0..3).filter(|n| site.shape.reads_arg(*n as usize)).map(|n| NAMES[cookie.arg_register(n) as usize]);
    let mnemonic = site.instruction.split(' ').next().unwrap_or_default();
    let args: Vec<_> = args.collect();
    let mut words = vec![format!("{}+{} {mnemonic}", site.symbol, site.offset_from_entry), args.join(",")];
    if cookie.rsp_moved_bytes() > 0 {
        words.push(format!("rsp+{}", cookie.rsp_moved_bytes()));
    }
    if site.execution == Execution::SingleStepped {
        words.push("single-stepped".to_owned());
    }
    if !site.exits.is_empty() {
        words.push(format!("{} exits", site.exits.len()));
    }
    words.join(" ")
}

fn read_plan(file: &str) -> ProbePlan {
    plan(&read(file)).expect("an ELF file")
}

fn read(file: &str) -> Vec<u8> {
    let path = workspace().join("target/test-libs").join(file);
    fs::read(&path).unwrap_or_else(|err| panic!("failed to read `{}`: {err} (`{FETCH}` fetches it)", path.display()))
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    needle.is_empty() || haystack.windows(needle.len()).any(|window| window == needle)
}

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace's folder").to_owned()
}
