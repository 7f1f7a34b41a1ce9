//! Follows functions along their control flow and notes the rule before each instruction.
//!
//! A call is followed on only once its callee is known to come back, so that what stands behind a call of `abort` is not taken
//! for its continuation. Functions whose returns do not find rsp at the return address were misunderstood: none of their rules
//! count.

use std::collections::{BTreeMap, HashMap};

use iced_x86::{FlowControl, Instruction, InstructionInfoFactory, Mnemonic};

use super::{
    code::Code,
    execute::{destination, execute, narrow},
    state::{Arrival, ENTRY_RSP, Frame, RAX, RBP, RSP, State, Value},
};

/// Places that are jumped to or returned to; about 300 bytes each.
const MAX_HEADS: usize = 1 << 18;

/// Instructions looked at for one function, repetitions included.
const MAX_STEPS_PER_FUNCTION: u32 = 1 << 18;

/// Numbers of system calls (arch/x86/entry/syscalls/syscall_64.tbl, Linux 6.18).
const SYS_RT_SIGRETURN: u64 = 15;
const SYS_CLONE: u64 = 56;
const SYS_EXIT: u64 = 60;
const SYS_EXIT_GROUP: u64 = 231;
const SYS_CLONE3: u64 = 435;

/// What is known of a module's bare code.
#[derive(Debug, Default)]
pub struct Found {
    /// By vaddr.
    pub instructions: BTreeMap<u64, Step>,
    /// By entry.
    functions: HashMap<u64, Function>,
    /// Addresses in code that the code takes: perhaps functions that are called by pointer.
    pub taken: Vec<u64>,
}

/// An instruction.
#[derive(Clone, Copy, Debug)]
pub struct Step {
    /// The entry of the function that it was first reached from.
    function: u64,
    /// Where the straight way began on which it was reached.
    head: u64,
    /// Its length in bytes.
    pub length: u8,
    /// The frame before it.
    pub frame: Frame,
}

#[derive(Clone, Copy, Debug, Default)]
struct Function {
    comes_back: bool,
    /// A return, or a jump to another function, finds rsp where it must be.
    is_balanced: bool,
    understood: Understood,
    steps: u32,
}

/// How far a function was followed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
enum Understood {
    #[default]
    Wholly,
    /// Some ways of it could not be followed.
    InPart,
    /// Something in it cannot be: what was found is wrong.
    Not,
}

impl Found {
    /// The function's rules count.
    pub fn counts(&self, step: &Step) -> bool {
        self.functions.get(&step.function).is_some_and(|function| function.understood != Understood::Not)
    }

    /// Takes in what was found later.
    fn add(&mut self, other: Self) {
        self.instructions.extend(other.instructions);
        self.functions.extend(other.functions);
        self.taken.extend(other.taken);
    }
}

/// How control arrives somewhere.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Jump,
    Straight,
    /// From a call, with nothing but padding between.
    AfterCall,
}

#[derive(Clone, Copy)]
struct Head {
    state: State,
    function: u64,
    way: Way,
}

/// Waits for a function to come back.
enum Waiting {
    Continuation {
        at: u64,
        state: Box<State>,
        function: u64,
    },
    /// A function that ends in a jump to it.
    Function(u64),
}

/// The following of some functions.
pub struct Follower<'a> {
    code: &'a Code<'a>,
    /// From before; not changed.
    known: &'a Found,
    found: Found,
    heads: HashMap<u64, Head>,
    pending: Vec<u64>,
    waiting: HashMap<u64, Vec<Waiting>>,
    /// What no longer waits. A list, as a chain of functions may be as long as a file likes.
    woken: Vec<Waiting>,
    infos: InstructionInfoFactory,
    /// Something does not fit what was known.
    contradicts: bool,
    steps_left: u32,
}

impl<'a> Follower<'a> {
    /// `steps` bounds the work.
    pub fn new(code: &'a Code<'a>, known: &'a Found, steps: u32) -> Self {
        Self {
            code,
            known,
            found: Found::default(),
            heads: HashMap::new(),
            pending: Vec::new(),
            waiting: HashMap::new(),
            woken: Vec::new(),
            infos: InstructionInfoFactory::new(),
            contradicts: false,
            steps_left: steps,
        }
    }

    /// Follows functions of which it is known that they begin there.
    pub fn functions(mut self, entries: impl Iterator<Item = u64>, start: Option<u64>) -> (Found, u32) {
        if let Some(start) = start.filter(|start| self.code.is_bare(*start)) {
            self.begin(start, &State::outermost());
            self.run();
        }
        for entry in entries {
            self.function(entry);
            self.run();
        }
        (self.found, self.steps_left)
    }

