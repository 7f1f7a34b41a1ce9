//! Where in a function's first instructions the probe sits.
//!
//! A breakpoint on an instruction that the kernel emulates costs a tenth of one that it must single-step, so [`choose`]
//! decodes from the entry to the first branch, takes the first emulated instruction, and follows on the way where each
//! argument lives and how far rsp has moved. No event slips past: the first branch is the last candidate.

use iced_x86::{
    Code, Decoder, DecoderOptions, FlowControl, Formatter as _, Instruction, InstructionInfoFactory,
    InstructionInfoOptions, Mnemonic, NasmFormatter, OpAccess, OpKind, Register,
};
use thiserror::Error;
use tracer_common::{
    addr::FileVaddr,
    cookie::{Reg, Shape},
};

use super::{
    Execution, Why,
    emulation::{KernelAction, kernel_action},
};

/// Instructions decoded in search of a site. Real prologues reach their first branch within 20.
const MAX_PROLOGUE_INSTRUCTIONS: usize = 64;

/// The instruction chosen in one function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// Bytes from the function's entry to the site.
    pub offset_bytes: u64,
    /// The site's instruction as text.
    pub instruction: String,
    /// Whether the kernel emulates it.
    pub execution: Execution,
    /// Registers that hold the arguments at the site; the ABI's for an argument that the shape does not read.
    pub args: [Reg; 3],
    /// Bytes that rsp lies below the return address at the site.
    pub rsp_moved_bytes: u16,
    /// Set where the site is an unconditional direct jump with rsp as at the entry: the function only forwards.
    pub forwards: Option<Forward>,
    /// The reason for this place.
    pub why: Why,
}

/// A jump that hands a whole call over to another function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forward {
    /// Where it leads; perhaps an entry of the procedure linkage table.
    pub to: FileVaddr,
    /// Per argument, the registers that hold it then: bit n is the register with number n.
    holders: [u16; 3],
}

impl Forward {
    /// Whether a function that reads its arguments there reads the same ones.
    pub fn hands_over(&self, own: Arguments, others: Arguments) -> bool {
        own.shape == others.shape
            && (0..3).all(|n| !own.shape.reads_arg(n) || self.holders[n] & (1 << others.regs[n].0) != 0)
    }
}

/// A function's arguments and their registers at its entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arguments {
    /// What they mean.
    pub shape: Shape,
    /// Where they are.
    pub regs: [Reg; 3],
}

impl Arguments {
    /// Whether what is read for one is right for the other.
    pub fn reads_as(self, other: Self) -> bool {
        self.shape == other.shape && (0..3).all(|n| !self.shape.reads_arg(n) || self.regs[n] == other.regs[n])
    }
}

/// Why a function cannot be probed at all.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum NoSite {
    /// The bytes at the entry are no instruction.
    #[error("the bytes at its entry are no x86-64 instruction")]
    Undecodable,
    /// The kernel sets no probe on this instruction.
    #[error("the kernel sets no probe on its first instruction `{instruction}`")]
    Refused {
        /// The instruction's text.
        instruction: String,
    },
}

/// Chooses the site in the function whose bytes, from the entry to its end, are `code`.
pub fn choose(code: &[u8], entry: FileVaddr, arguments: Arguments) -> Result<Choice, NoSite> {
    let mut state = State::at_entry(arguments);
    let mut factory = InstructionInfoFactory::new();
    for (n_passed, instruction) in decode(code, entry).take(MAX_PROLOGUE_INSTRUCTIONS).enumerate() {
        if instruction.is_invalid() {
            return choose_entry(code, entry, arguments, Why::Undecodable { at: offset(&instruction, entry) });
        }
        let at = offset(&instruction, entry);
        if kernel_action(bytes_of(code, &instruction, entry)) == KernelAction::Emulate {
            if arguments.shape.returns() && state.rsp_moved_bytes != 0 {
                return choose_entry(code, entry, arguments, Why::StackMoved { at });
            }
            let forwards = instruction.flow_control() == FlowControl::UnconditionalBranch && state.rsp_moved_bytes == 0;
            return Ok(Choice {
                offset_bytes: at,
                instruction: text(&instruction),
                execution: Execution::Emulated,
                args: state.locate(),
                rsp_moved_bytes: state.rsp_moved_bytes,
                forwards: forwards
                    .then(|| Forward { to: FileVaddr(instruction.near_branch_target()), holders: state.holders }),
                why: if n_passed == 0 { Why::EntryEmulated } else { Why::FirstEmulated { n_passed } },
            });
        }
        if instruction.flow_control() != FlowControl::Next {
            return choose_entry(code, entry, arguments, Why::BranchNotEmulated { at, branch: text(&instruction) });
        }
        if let Err(why) = state.pass(&instruction, at, &mut factory) {
            return choose_entry(code, entry, arguments, why);
        }
    }
    choose_entry(code, entry, arguments, Why::NoBranchFound)
}

