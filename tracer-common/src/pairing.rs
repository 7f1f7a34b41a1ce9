//! Which allocator calls count, and what their results mean: the decisions that the BPF programs take at each hit.
//!
//! A call in flight is known by its stack pointer at entry, per thread. Calls that an allocator makes of its own functions run
//! deeper on the same stack and belong to the outer call.

/// A thread's call in flight, as far as pairing needs it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CallInFlight {
    /// Whether a call is in flight. When not, `entry_sp` and `tail_calls` are those of the last one.
    pub active: bool,
    /// Traced functions that the call jumped to as its last act; each brings one more return hit.
    pub tail_calls: u32,
    /// Stack pointer at the call's entry, where its return address lies.
    pub entry_sp: u64,
    /// The return address that lay there, before a return probe replaced it.
    pub return_address: u64,
}

/// What an entry hit means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryDecision {
    /// No call is in flight: this one is the outermost.
    Outermost,
    /// The call in flight made this call: ignored (`Nested`).
    Nested,
    /// At the very stack pointer of the call in flight: [`same_sp`] tells what it is.
    SameSp,
    /// The call in flight jumped here as its last act (glibc's reallocarray to realloc): ignored (`Nested`), and one
    /// more return hit is due for it if the function has a return probe.
    TailCall,
    /// The call in flight never returned (`LostReturns`): this one takes its place.
    Replaces,
}

/// What an entry with the return address at `sp` means. Stacks grow down: a nested call has a lower stack pointer.
#[inline(always)]
pub const fn on_entry(slot: &CallInFlight, sp: u64) -> EntryDecision {
    if !slot.active {
        EntryDecision::Outermost
    } else if sp < slot.entry_sp {
        EntryDecision::Nested
    } else if sp == slot.entry_sp {
        EntryDecision::SameSp
    } else {
        EntryDecision::Replaces
    }
}

/// Decides [`EntryDecision::SameSp`] by the return address now at `sp`.
///
/// A function that was jumped to finds the return probe's trampoline there, which starts a page (kernel/events/uprobes.c,
/// `uprobe_get_trampoline_vaddr`: the start of the `[uprobes]` mapping, 6.1 to 7.2). A fresh call finds a true return address.
/// A true return address that starts a page and differs from the first one would be mistaken; that needs a lost return too.
#[inline(always)]
pub const fn same_sp(slot: &CallInFlight, return_address: u64) -> EntryDecision {
    if return_address != slot.return_address && return_address.trailing_zeros() >= 12 {
        EntryDecision::TailCall
    } else {
        EntryDecision::Replaces
    }
}

/// What a return hit means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReturnDecision {
    /// The call in flight returned.
    Matched,
    /// A nested call returned: ignored.
    Nested,
    /// The second return hit of a call that ended in a jump to another traced function: ignored; one fewer is due.
    TailCall,
    /// No call in flight belongs to it (`UnpairedReturns`).
    Unpaired,
    /// A caller of the call in flight returned, so that call is gone (`LostReturns`), and nothing belongs to this return
    /// (`UnpairedReturns`).
    UnpairedAndLost,
}

/// What a return hit with the stack pointer `sp`, the return address popped, means.
#[inline(always)]
pub const fn on_return(slot: &CallInFlight, sp: u64) -> ReturnDecision {
    let expected_sp = slot.entry_sp.wrapping_add(8);
    if !slot.active {
        if slot.tail_calls > 0 && sp == expected_sp { ReturnDecision::TailCall } else { ReturnDecision::Unpaired }
    } else if sp == expected_sp {
        ReturnDecision::Matched
    } else if sp < expected_sp {
        ReturnDecision::Nested
    } else {
        ReturnDecision::UnpairedAndLost
    }
}

/// What a reallocation came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReallocOutcome {
    /// `realloc(NULL, n)`: a plain allocation.
    Allocated,
    /// The block has another address now.
    Moved,
    /// The block kept its address.
    Resized,
    /// `realloc(p, 0)` returned NULL and freed `p` (glibc).
    Freed,
    /// Nothing changed.
    Failed,
}

/// What `realloc(old_pointer, size_bytes)` came to when it returned `returned`.
#[inline(always)]
pub const fn realloc_outcome(old_pointer: u64, size_bytes: u64, returned: u64) -> ReallocOutcome {
    if returned == 0 {
        if size_bytes == 0 && old_pointer != 0 { ReallocOutcome::Freed } else { ReallocOutcome::Failed }
    } else if old_pointer == 0 {
        ReallocOutcome::Allocated
    } else if returned == old_pointer {
        ReallocOutcome::Resized
    } else {
        ReallocOutcome::Moved
    }
}

