//! Manual pages and completions: they are made, and the programs that read them have nothing to say.

use std::{
    fs,
    io::Write as _,
    process::{Command, Output, Stdio},
};

fn memtrace(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_memtrace-bpf")).args(arguments).output().expect("the binary starts")
}

/// What a program says of `input`. `None`: the program is not there.
fn said_by(program: &str, arguments: &[&str], input: &[u8]) -> Option<Output> {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().ok()?;
    child.stdin.take().expect("stdin is a pipe").write_all(input).expect("the program reads");
    Some(child.wait_with_output().expect("the program ends"))
}

#[test]
fn every_command_has_a_page_that_the_formatter_accepts() {
    let dir = tempfile::tempdir().expect("a scratch folder");
    let output = memtrace(&["man", dir.path().to_str().expect("a plain path")]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let pages: Vec<_> = fs::read_dir(dir.path()).expect("the folder").flatten().map(|entry| entry.path()).collect();
    let help = String::from_utf8(memtrace(&["--help"]).stdout).expect("help is text");
    let commands = help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    let mut n_commands = 0;
    for command in
        commands.filter_map(|line| line.strip_prefix("  ")?.split(' ').next().filter(|name| !name.is_empty()))
    {
        n_commands += 1;
        let page = dir.path().join(format!("memtrace-bpf-{command}.1"));
        assert!(command == "help" || pages.contains(&page), "no {}", page.display());
    }
    assert!(n_commands >= 10, "the commands were found in {help}");
    for page in pages {
        let text = fs::read(&page).expect("the page");
        for (program, arguments) in
            [("groff", ["-man", "-Tutf8", "-ww", "-z"].as_slice()), ("mandoc", ["-Tlint", "-Wwarning"].as_slice())]
        {
            if let Some(output) = said_by(program, arguments, &text) {
                let said = String::from_utf8_lossy(&output.stderr) + String::from_utf8_lossy(&output.stdout);
                assert!(output.status.success() && said.is_empty(), "{program} on {}: {said}", page.display());
            }
        }
    }
}

#[test]
fn the_main_page_names_the_others() {
    let page = String::from_utf8(memtrace(&["man"]).stdout).expect("a page is text");
    assert!(page.starts_with(".ie") && page.contains(".TH memtrace-bpf 1"), "{page}");
    for command in ["report", "diff", "check", "run", "doctor"] {
        assert!(page.contains(&format!("memtrace\\-bpf\\-{command}(1)")), "no {command}");
    }
}

#[test]
fn each_shell_has_a_completion_that_it_can_read() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let output = memtrace(&["completions", shell]);
        assert!(output.status.success());
        let script = String::from_utf8(output.stdout).expect("a script is text");
        assert!(script.contains("memtrace-bpf") && script.contains("max-leaked"), "{shell}");
        let check = match shell {
            "bash" | "zsh" => vec!["-n"],
            "fish" => vec!["--no-execute"],
            _ => continue,
        };
        if let Some(output) = said_by(shell, &check, script.as_bytes()) {
            assert!(output.status.success(), "{shell}: {}", String::from_utf8_lossy(&output.stderr));
        }
    }
    assert_eq!(memtrace(&["completions", "csh"]).status.code(), Some(2));
}

#[test]
fn bash_completes_the_options_of_each_command() {
    let script = String::from_utf8(memtrace(&["completions", "bash"]).stdout).expect("a script is text");
    let completed = |words: &str| {
        let last = words.split(' ').count() - 1;
        let ask = format!(
            "{script}\nCOMP_WORDS=({words}); COMP_CWORD={last}\n\
             _memtrace__bpf memtrace-bpf \"${{COMP_WORDS[-1]}}\" \"${{COMP_WORDS[-2]}}\"; echo \"${{COMPREPLY[*]}}\""
        );
        let said = said_by("bash", &["--norc"], ask.as_bytes())?;
        assert!(said.stderr.is_empty(), "{}", String::from_utf8_lossy(&said.stderr));
        Some(String::from_utf8(said.stdout).expect("options are text").trim_end().to_owned())
    };
    let Some(commands) = completed("memtrace-bpf an") else { return };
    assert_eq!(commands, "annotate");
    assert_eq!(completed("memtrace-bpf report --cum").as_deref(), Some("--cumulative"));
    assert_eq!(completed("memtrace-bpf check --max-l").as_deref(), Some("--max-leaked"));
    assert_eq!(completed("memtrace-bpf help gro").as_deref(), Some("growth"));
}

#[test]
fn help_fits_its_width_where_no_terminal_says_another() {
    for arguments in [&["--help"][..], &["run", "--help"], &["check", "--help"], &["-h"]] {
        let help = String::from_utf8(memtrace(arguments).stdout).expect("help is text");
        let long =
            help.lines().find(|line| line.chars().count() > 100 && line.contains(' ') && !line.contains(":SYMBOL"));
        assert_eq!(long, None);
    }
}
