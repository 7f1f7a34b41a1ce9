//! The domain `mmap`: which anonymous memory each process has mapped by its own calls, to the page, and whose stacks hold it.
//!
//! Pure: calls in, totals out. The programs report each finished call of mmap, munmap, mremap, brk and madvise with the times of
//! its entry and return ([`Call`]); an [`AddressSpace`] applies them to disjoint intervals, an [`Account`] sums them up, [`Ranges`]
//! keeps both for every process.
//!
//! What counts:
//! * Address space in whole pages, as `/proc/PID/maps` shows it, resident or not. Only anonymous memory (MAP_ANONYMOUS, brk).
//! * One call that maps is one block. What is left of it after a partial unmap, in however many pieces, is the same block; its bytes
//!   are freed piece by piece, and the block with its last one.
//! * `mremap` is to mappings what `realloc` is to blocks: the old bytes leave their stacks, the new ones are a block of the stack that
//!   called it, in one step.
//! * Memory given back by `madvise` stays mapped: it is summed beside the totals.
//! * What an allocator maps inside one of its calls is the allocator's and no block here. What it unmaps ends blocks all the same.
//!
//! Of concurrent calls no clock tells which came first: each took effect somewhere between its entry and its return, and is told
//! between its effect and its return. So a call that builds on another's effect comes after it, unless the other has yet to be
//! told. Two rules make that enough:
//! * A call ends only what was mapped before it was entered. (A sane program unmaps what it knows to be mapped.)
//! * Where the kernel chose the address, what was there is gone: its unmapping comes later, or was not seen.

mod account;
mod call;
mod scope;
mod space;

pub use account::{Account, Change};
pub use call::{Call, Operation};
pub use scope::{ProcessKey, ProcessRanges, Ranges};
pub use space::{AddressSpace, Noted, PAGE_BYTES};
