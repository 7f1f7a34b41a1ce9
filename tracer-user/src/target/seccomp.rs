//! May a return probe be attached to this process? On some kernels it would kill it.
//!
//! On x86-64, kernels from 6.11 return from a probed function through the system call `uretprobe` (commit ff474a78cef5,
//! "uprobe: Add uretprobe syscall to speed up return probe"). A seccomp filter that does not know it, as containers'
//! default ones, kills the process at its first return, or answers with an error and lets it crash, until the kernel
//! lets the call pass in filter and strict mode (commit cf6cb56ef244, "seccomp: passthrough uretprobe systemcall without
//! filtering").

use std::{fs, io};

use super::kernel::{KernelVersion, running_release};

/// First kernel that returns through the system call.
const AFFECTED_FROM: KernelVersion = KernelVersion::candidate(6, 11, 1);

/// First fixed version of each series: (series, fixed in). A series below 6.14 that is not here never got the fix:
/// 6.11.y ended with 6.11.11, two months before it.
///
/// Sources: 6.12.14 (stable review of 2025-02-13, patch 189/422), 6.13.3 (announcement of 2025-02-17), mainline pull
/// "seccomp fixes for v6.14-rc2".
const FIXED_IN: [(KernelVersion, KernelVersion); 2] = [
    (KernelVersion::new(6, 12, 0), KernelVersion::new(6, 12, 14)),
    (KernelVersion::new(6, 13, 0), KernelVersion::new(6, 13, 3)),
];

/// Mainline has the fix from here on.
const FIXED_FROM: KernelVersion = KernelVersion::candidate(6, 14, 2);

/// The versions with the fix, for messages.
pub const FIX_TEXT: &str = "fixed in 6.12.14, 6.13.3 and 6.14";

/// Whether a return probe leaves the process alive.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum ReturnProbes {
    /// It does.
    Safe,
    /// It does not, or nobody can tell: never attach one.
    Killed {
        /// One sentence for the user.
        reason: String,
    },
}

/// Instruction set of the running kernel, as far as return probes differ.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Arch {
    /// Returns through a system call from 6.11.
    X86_64,
    /// Returns through a breakpoint, on every kernel.
    Other,
}

/// The architecture that this was compiled for.
pub const HOST_ARCH: Arch = if cfg!(target_arch = "x86_64") { Arch::X86_64 } else { Arch::Other };

/// Decides for a process from `uname -r` and each thread's id and `/proc/PID/task/TID/status`.
///
/// Every thread counts: filters are a thread's own unless it was installed with `SECCOMP_FILTER_FLAG_TSYNC`. A process
/// that installs its filter later is not seen here.
pub fn decide<'a>(arch: Arch, release: &str, threads: impl IntoIterator<Item = (u32, &'a str)>) -> ReturnProbes {
    let Some(kernel) = affected(arch, release) else {
        return ReturnProbes::Safe;
    };
    for (tid, status) in threads {
        let how = match mode(status) {
            Some(0) => continue,
            Some(1) => "is in strict seccomp mode",
            Some(2) => "has a seccomp filter",
            _ => "has a seccomp state that cannot be read",
        };
        let reason = format!(
            "thread {tid} {how}, and kernel {kernel} kills such a process at the first return probe ({FIX_TEXT})"
        );
        return ReturnProbes::Killed { reason };
    }
    ReturnProbes::Safe
}

