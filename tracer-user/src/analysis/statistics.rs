//! Groups the stacks of a snapshot by what a report's lines stand for, as `tracemalloc.Snapshot.statistics` does.

use thiserror::Error;

pub use super::frames::{Site, module_of};
use super::{
    frames::Frames,
    groups::{Groups, Side},
    order::{OrderKey, Ranks},
};
use crate::{
    options::{Domains, Key, ReportOptions, Sort, View},
    snapshot::{Snapshot, StackStats, Totals},
    symbolize::{Attribution, Names},
};

/// The lines of a report, borrowed from the snapshot and its names.
#[derive(Clone, Debug)]
pub struct Statistics<'a> {
    /// What lines stand for.
    pub key: Key,
    /// Which totals are a line's size and count.
    pub view: View,
    /// Every frame of a stack counts, so that lines overlap.
    pub cumulative: bool,
    /// Of which memory the report is.
    pub domains: Domains,
    /// What they are sorted by.
    pub sort: Sort,
    /// Whether the time that freed blocks had lived was recorded: false where not one lived less than 1 s.
    pub lifetimes_known: bool,
    /// Lines within the limits asked for, in the order of the report; those that hold nothing of what is asked for included.
    pub lines: Vec<Statistic<'a>>,
    /// Lines outside of them that hold anything of it.
    pub left_out: Rest,
    /// The names that tracebacks are printed with.
    pub names: &'a Names,
}

/// Lines that are only summed up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rest {
    /// How many.
    pub n_lines: usize,
    /// Their sum; cumulative lines overlap, so that it says nothing of them.
    pub totals: Totals,
}

/// One line: all stacks of one site, file, function, module, traceback or thread.
#[derive(Clone, Copy, Debug)]
pub struct Statistic<'a> {
    /// The site of [`largest`](Self::largest); with coarser keys only the part that is the key is common to all stacks. In
    /// cumulative statistics the frame that the line stands for. `None`: the stack could not be stored.
    pub site: Option<Site<'a>>,
    /// Sums over the stacks.
    pub totals: Totals,
    /// Number of stacks summed.
    pub n_stacks: usize,
    /// The stack with the highest value of what lines are sorted by.
    pub largest: &'a StackStats,
}

/// Threads are asked for where they were not kept apart.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("threads are not known: recorded without --by-thread")]
pub struct NoThreads;

impl<'a> Statistics<'a> {
    /// Lines that hold anything of what is asked for; tracemalloc has no others.
    pub fn shown(&self) -> impl Iterator<Item = &Statistic<'a>> {
        self.lines.iter().filter(|line| is_any(self.view, self.sort, &line.totals))
    }
}

impl View {
    /// The bytes that the view is about.
    pub const fn size(self, totals: &Totals) -> u64 {
        match self {
            Self::Live => totals.current_bytes,
            Self::Peak => totals.peak_bytes,
            Self::Allocated => totals.allocated_bytes,
            Self::Freed | Self::Temporary => totals.freed_bytes,
        }
    }

    /// The blocks that the view is about.
    pub const fn count(self, totals: &Totals) -> u64 {
        match self {
            Self::Live => totals.current_count,
            Self::Peak => totals.peak_count,
            Self::Allocated => totals.allocated_count,
            Self::Freed | Self::Temporary => totals.freed_count,
        }
    }
}

impl Sort {
    /// The value that a line is sorted by: bytes, or blocks for [`Sort::Count`].
    pub const fn value(self, view: View, totals: &Totals) -> u64 {
        match self {
            Self::Size => view.size(totals),
            Self::Count => view.count(totals),
            Self::Peak => totals.peak_bytes,
            Self::Allocated => totals.allocated_bytes,
        }
    }

    /// The bytes that [`ReportOptions::min_size`] is compared with.
    pub(super) const fn bytes(self, view: View, totals: &Totals) -> u64 {
        match self {
            Self::Count => view.size(totals),
            other => other.value(view, totals),
        }
    }
}

/// Checks that a snapshot can be grouped as asked.
///
/// # Errors
/// By thread, where no stack tells its thread.
pub fn groupable(snapshot: &Snapshot, key: Key) -> Result<(), NoThreads> {
    let unknown = || snapshot.stacks.iter().all(|stack| stack.stack.thread.is_none());
    if key == Key::Thread && !snapshot.stacks.is_empty() && unknown() { Err(NoThreads) } else { Ok(()) }
}

/// Groups, sums and sorts the stacks of `snapshot`. The order is tracemalloc's: what is asked for, size, count and key, all
/// descending; then the stack's id.
pub fn statistics<'a>(
    snapshot: &'a Snapshot,
    names: &'a Names,
    attribution: &Attribution,
    options: &ReportOptions,
) -> Statistics<'a> {
    let ReportOptions { key, view, sort, .. } = *options;
    let mut frames = Frames::empty(snapshot, names, attribution);
    let grouped = Groups::new(key, options.cumulative).lines(&Side::alone(snapshot), &mut frames, options);
    let ranks = Ranks::of(key, &[&frames]);

    let mut left_out = Rest::default();
    let mut lines: Vec<(OrderKey<'a>, Statistic<'a>)> = Vec::with_capacity(grouped.len());
    for (_, line) in grouped {
        if is_within(options, sort.bytes(view, &line.totals), view.count(&line.totals)) {
            lines.push((OrderKey::new(key, &line, &mut frames, ranks.side(0)), line));
        } else if is_any(view, sort, &line.totals) {
            left_out.add(&line);
        }
    }
    let figures = |line: &Statistic<'a>| {
        let totals = &line.totals;
        (sort.value(view, totals), view.size(totals), view.count(totals))
    };
    lines.sort_unstable_by(|(a_key, a), (b_key, b)| {
        let by_figures = figures(b).cmp(&figures(a));
        by_figures.then_with(|| b_key.cmp(a_key)).then_with(|| a.largest.id.cmp(&b.largest.id))
    });
    Statistics {
        key,
        view,
        cumulative: options.cumulative,
        domains: options.domains,
        sort,
        lifetimes_known: snapshot.stacks.iter().any(|stack| stack.totals.freed_within_1s_count > 0),
        lines: lines.into_iter().map(|(_, line)| line).collect(),
        left_out,
        names,
    }
}

