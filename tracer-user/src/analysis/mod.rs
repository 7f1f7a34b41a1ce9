//! Snapshots and names → statistics.

pub mod check;
pub mod statistics;
