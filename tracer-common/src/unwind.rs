//! Unwind rows and the pure step from one frame to its caller.
//!
//! User space compiles each module's `.eh_frame`/`.debug_frame` into sorted [`UnwindRow`]s; the kernel finds the row of a
//! pc and applies its [`PackedRule`] with [`step`]. The same `step` runs in BPF, in tests and in the oracle comparison.

/// One row: from `offset` (up to the next row) the rule `rule` holds.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct UnwindRow {
    /// Code offset in bytes from the module's base vaddr.
    pub offset: u32,
    /// Index into the table of interned rules.
    pub rule: u32,
}
const _: () = assert!(size_of::<UnwindRow>() == 8);

/// How a frame's caller is found. System V x86-64 ABI, DWARF register numbers 6 = rbp, 7 = rsp, 16 = return address.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RuleKind {
    /// No unwind information covers this code.
    None = 0,
    /// CFA = rsp + `cfa_off`.
    Rsp = 1,
    /// CFA = rbp + `cfa_off`.
    Rbp = 2,
    /// CFA = *(rbp + `cfa_off`), the caller's rbp at rbp + `rbp_off`, 0 included: functions that realign their stack (GCC's
    /// DRAP: `push rbp` comes after the realignment, so its distance from the CFA is not fixed).
    DerefRbp = 3,
    /// CFA = rsp + 8 + (((rip & 15) >= `cfa_off`) << 3): the expression that linkers emit for `.plt`.
    Plt = 4,
    /// Signal trampoline (`S` augmentation, glibc's and the kernel's `__restore_rt`): the `ucontext_t` lies at
    /// rsp + `cfa_off`; rbp, rsp and rip are read out of its `gregs`.
    SignalFrame = 5,
    /// The return address is undefined: this is an outermost frame (`_start`, `clone`).
    Root = 6,
    /// Walk by frame pointer: CFA = rbp + 16, rbp at CFA − 16, return address at CFA − 8 (generated code).
    FramePointer = 7,
    /// There is a rule, but not one that this table can express (another register, another expression).
    Unsupported = 8,
}

impl RuleKind {
    /// The kind with number `n`; unknown numbers are `Unsupported`.
    pub const fn from_u8(n: u8) -> Self {
        match n {
            0 => Self::None,
            1 => Self::Rsp,
            2 => Self::Rbp,
            3 => Self::DerefRbp,
            4 => Self::Plt,
            5 => Self::SignalFrame,
            6 => Self::Root,
            7 => Self::FramePointer,
            _ => Self::Unsupported,
        }
    }
}

/// A rule in words; [`PackedRule`] is its form in the tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct UnwindRule {
    /// How the CFA (the caller's rsp) is computed.
    pub kind: RuleKind,
    /// The offset that `kind` uses, in bytes.
    pub cfa_off: i32,
    /// Where the caller's rbp was saved, in bytes from the CFA; 0 = rbp is unchanged. ([`RuleKind::DerefRbp`] differs.)
    pub rbp_off: i16,
}

impl UnwindRule {
    /// A rule that only has a kind.
    pub const fn of(kind: RuleKind) -> Self {
        Self { kind, cfa_off: 0, rbp_off: 0 }
    }

    /// Bits 0–31 `cfa_off`, 32–47 `rbp_off`, 48–55 `kind`, 56–63 zero.
    pub const fn pack(self) -> PackedRule {
        PackedRule((self.cfa_off as u32 as u64) | ((self.rbp_off as u16 as u64) << 32) | ((self.kind as u64) << 48))
    }
}

/// An [`UnwindRule`] in 64 bits.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct PackedRule(pub u64);

impl PackedRule {
    /// How the CFA is computed.
    #[inline(always)]
    pub const fn kind(self) -> u8 {
        (self.0 >> 48) as u8
    }

    /// The CFA offset, sign-extended, in bytes.
    #[inline(always)]
    pub const fn cfa_off(self) -> u64 {
        self.0 as u32 as i32 as i64 as u64
    }

    /// The offset of the saved rbp from the CFA, sign-extended; 0 = unchanged.
    #[inline(always)]
    pub const fn rbp_off(self) -> u64 {
        (self.0 >> 32) as u16 as i16 as i64 as u64
    }

    /// The rule in words.
    pub const fn unpack(self) -> UnwindRule {
        UnwindRule {
            kind: RuleKind::from_u8(self.kind()),
            cfa_off: self.cfa_off() as i32,
            rbp_off: self.rbp_off() as i16,
        }
    }
}

