//! A snapshot: all totals, stacks, modules and counters of a target at one moment. Addresses, not names.

mod model;

pub use model::{
    Counters, Frame, Module, ModuleId, ModuleKind, ModuleMapping, Overhead, Snapshot, Stack, StackId, StackStats,
    TargetInfo, Totals,
};
