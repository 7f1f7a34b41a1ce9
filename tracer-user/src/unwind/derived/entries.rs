//! Where functions begin, as symbols, relocations and sections tell it.

use std::{collections::HashSet, ops::Range};

use iced_x86::Instruction;
use object::{
    Endianness, Object as _, ObjectSection as _, RelocationTarget,
    elf::{self, FileHeader64},
    read::elf::{ElfFile64, SectionHeader as _, Sym as _, SymbolTable},
};

use super::super::image::Image;
use crate::plan::mini_debug;

/// Symbols looked at in one table; a browser has about two million.
const MAX_SYMBOLS: usize = 4 << 20;

/// Relocations looked at.
const MAX_RELOCATIONS: usize = 4 << 20;

/// Bytes of a name that are looked at.
const MAX_NAME_BYTES: usize = 256;

/// Functions of other modules that do not come back; of the module's own, it is seen.
const NORETURN: [&[u8]; 24] = [
    b"exit",
    b"_exit",
    b"_Exit",
    b"quick_exit",
    b"abort",
    b"pthread_exit",
    b"thrd_exit",
    b"longjmp",
    b"_longjmp",
    b"siglongjmp",
    b"__longjmp_chk",
    b"__assert_fail",
    b"__assert",
    b"__assert_perror_fail",
    b"__stack_chk_fail",
    b"__fortify_fail",
    b"__chk_fail",
    b"__libc_start_main",
    b"_Unwind_Resume",
    b"__cxa_throw",
    b"__cxa_rethrow",
    b"__cxa_bad_cast",
    b"__cxa_throw_bad_array_new_length",
    b"_ZSt9terminatev",
];

/// C++'s helpers that throw (`std::__throw_bad_alloc()` and its kin).
const NORETURN_PREFIX: &[u8] = b"_ZSt";
const NORETURN_MIDDLE: &[u8] = b"__throw_";

/// What GCC splits off a function: it begins in the midst of it, as to the stack.
const SPLIT_OFF: &[u8] = b".cold";

/// Sections with stubs that jump through slots.
const LINKAGE: [&str; 4] = [".plt", ".plt.sec", ".plt.got", ".iplt"];

/// Bytes of a stub in `.plt`.
const STUB_BYTES: u64 = 16;

/// See the module's head.
#[derive(Debug, Default)]
pub struct Entries {
    /// Ascending.
    pub functions: Vec<u64>,
    /// Addresses that data hold: functions, most of them. Ascending.
    pub pointed_to: Vec<u64>,
    noreturn: HashSet<u64>,
    noreturn_slots: HashSet<u64>,
    linkage: Vec<Range<u64>>,
}

impl Entries {
    /// Reads an ELF file and, for further names, its debug file.
    pub fn read(image: &Image<'_>, debug: Option<&[u8]>) -> Self {
        let mut entries = Self::default();
        if let Some(file) = &image.file {
            entries.read_symbols(file);
            if file.elf_symbol_table().is_empty()
                && let Some(compressed) = file.section_by_name(mini_debug::SECTION).and_then(|it| it.data().ok())
                && let Ok(names) = mini_debug::decompress(compressed)
                && let Ok(names) = ElfFile64::parse(&*names)
            {
                entries.read_symbols(&names);
            }
            entries.read_relocations(file);
            entries.read_linkage(file);
        }
        if let Some(debug) = debug.and_then(|debug| ElfFile64::parse(debug).ok()) {
            entries.read_symbols(&debug);
        }
        for list in [&mut entries.functions, &mut entries.pointed_to] {
            list.sort_unstable();
            list.dedup();
        }
        entries
    }

    /// Whether a symbol says that a function begins there.
    pub fn is_function(&self, vaddr: u64) -> bool {
        self.functions.binary_search(&vaddr).is_ok()
    }

    /// Whether the function there does not come back, by its name.
    pub fn is_noreturn(&self, entry: u64) -> bool {
        self.noreturn.contains(&entry)
    }

