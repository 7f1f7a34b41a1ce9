//! What changed between two snapshots, as `tracemalloc.Snapshot.compare_to` says it.

use std::{
    cmp::Reverse,
    collections::{HashMap, HashSet},
    ffi::OsStr,
    path::Path,
    sync::Arc,
};

use super::{
    annotate::components,
    frames::Frames,
    groups::{Groups, SharedModule, Side, Space, UNMAPPED},
    order::{OrderKey, Ranks},
    statistics::{Statistic, is_within},
};
use crate::{
    options::{Key, ReportOptions, Sort, View},
    snapshot::{Module, ModuleKind, Snapshot, Totals},
    symbolize::{Attribution, Names},
};

/// Most names at the end of two paths that are compared.
const MAX_COMPARED_NAMES: usize = 64;

/// One of the two snapshots, with the names of its frames.
#[derive(Clone, Copy, Debug)]
pub struct Named<'a> {
    /// The snapshot.
    pub snapshot: &'a Snapshot,
    /// The names.
    pub names: &'a Names,
}

/// The lines of a comparison.
#[derive(Clone, Debug)]
pub struct Diff<'a> {
    /// The older snapshot.
    pub old: Named<'a>,
    /// The newer one.
    pub new: Named<'a>,
    /// What lines stand for.
    pub key: Key,
    /// Which totals are a line's size and count.
    pub view: View,
    /// Every frame of a stack counts, so that lines overlap.
    pub cumulative: bool,
    /// What they are sorted by: the difference of it.
    pub sort: Sort,
    /// Lines whose differences are within the limits asked for, in the order of the report.
    pub lines: Vec<StatisticDiff<'a>>,
    /// Lines outside of them.
    pub left_out: RestDiff,
    /// Both are of one recording; else a line by process is all processes of one container and command.
    pub same_recording: bool,
    /// Lines that both snapshots have, limits or not.
    pub n_common: usize,
    /// Lines that only the older one has.
    pub n_vanished: usize,
    /// Lines that only the newer one has.
    pub n_new: usize,
}

/// One line: what it was and what it is. Differences are new less old.
#[derive(Clone, Copy, Debug)]
pub struct StatisticDiff<'a> {
    /// In the older snapshot; `None`: no stack there has this key.
    pub old: Option<Statistic<'a>>,
    /// In the newer one.
    pub new: Option<Statistic<'a>>,
    /// The view's bytes in the newer snapshot.
    pub size: u64,
    /// Difference of the view's bytes.
    pub size_diff: i128,
    /// The view's blocks in the newer snapshot.
    pub count: u64,
    /// Difference of the view's blocks.
    pub count_diff: i128,
}

/// Lines of a comparison that are only summed up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RestDiff {
    /// How many.
    pub n_lines: usize,
    /// Sums of the lines' own fields; cumulative lines overlap, so that they say nothing of them.
    pub size: u64,
    /// The same.
    pub size_diff: i128,
    /// The same.
    pub count: u64,
    /// The same.
    pub count_diff: i128,
}

/// Whether a line is in both snapshots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// In both.
    Both,
    /// In the newer only.
    New,
    /// In the older only.
    Vanished,
}

impl StatisticDiff<'_> {
    /// Whether the line is in both snapshots, in what the view shows: blocks that were all freed are not there.
    pub fn presence(&self) -> Presence {
        let is_now = self.size > 0 || self.count > 0;
        let was = i128::from(self.size) != self.size_diff || i128::from(self.count) != self.count_diff;
        match (was, is_now) {
            (true, false) => Presence::Vanished,
            (false, true) => Presence::New,
            _ => Presence::Both,
        }
    }

    /// The line as it is, or as it was if it vanished, and whether this is the newer snapshot's.
    pub fn latest(&self) -> (Statistic<'_>, bool) {
        self.new.map_or_else(|| (self.old.expect("a line is in one snapshot at least"), false), |new| (new, true))
    }
}

