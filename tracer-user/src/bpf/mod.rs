//! The kernel side as the session sees it: load, attach, read. The only importer of aya.

mod attach;
mod calibrate;
mod events;
mod kernel;
mod mmap;
mod snapshot;

pub use attach::{AttachError, Binding};
pub use calibrate::TrapCost;
pub use events::{Notice, Notices};
pub use kernel::{Kernel, LoadError, TableSizes};
pub use snapshot::RawStack;
