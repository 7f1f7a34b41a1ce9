//! A Docker of a test's own: its daemon, images and containers lie in a temporary directory, touch no network and go with it.
//!
//! ```no_run
//! # use memtrace_tests::{Program, docker::{Docker, files_of}};
//! # fn test() -> anyhow::Result<()> {
//! let docker = Docker::start()?;
//! let program = Program::c("steps").build()?;
//! docker.image("t/steps", &files_of(&program, "/bin/prog")?)?;
//! let mut web = docker.run("t/steps", "web", &["/bin/prog"])?; // It has said `ready`.
//! web.step("a")?;
//! println!("{} {}", web.id, web.pid);
//! # Ok(())
//! # }
//! ```

mod container;
mod containerd;
mod files;
mod groups;

use std::{
    cell::RefCell,
    ffi::OsStr,
    fs::{self, File},
    os::{fd::OwnedFd, unix::net::UnixListener},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};
use tempfile::TempDir;
use tracer_user::scope::containers::{Places, Socket};

pub(crate) use self::groups::Groups;
pub use self::{
    container::{Container, Hanging},
    files::{ImageFile, files_of, import},
    groups::OTHER_PARENT,
};
use crate::{
    guard::{Guard, piped},
    process::send,
    session::clean,
};

/// Daemons lie in `sbin`.
const DAEMON_PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin";

/// Hands the socket on its stdin over as systemd does (sd_listen_fds(3)): it is there before the daemon, so that whoever connects
/// waits for the daemon and for nothing else.
const WITH_SOCKET: &str = r#"LISTEN_PID=$$ LISTEN_FDS=1 exec "$@" 3<&0 </dev/null"#;

/// A daemon with what it keeps. Everything is stopped and removed when it goes.
#[derive(Debug)]
pub struct Docker {
    daemon: Option<Guard>,
    dir: TempDir,
    /// Namespace and id of each.
    of_containerd: RefCell<Vec<(String, String)>>,
    _groups: Groups,
}

impl Docker {
    /// Starts a daemon, and comes back when it answers.
    pub fn start() -> Result<Self> {
        let groups = Groups::new()?;
        let dir = TempDir::new()?;
        let at = |name: &str| dir.path().join(name);
        let listener = UnixListener::bind(at("docker.sock"))?;
        let log = File::create(at("log"))?;
        // One's own in containerd too, where the host has one that runs.
        let namespace = format!("memtrace-tests-{}", std::process::id());
        let mut command = clean("sh");
        command.env("PATH", DAEMON_PATH).args(["-c", WITH_SOCKET, "sh", "dockerd", "--host=fd://"]);
        command.args(["--iptables=false", "--ip6tables=false", "--bridge=none", "--storage-driver=overlay2"]);
        // The same paths of groups on every host: systemd would have its own.
        command.args(["--exec-opt", "native.cgroupdriver=cgroupfs"]);
        command.arg(format!("--containerd-namespace={namespace}"));
        command.arg(format!("--containerd-plugins-namespace={namespace}-plugins"));
        command.arg("--data-root").arg(at("data")).arg("--exec-root").arg(at("exec"));
        command.arg("--pidfile").arg(at("docker.pid"));
        command.stdin(OwnedFd::from(listener)).stdout(Stdio::null()).stderr(log);
        let daemon = Guard::spawn(&mut command)?;
        // The daemon alone listens from now on: when it ends, whoever waits is told.
        drop(command);
        let docker = Self { daemon: Some(daemon), dir, of_containerd: RefCell::default(), _groups: groups };
        docker.cli(&["version"]).with_context(|| format!("dockerd does not answer; its log:\n{}", docker.log()))?;
        Ok(docker)
    }

    /// Its socket.
    pub fn socket(&self) -> PathBuf {
        self.dir.path().join("docker.sock")
    }

    /// Its address, for `DOCKER_HOST`.
    pub fn host(&self) -> String {
        format!("unix://{}", self.socket().display())
    }

