//! Sessions on real containers: figures of each process are its own, whatever image it comes from and whenever it starts or ends.

use std::{
    fs,
    sync::{Mutex, MutexGuard, PoisonError},
};

use anyhow::{Context as _, Result, ensure};
use memtrace_tests::{
    Program, clean,
    docker::{Docker, files_of},
    many::{Recorded, check_sums, figures, has_lost_nothing, pids, process},
    process::Target,
    tracer,
};
use tracer_user::snapshot::{ProcessEnd, ProcessStats, Snapshot};

const IMAGE: &str = "t/steps";
const MUSL: &str = "t/steps-musl";

/// Probes are for everyone here: one test's must not be in the files of another's.
static ALONE: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A daemon with images of `steps.c` on two C libraries.
fn docker() -> Result<Docker> {
    let docker = Docker::start()?;
    docker.image(IMAGE, &files_of(&Program::c("steps").build()?, "/bin/prog")?)?;
    docker.image(MUSL, &files_of(&Program::c("steps").compiler("musl-gcc").build()?, "/bin/prog")?)?;
    Ok(docker)
}

fn record(docker: &Docker, arguments: &[&str]) -> Result<Recorded> {
    Recorded::start_by(clean(tracer()?).env("DOCKER_HOST", docker.host()), arguments)
}

/// What `a` makes, times n.
const A: (u64, u64) = (100 * 123, 100);
/// What `b` makes.
const B: (u64, u64) = (50 * 77, 50);

/// The first process of a container.
fn of<'s>(snapshot: &'s Snapshot, pid: u32, name: &str) -> Result<&'s ProcessStats> {
    let found = process(snapshot, pid)?;
    ensure!(found.container.as_deref() == Some(name), "{found:?}");
    ensure!(found.pid_inside == Some(1), "{found:?}");
    has_lost_nothing(found)?;
    Ok(found)
}

#[test]
fn containers_of_one_image_and_of_another_and_the_host_are_exact_and_apart() -> Result<()> {
    let _alone = alone();
    let docker = docker()?;
    let mut one = docker.run(IMAGE, "one", &["/bin/prog"])?;
    let mut other = docker.run(IMAGE, "other", &["/bin/prog"])?;
    let mut musl = docker.run(MUSL, "musl", &["/bin/prog"])?;
    let mut bystander = docker.run(IMAGE, "bystander", &["/bin/prog"])?;
    let mut on_host = Target::start::<&str>(&Program::c("steps").build()?, &[])?;
    let pid = on_host.pid().to_string();
    // By name, by the beginning of its id, by name, by process id.
    let scopes = ["--container", "one", "--container", &other.id[..10], "--container", "musl", "--pid", &pid];
    let recorded = record(&docker, &scopes)?;
    for step in ["a", "b"] {
        one.step(step)?;
        bystander.step(step)?;
    }
    for step in ["a", "f", "a"] {
        other.step(step)?;
    }
    for step in ["b", "a", "f"] {
        musl.step(step)?;
    }
    on_host.step("a")?;
    let snapshot = recorded.end()?;
    check_sums(&snapshot)?;
    ensure!(figures(of(&snapshot, one.pid, "one")?) == (A.0 + B.0, A.1 + B.1, 0), "{}", pids(&snapshot));
    ensure!(figures(of(&snapshot, other.pid, "other")?) == (2 * A.0, 2 * A.1, A.1), "{}", pids(&snapshot));
    ensure!(figures(of(&snapshot, musl.pid, "musl")?) == (A.0 + B.0, A.1 + B.1, A.1), "{}", pids(&snapshot));
    let host = process(&snapshot, on_host.pid())?;
    ensure!(figures(host) == (A.0, A.1, 0) && host.container.is_none(), "{host:?}");
    ensure!(snapshot.processes.len() == 4, "one that nobody asked for: {}", pids(&snapshot));
    [one, other, musl, bystander].into_iter().try_for_each(|container| container.end().map(|_| ()))?;
    on_host.end()?;
    Ok(())
}

/// A second process in a container (`docker exec`) belongs to it.
#[test]
fn a_container_that_starts_after_the_tracer_is_traced_with_its_siblings() -> Result<()> {
    let _alone = alone();
    let docker = docker()?;
    docker.cli(&["create", "--interactive", "--network=none", "--name", "later", IMAGE, "/bin/prog"])?;
    let recorded = record(&docker, &["--container", "later"])?;
    recorded.tracing.await_log("waiting for a process of container later")?;
    let mut later = docker.start_again("later")?;
    recorded.await_process(later.pid)?;
    later.step("a")?;
    let mut sibling = later.exec(&["/bin/prog"])?;
    sibling.step("b")?;
    let first = later.pid;
    let in_container = later.pids()?;
    let second = in_container.iter().find(|pid| **pid != first).copied().context("a second process")?;
    sibling.end()?;
    later.end()?;
    recorded.tracing.await_log("waiting for a process of container later")?;
    let snapshot = recorded.end()?;
    check_sums(&snapshot)?;
    ensure!(figures(of(&snapshot, first, "later")?) == (A.0, A.1, 0), "{}", pids(&snapshot));
    let second = process(&snapshot, second)?;
    ensure!((second.totals.allocated_bytes, second.totals.allocated_count) == B, "{}", pids(&snapshot));
    Ok(())
}

/// A process that runs on the library that it was started with, while its path leads to another.
#[test]
fn a_library_that_was_replaced_is_traced_by_what_is_mapped() -> Result<()> {
    let _alone = alone();
    let docker = docker()?;
    let mut web = docker.run(IMAGE, "web", &["/bin/prog"])?;
    let maps = fs::read_to_string(format!("/proc/{}/maps", web.pid))?;
    let path = maps.lines().find_map(|line| Some(line.split_once('/')?.1).filter(|path| path.contains("libc.so")));
    let library = format!("/proc/{}/root/{}", web.pid, path.context("it has a C library")?);
    let other = format!("{library}.new");
    fs::write(&other, "not a library at all")?;
    fs::rename(&other, &library)?;
    let maps = fs::read_to_string(format!("/proc/{}/maps", web.pid))?;
    ensure!(maps.contains("libc.so.6 (deleted)"), "not replaced:\n{maps}");
    let recorded = record(&docker, &["--container", "web"])?;
    web.step("a")?;
    let snapshot = recorded.end()?;
    check_sums(&snapshot)?;
    ensure!(figures(of(&snapshot, web.pid, "web")?) == (A.0, A.1, 0), "{}", pids(&snapshot));
    web.end()?;
    Ok(())
}

#[test]
fn a_container_that_is_removed_keeps_its_figures() -> Result<()> {
    let _alone = alone();
    let docker = docker()?;
    let mut web = docker.run(IMAGE, "web", &["/bin/prog"])?;
    let mut db = docker.run(IMAGE, "db", &["/bin/prog"])?;
    let recorded = record(&docker, &["--container", "web", "--container", "db"])?;
    web.step("a")?;
    db.step("a")?;
    docker.cli(&["rm", "--force", "web"])?;
    db.step("b")?;
    let snapshot = recorded.end()?;
    check_sums(&snapshot)?;
    let removed = of(&snapshot, web.pid, "web")?;
    ensure!(figures(removed) == (A.0, A.1, 0), "{}", pids(&snapshot));
    ensure!(matches!(removed.ended, Some((_, ProcessEnd::Exited))), "{removed:?}");
    let stays = of(&snapshot, db.pid, "db")?;
    ensure!(figures(stays) == (A.0 + B.0, A.1 + B.1, 0) && stays.ended.is_none(), "{}", pids(&snapshot));
    db.end()?;
    Ok(())
}
