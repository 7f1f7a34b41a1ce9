//! What this host offers for tracing: the checks of `memtrace-bpf doctor`. Facts are read as strings, judged by pure
//! functions, and rendered; only [`HostFacts::read`] opens files.

use std::{fmt::Write as _, fs};

use super::{
    capabilities::Capabilities,
    kernel::{KernelVersion, running_release},
    seccomp::{self, Arch},
};

/// The oldest kernel that the BPF programs load on: `bpf_loop` (5.17). Attach cookies came with 5.15.
pub const OLDEST_KERNEL: KernelVersion = KernelVersion::new(5, 17, 0);

/// How a check ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Level {
    /// As wanted.
    Ok,
    /// Works with a restriction.
    Warn,
    /// Tracing is impossible.
    Fail,
}

/// One line of the doctor's report.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Check {
    /// How it ended.
    pub level: Level,
    /// What was looked at, in a word or two.
    pub what: &'static str,
    /// What was found.
    pub value: String,
    /// What the user can do; empty when there is nothing to do.
    pub remedy: String,
}

/// The host's answers, as it gave them. `None`: the file is not there or cannot be read.
#[derive(Clone, Debug)]
pub struct HostFacts {
    /// Architecture of the kernel.
    pub arch: Arch,
    /// `uname -r`.
    pub release: String,
    /// `/sys/bus/event_source/devices/uprobe/type`: the perf unit that uprobes are attached through.
    pub uprobe_pmu_type: Option<String>,
    /// Whether `/sys/kernel/btf/vmlinux` is there.
    pub has_btf: bool,
    /// `/proc/sys/net/core/bpf_jit_enable`.
    pub bpf_jit_enable: Option<String>,
    /// `/proc/self/status`.
    pub own_status: String,
    /// `/sys/kernel/security/lockdown`; not there on kernels without it.
    pub lockdown: Option<String>,
    /// `/proc/sys/kernel/perf_event_paranoid`.
    pub perf_event_paranoid: Option<String>,
    /// `/proc/sys/kernel/unprivileged_bpf_disabled`.
    pub unprivileged_bpf_disabled: Option<String>,
    /// Where `/proc/self/ns/pid` points, `pid:[4026531836]` outside of containers.
    pub pid_namespace: Option<String>,
}

impl HostFacts {
    /// Asks this host.
    pub fn read() -> Self {
        let text = |path: &str| fs::read_to_string(path).ok();
        Self {
            arch: seccomp::HOST_ARCH,
            release: running_release(),
            uprobe_pmu_type: text("/sys/bus/event_source/devices/uprobe/type"),
            has_btf: fs::metadata("/sys/kernel/btf/vmlinux").is_ok(),
            bpf_jit_enable: text("/proc/sys/net/core/bpf_jit_enable"),
            own_status: text("/proc/self/status").unwrap_or_default(),
            lockdown: text("/sys/kernel/security/lockdown"),
            perf_event_paranoid: text("/proc/sys/kernel/perf_event_paranoid"),
            unprivileged_bpf_disabled: text("/proc/sys/kernel/unprivileged_bpf_disabled"),
            pid_namespace: fs::read_link("/proc/self/ns/pid").ok().map(|link| link.to_string_lossy().into_owned()),
        }
    }
}

/// Every check, in the order in which they stand in each other's way.
pub fn checks(facts: &HostFacts) -> Vec<Check> {
    let caps = Capabilities::parse(&facts.own_status);
    vec![
        kernel(facts),
        uprobes(facts),
        btf(facts),
        jit(facts),
        capabilities_to_trace(caps),
        capabilities_to_attach(caps),
        capabilities_to_read(caps),
        lockdown(facts),
        perf_event_paranoid(facts, caps),
        unprivileged_bpf(facts, caps),
        pid_namespace(facts),
        return_probes(facts),
    ]
}

