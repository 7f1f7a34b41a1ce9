//! Where control goes within a function: its ends, and the functions that it hands over to.
//!
//! Followed are direct jumps and what falls through, also into other functions (a jump as the last act); calls are stepped
//! over.

use std::collections::HashSet;

use iced_x86::{FlowControl, Instruction, Mnemonic, OpKind, Register};
use tracer_common::addr::FileVaddr;

use super::{
    prologue::decode,
    symbols::{Callee, Module},
};

/// Instructions followed from one entry. tcmalloc's `operator new` with all that it jumps to has some hundreds.
const MAX_INSTRUCTIONS: usize = 8192;

/// What was found from one entry on.
#[derive(Debug, Default)]
pub struct Flow {
    /// Where the call ends, rsp at the return address: `ret` instructions, and jumps judged to be an [`Verdict::End`].
    pub exits: Vec<FileVaddr>,
    /// Something that cannot be followed: an indirect jump, broken code, too much of it.
    pub lost_at: Option<FileVaddr>,
    /// Every instruction.
    pub visited: HashSet<u64>,
}

/// What a call of another function, or a jump to it as the last act, is to be taken for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// A call is stepped over, a jump is followed (out of the file, it is an end).
    GoOn,
    /// A call is stepped over, a jump is an end.
    End,
    /// The way ends here, and is none that matters.
    Drop,
}

/// Follows a function from its entry. `argument` names a register that holds a pointer: ways for NULL are left out.
pub fn follow(
    module: &Module<'_>,
    entry: FileVaddr,
    argument: Option<Register>,
    judge: &dyn Fn(Callee) -> Verdict,
) -> Flow {
    let mut flow = Flow::default();
    let mut pending = vec![entry];
    while let Some(start) = pending.pop() {
        flow.follow_from(module, start, argument, judge, &mut pending);
    }
    flow.exits.sort_unstable();
    flow.exits.dedup();
    flow
}

impl Flow {
    /// One straight way, up to its end.
    fn follow_from(
        &mut self,
        module: &Module<'_>,
        start: FileVaddr,
        argument: Option<Register>,
        judge: &dyn Fn(Callee) -> Verdict,
        pending: &mut Vec<FileVaddr>,
    ) {
        let end = module.end_of_function(start);
        let Some(code) = module.code_at(start) else {
            self.lost_at.get_or_insert(start);
            return;
        };
        let mut before = Instruction::default();
        for instruction in decode(code.bytes, start) {
            let at = FileVaddr(instruction.ip());
            if at.0 >= end || self.visited.contains(&at.0) {
                // Past its end: what stands before does not come back (a call of abort).
                return;
            }
            if self.visited.len() >= MAX_INSTRUCTIONS || instruction.is_invalid() {
                self.lost_at.get_or_insert(at);
                return;
            }
            self.visited.insert(at.0);
            let to = FileVaddr(instruction.near_branch_target());
            match instruction.flow_control() {
                FlowControl::Next => {}
                FlowControl::Call | FlowControl::IndirectCall => {
                    if callee(module, &instruction).is_some_and(|callee| judge(callee) == Verdict::Drop) {
                        return;
                    }
                }
                FlowControl::ConditionalBranch => match (is_test_of(&before, argument), instruction.mnemonic()) {
                    (true, Mnemonic::Je) => {}
                    (true, Mnemonic::Jne) => return pending.push(to),
                    _ if module.is_entry(to) && judge(Callee::Here(to)) == Verdict::End => {
                        // A return probe there would act on both ways.
                        self.lost_at.get_or_insert(at);
                    }
                    _ => pending.push(to),
                },
                FlowControl::UnconditionalBranch => {
                    return self.jump(module, at, module.through_plt(to).unwrap_or(Callee::Here(to)), pending, judge);
                }
                FlowControl::IndirectBranch => {
                    return match slot(&instruction).and_then(|slot| module.import_at(slot)) {
                        Some(to) => self.jump(module, at, to, pending, judge),
                        None => _ = self.lost_at.get_or_insert(at),
                    };
                }
                FlowControl::Return => return self.exits.push(at),
                FlowControl::Interrupt | FlowControl::Exception | FlowControl::XbeginXabortXend => return,
            }
            before = instruction;
        }
    }

    fn jump(
        &mut self,
        module: &Module<'_>,
        at: FileVaddr,
        to: Callee,
        pending: &mut Vec<FileVaddr>,
        judge: &dyn Fn(Callee) -> Verdict,
    ) {
        match to {
            Callee::Here(within) if !module.is_entry(within) => pending.push(within),
            _ => match (judge(to), to) {
                (Verdict::Drop, _) => {}
                (Verdict::GoOn, Callee::Here(to)) => pending.push(to),
                (Verdict::GoOn, Callee::Elsewhere(_) | Callee::Raise) | (Verdict::End, _) => self.exits.push(at),
            },
        }
    }
}

/// Whether an instruction asks if the register is zero.
fn is_test_of(instruction: &Instruction, argument: Option<Register>) -> bool {
    argument.is_some_and(|argument| {
        instruction.mnemonic() == Mnemonic::Test
            && instruction.op0_register() == argument
            && instruction.op1_register() == argument
    })
}

fn callee(module: &Module<'_>, instruction: &Instruction) -> Option<Callee> {
    if instruction.flow_control() == FlowControl::IndirectCall {
        return module.import_at(slot(instruction)?);
    }
    let to = FileVaddr(instruction.near_branch_target());
    Some(module.through_plt(to).unwrap_or(Callee::Here(to)))
}

/// The slot of the global offset table that an indirect call or jump reads.
pub fn slot(instruction: &Instruction) -> Option<FileVaddr> {
    let is_slot = instruction.op0_kind() == OpKind::Memory && instruction.memory_base() == Register::RIP;
    is_slot.then(|| FileVaddr(instruction.ip_rel_memory_address()))
}