    /// Follows what may be a function; `None` where it does not look like one.
    pub fn candidate(mut self, entry: u64) -> (Option<Found>, u32) {
        self.function(entry);
        self.run();
        let function = self.found.functions.get(&entry).copied().unwrap_or_default();
        let is_function =
            function.is_balanced || (function.understood == Understood::Wholly && self.begins_as_a_function(entry));
        let is_sound =
            !self.contradicts && self.found.functions.values().all(|function| function.understood != Understood::Not);
        ((is_function && is_sound).then_some(self.found), self.steps_left)
    }

    fn begins_as_a_function(&self, entry: u64) -> bool {
        self.code.instructions(entry).next().is_some_and(|first| {
            matches!(first.mnemonic(), Mnemonic::Endbr64 | Mnemonic::Push)
                || (first.mnemonic() == Mnemonic::Sub && first.op0_register() == iced_x86::Register::RSP)
        })
    }

    fn run(&mut self) {
        loop {
            if let Some(head) = self.pending.pop() {
                self.follow(head);
            } else if let Some(waiting) = self.woken.pop() {
                match waiting {
                    Waiting::Continuation { at, state, function } => self.arrive(at, &state, function, Way::AfterCall),
                    Waiting::Function(function) => self.come_back(function),
                }
            } else {
                return;
            }
        }
    }

    /// A function begins there, unless that is known.
    fn function(&mut self, entry: u64) {
        if self.code.is_bare(entry)
            && !self.found.functions.contains_key(&entry)
            && !self.known.functions.contains_key(&entry)
        {
            self.begin(entry, &State::called());
        }
    }

    fn begin(&mut self, entry: u64, state: &State) {
        self.found.functions.insert(entry, Function::default());
        self.land(entry, state, entry, Way::Jump);
    }

    fn function_mut(&mut self, entry: u64) -> &mut Function {
        self.found.functions.entry(entry).or_default()
    }

    /// Control goes from a function to an address.
    fn arrive(&mut self, at: u64, state: &State, function: u64, way: Way) {
        if !self.code.contains(at) {
            return self.lose(function);
        }
        let is_entry = self.found.functions.contains_key(&at)
            || self.known.functions.contains_key(&at)
            || self.code.entries.is_function(at);
        if is_entry && at != function {
            if state.is_as_called() {
                self.function(at);
                self.function_mut(function).is_balanced = true;
                self.wait(at, Waiting::Function(function));
            } else if way != Way::AfterCall && state.arrival != Arrival::Outermost {
                self.misunderstand(function);
            }
            return;
        }
        if self.code.is_covered(at) {
            // A part of a function that has rows, or all of one.
            return self.come_back(function);
        }
        if let Some(step) = self.known.instructions.get(&at) {
            self.contradicts |= step.frame.rule() != state.frame().rule();
            return self.come_back(function);
        }
        self.land(at, state, function, way);
    }

    /// Control comes to an address that is followed from here.
    fn land(&mut self, at: u64, state: &State, function: u64, way: Way) {
        if let Some(head) = self.heads.get_mut(&at) {
            let owner = head.function;
            if head.state.join(state) {
                self.pending.push(at);
            }
            if owner != function {
                self.wait(owner, Waiting::Function(function));
            }
            return;
        }
        if self.heads.len() >= MAX_HEADS {
            return self.misunderstand(function);
        }
        let mut owner = function;
        if let Some(step) = self.found.instructions.get(&at).copied() {
            // In the midst of a straight way: that one now ends here.
            self.pending.push(step.head);
            owner = step.function;
        }
        self.heads.insert(at, Head { state: *state, function: owner, way });
        self.pending.push(at);
        if owner != function {
            self.wait(owner, Waiting::Function(function));
        }
    }

    /// One straight way.
    fn follow(&mut self, start: u64) {
        let Some(&Head { mut state, function, mut way }) = self.heads.get(&start) else { return };
        let code = self.code;
        for instruction in code.instructions(start) {
            let at = instruction.ip();
            if self.function_mut(function).understood == Understood::Not {
                return;
            }
            if at != start && (self.heads.contains_key(&at) || self.is_foreign(at, function)) {
                return self.arrive(at, &state, function, way);
            }
            let steps = &mut self.function_mut(function).steps;
            *steps += 1;
            if *steps > MAX_STEPS_PER_FUNCTION || self.steps_left == 0 {
                return self.misunderstand(function);
            }
            self.steps_left -= 1;
            if instruction.is_invalid() {
                self.contradicts = true;
                return self.lose(function);
            }
            let step = Step { function, head: start, length: instruction.len() as u8, frame: state.frame() };
            self.found.instructions.insert(at, step);
            self.take_address(&instruction);
            if way == Way::AfterCall && instruction.mnemonic() != Mnemonic::Nop {
                way = Way::Straight;
            }
            match self.advance(&instruction, &state, function) {
                Some(next) => state = next,
                None => return,
            }
        }
        self.lose(function);
    }

