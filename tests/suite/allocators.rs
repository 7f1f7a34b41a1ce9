//! Every allocator, however it comes into a process: exact to the byte, and nothing counted twice.

use std::{
    ffi::OsStr,
    fs,
    io::Write as _,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};
use memtrace_tests::{
    Program, Report, Session, Stat, Truth, check_balance, clean, copy_program, counter,
    process::{Tracing, trace},
    target_dir,
};
use tempfile::TempDir;

const NO_ARGS: [&str; 0] = [];

/// A library that `cargo xtask setup` has unpacked.
fn test_lib(path: &str) -> Result<PathBuf> {
    let path = target_dir().join("test-libs").join(path);
    ensure!(path.exists(), "`{}` is missing (`cargo xtask setup --what tests` fetches it)", path.display());
    Ok(path)
}

fn jemalloc() -> Result<PathBuf> {
    test_lib("jemalloc/usr/lib/x86_64-linux-gnu/libjemalloc.so.2")
}

fn tcmalloc() -> Result<PathBuf> {
    test_lib("tcmalloc/usr/lib/x86_64-linux-gnu/libtcmalloc_minimal.so.4")
}

fn mimalloc() -> Result<PathBuf> {
    test_lib("mimalloc/usr/lib/x86_64-linux-gnu/libmimalloc.so.2")
}

fn scudo() -> Result<PathBuf> {
    test_lib("scudo/usr/lib/llvm-19/lib/clang/19/lib/linux/libclang_rt.scudo_standalone-x86_64.so")
}

/// Runs a program with a library preloaded, for the program alone.
fn preloaded(library: &Path, program: &Path) -> Result<Report> {
    let preload = format!("LD_PRELOAD={}", library.display());
    Session::new().option("--no-follow-children").run("/usr/bin/env", &[preload.as_ref(), program.as_os_str()])
}

fn exact_preloaded(library: &Path, program: &Program, runtimes: &[&str]) -> Result<()> {
    let truth = runtimes.iter().fold(Truth::of(program)?, |truth, module| truth.runtime(module));
    truth.check(&preloaded(library, &program.build()?)?)
}

fn exact_linked(program: &Program) -> Result<()> {
    Truth::of(program)?.check(&Session::new().run(program.build()?, &NO_ARGS)?)
}

fn operators() -> Program {
    Program::cpp("operators").variant("17", &["-std=c++17"])
}

const POOL: &str = "alloc=pool:pool_alloc(size=arg1,ret=ptr) free=pool:pool_free(ptr=arg1)";

#[test]
fn a_pool_that_the_user_describes_is_exact() -> Result<()> {
    let program = Program::c("pool");
    let session = Session::new().option("--allocator").option(POOL);
    Truth::of(&program)?.check(&session.run(program.build()?, &NO_ARGS)?)
}

#[test]
fn an_allocator_that_is_not_there_is_told_with_names_like_it() -> Result<()> {
    let program = Program::c("pool").build()?;
    for (spec, expected) in [
        (POOL.replace("pool_alloc", "pool_aloc"), "no symbol `pool_aloc` (there is pool_alloc"),
        (POOL.replace("size=", "sise="), "column 23"),
    ] {
        let output =
            trace(&[OsStr::new("run"), "--allocator".as_ref(), spec.as_ref(), "--".as_ref(), program.as_ref()])?;
        ensure!(!output.status.success() && output.stderr.contains(expected), "{spec}: {}", output.stderr);
    }
    Ok(())
}

#[test]
fn glibc_is_exact() -> Result<()> {
    exact_linked(&Program::c("every_function"))
}

/// Every function of the family in one file with the program; start code without unwind information, as in musl's library.
#[test]
fn static_musl_with_symbols_is_exact() -> Result<()> {
    let program = Program::c("every_function").compiler("musl-gcc").variant("static", &["-static"]);
    Truth::of(&program)?.check(&Session::new().run(program.build()?, &NO_ARGS)?)
}

#[test]
fn static_glibc_with_symbols_is_exact() -> Result<()> {
    let program = Program::c("every_function").variant("static", &["-static"]);
    Truth::of(&program)?.check_totals(&Session::new().run(program.build()?, &NO_ARGS)?, is_start_up)
}

