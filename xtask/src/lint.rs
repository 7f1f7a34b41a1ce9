//! `cargo xtask lint`: formatting, and every lint of the workspace as an error. The borders between modules are held by
//! a test, `tracer-user/tests/borders.rs`.

use anyhow::Result;

use crate::exec::{cargo, run};

/// Checks; changes nothing.
pub fn main() -> Result<()> {
    run(cargo().args(["fmt", "--all", "--check"]))?;
    let clippy =
        ["clippy", "--locked", "--workspace", "--exclude", "tracer-ebpf", "--all-targets", "--", "-D", "warnings"];
    run(cargo().args(clippy))
}
