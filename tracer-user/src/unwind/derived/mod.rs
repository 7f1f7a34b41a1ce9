//! Rules for code without unwind information, from the code itself: each function is followed from its entry, and what its
//! instructions do to rsp and rbp tells where its caller's frame begins.
//!
//! musl, hand-written assembly and linkage stubs ship no unwind information. What cannot be followed (rsp is computed, ways that
//! disagree meet, a function's return does not find rsp where it must be) gets no rule, so that a stack ends there and says so:
//! a wrong stack is worse than none. Where functions begin, symbols say, and calls; addresses that the code or its data take are
//! tried, and kept where what is there behaves as a function.
//!
//! Gaps that nothing leads to stay without rules.

#[cfg(test)]
mod agreement;
mod code;
mod entries;
mod execute;
mod flow;
mod state;
#[cfg(test)]
mod tests;

use std::ops::Range;

use tracer_common::unwind::{RuleKind, UnwindRule};

use self::{
    code::Code,
    entries::Entries,
    flow::{Follower, Found, follow_candidates},
};
use super::image::Image;

/// Instructions looked at in one module, repetitions included; about a second.
const MAX_STEPS: u32 = 1 << 21;

/// Candidates for functions that are tried.
const MAX_CANDIDATES: usize = 1 << 16;

/// Consecutive code with the rules that were found for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stretch {
    /// Its addresses.
    pub range: Range<u64>,
    /// From where on which rule holds; ascending, the first at the start of the range.
    pub rows: Vec<(u64, UnwindRule)>,
}

/// The rules of all code of `image` outside of `covered`, which ascends; ascending. `debug` is the module's debug file, which names
/// more functions.
pub(super) fn stretches(image: &Image<'_>, covered: &[Range<u64>], debug: Option<&[u8]>) -> Vec<Stretch> {
    let entries = Entries::read(image, debug);
    let code = Code::new(image, covered, &entries);
    joined(&follow(&code, image.entry()))
}

fn follow(code: &Code<'_>, start: Option<u64>) -> Found {
    let nothing = Found::default();
    let functions = code.entries.functions.iter().copied();
    let (mut found, mut steps) = Follower::new(code, &nothing, MAX_STEPS).functions(functions, start);
    let mut candidates = code.entries.pointed_to.clone();
    candidates.append(&mut found.taken);
    let mut left = MAX_CANDIDATES;
    while !candidates.is_empty() && left > 0 {
        candidates.sort_unstable();
        candidates.dedup();
        candidates.retain(|candidate| code.is_bare(*candidate));
        candidates.truncate(left);
        left -= candidates.len();
        follow_candidates(code, &mut found, &candidates, &mut steps);
        candidates = std::mem::take(&mut found.taken);
    }
    found
}

fn joined(found: &Found) -> Vec<Stretch> {
    let mut stretches: Vec<Stretch> = Vec::new();
    for (&at, step) in &found.instructions {
        let rule = step.frame.rule();
        if rule.kind == RuleKind::None || !found.counts(step) {
            continue;
        }
        let end = at.saturating_add(u64::from(step.length));
        match stretches.last_mut() {
            Some(last) if last.range.end >= at => {
                last.range.end = end.max(last.range.end);
                if last.rows.last().map(|row| row.1) != Some(rule) {
                    last.rows.push((at, rule));
                }
            }
            _ => stretches.push(Stretch { range: at..end, rows: vec![(at, rule)] }),
        }
    }
    stretches
}
