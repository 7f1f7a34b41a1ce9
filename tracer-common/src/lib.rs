//! What the BPF programs and the user-space loader agree on, and what it means.
//!
//! `no_std`, no dependencies: the same code runs in BPF, in the loader, in property tests and under a fuzzer.
#![no_std]

pub mod abi;
pub mod addr;
pub mod cookie;
pub mod counters;
pub mod limits;
pub mod peak;
pub mod unwind;
