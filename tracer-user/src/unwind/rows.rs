//! ELF bytes → [`ModuleRows`]: for each piece of code, how a frame's caller is found.
//!
//! The rows come from `.eh_frame` (by section, or by `PT_GNU_EH_FRAME` where section headers are stripped) and from `.debug_frame`
//! for code that `.eh_frame` leaves out. The file is hostile input: what is broken is counted in [`Problems`], the rest is used.

use std::{
    borrow::Cow,
    collections::{BTreeMap, HashMap},
};

use gimli::{
    BaseAddresses, CfaRule, CieOrFde, CommonInformationEntry, DebugFrame, EhFrame, EhFrameHdr, EndianSlice,
    FrameDescriptionEntry, LittleEndian, Register, RegisterRule, UnwindContext, UnwindExpression, UnwindOffset,
    UnwindSection, UnwindTableRow,
};
use object::{
    Endianness, Object as _, ObjectSection as _, elf,
    read::elf::{Dyn as _, ElfFile64, FileHeader as _, ProgramHeader as _, SectionHeader as _},
};
use tracer_common::unwind::{RuleKind, UCONTEXT_RBP, UCONTEXT_RIP, UCONTEXT_RSP, UnwindRule};

/// Rows kept of one module; the largest known (a debug build of a browser) has about 4 million.
pub const MAX_ROWS_PER_MODULE: usize = 8 << 20;
/// FDEs read of one module.
pub const MAX_FDES_PER_MODULE: usize = 2 << 20;
/// Bytes of CFI programs run for one module. A CIE's program runs once for each of its FDEs, so a file of a few
/// megabytes could ask for hours. A browser needs about 60 MB.
pub const MAX_CFI_BYTES: usize = 128 << 20;
/// Size of a section that is decompressed.
pub const MAX_UNCOMPRESSED_BYTES: u64 = 256 << 20;
/// Program and section headers looked at.
pub const MAX_HEADERS: usize = 4096;
/// Bytes after an entry point without unwind information that count as part of it.
pub const MAX_ENTRY_BYTES: u64 = 256;

/// The unwind rows of one ELF file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ModuleRows {
    /// The virtual address that offset 0 stands for: the first `PT_LOAD`'s, rounded down to a page.
    pub base_vaddr: u64,
    /// Offset in bytes from `base_vaddr` → the rule from there up to the next row. Sorted, neighbours differ.
    pub rows: Vec<(u32, UnwindRule)>,
    /// What could not be read or expressed.
    pub problems: Problems,
}

impl ModuleRows {
    /// The rule at `offset` bytes from `base_vaddr`; `None` before the first row.
    pub fn lookup(&self, offset: u32) -> Option<UnwindRule> {
        let after = self.rows.partition_point(|&(start, _)| start <= offset);
        after.checked_sub(1).map(|row| self.rows[row].1)
    }
}

/// Compiles the rows of the ELF file `elf`.
///
/// # Errors
/// Only where nothing could be understood: not an ELF file, or not one for x86-64.
pub fn module_rows(elf: &[u8]) -> Result<ModuleRows, RowsError> {
    let image = Image::parse(elf)?;
    let mut collector = Collector::new(&image);
    if let Some((bytes, vaddr)) = image.eh_frame(&mut collector.problems) {
        let mut section = EhFrame::new(bytes, LittleEndian);
        section.set_address_size(8);
        collector.collect(&section, &image.bases(vaddr));
    } else {
        collector.problems.add(Problem::NoEhFrame);
    }
    let debug_frame = image.debug_frame(&mut collector.problems);
    if let Some(bytes) = &debug_frame {
        collector.finish_eh_frame();
        let mut section = DebugFrame::new(bytes, LittleEndian);
        section.set_address_size(8);
        collector.collect(&section, &BaseAddresses::default());
    }
    Ok(collector.finish())
}

/// Why a file has no rows at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RowsError {
    /// The header is missing or broken.
    #[error("not an ELF file")]
    NotElf,
    /// Another architecture or class; the operand is `e_machine`.
    #[error("not a 64-bit x86 ELF file (e_machine {0})")]
    NotX86_64(u16),
    /// No `PT_LOAD` with execute permission could be read.
    #[error("no executable segment")]
    NoCode,
}

macro_rules! problems {
    ($($variant:ident, $sentence:literal;)*) => {
        /// What went wrong in compiling a module's rows.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Problem {
            $(#[doc = $sentence] $variant,)*
        }

        impl Problem {
            /// What it counts, in one phrase.
            pub const fn sentence(self) -> &'static str {
                match self { $(Self::$variant => $sentence,)* }
            }
        }
    };
}

