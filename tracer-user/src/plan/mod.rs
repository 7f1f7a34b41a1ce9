//! ELF bytes → [`ProbePlan`]: where the probes of one module go. Pure: no BPF, no process.
//!
//! ```
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let elf = std::fs::read("/proc/self/exe")?;
//! let plan = tracer_user::plan::plan(&elf)?;
//! print!("{}", plan.render("self"));
//! # Ok(())
//! # }
//! ```

pub mod allocators;
mod crossings;
mod emulation;
#[cfg(test)]
pub(crate) mod fixture;
mod flow;
mod go;
mod links;
pub(crate) mod mini_debug;
mod prologue;
mod ranges;
mod render;
mod spec;
mod symbols;

use std::{cell::Cell, collections::HashSet, fmt, path::Path};

use iced_x86::Register;
use thiserror::Error;
use tracer_common::{
    addr::{FileOffset, FileVaddr},
    cookie::{Reg, Shape, SiteCookie},
};

pub use self::{
    allocators::function_name,
    go::is_go,
    prologue::{Arguments, NoSite},
    ranges::{MAPPING_FUNCTIONS, MappingFunction, MappingPlan, MappingSite, plan_ranges},
    spec::{AllocatorSpec, SpecError, SpecFunction},
};
use self::{
    allocators::{AllocatorFunction, Family},
    crossings::Skipped,
    flow::{Flow, Verdict},
    prologue::{Choice, choose, choose_entry},
    symbols::{Callee, CodeAt, Definition, Module},
};

/// What a plan is made from.
#[derive(Clone, Copy, Debug)]
pub struct Input<'a> {
    /// The module's bytes.
    pub elf: &'a [u8],
    /// What it is called: tells which of `specs` are for it.
    pub path: &'a Path,
    /// The bytes of its separate debug file, as far as one was looked for.
    pub debug: Option<&'a [u8]>,
    /// Allocators that the user described.
    pub specs: &'a [AllocatorSpec],
}

impl<'a> Input<'a> {
    /// A module alone.
    pub fn of(elf: &'a [u8]) -> Self {
        Self { elf, path: Path::new(""), debug: None, specs: &[] }
    }

    /// The user's functions that are of this module.
    fn specified(&self) -> impl Iterator<Item = &'a SpecFunction> {
        let path = self.path;
        self.specs.iter().flat_map(|spec| &spec.functions).filter(move |function| function.is_of(path))
    }
}

/// All probe sites of one module.
#[derive(Clone, Debug)]
pub struct ProbePlan {
    /// The known allocator that the module is, if it is one.
    pub family: Option<&'static Family>,
    /// In the order of the table of functions; no two at one file offset.
    pub sites: Vec<ProbeSite>,
    /// Functions that are not probed and why.
    pub problems: Vec<Problem>,
    /// Functions that end in one that is probed, in this module or another: that one sees the call.
    pub covered: Vec<&'static str>,
    /// Whether the file is stripped of local symbols, so that its debug file may name more allocator functions.
    pub is_stripped: bool,
}

/// One breakpoint. A return probe goes to the same file offset: rsp is at the return address there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbeSite {
    /// Index in the table of allocator functions.
    pub function: u8,
    /// How the function's arguments are read.
    pub shape: Shape,
    /// The function's name in the table, or the symbol that a user named.
    pub name: &'static str,
    /// The symbol, without version.
    pub symbol: &'static str,
    /// Further symbols whose calls this site sees: at the same address, or a mere jump to it.
    pub aliases: Vec<&'static str>,
    /// The function's entry (not the site).
    pub entry: FileVaddr,
    /// Where the breakpoint goes.
    pub file_offset: FileOffset,
    /// Bytes from the entry to the site.
    pub offset_from_entry: u64,
    /// The instruction at the site, as text.
    pub instruction: String,
    /// What a hit costs.
    pub execution: Execution,
    /// Registers that hold the arguments at the site.
    pub args: [Reg; 3],
    /// Bytes that rsp lies below the return address at the site; 0 where there is a return probe.
    pub rsp_moved_bytes: u16,
    /// Whether the result is needed too, and a return probe at the site brings it.
    pub return_probe: bool,
    /// Where return probes go instead: the ends of a function that may throw. Until there its return address stays as it
    /// is, so that an exception finds its way; a replaced one ends in std::terminate.
    pub exits: Vec<FileOffset>,
    /// The reason for this place.
    pub why: Why,
}

