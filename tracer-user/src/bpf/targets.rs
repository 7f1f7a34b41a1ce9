//! The processes that are counted: what selects them, who joins, who ends.

use std::{
    mem::offset_of,
    sync::atomic::{AtomicU32, AtomicU64, Ordering::SeqCst},
};

use aya::maps::{HashMap, MapData, MapError};
use thiserror::Error;
use tracer_common::{
    abi::{Control, Cursors, FreeList, Mapping, ScopeTotals, Target, TargetRef, TargetState, UID_UNKNOWN},
    counters::PER_TARGET,
    limits::{MAX_CGROUP_LEVELS, MAX_CGROUPS},
};

use super::{clock::monotonic_ns, kernel::Kernel};
use crate::snapshot::Counters;

/// A target's place in the kernel's tables: 1 or more. It is another process's once the target is retired;
/// [`Target::serial`] is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TargetNumber(pub u32);

impl TargetNumber {
    /// The number that the programs tell; `None` for 0.
    pub(super) fn of(number: u32) -> Option<Self> {
        (number > 0).then_some(Self(number))
    }
}

/// What the kernel side itself takes in, at a process's first hit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KernelScope {
    /// Everyone.
    pub all: bool,
    /// Cgroups (v2): id, and levels below the root of the hierarchy. Those below them are meant too.
    pub cgroups: Vec<(u64, u32)>,
    /// The tracer's own process, which never joins.
    pub own_tgid: u32,
    /// Forks and execs of processes that are no targets are announced too.
    pub watch_everyone: bool,
}

/// Why a process is not counted.
#[derive(Debug, Error)]
pub enum TargetError {
    /// All target numbers are taken.
    #[error("the table of processes is full ({0} of them)")]
    Full(u32),
    /// Cgroups of the scope do not fit.
    #[error("a scope of more than {MAX_CGROUPS} cgroups, or of some more than {MAX_CGROUP_LEVELS} levels deep")]
    Cgroups,
    /// A map could not be written.
    #[error("failed to write BPF map `{name}`")]
    Map {
        /// Its name.
        name: &'static str,
        /// What the kernel said.
        source: MapError,
    },
}

/// `BPF_NOEXIST` (include/uapi/linux/bpf.h).
const NO_EXIST: u64 = 1;

impl Kernel {
    /// Selects what joins by itself. Processes that have joined already stay.
    ///
    /// # Errors
    /// Too many cgroups.
    pub fn set_scope(&mut self, scope: &KernelScope) -> Result<(), TargetError> {
        let too_deep = scope.cgroups.iter().any(|(_, level)| *level >= MAX_CGROUP_LEVELS);
        if too_deep || scope.cgroups.len() > MAX_CGROUPS as usize {
            return Err(TargetError::Cgroups);
        }
        let failed = |source| TargetError::Map { name: "SCOPE_CGROUPS", source };
        let map = self.ebpf.map_mut("SCOPE_CGROUPS").expect("the object has every map of the list");
        let mut cgroups: HashMap<_, u64, u32> = HashMap::try_from(map).map_err(failed)?;
        let earlier: Vec<u64> = cgroups.keys().filter_map(Result::ok).collect();
        for id in earlier.into_iter().filter(|id| !scope.cgroups.iter().any(|(kept, _)| kept == id)) {
            cgroups.remove(&id).map_err(failed)?;
        }
        for (id, level) in &scope.cgroups {
            cgroups.insert(id, level, 0).map_err(failed)?;
        }
        let levels = scope.cgroups.iter().fold(0, |levels, (_, level)| levels | 1_u32 << level);
        self.write_control(offset_of!(Control, own_tgid), scope.own_tgid);
        self.write_control(offset_of!(Control, watch_everyone), u32::from(scope.watch_everyone));
        self.write_control(offset_of!(Control, cgroup_levels), levels);
        self.write_control(offset_of!(Control, scope_all), u32::from(scope.all));
        Ok(())
    }

    /// A process is counted from here on (while [`Kernel::counting`]), without mappings yet; see [`Kernel::add_mapped_target`].
    ///
    /// # Errors
    /// As [`Kernel::add_mapped_target`].
    pub fn add_target(&mut self, tgid: u32, start_ns: u64, flags: u32) -> Result<TargetNumber, TargetError> {
        self.add_mapped_target(tgid, start_ns, flags, &[])
    }

