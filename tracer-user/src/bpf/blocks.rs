//! The table of live blocks → bytes and blocks by stack and time of birth. It looks at every slot: 36 MiB for a million blocks.

use std::{collections::HashSet, io, ptr};

use aya::maps::{HashMap, Map};
use tracer_common::abi::{BUCKET_SLOTS, Block, BlockKey, Bucket};

use super::{kernel::Kernel, mmap::ArrayMemory};
use crate::snapshot::{AgeCell, StackId};

/// What of each live block matters: (stack, generation) and bytes.
struct Aged<'t> {
    taken_at_ns: &'t [u64],
    blocks: Vec<((u32, u32), u64)>,
}

impl Aged<'_> {
    fn add(&mut self, block: Block) {
        let generation = self.taken_at_ns.partition_point(|taken_at_ns| *taken_at_ns < block.born_ns);
        self.blocks.push(((block.stack, generation as u32), block.size));
    }

    /// The sums, sorted. By sorting and not by a map: where there are many stacks and times, nearly every block has a cell of its own.
    fn into_cells(mut self) -> Vec<AgeCell> {
        self.blocks.sort_unstable_by_key(|(key, _)| *key);
        self.blocks
            .chunk_by(|(one, _), (other, _)| one == other)
            .map(|same| {
                let ((stack, generation), _) = same[0];
                let bytes = same.iter().map(|(_, bytes)| bytes).sum();
                AgeCell { stack: StackId(stack), generation, bytes, count: same.len() as u64 }
            })
            .collect()
    }
}

impl Kernel {
    /// Live blocks by stack and generation, in that order: the generation is the number of the given times (CLOCK_MONOTONIC, ns,
    /// ascending) that lie before a block's birth. While the target runs, blocks that are just being made or freed may be missing.
    ///
    /// # Errors
    /// A table could not be read.
    pub fn read_ages(&self, taken_at_ns: &[u64]) -> io::Result<Vec<AgeCell>> {
        let scope = self.scope.get(0).unwrap_or_default();
        let n_blocks = scope.n_blocks.min(u64::from(self.sizes().blocks));
        let mut aged = Aged { taken_at_ns, blocks: Vec::with_capacity(n_blocks as usize) };
        let Some(Map::Array(blocks)) = self.ebpf.map("BLOCKS") else { return Err(missing("BLOCKS")) };
        let buckets = ArrayMemory::<Bucket>::of(blocks)?;
        for n in 0..buckets.len() {
            let bucket = buckets.element(n).expect("below the length");
            (0..BUCKET_SLOTS).filter_map(|slot| block_of(bucket, slot)).for_each(|block| aged.add(block));
        }
        if scope.n_spilled > 0 {
            self.add_spilled(&mut aged)?;
        }
        Ok(aged.into_cells())
    }

    fn add_spilled(&self, aged: &mut Aged<'_>) -> io::Result<()> {
        let map = self.ebpf.map("SPILLED_BLOCKS").ok_or_else(|| missing("SPILLED_BLOCKS"))?;
        let spilled: HashMap<_, BlockKey, Block> = HashMap::try_from(map).map_err(io::Error::other)?;
        let mut seen = HashSet::new();
        // A block that is freed while it is the iterator's place makes it start over: seen ones are passed over, and a busy target
        // does not keep it for ever.
        for entry in spilled.iter().take(2 * self.sizes().spilled_blocks() as usize) {
            let (key, block) = entry.map_err(io::Error::other)?;
            if seen.insert((key.target, key.address)) {
                aged.add(block);
            }
        }
        Ok(())
    }
}

/// The block in a slot. The programs empty `packed` before the key and fill it after the time of birth; that the key is the same
/// before and after tells that it is one block's.
fn block_of(bucket: *const Bucket, slot: usize) -> Option<Block> {
    // SAFETY: a slot of a bucket in map memory, as the caller has it from `element`; volatile, because the programs write it.
    let (before, packed, born_ns, after) = unsafe {
        (
            ptr::read_volatile(&raw const (*bucket).keys[slot]),
            ptr::read_volatile(&raw const (*bucket).packed[slot]),
            ptr::read_volatile(&raw const (*bucket).born_ns[slot]),
            ptr::read_volatile(&raw const (*bucket).keys[slot]),
        )
    };
    (before != 0 && packed != 0 && before == after).then(|| Block::unpack(packed, born_ns))
}

pub(super) fn missing(map: &str) -> io::Error {
    io::Error::other(format!("the object has no map `{map}`"))
}
