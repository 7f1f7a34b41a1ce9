//! `export`: a recording in the form of other tools.

use std::{
    fs::{self, File},
    io::{self, BufWriter, IsTerminal as _, Write},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail, ensure};
use nix::unistd::{AccessFlags, access};
use tempfile::NamedTempFile;

use super::{
    open::open,
    output::is_same_file,
    select::{find, select},
};
use crate::{
    options::{Domains, ReportOptions},
    recording::{Recording, Reference},
    report::{
        escaped,
        export::{Base, Format, Source},
    },
    snapshot::Snapshot,
    symbolize::Attribution,
};

/// `export REC[@SNAPSHOT] -f FORMAT -o FILE`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExportOptions {
    /// The snapshot.
    pub reference: Reference,
    /// An older snapshot, to show the difference.
    pub base: Option<Reference>,
    /// The form.
    pub format: Format,
    /// Where it goes.
    pub output: ExportOutput,
    /// What is left out, and which totals are exported.
    pub report: ReportOptions,
}

/// Where an export goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExportOutput {
    /// Standard output.
    Stdout,
    /// A file, replaced as a whole when everything is written.
    File(PathBuf),
}

/// Runs the command; the exit status.
///
/// # Errors
/// A recording cannot be read, the format has no differences, or the output cannot be written.
pub fn export(options: &ExportOptions) -> anyhow::Result<u8> {
    let format = options.format;
    if options.base.is_some() && !format.has_differences() {
        let able: Vec<&str> =
            Format::ALL.into_iter().filter(|format| format.has_differences()).map(Format::name).collect();
        bail!("failed to export `{}`: it shows no differences (try {}, or `diff`)", format.name(), able.join(", "));
    }
    ensure!(
        options.report.domains != Domains::All,
        "failed to export `{}`: an export shows one domain (try --domain heap or mmap)",
        format.name()
    );
    let attribution = Attribution::new(&options.report.plumbing, options.report.raw_leaf)?;
    let mut output = Output::open(options)?;

    let path = &options.reference.path;
    let recording = open(path)?;
    let which = find(&recording, path, options.reference.snapshot.as_deref())?;
    let snapshot = select(&recording, which, &attribution, &options.report)?.non_empty()?.snapshot;
    let older = options.base.as_ref().map(|base| Older::open(base, options, &recording, &attribution)).transpose()?;
    let source = Source {
        recording: &recording,
        which,
        snapshot: &snapshot,
        names: &recording.names,
        base: older.as_ref().map(|older| Base {
            snapshot: &older.snapshot,
            names: &older.recording.as_ref().unwrap_or(&recording).names,
        }),
        options: &options.report,
        attribution: &attribution,
        version: env!("CARGO_PKG_VERSION"),
    };
    if !source.is_summable() {
        bail!("failed to export `{}`: its figures add up to more than 2^63", path.display());
    }
    match format.write(&source, &mut output).and_then(|()| output.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(0),
        written => written.with_context(|| format!("failed to write `{}`", output.name()))?,
    }
    output.finish()?;
    for problem in &recording.problems {
        eprintln!("memtrace-bpf: {}", escaped(problem));
    }
    let losses = source.losses();
    if !format.tells_losses() && losses != "nothing lost" {
        eprintln!("memtrace-bpf: {} has no room to say it: {}", format.name(), escaped(&losses));
    }
    Ok(0)
}

/// The older side of a difference.
struct Older {
    /// `None`: that of the newer side.
    recording: Option<Recording>,
    snapshot: Snapshot,
}

impl Older {
    fn open(
        base: &Reference,
        options: &ExportOptions,
        newer: &Recording,
        attribution: &Attribution,
    ) -> anyhow::Result<Self> {
        let recording = if base.path == options.reference.path { None } else { Some(open(&base.path)?) };
        let of = recording.as_ref().unwrap_or(newer);
        let which = find(of, &base.path, base.snapshot.as_deref())?;
        // Filters may leave nothing here: then everything is new.
        let snapshot = select(of, which, attribution, &options.report)?.snapshot;
        Ok(Self { recording, snapshot })
    }
}

/// An output that was opened before any work.
enum Output {
    Stdout(BufWriter<io::Stdout>),
    /// A device or pipe: nothing there to replace.
    Special(BufWriter<File>, PathBuf),
    /// Written beside its place.
    Beside(BufWriter<NamedTempFile>, PathBuf),
}

impl Output {
    fn open(options: &ExportOptions) -> anyhow::Result<Self> {
        let path = match &options.output {
            ExportOutput::Stdout => {
                if options.format.is_binary() && io::stdout().is_terminal() {
                    bail!("failed to export `{}`: standard output is a terminal (use -o FILE)", options.format.name());
                }
                return Ok(Self::Stdout(BufWriter::new(io::stdout())));
            }
            ExportOutput::File(path) => path,
        };
        let failed = || format!("failed to write `{}`", path.display());
        let references = [Some(&options.reference), options.base.as_ref()];
        if references.into_iter().flatten().any(|reference| is_same_file(&reference.path, path)) {
            bail!("{}: it is the recording itself", failed());
        }
        match fs::metadata(path) {
            Ok(metadata) if metadata.is_dir() => bail!("{}: it is a directory", failed()),
            Ok(metadata) if !metadata.is_file() => {
                let file = fs::OpenOptions::new().write(true).open(path).with_context(failed)?;
                return Ok(Self::Special(BufWriter::new(file), path.clone()));
            }
            // Replacing it needs no right to it, but a file that may not be written is not to be replaced either.
            Ok(_) => drop(fs::OpenOptions::new().write(true).open(path).with_context(failed)?),
            Err(_) => {}
        }
        // A link stays a link: what it leads to is replaced.
        let place = fs::canonicalize(path).unwrap_or_else(|_| path.clone());
        let dir = place.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
        // What fails below names a file that is nobody's business.
        access(&dir.join("."), AccessFlags::W_OK).map_err(io::Error::from).with_context(failed)?;
        let file = tempfile::Builder::new()
            .prefix(".memtrace-bpf-")
            .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666))
            .tempfile_in(dir)
            .with_context(failed)?;
        Ok(Self::Beside(BufWriter::new(file), place))
    }

    fn name(&self) -> String {
        match self {
            Self::Stdout(_) => "standard output".to_owned(),
            Self::Special(_, path) | Self::Beside(_, path) => path.display().to_string(),
        }
    }

    /// Puts what was written in its place.
    fn finish(self) -> anyhow::Result<()> {
        let Self::Beside(file, path) = self else { return Ok(()) };
        let failed = || format!("failed to write `{}`", path.display());
        let file = file.into_inner().map_err(io::IntoInnerError::into_error).with_context(failed)?;
        file.persist(&path).map(drop).map_err(|error| error.error).with_context(failed)
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Stdout(out) => out.write(bytes),
            Self::Special(out, _) => out.write(bytes),
            Self::Beside(out, _) => out.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Stdout(out) => out.flush(),
            Self::Special(out, _) => out.flush(),
            Self::Beside(out, _) => out.flush(),
        }
    }
}
