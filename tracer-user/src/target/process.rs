//! One process: is it there, can it be traced, and is it still the same one?

use std::{
    fs, io,
    os::fd::{AsFd, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd},
    path::PathBuf,
};

use thiserror::Error;
use tracer_common::addr::UserAddr;

use super::maps::{self, MapEntry};

/// Why a process cannot be traced.
#[derive(Debug, Error)]
pub enum ProcessError {
    /// There is none.
    #[error("no process with pid {pid}")]
    NoSuchProcess {
        /// The pid asked for.
        pid: u32,
    },
    /// The id of a thread that is not its process' first.
    #[error("{pid} is a thread of process {tgid} (try --pid {tgid})")]
    Thread {
        /// The id asked for.
        pid: u32,
        /// The process it belongs to.
        tgid: u32,
    },
    /// It has no user-space memory.
    #[error("pid {pid} ({comm}) is a kernel thread: it has no user-space memory to trace")]
    KernelThread {
        /// The pid asked for.
        pid: u32,
        /// Its name.
        comm: String,
    },
    /// It has ended and waits for its parent.
    #[error("pid {pid} ({comm}) is a zombie: it has ended and only waits to be reaped")]
    Zombie {
        /// The pid asked for.
        pid: u32,
        /// Its name.
        comm: String,
    },
    /// The tracer asked to trace itself.
    #[error("pid {pid} is this tracer itself")]
    Myself {
        /// The pid asked for.
        pid: u32,
    },
    /// Its executable is not a 64-bit one.
    #[error("pid {pid} ({comm}) is a 32-bit process: only 64-bit x86 processes can be traced")]
    Bits32 {
        /// The pid asked for.
        pid: u32,
        /// Its name.
        comm: String,
    },
    /// A file of `/proc/PID` could not be read.
    #[error("failed to read `{path}`")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
}

/// A running process, held by a pidfd so that a reused pid is not mistaken for it.
#[derive(Debug)]
pub struct Process {
    /// Process id in the initial namespace.
    pub pid: u32,
    /// `/proc/PID/comm`; hostile input.
    pub comm: String,
    /// `/proc/PID/exe`, where readable.
    pub exe: Option<PathBuf>,
    pidfd: OwnedFd,
}

impl Process {
    /// Opens a process and refuses what cannot be traced.
    ///
    /// # Errors
    /// [`ProcessError`] says which kind of process it is.
    pub fn open(pid: u32) -> Result<Self, ProcessError> {
        if pid == std::process::id() {
            return Err(ProcessError::Myself { pid });
        }
        // SAFETY: a plain system call (pidfd_open(2), Linux 5.3); the result is checked.
        let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
        // A thread's id is refused by pidfd_open (EINVAL, ENOENT from 6.15); its status names the process.
        let status = read_proc(pid, "status");
        let status = match status {
            Ok(status) => Status::parse(&status),
            Err(_) => return Err(ProcessError::NoSuchProcess { pid }),
        };
        if status.tgid != 0 && status.tgid != pid {
            return Err(ProcessError::Thread { pid, tgid: status.tgid });
        }
        if fd < 0 {
            return Err(ProcessError::NoSuchProcess { pid });
        }
        // SAFETY: a descriptor that the kernel has just made and nobody else owns.
        let pidfd = unsafe { OwnedFd::from_raw_fd(fd as i32) };
        if status.state == 'Z' || status.state == 'X' {
            return Err(ProcessError::Zombie { pid, comm: status.comm });
        }
        if !status.has_memory {
            return Err(ProcessError::KernelThread { pid, comm: status.comm });
        }
        let exe = fs::read_link(format!("/proc/{pid}/exe")).ok();
        let process = Self { pid, comm: status.comm, exe, pidfd };
        if process.is_32_bit() {
            return Err(ProcessError::Bits32 { pid, comm: process.comm });
        }
        Ok(process)
    }

