//! Allocator libraries of other releases, for the tests of the probe planner: fetched as packages, unpacked, never installed.
//!
//! Each suite gets apt lists of its own under `target/`, so that nothing of the system is touched. The mirror is the one
//! that this machine's apt is configured for.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail, ensure};

/// One package to unpack to `target/test-libs/<folder>`.
struct TestLib {
    folder: &'static str,
    suite: &'static str,
    package: &'static str,
}

const fn lib(folder: &'static str, suite: &'static str, package: &'static str) -> TestLib {
    TestLib { folder, suite, package }
}

/// What `tracer-user/tests/plan_real_libraries.rs` reads; a new library is a row here and a row there.
const LIBS: [TestLib; 9] = [
    lib("bullseye-libc6", "bullseye", "libc6"),
    lib("bookworm-libc6", "bookworm", "libc6"),
    lib("trixie-libc6", "trixie", "libc6"),
    lib("sid-libc6", "sid", "libc6"),
    lib("jemalloc", "bookworm", "libjemalloc2"),
    lib("tcmalloc", "bookworm", "libtcmalloc-minimal4"),
    lib("mimalloc", "bookworm", "libmimalloc2.0"),
    lib("musl", "bookworm", "musl"),
    lib("sid-musl", "sid", "musl"),
];

const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// Unpacks every library that `<workspace>/target/test-libs` does not hold yet.
///
/// All of them are tried; the error lists those that could not be had, with the reason.
pub fn fetch_libs(workspace: &Path) -> Result<()> {
    let cache = workspace.join("target/test-libs");
    let missing: Vec<_> = LIBS.iter().filter(|lib| !cache.join(lib.folder).join(".complete").exists()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let mirror = mirror()?;
    let failures: Vec<_> = missing
        .iter()
        .filter_map(|lib| fetch(&cache, &mirror, lib).err().map(|err| format!("{}: {err:#}", lib.folder)))
        .collect();
    // The lists are 25 MB a suite and not needed again.
    let lists = cache.join("apt");
    if lists.exists() {
        fs::remove_dir_all(&lists).with_context(|| format!("failed to remove `{}`", lists.display()))?;
    }
    ensure!(failures.is_empty(), "failed to fetch test libraries:\n  {}", failures.join("\n  "));
    Ok(())
}

/// The base URI of the Debian archive in apt's own configuration.
fn mirror() -> Result<String> {
    let text =
        output(Command::new("apt-get").args(["indextargets", "--format", "$(REPO_URI)", "Created-By: Packages"]))?;
    text.lines().find(|uri| uri.trim_end_matches('/').ends_with("/debian")).map(str::to_owned).context(
        "apt is configured for no Debian mirror (a URI that ends in /debian); the test libraries come from there",
    )
}

fn fetch(cache: &Path, mirror: &str, lib: &TestLib) -> Result<()> {
    let apt = Apt::new(&cache.join("apt").join(lib.suite), mirror, lib.suite)?;
    let downloads = apt.dir.join("downloads").join(lib.package);
    recreate(&downloads)?;
    output(apt.command("apt-get").args(["download", lib.package]).current_dir(&downloads))?;
    let Some(deb) = fs::read_dir(&downloads)?.next().transpose()? else {
        bail!("apt-get download {} left no file", lib.package);
    };
    let folder = cache.join(lib.folder);
    recreate(&folder)?;
    output(Command::new("dpkg-deb").arg("-x").arg(deb.path()).arg(&folder))?;
    fs::write(folder.join(".complete"), deb.file_name().as_encoded_bytes())?;
    Ok(())
}

/// apt with lists, cache and status of its own.
struct Apt {
    dir: PathBuf,
}

impl Apt {
    fn new(dir: &Path, mirror: &str, suite: &str) -> Result<Self> {
        let apt = Self { dir: dir.to_owned() };
        let updated = dir.join("updated");
        if updated.exists() {
            return Ok(apt);
        }
        for sub in ["lists/partial", "cache/archives/partial"] {
            fs::create_dir_all(dir.join(sub))?;
        }
        fs::write(dir.join("status"), "")?;
        fs::write(dir.join("sources.list"), format!("deb [signed-by={KEYRING} arch=amd64] {mirror} {suite} main\n"))?;
        output(apt.command("apt-get").arg("update"))?;
        fs::write(updated, "")?;
        Ok(apt)
    }

    fn command(&self, program: &str) -> Command {
        let own = |key: &str, file: &str| format!("{key}={}", self.dir.join(file).display());
        let mut command = Command::new(program);
        command.arg("-qq");
        for option in [
            "APT::Architecture=amd64".to_owned(),
            "APT::Sandbox::User=root".to_owned(),
            "Acquire::Languages=none".to_owned(),
            "Dir::Etc::SourceParts=/dev/null".to_owned(),
            "Dir::Etc::PreferencesParts=/dev/null".to_owned(),
            own("Dir::State::status", "status"),
            own("Dir::State::Lists", "lists"),
            own("Dir::Etc::SourceList", "sources.list"),
            own("Dir::Cache", "cache"),
        ] {
            command.arg("-o").arg(option);
        }
        command
    }
}

fn recreate(dir: &Path) -> Result<()> {
    if dir.exists() {
        fs::remove_dir_all(dir).with_context(|| format!("failed to remove `{}`", dir.display()))?;
    }
    fs::create_dir_all(dir).with_context(|| format!("failed to create `{}`", dir.display()))
}

/// Runs to the end; what it wrote to stdout, or an error with what it wrote to stderr.
fn output(command: &mut Command) -> Result<String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.output().with_context(|| format!("failed to run `{program}`"))?;
    if !output.status.success() {
        bail!("`{program}` failed ({}): {}", output.status, String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
