//! Loader, symbolizer and reports of `memtrace-bpf`. The modules stand in the order in which data passes them.

pub mod text;

pub mod scope;
pub mod target;

pub mod plan;
pub mod unwind;

pub mod bpf;

pub mod snapshot;

pub mod ranges;

pub mod symbolize;

pub mod recording;

pub mod analysis;

pub mod report;

pub mod session;

pub mod offline;

pub mod options;