/// Whether nothing essential is missing: the doctor's exit status.
pub fn is_usable(checks: &[Check]) -> bool {
    checks.iter().all(|check| check.level != Level::Fail)
}

/// The essential checks that failed, as one line for an error message; None if there is none.
pub fn refusal(checks: &[Check]) -> Option<String> {
    let failed = checks.iter().filter(|check| check.level == Level::Fail);
    let reasons: Vec<String> =
        failed.map(|check| format!("{}: {} ({})", check.what, check.value, check.remedy)).collect();
    (!reasons.is_empty()).then(|| reasons.join("; "))
}

/// One line a check: level, what, value, remedy.
pub fn render(checks: &[Check]) -> String {
    let width = |of: fn(&Check) -> &str| checks.iter().map(|check| of(check).chars().count()).max().unwrap_or(0);
    let (what_width, value_width) = (width(|check| check.what), width(|check| &check.value));
    let mut out = String::new();
    for check in checks {
        let level = match check.level {
            Level::Ok => "ok",
            Level::Warn => "warn",
            Level::Fail => "fail",
        };
        let Check { what, value, remedy, .. } = check;
        let line = format!("{level:<4}  {what:<what_width$}  {value:<value_width$}  {remedy}");
        writeln!(out, "{}", line.trim_end()).expect("a String takes everything");
    }
    out
}

fn check(level: Level, what: &'static str, value: impl Into<String>, remedy: &str) -> Check {
    let remedy = if level == Level::Ok { String::new() } else { remedy.to_owned() };
    // Everything here ends up on a terminal.
    let value = value.into().trim().replace(char::is_control, "?");
    Check { level, what, value, remedy }
}

fn kernel(facts: &HostFacts) -> Check {
    let remedy = format!("needs Linux {OLDEST_KERNEL} or later: bpf_loop (5.17), attach cookies (5.15)");
    let level = match KernelVersion::parse(&facts.release) {
        Some(version) if version >= OLDEST_KERNEL => Level::Ok,
        Some(_) => Level::Fail,
        None => Level::Warn,
    };
    check(level, "kernel", &facts.release, &remedy)
}

fn uprobes(facts: &HostFacts) -> Check {
    match &facts.uprobe_pmu_type {
        Some(number) => check(Level::Ok, "uprobes", format!("perf event type {}", number.trim()), ""),
        None => {
            check(Level::Fail, "uprobes", "not offered", "needs a kernel with CONFIG_UPROBE_EVENTS=y, and /sys mounted")
        }
    }
}

fn btf(facts: &HostFacts) -> Check {
    let (level, value) = if facts.has_btf { (Level::Ok, "yes") } else { (Level::Warn, "no") };
    check(level, "kernel BTF", value, "a kernel with CONFIG_DEBUG_INFO_BTF=y: BPF diagnostics stay without names")
}

fn jit(facts: &HostFacts) -> Check {
    match facts.bpf_jit_enable.as_deref().map(str::trim) {
        Some("1" | "2") => check(Level::Ok, "BPF JIT", "on", ""),
        Some("0") => {
            check(Level::Warn, "BPF JIT", "off", "sysctl net.core.bpf_jit_enable=1: probes are several times slower")
        }
        _ => {
            check(Level::Warn, "BPF JIT", "unknown", "needs CONFIG_BPF_JIT=y: without, probes are several times slower")
        }
    }
}

fn capabilities_to_trace(caps: Capabilities) -> Check {
    const WANTED: [(u32, &str); 2] = [(Capabilities::BPF, "CAP_BPF"), (Capabilities::PERFMON, "CAP_PERFMON")];
    if caps.can_trace() {
        return check(Level::Ok, "may trace", "yes", "");
    }
    let missing = format!("no {}", caps.missing(&WANTED));
    check(Level::Fail, "may trace", missing, "needs CAP_BPF and CAP_PERFMON; try sudo")
}

