//! Every total to the byte and the count, per line too, the peak included: one program a claim.

use std::ffi::OsStr;

use anyhow::{Context as _, Result, ensure};
use memtrace_tests::{Figure, Program, Report, Session, Truth, check_balance, check_stacks, counter};

/// Traces the program from its start and holds the report against what its source says.
fn check(program: &Program, args: &[&OsStr]) -> Result<Report> {
    let report = Session::new().run(program.build()?, args)?;
    Truth::of(program)?.check(&report)?;
    Ok(report)
}

fn check_c(name: &str) -> Result<()> {
    check(&Program::c(name), &[]).map(|_| ())
}

#[test]
fn one_thread_is_exact() -> Result<()> {
    check_c("single_thread")
}

#[test]
fn eight_threads_at_once_are_exact() -> Result<()> {
    check_c("eight_threads")
}

#[test]
fn figures_of_each_line_at_the_peak_are_exact() -> Result<()> {
    check_c("peak_by_line")
}

#[test]
fn realloc_counts_old_or_new_never_both() -> Result<()> {
    check_c("realloc_grow_shrink")
}

#[test]
fn realloc_of_a_mapped_block_is_one_step() -> Result<()> {
    check_c("realloc_mmapped")
}

#[test]
fn realloc_to_zero_frees() -> Result<()> {
    check_c("realloc_to_zero")
}

#[test]
fn failing_realloc_leaves_the_block() -> Result<()> {
    check_c("realloc_failing")
}

#[test]
fn realloc_of_null_allocates() -> Result<()> {
    check_c("realloc_of_null")
}

#[test]
fn reallocarray_is_one_call_and_its_overflow_fails() -> Result<()> {
    check_c("reallocarray")
}

#[test]
fn overflowing_calloc_fails() -> Result<()> {
    check_c("calloc_overflow")
}

#[test]
fn free_of_null_is_counted_and_changes_nothing() -> Result<()> {
    check_c("free_null")
}

#[test]
fn aligned_family_counts_the_size_asked_for() -> Result<()> {
    check_c("aligned")
}

#[test]
fn failing_aligned_family_counts_nothing() -> Result<()> {
    check_c("aligned_failing")
}

#[test]
fn sizes_zero_and_huge_are_exact() -> Result<()> {
    check_c("odd_sizes")
}

#[test]
fn constructors_before_main_and_destructors_after_it_are_seen() -> Result<()> {
    check_c("constructor")
}

#[test]
fn static_objects_of_cpp_are_seen() -> Result<()> {
    check(&Program::cpp("static_init"), &[]).map(|_| ())
}

#[test]
fn code_opened_with_dlopen_is_seen_from_its_constructor_on() -> Result<()> {
    let host = Program::c("dlopen_host");
    let library = Program::c("dlopen_library").library();
    let report = Session::new().run(host.build()?, &[library.build()?])?;
    Truth::of(&host)?.and(&library)?.check(&report)
}

#[test]
fn destructors_of_thread_keys_are_seen() -> Result<()> {
    check_c("thread_exit")
}

#[test]
fn destructors_of_thread_locals_are_seen() -> Result<()> {
    check(&Program::cpp("thread_local"), &[]).map(|_| ())
}

#[test]
fn exit_handlers_are_seen() -> Result<()> {
    check_c("at_exit")
}

#[test]
fn longjmp_between_allocations_changes_nothing() -> Result<()> {
    check_c("longjmp")
}

#[test]
fn allocations_of_a_forked_child_are_not_its_parents() -> Result<()> {
    let program = Program::c("fork");
    let alone = Session::new().option("--no-follow-children");
    Truth::of(&program)?.check(&alone.run::<&str>(program.build()?, &[])?)
}

