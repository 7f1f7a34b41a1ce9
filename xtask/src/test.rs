//! `cargo xtask test`: the three rings. Unit tests need no root; root tests trace real programs on this kernel; the
//! virtual machines run the core checks on other kernels.

use anyhow::{Context as _, Result, bail};

use crate::{
    exec::{cargo, run, say},
    run::build_tracer,
    setup::{self, What, is_root},
    vm::{self, Selection},
};

/// What `test` takes.
#[derive(clap::Args)]
pub struct Options {
    #[command(subcommand)]
    ring: Option<Ring>,
}

#[derive(clap::Subcommand)]
enum Ring {
    /// Tests without root.
    Unit,
    /// Tests on this kernel, with root and BPF.
    Root {
        /// For the test programs, for example a test's name.
        #[arg(last = true)]
        arguments: Vec<String>,
    },
    /// Checks on other kernels, in QEMU.
    Vm {
        /// Names from tests/vm/kernels.toml; without, all of them.
        kernels: Vec<String>,
    },
}

/// Runs one ring, or sets up and runs all of them: every ring runs, and any failure fails the whole.
pub fn main(options: &Options) -> Result<()> {
    match &options.ring {
        Some(Ring::Unit) => return unit(),
        Some(Ring::Root { arguments }) => return on_this_kernel(arguments),
        Some(Ring::Vm { kernels }) if kernels.is_empty() => return vm::main(&Selection::All),
        Some(Ring::Vm { kernels }) => return vm::main(&Selection::Named(kernels.clone())),
        None => {}
    }
    setup::ensure(What::All)?;
    // The root tests come last: their lines are those that one wants to see at the end.
    let rings = [("unit", unit()), ("vm", vm::main(&Selection::Ends)), ("root", on_this_kernel(&[]))];
    let failed: Vec<&str> = rings.iter().filter(|(_, outcome)| outcome.is_err()).map(|(ring, _)| *ring).collect();
    for (ring, outcome) in &rings {
        if let Err(error) = outcome {
            say(format!("{ring}: {error:#}"));
        }
    }
    if failed.is_empty() { Ok(()) } else { bail!("failed: {}", failed.join(", ")) }
}

fn unit() -> Result<()> {
    run(cargo().args(["test", "--locked", "--workspace", "--exclude", "tracer-ebpf", "--exclude", "memtrace-tests"]))
}

/// The tests of `tests/`, on the release build. Without root or BPF this fails with the reason: it never skips.
fn on_this_kernel(arguments: &[String]) -> Result<()> {
    if !is_root() {
        bail!("the root tests need root: run `sudo -E cargo xtask test root`");
    }
    let tracer = build_tracer()?;
    run(crate::exec::clean(&tracer).arg("doctor")).context("this host cannot trace")?;
    let mut test = cargo();
    test.args(["test", "--locked", "--no-fail-fast", "--package", "memtrace-tests", "--"])
        .args(arguments)
        .env("MEMTRACE_BPF", &tracer);
    run(&mut test)
}
