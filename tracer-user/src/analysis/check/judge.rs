//! Recording and budgets → outcome.

use std::{cmp::Reverse, path::Path};

use thiserror::Error;

use super::{
    Allowed, Budget, Budgets, Check, Doubt, Found, Limit, Offender, Outcome, Pair, Quantity, Sites, Suppressed,
    Suppressions, Unproven, Verdict, sites::renamed_modules,
};
use crate::{
    recording::{Recording, Trigger, Which},
    snapshot::{Domains, ProcessEnd, ProcessStats, Snapshot, StackStats, TargetInfo, Totals},
    symbolize::Attribution,
};

/// One snapshot of a recording.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// The recording.
    pub recording: &'a Recording,
    /// Its snapshot.
    pub which: Which,
}

impl Subject<'_> {
    /// The process at that snapshot.
    pub fn target(&self) -> &TargetInfo {
        let last = self.recording.snapshots.len() - 1;
        let index = if let Which::Index(index) = self.which { index } else { last };
        &self.recording.snapshots[index].target
    }
}

/// Why budgets make no sense for a recording.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum CheckError {
    /// No budget.
    #[error("nothing to check (try --max-peak, --max-leaked or --baseline with --max-growth)")]
    NoBudget,
    /// Leaks are what is live at the end.
    #[error("leaks are what is live at exit, not at snapshot `{0}` (leave the snapshot out)")]
    LeaksBeforeExit(Which),
    /// Growth needs two snapshots.
    #[error("growth of sites needs an earlier snapshot than `{0}` (record with --snapshot-every)")]
    NoEarlierSnapshot(Which),
    /// Growth without a baseline.
    #[error("growth needs a baseline (try --baseline FILE)")]
    NoBaseline,
    /// The baseline is of another program.
    #[error("the baseline is of `{baseline}`, the recording of `{checked}` (--allow-other-program compares them)")]
    OtherProgram {
        /// Executable of the baseline.
        baseline: String,
        /// Executable of the recording.
        checked: String,
    },
}

/// Holds a recording against budgets.
///
/// # Errors
/// The budgets make no sense for this recording.
pub fn check(
    subject: Subject<'_>,
    baseline: Option<Subject<'_>>,
    budgets: &Budgets,
    suppressions: &Suppressions,
    attribution: &Attribution,
) -> Result<Outcome, CheckError> {
    let Subject { recording, which } = subject;
    let snapshot = recording.snapshot(which).of_domains(Domains::Heap);
    let sites = Sites::of(&snapshot, &recording.names, attribution);
    let mut judge = Judge {
        budgets,
        doubts: doubts(&subject, &snapshot),
        baseline_doubts: Vec::new(),
        checks: Vec::new(),
        suppressed: Vec::new(),
    };

    let totals = [
        (Quantity::Peak, budgets.max_peak),
        (Quantity::Current, budgets.max_current),
        (Quantity::Allocations, budgets.max_allocations),
    ];
    for (quantity, limit) in totals {
        if let Some(limit) = limit {
            judge.total(quantity, limit, &snapshot, &sites);
        }
    }
    if let Some(limit) = budgets.max_leaked {
        if which != Which::Index(recording.snapshots.len() - 1) {
            return Err(CheckError::LeaksBeforeExit(which));
        }
        judge.leaked(limit, &snapshot, recording, suppressions, attribution);
    }
    if let Some(limit) = budgets.max_site_growth {
        let first = first_of_program(recording, which).ok_or(CheckError::NoEarlierSnapshot(which))?;
        let first = recording.snapshot(Which::Index(first)).of_domains(Domains::Heap);
        let first = Sites::of(&first, &recording.names, attribution);
        judge.growth_of_sites(Budget::SiteGrowth, limit, &Sites::pairs_within(&first, &sites));
    }
    if let Some(limit) = budgets.max_growth {
        let baseline = baseline.ok_or(CheckError::NoBaseline)?;
        let before = baseline.recording.snapshot(baseline.which).of_domains(Domains::Heap);
        judge.baseline_doubts = doubts(&baseline, &before);
        let sites_before = Sites::of(&before, &baseline.recording.names, attribution);
        let sites_before = sites_before.renamed(&renamed_modules(&before, &snapshot));
        let pairs = Sites::pairs_across(&sites_before, &sites);
        judge.growth(limit, &before, &snapshot, &pairs);
    }
    if judge.checks.is_empty() {
        return Err(CheckError::NoBudget);
    }
    Ok(Outcome {
        program: if snapshot.target.comm.is_empty() { snapshot.scope.clone() } else { snapshot.target.comm.clone() },
        pid: snapshot.target.pid,
        scope: snapshot.is_of_many().then(|| (snapshot.scope.clone(), n_processes(&snapshot))),
        traced: snapshot.duration,
        from_start: snapshot.from_start,
        checks: judge.checks,
        doubts: judge.doubts,
        baseline_doubts: judge.baseline_doubts,
        allow_loss: budgets.allow_loss,
        suppressed: judge.suppressed,
    })
}

