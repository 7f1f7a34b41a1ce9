//! Which processes a scope selects, and what they are called, on real containers.

use std::{
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, ensure};
use memtrace_tests::{
    Program,
    docker::{Docker, OTHER_PARENT, files_of},
};
use tracer_user::scope::{
    Facts, Hierarchy, Scope, ScopeError, Selection,
    containers::{ContainerNames, Containers, Engine, Places, Socket, container_of},
};

const IMAGE: &str = "t/steps";

/// A daemon with an image of `steps.c`, which says back what it is told.
fn docker() -> Result<Docker> {
    let docker = Docker::start()?;
    docker.image(IMAGE, &files_of(&Program::c("steps").build()?, "/bin/prog")?)?;
    Ok(docker)
}

fn container(name: &str) -> Vec<Scope> {
    vec![Scope::Container(name.to_owned())]
}

fn pids_of(selection: &Selection) -> Vec<u32> {
    selection.processes().iter().map(|facts| facts.pid).collect()
}

/// The line that a user reads.
fn refusal(scopes: &[Scope], places: Places) -> Result<String> {
    Ok(Selection::open_in(scopes, places).err().context("not refused")?.to_string())
}

#[test]
fn a_container_is_its_processes_and_its_group_by_name_and_by_id() -> Result<()> {
    let docker = docker()?;
    let mut web = docker.run(IMAGE, "web", &["/bin/prog"])?;
    let db = docker.run(IMAGE, "db", &["/bin/prog"])?;
    let sibling = web.exec(&["/bin/prog"])?;
    ensure!(web.pids()?.len() == 2, "{:?}", web.pids()?);

    let root = Hierarchy::find()?.mount_point().to_owned();
    let group = web.cgroup()?;
    let inode = fs::metadata(root.join(group.trim_start_matches('/')))?.ino();
    for name in ["web", &web.id, &web.id[..12], &web.id[..63]] {
        let selection = Selection::open_in(&container(name), docker.places())?;
        ensure!(pids_of(&selection) == web.pids()?, "{name}: {:?}", pids_of(&selection));
        let [found] = &selection.cgroups()[..] else { anyhow::bail!("{name}: {:?}", selection.cgroups()) };
        ensure!((found.id, &*found.path) == (inode, Path::new(&group)), "{name}: {found:?}");
        ensure!(found.level as usize == group.matches('/').count(), "{found:?} of {group}");
        ensure!(selection.to_string() == format!("container {name}") && selection.awaited().is_empty());
    }

    // The same group by its directory and by its path; both containers at once.
    for path in [root.join(group.trim_start_matches('/')), PathBuf::from(&group), PathBuf::from(&group[1..])] {
        let selection = Selection::open_in(&[Scope::Cgroup(path)], Places::none())?;
        ensure!(pids_of(&selection) == web.pids()? && selection.cgroups()[0].id == inode);
    }
    let both = [Scope::Container("web".into()), Scope::Container("db".into())];
    let both = Selection::open_in(&both, docker.places())?;
    ensure!(
        pids_of(&both).len() == 3 && both.cgroups().len() == 2 && both.to_string() == "container web, container db"
    );

    let facts = Facts::read(web.pid)?;
    ensure!((facts.pid_inside, facts.comm.as_str()) == (1, "prog"), "{facts:?}");
    ensure!(facts.exe.as_deref() == Some(Path::new("/bin/prog")), "{facts:?}");
    ensure!(container_of(&facts.cgroup.context("it is in a group")?) == Some((Engine::Docker, &*web.id)));

    web.step("a")?;
    sibling.end()?;
    web.end()?;
    db.end()?;
    Ok(())
}

