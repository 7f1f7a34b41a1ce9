//! The v2 hierarchy of control groups: where it is mounted, its groups, and the numbers that the kernel knows them by.

use std::{
    collections::VecDeque,
    ffi::OsString,
    fs, io,
    os::unix::{ffi::OsStringExt as _, fs::MetadataExt as _},
    path::{Component, Path, PathBuf},
};

use nix::sys::statfs::{CGROUP_SUPER_MAGIC, CGROUP2_SUPER_MAGIC, FsType, statfs};

use super::{ScopeError, files};
use crate::text::near;

/// Bytes of `/proc/self/mountinfo` that are read: hosts with thousands of containers have 100 000 mounts.
const MAX_MOUNTINFO_BYTES: u64 = 64 << 20;

/// Groups that are looked at in one walk.
const MAX_GROUPS: usize = 1 << 16;

/// A control group, as BPF programs are told of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CgroupRef {
    /// The inode number of its directory: what `bpf_get_current_cgroup_id` gives to a process in it.
    pub id: u64,
    /// Its depth, 0 for the hierarchy's root: `bpf_get_current_ancestor_cgroup_id(level)` gives `id` to processes in it and
    /// below it.
    pub level: u32,
    /// `/docker/<id>`: its path below the hierarchy's root, as in `/proc/PID/cgroup`.
    pub path: PathBuf,
}

/// Where the v2 hierarchy is mounted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hierarchy {
    /// The directory that it is mounted on.
    mount_point: PathBuf,
    /// The group that this directory is: `/`, unless only a part is mounted.
    root: PathBuf,
}

impl Hierarchy {
    /// Finds the mount, the one that shows most.
    ///
    /// # Errors
    /// There is none, or this process does not see the host's groups.
    pub fn find() -> Result<Self, ScopeError> {
        /// The initial cgroup namespace has the same number on every kernel (PROC_CGROUP_INIT_INO, include/linux/proc_ns.h).
        const INITIAL: &str = "cgroup:[4026531835]";
        // Paths in another namespace, and depths, say nothing to the kernel's side. (Linux has these namespaces from 4.6.)
        if fs::read_link("/proc/self/ns/cgroup").is_ok_and(|namespace| namespace.as_os_str() != INITIAL) {
            return Err(ScopeError::Namespace);
        }
        let path = PathBuf::from("/proc/self/mountinfo");
        let text = files::read(&path, MAX_MOUNTINFO_BYTES).map_err(|source| ScopeError::Read { path, source })?;
        let found = Self::of_mountinfo(&text).into_iter().find(|hierarchy| is_cgroup2(&hierarchy.mount_point));
        found.ok_or(ScopeError::NoHierarchy)
    }

    /// The mounts of the hierarchy, those that show most first (proc_pid_mountinfo(5)).
    fn of_mountinfo(text: &[u8]) -> Vec<Self> {
        let mut found: Vec<Self> = text.split(|&byte| byte == b'\n').filter_map(Self::of_mount).collect();
        found.sort_by_key(|hierarchy| hierarchy.root.components().count());
        found
    }

    /// `41 31 0:38 / /sys/fs/cgroup/unified rw,relatime shared:4 - cgroup2 cgroup2 rw`
    fn of_mount(line: &[u8]) -> Option<Self> {
        let mut fields = line.split(|&byte| byte == b' ');
        let root = unescaped(fields.nth(3)?);
        let mount_point = unescaped(fields.next()?);
        let mut after = fields.skip_while(|field| *field != b"-");
        (after.nth(1)? == b"cgroup2").then_some(Self { mount_point, root })
    }

    /// The directory that it is mounted on.
    pub fn mount_point(&self) -> &Path {
        &self.mount_point
    }

    /// The directory of a group; `None`: it is not in the part that is mounted.
    fn dir(&self, group: &Path) -> Option<PathBuf> {
        let below = group.strip_prefix(&self.root).ok()?;
        // Joining an empty path would add a slash.
        Some(if below.as_os_str().is_empty() { self.mount_point.clone() } else { self.mount_point.join(below) })
    }

    /// The group of a directory.
    fn group(&self, dir: &Path) -> Option<PathBuf> {
        let below = dir.strip_prefix(&self.mount_point).ok()?;
        Some(if below.as_os_str().is_empty() { self.root.clone() } else { self.root.join(below) })
    }

    /// The numbers of a group.
    ///
    /// # Errors
    /// It is gone (`NotFound`), or not in the part that is mounted (likewise).
    pub fn reference(&self, group: &Path) -> io::Result<CgroupRef> {
        let dir = self.dir(group).ok_or(io::ErrorKind::NotFound)?;
        let metadata = fs::metadata(dir)?;
        let level = group.components().filter(|part| matches!(part, Component::Normal(_))).count();
        Ok(CgroupRef { id: metadata.ino(), level: level as u32, path: group.to_owned() })
    }

    /// The group that a user means: its directory, or its path below the root.
    ///
    /// # Errors
    /// There is none; or it is one of another hierarchy.
    pub fn locate(&self, asked: &Path) -> Result<PathBuf, ScopeError> {
        if asked.is_absolute()
            && let Ok(real) = asked.canonicalize()
        {
            if let Some(group) = self.group(&real).filter(|_| is_cgroup2(&real)) {
                return Ok(group);
            }
            if file_system(&real) == Some(CGROUP_SUPER_MAGIC) {
                return Err(ScopeError::Version1 { path: asked.to_owned(), root: self.mount_point.clone() });
            }
        }
        let group = Path::new("/").join(asked.components().collect::<PathBuf>());
        if self.dir(&group).is_some_and(|dir| dir.is_dir()) {
            return Ok(group);
        }
        let name = |group: &PathBuf| group.to_string_lossy().trim_start_matches('/').to_owned();
        let names: Vec<String> = self.walk().iter().map(name).collect();
        let near = near::names(&name(&group), &names);
        Err(ScopeError::NoSuchCgroup { path: asked.to_owned(), root: self.mount_point.clone(), near })
    }

