//! The user's side of a session's control socket.

use std::{
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    os::{fd::AsRawFd as _, unix::net::UnixStream},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, bail, ensure};
use nix::unistd::geteuid;

use super::{Answer, MAX_MESSAGE_BYTES, PATIENCE, Request, Status, place};

/// For how long a session may be at work: taking away or putting back a probe takes 0.1 s (Linux 6.18), names of a large program
/// seconds.
const UNTIL_ANSWERED: Duration = Duration::from_mins(2);

/// Sends a request to the session with this target, else to the only one there is. Returns what it answered.
///
/// # Errors
/// There is no such session, none at all, or several to choose from; it refused; it ended meanwhile.
pub fn ask(session: Option<u32>, request: &Request) -> anyhow::Result<Answer> {
    request.check().map_err(anyhow::Error::msg)?;
    let found = find();
    let socket = match session {
        Some(pid) => found.iter().find(|socket| socket.pid == pid),
        None if found.len() == 1 => found.first(),
        None => None,
    };
    let Some(socket) = socket else {
        let running = || list(&found);
        match session {
            _ if found.is_empty() => bail!("{} (start one: memtrace-bpf --pid N --record FILE)", none_running()),
            Some(pid) => bail!("no session traces pid {pid} (running: {})", running()),
            None => bail!("which session? --session PID (running: {})", running()),
        }
    };
    match socket.exchange(request).with_context(|| format!("failed to ask the session with pid {}", socket.pid))? {
        Answer::Refused { reason } => bail!("the session with pid {} refused: {reason}", socket.pid),
        answer => Ok(answer),
    }
}

/// Said where none is found: only root finds those of others.
pub fn none_running() -> &'static str {
    if geteuid().is_root() { "no session is running" } else { "no session of yours is running; root finds all" }
}

/// How each running session is, by the target's id; or one's reason for not telling.
pub fn sessions() -> Vec<(u32, anyhow::Result<Status>)> {
    let status = |socket: &Socket| match socket.exchange(&Request::Status)? {
        Answer::Status(status) => Ok(status),
        answer => bail!("it answered `{answer}`"),
    };
    find().iter().map(|socket| (socket.pid, status(socket))).collect()
}

/// A session's socket on which somebody listens.
struct Socket {
    pid: u32,
    path: PathBuf,
    owner: u32,
}

fn find() -> Vec<Socket> {
    let dirs = place::readable_dirs().into_iter();
    let sockets = dirs
        .flat_map(|(dir, owner)| place::sockets(&dir).into_iter().map(move |(pid, path)| Socket { pid, path, owner }));
    sockets.filter(|socket| connect(&socket.path, socket.owner).is_ok()).collect()
}

/// `4711 server, 4712`: the targets, with their names where they still run.
fn list(sockets: &[Socket]) -> String {
    let name = |pid: u32| std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    let described: Vec<String> = sockets
        .iter()
        .map(|socket| format!("{} {}", socket.pid, name(socket.pid).trim_end()).trim_end().to_owned())
        .collect();
    described.join(", ")
}

/// Connects, and holds that whoever listens owns the directory: root must not be led to another's socket by a link.
fn connect(path: &Path, owner: u32) -> io::Result<UnixStream> {
    let stream = UnixStream::connect(path)?;
    let listener = listener(&stream)?;
    if listener == owner {
        Ok(stream)
    } else {
        Err(io::Error::new(io::ErrorKind::PermissionDenied, format!("user {listener} listens there")))
    }
}

/// The user who listens on the other end (SO_PEERCRED, unix(7)).
fn listener(stream: &UnixStream) -> io::Result<u32> {
    let mut peer = libc::ucred { pid: 0, uid: 0, gid: 0 };
    let mut length = size_of::<libc::ucred>() as libc::socklen_t;
    // SAFETY: an open socket, a place for the structure that this option has, and its length.
    let failed = unsafe {
        let place = (&raw mut peer).cast();
        libc::getsockopt(stream.as_raw_fd(), libc::SOL_SOCKET, libc::SO_PEERCRED, place, &raw mut length)
    };
    if failed == 0 { Ok(peer.uid) } else { Err(io::Error::last_os_error()) }
}

impl Socket {
    fn exchange(&self, request: &Request) -> anyhow::Result<Answer> {
        let mut stream = connect(&self.path, self.owner)?;
        stream.set_write_timeout(Some(PATIENCE))?;
        stream.set_read_timeout(Some(UNTIL_ANSWERED))?;
        let mut line = serde_json::to_vec(request)?;
        line.push(b'\n');
        stream.write_all(&line)?;
        let mut answer = String::new();
        BufReader::new(stream.take(MAX_MESSAGE_BYTES)).read_line(&mut answer)?;
        ensure!(!answer.is_empty(), "it ended before it answered");
        serde_json::from_str(&answer).context("its answer makes no sense")
    }
}
