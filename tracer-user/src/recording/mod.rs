//! A recording: the named, time-stamped snapshots of one session, sharing their stacks, modules and names, and the series of
//! totals between them. Works without root, on any machine.

mod builder;
mod file;
mod known;
mod model;
mod processes;
mod select;
mod stacks;
mod totals;

pub use builder::Builder;
pub use file::{ReadError, RecordError, Recorder, Slot, read_limit_bytes, rewrite_names};
pub use model::{Mark, Recording, Sample, SessionInfo, SnapshotInfo, SnapshotMeta, Trigger, Which};
pub use select::{Reference, SelectError};
