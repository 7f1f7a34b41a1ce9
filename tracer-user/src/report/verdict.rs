//! The text of a verdict: a sentence with its figures, and where resident memory goes.

use super::{
    format::{escaped, grouped, percent, shortened, signed_size, size},
    owner::subject,
    text::{losses, push_line},
};
use crate::{
    analysis::verdict::{Basis, Change, Conclusion, Grown, Verdict},
    snapshot::Snapshot,
};

/// Share of the resident heap from which what the allocator adds to blocks is worth a word.
const MUCH_OVERHEAD: f64 = 0.2;

/// The line for a report of a live process. `None`: the target's memory was not read.
pub fn one_line(snapshot: &Snapshot) -> Option<String> {
    let verdict = Verdict::of(snapshot)?;
    Some(format!("resident {}: {}", size(verdict.rss_bytes), sentence(&verdict)))
}

/// The report on a snapshot called `title`, with what grew since an earlier one.
pub fn render(snapshot: &Snapshot, verdict: &Verdict, change: Option<&Change>, title: &str) -> String {
    let mut out = String::new();
    push_line(&mut out, &format!("verdict on {}  {}  {}", shortened(title), subject(snapshot), losses(snapshot)));
    for note in &snapshot.notes {
        push_line(&mut out, &format!("note: {}", escaped(note)));
    }
    push_line(&mut out, &sentence(verdict));
    if let Some(change) = change {
        push_line(&mut out, &change_sentence(change));
    }
    push_line(&mut out, &format!("resident {:>11}", size(verdict.rss_bytes)));
    for (what, bytes) in rows(verdict) {
        let share = percent(bytes as f64 / verdict.rss_bytes.max(1) as f64);
        push_line(&mut out, &format!("  {:>11}  {share:>6}  {what}", size(bytes)));
    }
    out
}

/// What the figures say, with the figures.
fn sentence(verdict: &Verdict) -> String {
    let held = match verdict.basis {
        Basis::Heap => "the heap holds",
        Basis::HeapAndAnonymous => "the heap and other anonymous memory hold",
    };
    let (rss, live) = (size(verdict.basis_rss_bytes), size(verdict.totals.current_bytes));
    let not_live = size(verdict.not_live_bytes);
    let share = percent(verdict.not_live_bytes as f64 / verdict.basis_rss_bytes.max(1) as f64);
    match verdict.conclusion {
        Conclusion::Small => format!("{held} {rss} resident for {live} live: too little for a verdict"),
        Conclusion::Untouched => {
            format!(
                "{held} {rss} resident for {live} live: the rest of the live blocks was never touched, or is swapped out"
            )
        }
        Conclusion::Live => {
            let added = verdict.overhead_bytes as f64 / verdict.basis_rss_bytes.max(1) as f64;
            let added = if added < MUCH_OVERHEAD {
                String::new()
            } else {
                format!(" and what the allocator adds to blocks so small (~{} of it)", percent(added))
            };
            format!(
                "{held} {rss} resident for {live} live: it is live blocks{added}, not fragmentation; if it grows, they do (a leak or a cache)"
            )
        }
        Conclusion::Free => format!(
            "{held} {rss} resident for {live} live: ~{share} is free memory that the allocator keeps (fragmentation), not a leak"
        ),
        Conclusion::Mixed => {
            format!(
                "{held} {rss} resident for {live} live: ~{share} is free memory that the allocator keeps (fragmentation)"
            )
        }
        Conclusion::FreeOrUnseen => format!(
            "{held} {rss} resident for {live} live that were seen: the other ~{not_live} are free memory or blocks that were not seen (from before tracing, or lost), not told apart"
        ),
        Conclusion::FreeOrMapped => {
            let (seen, unseen) = if verdict.is_complete {
                ("", "")
            } else {
                (" that were seen", "blocks that were not seen (from before tracing, or lost), ")
            };
            format!(
                "{held} {rss} resident for {live} live{seen}: the other ~{not_live} are {unseen}free memory of an allocator or mapped for something else, not told apart"
            )
        }
    }
}

