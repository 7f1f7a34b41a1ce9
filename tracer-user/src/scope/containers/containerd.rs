//! Containers of containerd: the bundles that it keeps of those that run, whoever asked for them (ctr, nerdctl, a kubelet, Docker).

use std::{
    collections::HashMap,
    fs, io,
    path::{Path, PathBuf},
};

use serde::Deserialize;

use super::{Container, Engine, MAX_CONTAINERS, Problem, ids::is_id, ids::name_of_others, kubernetes::Labels, shape};
use crate::scope::{Facts, files};

/// Bytes of a `config.json`: some tens of KiB, most of them mounts and seccomp rules.
const MAX_CONFIG_BYTES: u64 = 4 << 20;

/// Bytes of an `init.pid`.
const MAX_PID_BYTES: u64 = 32;

/// Where a state directory holds the bundles: one directory a namespace, one a container in it.
const TASKS: &str = "io.containerd.runtime.v2.task";

/// Docker's namespace.
const DOCKER: &str = "moby";

/// The containers below a state directory of containerd's. A directory that is not there holds none.
///
/// # Errors
/// It is there and may not be read.
pub(super) fn containers(state: &Path) -> Result<Vec<Container>, Problem> {
    let tasks = state.join(TASKS);
    let problem = |error: io::Error| Problem {
        engine: Engine::Containerd,
        reason: format!("failed to read `{}`: {}", tasks.display(), error.kind()),
    };
    let mut found = Vec::new();
    for namespace in directories(&tasks).map_err(problem)? {
        // It may go at any moment.
        for bundle in directories(&namespace).unwrap_or_default() {
            if found.len() >= MAX_CONTAINERS {
                return Ok(found);
            }
            found.extend(container(&namespace, &bundle));
        }
    }
    Ok(found)
}

fn directories(dir: &Path) -> io::Result<Vec<PathBuf>> {
    match fs::read_dir(dir) {
        Ok(entries) => Ok(entries.flatten().map(|entry| entry.path()).collect()),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

/// What of an OCI runtime's `config.json` matters here (the runtime specification).
#[derive(Debug, Default, Deserialize)]
pub(super) struct Config {
    #[serde(default)]
    pub(super) annotations: Option<HashMap<String, String>>,
}

impl Config {
    /// `None`: it is not there, or not as specified.
    pub(super) fn read(path: &Path) -> Option<Self> {
        serde_json::from_slice(&files::read(path, MAX_CONFIG_BYTES).ok()?).ok()
    }
}

fn container(namespace: &Path, bundle: &Path) -> Option<Container> {
    let id = name_of_others(bundle.file_name()?.to_str()?)?;
    let annotations = Config::read(&bundle.join("config.json"))?.annotations.unwrap_or_default();
    let labels = Labels(&annotations);
    let pid = files::read(&bundle.join("init.pid"), MAX_PID_BYTES).ok();
    let pid: Option<u32> = pid.and_then(|text| std::str::from_utf8(&text).ok()?.trim().parse().ok());
    let group = pid.and_then(|pid| Facts::read(pid).ok()?.cgroup);
    let given_name = (!is_id(&id)).then(|| id.clone());
    Some(Container {
        engine: if namespace.ends_with(DOCKER) { Engine::Docker } else { Engine::Containerd },
        name: labels.container_name().or(given_name),
        image: labels.image(),
        pod: labels.pod(),
        cgroup: group.and_then(|group| own_group(group, &id)),
        id,
    })
}

/// The container's group, of the one that its first process is in: that process may have made others below.
fn own_group(of_first: PathBuf, id: &str) -> Option<PathBuf> {
    if let Some((_, found, own)) = shape::innermost(&of_first)
        && found == id
    {
        return Some(own);
    }
    let named = of_first.ancestors().find(|group| group.ends_with(id)).map(Path::to_owned);
    // The root is everyone's.
    named.or_else(|| (of_first != Path::new("/")).then_some(of_first))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scope::containers::Pod;

    fn bundle(state: &Path, namespace: &str, id: &str, config: &str, pid: u32) {
        let dir = state.join(TASKS).join(namespace).join(id);
        fs::create_dir_all(&dir).expect("a directory");
        fs::write(dir.join("config.json"), config).expect("a file");
        fs::write(dir.join("init.pid"), pid.to_string()).expect("a file");
    }

    #[test]
    fn bundles_name_containers_and_their_pods() {
        let state = tempfile::tempdir().expect("a directory");
        let id = "0a".repeat(32);
        let config = r#"{"ociVersion":"1.0.2","annotations":{"io.kubernetes.cri.container-name":"app",
            "io.kubernetes.cri.image-name":"shop:3","io.kubernetes.cri.sandbox-name":"shop-0",
            "io.kubernetes.cri.sandbox-namespace":"prod"},"linux":{"cgroupsPath":"/x"}}"#;
        bundle(state.path(), "k8s.io", &id, config, u32::MAX / 2);
        bundle(state.path(), "default", "web", r#"{"annotations":null}"#, u32::MAX / 2);
        bundle(state.path(), "moby", &"0b".repeat(32), "{}", u32::MAX / 2);
        bundle(state.path(), "default", "broken", "{", 1);
        let mut found = containers(state.path()).expect("readable");
        found.sort_by(|a, b| a.id.cmp(&b.id));
        let [app, docker, web] = &found[..] else { panic!("{found:?}") };
        assert_eq!(
            (app.engine, app.name.as_deref(), app.image.as_deref()),
            (Engine::Containerd, Some("app"), Some("shop:3"))
        );
        assert_eq!(app.pod, Some(Pod { namespace: "prod".into(), name: "shop-0".into() }));
        assert_eq!((docker.engine, &docker.name, &docker.cgroup), (Engine::Docker, &None, &None));
        assert_eq!((web.engine, web.name.as_deref(), web.id.as_str()), (Engine::Containerd, Some("web"), "web"));
        assert_eq!(containers(Path::new("/nonexistent")).expect("nothing there"), []);
    }

    #[test]
    fn a_container_has_the_group_that_bears_its_id() {
        let id = "0a".repeat(32);
        for (of_first, id, own) in [
            (format!("/k/cri-containerd-{id}.scope/init"), &*id, Some(format!("/k/cri-containerd-{id}.scope"))),
            ("/default/web".to_owned(), "web", Some("/default/web".to_owned())),
            ("/default/web/init".to_owned(), "web", Some("/default/web".to_owned())),
            ("/elsewhere".to_owned(), "web", Some("/elsewhere".to_owned())),
            ("/".to_owned(), "web", None),
        ] {
            assert_eq!(own_group(of_first.clone().into(), id), own.map(PathBuf::from), "{of_first}");
        }
    }
}
