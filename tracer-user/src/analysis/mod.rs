//! Snapshots and names → statistics.

pub mod statistics;
