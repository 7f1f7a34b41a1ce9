//! Go's code, which gets no probes: its stacks move, and a return address that the kernel replaced would be copied along and
//! found by nobody. C code of the same program (cgo) is as any other.

use std::ops::Range;

use object::{Endianness, Object as _, read::elf::ElfFile64};

use super::{Problem, symbols::Definition};

/// Symbols at the begin and the end of Go's code (Go's linker, all versions that have cgo).
pub const TEXT_MARKERS: [&str; 2] = ["runtime.text", "runtime.etext"];

/// Sections that Go's linker makes.
const SECTIONS: [&str; 2] = [".gopclntab", ".go.buildinfo"];

/// Whether Go's linker made this ELF file.
pub fn is_go(bytes: &[u8]) -> bool {
    ElfFile64::<Endianness>::parse(bytes).is_ok_and(|file| has_sections(&file))
}

fn has_sections(file: &ElfFile64<'_, Endianness>) -> bool {
    SECTIONS.iter().any(|name| file.section_by_name(name).is_some())
}

/// Which code of a module is Go's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GoText {
    /// None.
    None,
    /// These addresses.
    Known(Range<u64>),
    /// Some, perhaps all: the symbols that tell are stripped.
    Unknown,
}

impl GoText {
    /// By the values of [`TEXT_MARKERS`], else by whether the file has Go's sections.
    pub fn of(file: &ElfFile64<'_, Endianness>, markers: &[Option<u64>; 2]) -> Self {
        match *markers {
            [Some(begin), Some(end)] => Self::Known(begin..end),
            _ if has_sections(file) => Self::Unknown,
            _ => Self::None,
        }
    }

    /// Takes out the functions that are, or may be, Go's.
    pub fn refuse(&self, definitions: &mut Vec<Definition>, problems: &mut Vec<Problem>) {
        definitions.retain(|definition| {
            let is_go = match self {
                Self::None => false,
                Self::Known(range) => range.contains(&definition.entry.0),
                Self::Unknown => true,
            };
            if is_go {
                problems.push(Problem::Go { symbol: definition.symbol, entry: definition.entry });
            }
            !is_go
        });
    }
}
