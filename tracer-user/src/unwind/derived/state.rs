//! What is known of the registers before an instruction, as far as frames and jumps hang on it.

use iced_x86::{Instruction, Register};
use tracer_common::unwind::{RuleKind, UnwindRule};

/// Number of rbp among the general registers.
pub const RBP: usize = 5;
/// Number of rsp.
pub const RSP: usize = 4;
/// Number of rax.
pub const RAX: usize = 0;

/// rsp at a function's entry, in bytes from the CFA: there lies the return address.
pub const ENTRY_RSP: i32 = -8;

/// What a register holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value {
    /// Anything.
    Unknown,
    /// What rbp held when the function was called.
    CallersRbp,
    /// The function's return address.
    ReturnAddress,
    /// An address on the stack, in bytes from the CFA.
    Cfa(i32),
    /// A constant, or an address in the file.
    Number(u64),
    /// Its low `bytes` bytes, without sign, are at most `last`.
    AtMost { bytes: u8, last: u16 },
    /// One of a table's 32-bit distances, which count from the table itself.
    Distance { table: u64, last: u16 },
    /// What such a distance leads to, or one of a table's addresses; `entry_bytes` is 4 or 8.
    Case { table: u64, last: u16, entry_bytes: u8 },
}
const _: () = assert!(size_of::<Value>() == 16, "one is kept for each register at each place that is jumped to");

/// How control came into the function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// By a call.
    Called,
    /// By nothing: this is an outermost frame.
    Outermost,
    /// It has just been through a `clone` system call: perhaps this is the child, on a stack of its own.
    Cloned,
    /// In one way or another.
    Unclear,
}

/// What the flags tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compared {
    /// A register's low `bytes` bytes were compared with a number.
    WithNumber { register: usize, bytes: u8, number: u64 },
    /// rsp was compared with another register.
    StackPointerWith(usize),
}

/// The state before an instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct State {
    pub registers: [Value; 16],
    /// Where the caller's rbp lies, in bytes from the CFA.
    pub saved_rbp: Option<i32>,
    /// The return address is at its place.
    pub has_return_address: bool,
    pub arrival: Arrival,
    pub compared: Option<Compared>,
}

impl State {
    /// At the entry of a function.
    pub const fn called() -> Self {
        let mut registers = [Value::Unknown; 16];
        registers[RSP] = Value::Cfa(ENTRY_RSP);
        registers[RBP] = Value::CallersRbp;
        Self { registers, saved_rbp: None, has_return_address: true, arrival: Arrival::Called, compared: None }
    }

    /// Where the kernel starts a program.
    pub const fn outermost() -> Self {
        Self { arrival: Arrival::Outermost, ..Self::called() }
    }

    /// Whether a jump from here is, for the function that it leads to, as a call by our caller.
    pub fn is_as_called(&self) -> bool {
        self.registers[RSP] == Value::Cfa(ENTRY_RSP)
            && self.registers[RBP] == Value::CallersRbp
            && self.has_return_address
            && matches!(self.arrival, Arrival::Called | Arrival::Cloned)
    }

    /// What it says of the frame.
    pub fn frame(&self) -> Frame {
        let cfa_from = |register: usize| match self.registers[register] {
            Value::Cfa(offset) if offset <= ENTRY_RSP && self.has_return_address => Some(-offset),
            _ => None,
        };
        let is_called = matches!(self.arrival, Arrival::Called | Arrival::Cloned);
        Frame {
            is_outermost: self.arrival == Arrival::Outermost,
            cfa_from_rsp: cfa_from(RSP).filter(|_| is_called),
            cfa_from_rbp: cfa_from(RBP).filter(|_| is_called),
            saved_rbp: self.saved_rbp,
            rbp_is_callers: self.registers[RBP] == Value::CallersRbp,
        }
    }

    /// Takes in that control also comes from elsewhere with `other`; whether that made a difference.
    pub fn join(&mut self, other: &Self) -> bool {
        let before = *self;
        for (value, other) in self.registers.iter_mut().zip(other.registers) {
            if *value != other {
                *value = Value::Unknown;
            }
        }
        if self.saved_rbp != other.saved_rbp {
            self.saved_rbp = None;
        }
        self.has_return_address &= other.has_return_address;
        self.arrival = match (self.arrival, other.arrival) {
            (one, another) if one == another => one,
            (Arrival::Called | Arrival::Cloned, Arrival::Called | Arrival::Cloned) => Arrival::Called,
            _ => Arrival::Unclear,
        };
        if self.compared != other.compared {
            self.compared = None;
        }
        *self != before
    }

