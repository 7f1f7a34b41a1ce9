//! The borders between the modules, as ARCHITECTURE.md draws them: who may use which crate, and who may know whom.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// A crate, and the only place that may use it.
const OWNED_CRATES: [(&str, &str); 10] = [
    ("aya", "bpf/"),
    ("aya_log", "bpf/"),
    ("blazesym", "symbolize/"),
    ("clap", "cli/"),
    ("clap_complete", "cli/"),
    ("clap_mangen", "cli/"),
    ("quick_junit", "report/"),
    ("hyper", "scope/"),
    ("hyper_util", "scope/"),
    ("http_body_util", "scope/"),
];

/// A place, and the names that it must not use: everything stays addresses below `symbolize`, nothing above `snapshot`
/// knows BPF, and a report is a function of its snapshot.
const FORBIDDEN: [(&str, &[&str]); 13] = [
    ("text/", &["target", "scope", "plan", "symbolize", "analysis", "report", "session", "bpf"]),
    ("scope/", &["plan", "symbolize", "analysis", "report", "session", "bpf"]),
    ("target/", &["symbolize", "analysis", "report", "session", "bpf"]),
    ("plan/", &["symbolize", "analysis", "report", "session", "bpf"]),
    ("unwind/", &["symbolize", "analysis", "report", "session", "bpf"]),
    ("bpf/", &["symbolize", "analysis", "report", "session"]),
    ("snapshot/", &["symbolize", "analysis", "report", "session", "bpf"]),
    ("symbolize/", &["bpf", "session"]),
    ("recording/", &["analysis", "report", "session", "bpf"]),
    ("analysis/", &["bpf", "session"]),
    ("report/", &["bpf", "session"]),
    ("offline/", &["bpf"]),
    ("options.rs", &["bpf", "session", "cli"]),
];

#[test]
fn crates_are_used_only_by_their_owner() {
    let mut offences = Vec::new();
    for (path, line_number, line) in lines() {
        for (name, owner) in OWNED_CRATES {
            if uses_crate(&line, name) && !path.starts_with(owner) {
                offences.push(format!("{path}:{line_number}: {name} belongs in {owner}"));
            }
        }
    }
    assert!(offences.is_empty(), "{}", offences.join("\n"));
}

#[test]
fn layers_know_only_what_is_below_them() {
    let mut offences = Vec::new();
    for (path, line_number, line) in lines() {
        for (place, names) in FORBIDDEN {
            for name in names.iter().filter(|name| path.starts_with(place) && line.contains(&format!("crate::{name}")))
            {
                offences.push(format!("{path}:{line_number}: {place} must not know {name}"));
            }
        }
    }
    assert!(offences.is_empty(), "{}", offences.join("\n"));
}

#[test]
fn a_report_opens_nothing_and_asks_no_clock() {
    let mut offences = Vec::new();
    for (path, line_number, line) in lines().into_iter().filter(|(path, ..)| path.starts_with("report/")) {
        for name in ["fs::", "File::", "Instant", "SystemTime", "std::env", "stdout()", "stderr()", "println!"] {
            if line.contains(name) {
                offences.push(format!("{path}:{line_number}: {name}"));
            }
        }
    }
    assert!(offences.is_empty(), "{}", offences.join("\n"));
}

#[test]
fn uses_are_told_from_lookalikes() {
    assert!(uses_crate("use aya::maps::Array;", "aya"));
    assert!(uses_crate("    let map: &aya::maps::Array = x;", "aya"));
    assert!(uses_crate("use clap;", "clap"));
    assert!(!uses_crate("use aya_log::EbpfLogger;", "aya"));
    assert!(!uses_crate("let x = maya::x();", "aya"));
    assert!(!uses_crate("let clap = 1;", "clap"));
}

/// Every line of code of the crate: path below `src`, number, text without comment, tests left out.
fn lines() -> Vec<(String, usize, String)> {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    collect(&src, &mut files);
    let mut lines = Vec::new();
    for file in files {
        let text = fs::read_to_string(&file).expect("sources are readable");
        let path = file.strip_prefix(&src).expect("lies below src").to_string_lossy().into_owned();
        // What follows `#[cfg(test)]` may read fixtures.
        let code = text.split("#[cfg(test)]").next().unwrap_or_default();
        let without_comment = |line: &str| line.split("//").next().unwrap_or_default().to_owned();
        lines.extend((1..).zip(code.lines()).map(|(number, line)| (path.clone(), number, without_comment(line))));
    }
    assert!(lines.len() > 100, "the sources were found");
    lines
}

fn collect(dir: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).expect("sources are readable").flatten() {
        if entry.path().is_dir() {
            collect(&entry.path(), files);
        } else if entry.path().extension().is_some_and(|extension| extension == "rs") {
            files.push(entry.path());
        }
    }
}

/// Whether a line names the crate in a path (`name::`) or imports it whole (`use name;`).
fn uses_crate(line: &str, name: &str) -> bool {
    let starts_word = |at: usize| !line[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':');
    let in_path = line.match_indices(&format!("{name}::")).any(|(at, _)| starts_word(at));
    in_path || line.trim_start().starts_with(&format!("use {name};"))
}
