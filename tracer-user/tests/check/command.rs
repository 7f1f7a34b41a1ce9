//! `check` as a command: its exit status, its files, and what it refuses.

use std::{fs, path::Path, process::Command};

use super::fixture::*;

/// What a run of `check` left: exit status, stdout, stderr.
fn run(dir: &Path, arguments: &[&str]) -> (i32, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_memtrace-bpf"))
        .arg("check")
        .args(arguments)
        .current_dir(dir)
        .output()
        .expect("the binary starts");
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("the output is text");
    (output.status.code().expect("no signal"), text(&output.stdout), text(&output.stderr))
}

/// A folder with `new.mtb`, the smaller `base.mtb`, `other.mtb` of another executable and `lossy.mtb`.
fn folder() -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a scratch folder");
    let base = case(vec![row("cache_add", 42, &[10, 100]), row("decode", 101, &[0, 5])]);
    record(&server(), &dir.path().join("new.mtb"));
    record(&Case { exe: "/srv/other", ..base.clone() }, &dir.path().join("other.mtb"));
    record(&base, &dir.path().join("base.mtb"));
    let counters = [(tracer_common::counters::Counter::ThreadsFull, 5)].into();
    record(&Case { counters, ..server() }, &dir.path().join("lossy.mtb"));
    dir
}

/// One line on stderr, nothing on stdout, exit status 2.
fn refused(dir: &Path, arguments: &[&str]) -> String {
    let (status, stdout, stderr) = run(dir, arguments);
    assert_eq!((status, &*stdout), (2, ""), "{arguments:?}: {stderr}");
    assert!(stderr.starts_with("memtrace-bpf: ") && stderr.trim_end().lines().count() == 1, "{stderr}");
    stderr
}

#[test]
fn the_exit_status_is_the_verdict() {
    let dir = folder();
    let status = |arguments: &[&str]| run(dir.path(), arguments).0;
    assert_eq!(status(&["new.mtb", "--max-peak", "2M"]), 0);
    assert_eq!(status(&["new.mtb", "--max-peak", "1M"]), 3);
    assert_eq!(status(&["new.mtb@0", "--max-current", "11K"]), 0);
    assert_eq!(status(&["new.mtb@peak", "--max-current", "11K"]), 3);
    assert_eq!(status(&["new.mtb", "--baseline", "base.mtb", "--max-growth", "5%"]), 3);
    assert_eq!(status(&["base.mtb", "--baseline", "new.mtb", "--max-growth", "5%"]), 0);
    assert_eq!(status(&["lossy.mtb", "--max-peak", "2M"]), 3);
    assert_eq!(status(&["lossy.mtb", "--max-peak", "2M", "--allow-loss"]), 0);
    assert_eq!(status(&["lossy.mtb", "--max-peak", "1M", "--allow-loss"]), 3);
}

#[test]
fn a_failed_check_names_its_sites_on_standard_output() {
    let dir = folder();
    let (status, stdout, stderr) = run(dir.path(), &["new.mtb", "--max-leaked", "0", "--top", "1"]);
    assert_eq!((status, &*stderr), (3, ""));
    assert!(stdout.contains("#1 src/cache.c:42: size=300 KiB, count=300     cache_add\n"), "{stdout}");
    assert!(
        stdout.contains("... 2 more sites\n") && stdout.ends_with("1 budget checked: 0 ok, 1 exceeded\n"),
        "{stdout}"
    );
}

#[test]
fn markdown_is_appended_and_junit_replaced() {
    let dir = folder();
    let path = |name: &str| dir.path().join(name);
    fs::write(path("summary.md"), "# Mine\n").expect("writable");
    fs::write(path("junit.xml"), "old").expect("writable");
    let arguments = ["new.mtb", "--max-peak", "1M", "--markdown", "summary.md", "--junit", "junit.xml"];
    assert_eq!((run(dir.path(), &arguments).0, run(dir.path(), &arguments).0), (3, 3));
    let read = |name| fs::read_to_string(path(name)).expect("readable");
    assert!(read("summary.md").starts_with("# Mine\n") && read("summary.md").matches("Memory check").count() == 2);
    assert!(read("junit.xml").starts_with("<?xml") && read("junit.xml").matches("<testcase").count() == 1);
}

#[test]
fn an_outcome_is_never_written_over_what_is_read() {
    let dir = folder();
    fs::write(dir.path().join("leaks.supp"), "leak:cache_add\n").expect("writable");
    std::os::unix::fs::symlink("base.mtb", dir.path().join("link.mtb")).expect("writable");
    let budgets = ["new.mtb", "--max-peak", "1M", "--max-leaked", "1M", "--suppressions", "leaks.supp"];
    let budgets = [&budgets[..], &["--baseline", "base.mtb", "--max-growth", "5%"]].concat();
    let before = |name: &str| fs::read(dir.path().join(name)).expect("readable");
    for (file, other) in [("new.mtb", "the recording"), ("link.mtb", "--baseline"), ("leaks.supp", "--suppressions")] {
        let (holds, said) = (before(file), |option| refused(dir.path(), &[&budgets[..], &[option, file]].concat()));
        assert!(said("--markdown").contains(&format!("failed to write `{file}`: --markdown and {other} are one file")));
        assert!(said("--junit").contains(&format!("--junit and {other} are one file")));
        assert_eq!(before(file), holds);
    }
    let twice = refused(dir.path(), &[&budgets[..], &["--markdown", "x", "--junit", "./x"]].concat());
    assert!(twice.contains("failed to write `./x`: --junit and --markdown are one file"), "{twice}");
    assert_eq!(run(dir.path(), &[&budgets[..], &["--markdown", "/dev/null", "--junit", "/dev/null"]].concat()).0, 3);
}

