//! ELF bytes → [`ModuleRows`]: for each piece of code, how a frame's caller is found.
//!
//! The rows come from `.eh_frame` (by section, or by `PT_GNU_EH_FRAME` where section headers are stripped), from `.debug_frame`
//! for code that `.eh_frame` leaves out, and from the instructions themselves for what neither covers ([`super::derived`]). The
//! file is hostile input: what is broken is counted in [`Problems`], the rest is used.

use std::{
    collections::{BTreeMap, HashMap},
    ops::Range,
};

use gimli::{
    BaseAddresses, CfaRule, CieOrFde, CommonInformationEntry, DebugFrame, EhFrame, EndianSlice, FrameDescriptionEntry,
    LittleEndian, Register, RegisterRule, UnwindContext, UnwindExpression, UnwindOffset, UnwindSection, UnwindTableRow,
};
use tracer_common::unwind::{RuleKind, UCONTEXT_RBP, UCONTEXT_RIP, UCONTEXT_RSP, UnwindRule};

use super::{derived, image::Image};

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

/// The unwind rows of one ELF file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ModuleRows {
    /// The virtual address that offset 0 stands for: the first `PT_LOAD`'s, rounded down to a page.
    pub base_vaddr: u64,
    /// Offset in bytes from `base_vaddr` → the rule from there up to the next row. Sorted, neighbours differ.
    pub rows: Vec<(u32, UnwindRule)>,
    /// What could not be read or expressed.
    pub problems: Problems,
    /// Most of its code has no unwind information: a debug file may have some, or names of more functions.
    pub is_bare: bool,
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
    module_rows_with(elf, None)
}

/// As [`module_rows`], with the bytes of the separate debug file of `elf`.
///
/// # Errors
/// As [`module_rows`]; a broken debug file only adds nothing.
pub fn module_rows_with(elf: &[u8], debug: Option<&[u8]>) -> Result<ModuleRows, RowsError> {
    let image = Image::parse(elf)?;
    let mut collector = described(&image, debug);
    collector.mark_entry();
    collector.derive(debug);
    Ok(collector.finish())
}

/// What unwind information says.
fn described<'a>(image: &'a Image<'a>, debug: Option<&[u8]>) -> Collector<'a> {
    let mut collector = Collector::new(image);
    if let Some((bytes, vaddr)) = image.eh_frame(&mut collector.problems) {
        let mut section = EhFrame::new(bytes, LittleEndian);
        section.set_address_size(8);
        collector.collect(&section, &image.bases(vaddr));
    } else {
        collector.problems.add(Problem::NoEhFrame);
    }
    let debug_image = debug.and_then(|debug| Image::parse(debug).ok());
    for image in std::iter::once(image).chain(&debug_image) {
        if let Some(bytes) = image.debug_frame(&mut collector.problems) {
            collector.finish_section();
            let mut section = DebugFrame::new(&bytes, LittleEndian);
            section.set_address_size(8);
            collector.collect(&section, &BaseAddresses::default());
        }
    }
    collector.finish_section();
    collector
}

/// The rows that unwind information alone gives, and the code that it covers.
#[cfg(test)]
pub(super) fn described_rows(image: &Image<'_>) -> (ModuleRows, Vec<Range<u64>>) {
    let collector = described(image, None);
    let functions = collector.functions.iter().map(|function| function.start..function.end).collect();
    (collector.finish(), functions)
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

/// One function's rows, not yet cut where the next function begins.
struct Function {
    start: u64,
    end: u64,
    first_row: usize,
    n_rows: usize,
}

struct Collector<'a> {
    image: &'a Image<'a>,
    code: Vec<Range<u64>>,
    functions: Vec<Function>,
    rows: Vec<(u64, UnwindRule)>,
    /// The functions of earlier sections, sorted.
    n_finished: usize,
    is_bare: bool,
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
            n_finished: 0,
            is_bare: false,
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
        if start == end || self.is_covered(start) {
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

    /// Called between two sections: from here on, functions that start in covered code are left out.
    fn finish_section(&mut self) {
        self.functions.sort_by_key(|function| function.start);
        self.n_finished = self.functions.len();
    }

    fn is_covered(&self, vaddr: u64) -> bool {
        let known = &self.functions[..self.n_finished];
        let after = known.partition_point(|function| function.start <= vaddr);
        after > 0 && vaddr < known[after - 1].end
    }

    /// Adds what the code itself tells, where there is nothing else.
    fn derive(&mut self, debug: Option<&[u8]>) {
        let mut covered: Vec<Range<u64>> = Vec::with_capacity(self.functions.len());
        for function in &self.functions {
            match covered.last_mut() {
                Some(last) if function.start <= last.end => last.end = last.end.max(function.end),
                _ => covered.push(function.start..function.end),
            }
        }
        let length = |ranges: &[Range<u64>]| {
            ranges.iter().map(|range| range.end.saturating_sub(range.start)).fold(0, u64::saturating_add)
        };
        self.is_bare = length(&covered) < length(&self.code) / 2;
        for stretch in derived::stretches(self.image, &covered, debug) {
            if self.rows.len() >= MAX_ROWS_PER_MODULE {
                return self.problems.add(Problem::TooManyRows);
            }
            let end = self.next_start(stretch.range.start).min(stretch.range.end);
            let (first_row, n_rows) = (self.rows.len(), stretch.rows.len());
            self.functions.push(Function { start: stretch.range.start, end, first_row, n_rows });
            self.rows.extend(stretch.rows);
        }
    }

    /// Where the next function of the sections begins; an instruction may reach into it in a broken file.
    fn next_start(&self, vaddr: u64) -> u64 {
        let next = self.functions[..self.n_finished].partition_point(|function| function.start <= vaddr);
        self.functions[..self.n_finished].get(next).map_or(u64::MAX, |function| function.start)
    }

    fn finish(mut self) -> ModuleRows {
        // Stable: of functions with one start, the first in the file stays first.
        self.functions.sort_by_key(|function| function.start);
        let n_functions = self.functions.len();
        self.functions.dedup_by_key(|function| function.start);
        for _ in self.functions.len()..n_functions {
            self.problems.add(Problem::Overlapping);
        }

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
        ModuleRows { base_vaddr, rows, problems: self.problems, is_bare: self.is_bare }
    }

    /// Nothing called the code at the entry point: crt1's `_start` says so by an undefined return address, others by nothing.
    /// (glibc's loader and musl's `_start` have no unwind information at all: see [`Self::derive`].)
    fn mark_entry(&mut self) {
        let Some(entry) = self.image.entry().filter(|_| self.image.is_program) else { return };
        if let Ok(n) = self.functions.binary_search_by_key(&entry, |function| function.start) {
            let function = &mut self.functions[n];
            (function.first_row, function.n_rows) = (self.rows.len(), 1);
            self.rows.push((entry, UnwindRule::of(RuleKind::Root)));
        }
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