#[test]
fn what_is_mistyped_or_may_be_several_is_answered_with_names() -> Result<()> {
    let docker = docker()?;
    // Of 17 ids, two begin with the same digit.
    for n in 0..17 {
        docker.cli(&["create", "--name", &format!("worker-{n}"), IMAGE, "/bin/prog"])?;
    }
    let _web = docker.run(IMAGE, "web-frontend", &["/bin/prog"])?;
    let no_such = refusal(&container("web-fronted"), docker.places())?;
    ensure!(no_such == "no container `web-fronted` (near: web-frontend)", "{no_such}");

    let ids = docker.cli(&["ps", "--all", "--quiet", "--no-trunc", "--filter", "name=worker"])?;
    let shared = "0123456789abcdef".chars().find(|digit| ids.lines().filter(|id| id.starts_with(*digit)).count() > 1);
    let shared = shared.context("18 ids and 16 digits")?.to_string();
    let error = Selection::open_in(&container(&shared), docker.places()).err().context("ambiguous")?;
    let ScopeError::Ambiguous { candidates, .. } = &error else {
        // The one that runs is meant before all that do not.
        anyhow::bail!("{error}")
    };
    ensure!(candidates.len() > 1 && candidates.iter().all(|candidate| candidate.id.starts_with(&shared)));
    ensure!(error.to_string().contains(&format!("({}, docker)", candidates[0].short_id())), "{error}");

    let no_such = refusal(&[Scope::Cgroup("/dockr".into())], Places::none())?;
    ensure!(no_such.starts_with("no cgroup `/dockr` below `/sys/fs/cgroup") && no_such.contains("docker"), "{no_such}");
    if let Some(v1) = Some(Path::new("/sys/fs/cgroup/memory/docker")).filter(|path| path.exists()) {
        let version = refusal(&[Scope::Cgroup(v1.into())], Places::none())?;
        ensure!(version.contains("is a cgroup of version 1"), "{version}");
    }
    Ok(())
}

#[test]
fn without_its_engine_a_container_is_known_by_its_id_and_its_group() -> Result<()> {
    let docker = docker()?;
    let web = docker.run(IMAGE, "web", &["/bin/prog"])?;
    let absent = PathBuf::from("/nonexistent/docker.sock");
    let absent = Places { docker: Some(Socket::Named(absent)), ..Places::none() };
    let error = refusal(&container("web"), absent.clone())?;
    let expected = "no container `web`: docker does not answer: /nonexistent/docker.sock: no such file or directory (the id of a \
                    running container, or --cgroup PATH, works without)";
    ensure!(error == expected, "{error}");

    let hanging = docker.hang()?;
    let error = refusal(&container("web"), docker.places())?;
    ensure!(error.contains("docker.sock: no answer within 2 s"), "{error}");
    for (scope, places) in [
        (Scope::Container(web.id[..12].to_owned()), absent),
        (Scope::Container(web.id.clone()), docker.places()),
        (Scope::Cgroup(web.cgroup()?.into()), Places::none()),
    ] {
        let selection = Selection::open_in(std::slice::from_ref(&scope), places)?;
        ensure!(pids_of(&selection) == [web.pid], "{scope}");
    }
    drop(hanging);
    ensure!(pids_of(&Selection::open_in(&container("web"), docker.places())?) == [web.pid]);
    Ok(())
}

