//! The sites of a snapshot, and which site of one build is which of another. Unlike `diff`, which shows each line as it is, a gate
//! must not fail for a line that only moved.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    ffi::OsStr,
    path::Path,
    sync::Arc,
};

use crate::{
    analysis::statistics::statistics,
    options::{Key, ReportOptions},
    snapshot::{Snapshot, Totals},
    symbolize::{Attribution, Names, NoSymbol, module_name},
};

/// What modules of one recording are called in a later one, where they are the same under other names: by build id; and the program
/// itself, whatever it is called.
pub(super) fn renamed_modules(before: &Snapshot, after: &Snapshot) -> HashMap<String, String> {
    let builds: HashMap<&[u8], String> = after
        .modules
        .iter()
        .rev()
        .filter_map(|module| Some((module.build_id.as_deref()?, module_name(module))))
        .collect();
    let program = |snapshot: &Snapshot| {
        let exe = snapshot.target.exe.as_deref()?;
        snapshot.modules.iter().find(|module| module.path == exe).map(|module| module_name(module))
    };
    let rebuilt = program(before).zip(program(after));
    let same = before
        .modules
        .iter()
        .filter_map(|module| Some((module_name(module), builds.get(module.build_id.as_deref()?)?.clone())));
    rebuilt.into_iter().chain(same).filter(|(name, other)| name != other).collect()
}

/// Where memory is attributed, on its own: it outlives its snapshot. All names are hostile input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SiteName {
    /// The module's file name. `None`: in no known mapping, or the stack could not be stored.
    pub module: Option<String>,
    /// The function, or why it has no name.
    pub function: Result<Arc<str>, NoSymbol>,
    /// Source file.
    pub file: Option<Arc<Path>>,
    /// Line in it; `None` also where several lines of a function are one.
    pub line: Option<u32>,
    /// The vaddr that names were looked up by.
    pub address: u64,
}

/// What is the same function in two builds. Folders are left out: builds lie in different ones.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct FunctionKey {
    module: Option<String>,
    function: Option<Arc<str>>,
    file: Option<Box<OsStr>>,
}

/// A place within a function: its line, else its address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Within {
    Line(u32),
    Address(u64),
}

/// All sites of a snapshot with their totals.
#[derive(Clone, Debug, Default)]
pub struct Sites {
    by_function: HashMap<FunctionKey, BTreeMap<Within, (SiteName, Totals)>>,
}

/// A site at two moments.
#[derive(Clone, Debug)]
pub struct Pair {
    /// Its name in the newer one, if it is there.
    pub site: SiteName,
    /// Zero where it was not there.
    pub before: Totals,
    /// Zero where it is not there any more.
    pub after: Totals,
}

impl Sites {
    /// Attributes every stack.
    pub fn of(snapshot: &Snapshot, names: &Names, attribution: &Attribution) -> Self {
        let options = ReportOptions { key: Key::Traceback, ..ReportOptions::default() };
        let mut sites = Self::default();
        for line in statistics(snapshot, names, attribution, &options).lines {
            let site = match &line.site {
                Some(site) => SiteName {
                    module: site.module(snapshot).map(module_name),
                    function: site.name.function.clone(),
                    file: site.name.file.clone(),
                    line: site.name.line,
                    address: site.address,
                },
                None => {
                    SiteName { module: None, function: Err(NoSymbol::NotMapped), file: None, line: None, address: 0 }
                }
            };
            let key = FunctionKey {
                module: site.module.clone(),
                function: site.function.clone().ok(),
                file: site.file.as_deref().and_then(Path::file_name).map(Box::from),
            };
            let within = site.line.map_or(Within::Address(site.address), Within::Line);
            let sites = sites.by_function.entry(key).or_default();
            sites.entry(within).or_insert_with(|| (site, Totals::default())).1.add(&line.totals);
        }
        sites
    }

    /// The same, with modules called as `names` has them.
    #[must_use]
    pub fn renamed(self, names: &HashMap<String, String>) -> Self {
        let mut sites = Self::default();
        for (mut key, places) in self.by_function {
            if let Some(other) = key.module.as_ref().and_then(|module| names.get(module)) {
                key.module = Some(other.clone());
            }
            let known = sites.by_function.entry(key).or_default();
            for (within, (site, totals)) in places {
                known.entry(within).or_insert_with(|| (site, Totals::default())).1.add(&totals);
            }
        }
        sites
    }

    /// Every site, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (&SiteName, &Totals)> {
        self.by_function.values().flat_map(BTreeMap::values).map(|(site, totals)| (site, totals))
    }

    /// The sites of two moments of one build.
    pub fn pairs_within(before: &Self, after: &Self) -> Vec<Pair> {
        Self::pairs(before, after, |_, _| true)
    }

    /// The sites of two builds. Code above a function moves its lines: where the lines of a function that allocate are not the
    /// same, the function is compared as one.
    pub fn pairs_across(before: &Self, after: &Self) -> Vec<Pair> {
        Self::pairs(before, after, |before, after| before.keys().eq(after.keys()))
    }

    fn pairs(
        before: &Self,
        after: &Self,
        by_line: impl Fn(&BTreeMap<Within, (SiteName, Totals)>, &BTreeMap<Within, (SiteName, Totals)>) -> bool,
    ) -> Vec<Pair> {
        let none = BTreeMap::new();
        let functions: BTreeSet<_> = before.by_function.keys().chain(after.by_function.keys()).collect();
        let mut pairs = Vec::new();
        for function in functions {
            let before = before.by_function.get(function).unwrap_or(&none);
            let after = after.by_function.get(function).unwrap_or(&none);
            if before.is_empty() || after.is_empty() || by_line(before, after) {
                let places: BTreeSet<_> = before.keys().chain(after.keys()).collect();
                pairs.extend(places.into_iter().filter_map(|place| {
                    let (before, after) = (before.get(place), after.get(place));
                    let totals = |row: Option<&(SiteName, Totals)>| row.map(|(_, totals)| *totals).unwrap_or_default();
                    let (site, _) = after.or(before)?;
                    Some(Pair { site: site.clone(), before: totals(before), after: totals(after) })
                }));
            } else {
                let sum = |rows: &BTreeMap<Within, (SiteName, Totals)>| {
                    let mut sum = Totals::default();
                    for (_, totals) in rows.values() {
                        sum.add(totals);
                    }
                    sum
                };
                let (site, _) = after.values().next().expect("neither is empty");
                let site = SiteName { line: if after.len() == 1 { site.line } else { None }, ..site.clone() };
                pairs.push(Pair { site, before: sum(before), after: sum(after) });
            }
        }
        pairs
    }
}
