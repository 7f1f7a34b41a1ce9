//! One session: its processes, their tracer, and the loop over everything that can happen to them.

pub mod control;
mod error;
mod events;
mod files;
mod keys;
mod live;
mod memory;
mod output;
mod program;
mod read_module;
mod recording;
mod requests;
mod signals;
mod snapshots;
mod spawn;
mod traced;
mod tracer;

pub use error::TraceError;
pub use live::{Ended, attach, run};
pub use output::Output;
pub use read_module::plan_of;
pub use spawn::SpawnError;
pub use tracer::{Origin, Tracer};
