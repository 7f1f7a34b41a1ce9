//! `check`: the CI gate: budgets and baselines.

use std::{
    fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use anyhow::Context as _;

use super::{
    export::ExportOutput,
    open::open,
    output::{NamedFile, check_distinct},
    select::find,
};
use crate::{
    analysis::check::{self, Budgets, Outcome, Subject, Suppressions, same_program},
    recording::{Recording, Reference, Which},
    report,
    symbolize::Attribution,
};

/// Exit status when a budget is exceeded, or it cannot be told whether it is.
pub const EXCEEDED: u8 = 3;

/// `check REC`.
#[derive(Clone, Debug, PartialEq)]
pub struct CheckOptions {
    /// The snapshot.
    pub reference: Reference,
    /// What it is held against.
    pub gate: GateOptions,
}

/// What a recording is held against, and where that is said.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GateOptions {
    /// What is allowed.
    pub budgets: Budgets,
    /// Known leaks, in LeakSanitizer's syntax.
    pub suppressions: Option<PathBuf>,
    /// What growth is measured from.
    pub baseline: Option<Reference>,
    /// The baseline may be of another executable.
    pub allow_other_program: bool,
    /// The outcome for a pull request or a job summary; appended to what the file holds.
    pub markdown: Option<ExportOutput>,
    /// The outcome as test results. Of the two one at most goes to standard output, in place of the text.
    pub junit: Option<ExportOutput>,
    /// Sites shown of each exceeded budget.
    pub top: usize,
    /// Additional glob patterns (function or file) of frames that are never a site.
    pub plumbing: Vec<String>,
    /// The innermost frame is the site, plumbing or not.
    pub raw_leaf: bool,
}

/// Everything that a check needs beside the recording, read and found in order.
#[derive(Debug)]
pub struct Gate {
    options: GateOptions,
    suppressions: Suppressions,
    baseline: Option<(Recording, Which)>,
    attribution: Attribution,
}

/// Runs the command; the exit status.
///
/// # Errors
/// A recording or the suppressions cannot be read, the budgets make no sense for them, or the output not written.
pub fn check(options: &CheckOptions) -> anyhow::Result<u8> {
    check_distinct(
        &[vec![("the recording", &*options.reference.path)], options.gate.read()].concat(),
        &options.gate.written(),
    )?;
    let gate = Gate::prepare(options.gate.clone())?;
    let recording = open(&options.reference.path)?;
    let which = find(&recording, &options.reference.path, options.reference.snapshot.as_deref())?;
    gate.check(&recording, which, &mut io::stdout())
}

impl GateOptions {
    /// The files that it reads.
    pub fn read(&self) -> Vec<NamedFile<'_>> {
        let baseline = self.baseline.as_ref().map(|baseline| ("--baseline", &*baseline.path));
        let suppressions = self.suppressions.as_deref().map(|path| ("--suppressions", path));
        baseline.into_iter().chain(suppressions).collect()
    }

    /// The files that it writes.
    pub fn written(&self) -> Vec<NamedFile<'_>> {
        let outputs = [("--markdown", &self.markdown), ("--junit", &self.junit)];
        outputs.into_iter().filter_map(|(what, output)| Some((what, file(output.as_ref())?))).collect()
    }
}

/// Where an outcome goes, unless that is standard output.
fn file(output: Option<&ExportOutput>) -> Option<&Path> {
    match output? {
        ExportOutput::Stdout => None,
        ExportOutput::File(path) => Some(path),
    }
}

impl Gate {
    /// Reads the suppressions and the baseline, and sees that the outputs can be written: before any work is done.
    ///
    /// # Errors
    /// One of them cannot.
    pub fn prepare(options: GateOptions) -> anyhow::Result<Self> {
        for (_, path) in options.written() {
            append_to(path)?;
        }
        let suppressions = match &options.suppressions {
            Some(path) => read_suppressions(path)?,
            None => Suppressions::default(),
        };
        let attribution = Attribution::new(&options.plumbing, options.raw_leaf)?;
        let baseline = match &options.baseline {
            Some(reference) => {
                let recording = open(&reference.path)?;
                let which = find(&recording, &reference.path, reference.snapshot.as_deref())?;
                Some((recording, which))
            }
            None => None,
        };
        Ok(Self { options, suppressions, baseline, attribution })
    }

    /// Checks the last snapshot of a recording; see [`Gate::check`].
    ///
    /// # Errors
    /// It cannot be read; else as there.
    pub fn check_file(&self, path: &Path, out: &mut dyn io::Write) -> anyhow::Result<u8> {
        let recording = open(path)?;
        self.check(&recording, find(&recording, path, None)?, out)
    }

    /// Checks a recording and says what was found on `out`; the exit status: 0, or [`EXCEEDED`].
    ///
    /// # Errors
    /// The budgets make no sense for it, or the output cannot be written.
    pub fn check(&self, recording: &Recording, which: Which, out: &mut dyn io::Write) -> anyhow::Result<u8> {
        let outcome = self.judge(recording, which)?;
        let top = self.options.top;
        if let Some(path) = file(self.options.markdown.as_ref()) {
            let text = report::check::markdown(&outcome, top);
            append_to(path)?
                .write_all(text.as_bytes())
                .with_context(|| format!("failed to write `{}`", path.display()))?;
        }
        if let Some(path) = file(self.options.junit.as_ref()) {
            let text = report::check::junit(&outcome, top);
            fs::write(path, text).with_context(|| format!("failed to write `{}`", path.display()))?;
        }
        let text = match (&self.options.markdown, &self.options.junit) {
            (Some(ExportOutput::Stdout), _) => report::check::markdown(&outcome, top),
            (_, Some(ExportOutput::Stdout)) => report::check::junit(&outcome, top),
            _ => report::check::text(&outcome, top),
        };
        out.write_all(text.as_bytes()).context("failed to write the outcome of the check")?;
        Ok(if outcome.passed() { 0 } else { EXCEEDED })
    }

    fn judge(&self, recording: &Recording, which: Which) -> anyhow::Result<Outcome> {
        let subject = Subject { recording, which };
        let baseline = self.baseline.as_ref().map(|(recording, which)| Subject { recording, which: *which });
        if let Some(baseline) = baseline
            && !self.options.allow_other_program
        {
            same_program(baseline.target(), subject.target())?;
        }
        Ok(check::check(subject, baseline, &self.options.budgets, &self.suppressions, &self.attribution)?)
    }
}

fn read_suppressions(path: &Path) -> anyhow::Result<Suppressions> {
    let name = path.display();
    let text = fs::read_to_string(path).with_context(|| format!("failed to read `{name}`"))?;
    text.parse().map_err(|check::SuppressionError { line, reason }| anyhow::anyhow!("{name}:{line}: {reason}"))
}

fn append_to(path: &Path) -> anyhow::Result<fs::File> {
    let open = fs::OpenOptions::new().create(true).append(true).open(path);
    open.with_context(|| format!("failed to open `{}` for the outcome of the check", path.display()))
}