impl ProbeSite {
    /// What the kernel hands the BPF program with each hit.
    pub fn cookie(&self) -> SiteCookie {
        let cookie = SiteCookie::new(self.function, self.args, self.rsp_moved_bytes);
        if self.shape == Shape::PointerSizeInPlace { cookie.in_place() } else { cookie }
    }
}

/// How the kernel runs the instruction under a breakpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Execution {
    /// It does the instruction's work itself.
    Emulated,
    /// It runs a copy with a second trap behind: about ten times the cost.
    SingleStepped,
}

impl fmt::Display for Execution {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Emulated => "emulated",
            Self::SingleStepped => "single-stepped",
        })
    }
}

/// Why a site is where it is. Offsets are bytes from the function's entry.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Why {
    /// Nothing better is possible.
    #[error("the entry itself is emulated")]
    EntryEmulated,
    /// The usual case behind an entry that would be single-stepped.
    #[error("first emulated instruction, behind {n_passed}")]
    FirstEmulated {
        /// Instructions before it.
        n_passed: usize,
    },
    /// Asked for: [`plan_naive`].
    #[error("the entry, as asked")]
    Naive,
    /// No register holds an argument any more.
    #[error("the entry: `{arg}` is in no register behind +{at}")]
    ArgumentLost {
        /// The instruction that overwrites the last copy.
        at: u64,
        /// The argument.
        arg: &'static str,
    },
    /// A return probe there would not find the return address.
    #[error("the entry: rsp has left the return address by +{at}, the first emulated instruction")]
    StackMoved {
        /// The candidate.
        at: u64,
    },
    /// rsp changes by an amount that is not known, or too large.
    #[error("the entry: rsp is not known behind +{at}")]
    StackUnknown {
        /// The instruction that changes rsp.
        at: u64,
    },
    /// The first branch is none that the kernel emulates.
    #[error("the entry: the first branch, `{branch}` at +{at}, is not emulated")]
    BranchNotEmulated {
        /// The branch.
        at: u64,
        /// Its text.
        branch: String,
    },
    /// A jump would fire the probe without a call.
    #[error("the entry: {from:#x} leads behind it, up to the better site +{at}")]
    JumpedInto {
        /// The candidate.
        at: u64,
        /// The jump, or the function that begins there.
        from: FileVaddr,
    },
    /// The bytes are no instruction.
    #[error("the entry: no instruction at +{at}")]
    Undecodable {
        /// Where.
        at: u64,
    },
    /// The function ends, or goes on for too long, without one.
    #[error("the entry: no branch found")]
    NoBranchFound,
}

/// Why (a part of) a module is not probed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Problem {
    /// Stripped of everything.
    #[error("the file has no symbols: an allocator of its own, if it has one, is not seen")]
    NoSymbols,
    /// glibc's loader up to 2.34.
    #[error("{} of the dynamic loader serve its own start-up only", functions.join(", "))]
    Loader {
        /// The symbols.
        functions: Vec<&'static str>,
    },
    /// A function may have an allocator's name by chance.
    #[error("{} alone make no allocator", functions.join(", "))]
    NotAnAllocator {
        /// The symbols.
        functions: Vec<&'static str>,
    },
    /// Its runtime allocates in Go's code, which gets no probes.
    #[error("Go's own allocator: of this program only memory from C is traced")]
    GoHeap,
    /// The loader picks the function when it binds the symbol.
    #[error("{symbol} is chosen at run time (IFUNC, resolver at {resolver:#x})")]
    Indirect {
        /// The symbol.
        symbol: &'static str,
        /// The function that picks.
        resolver: FileVaddr,
    },
    /// Not the function that the rest of the program means by this name.
    #[error("{symbol} at {entry:#x} is local to a source file")]
    Local {
        /// The symbol.
        symbol: &'static str,
        /// Its address.
        entry: FileVaddr,
    },
    /// A variable, or a label of unknown kind.
    #[error("{symbol} is not a function")]
    NotAFunction {
        /// The symbol.
        symbol: &'static str,
    },
    /// Go's stacks move.
    #[error("{symbol} at {entry:#x} is, or may be, Go code, which no return probe may touch")]
    Go {
        /// The symbol.
        symbol: &'static str,
        /// Its address.
        entry: FileVaddr,
    },
    /// It may throw, and where it ends is not known.
    #[error(
        "{symbol} at {entry:#x} may throw a C++ exception, and what follows {at:#x} is not known, so that its return cannot be probed safely"
    )]
    MayThrow {
        /// The symbol.
        symbol: &'static str,
        /// Its address.
        entry: FileVaddr,
        /// Where it cannot be followed.
        at: FileVaddr,
    },
    /// A user's name.
    #[error("no symbol `{symbol}`{}", near_text(near))]
    NoSuchSymbol {
        /// The name.
        symbol: &'static str,
        /// Names like it.
        near: Vec<String>,
    },
    /// `.gnu_debugdata` is broken.
    #[error(".gnu_debugdata cannot be unpacked: {reason}")]
    MiniDebugInfo {
        /// What the decoder says.
        reason: String,
    },
    /// The address is in no executable segment, or the file ends before it.
    #[error("{symbol} at {entry:#x} is not in the file's code")]
    NotInCode {
        /// The symbol.
        symbol: &'static str,
        /// Its address.
        entry: FileVaddr,
    },
    /// One address cannot have its arguments read in two ways.
    #[error("{symbol} is at the address of {other}, whose arguments differ")]
    SharedAddress {
        /// The symbol that is left out.
        symbol: &'static str,
        /// The one that is probed.
        other: &'static str,
    },
    /// No probe can be set.
    #[error("{symbol} at {entry:#x}: {reason}")]
    NoSite {
        /// The symbol.
        symbol: &'static str,
        /// Its address.
        entry: FileVaddr,
        /// Why.
        reason: NoSite,
    },
}

