//! The frame of the file: header and chunks.

use std::io::{self, Read};

use super::{
    packed::{Codec, MAX_PAYLOAD_BYTES, Packed},
    wire::{Budget, Malformed},
};

/// First bytes of every recording. The first is not ASCII, and the line ends break when a transfer "corrects" them.
pub const MAGIC: [u8; 8] = *b"\x89MTB\r\n\x1a\n";
/// The format that this version writes, and the newest that it reads.
pub const VERSION: u32 = 2;
/// Magic, version, CRC-32 of both: the same in all versions.
pub const HEADER_BYTES: usize = 16;
/// Kind, codec, length in the file, length unpacked, CRC-32 of these four and the payload.
pub const CHUNK_HEADER_BYTES: usize = 20;

/// What a chunk holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kind(pub [u8; 4]);

impl Kind {
    /// The session; the first chunk.
    pub const SESSION: Self = Self(*b"SESS");
    /// New modules, threads, frames, chains and stacks.
    pub const STACKS: Self = Self(*b"STKS");
    /// Processes that are new or changed; belongs to the snapshot that follows. From version 2 on.
    pub const PROCESSES: Self = Self(*b"PROC");
    /// Totals that changed; belongs to the snapshot that follows.
    pub const TOTALS: Self = Self(*b"TOTS");
    /// Live blocks by age; belongs to the snapshot that follows.
    pub const AGES: Self = Self(*b"AGES");
    /// A snapshot: everything but its stacks.
    pub const SNAPSHOT: Self = Self(*b"SNAP");
    /// Samples and marks.
    pub const SERIES: Self = Self(*b"SERI");
    /// Names of frames.
    pub const NAMES: Self = Self(*b"NAME");
    /// The session ended as it should; empty.
    pub const END: Self = Self(*b"END ");
}

/// The first bytes of a file.
pub fn header(version: u32) -> [u8; HEADER_BYTES] {
    let mut header = [0; HEADER_BYTES];
    header[..8].copy_from_slice(&MAGIC);
    header[8..12].copy_from_slice(&version.to_le_bytes());
    let crc = crc32fast::hash(&header[..12]);
    header[12..].copy_from_slice(&crc.to_le_bytes());
    header
}

/// Appends a chunk.
pub fn append(file: &mut Vec<u8>, Kind(kind): Kind, packed: &Packed) {
    let start = file.len();
    file.extend_from_slice(&kind);
    for number in [packed.codec as u32, packed.bytes.len() as u32, packed.raw_len] {
        file.extend_from_slice(&number.to_le_bytes());
    }
    file.extend_from_slice(&checksum(&file[start..], &packed.bytes).to_le_bytes());
    file.extend_from_slice(&packed.bytes);
}

fn checksum(header: &[u8], payload: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(header);
    hasher.update(payload);
    hasher.finalize()
}

/// What a file begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// A recording of this version.
    Version(u32),
    /// The beginning of a header, and no more.
    Cut,
    /// Magic, but the rest of the header is broken.
    Broken,
    /// Something else.
    Foreign,
}

/// Looks at the first bytes of a file, [`HEADER_BYTES`] where there are so many.
pub fn start(bytes: &[u8]) -> Start {
    if bytes.len() < HEADER_BYTES {
        let magic = &MAGIC[..MAGIC.len().min(bytes.len())];
        return if !bytes.is_empty() && bytes.starts_with(magic) { Start::Cut } else { Start::Foreign };
    }
    if !bytes.starts_with(&MAGIC) {
        return Start::Foreign;
    }
    let version = u32_at(bytes, 8);
    if header(version)[..] == bytes[..HEADER_BYTES] { Start::Version(version) } else { Start::Broken }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

/// Why no further chunk can be read.
#[derive(Debug)]
pub enum Stop {
    /// The file ends within the chunk that begins at this byte.
    Cut(u64),
    /// The chunk that begins at this byte is not what was written.
    Damaged(u64, Malformed),
    /// The file cannot be read.
    Io(io::Error),
}

/// Reads the chunks of a file, one after the other.
#[derive(Debug)]
pub struct Chunks<R> {
    file: R,
    /// Where the next chunk begins.
    at: u64,
    size: u64,
}

impl<R: Read> Chunks<R> {
    /// Of a file of this size whose header was read.
    pub const fn new(file: R, size: u64) -> Self {
        Self { file, at: HEADER_BYTES as u64, size }
    }

    /// Where the last chunk ended.
    pub const fn at(&self) -> u64 {
        self.at
    }

    /// The next chunk; `None` at the end of the file.
    pub fn next(&mut self, budget: &Budget) -> Result<Option<(Kind, Packed)>, Stop> {
        let left = self.size.saturating_sub(self.at);
        if left == 0 {
            return Ok(None);
        }
        let damaged = |why| Stop::Damaged(self.at, why);
        let cut = |error: io::Error| {
            // A file that grows shorter while it is read.
            if error.kind() == io::ErrorKind::UnexpectedEof { Stop::Cut(self.at) } else { Stop::Io(error) }
        };
        let mut header = [0; CHUNK_HEADER_BYTES];
        if left < header.len() as u64 {
            return Err(Stop::Cut(self.at));
        }
        self.file.read_exact(&mut header).map_err(cut)?;
        let [codec, stored_len, raw_len, crc] = [4, 8, 12, 16].map(|at| u32_at(&header, at));
        // What a chunk may hold is bounded by what the file holds.
        if u64::from(stored_len) > left - header.len() as u64 {
            return Err(Stop::Cut(self.at));
        }
        if stored_len as usize > MAX_PAYLOAD_BYTES {
            return Err(damaged(Malformed::Budget));
        }
        budget.charge(u64::from(stored_len), 1).map_err(damaged)?;
        let mut bytes = vec![0; stored_len as usize].into_boxed_slice();
        self.file.read_exact(&mut bytes).map_err(cut)?;
        if checksum(&header[..16], &bytes) != crc {
            return Err(damaged(Malformed::Checksum));
        }
        let codec = Codec::from_u32(codec).ok_or(Malformed::Compression).map_err(damaged)?;
        self.at += (header.len() + bytes.len()) as u64;
        Ok(Some((Kind([header[0], header[1], header[2], header[3]]), Packed { codec, raw_len, bytes })))
    }
}
