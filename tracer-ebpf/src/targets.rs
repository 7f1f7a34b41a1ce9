//! Which target a hit belongs to, who joins, and how targets begin and end.

use core::ffi::c_void;

use aya_ebpf::helpers::{bpf_loop, generated};
use tracer_common::{
    abi::{COMM_BYTES, EventKind, FreeList, ScopeTotals, Target, TargetRef, TargetState, target_flags},
    counters::Counter,
    limits::MAX_CGROUP_LEVELS,
};

use crate::{
    account::now_ns,
    atomic,
    counters::bump,
    maps::{CURSORS, SCOPE, SCOPE_CGROUPS, TARGET_OF, TARGETS, control},
    process::notify,
    task::Task,
};

/// A target whose hit is being counted.
#[derive(Clone, Copy)]
pub struct Counted {
    /// Its number.
    pub number: u32,
    /// Its element of the table, in map memory.
    pub element: *mut Target,
}

/// `BPF_ANY`, `BPF_NOEXIST` (include/uapi/linux/bpf.h).
const ANY: u64 = 0;
const NO_EXIST: u64 = 1;

/// The entry of a process that found no free number: it is counted once.
const REFUSED: TargetRef = TargetRef { number: 0, serial: u32::MAX };

/// The target with this number, if it is the one with this serial and counted.
#[inline(always)]
pub fn counted(number: u32, serial: u32) -> Option<Counted> {
    let element = TARGETS.get_ptr_mut(number)?;
    // SAFETY: an element of the table.
    let is_counted = serial != 0 && unsafe { (&raw const (*element).counted).read_volatile() } == serial;
    is_counted.then_some(Counted { number, element })
}

/// What the map has of a process, in date or not.
#[inline(always)]
pub fn entry_of(tgid: u32) -> Option<TargetRef> {
    // SAFETY: the value is copied at once.
    unsafe { TARGET_OF.get(tgid) }.copied()
}

/// The living target that a process belongs to; one of the scope joins. As a word: the number, and from bit 32 the serial; 0 = none.
#[inline(never)]
pub fn find_or_join(tgid: u32) -> u64 {
    let entry = entry_of(tgid);
    if let Some(of) = entry
        && counted(of.number, of.serial).is_some()
    {
        return word(of);
    }
    if !in_scope(tgid) {
        return 0;
    }
    join(tgid, entry, 0)
}

/// The current process, which nobody counts, has called exec: one of the scope joins before its program's first instruction.
#[inline(always)]
pub fn join_at_exec(tgid: u32) -> bool {
    in_scope(tgid) && join(tgid, None, target_flags::FROM_EXEC) != 0
}

/// A [`find_or_join`] word's target.
#[inline(always)]
pub fn of_word(word: u64) -> TargetRef {
    TargetRef { number: word as u32, serial: (word >> 32) as u32 }
}

#[inline(always)]
fn word(of: TargetRef) -> u64 {
    u64::from(of.number) | (u64::from(of.serial) << 32)
}

/// The current process becomes a target, with these flags. Several of its threads may come at once.
#[inline(always)]
fn join(tgid: u32, entry: Option<TargetRef>, flags: u32) -> u64 {
    let Some(number) = take_number() else {
        if entry != Some(REFUSED) {
            bump(Counter::TargetsFull);
            let _full = TARGET_OF.insert(tgid, REFUSED, ANY);
        }
        return 0;
    };
    if entry.is_some() {
        // Out of date: a target that was ended, an alias whose parent has ended, or one that was refused.
        let _gone = TARGET_OF.remove(tgid);
    }
    let of = begin(
        number,
        &Birth { tgid, leader: Task::current().leader(), flags: flags | target_flags::JOINED, parent: 0, mappings: 0 },
    );
    if TARGET_OF.insert(tgid, of, NO_EXIST).is_err() {
        give_back(number);
        // Another thread of the process was first.
        return match entry_of(tgid) {
            Some(of) if of.number != 0 => word(of),
            _ => 0,
        };
    }
    bump(Counter::Joined);
    notify(EventKind::Joined, number, 0, 0);
    word(of)
}

/// What a new target begins with.
pub struct Birth {
    /// Its process.
    pub tgid: u32,
    /// Its first thread, whose start time is the process's.
    pub leader: Task,
    /// Bits of [`target_flags`].
    pub flags: u32,
    /// The target that it comes from.
    pub parent: u32,
    /// Its list of mappings.
    pub mappings: u64,
}

/// A target begins under a number that was free, so that all of it was zero but the link.
#[inline(always)]
pub fn begin(number: u32, birth: &Birth) -> TargetRef {
    let (Some(element), Some(cursors)) = (TARGETS.get_ptr_mut(number), CURSORS.get_ptr_mut(0)) else { return REFUSED };
    // SAFETY: pointers into map memory; the element is this call's alone until its number is in the map of targets.
    unsafe {
        (&raw mut (*element).state).write_volatile(TargetState::Joining as u32);
        let mut serial = atomic::fetch_add(&raw mut (*cursors).last_serial, 1).wrapping_add(1) as u32;
        if serial == 0 {
            serial = atomic::fetch_add(&raw mut (*cursors).last_serial, 1).wrapping_add(1) as u32;
        }
        (*element).serial = serial;
        (*element).tgid = birth.tgid;
        (*element).flags = birth.flags;
        (*element).parent = birth.parent;
        (*element).start_ns = birth.leader.start_ns();
        (*element).cgroup = generated::bpf_get_current_cgroup_id();
        (*element).uid = generated::bpf_get_current_uid_gid() as u32;
        (*element).joined_at_ns = now_ns();
        (*element).mappings = birth.mappings;
        // The parent's at a fork, which is the child's too; the new program's at an exec.
        generated::bpf_get_current_comm((&raw mut (*element).comm).cast(), COMM_BYTES as u32);
        if birth.flags & target_flags::INHERITED != 0
            && let Some(parent) = TARGETS.get_ptr_mut(birth.parent)
        {
            (*element).r_state_addr = (*parent).r_state_addr;
            (*element).inherited_bytes = (*parent).totals.peak.current_bytes;
            (*element).inherited_blocks = (*parent).totals.n_blocks;
        }
        (&raw mut (*element).counted).write_volatile(serial);
        (&raw mut (*element).state).write_volatile(TargetState::Active as u32);
        TargetRef { number, serial }
    }
}

