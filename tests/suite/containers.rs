//! Which processes a scope selects, and what they are called, on real containers.

use std::{
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    process::Stdio,
};

use anyhow::{Context as _, Result, ensure};
use memtrace_tests::{
    Program, Report, clean,
    docker::{Docker, OTHER_PARENT, files_of},
    podman::Podman,
    process::{Target, Tracing, check_refusal},
    tracer,
};
use tracer_user::scope::{
    Facts, Hierarchy, Scope, Selection,
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
fn what_is_mistyped_is_answered_with_names() -> Result<()> {
    let docker = docker()?;
    let _web = docker.run(IMAGE, "web-frontend", &["/bin/prog"])?;
    let no_such = refusal(&container("web-fronted"), docker.places())?;
    ensure!(no_such == "no container `web-fronted` (near: web-frontend)", "{no_such}");
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
    let parent = format!("{OTHER_PARENT}/to-come");
    let run = |name| docker.run_with(&["--cgroup-parent", &parent], IMAGE, name, &["/bin/prog"]);
    run("first")?.end()?;
    // The parent of its group stays.
    let all = Selection::open_in(&[Scope::Cgroup((&parent).into())], Places::none())?;
    ensure!(pids_of(&all).is_empty() && all.cgroups().len() == 1 && all.cgroups()[0].level == 2, "{:?}", all.cgroups());
    let later = run("later")?;
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
    docker.image("t/musl", &files_of(&musl, "/bin/prog-of-musl")?)?;
    let long = docker.run_with(&["--user=4242"], IMAGE, "long", &["/bin/a-rather-long-name"])?;
    let musl = docker.run("t/musl", "musl", &["/bin/prog-of-musl"])?;
    for (scope, expected) in [
        (Scope::Comm("a-rather-long-name".into()), long.pid),
        (Scope::Comm("a-rather-*".into()), long.pid),
        (Scope::Exe("/bin/a-rather-long-name".into()), long.pid),
        (Scope::User("4242".into()), long.pid),
        (Scope::Exe("/bin/prog-of-musl".into()), musl.pid),
    ] {
        let selection = Selection::open_in(std::slice::from_ref(&scope), Places::none())?;
        ensure!(pids_of(&selection) == [expected], "{scope}: {:?}", selection.processes());
    }
    long.end()?;
    musl.end()?;
    Ok(())
}

#[test]
fn containers_of_podman_have_their_names_from_its_store() -> Result<()> {
    let podman = Podman::new()?;
    podman.image(IMAGE, &files_of(&Program::c("steps").build()?, "/bin/prog")?)?;
    let mut web = podman.run(IMAGE, "web", &["/bin/prog"])?;
    let sibling = web.exec(&["/bin/prog"])?;
    for (name, places) in [("web", podman.places()), (&web.id[..12], podman.places()), (&web.id, Places::none())] {
        let selection = Selection::open_in(&container(name), places)?;
        ensure!(selection.cgroups().len() == 1 && pids_of(&selection) == web.pids()?, "{name}: {selection:?}");
    }
    let mut names = ContainerNames::new(podman.places());
    let found = names.of(Path::new(&web.cgroup()?)).context("it has a container")?;
    let image = found.image.as_deref().context("its image is known")?;
    ensure!((found.engine, found.label()) == (Engine::Podman, "web") && image.contains(IMAGE), "{found:?}");

    // Another engine has one of that name.
    let docker = docker()?;
    let namesake = docker.run(IMAGE, "web", &["/bin/prog"])?;
    let both = Places { stores: podman.places().stores, ..docker.places() };
    let error = refusal(&container("web"), both.clone())?;
    let candidates =
        [(&web, "podman"), (&namesake, "docker")].map(|(c, engine)| format!("web ({}, {engine})", &c.id[..12]));
    ensure!(
        candidates.iter().all(|candidate| error.contains(candidate)) && error.contains("take more of the id"),
        "{error}"
    );
    ensure!(pids_of(&Selection::open_in(&container(&namesake.id[..12]), both)?) == [namesake.pid]);

    web.step("a")?;
    sibling.end()?;
    web.end()?;
    let stopped = Selection::open_in(&container("web"), podman.places())?;
    ensure!(stopped.awaited().len() == 1 && stopped.cgroups().is_empty());
    Ok(())
}

/// What a kubelet's runtime writes: the kubelet itself is not there.
#[test]
fn containers_of_containerd_have_their_pods_from_their_bundles() -> Result<()> {
    const POD: &str = "kubepods/burstable/pod1e2d3c4b-5a69-7887-9605-a4b3c2d1e0ff";
    let docker = Docker::start()?;
    let files = files_of(&Program::c("steps").build()?, "/bin/prog")?;
    let program = ["/bin/prog"];
    let ids = ["0a".repeat(32), "0b".repeat(32)];
    let annotations = |name: &str| {
        [
            format!("io.kubernetes.cri.container-name={name}"),
            "io.kubernetes.cri.sandbox-name=shop-0".to_owned(),
            "io.kubernetes.cri.sandbox-namespace=prod".to_owned(),
        ]
    };
    let in_pod = |id: &str, name: &str| {
        let annotations = annotations(name);
        docker.ctr(
            ("k8s.io", id),
            &annotations.each_ref().map(String::as_str),
            &format!("{POD}/{id}"),
            &files,
            &program,
        )
    };
    let app = in_pod(&ids[0], "app")?;
    let other = docker.ctr(("default", "web"), &[], "default/web", &files, &program)?;

    let select = |scope: Scope| Selection::open_in(&[scope], docker.places());
    let pod = select(Scope::pod("prod/shop-0").map_err(anyhow::Error::msg)?)?;
    ensure!(pids_of(&pod) == [app.pid] && pod.cgroups()[0].path.ends_with(POD), "{:?}", pod.cgroups());
    ensure!(pids_of(&select(Scope::Container("app".into()))?) == [app.pid]);
    ensure!(pids_of(&select(Scope::Container("web".into()))?) == [other.pid]);
    // A container that joins the pod later is in the pod's group.
    let sidecar = in_pod(&ids[1], "sidecar")?;
    let mut both = [app.pid, sidecar.pid];
    both.sort_unstable();
    ensure!(pids_of(&pod) == both);

    let no_such = refusal(&[Scope::pod("prod/shop-1").map_err(anyhow::Error::msg)?], docker.places())?;
    ensure!(no_such == "no pod `prod/shop-1` (near: prod/shop-0)", "{no_such}");
    let error = refusal(&container("0"), docker.places())?;
    for candidate in ["app (0a0a0a0a0a0a, containerd, pod prod/shop-0)", "sidecar (0b0b0b0b0b0b"] {
        ensure!(error.contains(candidate), "{error}");
    }
    let mut names = ContainerNames::new(docker.places());
    ensure!(names.of(Path::new(&other.cgroup()?)).is_some_and(|found| found.label() == "web"));
    Ok(())
}

/// `--privileged` gives all capabilities, and can be had where this process may have all; these are enough.
fn privileges() -> Result<&'static [&'static str]> {
    let status = fs::read_to_string("/proc/self/status")?;
    let may_have = status.lines().find_map(|line| line.strip_prefix("CapBnd:")).context("a bounding set")?;
    let last: u32 = fs::read_to_string("/proc/sys/kernel/cap_last_cap")?.trim().parse()?;
    let has_all = u64::from_str_radix(may_have.trim(), 16)?.count_ones() == last + 1;
    Ok(if has_all {
        &["--privileged"]
    } else {
        &["--cap-add=SYS_ADMIN", "--cap-add=SYS_PTRACE", "--cap-add=DAC_READ_SEARCH"]
    })
}

