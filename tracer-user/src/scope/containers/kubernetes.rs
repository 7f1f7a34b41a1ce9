//! What runtimes write down of Kubernetes: labels and annotations.

use std::collections::HashMap;

use super::{Pod, ids::name_of_others};

/// Of a container's name: containerd's CRI plug-in, CRI-O and dockershim; nerdctl.
const CONTAINER_NAMES: [&str; 3] = ["io.kubernetes.cri.container-name", "io.kubernetes.container.name", "nerdctl/name"];

/// Of its image: containerd's CRI plug-in, CRI-O.
const IMAGES: [&str; 2] = ["io.kubernetes.cri.image-name", "io.kubernetes.cri-o.ImageName"];

/// Of its pod's namespace and name: containerd's CRI plug-in, the kubelet.
const PODS: [(&str, &str); 2] = [
    ("io.kubernetes.cri.sandbox-namespace", "io.kubernetes.cri.sandbox-name"),
    ("io.kubernetes.pod.namespace", "io.kubernetes.pod.name"),
];

/// Of what manages a container of containers/storage.
const MANAGER: &str = "io.container.manager";

/// Labels or annotations.
#[derive(Clone, Copy, Debug)]
pub(super) struct Labels<'a>(pub(super) &'a HashMap<String, String>);

impl Labels<'_> {
    fn get(self, label: &str) -> Option<String> {
        name_of_others(self.0.get(label)?)
    }

    pub(super) fn container_name(self) -> Option<String> {
        CONTAINER_NAMES.iter().find_map(|label| self.get(label))
    }

    pub(super) fn image(self) -> Option<String> {
        IMAGES.iter().find_map(|label| self.get(label))
    }

    pub(super) fn pod(self) -> Option<Pod> {
        PODS.iter().find_map(|(namespace, name)| Some(Pod { namespace: self.get(namespace)?, name: self.get(name)? }))
    }

    pub(super) fn is_of_cri_o(self) -> bool {
        self.0.get(MANAGER).is_some_and(|manager| manager == "cri-o")
    }
}
