//! Control groups of our own.

use std::{
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
};

use anyhow::{Context as _, Result};

/// A cgroup in a cgroup of the v2 hierarchy, both removed when dropped.
#[derive(Debug)]
pub struct Cgroups {
    outer: PathBuf,
    level: u32,
}

impl Cgroups {
    /// Makes them.
    pub fn new() -> Result<Self> {
        static N: AtomicU32 = AtomicU32::new(0);
        let mounts = fs::read_to_string("/proc/mounts")?;
        let mount =
            mounts.lines().find(|mount| mount.split(' ').nth(2) == Some("cgroup2")).context("cgroup v2 is mounted")?;
        let root = Path::new(mount.split(' ').nth(1).context("a place")?);
        let n = N.fetch_add(1, Ordering::Relaxed);
        let outer = root.join(format!("memtrace-test-{}-{n}", std::process::id()));
        let cgroups = Self { outer, level: 1 };
        fs::create_dir_all(cgroups.inner())?;
        Ok(cgroups)
    }

    /// The outer one's directory.
    pub fn outer(&self) -> &Path {
        &self.outer
    }

    /// The inner one's directory.
    pub fn inner(&self) -> PathBuf {
        self.outer.join("inner")
    }

    /// Moves a process into the inner one.
    pub fn enter(&self, pid: u32) -> Result<()> {
        Ok(fs::write(self.inner().join("cgroup.procs"), pid.to_string())?)
    }

    /// The id of the outer one, which is its directory's inode number, and its level.
    pub fn scope(&self) -> Result<(u64, u32)> {
        Ok((fs::metadata(&self.outer)?.ino(), self.level))
    }

    /// The inner one's id.
    pub fn inner_id(&self) -> Result<u64> {
        Ok(fs::metadata(self.inner())?.ino())
    }
}

impl Drop for Cgroups {
    fn drop(&mut self) {
        for cgroup in [self.inner(), self.outer.clone()] {
            // What was in it has been killed, but may not be gone yet.
            while let Err(error) = fs::remove_dir(&cgroup) {
                if error.raw_os_error() != Some(libc::EBUSY) {
                    eprintln!("failed to remove {}: {error}", cgroup.display());
                    break;
                }
                std::thread::yield_now();
            }
        }
    }
}
