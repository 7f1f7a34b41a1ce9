//! ELF bytes → where the calls that change mappings are probed: the entries of mmap and its kin.
//!
//! They are few and rare, a system call each, so the entry is good enough whatever it costs to probe. The return is probed there too.

use object::{
    Endianness,
    elf::{self, FileHeader64},
    read::elf::{ElfFile64, ProgramHeader as _, SectionHeader as _, Sym as _, SymbolTable},
};
use tracer_common::{
    addr::{FileOffset, FileVaddr},
    cookie::{Reg, Shape},
    ranges::RangeFunction,
};

use super::{
    Execution, PlanError, Problem, Why,
    go::{GoText, TEXT_MARKERS},
    prologue::{Arguments, choose_entry},
    symbols::{name_at, open},
};

/// Every function, with the symbols that implement it in glibc and musl, the one to show first. `sbrk` calls `brk` in glibc, and can
/// only ask in musl; `posix_madvise` gives nothing back. tcmalloc and sanitizers define functions of these names that call the real
/// ones or the kernel: of two nested calls that did the same the inner one counts.
pub const MAPPING_FUNCTIONS: [MappingFunction; 5] = [
    MappingFunction { function: RangeFunction::Mmap, symbols: &["mmap", "mmap64", "__mmap", "__mmap64"] },
    MappingFunction { function: RangeFunction::Munmap, symbols: &["munmap", "__munmap"] },
    MappingFunction { function: RangeFunction::Mremap, symbols: &["mremap", "__mremap"] },
    MappingFunction { function: RangeFunction::Brk, symbols: &["brk", "__brk"] },
    MappingFunction { function: RangeFunction::Madvise, symbols: &["madvise", "__madvise"] },
];

/// Only a module that defines both is taken to have these functions: a lone `brk` may be anything.
const NEEDED: [RangeFunction; 2] = [RangeFunction::Mmap, RangeFunction::Munmap];

/// One row of [`MAPPING_FUNCTIONS`].
#[derive(Clone, Copy, Debug)]
pub struct MappingFunction {
    /// What it is.
    pub function: RangeFunction,
    /// Its symbols, without versions.
    pub symbols: &'static [&'static str],
}

/// One breakpoint at a function's entry, and one at its return.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MappingSite {
    /// What is called there.
    pub function: RangeFunction,
    /// The symbol, without version.
    pub symbol: &'static str,
    /// Where, in the file.
    pub file_offset: FileOffset,
    /// The instruction there, as text.
    pub instruction: String,
    /// What a hit costs.
    pub execution: Execution,
}

/// The sites of one module, and what could not be probed.
#[derive(Clone, Debug, Default)]
pub struct MappingPlan {
    /// In the order of the table; no two at one file offset.
    pub sites: Vec<MappingSite>,
    /// Functions that are not probed and why.
    pub problems: Vec<Problem>,
}

/// Finds the functions that the module defines for others.
///
/// # Errors
/// The bytes are no linked 64-bit x86 ELF file.
pub fn plan_ranges(bytes: &[u8]) -> Result<MappingPlan, PlanError> {
    let file = open(bytes)?;
    let endian = file.endian();
    let mut found = Found::default();
    for table in [file.elf_dynamic_symbol_table(), file.elf_symbol_table()] {
        let section = file.elf_section_table().section(table.string_section());
        let names = section.and_then(|section| section.data(endian, bytes)).unwrap_or_default();
        found.read(table, names, endian);
    }
    let is_defined = |needed: &RangeFunction| found.entries.iter().any(|entry| entry.row.function == *needed);
    if !NEEDED.iter().all(is_defined) {
        return Ok(MappingPlan::default());
    }
    found.entries.sort_by_key(|entry| (entry.row.function, entry.vaddr));
    let go_text = GoText::of(&file, &found.go_text);
    let mut plan = MappingPlan::default();
    for Entry { row, rank, vaddr } in found.entries {
        let symbol = row.symbols[rank];
        let is_go = match &go_text {
            GoText::None => false,
            GoText::Known(range) => range.contains(&vaddr.0),
            GoText::Unknown => true,
        };
        if is_go {
            plan.problems.push(Problem::Go { symbol, entry: vaddr });
            continue;
        }
        let Some((file_offset, code)) = code_at(&file, bytes, vaddr) else {
            plan.problems.push(Problem::NotInCode { symbol, entry: vaddr });
            continue;
        };
        if plan.sites.iter().any(|site| site.file_offset == file_offset) {
            continue;
        }
        // The shape says which registers hold what behind the entry; at the entry itself the ABI does.
        let arguments = Arguments { shape: Shape::Pointer, regs: Reg::ARGS };
        match choose_entry(code, vaddr, arguments, Why::Naive) {
            Ok(choice) => plan.sites.push(MappingSite {
                function: row.function,
                symbol,
                file_offset,
                instruction: choice.instruction,
                execution: choice.execution,
            }),
            Err(reason) => plan.problems.push(Problem::NoSite { symbol, entry: vaddr, reason }),
        }
    }
    Ok(plan)
}

