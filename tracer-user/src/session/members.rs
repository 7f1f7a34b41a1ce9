//! Processes that join, change and leave: what the kernel side notices, looked up and put where the rest of the session sees it.

use std::{collections::BTreeSet, sync::Arc};

use tracer_common::abi::{Target, TargetState, target_flags};

use super::{
    error::{TraceError, check_return_probes},
    files::Unplaced,
    program::go_on,
    traced::Traced,
    tracer::{Main, Origin, Tracer},
    who::{is_of_start, start_ns, stats_of, stats_of_ended},
};
use crate::{
    bpf::{Notice, Reach, TargetNumber},
    scope::Facts,
    snapshot::ModuleId,
    target::{Process, ProcessError},
    text::chain,
};

impl Tracer {
    /// Acts on notices of a scope of many. Processes of our own tree that stand until they are let go come back.
    pub(super) fn take_notices(&mut self, notices: &[Notice]) -> BTreeSet<u32> {
        let mut stopped = BTreeSet::new();
        let became: BTreeSet<TargetNumber> = notices.iter().filter_map(exec_of).collect();
        let mut to_look_at = BTreeSet::new();
        for notice in notices {
            match *notice {
                Notice::Joined { target, .. } => self.join(target, None, true),
                Notice::Fork { parent, child: Some(child), .. } => self.join(child, parent, !became.contains(&child)),
                Notice::Fork { child_tgid, .. } => self.join_by_facts(child_tgid),
                Notice::Exec { tgid, old, new, by_thread } => {
                    if let Some(new) = new {
                        if by_thread && let Err(error) = self.renew_probes(tgid) {
                            log::info!("{}", chain(&error));
                        }
                        self.join(new, old, true);
                        self.becomes(tgid, old, new);
                    } else {
                        self.join_by_facts(tgid);
                    }
                    if self.origin == Origin::Child {
                        stopped.insert(tgid);
                    }
                }
                Notice::Libraries { target, tgid, .. } => {
                    to_look_at.extend(target);
                    if self.origin == Origin::Child {
                        stopped.insert(tgid);
                    }
                }
                Notice::UnknownCode { target, .. } => {
                    to_look_at.insert(target);
                }
                Notice::Exited { .. } => {}
            }
        }
        for number in to_look_at {
            if let Err(error) = self.look_again(number) {
                self.tell_of_untraced(number, &error);
            }
        }
        stopped
    }

    /// Looks at every process's mappings again.
    ///
    /// # Errors
    /// Of a single process: they could not be read (it has ended), or a probe was refused.
    pub fn refresh(&mut self) -> Result<(), TraceError> {
        let numbers: Vec<TargetNumber> = self.targets.keys().copied().collect();
        for number in numbers {
            match self.look_again(number) {
                Err(error) if self.is_many => self.tell_of_untraced(number, &error),
                looked => looked?,
            }
        }
        Ok(())
    }

    /// Compares with the kernel side's own list: notices may be lost.
    pub(super) fn reconcile(&mut self) {
        for (number, target) in self.kernel.targets() {
            if self.targets.get(&number).is_none_or(|known| known.serial != target.serial) {
                let parent = (target.parent > 0).then_some(TargetNumber(target.parent));
                self.join(number, parent, true);
            }
        }
    }

    /// Takes in a process that the kernel side counts already. `is_itself`: it has not become another program since.
    fn join(&mut self, number: TargetNumber, parent: Option<TargetNumber>, is_itself: bool) {
        let Some(target) = self.kernel.target(number) else { return };
        if self.targets.get(&number).is_some_and(|known| known.serial == target.serial) {
            return;
        }
        let mut traced = self.first_look(number, &target, parent, is_itself);
        traced.stats.joined_at = self.since_began(target.joined_at_ns);
        traced.stats.from_start = self.is_from_start(&target, parent);
        let pid = target.tgid;
        self.know_break(&traced);
        // It ended before anybody saw its files: perhaps none of them had probes.
        let is_unseen = traced.process.is_none() && traced.mapped.is_empty() && target.totals.peak.peak_bytes == 0;
        self.targets.insert(number, traced);
        if is_unseen {
            self.set_late(number);
        }
        self.kernel.add_flags(number, self.flags() & target_flags::FOLLOW);
        let opened = self.open_probes(pid).and_then(|()| self.look_again(number));
        if let Err(error) = opened {
            self.tell_of_untraced(number, &error);
        }
        self.say_joined(number);
    }

