//! A process that a test started: read to its end within a time, killed by its id if the test is over before.

use std::{
    fs, io,
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};

/// Ends a test that hangs; nothing is paced by it.
pub const TIME_OUT: Duration = Duration::from_secs(120);

/// Kills and reaps its process when it goes.
#[derive(Debug)]
pub struct Guard {
    child: Child,
    name: String,
}

/// What an ended process left.
#[derive(Debug)]
pub struct Output {
    /// Its exit status.
    pub status: ExitStatus,
    /// What it wrote to stdout, if that was a pipe still in its place.
    pub stdout: String,
    /// What it wrote to stderr, likewise.
    pub stderr: String,
}

impl Guard {
    /// Starts a process.
    pub fn spawn(command: &mut Command) -> Result<Self> {
        let name = command.get_program().to_string_lossy().into_owned();
        let child = command.spawn().with_context(|| format!("failed to start `{name}`"))?;
        Ok(Self { child, name })
    }

    /// Its id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The process, to take its pipes.
    pub fn child_mut(&mut self) -> &mut Child {
        &mut self.child
    }

    /// Waits for its end and reads what it wrote.
    ///
    /// # Errors
    /// It did not end within [`TIME_OUT`].
    pub fn finish(mut self) -> Result<Output> {
        drop(self.child.stdin.take());
        let stdout = self.child.stdout.take().map(|pipe| thread::spawn(move || read_all(pipe)));
        let stderr = self.child.stderr.take().map(|pipe| thread::spawn(move || read_all(pipe)));
        let status = self.wait()?;
        let text = |reader: Option<thread::JoinHandle<Vec<u8>>>| {
            let bytes = reader.map(|reader| reader.join().expect("reading a pipe does not panic")).unwrap_or_default();
            String::from_utf8_lossy(&bytes).into_owned()
        };
        Ok(Output { status, stdout: text(stdout), stderr: text(stderr) })
    }

    fn wait(&mut self) -> Result<ExitStatus> {
        let pid = self.pid();
        let (sender, ended) = mpsc::channel();
        // Waits without reaping, so that the id stays this process's until `child.wait` below.
        thread::spawn(move || {
            // SAFETY: `info` is a place for waitid to write to.
            unsafe {
                let mut info: libc::siginfo_t = std::mem::zeroed();
                libc::waitid(libc::P_PID, pid, &raw mut info, libc::WEXITED | libc::WNOWAIT);
            }
            // The receiver may have given up.
            sender.send(()).ok();
        });
        if ended.recv_timeout(TIME_OUT).is_err() {
            bail!("`{}` (pid {pid}) did not end within {} s", self.name, TIME_OUT.as_secs());
        }
        self.child.wait().with_context(|| format!("failed to wait for `{}`", self.name))
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            let pid = self.pid();
            // A killed tracer leaves its own child running.
            for child in fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))
                .unwrap_or_default()
                .split_whitespace()
                .filter_map(|child| child.parse().ok())
            {
                // SAFETY: a system call on a descendant of a process that was started here.
                unsafe { libc::kill(child, libc::SIGKILL) };
            }
            self.child.kill().ok();
            self.child.wait().ok();
        }
    }
}

fn read_all(mut pipe: impl io::Read) -> Vec<u8> {
    let mut bytes = Vec::new();
    pipe.read_to_end(&mut bytes).ok();
    bytes
}

/// A command with nothing on its stdin and pipes for what it writes.
pub fn piped(command: &mut Command) -> &mut Command {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped())
}
