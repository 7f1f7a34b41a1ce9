//! A snapshot: all totals, stacks, modules and counters of a target at one moment. Addresses, not names.

mod domains;
mod losses;
mod model;
mod owner;

pub use domains::Domains;
pub use losses::{LOSSES, LOSSES_FROM_START};
pub use model::{
    AgeCell, Counters, Domain, Frame, MappedBytes, Module, ModuleId, ModuleKind, ModuleMapping, Overhead, ProcessEnd,
    ProcessId, ProcessMemory, ProcessStats, Snapshot, Stack, StackId, StackStats, TargetInfo, Tid, Totals,
};
pub use owner::{Home, Owner};