    /// Logs that a process joined, once its files are read.
    fn say_joined(&mut self, number: TargetNumber) {
        let Some(traced) = self.targets.get_mut(&number) else { return };
        if !traced.is_announced && traced.mapped.iter().all(|id| self.files.is_known(*id)) {
            traced.is_announced = true;
            log::info!("pid {} joined", traced.stats.pid);
        }
    }

    /// Whether all of its allocations are seen: it began with an exec and stood until its files were read, or all probes were there
    /// already; or it was forked by one of which that holds, and had its probes with its memory.
    fn is_from_start(&self, target: &Target, parent: Option<TargetNumber>) -> bool {
        let is_parent =
            || parent.and_then(|parent| self.targets.get(&parent)).is_some_and(|parent| parent.stats.from_start);
        let has_probes = self.reach == Reach::Everyone || self.origin == Origin::Child;
        let began = target.flags & target_flags::FROM_EXEC != 0;
        let inherited = target.flags & target_flags::INHERITED != 0;
        has_probes && (began || (inherited && is_parent()))
    }

    /// Who a new target is, with its parent's mappings where it has them still.
    fn first_look(
        &mut self,
        number: TargetNumber,
        target: &Target,
        parent: Option<TargetNumber>,
        is_itself: bool,
    ) -> Traced {
        let pid = target.tgid;
        let lives = is_itself && TargetState::from_u32(target.state) == TargetState::Active;
        let process = lives.then(|| Process::open(pid).ok()).flatten().map(Arc::new);
        let facts = Facts::read(pid).ok().filter(|facts| lives && is_of_start(facts, target.start_ns));
        // Unless it has become another program meanwhile, whose facts they are.
        let facts = facts.filter(|_| self.is_counted(number, target.serial));
        let parent = parent.and_then(|parent| self.targets.get(&parent));
        let stats = match &facts {
            Some(facts) => stats_of(facts, &mut self.containers),
            None => stats_of_ended(target, parent.map(|parent| &parent.stats)),
        };
        // Where it is not the process that was meant, another has its id by now.
        let process = process.filter(|_| facts.is_some());
        let mut traced = Traced::new(target.serial, process, stats);
        if let Some(parent) = parent.filter(|_| target.flags & target_flags::INHERITED != 0) {
            traced.mappings = parent.mappings.clone();
            traced.mapped.clone_from(&parent.mapped);
            traced.stats.parent_pid = Some(parent.stats.pid);
        }
        traced
    }

    /// Whether the number is still this target's, and it has not ended.
    fn is_counted(&self, number: TargetNumber, serial: u32) -> bool {
        self.kernel
            .target(number)
            .is_some_and(|target| target.serial == serial && TargetState::from_u32(target.state) == TargetState::Active)
    }

    /// A process that the kernel side does not count: it may be one that is selected by what `/proc` tells of it.
    fn join_by_facts(&mut self, pid: u32) {
        let Some(selection) = self.selection.as_ref().filter(|selection| selection.needs_facts()) else { return };
        let Ok(facts) = Facts::read(pid) else { return };
        if selection.selects(&facts) && self.kernel.target_of(pid).is_none() {
            self.add(&facts);
        }
    }

    /// Counts a process from here on.
    pub(super) fn add(&mut self, facts: &Facts) {
        let added = Process::open(facts.pid).map_err(TraceError::from).and_then(|process| {
            check_return_probes(&process)?;
            Ok(self.kernel.add_target(facts.pid, start_ns(facts), self.flags())?)
        });
        match added {
            Ok(number) => {
                self.join(number, None, true);
                // It has run since the notice of its exec or fork.
                if self.begun {
                    self.set_late(number);
                }
            }
            Err(TraceError::Process(ProcessError::NoSuchProcess { .. } | ProcessError::Zombie { .. })) => {}
            Err(error) => self.note(format!("not traced: {}", chain(&error))),
        }
    }

