//! Reads from an ELF file what the planner needs: allocator functions that the module defines, and its code.
//!
//! Names come from .dynsym and .symtab; where these have no allocator, from the file's compressed .gnu_debugdata and from
//! its separate debug file too.

use std::{cell::OnceCell, collections::HashMap};

use object::{
    Endianness, Object as _, ObjectSection as _,
    elf::{self, FileHeader64},
    read::elf::{ElfFile64, FileHeader as _, ProgramHeader as _, SectionHeader as _, Sym as _, SymbolTable},
};
use tracer_common::addr::{FileOffset, FileVaddr};

use super::{
    Input, PlanError, Problem,
    allocators::{AllocatorFunction, FAMILIES, FUNCTIONS, Family, LIBC_MARKER, LOADER_MARKERS, plain_name},
    go::GoText,
    links::{self, Links},
    mini_debug,
};
use crate::text::near;

/// Executable segments kept of one module; linkers make one or two.
const MAX_CODE_SEGMENTS: usize = 64;

/// Definitions of allocator functions kept of one module: no real one has more than a few for each row.
const MAX_DEFINITIONS: usize = 1024;

/// Bytes of a symbol's name that are looked at. The names in the table are shorter; without a bound, a string table
/// without ends would be read anew for each symbol.
const MAX_NAME_BYTES: usize = 96;

/// Bytes taken as a function's code when neither its symbol nor the next one says where it ends.
const DEFAULT_FUNCTION_BYTES: u64 = 4096;

/// What a module defines.
#[derive(Debug)]
pub struct Module<'elf> {
    /// The known allocator that this is, if it is one.
    pub family: Option<&'static Family>,
    /// The table of functions, then those that the user named for this module.
    pub rows: Vec<AllocatorFunction>,
    /// Whether the file has been stripped of .symtab, so that a debug file may name more.
    pub is_stripped: bool,
    /// Whether C++ exceptions may pass through its code.
    pub may_throw: bool,
    /// Global allocator functions, in the order of the table, then of the row's symbols, then by address.
    pub definitions: Vec<Definition>,
    /// What was met and could not be used.
    pub problems: Vec<Problem>,
    /// Executable segments as far as the file has them.
    pub segments: Vec<(FileVaddr, &'elf [u8])>,
    /// Addresses of all functions, ascending.
    pub functions: Vec<u64>,
    offsets: Vec<FileOffset>,
    elf: &'elf [u8],
    links: OnceCell<Links>,
}

/// What a call or a jump leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Callee {
    /// Code of this module.
    Here(FileVaddr),
    /// A symbol that the loader looks up: its row, where the table has it.
    Elsewhere(Option<u8>),
    /// What raises a C++ exception.
    Raise,
}

/// One symbol that defines an allocator function.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Definition {
    /// Index in the table of allocator functions.
    pub function: u8,
    rank: u8,
    /// Its entry.
    pub entry: FileVaddr,
    /// Its size as the symbol states it; 0 for not stated.
    pub size_bytes: u64,
    /// The name without version.
    pub symbol: &'static str,
}

impl Definition {
    /// Whether a user named it.
    fn is_users(&self) -> bool {
        usize::from(self.function) >= FUNCTIONS.len()
    }
}

/// The code behind an address.
#[derive(Clone, Copy, Debug)]
pub struct CodeAt<'elf> {
    /// The address's place in the file.
    pub offset: FileOffset,
    /// From the address to the segment's end in the file.
    pub bytes: &'elf [u8],
}

