//! Which container a control group belongs to, as far as its path tells. Pure.

use std::{
    fmt,
    path::{Component, Path, PathBuf},
};

/// What started a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Engine {
    /// Docker.
    Docker,
    /// Podman.
    Podman,
    /// containerd, by ctr, nerdctl or the kubelet.
    Containerd,
    /// CRI-O.
    CriO,
    /// A kubelet's runtime, which the path does not name.
    Kubernetes,
    /// The path does not tell.
    Unknown,
}

impl fmt::Display for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Docker => "docker",
            Self::Podman => "podman",
            Self::Containerd => "containerd",
            Self::CriO => "cri-o",
            Self::Kubernetes => "kubernetes",
            Self::Unknown => "unknown engine",
        })
    }
}

/// Digits of an id: SHA-256 or as many random bits, in lower-case hexadecimal, by all engines.
pub const ID_DIGITS: usize = 64;

/// What stands before the id in the name of a group, with systemd as well as without.
const PREFIXES: [(&str, Engine); 5] = [
    ("docker", Engine::Docker),
    ("libpod", Engine::Podman),
    ("cri-containerd", Engine::Containerd),
    ("nerdctl", Engine::Containerd),
    ("crio", Engine::CriO),
];

/// The engine and the id of the innermost container that a group's path names; `None`: it names none.
pub fn container_of(cgroup: &Path) -> Option<(Engine, &str)> {
    let (engine, id, _) = innermost(cgroup)?;
    Some((engine, id))
}

/// Likewise, and the container's own group: `cgroup` or one above it.
pub(super) fn innermost(cgroup: &Path) -> Option<(Engine, &str, PathBuf)> {
    let parts: Vec<&str> = cgroup.components().map(text).collect();
    let (at, (engine, id)) = parts.iter().enumerate().rev().find_map(|(at, part)| {
        let (engine, id) = container_in(part)?;
        Some((at, (engine.unwrap_or_else(|| engine_by_place(&parts[..at])), id)))
    })?;
    Some((engine, id, cgroup.components().take(at + 1).collect()))
}

/// The group of the pod that a container's group lies in: `pod<uid>`, `kubepods-…-pod<uid>.slice`.
pub(in crate::scope) fn pod_of(cgroup: &Path) -> Option<PathBuf> {
    let is_pod = |part: &str| {
        let slice = part.strip_suffix(".slice").filter(|slice| slice.starts_with("kubepods"));
        part.strip_prefix("pod").is_some_and(|uid| uid.len() >= 32)
            || slice.is_some_and(|slice| slice.split('-').any(|word| word.starts_with("pod") && word.len() > 32))
    };
    let parts: Vec<&str> = cgroup.components().map(text).collect();
    let at = parts.iter().rposition(|part| is_pod(part))?;
    // A pod's own group, not something that happens to be called so elsewhere.
    parts[..=at].iter().any(|part| part.starts_with("kubepods")).then(|| cgroup.components().take(at + 1).collect())
}

fn text(part: Component<'_>) -> &str {
    match part {
        Component::Normal(name) => name.to_str().unwrap_or_default(),
        _ => "",
    }
}

/// `<id>`, `docker-<id>.scope`, `libpod-<id>`, and `kubepods….slice:cri-containerd:<id>`, which a kubelet and a runtime that
/// disagree about systemd make. With its engine, where the name tells it.
fn container_in(part: &str) -> Option<(Option<Engine>, &str)> {
    let name = part.strip_suffix(".scope").unwrap_or(part);
    let at = name.len().checked_sub(ID_DIGITS)?;
    let (before, id) = (name.get(..at)?, name.get(at..)?);
    if !id.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
        return None;
    }
    if before.is_empty() {
        return Some((None, id));
    }
    let prefix = before.strip_suffix(['-', ':'])?;
    let prefix = prefix.rsplit(':').next().unwrap_or(prefix);
    // The monitor of a container is outside of it.
    if prefix.ends_with("conmon") {
        return None;
    }
    let engine = PREFIXES.iter().find(|(name, _)| *name == prefix).map(|(_, engine)| *engine);
    Some((Some(engine.unwrap_or(Engine::Unknown)), id))
}

