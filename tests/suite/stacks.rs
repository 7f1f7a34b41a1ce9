//! Stacks are complete on distribution binaries, which have no frame pointers: of all walks at least 99.9 % end at a root.

use anyhow::Result;
use memtrace_tests::{GIT, JQ, PYTHON3, RealProgram, SQLITE3, Session, check_balance, check_stacks};
use tempfile::TempDir;

fn complete(program: &RealProgram) -> Result<()> {
    let dir = TempDir::new()?;
    program.prepare(dir.path())?;
    let report = Session::new().option("--key").option("traceback").dir(dir.path()).run(program.path, program.args)?;
    check_balance(&report)?;
    check_stacks(&report, program.path)
}

#[test]
fn stacks_of_python3_end_at_a_root() -> Result<()> {
    complete(&PYTHON3)
}

#[test]
fn stacks_of_sqlite3_end_at_a_root() -> Result<()> {
    complete(&SQLITE3)
}

#[test]
fn stacks_of_git_end_at_a_root() -> Result<()> {
    complete(&GIT)
}

#[test]
fn stacks_of_jq_end_at_a_root() -> Result<()> {
    complete(&JQ)
}

/// apt-cache, with libapt-pkg and libstdc++: C++ throughout.
#[test]
fn stacks_of_a_cpp_program_end_at_a_root() -> Result<()> {
    let report = Session::new().option("--key").option("traceback").run("/usr/bin/apt-cache", &["policy"])?;
    check_balance(&report)?;
    check_stacks(&report, "apt-cache policy")
}