    /// Whether it has not ended (a zombie has).
    pub fn is_running(&self) -> bool {
        let mut poll = libc::pollfd { fd: self.pidfd.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: one valid pollfd, no waiting.
        unsafe { libc::poll(&raw mut poll, 1, 0) == 0 }
    }

    /// Its executable memory and everything else, as of now.
    ///
    /// # Errors
    /// The file could not be read (the process ended, or permission is lacking).
    pub fn maps(&self) -> Result<Vec<MapEntry>, ProcessError> {
        let path = PathBuf::from(format!("/proc/{}/maps", self.pid));
        let bytes = fs::read(&path).map_err(|source| ProcessError::Read { path, source })?;
        Ok(maps::parse(&bytes))
    }

    /// The name of one of its threads; hostile input. `None`: it has ended.
    pub fn thread_comm(&self, tid: u32) -> Option<String> {
        let comm = fs::read(format!("/proc/{}/task/{tid}/comm", self.pid)).ok()?;
        // Asked after: a process that runs now had its id then.
        self.is_running().then(|| String::from_utf8_lossy(comm.strip_suffix(b"\n").unwrap_or(&comm)).into_owned())
    }

    /// Number of threads.
    pub fn n_threads(&self) -> usize {
        fs::read_dir(format!("/proc/{}/task", self.pid)).map_or(1, Iterator::count)
    }

    /// CPU time that it has used, all threads that ever were, in seconds. A zombie has its own; of a process that was
    /// reaped it is not known. `/proc/PID/stat` counts in ticks of 10 ms, in which short programs use none.
    pub fn cpu_seconds(&self) -> Option<f64> {
        let mut clock: libc::clockid_t = 0;
        let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: two places that the calls write to; the results are checked.
        let failed = unsafe {
            libc::clock_getcpuclockid(self.pid as libc::pid_t, &raw mut clock) != 0
                || libc::clock_gettime(clock, &raw mut time) != 0
        };
        (!failed).then_some(time.tv_sec as f64 + time.tv_nsec as f64 * 1e-9)
    }

    /// Reads `length` bytes of its memory.
    ///
    /// # Errors
    /// The memory is not mapped or may not be read.
    pub fn read_memory(&self, start: UserAddr, length: usize) -> io::Result<Vec<u8>> {
        use std::os::unix::fs::FileExt as _;
        let mut bytes = vec![0; length];
        fs::File::open(format!("/proc/{}/mem", self.pid))?.read_exact_at(&mut bytes, start.0)?;
        Ok(bytes)
    }

    fn is_32_bit(&self) -> bool {
        use std::io::Read as _;
        const EI_CLASS: usize = 4;
        const ELFCLASS32: u8 = 1;
        let mut ident = [0; 5];
        fs::File::open(format!("/proc/{}/exe", self.pid))
            .and_then(|mut exe| exe.read_exact(&mut ident))
            .is_ok_and(|()| ident[EI_CLASS] == ELFCLASS32)
    }
}

impl AsFd for Process {
    /// The pidfd: readable when the process has ended.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }
}

fn read_proc(pid: u32, file: &str) -> io::Result<String> {
    fs::read(format!("/proc/{pid}/{file}")).map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
}

/// What of `/proc/PID/status` matters here.
#[derive(Debug, PartialEq, Eq)]
struct Status {
    comm: String,
    state: char,
    tgid: u32,
    /// `VmSize` is there: kernel threads and zombies have no memory.
    has_memory: bool,
}

impl Status {
    fn parse(text: &str) -> Self {
        let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
        Self {
            comm: field("Name:").unwrap_or_default().to_owned(),
            state: field("State:").and_then(|state| state.chars().next()).unwrap_or('?'),
            tgid: field("Tgid:").and_then(|tgid| tgid.parse().ok()).unwrap_or(0),
            has_memory: field("VmSize:").is_some(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_thread_has_no_memory() {
        let status = Status::parse("Name:\tkthreadd\nState:\tS (sleeping)\nTgid:\t2\nThreads:\t1\n");
        assert_eq!(status, Status { comm: "kthreadd".into(), state: 'S', tgid: 2, has_memory: false });
    }

    #[test]
    fn cpu_time_of_a_zombie_is_known_and_finer_than_a_tick() {
        let mut child =
            std::process::Command::new("cat").stdin(std::process::Stdio::piped()).spawn().expect("cat starts");
        let process = Process::open(child.id()).expect("it runs until its input ends");
        drop(child.stdin.take());
        let mut poll = libc::pollfd { fd: process.pidfd.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: one valid pollfd.
        assert_eq!(unsafe { libc::poll(&raw mut poll, 1, -1) }, 1);
        let seconds = process.cpu_seconds().expect("a zombie has its times");
        child.wait().expect("a child of ours");
        assert!(seconds > 0.0 && seconds < 1.0, "{seconds}");
        assert_eq!(process.cpu_seconds(), None, "reaped");
    }

    #[test]
    fn this_process_is_refused() {
        assert!(matches!(Process::open(std::process::id()), Err(ProcessError::Myself { .. })));
    }

    #[test]
    fn a_pid_that_cannot_be_is_refused() {
        assert!(matches!(Process::open(u32::MAX / 2), Err(ProcessError::NoSuchProcess { .. })));
    }
}
