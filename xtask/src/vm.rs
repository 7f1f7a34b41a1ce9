//! `cargo xtask test vm [KERNEL…]`: the checks of `tests/vm/checks.toml` on the kernels of `tests/vm/kernels.toml`, in
//! QEMU. Kernels and QEMU are unpacked into `target/vm`, never installed, and kept across runs.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;

use crate::{
    debs::{Suite, unpack, unpack_system_packages},
    exec::{cargo, clean, root, run, say, target_dir, which},
    initrd::Initrd,
    vm_log::{Outcome, judge},
};

/// Ends a machine that hangs; the slowest (a verifier under emulation) stays well below.
const TIMEOUT: Duration = Duration::from_mins(4);

#[derive(Deserialize)]
struct Kernels {
    kernel: Vec<Kernel>,
}

/// One row of `kernels.toml`.
#[derive(Clone, Debug, Deserialize)]
struct Kernel {
    name: String,
    suite: String,
    package: String,
    expect: Expect,
}

/// What a kernel is expected to do.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Expect {
    /// Everything works.
    Run,
    /// The tracer refuses, with the reason.
    Refused,
}

/// `checks.toml`.
#[derive(Deserialize)]
pub struct Checks {
    /// C programs, compiled to `/t/<stem>`.
    programs: Vec<PathBuf>,
    check: Vec<Check>,
}

/// One command and what it must show.
#[derive(Clone, Debug, Deserialize)]
pub struct Check {
    /// What it shows.
    pub name: String,
    /// On which kernels; every one if absent.
    pub on: Option<Expect>,
    /// For busybox's sh.
    pub command: String,
    /// Wanted exit status.
    pub exit: i32,
    /// Wanted strings in its output.
    #[serde(default)]
    pub has: Vec<String>,
    /// Whether the report's totals must equal what the program states.
    #[serde(default)]
    pub truth: bool,
}

/// Which kernels.
pub enum Selection {
    /// The oldest and the newest that must run, and the refused ones.
    Ends,
    /// Every row.
    All,
    /// By name.
    Named(Vec<String>),
}

/// Boots the kernels one after the other; fails when one does.
pub fn main(selection: &Selection) -> Result<()> {
    let dir = target_dir().join("vm");
    let checks: Checks = read_toml(&root().join("tests/vm/checks.toml"))?;
    let kernels = select(read_toml::<Kernels>(&root().join("tests/vm/kernels.toml"))?.kernel, selection)?;
    fetch_tools(&dir)?;
    let programs = build_programs(&checks, &dir)?;
    let mut failed = Vec::new();
    for kernel in &kernels {
        let started = Instant::now();
        let outcome = test_kernel(kernel, &checks, &programs, &dir);
        let seconds = started.elapsed().as_secs_f64();
        match outcome {
            Ok((release, n_checks)) => println!("PASS {} ({release}) {n_checks} checks, {seconds:.1} s", kernel.name),
            Err(error) => {
                println!("FAIL {} {error:#}, {seconds:.1} s", kernel.name);
                failed.push(kernel.name.clone());
            }
        }
    }
    if failed.is_empty() { Ok(()) } else { bail!("failed on {}", failed.join(", ")) }
}

/// Fetches QEMU, busybox and every kernel: what `setup` does ahead of the tests.
pub fn fetch_all() -> Result<()> {
    let dir = target_dir().join("vm");
    fetch_tools(&dir)?;
    for kernel in read_toml::<Kernels>(&root().join("tests/vm/kernels.toml"))?.kernel {
        if let Err(error) = fetch_kernel(&kernel, &dir) {
            say(format!("kernel {}: {error:#} (`test vm` will fail there)", kernel.name));
        }
    }
    Ok(())
}

fn select(kernels: Vec<Kernel>, selection: &Selection) -> Result<Vec<Kernel>> {
    match selection {
        Selection::All => Ok(kernels),
        Selection::Named(names) => {
            let find = |name: &String| {
                let known = || kernels.iter().map(|kernel| kernel.name.as_str()).collect::<Vec<_>>().join(", ");
                let found = kernels.iter().find(|kernel| kernel.name == *name).cloned();
                found.with_context(|| format!("no kernel `{name}` in tests/vm/kernels.toml, which has {}", known()))
            };
            names.iter().map(find).collect()
        }
        Selection::Ends => {
            let runs: Vec<usize> = (0..kernels.len()).filter(|&i| kernels[i].expect == Expect::Run).collect();
            let ends = [runs.first().copied(), runs.last().copied()];
            let is_wanted = |&i: &usize| kernels[i].expect == Expect::Refused || ends.contains(&Some(i));
            Ok((0..kernels.len()).filter(is_wanted).map(|i| kernels[i].clone()).collect())
        }
    }
}

