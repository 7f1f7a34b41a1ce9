//! Reads a recording's file: everything that is whole, and what is wrong with the rest.

use std::{
    cmp::Ordering,
    collections::BTreeMap,
    fs::{File, OpenOptions},
    io::{self, BufReader, Read},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
    sync::Arc,
};

use thiserror::Error;

use super::{
    chunk::{self, Chunks, HEADER_BYTES, Kind, Start, Stop, VERSION},
    names,
    packed::Packed,
    wire::{Budget, Malformed, Reader, Wire},
};
use crate::{
    recording::{
        Mark, Recording, Sample, SessionInfo, SnapshotInfo,
        model::Changes,
        processes,
        stacks::StackTable,
        totals::{self, unpack_ages},
    },
    snapshot::{Module, ProcessStats, Tid, Totals},
};

/// Why a file cannot be read as a recording.
#[derive(Debug, Error)]
pub enum ReadError {
    /// The system's reason.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// It begins otherwise.
    #[error("not a recording")]
    Foreign,
    /// Nothing in it.
    #[error("not a recording: it is empty")]
    Empty,
    /// Of a later memtrace-bpf.
    #[error("its format is version {found}, this memtrace-bpf reads up to version {known} (use a newer memtrace-bpf)")]
    Newer {
        /// The file's version.
        found: u32,
        /// The newest that can be read.
        known: u32,
    },
    /// It ends before the session is described.
    #[error("it ends before its first snapshot: nothing in it is whole")]
    Cut,
    /// It is damaged before the session is described.
    #[error("it is damaged at its start: {0}")]
    Damaged(Malformed),
    /// It is damaged, and what lies behind cannot be kept.
    #[error("it is damaged at byte {at} ({why}): what follows, which may be of use to someone, would be lost")]
    DamagedAt {
        /// Where.
        at: u64,
        /// How.
        why: Malformed,
    },
}

/// The most memory that reading a recording of this size takes, in bytes; what would take more is refused as damaged.
pub const fn read_limit_bytes(size_bytes: u64) -> u64 {
    Budget::BASE_BYTES + size_bytes.saturating_mul(Budget::PER_BYTE)
}

impl Recording {
    /// Reads a file. What is not whole is left out, and told in [`Recording::problems`].
    ///
    /// # Errors
    /// It cannot be read, is no recording or one of a newer format, or not even its session is whole.
    pub fn read(path: &Path) -> Result<Self, ReadError> {
        let file = open_regular(path)?;
        let size = file.metadata()?.len();
        Self::read_from(BufReader::with_capacity(1 << 16, file), size)
    }

    /// Reads `size` bytes of something other than a file.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn read_from(mut file: impl Read, size: u64) -> Result<Self, ReadError> {
        let version = check_header(&mut file, size)?;
        let mut chunks = Chunks::new(file, size);
        let budget = Budget::of_file(size);
        let mut state = State { version, ..State::default() };
        let stop = loop {
            let at = chunks.at();
            match chunks.next(&budget) {
                Ok(None) => break None,
                Ok(Some((kind, packed))) => {
                    if let Err(why) = state.take(kind, packed, &budget) {
                        break Some(Stop::Damaged(at, why));
                    }
                }
                Err(stop) => break Some(stop),
            }
        };
        state.finish(stop)
    }
}

/// Reads the header of a recording that can be read: its version.
pub(super) fn check_header(file: &mut impl Read, size: u64) -> Result<u32, ReadError> {
    let mut first = Vec::with_capacity(HEADER_BYTES);
    file.take(HEADER_BYTES as u64).read_to_end(&mut first)?;
    match chunk::start(&first) {
        Start::Version(known @ 1..=VERSION) => Ok(known),
        Start::Version(found) if found > VERSION => Err(ReadError::Newer { found, known: VERSION }),
        Start::Version(_) | Start::Broken => Err(ReadError::Damaged(Malformed::Checksum)),
        Start::Cut => Err(ReadError::Cut),
        Start::Foreign if size == 0 => Err(ReadError::Empty),
        Start::Foreign => Err(ReadError::Foreign),
    }
}

/// Opens without waiting: a FIFO would wait for its writer.
pub(super) fn open_regular(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    let kind = file.metadata()?.file_type();
    match () {
        () if kind.is_file() => Ok(file),
        () if kind.is_dir() => Err(io::Error::other("it is a directory")),
        () => Err(io::Error::other("not a regular file")),
    }
}

/// What was read so far.
#[derive(Default)]
struct State {
    version: u32,
    session: Option<SessionInfo>,
    recording: Recording,
    stacks: StackTable,
    /// Length of each chain of `stacks`.
    depths: Vec<u32>,
    latest: Vec<Totals>,
    processes: Vec<ProcessStats>,
    latest_is_spoilt: bool,
    /// Of the snapshot that follows.
    totals: Option<Packed>,
    ages: Option<Packed>,
    changed_processes: Option<Packed>,
    has_end: bool,
    unknown: Vec<Kind>,
    raw: Vec<u8>,
}

