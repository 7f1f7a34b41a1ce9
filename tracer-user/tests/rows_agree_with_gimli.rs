//! Oracle: at each instruction of real libraries, our row and step come to the same caller as gimli's unwind table evaluated
//! on the same registers and the same memory.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use gimli::{
    BaseAddresses, CfaRule, CieOrFde, EhFrame, EndianSlice, EvaluationResult, LittleEndian, Location, Register,
    RegisterRule, UnwindContext, UnwindExpression, UnwindSection as _, UnwindTableRow, Value,
};
use iced_x86::{Decoder, DecoderOptions};
use object::{Object as _, ObjectSection as _, ObjectSegment as _};
use tracer_common::unwind::{Regs, RuleKind, Step, step};
use tracer_user::unwind::{ModuleRows, module_rows};

type Slice<'a> = EndianSlice<'a, LittleEndian>;

const RBP: Register = Register(6);
const RSP: Register = Register(7);
const RA: Register = Register(16);

/// gimli's rows that ours cannot express, as a share of all, in C and C++ code. Measured on Debian 12: libc 0.0003 (vfork, the
/// context functions), libm, libstdc++ and python3 none.
const MAX_UNSUPPORTED_SHARE: f64 = 0.001;
/// The same with much hand-written assembly. Measured on Debian 12: the loader 0.005 (`_dl_runtime_resolve_*` by rbx), libcrypto
/// 0.011 (OpenSSL's ciphers and bignums by rax, rsi and expressions on rsp; they call no allocator).
const MAX_UNSUPPORTED_SHARE_ASSEMBLY: f64 = 0.015;

#[test]
fn rows_agree_with_gimli_in_libc() {
    compare("libc.so.6", true, MAX_UNSUPPORTED_SHARE);
}

#[test]
fn rows_agree_with_gimli_in_the_loader() {
    compare("ld-linux-x86-64.so.2", true, MAX_UNSUPPORTED_SHARE_ASSEMBLY);
}

#[test]
fn rows_agree_with_gimli_in_libstdcxx() {
    compare("libstdc++.so.6", true, MAX_UNSUPPORTED_SHARE);
}

#[test]
fn rows_agree_with_gimli_in_libm() {
    compare("libm.so.6", true, MAX_UNSUPPORTED_SHARE);
}

#[test]
fn rows_agree_with_gimli_in_python() {
    compare("/usr/bin/python3", true, MAX_UNSUPPORTED_SHARE);
    for minor in 9..16 {
        compare(&format!("libpython3.{minor}.so.1.0"), false, MAX_UNSUPPORTED_SHARE);
    }
}

#[test]
fn rows_agree_with_gimli_in_libcrypto() {
    compare("libcrypto.so.3", false, MAX_UNSUPPORTED_SHARE_ASSEMBLY);
}

/// The shape: `lea 8(%rsp),%r10; and $-64,%rsp; push -8(%r10); push %rbp; mov %rsp,%rbp; push %r10`, with
/// `DW_CFA_expression: rbp (breg6 0)` and `DW_CFA_def_cfa_expression (breg6 -8; deref)`.
#[test]
fn rows_agree_with_gimli_where_gcc_realigns_the_stack() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let source = dir.path().join("realign.c");
    let library = dir.path().join("librealign.so");
    fs::write(
        &source,
        "#include <alloca.h>\n\
         void sink(void *, void *);\n\
         void realigned(int n) { _Alignas(64) char buffer[64]; sink(buffer, alloca(n)); }\n\
         void many(int a, int b, int c, int d, int e, int f, int g) {\n\
             _Alignas(64) char buffer[64]; for (int i = 0; i < g; i++) sink(buffer, alloca(i + a)); }\n",
    )
    .expect("write source");
    for flags in [&["-O2"][..], &["-O1"], &["-O2", "-fcf-protection=full", "-Wl,-z,ibtplt"]] {
        let status = Command::new("gcc")
            .args(["-shared", "-fPIC", "-Wl,-z,lazy", "-o"])
            .args([&library, &source])
            .args(flags)
            .status()
            .expect("run gcc");
        assert!(status.success());

        let outcome = compare_file(&library);

        assert!(outcome.kinds.contains_key(&(RuleKind::DerefRbp as u8)), "{:?}", outcome.kinds);
        assert!(outcome.kinds.contains_key(&(RuleKind::Plt as u8)), "{:?}", outcome.kinds);
    }
}

fn compare(name: &str, required: bool, max_unsupported_share: f64) {
    let found = ["/usr/lib/x86_64-linux-gnu", "/lib/x86_64-linux-gnu", "/usr/lib64", "/lib64", "/usr/lib"]
        .iter()
        .map(|dir| Path::new(dir).join(name))
        .find(|path| path.exists());
    let Some(path) = found.map(|path| fs::canonicalize(path).expect("resolve path")) else {
        assert!(!required, "{name}: no such library");
        return;
    };
    let outcome = compare_file(&path);
    let unsupported_rows = outcome.unsupported_rows.values().sum::<u64>();
    let share = unsupported_rows as f64 / outcome.gimli_rows as f64;
    println!(
        "{}: {} rows; {} FDEs, {} instructions, {} of them unsupported, {} rows of gimli's, {share:.6} of them unsupported: {:?}",
        path.display(),
        outcome.rows,
        outcome.fdes,
        outcome.instructions,
        outcome.unsupported,
        outcome.gimli_rows,
        outcome.unsupported_rows,
    );
    assert!(outcome.instructions > 1000, "nothing was compared");
    assert!(share <= max_unsupported_share, "{share}");
}