/// Of a group that is called by the id alone.
fn engine_by_place(above: &[&str]) -> Engine {
    match above.last() {
        Some(&"docker" | &"ecs") => Engine::Docker,
        _ if above.contains(&"ecs") => Engine::Docker,
        Some(&"libpod_parent") => Engine::Podman,
        _ if above.iter().any(|part| part.starts_with("kubepods")) => Engine::Kubernetes,
        _ => Engine::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ID: &str = "3f2a9c0d5b7e41c68f90a1b2c3d4e5f60718293a4b5c6d7e8f9001122334455a";
    const OUTER: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";
    const POD: &str = "1e2d3c4b-5a69-7887-9605-a4b3c2d1e0ff";
    const POD_: &str = "1e2d3c4b_5a69_7887_9605_a4b3c2d1e0ff";

    /// `#` is an id, `%` another one, `!` a pod's uid as it is, `?` as systemd wants it.
    fn path(shape: &str) -> PathBuf {
        shape.replace('#', ID).replace('%', OUTER).replace('!', POD).replace('?', POD_).into()
    }

    #[test]
    fn every_known_shape_names_its_container() {
        for (shape, engine, own) in [
            ("/docker/#", Engine::Docker, "/docker/#"),
            ("/docker/#/init.scope", Engine::Docker, "/docker/#"),
            ("/docker/#/system.slice/cron.service", Engine::Docker, "/docker/#"),
            ("/docker/%/docker/#", Engine::Docker, "/docker/%/docker/#"),
            ("/system.slice/docker-#.scope", Engine::Docker, "/system.slice/docker-#.scope"),
            (
                "/user.slice/user-1000.slice/user@1000.service/user.slice/docker-#.scope",
                Engine::Docker,
                "/user.slice/user-1000.slice/user@1000.service/user.slice/docker-#.scope",
            ),
            ("/ecs/task-7/#", Engine::Docker, "/ecs/task-7/#"),
            ("/ecs/#", Engine::Docker, "/ecs/#"),
            ("/libpod_parent/libpod-#", Engine::Podman, "/libpod_parent/libpod-#"),
            ("/machine.slice/libpod-#.scope", Engine::Podman, "/machine.slice/libpod-#.scope"),
            ("/machine.slice/libpod-#.scope/container", Engine::Podman, "/machine.slice/libpod-#.scope"),
            ("/machine.slice/libpod-#.scope/container/x", Engine::Podman, "/machine.slice/libpod-#.scope"),
            ("/system.slice/nerdctl-#.scope", Engine::Containerd, "/system.slice/nerdctl-#.scope"),
            ("/default/#", Engine::Unknown, "/default/#"),
            ("/my.slice/other-#.scope", Engine::Unknown, "/my.slice/other-#.scope"),
            ("/kubepods/pod!/#", Engine::Kubernetes, "/kubepods/pod!/#"),
            ("/kubepods/burstable/pod!/#", Engine::Kubernetes, "/kubepods/burstable/pod!/#"),
            (
                "/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod?.slice/cri-containerd-#.scope",
                Engine::Containerd,
                "/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod?.slice/cri-containerd-#.scope",
            ),
            (
                "/kubepods.slice/kubepods-pod?.slice/crio-#.scope/container",
                Engine::CriO,
                "/kubepods.slice/kubepods-pod?.slice/crio-#.scope",
            ),
            (
                "/kubepods.slice/kubepods-pod?.slice/docker-#.scope",
                Engine::Docker,
                "/kubepods.slice/kubepods-pod?.slice/docker-#.scope",
            ),
            (
                "/system.slice/containerd.service/kubepods-burstable-pod?.slice:cri-containerd:#",
                Engine::Containerd,
                "/system.slice/containerd.service/kubepods-burstable-pod?.slice:cri-containerd:#",
            ),
            (
                "/docker/%/kubelet/kubepods/burstable/pod!/#",
                Engine::Kubernetes,
                "/docker/%/kubelet/kubepods/burstable/pod!/#",
            ),
        ] {
            assert_eq!(innermost(&path(shape)), Some((engine, ID, path(own))), "{shape}");
            assert_eq!(container_of(&path(shape)), Some((engine, ID)), "{shape}");
        }
    }

    #[test]
    fn what_is_no_container_names_none() {
        for shape in [
            "/",
            "",
            "/docker",
            "/init.scope",
            "/system.slice/docker.service",
            "/user.slice/user-1000.slice/session-3.scope",
            "/machine.slice/libpod-conmon-#.scope",
            "/kubepods/burstable/pod!",
            "/kubepods.slice/kubepods-pod?.slice/crio-conmon-#.scope",
            "/docker/buildkit/k3ulm2odkg5cxtd6fmgelqlbe",
            "/docker/3f2a9c0d5b7e",
            "/docker/X#",
            "/docker/#a.service",
            "/docker/ABCD9c0d5b7e41c68f90a1b2c3d4e5f60718293a4b5c6d7e8f9001122334455A",
        ] {
            assert_eq!(container_of(&path(shape)), None, "{shape}");
        }
    }

    #[test]
    fn a_pod_has_a_group_of_its_own() {
        for (shape, pod) in [
            ("/kubepods/burstable/pod!/#", Some("/kubepods/burstable/pod!")),
            ("/kubepods.slice/kubepods-pod?.slice/crio-#.scope/container", Some("/kubepods.slice/kubepods-pod?.slice")),
            ("/docker/%/kubelet/kubepods/pod!/#", Some("/docker/%/kubelet/kubepods/pod!")),
            ("/system.slice/containerd.service/kubepods-burstable-pod?.slice:cri-containerd:#", None),
            ("/docker/#", None),
            ("/podman/#", None),
            ("/pod!/#", None),
        ] {
            assert_eq!(pod_of(&path(shape)), pod.map(path), "{shape}");
        }
    }

    proptest! {
        #[test]
        fn any_path_is_judged_and_an_id_is_always_one(parts in prop::collection::vec("[a-f0-9:.-]{0,80}|\\PC{0,20}", 0..6)) {
            let path = PathBuf::from(format!("/{}", parts.join("/")));
            if let Some((_, id, own)) = innermost(&path) {
                prop_assert!(id.len() == ID_DIGITS && path.starts_with(&own));
                prop_assert_eq!(container_of(&own).map(|(_, id)| id), Some(id));
            }
        }

        #[test]
        fn an_id_below_any_group_is_found(above in "(/[a-z.]{1,9}){0,4}", below in "(/[a-z.]{1,9}){0,3}", id in "[0-9a-f]{64}") {
            let path = PathBuf::from(format!("{above}/docker-{id}.scope{below}"));
            prop_assert_eq!(container_of(&path), Some((Engine::Docker, id.as_str())));
        }
    }
}