/// [`decide`] for a running process on this kernel.
pub fn read(pid: u32) -> io::Result<ReturnProbes> {
    let mut statuses = Vec::new();
    for entry in fs::read_dir(format!("/proc/{pid}/task"))? {
        let entry = entry?;
        let Some(tid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        match fs::read_to_string(entry.path().join("status")) {
            Ok(status) => statuses.push((tid, status)),
            // A thread that ended in between can no longer be harmed.
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) || error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(decide(HOST_ARCH, &running_release(), statuses.iter().map(|(tid, status)| (*tid, status.as_str()))))
}

/// The kernel's version if return probes kill filtered processes there. A release that cannot be read counts as
/// affected: refuse rather than risk.
pub fn affected(arch: Arch, release: &str) -> Option<String> {
    if arch != Arch::X86_64 {
        return None;
    }
    let Some(version) = KernelVersion::parse(release) else {
        return Some(format!("`{}` (not a version)", release.escape_default()));
    };
    // Distributions that write patch level 0 (Ubuntu's 6.11.0-21-generic, RHEL's 6.12.0-55.el10) may carry the fix
    // unseen: they are taken as not fixed.
    let is_backported = FIXED_IN
        .iter()
        .any(|(series, fixed)| (series.major, series.minor) == (version.major, version.minor) && version >= *fixed);
    (version >= AFFECTED_FROM && version < FIXED_FROM && !is_backported).then(|| version.to_string())
}

/// The number of the line `Seccomp:` (0 none, 1 strict, 2 filter); a kernel without seccomp has no such line.
fn mode(status: &str) -> Option<u32> {
    match status.lines().find_map(|line| line.strip_prefix("Seccomp:")) {
        Some(number) => number.trim().parse().ok(),
        None if status.is_empty() => None,
        None => Some(0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONE: &str = "Name:\tsrv\nNoNewPrivs:\t0\nSeccomp:\t0\nSeccomp_filters:\t0\n";
    const STRICT: &str = "Name:\tsrv\nNoNewPrivs:\t0\nSeccomp:\t1\nSeccomp_filters:\t0\n";
    const FILTER: &str = "Name:\tsrv\nNoNewPrivs:\t1\nSeccomp:\t2\nSeccomp_filters:\t1\n";

    fn is_safe(release: &str, status: &str) -> bool {
        decide(Arch::X86_64, release, [(1, status)]) == ReturnProbes::Safe
    }

    #[test]
    fn a_filtered_process_is_refused_exactly_on_affected_kernels() {
        let table = [
            ("6.1.0-28-amd64", true),
            ("6.10.11-amd64", true),
            ("6.10.0-rc7", true),
            ("6.11.0-rc1", false),
            ("6.11.0-21-generic", false),
            ("6.11.11-amd64", false),
            ("6.12.0-55.9.1.el10_0.x86_64", false),
            ("6.12.9+bpo-amd64", false),
            ("6.12.13-1-lts", false),
            ("6.12.14-amd64", true),
            ("6.12.20-amd64", true),
            ("6.12.41+deb13-amd64", true),
            ("6.13.0-1-default", false),
            ("6.13.2-arch1-1", false),
            ("6.13.3-arch1-1", true),
            ("6.13.12-200.fc41.x86_64", true),
            ("6.14.0-rc1", false),
            ("6.14.0-rc2", true),
            ("6.14.0-15-generic", true),
            ("6.18.44-cloud-amd64", true),
            ("7.0.0", true),
        ];
        for (release, safe) in table {
            assert_eq!(is_safe(release, FILTER), safe, "{release} with a filter");
            assert_eq!(is_safe(release, STRICT), safe, "{release} in strict mode");
            assert!(is_safe(release, NONE), "{release} without seccomp");
        }
    }

    #[test]
    fn other_architectures_return_through_a_breakpoint() {
        assert_eq!(decide(Arch::Other, "6.12.1", [(1, FILTER)]), ReturnProbes::Safe);
    }

    #[test]
    fn one_filtered_thread_is_enough_and_is_named() {
        let threads = [(41, NONE), (42, FILTER), (43, NONE)];
        let ReturnProbes::Killed { reason } = decide(Arch::X86_64, "6.12.1-amd64", threads) else {
            panic!("thread 42 would be killed");
        };
        assert!(reason.starts_with("thread 42 has a seccomp filter, and kernel 6.12.1 kills"), "{reason}");
        assert!(reason.contains("6.12.14"), "{reason}");
    }

    #[test]
    fn what_cannot_be_read_is_refused() {
        assert!(!is_safe("6.12.1", ""), "no status");
        assert!(!is_safe("6.12.1", "Seccomp:\tx\n"), "no number");
        assert!(!is_safe("mystery", FILTER), "no version");
        assert!(is_safe("6.12.1", "Name:\tsrv\n"), "a kernel built without seccomp");
    }

    #[test]
    fn this_process_can_be_read() {
        read(std::process::id()).expect("/proc is mounted");
    }
}
