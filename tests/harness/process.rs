//! Processes that the no-harm and bad-input tests need: targets that wait for a word, tracers that refuse, and a look at
//! whether a target is as it was.

use std::{
    ffi::OsStr,
    fs::{self, File},
    io::{BufRead as _, BufReader, Write as _},
    os::unix::fs::FileExt as _,
    path::Path,
    process::{ChildStdout, Command, Stdio},
    sync::mpsc,
    time::Instant,
};

use anyhow::{Context as _, Result, ensure};

use crate::{
    guard::{Guard, Output, TIME_OUT, piped},
    programs::tracer,
    session::clean,
};

/// A program that says `ready` and then waits for its stdin. Killed when dropped.
#[derive(Debug)]
pub struct Target {
    guard: Guard,
    said: BufReader<ChildStdout>,
}

impl Target {
    /// Starts it, and comes back when it is ready.
    pub fn start<A: AsRef<OsStr>>(program: &Path, args: &[A]) -> Result<Self> {
        Self::spawn(clean(program).args(args))
    }

    /// Starts it by a command of one's own.
    pub fn spawn(command: &mut Command) -> Result<Self> {
        let command = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit());
        let mut guard = Guard::spawn(command)?;
        let said = BufReader::new(guard.child_mut().stdout.take().context("stdout is a pipe")?);
        let mut target = Self { guard, said };
        let first = target.hear()?;
        ensure!(first == "ready", "the program said `{first}` instead of `ready`");
        Ok(target)
    }

    /// Its id.
    pub fn pid(&self) -> u32 {
        self.guard.pid()
    }

    /// Lets it go on by a line on its stdin.
    pub fn go(&mut self) -> Result<()> {
        self.say("")
    }

    /// Writes a line to its stdin.
    pub fn say(&mut self, line: &str) -> Result<()> {
        let stdin = self.guard.child_mut().stdin.as_mut().context("stdin is a pipe")?;
        stdin.write_all(format!("{line}\n").as_bytes())?;
        Ok(())
    }

    /// Tells it a line, and waits until it says the line back.
    pub fn step(&mut self, line: &str) -> Result<()> {
        // In one write: a program may take what one read gives for the line.
        let stdin = self.guard.child_mut().stdin.as_mut().context("stdin is a pipe")?;
        stdin.write_all(format!("{line}\n").as_bytes())?;
        let said = self.hear()?;
        ensure!(said == line, "told `{line}`, it says `{said}`");
        Ok(())
    }

    /// The next line that it says; empty at the end of its output.
    pub fn hear(&mut self) -> Result<String> {
        let mut line = String::new();
        self.said.read_line(&mut line)?;
        Ok(line.trim_end().to_owned())
    }

    /// Ends its input, and waits for its last line and its status.
    pub fn end(mut self) -> Result<(String, Output)> {
        drop(self.guard.child_mut().stdin.take());
        let last = self.hear()?;
        Ok((last, self.guard.finish()?))
    }

    /// Waits for its next line and its status without ending its input.
    pub fn outlive(mut self) -> Result<(String, Output)> {
        let input = self.guard.child_mut().stdin.take();
        let last = self.hear()?;
        let output = self.guard.finish()?;
        drop(input);
        Ok((last, output))
    }

    /// Kills it and waits until it is gone. Its pipes stay.
    pub fn kill(&mut self) -> Result<()> {
        let child = self.guard.child_mut();
        child.kill()?;
        // `wait` closes the input, which others may share.
        let input = child.stdin.take();
        child.wait()?;
        child.stdin = input;
        Ok(())
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: i32) -> Result<()> {
        send(self.pid(), signal)
    }
}

/// A tracer that has begun to trace a process. Its report goes to stdout.
#[derive(Debug)]
pub struct Tracing {
    guard: Guard,
    log: mpsc::Receiver<String>,
}

impl Tracing {
    /// Attaches to a process, and comes back when tracing has begun.
    pub fn attach<A: AsRef<OsStr>>(pid: u32, options: &[A]) -> Result<Self> {
        let mut command = clean(tracer()?);
        command.args(["--verbose", "--pid", &pid.to_string()]).args(options);
        let tracing = Self::spawn(piped(&mut command))?;
        tracing.await_log("tracing pid")?;
        Ok(tracing)
    }