fn near_text(near: &[String]) -> String {
    if near.is_empty() { String::new() } else { format!(" (there is {})", near.join(", ")) }
}

/// Why a file has no plan.
#[derive(Debug, Error)]
pub enum PlanError {
    /// No ELF magic.
    #[error("not an ELF file")]
    NotElf,
    /// A 32-bit program or library.
    #[error("a 32-bit ELF file (only 64-bit x86 is traced)")]
    Not64Bit,
    /// Another processor.
    #[error("an ELF file for machine {machine} (only 64-bit x86, 62, is traced)")]
    Machine {
        /// `e_machine`.
        machine: u16,
    },
    /// An object file or a core dump.
    #[error("an ELF file of type {kind}, neither program nor library")]
    NotLinked {
        /// `e_type`.
        kind: u16,
    },
    /// Headers that lead nowhere.
    #[error("broken ELF file: {0}")]
    Broken(#[from] object::Error),
}

/// Chooses the best site in every allocator function that the module defines.
pub fn plan(elf: &[u8]) -> Result<ProbePlan, PlanError> {
    plan_with(&Input::of(elf))
}

/// Likewise, with everything that is known of the module.
pub fn plan_with(input: &Input<'_>) -> Result<ProbePlan, PlanError> {
    let module = Module::read(input)?;
    let mut plan = Planner::new(&module);
    plan.drop_wrappers();
    plan.choose(choose);
    plan.avoid_crossings();
    plan.merge_forwarders();
    plan.find_exits();
    let mut plan = plan.finish();
    if is_go(input.elf) {
        plan.problems.push(Problem::GoHeap);
    }
    Ok(plan)
}

/// The placement without any choice, as a yardstick: the entry of every allocator function that is not a mere wrapper.
pub fn plan_naive(elf: &[u8]) -> Result<ProbePlan, PlanError> {
    let module = Module::read(&Input::of(elf))?;
    let mut plan = Planner::new(&module);
    plan.drop_wrappers();
    plan.choose(|code, entry, arguments| choose_entry(code, entry, arguments, Why::Naive));
    plan.find_exits();
    Ok(plan.finish())
}

/// A plan in the making.
struct Planner<'elf> {
    module: &'elf Module<'elf>,
    drafts: Vec<Draft<'elf>>,
    problems: Vec<Problem>,
    covered: Vec<&'static str>,
}

struct Draft<'elf> {
    definition: Definition,
    arguments: Arguments,
    throws: bool,
    exits: Vec<FileOffset>,
    aliases: Vec<&'static str>,
    code: CodeAt<'elf>,
    body: &'elf [u8],
    choice: Option<Choice>,
}

