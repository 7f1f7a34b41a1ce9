//! The file of a recording: a header, then chunks that are only ever appended. docs/recording.md is its description.
//!
//! A snapshot is one write that ends in the chunk that makes it count, so that a tracer that is killed, or a full disk, costs at
//! most the snapshot that was being written.

mod chunk;
mod fields;
mod names;
pub(super) mod packed;
mod read;
mod rewrite;
pub(super) mod wire;
mod write;

use chunk::VERSION;

pub use read::{ReadError, read_limit_bytes};
pub use rewrite::rewrite_names;
pub use write::{RecordError, Recorder, Slot};
