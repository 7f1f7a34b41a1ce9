//! What one instruction does to a [`State`]. Instructions that are not known here make what they write unknown.

use iced_x86::{Instruction, InstructionInfoFactory, InstructionInfoOptions, Mnemonic, OpAccess, OpKind, Register};

use super::state::{Compared, RAX, RBP, RSP, State, Value, number};

/// Longest table of a `switch`.
const MAX_CASES: u16 = 4096;

/// The state behind an instruction that is no call, jump or return.
pub fn execute(state: &State, instruction: &Instruction, infos: &mut InstructionInfoFactory) -> State {
    let mut after = *state;
    let result = result(state, instruction);
    let rsp = moved_stack_pointer(state, instruction);
    let info = infos.info_options(instruction, InstructionInfoOptions::NO_MEMORY_USAGE);

    if instruction.op0_kind() == OpKind::Memory && writes(info.op0_access()) {
        write_memory(&mut after, state, instruction);
    }
    for used in info.used_registers().iter().filter(|used| writes(used.access())) {
        match number(used.register()) {
            Some(RSP) => after.set(RSP, rsp),
            Some(register) => after.set(register, Value::Unknown),
            None => {}
        }
    }
    let pushed_bytes = -instruction.stack_pointer_increment();
    if let (1.., Value::Cfa(at), true) = (pushed_bytes, rsp, instruction.is_stack_instruction()) {
        let value =
            if instruction.mnemonic() == Mnemonic::Push { operand(state, instruction, 0) } else { Value::Unknown };
        after.store(at, pushed_bytes as usize, value);
    }
    if let Some((register, value)) = result {
        after.set(register, value);
    }
    if instruction.rflags_modified() != 0 {
        after.compared = compared(instruction);
    }
    after
}

/// What the way of a conditional jump tells.
pub fn narrow(state: &mut State, jump: &Instruction, taken: bool) {
    use Mnemonic::{Ja, Jae, Jb, Jbe, Je, Jne};
    let is_equal = matches!((jump.mnemonic(), taken), (Je, true) | (Jne, false));
    match state.compared {
        // Loops that touch each page of a large frame end so.
        Some(Compared::StackPointerWith(other)) if is_equal => {
            if let value @ Value::Cfa(_) = state.registers[other] {
                state.registers[RSP] = value;
            }
        }
        Some(Compared::WithNumber { register, bytes, number }) => {
            let last = match (jump.mnemonic(), taken) {
                _ if is_equal => Some(number),
                (Ja, false) | (Jbe, true) => Some(number),
                (Jae, false) | (Jb, true) => number.checked_sub(1),
                _ => None,
            };
            if let Some(last) = last.filter(|last| *last < u64::from(MAX_CASES)) {
                limit(&mut state.registers[register], bytes, last as u16);
            }
        }
        _ => {}
    }
}

/// Notes that the low `bytes` bytes are at most `last`.
fn limit(value: &mut Value, bytes: u8, last: u16) {
    match *value {
        Value::Unknown => *value = Value::AtMost { bytes, last },
        Value::AtMost { bytes: known, last: before } => {
            let bytes = if fits(before, bytes) { bytes.max(known) } else { bytes };
            *value = Value::AtMost { bytes, last: last.min(before) };
        }
        _ => {}
    }
}

/// Whether the low `bytes` bytes are the whole number.
const fn fits(number: u16, bytes: u8) -> bool {
    bytes >= 2 || number <= 0xff
}

fn writes(access: OpAccess) -> bool {
    matches!(access, OpAccess::Write | OpAccess::CondWrite | OpAccess::ReadWrite | OpAccess::ReadCondWrite)
}

/// rsp behind `push`, `pop`, `leave` and their kin; what is computed otherwise (`sub rsp, 8`) is a [`result`].
fn moved_stack_pointer(state: &State, instruction: &Instruction) -> Value {
    if !instruction.is_stack_instruction() {
        return Value::Unknown;
    }
    match instruction.mnemonic() {
        Mnemonic::Leave => shifted(state.registers[RBP], 8),
        Mnemonic::Enter => Value::Unknown,
        _ => shifted(state.registers[RSP], i64::from(instruction.stack_pointer_increment())),
    }
}

fn write_memory(after: &mut State, before: &State, instruction: &Instruction) {
    if instruction.mnemonic() == Mnemonic::Pop {
        // Its address counts from rsp as it is then; too rare to be looked at.
        (after.saved_rbp, after.has_return_address) = (None, false);
    } else if let Some(offset) = before.stack_operand(instruction) {
        let is_move = instruction.mnemonic() == Mnemonic::Mov;
        let value = if is_move { operand(before, instruction, 1) } else { Value::Unknown };
        after.store(offset, instruction.memory_size().size(), value);
    }
}