/// The first snapshot of the program that `which` shows, if that is an earlier one: exec makes another program of a process.
fn first_of_program(recording: &Recording, which: Which) -> Option<usize> {
    let until = match which {
        Which::Index(index) => index,
        Which::Peak => recording.snapshots.len() - 1,
    };
    let before = &recording.snapshots[..until];
    let first = before.iter().rposition(|info| info.meta.trigger == Trigger::Exec).map_or(0, |exec| exec + 1);
    (first < until).then_some(first)
}

/// Refuses two recordings of different executables.
///
/// # Errors
/// The file names of the executables differ.
pub fn same_program(baseline: &TargetInfo, checked: &TargetInfo) -> Result<(), CheckError> {
    let (baseline, checked) = (executable(baseline), executable(checked));
    if baseline == checked { Ok(()) } else { Err(CheckError::OtherProgram { baseline, checked }) }
}

/// File name of the executable; where it could not be read, the process's name.
fn executable(target: &TargetInfo) -> String {
    let name = target.exe.as_deref().and_then(Path::file_name);
    name.map_or_else(|| target.comm.clone(), |name| name.to_string_lossy().into_owned())
}

/// Why the figures of a snapshot may be too low.
fn doubts(subject: &Subject<'_>, snapshot: &Snapshot) -> Vec<Doubt> {
    let recording = subject.recording;
    let mut doubts: Vec<Doubt> =
        snapshot.counters.losses().map(|(counter, amount)| Doubt::Lost(counter, amount)).collect();
    // Losses are counted until the snapshot that the figures come from; a peak's is the last.
    let until = match subject.which {
        Which::Index(index) => recording.snapshots[index].at,
        Which::Peak => recording.snapshots.last().map(|info| info.at).unwrap_or_default(),
    };
    let paused = recording.series.iter().any(|sample| sample.paused && sample.at <= until)
        || recording.snapshots.iter().any(|info| info.meta.trigger == Trigger::Pause && info.at < until);
    if paused {
        doubts.push(Doubt::Paused);
    }
    doubts.extend(recording.problems.iter().cloned().map(Doubt::Broken));
    doubts
}

/// Those told together counted one by one.
fn n_processes(snapshot: &Snapshot) -> u64 {
    snapshot.told().map(|(_, process)| process.n_processes()).fold(0, u64::saturating_add)
}

/// Whether anything may still free what it holds.
fn is_running(snapshot: &Snapshot) -> bool {
    snapshot.target.running || snapshot.told().any(|(_, process)| process.ended.is_none())
}

struct Judge<'b> {
    budgets: &'b Budgets,
    doubts: Vec<Doubt>,
    baseline_doubts: Vec<Doubt>,
    checks: Vec<Check>,
    suppressed: Vec<Suppressed>,
}

