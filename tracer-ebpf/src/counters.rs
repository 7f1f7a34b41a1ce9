//! Nothing is lost silently: `bump(Counter::…)`.

use tracer_common::{
    abi::Target,
    counters::{Counter, PER_TARGET_WORDS, per_target_index},
};

use crate::{atomic, maps::COUNTERS};

/// Adds one.
#[inline(always)]
pub fn bump(counter: Counter) {
    add(counter, 1);
}

/// Adds `by`.
#[inline(always)]
pub fn add(counter: Counter, by: u64) {
    if let Some(words) = COUNTERS.get_ptr_mut(0) {
        // SAFETY: the enum's range is asserted against COUNTER_WORDS, so the word lies in the value.
        // Atomic although per CPU: the program can be preempted between load and store.
        let _before = atomic::fetch_add(unsafe { words.cast::<u64>().add(counter as usize) }, by);
    }
}

/// Adds one, to the target's own share too: a counter of `PER_TARGET`.
#[inline(always)]
pub fn lose(target: *mut Target, counter: Counter) {
    lose_many(target, counter, 1);
}

/// Adds `by`, to the target's own share too: a counter of `PER_TARGET`.
#[inline(always)]
pub fn lose_many(target: *mut Target, counter: Counter, by: u64) {
    add(counter, by);
    let index = per_target_index(counter);
    if index < PER_TARGET_WORDS {
        // SAFETY: an element of the table of targets; the index is in bounds.
        let _before = atomic::fetch_add(unsafe { &raw mut (*target).losses[index] }, by);
    }
}