/// realloc(NULL) to malloc, calloc to malloc, posix_memalign to aligned_alloc: one call each, with the outer size.
#[test]
fn nested_calls_count_once_on_both_libcs() -> Result<()> {
    let musl = test_lib("musl/lib/ld-musl-x86_64.so.1")?;
    for name in ["realloc_of_null", "every_function"] {
        let program = Program::c(name);
        exact_linked(&program).with_context(|| format!("{name} on glibc"))?;
        let program = program.compiler("musl-gcc");
        let report = Session::new().run(&musl, &[program.build()?])?;
        let cut = counter(&report, "truncated_no_unwind_info")?;
        let truth = Truth::of(&program)?.counter("truncated_no_unwind_info", cut);
        truth.check(&report).with_context(|| format!("{name} on musl"))?;
    }
    Ok(())
}

#[test]
fn operators_of_cpp_are_exact_over_glibc() -> Result<()> {
    exact_linked(&operators())
}

#[test]
fn operators_of_cpp_are_exact_in_a_static_program() -> Result<()> {
    let program = operators().variant("static", &["-static"]);
    let report = Session::new().run(program.build()?, &NO_ARGS)?;
    Truth::of(&program)?.check_totals(&report, is_start_up)
}

/// Its fast path is inlined into `operator new`: malloc does not see it.
#[test]
fn operators_of_cpp_are_exact_over_jemalloc() -> Result<()> {
    exact_preloaded(&jemalloc()?, &operators(), &["libjemalloc"])
}

#[test]
fn operators_of_cpp_are_exact_over_tcmalloc() -> Result<()> {
    exact_preloaded(&tcmalloc()?, &operators(), &["libtcmalloc"])
}

#[test]
fn operators_of_cpp_are_exact_over_mimalloc() -> Result<()> {
    exact_preloaded(&mimalloc()?, &operators(), &["libmimalloc"])
}

#[test]
fn scudo_is_exact() -> Result<()> {
    exact_preloaded(&scudo()?, &Program::c("four_functions"), &["libclang_rt"])?;
    exact_preloaded(&scudo()?, &operators(), &["libclang_rt"])
}

/// A return address that a probe replaced would make std::terminate of every exception that passes it.
#[test]
fn a_failing_operator_new_is_caught_as_ever() -> Result<()> {
    let program = Program::cpp("bad_alloc").build()?;
    // mimalloc, built for C, aborts by itself.
    for library in [jemalloc()?, tcmalloc()?] {
        let preload = format!("LD_PRELOAD={}", library.display());
        let alone = clean("/usr/bin/env").arg(&preload).arg(&program).output()?;
        ensure!(alone.status.success(), "{} untraced: {}", library.display(), alone.status);
        let (_, output) = Session::new().run_with_output("/usr/bin/env", &[preload.as_ref(), program.as_os_str()])?;
        let caught = output.status.success() && output.stdout.contains("caught");
        ensure!(caught, "{}: {} {}", library.display(), output.status, output.stderr);
    }
    Ok(())
}

/// Debian's jemalloc under other names, as programs that ship their own link it: the archive.
fn prefixed_jemalloc(prefix: &str) -> Result<PathBuf> {
    let dir = target_dir().join("test-programs");
    fs::create_dir_all(&dir)?;
    let names = dir.join(format!("jemalloc-{prefix}.syms"));
    let functions = "malloc calloc realloc free posix_memalign aligned_alloc memalign valloc mallocx rallocx xallocx sallocx \
                     dallocx sdallocx nallocx mallctl mallctlnametomib mallctlbymib malloc_stats_print malloc_usable_size \
                     malloc_message malloc_conf";
    let lines: Vec<String> = functions.split_whitespace().map(|name| format!("{name} {prefix}{name}\n")).collect();
    fs::write(&names, lines.concat())?;
    let archive = dir.join(format!("libjemalloc-{prefix}.a"));
    let mut objcopy = Command::new("objcopy");
    objcopy.arg(format!("--redefine-syms={}", names.display())).arg("/usr/lib/x86_64-linux-gnu/libjemalloc.a");
    let status = objcopy.arg(&archive).status().context("failed to run objcopy (binutils, libjemalloc-dev)")?;
    ensure!(status.success(), "objcopy: {status}");
    Ok(archive)
}

#[test]
fn jemalloc_linked_with_a_prefix_is_exact_beside_libc() -> Result<()> {
    let archive = prefixed_jemalloc("je_")?;
    let shown = archive.to_string_lossy();
    let program = Program::c("jemalloc_prefixed").variant("linked", &[&shown, "-pthread", "-lm", "-ldl"]);
    let report = Session::new().run(program.build()?, &NO_ARGS)?;
    Truth::of(&program)?.check(&report)
}

