//! The same numbers as heaptrack's and valgrind's on real deterministic programs.
//!
//! heaptrack's raw events are summed here, to the byte. The one difference, on every program: heaptrack's own library brings
//! libstdc++ into the process, whose first act is to allocate its emergency pool of [`EMERGENCY_POOL`]. It is heaptrack's first
//! event, live at the peak, and given back before heaptrack closes its record (`__gnu_cxx::__freeres`).

use anyhow::{Result, ensure};
use memtrace_tests::{
    Figure, GIT, JQ, PYTHON3, RealProgram, SQLITE3, Session, check_balance, counter, heaptrack, valgrind,
};
use tempfile::TempDir;

/// libstdc++ 12 to 15 on 64 bit (libsupc++/eh_alloc.cc): room for 64 exceptions in flight and their headers.
const EMERGENCY_POOL: Figure = Figure::new(72_704, 1);

fn same_as_heaptrack(program: &RealProgram) -> Result<()> {
    let dir = TempDir::new()?;
    program.prepare(dir.path())?;
    let report = Session::new().dir(dir.path()).run(program.path, program.args)?;
    let theirs = heaptrack(program.path, program.args, dir.path())?;
    check_balance(&report)?;
    for loss in ["blocks_full", "lost_returns", "unpaired_returns", "missed_frees", "threads_full", "out_unreadable"] {
        ensure!(counter(&report, loss)? == 0, "{loss}: {}", counter(&report, loss)?);
    }
    let ours = &report.totals;
    println!("{}: allocated {:?} peak {:?} leaked {:?}", program.path, ours.allocated(), ours.peak(), ours.current());
    ensure!(theirs.allocations[0] == EMERGENCY_POOL.bytes, "heaptrack's first event is {} B", theirs.allocations[0]);
    for (what, ours, theirs) in [
        ("allocated", ours.allocated(), theirs.allocated - EMERGENCY_POOL),
        ("peak", ours.peak(), theirs.peak - EMERGENCY_POOL),
        ("leaked", ours.current(), theirs.live),
    ] {
        ensure!(ours == theirs, "{what}: the report says {ours:?}, heaptrack without libstdc++'s pool {theirs:?}");
    }
    Ok(())
}

/// `extra_bytes`: what the program allocates more because it runs under valgrind.
fn same_as_valgrind(program: &RealProgram, extra_bytes: u64) -> Result<()> {
    let dir = TempDir::new()?;
    program.prepare(dir.path())?;
    let report = Session::new().dir(dir.path()).run(program.path, program.args)?;
    let theirs = valgrind(program.path, program.args, dir.path())? - Figure::new(extra_bytes, 0);
    let ours = report.totals.allocated();
    ensure!(ours == theirs, "the report says {ours:?}, valgrind {theirs:?}");
    Ok(())
}

#[test]
fn sqlite3_has_the_totals_that_heaptrack_sees() -> Result<()> {
    same_as_heaptrack(&SQLITE3)
}

#[test]
fn jq_has_the_totals_that_heaptrack_sees() -> Result<()> {
    same_as_heaptrack(&JQ)
}

#[test]
fn git_has_the_totals_that_heaptrack_sees() -> Result<()> {
    same_as_heaptrack(&GIT)
}

#[test]
fn python3_has_the_totals_that_heaptrack_sees() -> Result<()> {
    same_as_heaptrack(&PYTHON3)
}

#[test]
fn sqlite3_allocates_what_valgrind_sees() -> Result<()> {
    same_as_valgrind(&SQLITE3, 0)
}

#[test]
fn jq_allocates_what_valgrind_sees() -> Result<()> {
    same_as_valgrind(&JQ, 0)
}

/// git calls setenv three times, and glibc copies the whole `environ` each time (8 B a variable): valgrind adds five.
#[test]
fn git_allocates_what_valgrind_sees() -> Result<()> {
    same_as_valgrind(&GIT, 3 * 5 * 8)
}