impl<'elf> Planner<'elf> {
    /// One draft for each file offset at which an allocator function begins.
    fn new(module: &'elf Module<'elf>) -> Self {
        let problems = module.problems.clone();
        let mut planner = Self { module, drafts: Vec::new(), problems, covered: Vec::new() };
        for definition in &module.definitions {
            planner.add(*definition);
        }
        planner
    }

    fn add(&mut self, definition: Definition) {
        let Definition { symbol, entry, .. } = definition;
        let row = self.module.row(&definition);
        let arguments = Arguments { shape: row.shape, regs: row.args };
        let Some(code) = self.module.code_at(entry) else {
            self.problems.push(Problem::NotInCode { symbol, entry });
            return;
        };
        let Some(draft) = self.drafts.iter_mut().find(|draft| draft.code.offset == code.offset) else {
            let body = self.module.body(&definition, code);
            // A user's function throws where anything in its module may; the table knows of its own.
            let is_users = row.symbols.is_empty();
            let throws = row.throws && (!is_users || self.module.may_throw);
            let (aliases, exits) = (Vec::new(), Vec::new());
            self.drafts.push(Draft { definition, arguments, throws, exits, aliases, code, body, choice: None });
            return;
        };
        if !draft.arguments.reads_as(arguments) {
            self.problems.push(Problem::SharedAddress { symbol, other: draft.definition.symbol });
        } else if draft.definition.symbol != symbol && !draft.aliases.contains(&symbol) {
            draft.aliases.push(symbol);
        }
    }

    fn choose(&mut self, choose: impl Fn(&[u8], FileVaddr, Arguments) -> Result<Choice, NoSite>) {
        let problems = &mut self.problems;
        self.drafts.retain_mut(|draft| {
            let Definition { symbol, entry, .. } = draft.definition;
            match choose(draft.body, entry, draft.arguments) {
                Ok(choice) => draft.choice = Some(choice),
                Err(reason) => problems.push(Problem::NoSite { symbol, entry, reason }),
            }
            draft.choice.is_some()
        });
    }

    /// Gives up sites that can be reached without a call.
    fn avoid_crossings(&mut self) {
        let skipped: Vec<_> = self
            .drafts
            .iter()
            .map(|draft| {
                let entry = draft.definition.entry;
                let at = draft.choice.as_ref().map_or(0, |choice| choice.offset_bytes);
                Skipped { entry, site: FileVaddr(entry.0.saturating_add(at)), body: draft.body }
            })
            .collect();
        let crossings = crossings::find(&skipped, &self.module.segments, &self.module.functions);
        let mut crossings = skipped.iter().zip(crossings).map(|(skipped, from)| (skipped.site, from));
        self.choose_again(|draft| {
            let (site, from) = crossings.next()?;
            Some(Why::JumpedInto { at: site.0.saturating_sub(draft.definition.entry.0), from: from? })
        });
    }

    /// Puts sites back to the entry of their function where `why` gives a reason.
    fn choose_again(&mut self, mut why: impl FnMut(&Draft<'_>) -> Option<Why>) {
        let problems = &mut self.problems;
        self.drafts.retain_mut(|draft| {
            let Some(why) = why(draft) else { return true };
            let Definition { symbol, entry, .. } = draft.definition;
            match choose_entry(draft.body, entry, draft.arguments, why) {
                Ok(choice) => draft.choice = Some(choice),
                Err(reason) => {
                    problems.push(Problem::NoSite { symbol, entry, reason });
                    return false;
                }
            }
            true
        });
    }

    /// Drops functions that only jump to another one of the plan: its site sees the call, and twice is wrong for `free`.
    fn merge_forwarders(&mut self) {
        let targets: Vec<_> = self.drafts.iter().map(|draft| self.forwards_to(draft)).collect();
        let merge_into: Vec<_> = targets
            .iter()
            .map(|target| {
                let mut last = (*target)?;
                // Of those that jump to each other all stay.
                for _ in 0..targets.len() {
                    let Some(next) = targets[last] else { return Some(last) };
                    last = next;
                }
                None
            })
            .collect();
        for (n, into) in merge_into.iter().enumerate() {
            if let Some(into) = *into {
                let mut names = std::mem::take(&mut self.drafts[n].aliases);
                names.insert(0, self.drafts[n].definition.symbol);
                self.drafts[into].aliases.append(&mut names);
            }
        }
        let mut merge_into = merge_into.into_iter();
        self.drafts.retain(|_| merge_into.next().flatten().is_none());
    }

    /// The draft that a draft only forwards to.
    fn forwards_to(&self, draft: &Draft<'_>) -> Option<usize> {
        let forward = draft.choice.as_ref()?.forwards?;
        let to = match self.module.through_plt(forward.to) {
            Some(Callee::Here(to)) => to,
            Some(Callee::Elsewhere(_) | Callee::Raise) => return None,
            None => forward.to,
        };
        self.drafts
            .iter()
            .position(|other| other.definition.entry == to && forward.hands_over(draft.arguments, other.arguments))
    }

    /// Drops wrappers of functions that are traced. Of two nested calls only the outer one would count, but both cost.
    fn drop_wrappers(&mut self) {
        let (module, drafts) = (self.module, &self.drafts);
        let is_covered = |draft: &Draft<'_>| {
            let row = module.row(&draft.definition);
            row.is_wrapper && ends_in_traced(module, drafts, draft.definition.entry, row, WRAPPER_DEPTH)
        };
        let is_covered: Vec<bool> = drafts.iter().map(is_covered).collect();
        let mut is_covered = is_covered.into_iter();
        let covered = &mut self.covered;
        self.drafts.retain(|draft| {
            let is_covered = is_covered.next().unwrap_or(false);
            if is_covered {
                covered.push(draft.definition.symbol);
                covered.extend(&draft.aliases);
            }
            !is_covered
        });
    }

