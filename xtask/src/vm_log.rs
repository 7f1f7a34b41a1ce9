//! What a virtual machine printed, against what the checks want. Pure.

use serde_json::Value;

use crate::vm::Check;

/// What a log shows.
#[derive(Debug, PartialEq, Eq)]
pub struct Outcome {
    /// `uname -r`, or a word for its absence.
    pub release: String,
    /// Each failed check with the reason; empty when all passed.
    pub problems: Vec<String>,
}

/// Reads the marks that the init script of `vm` prints.
pub fn judge(log: &str, checks: &[Check]) -> Outcome {
    let log = log.replace('\r', "");
    let release = log.lines().find_map(|line| line.split("@@release ").nth(1)).unwrap_or("did not boot").to_owned();
    let mut problems: Vec<String> = Vec::new();
    for (index, check) in checks.iter().enumerate() {
        if let Some(problem) = problem(&log, index, check) {
            problems.push(format!("`{}`: {problem}", check.name));
        }
    }
    if !log.contains("@@done") {
        problems.push("the machine ended early".to_owned());
    }
    Outcome { release, problems }
}

fn problem(log: &str, index: usize, check: &Check) -> Option<String> {
    let Some(after) = log.split(&format!("@@begin {index}\n")).nth(1) else {
        return Some("not run".to_owned());
    };
    let body = after.split("@@end").next().unwrap_or_default();
    let (output, rest) = body.split_once("@@exit ").unwrap_or((body, ""));
    let (status, json) = rest.split_once("@@json").unwrap_or((rest, ""));
    let last_line = output.trim().lines().last().unwrap_or("no output");
    if status.trim() != check.exit.to_string() {
        return Some(format!("exit {}, wanted {}: {last_line}", status.trim(), check.exit));
    }
    if let Some(missing) = check.has.iter().find(|text| !output.contains(*text)) {
        return Some(format!("output lacks {missing:?}: {last_line}"));
    }
    if check.truth { against_truth(output, json) } else { None }
}

/// Compares each `KEY=N` of the line `truth: …` with the report's totals.
fn against_truth(output: &str, json: &str) -> Option<String> {
    let Some(truth) = output.lines().find_map(|line| line.split("truth: ").nth(1)) else {
        return Some("the program stated no truth".to_owned());
    };
    let report: Value = match serde_json::from_str(json.trim()) {
        Ok(report) => report,
        Err(error) => return Some(format!("no report: {error}")),
    };
    let mut wrong = Vec::new();
    for (key, wanted) in truth.split_whitespace().filter_map(|word| word.split_once('=')) {
        let found = &report["totals"][key];
        // A truth that is no number is the program's mistake, and equals nothing.
        if found.as_u64().is_none() || found.as_u64() != wanted.parse().ok() {
            wrong.push(format!("{key} is {found}, truth {wanted}"));
        }
    }
    (!wrong.is_empty()).then(|| wrong.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(truth: bool) -> Check {
        let has = vec!["hello".to_owned()];
        Check { name: "c".to_owned(), on: None, command: String::new(), exit: 0, has, truth }
    }

    #[test]
    fn a_passing_log_has_no_problem() {
        let log = "@@release 6.1.0\r\n@@begin 0\r\nhello\r\ntruth: a=1 b=2\r\n\r\n@@exit 0\r\n@@json\r\n{\"totals\":{\"a\":1,\"b\":2}}\r\n\r\n@@end\r\n@@done\r\n";
        assert_eq!(judge(log, &[check(true)]), Outcome { release: "6.1.0".to_owned(), problems: vec![] });
    }

    #[test]
    fn each_way_to_fail_is_named() {
        let log = |rest: &str| format!("@@release r\n@@begin 0\n{rest}@@end\n@@done\n");
        let problem = |rest: &str| judge(&log(rest), &[check(true)]).problems.join("|");
        assert_eq!(problem("hello\n@@exit 1\n"), "`c`: exit 1, wanted 0: hello");
        assert_eq!(problem("bye\n@@exit 0\n"), "`c`: output lacks \"hello\": bye");
        assert_eq!(problem("hello\n@@exit 0\n"), "`c`: the program stated no truth");
        assert!(problem("hello\ntruth: a=1\n@@exit 0\n").starts_with("`c`: no report: "));
        let unequal = problem("hello\ntruth: a=1\n@@exit 0\n@@json\n{\"totals\":{\"a\":2}}\n");
        assert_eq!(unequal, "`c`: a is 2, truth 1");
    }

    #[test]
    fn a_machine_that_does_not_boot_fails_every_check() {
        let outcome = judge("kernel panic", &[check(false)]);
        assert_eq!(outcome.release, "did not boot");
        assert_eq!(outcome.problems, ["`c`: not run", "the machine ended early"]);
    }
}
