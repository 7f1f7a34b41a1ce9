//! Commands within the sentences and tables of the documentation name what there is. (Blocks of commands are run by the root tests.)

use std::{collections::BTreeMap, fs, path::Path, process::Command};

/// Options of other programs that the documents speak of.
const OF_OTHERS: [&str; 10] = [
    "--privileged",
    "--pid=host",
    "--cgroupns=host",
    "--cap-add=SYS_ADMIN",
    "--cap-add=SYS_PTRACE",
    "--cap-add=DAC_READ_SEARCH",
    "--security-opt=apparmor=unconfined",
    "--build-arg",
    "--tmpfs",
    "--preserve-env=DOCKER_HOST",
];

/// Help of each command by its name; of `memtrace-bpf` alone under the empty name.
fn helps() -> BTreeMap<String, String> {
    let help = |arguments: &[&str]| {
        let output =
            Command::new(env!("CARGO_BIN_EXE_memtrace-bpf")).args(arguments).output().expect("the binary starts");
        String::from_utf8(output.stdout).expect("help is text")
    };
    let main = help(&["--help"]);
    let commands = main.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    let names: Vec<&str> = commands
        .filter_map(|line| line.strip_prefix("  ")?.split(' ').next().filter(|name| !name.is_empty()))
        .collect();
    let mut helps: BTreeMap<_, _> = names.iter().map(|name| ((*name).to_owned(), help(&[name, "--help"]))).collect();
    helps.insert(String::new(), main.clone());
    assert!(helps.len() > 10, "the commands were found in {main}");
    helps
}

/// Inline code of a document with its line; blocks left out.
fn spans(text: &str) -> Vec<(usize, String)> {
    let mut in_block = false;
    let mut spans = Vec::new();
    for (line, text) in (1..).zip(text.lines()) {
        if text.trim_start().starts_with("```") {
            in_block = !in_block;
        } else if !in_block {
            // Every second piece between backticks. A table's `\|` is a `|`.
            spans.extend(text.split('`').skip(1).step_by(2).map(|span| (line, span.replace("\\|", "|"))));
        }
    }
    spans
}

/// What is wrong with a span; nothing if it names no command and no option.
fn offences(span: &str, helps: &BTreeMap<String, String>) -> Vec<String> {
    let has = |help: &str, option: &str| {
        help.match_indices(option)
            .any(|(at, _)| !help[at + option.len()..].starts_with(|c: char| c.is_ascii_alphanumeric() || c == '-'))
    };
    let words: Vec<&str> = span.split_whitespace().collect();
    let mut rest = &words[..];
    if rest.first() == Some(&"sudo") {
        rest = &rest[1..];
    }
    let mut of = None;
    if rest.first() == Some(&"memtrace-bpf") {
        rest = &rest[1..];
        let name = rest.first().filter(|word| !word.starts_with('-')).copied().unwrap_or_default();
        match helps.get(name) {
            Some(help) => of = Some(help),
            None => return vec![format!("no command `{name}`")],
        }
    }
    let own = rest.iter().take_while(|word| **word != "--");
    let options = own.filter(|word| word.starts_with("--") && !OF_OTHERS.contains(word));
    let names = options.map(|word| word.split(['=', '/', ',', '…']).next().unwrap_or(word));
    names
        .filter(|option| match of {
            Some(help) => !has(help, option),
            None => !helps.values().any(|help| has(help, option)),
        })
        .map(|option| format!("no option `{option}`"))
        .collect()
}

#[test]
fn every_command_and_option_that_is_named_exists() {
    let helps = helps();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the package lies in the workspace");
    let docs = fs::read_dir(root.join("docs")).expect("the documents").flatten().map(|entry| entry.path());
    let mut wrong = Vec::new();
    let mut n_named = 0;
    for path in docs.chain([root.join("README.md")]) {
        let text = fs::read_to_string(&path).expect("the document");
        for (line, span) in spans(&text) {
            n_named += usize::from(span.contains("--"));
            wrong.extend(
                offences(&span, &helps).iter().map(|why| format!("{}:{line}: `{span}`: {why}", path.display())),
            );
        }
    }
    assert!(n_named > 20, "the spans were found");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn what_does_not_exist_is_found() {
    let helps = helps();
    let wrong = |span| !offences(span, &helps).is_empty();
    assert!(!wrong("sudo memtrace-bpf run --check -- ./a --x") && !wrong("--max-leaked 0") && !wrong("malloc"));
    assert!(wrong("memtrace-bpf frob") && wrong("memtrace-bpf doctor --max-leaked 0") && wrong("--max-leak 0"));
    assert_eq!(spans("a `b` c\n```text\n`x`\n```\n`d\\|e`"), [(1, "b".to_owned()), (5, "d|e".to_owned())]);
}
