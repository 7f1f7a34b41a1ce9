//! What Docker says of its containers: one request over its socket. Podman's service answers the same.

use std::{
    collections::HashMap,
    env,
    ffi::OsStr,
    io,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::{Request, body::Bytes, client::conn::http1, header::HOST};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::{net::UnixStream, runtime, time};

use super::{Container, Engine, Problem, ids::is_id, ids::name_of_others, kubernetes::Labels};

/// From connecting to the last byte. An engine that is at work answers within milliseconds.
const TIME_OUT: Duration = Duration::from_secs(2);

/// Bytes of the answer: about 1 KiB a container.
const MAX_ANSWER_BYTES: usize = 64 << 20;

/// All containers, those that do not run too.
const PATH: &str = "/containers/json?all=1";

/// Where Docker listens, unless `DOCKER_HOST` says another place.
const DEFAULT_SOCKET: &str = "/var/run/docker.sock";

/// Docker's socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Socket {
    /// Where it is on most hosts; it need not be there.
    Default(PathBuf),
    /// What the user named.
    Named(PathBuf),
    /// The user named another host, whose containers are out of reach.
    Elsewhere(String),
}

impl Socket {
    /// As `$DOCKER_HOST` has it.
    pub fn of_environment() -> Self {
        Self::of(env::var_os("DOCKER_HOST").as_deref())
    }

    fn of(docker_host: Option<&OsStr>) -> Self {
        match docker_host {
            None => Self::Default(DEFAULT_SOCKET.into()),
            Some(host) if host.is_empty() => Self::Default(DEFAULT_SOCKET.into()),
            Some(host) => match host.to_str().and_then(|host| host.strip_prefix("unix://")) {
                Some(path) => Self::Named(path.into()),
                None => Self::Elsewhere(host.to_string_lossy().into_owned()),
            },
        }
    }
}

/// Why Docker told nothing.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) problem: Problem,
    /// Nobody has said that there is a Docker.
    pub(super) may_be_absent: bool,
}

/// The containers of Docker. Blocks until it has answered, [`TIME_OUT`] at most.
pub(super) fn containers(socket: &Socket) -> Result<Vec<Container>, Refusal> {
    let refusal =
        |reason: String, may_be_absent| Refusal { problem: Problem { engine: Engine::Docker, reason }, may_be_absent };
    let path = match socket {
        Socket::Default(path) | Socket::Named(path) => path,
        Socket::Elsewhere(host) => {
            return Err(refusal(format!("DOCKER_HOST={host} is no unix:// socket of this host"), false));
        }
    };
    let answer = ask(path).map_err(|error| {
        let is_absent = error.kind() == io::ErrorKind::NotFound && matches!(socket, Socket::Default(_));
        refusal(format!("{}: {}", path.display(), plain(&error)), is_absent)
    })?;
    parse(&answer).map_err(|error| refusal(format!("{}: its answer is not understood: {error}", path.display()), false))
}

/// Without the number that the standard library adds.
fn plain(error: &io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_lowercase().chain(letters).collect())
}

/// The body of the answer. The caller may stand in an event loop, where another one cannot be entered: a thread does.
fn ask(socket: &Path) -> io::Result<Vec<u8>> {
    thread::scope(|scope| {
        let asking = scope.spawn(|| {
            let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(async {
                time::timeout(TIME_OUT, exchange(socket)).await.unwrap_or_else(|_| {
                    Err(io::Error::new(io::ErrorKind::TimedOut, format!("no answer within {} s", TIME_OUT.as_secs())))
                })
            })
        });
        asking.join().expect("asking does not panic")
    })
}

async fn exchange(socket: &Path) -> io::Result<Vec<u8>> {
    let stream = UnixStream::connect(socket).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
    let request = Request::get(PATH).header(HOST, "localhost").body(Empty::<Bytes>::new()).map_err(io::Error::other)?;
    let answered = async {
        let response = sender.send_request(request).await.map_err(io::Error::other)?;
        if !response.status().is_success() {
            return Err(io::Error::other(format!("it says {}", response.status())));
        }
        let body = Limited::new(response.into_body(), MAX_ANSWER_BYTES).collect().await.map_err(io::Error::other)?;
        Ok(body.to_bytes().to_vec())
    };
    // The connection moves only as it is polled, and ends with the sender; what is wrong with it the request tells.
    tokio::pin!(answered);
    tokio::select! {
        answer = &mut answered => answer,
        _ = connection => answered.await,
    }
}

/// What of an answer matters here.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Listed {
    id: String,
    /// `/web`, and `/other/alias` for each container that links to it.
    names: Option<Vec<String>>,
    image: Option<String>,
    labels: Option<HashMap<String, String>>,
}