#[test]
fn allocations_in_a_signal_handler_are_seen_with_the_interrupted_stack() -> Result<()> {
    let report = check(&Program::c("signal_handler"), &[])?;
    for handler in ["on_usr1", "on_usr2"] {
        outermost_is_start(&report, handler)?;
        let stat = report.stats.iter().find(|stat| stat.functions().contains(&handler));
        let functions = stat.with_context(|| format!("no line of {handler}"))?.functions();
        ensure!(functions.contains(&"main"), "{handler} was not called below main: {functions:?}");
    }
    Ok(())
}

#[test]
fn stacks_through_realigned_frames_are_complete() -> Result<()> {
    let report = check(&Program::c("realigned_stack"), &[])?;
    outermost_is_start(&report, "below_alloca")?;
    outermost_is_start(&report, "below_realigned")
}

#[test]
fn calls_through_the_lazy_plt_are_exact_and_complete() -> Result<()> {
    let lazy =
        Program::c("single_thread").variant("lazy", &["-Wl,-z,lazy", "-fno-pie", "-no-pie", "-fcf-protection=none"]);
    outermost_is_start(&check(&lazy, &[])?, "main")?;
    let with_cet = Program::c("single_thread").variant("lazy-cet", &["-Wl,-z,lazy", "-fcf-protection=full"]);
    outermost_is_start(&check(&with_cet, &[])?, "main")
}

/// `descend` stands n + 1 times in the chain; below it are main, libc's two start functions and `_start`.
#[test]
fn a_stack_of_120_frames_is_complete() -> Result<()> {
    let report = check(&Program::c("recursion"), &[OsStr::new("115")])?;
    outermost_is_start(&report, "descend")?;
    let frames = report.stats[0].traceback.len();
    ensure!(frames == 120, "{frames} frames");
    Ok(())
}

#[test]
fn a_stack_of_127_frames_is_complete() -> Result<()> {
    let report = check(&Program::c("recursion"), &[OsStr::new("122")])?;
    outermost_is_start(&report, "descend")?;
    let frames = report.stats[0].traceback.len();
    ensure!(frames == 127, "{frames} frames");
    Ok(())
}

#[test]
fn a_deeper_stack_is_cut_with_the_reason_and_counts_all_the_same() -> Result<()> {
    let program = Program::c("recursion");
    let report = Session::new().run(program.build()?, &["195"])?;
    let cut = counter(&report, "truncated_depth")?;
    ensure!(cut == 7, "{cut} stacks of 7 were cut");
    let [stat] = report.stats.as_slice() else { anyhow::bail!("{} lines", report.stats.len()) };
    let reason = stat.truncated.as_deref().context("no reason")?;
    ensure!(reason.contains("127 frames"), "the reason is `{reason}`");
    ensure!(stat.traceback.len() >= 127, "{} frames", stat.traceback.len());
    // Everything else is as if it were complete.
    let mut whole = report.clone();
    whole.counters.insert("truncated_depth".to_owned(), 0);
    Truth::of(&program)?.check(&whole)
}

/// The program keeps its own books, call by call, and prints them.
#[test]
fn random_calls_end_in_the_totals_of_the_programs_own_books() -> Result<()> {
    let path = Program::c("random_mix").build()?;
    for seed in ["1", "7919"] {
        let (report, output) = Session::new().run_with_output(&path, &[seed])?;
        let books = output.stdout.lines().find_map(|line| line.strip_prefix("truth: ")).context("no books")?;
        ensure!(report.totals.to_string() == books.trim(), "seed {seed}: {} is not {books}", report.totals);
        check_balance(&report)?;
        check_stacks(&report, "random_mix")?;
    }
    Ok(())
}

