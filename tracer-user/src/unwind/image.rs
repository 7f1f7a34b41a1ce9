//! What unwinding needs of an ELF file: its code, and where its unwind information lies.

use std::{borrow::Cow, ops::Range};

use gimli::{BaseAddresses, EhFrameHdr, LittleEndian};
use object::{
    Endianness, Object as _, ObjectSection as _, elf,
    read::elf::{Dyn as _, ElfFile64, FileHeader as _, ProgramHeader as _, SectionHeader as _},
};

use super::rows::{MAX_HEADERS, MAX_UNCOMPRESSED_BYTES, Problem, Problems, RowsError};

/// What is needed of the ELF file, read from its program headers first: section headers may be stripped or broken.
pub(super) struct Image<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) file: Option<ElfFile64<'a, Endianness>>,
    loads: Vec<Load>,
    eh_frame_hdr_vaddr: Option<u64>,
    entry_vaddr: u64,
    /// A program, or a loader that can be run as one: `entry_vaddr` is where the kernel starts it.
    pub(super) is_program: bool,
}

#[derive(Clone, Copy)]
struct Load {
    vaddr: u64,
    file_offset: u64,
    file_bytes: u64,
    executable: bool,
}

impl<'a> Image<'a> {
    pub(super) fn parse(bytes: &'a [u8]) -> Result<Self, RowsError> {
        let header = elf::FileHeader64::<Endianness>::parse(bytes).map_err(|_| RowsError::NotElf)?;
        let endian = header.endian().map_err(|_| RowsError::NotElf)?;
        let machine = header.e_machine(endian);
        if machine != elf::EM_X86_64 || endian != Endianness::Little {
            return Err(RowsError::NotX86_64(machine.0));
        }
        let headers = header.program_headers(endian, bytes).map_err(|_| RowsError::NoCode)?;
        let mut image = Self {
            bytes,
            file: ElfFile64::parse(bytes).ok().filter(|file| file.elf_section_table().len() <= MAX_HEADERS),
            loads: Vec::new(),
            eh_frame_hdr_vaddr: None,
            entry_vaddr: header.e_entry(endian),
            is_program: header.e_type(endian) == elf::ET_EXEC,
        };
        for segment in headers.iter().take(MAX_HEADERS) {
            match segment.p_type(endian) {
                elf::PT_LOAD => image.loads.push(Load {
                    vaddr: segment.p_vaddr(endian),
                    file_offset: segment.p_offset(endian),
                    file_bytes: segment.p_filesz(endian),
                    executable: segment.p_flags(endian).contains(elf::PF_X),
                }),
                elf::PT_GNU_EH_FRAME => image.eh_frame_hdr_vaddr = Some(segment.p_vaddr(endian)),
                elf::PT_INTERP => image.is_program = true,
                elf::PT_DYNAMIC => {
                    let entries = segment.dynamic(endian, bytes).ok().flatten().unwrap_or_default();
                    image.is_program |= entries.iter().take(MAX_HEADERS).any(|entry| {
                        entry.d_tag(endian) == elf::DT_FLAGS_1 && entry.d_val(endian) & elf::DF_1_PIE.0 != 0
                    });
                }
                _ => {}
            }
        }
        if image.code().next().is_none() { Err(RowsError::NoCode) } else { Ok(image) }
    }

    pub(super) fn base_vaddr(&self) -> u64 {
        self.loads.iter().map(|load| load.vaddr).min().unwrap_or(0) & !0xfff
    }

    /// Address ranges of the executable segments, cut where the file ends and where offsets no longer fit 32 bits.
    pub(super) fn code(&self) -> impl Iterator<Item = Range<u64>> {
        let last = self.base_vaddr().saturating_add(u64::from(u32::MAX));
        self.loads.iter().filter(|load| load.executable).map(move |load| {
            let bytes = load.file_bytes.min((self.bytes.len() as u64).saturating_sub(load.file_offset));
            load.vaddr..load.vaddr.saturating_add(bytes).min(last)
        })
    }

    /// The file's bytes from `vaddr` to the end of its segment.
    pub(super) fn bytes_from(&self, vaddr: u64) -> Option<&'a [u8]> {
        self.loads.iter().find_map(|load| {
            let within = vaddr.checked_sub(load.vaddr).filter(|&within| within < load.file_bytes)?;
            let start = usize::try_from(load.file_offset.checked_add(within)?).ok()?;
            let end = load.file_offset.saturating_add(load.file_bytes).min(self.bytes.len() as u64) as usize;
            self.bytes.get(start..end)
        })
    }

    pub(super) fn section_vaddr(&self, name: &str) -> Option<u64> {
        let section = self.file.as_ref()?.section_by_name(name)?;
        Some(section.address())
    }

    /// `.eh_frame` and its address.
    pub(super) fn eh_frame(&self, problems: &mut Problems) -> Option<(&'a [u8], u64)> {
        if self.file.is_none() {
            problems.add(Problem::HeadersBroken);
        }
        let by_section = self.file.as_ref().and_then(|file| {
            let section = file.section_by_name(".eh_frame")?;
            let in_file = section.elf_section_header().sh_type(file.endian()) != elf::SHT_NOBITS;
            let data = section.data().ok().filter(|data| in_file && !data.is_empty())?;
            Some((data, section.address()))
        });
        by_section.or_else(|| {
            let hdr_vaddr = self.eh_frame_hdr_vaddr?;
            let hdr = EhFrameHdr::new(self.bytes_from(hdr_vaddr)?, LittleEndian);
            let bases = BaseAddresses::default().set_eh_frame_hdr(hdr_vaddr);
            let vaddr = hdr.parse(&bases, 8).ok()?.eh_frame_ptr().direct().ok()?;
            Some((self.bytes_from(vaddr)?, vaddr))
        })
    }

    pub(super) fn debug_frame(&self, problems: &mut Problems) -> Option<Cow<'a, [u8]>> {
        let section = self.file.as_ref()?.section_by_name(".debug_frame")?;
        let uncompressed = section
            .compressed_data()
            .ok()
            .filter(|data| data.uncompressed_size <= MAX_UNCOMPRESSED_BYTES)
            .and_then(|data| data.decompress().ok());
        if uncompressed.is_none() {
            problems.add(Problem::DebugFrameUnreadable);
        }
        uncompressed
    }

    pub(super) fn bases(&self, eh_frame_vaddr: u64) -> BaseAddresses {
        let mut bases = BaseAddresses::default().set_eh_frame(eh_frame_vaddr);
        if let Some(text) = self.section_vaddr(".text") {
            bases = bases.set_text(text);
        }
        if let Some(got) = self.section_vaddr(".got") {
            bases = bases.set_got(got);
        }
        bases
    }

    /// Where the kernel starts the program or loader. Linkers once set the entry of libraries that have none to the
    /// start of `.text`, which is any function.
    pub(super) fn entry(&self) -> Option<u64> {
        let vaddr = self.entry_vaddr;
        let is_code = vaddr != 0 && self.code().any(|code| code.contains(&vaddr));
        (is_code && (self.is_program || self.section_vaddr(".text") != Some(vaddr))).then_some(vaddr)
    }
}
