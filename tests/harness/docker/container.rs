//! A container whose first process speaks with the test over pipes, as a [`Target`] does.

use std::{fs, process::Command};

use anyhow::{Context as _, Result, ensure};

use crate::{guard::Output, process::Target, process::send, session::clean};

/// A running container. Removed with its engine, at the latest.
#[derive(Debug)]
pub struct Container {
    /// Its whole id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Its first process, as the host sees it.
    pub pid: u32,
    /// The engine's command that passes lines on.
    front: Target,
    /// The engine's command that starts another process in it.
    exec: Command,
}

impl Container {
    /// Starts it by a command that passes stdin and stdout on; what `known` says of it is asked when it is ready.
    pub(crate) fn start(
        run: &mut Command,
        name: &str,
        exec: Command,
        known: impl FnOnce() -> Result<(String, u32)>,
    ) -> Result<Self> {
        let front = Target::spawn(run).with_context(|| format!("container {name} did not get ready"))?;
        let (id, pid) = known()?;
        Ok(Self { id, name: name.to_owned(), pid, front, exec })
    }

    /// Writes a line to its stdin.
    pub fn say(&mut self, line: &str) -> Result<()> {
        self.front.say(line)
    }

    /// The next line that it says; empty at the end of its output.
    pub fn hear(&mut self) -> Result<String> {
        self.front.hear()
    }

    /// Tells it a line, and waits until it says the line back.
    pub fn step(&mut self, line: &str) -> Result<()> {
        self.front.step(line)
    }

    /// Ends its input, and waits for its last line and its status.
    pub fn end(self) -> Result<(String, Output)> {
        self.front.end()
    }

    /// Starts another process in it, and comes back when that has said `ready`. The target's id is that of the engine's command;
    /// [`Self::pids`] has its own.
    pub fn exec(&self, program: &[&str]) -> Result<Target> {
        let mut exec = clean(self.exec.get_program());
        let set = self.exec.get_envs().filter_map(|(key, value)| Some((key, value?)));
        exec.envs(set).args(self.exec.get_args()).args(program);
        Target::spawn(&mut exec)
    }

    /// Its v2 control group, as `/proc` has it.
    pub fn cgroup(&self) -> Result<String> {
        let groups = fs::read_to_string(format!("/proc/{}/cgroup", self.pid))?;
        let v2 = groups.lines().find_map(|line| line.strip_prefix("0::"));
        v2.map(str::to_owned).context("no v2 hierarchy is mounted")
    }

    /// All of its processes, as the host sees them, in order.
    pub fn pids(&self) -> Result<Vec<u32>> {
        let own = self.cgroup()?;
        let mut pids = Vec::new();
        for entry in fs::read_dir("/proc")?.flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            let groups = fs::read_to_string(entry.path().join("cgroup")).unwrap_or_default();
            if groups.lines().any(|line| line.strip_prefix("0::") == Some(&own)) {
                pids.push(pid);
            }
        }
        pids.sort_unstable();
        Ok(pids)
    }
}

/// A daemon that does not answer. It goes on when this goes.
#[derive(Debug)]
pub struct Hanging(u32);

impl Hanging {
    pub(super) fn stop(pid: u32) -> Result<Self> {
        send(pid, libc::SIGSTOP)?;
        let hanging = Self(pid);
        // A signal stops a process some time later, one thread after the other; its parent is told when all of them stand.
        // SAFETY: the kernel writes to the one siginfo_t, which may be all zero before.
        let stopped = unsafe {
            let mut info: libc::siginfo_t = std::mem::zeroed();
            libc::waitid(libc::P_PID, pid, &raw mut info, libc::WSTOPPED)
        };
        ensure!(stopped == 0, "failed to wait until pid {pid} stands: {}", std::io::Error::last_os_error());
        Ok(hanging)
    }
}

impl Drop for Hanging {
    fn drop(&mut self) {
        send(self.0, libc::SIGCONT).ok();
    }
}