    /// The main process keeps its place when it becomes another program.
    fn becomes(&mut self, tgid: u32, old: Option<TargetNumber>, new: TargetNumber) {
        if let Some(main) = self.main
            && (main.pid == tgid || old == Some(main.number))
        {
            self.main = Some(Main { pid: tgid, number: new });
        }
    }

    /// Reads a process's mappings: new files' rows and probes go into the kernel.
    fn look_again(&mut self, number: TargetNumber) -> Result<(), TraceError> {
        // Once more behind a dynamic loader that was not probed yet: what it mapped meanwhile it told nobody.
        while self.look_once(number)? {}
        Ok(())
    }

    /// Whether a dynamic loader was among the new files.
    fn look_once(&mut self, number: TargetNumber) -> Result<bool, TraceError> {
        let Some(traced) = self.targets.get_mut(&number) else { return Ok(false) };
        let found = traced.look(&mut self.files)?;
        if found.changed {
            if self.reads_aside() {
                self.files.read_aside(&found.fresh);
            } else {
                let read = self.files.read(&found.fresh, &|_| ());
                self.place(read)?;
            }
            self.put_mappings(number);
        }
        let known: Vec<ModuleId> = found.newly_mapped.iter().copied().filter(|id| self.files.is_known(*id)).collect();
        let is_new_loader =
            |id: &ModuleId| !self.attached.contains_key(id) && self.files.facts(*id).library_notice.is_some();
        let has_new_loader = known.iter().any(is_new_loader);
        self.attach(&known)?;
        self.judge_lateness(number, &known);
        Ok(has_new_loader)
    }

    /// Whether new files are read while the session goes on: where nobody stands until they are, and others come meanwhile.
    fn reads_aside(&self) -> bool {
        self.is_many && self.begun && self.origin == Origin::Attached
    }

    fn place(&mut self, read: Unplaced) -> Result<(), TraceError> {
        for note in self.files.place(read, &self.kernel)? {
            self.note(note);
        }
        Ok(())
    }

    /// Tells the kernel side where a process's files lie.
    fn put_mappings(&mut self, number: TargetNumber) {
        let traced = &self.targets[&number];
        let left_out = self.kernel.put_mappings(number, &traced.kernel_mappings(&self.files));
        if let Some(r_state) = traced.r_state(&self.files) {
            self.kernel.watch_libraries(number, r_state);
        }
        if left_out > 0 {
            let (pid, comm) = (traced.stats.pid, traced.stats.comm.clone());
            let which = if self.is_many { format!("pid {pid} ({comm}): ") } else { String::new() };
            self.note(format!(
                "{which}{left_out} executable mappings do not fit the table: stacks through them are truncated"
            ));
        }
    }

    /// A file was read aside: its rows, then the mappings of all processes that have it, then its probes.
    pub(super) fn take_read(&mut self, read: Unplaced) {
        let ids: Vec<ModuleId> = read.iter().map(|(id, _)| *id).collect();
        if let Err(error) = self.place(read) {
            self.note(chain(&error));
        }
        let has_it = |traced: &Traced| ids.iter().any(|id| traced.mapped.contains(id));
        let having: Vec<TargetNumber> = self
            .targets
            .iter()
            .filter(|(number, traced)| has_it(traced) && self.is_counted(**number, traced.serial))
            .map(|(number, _)| *number)
            .collect();
        for number in &having {
            self.put_mappings(*number);
        }
        if let Err(error) = self.attach(&ids) {
            self.note(chain(&error));
        }
        let has_loader = ids.iter().any(|id| self.files.facts(*id).library_notice.is_some());
        for number in having {
            self.judge_lateness(number, &ids);
            if has_loader && let Err(error) = self.look_again(number) {
                self.tell_of_untraced(number, &error);
            }
            self.say_joined(number);
        }
    }

    /// Whether a process that came while tracing ran with these files before they had probes.
    fn judge_lateness(&mut self, number: TargetNumber, newly_mapped: &[ModuleId]) {
        const CAME: u32 = target_flags::FROM_EXEC | target_flags::INHERITED;
        let Some(target) = self.kernel.target(number).filter(|_| self.begun && self.origin == Origin::Attached) else {
            return;
        };
        let joined_at_ns = target.joined_at_ns;
        let is_late =
            |id: &ModuleId| self.files.has_sites(*id) && self.attached.get(id).is_some_and(|at| *at > joined_at_ns);
        if target.flags & CAME != 0 && newly_mapped.iter().any(is_late) {
            self.set_late(number);
        }
    }

