//! The session's side of its control socket.

use std::{
    fs, io,
    os::unix::{fs::PermissionsExt as _, net::UnixStream as StdStream},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use nix::unistd::geteuid;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{UnixListener, UnixStream},
    sync::{Semaphore, mpsc, oneshot},
    task::JoinHandle,
    time::{sleep, timeout},
};

use super::{Answer, MAX_MESSAGE_BYTES, PATIENCE, Request, place};

/// Connections served at one time; others wait.
const MAX_CONNECTIONS: usize = 8;

/// Until the next connection is tried where one could not be accepted (no free descriptor).
const AFTER_FAILED_ACCEPT: Duration = Duration::from_millis(100);

/// A request that waits for its answer.
#[derive(Debug)]
pub(in crate::session) struct Asked {
    /// What is asked for, held to its bounds.
    pub request: Request,
    answer: oneshot::Sender<Answer>,
}

impl Asked {
    /// Answers; one who no longer listens is no error.
    pub(in crate::session) fn answer(self, answer: Answer) {
        if self.answer.send(answer).is_err() {
            log::debug!("an answer came too late for its client");
        }
    }
}

/// The socket. Dropping it removes it.
pub(in crate::session) struct Server {
    path: PathBuf,
    asked: mpsc::Receiver<Asked>,
    accepting: JoinHandle<()>,
}

impl Server {
    /// Opens the socket of the session with this target.
    ///
    /// # Errors
    /// There is no place for it, or another session with the target has it.
    pub(in crate::session) fn open(pid: u32) -> io::Result<Self> {
        let dir = place::make_own_dir()?;
        remove_stale(&dir);
        let path = place::socket(&dir, pid);
        if path.exists() {
            return Err(io::Error::new(io::ErrorKind::AddrInUse, "another session with this process has it"));
        }
        // Listening before it has its name: whoever finds it can tell it from a dead tracer's.
        let nameless = dir.join(format!(".{}", std::process::id()));
        remove(&nameless);
        let listener = UnixListener::bind(&nameless)?;
        fs::set_permissions(&nameless, fs::Permissions::from_mode(0o600))?;
        fs::rename(&nameless, &path)?;
        let (sender, asked) = mpsc::channel(MAX_CONNECTIONS);
        Ok(Self { path, asked, accepting: tokio::spawn(accept(listener, sender)) })
    }

    /// Waits for a request.
    pub(in crate::session) async fn next(&mut self) -> Asked {
        match self.asked.recv().await {
            Some(asked) => asked,
            // The accepting task runs as long as this server.
            None => std::future::pending().await,
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.accepting.abort();
        remove(&self.path);
    }
}

/// Sockets that nobody listens on: their tracers were killed.
fn remove_stale(dir: &Path) {
    for (_, path) in place::sockets(dir) {
        if StdStream::connect(&path).is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused) {
            remove(&path);
        }
    }
}

fn remove(path: &Path) {
    if let Err(error) = fs::remove_file(path)
        && error.kind() != io::ErrorKind::NotFound
    {
        log::debug!("failed to remove `{}`: {error}", path.display());
    }
}

/// Each connection is a task of its own, so that a slow client holds up nobody but itself.
async fn accept(listener: UnixListener, asked: mpsc::Sender<Asked>) {
    let room = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let Ok(place) = Arc::clone(&room).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let asked = asked.clone();
                tokio::spawn(async move {
                    if let Err(error) = serve(stream, &asked).await {
                        log::debug!("control socket: {error}");
                    }
                    drop(place);
                });
            }
            Err(error) => {
                log::debug!("control socket: {error}");
                sleep(AFTER_FAILED_ACCEPT).await;
            }
        }
    }
}

async fn serve(stream: UnixStream, asked: &mpsc::Sender<Asked>) -> io::Result<()> {
    let peer = stream.peer_cred()?.uid();
    if peer != 0 && peer != geteuid().as_raw() {
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, format!("user {peer} is not the session's owner")));
    }
    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    timeout(PATIENCE, (&mut stream).take(MAX_MESSAGE_BYTES).read_line(&mut line)).await??;
    let answer = match understood(&line) {
        Ok(request) => answered(request, asked).await,
        Err(reason) => Answer::Refused { reason },
    };
    let mut line = serde_json::to_vec(&answer)?;
    line.push(b'\n');
    timeout(PATIENCE, stream.write_all(&line)).await??;
    Ok(())
}

fn understood(line: &str) -> Result<Request, String> {
    if !line.ends_with('\n') {
        return Err(format!("no request: not a line of at most {MAX_MESSAGE_BYTES} bytes"));
    }
    let request: Request = serde_json::from_str(line).map_err(|error| format!("no request: {error}"))?;
    request.check()?;
    Ok(request)
}

async fn answered(request: Request, asked: &mpsc::Sender<Asked>) -> Answer {
    let (answer, answered) = oneshot::channel();
    let ending = || Answer::Refused { reason: "the session is ending".to_owned() };
    if asked.send(Asked { request, answer }).await.is_err() {
        return ending();
    }
    answered.await.unwrap_or_else(|_| ending())
}
