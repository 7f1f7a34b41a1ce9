//! A compressed payload, as it lies in a file and in a recording in memory.

use super::wire::{Budget, Malformed};

/// zstd's level. 3 packs the totals of 50 000 stacks in some milliseconds; higher levels gain little on varints.
const LEVEL: i32 = 3;
/// Longest payload, packed or not, in bytes.
pub const MAX_PAYLOAD_BYTES: usize = 1 << 30;

/// A payload, compressed where that helps.
#[derive(Clone, Debug, Default)]
pub struct Packed {
    /// What `bytes` are.
    pub codec: Codec,
    /// Length of the payload.
    pub raw_len: u32,
    /// The payload, or its zstd frame.
    pub bytes: Box<[u8]>,
}

/// How a payload is kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u32)]
pub enum Codec {
    /// As it is.
    #[default]
    Plain = 0,
    /// One zstd frame (RFC 8878).
    Zstd = 1,
}

impl Codec {
    /// By its number.
    pub const fn from_u32(n: u32) -> Option<Self> {
        match n {
            0 => Some(Self::Plain),
            1 => Some(Self::Zstd),
            _ => None,
        }
    }
}

impl Packed {
    /// Compresses a payload of at most [`MAX_PAYLOAD_BYTES`].
    pub fn new(raw: &[u8]) -> Self {
        assert!(raw.len() <= MAX_PAYLOAD_BYTES, "stacks and names of one process are far fewer");
        let raw_len = raw.len() as u32;
        match zstd::bulk::compress(raw, LEVEL) {
            // What unfolds further than a reader allows is kept as it is.
            Ok(bytes) if bytes.len() < raw.len() && raw.len() as u64 <= max_raw_len(bytes.len()) => {
                Self { codec: Codec::Zstd, raw_len, bytes: bytes.into() }
            }
            _ => Self { codec: Codec::Plain, raw_len, bytes: raw.into() },
        }
    }

    /// The payload, in `raw`; what that grows by is charged.
    pub fn unpack(&self, budget: &Budget, raw: &mut Vec<u8>) -> Result<(), Malformed> {
        raw.clear();
        let wanted = self.raw_len as usize;
        if self.codec == Codec::Plain && self.bytes.len() != wanted {
            return Err(Malformed::Compression);
        }
        if self.codec == Codec::Zstd
            && (u64::from(self.raw_len) > max_raw_len(self.bytes.len()) || wanted > MAX_PAYLOAD_BYTES)
        {
            return Err(Malformed::Budget);
        }
        if let Some(growth) = wanted.checked_sub(raw.capacity()) {
            budget.charge(growth as u64, 1)?;
            // The old memory goes before the new one comes.
            *raw = Vec::new();
            raw.reserve_exact(wanted);
        }
        match self.codec {
            Codec::Plain => raw.extend_from_slice(&self.bytes),
            Codec::Zstd => {
                let mut decompressor = zstd::bulk::Decompressor::new().map_err(|_| Malformed::Compression)?;
                // Writes into the capacity, never beyond.
                let n = decompressor.decompress_to_buffer(&self.bytes, raw).map_err(|_| Malformed::Compression)?;
                if n != wanted {
                    return Err(Malformed::Compression);
                }
            }
        }
        Ok(())
    }
}

/// What so many compressed bytes may unfold to: a bomb is refused before it is opened.
const fn max_raw_len(packed_len: usize) -> u64 {
    (packed_len as u64).saturating_mul(Budget::PER_BYTE / 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_packed_unpacks() {
        let zeros = vec![0; 10_000_000];
        let counting: Vec<u8> = (0..100_000_u32).map(|n| (n / 7) as u8).collect();
        for raw in [&[] as &[u8], b"short", &zeros, &counting] {
            let mut unpacked = Vec::new();
            Packed::new(raw).unpack(&Budget::unlimited(), &mut unpacked).expect("just packed");
            assert!(unpacked == raw);
        }
    }

    #[test]
    fn a_bomb_is_refused_before_it_is_opened() {
        // zstd reaches 1 : 20 000 on zeros.
        let bytes: Box<[u8]> = zstd::bulk::compress(&vec![0; 256 << 20], 19).expect("zeros compress").into();
        let bomb = Packed { codec: Codec::Zstd, raw_len: 256 << 20, bytes };
        let mut raw = Vec::new();
        assert_eq!(bomb.unpack(&Budget::unlimited(), &mut raw), Err(Malformed::Budget));
        assert_eq!(raw.capacity(), 0);
    }
}