impl<'elf> Module<'elf> {
    /// Reads the symbol tables.
    pub fn read(input: &Input<'elf>) -> Result<Self, PlanError> {
        let bytes = input.elf;
        let file = open(bytes)?;
        let endian = file.endian();
        let mut module = Self {
            family: None,
            rows: FUNCTIONS.to_vec(),
            is_stripped: file.elf_symbol_table().is_empty(),
            may_throw: false,
            definitions: Vec::new(),
            problems: Vec::new(),
            segments: Vec::new(),
            functions: Vec::new(),
            offsets: Vec::new(),
            elf: bytes,
            links: OnceCell::new(),
        };
        module.rows.extend(input.specified().map(super::SpecFunction::row));
        // Segments of a sound file do not overlap: together they are no longer than the file.
        let mut budget_bytes = bytes.len();
        for header in file.elf_program_headers() {
            let is_code = header.p_type(endian) == elf::PT_LOAD && header.p_flags(endian).contains(elf::PF_X);
            if !is_code || module.segments.len() == MAX_CODE_SEGMENTS {
                continue;
            }
            let offset = header.p_offset(endian);
            let Some(in_file) = usize::try_from(offset).ok().and_then(|offset| bytes.get(offset..)) else {
                continue;
            };
            let len =
                usize::try_from(header.p_filesz(endian)).unwrap_or(usize::MAX).min(in_file.len()).min(budget_bytes);
            budget_bytes -= len;
            module.segments.push((FileVaddr(header.p_vaddr(endian)), &in_file[..len]));
            module.offsets.push(FileOffset(offset));
        }

        let mut found = Found::new(&module.rows, input);
        found.read_tables(&file, bytes);
        if found.definitions.is_empty() || input.specified().next().is_some() {
            found.read_more(&file, input, module.is_stripped);
        }
        if !found.any_symbol {
            module.problems.push(Problem::NoSymbols);
        }
        found.functions.sort_unstable();
        found.functions.dedup();
        module.functions = std::mem::take(&mut found.functions);
        module.may_throw = EXCEPTION_MARKERS.iter().any(|name| found.defines(name));
        module.family = FAMILIES.iter().find(|family| family.any_of.iter().any(|name| found.defines(name)));
        found.take_locals();
        found.definitions.sort_unstable();
        found.definitions.dedup();
        found.problems.dedup();
        module.problems.append(&mut found.problems);

        if LOADER_MARKERS.iter().any(|name| found.defines(name)) && !found.defines(LIBC_MARKER) {
            if !found.definitions.is_empty() {
                module.problems.push(Problem::Loader { functions: names(&found.definitions) });
            }
        } else {
            module.definitions = found.complete(&module.rows, &mut module.problems);
        }
        GoText::of(&file, &found.go_text).refuse(&mut module.definitions, &mut module.problems);
        for function in input.specified() {
            if !found.seen.contains(&function.symbol) {
                let near = near::names(function.symbol, &found.all_names);
                module.problems.push(Problem::NoSuchSymbol { symbol: function.symbol, near });
            }
        }
        Ok(module)
    }

    /// The file's bytes at an address, if it is in an executable segment and in the file.
    pub fn code_at(&self, vaddr: FileVaddr) -> Option<CodeAt<'elf>> {
        self.segments.iter().zip(&self.offsets).find_map(|((start, bytes), offset)| {
            let distance = vaddr.0.checked_sub(start.0)?;
            let bytes = bytes.get(usize::try_from(distance).ok()?..).filter(|bytes| !bytes.is_empty())?;
            Some(CodeAt { offset: FileOffset(offset.0.checked_add(distance)?), bytes })
        })
    }

    /// The row of a function of this module or of a user's.
    pub fn row(&self, definition: &Definition) -> &AllocatorFunction {
        &self.rows[usize::from(definition.function)]
    }

    /// Whether a function begins there.
    pub fn is_entry(&self, vaddr: FileVaddr) -> bool {
        self.functions.binary_search(&vaddr.0).is_ok() || self.links().is_entry(vaddr)
    }

    /// Where the function that holds the address ends, by its unwind information, else by where the next one begins.
    pub fn end_of_function(&self, vaddr: FileVaddr) -> u64 {
        self.links().end_of(vaddr).unwrap_or_else(|| {
            let next = self.functions.partition_point(|address| *address <= vaddr.0);
            self.functions.get(next).copied().unwrap_or(u64::MAX)
        })
    }

    /// What a slot of the global offset table leads to.
    pub fn import_at(&self, slot: FileVaddr) -> Option<Callee> {
        self.links().slots.get(&slot.0).copied()
    }

    /// What a jump through the procedure linkage table leads to, if the address is an entry of it.
    pub fn through_plt(&self, vaddr: FileVaddr) -> Option<Callee> {
        links::plt_slot(self.code_at(vaddr)?.bytes, vaddr).and_then(|slot| self.import_at(slot))
    }

    fn links(&self) -> &Links {
        self.links.get_or_init(|| Links::read(self.elf))
    }

    /// The bytes of a function from its entry to its end.
    pub fn body(&self, definition: &Definition, code: CodeAt<'elf>) -> &'elf [u8] {
        let size_bytes = if definition.size_bytes > 0 {
            definition.size_bytes
        } else {
            let next = self.functions.partition_point(|address| *address <= definition.entry.0);
            let to_next = self.functions.get(next).map_or(u64::MAX, |next| next - definition.entry.0);
            to_next.min(DEFAULT_FUNCTION_BYTES)
        };
        &code.bytes[..code.bytes.len().min(usize::try_from(size_bytes).unwrap_or(usize::MAX))]
    }
}

