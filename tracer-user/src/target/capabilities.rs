//! What this process may do.

use std::fs;

/// Effective capabilities, by their bit (include/uapi/linux/capability.h).
#[derive(Clone, Copy, Debug)]
pub struct Capabilities(u64);

impl Capabilities {
    /// Reads and searches whatever the permissions say.
    pub const DAC_READ_SEARCH: u32 = 2;
    /// Reads other processes' memory maps and memory.
    pub const SYS_PTRACE: u32 = 19;
    /// Attaches uprobes on every kernel.
    pub const SYS_ADMIN: u32 = 21;
    /// Opens perf events, and loads BPF programs that read memory.
    pub const PERFMON: u32 = 38;
    /// Loads BPF programs.
    pub const BPF: u32 = 39;

    /// This process's own; none where they cannot be read.
    pub fn own() -> Self {
        Self::parse(&fs::read_to_string("/proc/self/status").unwrap_or_default())
    }

    /// From the text of `/proc/PID/status`.
    pub fn parse(status: &str) -> Self {
        let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
        Self(line.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok()).unwrap_or(0))
    }

    /// Whether this one is among them.
    pub fn has(self, bit: u32) -> bool {
        self.0 >> bit & 1 == 1
    }

    /// The kernel takes CAP_SYS_ADMIN for both (bpf_capable(), perfmon_capable()).
    pub fn can_trace(self) -> bool {
        self.has(Self::SYS_ADMIN) || (self.has(Self::BPF) && self.has(Self::PERFMON))
    }

    /// The names of those of `wanted` that are missing.
    pub fn missing(self, wanted: &[(u32, &'static str)]) -> String {
        let names: Vec<&str> = wanted.iter().filter(|(bit, _)| !self.has(*bit)).map(|(_, name)| *name).collect();
        names.join(" and ")
    }
}
