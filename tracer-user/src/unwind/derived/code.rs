//! The code of a module, and which of it has unwind information already.

use std::ops::Range;

use iced_x86::{Decoder, DecoderOptions, Instruction};

use super::{super::image::Image, entries::Entries};

/// What the derivation reads of a module.
pub struct Code<'a> {
    image: &'a Image<'a>,
    segments: Vec<(Range<u64>, &'a [u8])>,
    /// Begin and end of what has unwind information, ascending, apart from each other.
    covered: &'a [Range<u64>],
    /// Where functions are known to begin.
    pub entries: &'a Entries,
}

impl<'a> Code<'a> {
    /// `covered` ascends.
    pub fn new(image: &'a Image<'a>, covered: &'a [Range<u64>], entries: &'a Entries) -> Self {
        let segments = image.code().filter_map(|code| {
            let length = usize::try_from(code.end.checked_sub(code.start)?).ok()?;
            Some((code.clone(), image.bytes_from(code.start)?.get(..length)?))
        });
        Self { image, segments: segments.collect(), covered, entries }
    }

    /// Whether there is code.
    pub fn contains(&self, vaddr: u64) -> bool {
        self.segments.iter().any(|(range, _)| range.contains(&vaddr))
    }

    /// Whether unwind information covers it.
    pub fn is_covered(&self, vaddr: u64) -> bool {
        let after = self.covered.partition_point(|covered| covered.start <= vaddr);
        after > 0 && vaddr < self.covered[after - 1].end
    }

    /// Whether there is code that needs rows.
    pub fn is_bare(&self, vaddr: u64) -> bool {
        self.contains(vaddr) && !self.is_covered(vaddr)
    }

    /// The instructions from an address to the end of its segment.
    pub fn instructions(&self, vaddr: u64) -> impl Iterator<Item = Instruction> + use<'a> {
        let bytes = self
            .segments
            .iter()
            .find_map(|(range, bytes)| range.contains(&vaddr).then(|| &bytes[(vaddr - range.start) as usize..]));
        let mut decoder = Decoder::with_ip(64, bytes.unwrap_or_default(), vaddr, DecoderOptions::NONE);
        std::iter::from_fn(move || decoder.can_decode().then(|| decoder.decode()))
    }

    /// Where the cases of a table lie; `None` where one lies in no code, so that it is no such table.
    pub fn cases(&self, table: u64, last: u16, entry_bytes: u8) -> Option<Vec<u64>> {
        let entry_bytes = usize::from(entry_bytes);
        let words =
            self.image.bytes_from(table)?.get(..(usize::from(last) + 1) * entry_bytes)?.chunks_exact(entry_bytes);
        words
            .map(|word| {
                let case = match *word {
                    [a, b, c, d] => table.wrapping_add_signed(i64::from(i32::from_le_bytes([a, b, c, d]))),
                    _ => u64::from_le_bytes(word.try_into().ok()?),
                };
                self.contains(case).then_some(case)
            })
            .collect()
    }
}
