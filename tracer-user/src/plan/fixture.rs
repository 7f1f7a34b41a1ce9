//! A small ELF file made to order, for the planner's tests.

use object::elf::{STB_GLOBAL, STT_FUNC, SymbolBind, SymbolType};

const EHDR_BYTES: usize = 64;
const PHDR_BYTES: usize = 56;
const SHDR_BYTES: usize = 64;

/// One executable segment at address 0x1000 (file offset 0x78) and two symbol tables.
#[derive(Clone, Debug)]
pub struct Elf {
    /// The segment's bytes.
    pub code: Vec<u8>,
    /// What .dynsym has.
    pub dynamic_symbols: Vec<Symbol>,
    /// What .symtab has.
    pub symbols: Vec<Symbol>,
}

/// An entry of a symbol table.
#[derive(Clone, Copy, Debug)]
pub struct Symbol {
    name: &'static str,
    value: u64,
    bind: SymbolBind,
    kind: SymbolType,
    section: u16,
}

/// A global function.
pub fn symbol(name: &'static str, value: u64) -> Symbol {
    Symbol { name, value, bind: STB_GLOBAL, kind: STT_FUNC, section: 1 }
}

impl Symbol {
    pub fn bind(self, bind: SymbolBind) -> Self {
        Self { bind, ..self }
    }

    pub fn kind(self, kind: SymbolType) -> Self {
        Self { kind, ..self }
    }

    pub fn undefined(self) -> Self {
        Self { section: 0, ..self }
    }
}

impl Default for Elf {
    fn default() -> Self {
        let mut code = vec![0xcc; 0x40];
        code[0x00] = 0x55;
        code[0x10] = 0x55;
        Self { code, dynamic_symbols: Vec::new(), symbols: Vec::new() }
    }
}

impl Elf {
    /// `malloc` at 0x1000 and `free` at 0x1010; both begin with `push rbp`.
    pub fn allocator() -> Self {
        Self { dynamic_symbols: vec![symbol("malloc", 0x1000), symbol("free", 0x1010)], ..Self::default() }
    }

    /// The file.
    pub fn bytes(&self) -> Vec<u8> {
        let mut out = vec![0; EHDR_BYTES + PHDR_BYTES];
        let code = append(&mut out, &self.code);
        let mut sections = vec![section(1, code, 0)];
        for (kind, symbols) in [(11, &self.dynamic_symbols), (2, &self.symbols)] {
            let (table, names) = symbol_table(symbols);
            let strings_index = sections.len() as u32 + 2;
            sections.push(section(kind, append(&mut out, &table), strings_index));
            sections.push(section(3, append(&mut out, &names), 0));
        }
        let sections_at = out.len() as u64;
        out.resize(out.len() + SHDR_BYTES, 0);
        out.extend(sections.iter().flatten());

        let header = &mut out[..EHDR_BYTES];
        header[..8].copy_from_slice(b"\x7fELF\x02\x01\x01\0");
        put(header, 16, &3_u16.to_le_bytes()); // ET_DYN
        put(header, 18, &62_u16.to_le_bytes()); // EM_X86_64
        put(header, 20, &1_u32.to_le_bytes());
        put(header, 32, &(EHDR_BYTES as u64).to_le_bytes());
        put(header, 40, &sections_at.to_le_bytes());
        // The names of sections are in the last table, whose bytes serve for empty names.
        let n_sections = sections.len() + 1;
        let counts = [EHDR_BYTES, PHDR_BYTES, 1, SHDR_BYTES, n_sections, n_sections - 1];
        for (at, value) in (52..).step_by(2).zip(counts) {
            put(header, at, &(value as u16).to_le_bytes());
        }
        let segment = &mut out[EHDR_BYTES..EHDR_BYTES + PHDR_BYTES];
        put(segment, 0, &1_u32.to_le_bytes()); // PT_LOAD
        put(segment, 4, &5_u32.to_le_bytes()); // readable, executable
        put(segment, 8, &code.0.to_le_bytes());
        put(segment, 16, &0x1000_u64.to_le_bytes());
        put(segment, 32, &code.1.to_le_bytes());
        put(segment, 40, &code.1.to_le_bytes());
        out
    }
}

/// Offset and size of a part of the file.
type Extent = (u64, u64);

fn append(out: &mut Vec<u8>, bytes: &[u8]) -> Extent {
    let start = out.len() as u64;
    out.extend(bytes);
    (start, bytes.len() as u64)
}

fn symbol_table(symbols: &[Symbol]) -> (Vec<u8>, Vec<u8>) {
    let mut table = vec![0; 24];
    let mut names = vec![0];
    for symbol in symbols {
        table.extend((names.len() as u32).to_le_bytes());
        table.extend([symbol.bind.0 << 4 | symbol.kind.0, 0]);
        table.extend(symbol.section.to_le_bytes());
        table.extend(symbol.value.to_le_bytes());
        table.extend(0_u64.to_le_bytes());
        names.extend(symbol.name.as_bytes());
        names.push(0);
    }
    (table, names)
}

fn section(kind: u32, (offset, size): Extent, link: u32) -> [u8; SHDR_BYTES] {
    let mut header = [0; SHDR_BYTES];
    put(&mut header, 4, &kind.to_le_bytes());
    put(&mut header, 24, &offset.to_le_bytes());
    put(&mut header, 32, &size.to_le_bytes());
    put(&mut header, 40, &link.to_le_bytes());
    put(&mut header, 56, &if matches!(kind, 2 | 11) { 24_u64 } else { 0 }.to_le_bytes());
    header
}

fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    bytes[at..at + value.len()].copy_from_slice(value);
}
