//! How values lie in a payload: numbers as LEB128 varints, signed ones zigzag, texts and lists behind their length, columns
//! behind theirs. Reading is bounded: whatever is allocated is charged to a [`Budget`] first.

use std::{cell::Cell, path::PathBuf, time::Duration};

use thiserror::Error;

/// Why bytes are no payload.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum Malformed {
    /// The payload ends before its values do.
    #[error("it ends early")]
    Short,
    /// Bytes are left behind the last value.
    #[error("bytes are left over")]
    Surplus,
    /// A number does not fit its type, or is none of those known.
    #[error("a number is out of range")]
    Number,
    /// An id refers to nothing.
    #[error("an id refers to nothing")]
    Id,
    /// A text is not UTF-8.
    #[error("a text is not UTF-8")]
    Text,
    /// It would take more memory than a file of its size may.
    #[error("it would take more memory than a file of its size may")]
    Budget,
    /// The checksum is another.
    #[error("the checksum differs")]
    Checksum,
    /// Not compressed as it says.
    #[error("it cannot be decompressed")]
    Compression,
    /// A chunk stands where none may.
    #[error("parts are out of order")]
    Order,
}

/// Memory that reading a file may still take, in bytes.
#[derive(Debug)]
pub struct Budget(Cell<u64>);

impl Budget {
    /// Allowed whatever the size.
    pub const BASE_BYTES: u64 = 1 << 20;
    /// Allowed for each byte of the file. A stack of 128 frames is 4 KiB in memory, and some 4 bytes in a file where it
    /// shares all frames but one with another.
    pub const PER_BYTE: u64 = 2048;

    /// What a file of this size may take.
    pub const fn of_file(size_bytes: u64) -> Self {
        Self(Cell::new(super::read_limit_bytes(size_bytes)))
    }

    /// For what we wrote ourselves.
    pub const fn unlimited() -> Self {
        Self(Cell::new(u64::MAX))
    }

    /// Takes the memory of `count` items.
    pub fn charge(&self, count: u64, item_bytes: usize) -> Result<(), Malformed> {
        let bytes = count.checked_mul(item_bytes as u64).ok_or(Malformed::Budget)?;
        self.0.set(self.0.get().checked_sub(bytes).ok_or(Malformed::Budget)?);
        Ok(())
    }
}

/// Builds a payload.
#[derive(Debug, Default)]
pub struct Writer(pub Vec<u8>);

impl Writer {
    /// A number: seven bits a byte, the least significant first.
    pub fn number(&mut self, mut n: u64) {
        while n >= 0x80 {
            self.0.push(n as u8 | 0x80);
            n >>= 7;
        }
        self.0.push(n as u8);
    }

    /// Length, then bytes.
    pub fn bytes(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
    }

    /// Length in bytes, then the numbers; a column of zeros is empty.
    pub fn column(&mut self, numbers: impl IntoIterator<Item = u64>) {
        let mut body = Self::default();
        let mut any = false;
        for n in numbers {
            any |= n != 0;
            body.number(n);
        }
        self.bytes(if any { &body.0 } else { &[] });
    }
}

/// Takes a payload apart.
#[derive(Debug)]
pub struct Reader<'a> {
    bytes: &'a [u8],
    budget: &'a Budget,
    version: u32,
}

impl<'a> Reader<'a> {
    /// Reads from the start, what this version writes.
    pub const fn new(bytes: &'a [u8], budget: &'a Budget) -> Self {
        Self::of_version(super::VERSION, bytes, budget)
    }

    /// Reads from the start, what a format of this version holds.
    pub const fn of_version(version: u32, bytes: &'a [u8], budget: &'a Budget) -> Self {
        Self { bytes, budget, version }
    }

    /// The format's version: later ones have more fields.
    pub const fn version(&self) -> u32 {
        self.version
    }

    /// A number.
    pub fn number(&mut self) -> Result<u64, Malformed> {
        take_number(&mut self.bytes)
    }

    /// A number of 32 bits.
    pub fn number32(&mut self) -> Result<u32, Malformed> {
        self.number()?.try_into().map_err(|_| Malformed::Number)
    }