/// Compares two snapshots. `same_recording`: both share modules, threads and processes; else modules are taken for the same by
/// build id, else by path, else by file name, threads by name, and processes by container and command.
///
/// Between recordings a line is of one function: another function's line that moved to its number is another line. Source files of
/// one module are the same by path, else by name and the longest common end of their paths.
///
/// Frames without line information are the same where they are the same address of the same build; between two builds by module
/// and function. The order is tracemalloc's: absolute difference of what is asked for, then size, absolute difference of count,
/// count and key, all descending.
pub fn diff<'a>(
    old: Named<'a>,
    new: Named<'a>,
    same_recording: bool,
    attribution: &Attribution,
    options: &ReportOptions,
) -> Diff<'a> {
    let ReportOptions { key, view, sort, .. } = *options;
    let (old_side, new_side) = sides(old, new, same_recording);
    let mut old_frames = Frames::empty(old.snapshot, old.names, attribution);
    let mut new_frames = Frames::empty(new.snapshot, new.names, attribution);
    let mut groups = Groups::new(key, options.cumulative);
    let old_lines = groups.lines(&old_side, &mut old_frames, options);
    let new_lines = groups.lines(&new_side, &mut new_frames, options);
    let ranks = Ranks::of(key, &[&old_frames, &new_frames]);

    let mut merged = Vec::with_capacity(new_lines.len());
    let mut old_by_group: HashMap<_, _> = old_lines.iter().map(|(group, line)| (*group, *line)).collect();
    for (group, line) in new_lines {
        merged.push((old_by_group.remove(&group), Some(line)));
    }
    // In the order they were met: a map's own order is another in each run.
    let gone = old_lines.into_iter().filter(|(group, _)| old_by_group.contains_key(group));
    merged.extend(gone.map(|(_, line)| (Some(line), None)));

    let mut out = Diff {
        old,
        new,
        key,
        view,
        cumulative: options.cumulative,
        sort,
        lines: Vec::new(),
        left_out: RestDiff::default(),
        same_recording,
        n_common: 0,
        n_vanished: 0,
        n_new: 0,
    };
    let mut lines = Vec::with_capacity(merged.len());
    for (old, new) in merged {
        let line = compare(view, old, new);
        let sorted = difference(|totals| sort.value(view, totals), old, new).unsigned_abs();
        if line.size == 0 && line.count == 0 && line.size_diff == 0 && line.count_diff == 0 && sorted == 0 {
            continue;
        }
        match line.presence() {
            Presence::Both => out.n_common += 1,
            Presence::New => out.n_new += 1,
            Presence::Vanished => out.n_vanished += 1,
        }
        let bytes = difference(|totals| sort.bytes(view, totals), old, new).unsigned_abs();
        if !is_within(options, saturated(bytes), saturated(line.count_diff.unsigned_abs())) {
            out.left_out.add(&line);
            continue;
        }
        let order = match (&new, &old) {
            (Some(new), _) => OrderKey::new(key, new, &mut new_frames, ranks.side(1)),
            (None, Some(old)) => OrderKey::new(key, old, &mut old_frames, ranks.side(0)),
            (None, None) => continue,
        };
        let figures = (sorted, line.size_diff.unsigned_abs(), line.size, line.count_diff.unsigned_abs(), line.count);
        lines.push((Reverse((figures, order)), line));
    }
    lines.sort_by(|(a, _), (b, _)| a.cmp(b));
    out.lines = lines.into_iter().map(|(_, line)| line).collect();
    out
}

fn saturated(value: u128) -> u64 {
    u64::try_from(value).unwrap_or(u64::MAX)
}

fn compare<'a>(view: View, old: Option<Statistic<'a>>, new: Option<Statistic<'a>>) -> StatisticDiff<'a> {
    let now = new.map(|line| line.totals).unwrap_or_default();
    StatisticDiff {
        old,
        new,
        size: view.size(&now),
        size_diff: difference(|totals| view.size(totals), old, new),
        count: view.count(&now),
        count_diff: difference(|totals| view.count(totals), old, new),
    }
}

fn difference(of: impl Fn(&Totals) -> u64, old: Option<Statistic<'_>>, new: Option<Statistic<'_>>) -> i128 {
    let value = |line: Option<Statistic<'_>>| line.map_or(0, |line| i128::from(of(&line.totals)));
    value(new) - value(old)
}

impl RestDiff {
    /// Adds a line.
    pub fn add(&mut self, line: &StatisticDiff<'_>) {
        self.n_lines += 1;
        self.size = self.size.saturating_add(line.size);
        self.size_diff += line.size_diff;
        self.count = self.count.saturating_add(line.count);
        self.count_diff += line.count_diff;
    }
}

fn sides<'a>(old: Named<'a>, new: Named<'a>, same_recording: bool) -> (Side<'a>, Side<'a>) {
    if same_recording {
        return (Side::alone(old.snapshot), Side::alone(new.snapshot));
    }
    let (old_modules, new_modules) = shared_modules(&old.snapshot.modules, &new.snapshot.modules);
    let files = shared_files((old.names, &old_modules), (new.names, &new_modules));
    let elsewhere = Space(UNMAPPED.0 - 1);
    let old = Side { snapshot: old.snapshot, modules: old_modules, files, unmapped: elsewhere, is_one_session: false };
    let new = Side { modules: new_modules, unmapped: UNMAPPED, is_one_session: false, ..Side::alone(new.snapshot) };
    (old, new)
}

