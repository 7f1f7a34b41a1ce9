//! A program that is measured: it says `ready`, then answers each line that it is sent with one line.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use anyhow::{Context as _, Result, bail};
use tracer_user::{
    options::{DEFAULT_MAX_LIVE_BLOCKS, Placement, SessionOptions},
    session::{Origin, Tracer},
    target::Process,
};

/// A running workload; killed when dropped.
pub struct Workload {
    child: Child,
    requests: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Workload {
    /// Starts it and waits until it is ready.
    pub fn start(command: &mut Command) -> Result<Self> {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().context("failed to start it")?;
        let requests = child.stdin.take().expect("stdin is a pipe");
        let answers = BufReader::new(child.stdout.take().expect("stdout is a pipe"));
        let mut workload = Self { child, requests, answers };
        match workload.answer()?.as_str() {
            "ready" => Ok(workload),
            answer => bail!("the workload said `{answer}` instead of `ready`"),
        }
    }

    /// Sends a line and waits for the answer.
    pub fn ask(&mut self, request: &str) -> Result<String> {
        writeln!(self.requests, "{request}")?;
        self.answer()
    }

    /// Attaches probes to it and begins tracing. They go when the tracer is dropped.
    pub fn trace(&self, placement: Placement) -> Result<Tracer> {
        let options =
            SessionOptions { max_live_blocks: DEFAULT_MAX_LIVE_BLOCKS, placement, ..SessionOptions::default() };
        let process = Process::open(self.child.id())?;
        let mut tracer = Tracer::prepare(process, Origin::Attached, &options, &|_| ())?;
        tracer.begin();
        Ok(tracer)
    }

    fn answer(&mut self) -> Result<String> {
        let mut line = String::new();
        if self.answers.read_line(&mut line)? == 0 {
            bail!("the workload ended");
        }
        Ok(line.trim().to_owned())
    }
}

impl Drop for Workload {
    fn drop(&mut self) {
        if let Err(error) = self.child.kill().and_then(|()| self.child.wait()) {
            eprintln!("memtrace-bench: failed to end the workload: {error}");
        }
    }
}
