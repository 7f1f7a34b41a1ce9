//! What the kernel's uprobes do with an instruction: emulate it, single-step a copy of it, or refuse the probe.
//!
//! Decided on the encoding, as the kernel does it, not on the meaning. Source: arch/x86/kernel/uprobes.c (`branch_setup_xol_ops`,
//! `push_setup_xol_ops`, `is_prefix_bad`), before and after its changes of late 2020 (prefixes), December 2022 (66 nop), April 2025
//! (long nops) and the later series that tells `pause` from `nop`. Only what holds in all of these counts as emulated here.

/// What happens at a breakpoint on one instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KernelAction {
    /// The kernel does the instruction's work itself: the target runs on at once.
    Emulate,
    /// A copy of the instruction runs out of line with a trap after it: many times the cost.
    SingleStep,
    /// No probe can be set here.
    Refuse,
}

const OPERAND_SIZE: u8 = 0x66;
const REX_B: u8 = 0x41;

/// What the kernel does with the instruction whose bytes (all of them, none more) these are.
pub fn kernel_action(instruction: &[u8]) -> KernelAction {
    let n_prefixes = instruction.iter().take_while(|byte| is_legacy_prefix(**byte)).count();
    let (prefixes, rest) = instruction.split_at(n_prefixes);
    // `is_prefix_bad`: segment overrides other than fs and gs (so also branch hints and `notrack`), and lock.
    if prefixes.iter().any(|prefix| matches!(prefix, 0x26 | 0x2e | 0x36 | 0x3e | 0xf0)) {
        return KernelAction::Refuse;
    }
    let n_rex = rest.iter().take_while(|byte| (0x40..=0x4f).contains(*byte)).count();
    let (rex, opcode) = rest.split_at(n_rex);
    match opcode {
        // Relative jmp and call, short and near conditional jumps. With an operand size prefix processors disagree on
        // the length, and the kernel refuses.
        [0xe8 | 0xe9 | 0xeb | 0x70..=0x7f, ..] | [0x0f, 0x80..=0x8f, ..] => {
            if prefixes.contains(&OPERAND_SIZE) {
                KernelAction::Refuse
            } else {
                KernelAction::Emulate
            }
        }
        // Prefixed: 66 is refused before 6.2 and its stable back-ports, f3 (`pause`) is stepped by the newest, and with
        // REX.B it is an exchange of registers.
        [0x90] if instruction.len() == 1 => KernelAction::Emulate,
        // One byte, or two with exactly REX.B; absent in 4.15, present in 4.18. (Multi-byte nops, 0f 1f, only since
        // April 2025.)
        [0x50..=0x57] if prefixes.is_empty() && (rex.is_empty() || rex == [REX_B]) => KernelAction::Emulate,
        // int3, int, iret, hlt, cli, sti and port input/output are not in the tables of allowed instructions.
        [0xcc | 0xcd | 0xcf | 0xf4 | 0xfa | 0xfb | 0xe4..=0xe7 | 0xec..=0xef, ..] => KernelAction::Refuse,
        _ => KernelAction::SingleStep,
    }
}

const fn is_legacy_prefix(byte: u8) -> bool {
    matches!(byte, 0x26 | 0x2e | 0x36 | 0x3e | 0x64 | 0x65 | 0x66 | 0x67 | 0xf0 | 0xf2 | 0xf3)
}

#[cfg(test)]
mod tests {
    use super::{KernelAction::*, *};

    #[test]
    fn actions_follow_the_kernel() {
        let rows: &[(&[u8], KernelAction, &str)] = &[
            (&[0x55], Emulate, "push rbp"),
            (&[0x41, 0x54], Emulate, "push r12"),
            (&[0x40, 0x55], SingleStep, "rex push rbp"),
            (&[0x48, 0x55], SingleStep, "rex.w push rbp"),
            (&[0x66, 0x55], SingleStep, "push bp"),
            (&[0x6a, 0x01], SingleStep, "push 1"),
            (&[0xff, 0x75, 0x00], SingleStep, "push [rbp]"),
            (&[0x90], Emulate, "nop"),
            (&[0x66, 0x90], SingleStep, "xchg ax,ax"),
            (&[0xf3, 0x90], SingleStep, "pause"),
            (&[0x41, 0x90], SingleStep, "xchg r8d,eax"),
            (&[0x0f, 0x1f, 0x00], SingleStep, "nop [rax]"),
            (&[0xf3, 0x0f, 0x1e, 0xfa], SingleStep, "endbr64"),
            (&[0xeb, 0x10], Emulate, "jmp short"),
            (&[0xe9, 0, 0, 0, 0], Emulate, "jmp near"),
            (&[0xe8, 0, 0, 0, 0], Emulate, "call"),
            (&[0x74, 0x10], Emulate, "je short"),
            (&[0x0f, 0x84, 0, 0, 0, 0], Emulate, "je near"),
            (&[0xf2, 0xe9, 0, 0, 0, 0], Emulate, "bnd jmp"),
            (&[0x66, 0xe8, 0, 0, 0, 0], Refuse, "call with operand size"),
            (&[0x66, 0x74, 0x10], Refuse, "je with operand size"),
            (&[0x2e, 0x74, 0x10], Refuse, "je, hinted"),
            (&[0x3e, 0xff, 0xe0], Refuse, "notrack jmp rax"),
            (&[0xff, 0x25, 0, 0, 0, 0], SingleStep, "jmp [rip]"),
            (&[0xff, 0xe0], SingleStep, "jmp rax"),
            (&[0xe3, 0x10], SingleStep, "jrcxz"),
            (&[0xe2, 0x10], SingleStep, "loop"),
            (&[0xc3], SingleStep, "ret"),
            (&[0x48, 0x89, 0xf8], SingleStep, "mov rax,rdi"),
            (&[0x64, 0x48, 0x8b, 0x04, 0x25, 0, 0, 0, 0], SingleStep, "mov rax,fs:[0]"),
            (&[0xf0, 0x0f, 0xb1, 0x0f], Refuse, "lock cmpxchg"),
            (&[0xcc], Refuse, "int3"),
            (&[0xf4], Refuse, "hlt"),
            (&[], SingleStep, "nothing"),
        ];
        for (bytes, action, text) in rows {
            assert_eq!(kernel_action(bytes), *action, "{text} {bytes:02x?}");
        }
    }
}
