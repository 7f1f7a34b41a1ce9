//! Writes a recording while its session runs.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{File, OpenOptions, TryLockError},
    io,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use thiserror::Error;
use tracer_common::addr::FileVaddr;

use super::{
    chunk::{self, Kind, Start},
    names,
    packed::Packed,
    wire::{Wire, Writer},
};
use crate::{
    recording::{
        Mark, Sample, SessionInfo, SnapshotInfo, SnapshotMeta,
        known::Known,
        processes,
        stacks::Extent,
        totals::{pack, pack_ages},
    },
    snapshot::{Module, ModuleId, Snapshot, Tid},
    symbolize::Names,
};

/// Samples that wait before they are written by themselves.
const MAX_WAITING: usize = 60;

/// Why a recording cannot be written.
#[derive(Debug, Error)]
pub enum RecordError {
    /// The file cannot be made.
    #[error("failed to create `{}`", path.display())]
    Create {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// There is something else under that name, and it is worth keeping.
    #[error("failed to create `{}`: it is there and no recording (name another file, or remove it)", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// Another session writes it.
    #[error("failed to create `{}`: another session is recording to it", path.display())]
    Busy {
        /// The file.
        path: PathBuf,
    },
    /// Nothing more can be appended: the disk is full, a quota reached. What was written before is whole.
    #[error("failed to write `{}`", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Appends to a recording's file. What could not be written goes with the next snapshot.
#[derive(Debug)]
pub struct Recorder {
    known: Known,
    file: Tail,
    waiting: Series,
    n_snapshots: usize,
    /// Of `known`, what the file holds.
    written: Extent,
    /// Modules that are not in the file as they are.
    unwritten_modules: BTreeSet<ModuleId>,
    written_threads: BTreeMap<Tid, String>,
}

/// A file that a recording may go to: nobody else's, and not changed yet.
#[derive(Debug)]
pub struct Slot(Tail);

impl Slot {
    /// Opens the file, or makes it.
    ///
    /// # Errors
    /// The file cannot be made or written, is something else than a recording, or another session's.
    pub fn open(path: &Path) -> Result<Self, RecordError> {
        Tail::open(path).map(Self)
    }

    /// Empties the file, and writes the session to it.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn begin(self, session: &SessionInfo) -> Result<Recorder, RecordError> {
        let Self(file) = self;
        file.file.set_len(0).map_err(|source| file.error(source))?;
        let mut recorder = Recorder {
            known: Known::default(),
            file,
            waiting: Series::default(),
            n_snapshots: 0,
            written: Extent::default(),
            unwritten_modules: BTreeSet::new(),
            written_threads: BTreeMap::new(),
        };
        let mut bytes = chunk::header(chunk::VERSION).to_vec();
        append(&mut bytes, Kind::SESSION, session);
        recorder.file.append(&bytes)?;
        Ok(recorder)
    }
}

/// Samples and marks.
#[derive(Debug, Default)]
struct Series {
    samples: Vec<Sample>,
    marks: Vec<Mark>,
}

impl Recorder {
    /// Makes the file, or empties the recording that is there, and writes the session to it.
    ///
    /// # Errors
    /// The file cannot be made or written, is something else than a recording, or another session's.
    pub fn create(path: &Path, session: &SessionInfo) -> Result<Self, RecordError> {
        Slot::open(path)?.begin(session)
    }

    /// Appends a snapshot with everything that is new since the last, in one write.
    ///
    /// # Errors
    /// It could not be written; the file ends where it ended before, and the next snapshot carries what this one would have.
    pub fn snapshot(&mut self, snapshot: &Snapshot, meta: SnapshotMeta) -> Result<(), RecordError> {
        let figures = self.known.figures(snapshot);
        self.unwritten_modules.extend(figures.modules);
        let is_new = |(tid, name): &(&Tid, &String)| self.written_threads.get(tid) != Some(name);
        let threads: BTreeMap<Tid, String> =
            snapshot.threads.iter().filter(is_new).map(|(tid, name)| (*tid, name.clone())).collect();

        let mut bytes = Vec::new();
        self.waiting.append_to(&mut bytes);
        let extent = self.known.stacks.extent();
        if extent != self.written || !self.unwritten_modules.is_empty() || !threads.is_empty() {
            chunk::append(&mut bytes, Kind::STACKS, &Packed::new(&self.new_stacks(&threads).0));
        }
        chunk::append(&mut bytes, Kind::TOTALS, &pack(&self.known.latest, &figures.totals));
        if figures.processes != self.known.processes {
            chunk::append(&mut bytes, Kind::PROCESSES, &processes::pack(&self.known.processes, &figures.processes));
        }
        if let Some(ages) = &figures.ages {
            chunk::append(&mut bytes, Kind::AGES, &pack_ages(ages));
        }
        append(&mut bytes, Kind::SNAPSHOT, &SnapshotInfo::of(snapshot, meta));
        self.file.append(&bytes)?;

        self.waiting = Series::default();
        self.written = extent;
        self.unwritten_modules.clear();
        self.written_threads.extend(threads);
        (self.known.latest, self.known.processes) = (figures.totals, figures.processes);
        self.n_snapshots += 1;
        Ok(())
    }

