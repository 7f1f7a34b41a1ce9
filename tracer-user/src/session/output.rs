//! Where reports go: names are looked up, lines made, text to standard output, JSON to its file.

use std::{
    fs,
    io::{self, IsTerminal as _, Write as _},
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::Context as _;
use indicatif::{ProgressBar, ProgressStyle};
use tracer_common::addr::FileVaddr;

use crate::{
    analysis::{filter::filtered, processes::Moment, statistics::statistics},
    options::{JsonTarget, ReportOptions, SessionOptions},
    report,
    snapshot::{Module, ModuleId, Snapshot},
    symbolize::{Attribution, Names, Progress, SymbolizeOptions, Symbolizer},
    target::Root,
};

/// The reports of one session.
pub struct Output {
    symbolizer: Symbolizer,
    attribution: Attribution,
    options: SessionOptions,
    spinner: ProgressBar,
    refreshes: bool,
    /// The last report but the one at the end: rates of processes are those since.
    earlier: Option<Moment>,
}

impl Output {
    /// Checks everything that can go wrong with the output before tracing starts.
    ///
    /// # Errors
    /// A glob is broken, or the JSON file cannot be made.
    pub fn new(options: SessionOptions) -> anyhow::Result<Self> {
        let attribution = Attribution::new(&options.report.plumbing, options.report.raw_leaf)?;
        if let Some(JsonTarget::File(path)) = &options.json {
            check_writable(path)?;
        }
        let spinner = if options.quiet || !io::stderr().is_terminal() {
            ProgressBar::hidden()
        } else {
            ProgressBar::new_spinner()
                .with_style(ProgressStyle::with_template("{spinner} {msg}").expect("a fixed template is well-formed"))
        };
        let refreshes = io::stdout().is_terminal();
        let symbolizer = Symbolizer::new(SymbolizeOptions::default());
        Ok(Self { symbolizer, attribution, options, spinner, refreshes, earlier: None })
    }

    /// Looks for debug files in these targets' roots too.
    pub fn look_in(&mut self, roots: &[Arc<Root>]) {
        self.symbolizer.look_in(roots);
    }

    /// Tells what is being read, on a terminal.
    pub fn progress(&self, what: &str) {
        self.spinner.set_message(format!("reading {}", report::escaped(what)));
        self.spinner.tick();
    }

    /// Takes the progress line away.
    pub fn progress_done(&self) {
        self.spinner.finish_and_clear();
    }

    /// A report while tracing goes on: replaces the last one on a terminal, else follows it. `last_line` stands below it.
    ///
    /// # Errors
    /// Standard output cannot be written.
    pub fn refresh(&mut self, snapshot: &Snapshot, last_line: &str) -> anyhow::Result<()> {
        if self.options.json == Some(JsonTarget::Stdout) {
            return Ok(());
        }
        let mut text = self.text(snapshot);
        if !last_line.is_empty() {
            text.push_str(last_line);
            text.push('\n');
        }
        // Home, report, clear what is left below (ECMA-48: CUP, ED).
        let text = if self.refreshes {
            format!("\x1b[H{}\x1b[J", text.replace('\n', "\x1b[K\n"))
        } else {
            format!("{text}\n")
        };
        print(&text)
    }

    /// The last report, in every form asked for.
    ///
    /// # Errors
    /// Standard output or the JSON file cannot be written.
    pub fn finish(&mut self, snapshot: &Snapshot) -> anyhow::Result<()> {
        let progress = |progress: Progress<'_>| name_progress(&self.spinner, progress);
        let names = self.symbolizer.resolve(snapshot, &progress);
        self.spinner.finish_and_clear();
        let options = &self.options;
        let snapshot = &self.shown(snapshot, &names);
        let lines = statistics(snapshot, &names, &self.attribution, &options.report);
        match &options.json {
            Some(JsonTarget::Stdout) => return print(&report::json::render(snapshot, &lines)),
            Some(JsonTarget::File(path)) => {
                let json = report::json::render(snapshot, &lines);
                fs::write(path, json).with_context(|| format!("failed to write `{}`", path.display()))?;
            }
            None => {}
        }
        let clear = if self.refreshes && options.interval.is_some() { "\x1b[H\x1b[J" } else { "" };
        print(&format!("{clear}{}", report::text::render(snapshot, &lines, &options.report, options.quiet)))
    }

    /// The names at these places of a recording's modules.
    pub fn names(
        &mut self,
        modules: &[Arc<Module>],
        locations: impl IntoIterator<Item = (ModuleId, FileVaddr)>,
    ) -> Names {
        let progress = |progress: Progress<'_>| name_progress(&self.spinner, progress);
        let names = self.symbolizer.resolve_locations(modules, locations, &progress);
        self.spinner.finish_and_clear();
        names
    }

    fn text(&mut self, snapshot: &Snapshot) -> String {
        let names = self.symbolizer.resolve(snapshot, &|_| ());
        let snapshot = &self.shown(snapshot, &names);
        let lines = statistics(snapshot, &names, &self.attribution, &self.options.report);
        let earlier = self.earlier.replace(Moment::of(snapshot));
        report::text::render_since(snapshot, earlier.as_ref(), &lines, &self.options.report, self.options.quiet)
    }

    /// What of a snapshot the reports are about.
    fn shown(&self, snapshot: &Snapshot, names: &Names) -> Snapshot {
        let ReportOptions { domains, filters, .. } = &self.options.report;
        filtered(&snapshot.clone().of_domains(*domains), names, &self.attribution, filters).snapshot
    }
}

fn name_progress(spinner: &ProgressBar, progress: Progress<'_>) {
    if let Some(module) = progress.module {
        let (n, total) = (progress.done + 1, progress.total);
        spinner.set_message(format!("names of {} ({n} of {total})", report::escaped(&module.to_string_lossy())));
        spinner.tick();
    }
}

/// Writes to standard output; a reader that has gone away is no error.
fn print(text: &str) -> anyhow::Result<()> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error).context("failed to write the report"),
        _ => Ok(()),
    }
}

/// Makes the file if it is not there, so that a bad path is known before tracing starts.
fn check_writable(path: &Path) -> anyhow::Result<()> {
    let absolute: PathBuf = std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf());
    fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .with_context(|| format!("failed to open `{}` for the JSON report", absolute.display()))?;
    Ok(())
}
