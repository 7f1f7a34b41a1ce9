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
mod fixture;
mod prologue;
mod render;
mod symbols;

use std::fmt;

use thiserror::Error;
use tracer_common::{
    addr::{FileOffset, FileVaddr},
    cookie::{Reg, Shape, SiteCookie},
};

pub use self::{allocators::function_name, prologue::NoSite};
use self::{
    allocators::{FUNCTIONS, Family},
    crossings::Skipped,
    prologue::{Choice, choose, choose_entry},
    symbols::{CodeAt, Definition, Module},
};

/// All probe sites of one module.
#[derive(Clone, Debug)]
pub struct ProbePlan {
    /// The known allocator that the module is, if it is one.
    pub family: Option<&'static Family>,
    /// In the order of the table of functions; no two at one file offset.
    pub sites: Vec<ProbeSite>,
    /// Functions that are not probed and why.
    pub problems: Vec<Problem>,
}

/// One breakpoint. A return probe goes to the same file offset: rsp is at the return address there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbeSite {
    /// Index in the table of allocator functions.
    pub function: u8,
    /// How the function's arguments are read.
    pub shape: Shape,
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
    /// Whether the result is needed too.
    pub return_probe: bool,
    /// The reason for this place.
    pub why: Why,
}

impl ProbeSite {
    /// What the kernel hands the BPF program with each hit.
    pub fn cookie(&self) -> SiteCookie {
        SiteCookie::new(self.function, self.args, self.rsp_moved_bytes)
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
    #[error("the file has no symbols")]
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
    let module = Module::read(elf)?;
    let mut plan = Planner::new(&module);
    plan.choose(choose);
    plan.avoid_crossings();
    plan.merge_forwarders();
    Ok(plan.finish())
}

/// The placement without any choice, as a yardstick: the entry of every allocator function.
pub fn plan_naive(elf: &[u8]) -> Result<ProbePlan, PlanError> {
    let module = Module::read(elf)?;
    let mut plan = Planner::new(&module);
    plan.choose(|code, entry, _| choose_entry(code, entry, Why::Naive));
    Ok(plan.finish())
}

/// A plan in the making.
struct Planner<'elf> {
    module: &'elf Module<'elf>,
    drafts: Vec<Draft<'elf>>,
    problems: Vec<Problem>,
}

struct Draft<'elf> {
    definition: Definition,
    shape: Shape,
    aliases: Vec<&'static str>,
    code: CodeAt<'elf>,
    body: &'elf [u8],
    choice: Option<Choice>,
}

impl<'elf> Planner<'elf> {
    /// One draft for each file offset at which an allocator function begins.
    fn new(module: &'elf Module<'elf>) -> Self {
        let mut planner = Self { module, drafts: Vec::new(), problems: module.problems.clone() };
        for definition in &module.definitions {
            planner.add(*definition);
        }
        planner
    }

    fn add(&mut self, definition: Definition) {
        let Definition { symbol, entry, .. } = definition;
        let shape = FUNCTIONS[usize::from(definition.function)].shape;
        let Some(code) = self.module.code_at(entry) else {
            self.problems.push(Problem::NotInCode { symbol, entry });
            return;
        };
        let Some(draft) = self.drafts.iter_mut().find(|draft| draft.code.offset == code.offset) else {
            let body = self.module.body(&definition, code);
            self.drafts.push(Draft { definition, shape, aliases: Vec::new(), code, body, choice: None });
            return;
        };
        if draft.shape != shape {
            self.problems.push(Problem::SharedAddress { symbol, other: draft.definition.symbol });
        } else if draft.definition.symbol != symbol && !draft.aliases.contains(&symbol) {
            draft.aliases.push(symbol);
        }
    }

    fn choose(&mut self, choose: impl Fn(&[u8], FileVaddr, Shape) -> Result<Choice, NoSite>) {
        let problems = &mut self.problems;
        self.drafts.retain_mut(|draft| {
            let Definition { symbol, entry, .. } = draft.definition;
            match choose(draft.body, entry, draft.shape) {
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
            match choose_entry(draft.body, entry, why) {
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
        let targets: Vec<_> = self.drafts.iter().map(Draft::forwards_to).collect();
        let merge_into: Vec<_> = self
            .drafts
            .iter()
            .zip(&targets)
            .map(|(draft, target)| {
                let target = (*target)?;
                self.drafts.iter().zip(&targets).position(|(other, others_target)| {
                    other.definition.entry == target && other.shape == draft.shape && others_target.is_none()
                })
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

    fn finish(self) -> ProbePlan {
        let sites = self.drafts.into_iter().filter_map(Draft::into_site).collect();
        ProbePlan { family: self.module.family, sites, problems: self.problems }
    }
}

impl Draft<'_> {
    fn forwards_to(&self) -> Option<FileVaddr> {
        self.choice.as_ref()?.forwards_to
    }

    fn into_site(self) -> Option<ProbeSite> {
        let choice = self.choice?;
        Some(ProbeSite {
            function: self.definition.function,
            shape: self.shape,
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
            return_probe: self.shape.returns(),
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
