//! Allocator libraries of other releases, for the tests of the probe planner: fetched as packages, unpacked, never installed.

use std::{fs, path::Path};

use anyhow::{Context as _, Result, ensure};

use crate::debs::{Suite, unpack};

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
const LIBS: [TestLib; 10] = [
    lib("bullseye-libc6", "bullseye", "libc6"),
    lib("bookworm-libc6", "bookworm", "libc6"),
    lib("trixie-libc6", "trixie", "libc6"),
    lib("sid-libc6", "sid", "libc6"),
    lib("jemalloc", "bookworm", "libjemalloc2"),
    lib("tcmalloc", "bookworm", "libtcmalloc-minimal4"),
    lib("mimalloc", "bookworm", "libmimalloc2.0"),
    lib("musl", "bookworm", "musl"),
    lib("sid-musl", "sid", "musl"),
    lib("scudo", "bookworm", "libclang-rt-19-dev"),
];

/// Unpacks every library that `<workspace>/target/test-libs` does not hold yet.
///
/// All of them are tried; the error lists those that could not be had, with the reason.
pub fn fetch_libs(workspace: &Path) -> Result<()> {
    let cache = workspace.join("target/test-libs");
    let missing: Vec<_> = LIBS.iter().filter(|lib| !cache.join(lib.folder).join(".complete").exists()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let lists = cache.join("apt");
    let failures: Vec<_> = missing
        .iter()
        .filter_map(|lib| fetch(&cache, &lists, lib).err().map(|err| format!("{}: {err:#}", lib.folder)))
        .collect();
    // The lists are 25 MB a suite and not needed again.
    if lists.exists() {
        fs::remove_dir_all(&lists).with_context(|| format!("failed to remove `{}`", lists.display()))?;
    }
    ensure!(failures.is_empty(), "failed to fetch test libraries:\n  {}", failures.join("\n  "));
    Ok(())
}

fn fetch(cache: &Path, lists: &Path, lib: &TestLib) -> Result<()> {
    let deb = Suite::open(lib.suite, lists)?.download(lib.package, &lists.join("downloads").join(lib.folder))?;
    let folder = cache.join(lib.folder);
    if folder.exists() {
        fs::remove_dir_all(&folder).with_context(|| format!("failed to remove `{}`", folder.display()))?;
    }
    fs::create_dir_all(&folder).with_context(|| format!("failed to create `{}`", folder.display()))?;
    unpack(&deb, &folder)?;
    let name = deb.file_name().expect("a downloaded package has a name");
    fs::write(folder.join(".complete"), name.as_encoded_bytes())?;
    Ok(())
}
