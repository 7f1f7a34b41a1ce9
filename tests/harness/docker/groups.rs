//! Control groups that engines make and leave.

use std::{
    fs::{self, File},
    path::Path,
};

use anyhow::Result;

/// Where the hierarchies are; locked (flock(2)) by everybody who may have containers.
const ROOT: &str = "/sys/fs/cgroup";

/// For `--cgroup-parent`: a group that is removed with everything in it.
pub const OTHER_PARENT: &str = "memtrace-tests";

/// Docker's own parent of groups.
const DOCKERS: &str = "docker";

/// The right to have containers. The last one to go removes the parents of their groups.
#[derive(Debug)]
pub(crate) struct Groups(File);

impl Groups {
    pub(crate) fn new() -> Result<Self> {
        let root = File::open(ROOT)?;
        root.lock_shared()?;
        Ok(Self(root))
    }
}

impl Drop for Groups {
    fn drop(&mut self) {
        if self.0.try_lock().is_err() {
            return;
        }
        let root = Path::new(ROOT);
        let controllers = fs::read_dir(root).into_iter().flatten().flatten().map(|entry| entry.path());
        for hierarchy in controllers.chain([root.to_owned()]) {
            fs::remove_dir(hierarchy.join(DOCKERS)).ok();
            remove(&hierarchy.join(OTHER_PARENT));
        }
    }
}

/// From the leaves up; what is still used is not empty and stays.
fn remove(group: &Path) {
    let below = fs::read_dir(group).into_iter().flatten().flatten();
    below.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).for_each(|entry| remove(&entry.path()));
    fs::remove_dir(group).ok();
}