/// The entry itself, whatever it costs.
pub fn choose_entry(code: &[u8], entry: FileVaddr, arguments: Arguments, why: Why) -> Result<Choice, NoSite> {
    let Some(instruction) = decode(code, entry).next().filter(|instruction| !instruction.is_invalid()) else {
        return Err(NoSite::Undecodable);
    };
    let execution = match kernel_action(bytes_of(code, &instruction, entry)) {
        KernelAction::Emulate => Execution::Emulated,
        KernelAction::SingleStep => Execution::SingleStepped,
        KernelAction::Refuse => return Err(NoSite::Refused { instruction: text(&instruction) }),
    };
    Ok(Choice {
        offset_bytes: 0,
        instruction: text(&instruction),
        execution,
        args: arguments.regs,
        rsp_moved_bytes: 0,
        forwards: None,
        why,
    })
}

/// The instructions of `code`, one after the other; invalid ones included.
pub fn decode(code: &[u8], entry: FileVaddr) -> impl Iterator<Item = Instruction> {
    Decoder::with_ip(64, code, entry.0, DecoderOptions::NONE).into_iter()
}

/// What is known between two instructions.
struct State {
    arguments: Arguments,
    /// Per argument, the registers that hold it: bit n is the register with number n.
    holders: [u16; 3],
    rsp_moved_bytes: u16,
}

impl State {
    fn at_entry(arguments: Arguments) -> Self {
        Self { arguments, holders: arguments.regs.map(|reg| 1 << reg.0), rsp_moved_bytes: 0 }
    }

    /// One register for each argument: the entry's while it still holds it, else the lowest.
    fn locate(&self) -> [Reg; 3] {
        let mut regs = self.arguments.regs;
        for (n, reg) in regs.iter_mut().enumerate() {
            if self.arguments.shape.reads_arg(n) && self.holders[n] & (1 << reg.0) == 0 && self.holders[n] != 0 {
                *reg = Reg(self.holders[n].trailing_zeros() as u8);
            }
        }
        regs
    }

    /// Steps over an instruction that is no branch; an error when nothing behind it can be a site.
    fn pass(&mut self, instruction: &Instruction, at: u64, factory: &mut InstructionInfoFactory) -> Result<(), Why> {
        let copy = register_copy(instruction);
        let before = self.holders;
        let info = factory.info_options(instruction, InstructionInfoOptions::NO_MEMORY_USAGE);
        for used in info.used_registers().iter().filter(|used| writes(used.access())) {
            match number(used.register()) {
                Some(RSP) => self.rsp_moved_bytes = moved(self.rsp_moved_bytes, instruction, at)?,
                Some(reg) => self.holders.iter_mut().for_each(|holders| *holders &= !(1 << reg)),
                None => {}
            }
        }
        if let Some((to, from)) = copy {
            for (holders, before) in self.holders.iter_mut().zip(before) {
                *holders |= u16::from(before & (1 << from) != 0) << to;
            }
        }
        match (0..3).find(|&n| self.arguments.shape.reads_arg(n) && self.holders[n] == 0) {
            Some(arg) => Err(Why::ArgumentLost { at, arg: super::allocators::arg_name(self.arguments.shape, arg) }),
            None => Ok(()),
        }
    }
}

const RSP: u8 = 4;

