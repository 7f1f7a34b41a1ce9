//! A program of our own: started stopped, watched while its loader maps libraries, let go when the probes are in place.
//!
//! ptrace is used for the start only. From then on a library that the program opens stops it by a signal from the BPF side
//! (see `stop_on_library`), so that nothing of it runs before its rows and probes are in place.

use std::{
    ffi::OsString,
    io,
    os::unix::process::{CommandExt as _, ExitStatusExt as _},
    process::{Command, ExitStatus},
};

use nix::{
    sys::{
        prctl, ptrace,
        signal::{Signal, kill},
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::Pid,
};
use thiserror::Error;

/// Why a program could not be started.
#[derive(Debug, Error)]
pub enum SpawnError {
    /// Exit status 127, as shells have it.
    #[error("failed to run `{command}`: not found")]
    NotFound {
        /// The program.
        command: String,
    },
    /// Exit status 126, as shells have it.
    #[error("failed to run `{command}`")]
    NotExecutable {
        /// The program.
        command: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// The child could not be watched.
    #[error("failed to watch the start of `{command}`")]
    Watch {
        /// The program.
        command: String,
        /// What the kernel said.
        source: nix::Error,
    },
}

impl SpawnError {
    /// The exit status that a shell would give.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::NotFound { .. } => 127,
            Self::NotExecutable { .. } => 126,
            Self::Watch { .. } => 1,
        }
    }
}

/// A child of ours.
#[derive(Debug)]
pub struct Child {
    pid: Pid,
    command: String,
    ended: Option<ExitStatus>,
}

/// Why a starting program stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pause {
    /// It has mapped code: a new module.
    Mapped,
    /// Its loader says that the list of libraries is whole (the BPF side's SIGSTOP).
    Loaded,
    /// It ended.
    Ended,
}

impl Child {
    /// Starts a program; it stands before its first instruction.
    ///
    /// # Errors
    /// It is not there, cannot be executed, or cannot be watched.
    pub fn spawn(command: &[OsString]) -> Result<Self, SpawnError> {
        let (program, args) = command.split_first().expect("the command line has a program");
        let name = program.to_string_lossy().into_owned();
        let mut builder = Command::new(program);
        builder.args(args);
        // Should this tracer be killed while the program stands for it, the kernel makes it run on.
        let start = || prctl::set_pdeathsig(Signal::SIGCONT).and_then(|()| ptrace::traceme()).map_err(io::Error::from);
        // SAFETY: between fork and exec only system calls are made.
        unsafe { builder.pre_exec(start) };
        let child = builder.spawn().map_err(|source| {
            let command = name.clone();
            match source.kind() {
                io::ErrorKind::NotFound => SpawnError::NotFound { command },
                _ => SpawnError::NotExecutable { command, source },
            }
        })?;
        let mut child = Self { pid: Pid::from_raw(child.id() as i32), command: name, ended: None };
        // The first stop is exec's SIGTRAP.
        let status = waitpid(child.pid, None).map_err(|source| child.watch_error(source))?;
        child.note_end(status);
        let watched = ptrace::setoptions(child.pid, ptrace::Options::PTRACE_O_TRACESYSGOOD);
        if child.ended.is_none() {
            watched.map_err(|source| child.watch_error(source))?;
        }
        Ok(child)
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.pid.as_raw() as u32
    }

    /// Its end, if it was seen.
    pub fn ended(&self) -> Option<ExitStatus> {
        self.ended
    }

    /// Runs the watched program on until something that the tracer must know.
    ///
    /// # Errors
    /// The child is not ours to watch any more.
    pub fn run_to_pause(&mut self) -> Result<Pause, SpawnError> {
        let mut deliver = None;
        loop {
            if self.ended.is_some() {
                return Ok(Pause::Ended);
            }
            match ptrace::syscall(self.pid, deliver.take()) {
                // Killed while it stood: its end is to be waited for.
                Ok(()) | Err(nix::Error::ESRCH) => {}
                Err(source) => return Err(self.watch_error(source)),
            }
            let status = waitpid(self.pid, None).map_err(|source| self.watch_error(source))?;
            match status {
                WaitStatus::PtraceSyscall(_) => {
                    if self.just_mapped_code() {
                        return Ok(Pause::Mapped);
                    }
                }
                WaitStatus::Stopped(_, Signal::SIGSTOP) => return Ok(Pause::Loaded),
                // SIGCONT is ours, when a stopped child is watched anew.
                WaitStatus::Stopped(_, Signal::SIGCONT | Signal::SIGTRAP) | WaitStatus::PtraceEvent(..) => {}
                WaitStatus::Stopped(_, signal) => deliver = Some(signal),
                status => self.note_end(status),
            }
        }
    }

    /// Whether the system call that it stands at is an mmap or mprotect of executable memory that has returned.
    fn just_mapped_code(&self) -> bool {
        let Ok(regs) = ptrace::getregs(self.pid) else { return false };
        let call = regs.orig_rax as i64;
        let maps = call == libc::SYS_mmap || call == libc::SYS_mprotect;
        // At the entry of a system call rax is -ENOSYS (arch/x86/entry, Linux 6.18).
        let returned = regs.rax as i64 != -i64::from(libc::ENOSYS);
        maps && returned && regs.rdx & libc::PROT_EXEC as u64 != 0
    }

    /// Lets it run on, watched no more.
    pub fn release(&mut self) {
        if self.ended.is_none()
            && let Err(error) = ptrace::detach(self.pid, None)
        {
            log::debug!("ptrace detach of {}: {error}", self.pid);
        }
    }

    /// Watches it anew while it stands (after exec, stopped by the BPF side's SIGSTOP).
    ///
    /// # Errors
    /// The child is not ours to watch any more.
    pub fn watch_again(&mut self) -> Result<(), SpawnError> {
        let watched = ptrace::seize(self.pid, ptrace::Options::PTRACE_O_TRACESYSGOOD);
        // It stands already; the interrupt makes sure that the wait below ends.
        watched.and_then(|()| ptrace::interrupt(self.pid)).map_err(|source| self.watch_error(source))?;
        let status = waitpid(self.pid, Some(WaitPidFlag::WUNTRACED)).map_err(|source| self.watch_error(source))?;
        self.note_end(status);
        self.resume();
        Ok(())
    }

    /// Ends a stop that the BPF side made.
    pub fn resume(&self) {
        self.signal(Signal::SIGCONT);
    }

    /// Passes a signal on.
    pub fn signal(&self, signal: Signal) {
        if self.ended.is_none()
            && let Err(error) = kill(self.pid, signal)
        {
            log::debug!("kill({}, {signal}): {error}", self.pid);
        }
    }

    /// Its exit status, if it has ended; reaps it.
    pub fn try_wait(&mut self) -> Option<ExitStatus> {
        if self.ended.is_none()
            && let Ok(status) = waitpid(self.pid, Some(WaitPidFlag::WNOHANG))
        {
            self.note_end(status);
        }
        self.ended
    }

    fn note_end(&mut self, status: WaitStatus) {
        self.ended = match status {
            WaitStatus::Exited(_, code) => Some(ExitStatus::from_raw(code << 8)),
            WaitStatus::Signaled(_, signal, core) => {
                Some(ExitStatus::from_raw(signal as i32 | if core { 0x80 } else { 0 }))
            }
            _ => self.ended,
        };
    }

    fn watch_error(&self, source: nix::Error) -> SpawnError {
        SpawnError::Watch { command: self.command.clone(), source }
    }
}
