//! What ended targets held goes back: blocks, stacks, frames, lists of mappings, numbers. So memory stays bounded with any number of
//! processes, one after the other.

use std::{
    io,
    mem::offset_of,
    sync::atomic::{AtomicU64, Ordering::SeqCst},
    time::Duration,
};

use aya::maps::{HashMap, Map};
use tracer_common::abi::{
    BUCKET_SLOTS, Block, BlockKey, Bucket, Cursors, FreeList, STACK_SLOT_RETIRED, ScopeTotals, StackRecord, StackSlot,
    StackThread, StackTotals, target_of_key,
};

use super::{blocks::missing, kernel::Kernel, mmap::ArrayMemory, targets::TargetNumber};

/// Where `membarrier` does not wait for programs: longer than any of them runs.
const GRACE: Duration = Duration::from_millis(100);

/// Targets to retire: by number, the serial that it has; 0 = it stays.
struct Batch {
    serials: Vec<u32>,
}

impl Batch {
    fn has_number(&self, number: u32) -> bool {
        self.serials.get(number as usize).is_some_and(|serial| *serial != 0)
    }

    fn has_stack(&self, record: &StackRecord) -> bool {
        record.serial != 0 && self.serials.get(record.target as usize) == Some(&record.serial)
    }
}

impl Kernel {
    /// Takes ended targets out of all tables; their numbers, stack ids and frames go to others. What is wanted of them must have been
    /// read. Those that live are left alone. One look at every block and stack, whatever the number of targets: to be called for
    /// many at once. Returns how many were retired.
    ///
    /// # Errors
    /// A table could not be read.
    pub fn retire(&mut self, numbers: &[TargetNumber]) -> io::Result<usize> {
        let mut batch = Batch { serials: vec![0; self.targets.len()] };
        let mut retired = Vec::new();
        for &number in numbers {
            if let Some(target) = self.target(number)
                && self.state_of(number).is_ended()
                && !batch.has_number(number.0)
            {
                batch.serials[number.0 as usize] = target.serial;
                retired.push(number);
            }
        }
        if retired.is_empty() {
            return Ok(0);
        }
        // Programs that were running when a target ended are through with it.
        grace_period();
        for &number in &retired {
            if let Some(target) = self.target(number) {
                let late = target.totals.peak.current_bytes.wrapping_sub(target.left_bytes);
                self.scope_field(offset_of!(ScopeTotals, peak)).fetch_sub(late, SeqCst);
            }
        }
        self.retire_blocks(&batch)?;
        self.retire_stacks(&batch)?;
        for &number in &retired {
            self.totals.set(number.0 as usize, StackTotals::default());
            self.give_back(number);
        }
        Ok(retired.len())
    }

    fn retire_blocks(&mut self, batch: &Batch) -> io::Result<()> {
        let Some(Map::Array(blocks)) = self.ebpf.map("BLOCKS") else { return Err(missing("BLOCKS")) };
        let buckets = ArrayMemory::<Bucket>::of(blocks)?;
        let mut n_taken = 0;
        for n in 0..buckets.len() {
            let bucket = buckets.element(n).expect("below the length");
            n_taken += (0..BUCKET_SLOTS).filter(|slot| take_slot(bucket, *slot, batch)).count() as u64;
        }
        if self.scope_field(offset_of!(ScopeTotals, n_spilled)).load(SeqCst) > 0 {
            let n_spilled = self.retire_spilled(batch)?;
            self.scope_field(offset_of!(ScopeTotals, n_spilled)).fetch_sub(n_spilled, SeqCst);
            n_taken += n_spilled;
        }
        self.scope_field(offset_of!(ScopeTotals, n_blocks)).fetch_sub(n_taken, SeqCst);
        Ok(())
    }

    fn retire_spilled(&mut self, batch: &Batch) -> io::Result<u64> {
        let map = self.ebpf.map_mut("SPILLED_BLOCKS").ok_or_else(|| missing("SPILLED_BLOCKS"))?;
        let mut spilled: HashMap<_, BlockKey, Block> = HashMap::try_from(map).map_err(io::Error::other)?;
        // The kernel starts over when the iterator's place goes: first all keys, then what to remove. A key that is met twice is
        // removed once.
        let keys: Vec<BlockKey> =
            spilled.keys().filter_map(Result::ok).filter(|key| batch.has_number(key.target as u32)).collect();
        Ok(keys.iter().filter(|key| spilled.remove(key).is_ok()).count() as u64)
    }