#[derive(Default)]
struct Outcome {
    rows: usize,
    fdes: u64,
    gimli_rows: u64,
    instructions: u64,
    unsupported: u64,
    /// gimli's rows that ours do not express, by cause.
    unsupported_rows: BTreeMap<String, u64>,
    /// Instructions by the kind of rule.
    kinds: BTreeMap<u8, u64>,
}

/// Compares at each instruction of each FDE of `.eh_frame`.
fn compare_file(path: &PathBuf) -> Outcome {
    let bytes = fs::read(path).expect("read library");
    let ours = module_rows(&bytes).expect("rows");
    let file = object::File::parse(&*bytes).expect("parse ELF");
    let section = file.section_by_name(".eh_frame").expect(".eh_frame");
    let eh_frame = EhFrame::new(section.data().expect("section data"), LittleEndian);
    let bases = BaseAddresses::default().set_eh_frame(section.address());
    let mut context = UnwindContext::new();
    let mut outcome = Outcome { rows: ours.rows.len(), ..Outcome::default() };

    let mut entries = eh_frame.entries(&bases);
    while let Some(entry) = entries.next().expect("entry") {
        let CieOrFde::Fde(partial) = entry else { continue };
        let fde = partial.parse(EhFrame::cie_from_offset).expect("FDE");
        // What the kernel starts has no caller, whatever its unwind information says.
        if fde.initial_address() == file.entry() && rule_at(&ours, file.entry()).kind == RuleKind::Root {
            continue;
        }
        outcome.fdes += 1;
        let code = file
            .segments()
            .find_map(|segment| segment.data_range(fde.initial_address(), fde.len()).ok().flatten())
            .expect("the FDE's code");
        let mut decoder = Decoder::with_ip(64, code, fde.initial_address(), DecoderOptions::NONE);
        let mut table = fde.rows(&eh_frame, &bases, &mut context).expect("table");
        let mut vaddr = fde.initial_address();
        while let Some(row) = table.next_row().expect("row") {
            outcome.gimli_rows += 1;
            let mut first = true;
            while row.contains(vaddr) {
                let rule = rule_at(&ours, vaddr);
                *outcome.kinds.entry(rule.kind as u8).or_default() += 1;
                outcome.instructions += 1;
                // Three register files where a row begins, another one at each instruction.
                for seed in 0..if first { 3 } else { 1 } {
                    let registers = register_file(seed ^ scramble(vaddr), vaddr);
                    let oracle = Oracle { registers, eh_frame: &eh_frame, encoding: fde.cie().encoding() };
                    let unsupported = oracle.check(rule, row, fde.is_signal_trampoline());
                    if let Some(cause) = unsupported.filter(|_| seed == 0) {
                        outcome.unsupported += 1;
                        *outcome.unsupported_rows.entry(cause).or_default() += u64::from(first);
                    }
                }
                first = false;
                let _ = decoder.decode();
                vaddr = decoder.ip();
            }
        }
        assert!(vaddr >= fde.end_address(), "{vaddr:#x} of {:#x}", fde.end_address());
    }
    outcome
}

fn rule_at(ours: &ModuleRows, vaddr: u64) -> tracer_common::unwind::UnwindRule {
    ours.lookup((vaddr - ours.base_vaddr) as u32).expect("a row")
}