#[test]
fn the_tracer_traces_the_host_and_other_containers_from_within_one() -> Result<()> {
    const TRACER: &str = "/usr/local/bin/memtrace-bpf";
    let docker = docker()?;
    docker.image("t/memtrace-bpf", &files_of(tracer()?, TRACER)?)?;
    let mut on_host = Target::start::<&str>(&Program::c("steps").build()?, &[])?;
    let mut in_other = docker.run(IMAGE, "web", &["/bin/prog"])?;
    for is_on_host in [true, false] {
        let pid = if is_on_host { on_host.pid() } else { in_other.pid };
        let mut run = docker.command();
        run.args(["run", "--rm", "--network=none", "--pid=host"]).args(privileges()?).args(["t/memtrace-bpf", TRACER]);
        run.args(["--verbose", "--json", "-", "--pid", &pid.to_string()]);
        let tracing = Tracing::spawn(run.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()))?;
        tracing.await_log("tracing pid")?;
        let stepped = if is_on_host { on_host.step("a") } else { in_other.step("a") };
        stepped?;
        // Docker passes it on.
        tracing.signal(libc::SIGINT)?;
        let output = tracing.finish()?;
        let report: Report = serde_json::from_str(&output.stdout).with_context(|| output.stderr.clone())?;
        ensure!((report.totals.current_bytes, report.totals.current_count) == (100 * 123, 100), "{:?}", report.totals);
        ensure!(report.stats[0].function.as_deref() == Some("make_a"), "{:?}", report.stats);
    }
    on_host.end()?;
    in_other.end()?;
    Ok(())
}

#[test]
fn a_scope_that_is_not_there_is_refused_in_one_line() -> Result<()> {
    for (arguments, code, says) in [
        (
            ["--container", "web"],
            1,
            "no container `web`: docker does not answer: /nonexistent/docker.sock: no such file",
        ),
        (["--pod", "prod/shop-0"], 1, "no pod `prod/shop-0`: docker does not answer"),
        (["--cgroup", "no/such/group"], 1, "no cgroup `no/such/group` below `/sys/fs/cgroup"),
        (["--user", "rooot"], 1, "no user `rooot` (near: root"),
        (["--pod", "shop-0"], 2, "`shop-0` is not NAMESPACE/NAME"),
        (["--all", "--pid=1"], 2, "cannot be used with"),
    ] {
        let mut command = clean(tracer()?);
        command.env("DOCKER_HOST", "unix:///nonexistent/docker.sock").args(arguments);
        let output = command.output()?;
        let output = memtrace_tests::Output {
            status: output.status,
            stdout: String::from_utf8(output.stdout)?,
            stderr: String::from_utf8(output.stderr)?,
        };
        let line = check_refusal(&output, code)?;
        ensure!(line.contains(says), "{line}");
    }
    Ok(())
}
