//! The command line: arguments → options. The only importer of clap.

mod annotate;
mod args;
mod check;
mod diff;
mod export;
mod growth;
mod pages;
mod report;
mod resymbolize;
mod scope;
mod session;
mod trace;
mod verdict;
mod view;

pub use args::{Action, Offline, Target, command, parse};