/// Accepts a linked 64-bit x86 ELF file.
pub fn open(bytes: &[u8]) -> Result<ElfFile64<'_, Endianness>, PlanError> {
    let not_elf = || PlanError::NotElf;
    if !bytes.starts_with(&elf::ELFMAG) {
        return Err(not_elf());
    }
    if *bytes.get(4).ok_or_else(not_elf)? != elf::ELFCLASS64.0 {
        return Err(PlanError::Not64Bit);
    }
    let header = FileHeader64::<Endianness>::parse(bytes)?;
    let endian = header.endian()?;
    let machine = header.e_machine(endian);
    if machine != elf::EM_X86_64 {
        return Err(PlanError::Machine { machine: machine.0 });
    }
    let kind = header.e_type(endian);
    if kind != elf::ET_DYN && kind != elf::ET_EXEC {
        return Err(PlanError::NotLinked { kind: kind.0 });
    }
    Ok(ElfFile64::parse(bytes)?)
}

/// What makes C++ exceptions pass through a module: the routine that finds handlers, and the one that raises.
const EXCEPTION_MARKERS: [&str; 2] = ["__gxx_personality_v0", "__cxa_throw"];

/// Names of functions kept to suggest from, where a user's is not found.
const MAX_NAMES: usize = 1 << 16;

/// What the symbol tables hold between them.
#[derive(Default)]
struct Found {
    wanted: HashMap<&'static [u8], Wanted>,
    rows: Vec<AllocatorFunction>,
    any_symbol: bool,
    definitions: Vec<Definition>,
    locals: Vec<Definition>,
    problems: Vec<Problem>,
    functions: Vec<u64>,
    markers: Vec<&'static str>,
    /// Names of the user's that some table has, be it as what.
    seen: Vec<&'static str>,
    wants_all_names: bool,
    all_names: Vec<String>,
    /// Begin and end of Go's code.
    go_text: [Option<u64>; 2],
}

impl Found {
    fn new(rows: &[AllocatorFunction], input: &Input<'_>) -> Self {
        let mut wanted = wanted();
        for (function, index) in input.specified().zip(FUNCTIONS.len()..) {
            let Ok(index) = u8::try_from(index) else { break };
            let symbol = function.symbol;
            wanted.insert(symbol.as_bytes(), Wanted { symbol, function: Some((index, 0)), is_marker: false });
        }
        let wants_all_names = input.specified().next().is_some();
        Self { wanted, rows: rows.to_vec(), wants_all_names, ..Self::default() }
    }

    fn defines(&self, marker: &str) -> bool {
        self.markers.contains(&marker)
    }

    fn read_tables(&mut self, file: &ElfFile64<'_, Endianness>, bytes: &[u8]) {
        let endian = file.endian();
        for table in [file.elf_dynamic_symbol_table(), file.elf_symbol_table()] {
            let names = file
                .elf_section_table()
                .section(table.string_section())
                .and_then(|section| section.data(endian, bytes))
                .unwrap_or_default();
            self.read(table, names, endian);
        }
    }

    /// Further sources of names, of files that are not this one.
    fn read_more(&mut self, file: &ElfFile64<'_, Endianness>, input: &Input<'_>, is_stripped: bool) {
        let mini = file.section_by_name(mini_debug::SECTION).filter(|_| is_stripped);
        if let Some(compressed) = mini.and_then(|section| section.data().ok()) {
            match mini_debug::decompress(compressed) {
                Ok(bytes) => self.read_other(&bytes),
                Err(reason) => self.problems.push(Problem::MiniDebugInfo { reason }),
            }
        }
        if let Some(debug) = input.debug {
            self.read_other(debug);
        }
    }

