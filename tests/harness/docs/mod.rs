//! The examples of the documentation: blocks of a markdown file, the shell that runs them, and what their output is compared
//! with.
//!
//! | fence | what becomes of it |
//! |---|---|
//! | `console` | every line `$ COMMAND` is run; the lines below it, if any, are what it prints (both streams) |
//! | `console exit=3` | its last command ends with that status |
//! | `console exact` | figures count: without this every number stands for any other |
//! | `sh` | is not run: only commands that set up ([`SETUP`]) |
//! | `yaml` and other data | shown only; must hold no `$ COMMAND` |
//!
//! A line `...` stands for any lines, `...` within a line for any text. Anything else fails: a block is never skipped.

mod compare;
mod shell;

use std::{fs, path::Path};

use anyhow::{Context as _, Result, bail, ensure};

pub use compare::compare;
pub use shell::Shell;

/// Fences that show data.
const DATA: [&str; 9] = ["text", "yaml", "json", "c", "rust", "python", "toml", "markdown", "xml"];

/// How the commands of a `sh` block begin: they install or build, and need a network or minutes, or a service of the host's.
pub const SETUP: [&str; 10] = [
    "sudo apt-get ",
    "apt-get ",
    "cargo xtask ",
    "cargo build",
    "cargo install",
    "git clone ",
    "curl ",
    "sudo install ",
    "docker build ",
    "docker run ",
];

/// A fenced block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// Line of its fence, from 1.
    pub line: usize,
    /// What it is.
    pub content: Content,
}

/// What a block holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// Commands to run.
    Console {
        /// In their order.
        steps: Vec<Step>,
        /// Numbers are compared as well.
        exact: bool,
    },
    /// Text of another kind: its fence, and the text.
    Data(String, String),
}

/// A command and what it does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// Its line, from 1.
    pub line: usize,
    /// What is typed; lines that end with a backslash are joined.
    pub command: String,
    /// What is shown; empty: it is not compared.
    pub output: Vec<String>,
    /// Its exit status.
    pub exit: i32,
}

/// The blocks of a markdown file.
///
/// # Errors
/// A block is none of the kinds above.
pub fn blocks(path: &Path) -> Result<Vec<Block>> {
    let text = fs::read_to_string(path).with_context(|| format!("failed to read `{}`", path.display()))?;
    blocks_of(&text).with_context(|| path.display().to_string())
}

fn blocks_of(text: &str) -> Result<Vec<Block>> {
    let mut blocks = Vec::new();
    let mut lines = (1..).zip(text.lines());
    while let Some((line, text)) = lines.next() {
        let Some(fence) = text.trim_start().strip_prefix("```") else { continue };
        let mut body = Vec::new();
        loop {
            let (at, text) = lines.next().with_context(|| format!("line {line}: the block has no end"))?;
            if text.trim() == "```" {
                break;
            }
            body.push((at, text));
        }
        let content = content(fence.trim(), &body).with_context(|| format!("line {line}"))?;
        blocks.push(Block { line, content });
    }
    Ok(blocks)
}

fn content(fence: &str, body: &[(usize, &str)]) -> Result<Content> {
    let mut words = fence.split_whitespace();
    let kind = words.next().context("a block without a kind (```text shows data)")?;
    if kind == "console" {
        return console(words, body);
    }
    if kind == "sh" {
        for (line, command) in body {
            let command = command.trim();
            let allowed =
                command.is_empty() || command.starts_with('#') || SETUP.iter().any(|set| command.starts_with(set));
            ensure!(allowed, "line {line}: `{command}` is no set-up: in a `console` block it would be run");
        }
    } else {
        ensure!(DATA.contains(&kind), "unknown kind `{kind}`");
        for (line, text) in body {
            ensure!(!text.trim_start().starts_with("$ "), "line {line}: a command in a `{kind}` block is not run");
        }
    }
    ensure!(words.next().is_none(), "`{fence}`: only `console` takes options");
    Ok(Content::Data(kind.to_owned(), body.iter().flat_map(|(_, text)| [text, "\n"]).collect()))
}

fn console<'a>(options: impl Iterator<Item = &'a str>, body: &[(usize, &str)]) -> Result<Content> {
    let (mut exact, mut exit) = (false, 0);
    for option in options {
        match option.split_once('=') {
            Some(("exit", status)) => exit = status.parse().with_context(|| format!("`{option}`"))?,
            None if option == "exact" => exact = true,
            _ => bail!("unknown option `{option}` of `console`"),
        }
    }
    let mut steps: Vec<Step> = Vec::new();
    let mut continued = false;
    for (line, text) in body {
        if continued {
            let step = steps.last_mut().expect("a command came before");
            step.command.push(' ');
            step.command.push_str(text.trim());
        } else if let Some(command) = text.strip_prefix("$ ") {
            steps.push(Step { line: *line, command: command.trim().to_owned(), output: Vec::new(), exit: 0 });
        } else {
            let step = steps.last_mut().with_context(|| format!("line {line}: output without a `$ COMMAND`"))?;
            step.output.push((*text).to_owned());
            continue;
        }
        let step = steps.last_mut().expect("just pushed or continued");
        continued = step.command.ends_with('\\');
        if continued {
            step.command.pop();
            step.command.truncate(step.command.trim_end().len());
        }
    }
    steps.last_mut().context("no `$ COMMAND` in a `console` block")?.exit = exit;
    Ok(Content::Console { steps, exact })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error_of(text: &str) -> String {
        format!("{:#}", blocks_of(text).expect_err("the block is wrong"))
    }

    #[test]
    fn commands_have_their_output_and_the_last_one_the_status() {
        let text = "x\n```console exit=3 exact\n$ a \\\n    b\none\ntwo\n$ c # d\n```\n";
        let blocks = blocks_of(text).expect("well-formed");
        let step = |line, command: &str, output: &[&str], exit| Step {
            line,
            command: command.to_owned(),
            output: output.iter().map(|&line| line.to_owned()).collect(),
            exit,
        };
        let steps = vec![step(3, "a b", &["one", "two"], 0), step(7, "c # d", &[], 3)];
        assert_eq!(blocks, [Block { line: 2, content: Content::Console { steps, exact: true } }]);
    }

    #[test]
    fn nothing_is_skipped_for_being_unknown() {
        assert!(error_of("```\nx\n```\n").contains("without a kind"));
        assert!(error_of("```shell\nx\n```\n").contains("unknown kind `shell`"));
        assert!(error_of("```console quick\n$ x\n```\n").contains("unknown option `quick`"));
        assert!(error_of("```console\nx\n```\n").contains("output without"));
        assert!(error_of("```console\n```\n").contains("no `$ COMMAND`"));
        assert!(error_of("```text\n$ memtrace-bpf doctor\n```\n").contains("is not run"));
        assert!(error_of("```sh\nmemtrace-bpf doctor\n```\n").contains("is no set-up"));
        assert!(error_of("```sh\nsudo memtrace-bpf --pid 1\n```\n").contains("is no set-up"));
        assert!(error_of("```console\n$ x\n").contains("has no end"));
        assert!(blocks_of("```sh\n# once\nsudo apt-get install gcc\n```\n").is_ok());
    }
}
