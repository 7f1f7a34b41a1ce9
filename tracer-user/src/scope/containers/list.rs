//! Everything that is told of containers, put together; and which of them a user means.

use std::{collections::HashMap, path::PathBuf};

use super::{Container, Engine, ID_DIGITS, MAX_CONTAINERS, Places, Pod, Problem, containerd, docker, storage, tree};
use crate::{
    scope::{Hierarchy, ScopeError},
    text::near,
};

/// What is known of this host's containers at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Containers {
    /// Every one, the engines' stopped ones included.
    pub all: Vec<Container>,
    /// Engines that did not say theirs.
    pub problems: Vec<Problem>,
}

impl Containers {
    /// Asks the tree of control groups and every engine. Blocks while they answer: 2 s at most for Docker, else as long as
    /// some files take to be read.
    pub fn list(hierarchy: &Hierarchy, places: &Places) -> Self {
        let mut found = Self::default();
        found.merge(tree::containers(&hierarchy.walk()));
        for state in &places.containerd {
            found.take(containerd::containers(state));
        }
        for store in &places.stores {
            found.take(storage::containers(store));
        }
        let others_tell = found.all.iter().any(|container| container.name.is_some());
        match places.docker.as_ref().map(docker::containers) {
            // A host may well have no Docker: worth a word only where nobody else is there either.
            Some(Err(refusal)) if refusal.may_be_absent && others_tell => {}
            Some(told) => found.take(told.map_err(|refusal| refusal.problem)),
            None => {}
        }
        found
    }

    fn take(&mut self, told: Result<Vec<Container>, Problem>) {
        match told {
            Ok(told) => self.merge(told),
            Err(problem) => self.problems.push(problem),
        }
    }

    /// The group of a container, by its id alone; `None`: it does not run.
    pub fn group_of(hierarchy: &Hierarchy, id: &str) -> Option<PathBuf> {
        tree::containers(&hierarchy.walk()).into_iter().find(|container| container.id == id)?.cgroup
    }

    /// The one that a user means: by its whole name, else by its whole id, else by the beginning of its id. One that runs is
    /// meant rather than one that does not.
    ///
    /// # Errors
    /// None is called so, or several are.
    pub fn find(&self, wanted: &str) -> Result<&Container, ScopeError> {
        let by =
            |is: &dyn Fn(&Container) -> bool| self.all.iter().filter(|container| is(container)).collect::<Vec<_>>();
        let mut found = by(&|container| container.name.as_deref() == Some(wanted));
        if found.is_empty() {
            found = by(&|container| container.id == wanted);
        }
        if found.is_empty() {
            found = by(&|container| container.id.len() == ID_DIGITS && container.id.starts_with(wanted));
        }
        if found.iter().any(|container| container.cgroup.is_some()) {
            found.retain(|container| container.cgroup.is_some());
        }
        match found[..] {
            [one] => Ok(one),
            [] => Err(self.none(wanted)),
            _ => {
                Err(ScopeError::Ambiguous { name: wanted.to_owned(), candidates: found.into_iter().cloned().collect() })
            }
        }
    }

    fn none(&self, wanted: &str) -> ScopeError {
        let names: Vec<&str> = self.all.iter().filter_map(|container| container.name.as_deref()).collect();
        ScopeError::NoSuchContainer {
            name: wanted.to_owned(),
            near: near::names(wanted, &names),
            problems: self.problems.clone(),
        }
    }

    /// The containers of a pod.
    ///
    /// # Errors
    /// There are none.
    pub fn of_pod(&self, pod: &Pod) -> Result<Vec<&Container>, ScopeError> {
        let found: Vec<&Container> = self.all.iter().filter(|container| container.pod.as_ref() == Some(pod)).collect();
        if !found.is_empty() {
            return Ok(found);
        }
        let pods: Vec<String> =
            self.all.iter().filter_map(|container| container.pod.as_ref().map(ToString::to_string)).collect();
        let pod = pod.to_string();
        let near = near::names(&pod, &pods);
        Err(ScopeError::NoSuchPod { pod, near, problems: self.problems.clone() })
    }

    /// Adds what one source knows to what others have said of the same ids. The first to tell something is right.
    fn merge(&mut self, told: Vec<Container>) {
        let mut at: HashMap<String, usize> =
            self.all.iter().enumerate().map(|(at, container)| (container.id.clone(), at)).collect();
        for container in told {
            match at.get(&container.id) {
                Some(&at) => self.all[at].complete(container),
                None if self.all.len() < MAX_CONTAINERS => {
                    at.insert(container.id.clone(), self.all.len());
                    self.all.push(container);
                }
                None => {}
            }
        }
    }
}

