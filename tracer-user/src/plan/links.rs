//! What links a module's code to other code: slots of the global offset table, and where functions begin and end.

use std::{collections::HashMap, ops::Range};

use gimli::{BaseAddresses, CieOrFde, EhFrame, LittleEndian, UnwindSection as _};
use iced_x86::{FlowControl, Mnemonic};
use object::{
    Endianness, Object as _, ObjectSection as _, ObjectSymbol as _, ObjectSymbolTable as _, RelocationTarget,
    read::elf::ElfFile64,
};
use tracer_common::addr::FileVaddr;

use super::{
    allocators::FUNCTIONS,
    flow,
    prologue::decode,
    symbols::{Callee, name_without_version},
};

/// Relocations read of one module; large programs have some hundred thousand, nearly all without a symbol.
const MAX_RELOCATIONS: usize = 4 << 20;

/// Functions read from `.eh_frame`; a browser has about a million.
const MAX_FUNCTIONS: usize = 2 << 20;

/// What raises std::bad_alloc, by hand or by libstdc++'s help.
const RAISING: [&[u8]; 2] = [b"__cxa_throw", b"_ZSt17__throw_bad_allocv"];

/// See the module's head.
#[derive(Debug, Default)]
pub struct Links {
    /// Slot → what the loader puts there.
    pub slots: HashMap<u64, Callee>,
    /// Begin and end of each function with unwind information, ascending.
    extents: Vec<(u64, u64)>,
}

impl Links {
    /// Reads what there is; a broken file has fewer.
    pub fn read(elf: &[u8]) -> Self {
        let Ok(file) = ElfFile64::<Endianness>::parse(elf) else { return Self::default() };
        Self { slots: slots(&file), extents: extents(&file).unwrap_or_default() }
    }

    /// Whether a function begins there.
    pub fn is_entry(&self, vaddr: FileVaddr) -> bool {
        self.extents.binary_search_by_key(&vaddr.0, |(start, _)| *start).is_ok()
    }

    /// The end of the function that holds the address.
    pub fn end_of(&self, vaddr: FileVaddr) -> Option<u64> {
        let after = self.extents.partition_point(|(start, _)| *start <= vaddr.0);
        let (_, end) = self.extents[..after].last()?;
        (vaddr.0 < *end).then_some(*end)
    }
}

fn slots(file: &ElfFile64<'_, Endianness>) -> HashMap<u64, Callee> {
    let Some(relocations) = file.dynamic_relocations() else { return HashMap::new() };
    let symbols = file.dynamic_symbol_table();
    let rows: HashMap<&str, u8> = FUNCTIONS
        .iter()
        .zip(0..)
        .flat_map(|(function, index)| function.symbols.iter().map(move |symbol| (*symbol, index)))
        .collect();
    let got: Vec<Range<u64>> = [".got", ".got.plt"]
        .into_iter()
        .filter_map(|name| file.section_by_name(name))
        .map(|section| section.address()..section.address().saturating_add(section.size()))
        .collect();
    let slots = relocations.take(MAX_RELOCATIONS).filter_map(|(slot, relocation)| {
        if !got.iter().any(|got| got.contains(&slot)) {
            return None;
        }
        let RelocationTarget::Symbol(index) = relocation.target() else {
            // R_X86_64_RELATIVE: this very module, known since it was linked.
            return Some((slot, Callee::Here(FileVaddr(relocation.addend() as u64))));
        };
        let symbol = symbols.as_ref()?.symbol_by_index(index).ok()?;
        if symbol.is_definition() {
            return Some((slot, Callee::Here(FileVaddr(symbol.address()))));
        }
        let name = name_without_version(symbol.name_bytes().ok()?);
        if RAISING.contains(&name) {
            return Some((slot, Callee::Raise));
        }
        let row = str::from_utf8(name).ok().and_then(|name| rows.get(name)).copied();
        Some((slot, Callee::Elsewhere(row)))
    });
    slots.collect()
}

fn extents(file: &ElfFile64<'_, Endianness>) -> Option<Vec<(u64, u64)>> {
    let section = file.section_by_name(".eh_frame")?;
    let mut frames = EhFrame::new(section.data().ok()?, LittleEndian);
    frames.set_address_size(8);
    let bases = BaseAddresses::default().set_eh_frame(section.address());
    let mut extents = Vec::new();
    let mut entries = frames.entries(&bases);
    while extents.len() < MAX_FUNCTIONS
        && let Ok(Some(entry)) = entries.next()
    {
        if let CieOrFde::Fde(partial) = entry
            && let Ok(fde) = partial.parse(EhFrame::cie_from_offset)
        {
            extents.push((fde.initial_address(), fde.initial_address().saturating_add(fde.len())));
        }
    }
    extents.sort_unstable();
    Some(extents)
}

/// The slot that an entry of the procedure linkage table jumps through: `[endbr64] [bnd] jmp [rip+slot]`.
pub fn plt_slot(code: &[u8], vaddr: FileVaddr) -> Option<FileVaddr> {
    let jump = decode(code, vaddr).take(2).find(|instruction| instruction.mnemonic() != Mnemonic::Endbr64)?;
    (jump.flow_control() == FlowControl::IndirectBranch).then(|| flow::slot(&jump)).flatten()
}
