//! Containers of containerd alone, as ctr starts them: Docker's daemon has a containerd below.

use std::{fs, path::Path, path::PathBuf, process::Command};

use anyhow::{Context as _, Result};

use super::{Docker, ImageFile, OTHER_PARENT, container::Container, files};
use crate::{
    guard::{Guard, piped},
    session::clean,
};

/// Where containerd listens that the host has already; Docker uses it then.
const HOSTS: &str = "/run/containerd";

impl Docker {
    /// Starts a container of these files in a namespace of containerd, without network, in the group `cgroup` below
    /// [`OTHER_PARENT`], and comes back when its program has said `ready`.
    pub fn ctr(
        &self,
        (namespace, id): (&str, &str),
        annotations: &[&str],
        cgroup: &str,
        files: &[ImageFile],
        program: &[&str],
    ) -> Result<Container> {
        let root = self.dir.path().join(format!("root-{id}"));
        files::lay_out(&root, files)?;
        self.of_containerd.borrow_mut().push((namespace.to_owned(), id.to_owned()));
        let mut run = self.ctr_command(namespace);
        run.args(["run", "--rootfs", "--cgroup", &format!("/{OTHER_PARENT}/{cgroup}")]);
        run.args(annotations.iter().flat_map(|annotation| ["--annotation", annotation]));
        run.arg(&root).arg(id).args(program);
        let mut exec = self.ctr_command(namespace);
        exec.args(["task", "exec", "--exec-id", "sibling", id]);
        Container::start(&mut run, id, exec, || {
            let bundle = self.containerd().0.join("io.containerd.runtime.v2.task").join(namespace).join(id);
            let pid = fs::read_to_string(bundle.join("init.pid")).context("the bundle says no pid")?;
            Ok((id.to_owned(), pid.parse()?))
        })
    }

    /// The state directory and the socket of containerd.
    pub(super) fn containerd(&self) -> (PathBuf, PathBuf) {
        let own = self.dir.path().join("exec/containerd");
        if own.exists() {
            (own.join("daemon"), own.join("containerd.sock"))
        } else {
            (HOSTS.into(), Path::new(HOSTS).join("containerd.sock"))
        }
    }

    fn ctr_command(&self, namespace: &str) -> Command {
        let mut ctr = clean("ctr");
        ctr.arg("--address").arg(self.containerd().1).args(["--namespace", namespace]);
        ctr
    }

    /// Those that [`Self::ctr`] started and that may still run.
    pub(super) fn remove_of_containerd(&self) {
        for (namespace, id) in self.of_containerd.borrow_mut().drain(..) {
            for words in [["task", "rm", "--force"], ["container", "rm", ""]] {
                let words = words.iter().filter(|word| !word.is_empty());
                let removed = Guard::spawn(piped(self.ctr_command(&namespace).args(words).arg(&id)));
                // Whether there was something to remove does not matter.
                removed.and_then(Guard::finish).ok();
            }
        }
    }
}
