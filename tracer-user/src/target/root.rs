//! The root of a target's file system, where it is not ours: a container's, or that of a `chroot`.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::{
        fd::{AsFd as _, AsRawFd as _},
        unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    },
    path::Path,
    sync::Arc,
};

use nix::{
    fcntl::{OFlag, OpenHow, ResolveFlag, openat2},
    sys::stat::Mode,
};

/// A directory that stays open, so that its files can be read after the target has ended.
#[derive(Debug)]
pub struct Root {
    dir: File,
    identity: (u64, u64),
}

impl Root {
    /// The root of a process that sees other files than we do. `None` also where it cannot be told.
    pub fn of_other(pid: u32) -> Option<Self> {
        let root = Self::at(Path::new(&format!("/proc/{pid}/root"))).ok()?;
        let ours = fs::metadata("/").ok()?;
        let mounts = |pid: &str| fs::metadata(format!("/proc/{pid}/ns/mnt")).map(|namespace| namespace.ino());
        let same_mounts = mounts("self").ok()? == mounts(&pid.to_string()).ok()?;
        (root.identity != (ours.dev(), ours.ino()) || !same_mounts).then_some(root)
    }

    /// A directory as a root.
    ///
    /// # Errors
    /// It is none, or may not be opened.
    pub fn at(dir: &Path) -> io::Result<Self> {
        let dir = OpenOptions::new().read(true).custom_flags(libc::O_PATH | libc::O_DIRECTORY).open(dir)?;
        let metadata = dir.metadata()?;
        Ok(Self { dir, identity: (metadata.dev(), metadata.ino()) })
    }

    /// Whether it is the same directory.
    pub fn is(&self, other: &Self) -> bool {
        self.identity == other.identity
    }

    /// Opens a file as the target would: links, absolute ones too, and `..` stay within the root. Nothing but a regular file is
    /// opened; a device or a FIFO that lies in its place is not touched.
    ///
    /// # Errors
    /// There is no such file, or it is no regular one.
    pub fn open_regular(&self, path: &Path) -> io::Result<File> {
        let within = path.strip_prefix("/").unwrap_or(path);
        let how = OpenHow::new()
            .flags(OFlag::O_PATH | OFlag::O_CLOEXEC)
            .mode(Mode::empty())
            .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
        let found = File::from(openat2(self.dir.as_fd(), within, how)?);
        if !found.metadata()?.is_file() {
            return Err(io::Error::other("not a regular file"));
        }
        File::open(format!("/proc/self/fd/{}", found.as_raw_fd()))
    }
}

/// Roots that are kept open; a system view may meet many.
const MAX_ROOTS: usize = 256;

/// The roots of all targets, each once.
#[derive(Debug, Default)]
pub struct Roots(Vec<Arc<Root>>);

impl Roots {
    /// The root of a process, where it is not ours.
    pub fn of(&mut self, pid: u32) -> Option<Arc<Root>> {
        let root = Root::of_other(pid)?;
        if let Some(known) = self.0.iter().find(|known| known.is(&root)) {
            return Some(Arc::clone(known));
        }
        let root = Arc::new(root);
        if self.0.len() < MAX_ROOTS {
            self.0.push(Arc::clone(&root));
        }
        Some(root)
    }

    /// All that were met.
    pub fn all(&self) -> &[Arc<Root>] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use nix::unistd::mkfifo;

    use super::*;

    fn read(root: &Root, path: &str) -> Option<String> {
        root.open_regular(Path::new(path)).ok().map(|file| io::read_to_string(file).expect("readable"))
    }

    #[test]
    fn links_and_parents_stay_within() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let inside = dir.path().join("root");
        fs::create_dir_all(inside.join("usr/lib")).expect("made");
        fs::write(dir.path().join("secret"), "outside").expect("written");
        fs::write(inside.join("secret"), "inside").expect("written");
        symlink("/secret", inside.join("usr/absolute")).expect("linked");
        symlink("../../../secret", inside.join("usr/parent")).expect("linked");
        symlink(dir.path().join("secret"), inside.join("usr/host")).expect("linked");
        symlink("/proc/self/root/etc/passwd", inside.join("usr/magic")).expect("linked");
        let root = Root::at(&inside).expect("a directory");

        assert_eq!(read(&root, "/secret").as_deref(), Some("inside"));
        assert_eq!(read(&root, "/usr/absolute").as_deref(), Some("inside"));
        assert_eq!(read(&root, "/usr/parent").as_deref(), Some("inside"));
        assert_eq!(read(&root, "/../secret").as_deref(), Some("inside"));
        assert_eq!(read(&root, "/usr/host"), None);
        assert_eq!(read(&root, "/usr/magic"), None);
    }

    #[test]
    fn what_is_no_regular_file_is_not_opened() {
        let dir = tempfile::tempdir().expect("temporary directory");
        mkfifo(&dir.path().join("fifo"), Mode::S_IRUSR).expect("made");
        fs::create_dir(dir.path().join("directory")).expect("made");
        let root = Root::at(dir.path()).expect("a directory");

        for name in ["fifo", "directory", "missing"] {
            assert!(root.open_regular(Path::new(name)).is_err(), "{name}");
        }
    }

    #[test]
    fn our_own_root_is_no_other() {
        assert!(Root::of_other(std::process::id()).is_none());
    }
}