impl Judge<'_> {
    /// Losses make figures too low, so what is too much stays too much, and what is not is unproven.
    fn verdict(&self, exceeded: bool) -> Verdict {
        let in_doubt = !self.doubts.is_empty() || !self.baseline_doubts.is_empty();
        if exceeded {
            Verdict::Fail
        } else if in_doubt && !self.budgets.allow_loss {
            Verdict::CannotTell(Unproven::Lost)
        } else {
            Verdict::Pass
        }
    }

    fn total(&mut self, quantity: Quantity, limit: u64, snapshot: &Snapshot, sites: &Sites) {
        let found = Found::Amount { value: quantity.of(&snapshot.totals), count: quantity.count(&snapshot.totals) };
        let exceeded = quantity.of(&snapshot.totals) > limit;
        self.checks.push(Check {
            budget: Budget::Total(quantity),
            allowed: Allowed::AtMost(limit),
            found,
            verdict: self.verdict(exceeded),
            offenders: if exceeded { largest(sites, quantity) } else { Vec::new() },
        });
    }

    fn leaked(
        &mut self,
        limit: u64,
        snapshot: &Snapshot,
        recording: &Recording,
        suppressions: &Suppressions,
        attribution: &Attribution,
    ) {
        let mut suppressed: Vec<Suppressed> = suppressions
            .rules
            .iter()
            .map(|rule| {
                let pattern = rule.pattern.as_str().to_owned();
                Suppressed { line: rule.line, pattern, matches: false, bytes: 0, count: 0 }
            })
            .collect();
        let paths: Vec<_> = snapshot.modules.iter().map(|module| module.path.to_string_lossy()).collect();
        // An exec takes the address space away, with no chance to free what was in it.
        let became_another = |process: &ProcessStats| matches!(process.ended, Some((_, ProcessEnd::Exec)));
        let is_gone = |stack: &StackStats| {
            let process = stack.stack.process.and_then(|id| snapshot.processes.get(id.0 as usize));
            process.is_some_and(became_another)
        };
        let mut left = Snapshot { stacks: Vec::new(), ..snapshot.clone() };
        for stack in snapshot.stacks.iter().filter(|stack| stack.totals.current_count > 0 && !is_gone(stack)) {
            let frames = stack.stack.frames.iter().map(|frame| {
                let module = frame.location.and_then(|(module, _)| paths.get(module.0 as usize));
                (&recording.names.of(frame)[..], module.map(AsRef::as_ref))
            });
            let mut rules = suppressions.find(&frames);
            match rules.next() {
                Some(rule) => {
                    suppressed[rule].bytes += stack.totals.current_bytes;
                    suppressed[rule].count += stack.totals.current_count;
                    std::iter::once(rule).chain(rules).for_each(|rule| suppressed[rule].matches = true);
                }
                None => left.stacks.push(stack.clone()),
            }
        }
        self.suppressed = suppressed;
        let taken = |what: fn(&Suppressed) -> u64, suppressed: &[Suppressed]| suppressed.iter().map(what).sum::<u64>();
        // From the totals, not from the stacks: a block without a stack is a leak as well.
        let mut gone = Totals::default();
        for process in snapshot.processes.iter().filter(|process| became_another(process)) {
            gone.add(&process.totals);
        }
        let (bytes, count) = (gone.current_bytes + taken(|rule| rule.bytes, &self.suppressed), gone.current_count);
        let value = snapshot.totals.current_bytes.saturating_sub(bytes);
        let count = snapshot.totals.current_count.saturating_sub(count + taken(|rule| rule.count, &self.suppressed));
        let exceeded = value > limit;
        let verdict = match self.verdict(exceeded) {
            _ if is_running(snapshot) => Verdict::CannotTell(Unproven::StillRunning),
            verdict => verdict,
        };
        let sites = Sites::of(&left, &recording.names, attribution);
        self.checks.push(Check {
            budget: Budget::Leaked,
            allowed: Allowed::AtMost(limit),
            found: Found::Amount { value, count },
            verdict,
            offenders: if exceeded { largest(&sites, Quantity::Current) } else { Vec::new() },
        });
    }

    /// Each total, and each site, against the baseline.
    fn growth(&mut self, limit: Limit, before: &Snapshot, after: &Snapshot, pairs: &[Pair]) {
        for quantity in [Quantity::Peak, Quantity::Current, Quantity::Allocated] {
            self.growth_of_total(quantity, limit, before, after, pairs);
            self.growth_of_sites(Budget::GrowthOfSites(quantity), limit, pairs);
            // The sites that grew too much are named once.
            if let [.., total, sites] = &mut self.checks[..]
                && !sites.offenders.is_empty()
            {
                total.offenders.clear();
            }
        }
        // Bytes say nothing of a number of blocks.
        if matches!(limit, Limit::Share(_)) {
            self.growth_of_total(Quantity::Allocations, limit, before, after, pairs);
        }
    }

    fn growth_of_total(
        &mut self,
        quantity: Quantity,
        limit: Limit,
        before: &Snapshot,
        after: &Snapshot,
        pairs: &[Pair],
    ) {
        let (was, is) = (quantity.of(&before.totals), quantity.of(&after.totals));
        let exceeded = self.grew_too_much(quantity, limit, was, is);
        self.checks.push(Check {
            budget: Budget::Growth(quantity),
            allowed: self.allowed(quantity, limit),
            found: Found::Change { before: was, after: is },
            verdict: self.verdict(exceeded),
            offenders: if exceeded { grown(pairs, quantity, |_, _| true) } else { Vec::new() },
        });
    }

    fn growth_of_sites(&mut self, budget: Budget, limit: Limit, pairs: &[Pair]) {
        let quantity = budget.quantity();
        let offenders = grown(pairs, quantity, |was, is| self.grew_too_much(quantity, limit, was, is));
        self.checks.push(Check {
            budget,
            allowed: self.allowed(quantity, limit),
            found: Found::Sites { n_over: offenders.len(), n_compared: pairs.len() },
            verdict: self.verdict(!offenders.is_empty()),
            offenders,
        });
    }

    /// A percentage of little is noise: the floor is always allowed, for bytes. A limit in bytes means what it says.
    fn grew_too_much(&self, quantity: Quantity, limit: Limit, was: u64, is: u64) -> bool {
        let growth = is.saturating_sub(was);
        match limit {
            Limit::Bytes(bytes) => growth > bytes,
            Limit::Share(share) => {
                let floor = if quantity.is_bytes() { self.budgets.growth_floor } else { 0 };
                growth > floor && growth as f64 > was as f64 * share
            }
        }
    }

    fn allowed(&self, quantity: Quantity, limit: Limit) -> Allowed {
        let has_floor = matches!(limit, Limit::Share(_)) && quantity.is_bytes();
        Allowed::Growth(limit, has_floor.then_some(self.budgets.growth_floor))
    }
}