    /// Whether a straight way must not simply go on there.
    fn is_foreign(&self, at: u64, function: u64) -> bool {
        at != function && (self.code.entries.is_function(at) || self.found.functions.contains_key(&at))
            || self.code.is_covered(at)
            || self.known.instructions.contains_key(&at)
    }

    /// Addresses that the code computes may be functions that it hands on.
    fn take_address(&mut self, instruction: &Instruction) {
        if instruction.mnemonic() == Mnemonic::Lea && instruction.is_ip_rel_memory_operand() {
            let vaddr = instruction.ip_rel_memory_address();
            if self.code.is_bare(vaddr) {
                self.found.taken.push(vaddr);
            }
        }
    }

    /// The state behind an instruction that control passes through; `None` where the straight way ends.
    fn advance(&mut self, instruction: &Instruction, state: &State, function: u64) -> Option<State> {
        match (instruction.mnemonic(), instruction.flow_control()) {
            (Mnemonic::Syscall, _) => return system_call(state),
            (Mnemonic::Hlt, _) => return None,
            (_, FlowControl::Next) => {
                return Some(popped_as_child(state, execute(state, instruction, &mut self.infos)));
            }
            (_, FlowControl::Return) => self.leave(instruction, state, function),
            (_, FlowControl::UnconditionalBranch) => {
                self.arrive(instruction.near_branch_target(), state, function, Way::Jump);
            }
            (_, FlowControl::ConditionalBranch) => {
                for (to, taken) in [(instruction.near_branch_target(), true), (instruction.next_ip(), false)] {
                    let mut after = *state;
                    narrow(&mut after, instruction, taken);
                    if matches!(instruction.mnemonic(), Mnemonic::Loop | Mnemonic::Loope | Mnemonic::Loopne) {
                        after.set(1, Value::Unknown);
                    }
                    self.arrive(to, &after, function, if taken { Way::Jump } else { Way::Straight });
                }
            }
            (_, FlowControl::Call) => self.call(instruction, Some(instruction.near_branch_target()), state, function),
            (_, FlowControl::IndirectCall) => {
                let target = match destination(state, instruction) {
                    Value::Number(target) if self.code.contains(target) => Some(target),
                    _ => None,
                };
                if !self.code.entries.is_noreturn_slot(instruction) {
                    self.call(instruction, target, state, function);
                }
            }
            (_, FlowControl::IndirectBranch) => self.indirect_jump(instruction, state, function),
            // Traps: nothing follows.
            (_, FlowControl::Exception | FlowControl::Interrupt | FlowControl::XbeginXabortXend) => {
                if instruction.flow_control() == FlowControl::XbeginXabortXend {
                    self.lose(function);
                }
            }
        }
        None
    }

    fn leave(&mut self, instruction: &Instruction, state: &State, function: u64) {
        if state.arrival == Arrival::Outermost {
            return;
        }
        let takes_more = instruction.op_count() > 0;
        match (state.registers[RSP], state.registers[RBP]) {
            (Value::Cfa(ENTRY_RSP), Value::CallersRbp | Value::Unknown) if state.has_return_address && !takes_more => {
                self.function_mut(function).is_balanced = true;
                self.come_back(function);
            }
            (Value::Unknown, _) if !takes_more => self.lose(function),
            _ => self.misunderstand(function),
        }
    }

    fn call(&mut self, instruction: &Instruction, target: Option<u64>, state: &State, function: u64) {
        let next = instruction.next_ip();
        let after = state.after_call();
        let Some(target) = target.filter(|target| self.code.contains(*target)) else {
            return self.arrive(next, &after, function, Way::AfterCall);
        };
        if target == next {
            // Takes its own address off the stack.
            return self.misunderstand(function);
        }
        if self.code.entries.is_noreturn(target) || self.is_noreturn_stub(target) {
            return;
        }
        if self.code.is_covered(target) {
            return self.arrive(next, &after, function, Way::AfterCall);
        }
        let mut callee = target;
        match (self.found.instructions.get(&target), self.known.instructions.get(&target)) {
            // In the midst of what was taken for another function: a jump led there.
            (Some(step), _) if step.function != target => {
                callee = step.function;
                self.land(target, &State::called(), callee, Way::Jump);
            }
            (_, Some(step)) => {
                self.contradicts |= step.frame.rule() != State::called().frame().rule();
                callee = step.function;
            }
            _ => self.function(target),
        }
        self.wait(callee, Waiting::Continuation { at: next, state: Box::new(after), function });
    }

