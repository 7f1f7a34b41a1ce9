//! `cargo xtask`: the project's own commands. Dispatches only; one file a command.

mod bench;
mod build_ebpf;
mod debs;
mod exec;
mod fuzz;
mod initrd;
mod libs;
mod lint;
mod manifest;
mod run;
mod setup;
mod test;
mod toolchain;
mod vm;
mod vm_log;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// The project's own commands.
#[derive(Parser)]
#[command(name = "cargo xtask")]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Install what is missing for building the BPF object and for the tests.
    Setup(setup::Options),
    /// Rebuild the kept BPF object and its manifest.
    BuildEbpf(build_ebpf::Options),
    /// Trace a small leaking program, or what the arguments after `--` say.
    Run(run::Options),
    /// Run all tests, or one ring of them.
    Test(test::Options),
    /// Measure, and keep the evidence in `bench/runs/`.
    Bench(bench::Options),
    /// Open mutated files, and keep what came of it in `fuzz/runs/`.
    Fuzz(fuzz::Options),
    /// Check formatting and lints.
    Lint,
}

fn main() -> ExitCode {
    let outcome = match Args::parse().command {
        Command::Setup(options) => setup::main(&options),
        Command::BuildEbpf(options) => build_ebpf::main(&options),
        Command::Run(options) => run::main(&options),
        Command::Test(options) => test::main(&options),
        Command::Bench(options) => bench::main(&options),
        Command::Fuzz(options) => fuzz::main(&options),
        Command::Lint => lint::main(),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            exec::say(format!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}
