//! The kernel side as the session sees it: load, attach, read. The only importer of aya.

mod attach;
mod blocks;
mod calibrate;
mod clock;
mod events;
mod kernel;
mod mmap;
mod ranges;
mod snapshot;

pub use attach::{AttachError, Binding};
pub use calibrate::TrapCost;
pub use clock::monotonic_ns;
pub use events::{Notice, Notices};
pub use kernel::{Kernel, LoadError, TableSizes};
pub use ranges::{MappingBinding, RangeEvents};
pub use snapshot::RawStack;