    /// A process is counted from here on (while [`Kernel::counting`]), and its mappings are known from its first hit on. `start_ns`:
    /// CLOCK_BOOTTIME, by the ticks of `/proc/PID/stat`. `flags`: those of `tracer_common::abi::target_flags`. One that is a target already keeps its
    /// number and its list and gets the flags in addition.
    ///
    /// # Errors
    /// There is no room for it.
    pub fn add_mapped_target(
        &mut self,
        tgid: u32,
        start_ns: u64,
        flags: u32,
        mappings: &[Mapping],
    ) -> Result<TargetNumber, TargetError> {
        if let Some(number) = self.target_of(tgid) {
            self.add_flags(number, flags);
            return Ok(number);
        }
        let number = self.take_number().ok_or(TargetError::Full(self.sizes().target_slots() - 1))?;
        let serial = self.next_serial();
        let element = self.targets.element(number.0 as usize).expect("numbers of the list lie in the table");
        let target = Target {
            serial,
            tgid,
            flags,
            start_ns,
            state: TargetState::Joining as u32,
            joined_at_ns: monotonic_ns(),
            uid: UID_UNKNOWN,
            ..Target::default()
        };
        // SAFETY: an element of the table; its number is this call's alone.
        unsafe { element.write_volatile(target) };
        if !mappings.is_empty() {
            self.put_mappings(number, mappings);
        }
        self.target_field_32(number, offset_of!(Target, counted)).store(serial, SeqCst);
        self.target_field_32(number, offset_of!(Target, state)).store(TargetState::Active as u32, SeqCst);
        let refused = match self.target_refs().insert(tgid, TargetRef { number: number.0, serial }, NO_EXIST) {
            Ok(()) => return Ok(number),
            Err(refused) => refused,
        };
        self.give_back(number);
        // The kernel side took it in meanwhile.
        if let Some(number) = self.target_of(tgid) {
            self.add_flags(number, flags);
            return Ok(number);
        }
        Err(TargetError::Map { name: "TARGET_OF", source: refused })
    }

    /// Counts a process no longer; its figures stay until it is retired. (One of the kernel side's scope joins again at its next
    /// hit.) Nothing happens to one that has ended.
    pub fn end_target(&mut self, number: TargetNumber) {
        let Some(target) = self.target(number) else { return };
        let state = self.target_field_32(number, offset_of!(Target, state));
        let (active, released) = (TargetState::Active as u32, TargetState::Released as u32);
        if state.compare_exchange(active, released, SeqCst, SeqCst).is_err() {
            return;
        }
        self.target_field_32(number, offset_of!(Target, counted)).store(0, SeqCst);
        self.target_field_64(number, offset_of!(Target, ended_at_ns)).store(monotonic_ns(), SeqCst);
        self.leave_scope(number);
        let mut refs = self.target_refs();
        let is_its = refs.get(&target.tgid, 0).is_ok_and(|of| of.serial == target.serial);
        if is_its && let Err(error) = refs.remove(&target.tgid) {
            log::debug!("pid {} is no target any more: {error}", target.tgid);
        }
    }

    /// A target as it is now, also one that has ended and is not retired.
    pub fn target(&self, number: TargetNumber) -> Option<Target> {
        let target = self.targets.get(number.0 as usize)?;
        let is_known = !matches!(TargetState::from_u32(target.state), TargetState::Free | TargetState::Joining);
        (number.0 > 0 && is_known).then_some(target)
    }

    /// All targets, those that have ended and are not retired included.
    pub fn targets(&self) -> Vec<(TargetNumber, Target)> {
        (1..self.targets.len() as u32)
            .map(TargetNumber)
            .filter(|number| self.state_of(*number) != TargetState::Free)
            .filter_map(|number| Some((number, self.target(number)?)))
            .collect()
    }

    /// The living target that a process belongs to: its own, or that of the process whose memory it shares.
    pub fn target_of(&self, tgid: u32) -> Option<TargetNumber> {
        let map = self.ebpf.map("TARGET_OF").expect("the object has every map of the list");
        let refs: HashMap<_, u32, TargetRef> = HashMap::try_from(map).expect("a hash map of these types");
        let of = refs.get(&tgid, 0).ok()?;
        let number = TargetNumber::of(of.number)?;
        self.target(number).filter(|target| target.counted == of.serial)?;
        Some(number)
    }

    /// Sets flags (`tracer_common::abi::target_flags`) in addition.
    pub fn add_flags(&self, number: TargetNumber, flags: u32) {
        self.target_field_32(number, offset_of!(Target, flags)).fetch_or(flags, SeqCst);
    }

