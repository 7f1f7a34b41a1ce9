//! Containers that the tree of control groups shows, whether an engine runs or not. Pure.

use std::path::PathBuf;

use super::{Container, shape};

/// One for each group that is a container's own.
pub(super) fn containers(groups: &[PathBuf]) -> Vec<Container> {
    let own = groups.iter().filter_map(|group| {
        let (engine, id, own) = shape::innermost(group)?;
        (own == *group).then(|| Container {
            engine,
            id: id.to_owned(),
            name: None,
            image: None,
            pod: None,
            cgroup: Some(own),
        })
    });
    own.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_is_listed_once_with_its_own_group() {
        let id = "ab".repeat(32);
        let groups = ["/", "/docker", &format!("/docker/{id}"), &format!("/docker/{id}/init"), "/system.slice"];
        let found = containers(&groups.map(PathBuf::from));
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].id.as_str(), found[0].cgroup.as_ref()), (&*id, Some(&format!("/docker/{id}").into())));
    }
}
