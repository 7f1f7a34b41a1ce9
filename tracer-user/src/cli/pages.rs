//! What is made from the description of the command line: manual pages and shell completions.

use std::{
    fs,
    io::{self, Write as _},
    path::PathBuf,
};

use anyhow::Context as _;
use clap::{Args, Command};
use clap_complete::Shell;

/// What `completions` takes.
#[derive(Debug, Args)]
pub struct CompletionsArgs {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

/// What `man` takes.
#[derive(Debug, Args)]
pub struct ManArgs {
    /// Write a page for each command into this folder; without it the main page goes to standard output
    dir: Option<PathBuf>,
}

/// A page, or all of them, to be written.
#[derive(Debug)]
pub enum Pages {
    /// A completion script, to standard output.
    Completions(CompletionsArgs),
    /// Manual pages.
    Man(ManArgs),
}

impl Pages {
    /// Writes them.
    ///
    /// # Errors
    /// The output cannot be written.
    pub fn write(&self, mut command: Command) -> anyhow::Result<()> {
        match self {
            Self::Completions(CompletionsArgs { shell }) => {
                let mut script = Vec::new();
                clap_complete::generate(*shell, &mut command, "memtrace-bpf", &mut script);
                print(&if *shell == Shell::Bash { with_one_name(&script) } else { script })
            }
            Self::Man(ManArgs { dir: None }) => {
                let mut page = Vec::new();
                clap_mangen::Man::new(command).render(&mut page).context("failed to make the page")?;
                print(&page)
            }
            Self::Man(ManArgs { dir: Some(dir) }) => {
                let name = dir.display();
                fs::create_dir_all(dir).with_context(|| format!("failed to make `{name}`"))?;
                clap_mangen::generate_to(command, dir).with_context(|| format!("failed to write to `{name}`"))
            }
        }
    }
}

/// clap_complete spells a program with `-` in its name otherwise where it sets the command than where it looks for it: only the
/// main command would be completed.
fn with_one_name(script: &[u8]) -> Vec<u8> {
    String::from_utf8_lossy(script).replace("memtrace__subcmd__bpf", "memtrace__bpf").into_bytes()
}

/// A reader that has gone away is no error.
fn print(bytes: &[u8]) -> anyhow::Result<()> {
    match io::stdout().write_all(bytes) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(error).context("failed to write to standard output")
        }
        _ => Ok(()),
    }
}
