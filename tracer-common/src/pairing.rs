//! Which allocator calls count, and what their results mean: the decisions that the BPF programs take at each hit, and
//! [`Thread`], the specification of what follows from them.
//!
//! A call in flight is known by its stack pointer at entry, per thread. Calls that an allocator makes of its own functions run
//! deeper on the same stack and belong to the outer call.

use crate::{abi::Block, counters::Counter};

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
    if return_address != slot.return_address && is_trampoline(return_address) {
        EntryDecision::TailCall
    } else {
        EntryDecision::Replaces
    }
}

/// Whether a return address may be that of the return probes' trampoline.
#[inline(always)]
pub const fn is_trampoline(return_address: u64) -> bool {
    return_address.trailing_zeros() >= 12
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

/// The block that `xallocx(pointer, size)` leaves, as a reallocation would return it: its result is the block's usable size, less than
/// asked for when it failed.
#[inline(always)]
pub const fn resized_in_place(pointer: u64, size: u64, usable: u64) -> u64 {
    if usable >= size { pointer } else { 0 }
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

/// Whether the free of a block that is not known is a call of the next `free` by a `free` that wraps it (a preloaded library): of the
/// pointer that the thread freed last, no higher on the stack, and nothing allocated since (`freed_pointer` is 0 then). A free has
/// no return probe that would tell where it ends.
#[inline(always)]
pub const fn is_repeated_free(freed_pointer: u64, freed_sp: u64, pointer: u64, sp: u64) -> bool {
    pointer != 0 && pointer == freed_pointer && sp <= freed_sp
}

/// What the model needs of the tables; in BPF maps, in tests a `HashMap`.
pub trait Tables {
    /// Takes the block at `address` out of the table of live blocks.
    fn take(&mut self, address: u64) -> Option<Block>;
    /// Puts a block in, in place of any that is there.
    fn put(&mut self, address: u64, block: Block) -> Put;
    /// The time now, in nanoseconds.
    fn now_ns(&self) -> u64;
    /// Changes the totals in one step: `gone` leaves its stack (its life ends now), `came` joins its own.
    fn account(&mut self, gone: Option<Block>, came: Option<Block>);
    /// Raises a counter.
    fn bump(&mut self, counter: Counter, by: u64);
    /// Whether the process was forked while its parent was traced: what is unknown of its blocks is its parent's then.
    fn is_forked(&self) -> bool;
}

/// What [`Tables::put`] came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Put {
    /// The address was free.
    Done,
    /// This block was there; it is out of the table now.
    Replaced(Block),
    /// The table has no room; nothing changed.
    Full,
}

/// What a call asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Request {
    /// Bytes, of a product by [`requested_bytes`].
    pub size_bytes: u64,
    /// The block to reallocate; 0 for plain allocations.
    pub old_pointer: u64,
    /// Whether the call is a reallocation, so that NULL for 0 bytes means that the old block was freed.
    pub is_realloc: bool,
    /// The stack that calls.
    pub stack: u32,
}

/// What a call handed back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Returned {
    /// This block; 0 = the call failed (also a non-zero errno of posix_memalign).
    Pointer(u64),
    /// posix_memalign succeeded, but its out-pointer could not be read.
    OutUnreadable,
}

/// One traced thread: the specification of pairing, which the BPF side follows with its own maps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Thread {
    flight: CallInFlight,
    request: Request,
    /// The block that a reallocation took out of the table at its entry: once the allocator has freed it, another
    /// thread may be handed its address before this call returns.
    old: Option<Block>,
    /// The last pointer freed and the stack pointer there; 0 once the thread has allocated.
    freed: (u64, u64),
}

impl Thread {
    /// An entry hit of a function that returns a block. `return_address` is the word at `sp`.
    pub fn enter(&mut self, tables: &mut impl Tables, sp: u64, return_address: u64, request: Request) {
        tables.bump(Counter::HitsEntry, 1);
        if !self.is_outermost(tables, sp, return_address, 1) {
            return;
        }
        self.flight = CallInFlight { active: true, tail_calls: 0, entry_sp: sp, return_address };
        self.request = request;
        self.freed = (0, 0);
        self.old = if request.old_pointer == 0 { None } else { tables.take(request.old_pointer) };
    }

    /// A return hit.
    pub fn leave(&mut self, tables: &mut impl Tables, sp: u64, returned: Returned) {
        tables.bump(Counter::HitsReturn, 1);
        match on_return(&self.flight, sp) {
            ReturnDecision::Matched => {
                self.flight.active = false;
                self.commit(tables, returned);
            }
            ReturnDecision::Nested => {}
            ReturnDecision::TailCall => self.flight.tail_calls -= 1,
            ReturnDecision::Unpaired => tables.bump(Counter::UnpairedReturns, 1),
            ReturnDecision::UnpairedAndLost => {
                tables.bump(Counter::UnpairedReturns, 1);
                self.lose(tables);
            }
        }
    }

    /// A hit of a function that frees; it has no return probe.
    pub fn free(&mut self, tables: &mut impl Tables, sp: u64, return_address: u64, pointer: u64) {
        tables.bump(Counter::HitsFree, 1);
        if !self.is_outermost(tables, sp, return_address, 0) {
            return;
        }
        let (freed_pointer, freed_sp) = core::mem::replace(&mut self.freed, (pointer, sp));
        if pointer == 0 {
            return tables.bump(Counter::FreesOfNull, 1);
        }
        match tables.take(pointer) {
            Some(block) => tables.account(Some(block), None),
            None if is_repeated_free(freed_pointer, freed_sp, pointer, sp) => tables.bump(Counter::Nested, 1),
            None => unknown(tables, Counter::FreesUnknown),
        }
    }

