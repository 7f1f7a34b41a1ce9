//! The table of live blocks: an address of a target has two buckets of eight slots, and a spill table for the few that fit neither.
//!
//! Of one address of a target only one thread speaks at a time: the allocator hands it to one caller, whose return probe puts it in before
//! the caller sees it, and a free takes it out before the allocator can hand it out again. So a slot is claimed by one
//! compare-exchange and freed by one store. About three times as fast as a BPF hash map and a third of its memory.

use tracer_common::{
    abi::{ADDRESS_LIMIT, BUCKET_SLOTS, Block, BlockKey, Bucket, bucket_key},
    counters::Counter,
};

use crate::{
    atomic,
    counters::lose_many,
    maps::{BLOCKS, SCOPE, SPILLED_BLOCKS, control},
    targets::Counted,
};

/// What became of a block that was put in.
pub enum Put {
    /// It is in.
    New,
    /// It is in, in place of one at the same address, whose free was missed.
    Replaced(Block),
    /// The table is full (counted). Were this block there, it is no longer.
    Full(Option<Block>),
}

/// `BPF_NOEXIST` (include/uapi/linux/bpf.h).
const NO_EXIST: u64 = 1;

/// Odd, so that multiplication is a bijection; 2^64 / golden ratio.
const MIX: u64 = 0x9E37_79B9_7F4A_7C15;

/// Takes a block out.
#[inline(always)]
pub fn take(target: Counted, address: u64) -> Option<Block> {
    let key = key(target, address);
    let (first, second) = buckets(key)?;
    let taken = match take_from(first, key) {
        None => take_from(second, key),
        taken => taken,
    };
    match taken {
        None => take_spilled(target, address),
        taken => {
            count(target, 1u64.wrapping_neg());
            taken
        }
    }
}

/// Puts a block in.
#[inline(always)]
pub fn put(target: Counted, address: u64, block: Block) -> Put {
    // An address that is still in: its free was missed. Looked for first, as it may be in either bucket.
    let old = take(target, address);
    if !insert(target, address, block) {
        return Put::Full(old);
    }
    match old {
        Some(old) => Put::Replaced(old),
        None => Put::New,
    }
}

/// Puts a block in whose address is not; `false` (and counted) when the table is full.
#[inline(always)]
pub fn insert(target: Counted, address: u64, block: Block) -> bool {
    let key = key(target, address);
    let (Some(control), Some((first, second))) = (control(), buckets(key)) else { return full(target, block) };
    if count(target, 1) >= u64::from(control.max_blocks) {
        count(target, 1u64.wrapping_neg());
        return full(target, block);
    }
    let fits = key != NO_KEY && block.size < Block::SIZE_LIMIT;
    let is_in = fits && (put_into(first, key, block) || put_into(second, key, block));
    if !is_in && !spill(target, address, block) {
        count(target, 1u64.wrapping_neg());
        return full(target, block);
    }
    true
}

/// What no slot holds: number 0 is no target's.
const NO_KEY: u64 = ADDRESS_LIMIT - 1;

#[inline(always)]
fn key(target: Counted, address: u64) -> u64 {
    bucket_key(target.number, address).unwrap_or(NO_KEY)
}

#[inline(always)]
fn buckets(key: u64) -> Option<(&'static mut Bucket, &'static mut Bucket)> {
    let n_buckets = u64::from(control()?.n_buckets);
    let mixed = (key >> 3).wrapping_mul(MIX);
    // 32 bits of the product as a fraction of the number of buckets.
    let (first, second) =
        ((mixed >> 32).wrapping_mul(n_buckets) >> 32, (mixed << 20 >> 32).wrapping_mul(n_buckets) >> 32);
    // SAFETY: slots are written by atomics and by the one thread that owns an address; see above.
    unsafe { Some((&mut *BLOCKS.get_ptr_mut(first as u32)?, &mut *BLOCKS.get_ptr_mut(second as u32)?)) }
}

/// Frees the slot of a key and returns its block.
#[inline(always)]
fn take_from(bucket: *mut Bucket, wanted: u64) -> Option<Block> {
    for n in 0..BUCKET_SLOTS {
        // SAFETY: slot `n` of the bucket.
        unsafe {
            let (key, packed, born_ns) =
                (&raw mut (*bucket).keys[n], &raw mut (*bucket).packed[n], &raw mut (*bucket).born_ns[n]);
            if key.read_volatile() == wanted {
                let block = Block::unpack(packed.read_volatile(), born_ns.read_volatile());
                // The loader must never see the next key of this slot with this block's size.
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
fn put_into(bucket: *mut Bucket, wanted: u64, block: Block) -> bool {
    for n in 0..BUCKET_SLOTS {
        // SAFETY: slot `n` of the bucket.
        unsafe {
            let key = &raw mut (*bucket).keys[n];
            if key.read_volatile() == 0 && atomic::compare_exchange(key, 0, wanted) {
                (&raw mut (*bucket).born_ns[n]).write_volatile(block.born_ns);
                (&raw mut (*bucket).packed[n]).write_volatile(block.pack());
                return true;
            }
        }
    }
    false
}

#[inline(always)]
fn take_spilled(target: Counted, address: u64) -> Option<Block> {
    let block = take_from_spill(target.number, address)?;
    count(target, 1u64.wrapping_neg());
    Some(block)
}

#[inline(never)]
fn take_from_spill(number: u32, address: u64) -> Option<Block> {
    let scope = SCOPE.get_ptr_mut(0)?;
    // SAFETY: a pointer into map memory.
    if unsafe { (&raw const (*scope).n_spilled).read_volatile() } == 0 {
        return None;
    }
    let key = BlockKey { target: u64::from(number), address };
    // SAFETY: the value is copied at once; only the thread that frees a block removes it.
    let block = unsafe { SPILLED_BLOCKS.get(key) }.copied()?;
    if SPILLED_BLOCKS.remove(key).is_err() {
        return None;
    }
    // SAFETY: a pointer into map memory.
    unsafe { atomic::fetch_add(&raw mut (*scope).n_spilled, 1u64.wrapping_neg()) };
    Some(block)
}

#[inline(always)]
fn spill(target: Counted, address: u64, block: Block) -> bool {
    put_into_spill(&BlockKey { target: u64::from(target.number), address }, &block)
}

#[inline(never)]
fn put_into_spill(key: &BlockKey, block: &Block) -> bool {
    let Some(scope) = SCOPE.get_ptr_mut(0) else { return false };
    // SAFETY: a pointer into map memory. Before the insert, so that no reader misses the block.
    unsafe { atomic::fetch_add(&raw mut (*scope).n_spilled, 1) };
    if SPILLED_BLOCKS.insert(key, block, NO_EXIST).is_err() {
        // SAFETY: as above.
        unsafe { atomic::fetch_add(&raw mut (*scope).n_spilled, 1u64.wrapping_neg()) };
        return false;
    }
    true
}

/// Changes the number of blocks; returns that of all targets before.
#[inline(always)]
fn count(target: Counted, by: u64) -> u64 {
    // SAFETY: pointers into map memory.
    unsafe { atomic::fetch_add(&raw mut (*target.element).totals.n_blocks, by) };
    match SCOPE.get_ptr_mut(0) {
        // SAFETY: as above.
        Some(scope) => atomic::fetch_add(unsafe { &raw mut (*scope).n_blocks }, by),
        None => 0,
    }
}

fn full(target: Counted, block: Block) -> bool {
    lose_many(target.element, Counter::BlocksFull, 1);
    lose_many(target.element, Counter::BlocksFullBytes, block.size);
    false
}
