//! What a test program says about itself, in comments of its source:
//!
//! ```text
//! // totals: allocated=45906/168 freed=45045/45 current=861/123 peak=45906/168      bytes/blocks
//! // counters: failed=2 frees_of_null=any moves=3        others that tell of losses are 0
//! p = malloc(7); //@ allocated=861/123 live=861/123 peak=861/123                   this line; what is not said is 0/0
//! pthread_create(...); //@ runtime          what libc allocates for itself here; not part of the totals
//! // runtime: libstdc++                     likewise, by the name that the module's file begins with
//! ```
//! `moves` is the number of reallocations that moved or resized a block.

use std::{collections::BTreeMap, fs};

use anyhow::{Context as _, Result, bail, ensure};

use crate::{
    Program,
    balance::{LOSSES, check_balance},
    report::{Figure, Report, Stat},
};

/// The truth of one program.
#[derive(Clone, Debug, Default)]
pub struct Truth {
    totals: BTreeMap<String, Figure>,
    counters: BTreeMap<String, Stated>,
    runtimes: Vec<String>,
    lines: BTreeMap<Place, Line>,
}

/// What a truth says about a counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stated {
    /// This many.
    Number(u64),
    /// It depends on libc, and says nothing about the program.
    Any,
}

/// File name and line.
type Place = (String, u32);

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Line {
    allocated: Figure,
    live: Figure,
    peak: Figure,
    /// libc's own: any amount.
    runtime: bool,
}

impl Truth {
    /// Reads it from the program's source.
    pub fn of(program: &Program) -> Result<Self> {
        let mut truth = Self::default();
        truth.read(program)?;
        for total in ["allocated", "freed", "current", "peak"] {
            ensure!(truth.totals.contains_key(total), "`{}` does not state `{total}`", program.source().display());
        }
        Ok(truth)
    }

    /// With the lines of another source that the program loads; totals are the first one's.
    pub fn and(mut self, library: &Program) -> Result<Self> {
        self.read(library)?;
        Ok(self)
    }

    /// What this module allocates for itself is not part of the totals.
    #[must_use]
    pub fn runtime(mut self, module: &str) -> Self {
        self.runtimes.push(module.to_owned());
        self
    }

    /// Another number for a counter, on a platform where it differs.
    #[must_use]
    pub fn counter(mut self, name: &str, number: u64) -> Self {
        self.counters.insert(name.to_owned(), Stated::Number(number));
        self
    }

    fn read(&mut self, program: &Program) -> Result<()> {
        let path = program.source();
        let text = fs::read_to_string(path).with_context(|| format!("failed to read `{}`", path.display()))?;
        let name = path.file_name().expect("a source has a name").to_string_lossy().into_owned();
        for (number, line) in (1..).zip(text.lines()) {
            let place = || format!("{name}:{number}");
            if let Some(fields) = line.strip_prefix("// totals: ") {
                self.totals = figures(fields).with_context(place)?;
            } else if let Some(fields) = line.strip_prefix("// counters: ") {
                self.counters = fields_of(fields, any_or_number).with_context(place)?;
            } else if let Some(module) = line.strip_prefix("// runtime: ") {
                self.runtimes.push(module.to_owned());
            } else if let Some((_, fields)) = line.split_once("//@ ") {
                let runtime = fields.trim() == "runtime";
                let figures = if runtime { BTreeMap::new() } else { figures(fields).with_context(place)? };
                let get = |key: &str| figures.get(key).copied().unwrap_or_default();
                let line = Line { allocated: get("allocated"), live: get("live"), peak: get("peak"), runtime };
                self.lines.insert((name.clone(), number), line);
            }
        }
        Ok(())
    }

    /// Compares every total, counter and line, and closes the balance.
    pub fn check(&self, report: &Report) -> Result<()> {
        self.check_figures(report).with_context(|| {
            let lines: Vec<String> = report.stats.iter().map(describe).collect();
            format!("totals {:?}\ncounters {:?}\n{}", report.totals, nonzero(report), lines.join("\n"))
        })
    }

    /// Compares totals and counters alone, without what `is_runtime` tells to be the runtime's own: for programs whose lines are
    /// attributed to code of others.
    pub fn check_totals(&self, report: &Report, is_runtime: impl Fn(&Stat) -> bool) -> Result<()> {
        let sum = |figure: fn(&Stat) -> Figure| {
            let own = report.stats.iter().filter(|stat| is_runtime(stat)).map(figure);
            own.fold(Figure::default(), |a, b| a + b)
        };
        let (allocated, live) = (sum(Stat::allocated), sum(Stat::live));
        let totals = &report.totals;
        let mut problems = Vec::new();
        for (what, seen) in [
            ("allocated", totals.allocated() - allocated),
            ("freed", totals.freed() - (allocated - live)),
            ("current", totals.current() - live),
            ("peak", totals.peak() - sum(Stat::peak)),
        ] {
            if self.totals[what] != seen {
                problems.push(format!("{what}: the truth is {:?}, the report says {seen:?}", self.totals[what]));
            }
        }
        for name in LOSSES.into_iter().filter(|name| !name.starts_with("truncated_")) {
            let (stated, seen) = (self.stated(name), crate::counter(report, name)?);
            if stated != Stated::Any && stated != Stated::Number(seen) {
                problems.push(format!("{name}: the truth is {stated:?}, the report says {seen}"));
            }
        }
        check_balance(report)?;
        let lines: Vec<String> = report.stats.iter().map(describe).collect();
        ensure!(problems.is_empty(), "{}\ncounters {:?}\n{}", problems.join("\n"), nonzero(report), lines.join("\n"));
        Ok(())
    }