    /// Where the library finds what it knows.
    pub fn places(&self) -> Places {
        Places { docker: Some(Socket::Named(self.socket())), containerd: vec![self.containerd().0], stores: Vec::new() }
    }

    /// What `docker ARGS` writes to stdout, without the last line's end; it must exit with 0.
    pub fn cli<A: AsRef<OsStr>>(&self, args: &[A]) -> Result<String> {
        let output = Guard::spawn(piped(self.command().args(args)))?.finish()?;
        let shown: Vec<_> = args.iter().map(|arg| arg.as_ref().to_string_lossy()).collect();
        ensure!(output.status.success(), "docker {}: {}", shown.join(" "), output.stderr);
        Ok(output.stdout.trim_end().to_owned())
    }

    /// `docker`, told where the daemon is.
    pub fn command(&self) -> Command {
        let mut command = clean("docker");
        command.env("DOCKER_HOST", self.host());
        command
    }

    /// Makes an image of files alone.
    pub fn image(&self, name: &str, files: &[ImageFile]) -> Result<()> {
        import(&self.dir.path().join("rootfs"), files, self.command().args(["import", "-", name]))
    }

    /// Starts a container without network, and comes back when its program has said `ready`.
    pub fn run(&self, image: &str, name: &str, program: &[&str]) -> Result<Container> {
        self.run_with(&[], image, name, program)
    }

    /// Likewise, with further options for `docker run`.
    pub fn run_with(&self, options: &[&str], image: &str, name: &str, program: &[&str]) -> Result<Container> {
        let mut run = self.command();
        run.args(["run", "--interactive", "--network=none", "--name", name]).args(options).arg(image).args(program);
        self.container(&mut run, name)
    }

    /// Starts a container that was made (`docker create --interactive`) or has ended.
    pub fn start_again(&self, name: &str) -> Result<Container> {
        let mut start = self.command();
        start.args(["start", "--interactive", name]);
        self.container(&mut start, name)
    }

    fn container(&self, run: &mut Command, name: &str) -> Result<Container> {
        let mut exec = self.command();
        exec.args(["exec", "--interactive", name]);
        Container::start(run, name, exec, || {
            let known = self.cli(&["inspect", "--format", "{{.Id}} {{.State.Pid}}", name])?;
            let (id, pid) = known.split_once(' ').context("an id and a pid")?;
            Ok((id.to_owned(), pid.parse()?))
        })
    }

    /// Stops the daemon from answering, until what this returns goes.
    pub fn hang(&self) -> Result<Hanging> {
        let pid = self.daemon.as_ref().context("it runs")?.pid();
        Hanging::stop(pid)
    }

    fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    fn clean_up(&mut self) -> Result<()> {
        let Some(daemon) = self.daemon.take() else { return Ok(()) };
        self.remove_of_containerd();
        let ids = self.cli(&["ps", "--all", "--quiet"]).unwrap_or_default();
        let removed = ids.split_whitespace().try_for_each(|id| self.cli(&["rm", "--force", id]).map(|_| ()));
        send(daemon.pid(), libc::SIGTERM)?;
        let ended = daemon.finish();
        self.unmount();
        removed?;
        ended.map(|_| ())
    }

    /// What a daemon that was killed has left mounted, the last first.
    fn unmount(&self) {
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let points = mounts
            .lines()
            .filter_map(|line| line.split(' ').nth(4))
            .filter(|p| Path::new(p).starts_with(self.dir.path()));
        for point in points.collect::<Vec<_>>().into_iter().rev() {
            clean("umount").env("PATH", DAEMON_PATH).args(["--lazy", point]).status().ok();
        }
    }
}

impl Drop for Docker {
    fn drop(&mut self) {
        if let Err(error) = self.clean_up() {
            eprintln!("failed to stop docker in order: {error:#}; its log:\n{}", self.log());
        }
    }
}
