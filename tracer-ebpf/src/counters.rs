//! Nothing is lost silently: `bump(Counter::…)`.

use tracer_common::counters::Counter;

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