/// Boots one kernel and judges its log; the kernel's release and the number of checks passed.
fn test_kernel(kernel: &Kernel, checks: &Checks, programs: &[PathBuf], dir: &Path) -> Result<(String, usize)> {
    let image = fetch_kernel(kernel, dir)?;
    let wanted: Vec<Check> =
        checks.check.iter().filter(|c| c.on.is_none_or(|on| on == kernel.expect)).cloned().collect();
    let initrd = dir.join(format!("{}.cpio", kernel.name));
    fs::write(&initrd, make_initrd(&wanted, programs, dir)?)?;
    let log_path = dir.join(format!("{}.log", kernel.name));
    boot(dir, &image, &initrd, &log_path)?;
    fs::remove_file(&initrd)?;
    let log = fs::read(&log_path).with_context(|| format!("failed to read `{}`", log_path.display()))?;
    let Outcome { release, problems } = judge(&String::from_utf8_lossy(&log), &wanted);
    if problems.is_empty() {
        return Ok((release, wanted.len()));
    }
    bail!("({release}) {} (log: {})", problems.join("; "), log_path.display())
}

/// The kernel's image, from `target/vm/kernels` or from its package.
fn fetch_kernel(kernel: &Kernel, dir: &Path) -> Result<PathBuf> {
    let image = dir.join("kernels").join(&kernel.name);
    if image.is_file() {
        return Ok(image);
    }
    let suite = Suite::open(&kernel.suite, &dir.join("apt"))?;
    let package = suite.resolve(&kernel.package)?;
    say(format!("fetching kernel {}: {package}", kernel.name));
    let scratch = dir.join("unpack");
    fs::remove_dir_all(&scratch).ok();
    let deb = suite.download(&package, &scratch)?;
    unpack(&deb, &scratch.join("files"))?;
    let found = find_image(&scratch.join("files")).with_context(|| format!("`{package}` holds no vmlinuz"))?;
    fs::create_dir_all(dir.join("kernels"))?;
    fs::copy(&found, &image)?;
    fs::remove_dir_all(&scratch)?;
    Ok(image)
}

/// `boot/vmlinuz-*`, or since the split `usr/lib/modules/*/vmlinuz`.
fn find_image(files: &Path) -> Option<PathBuf> {
    let boot = fs::read_dir(files.join("boot")).into_iter().flatten().flatten().map(|entry| entry.path());
    let modules = fs::read_dir(files.join("usr/lib/modules")).into_iter().flatten().flatten();
    boot.filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("vmlinuz")))
        .chain(modules.map(|entry| entry.path().join("vmlinuz")))
        .find(|path| path.is_file())
}

/// Unpacks QEMU and busybox. QEMU is never installed: its packages would replace a newer qemu-utils.
fn fetch_tools(dir: &Path) -> Result<()> {
    let tools = dir.join("tools");
    if !(tools.join("usr/bin/qemu-system-x86_64").is_file() && busybox(dir).is_file()) {
        say("fetching qemu-system-x86 and busybox-static (unpacked, not installed)");
        unpack_system_packages(&["qemu-system-x86", "busybox-static"], &tools)?;
    }
    Ok(())
}

fn busybox(dir: &Path) -> PathBuf {
    let unpacked = dir.join("tools/bin/busybox");
    if unpacked.is_file() { unpacked } else { which("busybox").unwrap_or(unpacked) }
}

/// The tracer and the test programs; the programs keep no frame pointers, as distributions' do.
fn build_programs(checks: &Checks, dir: &Path) -> Result<Vec<PathBuf>> {
    run(cargo().args(["build", "--locked", "--release", "--package", "tracer-user"]))?;
    let mut built = vec![target_dir().join("release/memtrace-bpf")];
    fs::create_dir_all(dir.join("programs"))?;
    for source in &checks.programs {
        let stem = source.file_stem().with_context(|| format!("`{}` is no file", source.display()))?;
        let out = dir.join("programs").join(stem);
        run(clean("gcc").args(["-O2", "-g", "-fomit-frame-pointer", "-pthread", "-o"]).arg(&out).arg(source))?;
        built.push(out);
    }
    Ok(built)
}

