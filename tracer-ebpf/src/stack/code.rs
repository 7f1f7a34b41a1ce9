//! pc → unwind rule: cache, else mapping, else the module's rows.

use core::ffi::c_void;

use aya_ebpf::helpers::bpf_loop;
use tracer_common::{
    abi::{EventKind, MAPPING_GENERATED, MappingList},
    unwind::{PackedRule, RuleKind, UnwindRule},
};

use crate::{
    maps::{MAPPINGS, PC_CACHE, PcCacheEntry, ROWS, RULES, UNKNOWN_PAGES, UNKNOWN_SLOTS, control},
    process, threads,
};

/// Odd, so that multiplication is a bijection; 2^64 / golden ratio.
const MIX: u64 = 0x9E37_79B9_7F4A_7C15;

/// Size of the pc cache minus one.
#[inline(always)]
pub fn cache_mask() -> u32 {
    control().map_or(0, |control| control.pc_cache_mask)
}

/// The rule that holds at `pc`; `None` when no mapping of the list covers it (the loader is told, once a page). `seed` is the list's,
/// `slot` the thread's, `mask` the cache's.
#[inline(always)]
pub fn rule_at(pc: u64, list: MappingList, seed: u64, slot: u32, mask: u32) -> Option<PackedRule> {
    let key = pc ^ seed;
    let at = (key.wrapping_mul(MIX) >> 32) as u32 & mask;
    let entry = PC_CACHE.get_ptr_mut(at)?;
    // SAFETY: a pointer into map memory. The two words may be torn by another thread's write; `check` finds that out.
    let PcCacheEntry { check, rule } = unsafe { entry.read_volatile() };
    if check == key ^ rule.wrapping_mul(MIX) {
        return Some(PackedRule(rule));
    }
    let rule = search(pc, list, slot)?;
    // SAFETY: as above.
    unsafe { entry.write_volatile(PcCacheEntry { check: key ^ rule.0.wrapping_mul(MIX), rule: rule.0 }) };
    Some(rule)
}

struct Search {
    key: u64,
    lo: u32,
    hi: u32,
}

#[inline(never)]
fn search(pc: u64, list: MappingList, slot: u32) -> Option<PackedRule> {
    // The last mapping that starts at or below pc lies in [lo, hi).
    let mut by_start = Search { key: pc, lo: list.start(), hi: list.start().wrapping_add(list.len()) };
    // SAFETY: the callback's signature is what bpf_loop calls; the struct outlives the call. 2^12 mappings at most.
    unsafe { bpf_loop(13, halve_mappings as *mut c_void, (&raw mut by_start).cast(), 0) };
    let mapping = MAPPINGS.get(by_start.lo)?;
    if list.is_empty() || pc < mapping.start || pc >= mapping.end {
        report_unknown(pc, list, slot);
        return None;
    }
    if mapping.kind == MAPPING_GENERATED {
        return Some(const { UnwindRule::of(RuleKind::FramePointer).pack() });
    }
    let offset = pc.wrapping_sub(mapping.bias);
    let mut by_row =
        Search { key: offset, lo: mapping.row_start, hi: mapping.row_start.wrapping_add(mapping.row_count) };
    // SAFETY: as above. 2^26 rows at most.
    unsafe { bpf_loop(27, halve_rows as *mut c_void, (&raw mut by_row).cast(), 0) };
    let row = ROWS.get(by_row.lo)?;
    if mapping.row_count == 0 || u64::from(row.offset) > offset {
        return Some(const { UnwindRule::of(RuleKind::None).pack() });
    }
    RULES.get(row.rule).copied()
}

unsafe extern "C" fn halve_mappings(_n: u32, search: *mut Search) -> i64 {
    // SAFETY: bpf_loop hands back the pointer that it was given.
    let search = unsafe { &mut *search };
    if search.hi.wrapping_sub(search.lo) <= 1 {
        return 1;
    }
    let middle = search.lo.wrapping_add(search.hi) / 2;
    let Some(mapping) = MAPPINGS.get(middle) else { return 1 };
    if mapping.start <= search.key {
        search.lo = middle
    } else {
        search.hi = middle
    }
    0
}

unsafe extern "C" fn halve_rows(_n: u32, search: *mut Search) -> i64 {
    // SAFETY: bpf_loop hands back the pointer that it was given.
    let search = unsafe { &mut *search };
    if search.hi.wrapping_sub(search.lo) <= 1 {
        return 1;
    }
    let middle = search.lo.wrapping_add(search.hi) / 2;
    let Some(row) = ROWS.get(middle) else { return 1 };
    if u64::from(row.offset) <= search.key {
        search.lo = middle
    } else {
        search.hi = middle
    }
    0
}

/// Tells the loader of code that no mapping covers: a library was opened, code was generated. Of a target without mappings, once.
fn report_unknown(pc: u64, list: MappingList, slot: u32) {
    let Some(slot) = threads::slot(slot) else { return };
    let page = if list.is_empty() { 0 } else { pc >> 12 };
    // Pages have 36 bits at most; of a serial, 28 tell targets of one time apart.
    let key = page ^ (u64::from(slot.serial) << 36);
    let at = (key.wrapping_mul(MIX) >> 40) as u32 & (UNKNOWN_SLOTS - 1);
    let Some(seen) = UNKNOWN_PAGES.get_ptr_mut(at) else { return };
    // SAFETY: a pointer into map memory; a race costs one more notice.
    unsafe {
        if *seen == key {
            return;
        }
        *seen = key;
    }
    process::notify(EventKind::UnknownCode, slot.target, pc, 0);
}