impl Container {
    fn complete(&mut self, other: Self) {
        // Docker's containers are containerd's below; a path may tell less than an engine.
        let vague = [Engine::Unknown, Engine::Kubernetes, Engine::Containerd];
        let vagueness = |engine| vague.iter().position(|one| *one == engine).map_or(0, |at| vague.len() - at);
        if vagueness(other.engine) < vagueness(self.engine) {
            self.engine = other.engine;
        }
        self.name = self.name.take().or(other.name);
        self.image = self.image.take().or(other.image);
        self.pod = self.pod.take().or(other.pod);
        self.cgroup = self.cgroup.take().or(other.cgroup);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn container(engine: Engine, id: &str, name: &str, runs: bool) -> Container {
        let name = Some(name.to_owned()).filter(|name| !name.is_empty());
        let id = if id.len() == 2 { id.repeat(32) } else { id.to_owned() };
        let cgroup = runs.then(|| format!("/x/{id}").into());
        Container { engine, id, name, image: None, pod: None, cgroup }
    }

    fn containers(all: Vec<Container>) -> Containers {
        Containers { all, problems: Vec::new() }
    }

    fn error_of(containers: &Containers, wanted: &str) -> String {
        containers.find(wanted).expect_err("not one").to_string()
    }

    #[test]
    fn a_name_is_meant_before_an_id_and_a_whole_id_before_its_beginning() {
        let all = containers(vec![
            container(Engine::Docker, "0a", "web", true),
            container(Engine::Docker, "0b", "0a", true),
            container(Engine::Docker, "cd", "", true),
            container(Engine::Containerd, "cdx", "cdx", true),
        ]);
        let id_of = |wanted: &str| all.find(wanted).expect(wanted).id.clone();
        assert_eq!(id_of("web"), "0a".repeat(32));
        assert_eq!(id_of("0a"), "0b".repeat(32), "a name");
        assert_eq!(id_of("0a0a"), "0a".repeat(32));
        assert_eq!(id_of(&"0b".repeat(32)), "0b".repeat(32));
        assert_eq!(id_of("c"), "cd".repeat(32));
        assert_eq!(id_of("cdx"), "cdx");
    }

    #[test]
    fn two_that_may_be_meant_are_listed() {
        let mut all = containers(vec![
            container(Engine::Docker, "0a", "web", true),
            container(Engine::Podman, "0b", "web", true),
        ]);
        all.all[1].pod = Some(Pod { namespace: "prod".into(), name: "shop-0".into() });
        let text = "`web` may be web (0a0a0a0a0a0a, docker) or web (0b0b0b0b0b0b, podman, pod prod/shop-0): take more of the id";
        assert_eq!(error_of(&all, "web"), text);
        assert_eq!(error_of(&all, "0"), text.replacen("`web`", "`0`", 1));
        let many = containers((10..30).map(|n| container(Engine::Docker, &n.to_string(), "x", true)).collect());
        assert!(error_of(&many, "x").contains(" or 12 more: take"), "{}", error_of(&many, "x"));
    }

    #[test]
    fn one_that_runs_is_meant_rather_than_one_that_does_not() {
        let all = containers(vec![
            container(Engine::Podman, "0a", "web", false),
            container(Engine::Docker, "0b", "web", true),
            container(Engine::Docker, "0c", "later", false),
        ]);
        assert_eq!(all.find("web").expect("one runs").engine, Engine::Docker);
        assert_eq!(all.find("later").expect("it may be started").cgroup, None);
    }

    #[test]
    fn what_is_not_there_is_said_with_what_is_and_who_did_not_answer() {
        let mut all = containers(vec![container(Engine::Docker, "0a", "web-frontend", true)]);
        assert_eq!(error_of(&all, "web-fronted"), "no container `web-fronted` (near: web-frontend)");
        all.problems.push(Problem { engine: Engine::Docker, reason: "/x: connection refused".into() });
        assert_eq!(
            error_of(&all, "zzz"),
            "no container `zzz`: docker does not answer: /x: connection refused (the id of a running container, or \
             --cgroup PATH, works without)"
        );
        let pod = Pod { namespace: "prod".into(), name: "shop-1".into() };
        all.all[0].pod = Some(Pod { namespace: "prod".into(), name: "shop-0".into() });
        let error = all.of_pod(&pod).expect_err("another one").to_string();
        assert!(error.starts_with("no pod `prod/shop-1` (near: prod/shop-0): docker"), "{error}");
    }

    #[test]
    fn what_several_say_of_one_container_is_put_together() {
        let mut all = Containers::default();
        all.merge(vec![container(Engine::Unknown, "0a", "", true)]);
        all.merge(vec![container(Engine::Containerd, "0a", "", false)]);
        all.merge(vec![
            Container { image: Some("shop:3".into()), ..container(Engine::Docker, "0a", "web", false) },
            container(Engine::Docker, "0b", "later", false),
        ]);
        let expected = Container { image: Some("shop:3".into()), ..container(Engine::Docker, "0a", "web", true) };
        assert_eq!(all.all, [expected, container(Engine::Docker, "0b", "later", false)]);
    }
}