fn capabilities_to_attach(caps: Capabilities) -> Check {
    if caps.has(Capabilities::SYS_ADMIN) {
        return check(Level::Ok, "may attach anywhere", "yes", "");
    }
    let remedy = "on most kernels since July 2025 --pid and run then need a tracefs that may be written (CAP_DAC_OVERRIDE), and other scopes \
                  CAP_SYS_ADMIN";
    check(Level::Warn, "may attach anywhere", "no CAP_SYS_ADMIN", remedy)
}

fn capabilities_to_read(caps: Capabilities) -> Check {
    const WANTED: [(u32, &str); 2] =
        [(Capabilities::SYS_PTRACE, "CAP_SYS_PTRACE"), (Capabilities::DAC_READ_SEARCH, "CAP_DAC_READ_SEARCH")];
    let missing = caps.missing(&WANTED);
    if missing.is_empty() {
        return check(Level::Ok, "may read targets", "yes", "");
    }
    let value = format!("no {missing}");
    check(Level::Warn, "may read targets", value, "only own processes and readable files can be traced; try sudo")
}

fn lockdown(facts: &HostFacts) -> Check {
    let text = facts.lockdown.as_deref().unwrap_or("[none]");
    let mode = text.split_once('[').and_then(|(_, rest)| rest.split_once(']')).map_or("unknown", |(mode, _)| mode);
    let level = if matches!(mode, "none" | "integrity") { Level::Ok } else { Level::Warn };
    check(level, "lockdown", mode, "BPF may read no kernel memory: boot with lockdown=integrity if loading fails")
}

fn perf_event_paranoid(facts: &HostFacts, caps: Capabilities) -> Check {
    let value = facts.perf_event_paranoid.as_deref().unwrap_or("unknown");
    let level = if caps.can_trace() { Level::Ok } else { Level::Warn };
    check(level, "perf_event_paranoid", value, "in force without CAP_PERFMON")
}

fn unprivileged_bpf(facts: &HostFacts, caps: Capabilities) -> Check {
    let value = facts.unprivileged_bpf_disabled.as_deref().unwrap_or("unknown");
    let level = if caps.can_trace() { Level::Ok } else { Level::Warn };
    check(level, "unprivileged_bpf_disabled", value, "in force without CAP_BPF")
}

fn pid_namespace(facts: &HostFacts) -> Check {
    // PROC_PID_INIT_INO, include/linux/proc_ns.h: the same on every kernel.
    let (level, value) = match facts.pid_namespace.as_deref() {
        Some("pid:[4026531836]") => (Level::Ok, "the host's"),
        Some(_) => (Level::Warn, "a container's"),
        None => (Level::Warn, "unknown"),
    };
    check(level, "pid namespace", value, "BPF sees the host's pids: run on the host, or the container with --pid=host")
}