    fn read_other(&mut self, bytes: &[u8]) {
        if let Ok(file) = open(bytes) {
            self.read_tables(&file, bytes);
        }
    }

    fn read(&mut self, table: &SymbolTable<'_, FileHeader64<Endianness>>, names: &[u8], endian: Endianness) {
        for symbol in table.iter() {
            let name = name_at(names, symbol.st_name(endian));
            let is_defined = symbol.st_shndx(endian) != elf::SHN_UNDEF;
            let kind = symbol.st_type();
            let entry = FileVaddr(symbol.st_value(endian));
            if is_defined {
                self.any_symbol = true;
                if kind == elf::STT_FUNC {
                    self.functions.push(entry.0);
                    self.keep_name(name);
                }
            }
            let Some(Wanted { symbol: name, function, is_marker }) = self.wanted.get(plain_name(name)).copied() else {
                continue;
            };
            if is_marker {
                self.mark(name, is_defined, entry);
            }
            let Some((function, rank)) = function else { continue };
            if !is_defined {
                continue;
            }
            if usize::from(function) >= FUNCTIONS.len() && !self.seen.contains(&name) {
                self.seen.push(name);
            }
            if self.definitions.len() + self.locals.len() + self.problems.len() >= MAX_DEFINITIONS {
                continue;
            }
            let definition = Definition { function, rank, entry, size_bytes: symbol.st_size(endian), symbol: name };
            match (symbol.st_bind(), kind) {
                (elf::STB_LOCAL, elf::STT_FUNC) => self.locals.push(definition),
                (elf::STB_LOCAL, _) => self.problems.push(Problem::Local { symbol: name, entry }),
                (_, elf::STT_FUNC) => self.definitions.push(definition),
                (_, elf::STT_GNU_IFUNC) => self.problems.push(Problem::Indirect { symbol: name, resolver: entry }),
                _ => self.problems.push(Problem::NotAFunction { symbol: name }),
            }
        }
    }

    fn mark(&mut self, name: &'static str, is_defined: bool, value: FileVaddr) {
        // What raises exceptions is seldom in the module itself.
        if (is_defined || EXCEPTION_MARKERS.contains(&name)) && !self.markers.contains(&name) {
            self.markers.push(name);
        }
        for (marker, place) in super::go::TEXT_MARKERS.iter().zip(&mut self.go_text) {
            if is_defined && *marker == name {
                *place = Some(value.0);
            }
        }
    }

    fn keep_name(&mut self, name: &[u8]) {
        if self.wants_all_names && self.all_names.len() < MAX_NAMES && name.iter().all(u8::is_ascii_graphic) {
            self.all_names.extend(str::from_utf8(name).ok().filter(|name| !name.is_empty()).map(str::to_owned));
        }
    }

    /// Local symbols: a static link may have made all symbols local (a version script, hidden visibility). Telling names are
    /// believed; common ones only where nothing global has them and each is there once.
    fn take_locals(&mut self) {
        self.locals.sort_unstable();
        self.locals.dedup();
        let is_common = |definition: &Definition| self.rows[usize::from(definition.function)].is_common_name;
        let no_global = !self.definitions.iter().any(is_common);
        let is_single = |wanted: &Definition| {
            self.locals.iter().filter(|local| local.symbol == wanted.symbol).count() == 1 && no_global
        };
        let (usable, other): (Vec<_>, Vec<_>) =
            self.locals.iter().copied().partition(|local| !is_common(local) || is_single(local));
        self.definitions.extend(usable);
        // Where the same function is there for all, nobody misses the local one.
        let is_missed =
            |local: &&Definition| !self.definitions.iter().any(|definition| definition.function == local.function);
        let missed = other.iter().filter(is_missed);
        self.problems.extend(missed.map(|local| Problem::Local { symbol: local.symbol, entry: local.entry }));
    }

    /// The definitions of rows whose needs the module meets.
    fn complete(&mut self, rows: &[AllocatorFunction], problems: &mut Vec<Problem>) -> Vec<Definition> {
        let defined: Vec<_> = self.definitions.iter().map(|d| &rows[usize::from(d.function)]).collect();
        let both = [true, false].iter().all(|returns| defined.iter().any(|row| row.shape.returns() == *returns));
        let is_met = |need: &&str| defined.iter().any(|row| row.name == *need);
        let (usable, lone): (Vec<_>, Vec<_>) = self
            .definitions
            .iter()
            .partition(|d| rows[usize::from(d.function)].needs.iter().all(is_met) && (both || d.is_users()));
        if !lone.is_empty() {
            problems.push(Problem::NotAnAllocator { functions: names(&lone) });
        }
        usable
    }
}

