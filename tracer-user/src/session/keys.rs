//! Keys of the terminal as events. The terminal gives each key at once and unseen; it is as before when [`Keys`] goes.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read as _},
    os::unix::fs::OpenOptionsExt as _,
};

use nix::{
    sys::termios::{LocalFlags, SetArg, Termios, tcgetattr, tcsetattr},
    unistd::{getpgrp, tcgetpgrp},
};
use tokio::io::{Interest, unix::AsyncFd};

/// What a key asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Key {
    /// `s`: a snapshot.
    Snapshot,
    /// `q`: the end of the session.
    Quit,
}

/// The controlling terminal. Dropping it restores how it was, on every way out that unwinds; signals that end a session do.
pub(super) struct Keys {
    terminal: AsyncFd<File>,
    before: Termios,
}

impl Keys {
    /// Takes the controlling terminal's keys, if there is one and this process is in its foreground.
    pub(super) fn of_terminal() -> Option<Self> {
        let open = OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK).open("/dev/tty");
        let terminal = open.ok()?;
        if !in_foreground(&terminal).ok()? {
            return None;
        }
        let before = tcgetattr(&terminal).ok()?;
        let mut keys = before.clone();
        // Signal keys stay what they are (ISIG).
        keys.local_flags.remove(LocalFlags::ICANON | LocalFlags::ECHO);
        // SAFETY: the descriptor is owned by the `AsyncFd` and stays open until that is dropped.
        let terminal = unsafe { AsyncFd::register_with_interest(terminal, Interest::READABLE) }.ok()?;
        tcsetattr(terminal.get_ref(), SetArg::TCSANOW, &keys).ok()?;
        Some(Self { terminal, before })
    }

    /// Waits for a key that means something.
    pub(super) async fn next(&mut self) -> Key {
        loop {
            let Ok(mut guard) = self.terminal.readable_mut().await else { return std::future::pending().await };
            let terminal = guard.get_inner_mut();
            let mut key = [0];
            // Reading from the background would stop this process (SIGTTIN).
            match in_foreground(terminal)
                .and_then(|ours| if ours { terminal.read(&mut key).map(Some) } else { Ok(None) })
            {
                Ok(Some(1)) if key == *b"s" => return Key::Snapshot,
                Ok(Some(1)) if key == *b"q" => return Key::Quit,
                Ok(Some(1)) => {}
                Ok(None) => guard.clear_ready(),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => guard.clear_ready(),
                // Hung up: no key will come any more, and the descriptor would stay readable for ever.
                Ok(_) | Err(_) => std::future::pending().await,
            }
        }
    }
}

impl Drop for Keys {
    fn drop(&mut self) {
        let terminal = self.terminal.get_ref();
        // From the background it would stop this process (SIGTTOU); the shell has set its own by then.
        if in_foreground(terminal).unwrap_or(false)
            && let Err(error) = tcsetattr(terminal, SetArg::TCSADRAIN, &self.before)
        {
            log::debug!("failed to restore the terminal: {error}");
        }
    }
}

fn in_foreground(terminal: &File) -> io::Result<bool> {
    Ok(tcgetpgrp(terminal)? == getpgrp())
}