problems! {
    NoEhFrame, "files without a readable .eh_frame";
    HeadersBroken, "section headers that could not be read";
    DebugFrameUnreadable, ".debug_frame sections that could not be read or are too large";
    EntryBroken, "unwind entries that could not be parsed: the rest of their section was skipped if their length was wrong";
    ProgramBroken, "functions whose unwind program could not be run to its end";
    OutsideCode, "functions said to lie outside the file's executable segments";
    Overlapping, "functions that overlap another one: the one that starts later counts, of equals the first";
    TooManyFdes, "files with too many functions: the rest was skipped";
    TooManyRows, "files with too many rows: the rest was skipped";
    TooMuchCfi, "files whose unwind programs are too long: the rest was skipped";
    CfaRegister, "rows whose CFA hangs on a register other than rsp and rbp";
    CfaExpression, "rows whose CFA is an expression other than the known ones";
    OffsetRange, "rows with an offset that does not fit";
    ReturnAddress, "rows whose return address is not at CFA - 8";
    SavedRbp, "rows that restore rbp in a way other than from the stack at a fixed offset";
    SignalContext, "rows of signal frames whose context is not laid out as in ucontext_t";
}

impl Problem {
    /// Whether it counts rows that became [`RuleKind::Unsupported`].
    pub const fn is_unsupported_row(self) -> bool {
        matches!(
            self,
            Self::CfaRegister
                | Self::CfaExpression
                | Self::OffsetRange
                | Self::ReturnAddress
                | Self::SavedRbp
                | Self::SignalContext
        )
    }
}

/// How often each [`Problem`] was met.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Problems(BTreeMap<Problem, u64>);

impl Problems {
    /// Counts one more.
    pub fn add(&mut self, problem: Problem) {
        *self.0.entry(problem).or_default() += 1;
    }

    /// How often `problem` was met.
    pub fn count(&self, problem: Problem) -> u64 {
        self.0.get(&problem).copied().unwrap_or(0)
    }

    /// All that were met, in the order of the enum.
    pub fn iter(&self) -> impl Iterator<Item = (Problem, u64)> {
        self.0.iter().map(|(&problem, &n)| (problem, n))
    }
}

type Slice<'a> = EndianSlice<'a, LittleEndian>;

/// What is needed of the ELF file, read from its program headers first: section headers may be stripped or broken.
struct Image<'a> {
    bytes: &'a [u8],
    file: Option<ElfFile64<'a, Endianness>>,
    loads: Vec<Load>,
    eh_frame_hdr_vaddr: Option<u64>,
    entry_vaddr: u64,
    /// A program, or a loader that can be run as one: `entry_vaddr` is where the kernel starts it.
    is_program: bool,
}

#[derive(Clone, Copy)]
struct Load {
    vaddr: u64,
    file_offset: u64,
    file_bytes: u64,
    executable: bool,
}

impl<'a> Image<'a> {
    fn parse(bytes: &'a [u8]) -> Result<Self, RowsError> {
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

    fn base_vaddr(&self) -> u64 {
        self.loads.iter().map(|load| load.vaddr).min().unwrap_or(0) & !0xfff
    }

    /// Address ranges of the executable segments, cut where the file ends and where offsets no longer fit 32 bits.
    fn code(&self) -> impl Iterator<Item = std::ops::Range<u64>> {
        let last = self.base_vaddr().saturating_add(u64::from(u32::MAX));
        self.loads.iter().filter(|load| load.executable).map(move |load| {
            let bytes = load.file_bytes.min((self.bytes.len() as u64).saturating_sub(load.file_offset));
            load.vaddr..load.vaddr.saturating_add(bytes).min(last)
        })
    }

    /// The file's bytes from `vaddr` to the end of its segment.
    fn bytes_from(&self, vaddr: u64) -> Option<&'a [u8]> {
        self.loads.iter().find_map(|load| {
            let within = vaddr.checked_sub(load.vaddr).filter(|&within| within < load.file_bytes)?;
            let start = usize::try_from(load.file_offset.checked_add(within)?).ok()?;
            let end = load.file_offset.saturating_add(load.file_bytes).min(self.bytes.len() as u64) as usize;
            self.bytes.get(start..end)
        })
    }

    fn section_vaddr(&self, name: &str) -> Option<u64> {
        let section = self.file.as_ref()?.section_by_name(name)?;
        Some(section.address())
    }