/// The registers an unwind needs.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Regs {
    /// Program counter: a return address, or exact after a signal frame.
    pub pc: u64,
    /// Stack pointer.
    pub sp: u64,
    /// Frame pointer register, whatever it is used for.
    pub bp: u64,
}

/// What one step came to.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// `regs` are the caller's, its pc a return address.
    Caller = 0,
    /// `regs` are those that a signal interrupted: its pc is exact, not a return address.
    Interrupted = 1,
    /// This frame was an outermost one.
    Root = 2,
    /// No unwind information covers the pc.
    NoRow = 3,
    /// The rule is one that the table cannot express.
    Unsupported = 4,
    /// A word of the stack could not be read.
    ReadFailed = 5,
    /// The CFA did not move up the stack: the chain is broken or would not end.
    NoProgress = 6,
}

/// `gregs` of `ucontext_t` on x86-64: uc_flags 8 + uc_link 8 + uc_stack 24, then r8…r15, rdi, rsi, rbp, rbx, rdx, rax, rcx,
/// rsp, rip (arch/x86/include/uapi/asm/sigcontext.h, Linux 6.18).
pub const UCONTEXT_RBP: u64 = 40 + 10 * 8;
/// Offset of rsp in `ucontext_t`; see [`UCONTEXT_RBP`].
pub const UCONTEXT_RSP: u64 = 40 + 15 * 8;
/// Offset of rip in `ucontext_t`; see [`UCONTEXT_RBP`].
pub const UCONTEXT_RIP: u64 = 40 + 16 * 8;

/// One step: from `regs` in a frame where `rule` holds to its caller's registers.
///
/// `read` reads one 8-byte word of the target's stack. A return address of 0 ends the chain as a root (System V ABI:
/// the outermost frame).
#[inline(always)]
pub fn step(rule: PackedRule, regs: &mut Regs, mut read: impl FnMut(u64) -> Option<u64>) -> Step {
    const NONE: u8 = RuleKind::None as u8;
    const RSP: u8 = RuleKind::Rsp as u8;
    const RBP: u8 = RuleKind::Rbp as u8;
    const DEREF_RBP: u8 = RuleKind::DerefRbp as u8;
    const PLT: u8 = RuleKind::Plt as u8;
    const SIGNAL: u8 = RuleKind::SignalFrame as u8;
    const ROOT: u8 = RuleKind::Root as u8;
    const FP: u8 = RuleKind::FramePointer as u8;

    let off = rule.cfa_off();
    let mut rbp_off = rule.rbp_off();
    let cfa = match rule.kind() {
        RSP => regs.sp.wrapping_add(off),
        RBP => regs.bp.wrapping_add(off),
        PLT => regs.sp.wrapping_add(8).wrapping_add(if (regs.pc & 15) >= off { 8 } else { 0 }),
        FP => {
            rbp_off = 16u64.wrapping_neg();
            regs.bp.wrapping_add(16)
        }
        DEREF_RBP => match read(regs.bp.wrapping_add(off)) {
            Some(cfa) => {
                // Counted from rbp; made to count from the CFA, where the read below takes it up.
                rbp_off = regs.bp.wrapping_add(rbp_off).wrapping_sub(cfa);
                cfa
            }
            None => return Step::ReadFailed,
        },
        SIGNAL => {
            let context = regs.sp.wrapping_add(off);
            let (Some(bp), Some(sp), Some(pc)) = (
                read(context.wrapping_add(UCONTEXT_RBP)),
                read(context.wrapping_add(UCONTEXT_RSP)),
                read(context.wrapping_add(UCONTEXT_RIP)),
            ) else {
                return Step::ReadFailed;
            };
            *regs = Regs { pc, sp, bp };
            return Step::Interrupted;
        }
        ROOT => return Step::Root,
        NONE => return Step::NoRow,
        _ => return Step::Unsupported,
    };
    // A caller's frame lies above its callee's; equality or less would loop. (Signal frames may change stacks, handled above.)
    if cfa <= regs.sp {
        return Step::NoProgress;
    }
    let Some(pc) = read(cfa.wrapping_sub(8)) else { return Step::ReadFailed };
    if rbp_off != 0 {
        match read(cfa.wrapping_add(rbp_off)) {
            Some(bp) => regs.bp = bp,
            None => return Step::ReadFailed,
        }
    }
    regs.sp = cfa;
    regs.pc = pc;
    if pc == 0 { Step::Root } else { Step::Caller }
}
