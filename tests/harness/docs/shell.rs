//! One shell for the commands of a document, in a folder of its own.

use std::{
    ffi::OsString,
    fs,
    io::{BufRead as _, BufReader, Write as _},
    path::{Path, PathBuf},
    process::{ChildStdin, Stdio},
    sync::mpsc::{Receiver, channel},
    thread,
};

use anyhow::{Context as _, Result, bail, ensure};

use crate::{
    guard::{Guard, TIME_OUT},
    session::clean,
};

/// Stands between the outputs of two commands.
const END: &str = "-- end of the command: ";

/// A bash whose commands are handed over one by one.
#[derive(Debug)]
pub struct Shell {
    stdin: ChildStdin,
    lines: Receiver<String>,
    dir: PathBuf,
    jobs: Vec<PathBuf>,
    // Last: killed when all else is closed.
    _bash: Guard,
}

impl Shell {
    /// Starts in `dir`, with the programs of `bin` before all others and these variables.
    pub fn start(dir: &Path, bin: &Path, variables: &[(&str, OsString)]) -> Result<Self> {
        let mut path = bin.as_os_str().to_owned();
        path.push(":/usr/sbin:/usr/bin:/sbin:/bin");
        let mut command = clean("bash");
        command.args(["--noprofile", "--norc"]).current_dir(dir).env("PATH", path);
        command.envs(variables.iter().map(|(key, value)| (key, value)));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit());
        let mut bash = Guard::spawn(&mut command)?;
        let stdin = bash.child_mut().stdin.take().context("stdin is a pipe")?;
        let stdout = BufReader::new(bash.child_mut().stdout.take().context("stdout is a pipe")?);
        let (sender, lines) = channel();
        thread::spawn(move || {
            for line in stdout.split(b'\n').map_while(Result::ok) {
                if sender.send(String::from_utf8_lossy(&line).into_owned()).is_err() {
                    break;
                }
            }
        });
        let mut shell = Self { stdin, lines, dir: dir.to_owned(), jobs: Vec::new(), _bash: bash };
        // Jobs are process groups of their own, and get signals as from a terminal.
        shell.run("set -m")?;
        Ok(shell)
    }

    /// Runs a command to its end; its exit status and what it wrote. One that ends with `&` is left running: a tracer comes
    /// back when it traces. What jobs wrote is shown by `wait`.
    ///
    /// # Errors
    /// The shell does not understand it, it does not end in time, or a tracer does not begin to trace.
    pub fn run(&mut self, command: &str) -> Result<(i32, String)> {
        let well_formed = clean("bash").args(["-n", "-c", command]).status()?.success();
        ensure!(well_formed, "the shell does not understand `{command}`");
        // A comment would hide what is put behind.
        if let Some(job) = command.split(" #").next().and_then(|command| command.trim_end().strip_suffix('&'))
            && !job.ends_with('&')
        {
            return self.start_job(job.trim_end());
        }
        if command == "wait" {
            let shown: Vec<_> = self.jobs.drain(..).map(|path| format!("cat '{}'", path.display())).collect();
            return self.hand_over(&format!("wait\n{}", shown.join("\n")));
        }
        self.hand_over(command)
    }

    fn hand_over(&mut self, command: &str) -> Result<(i32, String)> {
        write!(self.stdin, "{{ {command}\n}} </dev/null 2>&1; printf '\\n%s%d\\n' '{END}' $?\n")?;
        let mut output = String::new();
        loop {
            let Ok(line) = self.lines.recv_timeout(TIME_OUT) else {
                bail!("`{command}` did not end within {} s; it wrote:\n{output}", TIME_OUT.as_secs());
            };
            if let Some(status) = line.strip_prefix(END) {
                // The line break before the mark.
                output.pop();
                return Ok((status.parse()?, output));
            }
            output.push_str(&line);
            output.push('\n');
        }
    }

    fn start_job(&mut self, job: &str) -> Result<(i32, String)> {
        let n = self.jobs.len();
        let (output, log) = (self.dir.join(format!(".job{n}")), self.dir.join(format!(".log{n}")));
        let Some((before, after)) = job.split_once("memtrace-bpf ") else {
            self.jobs.push(output.clone());
            return self.hand_over(&format!("{job} >'{}' 2>&1 &", output.display()));
        };
        ensure!(clean("mkfifo").arg(&log).status()?.success(), "failed to make a pipe in `{}`", self.dir.display());
        // A tracer that is asked for its decisions says when it traces.
        let verbose = match after.split_once(' ') {
            Some((word @ ("run" | "attach"), rest)) => format!("{before}memtrace-bpf {word} -v {rest}"),
            _ => format!("{before}memtrace-bpf -v {after}"),
        };
        let (sender, said) = channel();
        let reader = log.clone();
        // The pipe opens when the job has opened its end. Read on, so that the tracer never waits for a full pipe.
        thread::spawn(move || {
            let Ok(file) = fs::File::open(reader) else { return };
            for line in BufReader::new(file).lines().map_while(Result::ok) {
                // Nobody listens any more once it traces.
                sender.send(line).ok();
            }
        });
        let started = self.hand_over(&format!("{verbose} >'{}' 2>'{}' &", output.display(), log.display()))?;
        self.jobs.push(output);
        let mut before = String::new();
        loop {
            match said.recv_timeout(TIME_OUT) {
                Ok(line) if line.contains("tracing pid") => return Ok(started),
                Ok(line) => before.push_str(&line),
                Err(_) => bail!("`{job}` does not begin to trace; it said: {before}"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shell_keeps_its_state_and_tells_each_status() -> Result<()> {
        let dir = tempfile::tempdir()?;
        let mut shell = Shell::start(dir.path(), dir.path(), &[("WHO", "me".into())])?;
        assert_eq!(shell.run("x=1; echo $WHO; echo wrong >&2")?, (0, "me\nwrong\n".to_owned()));
        assert_eq!(shell.run("printf 'no end %s' $x; (exit 3)")?, (3, "no end 1".to_owned()));
        assert_eq!(shell.run("cat # stdin is empty")?, (0, String::new()));
        assert_eq!(shell.run("no-such-command")?.0, 127);
        assert!(shell.run("echo 'never ends").is_err());
        shell.run("echo from the job &")?;
        assert_eq!(shell.run("wait")?, (0, "from the job\n".to_owned()));
        Ok(())
    }
}