fn change_sentence(change: &Change) -> String {
    let figures = format!(
        "since {:.1} s: live {}, resident {}",
        change.since.as_secs_f64(),
        signed_size(change.live_bytes),
        signed_size(change.basis_rss_bytes)
    );
    let grown = match change.grown {
        Grown::Nothing => "resident memory has not grown by 1 MiB",
        Grown::Live => "what grew is live blocks (a leak or a cache: see growth)",
        Grown::NotLive => {
            "what grew is not live blocks: free memory that the allocator keeps (fragmentation), or older blocks touched since"
        }
        Grown::Both => {
            "live blocks grew, and so did memory that is not live (fragmentation, or older blocks touched since)"
        }
    };
    format!("{figures}: {grown}")
}

/// Parts of resident memory, in bytes; together they are all of it.
fn rows(verdict: &Verdict) -> Vec<(String, u64)> {
    let memory = &verdict.memory;
    let live = verdict.totals.current_bytes.min(verdict.basis_rss_bytes);
    let overhead = verdict.overhead_bytes.min(verdict.basis_rss_bytes - live);
    let rest = verdict.basis_rss_bytes - live - overhead;
    let untouched = if live < verdict.totals.current_bytes { ", at most" } else { "" };
    let rest_is = match (verdict.basis, verdict.is_complete) {
        (Basis::Heap, true) => "~free memory of the heap, kept by the allocator",
        (Basis::Heap, false) => "~free memory of the heap, or blocks that were not seen",
        (Basis::HeapAndAnonymous, _) => "~free memory of allocators, blocks not seen, memory mapped otherwise",
    };
    let blocks = grouped(verdict.totals.current_count);
    let mut rows = vec![
        (format!("live blocks ({blocks}{untouched})"), live),
        ("~allocator's headers and rounding (as glibc's)".to_owned(), overhead),
        (rest_is.to_owned(), rest),
    ];
    if verdict.basis == Basis::Heap {
        rows.push((
            "other anonymous memory (large blocks, other allocators, mmap)".to_owned(),
            memory.anonymous.rss_bytes,
        ));
    }
    rows.push(("file pages".to_owned(), memory.files.rss_bytes));
    rows.push((format!("stacks ({})", memory.stacks.n_mappings), memory.stacks.rss_bytes));
    rows.push(("other (shared memory, vdso)".to_owned(), memory.other.rss_bytes));
    rows
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::{MappedBytes, ProcessMemory, Totals};

    #[test]
    fn rows_add_up_to_what_is_resident_whatever_is_live() {
        let resident = |rss_bytes| MappedBytes { rss_bytes, ..MappedBytes::default() };
        for (live, heap, arenas, anonymous) in
            [(95, 812, 30, 1), (4000, 100, 0, 100), (20, 10, 0, 500), (0, 0, 0, 0), (u64::MAX, 5, 5, 5)]
        {
            let memory = ProcessMemory {
                heap: resident(heap << 20),
                arenas: resident(arenas << 20),
                anonymous: resident(anonymous << 20),
                stacks: resident(3 << 20),
                files: resident(7 << 20),
                other: resident(1 << 20),
            };
            let current_bytes = live.min(u64::MAX >> 20) << 20;
            let totals = Totals { current_bytes, current_count: live / 64 + 1, ..Totals::default() };
            let snapshot = Snapshot { totals, memory: Some(memory), ..Snapshot::default() };
            let verdict = Verdict::of(&snapshot).expect("its memory was read");
            let sum: u64 = rows(&verdict).iter().map(|(_, bytes)| bytes).sum();
            assert_eq!(sum, verdict.rss_bytes, "{live} {heap} {arenas} {anonymous}");
        }
    }
}