    /// Length and bytes.
    pub fn bytes(&mut self) -> Result<&'a [u8], Malformed> {
        let n = usize::try_from(self.number()?).map_err(|_| Malformed::Short)?;
        let (bytes, rest) = self.bytes.split_at_checked(n).ok_or(Malformed::Short)?;
        self.bytes = rest;
        Ok(bytes)
    }

    /// A column; its numbers are read by [`Column::next`].
    pub fn column(&mut self) -> Result<Column<'a>, Malformed> {
        let bytes = self.bytes()?;
        Ok(if bytes.is_empty() { Column::Zeros } else { Column::Numbers(bytes) })
    }

    /// How many items follow, each of which will take this much memory.
    pub fn count(&mut self, item_bytes: usize) -> Result<usize, Malformed> {
        let n = self.number()?;
        self.budget.charge(n, item_bytes)?;
        usize::try_from(n).map_err(|_| Malformed::Budget)
    }

    /// Takes memory for what the bytes read so far unfold to.
    pub fn charge(&self, count: u64, item_bytes: usize) -> Result<(), Malformed> {
        self.budget.charge(count, item_bytes)
    }

    /// Nothing may be left.
    pub const fn end(&self) -> Result<(), Malformed> {
        if self.bytes.is_empty() { Ok(()) } else { Err(Malformed::Surplus) }
    }
}

/// The numbers of a column.
#[derive(Clone, Copy, Debug)]
pub enum Column<'a> {
    /// Nothing but zeros.
    Zeros,
    /// What is left of it.
    Numbers(&'a [u8]),
}

impl Column<'_> {
    /// The next number.
    #[inline]
    pub fn next(&mut self) -> Result<u64, Malformed> {
        match self {
            Self::Zeros => Ok(0),
            Self::Numbers(bytes) => take_number(bytes),
        }
    }

    /// The next number, of 32 bits.
    #[inline]
    pub fn next32(&mut self) -> Result<u32, Malformed> {
        self.next()?.try_into().map_err(|_| Malformed::Number)
    }

    /// Nothing may be left.
    pub const fn end(&self) -> Result<(), Malformed> {
        match self {
            Self::Numbers([_, ..]) => Err(Malformed::Surplus),
            _ => Ok(()),
        }
    }
}

#[inline]
fn take_number(bytes: &mut &[u8]) -> Result<u64, Malformed> {
    match **bytes {
        [byte, ref rest @ ..] if byte < 0x80 => {
            *bytes = rest;
            Ok(u64::from(byte))
        }
        _ => take_long_number(bytes),
    }
}

fn take_long_number(bytes: &mut &[u8]) -> Result<u64, Malformed> {
    let mut n = 0;
    for (at, &byte) in bytes.iter().enumerate().take(10) {
        // The tenth byte holds the 64th bit alone.
        if at == 9 && byte > 1 {
            return Err(Malformed::Number);
        }
        n |= u64::from(byte & 0x7f) << (7 * at);
        if byte < 0x80 {
            *bytes = &bytes[at + 1..];
            return Ok(n);
        }
    }
    Err(if bytes.len() < 10 { Malformed::Short } else { Malformed::Number })
}

/// A difference, wrapping, as a small number whatever its sign.
#[inline]
pub const fn zigzag(difference: u64) -> u64 {
    (difference << 1) ^ ((difference as i64 >> 63) as u64)
}

/// The difference again.
#[inline]
pub const fn unzigzag(n: u64) -> u64 {
    (n >> 1) ^ (n & 1).wrapping_neg()
}

/// A value that lies in a payload in one way.
pub trait Wire: Sized {
    /// Appends it.
    fn put(&self, w: &mut Writer);
    /// Reads it.
    fn get(r: &mut Reader<'_>) -> Result<Self, Malformed>;
}

impl Wire for u64 {
    fn put(&self, w: &mut Writer) {
        w.number(*self);
    }
    fn get(r: &mut Reader<'_>) -> Result<Self, Malformed> {
        r.number()
    }
}

impl Wire for u32 {
    fn put(&self, w: &mut Writer) {
        w.number(u64::from(*self));
    }
    fn get(r: &mut Reader<'_>) -> Result<Self, Malformed> {
        r.number32()
    }
}

impl Wire for bool {
    fn put(&self, w: &mut Writer) {
        w.number(u64::from(*self));
    }
    fn get(r: &mut Reader<'_>) -> Result<Self, Malformed> {
        match r.number()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(Malformed::Number),
        }
    }
}