fn parse(answer: &[u8]) -> serde_json::Result<Vec<Container>> {
    let listed: Vec<Listed> = serde_json::from_slice(answer)?;
    Ok(listed.into_iter().filter(|listed| is_id(&listed.id)).map(Listed::container).collect())
}

impl Listed {
    fn container(self) -> Container {
        let labels = self.labels.unwrap_or_default();
        let labels = Labels(&labels);
        let names = self.names.unwrap_or_default();
        let own = names.iter().find_map(|name| name.strip_prefix('/').filter(|name| !name.contains('/')));
        Container {
            engine: Engine::Docker,
            id: self.id,
            name: own.and_then(name_of_others),
            image: self.image.as_deref().and_then(name_of_others),
            pod: labels.pod(),
            cgroup: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read as _, Write as _},
        os::unix::net::UnixListener,
    };

    use super::*;
    use crate::scope::containers::Pod;

    #[test]
    fn docker_host_must_be_a_socket_of_this_host() {
        let of = |host: &str| Socket::of(Some(OsStr::new(host)));
        assert_eq!(Socket::of(None), Socket::Default(DEFAULT_SOCKET.into()));
        assert_eq!(of(""), Socket::Default(DEFAULT_SOCKET.into()));
        assert_eq!(of("unix:///run/user/1000/docker.sock"), Socket::Named("/run/user/1000/docker.sock".into()));
        assert_eq!(of("tcp://build:2375"), Socket::Elsewhere("tcp://build:2375".into()));
        let refusal = containers(&of("ssh://a@b")).expect_err("another host");
        assert!(refusal.problem.to_string().contains("DOCKER_HOST=ssh://a@b is no unix:// socket"), "{refusal:?}");
    }

    #[test]
    fn an_answer_is_read_as_far_as_it_is_understood() {
        let id = "0123456789abcdef".repeat(4);
        let text = format!(
            r#"[{{"Id":"{id}","Names":["/db/alias","/web"],"Image":"shop:3","New":[1],
            "Labels":{{"io.kubernetes.pod.name":"shop-0","io.kubernetes.pod.namespace":"prod"}}}},
            {{"Id":"../../etc","Names":["/x"]}}, {{"Id":"{}","Names":null}}]"#,
            id.replace('0', "f")
        );
        let found = parse(text.as_bytes()).expect("well-formed");
        assert_eq!(found.len(), 2);
        assert_eq!((found[0].name.as_deref(), found[0].image.as_deref()), (Some("web"), Some("shop:3")));
        assert_eq!(found[0].pod, Some(Pod { namespace: "prod".into(), name: "shop-0".into() }));
        assert_eq!((&found[1].name, &found[1].pod), (&None, &None));
        for wrong in ["", "{}", "[1]", "[{\"Id\":7}]", &"[".repeat(1000)] {
            assert!(parse(wrong.as_bytes()).is_err(), "{wrong}");
        }
    }

    /// A socket that answers its first request with these bytes, and then hangs up.
    fn answering(bytes: &'static [u8]) -> (tempfile::TempDir, Socket) {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("sock");
        let listener = UnixListener::bind(&path).expect("a socket");
        thread::spawn(move || {
            let (mut peer, _) = listener.accept().expect("it connects");
            let mut request = [0; 1024];
            let n = peer.read(&mut request).expect("it asks");
            assert!(request[..n].starts_with(b"GET /containers/json?all=1 HTTP/1.1\r\n"));
            // It may have hung up.
            peer.write_all(bytes).ok();
        });
        (dir, Socket::Named(path))
    }

    #[test]
    fn chunks_are_put_together() {
        let (_dir, socket) = answering(
            b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n[\r\n1\r\n]\r\n0\r\n\r\n",
        );
        assert_eq!(containers(&socket).expect("an empty list"), []);
    }

    #[test]
    fn what_is_no_answer_is_a_problem_with_its_reason() {
        for (bytes, reason) in [
            (&b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n"[..], "it says 503"),
            (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n[", "error reading a body"),
            (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", "not understood"),
            (b"220 mail\r\n", "invalid HTTP version"),
            (b"", "connection closed"),
        ] {
            let (_dir, socket) = answering(bytes);
            let refusal = containers(&socket).expect_err("no list");
            assert!(refusal.problem.reason.contains(reason) && !refusal.may_be_absent, "{refusal:?}");
        }
    }

    #[test]
    fn a_socket_that_nobody_named_may_be_absent() {
        let none = PathBuf::from("/nonexistent/docker.sock");
        let refusal = containers(&Socket::Default(none.clone())).expect_err("not there");
        assert!(refusal.may_be_absent);
        assert_eq!(
            refusal.problem.to_string(),
            "docker does not answer: /nonexistent/docker.sock: no such file or directory"
        );
        assert!(!containers(&Socket::Named(none)).expect_err("not there").may_be_absent);
    }
}