    /// What a register holds, of its full width.
    pub fn get(&self, register: Register) -> Value {
        number(register).map_or(Value::Unknown, |number| self.registers[number])
    }

    /// Writes a register of full width.
    pub fn set(&mut self, register: usize, value: Value) {
        self.registers[register] = value;
        if register == RSP {
            self.drop_dead_stack();
        }
        match self.compared {
            Some(Compared::WithNumber { register: compared, .. }) if compared == register => self.compared = None,
            Some(Compared::StackPointerWith(compared)) if compared == register || register == RSP => {
                self.compared = None;
            }
            _ => {}
        }
    }

    /// What lies below rsp is nobody's any more.
    fn drop_dead_stack(&mut self) {
        let Value::Cfa(rsp) = self.registers[RSP] else { return };
        if self.saved_rbp.is_some_and(|saved| saved < rsp) {
            self.saved_rbp = None;
        }
        if rsp > ENTRY_RSP {
            self.has_return_address = false;
        }
    }

    /// The word at `offset` bytes from the CFA.
    pub fn load(&self, offset: i32) -> Value {
        if self.saved_rbp == Some(offset) {
            Value::CallersRbp
        } else if offset == ENTRY_RSP && self.has_return_address {
            Value::ReturnAddress
        } else {
            Value::Unknown
        }
    }

    /// Writes `bytes` bytes at `offset` from the CFA.
    pub fn store(&mut self, offset: i32, bytes: usize, value: Value) {
        let end = offset.saturating_add(i32::try_from(bytes).unwrap_or(i32::MAX));
        let overlaps = |word: i32| offset < word.saturating_add(8) && word < end;
        if overlaps(ENTRY_RSP) {
            self.has_return_address = offset == ENTRY_RSP && value == Value::ReturnAddress;
        }
        if value == Value::CallersRbp && bytes == 8 {
            self.saved_rbp = Some(offset);
        } else if self.saved_rbp.is_some_and(overlaps) {
            self.saved_rbp = None;
        }
    }

    /// Where on the stack a memory operand lies, in bytes from the CFA, if it is one word at a known place.
    pub fn stack_operand(&self, instruction: &Instruction) -> Option<i32> {
        let is_plain = instruction.memory_index() == Register::None && instruction.segment_prefix() == Register::None;
        match self.get(instruction.memory_base()) {
            Value::Cfa(base) if is_plain => {
                base.checked_add(i32::try_from(instruction.memory_displacement64() as i64).ok()?)
            }
            _ => None,
        }
    }

    /// What registers hold behind a call that came back (System V x86-64 ABI, figure 3.4).
    pub fn after_call(mut self) -> Self {
        for (number, value) in self.registers.iter_mut().enumerate() {
            if !matches!(number, 3 | RSP | RBP | 12..=15) {
                *value = Value::Unknown;
            }
        }
        self.compared = None;
        self
    }
}

/// How a frame's caller is found, as far as it is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame {
    pub is_outermost: bool,
    /// CFA - rsp, in bytes.
    pub cfa_from_rsp: Option<i32>,
    /// CFA - rbp, in bytes.
    pub cfa_from_rbp: Option<i32>,
    /// Where the caller's rbp lies, in bytes from the CFA.
    pub saved_rbp: Option<i32>,
    /// rbp is still the caller's.
    pub rbp_is_callers: bool,
}

impl Frame {
    /// The rule; [`RuleKind::None`] where not all of it is known.
    pub fn rule(&self) -> UnwindRule {
        if self.is_outermost {
            return UnwindRule::of(RuleKind::Root);
        }
        let cfa = match (self.cfa_from_rsp, self.cfa_from_rbp) {
            (Some(cfa_off), _) => Some((RuleKind::Rsp, cfa_off)),
            (None, Some(cfa_off)) => Some((RuleKind::Rbp, cfa_off)),
            (None, None) => None,
        };
        let rbp_off = match self.saved_rbp {
            Some(saved) => i16::try_from(saved).ok(),
            None => self.rbp_is_callers.then_some(0),
        };
        match (cfa, rbp_off) {
            (Some((kind, cfa_off)), Some(rbp_off)) => UnwindRule { kind, cfa_off, rbp_off },
            _ => UnwindRule::of(RuleKind::None),
        }
    }
}

/// The number of the general register that this one is, or is a part of.
pub fn number(register: Register) -> Option<usize> {
    let full = register.full_register();
    full.is_gpr64().then(|| full.number())
}