    fn retire_stacks(&mut self, batch: &Batch) -> io::Result<()> {
        let Some(Map::Array(index)) = self.ebpf.map("STACK_INDEX") else { return Err(missing("STACK_INDEX")) };
        let index = ArrayMemory::<StackSlot>::of(index)?;
        // First no search finds the ids any more, then they are handed out again.
        for n in 0..index.len() {
            let id = slot_id(&index, n);
            let seen = id.load(SeqCst);
            if seen != 0
                && seen < STACK_SLOT_RETIRED
                && self.stacks.get(seen as usize).is_some_and(|record| batch.has_stack(&record))
            {
                id.store(STACK_SLOT_RETIRED, SeqCst);
            }
        }
        shorten_searches(&index);
        let mut n_freed = 0_u64;
        for id in self.first_stack()..self.n_stacks() {
            if let Some(record) = self.stacks.get(id).filter(|record| batch.has_stack(record)) {
                self.free_stack(id as u32, record);
                n_freed += 1;
            }
        }
        log::debug!("{n_freed} stacks are free again");
        Ok(())
    }

    fn free_stack(&self, id: u32, record: StackRecord) {
        self.totals.set(id as usize, StackTotals::default());
        self.stack_threads.set(id as usize, StackThread::default());
        let head = self.cursor(offset_of!(Cursors, free_stacks) + 8 * usize::from(record.class));
        loop {
            let list = FreeList(head.load(SeqCst));
            let free = StackRecord {
                frames_start: record.frames_start,
                class: record.class,
                target: list.first(),
                ..StackRecord::default()
            };
            self.stacks.set(id as usize, free);
            if head.compare_exchange(list.0, list.changed_to(id).0, SeqCst, SeqCst).is_ok() {
                return;
            }
        }
    }
}

/// Returns when every program that runs now has come to its end: programs of uprobes and raw tracepoints run as RCU readers, and
/// `MEMBARRIER_CMD_GLOBAL` is `synchronize_rcu` (kernel/sched/membarrier.c).
pub(super) fn grace_period() {
    // SAFETY: a system call without pointers.
    let failed = unsafe { libc::syscall(libc::SYS_membarrier, libc::MEMBARRIER_CMD_GLOBAL, 0, 0) } != 0;
    if failed {
        log::debug!("membarrier: {}", io::Error::last_os_error());
        std::thread::sleep(GRACE);
    }
}

/// Empties a slot whose target is retired: nobody else writes it, as its target has ended.
fn take_slot(bucket: *mut Bucket, slot: usize, batch: &Batch) -> bool {
    // SAFETY: a slot of a bucket in map memory; the programs change it by atomics.
    let (key, packed) = unsafe {
        (AtomicU64::from_ptr(&raw mut (*bucket).keys[slot]), AtomicU64::from_ptr(&raw mut (*bucket).packed[slot]))
    };
    let seen = key.load(SeqCst);
    if seen == 0 || !batch.has_number(target_of_key(seen)) {
        return false;
    }
    packed.store(0, SeqCst);
    key.store(0, SeqCst);
    true
}

fn slot_id(index: &ArrayMemory<StackSlot>, n: usize) -> &AtomicU64 {
    let slot = index.element(n).expect("below the length");
    // SAFETY: an aligned word of map memory, which lives as long as `index`; the programs change it by atomics.
    unsafe { AtomicU64::from_ptr(&raw mut (*slot).id) }
}

/// A retired slot before a free one ends no search that a free one would not: it becomes free. From the end, so that a whole row of them
/// does; a program that claims one at the same moment wins, and a stack that it puts behind is found to be new once more.
fn shorten_searches(index: &ArrayMemory<StackSlot>) {
    let mut next_is_free = slot_id(index, 0).load(SeqCst) == 0;
    for n in (0..index.len()).rev() {
        let id = slot_id(index, n);
        next_is_free = match id.load(SeqCst) {
            0 => true,
            STACK_SLOT_RETIRED if next_is_free => id.compare_exchange(STACK_SLOT_RETIRED, 0, SeqCst, SeqCst).is_ok(),
            _ => false,
        };
    }
}
