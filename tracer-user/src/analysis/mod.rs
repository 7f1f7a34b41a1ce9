//! Snapshots and names → statistics.

pub mod check;
pub mod diff;
pub mod filter;
mod frames;
mod glob;
mod groups;
mod order;
mod own_code;
pub mod statistics;
