//! What can compile the BPF programs on this machine: a rustc with BPF's `core` (prebuilt, or as source to build), and a
//! bpf-linker with an LLVM that reads what this rustc writes.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, anyhow, bail};

use crate::exec::{clean, output, which, which_all};

/// Target triple of the object: BPF bytecode, little endian.
pub const BPF_TARGET: &str = "bpfel-unknown-none";

/// The linker that the object is built with.
pub const LINKER_VERSION: &str = "0.13.0";

/// A complete BPF toolchain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Toolchain {
    /// The compiler.
    pub rustc: Rustc,
    /// The linker, whose LLVM generates the code.
    pub linker: Linker,
}

/// A compiler that can compile for BPF.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rustc {
    /// The executable.
    pub path: PathBuf,
    /// Its first line of `-V`.
    pub version: String,
    /// The LLVM it was built with, `22.1.8`.
    pub llvm: String,
    /// Where it has its libraries from.
    pub sysroot: PathBuf,
    /// Where BPF's `core` comes from.
    pub core: CoreFrom,
}

/// Where BPF's `core` comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CoreFrom {
    /// The sysroot has it compiled (Debian's `libstd-rust-web-dev-bpf`).
    Sysroot,
    /// The sysroot has its source (`rustup component add rust-src`): cargo builds it.
    Source,
}

/// A bpf-linker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Linker {
    /// The executable.
    pub path: PathBuf,
    /// `bpf-linker 0.13.0`.
    pub version: String,
    /// Its LLVM, as exactly as can be told; `static` when it is linked in.
    pub llvm: String,
}

impl Toolchain {
    /// The toolchain to build with; the error says what is missing.
    pub fn find() -> Result<Self> {
        let rustc = Rustc::find().context("no rustc for BPF: run `cargo xtask setup --what bpf`")?;
        let linker = Linker::find(&rustc).context("no bpf-linker: run `cargo xtask setup --what bpf`")?;
        Ok(Self { rustc, linker })
    }
}

impl Rustc {
    /// A rustc whose sysroot has BPF's `core` compiled, else one that has the source and takes `-Z` options.
    pub fn find() -> Result<Self> {
        let found: Vec<Self> = candidates().iter().filter_map(|path| Self::inspect(path)).collect();
        let best = found.iter().find(|rustc| rustc.core == CoreFrom::Sysroot).or_else(|| found.first());
        best.cloned().ok_or_else(|| {
            anyhow!("none of {:?} has `{BPF_TARGET}` or the source of `core` in its sysroot", candidates())
        })
    }

    fn inspect(path: &Path) -> Option<Self> {
        let verbose = output(clean(path).arg("-vV")).ok()?;
        let sysroot = PathBuf::from(output(clean(path).args(["--print", "sysroot"])).ok()?.trim());
        let core = core_in(&sysroot)?;
        let version = verbose.lines().next()?.to_owned();
        // `-Z build-std` is cargo's, and refused outside of nightly.
        if core == CoreFrom::Source && !version.contains("nightly") {
            return None;
        }
        let llvm = verbose.lines().find_map(|line| line.strip_prefix("LLVM version: "))?.to_owned();
        Some(Self { path: path.to_path_buf(), version, llvm, sysroot, core })
    }
}

impl Linker {
    /// A bpf-linker of the wanted version whose LLVM is not older than the compiler's.
    pub fn find(rustc: &Rustc) -> Result<Self> {
        let cargo_bin = cargo_home().map(|home| home.join("bin/bpf-linker"));
        let mut paths = which_all("bpf-linker");
        paths.extend(cargo_bin.filter(|path| path.is_file()));
        let mut reasons = Vec::new();
        for path in paths {
            match Self::inspect(&path, rustc) {
                Ok(linker) => return Ok(linker),
                Err(error) => reasons.push(format!("{}: {error:#}", path.display())),
            }
        }
        bail!("{}", if reasons.is_empty() { "not installed".to_owned() } else { reasons.join("; ") })
    }

    fn inspect(path: &Path, rustc: &Rustc) -> Result<Self> {
        let version = output(clean(path).arg("--version"))?.trim().to_owned();
        if version.rsplit(' ').next() != Some(LINKER_VERSION) {
            bail!("is {version}, wanted {LINKER_VERSION}");
        }
        let llvm = linked_llvm(path);
        if let (Some(has), Some(needs)) = (major(&llvm), major(&rustc.llvm))
            && has < needs
        {
            bail!("has LLVM {llvm}, the compiler writes LLVM {}", rustc.llvm);
        }
        Ok(Self { path: path.to_path_buf(), version, llvm })
    }
}

/// `$CARGO_HOME` or its default.
pub fn cargo_home() -> Option<PathBuf> {
    let home = std::env::var_os("HOME").map(|home| Path::new(&home).join(".cargo"));
    std::env::var_os("CARGO_HOME").map(PathBuf::from).or(home)
}

/// The number before the first dot.
pub fn major(version: &str) -> Option<u32> {
    version.split('.').next()?.parse().ok()
}

/// Every rustc that may be meant: the named one, those of `PATH`, the distribution's, rustup's.
fn candidates() -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> = std::env::var_os("MEMTRACE_BPF_RUSTC").map(PathBuf::from).into_iter().collect();
    paths.push("/usr/bin/rustc".into());
    if let Some(rustup) = which("rustup")
        && let Ok(list) = output(clean(rustup).args(["toolchain", "list", "-v"]))
    {
        let dirs = list.lines().filter_map(|line| line.split_whitespace().last());
        paths.extend(dirs.map(|dir| Path::new(dir).join("bin/rustc")));
    } else {
        paths.extend(which_all("rustc"));
    }
    paths.retain(|path| path.is_file());
    paths.dedup();
    paths
}

fn core_in(sysroot: &Path) -> Option<CoreFrom> {
    let rustlib = sysroot.join("lib/rustlib");
    let compiled = rustlib.join(BPF_TARGET).join("lib");
    let has_core = std::fs::read_dir(compiled)
        .is_ok_and(|mut files| files.any(|f| f.is_ok_and(|f| f.file_name().to_string_lossy().starts_with("libcore-"))));
    if has_core {
        Some(CoreFrom::Sysroot)
    } else {
        rustlib.join("src/rust/library/core/Cargo.toml").is_file().then_some(CoreFrom::Source)
    }
}

/// The version of the libLLVM that an executable is linked against: from the `llvm-config` beside the library, else what
/// the library's name tells.
fn linked_llvm(path: &Path) -> String {
    let libraries = output(clean("ldd").arg(path)).unwrap_or_default();
    let Some(line) = libraries.lines().find(|line| line.contains("libLLVM")) else {
        return "static".to_owned();
    };
    let file = line.split_whitespace().nth(2).map(PathBuf::from).unwrap_or_default();
    let config = file.parent().and_then(Path::parent).map(|dir| dir.join("bin/llvm-config"));
    config.and_then(|config| output(clean(config).arg("--version")).ok()).map_or_else(
        || line.split_once(".so.").and_then(|(_, rest)| rest.split_whitespace().next()).unwrap_or("unknown").to_owned(),
        |version| version.trim().to_owned(),
    )
}