    /// Whether a linkage stub leads to a function that does not come back.
    fn is_noreturn_stub(&self, target: u64) -> bool {
        let entries = self.code.entries;
        let is_jump = |instruction: &Instruction| instruction.flow_control() == FlowControl::IndirectBranch;
        entries.is_linkage(target)
            && self.code.instructions(target).take(2).find(is_jump).is_some_and(|jump| entries.is_noreturn_slot(&jump))
    }

    fn indirect_jump(&mut self, instruction: &Instruction, state: &State, function: u64) {
        match destination(state, instruction) {
            Value::Number(target) if self.code.contains(target) => {
                return self.arrive(target, state, function, Way::Jump);
            }
            Value::Case { table, last, entry_bytes } => {
                if let Some(cases) = self.code.cases(table, last, entry_bytes) {
                    for case in cases {
                        self.arrive(case, state, function, Way::Jump);
                    }
                    return;
                }
            }
            _ => {}
        }
        if self.code.entries.is_linkage(instruction.ip()) && state.is_as_called() {
            // Until the symbol is bound, a stub's slot leads back here.
            self.arrive(instruction.next_ip(), state, function, Way::Straight);
        }
        if self.code.entries.is_noreturn_slot(instruction) {
            return;
        }
        if state.is_as_called() {
            self.function_mut(function).is_balanced = true;
            self.come_back(function);
        } else {
            self.lose(function);
        }
    }

    fn wait(&mut self, on: u64, waiting: Waiting) {
        let comes_back = |found: &Found| found.functions.get(&on).map(|function| function.comes_back);
        // What is known already does not wait for anything; what is in no function comes back, as far as is known.
        match comes_back(&self.found).or_else(|| comes_back(self.known)) {
            Some(false) => self.waiting.entry(on).or_default().push(waiting),
            Some(true) | None => self.woken.push(waiting),
        }
    }

    /// A function comes back to its caller, as far as is known.
    fn come_back(&mut self, function: u64) {
        self.function_mut(function).comes_back = true;
        self.woken.extend(self.waiting.remove(&function).unwrap_or_default());
    }

    /// A part of a function cannot be followed: perhaps it comes back there.
    fn lose(&mut self, function: u64) {
        self.understand(function, Understood::InPart);
    }

    /// A function is not as we see it.
    fn misunderstand(&mut self, function: u64) {
        self.understand(function, Understood::Not);
    }

    fn understand(&mut self, function: u64, understood: Understood) {
        let known = &mut self.function_mut(function).understood;
        *known = understood.max(*known);
        self.come_back(function);
    }
}

/// Follows candidates that are still unknown, one after the other.
pub fn follow_candidates(code: &Code<'_>, found: &mut Found, candidates: &[u64], steps: &mut u32) {
    for &candidate in candidates {
        if found.instructions.contains_key(&candidate) || !code.is_bare(candidate) {
            continue;
        }
        let (new, left) = Follower::new(code, found, *steps).candidate(candidate);
        *steps = left;
        if let Some(new) = new {
            found.add(new);
        }
    }
}

/// Behind `clone`, only the child takes more off the stack than its parent has put there: it has a stack of its own, and
/// nothing called it.
fn popped_as_child(before: &State, mut after: State) -> State {
    if before.arrival == Arrival::Cloned && matches!(after.registers[RSP], Value::Cfa(rsp) if rsp > ENTRY_RSP) {
        after.arrival = Arrival::Outermost;
    }
    after
}

/// The state behind a system call; `None` where it does not come back.
fn system_call(state: &State) -> Option<State> {
    let mut after = *state;
    let number = state.registers[RAX];
    // rax, rcx and r11 (Linux, arch/x86/entry/entry_64.S).
    for register in [0, 1, 11] {
        after.set(register, Value::Unknown);
    }
    match number {
        Value::Number(SYS_EXIT | SYS_EXIT_GROUP | SYS_RT_SIGRETURN) => return None,
        Value::Number(SYS_CLONE | SYS_CLONE3) if state.arrival == Arrival::Called => after.arrival = Arrival::Cloned,
        _ => {}
    }
    Some(after)
}