/// Moves and frees on other threads than the allocation's, all at once; each line of the program's is exact in sum.
#[test]
fn random_calls_of_eight_threads_end_in_the_programs_own_books() -> Result<()> {
    let no_args: [&str; 0] = [];
    let (report, output) = Session::new().run_with_output(Program::c("threads_mix").build()?, &no_args)?;
    let books = output.stdout.lines().find_map(|line| line.strip_prefix("truth: ")).context("no books")?;
    // pthread_create's own: one vector of thread-local storage a thread.
    let runtime = report.stats.iter().filter(|stat| stat.functions().contains(&"allocate_dtv"));
    let (made, live) = runtime.fold((Figure::default(), Figure::default()), |(made, live), stat| {
        (made + stat.allocated(), live + stat.live())
    });
    let allocated = report.totals.allocated() - made;
    let freed = report.totals.freed() - (made - live);
    let ours = format!(
        "allocated_bytes={} allocated_count={} freed_bytes={} freed_count={}",
        allocated.bytes, allocated.count, freed.bytes, freed.count
    );
    ensure!(ours == books.trim(), "{ours} is not {books}");
    for loss in ["lost_returns", "unpaired_returns", "missed_frees", "blocks_full", "threads_full", "reallocs_unknown"]
    {
        let count = counter(&report, loss)?;
        ensure!(count == 0, "{loss}: {count}");
    }
    check_balance(&report)?;
    check_stacks(&report, "threads_mix")
}

#[test]
fn programs_behind_exec_are_exact() -> Result<()> {
    let program = Program::c("single_thread");
    let path = program.build()?;
    let shown = path.to_string_lossy();
    let in_shell = format!("exec {shown}");
    for command in [vec!["/bin/sh", "-c", &in_shell], vec!["/usr/bin/env", "X=1", &shown]] {
        let session = Session::new().option("--no-follow-children");
        let report = session.run(command[0], &command[1..]).with_context(|| format!("{command:?}"))?;
        Truth::of(&program)?.check(&report).with_context(|| format!("{command:?}"))?;
    }
    Ok(())
}

#[test]
fn blocks_from_before_the_attach_are_counted_as_unknown() -> Result<()> {
    let program = Program::c("attach_midway");
    let no_args: [&str; 0] = [];
    let mut attached = Session::new().attach(program.build()?, &no_args)?;
    attached.go()?;
    Truth::of(&program)?.check(&attached.finish()?)
}

/// Blocks from before the attach, calls in flight at that moment, frees on another thread than the allocation's.
#[test]
fn attaching_to_busy_threads_leaves_nothing_behind() -> Result<()> {
    let no_args: [&str; 0] = [];
    let mut attached = Session::new().attach(Program::c("attach_busy").build()?, &no_args)?;
    attached.go()?;
    let report = attached.finish()?;
    check_balance(&report)?;
    check_stacks(&report, "attach_busy")?;
    // Of each thread one call may be in flight as tracing begins: only its return is seen, its block is one from before.
    let in_flight = counter(&report, "unpaired_returns")?;
    ensure!(in_flight <= 4, "{in_flight} returns of 4 threads without an entry");
    for loss in ["lost_returns", "missed_frees", "blocks_full", "threads_full", "reallocs_unknown"] {
        let count = counter(&report, loss)?;
        ensure!(count == 0, "{loss}: {count}");
    }
    ensure!(counter(&report, "frees_unknown")? > 0, "no block was from before the attach");
    // Each thread makes 5000 blocks after the attach for certain, how many more depends on when it came.
    ensure!(report.totals.allocated_count >= 20_000, "{:?}", report.totals);
    ensure!(report.totals.current().count == 0, "left over: {:?}", report.totals);
    Ok(())
}

/// The child is reaped after its last snapshot, so that its CPU time can be read.
#[test]
fn the_share_of_an_ended_childs_cpu_time_is_known() -> Result<()> {
    let no_args: [&str; 0] = [];
    let report = Session::new().run(Program::c("four_functions").build()?, &no_args)?;
    ensure!(report.overhead.estimated_share.is_some(), "{:?}", report.overhead);
    Ok(())
}

/// The traceback of the function's line ends at the program's entry.
fn outermost_is_start(report: &Report, function: &str) -> Result<()> {
    let stat = report.stats.iter().find(|stat| stat.functions().first() == Some(&function));
    let functions = stat.with_context(|| format!("no line of {function}"))?.functions();
    ensure!(functions.last() == Some(&"_start"), "the chain of {function} ends too early: {functions:?}");
    Ok(())
}
