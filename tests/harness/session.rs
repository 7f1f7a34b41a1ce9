//! One run of the tracer: on a program that it starts, or on one that runs already.

use std::{
    ffi::{OsStr, OsString},
    fs,
    io::{BufRead as _, BufReader, Write as _},
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail, ensure};
use tempfile::TempDir;

use crate::{
    guard::{Guard, Output, piped},
    programs::tracer,
    report::Report,
};

/// A session with the tracer, and the environment of what is traced.
#[derive(Debug, Default)]
pub struct Session {
    options: Vec<OsString>,
    env: Vec<(OsString, OsString)>,
    dir: Option<std::path::PathBuf>,
}

impl Session {
    /// With the tracer's defaults and the environment of [`clean`].
    pub fn new() -> Self {
        Self::default()
    }

    /// An option for the tracer.
    #[must_use]
    pub fn option(mut self, option: impl AsRef<OsStr>) -> Self {
        self.options.push(option.as_ref().to_owned());
        self
    }

    /// A variable for tracer and program.
    #[must_use]
    pub fn env(mut self, key: &str, value: impl AsRef<OsStr>) -> Self {
        self.env.push((key.into(), value.as_ref().to_owned()));
        self
    }

    /// The working directory.
    #[must_use]
    pub fn dir(mut self, dir: &Path) -> Self {
        self.dir = Some(dir.to_owned());
        self
    }

    fn command(&self, program: &OsStr) -> Command {
        let mut command = clean(program);
        command.envs(self.env.iter().map(|(key, value)| (key, value)));
        if let Some(dir) = &self.dir {
            command.current_dir(dir);
        }
        command
    }

    /// Traces a program from start to end; it must exit with 0.
    pub fn run<A: AsRef<OsStr>>(&self, program: impl AsRef<OsStr>, args: &[A]) -> Result<Report> {
        let (report, output) = self.run_with_output(program, args)?;
        ensure!(output.status.success(), "the program failed ({}):\n{}", output.status, output.stderr);
        Ok(report)
    }

    /// Traces a program from start to end; with what it wrote, and its status.
    pub fn run_with_output<A: AsRef<OsStr>>(&self, program: impl AsRef<OsStr>, args: &[A]) -> Result<(Report, Output)> {
        let scratch = TempDir::new()?;
        let json = scratch.path().join("report.json");
        let mut command = self.command(tracer()?.as_os_str());
        command.args(["run", "--quiet", "--json"]).arg(&json).args(&self.options);
        command.arg("--").arg(program).args(args);
        let output = Guard::spawn(piped(&mut command))?.finish()?;
        Ok((read(&json, &output)?, output))
    }

    /// Starts a program that says `ready` on stdout and then waits for its stdin, attaches to it, and comes back when tracing
    /// has begun.
    pub fn attach<A: AsRef<OsStr>>(&self, program: impl AsRef<OsStr>, args: &[A]) -> Result<Attached> {
        let mut target_command = self.command(program.as_ref());
        target_command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit());
        let mut target = Guard::spawn(&mut target_command)?;
        let mut said = BufReader::new(target.child_mut().stdout.take().context("stdout is a pipe")?);
        expect_line(&mut said, "ready").context("the program did not get ready")?;

        let scratch = TempDir::new()?;
        let mut command = clean(tracer()?);
        command
            .args(["--verbose", "--pid", &target.pid().to_string(), "--json"])
            .arg(scratch.path().join("report.json"));
        command.args(&self.options).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut session = Guard::spawn(&mut command)?;
        let mut log = BufReader::new(session.child_mut().stderr.take().context("stderr is a pipe")?);
        expect_line(&mut log, "tracing pid").context("tracing did not begin")?;
        // Read on, so that the tracer never waits for a full pipe.
        std::thread::spawn(move || log.lines().map_while(Result::ok).for_each(|line| eprintln!("tracer: {line}")));
        Ok(Attached { target, said, session, scratch })
    }
}

/// A running program that is being traced.
#[derive(Debug)]
pub struct Attached {
    target: Guard,
    said: BufReader<std::process::ChildStdout>,
    session: Guard,
    scratch: TempDir,
}

impl Attached {
    /// The program's id.
    pub fn target_pid(&self) -> u32 {
        self.target.pid()
    }

    /// Lets the program go on by a line on its stdin.
    pub fn go(&mut self) -> Result<()> {
        self.target.child_mut().stdin.as_mut().context("stdin is a pipe")?.write_all(b"go\n")?;
        Ok(())
    }

    /// Waits until the program has written a line that contains `text`.
    pub fn await_line(&mut self, text: &str) -> Result<()> {
        expect_line(&mut self.said, text)
    }

    /// Lets both end: the program by the end of its stdin, the tracer because the program ended.
    pub fn finish(self) -> Result<Report> {
        self.end_with(0)
    }

    /// Likewise, for a program that ends with another status than 0.
    pub fn end_with(self, code: i32) -> Result<Report> {
        let Self { target, said, session, scratch } = self;
        let ended = target.finish()?;
        drop(said);
        ensure!(ended.status.code() == Some(code), "the program failed ({})", ended.status);
        let output = session.finish()?;
        read(&scratch.path().join("report.json"), &output)
    }
}

fn expect_line(lines: &mut impl std::io::BufRead, text: &str) -> Result<()> {
    let mut before = String::new();
    loop {
        let mut line = String::new();
        if lines.read_line(&mut line)? == 0 {
            bail!("ended without `{text}`; it said:\n{before}");
        }
        if line.contains(text) {
            return Ok(());
        }
        before.push_str(&line);
    }
}

fn read(json: &Path, output: &Output) -> Result<Report> {
    let text = fs::read_to_string(json).unwrap_or_default();
    ensure!(!text.is_empty(), "the tracer left no report ({}): {}", output.status, output.stderr);
    let report: Report = serde_json::from_str(&text).context("the report is not as docs/json.md says")?;
    ensure!(report.schema == 1, "schema {}", report.schema);
    Ok(report)
}

/// A command with a small environment that is the same on every machine: what a program allocates may depend on it.
pub fn clean(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    command.env_clear();
    command.envs([("PATH", "/usr/bin:/bin"), ("HOME", "/nonexistent"), ("LC_ALL", "C"), ("TZ", "UTC")]);
    command
}
