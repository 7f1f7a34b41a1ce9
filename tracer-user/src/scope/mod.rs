//! Which processes a session traces. What a user asks for is a [`Scope`]; what that is on this host is a [`Selection`]; what
//! is known of a process to decide by are its [`Facts`].

mod cgroup;
pub mod containers;
mod error;
mod facts;
mod files;
mod meaning;
mod selection;
pub mod users;

use std::{fmt, path::PathBuf};

pub use self::{
    cgroup::{CgroupRef, Hierarchy},
    error::ScopeError,
    facts::Facts,
    selection::Selection,
};

/// One condition that a process may meet. A session has any number of them; a process is selected by meeting one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    /// The process with this id in the initial namespace.
    Pid(u32),
    /// Processes whose name matches a pattern of [`crate::text::glob`].
    Comm(String),
    /// Processes that run this executable.
    Exe(PathBuf),
    /// Processes with the effective rights of this user: a name, or a number.
    User(String),
    /// Processes of a v2 control group and of those below it: a directory, or a path below the hierarchy's root.
    Cgroup(PathBuf),
    /// Processes of a container: its name, its id or the beginning of its id.
    Container(String),
    /// Processes of all containers of a Kubernetes pod.
    Pod {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
    },
    /// Every process.
    All,
}

/// Longest text of a scope: a path, as the kernel takes them (PATH_MAX, include/uapi/linux/limits.h).
const MAX_TEXT_BYTES: usize = 4096;

impl Scope {
    /// A process by its id.
    pub fn pid(text: &str) -> Result<Self, String> {
        match text.parse::<i32>() {
            Ok(pid) if pid > 0 => Ok(Self::Pid(pid as u32)),
            _ => Err(format!("`{text}` is not a process id")),
        }
    }

    /// Processes by their name.
    pub fn comm(text: &str) -> Result<Self, String> {
        Ok(Self::Comm(checked(text)?.to_owned()))
    }

    /// Processes by their executable. A relative path starts here, and must lead to a file.
    pub fn exe(text: &str) -> Result<Self, String> {
        let path = PathBuf::from(checked(text)?);
        if path.is_dir() {
            return Err(format!("`{text}` is a directory, not an executable"));
        }
        if path.is_absolute() {
            return Ok(Self::Exe(path));
        }
        let found = std::path::absolute(&path).ok().filter(|path| path.is_file());
        found.map(Self::Exe).ok_or_else(|| format!("no file `{text}` here (an absolute path is taken as it is)"))
    }

    /// Processes by their user.
    pub fn user(text: &str) -> Result<Self, String> {
        Ok(Self::User(checked(text)?.to_owned()))
    }

    /// Processes by their control group.
    pub fn cgroup(text: &str) -> Result<Self, String> {
        let path = PathBuf::from(checked(text)?);
        if path.components().any(|part| part == std::path::Component::ParentDir) {
            return Err(format!("`{text}` holds `..`: give the path without"));
        }
        Ok(Self::Cgroup(path))
    }

    /// Processes by their container.
    pub fn container(text: &str) -> Result<Self, String> {
        Ok(Self::Container(checked(text)?.to_owned()))
    }

    /// Processes by their pod.
    pub fn pod(text: &str) -> Result<Self, String> {
        match checked(text)?.split_once('/') {
            Some((namespace, name)) if !namespace.is_empty() && !name.is_empty() && !name.contains('/') => {
                Ok(Self::Pod { namespace: namespace.to_owned(), name: name.to_owned() })
            }
            _ => Err(format!("`{text}` is not NAMESPACE/NAME (try `default/{text}`)")),
        }
    }
}

/// What a user typed, if it can be a name at all.
fn checked(text: &str) -> Result<&str, String> {
    if text.is_empty() {
        return Err("an empty name selects nothing".to_owned());
    }
    if text.len() > MAX_TEXT_BYTES {
        return Err(format!("longer than {MAX_TEXT_BYTES} bytes"));
    }
    if text.contains('\0') {
        return Err("holds a zero byte".to_owned());
    }
    Ok(text)
}

impl fmt::Display for Scope {
    /// As reports name it; holds what the user typed.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pid(pid) => write!(f, "pid {pid}"),
            Self::Comm(pattern) => write!(f, "command {pattern}"),
            Self::Exe(path) => write!(f, "executable {}", path.display()),
            Self::User(name) => write!(f, "user {name}"),
            Self::Cgroup(path) => write!(f, "cgroup {}", path.display()),
            Self::Container(name) => write!(f, "container {name}"),
            Self::Pod { namespace, name } => write!(f, "pod {namespace}/{name}"),
            Self::All => f.write_str("all processes"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scope_is_named_as_it_was_asked_for() {
        for (scope, name) in [
            (Scope::pid("4711"), "pid 4711"),
            (Scope::comm("nginx*"), "command nginx*"),
            (Scope::exe("/usr/bin/jq"), "executable /usr/bin/jq"),
            (Scope::user("nobody"), "user nobody"),
            (Scope::cgroup("system.slice"), "cgroup system.slice"),
            (Scope::container("web"), "container web"),
            (Scope::pod("default/web-0"), "pod default/web-0"),
            (Ok(Scope::All), "all processes"),
        ] {
            assert_eq!(scope.expect("well-formed").to_string(), name);
        }
    }

    #[test]
    fn what_can_be_no_name_is_refused() {
        for pid in ["0", "-1", "x", "", "4294967295", "1.5"] {
            assert!(Scope::pid(pid).is_err(), "{pid}");
        }
        for pod in ["web", "/web", "default/", "a/b/c"] {
            assert!(Scope::pod(pod).is_err(), "{pod}");
        }
        assert!(Scope::comm("").is_err() && Scope::container("a\0b").is_err());
        assert!(Scope::user(&"x".repeat(5000)).is_err());
        assert!(Scope::cgroup("a/../b").is_err() && Scope::cgroup("a..b").is_ok());
        assert!(Scope::exe("no/such/file").is_err_and(|why| why.contains("no file")));
        assert!(Scope::exe("src/lib.rs").is_ok_and(|scope| matches!(scope, Scope::Exe(path) if path.is_absolute())));
    }
}