/// What an operand of 8 bytes holds.
fn operand(state: &State, instruction: &Instruction, n: u32) -> Value {
    match instruction.op_kind(n) {
        OpKind::Register if instruction.op_register(n).is_gpr64() => state.get(instruction.op_register(n)),
        OpKind::Memory if instruction.memory_size().size() == 8 => {
            state.stack_operand(instruction).map_or(Value::Unknown, |offset| state.load(offset))
        }
        OpKind::Register | OpKind::Memory => Value::Unknown,
        _ => instruction.try_immediate(n).map_or(Value::Unknown, Value::Number),
    }
}

/// The register that the first operand is, and what it holds afterwards, where that can be told.
fn result(state: &State, instruction: &Instruction) -> Option<(usize, Value)> {
    if instruction.mnemonic() == Mnemonic::Leave {
        let Value::Cfa(at) = state.registers[RBP] else { return None };
        return Some((RBP, state.load(at)));
    }
    if instruction.mnemonic() == Mnemonic::Cdqe {
        let eax = narrowed(state.get(Register::RAX), 4);
        return matches!(eax, Value::AtMost { .. }).then_some((RAX, eax));
    }
    let target = (instruction.op0_kind() == OpKind::Register).then(|| instruction.op0_register())?;
    let (register, bytes) = (number(target)?, target.size());
    let is_wide = bytes == 8;
    let value = match instruction.mnemonic() {
        Mnemonic::Pop if is_wide => match state.registers[RSP] {
            Value::Cfa(at) => state.load(at),
            _ => Value::Unknown,
        },
        Mnemonic::Mov if is_wide => case(state, instruction).unwrap_or_else(|| operand(state, instruction, 1)),
        Mnemonic::Mov => moved_part(state, instruction, target),
        Mnemonic::Movzx if bytes >= 4 => match instruction.op1_kind() {
            OpKind::Register if !is_high_byte(instruction.op1_register()) => {
                narrowed(state.get(instruction.op1_register()), instruction.op1_register().size() as u8)
            }
            OpKind::Memory => narrowed(Value::Unknown, instruction.memory_size().size() as u8),
            _ => Value::Unknown,
        },
        Mnemonic::Movsxd if is_wide => distance(state, instruction)?,
        Mnemonic::Lea if is_wide => address(state, instruction),
        Mnemonic::Add if is_wide => sum(operand(state, instruction, 0), operand(state, instruction, 1)),
        Mnemonic::Sub if is_wide => match operand(state, instruction, 1) {
            Value::Number(by) => shifted(operand(state, instruction, 0), (by as i64).wrapping_neg()),
            _ => Value::Unknown,
        },
        Mnemonic::Xor | Mnemonic::Sub
            if bytes >= 4 && instruction.op1_kind() == OpKind::Register && instruction.op1_register() == target =>
        {
            Value::Number(0)
        }
        Mnemonic::And => match instruction.try_immediate(1) {
            Ok(mask) if mask < u64::from(MAX_CASES) && !is_high_byte(target) => {
                Value::AtMost { bytes: if bytes >= 4 { 8 } else { bytes as u8 }, last: mask as u16 }
            }
            _ => Value::Unknown,
        },
        _ => return None,
    };
    Some((register, value))
}

/// A move to a part of a register; 32 bits clear the upper half.
fn moved_part(state: &State, instruction: &Instruction, target: Register) -> Value {
    match (target.size(), instruction.op1_kind()) {
        (4, OpKind::Register) => narrowed(state.get(instruction.op1_register()), 4),
        (4, OpKind::Memory) => Value::Unknown,
        (4, _) => instruction.try_immediate(1).map_or(Value::Unknown, |n| Value::Number(n & 0xffff_ffff)),
        (1, OpKind::Immediate8) if !is_high_byte(target) => match state.get(target) {
            Value::Number(before) => Value::Number(before & !0xff | u64::from(instruction.immediate8())),
            _ => Value::Unknown,
        },
        _ => Value::Unknown,
    }
}

/// The low `bytes` bytes, the others cleared.
fn narrowed(value: Value, bytes: u8) -> Value {
    match value {
        Value::Number(number) if bytes == 4 => Value::Number(number & 0xffff_ffff),
        Value::AtMost { bytes: known, last } if known >= bytes && fits(last, bytes) => Value::AtMost { bytes: 8, last },
        _ if bytes == 1 => Value::AtMost { bytes: 8, last: 0xff },
        _ if bytes == 2 => Value::AtMost { bytes: 8, last: 0xffff },
        _ => Value::Unknown,
    }
}