/// Its bits.
impl Wire for f64 {
    fn put(&self, w: &mut Writer) {
        w.number(self.to_bits());
    }
    fn get(r: &mut Reader<'_>) -> Result<Self, Malformed> {
        r.number().map(Self::from_bits)
    }
}

/// Nanoseconds.
impl Wire for Duration {
    fn put(&self, w: &mut Writer) {
        w.number(u64::try_from(self.as_nanos()).unwrap_or(u64::MAX));
    }
    fn get(r: &mut Reader<'_>) -> Result<Self, Malformed> {
        r.number().map(Self::from_nanos)
    }
}

impl Wire for String {
    fn put(&self, w: &mut Writer) {
        w.bytes(self.as_bytes());
    }
    fn get(r: &mut Reader<'_>) -> Result<Self, Malformed> {
        let bytes = r.bytes()?;
        r.charge(bytes.len() as u64, 1)?;
        str::from_utf8(bytes).map(str::to_owned).map_err(|_| Malformed::Text)
    }
}

/// Bytes: paths need not be UTF-8.
impl Wire for PathBuf {
    fn put(&self, w: &mut Writer) {
        use std::os::unix::ffi::OsStrExt as _;
        w.bytes(self.as_os_str().as_bytes());
    }
    fn get(r: &mut Reader<'_>) -> Result<Self, Malformed> {
        use std::os::unix::ffi::OsStringExt as _;
        let bytes = r.bytes()?;
        r.charge(bytes.len() as u64, 1)?;
        Ok(Self::from(std::ffi::OsString::from_vec(bytes.to_vec())))
    }
}

/// 0, or 1 and the value.
impl<T: Wire> Wire for Option<T> {
    fn put(&self, w: &mut Writer) {
        self.is_some().put(w);
        if let Some(value) = self {
            value.put(w);
        }
    }
    fn get(r: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(if bool::get(r)? { Some(T::get(r)?) } else { None })
    }
}

impl<T: Wire> Wire for Vec<T> {
    fn put(&self, w: &mut Writer) {
        w.number(self.len() as u64);
        for item in self {
            item.put(w);
        }
    }
    fn get(r: &mut Reader<'_>) -> Result<Self, Malformed> {
        let n = r.count(size_of::<T>())?;
        // Every item takes at least a byte: a count that lies ends soon, and never allocates for what does not come.
        let mut items = Self::with_capacity(n.min(r.bytes.len()));
        for _ in 0..n {
            items.push(T::get(r)?);
        }
        Ok(items)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn numbers_come_back(numbers: Vec<u64>) {
            let mut w = Writer::default();
            for n in &numbers {
                w.number(*n);
            }
            w.column(numbers.iter().map(|n| zigzag(*n)));
            let budget = Budget::unlimited();
            let mut r = Reader::new(&w.0, &budget);
            for n in &numbers {
                prop_assert_eq!(r.number(), Ok(*n));
            }
            let mut column = r.column().expect("a column follows");
            for n in &numbers {
                prop_assert_eq!(column.next().map(unzigzag), Ok(*n));
            }
            prop_assert_eq!((column.end(), r.end()), (Ok(()), Ok(())));
        }
    }

    #[test]
    fn a_number_of_more_than_64_bits_is_refused() {
        let budget = Budget::unlimited();
        let read = |bytes: &[u8]| Reader::new(bytes, &budget).number();
        assert_eq!(read(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1]), Ok(u64::MAX));
        assert_eq!(read(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2]), Err(Malformed::Number));
        assert_eq!(read(&[0x80; 11]), Err(Malformed::Number));
        assert_eq!(read(&[0x80, 0x80]), Err(Malformed::Short));
    }

    #[test]
    fn a_small_difference_is_a_small_number_whatever_its_sign() {
        assert_eq!([0, 1, u64::MAX, 2].map(zigzag), [0, 2, 1, 4]);
    }

    #[test]
    fn a_count_beyond_the_budget_is_refused_before_anything_is_allocated() {
        let mut w = Writer::default();
        w.number(u64::MAX);
        let budget = Budget::of_file(100);
        assert_eq!(Vec::<u64>::get(&mut Reader::new(&w.0, &budget)), Err(Malformed::Budget));
    }
}