/// SplitMix64.
fn scramble(n: u64) -> u64 {
    let n = n.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let n = (n ^ (n >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let n = (n ^ (n >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    n ^ (n >> 31)
}

/// A stack without end: each word is an address above all that registers point to.
fn memory(addr: u64) -> u64 {
    0x7fff_0000_0000 + (scramble(addr) & 0xffff_fff8)
}

/// rax…r15 and rip by DWARF number; rbp lies above rsp.
fn register_file(seed: u64, pc: u64) -> [u64; 17] {
    let mut registers = std::array::from_fn(|n| 0x7ffe_0000_0000 + (scramble(seed.wrapping_add(n as u64)) & 0xff_fff8));
    registers[6] = registers[7] + 0x1000 + (registers[6] & 0xff_fff8);
    registers[16] = pc;
    registers
}

/// gimli's rules, evaluated.
struct Oracle<'e, 'a> {
    registers: [u64; 17],
    eh_frame: &'e EhFrame<Slice<'a>>,
    encoding: gimli::Encoding,
}

impl Oracle<'_, '_> {
    /// Compares one step; the cause where our rule is unsupported and gimli's is of a kind that ours has no place for.
    fn check(
        &self,
        rule: tracer_common::unwind::UnwindRule,
        row: &UnwindTableRow<usize>,
        is_signal: bool,
    ) -> Option<String> {
        let [pc, sp, bp] = [16, 7, 6].map(|n| self.registers[n]);
        let mut regs = Regs { pc, sp, bp };

        let done = step(rule.pack(), &mut regs, |addr| Some(memory(addr)));

        match done {
            Step::Caller | Step::Interrupted => {
                assert_eq!(Some(regs), self.caller(row), "{pc:#x}: {rule:?} against {row:?}");
                assert_eq!(done == Step::Interrupted, is_signal, "{pc:#x}");
            }
            Step::Root => assert_eq!(row.register(RA), Some(RegisterRule::Undefined), "{pc:#x}"),
            Step::Unsupported => {
                let cause = self.inexpressible(row);
                return Some(cause.unwrap_or_else(|| panic!("{pc:#x}: could be expressed: {row:?}")));
            }
            Step::NoProgress => assert!(self.cfa(row) <= sp, "{pc:#x}: {row:?}"),
            Step::NoRow | Step::ReadFailed => panic!("{pc:#x}: {done:?} where gimli has {row:?}"),
        }
        None
    }

    fn cfa(&self, row: &UnwindTableRow<usize>) -> u64 {
        match row.cfa() {
            CfaRule::RegisterAndOffset { register, offset } => {
                self.registers[usize::from(register.0)].wrapping_add_signed(*offset)
            }
            CfaRule::Expression(expression) => self.evaluate(expression, None),
        }
    }

    fn caller(&self, row: &UnwindTableRow<usize>) -> Option<Regs> {
        let cfa = self.cfa(row);
        let value = |register: Register, default| {
            Some(match row.register(register) {
                None => default,
                Some(RegisterRule::Undefined) if register == RA => return None,
                Some(RegisterRule::Undefined | RegisterRule::SameValue) => self.registers[usize::from(register.0)],
                Some(RegisterRule::Offset(offset)) => memory(cfa.wrapping_add_signed(offset)),
                Some(RegisterRule::ValOffset(offset)) => cfa.wrapping_add_signed(offset),
                Some(RegisterRule::Register(other)) => self.registers[usize::from(other.0)],
                Some(RegisterRule::Expression(expression)) => memory(self.evaluate(&expression, Some(cfa))),
                Some(RegisterRule::ValExpression(expression)) => self.evaluate(&expression, Some(cfa)),
                Some(rule) => panic!("{rule:?}"),
            })
        };
        Some(Regs { pc: value(RA, self.registers[16])?, sp: value(RSP, cfa)?, bp: value(RBP, self.registers[6])? })
    }

    fn evaluate(&self, expression: &UnwindExpression<usize>, initial: Option<u64>) -> u64 {
        let mut evaluation = expression.get(self.eh_frame).expect("expression").evaluation(self.encoding);
        if let Some(value) = initial {
            evaluation.set_initial_value(value);
        }
        let mut state = evaluation.evaluate().expect("evaluation");
        loop {
            state = match state {
                EvaluationResult::Complete => break,
                EvaluationResult::RequiresRegister { register, .. } => {
                    evaluation.resume_with_register(Value::Generic(self.registers[usize::from(register.0)]))
                }
                EvaluationResult::RequiresMemory { address, size: 8, .. } => {
                    evaluation.resume_with_memory(Value::Generic(memory(address)))
                }
                other => panic!("{other:?}"),
            }
            .expect("evaluation");
        }
        match evaluation.as_result() {
            [gimli::Piece { location: Location::Address { address }, .. }] => *address,
            other => panic!("{other:?}"),
        }
    }

    /// Why a rule needs more than [`tracer_common::unwind::UnwindRule`] holds; `None` = it does not.
    fn inexpressible(&self, row: &UnwindTableRow<usize>) -> Option<String> {
        match row.cfa() {
            CfaRule::RegisterAndOffset { register: RSP | RBP, .. } => {}
            CfaRule::RegisterAndOffset { register, .. } => {
                return Some(format!("CFA by {}", gimli::X86_64::register_name(*register).unwrap_or("?")));
            }
            CfaRule::Expression(expression) => {
                let mut operations = expression.get(self.eh_frame).expect("expression").operations(self.encoding);
                let mut names = Vec::new();
                while let Some(operation) = operations.next().expect("operation") {
                    let text = format!("{operation:?}");
                    names.push(text.split([' ', '(']).next().unwrap_or_default().to_owned());
                }
                return Some(format!("CFA by {}", names.join("+")));
            }
        }
        match row.register(RA) {
            Some(RegisterRule::Offset(-8)) => {}
            rule => return Some(format!("return address: {rule:?}")),
        }
        match row.register(RBP) {
            None | Some(RegisterRule::Undefined | RegisterRule::SameValue | RegisterRule::Offset(_)) => None,
            rule => Some(format!("rbp: {rule:?}")),
        }
    }
}
