//! `cargo xtask build-ebpf`: compiles `tracer-ebpf` and keeps the object and its manifest in `tracer-ebpf/prebuilt/`.
//!
//! The same sources and toolchain give the same bytes in every checkout: paths are remapped, and of the debug
//! information only BTF stays.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};
use object::{build::elf, elf::SHT_STRTAB};

use crate::{
    exec::{cargo, clean, root, run, say, target_dir},
    manifest::{Manifest, Versions, object_path, sha256, sources_sha256},
    toolchain::{BPF_TARGET, CoreFrom, Toolchain, cargo_home},
};

/// How the object is compiled; part of the manifest's hash of the sources. `v3` brings the atomics that return the old
/// value and 32-bit jumps (kernel 5.12); BTF is made from full debug information.
pub const SETTINGS: &str = "-C link-arg=--btf -C target-cpu=v3 opt-level=3 debug=2 lto=off codegen-units=1 panic=abort";

/// What `build-ebpf` takes.
#[derive(clap::Args, Default)]
pub struct Options {
    /// Change nothing: rebuild, and demand the kept bytes where the toolchain is the kept object's.
    #[arg(long)]
    check: bool,
}

/// Rebuilds, then keeps or checks.
pub fn main(options: &Options) -> Result<()> {
    let root = root();
    let toolchain = Toolchain::find()?;
    let object = build(&toolchain)?;
    let fresh = Manifest {
        sources_sha256: sources_sha256(&root, SETTINGS)?,
        object_sha256: sha256(&object),
        toolchain: Versions::of(&toolchain),
    };
    if options.check {
        return check(&fresh, &Manifest::read(&root)?);
    }
    let kept = object_path(&root);
    fs::create_dir_all(kept.parent().expect("the object lies in a folder"))?;
    fs::write(&kept, &object).with_context(|| format!("failed to write `{}`", kept.display()))?;
    fresh.write(&root)?;
    say(format!("kept {} bytes, sha256 {}", object.len(), fresh.object_sha256));
    Ok(())
}

fn check(fresh: &Manifest, kept: &Manifest) -> Result<()> {
    if fresh.sources_sha256 != kept.sources_sha256 {
        bail!("the kept object was built from other sources: run `cargo xtask build-ebpf`");
    }
    if fresh.toolchain != kept.toolchain {
        say(format!("bytes not compared: built with {:?}, kept object with {:?}", fresh.toolchain, kept.toolchain));
    } else if fresh.object_sha256 != kept.object_sha256 {
        bail!("same sources, same toolchain, other bytes: {} instead of {}", fresh.object_sha256, kept.object_sha256);
    } else {
        say("same bytes as the kept object");
    }
    Ok(())
}

/// Compiles the object and takes its DWARF out.
fn build(toolchain: &Toolchain) -> Result<Vec<u8>> {
    let dir = target_dir().join("bpf");
    say(format!("{}, {} (LLVM {})", toolchain.rustc.version, toolchain.linker.version, toolchain.linker.llvm));
    run(&mut compile(toolchain, &dir))?;
    let built = dir.join(BPF_TARGET).join("release/memtrace");
    let bytes = fs::read(&built).with_context(|| format!("failed to read `{}`", built.display()))?;
    without_dwarf(&bytes)
}

fn compile(toolchain: &Toolchain, target_dir: &Path) -> Command {
    let rustc = &toolchain.rustc;
    let mut command = match rustc.core {
        CoreFrom::Sysroot => cargo(),
        // build-std is the business of the cargo that belongs to this rustc.
        CoreFrom::Source => clean(rustc.sysroot.join("bin/cargo")),
    };
    command.args(["build", "--locked", "--release", "--package", "tracer-ebpf", "--target", BPF_TARGET]);
    if rustc.core == CoreFrom::Source {
        command.args(["-Z", "build-std=core"]);
    }
    let linker_dir = toolchain.linker.path.parent().expect("an executable lies in a folder").to_path_buf();
    let path = std::env::var_os("PATH").unwrap_or_default();
    let dirs = std::iter::once(linker_dir).chain(std::env::split_paths(&path));
    command
        .arg("--target-dir")
        .arg(target_dir)
        .env("PATH", std::env::join_paths(dirs).expect("PATH was made of such folders"))
        .env("RUSTC", &rustc.path)
        // A distribution's rustc is a stable one; the BPF crate needs unstable features (atomics by intrinsics).
        .env("RUSTC_BOOTSTRAP", "1")
        .env("CARGO_ENCODED_RUSTFLAGS", rustflags(rustc.sysroot.as_path()).join("\u{1f}"))
        .env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "3")
        .env("CARGO_PROFILE_RELEASE_DEBUG", "2")
        .env("CARGO_PROFILE_RELEASE_LTO", "off")
        .env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "1")
        .env("CARGO_PROFILE_RELEASE_PANIC", "abort");
    command
}

/// Flags, with every path that differs from machine to machine mapped to a fixed one: BTF names the source files.
fn rustflags(sysroot: &Path) -> Vec<String> {
    let remap = |from: &Path, to: &str| format!("--remap-path-prefix={}={to}", from.display());
    let mut flags: Vec<String> = ["-C", "link-arg=--btf", "-C", "target-cpu=v3"].map(str::to_owned).into();
    flags.push(remap(&root(), "/memtrace-bpf"));
    flags.push(remap(&sysroot.join("lib/rustlib/src/rust"), "/rust"));
    let sources = cargo_home().map(|home| home.join("registry/src"));
    let registries = sources.and_then(|dir| fs::read_dir(dir).ok()).into_iter().flatten().flatten();
    let mut dirs: Vec<PathBuf> = registries.map(|entry| entry.path()).collect();
    dirs.sort();
    flags.extend(dirs.iter().map(|dir| remap(dir, "/crates")));
    flags
}

/// The object without `.debug_*`: the kernel takes BTF, and DWARF would be most of the kept bytes.
fn without_dwarf(bytes: &[u8]) -> Result<Vec<u8>> {
    let mut builder = elf::Builder::read(bytes).context("failed to read the built object")?;
    for section in &mut builder.sections {
        let name = section.name.as_slice();
        section.delete = name.starts_with(b".debug_") || name.starts_with(b".rel.debug_");
    }
    builder.delete_orphans();
    // LLVM keeps symbol names and section names in one table; the writer wants two.
    let names = builder.sections.add();
    names.name = b".shstrtab"[..].into();
    names.sh_type = SHT_STRTAB;
    names.sh_addralign = 1;
    names.data = elf::SectionData::SectionString;
    let mut out = Vec::new();
    builder.write(&mut out).context("failed to write the object without DWARF")?;
    Ok(out)
}