/// Source files of the older recording that the newer one calls otherwise, as builds in other folders do: within one module those
/// of one name, the longest common end first, each to one. A path that both have is the same file.
fn shared_files<'a>(
    (old_names, old_modules): (&'a Names, &[SharedModule]),
    (new_names, new_modules): (&'a Names, &[SharedModule]),
) -> HashMap<&'a Path, &'a Arc<Path>> {
    let (old, new) = (files_of(old_names, old_modules), files_of(new_names, new_modules));
    let paths = |files: &[(u32, &'a Arc<Path>)]| files.iter().map(|(_, file)| *file).collect::<HashSet<_>>();
    let (old_paths, new_paths) = (paths(&old), paths(&new));
    let only = |files: Vec<(u32, &'a Arc<Path>)>, others: &HashSet<&Arc<Path>>| -> Vec<_> {
        let only = files.into_iter().filter(|(_, file)| !others.contains(file));
        only.map(|(module, file)| (module, file, components(file))).collect()
    };
    let (old, new) = (only(old, &new_paths), only(new, &old_paths));
    let longest = old.iter().map(|(.., names)| names.len()).max().unwrap_or(0).min(MAX_COMPARED_NAMES);
    let (mut found, mut taken) = (HashMap::new(), HashSet::new());
    for n in (1..=longest).rev() {
        let free = new.iter().rev().filter(|(_, file, names)| names.len() >= n && !taken.contains(file));
        let mut free: HashMap<_, _> = free.map(|(module, file, names)| ((*module, &names[..n]), *file)).collect();
        for (module, file, names) in old.iter().filter(|(.., names)| names.len() >= n) {
            if !found.contains_key(&***file)
                && let Some(other) = free.remove(&(*module, &names[..n]))
            {
                found.insert(&***file, other);
                taken.insert(other);
            }
        }
    }
    found
}

/// The files of a recording's frames, each once a module, in order.
fn files_of<'a>(names: &'a Names, modules: &[SharedModule]) -> Vec<(u32, &'a Arc<Path>)> {
    let mut files = HashMap::new();
    for ((module, _), names) in names.iter() {
        let Some(module) = modules.get(module.0 as usize) else { continue };
        for file in names.iter().filter_map(|name| name.file.as_ref()) {
            files.entry((module.id, file.as_os_str())).or_insert(file);
        }
    }
    let mut files: Vec<_> = files.into_iter().map(|((module, _), file)| (module, file)).collect();
    files.sort_unstable();
    files
}

/// Which modules of two recordings are the same: by build id; of the others by path; of those left by file name.
fn shared_modules(old: &[Arc<Module>], new: &[Arc<Module>]) -> (Vec<SharedModule>, Vec<SharedModule>) {
    let alone = |id: usize| SharedModule { id: id as u32, space: Space(id as u32), is_rebuilt: false };
    let mut new_shared: Vec<SharedModule> = (0..new.len()).map(alone).collect();
    let mut old_shared: Vec<SharedModule> = (new.len()..new.len() + old.len()).map(alone).collect();
    let mut old_is_free = vec![true; old.len()];
    let mut new_is_free = vec![true; new.len()];

    let by_build: HashMap<&[u8], usize> =
        new.iter().enumerate().rev().filter_map(|(at, module)| Some((module.build_id.as_deref()?, at))).collect();
    for (at, module) in new.iter().enumerate() {
        // One build mapped twice is one module.
        if let Some(&first) = module.build_id.as_deref().and_then(|id| by_build.get(id)) {
            new_shared[at] = alone(first);
        }
    }
    for (at, module) in old.iter().enumerate() {
        if let Some(&found) = module.build_id.as_deref().and_then(|id| by_build.get(id)) {
            old_shared[at] = alone(found);
            old_is_free[at] = false;
            new_is_free[found] = false;
        }
    }

    for name in [path, file_name] {
        let mut free: HashMap<(ModuleKind, &OsStr), usize> = (0..new.len())
            .rev()
            .filter(|&at| new_is_free[at] && new_shared[at].id == at as u32)
            .map(|at| (name(&new[at]), at))
            .collect();
        for at in (0..old.len()).filter(|&at| old_is_free[at]).collect::<Vec<_>>() {
            let Some(found) = free.remove(&name(&old[at])) else { continue };
            old_shared[at] = SharedModule { id: found as u32, is_rebuilt: true, ..old_shared[at] };
            for shared in new_shared.iter_mut().filter(|shared| shared.id == found as u32) {
                shared.is_rebuilt = true;
            }
            old_is_free[at] = false;
            new_is_free[found] = false;
        }
    }
    (old_shared, new_shared)
}

fn path(module: &Arc<Module>) -> (ModuleKind, &OsStr) {
    (module.kind, module.path.as_os_str())
}

fn file_name(module: &Arc<Module>) -> (ModuleKind, &OsStr) {
    (module.kind, module.path.file_name().unwrap_or(module.path.as_os_str()))
}

#[cfg(test)]
mod tests {
    use tracer_common::addr::FileVaddr;

    use super::*;
    use crate::{
        snapshot::ModuleId,
        symbolize::{FrameName, NoSymbol},
    };

    fn module(path: &str, build_id: Option<u8>) -> Arc<Module> {
        Arc::new(Module {
            kind: ModuleKind::File,
            path: path.into(),
            open_path: path.into(),
            deleted: false,
            build_id: build_id.map(|id| vec![id]),
            mappings: Vec::new(),
        })
    }

    /// For each old module the new one that is the same, and whether their addresses are.
    fn matches(old: &[Arc<Module>], new: &[Arc<Module>]) -> Vec<Option<(usize, bool)>> {
        let (old, new) = shared_modules(old, new);
        old.iter()
            .map(|old| {
                let found = new.iter().position(|new| new.id == old.id)?;
                assert_eq!(new[found].is_rebuilt, old.is_rebuilt);
                assert_eq!(new[found].space == old.space, !old.is_rebuilt);
                Some((found, new[found].space == old.space))
            })
            .collect()
    }

    #[test]
    fn modules_are_the_same_by_build_id_then_path_then_file_name() {
        let old = [module("/a/app", Some(1)), module("/lib/libc.so", Some(2)), module("/x/libfoo.so", None)];
        let new = [module("/y/libfoo.so", Some(9)), module("/moved/libc.so", Some(2)), module("/a/app", Some(3))];
        assert_eq!(matches(&old, &new), [Some((2, false)), Some((1, true)), Some((0, false))]);
    }

    /// What the newer build calls each of the older one's files, all of one module.
    fn renamed(old: &[&str], new: &[&str]) -> Vec<Option<String>> {
        let modules = [SharedModule { id: 0, space: Space(0), is_rebuilt: true }];
        let named = |files: &[&str]| {
            let mut names = Names::default();
            for (at, file) in (1..).zip(files) {
                let name = FrameName { file: Some(Path::new(file).into()), ..FrameName::unknown(NoSymbol::Stripped) };
                names.insert(ModuleId(0), FileVaddr(at), [name].as_slice().into());
            }
            names
        };
        let (old_names, new_names) = (named(old), named(new));
        let found = shared_files((&old_names, &modules), (&new_names, &modules));
        old.iter().map(|file| found.get(Path::new(file)).map(|file| file.display().to_string())).collect()
    }

    #[test]
    fn files_are_the_same_by_path_then_by_the_longest_common_end() {
        let old = ["/a/src/x/util.c", "/a/src/y/util.c", "/usr/include/list.h", "/a/src/main.c", "/a/src/gone.c"];
        let new = ["/b/src/y/util.c", "/b/src/x/util.c", "/usr/include/list.h", "/b/app/main.c", "/b/src/new.c"];
        let expected = [Some("/b/src/x/util.c"), Some("/b/src/y/util.c"), None, Some("/b/app/main.c"), None];
        assert_eq!(renamed(&old, &new), expected.map(|file| file.map(str::to_owned)));
        // Each to one, and none that is there under its own path.
        assert_eq!(renamed(&["/a/x.c", "/b/x.c"], &["/b/x.c"]), [None, None]);
        assert_eq!(renamed(&["/a/x.c", "/b/x.c"], &["/c/x.c"]), [Some("/c/x.c".to_owned()), None]);
    }

    #[test]
    fn a_module_that_only_one_recording_has_is_matched_with_none() {
        assert_eq!(matches(&[module("/a/app", Some(1))], &[module("/a/other", Some(2))]), [None]);
        assert_eq!(matches(&[module("/a/app", Some(1))], &[]), [None]);
    }

    #[test]
    fn a_build_id_stands_before_a_path() {
        // An upgrade while the process ran: the old build is still mapped, the new one was loaded beside it.
        let old = [module("/lib/libz.so", Some(1))];
        let new = [module("/lib/libz.so", Some(2)), module("/lib/libz.so", Some(1))];
        assert_eq!(matches(&old, &new), [Some((1, true))]);
    }

    #[test]
    fn one_build_mapped_twice_is_one_module() {
        let old = [module("/lib/libz.so", Some(1)), module("/copy/libz.so", Some(1))];
        let new = [module("/lib/libz.so", Some(1)), module("/copy/libz.so", Some(1))];
        assert_eq!(matches(&old, &new), [Some((0, true)), Some((0, true))]);
    }
}