    /// Where a target's dynamic loader keeps its state (`r_debug.r_state`).
    pub fn watch_libraries(&self, number: TargetNumber, r_state_addr: u64) {
        self.target_field_64(number, offset_of!(Target, r_state_addr)).store(r_state_addr, SeqCst);
    }

    /// What was lost of a target alone.
    pub fn losses(target: &Target) -> Counters {
        Counters(PER_TARGET.into_iter().zip(target.losses).collect())
    }

    /// The map from process id to target.
    fn target_refs(&mut self) -> HashMap<&mut MapData, u32, TargetRef> {
        let map = self.ebpf.map_mut("TARGET_OF").expect("the object has every map of the list");
        HashMap::try_from(map).expect("a hash map of these types")
    }

    pub(super) fn state_of(&self, number: TargetNumber) -> TargetState {
        TargetState::from_u32(self.target_field_32(number, offset_of!(Target, state)).load(SeqCst))
    }

    /// Its live bytes are no longer among those of all targets together. What calls in flight still change is set right when it is
    /// retired.
    fn leave_scope(&self, number: TargetNumber) {
        let Some(target) = self.target(number) else { return };
        let left = target.totals.peak.current_bytes;
        self.target_field_64(number, offset_of!(Target, left_bytes)).store(left, SeqCst);
        self.scope_field(offset_of!(ScopeTotals, peak)).fetch_sub(left, SeqCst);
    }

    /// Takes a free number.
    fn take_number(&self) -> Option<TargetNumber> {
        let head = self.cursor(offset_of!(Cursors, free_targets));
        loop {
            let list = FreeList(head.load(SeqCst));
            let number = TargetNumber::of(list.first())?;
            let next = self.target_field_32(number, offset_of!(Target, parent)).load(SeqCst);
            if head.compare_exchange(list.0, list.changed_to(next).0, SeqCst, SeqCst).is_ok() {
                return Some(number);
            }
        }
    }

    /// Gives a number back that no program uses any more.
    pub(super) fn give_back(&self, number: TargetNumber) {
        self.targets.set(number.0 as usize, Target::default());
        let head = self.cursor(offset_of!(Cursors, free_targets));
        loop {
            let list = FreeList(head.load(SeqCst));
            self.target_field_32(number, offset_of!(Target, parent)).store(list.first(), SeqCst);
            if head.compare_exchange(list.0, list.changed_to(number.0).0, SeqCst, SeqCst).is_ok() {
                return;
            }
        }
    }

    fn next_serial(&self) -> u32 {
        let last = self.cursor(offset_of!(Cursors, last_serial));
        // 0 means none; it comes again after 2^32 processes only.
        loop {
            let serial = last.fetch_add(1, SeqCst).wrapping_add(1) as u32;
            if serial != 0 {
                return serial;
            }
        }
    }

    pub(super) fn cursor(&self, offset: usize) -> &AtomicU64 {
        let cursors = self.cursors.element(0).expect("the map has one element");
        // SAFETY: an aligned word of the one element, which lives as long as `self`; both sides change it by atomics.
        unsafe { AtomicU64::from_ptr(cursors.cast::<u8>().add(offset).cast()) }
    }

    pub(super) fn scope_field(&self, offset: usize) -> &AtomicU64 {
        let scope = self.scope.element(0).expect("the map has one element");
        // SAFETY: as in `cursor`.
        unsafe { AtomicU64::from_ptr(scope.cast::<u8>().add(offset).cast()) }
    }

    /// `offset`: `offset_of!(Target, …)` of a 64-bit field.
    pub(super) fn target_field_64(&self, number: TargetNumber, offset: usize) -> &AtomicU64 {
        let target =
            self.targets.element(number.0 as usize).expect("numbers come from the programs or from `add_target`");
        // SAFETY: as in `cursor`.
        unsafe { AtomicU64::from_ptr(target.cast::<u8>().add(offset).cast()) }
    }

    /// `offset`: `offset_of!(Target, …)` of a 32-bit field.
    pub(super) fn target_field_32(&self, number: TargetNumber, offset: usize) -> &AtomicU32 {
        let target =
            self.targets.element(number.0 as usize).expect("numbers come from the programs or from `add_target`");
        // SAFETY: as in `cursor`.
        unsafe { AtomicU32::from_ptr(target.cast::<u8>().add(offset).cast()) }
    }
}