    /// Whether an entry begins an outermost call; the call in flight that it replaces, if so, is closed. A jump from one traced
    /// function to another brings `return_hits` further return hits.
    fn is_outermost(&mut self, tables: &mut impl Tables, sp: u64, return_address: u64, return_hits: u32) -> bool {
        let mut decision = on_entry(&self.flight, sp);
        if decision == EntryDecision::SameSp {
            decision = same_sp(&self.flight, return_address);
        }
        match decision {
            EntryDecision::Outermost => true,
            EntryDecision::Replaces | EntryDecision::SameSp => {
                self.lose(tables);
                true
            }
            EntryDecision::Nested => {
                tables.bump(Counter::Nested, 1);
                false
            }
            EntryDecision::TailCall => {
                tables.bump(Counter::Nested, 1);
                self.flight.tail_calls += return_hits;
                false
            }
        }
    }

    /// The call in flight will not return (also: its thread ended, or the probes were taken away and put back meanwhile). Whether a
    /// reallocation happened is unknown: its old block counts as live until its address is handed out again. (Between the loss and
    /// this call, a free of that block by another thread finds nothing: `FreesUnknown`.)
    pub fn lose(&mut self, tables: &mut impl Tables) {
        if self.flight.active {
            tables.bump(Counter::LostReturns, 1);
            self.put_back(tables);
        }
        self.flight = CallInFlight::default();
    }

    fn commit(&mut self, tables: &mut impl Tables, returned: Returned) {
        let Request { size_bytes, old_pointer, is_realloc, stack } = self.request;
        let pointer = match returned {
            Returned::Pointer(pointer) => pointer,
            Returned::OutUnreadable => return tables.bump(Counter::OutUnreadable, 1),
        };
        if !is_realloc {
            return if pointer == 0 || can_only_fail(size_bytes) {
                tables.bump(Counter::Failed, 1);
            } else {
                let born_ns = tables.now_ns();
                insert(tables, pointer, Block { size: size_bytes, born_ns, stack, _pad: 0 }, None);
            };
        }
        match realloc_outcome(old_pointer, size_bytes, pointer) {
            ReallocOutcome::Failed => {
                tables.bump(Counter::Failed, 1);
                self.put_back(tables);
            }
            _ if can_only_fail(size_bytes) => {
                tables.bump(Counter::Failed, 1);
                self.put_back(tables);
            }
            ReallocOutcome::Freed => match self.old.take() {
                Some(block) => tables.account(Some(block), None),
                None => unknown(tables, Counter::FreesUnknown),
            },
            ReallocOutcome::Allocated | ReallocOutcome::Moved | ReallocOutcome::Resized => {
                if old_pointer != 0 && self.old.is_none() {
                    unknown(tables, Counter::ReallocsUnknown);
                }
                if self.old.is_some() {
                    tables.bump(Counter::Reallocs, 1);
                }
                let born_ns = tables.now_ns();
                insert(tables, pointer, Block { size: size_bytes, born_ns, stack, _pad: 0 }, self.old.take());
            }
        }
    }

    /// Puts the old block of a reallocation back. Where its address was handed out again meanwhile, the old block is the
    /// one that ended.
    fn put_back(&mut self, tables: &mut impl Tables) {
        let Some(old) = self.old.take() else { return };
        let address = self.request.old_pointer;
        match tables.take(address) {
            Some(newer) => {
                tables.bump(Counter::MissedFrees, 1);
                tables.put(address, newer);
                tables.account(Some(old), None);
            }
            None => {
                if tables.put(address, old) == Put::Full {
                    tables.bump(Counter::BlocksFull, 1);
                    tables.bump(Counter::BlocksFullBytes, old.size);
                    tables.account(Some(old), None);
                }
            }
        }
    }
}

/// The end of a block that the trace does not know: in a forked process, one of its parent's.
fn unknown(tables: &mut impl Tables, counter: Counter) {
    let counter = if tables.is_forked() { Counter::FreesInherited } else { counter };
    tables.bump(counter, 1);
}

/// Puts a new block in; `old`, the block that it takes the place of, leaves in the same step of the totals.
fn insert(tables: &mut impl Tables, address: u64, block: Block, old: Option<Block>) {
    match tables.put(address, block) {
        Put::Done => tables.account(old, Some(block)),
        Put::Replaced(missed) => {
            // That one was freed at some earlier moment.
            tables.bump(Counter::MissedFrees, 1);
            tables.account(Some(missed), None);
            tables.account(old, Some(block));
        }
        Put::Full => {
            tables.bump(Counter::BlocksFull, 1);
            tables.bump(Counter::BlocksFullBytes, block.size);
            if old.is_some() {
                tables.account(old, None);
            }
        }
    }
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
    fn the_same_pointer_no_higher_on_the_stack_is_freed_by_the_same_free() {
        for (freed_pointer, pointer, sp, expected) in [
            (0x1000, 0x1000, 0x7ffd_0fc0, true),
            (0x1000, 0x1000, 0x7ffd_1000, true),
            (0x1000, 0x1000, 0x7ffd_1008, false),
            (0x1000, 0x1010, 0x7ffd_0fc0, false),
            (0, 0x1000, 0x7ffd_0fc0, false),
            (0, 0, 0x7ffd_0fc0, false),
        ] {
            assert_eq!(is_repeated_free(freed_pointer, 0x7ffd_1000, pointer, sp), expected, "{pointer:#x} at {sp:#x}");
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