    /// Finds where functions that may throw end.
    fn find_exits(&mut self) {
        if !self.drafts.iter().any(|draft| draft.throws) {
            return;
        }
        // What the others' calls run through: a probe at an exit there would see returns that are none of ours.
        let module = self.module;
        let others: HashSet<u64> = self
            .drafts
            .iter()
            .filter(|draft| draft.arguments.shape.returns() && !draft.throws)
            .flat_map(|draft| flow::follow(module, draft.definition.entry, None, &|_| Verdict::GoOn).visited)
            .collect();
        let problems = &mut self.problems;
        self.drafts.retain_mut(|draft| {
            if !draft.throws {
                return true;
            }
            let Definition { symbol, entry, .. } = draft.definition;
            let judge = |callee| match callee {
                // Where it may throw it is followed all the same: returns that are none of ours are only counted.
                Callee::Here(to) if others.contains(&to.0) && !raises(module, to, RAISE_DEPTH) => Verdict::End,
                _ => Verdict::GoOn,
            };
            let Flow { exits, lost_at, .. } = flow::follow(module, entry, None, &judge);
            let offsets: Vec<_> = exits.iter().filter_map(|at| Some(module.code_at(*at)?.offset)).collect();
            if let Some(at) = lost_at {
                problems.push(Problem::MayThrow { symbol, entry, at });
            }
            draft.exits = offsets;
            lost_at.is_none()
        });
        // Functions may share their ends.
        let mut seen = HashSet::new();
        for draft in &mut self.drafts {
            draft.exits.retain(|exit| seen.insert(*exit));
        }
    }

    fn finish(self) -> ProbePlan {
        let module = self.module;
        let sites = self.drafts.into_iter().filter_map(|draft| draft.into_site(module)).collect();
        let (family, is_stripped) = (module.family, module.is_stripped);
        ProbePlan { family, sites, problems: self.problems, covered: self.covered, is_stripped }
    }
}

/// How many calls deep a wrapper's way to a traced function is looked for: Rust's go through an object of the program's own.
const WRAPPER_DEPTH: usize = 3;

/// How many calls deep an exception is looked for: tcmalloc raises it in a function of its own.
const RAISE_DEPTH: usize = 2;

/// Whether a function, or one that it calls, raises a C++ exception.
fn raises(module: &Module<'_>, entry: FileVaddr, depth: usize) -> bool {
    let found = Cell::new(false);
    let judge = |callee| {
        let is_raised = match callee {
            Callee::Raise => true,
            Callee::Elsewhere(_) => false,
            Callee::Here(to) => depth > 1 && to != entry && raises(module, to, depth - 1),
        };
        found.set(found.get() || is_raised);
        Verdict::GoOn
    };
    flow::follow(module, entry, None, &judge);
    found.get()
}