    fn new_stacks(&self, threads: &BTreeMap<Tid, String>) -> Writer {
        let mut w = Writer::default();
        w.number(self.unwritten_modules.len() as u64);
        for id in &self.unwritten_modules {
            w.number(u64::from(id.0));
            self.known.modules[id.0 as usize].put(&mut w);
        }
        threads.put(&mut w);
        self.known.stacks.put_since(self.written, &mut w);
        w
    }

    /// Adds a sample of the series; it is written with the next snapshot, by [`flush`](Self::flush), or when many wait.
    ///
    /// # Errors
    /// Those that wait could not be written; they wait on.
    pub fn sample(&mut self, sample: Sample) -> Result<(), RecordError> {
        self.waiting.samples.push(sample);
        if self.waiting.samples.len().is_multiple_of(MAX_WAITING) { self.flush() } else { Ok(()) }
    }

    /// Adds a mark; it is written with the next snapshot, by [`flush`](Self::flush), or when many samples wait.
    pub fn mark(&mut self, mark: Mark) {
        self.waiting.marks.push(mark);
    }

    /// Writes the samples and marks that wait.
    ///
    /// # Errors
    /// They could not be written; they wait on.
    pub fn flush(&mut self) -> Result<(), RecordError> {
        let mut bytes = Vec::new();
        self.waiting.append_to(&mut bytes);
        self.file.append(&bytes)?;
        self.waiting = Series::default();
        Ok(())
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.file.path
    }

    /// Snapshots in the file: the number that the next one gets.
    pub const fn n_snapshots(&self) -> usize {
        self.n_snapshots
    }

    /// All modules, by the ids of the recording.
    pub fn modules(&self) -> &[Arc<Module>] {
        &self.known.modules
    }

    /// Where the frames of all stacks lie, each once, under the ids of the recording.
    pub fn locations(&self) -> impl Iterator<Item = (ModuleId, FileVaddr)> + '_ {
        self.known.stacks.locations()
    }

    /// Writes the names, and that the session ended as it should.
    ///
    /// # Errors
    /// They could not be written; all snapshots are still whole.
    pub fn finish(mut self, names: &Names) -> Result<(), RecordError> {
        let mut bytes = Vec::new();
        self.waiting.append_to(&mut bytes);
        append_end(&mut bytes, names);
        self.file.append(&bytes)?;
        self.file.file.sync_all().map_err(|source| self.file.error(source))
    }
}

impl Series {
    fn append_to(&self, bytes: &mut Vec<u8>) {
        if self.samples.is_empty() && self.marks.is_empty() {
            return;
        }
        let mut w = Writer::default();
        self.samples.put(&mut w);
        self.marks.put(&mut w);
        chunk::append(bytes, Kind::SERIES, &Packed::new(&w.0));
    }
}

fn append(bytes: &mut Vec<u8>, kind: Kind, value: &impl Wire) {
    let mut w = Writer::default();
    value.put(&mut w);
    chunk::append(bytes, kind, &Packed::new(&w.0));
}

/// Appends names and the end.
pub(super) fn append_end(bytes: &mut Vec<u8>, names: &Names) {
    chunk::append(bytes, Kind::NAMES, &Packed::new(&names::put(names).0));
    chunk::append(bytes, Kind::END, &Packed::default());
}

/// The end of a file, whole at all times but during a write.
#[derive(Debug)]
struct Tail {
    path: PathBuf,
    file: File,
    /// Length of what is whole.
    len: u64,
}

impl Tail {
    fn open(path: &Path) -> Result<Self, RecordError> {
        let failed = |source| RecordError::Create { path: path.to_owned(), source };
        // Not truncated before it is known to be a recording, and nobody else's.
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path).map_err(failed)?;
        if !file.metadata().map_err(failed)?.is_file() {
            return Err(failed(io::Error::other("not a regular file")));
        }
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(RecordError::Busy { path: path.to_owned() }),
            Err(TryLockError::Error(source)) => return Err(failed(source)),
        }
        let mut first = [0; chunk::HEADER_BYTES];
        let n = read_start(&file, &mut first).map_err(failed)?;
        if n > 0 && chunk::start(&first[..n]) == Start::Foreign {
            return Err(RecordError::Foreign { path: path.to_owned() });
        }
        Ok(Self { path: path.to_owned(), file, len: 0 })
    }

    /// Appends all of `bytes`, or nothing.
    fn append(&mut self, bytes: &[u8]) -> Result<(), RecordError> {
        if let Err(source) = self.file.write_all_at(bytes, self.len) {
            // If even that fails, the next write goes over the torn one, and readers stop at what is whole.
            if let Err(error) = self.file.set_len(self.len) {
                log::warn!("failed to cut `{}` back to its last snapshot: {error}", self.path.display());
            }
            return Err(self.error(source));
        }
        self.len += bytes.len() as u64;
        Ok(())
    }

    fn error(&self, source: io::Error) -> RecordError {
        RecordError::Write { path: self.path.clone(), source }
    }
}

/// Fills as much of `bytes` as the file has.
fn read_start(file: &File, bytes: &mut [u8]) -> io::Result<usize> {
    let mut n = 0;
    while n < bytes.len() {
        match file.read_at(&mut bytes[n..], n as u64)? {
            0 => break,
            more => n += more,
        }
    }
    Ok(n)
}
