//! Kernel versions, as `uname -r` writes them.

use std::fmt;

/// An upstream kernel version. What distributions put behind it (ABI number, flavour, back-ports) is not part of it.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct KernelVersion {
    /// `6` of `6.12.20`.
    pub major: u32,
    /// `12` of `6.12.20`.
    pub minor: u32,
    /// `20` of `6.12.20`. Ubuntu, RHEL and Debian before trixie write 0 there, whatever stable release they follow.
    pub patch: u32,
    /// `2` of `6.14.0-rc2`; a release comes after all of its candidates.
    candidate: u32,
}

impl KernelVersion {
    /// A release.
    pub const fn new(major: u32, minor: u32, patch: u32) -> Self {
        Self { major, minor, patch, candidate: u32::MAX }
    }

    /// A release candidate, `-rcN`.
    pub const fn candidate(major: u32, minor: u32, candidate: u32) -> Self {
        Self { major, minor, patch: 0, candidate }
    }

    /// Reads a release string: `6.12.20-amd64`, `6.11.0-21-generic`, `7.2-amd64`, `6.14.0-rc2`. None when it does not
    /// start with two numbers.
    pub fn parse(release: &str) -> Option<Self> {
        let end = release.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(release.len());
        let (numbers, suffix) = release.split_at(end);
        let mut numbers = numbers.split('.').map(str::parse::<u32>);
        let (major, minor) = (numbers.next()?.ok()?, numbers.next()?.ok()?);
        let patch = numbers.next().and_then(Result::ok).unwrap_or(0);
        let digits =
            suffix.strip_prefix("-rc").map(|rest| rest.split(|c: char| !c.is_ascii_digit()).next().unwrap_or(""));
        let candidate = digits.and_then(|digits| digits.parse().ok()).unwrap_or(u32::MAX);
        Some(Self { major, minor, patch, candidate })
    }
}

impl fmt::Display for KernelVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)?;
        if self.patch > 0 {
            write!(f, ".{}", self.patch)?;
        }
        if self.candidate == u32::MAX { Ok(()) } else { write!(f, "-rc{}", self.candidate) }
    }
}

/// `uname -r` of the running kernel.
pub fn running_release() -> String {
    // The file is there since 2.4 and holds the same string without unsafe code.
    std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distributions_release_strings_are_read() {
        let cases = [
            ("6.12.20-amd64", "6.12.20"),
            ("6.12.41+deb13-cloud-amd64", "6.12.41"),
            ("6.11.10+bpo-amd64", "6.11.10"),
            ("6.11.0-21-generic", "6.11"),
            ("6.1.0-28-cloud-amd64", "6.1"),
            ("5.14.0-503.11.1.el9_5.x86_64", "5.14"),
            ("7.2-amd64", "7.2"),
            ("6.14.0-rc2", "6.14-rc2"),
            ("6.14-rc1+deb14-amd64", "6.14-rc1"),
            ("6.6.87.2-microsoft-standard-WSL2", "6.6.87"),
        ];
        for (release, version) in cases {
            assert_eq!(KernelVersion::parse(release).map(|v| v.to_string()).as_deref(), Some(version), "{release}");
        }
    }

    #[test]
    fn what_is_no_version_is_none() {
        for release in ["", "6", "six.one", "99999999999.1", "-6.1"] {
            assert_eq!(KernelVersion::parse(release), None, "{release}");
        }
    }

    #[test]
    fn candidates_come_before_their_release() {
        let parse = |release| KernelVersion::parse(release).expect("a version");
        assert!(parse("6.14.0-rc1") < parse("6.14.0-rc2"));
        assert!(parse("6.14.0-rc7") < parse("6.14.0-15-generic"));
        assert!(parse("6.13.12") < parse("6.14.0-rc1"));
    }
}