/// What the symbol tables hold.
#[derive(Default)]
struct Found {
    entries: Vec<Entry>,
    /// Begin and end of Go's code.
    go_text: [Option<u64>; 2],
}

struct Entry {
    row: &'static MappingFunction,
    /// The first of the row's symbols that is there.
    rank: usize,
    vaddr: FileVaddr,
}

/// Definitions kept of one module: no real one has more than a few for each row.
const MAX_ENTRIES: usize = 64;

impl Found {
    fn read(&mut self, table: &SymbolTable<'_, FileHeader64<Endianness>>, names: &[u8], endian: Endianness) {
        for symbol in table.iter() {
            if symbol.st_shndx(endian) == elf::SHN_UNDEF {
                continue;
            }
            let (name, vaddr) = (name_at(names, symbol.st_name(endian)), symbol.st_value(endian));
            for (marker, place) in TEXT_MARKERS.iter().zip(&mut self.go_text) {
                if name == marker.as_bytes() {
                    *place = Some(vaddr);
                }
            }
            // What is local to a source file serves that file only; the loader's own functions are.
            if symbol.st_bind() == elf::STB_LOCAL || symbol.st_type() != elf::STT_FUNC {
                continue;
            }
            let with_name = |row: &'static MappingFunction| {
                row.symbols.iter().position(|symbol| symbol.as_bytes() == name).map(|rank| (row, rank))
            };
            let Some((row, rank)) = MAPPING_FUNCTIONS.iter().find_map(with_name) else { continue };
            let is_same = |entry: &&mut Entry| entry.vaddr.0 == vaddr && entry.row.function == row.function;
            if let Some(known) = self.entries.iter_mut().find(is_same) {
                known.rank = known.rank.min(rank);
            } else if self.entries.len() < MAX_ENTRIES {
                self.entries.push(Entry { row, rank, vaddr: FileVaddr(vaddr) });
            }
        }
    }
}

/// An address's place in the file and the bytes from there to the end of its segment, if it is code.
fn code_at<'elf>(
    file: &ElfFile64<'elf, Endianness>,
    bytes: &'elf [u8],
    vaddr: FileVaddr,
) -> Option<(FileOffset, &'elf [u8])> {
    let endian = file.endian();
    file.elf_program_headers().iter().find_map(|header| {
        let is_code = header.p_type(endian) == elf::PT_LOAD && header.p_flags(endian).contains(elf::PF_X);
        let distance = vaddr.0.checked_sub(header.p_vaddr(endian))?;
        let left = header.p_filesz(endian).checked_sub(distance).filter(|left| is_code && *left > 0)?;
        let offset = header.p_offset(endian).checked_add(distance)?;
        let code = bytes.get(usize::try_from(offset).ok()?..)?;
        let code = &code[..code.len().min(usize::try_from(left).ok()?)];
        (!code.is_empty()).then_some((FileOffset(offset), code))
    })
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_symbol_belongs_to_one_function_and_every_function_has_a_row() {
        let mut seen = HashSet::new();
        for symbol in MAPPING_FUNCTIONS.iter().flat_map(|row| row.symbols) {
            assert!(seen.insert(symbol), "{symbol} is in two rows");
        }
        assert_eq!(MAPPING_FUNCTIONS.map(|row| row.function), RangeFunction::ALL);
    }

    #[test]
    fn what_is_no_elf_file_has_no_plan() {
        assert!(plan_ranges(b"#!/bin/sh").is_err());
    }

    #[test]
    fn a_program_that_only_calls_them_has_no_sites() {
        let own = std::fs::read("/proc/self/exe").expect("this program's file");
        let plan = plan_ranges(&own).expect("an ELF file");
        assert_eq!(plan.sites, []);
    }
}
