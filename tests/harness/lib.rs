//! Harness for the root tests: builds the test programs, runs the tracer on them and holds its figures against the truth.
//!
//! A program states its truth in comments ([`Truth`]), a session gives a [`Report`], and [`Truth::check`] compares them
//! and closes the balance. Nothing here waits by sleeping: programs and tracer hand over through pipes.

mod balance;
mod c_library;
mod cgroups;
pub mod docker;
pub mod docs;
mod guard;
pub mod many;
mod oracle;
pub mod podman;
pub mod process;
mod programs;
mod real;
mod recording;
mod report;
mod session;
pub mod terminal;
mod truth;

pub use balance::{check_balance, check_mapping_balance, check_stacks, counter, walks_at_a_root};
pub use c_library::sites_of_libc;
pub use cgroups::Cgroups;
pub use guard::{Guard, Output, TIME_OUT, piped};
pub use oracle::{HeaptrackEvents, heaptrack, valgrind};
pub use programs::{Program, copy_program, root, target_dir, tracer};
pub use real::{GIT, JQ, PYTHON3, RealProgram, SQLITE3};
pub use recording::{names_of_snapshots, recording};
pub use report::{Figure, Frame, Overhead, Report, Stat, Totals};
pub use session::{Attached, Session, clean};
pub use truth::Truth;
