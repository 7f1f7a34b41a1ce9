//! A terminal of a test's own, as the controlling one of what it starts.

use std::{
    fs::File,
    io::{self, Write as _},
    os::{
        fd::{AsRawFd as _, FromRawFd as _},
        unix::process::CommandExt as _,
    },
    process::{Command, Stdio},
};

use anyhow::{Result, ensure};

/// Both ends of a pseudo-terminal.
#[derive(Debug)]
pub struct Terminal {
    keyboard: File,
    line: File,
}

impl Terminal {
    /// A new one, in the mode that the kernel gives it: whole lines, echoed.
    pub fn open() -> Result<Self> {
        let (mut master, mut slave) = (-1, -1);
        let null = std::ptr::null_mut();
        // SAFETY: two places for descriptors; name, mode and size are not asked for.
        let failed = unsafe { libc::openpty(&raw mut master, &raw mut slave, null, null.cast(), null.cast()) };
        ensure!(failed == 0, "openpty: {}", io::Error::last_os_error());
        // SAFETY: descriptors that were just made and that nobody else owns.
        let terminal = unsafe { Self { keyboard: File::from_raw_fd(master), line: File::from_raw_fd(slave) } };
        for file in [&terminal.keyboard, &terminal.line] {
            // SAFETY: sets a flag of an open descriptor.
            unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETFD, libc::FD_CLOEXEC) };
        }
        Ok(terminal)
    }

    /// Makes it the controlling terminal and the stdin of what the command starts.
    pub fn control<'a>(&self, command: &'a mut Command) -> Result<&'a mut Command> {
        command.stdin(Stdio::from(self.line.try_clone()?));
        // SAFETY: between fork and exec only system calls are made.
        unsafe {
            command.pre_exec(|| {
                let done = libc::setsid() >= 0 && libc::ioctl(0, libc::TIOCSCTTY, 0) == 0;
                if done { Ok(()) } else { Err(io::Error::last_os_error()) }
            });
        }
        Ok(command)
    }

    /// Presses keys.
    pub fn press(&mut self, keys: &str) -> Result<()> {
        Ok(self.keyboard.write_all(keys.as_bytes())?)
    }

    /// Whether it gives whole lines and echoes them.
    pub fn is_ordinary(&self) -> Result<bool> {
        // SAFETY: a plain structure of integers, filled by the call.
        let mut mode: libc::termios = unsafe { std::mem::zeroed() };
        // SAFETY: a place to write to.
        let failed = unsafe { libc::tcgetattr(self.line.as_raw_fd(), &raw mut mode) };
        ensure!(failed == 0, "tcgetattr: {}", io::Error::last_os_error());
        let wanted = libc::ICANON | libc::ECHO;
        Ok(mode.c_lflag & wanted == wanted)
    }
}