    /// Starts a tracer by a command of one's own, with its log (`--verbose`) in a pipe.
    pub fn spawn(command: &mut Command) -> Result<Self> {
        let mut guard = Guard::spawn(command)?;
        let stderr = BufReader::new(guard.child_mut().stderr.take().context("stderr is a pipe")?);
        let (sender, log) = mpsc::channel();
        // Read to its end, so that the tracer never waits for a full pipe.
        std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                eprintln!("tracer: {line}");
                // The test may be over.
                sender.send(line).ok();
            }
        });
        Ok(Self { guard, log })
    }

    /// Waits for a line of its log that contains `text`; those before it are forgotten. The line.
    pub fn await_log(&self, text: &str) -> Result<String> {
        let until = Instant::now() + TIME_OUT;
        let mut before = String::new();
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let line = self.log.recv_timeout(left).with_context(|| format!("no `{text}` after:\n{before}"))?;
            if line.contains(text) {
                return Ok(line);
            }
            before.push_str(&line);
            before.push('\n');
        }
    }

    /// Its own id.
    pub fn pid(&self) -> u32 {
        self.guard.pid()
    }

    /// Its stdout, where one wants to read it oneself.
    pub fn take_stdout(&mut self) -> Option<ChildStdout> {
        self.guard.child_mut().stdout.take()
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: i32) -> Result<()> {
        send(self.pid(), signal)
    }

    /// Waits for its end.
    pub fn finish(self) -> Result<Output> {
        self.guard.finish()
    }
}

/// Runs the tracer to its end with these arguments.
pub fn trace<A: AsRef<OsStr>>(arguments: &[A]) -> Result<Output> {
    Guard::spawn(piped(clean(tracer()?).args(arguments)))?.finish()
}

/// Holds what must be true of every refusal: this exit code, nothing on stdout, one line on stderr. Returns the line.
pub fn check_refusal(output: &Output, code: i32) -> Result<&str> {
    let Output { status, stdout, stderr } = output;
    ensure!(status.code() == Some(code), "ended with {status} instead of {code}: {stderr}");
    ensure!(stdout.is_empty(), "wrote to stdout: {stdout}");
    let line = stderr.strip_suffix('\n').with_context(|| format!("no line on stderr: `{stderr}`"))?;
    ensure!(line.starts_with("memtrace-bpf: ") && !line.contains('\n'), "not one clear line: `{stderr}`");
    Ok(line)
}

/// Compares the code that a process runs with the files that it comes from: a breakpoint that stayed behind would differ.
/// Returns how many bytes were the same.
pub fn check_code_is_as_in_files(pid: u32) -> Result<usize> {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps"))?;
    let memory = File::open(format!("/proc/{pid}/mem"))?;
    let mut same = 0;
    for map in maps.lines() {
        let fields: Vec<&str> = map.split_whitespace().collect();
        let [range, protection, offset, _, inode, path, ..] = fields[..] else { continue };
        if !protection.contains('x') || inode == "0" {
            continue;
        }
        let (start, end) = range.split_once('-').context("a range of addresses")?;
        let (start, end) = (u64::from_str_radix(start, 16)?, u64::from_str_radix(end, 16)?);
        let mut in_memory = vec![0; (end - start) as usize];
        memory.read_exact_at(&mut in_memory, start)?;
        let mut in_file = vec![0; in_memory.len()];
        // The links of static programs have no leading zeros where the list of mappings has some.
        let file = File::open(format!("/proc/{pid}/map_files/{start:x}-{end:x}"))?;
        let n_read = read_at_most(&file, &mut in_file, u64::from_str_radix(offset, 16)?)?;
        if let Some(at) = (0..n_read).find(|&at| in_memory[at] != in_file[at]) {
            let found = in_memory[at];
            anyhow::bail!("{path}: {found:#04x} instead of {:#04x} at {:#x}", in_file[at], start + at as u64);
        }
        same += n_read;
    }
    ensure!(same > 0, "pid {pid} runs no file");
    Ok(same)
}

/// The last page of a mapping may reach past the end of its file.
fn read_at_most(file: &File, bytes: &mut [u8], offset: u64) -> Result<usize> {
    let mut filled = 0;
    while filled < bytes.len() {
        match file.read_at(&mut bytes[filled..], offset + filled as u64)? {
            0 => break,
            n => filled += n,
        }
    }
    Ok(filled)
}

/// Ids of the processes that a process started and has not reaped.
pub fn children(pid: u32) -> Result<Vec<u32>> {
    let ids = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))?;
    ids.split_whitespace().map(|id| Ok(id.parse()?)).collect()
}

/// A field of `/proc/PID/status` in KiB.
pub fn status_kib(pid: u32, field: &str) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    let kib = line.and_then(|rest| rest.trim().strip_suffix(" kB")).with_context(|| format!("no {field}"))?;
    Ok(kib.parse()?)
}

/// Sends a signal to a process that a test started.
pub fn send(pid: u32, signal: i32) -> Result<()> {
    // SAFETY: a system call on a process that was started here and is not reaped.
    let outcome = unsafe { libc::kill(pid as libc::pid_t, signal) };
    ensure!(outcome == 0, "kill({pid}, {signal}): {}", std::io::Error::last_os_error());
    Ok(())
}
