//! One session: a target, its tracer, and the loop that reports.

mod live;
mod output;
mod spawn;
mod tracer;

pub use live::{Ended, attach, run};
pub use output::Output;
pub use spawn::SpawnError;
pub use tracer::{Origin, TraceError, Tracer, plan_of};