#[test]
fn a_session_never_writes_over_what_it_reads() {
    let dir = folder();
    let refused = |arguments: &[&str]| {
        let mut run = Command::new(env!("CARGO_BIN_EXE_memtrace-bpf"));
        let output = run.arg("run").args(arguments).args(["--", "true"]).current_dir(dir.path()).output();
        let output = output.expect("the binary starts");
        assert_eq!((output.status.code(), &*output.stdout), (Some(2), &b""[..]));
        String::from_utf8(output.stderr).expect("complaints are text")
    };
    let holds = fs::read(dir.path().join("base.mtb")).expect("readable");
    let said = refused(&["--record", "base.mtb", "--check", "--baseline", "base.mtb", "--max-growth", "5%"]);
    assert!(said.contains("failed to write `base.mtb`: --record and --baseline are one file"), "{said}");
    assert_eq!(fs::read(dir.path().join("base.mtb")).expect("readable"), holds);
    let said = refused(&["--record", "q", "--json", "./q"]);
    assert!(said.contains("failed to write `./q`: --json and --record are one file"), "{said}");
    assert!(!dir.path().join("q").exists());
}

#[test]
fn a_dash_is_standard_output() {
    let dir = folder();
    let markdown = run(dir.path(), &["new.mtb", "--max-peak", "2M", "--markdown", "-"]).1;
    assert!(markdown.starts_with("### ") && !markdown.contains("\nok"), "{markdown}");
    let junit = run(dir.path(), &["new.mtb", "--max-peak", "2M", "--junit", "-"]).1;
    assert!(junit.starts_with("<?xml") && !dir.path().join("-").exists());
    let both = refused(dir.path(), &["new.mtb", "--max-peak", "2M", "--junit", "-", "--markdown", "-"]);
    assert!(both.contains("standard output takes one of --markdown and --junit"), "{both}");
}

#[test]
fn what_makes_no_sense_is_one_line() {
    let dir = folder();
    let said = |arguments: &[&str]| refused(dir.path(), arguments);
    assert!(said(&["new.mtb"]).contains("--max-peak"));
    assert!(said(&["new.mtb", "--max-peak", "5%"]).contains("`5%` is not a size"));
    assert!(said(&["new.mtb", "--max-peak", "64 parsecs"]).contains("parsecs"));
    assert!(said(&["new.mtb", "--max-site-growth", "5"]).contains("`5` is neither a percentage nor a size"));
    assert!(said(&["new.mtb", "--max-growth", "5%"]).contains("--baseline"));
    assert!(said(&["new.mtb", "--baseline", "base.mtb"]).contains("--max-growth"));
    assert!(said(&["gone.mtb", "--max-peak", "1M"]).contains("`gone.mtb`"));
    assert!(
        said(&["new.mtb@noon", "--max-peak", "1M"])
            .contains("snapshot in `new.mtb`: no snapshot `noon` (known: 0 start")
    );
    let baseline = ["new.mtb", "--baseline", "base.mtb@noon", "--max-growth", "5%"];
    assert!(said(&baseline).contains("snapshot in `base.mtb`: no snapshot `noon`"));
    assert!(said(&["new.mtb", "--max-peak", "-5"]).contains("`-5` is not a size"));
    assert!(said(&["new.mtb", "--max-paek", "5"]).contains("found; tip: a similar argument exists: '--max-peak'"));
    assert!(said(&["new.mtb@0", "--max-leaked", "0"]).contains("leaks are what is live at exit"));
    assert!(said(&["new.mtb@0", "--max-site-growth", "1K"]).contains("earlier snapshot"));
    let nowhere = ["new.mtb", "--max-peak", "1M", "--junit", "no/such/dir/x.xml"];
    assert!(said(&nowhere).contains("failed to open `no/such/dir/x.xml`"));
}

#[test]
fn a_broken_suppression_is_named_by_file_and_line() {
    let dir = folder();
    fs::write(dir.path().join("leaks.supp"), "# known\nleak:cache_add\nrace:decode\n").expect("writable");
    let said = refused(dir.path(), &["new.mtb", "--max-leaked", "0", "--suppressions", "leaks.supp"]);
    assert!(said.contains("leaks.supp:3: `race` is no suppression of leaks"), "{said}");
}

#[test]
fn a_baseline_of_another_program_is_refused_unless_told() {
    let dir = folder();
    let arguments = ["new.mtb", "--baseline", "other.mtb", "--max-growth", "900%"];
    let said = refused(dir.path(), &arguments);
    assert!(said.contains("the baseline is of `other`, the recording of `imgsrv`"), "{said}");
    let (status, stdout, _) = run(dir.path(), &[&arguments[..], &["--allow-other-program"]].concat());
    assert_ne!(status, 2, "{stdout}");
    assert!(stdout.contains("growth of peak"), "{stdout}");
}
