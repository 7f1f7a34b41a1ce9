//! The table of live blocks: an address has two buckets of eight slots, and a spill table for the few that fit neither.
//!
//! Of one address only one thread speaks at a time: the allocator hands it to one caller, whose return probe puts it in before
//! the caller sees it, and a free takes it out before the allocator can hand it out again. So a slot is claimed by one
//! compare-exchange and freed by one store. About three times as fast as a BPF hash map and a third of its memory.

use tracer_common::{
    abi::{BUCKET_SLOTS, Block, BlockKey, Bucket},
    counters::Counter,
};

use crate::{
    atomic,
    counters::{add, bump},
    maps::{BLOCKS, SCOPE, SPILLED_BLOCKS, control},
};

/// What became of a block that was put in.
pub enum Put {
    /// It is in.
    New,
    /// It is in, in place of one at the same address, whose free was missed.
    Replaced(Block),
    /// The table is full (counted).
    Full,
}

/// `BPF_NOEXIST` (include/uapi/linux/bpf.h).
const NO_EXIST: u64 = 1;

/// Odd, so that multiplication is a bijection; 2^64 / golden ratio.
const MIX: u64 = 0x9E37_79B9_7F4A_7C15;

/// User addresses have at most 47 bits, but for programs that ask mmap for more (5-level paging); theirs are spilled.
const ADDRESS_LIMIT: u64 = 1 << 48;

/// Takes a block out.
#[inline(always)]
pub fn take(target: u64, address: u64) -> Option<Block> {
    let (first, second) = buckets(address)?;
    let taken = match take_from(first, address) {
        None => take_from(second, address),
        taken => taken,
    };
    match taken {
        None => take_spilled(target, address),
        taken => {
            count(1u64.wrapping_neg());
            taken
        }
    }
}

/// Puts a block in.
#[inline(always)]
pub fn put(target: u64, address: u64, block: Block) -> Put {
    let (Some(control), Some((first, second))) = (control(), buckets(address)) else { return full(block) };
    if count(1) >= u64::from(control.max_blocks) {
        count(1u64.wrapping_neg());
        return full(block);
    }
    // An address that is still in: its free was missed. Looked for first, as it may be in either bucket.
    let mut old = take_from(first, address);
    if old.is_none() {
        old = take_from(second, address);
    }
    let old = match old {
        None => take_spilled(target, address),
        old => {
            count(1u64.wrapping_neg());
            old
        }
    };
    let fits = address < ADDRESS_LIMIT && block.size < Block::SIZE_LIMIT;
    let is_in = fits && (put_into(first, address, block) || put_into(second, address, block));
    if !is_in && !spill(target, address, block) {
        count(1u64.wrapping_neg());
        return full(block);
    }
    match old {
        Some(old) => Put::Replaced(old),
        None => Put::New,
    }
}

#[inline(always)]
fn buckets(address: u64) -> Option<(&'static mut Bucket, &'static mut Bucket)> {
    let n_buckets = u64::from(control()?.n_buckets);
    let mixed = (address >> 3).wrapping_mul(MIX);
    // 32 bits of the product as a fraction of the number of buckets.
    let (first, second) =
        ((mixed >> 32).wrapping_mul(n_buckets) >> 32, (mixed << 20 >> 32).wrapping_mul(n_buckets) >> 32);
    // SAFETY: slots are written by atomics and by the one thread that owns an address; see above.
    unsafe { Some((&mut *BLOCKS.get_ptr_mut(first as u32)?, &mut *BLOCKS.get_ptr_mut(second as u32)?)) }
}

/// Frees the slot of an address and returns its block.
#[inline(always)]
fn take_from(bucket: *mut Bucket, address: u64) -> Option<Block> {
    for n in 0..BUCKET_SLOTS {
        // SAFETY: slot `n` of the bucket.
        unsafe {
            let (key, packed, born_ns) =
                (&raw mut (*bucket).addresses[n], &raw mut (*bucket).packed[n], &raw mut (*bucket).born_ns[n]);
            if key.read_volatile() == address {
                let block = Block::unpack(packed.read_volatile(), born_ns.read_volatile());
                // The loader must never see the next address of this slot with this block's size.
                packed.write_volatile(0);
                key.write_volatile(0);
                return Some(block);
            }
        }
    }
    None
}

/// Claims a free slot; `false` if there is none.
#[inline(always)]
fn put_into(bucket: *mut Bucket, address: u64, block: Block) -> bool {
    for n in 0..BUCKET_SLOTS {
        // SAFETY: slot `n` of the bucket.
        unsafe {
            let key = &raw mut (*bucket).addresses[n];
            if key.read_volatile() == 0 && atomic::compare_exchange(key, 0, address) {
                (&raw mut (*bucket).born_ns[n]).write_volatile(block.born_ns);
                (&raw mut (*bucket).packed[n]).write_volatile(block.pack());
                return true;
            }
        }
    }
    false
}

#[inline(never)]
fn take_spilled(target: u64, address: u64) -> Option<Block> {
    let scope = SCOPE.get_ptr_mut(0)?;
    // SAFETY: a pointer into map memory.
    if unsafe { (&raw const (*scope).n_spilled).read_volatile() } == 0 {
        return None;
    }
    let key = BlockKey { target, address };
    // SAFETY: the value is copied at once; only the thread that frees a block removes it.
    let block = unsafe { SPILLED_BLOCKS.get(key) }.copied()?;
    if SPILLED_BLOCKS.remove(key).is_err() {
        return None;
    }
    // SAFETY: a pointer into map memory.
    unsafe { atomic::fetch_add(&raw mut (*scope).n_spilled, 1u64.wrapping_neg()) };
    count(1u64.wrapping_neg());
    Some(block)
}

#[inline(never)]
fn spill(target: u64, address: u64, block: Block) -> bool {
    let Some(scope) = SCOPE.get_ptr_mut(0) else { return false };
    // SAFETY: a pointer into map memory. Before the insert, so that no reader misses the block.
    unsafe { atomic::fetch_add(&raw mut (*scope).n_spilled, 1) };
    if SPILLED_BLOCKS.insert(BlockKey { target, address }, block, NO_EXIST).is_err() {
        // SAFETY: as above.
        unsafe { atomic::fetch_add(&raw mut (*scope).n_spilled, 1u64.wrapping_neg()) };
        return false;
    }
    true
}

/// Changes the number of blocks; returns the one before.
#[inline(always)]
fn count(by: u64) -> u64 {
    match SCOPE.get_ptr_mut(0) {
        // SAFETY: a pointer into map memory.
        Some(scope) => atomic::fetch_add(unsafe { &raw mut (*scope).n_blocks }, by),
        None => 0,
    }
}

fn full(block: Block) -> Put {
    bump(Counter::BlocksFull);
    add(Counter::BlocksFullBytes, block.size);
    Put::Full
}