/// A name without its version (`@GLIBC_2.2.5`); empty when it is too long or not in the table.
pub fn name_at(names: &[u8], start: u32) -> &[u8] {
    let rest = names.get(start as usize..).unwrap_or_default();
    let len = rest.iter().take(MAX_NAME_BYTES).position(|byte| matches!(byte, 0 | b'@'));
    &rest[..len.unwrap_or(0)]
}

/// Likewise, of a name that is at hand.
pub fn name_without_version(name: &[u8]) -> &[u8] {
    &name[..name.iter().position(|byte| *byte == b'@').unwrap_or(name.len())]
}

fn names(definitions: &[Definition]) -> Vec<&'static str> {
    definitions.iter().map(|definition| definition.symbol).collect()
}

/// A symbol worth noting: an allocator function with its row and its rank within the row, a marker, or both.
#[derive(Clone, Copy)]
struct Wanted {
    symbol: &'static str,
    function: Option<(u8, u8)>,
    is_marker: bool,
}

fn wanted() -> HashMap<&'static [u8], Wanted> {
    let functions = FUNCTIONS.iter().zip(0..).flat_map(|(function, index)| {
        let ranked = function.symbols.iter().zip(0..);
        ranked.map(move |(symbol, rank)| Wanted { symbol, function: Some((index, rank)), is_marker: false })
    });
    let mut wanted: HashMap<_, _> = functions.map(|wanted| (wanted.symbol.as_bytes(), wanted)).collect();
    let markers = FAMILIES
        .iter()
        .flat_map(|family| family.any_of)
        .chain(&LOADER_MARKERS)
        .chain([&LIBC_MARKER])
        .chain(&EXCEPTION_MARKERS)
        .chain(&super::go::TEXT_MARKERS);
    for symbol in markers {
        let unknown = Wanted { symbol, function: None, is_marker: true };
        wanted.entry(symbol.as_bytes()).or_insert(unknown).is_marker = true;
    }
    wanted
}

#[cfg(test)]
mod tests {
    use object::elf::{STB_GLOBAL, STB_LOCAL, STB_WEAK, STT_FUNC, STT_GNU_IFUNC, STT_OBJECT};

    use super::{
        super::fixture::{Elf, symbol},
        *,
    };

    fn problems(elf: &Elf) -> Vec<Problem> {
        Module::read(&Input::of(&elf.bytes())).expect("an ELF file").problems
    }

    fn symbols_of(elf: &Elf) -> Vec<(&'static str, u64)> {
        let bytes = elf.bytes();
        let module = Module::read(&Input::of(&bytes)).expect("an ELF file");
        module.definitions.iter().map(|definition| (definition.symbol, definition.entry.0)).collect()
    }

    #[test]
    fn definitions_come_from_both_tables_without_version() {
        let elf = Elf {
            dynamic_symbols: vec![symbol("malloc", 0x1000), symbol("free", 0x1010)],
            symbols: vec![
                symbol("malloc@@GLIBC_2.2.5", 0x1000),
                symbol("cfree@GLIBC_2.2.5", 0x1010).bind(STB_WEAK),
                symbol("malloc_usable_size", 0x1018),
            ],
            ..Elf::default()
        };
        assert_eq!(symbols_of(&elf), [("malloc", 0x1000), ("free", 0x1010), ("cfree", 0x1010)]);
        assert_eq!(problems(&elf), []);
    }

    #[test]
    fn imported_function_is_not_defined() {
        let elf = Elf { dynamic_symbols: vec![symbol("malloc", 0).undefined()], ..Elf::default() };
        assert_eq!((symbols_of(&elf), problems(&elf)), (vec![], vec![Problem::NoSymbols]));
    }

    #[test]
    fn resolver_of_an_ifunc_is_no_function() {
        let mut elf = Elf::allocator();
        elf.symbols.push(symbol("calloc", 0x1010).kind(STT_GNU_IFUNC));
        assert_eq!(problems(&elf), [Problem::Indirect { symbol: "calloc", resolver: FileVaddr(0x1010) }]);
    }