fn make_initrd(checks: &[Check], programs: &[PathBuf], dir: &Path) -> Result<Vec<u8>> {
    let mut initrd = Initrd::default();
    for folder in ["dev", "proc", "sys", "t", "tmp"] {
        initrd.folder(folder);
    }
    initrd.copy(&busybox(dir), "bin/busybox")?;
    for program in programs {
        let name = program.file_name().expect("a built program has a name");
        let folder = if name == "memtrace-bpf" { "bin" } else { "t" };
        initrd.program(program, Path::new(folder).join(name))?;
    }
    initrd.file("init", 0o755, init_script(checks).into_bytes());
    Ok(initrd.to_cpio())
}

/// What the machine does: each check's output between marks on the console, which `judge` reads.
fn init_script(checks: &[Check]) -> String {
    let mut script = String::from(
        "#!/bin/busybox sh\n\
         /bin/busybox --install -s /bin\n\
         export PATH=/bin HOME=/tmp JSON=/tmp/report.json\n\
         mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev\n\
         mount -t debugfs d /sys/kernel/debug; mount -t tracefs t /sys/kernel/tracing\n\
         cd /tmp\n\
         echo \"@@release $(uname -r)\"\n",
    );
    for (index, check) in checks.iter().enumerate() {
        let command = &check.command;
        script.extend([
            // By way of a file: the console is a terminal, on which spinners would turn.
            &format!("rm -f $JSON; echo '@@begin {index}'\n( {command} ) </dev/null >/tmp/output 2>&1; rc=$?\n"),
            "cat /tmp/output; echo; echo \"@@exit $rc\"\n",
            "if [ -e $JSON ]; then echo '@@json'; cat $JSON; echo; fi; echo '@@end'\n",
        ]);
    }
    script + "echo '@@done'; poweroff -f\n"
}

fn boot(dir: &Path, image: &Path, initrd: &Path, log: &Path) -> Result<()> {
    let tools = dir.join("tools");
    let share = |name: &str| tools.join("usr/share").join(name);
    let libraries = [tools.join("usr/lib/x86_64-linux-gnu"), tools.join("lib/x86_64-linux-gnu")];
    let output = fs::File::create(log).with_context(|| format!("failed to create `{}`", log.display()))?;
    let mut qemu: Command = clean(tools.join("usr/bin/qemu-system-x86_64"));
    qemu.env("LD_LIBRARY_PATH", std::env::join_paths(libraries)?)
        .arg("-L")
        .arg(share("qemu"))
        .arg("-L")
        .arg(share("seabios"))
        // Software emulation: hosts that are themselves virtual boot no stock kernel under KVM.
        .args(["-M", "q35", "-accel", "tcg,thread=single", "-cpu", "max", "-smp", "1", "-m", "768"])
        .args(["-nodefaults", "-display", "none", "-no-reboot", "-serial", "stdio"])
        .args(["-append", "console=ttyS0 quiet panic=-1"])
        .arg("-kernel")
        .arg(image)
        .arg("-initrd")
        .arg(initrd)
        .stdin(Stdio::null())
        .stdout(output.try_clone()?)
        .stderr(output);
    let mut child = qemu.spawn().context("failed to start qemu-system-x86_64")?;
    let deadline = Instant::now() + TIMEOUT;
    while child.try_wait()?.is_none() {
        if Instant::now() > deadline {
            child.kill()?;
            child.wait()?;
            bail!("no power-off within {} s (log: {})", TIMEOUT.as_secs(), log.display());
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

fn read_toml<T: for<'a> Deserialize<'a>>(path: &Path) -> Result<T> {
    let text = fs::read_to_string(path).with_context(|| format!("failed to read `{}`", path.display()))?;
    toml::from_str(&text).with_context(|| format!("failed to parse `{}`", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_tables_parse_and_every_program_exists() {
        let checks: Checks = read_toml(&root().join("tests/vm/checks.toml")).expect("checks.toml is well-formed");
        assert!(checks.programs.iter().all(|program| root().join(program).is_file()));
        let kernels: Kernels = read_toml(&root().join("tests/vm/kernels.toml")).expect("kernels.toml is well-formed");
        let names = |selection| select(kernels.kernel.clone(), &selection).map(|found| found.len());
        assert_eq!(names(Selection::Ends).expect("has ends"), 3, "refused, oldest, newest");
        assert!(names(Selection::Named(vec!["1.0".into()])).is_err());
    }
}
