//! One session: its processes, their tracer, and the loop over everything that can happen to them.

mod archive;
mod attach;
pub mod control;
mod ended;
mod error;
mod events;
mod files;
mod keys;
mod live;
mod members;
mod memory;
mod output;
mod prepare;
mod program;
mod ranges;
mod read_module;
mod reads;
mod recording;
mod requests;
mod signals;
mod snapshots;
mod spawn;
mod traced;
mod tracer;
mod who;

pub use error::TraceError;
pub use live::{Ended, Unusable, attach, run};
pub use output::Output;
pub use read_module::plan_of;
pub use spawn::SpawnError;
pub use tracer::{Origin, Tracer};
