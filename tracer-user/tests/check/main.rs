//! Budgets: each verdict with its figures and sites, its three forms, and the command.
//!
//! `UPDATE_EXPECT=1 cargo test` rewrites the golden files.

mod budgets;
mod command;
mod fixture;
mod forms;