/// Whether a function ends in a traced one of the wrapper's kind, whatever way it takes. (`operator new` of jemalloc does not: it
/// calls malloc only when memory is short.)
fn ends_in_traced(
    module: &Module<'_>,
    drafts: &[Draft<'_>],
    entry: FileVaddr,
    wrapper: &AllocatorFunction,
    depth: usize,
) -> bool {
    let is_of_kind = |row: &AllocatorFunction| row.shape.returns() == wrapper.shape.returns();
    let n_met = Cell::new(0);
    let judge = |callee| {
        let is_traced = match callee {
            Callee::Raise => false,
            Callee::Elsewhere(row) => row.is_some_and(|row| is_of_kind(&module.rows[usize::from(row)])),
            Callee::Here(to) => {
                let traced = |draft: &Draft<'_>| {
                    let row = module.row(&draft.definition);
                    draft.definition.entry == to && !row.is_wrapper && is_of_kind(row)
                };
                drafts.iter().any(traced)
                    || depth > 1 && to != entry && ends_in_traced(module, drafts, to, wrapper, depth - 1)
            }
        };
        if is_traced {
            n_met.set(n_met.get() + 1);
            Verdict::Drop
        } else {
            Verdict::GoOn
        }
    };
    let argument = (!wrapper.shape.returns()).then_some(Register::RDI);
    let flow = flow::follow(module, entry, argument, &judge);
    n_met.get() > 0 && flow.exits.is_empty() && flow.lost_at.is_none()
}

