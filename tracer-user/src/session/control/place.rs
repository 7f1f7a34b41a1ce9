//! Where the sockets of sessions lie: one directory a user, which nobody else can enter.

use std::{
    env, fs, io,
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use nix::unistd::geteuid;

/// Root's runtime directory.
const ROOT_DIR: &str = "/run";
/// Users' runtime directories (`$XDG_RUNTIME_DIR` is one of them).
const USER_DIRS: &str = "/run/user";
const NAME: &str = "memtrace-bpf";
const SUFFIX: &str = "sock";

/// The directory of this user's sockets, whether it is there or not.
///
/// # Errors
/// The user has no runtime directory.
pub(super) fn own_dir() -> io::Result<PathBuf> {
    if geteuid().is_root() {
        return Ok(Path::new(ROOT_DIR).join(NAME));
    }
    let dir = env::var_os("XDG_RUNTIME_DIR").filter(|dir| Path::new(dir).is_absolute());
    dir.map(|dir| Path::new(&dir).join(NAME))
        .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "XDG_RUNTIME_DIR is not set"))
}

/// Makes this user's directory, and holds that nobody else can enter it.
///
/// # Errors
/// It cannot be made, or is another's.
pub(super) fn make_own_dir() -> io::Result<PathBuf> {
    let dir = own_dir()?;
    match fs::DirBuilder::new().mode(0o700).create(&dir) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    let found = fs::symlink_metadata(&dir)?;
    if !found.is_dir() || found.uid() != geteuid().as_raw() {
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, format!("`{}` is another's", dir.display())));
    }
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o700))?;
    Ok(dir)
}

/// The socket of the session with a target.
pub(super) fn socket(dir: &Path, pid: u32) -> PathBuf {
    dir.join(format!("{pid}.{SUFFIX}"))
}

/// The sockets in a directory, and the targets' ids.
pub(super) fn sockets(dir: &Path) -> Vec<(u32, PathBuf)> {
    let Ok(entries) = fs::read_dir(dir) else { return Vec::new() };
    let mut found: Vec<_> = entries
        .flatten()
        .filter_map(|entry| {
            let path = entry.path();
            let pid = path.file_name()?.to_str()?.strip_suffix(SUFFIX)?.strip_suffix('.')?.parse().ok()?;
            Some((pid, path))
        })
        .collect();
    found.sort_unstable();
    found
}

/// The directories whose sockets this user may open, each with its owner: one's own; for root everybody's.
pub(super) fn readable_dirs() -> Vec<(PathBuf, u32)> {
    let mut dirs: Vec<PathBuf> = own_dir().into_iter().collect();
    if geteuid().is_root() {
        let users = fs::read_dir(USER_DIRS).into_iter().flatten().flatten();
        dirs.extend(users.map(|user| user.path().join(NAME)));
    }
    let owned = |dir: PathBuf| {
        let found = fs::symlink_metadata(&dir).ok().filter(fs::Metadata::is_dir)?;
        Some((dir, found.uid()))
    };
    dirs.into_iter().filter_map(owned).collect()
}
