//! The kernel side as the session sees it: load, attach, read. The only importer of aya.

mod attach;
mod blocks;
mod btf;
mod calibrate;
mod clock;
mod events;
mod kernel;
mod mappings;
mod mmap;
mod ranges;
mod retire;
mod snapshot;
mod tables;
mod targets;
mod trace_events;

pub use attach::{AttachError, Binding, Reach};
pub use calibrate::TrapCost;
pub use clock::monotonic_ns;
pub use events::{Notice, Notices};
pub use kernel::{Kernel, LoadError};
pub use ranges::{MappingBinding, RangeEvents};
pub use snapshot::{RawStack, ScopeBytes};
pub use tables::TableSizes;
pub use targets::{KernelScope, TargetError, TargetNumber};
pub use trace_events::Heirs;
