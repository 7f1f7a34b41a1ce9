//! A finished call as the programs report it → what it did.

use tracer_common::ranges::{INSIDE_ALLOCATOR, RangeEvent, RangeFunction, gives_back};

use super::space::PAGE_BYTES;

/// A finished call that succeeded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Call {
    /// What it did.
    pub operation: Operation,
    /// The kernel's id of the stack that called.
    pub stack: u32,
    /// When it was entered: CLOCK_MONOTONIC, ns.
    pub entered_ns: u64,
    /// When it returned: CLOCK_MONOTONIC, ns.
    pub returned_ns: u64,
    /// An allocator made it.
    pub inside_allocator: bool,
}

/// What a call did. Addresses and lengths are in bytes, whole pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Memory was mapped.
    Map {
        /// Where.
        start: u64,
        /// How much.
        bytes: u64,
        /// Whether it is anonymous memory and no file's.
        anonymous: bool,
        /// Whether the program chose the address, and what lay there was replaced.
        fixed: bool,
    },
    /// Whatever lay there is no longer mapped.
    Unmap {
        /// Where.
        start: u64,
        /// How much.
        bytes: u64,
    },
    /// A mapping was resized or moved.
    Remap {
        /// Where it lay.
        old_start: u64,
        /// How long it was; 0: it was duplicated.
        old_bytes: u64,
        /// Where it lies.
        start: u64,
        /// How long it is.
        bytes: u64,
        /// Whether the old address stays mapped (MREMAP_DONTUNMAP, or a duplicate).
        keeps_old: bool,
        /// Whether the program chose the new address.
        fixed: bool,
    },
    /// The end of the data segment is here now.
    Break {
        /// The first address past it, rounded up to a page.
        end: u64,
    },
    /// Pages there were given back; they are zero, or what they were, at the next touch.
    GiveBack {
        /// Where.
        start: u64,
        /// How much.
        bytes: u64,
    },
}

impl Call {
    /// Reads an event; `None` where it changes nothing (another advice, an empty range, an unknown function).
    pub fn decode(event: &RangeEvent) -> Option<Self> {
        let operation = match RangeFunction::from_u32(event.function.into())? {
            RangeFunction::Mmap => {
                let flags = event.args[3] as i32;
                let bytes = if flags & libc::MAP_HUGETLB != 0 && flags & libc::MAP_ANONYMOUS != 0 {
                    round_up(event.args[1], huge_page_bytes(flags))
                } else {
                    round_up(event.args[1], PAGE_BYTES)
                };
                Operation::Map {
                    start: event.result,
                    bytes,
                    anonymous: flags & libc::MAP_ANONYMOUS != 0,
                    // Kernels that know MAP_FIXED_NOREPLACE replace nothing, older ones take the address for a hint.
                    fixed: flags & libc::MAP_FIXED != 0 && flags & libc::MAP_FIXED_NOREPLACE == 0,
                }
            }
            RangeFunction::Munmap => {
                Operation::Unmap { start: event.args[0], bytes: round_up(event.args[1], PAGE_BYTES) }
            }
            RangeFunction::Mremap => {
                let flags = event.args[3] as i32;
                let old_bytes = round_up(event.args[1], PAGE_BYTES);
                Operation::Remap {
                    old_start: event.args[0],
                    old_bytes,
                    start: event.result,
                    bytes: round_up(event.args[2], PAGE_BYTES),
                    keeps_old: old_bytes == 0 || flags & libc::MREMAP_DONTUNMAP != 0,
                    fixed: flags & libc::MREMAP_FIXED != 0,
                }
            }
            RangeFunction::Brk => Operation::Break { end: round_up(event.args[0], PAGE_BYTES) },
            RangeFunction::Madvise => {
                if !gives_back(event.args[2]) {
                    return None;
                }
                Operation::GiveBack { start: event.args[0], bytes: round_up(event.args[1], PAGE_BYTES) }
            }
        };
        Some(Self {
            operation,
            stack: event.stack,
            entered_ns: event.entered_ns,
            returned_ns: event.returned_ns,
            inside_allocator: event.flags & INSIDE_ALLOCATOR != 0,
        })
    }
}

/// Huge pages whose size is not stated: the default of x86-64, 2 MiB.
const DEFAULT_HUGE_PAGE_SHIFT: u32 = 21;

/// Size of the huge pages that mmap's flags ask for (include/uapi/asm-generic/hugetlb_encode.h).
const fn huge_page_bytes(flags: i32) -> u64 {
    let shift = (flags as u32 >> libc::MAP_HUGE_SHIFT) & libc::MAP_HUGE_MASK as u32;
    1 << if shift == 0 { DEFAULT_HUGE_PAGE_SHIFT } else { shift }
}

/// A call that succeeded had no length that wraps.
const fn round_up(bytes: u64, unit: u64) -> u64 {
    bytes.saturating_add(unit - 1) & !(unit - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(function: RangeFunction, args: [u64; 5], result: u64) -> Option<Operation> {
        Call::decode(&RangeEvent { function: function as u16, args, result, ..RangeEvent::default() })
            .map(|call| call.operation)
    }

    #[test]
    fn lengths_are_whole_pages() {
        let anonymous = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        let map =
            |length: u64, flags: i32| decoded(RangeFunction::Mmap, [0, length, 3, flags as u64, u64::MAX], 0x1000);
        let mapped = |bytes| Some(Operation::Map { start: 0x1000, bytes, anonymous: true, fixed: false });
        assert_eq!(map(1, anonymous), mapped(0x1000));
        assert_eq!(map(0x1001, anonymous), mapped(0x2000));
        assert_eq!(map(1, anonymous | libc::MAP_HUGETLB), mapped(2 << 20));
        assert_eq!(map(1, anonymous | libc::MAP_HUGETLB | libc::MAP_HUGE_1GB), mapped(1 << 30));
    }

    #[test]
    fn only_advice_that_gives_pages_back_counts() {
        let advise = |advice: i32| decoded(RangeFunction::Madvise, [0x1000, 5000, advice as u64, 0, 0], 0);
        assert_eq!(advise(libc::MADV_DONTNEED), Some(Operation::GiveBack { start: 0x1000, bytes: 0x2000 }));
        assert!(advise(libc::MADV_FREE).is_some());
        assert_eq!(advise(libc::MADV_WILLNEED), None);
    }

    #[test]
    fn a_duplicate_keeps_the_old_mapping() {
        let remap = |old: u64, flags: i32| {
            let operation = decoded(RangeFunction::Mremap, [0x1000, old, 0x2000, flags as u64, 0x9000], 0x9000);
            let Some(Operation::Remap { keeps_old, fixed, .. }) = operation else { panic!("{operation:?}") };
            (keeps_old, fixed)
        };
        assert_eq!(remap(0, libc::MREMAP_MAYMOVE), (true, false));
        assert_eq!(remap(0x1000, libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED), (false, true));
        assert_eq!(remap(0x2000, libc::MREMAP_MAYMOVE | libc::MREMAP_DONTUNMAP), (true, false));
    }

    #[test]
    fn what_no_program_writes_is_left_out() {
        assert_eq!(Call::decode(&RangeEvent { function: 77, ..RangeEvent::default() }), None);
    }
}