    /// `.eh_frame` and its address.
    fn eh_frame(&self, problems: &mut Problems) -> Option<(&'a [u8], u64)> {
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

    fn debug_frame(&self, problems: &mut Problems) -> Option<Cow<'a, [u8]>> {
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

    fn bases(&self, eh_frame_vaddr: u64) -> BaseAddresses {
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
    fn entry(&self) -> Option<u64> {
        let vaddr = self.entry_vaddr;
        let is_code = vaddr != 0 && self.code().any(|code| code.contains(&vaddr));
        (is_code && (self.is_program || self.section_vaddr(".text") != Some(vaddr))).then_some(vaddr)
    }
}

/// One function's rows, not yet cut where the next function begins.
struct Function {
    start: u64,
    end: u64,
    first_row: usize,
    n_rows: usize,
}

struct Collector<'a> {
    image: &'a Image<'a>,
    code: Vec<std::ops::Range<u64>>,
    functions: Vec<Function>,
    rows: Vec<(u64, UnwindRule)>,
    /// The functions of `.eh_frame`, sorted, once it has been read.
    n_eh_frame: usize,
    cfi_bytes: usize,
    context: UnwindContext<usize>,
    problems: Problems,
}

impl<'a> Collector<'a> {
    fn new(image: &'a Image<'a>) -> Self {
        Self {
            image,
            code: image.code().collect(),
            functions: Vec::new(),
            rows: Vec::new(),
            n_eh_frame: 0,
            cfi_bytes: 0,
            context: UnwindContext::new(),
            problems: Problems::default(),
        }
    }

    /// Adds the functions of one section.
    fn collect<'s, S: UnwindSection<Slice<'s>>>(&mut self, section: &S, bases: &BaseAddresses) {
        let mut cies: HashMap<usize, gimli::Result<CommonInformationEntry<Slice<'s>>>> = HashMap::new();
        let mut entries = section.entries(bases);
        loop {
            let partial = match entries.next() {
                Ok(Some(CieOrFde::Fde(partial))) => partial,
                Ok(Some(CieOrFde::Cie(_))) => continue,
                Ok(None) => return,
                Err(_) => return self.problems.add(Problem::EntryBroken),
            };
            let fde = partial.parse(|section, bases, offset| {
                cies.entry(UnwindOffset::into(offset)).or_insert_with(|| section.cie_from_offset(bases, offset)).clone()
            });
            match fde {
                _ if self.functions.len() >= MAX_FDES_PER_MODULE => return self.problems.add(Problem::TooManyFdes),
                _ if self.rows.len() >= MAX_ROWS_PER_MODULE => return self.problems.add(Problem::TooManyRows),
                _ if self.cfi_bytes >= MAX_CFI_BYTES => return self.problems.add(Problem::TooMuchCfi),
                Ok(fde) => self.collect_function(section, bases, &fde),
                Err(_) => self.problems.add(Problem::EntryBroken),
            }
        }
    }

    fn collect_function<'s, S: UnwindSection<Slice<'s>>>(
        &mut self,
        section: &S,
        bases: &BaseAddresses,
        fde: &FrameDescriptionEntry<Slice<'s>>,
    ) {
        self.cfi_bytes = self.cfi_bytes.saturating_add(fde.entry_len().saturating_add(fde.cie().entry_len()));
        let (start, end) = (fde.initial_address(), fde.initial_address().saturating_add(fde.len()));
        if start == end || self.eh_frame_covers(start) {
            return;
        }
        let Some(code) = self.code.iter().find(|code| code.contains(&start)) else {
            return self.problems.add(Problem::OutsideCode);
        };
        let end = end.min(code.end);
        let first_row = self.rows.len();
        // Up to where the rows reach so far; what a broken program leaves open has a rule, but an unknown one.
        let mut reached = start;
        let mut whole = false;
        if let Ok(mut table) = fde.rows(section, bases, &mut self.context) {
            while self.rows.len() < MAX_ROWS_PER_MODULE {
                match table.next_row() {
                    Ok(Some(row)) if row.start_address() < reached || row.end_address() < row.start_address() => break,
                    Ok(Some(row)) => {
                        if row.start_address() < end.min(row.end_address()) {
                            let rule = compile(row, fde, section).unwrap_or_else(|problem| {
                                self.problems.add(problem);
                                UnwindRule::of(RuleKind::Unsupported)
                            });
                            self.rows.push((row.start_address(), rule));
                        }
                        reached = row.end_address();
                    }
                    Ok(None) => {
                        whole = true;
                        break;
                    }
                    Err(_) => break,
                }
            }
        }
        if !whole {
            self.problems.add(Problem::ProgramBroken);
            if reached < end {
                self.rows.push((reached, UnwindRule::of(RuleKind::Unsupported)));
            }
        }
        self.functions.push(Function { start, end, first_row, n_rows: self.rows.len() - first_row });
    }