impl State {
    fn take(&mut self, kind: Kind, packed: Packed, budget: &Budget) -> Result<(), Malformed> {
        if self.session.is_none() != (kind == Kind::SESSION) {
            return Err(Malformed::Order);
        }
        match kind {
            Kind::TOTALS => self.totals = Some(packed),
            Kind::AGES => self.ages = Some(packed),
            Kind::PROCESSES => self.changed_processes = Some(packed),
            Kind::SESSION | Kind::STACKS | Kind::SNAPSHOT | Kind::SERIES | Kind::NAMES => {
                let mut raw = std::mem::take(&mut self.raw);
                packed.unpack(budget, &mut raw)?;
                let mut r = Reader::of_version(self.version, &raw, budget);
                match kind {
                    Kind::SESSION => self.session = Some(SessionInfo::get(&mut r)?),
                    Kind::STACKS => self.stacks(&mut r)?,
                    Kind::SNAPSHOT => {
                        let info = SnapshotInfo::get(&mut r)?;
                        r.end()?;
                        self.raw = raw;
                        return self.snapshot(info, budget);
                    }
                    Kind::SERIES => {
                        let (samples, marks) = (Vec::<Sample>::get(&mut r)?, Vec::<Mark>::get(&mut r)?);
                        r.charge(samples.len() as u64, 2 * size_of::<Sample>())?;
                        r.charge(marks.len() as u64, 2 * size_of::<Mark>())?;
                        self.recording.series.extend(samples);
                        self.recording.marks.extend(marks);
                    }
                    _ => self.recording.names = names::get(self.recording.modules.len(), &mut r)?,
                }
                r.end()?;
                self.raw = raw;
            }
            Kind::END => self.has_end = true,
            other => {
                budget.charge(1, 2 * size_of::<Kind>())?;
                self.unknown.push(other);
            }
        }
        Ok(())
    }

    fn stacks(&mut self, r: &mut Reader<'_>) -> Result<(), Malformed> {
        let n_modules = r.count(2 * size_of::<Arc<Module>>())?;
        let modules = &mut self.recording.modules;
        for _ in 0..n_modules {
            let (id, module) = (r.number()? as usize, Arc::<Module>::get(r)?);
            match id.cmp(&modules.len()) {
                Ordering::Less => modules[id] = module,
                Ordering::Equal => modules.push(module),
                Ordering::Greater => return Err(Malformed::Id),
            }
        }
        self.recording.threads.extend(<BTreeMap<Tid, String> as Wire>::get(r)?);
        let before = self.stacks.len();
        self.stacks.get_more(modules.len(), &mut self.depths, r)?;
        // The latest totals, also while they grow.
        r.charge((self.stacks.len() - before) as u64, 2 * size_of::<Totals>())
    }

    /// A snapshot counts once its totals, processes and ages are known to be sound.
    fn snapshot(&mut self, info: SnapshotInfo, budget: &Budget) -> Result<(), Malformed> {
        let totals = self.totals.take().ok_or(Malformed::Order)?;
        let (ages, processes) = (self.ages.take(), self.changed_processes.take());
        let n_stacks = self.stacks.len();
        budget.charge(1, 2 * (size_of::<SnapshotInfo>() + size_of::<Changes>()))?;
        if let Some(ages) = &ages {
            unpack_ages(ages, n_stacks, budget, &mut self.raw)?;
        }
        let applied = totals::apply(&totals, &mut self.latest, n_stacks, budget, &mut self.raw).and_then(|()| {
            let changed = processes.as_ref();
            changed.map_or(Ok(()), |changed| processes::apply(changed, &mut self.processes, budget, &mut self.raw))?;
            if self.stacks.n_processes() > self.processes.len() { Err(Malformed::Id) } else { Ok(()) }
        });
        if let Err(why) = applied {
            self.latest_is_spoilt = true;
            return Err(why);
        }
        self.recording.snapshots.push(info);
        self.recording.changes.push(Changes { totals, ages, processes });
        Ok(())
    }

    fn finish(self, stop: Option<Stop>) -> Result<Recording, ReadError> {
        let Self { session, mut recording, stacks, mut latest, processes, has_end, unknown, .. } = self;
        let Some(session) = session else {
            return Err(match stop {
                Some(Stop::Io(error)) => ReadError::Io(error),
                Some(Stop::Damaged(_, why)) => ReadError::Damaged(why),
                Some(Stop::Cut(_)) | None => ReadError::Cut,
            });
        };
        recording.session = session;
        recording.stacks = stacks.expand(0).collect();
        latest.resize(recording.stacks.len(), Totals::default());
        (recording.last, recording.last_processes) = match recording.snapshots.len().checked_sub(1) {
            Some(last) if self.latest_is_spoilt => (recording.replayed(), recording.replayed_processes(last)),
            _ => (latest, processes),
        };
        let whole = match recording.snapshots.len() {
            1 => "1 snapshot is whole".to_owned(),
            n => format!("{n} snapshots are whole"),
        };
        let problem = match stop {
            Some(Stop::Io(error)) => return Err(ReadError::Io(error)),
            Some(Stop::Cut(at)) => Some(format!(
                "it ends in the middle of something at byte {at}: the tracer was killed, or the file cut; {whole}"
            )),
            Some(Stop::Damaged(at, why)) => {
                Some(format!("it is damaged at byte {at} ({why}): what follows is left out; {whole}"))
            }
            None if !has_end => {
                Some(format!("its end is missing: the tracer was killed, or its disk was full; {whole}"))
            }
            None => None,
        };
        recording.is_cut = problem.is_some();
        recording.problems.extend(problem);
        if let Some(Kind(kind)) = unknown.first() {
            let kind = kind.escape_ascii();
            recording
                .problems
                .push(format!("it holds {} parts that this memtrace-bpf does not know (`{kind}`)", unknown.len()));
        }
        Ok(recording)
    }
}
