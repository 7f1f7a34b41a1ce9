//! What the kept BPF object was built from and with. A plain `cargo build` embeds the kept object, so a stale one must
//! not pass unseen: the test below needs no BPF toolchain.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::toolchain::Toolchain;

/// `tracer-ebpf/prebuilt/manifest.json`.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub struct Manifest {
    /// Over everything that decides the object's bytes, the toolchain apart: see [`sources_sha256`].
    pub sources_sha256: String,
    /// Of `memtrace.bpf.o`.
    pub object_sha256: String,
    /// What it was compiled and linked with.
    pub toolchain: Versions,
}

/// The versions that decide the object's bytes.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub struct Versions {
    /// First line of `rustc -V`.
    pub rustc: String,
    /// The LLVM that wrote the bitcode.
    pub rustc_llvm: String,
    /// `bpf-linker --version`.
    pub linker: String,
    /// The LLVM that generated the code.
    pub linker_llvm: String,
}

impl Versions {
    /// The versions of a toolchain at hand.
    pub fn of(toolchain: &Toolchain) -> Self {
        Self {
            rustc: toolchain.rustc.version.clone(),
            rustc_llvm: toolchain.rustc.llvm.clone(),
            linker: toolchain.linker.version.clone(),
            linker_llvm: toolchain.linker.llvm.clone(),
        }
    }
}

impl Manifest {
    /// The kept manifest.
    pub fn read(root: &Path) -> Result<Self> {
        let path = manifest_path(root);
        let text = fs::read_to_string(&path).with_context(|| format!("failed to read `{}`", path.display()))?;
        serde_json::from_str(&text).with_context(|| format!("failed to parse `{}`", path.display()))
    }

    /// Replaces the kept manifest.
    pub fn write(&self, root: &Path) -> Result<()> {
        let path = manifest_path(root);
        let text = serde_json::to_string_pretty(self).expect("strings always serialize") + "\n";
        fs::write(&path, text).with_context(|| format!("failed to write `{}`", path.display()))
    }
}

/// The kept object.
pub fn object_path(root: &Path) -> PathBuf {
    root.join("tracer-ebpf/prebuilt/memtrace.bpf.o")
}

/// SHA-256 in lower-case hexadecimal.
pub fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a String takes everything");
        text
    })
}

/// One hash over the BPF crate's and the ABI crate's sources (sorted relative paths and contents), the locked versions
/// of the crates compiled in, and the flags.
pub fn sources_sha256(root: &Path, settings: &str) -> Result<String> {
    let mut files = BTreeSet::from(["tracer-common/Cargo.toml".into(), "tracer-ebpf/Cargo.toml".into()]);
    for dir in ["tracer-common/src", "tracer-ebpf/src"] {
        collect(root, Path::new(dir), &mut files)?;
    }
    let mut text = format!("settings {settings}\n");
    for file in files {
        let bytes = fs::read(root.join(&file)).with_context(|| format!("failed to read `{}`", file.display()))?;
        writeln!(text, "file {} {}", file.display(), sha256(&bytes)).expect("a String takes everything");
    }
    let lock = fs::read_to_string(root.join("Cargo.lock")).context("failed to read `Cargo.lock`")?;
    for package in locked_closure(&lock, "tracer-ebpf", &["tracer-common"]) {
        writeln!(text, "crate {package}").expect("a String takes everything");
    }
    Ok(sha256(text.as_bytes()))
}

fn manifest_path(root: &Path) -> PathBuf {
    root.join("tracer-ebpf/prebuilt/manifest.json")
}

fn collect(root: &Path, dir: &Path, files: &mut BTreeSet<PathBuf>) -> Result<()> {
    let full = root.join(dir);
    for entry in fs::read_dir(&full).with_context(|| format!("failed to list `{}`", full.display()))? {
        let entry = entry.with_context(|| format!("failed to list `{}`", full.display()))?;
        let relative = dir.join(entry.file_name());
        if entry.path().is_dir() {
            collect(root, &relative, files)?;
        } else {
            files.insert(relative);
        }
    }
    Ok(())
}

/// `name version checksum` of every crate that `from` needs, by `Cargo.lock`; `without` are not followed (the ABI crate
/// has dependencies in user space and in tests only).
fn locked_closure(lock: &str, from: &str, without: &[&str]) -> BTreeSet<String> {
    let packages: Vec<BTreeMap<&str, Vec<&str>>> = lock.split("[[package]]").skip(1).map(package).collect();
    let field = |package: &BTreeMap<&str, Vec<&str>>, key: &str| {
        package.get(key).and_then(|values| values.first()).copied().unwrap_or("").to_owned()
    };
    let mut seen = BTreeSet::new();
    let mut todo = vec![from.to_owned()];
    while let Some(wanted) = todo.pop() {
        // A dependency reads `name`, or `name version` where two versions are locked.
        let (name, version) = wanted.split_once(' ').unwrap_or((&wanted, ""));
        for package in &packages {
            let is_wanted =
                field(package, "name") == name && (version.is_empty() || field(package, "version") == version);
            let line = format!("{name} {} {}", field(package, "version"), field(package, "checksum"));
            if is_wanted && !without.contains(&name) && seen.insert(line) {
                todo.extend(package.get("dependencies").into_iter().flatten().map(|&text| text.to_owned()));
            }
        }
    }
    seen
}

/// One `[[package]]` of a lock file: `key = "value"` lines, and lists of one value a line.
fn package(block: &str) -> BTreeMap<&str, Vec<&str>> {
    let mut fields: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    let mut list = None;
    for line in block.lines() {
        match (line.split_once(" = "), list) {
            (Some((key, "[")), _) => list = Some(key),
            (Some((key, value)), _) => {
                fields.insert(key, vec![value.trim_matches('"')]);
            }
            (None, Some(key)) if line.starts_with(' ') => {
                fields.entry(key).or_default().push(line.trim().trim_matches([',', '"']));
            }
            _ => list = None,
        }
    }
    fields
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{build_ebpf::SETTINGS, exec::root};

    #[test]
    fn kept_object_is_built_from_these_sources() {
        let remedy = "run `cargo xtask build-ebpf` and commit tracer-ebpf/prebuilt";
        let manifest = Manifest::read(&root()).unwrap_or_else(|error| panic!("{error:#}: {remedy}"));
        let object =
            fs::read(object_path(&root())).unwrap_or_else(|error| panic!("no kept object ({error}): {remedy}"));
        let sources = sources_sha256(&root(), SETTINGS).expect("the sources are readable");
        assert_eq!(manifest.object_sha256, sha256(&object), "the object is not the one of the manifest: {remedy}");
        assert_eq!(manifest.sources_sha256, sources, "the object was built from other sources: {remedy}");
    }

    #[test]
    fn locked_crates_are_followed_by_name_and_version() {
        let lock = "version = 4\n\n[[package]]\nname = \"a\"\nversion = \"1.0.0\"\ndependencies = [\n \"b 2.0.0\",\n \"own\",\n]\n\n\
                    [[package]]\nname = \"b\"\nversion = \"1.0.0\"\nchecksum = \"old\"\n\n\
                    [[package]]\nname = \"b\"\nversion = \"2.0.0\"\nchecksum = \"new\"\n\n\
                    [[package]]\nname = \"own\"\nversion = \"0.1.0\"\ndependencies = [\n \"c\",\n]\n\n\
                    [[package]]\nname = \"c\"\nversion = \"3.0.0\"\n";
        let closure: Vec<String> = locked_closure(lock, "a", &["own"]).into_iter().collect();
        assert_eq!(closure, ["a 1.0.0 ", "b 2.0.0 new"]);
    }
}
