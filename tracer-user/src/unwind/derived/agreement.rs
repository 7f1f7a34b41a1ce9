//! What is derived of libraries that have unwind information, as though they had none, against that information: at each
//! return address the two agree, or nothing was derived.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Instant,
};

use iced_x86::{Decoder, DecoderOptions, FlowControl, Mnemonic};
use tracer_common::unwind::{RuleKind, UnwindRule};

use super::{
    super::{image::Image, rows::described_rows},
    code::Code,
    entries::Entries,
    follow,
    state::Frame,
};

/// What came out of a comparison.
#[derive(Debug, Default)]
struct Outcome {
    calls: u64,
    agree: u64,
    /// Unwind information says something that a table of rules cannot express.
    not_comparable: u64,
    none: u64,
    wrong: Vec<String>,
}

fn library(name: &str) -> Option<PathBuf> {
    let dirs = ["/usr/lib/x86_64-linux-gnu", "/lib/x86_64-linux-gnu", "/usr/lib64", "/lib64", "/usr/lib"];
    dirs.iter().map(|dir| Path::new(dir).join(name)).find(|path| path.exists())
}

fn compare(path: &Path) -> Outcome {
    let elf = fs::read(path).expect("read the library");
    let image = Image::parse(&elf).expect("an ELF file");
    let (truth, functions) = described_rows(&image);
    let entries = Entries::read(&image, None);
    let code = Code::new(&image, &[], &entries);
    let began = Instant::now();
    let found = follow(&code, image.entry());
    let took = began.elapsed();

    let mut outcome = Outcome::default();
    for function in functions {
        let length = (function.end - function.start) as usize;
        let bytes = image.bytes_from(function.start).and_then(|bytes| bytes.get(..length)).expect("code");
        for instruction in &mut Decoder::with_ip(64, bytes, function.start, DecoderOptions::NONE) {
            let is_call = matches!(instruction.flow_control(), FlowControl::Call | FlowControl::IndirectCall);
            if !is_call || instruction.mnemonic() == Mnemonic::Syscall {
                continue;
            }
            let at = instruction.ip();
            let rule = truth.lookup((instruction.next_ip() - 1 - truth.base_vaddr) as u32).expect("a row");
            let step = found.instructions.get(&at).filter(|step| found.counts(step));
            outcome.calls += 1;
            match step.map(|step| (step.frame, step.frame.rule())) {
                Some((frame, derived)) if derived.kind != RuleKind::None => match agrees(&frame, derived, rule) {
                    Some(true) => outcome.agree += 1,
                    Some(false) => outcome.wrong.push(format!("{at:#x}: {derived:?}, in truth {rule:?}")),
                    None => outcome.not_comparable += 1,
                },
                _ => outcome.none += 1,
            }
        }
    }
    let share = outcome.agree as f64 / outcome.calls as f64;
    println!(
        "{}: {} calls, {} agree ({:.2} %), {} without a rule, {} not comparable, {} wrong; {took:?}",
        path.display(),
        outcome.calls,
        outcome.agree,
        share * 100.0,
        outcome.none,
        outcome.not_comparable,
        outcome.wrong.len()
    );
    outcome
}

/// Whether two rules say the same of one frame; `None` where the true one is none of rsp or rbp at a fixed distance.
fn agrees(frame: &Frame, derived: UnwindRule, truth: UnwindRule) -> Option<bool> {
    let same_cfa = match truth.kind {
        RuleKind::Rsp => match frame.cfa_from_rsp {
            Some(cfa) => cfa == truth.cfa_off,
            None => return None,
        },
        RuleKind::Rbp => match frame.cfa_from_rbp {
            Some(cfa) => cfa == truth.cfa_off,
            None => return None,
        },
        RuleKind::Root => return Some(derived.kind == RuleKind::Root),
        _ => return None,
    };
    let same_rbp = match (truth.rbp_off, frame.saved_rbp) {
        (0, _) => frame.rbp_is_callers,
        (saved, Some(derived)) => i32::from(saved) == derived,
        (_, None) => false,
    };
    Some(same_cfa && same_rbp)
}

fn check(name: &str, min_share: f64) {
    let Some(path) = library(name) else { return };
    let outcome = compare(&path);
    assert!(outcome.wrong.is_empty(), "{}: {:#?}", outcome.wrong.len(), &outcome.wrong[..outcome.wrong.len().min(30)]);
    assert!(outcome.calls > 1000, "nothing was compared");
    let share = outcome.agree as f64 / outcome.calls as f64;
    assert!(share >= min_share, "{share}");
}

/// Measured on Debian 12 (glibc 2.36, stripped): 88.1 % of 13 305 calls agree, 11.9 % have no rule (three quarters of these are
/// in functions that only tables of pointers or of computed jumps lead to), none is wrong.
#[test]
fn derived_rules_are_right_or_missing_in_libc() {
    check("libc.so.6", 0.87);
}

/// Measured on Debian 12: 74.4 % of 19 185 calls agree, none is wrong. Handlers of exceptions, which no jump leads to, are most of
/// the rest.
#[test]
fn derived_rules_are_right_or_missing_in_libstdcxx() {
    check("libstdc++.so.6", 0.73);
}

/// Measured on Debian 12: 96.2 % of 50 670 calls agree, none is wrong.
#[test]
fn derived_rules_are_right_or_missing_in_libcrypto() {
    check("libcrypto.so.3", 0.95);
}