const fn is_high_byte(register: Register) -> bool {
    matches!(register, Register::AH | Register::BH | Register::CH | Register::DH)
}

fn shifted(value: Value, by: i64) -> Value {
    match value {
        Value::Cfa(offset) => {
            i32::try_from(by).ok().and_then(|by| offset.checked_add(by)).map_or(Value::Unknown, Value::Cfa)
        }
        Value::Number(number) => Value::Number(number.wrapping_add_signed(by)),
        _ => Value::Unknown,
    }
}

fn sum(one: Value, other: Value) -> Value {
    match (one, other) {
        (Value::Distance { table, last }, Value::Number(base))
        | (Value::Number(base), Value::Distance { table, last })
            if base == table =>
        {
            Value::Case { table, last, entry_bytes: 4 }
        }
        (value, Value::Number(by)) | (Value::Number(by), value) => shifted(value, by as i64),
        _ => Value::Unknown,
    }
}

/// What `lea` computes.
fn address(state: &State, instruction: &Instruction) -> Value {
    if instruction.is_ip_rel_memory_operand() {
        return Value::Number(instruction.ip_rel_memory_address());
    }
    let displacement = instruction.memory_displacement64() as i64;
    match (instruction.memory_base(), instruction.memory_index()) {
        (Register::None, Register::None) => Value::Number(displacement as u64),
        (base, Register::None) => shifted(state.get(base), displacement),
        (base, index) if instruction.memory_index_scale() == 1 && displacement == 0 => {
            sum(state.get(base), state.get(index))
        }
        _ => Value::Unknown,
    }
}

/// The highest index of a table that is read with entries of `scale` bytes, and where the table begins.
fn table(state: &State, instruction: &Instruction, scale: u32) -> Option<(u64, u16)> {
    let is_indexed = instruction.op_count() > 1 && instruction.op1_kind() == OpKind::Memory;
    indexed(state, instruction, scale).filter(|_| is_indexed)
}

fn indexed(state: &State, instruction: &Instruction, scale: u32) -> Option<(u64, u16)> {
    let base = match instruction.memory_base() {
        Register::None => 0,
        base => match state.get(base) {
            Value::Number(base) => base,
            _ => return None,
        },
    };
    match state.get(instruction.memory_index()) {
        Value::AtMost { bytes: 8, last } if instruction.memory_index_scale() == scale && last < MAX_CASES => {
            Some((base.wrapping_add(instruction.memory_displacement64()), last))
        }
        _ => None,
    }
}

fn distance(state: &State, instruction: &Instruction) -> Option<Value> {
    table(state, instruction, 4).map(|(table, last)| Value::Distance { table, last })
}

fn case(state: &State, instruction: &Instruction) -> Option<Value> {
    table(state, instruction, 8).map(|(table, last)| Value::Case { table, last, entry_bytes: 8 })
}

/// What an indirect jump or call leads to, by the register or the table that it names.
pub fn destination(state: &State, instruction: &Instruction) -> Value {
    match instruction.op0_kind() {
        OpKind::Register => state.get(instruction.op0_register()),
        OpKind::Memory => indexed(state, instruction, 8).map_or(Value::Unknown, |(table, last)| Value::Case {
            table,
            last,
            entry_bytes: 8,
        }),
        _ => Value::Unknown,
    }
}

/// What the flags tell behind an instruction that writes them.
fn compared(instruction: &Instruction) -> Option<Compared> {
    if instruction.mnemonic() != Mnemonic::Cmp || instruction.op0_kind() != OpKind::Register {
        return None;
    }
    let (first, second) = (instruction.op0_register(), instruction.op1_kind());
    match (first, second) {
        (Register::RSP, OpKind::Register) => number(instruction.op1_register()).map(Compared::StackPointerWith),
        (other, OpKind::Register) if instruction.op1_register() == Register::RSP => {
            number(other).map(Compared::StackPointerWith)
        }
        (first, _) if !is_high_byte(first) => {
            let bytes = first.size() as u8;
            let mask = if bytes >= 8 { u64::MAX } else { (1 << (8 * bytes)) - 1 };
            let number_compared = instruction.try_immediate(1).ok()? & mask;
            Some(Compared::WithNumber { register: number(first)?, bytes, number: number_compared })
        }
        _ => None,
    }
}