/// A living target ends; `false` when it had ended already.
#[inline(always)]
pub fn end(target: Counted, how: TargetState) -> bool {
    let element = target.element;
    // SAFETY: pointers into map memory.
    unsafe {
        if !atomic::compare_exchange_32(&raw mut (*element).state, TargetState::Active as u32, how as u32) {
            return false;
        }
        (&raw mut (*element).counted).write_volatile(0);
        (*element).ended_at_ns = now_ns();
        let left = (&raw const (*element).totals.peak.current_bytes).read_volatile();
        (*element).left_bytes = left;
        if let Some(scope) = SCOPE.get_ptr_mut(0) {
            let scope: *mut ScopeTotals = scope;
            atomic::fetch_add(&raw mut (*scope).peak.current_bytes, left.wrapping_neg());
        }
    }
    true
}

/// Makes a process belong to a target.
#[inline(always)]
pub fn set_entry(tgid: u32, of: TargetRef) -> bool {
    TARGET_OF.insert(tgid, of, ANY).is_ok()
}

/// Forgets a process.
#[inline(always)]
pub fn remove_entry(tgid: u32) {
    let _gone = TARGET_OF.remove(tgid);
}

/// Takes a free number.
#[inline(always)]
pub fn take_number() -> Option<u32> {
    let cursors = CURSORS.get_ptr_mut(0)?;
    // SAFETY: a pointer into map memory.
    let head = unsafe { &raw mut (*cursors).free_targets };
    // A lost exchange means that another process came or went; eight of those in a row do not happen.
    for _attempt in 0..8 {
        // SAFETY: pointers into map memory.
        let list = FreeList(unsafe { head.read_volatile() });
        let number = list.first();
        if number == 0 {
            return None;
        }
        let element = TARGETS.get_ptr_mut(number)?;
        // SAFETY: as above; where the list is changed meanwhile, the exchange fails.
        let next = unsafe { (&raw const (*element).parent).read_volatile() };
        if atomic::compare_exchange(head, list.0, list.changed_to(next).0) {
            return Some(number);
        }
    }
    None
}

/// Gives a number back under which nothing was counted.
#[inline(always)]
pub fn give_back(number: u32) {
    let (Some(element), Some(cursors)) = (TARGETS.get_ptr_mut(number), CURSORS.get_ptr_mut(0)) else { return };
    // SAFETY: pointers into map memory; the element is this call's alone until it is in the list.
    unsafe {
        (&raw mut (*element).counted).write_volatile(0);
        (&raw mut (*element).state).write_volatile(TargetState::Free as u32);
        (*element).r_state_addr = 0;
        (*element).inherited_bytes = 0;
        (*element).inherited_blocks = 0;
        let head = &raw mut (*cursors).free_targets;
        for _attempt in 0..8 {
            let list = FreeList(head.read_volatile());
            (&raw mut (*element).parent).write_volatile(list.first());
            if atomic::compare_exchange(head, list.0, list.changed_to(number).0) {
                return;
            }
        }
    }
}

struct Levels {
    wanted: u32,
    found: u32,
}

/// Whether the current process, which has this id, is in the kernel's scope.
#[inline(always)]
pub fn in_scope(tgid: u32) -> bool {
    let Some(control) = control() else { return false };
    if tgid == control.own_tgid {
        return false;
    }
    if control.scope_all != 0 {
        return true;
    }
    if control.cgroup_levels == 0 {
        return false;
    }
    let mut levels = Levels { wanted: control.cgroup_levels, found: 0 };
    // SAFETY: the callback's signature is what bpf_loop calls; `levels` outlives the call.
    unsafe { bpf_loop(MAX_CGROUP_LEVELS, look_at_level as *mut c_void, (&raw mut levels).cast(), 0) };
    levels.found != 0
}

unsafe extern "C" fn look_at_level(n: u32, levels: *mut Levels) -> i64 {
    // SAFETY: bpf_loop hands back the pointer that it was given.
    let levels = unsafe { &mut *levels };
    let rest = levels.wanted >> (n & 31);
    if rest == 0 {
        return 1;
    }
    if rest & 1 == 0 {
        return 0;
    }
    // SAFETY: a helper without pointers; 0 where the process's cgroup lies higher.
    let id = unsafe { generated::bpf_get_current_ancestor_cgroup_id(n as i32) };
    // SAFETY: the value is copied at once.
    if id != 0 && unsafe { SCOPE_CGROUPS.get(id) }.copied() == Some(n) {
        levels.found = 1;
        return 1;
    }
    0
}