/// What a static program's C library, C++ library and allocator make for themselves before main.
fn is_start_up(stat: &Stat) -> bool {
    const START_UP: [&str; 4] =
        ["_dl_non_dynamic_init", "_GLOBAL__sub_I_eh_alloc.cc", "pthread_atfork", "mi_process_init"];
    stat.functions().iter().any(|function| START_UP.contains(function))
}

/// The crate takes a jemalloc that is built already, where its own takes five minutes to build.
#[test]
fn tikv_jemallocator_in_a_static_program_is_exact() -> Result<()> {
    let program = Program::rust("global", "tikv").built_with("JEMALLOC_OVERRIDE", &prefixed_jemalloc("_rjem_")?);
    Truth::of(&program)?.check_totals(&Session::new().run(program.build()?, &NO_ARGS)?, is_start_up)
}

#[test]
fn mimalloc_as_rusts_allocator_in_a_static_program_is_exact() -> Result<()> {
    let program = Program::rust("global", "mimalloc");
    Truth::of(&program)?.check_totals(&Session::new().run(program.build()?, &NO_ARGS)?, is_start_up)
}

/// It has its thread's end registered by libc, within a call of its own: what libc allocates for that is part of that call, and
/// a free of a block that is not known later.
#[test]
fn snmalloc_as_rusts_allocator_is_exact() -> Result<()> {
    let program = Program::rust("global", "snmalloc").dynamic();
    let report = Session::new().run(program.build()?, &NO_ARGS)?;
    let is_of_libstdcpp = |stat: &Stat| stat.module.as_deref().is_some_and(|module| module.contains("libstdc++"));
    Truth::of(&program)?.counter("frees_unknown", 1).check_totals(&report, is_of_libstdcpp)
}

/// Both see every call. Blocks count once, and so do frees.
#[test]
fn a_preloaded_wrapper_that_calls_the_next_malloc_counts_once() -> Result<()> {
    let wrapper = Program::c("malloc_wrapper").library().variant("next", &["-ldl"]).build()?;
    let program = Program::c("four_functions");
    let report = preloaded(&wrapper, &program.build()?)?;
    Truth::of(&program)?.counter("frees_of_null", 18).check(&report)
}

/// Go's own calls have no probes, C's have: neither is disturbed while stacks move and the collector walks them.
#[test]
fn cgo_is_exact_and_go_runs_on() -> Result<()> {
    let program = Program::go("cgo");
    let (report, output) = Session::new().run_with_output(program.build()?, &NO_ARGS)?;
    ensure!(output.status.success() && output.stdout.lines().any(|line| line == "right"), "{output:?}");
    Truth::of(&program)?.check_totals(&report, |stat| !stat.functions().contains(&"make"))
}

/// A program of one static file, stripped; its symbols are in a debug file beside it.
#[test]
fn a_stripped_static_program_is_exact_with_its_debug_file() -> Result<()> {
    let program = Program::c("every_function").variant("static", &["-static"]);
    let dir = TempDir::new()?;
    let (stripped, debug) = (dir.path().join("program"), dir.path().join("program.debug"));
    copy_program(&program.build()?, &stripped)?;
    run_in(dir.path(), "objcopy", &["--only-keep-debug", "program", "program.debug"])?;
    run_in(dir.path(), "strip", &["--strip-all", "program"])?;
    run_in(dir.path(), "objcopy", &["--add-gnu-debuglink=program.debug", "program"])?;
    Truth::of(&program)?.check_totals(&Session::new().run(&stripped, &NO_ARGS)?, is_start_up)?;
    fs::remove_file(debug)?;
    let mut target = memtrace_tests::process::Target::start(&stripped_waiter(dir.path())?, &["1"])?;
    let output = trace(&["--pid", &target.pid().to_string()])?;
    let line = memtrace_tests::process::check_refusal(&output, 1)?;
    ensure!(line.contains("waiter") && line.contains("stripped") && line.contains("debug file"), "{line}");
    target.kill()
}

/// A static, stripped program that waits, without any debug file.
fn stripped_waiter(dir: &Path) -> Result<PathBuf> {
    let waiter = dir.join("waiter");
    copy_program(&Program::c("live_blocks").variant("static", &["-static"]).build()?, &waiter)?;
    run_in(dir, "strip", &["--strip-all", "waiter"])?;
    Ok(waiter)
}

