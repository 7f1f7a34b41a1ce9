//! `annotate`: a source file with the memory of each line beside it.

use std::{
    fs,
    io::{self, IsTerminal as _, Read as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, bail, ensure};

use super::{
    open::open,
    output::print,
    select::{find, select, title},
};
use crate::{
    analysis::annotate::{annotate as analyse, find_file},
    options::ReportOptions,
    recording::{Recording, Reference, Which},
    report::{
        annotate::{AnnotateLayout, render},
        snapshots::utc,
    },
    snapshot::{ModuleKind, Snapshot},
    symbolize::Attribution,
};

/// Largest source read: 16 MiB.
const MAX_SOURCE_BYTES: u64 = 16 << 20;
/// A source with a zero byte among its first bytes is no text.
const PROBED_BYTES: usize = 8 * 1024;

/// `annotate REC[@SNAPSHOT] SOURCE`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AnnotateOptions {
    /// The snapshot.
    pub reference: Reference,
    /// The source file.
    pub source: PathBuf,
    /// What the debug information calls it, where that cannot be told from its path.
    pub called: Option<PathBuf>,
    /// Lines printed around those with memory; the whole source by default.
    pub context: Option<usize>,
    /// What the report shows.
    pub report: ReportOptions,
}

/// Runs the command; the exit status.
///
/// # Errors
/// The recording or the source cannot be read, no frame lies in the source, or the output cannot be written.
pub fn annotate(options: &AnnotateOptions) -> anyhow::Result<u8> {
    let attribution = Attribution::new(&options.report.plumbing, options.report.raw_leaf)?;
    let (source, modified) = read_source(&options.source)?;
    let path = &options.reference.path;
    let recording = open(path)?;
    let which = find(&recording, path, options.reference.snapshot.as_deref())?;
    let snapshot = select(&recording, which, &attribution, &options.report)?.non_empty()?.snapshot;

    ensure!(
        !snapshot.stacks.is_empty(),
        "failed to annotate `{}`: no stacks are in snapshot {}: nothing had been allocated by then",
        options.source.display(),
        title(&recording, which)
    );
    let called = options
        .called
        .clone()
        .unwrap_or_else(|| options.source.canonicalize().unwrap_or_else(|_| options.source.clone()));
    let file = find_file(&snapshot, &recording.names, &called).with_context(|| match &options.called {
        Some(called) => format!("failed to annotate `{}` as `{}`", options.source.display(), called.display()),
        None => format!("failed to annotate `{}`", options.source.display()),
    })?;
    let first = match which {
        Which::Index(0) => None,
        _ => Some(select(&recording, Which::Index(0), &attribution, &options.report)?.snapshot),
    };
    let annotation = analyse(&file, &snapshot, first.as_ref(), &recording.names, &attribution, &options.report);
    let colours = io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let layout = AnnotateLayout { colours, context: options.context };
    let title = format!("{} @{}", path.display(), title(&recording, which));
    let warnings = age_warnings(modified, &recording, &snapshot);
    print(&render(&annotation, &snapshot, &title, &source, &warnings, layout))?;
    Ok(0)
}

/// The source's bytes, and when it was last changed.
fn read_source(path: &Path) -> anyhow::Result<(Vec<u8>, Option<SystemTime>)> {
    let name = path.display();
    let cannot = || format!("failed to read source `{name}`");
    // Not to wait for the other end of a FIFO.
    let file = fs::OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path).with_context(cannot)?;
    let metadata = file.metadata().with_context(cannot)?;
    ensure!(metadata.is_file(), "failed to read source `{name}`: it is no regular file");
    let mut bytes = Vec::new();
    file.take(MAX_SOURCE_BYTES + 1).read_to_end(&mut bytes).with_context(cannot)?;
    ensure!(bytes.len() as u64 <= MAX_SOURCE_BYTES, "failed to read source `{name}`: it is larger than 16 MiB");
    if bytes[..bytes.len().min(PROBED_BYTES)].contains(&0) {
        bail!("failed to read source `{name}`: it is binary");
    }
    Ok((bytes, metadata.modified().ok()))
}

/// What is known of the source being another than the one that was built. Debug information as gcc writes it has no hash.
fn age_warnings(modified: Option<SystemTime>, recording: &Recording, snapshot: &Snapshot) -> Vec<String> {
    let Some(modified) = modified else { return Vec::new() };
    let unix_ns =
        |time: SystemTime| time.duration_since(UNIX_EPOCH).ok().and_then(|since| u64::try_from(since.as_nanos()).ok());
    let Some(modified_ns) = unix_ns(modified) else { return Vec::new() };
    let moment = utc(modified_ns).unwrap_or_else(|| "at an unknown time".to_owned());
    let started_ns = recording.session.started_unix_ns;
    if started_ns > 0 && modified_ns > started_ns {
        return vec![format!("the source was changed after the recording began ({moment}): lines may have moved")];
    }
    // The program itself, if it is still here and not newer than the recording.
    let program = snapshot.modules.iter().find(|module| {
        module.kind == ModuleKind::File && snapshot.target.exe.as_ref().is_some_and(|exe| *exe == module.path)
    });
    let built = program
        .filter(|module| !module.deleted)
        .and_then(|module| fs::metadata(&module.path).ok()?.modified().ok())
        .and_then(unix_ns);
    match built {
        Some(built_ns) if modified_ns > built_ns => {
            vec![format!("the source was changed after the program was built ({moment}): lines may have moved")]
        }
        _ => Vec::new(),
    }
}