    /// Ids of the processes in a group and below it; none if it is gone.
    pub fn members(&self, group: &Path) -> Vec<u32> {
        let groups = self.dir(group).map(|dir| self.walk_from(dir)).unwrap_or_default();
        let procs = groups.iter().filter_map(|group| fs::read_to_string(self.dir(group)?.join("cgroup.procs")).ok());
        procs.flat_map(|text| text.lines().filter_map(|line| line.parse().ok()).collect::<Vec<u32>>()).collect()
    }

    /// Every group, those near the root first.
    pub fn walk(&self) -> Vec<PathBuf> {
        self.walk_from(self.mount_point.clone())
    }

    fn walk_from(&self, dir: PathBuf) -> Vec<PathBuf> {
        let mut groups = Vec::new();
        let mut waiting = VecDeque::from([dir]);
        while let Some(dir) = waiting.pop_front() {
            if groups.len() >= MAX_GROUPS {
                log::warn!("more than {MAX_GROUPS} cgroups: containers in the others are not found by name");
                break;
            }
            // A group may go while it is looked at.
            let below = fs::read_dir(&dir).into_iter().flatten().flatten();
            waiting.extend(below.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).map(|e| e.path()));
            groups.extend(self.group(&dir));
        }
        groups
    }
}

fn is_cgroup2(path: &Path) -> bool {
    file_system(path) == Some(CGROUP2_SUPER_MAGIC)
}

fn file_system(path: &Path) -> Option<FsType> {
    statfs(path).ok().map(|found| found.filesystem_type())
}

/// A path of mountinfo: blanks, tabs, line ends and backslashes stand as `\NNN`, in octal.
fn unescaped(field: &[u8]) -> PathBuf {
    let mut path = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&byte, after)) = rest.split_first() {
        let digits = after.get(..3).filter(|digits| digits.iter().all(|digit| (b'0'..=b'7').contains(digit)));
        if let (b'\\', Some(digits)) = (byte, digits) {
            path.push(digits.iter().fold(0u8, |code, digit| code.wrapping_mul(8).wrapping_add(digit - b'0')));
            rest = &after[3..];
        } else {
            path.push(byte);
            rest = after;
        }
    }
    PathBuf::from(OsString::from_vec(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &[u8] = b"\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
50 31 0:38 /docker /mnt/a\\040part rw,relatime shared:7 master:2 - cgroup2 cgroup2 rw
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime shared:4 - cgroup2 cgroup2 rw
";

    fn hierarchy(mount_point: &str, root: &str) -> Hierarchy {
        Hierarchy { mount_point: mount_point.into(), root: root.into() }
    }

    #[test]
    fn the_mount_that_shows_most_comes_first() {
        let expected = [hierarchy("/sys/fs/cgroup/unified", "/"), hierarchy("/mnt/a part", "/docker")];
        assert_eq!(Hierarchy::of_mountinfo(HYBRID), expected);
        assert_eq!(Hierarchy::of_mountinfo(b""), []);
        assert_eq!(Hierarchy::of_mountinfo(b"1 2 0:3 / /x - cgroup2\n41 31 - cgroup2 a b\n"), [hierarchy("/x", "/")]);
    }

    #[test]
    fn a_group_has_one_directory_and_back() {
        let whole = hierarchy("/sys/fs/cgroup", "/");
        let part = hierarchy("/mnt/part", "/docker");
        for (hierarchy, group, dir) in [
            (&whole, "/", "/sys/fs/cgroup"),
            (&whole, "/docker/x", "/sys/fs/cgroup/docker/x"),
            (&part, "/docker", "/mnt/part"),
            (&part, "/docker/x", "/mnt/part/x"),
        ] {
            assert_eq!(hierarchy.dir(Path::new(group)).as_deref(), Some(Path::new(dir)));
            assert_eq!(hierarchy.group(Path::new(dir)).as_deref(), Some(Path::new(group)));
        }
        assert_eq!(part.dir(Path::new("/dockerx")), None);
        assert_eq!(part.group(Path::new("/elsewhere")), None);
    }

    #[test]
    fn escapes_of_mountinfo_are_octal() {
        assert_eq!(unescaped(b"/a\\040b\\134c\\9\\04"), Path::new("/a b\\c\\9\\04"));
    }

    #[test]
    fn the_own_group_is_known_by_its_directory_and_its_path() {
        let hierarchy = match Hierarchy::find() {
            // Build machines may have neither.
            Err(ScopeError::NoHierarchy | ScopeError::Namespace) => return,
            found => found.expect("mountinfo is readable"),
        };
        let facts = crate::scope::Facts::read(std::process::id()).expect("this process");
        let group = facts.cgroup.expect("there is a hierarchy");
        let dir = hierarchy.dir(&group).expect("it is mounted");
        assert_eq!(hierarchy.locate(&dir).expect("by its directory"), group);
        assert_eq!(hierarchy.locate(&group).expect("by its path"), group);
        let found = hierarchy.reference(&group).expect("it is there");
        assert_eq!((found.id, found.path), (fs::metadata(dir).expect("it is there").ino(), group));
        let root = hierarchy.reference(&hierarchy.root).expect("the root");
        assert_eq!(root.level as usize, hierarchy.root.components().count() - 1);
        assert!(hierarchy.walk().contains(&hierarchy.root));
    }
}
