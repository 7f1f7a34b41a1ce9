//! The running kernel's type information (BTF): where the fields lie that the programs read of a task.
//!
//! The format: Documentation/bpf/btf.rst. Read here are structs, unions and what leads to them; every other kind is passed over by
//! its length.

use std::{collections::HashMap, fs, io};

use thiserror::Error;
use tracer_common::abi::TaskLayout;

/// Why the layout is not known.
#[derive(Debug, Error)]
pub enum BtfError {
    /// The kernel offers none.
    #[error("failed to read `{PATH}`")]
    Read(#[source] io::Error),
    /// It is not what the format says.
    #[error("`{PATH}` is malformed at byte {0}")]
    Malformed(usize),
    /// A field is not there.
    #[error("`{PATH}` has no `{0}.{1}`")]
    NoField(&'static str, &'static str),
}

const PATH: &str = "/sys/kernel/btf/vmlinux";

/// `BTF_MAGIC` (include/uapi/linux/btf.h).
const MAGIC: u16 = 0xeb9f;
const KIND_STRUCT: u32 = 4;
const KIND_UNION: u32 = 5;

/// The layout of the running kernel's tasks.
///
/// # Errors
/// It has no type information, or lacks a field.
pub fn task_layout() -> Result<TaskLayout, BtfError> {
    let bytes = fs::read(PATH).map_err(BtfError::Read)?;
    let types = Types::parse(&bytes)?;
    let task = |field| types.offset("task_struct", field);
    Ok(TaskLayout {
        tgid: task("tgid")?,
        mm: task("mm")?,
        signal: task("signal")?,
        group_leader: task("group_leader")?,
        start_boottime: task("start_boottime").or_else(|_| task("real_start_time"))?,
        exit_code: task("exit_code")?,
        live: types.offset("signal_struct", "live")?,
        _pad: 0,
    })
}

/// The structs and unions among all types.
struct Types<'b> {
    bytes: &'b [u8],
    /// First byte of the strings.
    strings: usize,
    /// By id: where its members lie and how many they are. Types that are neither struct nor union have none.
    members: Vec<Members>,
    /// Structs by name.
    structs: HashMap<&'b [u8], usize>,
}

#[derive(Clone, Copy, Default)]
struct Members {
    at: usize,
    len: usize,
    /// Offsets share their word with the widths of bit fields.
    has_bitfields: bool,
}

/// Anonymous structs and unions nested in each other; the kernel's own go three deep.
const MAX_DEPTH: u32 = 8;

impl<'b> Types<'b> {
    fn parse(bytes: &'b [u8]) -> Result<Self, BtfError> {
        let header = [4, 8, 12, 16].map(|at| word(bytes, at));
        let [Ok(header_len), Ok(types_at), Ok(types_len), Ok(strings_at)] = header else {
            return Err(BtfError::Malformed(0));
        };
        if bytes.get(..2) != Some(&MAGIC.to_le_bytes()) {
            return Err(BtfError::Malformed(0));
        }
        let mut at = header_len as usize + types_at as usize;
        let end = at + types_len as usize;
        let strings = header_len as usize + strings_at as usize;
        // Id 0 is void.
        let mut types = Self { bytes, strings, members: vec![Members::default()], structs: HashMap::new() };
        while at < end {
            let (name, info) = (word(bytes, at)?, word(bytes, at + 4)?);
            let (kind, len) = ((info >> 24) & 0x1f, (info & 0xffff) as usize);
            let body = at + 12;
            let mut members = Members::default();
            let body_len = match kind {
                KIND_STRUCT | KIND_UNION => {
                    members = Members { at: body, len, has_bitfields: info >> 31 != 0 };
                    if kind == KIND_STRUCT && name != 0 {
                        types.structs.insert(types.string(name)?, types.members.len());
                    }
                    12 * len
                }
                // INT, VAR, DECL_TAG: one word.
                1 | 14 | 17 => 4,
                // ARRAY
                3 => 12,
                // ENUM, FUNC_PROTO
                6 | 13 => 8 * len,
                // DATASEC, ENUM64
                15 | 19 => 12 * len,
                // PTR, FWD, TYPEDEF, VOLATILE, CONST, RESTRICT, FUNC, FLOAT, TYPE_TAG
                2 | 7..=12 | 16 | 18 => 0,
                _ => return Err(BtfError::Malformed(at)),
            };
            types.members.push(members);
            at = body + body_len;
        }
        Ok(types)
    }

