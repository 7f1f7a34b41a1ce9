//! A Podman of a test's own: its images and containers lie in a temporary directory and go with it. There is no daemon.

use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use tempfile::TempDir;
use tracer_user::scope::containers::{Places, Store};

use crate::{
    docker::{Container, Groups, ImageFile, OTHER_PARENT, import},
    guard::{Guard, piped},
    session::clean,
};

/// What every command is told: the runtime that works on hosts with both versions of control groups, and no systemd.
const OPTIONS: [&str; 5] = [
    "--runtime=runc",
    "--cgroup-manager=cgroupfs",
    "--events-backend=file",
    "--storage-driver=overlay",
    "--log-level=error",
];

/// Everything is stopped and removed when it goes.
#[derive(Debug)]
pub struct Podman {
    dir: TempDir,
    _groups: Groups,
}

impl Podman {
    /// With nothing in it.
    pub fn new() -> Result<Self> {
        Ok(Self { dir: TempDir::new()?, _groups: Groups::new()? })
    }

    /// Where the library finds what it knows.
    pub fn places(&self) -> Places {
        let (graph_root, run_root) = (self.dir.path().join("graph"), self.dir.path().join("run"));
        Places { stores: vec![Store { graph_root, run_root }], ..Places::none() }
    }

    /// Makes an image of files alone.
    pub fn image(&self, name: &str, files: &[ImageFile]) -> Result<()> {
        import(&self.dir.path().join("rootfs"), files, self.command().args(["import", "--quiet", "-", name]))
    }

    /// Starts a container without network, and comes back when its program has said `ready`.
    pub fn run(&self, image: &str, name: &str, program: &[&str]) -> Result<Container> {
        let mut run = self.command();
        run.args(["run", "--interactive", "--network=none", "--cgroup-parent", OTHER_PARENT, "--name", name]);
        // No more than this process may have: the defaults can be more.
        run.args(["--ulimit=nofile=1024:1024", "--ulimit=nproc=1024:1024", image]).args(program);
        let mut exec = self.command();
        exec.args(["exec", "--interactive", name]);
        Container::start(&mut run, name, exec, || {
            let known = self.cli(&["inspect", "--format", "{{.Id}} {{.State.Pid}}", name])?;
            let (id, pid) = known.split_once(' ').context("an id and a pid")?;
            Ok((id.to_owned(), pid.parse()?))
        })
    }

    /// What `podman ARGS` writes to stdout, without the last line's end; it must exit with 0.
    pub fn cli(&self, args: &[&str]) -> Result<String> {
        let output = Guard::spawn(piped(self.command().args(args)))?.finish()?;
        ensure!(output.status.success(), "podman {}: {}", args.join(" "), output.stderr);
        Ok(output.stdout.trim_end().to_owned())
    }

    fn command(&self) -> Command {
        let at = |name: &str| self.dir.path().join(name);
        let mut command = clean("podman");
        // runc lies in `sbin`.
        command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").args(OPTIONS);
        command.arg("--root").arg(at("graph")).arg("--runroot").arg(at("run")).arg("--tmpdir").arg(at("tmp"));
        command
    }
}

impl Drop for Podman {
    fn drop(&mut self) {
        if let Err(error) = self.cli(&["rm", "--all", "--force", "--time=0"]) {
            eprintln!("failed to remove podman's containers: {error:#}");
        }
        // The driver keeps its directory mounted on itself.
        for mount in ["graph/overlay", "graph"] {
            let mut umount = clean("umount");
            umount.env("PATH", "/usr/bin:/bin").arg("--lazy").arg(self.dir.path().join(mount));
            Guard::spawn(piped(&mut umount)).and_then(Guard::finish).ok();
        }
    }
}