    #[test]
    fn local_function_and_variable_are_reported() {
        let mut elf = Elf::allocator();
        elf.symbols.push(symbol("valloc", 0x1010).bind(STB_LOCAL));
        elf.symbols.push(symbol("realloc", 0x1010).kind(STT_OBJECT));
        assert_eq!(
            problems(&elf),
            [
                Problem::NotAFunction { symbol: "realloc" },
                Problem::Local { symbol: "valloc", entry: FileVaddr(0x1010) },
            ]
        );
    }

    #[test]
    fn lone_free_makes_no_allocator() {
        let elf = Elf { symbols: vec![symbol("free", 0x1000), symbol("valloc", 0x1008)], ..Elf::default() };
        assert_eq!(symbols_of(&elf), []);
        assert_eq!(problems(&elf), [Problem::NotAnAllocator { functions: vec!["free", "valloc"] }]);
    }

    #[test]
    fn loader_is_told_from_a_libc_that_is_its_own_loader() {
        let mut elf = Elf::allocator();
        elf.dynamic_symbols.push(symbol("_r_debug", 0x1018).kind(STT_OBJECT));
        assert_eq!(symbols_of(&elf), []);
        assert_eq!(problems(&elf), [Problem::Loader { functions: vec!["malloc", "free"] }]);
        // musl, and any static program
        elf.dynamic_symbols.push(symbol("__libc_start_main", 0x1018).kind(STT_FUNC).bind(STB_GLOBAL));
        assert_eq!(symbols_of(&elf), [("malloc", 0x1000), ("free", 0x1010)]);
        assert_eq!(problems(&elf), []);
    }

    #[test]
    fn family_is_the_most_specific_one() {
        let family = |names: &[&'static str]| {
            let mut elf = Elf::allocator();
            elf.symbols.extend(names.iter().map(|name| symbol(name, 0x1010)));
            Module::read(&Input::of(&elf.bytes())).expect("an ELF file").family.map(|family| family.name)
        };
        assert_eq!(family(&[]), None);
        assert_eq!(family(&["gnu_get_libc_version"]), Some("glibc"));
        assert_eq!(family(&["gnu_get_libc_version", "mallctl"]), Some("jemalloc"), "a static program with both");
    }

    #[test]
    fn file_offset_goes_by_the_program_headers() {
        let elf = Elf::allocator();
        let bytes = elf.bytes();
        let module = Module::read(&Input::of(&bytes)).expect("an ELF file");
        let code = module.code_at(FileVaddr(0x1010)).expect("in the segment");
        let at = usize::try_from(code.offset.0).expect("an offset");
        assert_eq!((&bytes[at..at + 3], code.bytes.len()), (&elf.code[0x10..0x13], elf.code.len() - 0x10));
        assert!(module.code_at(FileVaddr(0xfff)).is_none());
        assert!(module.code_at(FileVaddr(0x1000 + elf.code.len() as u64)).is_none());
    }

    #[test]
    fn name_without_end_is_no_name() {
        assert_eq!(name_at(b"\0malloc\0", 1), b"malloc");
        assert_eq!(name_at(b"\0malloc", 1), b"");
        assert_eq!(name_at(b"\0malloc\0", 99), b"");
        assert_eq!(name_at(&[b'm'; 1000], 0), b"");
    }

    #[test]
    fn other_files_are_refused_with_the_reason() {
        let read = |change: fn(&mut Vec<u8>)| {
            let mut bytes = Elf::allocator().bytes();
            change(&mut bytes);
            Module::read(&Input::of(&bytes)).expect_err("refused")
        };
        assert!(matches!(read(Vec::clear), PlanError::NotElf));
        assert!(matches!(read(|bytes| bytes.truncate(4)), PlanError::NotElf));
        assert!(matches!(read(|bytes| bytes[4] = 1), PlanError::Not64Bit));
        assert!(matches!(read(|bytes| bytes[18] = 183), PlanError::Machine { machine: 183 }));
        assert!(matches!(read(|bytes| bytes[16] = 4), PlanError::NotLinked { kind: 4 }));
        assert!(matches!(read(|bytes| bytes.truncate(40)), PlanError::Broken(_)));
    }
}
