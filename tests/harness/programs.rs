//! Test programs: where their sources lie, how they are built, and where the tracer's binary is.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
    sync::{Mutex, OnceLock, PoisonError},
};

use anyhow::{Context as _, Result, bail, ensure};

use crate::guard::{Guard, piped};

/// No frame pointers, as distributions build; every call that is written is made.
const C_FLAGS: [&str; 5] = ["-O2", "-g", "-fomit-frame-pointer", "-fno-builtin", "-Wall"];

/// The root of the checkout.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the package lies in the workspace")
}

/// Where everything that is built or fetched goes.
pub fn target_dir() -> PathBuf {
    env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), |dir| root().join(dir))
}

/// The tracer: `$MEMTRACE_BPF` (as `cargo xtask test` sets it), else built once from this checkout.
pub fn tracer() -> Result<&'static Path> {
    static TRACER: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let tracer = TRACER.get_or_init(|| match env::var_os("MEMTRACE_BPF") {
        Some(path) => Ok(PathBuf::from(path)),
        None => build_tracer().map_err(|error| format!("{error:#}")),
    });
    tracer.as_deref().map_err(|reason| anyhow::anyhow!("no memtrace-bpf to test: {reason}"))
}

/// Copies a program that is executed next. By a process of its own: while another thread forks, the child would hold a descriptor
/// of ours that is open for writing, and executing the copy fails with "text file busy".
pub fn copy_program(from: &Path, to: &Path) -> Result<()> {
    let mut copy = Command::new("cp");
    let output = piped(copy.arg("--").args([from, to])).output().context("failed to run cp")?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

fn build_tracer() -> Result<PathBuf> {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut build = Command::new(cargo);
    build.args(["build", "--quiet", "--package", "tracer-user", "--bin", "memtrace-bpf"]).current_dir(root());
    let status = build.status().context("failed to run cargo")?;
    ensure!(status.success(), "cargo build failed ({status})");
    Ok(target_dir().join("debug/memtrace-bpf"))
}

/// A source in `tests/programs` and how it is compiled.
#[derive(Clone, Debug)]
pub struct Program {
    source: PathBuf,
    name: String,
    compiler: String,
    flags: Vec<String>,
    /// For the compiler.
    env: Vec<(String, PathBuf)>,
    /// A Rust program without shared libraries.
    is_static: bool,
}

impl Program {
    /// `tests/programs/c/<name>.c`.
    pub fn c(name: &str) -> Self {
        Self::new(&format!("c/{name}.c"), name, "gcc")
    }

    /// `tests/programs/cpp/<name>.cpp`.
    pub fn cpp(name: &str) -> Self {
        Self::new(&format!("cpp/{name}.cpp"), &format!("{name}-cpp"), "g++")
    }

    /// `tests/programs/rust/src/bin/<name>.rs`, static, with one of its package's features. Linked with musl where the compiler
    /// has it, else with glibc.
    pub fn rust(name: &str, feature: &str) -> Self {
        let program = Self::new(&format!("rust/src/bin/{name}.rs"), &format!("rust-{feature}"), "cargo");
        Self { flags: vec![feature.to_owned()], ..program }
    }

    /// `tests/programs/go/<name>.go`.
    pub fn go(name: &str) -> Self {
        Self { flags: Vec::new(), ..Self::new(&format!("go/{name}.go"), &format!("{name}-go"), "go") }
    }

    fn new(source: &str, name: &str, compiler: &str) -> Self {
        Self {
            source: root().join("tests/programs").join(source),
            name: name.to_owned(),
            compiler: compiler.to_owned(),
            flags: C_FLAGS.map(str::to_owned).to_vec(),
            env: Vec::new(),
            is_static: true,
        }
    }

    /// The same source built another way: `name` tells the results apart.
    #[must_use]
    pub fn variant(mut self, name: &str, flags: &[&str]) -> Self {
        self.name = format!("{}-{name}", self.name);
        self.flags.extend(flags.iter().map(|&flag| flag.to_owned()));
        self
    }

    /// A shared library `lib<name>.so`.
    #[must_use]
    pub fn library(mut self) -> Self {
        self.name = format!("lib{}.so", self.name);
        self.flags.extend(["-shared", "-fPIC"].map(str::to_owned));
        self
    }

    /// With another compiler driver.
    #[must_use]
    pub fn compiler(mut self, compiler: &str) -> Self {
        self.name = format!("{}-{compiler}", self.name);
        compiler.clone_into(&mut self.compiler);
        self
    }

    /// A Rust program with glibc and what else it needs as shared libraries.
    #[must_use]
    pub fn dynamic(mut self) -> Self {
        self.is_static = false;
        self
    }

    /// With a file that a variable of the build's environment names.
    #[must_use]
    pub fn built_with(mut self, variable: &str, file: &Path) -> Self {
        self.env.push((variable.to_owned(), file.to_owned()));
        self
    }

    /// The source file.
    pub fn source(&self) -> &Path {
        &self.source
    }

    /// Builds it, if what is built is not newer than the source; its path.
    pub fn build(&self) -> Result<PathBuf> {
        static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
        let _lock = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        let dir = target_dir().join("test-programs");
        fs::create_dir_all(&dir)?;
        let built = dir.join(&self.name);
        let how = format!("{} {}", self.compiler, self.flags.join(" "));
        let note = dir.join(format!("{}.how", self.name));
        if is_newer(&built, &self.source) && fs::read_to_string(&note).is_ok_and(|before| before == how) {
            return Ok(built);
        }
        let mut compile = match self.compiler.as_str() {
            "cargo" => return self.build_with_cargo(&dir),
            "go" => self.go_build(&built, &dir),
            _ => self.compile(&built),
        };
        let output = Guard::spawn(piped(&mut compile))?.finish()?;
        if !output.status.success() {
            bail!("failed to build `{}` ({how}):\n{}", self.source.display(), output.stderr);
        }
        fs::write(note, how)?;
        Ok(built)
    }

    fn compile(&self, built: &Path) -> Command {
        let mut compile = Command::new(&self.compiler);
        // The flags come last: libraries go after the object that wants them.
        compile.arg(&self.source).arg("-o").arg(built).args(&self.flags);
        compile
    }

    fn go_build(&self, built: &Path, dir: &Path) -> Command {
        let mut build = Command::new("go");
        build.arg("build").args(&self.flags).arg("-o").arg(built).arg(&self.source);
        build.env("GOCACHE", dir.join("go-cache")).env("CGO_ENABLED", "1").env("GOTOOLCHAIN", "local");
        build
    }

    /// Cargo knows best whether there is something to do.
    fn build_with_cargo(&self, dir: &Path) -> Result<PathBuf> {
        const MUSL: &str = "x86_64-unknown-linux-musl";
        const GLIBC: &str = "x86_64-unknown-linux-gnu";
        let sysroot = Command::new("rustc").args(["--print", "sysroot"]).output().context("failed to run rustc")?;
        let sysroot = String::from_utf8(sysroot.stdout)?;
        let has_musl = Path::new(sysroot.trim()).join("lib/rustlib").join(MUSL).exists();
        let target = if has_musl && self.is_static { MUSL } else { GLIBC };
        let target_dir = dir.join(&self.name);
        let mut build = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        build.args(["build", "--locked", "--release", "--target", target, "--features"]).args(&self.flags);
        build.current_dir(root().join("tests/programs/rust")).env("CARGO_TARGET_DIR", &target_dir);
        if self.is_static {
            build.env("RUSTFLAGS", "-C target-feature=+crt-static");
        }
        build.envs(self.env.iter().map(|(variable, file)| (variable, file)));
        let output = piped(&mut build).output().context("failed to run cargo")?;
        ensure!(output.status.success(), "failed to build {}: {}", self.name, String::from_utf8_lossy(&output.stderr));
        let program = self.source.file_stem().context("a source has a name")?;
        Ok(target_dir.join(target).join("release").join(program))
    }
}

fn is_newer(built: &Path, source: &Path) -> bool {
    let time = |path: &Path| fs::metadata(path).and_then(|metadata| metadata.modified());
    matches!((time(built), time(source)), (Ok(built), Ok(source)) if built > source)
}