/// Bytes that `calloc(count, size)` or `reallocarray(p, count, size)` asks for; a product that overflows becomes a size that
/// [`can_only_fail`].
#[inline(always)]
pub const fn requested_bytes(count: u64, size_bytes: u64) -> u64 {
    // BPF has no 128-bit product to see an overflow by. Factors of a and b bits make at least 2^(a + b − 2): with 65 bits or
    // more that is past PTRDIFF_MAX, with 64 or fewer the product fits.
    if (count | size_bytes) >> 32 != 0 && count.leading_zeros() + size_bytes.leading_zeros() < 64 {
        return u64::MAX;
    }
    count.wrapping_mul(size_bytes)
}

/// Whether no allocator can serve a request: objects are at most `PTRDIFF_MAX` bytes (C17 footnote to 7.22.3; glibc ≥ 2.30
/// checks it). A "success" of such a call is not believed: it would wrap the totals.
#[inline(always)]
pub const fn can_only_fail(size_bytes: u64) -> bool {
    size_bytes > i64::MAX as u64
}

/// Whether `posix_memalign` failed: it returns an `int`, so the upper half of rax means nothing.
#[inline(always)]
pub const fn errno_is_failure(rax: u64) -> bool {
    rax as u32 != 0
}

#[cfg(test)]
mod tests {
    use super::*;

    const FLIGHT: CallInFlight =
        CallInFlight { active: true, tail_calls: 0, entry_sp: 0x7ffd_1000, return_address: 0x40_1234 };
    const IDLE: CallInFlight = CallInFlight { active: false, ..FLIGHT };

    #[test]
    fn an_entry_is_judged_by_where_its_stack_pointer_lies() {
        for (slot, sp, expected) in [
            (IDLE, 0x7ffd_0000, EntryDecision::Outermost),
            (IDLE, 0x7ffd_1000, EntryDecision::Outermost),
            (FLIGHT, 0x7ffd_0ff8, EntryDecision::Nested),
            (FLIGHT, 0x7ffd_1000, EntryDecision::SameSp),
            (FLIGHT, 0x7ffd_1008, EntryDecision::Replaces),
        ] {
            assert_eq!(on_entry(&slot, sp), expected, "{sp:#x}");
        }
    }

    #[test]
    fn at_the_same_stack_pointer_only_the_trampoline_means_a_tail_call() {
        for (return_address, expected) in [
            (0x7fff_ffff_e000, EntryDecision::TailCall),
            (0x40_1234, EntryDecision::Replaces),
            (0x40_1250, EntryDecision::Replaces),
        ] {
            assert_eq!(same_sp(&FLIGHT, return_address), expected, "{return_address:#x}");
        }
        let called_before_a_page = CallInFlight { return_address: 0x40_2000, ..FLIGHT };
        assert_eq!(same_sp(&called_before_a_page, 0x40_2000), EntryDecision::Replaces);
    }

    #[test]
    fn a_return_matches_only_eight_bytes_above_the_entry() {
        let tail_called = CallInFlight { tail_calls: 1, ..IDLE };
        for (slot, sp, expected) in [
            (FLIGHT, 0x7ffd_1008, ReturnDecision::Matched),
            (FLIGHT, 0x7ffd_1000, ReturnDecision::Nested),
            (FLIGHT, 0x7ffd_1010, ReturnDecision::UnpairedAndLost),
            (IDLE, 0x7ffd_1008, ReturnDecision::Unpaired),
            (tail_called, 0x7ffd_1008, ReturnDecision::TailCall),
            (tail_called, 0x7ffd_1010, ReturnDecision::Unpaired),
        ] {
            assert_eq!(on_return(&slot, sp), expected, "{sp:#x}");
        }
    }

    #[test]
    fn realloc_outcomes() {
        for (old_pointer, size_bytes, returned, expected) in [
            (0, 10, 0x1000, ReallocOutcome::Allocated),
            (0, 0, 0x1000, ReallocOutcome::Allocated),
            (0, 0, 0, ReallocOutcome::Failed),
            (0x1000, 10, 0x1000, ReallocOutcome::Resized),
            (0x1000, 10, 0x2000, ReallocOutcome::Moved),
            (0x1000, 0, 0x2000, ReallocOutcome::Moved),
            (0x1000, 0, 0, ReallocOutcome::Freed),
            (0x1000, 10, 0, ReallocOutcome::Failed),
        ] {
            assert_eq!(realloc_outcome(old_pointer, size_bytes, returned), expected);
        }
    }

    #[test]
    fn an_overflowing_product_can_only_fail() {
        assert!(can_only_fail(requested_bytes(1 << 33, 1 << 33)));
        assert!(!can_only_fail(requested_bytes(1 << 31, 1 << 31)));
        assert!(!errno_is_failure(0xdead_beef_0000_0000) && errno_is_failure(12));
    }
}