    fn check_figures(&self, report: &Report) -> Result<()> {
        let mut problems = Vec::new();
        let mut compare = |what: String, stated: String, seen: String| {
            if stated != seen {
                problems.push(format!("{what}: the truth is {stated}, the report says {seen}"));
            }
        };
        let runtime: Vec<&Stat> = report.stats.iter().filter(|stat| self.is_runtime(stat)).collect();
        let sum = |figure: fn(&Stat) -> Figure| {
            runtime.iter().map(|&stat| figure(stat)).fold(Figure::default(), |a, b| a + b)
        };
        let (allocated, live) = (sum(Stat::allocated), sum(Stat::live));
        let totals = &report.totals;
        for (what, seen) in [
            ("allocated", totals.allocated() - allocated),
            ("freed", totals.freed() - (allocated - live)),
            ("current", totals.current() - live),
            ("peak", totals.peak() - sum(Stat::peak)),
        ] {
            compare(what.to_owned(), format!("{:?}", self.totals[what]), format!("{seen:?}"));
        }
        for name in LOSSES.into_iter().chain(["failed", "frees_of_null"]) {
            let Stated::Number(stated) = self.stated(name) else { continue };
            compare(name.to_owned(), stated.to_string(), crate::counter(report, name)?.to_string());
        }
        for stat in &report.stats {
            if self.line(stat).is_none() && !self.is_runtime(stat) {
                problems.push(format!("unexpected line: {}", describe(stat)));
            }
        }
        for (place, line) in self.lines.iter().filter(|(_, line)| !line.runtime) {
            let seen = report.stats.iter().find(|stat| place_of(stat).as_ref() == Some(place)).map_or_else(
                Line::default,
                |stat| Line { allocated: stat.allocated(), live: stat.live(), peak: stat.peak(), runtime: false },
            );
            if *line != seen {
                problems.push(format!("{}:{}: the truth is {line:?}, the report says {seen:?}", place.0, place.1));
            }
        }
        match check_balance(report) {
            Ok(moves) => {
                // A move of libc's own blocks would be none of the program's.
                let stated = self.stated("moves");
                if stated != Stated::Number(moves) {
                    problems.push(format!("moves: the truth is {stated:?}, the balance leaves {moves}"));
                }
            }
            Err(error) => problems.push(format!("{error:#}")),
        }
        ensure!(problems.is_empty(), "{}", problems.join("\n"));
        Ok(())
    }

    fn stated(&self, counter: &str) -> Stated {
        self.counters.get(counter).copied().unwrap_or(Stated::Number(0))
    }

    fn is_runtime(&self, stat: &Stat) -> bool {
        let module = stat.module.as_deref().and_then(|path| path.rsplit('/').next()).unwrap_or_default();
        self.line(stat).is_some_and(|line| line.runtime) || self.runtimes.iter().any(|name| module.starts_with(name))
    }

    fn line(&self, stat: &Stat) -> Option<&Line> {
        self.lines.get(&place_of(stat)?)
    }
}

fn place_of(stat: &Stat) -> Option<Place> {
    let name = stat.file.as_deref()?.rsplit('/').next()?;
    Some((name.to_owned(), stat.line?))
}

fn describe(stat: &Stat) -> String {
    format!(
        "  {}: allocated {:?} live {:?} peak {:?} {} {}",
        stat.site(),
        stat.allocated(),
        stat.live(),
        stat.peak(),
        stat.functions().join(" < "),
        stat.truncated.as_deref().unwrap_or_default()
    )
}

fn nonzero(report: &Report) -> BTreeMap<&String, &u64> {
    report.counters.iter().filter(|(_, count)| **count != 0).collect()
}

fn figures(fields: &str) -> Result<BTreeMap<String, Figure>> {
    fields_of(fields, |text| {
        let (bytes, count) = text.split_once('/')?;
        Some(Figure::new(bytes.parse().ok()?, count.parse().ok()?))
    })
}

fn any_or_number(text: &str) -> Option<Stated> {
    if text == "any" { Some(Stated::Any) } else { text.parse().ok().map(Stated::Number) }
}

fn fields_of<T>(fields: &str, parse: impl Fn(&str) -> Option<T>) -> Result<BTreeMap<String, T>> {
    let mut found = BTreeMap::new();
    for field in fields.split_whitespace() {
        let Some((key, value)) = field.split_once('=').and_then(|(key, value)| Some((key, parse(value)?))) else {
            bail!("`{field}` is no KEY=VALUE");
        };
        found.insert(key.to_owned(), value);
    }
    Ok(found)
}
