//! What it takes to trace another user's process: a few capabilities and nothing else, or a refusal that names what is missing.

use std::{
    fs,
    os::unix::{fs::PermissionsExt as _, process::CommandExt as _},
    process::Command,
};

use anyhow::{Result, ensure};
use memtrace_tests::{
    Figure, Guard, Output, Program, Report, check_balance, clean, copy_program, piped,
    process::{Target, Tracing, check_refusal},
    tracer,
};
use tempfile::TempDir;

/// Could not.
const FAILURE: i32 = 1;

/// Any user that is not root; of no group either.
const NOBODY: &str = "65534";

/// What loads and runs the programs, and reads other users' processes and files.
const TO_TRACE: &str = "+bpf,+perfmon,+sys_ptrace,+dac_read_search";

/// The tracer where any user may run it and write its report.
struct AsNobody {
    scratch: TempDir,
}

impl AsNobody {
    fn new() -> Result<Self> {
        let scratch = TempDir::new()?;
        fs::set_permissions(scratch.path(), fs::Permissions::from_mode(0o777))?;
        copy_program(tracer()?, &scratch.path().join("memtrace-bpf"))?;
        Ok(Self { scratch })
    }

    /// The tracer as that user with these capabilities alone, `+name` each; in a mount namespace of its own, with a tracefs in it if
    /// one is wanted.
    fn tracer(&self, capabilities: &str, tracefs: bool) -> Command {
        let mount = if tracefs { "mount -t tracefs none /sys/kernel/tracing" } else { ":" };
        let mut command = clean("unshare");
        command.args(["--mount", "sh", "-e", "-c", &format!("{mount}; exec \"$@\""), "sh", "setpriv"]);
        command.args(["--reuid", NOBODY, "--regid", NOBODY, "--clear-groups"]);
        for set in ["--bounding-set", "--inh-caps", "--ambient-caps"] {
            command.args([set, &format!("-all,{capabilities}")]);
        }
        command.arg(self.scratch.path().join("memtrace-bpf"));
        command
    }

    /// Runs it to its end.
    fn trace(&self, capabilities: &str, arguments: &[&str]) -> Result<Output> {
        Guard::spawn(piped(self.tracer(capabilities, false).args(arguments)))?.finish()
    }

    /// Traces a process of root's that makes 100 blocks of 123 B meanwhile.
    fn trace_steps(&self, capabilities: &str, tracefs: bool) -> Result<Report> {
        let mut target = steps()?;
        let json = self.scratch.path().join("report.json");
        let mut command = self.tracer(capabilities, tracefs);
        command.args(["--verbose", "--pid", &target.pid().to_string(), "--json"]).arg(&json);
        let tracing = Tracing::spawn(piped(&mut command))?;
        tracing.await_log("tracing pid")?;
        target.step("a")?;
        tracing.signal(libc::SIGINT)?;
        let output = tracing.finish()?;
        ensure!(output.status.success(), "ended with {}", output.status);
        let (_, ended) = target.end()?;
        ensure!(ended.status.success(), "the target ended with {}", ended.status);
        let report: Report = serde_json::from_str(&fs::read_to_string(&json)?)?;
        fs::remove_file(&json)?;
        Ok(report)
    }
}

fn steps() -> Result<Target> {
    Target::start::<&str>(&Program::c("steps").build()?, &[])
}

fn check_steps(report: &Report) -> Result<()> {
    check_balance(report)?;
    ensure!(report.totals.current() == Figure::new(12_300, 100), "{}", report.totals);
    let lines: Vec<String> = report.stats.iter().flat_map(|stat| stat.functions()).map(str::to_owned).collect();
    ensure!(lines.iter().any(|function| function == "make_a"), "{lines:?}");
    Ok(())
}

#[test]
fn without_capabilities_the_missing_ones_are_named() -> Result<()> {
    let nobody = AsNobody::new()?;
    let marker = nobody.scratch.path().join("started");
    let id: u32 = NOBODY.parse()?;
    let mut command = clean(nobody.scratch.path().join("memtrace-bpf"));
    command.args(["run", "--", "touch"]).arg(&marker).uid(id).gid(id);
    let output = Guard::spawn(piped(&mut command))?.finish()?;
    let line = check_refusal(&output, FAILURE)?;
    ensure!(["CAP_BPF", "CAP_PERFMON", "sudo"].iter().all(|word| line.contains(word)), "{line}");
    ensure!(!marker.exists(), "the program was started");
    Ok(())
}

#[test]
fn a_few_capabilities_are_enough_for_another_users_process() -> Result<()> {
    let nobody = AsNobody::new()?;
    check_steps(&nobody.trace_steps("+sys_admin,+sys_ptrace,+dac_read_search", false)?)?;
    // Where the kernel keeps uprobes for CAP_SYS_ADMIN, they are trace events, which take a tracefs that can be written.
    check_steps(&nobody.trace_steps(&format!("{TO_TRACE},+dac_override"), true)?)
}

/// Until Linux 6.16 and the stable kernels of July 2025, CAP_PERFMON may open a uprobe.
#[test]
fn without_sys_admin_it_is_exact_or_the_refusal_names_what_is_missing() -> Result<()> {
    let nobody = AsNobody::new()?;
    let target = steps()?;
    for scope in [["--pid", &target.pid().to_string()], ["--comm", "steps"]] {
        let output = nobody.trace(TO_TRACE, &[&scope, ["--duration", "1s"].as_slice()].concat())?;
        if output.status.success() {
            return check_steps(&nobody.trace_steps(TO_TRACE, false)?);
        }
        let line = check_refusal(&output, FAILURE)?;
        ensure!(line.contains("CAP_SYS_ADMIN"), "{scope:?}: {line}");
    }
    Ok(())
}

#[test]
fn files_that_may_not_be_read_are_not_called_free_of_allocators() -> Result<()> {
    let nobody = AsNobody::new()?;
    let target = steps()?;
    let output = nobody.trace("+sys_admin", &["--pid", &target.pid().to_string(), "--duration", "1s"])?;
    let line = check_refusal(&output, FAILURE)?;
    ensure!(
        ["no allocator found", "could not be opened", "CAP_SYS_PTRACE"].iter().all(|part| line.contains(part)),
        "{line}"
    );
    Ok(())
}