/// Destination and source of a copy of a whole 64-bit register. A 32-bit `mov` clears the upper half: no copy.
fn register_copy(instruction: &Instruction) -> Option<(u8, u8)> {
    let source = match instruction.code() {
        Code::Mov_r64_rm64 | Code::Mov_rm64_r64 if instruction.op1_kind() == OpKind::Register => {
            instruction.op1_register()
        }
        Code::Lea_r64_m
            if instruction.memory_index() == Register::None
                && instruction.memory_displacement64() == 0
                && instruction.memory_base().is_gpr64() =>
        {
            instruction.memory_base()
        }
        _ => return None,
    };
    let to = (instruction.op0_kind() == OpKind::Register).then(|| instruction.op0_register())?;
    Some((number(to)?, number(source)?)).filter(|(to, _)| *to != RSP)
}

/// How far rsp lies below the return address after an instruction that writes rsp.
fn moved(before: u16, instruction: &Instruction, at: u64) -> Result<u16, Why> {
    let is_rsp = |n| instruction.op_kind(n) == OpKind::Register && instruction.op_register(n) == Register::RSP;
    let by = match instruction.mnemonic() {
        Mnemonic::Push | Mnemonic::Pop | Mnemonic::Pushfq | Mnemonic::Popfq if !is_rsp(0) => {
            i64::from(instruction.stack_pointer_increment())
        }
        Mnemonic::Sub if is_rsp(0) => instruction
            .try_immediate(1)
            .ok()
            .and_then(|imm| (imm as i64).checked_neg())
            .ok_or(Why::StackUnknown { at })?,
        Mnemonic::Add if is_rsp(0) => instruction.try_immediate(1).map_err(|_| Why::StackUnknown { at })? as i64,
        Mnemonic::Lea if instruction.memory_base() == Register::RSP && instruction.memory_index() == Register::None => {
            instruction.memory_displacement64() as i64
        }
        _ => return Err(Why::StackUnknown { at }),
    };
    i64::from(before).checked_sub(by).and_then(|moved| u16::try_from(moved).ok()).ok_or(Why::StackUnknown { at })
}

const fn writes(access: OpAccess) -> bool {
    matches!(access, OpAccess::Write | OpAccess::CondWrite | OpAccess::ReadWrite | OpAccess::ReadCondWrite)
}

/// The encoding number of a general-purpose register or a part of one.
fn number(register: Register) -> Option<u8> {
    let full = register.full_register();
    full.is_gpr64().then(|| full.number() as u8)
}

fn offset(instruction: &Instruction, entry: FileVaddr) -> u64 {
    instruction.ip().wrapping_sub(entry.0)
}

fn bytes_of<'code>(code: &'code [u8], instruction: &Instruction, entry: FileVaddr) -> &'code [u8] {
    let start = offset(instruction, entry) as usize;
    code.get(start..start.saturating_add(instruction.len())).unwrap_or_default()
}