    /// Called between the two sections: from here on, functions that start in covered code are left out.
    fn finish_eh_frame(&mut self) {
        self.functions.sort_by_key(|function| function.start);
        self.n_eh_frame = self.functions.len();
    }

    fn eh_frame_covers(&self, vaddr: u64) -> bool {
        let known = &self.functions[..self.n_eh_frame];
        let after = known.partition_point(|function| function.start <= vaddr);
        after > 0 && vaddr < known[after - 1].end
    }

    fn finish(mut self) -> ModuleRows {
        // Stable: of functions with one start, the first in the file stays first.
        self.functions.sort_by_key(|function| function.start);
        let n_functions = self.functions.len();
        self.functions.dedup_by_key(|function| function.start);
        for _ in self.functions.len()..n_functions {
            self.problems.add(Problem::Overlapping);
        }
        self.mark_entry();

        let base_vaddr = self.image.base_vaddr();
        let mut rows: Vec<(u32, UnwindRule)> = Vec::with_capacity(self.rows.len());
        let mut push = |vaddr: u64, rule: UnwindRule| {
            if rows.last().map(|&(_, last)| last) != Some(rule) {
                rows.push(((vaddr - base_vaddr) as u32, rule));
            }
        };
        for (n, function) in self.functions.iter().enumerate() {
            let next_start = self.functions.get(n + 1).map_or(u64::MAX, |next| next.start);
            if next_start < function.end {
                self.problems.add(Problem::Overlapping);
            }
            let end = function.end.min(next_start);
            for &(start, rule) in &self.rows[function.first_row..function.first_row + function.n_rows] {
                if start < end {
                    push(start, rule);
                }
            }
            if end < next_start {
                push(end, UnwindRule::of(RuleKind::None));
            }
        }
        rows.shrink_to_fit();
        ModuleRows { base_vaddr, rows, problems: self.problems }
    }