    /// Whether an indirect call or jump leads, through its slot, to a function that does not come back.
    pub fn is_noreturn_slot(&self, instruction: &Instruction) -> bool {
        instruction.is_ip_rel_memory_operand() && self.noreturn_slots.contains(&instruction.ip_rel_memory_address())
    }

    /// Whether it is in a procedure linkage table.
    pub fn is_linkage(&self, vaddr: u64) -> bool {
        self.linkage.iter().any(|section| section.contains(&vaddr))
    }

    fn read_symbols(&mut self, file: &ElfFile64<'_, Endianness>) {
        for table in [file.elf_dynamic_symbol_table(), file.elf_symbol_table()] {
            self.read_table(table, names_of(file, table), file.endian());
        }
    }

    fn read_table(&mut self, table: &SymbolTable<'_, FileHeader64<Endianness>>, names: &[u8], endian: Endianness) {
        for symbol in table.iter().take(MAX_SYMBOLS) {
            let is_function = matches!(symbol.st_type(), elf::STT_FUNC | elf::STT_GNU_IFUNC);
            if !is_function || symbol.st_shndx(endian) == elf::SHN_UNDEF {
                continue;
            }
            let name = name_at(names, symbol.st_name(endian));
            let vaddr = symbol.st_value(endian);
            if contains(name, SPLIT_OFF) {
                continue;
            }
            self.functions.push(vaddr);
            if is_noreturn(name) {
                self.noreturn.insert(vaddr);
            }
        }
    }

    fn read_relocations(&mut self, file: &ElfFile64<'_, Endianness>) {
        let symbols = file.elf_dynamic_symbol_table();
        let names = names_of(file, symbols);
        for (slot, relocation) in file.dynamic_relocations().into_iter().flatten().take(MAX_RELOCATIONS) {
            match relocation.target() {
                RelocationTarget::Symbol(index) => {
                    let name = symbols.symbol(index).map(|symbol| name_at(names, symbol.st_name(file.endian())));
                    if name.is_ok_and(is_noreturn) {
                        self.noreturn_slots.insert(slot);
                    }
                }
                _ => self.pointed_to.push(relocation.addend() as u64),
            }
        }
    }

    fn read_linkage(&mut self, file: &ElfFile64<'_, Endianness>) {
        for section in file.sections().filter(|section| section.name().is_ok_and(|name| LINKAGE.contains(&name))) {
            let range = section.address()..section.address().saturating_add(section.size());
            // The first stub of `.plt` is the others' common end, at another depth.
            let first = if section.name() == Ok(".plt") { STUB_BYTES } else { 0 };
            let stubs = range.clone().skip(first as usize).step_by(STUB_BYTES as usize);
            self.functions.extend(stubs.take(MAX_SYMBOLS));
            self.linkage.push(range);
        }
    }
}

fn is_noreturn(name: &[u8]) -> bool {
    NORETURN.contains(&name) || (name.starts_with(NORETURN_PREFIX) && contains(name, NORETURN_MIDDLE))
}

fn contains(name: &[u8], part: &[u8]) -> bool {
    name.windows(part.len()).any(|window| window == part)
}

/// The strings of a symbol table.
fn names_of<'elf>(
    file: &ElfFile64<'elf, Endianness>,
    table: &SymbolTable<'elf, FileHeader64<Endianness>>,
) -> &'elf [u8] {
    let section = file.elf_section_table().section(table.string_section());
    section.and_then(|section| section.data(file.endian(), file.data())).unwrap_or_default()
}

/// A symbol's name without its version; empty where it is too long. Without a bound, a string table without ends would be read
/// anew for each symbol.
fn name_at(names: &[u8], start: u32) -> &[u8] {
    let rest = names.get(start as usize..).unwrap_or_default();
    let length = rest.iter().take(MAX_NAME_BYTES).position(|byte| matches!(byte, 0 | b'@'));
    &rest[..length.unwrap_or(0)]
}