fn text(instruction: &Instruction) -> String {
    let mut formatter = NasmFormatter::new();
    let options = formatter.options_mut();
    options.set_hex_prefix("0x");
    options.set_hex_suffix("");
    options.set_uppercase_hex(false);
    options.set_branch_leading_zeros(false);
    options.set_show_branch_size(false);
    options.set_small_hex_numbers_in_decimal(false);
    let mut text = String::new();
    formatter.format(instruction, &mut text);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENTRY: FileVaddr = FileVaddr(0x1000);
    const RAX: Reg = Reg(0);
    const RDX: Reg = Reg(2);
    const RBX: Reg = Reg(3);
    const RSI: Reg = Reg(6);
    const RDI: Reg = Reg(7);

    fn standard(shape: Shape) -> Arguments {
        Arguments { shape, regs: Reg::ARGS }
    }

    /// Whether the function does nothing but hand over to one that reads the arguments in these registers.
    fn forwards(choice: &Choice, shape: Shape, regs: [Reg; 3]) -> bool {
        choice.forwards.is_some_and(|forward| forward.hands_over(standard(shape), Arguments { shape, regs }))
    }

    fn site(code: &[u8], shape: Shape) -> Choice {
        choose(code, ENTRY, standard(shape)).expect("a site")
    }

    fn assert_entry_stepped(code: &[u8], shape: Shape, why: &Why) {
        let choice = site(code, shape);
        assert_eq!((choice.offset_bytes, choice.execution, &choice.why), (0, Execution::SingleStepped, why));
        assert_eq!((choice.args, choice.rsp_moved_bytes), (Reg::ARGS, 0));
    }

    fn assert_emulated(choice: &Choice, offset_bytes: u64, args: [Reg; 3], rsp_moved_bytes: u16) {
        assert_eq!(choice.execution, Execution::Emulated, "{choice:?}");
        assert_eq!((choice.offset_bytes, choice.args, choice.rsp_moved_bytes), (offset_bytes, args, rsp_moved_bytes));
    }

    #[test]
    fn push_at_the_entry_is_the_site() {
        // 41 54        push r12
        // 48 89 fd     mov  rbp,rdi
        let choice = site(&[0x41, 0x54, 0x48, 0x89, 0xfd], Shape::Size);
        assert_emulated(&choice, 0, Reg::ARGS, 0);
        assert_eq!((choice.instruction.as_str(), choice.why), ("push r12", Why::EntryEmulated));
    }

    #[test]
    fn endbr64_is_passed_over() {
        // f3 0f 1e fa  endbr64
        // 55           push rbp
        let choice = site(&[0xf3, 0x0f, 0x1e, 0xfa, 0x55], Shape::Size);
        assert_emulated(&choice, 4, Reg::ARGS, 0);
        assert_eq!(choice.why, Why::FirstEmulated { n_passed: 1 });
    }

    #[test]
    fn first_branch_is_a_site() {
        // 48 85 ff     test rdi,rdi
        // 74 10        je   0x1015
        let choice = site(&[0x48, 0x85, 0xff, 0x74, 0x10], Shape::Pointer);
        assert_emulated(&choice, 3, Reg::ARGS, 0);
        assert_eq!(choice.instruction, "je 0x1015");
        assert_eq!(choice.forwards, None);
    }

    #[test]
    fn near_conditional_branch_is_a_site() {
        // 48 85 ff           test rdi,rdi
        // 0f 84 10 00 00 00  je   0x1019
        assert_emulated(&site(&[0x48, 0x85, 0xff, 0x0f, 0x84, 0x10, 0, 0, 0], Shape::Pointer), 3, Reg::ARGS, 0);
    }

    #[test]
    fn compare_with_memory_is_passed_over() {
        // glibc 2.36, posix_memalign:
        // 80 3d 39 99 13 00 00  cmp  byte [rip+0x139939],0
        // 53                    push rbx
        let code = [0x80, 0x3d, 0x39, 0x99, 0x13, 0x00, 0x00, 0x53];
        assert_emulated(&site(&code, Shape::OutAlignSize), 7, Reg::ARGS, 0);
    }

    #[test]
    fn moved_stack_is_fine_without_a_return_probe() {
        // 48 83 ec 18  sub  rsp,24
        // 48 85 ff     test rdi,rdi
        // 74 10        je   0x1019
        let code = [0x48, 0x83, 0xec, 0x18, 0x48, 0x85, 0xff, 0x74, 0x10];
        assert_emulated(&site(&code, Shape::Pointer), 7, Reg::ARGS, 24);
        assert_entry_stepped(&code, Shape::Size, &Why::StackMoved { at: 7 });
    }

    #[test]
    fn stack_moves_add_up() {
        // 6a 01              push 1
        // 48 8d 64 24 f0     lea  rsp,[rsp-16]
        // 48 83 c4 08        add  rsp,8
        // 74 10              je   ...
        let code = [0x6a, 0x01, 0x48, 0x8d, 0x64, 0x24, 0xf0, 0x48, 0x83, 0xc4, 0x08, 0x74, 0x10];
        assert_emulated(&site(&code, Shape::Pointer), 11, Reg::ARGS, 16);
    }

    #[test]
    fn unknown_stack_ends_the_search() {
        // 48 83 e4 f0  and  rsp,-16
        // 55           push rbp
        assert_entry_stepped(&[0x48, 0x83, 0xe4, 0xf0, 0x55], Shape::Pointer, &Why::StackUnknown { at: 0 });
        // 58           pop  rax            (takes the return address away)
        // 55           push rbp
        assert_entry_stepped(&[0x58, 0x55], Shape::Pointer, &Why::StackUnknown { at: 0 });
        // 48 81 ec 00 00 10 00  sub rsp,0x100000      (more than the cookie can say)
        // 55                    push rbp
        assert_entry_stepped(
            &[0x48, 0x81, 0xec, 0x00, 0x00, 0x10, 0x00, 0x55],
            Shape::Pointer,
            &Why::StackUnknown { at: 0 },
        );
    }

    #[test]
    fn copied_argument_is_followed() {
        // mimalloc's way:
        // 48 89 fe                 mov  rsi,rdi
        // 64 48 8b 3c 25 00 00 00 00  mov  rdi,fs:[0]
        // 48 81 fe 00 04 00 00     cmp  rsi,0x400
        // 77 05                    ja   ...
        let code =
            [0x48, 0x89, 0xfe, 0x64, 0x48, 0x8b, 0x3c, 0x25, 0, 0, 0, 0, 0x48, 0x81, 0xfe, 0, 4, 0, 0, 0x77, 0x05];
        assert_emulated(&site(&code, Shape::Size), 19, [RSI, RSI, RDX], 0);
    }

    #[test]
    fn arguments_shift_one_register_up() {
        // mimalloc's realloc:
        // 48 89 f2     mov  rdx,rsi
        // 48 89 fe     mov  rsi,rdi
        // 31 ff        xor  edi,edi
        // eb 10        jmp  ...
        let code = [0x48, 0x89, 0xf2, 0x48, 0x89, 0xfe, 0x31, 0xff, 0xeb, 0x10];
        let choice = site(&code, Shape::PointerSize);
        assert_emulated(&choice, 8, [RSI, RDX, RDX], 0);
        assert!(!forwards(&choice, Shape::PointerSize, Reg::ARGS), "the target sees other arguments");
        assert!(forwards(&choice, Shape::PointerSize, [RSI, RDX, RDX]), "as mi_heap_realloc does");
    }

    #[test]
    fn lea_without_offset_is_a_copy() {
        // 48 8d 07        lea rax,[rdi]
        // 31 ff           xor edi,edi
        // 55              push rbp
        assert_emulated(&site(&[0x48, 0x8d, 0x07, 0x31, 0xff, 0x55], Shape::Size), 5, [RAX, RSI, RDX], 0);
        // 48 8d 47 01     lea rax,[rdi+1]
        // 31 ff           xor edi,edi
        // 55              push rbp
        assert_entry_stepped(
            &[0x48, 0x8d, 0x47, 0x01, 0x31, 0xff, 0x55],
            Shape::Size,
            &Why::ArgumentLost { at: 4, arg: "size" },
        );
    }

    #[test]
    fn half_a_copy_is_a_lost_argument() {
        // 89 f8        mov eax,edi
        // 31 ff        xor edi,edi
        // 55           push rbp
        let lost = Why::ArgumentLost { at: 2, arg: "size" };
        assert_entry_stepped(&[0x89, 0xf8, 0x31, 0xff, 0x55], Shape::Size, &lost);
        // 89 ff        mov edi,edi          (clears the upper half)
        // 55           push rbp
        assert_entry_stepped(&[0x89, 0xff, 0x55], Shape::Size, &Why::ArgumentLost { at: 0, arg: "size" });
        // 48 0f 44 fb  cmove rdi,rbx        (may overwrite)
        // 55           push rbp
        assert_entry_stepped(&[0x48, 0x0f, 0x44, 0xfb, 0x55], Shape::Size, &Why::ArgumentLost { at: 0, arg: "size" });
    }

    #[test]
    fn copy_that_is_overwritten_is_forgotten() {
        // 48 89 fb     mov rbx,rdi
        // 48 89 f8     mov rax,rdi
        // 31 c0        xor eax,eax
        // 31 ff        xor edi,edi
        // 55           push rbp
        let code = [0x48, 0x89, 0xfb, 0x48, 0x89, 0xf8, 0x31, 0xc0, 0x31, 0xff, 0x55];
        assert_emulated(&site(&code, Shape::Size), 10, [RBX, RSI, RDX], 0);
    }

    #[test]
    fn argument_that_is_not_read_may_be_lost() {
        // 31 ff        xor edi,edi          (the alignment)
        // 55           push rbp
        assert_emulated(&site(&[0x31, 0xff, 0x55], Shape::AlignSize), 2, [RDI, RSI, RDX], 0);
        assert_entry_stepped(&[0x31, 0xff, 0x55], Shape::CountSize, &Why::ArgumentLost { at: 0, arg: "count" });
    }

    #[test]
    fn word_sized_branch_is_no_site() {
        // 48 85 ff     test rdi,rdi
        // 66 74 10     je   ... (operand size prefix)
        let choice = site(&[0x48, 0x85, 0xff, 0x66, 0x74, 0x10, 0x90, 0x90], Shape::Pointer);
        assert_eq!((choice.offset_bytes, choice.execution), (0, Execution::SingleStepped));
        assert!(matches!(choice.why, Why::BranchNotEmulated { at: 3, .. }), "{:?}", choice.why);
        // 66 e8 ...    call ... (operand size prefix) at the entry: the kernel takes no probe
        let err = choose(&[0x66, 0xe8, 0, 0, 0, 0, 0x90], ENTRY, standard(Shape::Pointer)).expect_err("refused");
        assert!(matches!(err, NoSite::Refused { .. }), "{err:?}");
    }

    #[test]
    fn relative_call_is_a_site() {
        // f3 0f 1e fa     endbr64
        // e8 00 01 00 00  call 0x1109
        let choice = site(&[0xf3, 0x0f, 0x1e, 0xfa, 0xe8, 0, 1, 0, 0], Shape::Size);
        assert_emulated(&choice, 4, Reg::ARGS, 0);
        assert_eq!(choice.forwards, None);
    }

    #[test]
    fn jump_at_the_entry_forwards() {
        // musl, CET build:
        // f3 0f 1e fa     endbr64
        // e9 00 01 00 00  jmp  0x1109
        let choice = site(&[0xf3, 0x0f, 0x1e, 0xfa, 0xe9, 0, 1, 0, 0], Shape::Size);
        assert_emulated(&choice, 4, Reg::ARGS, 0);
        assert_eq!(choice.forwards.map(|forward| forward.to), Some(FileVaddr(0x1109)));
        assert!(forwards(&choice, Shape::Size, Reg::ARGS));
    }

    #[test]
    fn indirect_jump_is_stepped() {
        // ff 25 00 10 00 00  jmp [rip+0x1000]
        let choice = site(&[0xff, 0x25, 0, 0x10, 0, 0], Shape::Size);
        assert_eq!((choice.offset_bytes, choice.execution), (0, Execution::SingleStepped));
        assert!(matches!(choice.why, Why::BranchNotEmulated { at: 0, .. }));
    }

    #[test]
    fn nothing_behind_a_return_is_a_site() {
        // 31 c0        xor eax,eax
        // c3           ret
        // 55           push rbp             (another function)
        let why = Why::BranchNotEmulated { at: 2, branch: "ret".to_owned() };
        assert_entry_stepped(&[0x31, 0xc0, 0xc3, 0x55], Shape::Size, &why);
    }

    #[test]
    fn nothing_behind_a_system_call_is_a_site() {
        // 0f 05        syscall
        // 55           push rbp
        let choice = site(&[0x0f, 0x05, 0x55], Shape::Size);
        assert!(matches!(choice.why, Why::BranchNotEmulated { at: 0, .. }), "{:?}", choice.why);
    }

    #[test]
    fn cut_off_function_falls_back_to_its_entry() {
        // 48 85 ff     test rdi,rdi
        // 74           je   (cut off)
        assert_entry_stepped(&[0x48, 0x85, 0xff, 0x74], Shape::Size, &Why::Undecodable { at: 3 });
        assert_entry_stepped(&[0x48, 0x85, 0xff], Shape::Size, &Why::NoBranchFound);
        assert_eq!(choose(&[], ENTRY, standard(Shape::Size)), Err(NoSite::Undecodable));
        assert_eq!(choose(&[0x06], ENTRY, standard(Shape::Size)), Err(NoSite::Undecodable));
    }

    #[test]
    fn refused_entry_is_no_site_but_may_be_passed_over() {
        // f0 48 0f c1 07  lock xadd [rdi],rax
        // c3              ret
        let code = [0xf0, 0x48, 0x0f, 0xc1, 0x07, 0xc3];
        assert!(matches!(choose(&code, ENTRY, standard(Shape::Size)), Err(NoSite::Refused { .. })));
        // f0 48 0f c1 07  lock xadd [rdi],rax
        // 55              push rbp
        assert_emulated(&site(&[0xf0, 0x48, 0x0f, 0xc1, 0x07, 0x55], Shape::Size), 5, Reg::ARGS, 0);
    }
}