fn return_probes(facts: &HostFacts) -> Check {
    if seccomp::affected(facts.arch, &facts.release).is_none() {
        return check(Level::Ok, "return probes", "pass seccomp filters", "");
    }
    let remedy = format!("targets with a seccomp filter are refused; the kernel's fault is {}", seccomp::FIX_TEXT);
    check(Level::Warn, "return probes", "kill filtered targets", &remedy)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> HostFacts {
        HostFacts {
            arch: Arch::X86_64,
            release: "6.18.15+deb13-cloud-amd64".to_owned(),
            uprobe_pmu_type: Some("8\n".to_owned()),
            has_btf: true,
            bpf_jit_enable: Some("1\n".to_owned()),
            own_status: "Name:\tdoctor\nCapEff:\t000001ffffffffff\n".to_owned(),
            lockdown: Some("none [integrity] confidentiality\n".to_owned()),
            perf_event_paranoid: Some("2\n".to_owned()),
            unprivileged_bpf_disabled: Some("2\n".to_owned()),
            pid_namespace: Some("pid:[4026531836]".to_owned()),
        }
    }

    fn found(facts: &HostFacts, what: &str) -> Check {
        checks(facts).into_iter().find(|check| check.what == what).expect("such a check")
    }

    #[test]
    fn a_good_host_is_all_ok() {
        let text = "\
ok    kernel                     6.18.15+deb13-cloud-amd64
ok    uprobes                    perf event type 8
ok    kernel BTF                 yes
ok    BPF JIT                    on
ok    may trace                  yes
ok    may attach anywhere        yes
ok    may read targets           yes
ok    lockdown                   integrity
ok    perf_event_paranoid        2
ok    unprivileged_bpf_disabled  2
ok    pid namespace              the host's
ok    return probes              pass seccomp filters
";
        assert_eq!(render(&checks(&good())), text);
        assert_eq!(refusal(&checks(&good())), None);
    }

    #[test]
    fn an_old_kernel_is_refused_with_the_reason() {
        let old = HostFacts { release: "5.10.0-35-cloud-amd64".to_owned(), ..good() };
        assert!(!is_usable(&checks(&old)));
        let reason = refusal(&checks(&old)).expect("refused");
        assert_eq!(
            reason,
            "kernel: 5.10.0-35-cloud-amd64 (needs Linux 5.17 or later: bpf_loop (5.17), attach cookies (5.15))"
        );
    }

    #[test]
    fn a_user_without_capabilities_is_told_which() {
        let user = HostFacts { own_status: "CapEff:\t0000000000000000\n".to_owned(), ..good() };
        let tracing = found(&user, "may trace");
        assert_eq!((tracing.level, tracing.value.as_str()), (Level::Fail, "no CAP_BPF and CAP_PERFMON"));
        assert_eq!(found(&user, "may attach anywhere").level, Level::Warn);
        assert_eq!(found(&user, "may read targets").level, Level::Warn);
        assert_eq!(found(&user, "perf_event_paranoid").level, Level::Warn);
    }

    #[test]
    fn capabilities_by_their_own_name_or_by_sys_admin_are_enough() {
        let with = |bits: &[u32]| {
            let mask = bits.iter().fold(0u64, |mask, bit| mask | 1 << bit);
            HostFacts { own_status: format!("CapEff:\t{mask:016x}\n"), ..good() }
        };
        assert!(is_usable(&checks(&with(&[Capabilities::BPF, Capabilities::PERFMON]))));
        assert!(is_usable(&checks(&with(&[Capabilities::SYS_ADMIN]))));
        let half = found(&with(&[Capabilities::BPF]), "may trace");
        assert_eq!((half.level, half.value.as_str()), (Level::Fail, "no CAP_PERFMON"));
    }

    #[test]
    fn what_the_kernel_lacks_is_named() {
        let bare = HostFacts {
            uprobe_pmu_type: None,
            has_btf: false,
            bpf_jit_enable: Some("0\n".to_owned()),
            lockdown: Some("none integrity [confidentiality]\n".to_owned()),
            pid_namespace: Some("pid:[4026532201]".to_owned()),
            release: "6.11.0-21-generic".to_owned(),
            ..good()
        };
        let level = |what| found(&bare, what).level;
        assert_eq!(level("uprobes"), Level::Fail);
        for what in ["kernel BTF", "BPF JIT", "lockdown", "pid namespace", "return probes"] {
            assert_eq!(level(what), Level::Warn, "{what}");
            assert!(!found(&bare, what).remedy.is_empty(), "{what} has a remedy");
        }
    }

    #[test]
    fn a_kernel_without_lockdown_is_not_locked_down() {
        assert_eq!(found(&HostFacts { lockdown: None, ..good() }, "lockdown").value, "none");
    }

    #[test]
    fn control_characters_do_not_reach_the_terminal() {
        let odd = HostFacts { release: "6.18.1-\u{1b}[31mred".to_owned(), ..good() };
        assert!(!render(&checks(&odd)).contains('\u{1b}'));
    }
}
