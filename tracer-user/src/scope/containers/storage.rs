//! Containers of Podman and CRI-O: the records of the containers/storage library, which both keep them in.

use std::{
    io,
    path::{Path, PathBuf},
};

use serde::Deserialize;

use super::{
    Container, Engine, MAX_CONTAINERS, Problem, containerd::Config, ids::is_id, ids::name_of_others, kubernetes::Labels,
};
use crate::scope::files;

/// Bytes of a list of containers: about 1 KiB each.
const MAX_LIST_BYTES: u64 = 64 << 20;

/// Storage drivers, whose names are parts of paths.
const DRIVERS: [&str; 4] = ["overlay", "vfs", "btrfs", "zfs"];

/// The list of what outlives a boot, below the graph root; and of what does not, below the run root.
const LISTS: [&str; 2] = ["containers.json", "volatile-containers.json"];

/// The two roots of a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Store {
    /// `/var/lib/containers/storage`
    pub graph_root: PathBuf,
    /// `/run/containers/storage`
    pub run_root: PathBuf,
}

/// The containers of a store. One that is not there holds none.
///
/// # Errors
/// It is there and may not be read, or is not as known.
pub(super) fn containers(store: &Store) -> Result<Vec<Container>, Problem> {
    let mut found = Vec::new();
    for driver in DRIVERS {
        let run_dir = store.run_root.join(format!("{driver}-containers"));
        for dir in [store.graph_root.join(format!("{driver}-containers")), run_dir.clone()] {
            for list in LISTS {
                for listed in read(&dir.join(list))? {
                    if found.len() < MAX_CONTAINERS && is_id(&listed.id) {
                        found.push(listed.container(&run_dir));
                    }
                }
            }
        }
    }
    Ok(found)
}

fn read(list: &Path) -> Result<Vec<Listed>, Problem> {
    let problem = |reason: String| Problem {
        engine: Engine::Podman,
        reason: format!("failed to read `{}`: {reason}", list.display()),
    };
    match files::read(list, MAX_LIST_BYTES) {
        Ok(text) => serde_json::from_slice(&text).map_err(|error| problem(error.to_string())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(problem(error.kind().to_string())),
    }
}

/// What of a record matters here.
#[derive(Debug, Deserialize)]
struct Listed {
    id: String,
    #[serde(default)]
    names: Option<Vec<String>>,
    /// JSON again, of the engine that made the container.
    #[serde(default)]
    metadata: String,
}

/// What of the engines' own text matters here.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
struct Metadata {
    image_name: Option<String>,
}

impl Listed {
    fn container(self, run_dir: &Path) -> Container {
        let config = Config::read(&run_dir.join(&self.id).join("userdata/config.json")).unwrap_or_default();
        let annotations = config.annotations.unwrap_or_default();
        let labels = Labels(&annotations);
        let metadata: Metadata = serde_json::from_str(&self.metadata).unwrap_or_default();
        let listed_name = self.names.iter().flatten().find_map(|name| name_of_others(name));
        Container {
            engine: if labels.is_of_cri_o() { Engine::CriO } else { Engine::Podman },
            name: labels.container_name().or(listed_name),
            image: labels.image().or_else(|| name_of_others(&metadata.image_name?)),
            pod: labels.pod(),
            cgroup: None,
            id: self.id,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::scope::containers::Pod;

    #[test]
    fn podman_and_cri_o_are_told_apart_by_what_they_wrote() {
        let dir = tempfile::tempdir().expect("a directory");
        let store = Store { graph_root: dir.path().join("lib"), run_root: dir.path().join("run") };
        let (web, app) = ("0a".repeat(32), "0b".repeat(32));
        let lists = store.graph_root.join("overlay-containers");
        let bundle = store.run_root.join("overlay-containers").join(&app).join("userdata");
        fs::create_dir_all(&lists).expect("a directory");
        fs::create_dir_all(&bundle).expect("a directory");
        let list = format!(
            r#"[{{"id":"{web}","names":["web"],"image":"77","layer":"88","flags":{{"x":""}},
                  "metadata":"{{\"image-name\":\"localhost/web:1\",\"name\":\"web\"}}"}},
                {{"id":"{app}","names":["k8s_app_shop-0_prod_1_0"]}},{{"id":"../x","names":["evil"]}}]"#
        );
        fs::write(lists.join("containers.json"), list).expect("a file");
        let config = r#"{"annotations":{"io.container.manager":"cri-o","io.kubernetes.container.name":"app",
            "io.kubernetes.pod.name":"shop-0","io.kubernetes.pod.namespace":"prod"}}"#;
        fs::write(bundle.join("config.json"), config).expect("a file");
        let volatile = format!(r#"[{{"id":"{}","names":["short-lived"]}}]"#, "0c".repeat(32));
        fs::write(store.run_root.join("overlay-containers/volatile-containers.json"), volatile).expect("a file");

        let found = containers(&store).expect("readable");
        let [podman, cri_o, volatile] = &found[..] else { panic!("{found:?}") };
        assert_eq!((podman.engine, podman.name.as_deref()), (Engine::Podman, Some("web")));
        assert_eq!(podman.image.as_deref(), Some("localhost/web:1"));
        assert_eq!((cri_o.engine, cri_o.name.as_deref()), (Engine::CriO, Some("app")));
        assert_eq!(cri_o.pod, Some(Pod { namespace: "prod".into(), name: "shop-0".into() }));
        assert_eq!(volatile.name.as_deref(), Some("short-lived"));
    }

    #[test]
    fn a_list_that_is_none_is_a_problem() {
        let dir = tempfile::tempdir().expect("a directory");
        let store = Store { graph_root: dir.path().to_owned(), run_root: dir.path().to_owned() };
        assert_eq!(containers(&store).expect("nothing there"), []);
        fs::create_dir(dir.path().join("vfs-containers")).expect("a directory");
        fs::write(dir.path().join("vfs-containers/containers.json"), "{").expect("a file");
        let problem = containers(&store).expect_err("no list").to_string();
        assert!(problem.starts_with("podman does not answer: failed to read `"), "{problem}");
    }
}