    /// Nothing called the code at the entry point. crt1's `_start` says so by an undefined return address; glibc's
    /// loader (2.36: `_start` and `_dl_start_user`, which calls the constructors) and musl's `_start` have no unwind
    /// information at all.
    fn mark_entry(&mut self) {
        let Some(entry) = self.image.entry() else { return };
        let root = (entry, UnwindRule::of(RuleKind::Root));
        let after = self.functions.partition_point(|function| function.start <= entry);
        if let Some(function) = after.checked_sub(1).map(|n| &mut self.functions[n])
            && entry < function.end
        {
            if function.start == entry && self.image.is_program {
                (function.first_row, function.n_rows) = (self.rows.len(), 1);
                self.rows.push(root);
            }
            return;
        }
        let next = self.functions.get(after).map_or(u64::MAX, |next| next.start);
        let code_end = self.code.iter().find(|code| code.contains(&entry)).map_or(entry, |code| code.end);
        let end = next.min(code_end).min(entry.saturating_add(MAX_ENTRY_BYTES));
        self.functions.insert(after, Function { start: entry, end, first_row: self.rows.len(), n_rows: 1 });
        self.rows.push(root);
    }
}

// DWARF register numbers (System V x86-64 ABI, figure 3.36).
const RBP: Register = Register(6);
const RSP: Register = Register(7);
const RA: Register = Register(16);

/// One row of an unwind table as a rule.
fn compile<'s, S: UnwindSection<Slice<'s>>>(
    row: &UnwindTableRow<usize>,
    fde: &FrameDescriptionEntry<Slice<'s>>,
    section: &S,
) -> Result<UnwindRule, Problem> {
    if fde.cie().return_address_register() != RA {
        return Err(Problem::ReturnAddress);
    }
    let expression = |expression: UnwindExpression<usize>| known_expression(&expression, fde, section);
    let return_address = row.register(RA);
    if return_address == Some(RegisterRule::Undefined) {
        return Ok(UnwindRule::of(RuleKind::Root));
    }
    if fde.is_signal_trampoline()
        && let &CfaRule::Expression(cfa) = row.cfa()
    {
        let saved = |register, within: u64| match row.register(register)? {
            RegisterRule::Expression(at) => match expression(at)? {
                Known::Rsp(offset) => offset.checked_sub(within as i64),
                _ => None,
            },
            _ => None,
        };
        let context = match expression(cfa) {
            Some(Known::DerefRsp(offset)) => offset.saturating_sub(UCONTEXT_RSP as i64),
            _ => return Err(Problem::SignalContext),
        };
        // rsp may have no rule of its own: it is the CFA.
        let agree = saved(RBP, UCONTEXT_RBP) == Some(context)
            && saved(RA, UCONTEXT_RIP) == Some(context)
            && (row.register(RSP).is_none() || saved(RSP, UCONTEXT_RSP) == Some(context));
        if !agree {
            return Err(Problem::SignalContext);
        }
        let cfa_off = i32::try_from(context).map_err(|_| Problem::OffsetRange)?;
        return Ok(UnwindRule { kind: RuleKind::SignalFrame, cfa_off, rbp_off: 0 });
    }

    let (kind, cfa_off) = match *row.cfa() {
        CfaRule::RegisterAndOffset { register: RSP, offset } => (RuleKind::Rsp, offset),
        CfaRule::RegisterAndOffset { register: RBP, offset } => (RuleKind::Rbp, offset),
        CfaRule::RegisterAndOffset { .. } => return Err(Problem::CfaRegister),
        CfaRule::Expression(cfa) => match expression(cfa) {
            Some(Known::DerefRbp(offset)) => (RuleKind::DerefRbp, offset),
            Some(Known::Plt(threshold)) => (RuleKind::Plt, threshold),
            _ => return Err(Problem::CfaExpression),
        },
    };
    if return_address != Some(RegisterRule::Offset(-8)) {
        return Err(Problem::ReturnAddress);
    }
    let rbp_off = match row.register(RBP) {
        // A realigned frame keeps rbp where rbp points: `rbp_off` counts from rbp there.
        Some(RegisterRule::Expression(at)) if kind == RuleKind::DerefRbp => match expression(at) {
            Some(Known::Rbp(offset)) => offset,
            _ => return Err(Problem::SavedRbp),
        },
        _ if kind == RuleKind::DerefRbp => return Err(Problem::SavedRbp),
        // Undefined means "not preserved", which no compiler does with rbp other than in frames above which nothing is.
        None | Some(RegisterRule::Undefined | RegisterRule::SameValue) => 0,
        Some(RegisterRule::Offset(offset)) if offset != 0 => offset,
        Some(_) => return Err(Problem::SavedRbp),
    };
    let cfa_off = i32::try_from(cfa_off).map_err(|_| Problem::OffsetRange)?;
    let rbp_off = i16::try_from(rbp_off).map_err(|_| Problem::OffsetRange)?;
    Ok(UnwindRule { kind, cfa_off, rbp_off })
}

/// The expressions that compilers, linkers and C libraries emit.
enum Known {
    /// rsp + the offset.
    Rsp(i64),
    /// rbp + the offset.
    Rbp(i64),
    /// The word at rsp + the offset.
    DerefRsp(i64),
    /// The word at rbp + the offset.
    DerefRbp(i64),
    /// `rsp + 8 + ((rip & 15) >= threshold) * 8`: GNU ld and mold for `.plt`, the threshold by the kind of PLT
    /// (binutils, bfd/elfxx-x86.c: 11 plain, 5 MPX, 10 and 9 IBT).
    Plt(i64),
}

fn known_expression<'s, S: UnwindSection<Slice<'s>>>(
    expression: &UnwindExpression<usize>,
    fde: &FrameDescriptionEntry<Slice<'s>>,
    section: &S,
) -> Option<Known> {
    use gimli::Operation::{And, Deref, Ge, Plus, RegisterOffset, Shl, UnsignedConstant};
    const MAX_OPERATIONS: usize = 9;

    let mut operations = expression.get(section).ok()?.operations(fde.cie().encoding());
    let mut list = Vec::with_capacity(MAX_OPERATIONS);
    while let Some(operation) = operations.next().ok()? {
        if list.len() == MAX_OPERATIONS {
            return None;
        }
        list.push(operation);
    }
    match list.as_slice() {
        [RegisterOffset { register: RSP, offset, .. }] => Some(Known::Rsp(*offset)),
        [RegisterOffset { register: RBP, offset, .. }] => Some(Known::Rbp(*offset)),
        [RegisterOffset { register: RSP, offset, .. }, Deref { size: 8, space: false, .. }] => {
            Some(Known::DerefRsp(*offset))
        }
        [RegisterOffset { register: RBP, offset, .. }, Deref { size: 8, space: false, .. }] => {
            Some(Known::DerefRbp(*offset))
        }
        [
            RegisterOffset { register: RSP, offset: 8, .. },
            RegisterOffset { register: RA, offset: 0, .. },
            UnsignedConstant { value: 15 },
            And,
            UnsignedConstant { value: threshold @ 0..16 },
            Ge,
            UnsignedConstant { value: 3 },
            Shl,
            Plus,
        ] => Some(Known::Plt(*threshold as i64)),
        _ => None,
    }
}