#[test]
fn a_container_that_does_not_run_is_awaited_and_followed_to_its_next_life() -> Result<()> {
    let docker = docker()?;
    docker.cli(&["create", "--interactive", "--network=none", "--name", "later", IMAGE, "/bin/prog"])?;
    let mut selection = Selection::open_in(&container("later"), docker.places())?;
    let awaited = |selection: &Selection| selection.awaited().iter().map(ToString::to_string).collect::<Vec<_>>();
    ensure!(pids_of(&selection).is_empty() && selection.cgroups().is_empty());
    ensure!(awaited(&selection) == ["container later"] && !selection.look_again());

    let first = docker.start_again("later")?;
    ensure!(selection.look_again() && awaited(&selection).is_empty() && pids_of(&selection) == [first.pid]);
    let before = selection.cgroups();
    ensure!(!selection.look_again(), "nothing has changed since");
    first.end()?;
    ensure!(selection.cgroups().is_empty() && awaited(&selection) == ["container later"]);

    let second = docker.start_again("later")?;
    // Its group has the path that it had, and another number.
    let after = selection.cgroups();
    ensure!(after.len() == 1 && after[0].path == before[0].path && after[0].id != before[0].id, "{before:?} {after:?}");
    ensure!(awaited(&selection).is_empty() && pids_of(&selection) == [second.pid]);
    second.end()?;

    // Made anew under its name.
    docker.cli(&["rm", "later"])?;
    let third = docker.run(IMAGE, "later", &["/bin/prog"])?;
    ensure!(selection.look_again() && pids_of(&selection) == [third.pid]);
    Ok(())
}

#[test]
fn a_group_with_its_containers_to_come_needs_no_process() -> Result<()> {
    let docker = docker()?;
    docker.run(IMAGE, "first", &["/bin/prog"])?.end()?;
    // Docker's own group stays when its containers are gone.
    let all = Selection::open_in(&[Scope::Cgroup("docker".into())], Places::none())?;
    ensure!(pids_of(&all).is_empty() && all.cgroups().len() == 1 && all.cgroups()[0].level == 1);
    let later = docker.run(IMAGE, "later", &["/bin/prog"])?;
    ensure!(pids_of(&all) == [later.pid]);
    Ok(())
}

#[test]
fn a_process_is_called_after_its_container_also_when_that_is_gone() -> Result<()> {
    let docker = docker()?;
    let mut names = ContainerNames::new(docker.places());
    let web = docker.run_with(&["--cgroup-parent", OTHER_PARENT], IMAGE, "web", &["/bin/prog"])?;
    let group = PathBuf::from(web.cgroup()?);
    ensure!(group.starts_with(Path::new("/").join(OTHER_PARENT)), "{}", group.display());
    let found = names.of(&group).context("it has a container")?;
    ensure!((found.label(), found.engine, found.image.as_deref()) == ("web", Engine::Docker, Some(IMAGE)), "{found:?}");
    ensure!(names.of(&group.join("below")).is_some_and(|found| found.label() == "web"));
    ensure!(names.of(Path::new("/system.slice/x.service")).is_none());
    web.end()?;
    docker.cli(&["rm", "web"])?;
    ensure!(names.of(&group).is_some_and(|found| found.label() == "web"));
    let listed = Containers::list(&Hierarchy::find()?, &docker.places());
    ensure!(!listed.all.iter().any(|container| container.name.as_deref() == Some("web")), "{listed:?}");
    Ok(())
}

#[test]
fn names_executables_and_users_select_in_containers_too() -> Result<()> {
    let docker = Docker::start()?;
    docker.image(IMAGE, &files_of(&Program::c("steps").build()?, "/bin/a-rather-long-name")?)?;
    let musl = Program::c("steps").compiler("musl-gcc").build()?;
    docker.image("t/musl", &files_of(&musl, "/bin/prog")?)?;
    let long = docker.run_with(&["--user=4242"], IMAGE, "long", &["/bin/a-rather-long-name"])?;
    let musl = docker.run("t/musl", "musl", &["/bin/prog"])?;
    for (scope, expected) in [
        (Scope::Comm("a-rather-long-name".into()), long.pid),
        (Scope::Comm("a-rather-*".into()), long.pid),
        (Scope::Exe("/bin/a-rather-long-name".into()), long.pid),
        (Scope::User("4242".into()), long.pid),
        (Scope::Exe("/bin/prog".into()), musl.pid),
    ] {
        let selection = Selection::open_in(std::slice::from_ref(&scope), Places::none())?;
        ensure!(pids_of(&selection) == [expected], "{scope}: {:?}", selection.processes());
    }
    long.end()?;
    musl.end()?;
    Ok(())
}