impl Draft<'_> {
    fn into_site(self, module: &Module<'_>) -> Option<ProbeSite> {
        let choice = self.choice?;
        Some(ProbeSite {
            function: self.definition.function,
            shape: self.arguments.shape,
            name: module.row(&self.definition).name,
            symbol: self.definition.symbol,
            aliases: self.aliases,
            entry: self.definition.entry,
            // The site is within `body`, so within the segment.
            file_offset: FileOffset(self.code.offset.0 + choice.offset_bytes),
            offset_from_entry: choice.offset_bytes,
            instruction: choice.instruction,
            execution: choice.execution,
            args: choice.args,
            rsp_moved_bytes: choice.rsp_moved_bytes,
            return_probe: self.arguments.shape.returns() && !self.throws,
            exits: self.exits,
            why: choice.why,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{
        fixture::{Elf, symbol},
        *,
    };

    fn plan_of(elf: &Elf) -> ProbePlan {
        plan(&elf.bytes()).expect("an ELF file")
    }

    #[test]
    fn symbols_at_one_address_are_one_site() {
        let mut elf = Elf::allocator();
        elf.dynamic_symbols.push(symbol("__libc_malloc", 0x1000));
        let plan = plan_of(&elf);
        let sites: Vec<_> = plan.sites.iter().map(|site| (site.symbol, site.aliases.clone())).collect();
        assert_eq!(sites, [("malloc", vec!["__libc_malloc"]), ("free", vec![])]);
    }

    #[test]
    fn one_address_is_not_read_in_two_ways() {
        let mut elf = Elf::allocator();
        elf.symbols.push(symbol("realloc", 0x1000));
        let plan = plan_of(&elf);
        assert_eq!(plan.sites.len(), 2);
        assert_eq!(plan.problems, [Problem::SharedAddress { symbol: "realloc", other: "malloc" }]);
    }

    #[test]
    fn address_outside_the_code_is_reported() {
        let mut elf = Elf::allocator();
        elf.symbols.push(symbol("realloc", 0x9000));
        assert_eq!(plan_of(&elf).problems, [Problem::NotInCode { symbol: "realloc", entry: FileVaddr(0x9000) }]);
    }

    #[test]
    fn mere_jump_to_a_probed_function_is_not_probed() {
        // 1020: e9 eb ff ff ff  jmp 0x1010  (free)
        let mut elf = Elf::allocator();
        elf.code[0x20..0x25].copy_from_slice(&[0xe9, 0xeb, 0xff, 0xff, 0xff]);
        elf.symbols.push(symbol("cfree", 0x1020));
        let plan = plan_of(&elf);
        assert_eq!(plan.sites.len(), 2);
        assert_eq!((plan.sites[1].symbol, &plan.sites[1].aliases), ("free", &vec!["cfree"]));
        assert_eq!(plan_naive(&elf.bytes()).expect("an ELF file").sites.len(), 3);
    }

    #[test]
    fn functions_that_jump_to_each_other_are_both_probed() {
        // 1010: eb 0e           jmp 0x1020
        // 1020: eb ee           jmp 0x1010
        let mut elf = Elf::allocator();
        elf.code[0x10..0x12].copy_from_slice(&[0xeb, 0x0e]);
        elf.code[0x20..0x22].copy_from_slice(&[0xeb, 0xee]);
        elf.symbols.push(symbol("cfree", 0x1020));
        assert_eq!(plan_of(&elf).sites.len(), 3);
    }

    #[test]
    fn site_that_is_jumped_to_is_given_up() {
        // 1010: 48 85 ff  test rdi,rdi
        // 1013: 74 02     je   0x1017
        // 1015: eb fc     jmp  0x1013
        let mut elf = Elf::allocator();
        elf.code[0x10..0x17].copy_from_slice(&[0x48, 0x85, 0xff, 0x74, 0x02, 0xeb, 0xfc]);
        let free = &plan_of(&elf).sites[1];
        assert_eq!((free.offset_from_entry, free.execution), (0, Execution::SingleStepped));
        assert_eq!(free.why, Why::JumpedInto { at: 3, from: FileVaddr(0x1015) });
    }

    #[test]
    fn cookie_says_what_the_site_says() {
        // 1000: 48 89 fe  mov rsi,rdi
        // 1003: 31 ff     xor edi,edi
        // 1005: 55        push rbp
        let mut elf = Elf::allocator();
        elf.code[..6].copy_from_slice(&[0x48, 0x89, 0xfe, 0x31, 0xff, 0x55]);
        let plan = plan_of(&elf);
        let malloc = plan.sites[0].cookie();
        assert_eq!((malloc.function(), malloc.arg_register(0), malloc.is_standard()), (0, 6, false));
        let free = plan.sites[1].cookie();
        assert_eq!((free.function(), free.arg_register(0), free.is_standard()), (4, 7, true));
    }

    /// What must hold of any plan, whatever the file.
    fn check(bytes: &[u8]) {
        for plan in [plan(bytes), plan_naive(bytes)].into_iter().flatten() {
            let mut offsets: Vec<_> = plan.sites.iter().map(|site| site.file_offset).collect();
            offsets.sort();
            offsets.dedup();
            assert_eq!(offsets.len(), plan.sites.len(), "two sites at one offset");
            for site in &plan.sites {
                assert!(site.file_offset.0 < bytes.len() as u64, "{site:?}");
                assert!(!site.return_probe || site.rsp_moved_bytes == 0, "{site:?}");
                assert!(function_name(site.function).is_some(), "{site:?}");
            }
            assert!(plan.render("file").lines().count() == 1 + plan.sites.len() + plan.problems.len());
        }
    }

    proptest! {
        #[test]
        fn broken_file_never_panics(
            changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..24),
            cut in prop::option::weighted(0.2, any::<prop::sample::Index>()),
        ) {
            let mut bytes = Elf::allocator().bytes();
            for (at, byte) in changes {
                *at.get_mut(&mut bytes) = byte;
            }
            if let Some(cut) = cut {
                bytes.truncate(cut.index(bytes.len()));
            }
            check(&bytes);
        }

        #[test]
        fn any_code_has_a_sound_plan(code in prop::collection::vec(any::<u8>(), 0x40..0x200)) {
            check(&Elf { code, ..Elf::allocator() }.bytes());
        }

        #[test]
        fn any_prologue_has_a_sound_plan(code in prop::collection::vec(prologue_instruction(), 1..20)) {
            let mut elf = Elf::allocator();
            elf.code.splice(0x10.., code.concat());
            check(&elf.bytes());
        }
    }

    /// Instructions as they stand at the beginning of functions.
    fn prologue_instruction() -> impl Strategy<Value = Vec<u8>> {
        let fixed: [&[u8]; 14] = [
            &[0xf3, 0x0f, 0x1e, 0xfa],
            &[0x55],
            &[0x41, 0x54],
            &[0x48, 0x83, 0xec, 0x18],
            &[0x48, 0x81, 0xec, 0x00, 0x00, 0x00, 0x80],
            &[0x48, 0x89, 0xfe],
            &[0x48, 0x8d, 0x3e],
            &[0x31, 0xff],
            &[0x48, 0x85, 0xff],
            &[0x74, 0x02],
            &[0xeb, 0xfc],
            &[0xe8, 0xf0, 0xff, 0xff, 0xff],
            &[0x58],
            &[0x66, 0x90],
        ];
        prop::sample::select(fixed.map(<[u8]>::to_vec).to_vec())
    }
}