/// Likewise with the symbols in the file itself, packed, as Fedora ships them.
#[test]
fn a_stripped_static_program_is_exact_with_mini_debug_information() -> Result<()> {
    let program = Program::c("every_function").variant("static", &["-static"]);
    let dir = TempDir::new()?;
    copy_program(&program.build()?, &dir.path().join("program"))?;
    run_in(dir.path(), "objcopy", &["--strip-debug", "program", "mini"])?;
    run_in(dir.path(), "objcopy", &["--only-keep-debug", "mini", "names"])?;
    run_in(dir.path(), "xz", &["names"])?;
    run_in(dir.path(), "strip", &["--strip-all", "program"])?;
    run_in(dir.path(), "objcopy", &["--add-section", ".gnu_debugdata=names.xz", "program"])?;
    let report = Session::new().run(dir.path().join("program"), &NO_ARGS)?;
    Truth::of(&program)?.check_totals(&report, is_start_up)
}

fn run_in(dir: &Path, program: &str, args: &[&str]) -> Result<()> {
    let output =
        clean(program).args(args).current_dir(dir).output().with_context(|| format!("failed to run {program}"))?;
    ensure!(output.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// redis on its jemalloc: 20 000 keys set, half of them deleted, over its socket.
#[test]
fn redis_under_load_keeps_the_balance() -> Result<()> {
    let dir = TempDir::new()?;
    let socket = dir.path().join("redis.sock");
    let mut command = clean("/usr/bin/redis-server");
    command.args(["--port", "0", "--save", "", "--appendonly", "no", "--unixsocket"]).arg(&socket);
    command.current_dir(dir.path()).stdin(Stdio::null()).stdout(Stdio::piped());
    let mut server =
        memtrace_tests::Guard::spawn(&mut command).context("redis-server is missing (cargo xtask setup)")?;
    let mut log = std::io::BufReader::new(server.child_mut().stdout.take().context("stdout is a pipe")?);
    let mut line = String::new();
    while !line.contains("ready to accept connections") && !line.contains("The server is now ready") {
        line.clear();
        ensure!(std::io::BufRead::read_line(&mut log, &mut line)? > 0, "redis-server ended");
    }
    let tracing = Tracing::attach(server.pid(), &["--json", "-"])?;
    let mut client = UnixStream::connect(&socket)?;
    let sets = (0..20_000).map(|i| {
        let delete = if i % 2 == 0 { format!("DEL key:{i}\r\n") } else { String::new() };
        format!("SET key:{i} {}\r\n{delete}", "v".repeat(1 + i % 300))
    });
    let mut commands: String = sets.collect();
    commands.push_str("DBSIZE\r\n");
    let mut replies = client.try_clone()?;
    let writer = std::thread::spawn(move || client.write_all(commands.as_bytes()).map(|()| client));
    ensure!(reads_until(&mut replies, b":10000\r\n")?, "redis closed the connection");
    writer.join().expect("writing does not panic")?;
    tracing.signal(libc::SIGINT)?;
    let report: Report = serde_json::from_str(&tracing.finish()?.stdout)?;
    check_balance(&report)?;
    for loss in ["lost_returns", "missed_frees", "blocks_full", "threads_full", "stacks_full"] {
        let count = counter(&report, loss)?;
        ensure!(count == 0, "{loss}: {count}");
    }
    let totals = &report.totals;
    // A key, its value and its entry, for each of the 10 000 that stayed.
    ensure!(totals.current_count >= 20_000, "{totals:?}");
    ensure!(totals.allocated_count >= 60_000, "{totals:?}");
    println!("redis: {totals}");
    Ok(())
}

/// Reads replies up to the one that ends them.
fn reads_until(stream: &mut UnixStream, end: &[u8]) -> Result<bool> {
    stream.set_read_timeout(Some(memtrace_tests::TIME_OUT))?;
    let mut tail = Vec::new();
    let mut buffer = vec![0; 1 << 16];
    while !tail.ends_with(end) {
        let n = std::io::Read::read(stream, &mut buffer)?;
        if n == 0 {
            return Ok(false);
        }
        tail.extend(&buffer[..n]);
        tail.drain(..tail.len().saturating_sub(64));
    }
    Ok(true)
}
