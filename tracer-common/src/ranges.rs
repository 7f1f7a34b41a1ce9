//! Calls that change a target's anonymous mappings: what the programs tell of each, and what they keep of one in flight.
//!
//! Programs only report; what the calls come to is the loader's model. The structs are `repr(C)`, integers only, sizes asserted.

/// A function that changes mappings; the attach cookie of its sites.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RangeFunction {
    /// `mmap(addr, length, prot, flags, fd, offset) -> address`.
    Mmap = 1,
    /// `munmap(addr, length) -> 0 or -1`.
    Munmap = 2,
    /// `mremap(old, old_length, new_length, flags, new) -> address`.
    Mremap = 3,
    /// `brk(addr) -> 0 or -1`; `sbrk` calls it.
    Brk = 4,
    /// `madvise(addr, length, advice) -> 0 or -1`.
    Madvise = 5,
}

impl RangeFunction {
    /// Every one, in the order of their numbers.
    pub const ALL: [Self; 5] = [Self::Mmap, Self::Munmap, Self::Mremap, Self::Brk, Self::Madvise];

    /// The function with number `n`.
    pub const fn from_u32(n: u32) -> Option<Self> {
        match n {
            1 => Some(Self::Mmap),
            2 => Some(Self::Munmap),
            3 => Some(Self::Mremap),
            4 => Some(Self::Brk),
            5 => Some(Self::Madvise),
            _ => None,
        }
    }

    /// Whether it can make a mapping, so that its stack is wanted.
    #[inline(always)]
    pub const fn maps(self) -> bool {
        matches!(self, Self::Mmap | Self::Mremap | Self::Brk)
    }

    /// Whether a result (rax at the return) means failure. Addresses of mappings are page aligned; the others return an `int`.
    #[inline(always)]
    pub const fn failed(self, result: u64) -> bool {
        match self {
            Self::Mmap | Self::Mremap => result & 0xfff != 0,
            Self::Munmap | Self::Brk | Self::Madvise => result as u32 != 0,
        }
    }
}

/// [`RangeEvent::function`]: the target was forked from the one whose serial is the first argument, and has its memory.
pub const FORKED: u16 = 0x100;
/// [`RangeEvent::function`]: the target has ended, or has called exec.
pub const ENDED: u16 = 0x101;

/// One finished call, through the ring buffer; or the begin or end of a target, so that it comes in order with its calls.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RangeEvent {
    /// The first five arguments; those that the function has not are arbitrary.
    pub args: [u64; 5],
    /// What it returned; never a failure.
    pub result: u64,
    /// When it was entered: CLOCK_MONOTONIC, ns.
    pub entered_ns: u64,
    /// When it returned: CLOCK_MONOTONIC, ns.
    pub returned_ns: u64,
    /// The target's serial.
    pub serial: u32,
    /// The target's number.
    pub target: u32,
    /// Stack id; 0 where none was walked.
    pub stack: u32,
    /// [`RangeFunction`], [`FORKED`] or [`ENDED`].
    pub function: u16,
    /// [`INSIDE_ALLOCATOR`], or 0.
    pub flags: u16,
}
const _: () = assert!(size_of::<RangeEvent>() == 80);

/// [`RangeEvent::flags`]: an allocator made the call, so that what it maps is the allocator's.
pub const INSIDE_ALLOCATOR: u16 = 1;

/// A call in flight.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RangeCall {
    /// Stack pointer at its entry, where its return address lies.
    pub entry_sp: u64,
    /// When it was entered: CLOCK_MONOTONIC, ns.
    pub entered_ns: u64,
    /// As in [`RangeEvent`].
    pub args: [u64; 5],
    /// As in [`RangeEvent`].
    pub stack: u32,
    /// [`RangeFunction`]; 0 = no call in flight.
    pub function: u16,
    /// As in [`RangeEvent`].
    pub flags: u16,
}
const _: () = assert!(size_of::<RangeCall>() == 64);

/// One thread's calls in flight: a function of this kind may call another one (a preloaded `mmap` the real one), or a signal
/// handler may.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RangeCalls {
    /// The thread, and its target's serial: what another left here is void.
    pub tid: u32,
    /// See `tid`.
    pub serial: u32,
    /// [`crate::abi::Control::n_pauses`] when the outer call was entered.
    pub n_pauses: u32,
    /// [`RangeFunction`] of the inner call that the outer one made last; 0 = none.
    pub inner_function: u32,
    /// Return address of the last free that the thread entered; 0 = none. While it is on the stack, so is that free.
    pub free_return: u64,
    /// Stack pointer at the entry of that free.
    pub free_sp: u64,
    /// What the inner call returned.
    pub inner_result: u64,
    /// Its first argument.
    pub inner_address: u64,
    /// The outer call.
    pub outer: RangeCall,
    /// The inner one, deeper on the stack.
    pub inner: RangeCall,
}
const _: () = assert!(size_of::<RangeCalls>() == 48 + 2 * 64);

/// Whether an advice to `madvise` (an `int`) gives pages back: MADV_DONTNEED, MADV_FREE, MADV_DONTNEED_LOCKED
/// (include/uapi/asm-generic/mman-common.h).
#[inline(always)]
pub const fn gives_back(advice: u64) -> bool {
    matches!(advice as u32, 4 | 8 | 24)
}

impl RangeCalls {
    /// Whether the outer call, returning `result`, did what an inner call has been reported for: it was a wrapper.
    #[inline(always)]
    pub const fn is_told(&self, result: u64) -> bool {
        let is_same = self.inner_function == self.outer.function as u32 && self.inner_result == result;
        match RangeFunction::from_u32(self.outer.function as u32) {
            // The address asked for is a hint; the one returned is the mapping's.
            Some(RangeFunction::Mmap | RangeFunction::Mremap) => is_same,
            _ => is_same && self.inner_address == self.outer.args[0],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_are_told_by_their_numbers() {
        for function in RangeFunction::ALL {
            assert_eq!(RangeFunction::from_u32(function as u32), Some(function));
        }
        assert_eq!(RangeFunction::from_u32(0), None);
        assert_eq!(RangeFunction::from_u32(6), None);
    }

    #[test]
    fn a_failure_is_no_address_and_no_zero() {
        assert!(RangeFunction::Mmap.failed(u64::MAX) && !RangeFunction::Mmap.failed(0x7f00_0000_1000));
        // The upper half of rax means nothing where an int is returned.
        assert!(!RangeFunction::Munmap.failed(0xdead_beef_0000_0000) && RangeFunction::Munmap.failed(0xffff_ffff));
    }

    #[test]
    fn a_wrapper_is_told_by_what_it_wrapped() {
        let outer =
            RangeCall { function: RangeFunction::Munmap as u16, args: [0x1000, 1, 2, 3, 4], ..Default::default() };
        let calls =
            RangeCalls { inner_function: outer.function.into(), inner_address: 0x1000, outer, ..Default::default() };
        assert!(calls.is_told(0));
        let handler = RangeCalls { inner_address: 0x2000, ..calls };
        assert!(!handler.is_told(0), "a signal handler unmapped something else");
    }
}
