//! What the BPF programs and the user-space loader agree on, and what it means.
//!
//! `no_std`, no dependencies: the same code runs in BPF, in the loader, in property tests and under a fuzzer.
#![no_std]
#![expect(clippy::inline_always, reason = "a BPF program passes at most five arguments to a real call")]

pub mod abi;
pub mod addr;
pub mod cookie;
pub mod counters;
pub mod limits;
pub mod pairing;
pub mod peak;
pub mod ranges;
pub mod unwind;
