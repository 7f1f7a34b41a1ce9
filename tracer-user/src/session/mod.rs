//! One session: a target, its tracer, and the loop over everything that can happen to it.

pub mod control;
mod events;
mod keys;
mod live;
mod memory;
mod output;
mod program;
mod ranges;
mod read_module;
mod recording;
mod requests;
mod signals;
mod spawn;
mod tracer;

pub use live::{Ended, attach, run};
pub use output::Output;
pub use read_module::plan_of;
pub use spawn::SpawnError;
pub use tracer::{Origin, TraceError, Tracer};