    /// Byte offset of a struct's field, which may lie in an anonymous struct or union of it.
    fn offset(&self, name: &'static str, field: &'static str) -> Result<u32, BtfError> {
        let missing = BtfError::NoField(name, field);
        let Some(&id) = self.structs.get(name.as_bytes()) else { return Err(missing) };
        self.find(id, field.as_bytes(), 0)?.map(|bits| bits / 8).ok_or(missing)
    }

    /// In bits.
    fn find(&self, id: usize, field: &[u8], depth: u32) -> Result<Option<u32>, BtfError> {
        let Some(&members) = self.members.get(id).filter(|_| depth < MAX_DEPTH) else { return Ok(None) };
        for n in 0..members.len {
            let at = members.at + 12 * n;
            let (name, type_id, offset) = (word(self.bytes, at)?, word(self.bytes, at + 4)?, word(self.bytes, at + 8)?);
            let bits = if members.has_bitfields { offset & 0x00ff_ffff } else { offset };
            if name != 0 {
                if self.string(name)? == field {
                    return Ok(Some(bits));
                }
                continue;
            }
            if let Some(inner) = self.find(type_id as usize, field, depth + 1)? {
                return Ok(Some(bits + inner));
            }
        }
        Ok(None)
    }

    fn string(&self, offset: u32) -> Result<&'b [u8], BtfError> {
        let at = self.strings + offset as usize;
        let rest = self.bytes.get(at..).ok_or(BtfError::Malformed(at))?;
        rest.split(|byte| *byte == 0).next().ok_or(BtfError::Malformed(at))
    }
}

fn word(bytes: &[u8], at: usize) -> Result<u32, BtfError> {
    let word = bytes.get(at..).and_then(|rest| rest.first_chunk()).ok_or(BtfError::Malformed(at))?;
    Ok(u32::from_le_bytes(*word))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `struct inner { int a; }`, `struct task_struct { int first; struct { int second; union { long third; }; }; int fourth : 3; }`.
    fn example() -> Vec<u8> {
        let mut strings = vec![0];
        let mut name = |text: &str| {
            let at = strings.len() as u32;
            strings.extend(text.bytes().chain([0]));
            at
        };
        let (task, first, second) = (name("task_struct"), name("first"), name("second"));
        let (third, fourth, int) = (name("third"), name("fourth"), name("int"));
        let kind = |kind: u32, len: u32| (kind << 24) | len;
        let types = [
            // 1: int
            vec![int, kind(1, 0), 4, 32],
            // 2: the union
            vec![0, kind(KIND_UNION, 1), 8, third, 1, 0],
            // 3: the anonymous struct
            vec![0, kind(KIND_STRUCT, 2), 16, second, 1, 0, 0, 2, 64],
            // 4: a pointer
            vec![0, kind(2, 0), 4],
            // 5: the struct, with bit fields
            vec![task, kind(KIND_STRUCT, 3) | 1 << 31, 32, first, 1, 0, 0, 3, 64, fourth, 1, 0xc0 | 3 << 24],
        ]
        .concat();
        let types: Vec<u8> = types.iter().flat_map(|word| word.to_le_bytes()).collect();
        let header = [u32::from(MAGIC) | 1 << 16, 24, 0, types.len() as u32, types.len() as u32, strings.len() as u32];
        header.iter().flat_map(|word| word.to_le_bytes()).chain(types).chain(strings).collect()
    }

    #[test]
    fn fields_of_anonymous_members_are_found_at_their_offset_in_the_whole() {
        let bytes = example();
        let types = Types::parse(&bytes).expect("well-formed");
        for (field, expected) in [("first", 0), ("second", 8), ("third", 16), ("fourth", 24)] {
            assert_eq!(types.offset("task_struct", field).expect("is there"), expected, "{field}");
        }
        assert!(matches!(types.offset("task_struct", "fifth"), Err(BtfError::NoField(..))));
        assert!(matches!(types.offset("inner", "first"), Err(BtfError::NoField(..))));
    }

    #[test]
    fn every_truncation_is_an_error_or_lacks_the_field() {
        let bytes = example();
        for len in 0..bytes.len() {
            if let Ok(types) = Types::parse(&bytes[..len]) {
                assert!(types.offset("task_struct", "fifth").is_err(), "{len} bytes");
            }
        }
    }
}
