//! Names of users, as this host's databases give them. A container's own `/etc/passwd` is not asked.

use std::{
    collections::HashMap,
    path::Path,
    sync::{Mutex, PoisonError},
};

use nix::unistd::{Uid, User};

use super::{ScopeError, files};
use crate::text::near;

/// Names kept: hosts run processes of some dozens of users.
const MAX_KEPT: usize = 4096;

/// Bytes of `/etc/passwd` that are looked through for names like a mistyped one.
const MAX_PASSWD_BYTES: u64 = 1 << 20;

/// The name of a user; `None`: the id has none.
pub fn name_of(uid: u32) -> Option<String> {
    static KEPT: Mutex<Option<HashMap<u32, Option<String>>>> = Mutex::new(None);
    let mut kept = KEPT.lock().unwrap_or_else(PoisonError::into_inner);
    let kept = kept.get_or_insert_default();
    if kept.len() >= MAX_KEPT {
        kept.clear();
    }
    kept.entry(uid).or_insert_with(|| User::from_uid(Uid::from_raw(uid)).ok().flatten().map(|user| user.name)).clone()
}

/// The id of a user, given by name or by number.
pub fn uid_of(name: &str) -> Result<u32, ScopeError> {
    // A name may consist of digits: names come first, as with chown(1).
    if let Ok(Some(user)) = User::from_name(name) {
        return Ok(user.uid.as_raw());
    }
    name.parse().map_err(|_| ScopeError::NoSuchUser { name: name.to_owned(), near: near::names(name, &all_names()) })
}

fn all_names() -> Vec<String> {
    let passwd = files::read(Path::new("/etc/passwd"), MAX_PASSWD_BYTES).unwrap_or_default();
    let name = |line: &str| line.split_once(':').map(|(name, _)| name.to_owned());
    String::from_utf8_lossy(&passwd).lines().filter_map(name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_has_its_name_and_its_number() {
        assert_eq!(name_of(0).as_deref(), Some("root"));
        assert_eq!(uid_of("root").expect("there is one"), 0);
        assert_eq!(uid_of("4242424").expect("a number needs no name"), 4_242_424);
        assert_eq!(name_of(4_242_424), None);
    }

    #[test]
    fn a_mistyped_user_is_told_whom_he_may_mean() {
        let error = uid_of("rooot").expect_err("no such user").to_string();
        assert!(error.starts_with("no user `rooot`") && error.contains("root"), "{error}");
    }
}
