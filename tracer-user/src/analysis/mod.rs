//! Snapshots and names → statistics.

pub mod age;
pub mod annotate;
pub mod check;
pub mod diff;
pub mod filter;
mod frames;
mod groups;
pub mod growth;
mod order;
mod own_code;
pub mod processes;
pub mod statistics;
pub mod trend;
pub mod verdict;