/// All lines of a snapshot, in no order, and what each sums.
#[derive(Clone, Debug, Default)]
pub(super) struct Grouping<'a> {
    /// The lines.
    pub(super) lines: Vec<Statistic<'a>>,
    /// Places in [`Snapshot::stacks`] and in `lines`: the stack counts for the line.
    pub(super) members: Vec<(u32, u32)>,
}

/// Groups and sums the stacks of `snapshot`.
pub(super) fn grouping<'a>(
    snapshot: &'a Snapshot,
    names: &'a Names,
    attribution: &Attribution,
    options: &ReportOptions,
) -> Grouping<'a> {
    let mut frames = Frames::empty(snapshot, names, attribution);
    let mut members = Vec::new();
    let lines = Groups::new(options.key, options.cumulative).lines_and_members(
        &Side::alone(snapshot),
        &mut frames,
        options,
        |stack, line| members.push((stack, line)),
    );
    Grouping { lines: lines.into_iter().map(|(_, line)| line).collect(), members }
}

/// Whether there is anything of what a view shows, or of what its lines are sorted by.
const fn is_any(view: View, sort: Sort, totals: &Totals) -> bool {
    view.size(totals) > 0 || view.count(totals) > 0 || sort.value(view, totals) > 0
}

/// Whether a line's size and count are within the limits asked for.
pub(super) fn is_within(options: &ReportOptions, size: u64, count: u64) -> bool {
    size >= options.min_size
        && options.filters.max_size.is_none_or(|max_size| size <= max_size)
        && count >= options.filters.min_count
}

impl Rest {
    /// Adds a line.
    pub fn add(&mut self, line: &Statistic<'_>) {
        self.n_lines += 1;
        self.totals.add(&line.totals);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tracer_common::addr::{FileVaddr, FrameAddr, UserAddr};

    use super::*;
    use crate::{
        snapshot::{Frame, Module, ModuleId, ModuleKind, Stack, StackId},
        symbolize::{FrameName, NoSymbol},
    };

    /// The site of one stack of frames `(module, function)`, innermost first.
    fn site_of(frames: &[(&str, &str)]) -> String {
        let mut names = Names::default();
        let mut modules = Vec::new();
        let mut stack = Vec::new();
        for (n, &(path, function)) in (0..).zip(frames) {
            modules.push(Arc::new(Module {
                kind: ModuleKind::File,
                path: path.into(),
                open_path: path.into(),
                deleted: false,
                build_id: None,
                mappings: Vec::new(),
            }));
            let function = if function.is_empty() { Err(NoSymbol::Stripped) } else { Ok(function.into()) };
            let name = FrameName { function, ..FrameName::unknown(NoSymbol::Stripped) };
            names.insert(ModuleId(n), FileVaddr(1), [name].as_slice().into());
            stack.push(Frame { addr: FrameAddr::Return(UserAddr(2)), location: Some((ModuleId(n), FileVaddr(1))) });
        }
        let snapshot = Snapshot {
            modules,
            stacks: vec![StackStats {
                id: StackId(1),
                stack: Arc::new(Stack { frames: stack, ..Stack::default() }),
                totals: Totals::default(),
            }],
            ..Snapshot::default()
        };
        let attribution = Attribution::new(&[], false).expect("no patterns of a user");
        let found = statistics(&snapshot, &names, &attribution, &ReportOptions::default());
        let site = found.lines[0].site.expect("the stack has frames");
        site.name.function.as_deref().unwrap_or("?").to_owned()
    }

    const LIBC: &str = "/lib/libc.so.6";
    const LIBSTDCXX: &str = "/lib/libstdc++.so.6";
    const LD: &str = "/lib64/ld-linux-x86-64.so.2";
    const APP: &str = "/usr/bin/app";

    #[test]
    fn the_site_is_the_innermost_frame_that_is_not_plumbing() {
        assert_eq!(site_of(&[(LIBC, "fopen"), (APP, "xmalloc"), (APP, "load"), (APP, "main")]), "load");
        assert_eq!(site_of(&[(LIBSTDCXX, "operator new(unsigned long)"), (APP, ""), (APP, "main")]), "?");
    }

    #[test]
    fn the_pool_of_libstdcxx_is_its_own_and_not_the_loaders() {
        let stack = [(LIBSTDCXX, "pool"), (LD, "call_init"), (LD, "_dl_init"), (LD, "_dl_start_user")];
        assert_eq!(site_of(&stack), "pool");
    }

    #[test]
    fn what_libc_does_before_main_is_not_the_start_of_the_program() {
        assert_eq!(
            site_of(&[(LIBC, "init_cacheinfo"), (LIBC, "__libc_start_main"), (APP, "_start")]),
            "init_cacheinfo"
        );
    }

    #[test]
    fn a_wrapper_of_the_program_stands_before_the_libraries_around_it() {
        assert_eq!(site_of(&[(LIBC, "strdup"), (APP, "xstrdup"), (LIBC, "__libc_start_main")]), "xstrdup");
    }
}
