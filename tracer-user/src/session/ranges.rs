//! The domain `mmap` of a running session: a thread that takes finished calls out of the kernel's buffer, and the model that they
//! make. The thread is one of its own so that a program that maps in bursts is kept up with while the session names frames.

use std::{
    io::{self, PipeReader, PipeWriter},
    os::fd::{AsRawFd as _, OwnedFd},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread::JoinHandle,
};

use tracer_common::counters::Counter;

use crate::{
    bpf::{Kernel, RangeEvents, RawStack, TargetNumber},
    ranges::{ProcessKey, ProcessRanges, Ranges},
    snapshot::Totals,
    target::data_segment::data_segment_end,
};

/// What is mapped, kept up to date until it is dropped.
pub(super) struct LiveRanges {
    state: Arc<Mutex<State>>,
    /// Closed, it ends the thread.
    stop: Option<PipeWriter>,
    thread: Option<JoinHandle<()>>,
}

/// The model, and what is yet to be applied to it.
struct State {
    events: RangeEvents,
    ranges: Ranges,
}

impl State {
    /// Applies all calls that have been told.
    fn catch_up(&mut self) {
        let Self { events, ranges } = self;
        events.drain(|event| ranges.take(event));
    }
}

impl LiveRanges {
    /// Begins to keep up with what the programs tell.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub(super) fn start(events: RangeEvents) -> io::Result<Self> {
        let readable = events.readable()?;
        let (stopped, stop) = io::pipe()?;
        let state = Arc::new(Mutex::new(State { events, ranges: Ranges::default() }));
        let shared = Arc::clone(&state);
        let follow = move || {
            while is_readable(&readable, &stopped) {
                lock(&shared).catch_up();
            }
        };
        let thread = std::thread::Builder::new().name("mappings".to_owned()).spawn(follow)?;
        Ok(Self { state, stop: Some(stop), thread: Some(thread) })
    }

    /// Looks at the model as it is when all calls that have returned until now are applied.
    fn read<T>(&self, look: impl FnOnce(&Ranges) -> T) -> T {
        let mut state = lock(&self.state);
        state.catch_up();
        look(&state.ranges)
    }

    /// Where the data segment of a process ends, unless it or its parent has told by a call.
    pub(super) fn know_break(&self, serial: u32, pid: u32) {
        // Read first: a call that is told until the model is asked knows better.
        match data_segment_end(pid) {
            Ok(end) => {
                let mut state = lock(&self.state);
                state.catch_up();
                state.ranges.know_break(ProcessKey(serial), end);
            }
            // Its first call of brk is counted as one on memory that is not known.
            Err(error) => log::debug!("pid {pid}: the end of its data segment is not known: {error}"),
        }
    }

    /// What these targets, by number and serial, have mapped until now.
    pub(super) fn of_all(&self, kernel: &Kernel, targets: impl Iterator<Item = (TargetNumber, u32)>) -> Mapped {
        self.read(|ranges| {
            let mut stacks = Vec::new();
            for (number, serial) in targets {
                if let Some(process) = ranges.get(ProcessKey(serial)) {
                    stacks.extend(stacks_of(kernel, number, process));
                }
            }
            let mut totals = Totals::default();
            for stack in &stacks {
                totals.add(&stack.totals);
            }
            let (noted, given_back_bytes) = ranges.noted();
            let counters = [
                (Counter::UnmapsMissed, noted.missed_unmaps),
                (Counter::RemapsUnknown, noted.remaps_unknown + noted.breaks_unknown),
                (Counter::GivenBackBytes, given_back_bytes),
            ];
            Mapped { stacks, totals, peak_bytes: ranges.peak_bytes(), counters }
        })
    }

    /// What a target that has ended had mapped; it is forgotten.
    pub(super) fn take(&self, kernel: &Kernel, number: TargetNumber, serial: u32) -> Vec<RawStack> {
        let mut state = lock(&self.state);
        state.catch_up();
        let ended = state.ranges.remove(ProcessKey(serial));
        ended.map(|process| stacks_of(kernel, number, &process)).unwrap_or_default()
    }
}

/// The stacks of a process, in no order.
fn stacks_of(kernel: &Kernel, number: TargetNumber, process: &ProcessRanges) -> Vec<RawStack> {
    process.account.stacks().map(|(id, totals)| kernel.mapping_stack(number, id, totals)).collect()
}

/// What processes have mapped.
pub(super) struct Mapped {
    /// By stack.
    pub(super) stacks: Vec<RawStack>,
    /// Their sum.
    pub(super) totals: Totals,
    /// The most that all processes ever had mapped together, those that have ended included.
    pub(super) peak_bytes: u64,
    /// What the model counts, of all processes that ever were.
    pub(super) counters: [(Counter, u64); 3],
}

impl Drop for LiveRanges {
    fn drop(&mut self) {
        drop(self.stop.take());
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            log::error!("the thread that follows mappings failed");
        }
    }
}

/// Waits until there is something to read, or until it is to stop: `false`.
fn is_readable(events: &OwnedFd, stopped: &PipeReader) -> bool {
    let wanted = |fd| libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
    let mut polled = [wanted(events.as_raw_fd()), wanted(stopped.as_raw_fd())];
    // SAFETY: two valid elements, of descriptors that are open. Interrupted, it is asked again by the caller.
    let n_ready = unsafe { libc::poll(polled.as_mut_ptr(), 2, -1) };
    polled[1].revents == 0 && (n_ready >= 0 || io::Error::last_os_error().kind() == io::ErrorKind::Interrupted)
}

/// A thread that failed while it held the lock has left a model all the same.
fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}
