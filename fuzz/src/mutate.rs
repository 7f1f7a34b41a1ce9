//! Recordings that went wrong: bytes changed anywhere, chunks moved, and payloads changed behind a checksum that is right.

use crate::random::Random;

const HEADER_BYTES: usize = 16;
const CHUNK_HEADER_BYTES: usize = 20;
/// Bytes that decoders trip over.
const INTERESTING: [u8; 8] = [0, 1, 0x7f, 0x80, 0xff, 0xfe, 0x40, 2];

/// A chunk, taken apart.
#[derive(Clone)]
struct Chunk {
    kind: [u8; 4],
    codec: u32,
    raw_len: u32,
    payload: Vec<u8>,
}

/// One of the seeds, with some things changed.
pub fn mutated(seeds: &[Vec<u8>], random: &mut Random) -> Vec<u8> {
    let mut bytes = seeds[random.below(seeds.len())].clone();
    if random.one_in(4) {
        // What a disk or a transfer does.
        change_bytes(&mut bytes, random);
        return bytes;
    }
    // What an attacker does: every checksum is right.
    let mut chunks = chunks_of(&bytes);
    for _ in 0..=random.below(3) {
        change_chunks(&mut chunks, seeds, random);
    }
    let mut bytes = bytes[..HEADER_BYTES].to_vec();
    for chunk in &chunks {
        append(&mut bytes, chunk);
    }
    if random.one_in(16) {
        bytes.truncate(random.below(bytes.len()));
    }
    bytes
}

fn change_bytes(bytes: &mut Vec<u8>, random: &mut Random) {
    for _ in 0..=random.below(4) {
        if bytes.is_empty() {
            return;
        }
        let at = random.below(bytes.len());
        match random.below(8) {
            0 => bytes[at] ^= 1 << random.below(8),
            1 => bytes[at] = random.next() as u8,
            2 => bytes[at] = INTERESTING[random.below(INTERESTING.len())],
            3 => bytes.truncate(at),
            4 => drop(bytes.drain(at..(at + 1 + random.below(9)).min(bytes.len()))),
            5 => bytes.insert(at, random.next() as u8),
            // A number as long as there are, in the middle of others.
            6 => drop(bytes.splice(at..at, [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1])),
            _ => {
                let end = (at + 1 + random.below(64)).min(bytes.len());
                let part = bytes[at..end].to_vec();
                let to = random.below(bytes.len());
                drop(bytes.splice(to..to, part));
            }
        }
    }
}

fn change_chunks(chunks: &mut Vec<Chunk>, seeds: &[Vec<u8>], random: &mut Random) {
    if chunks.is_empty() {
        return;
    }
    let (at, other) = (random.below(chunks.len()), random.below(chunks.len()));
    match random.below(12) {
        0 => drop(chunks.remove(at)),
        1 => chunks.swap(at, other),
        2 => chunks.insert(other, chunks[at].clone()),
        3 => {
            let theirs = chunks_of(&seeds[random.below(seeds.len())]);
            chunks.insert(at, theirs[random.below(theirs.len())].clone());
        }
        4 => chunks[at].kind = chunks[other].kind,
        5 => chunks[at].kind[random.below(4)] = random.next() as u8,
        6 => chunks[at].raw_len = random.next() as u32 >> random.below(32),
        7 => chunks[at].codec = random.below(4) as u32,
        8 => change_bytes(&mut chunks[at].payload, random),
        // Most of all what lies below the compression.
        _ => {
            let chunk = &mut chunks[at];
            let mut raw = match chunk.codec {
                1 => zstd::bulk::decompress(&chunk.payload, 1 << 20).unwrap_or_default(),
                _ => chunk.payload.clone(),
            };
            change_bytes(&mut raw, random);
            chunk.raw_len = raw.len() as u32;
            (chunk.codec, chunk.payload) = match random.below(3) {
                0 => (1, zstd::bulk::compress(&raw, 1).unwrap_or_default()),
                _ => (0, raw),
            };
        }
    }
}

/// The whole chunks of a file.
fn chunks_of(bytes: &[u8]) -> Vec<Chunk> {
    let mut chunks = Vec::new();
    let mut rest = &bytes[HEADER_BYTES..];
    let number = |bytes: &[u8], at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
    while let Some((header, after)) = rest.split_at_checked(CHUNK_HEADER_BYTES) {
        let Some((payload, next)) = after.split_at_checked(number(header, 8) as usize) else { break };
        chunks.push(Chunk {
            kind: [header[0], header[1], header[2], header[3]],
            codec: number(header, 4),
            raw_len: number(header, 12),
            payload: payload.to_vec(),
        });
        rest = next;
    }
    chunks
}

fn append(bytes: &mut Vec<u8>, chunk: &Chunk) {
    let start = bytes.len();
    bytes.extend(chunk.kind);
    for number in [chunk.codec, chunk.payload.len() as u32, chunk.raw_len] {
        bytes.extend(number.to_le_bytes());
    }
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&bytes[start..]);
    hasher.update(&chunk.payload);
    bytes.extend(hasher.finalize().to_le_bytes());
    bytes.extend(&chunk.payload);
}