/// All sites that have any of it, the largest first.
fn largest(sites: &Sites, quantity: Quantity) -> Vec<Offender> {
    let offenders = sites.iter().map(|(site, totals)| Offender {
        site: site.clone(),
        value: quantity.of(totals),
        count: quantity.count(totals),
        before: None,
    });
    let mut offenders: Vec<Offender> = offenders.filter(|offender| offender.value > 0).collect();
    offenders.sort_by(|a, b| b.value.cmp(&a.value).then_with(|| place(a).cmp(&place(b))));
    offenders
}

/// All sites that grew and of which `is_over(before, after)` holds, the largest growth first.
fn grown(pairs: &[Pair], quantity: Quantity, is_over: impl Fn(u64, u64) -> bool) -> Vec<Offender> {
    let offenders = pairs.iter().map(|pair| Offender {
        site: pair.site.clone(),
        value: quantity.of(&pair.after),
        count: quantity.count(&pair.after),
        before: Some(quantity.of(&pair.before)),
    });
    let growth = |offender: &Offender| offender.value.saturating_sub(offender.before.unwrap_or(0));
    let mut offenders: Vec<Offender> = offenders
        .filter(|offender| growth(offender) > 0 && is_over(offender.before.unwrap_or(0), offender.value))
        .collect();
    offenders.sort_by(|a, b| {
        let key = |offender: &Offender| Reverse((growth(offender), offender.value));
        key(a).cmp(&key(b)).then_with(|| place(a).cmp(&place(b)))
    });
    offenders
}

/// The order of equals.
fn place(offender: &Offender) -> (Option<&Path>, Option<u32>, Option<&str>, Option<&str>, u64) {
    let site = &offender.site;
    let function = site.function.as_deref().ok();
    (site.file.as_deref(), site.line, function, site.module.as_deref(), site.address)
}
