//! `cargo xtask`: the project's own commands. Dispatches only; one file a command.

mod build_ebpf;
mod exec;
mod manifest;
mod toolchain;

use anyhow::Result;
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
    /// Rebuild the kept BPF object and its manifest.
    BuildEbpf(build_ebpf::Options),
}

fn main() -> Result<()> {
    match Args::parse().command {
        Command::BuildEbpf(options) => build_ebpf::main(&options),
    }
}
