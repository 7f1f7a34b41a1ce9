//! `cargo xtask setup`: finds what is missing and installs it; quick and silent where everything is there.
//!
//! A plain `cargo build` needs none of this. QEMU and the kernels are unpacked into `target/`, never installed.

use std::{os::unix::fs::MetadataExt as _, path::Path};

use anyhow::{Context as _, Result, bail};

use crate::{
    exec::{cargo, clean, output, root, run, say, which},
    libs,
    toolchain::{BPF_TARGET, CoreFrom, LINKER_VERSION, Linker, Rustc, major},
    vm,
};

/// What the tests run: compilers, oracles, programs to trace, allocators, readers of exports, containers.
const TEST_PACKAGES: [&str; 25] = [
    "gcc",
    "g++",
    "libc6-dev",
    "libc6-dbg",
    "heaptrack",
    "valgrind",
    "sqlite3",
    "jq",
    "git",
    "python3",
    "musl-tools",
    "libjemalloc2",
    "libtcmalloc-minimal4",
    "libmimalloc2.0",
    "xz-utils",
    "binutils",
    "libjemalloc-dev",
    "redis-server",
    "golang-go",
    "chromium",
    "python3-jsonschema",
    "docker.io",
    "containerd",
    "runc",
    "podman",
];

/// What to set up.
#[derive(Clone, Copy, Debug, Eq, PartialEq, clap::ValueEnum)]
pub enum What {
    /// The toolchain for the BPF object.
    Bpf,
    /// Programs and libraries that the tests run.
    Tests,
    /// QEMU and other kernels.
    Vm,
    /// All of it.
    All,
}

/// What `setup` takes.
#[derive(clap::Args)]
pub struct Options {
    /// What to set up.
    #[arg(long, value_enum, default_value = "all")]
    what: What,
}

/// Sets up what the options name.
pub fn main(options: &Options) -> Result<()> {
    ensure(options.what)
}

/// Sets up one part, or all.
pub fn ensure(what: What) -> Result<()> {
    let wants = |part| what == part || what == What::All;
    if wants(What::Tests) {
        ensure_packages(&TEST_PACKAGES)?;
        libs::fetch_libs(&root())?;
    }
    if wants(What::Bpf) {
        ensure_bpf_toolchain()?;
    }
    if wants(What::Vm) {
        vm::fetch_all()?;
    }
    Ok(())
}

/// Installs those of the Debian packages that are missing.
pub fn ensure_packages(names: &[&str]) -> Result<()> {
    let missing: Vec<&str> = names.iter().copied().filter(|name| !is_installed(name)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    install(&missing)
}

fn ensure_bpf_toolchain() -> Result<()> {
    let rustc = match Rustc::find() {
        Ok(rustc) => rustc,
        Err(_) => install_rustc()?,
    };
    if Linker::find(&rustc).is_ok() {
        return Ok(());
    }
    install_linker(&rustc)?;
    Linker::find(&rustc).map(|_| ()).context("bpf-linker was installed and does not serve")
}

/// Debian's rustc with BPF's `core`, else rustup's nightly with the source of `core`.
fn install_rustc() -> Result<Rustc> {
    let mut problems = Vec::new();
    match distribution_packages() {
        Ok(packages) => match install(&packages.iter().map(String::as_str).collect::<Vec<_>>()) {
            Ok(()) => return Rustc::find(),
            Err(error) => problems.push(format!("{error:#}")),
        },
        Err(error) => problems.push(format!("{error:#}")),
    }
    if which("rustup").is_some() {
        say("installing rustup's nightly with rust-src");
        let args = ["toolchain", "install", "nightly", "--profile", "minimal", "--component", "rust-src"];
        match run(clean("rustup").args(args)) {
            Ok(()) => return Rustc::find(),
            Err(error) => problems.push(format!("{error:#}")),
        }
    }
    bail!(
        "no rustc for {BPF_TARGET} to be had ({}); install either `rustup toolchain install nightly --component \
         rust-src` or Debian's rustc-web and libstd-rust-web-dev-bpf",
        problems.join("; ")
    )
}

/// The package with BPF's `core`, and the compiler that it belongs to: versions move with security updates, so they are
/// looked for, not named.
fn distribution_packages() -> Result<Vec<String>> {
    let search = |pattern: &str| output(clean("apt-cache").args(["search", "--names-only", pattern]));
    let found = search("^libstd-rust-.*dev-bpf$").context("apt is not there")?;
    let core = found.split_whitespace().next().context("apt offers no libstd-rust-*dev-bpf")?;
    let flavour = core.trim_start_matches("libstd-rust-").trim_end_matches("dev-bpf").trim_end_matches('-');
    let rustc = if flavour.is_empty() { "rustc".to_owned() } else { format!("rustc-{flavour}") };
    Ok(vec![rustc, core.to_owned()])
}

fn install_linker(rustc: &Rustc) -> Result<()> {
    let llvm = major(&rustc.llvm).context("the compiler tells no LLVM version")?;
    let version = format!("--version={LINKER_VERSION}");
    let mut install_command = cargo();
    install_command.args(["install", "--force", "--locked", "bpf-linker", &version]);
    if rustc.core == CoreFrom::Sysroot {
        ensure_packages(&[&format!("llvm-{llvm}-dev")])?;
        let llvm_bin = Path::new("/usr/lib").join(format!("llvm-{llvm}/bin"));
        let path = std::env::var_os("PATH").unwrap_or_default();
        let dirs = std::iter::once(llvm_bin).chain(std::env::split_paths(&path));
        install_command.args(["--no-default-features", "--features", &format!("llvm-{llvm}")]);
        install_command.env("PATH", std::env::join_paths(dirs)?);
    }
    say(format!("building bpf-linker {LINKER_VERSION} for LLVM {llvm}"));
    run(&mut install_command)
}

fn install(packages: &[&str]) -> Result<()> {
    let list = packages.join(" ");
    if which("apt-get").is_none() {
        bail!("missing {list}: no apt-get here, install them (or what your distribution calls them)");
    }
    if !is_root() {
        bail!("missing {list}: run as root, or `sudo apt-get install --no-install-recommends {list}`");
    }
    say(format!("installing {list}"));
    let apt = || {
        let mut command = clean("apt-get");
        // Another apt may be at work: wait for its lock.
        command.args(["-qq", "-y", "-oDPkg::Lock::Timeout=300"]).env("DEBIAN_FRONTEND", "noninteractive");
        command
    };
    run(apt().arg("update"))?;
    output(apt().args(["--no-install-recommends", "install"]).args(packages)).map(|_| ())
}

fn is_installed(package: &str) -> bool {
    output(clean("dpkg-query").args(["-W", "-f=${db:Status-Abbrev}", package]))
        .is_ok_and(|status| status.starts_with("ii"))
}

/// Whether this process runs as root.
pub fn is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|metadata| metadata.uid() == 0)
}