    /// A process ran before its files had probes.
    fn set_late(&mut self, number: TargetNumber) {
        let Some(traced) = self.targets.get_mut(&number) else { return };
        traced.stats.from_start = false;
        if !std::mem::replace(&mut traced.is_late, true) {
            self.n_joined_late += 1;
        }
    }

    /// What went wrong with one process of many; that it has ended is no news.
    fn tell_of_untraced(&mut self, number: TargetNumber, error: &TraceError) {
        let Some(traced) = self.targets.get(&number) else { return };
        let is_active = self.kernel.target(number).is_some_and(|target| target.ended_at_ns == 0);
        if is_active && traced.is_running() {
            let (pid, comm) = (traced.stats.pid, traced.stats.comm.clone());
            self.note(format!("pid {pid} ({comm}) is not traced completely: {}", chain(error)));
        }
    }

    /// Holds that return probes would kill no process now.
    ///
    /// # Errors
    /// They would kill a single target. One of many is noted, and is no more traced.
    pub(super) fn check_still_safe(&mut self) -> Result<(), TraceError> {
        for (number, process) in self.open_processes() {
            let Err(error) = check_return_probes(&process) else { continue };
            if !self.is_many {
                return Err(error);
            }
            if process.is_running() {
                self.note(error.to_string());
                self.kernel.release_process(process.pid);
                self.kernel.end_target(number);
            }
        }
        Ok(())
    }

    fn open_processes(&self) -> Vec<(TargetNumber, Arc<Process>)> {
        self.targets
            .iter()
            .filter_map(|(number, traced)| Some((*number, Arc::clone(traced.process.as_ref()?))))
            .collect()
    }

    /// Whether the scope has, or may come to have, more processes than one.
    pub(super) fn is_many(&self) -> bool {
        self.is_many
    }

    /// Number of processes that are counted now.
    fn n_living(&self) -> usize {
        let targets = self.kernel.targets();
        targets.iter().filter(|(_, target)| target.state == TargetState::Active as u32).count()
    }

    /// Whether processes may still come by which the scope is met.
    pub(super) fn may_grow(&self) -> bool {
        self.selection
            .as_ref()
            .is_some_and(|selection| selection.is_all() || selection.needs_facts() || selection.goes_by_groups())
    }

    /// Whether the scope has no process, but may come to have one.
    pub(super) fn is_waiting(&self) -> bool {
        self.may_grow() && self.n_living() == 0
    }

    /// Whether nothing will happen any more.
    pub(super) fn is_over(&self) -> bool {
        !self.may_grow() && self.n_living() == 0
    }

    /// Whatever stands for us goes on: nothing is stopped once counting has ended.
    pub(super) fn let_go(&self) {
        if self.origin != Origin::Child {
            return;
        }
        for (_, target) in self.kernel.targets() {
            if target.state == TargetState::Active as u32 {
                go_on(target.tgid);
            }
        }
    }

    /// Containers that were started since, or again, and processes that came into a group.
    pub(super) fn look_for_groups(&mut self) {
        let Some(selection) = self.selection.as_mut().filter(|selection| selection.goes_by_groups()) else { return };
        selection.look_again();
        let groups: Vec<u64> = selection.cgroups().iter().map(|group| group.id).collect();
        let members = selection.members();
        if groups != self.groups
            && let Err(error) = self.select_in_kernel()
        {
            self.note(chain(&error));
        }
        // Those that were moved into a group make no exec, and their first hit may be in a file that has no probes yet.
        for pid in members {
            if self.kernel.target_of(pid).is_none()
                && let Ok(facts) = Facts::read(pid)
                && !facts.is_zombie
                && self.selection.as_ref().is_some_and(|selection| selection.selects(&facts))
            {
                self.add(&facts);
            }
        }
    }

    /// Whether others than those that are traced pay for the probes.
    pub(super) fn reaches_everyone(&self) -> bool {
        self.reach == Reach::Everyone
    }
}

/// The target that an exec ended.
fn exec_of(notice: &Notice) -> Option<TargetNumber> {
    match notice {
        Notice::Exec { old, .. } => *old,
        _ => None,
    }
}
