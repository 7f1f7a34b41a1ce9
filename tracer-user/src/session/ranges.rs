//! The domain `mmap` of a running session: a thread that takes finished calls out of the kernel's buffer, and the model that they
//! make. The thread is one of its own so that a program that maps in bursts is kept up with while the session names frames.

use std::{
    io::{self, PipeReader, PipeWriter},
    os::fd::{AsRawFd as _, OwnedFd},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread::JoinHandle,
};

use tracer_common::{abi::Target, counters::Counter};

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

    /// Tracing of a process begins now.
    pub(super) fn begin(&self, kernel: &Kernel, target: TargetNumber) {
        let Some(Target { serial, tgid: pid, .. }) = kernel.target(target) else { return };
        match data_segment_end(pid) {
            Ok(end) => lock(&self.state).ranges.set_break(ProcessKey(serial), end),
            // Its first call of brk is counted as one on memory that is not known.
            Err(error) => log::info!("pid {pid}: the end of its data segment is not known: {error}"),
        }
    }

    /// What one process has mapped, as of now.
    pub(super) fn of_process(&self, kernel: &Kernel, target: TargetNumber) -> Mapped {
        let found = self.read(|ranges| {
            let ProcessRanges { account, noted, .. } = ranges.get(ProcessKey(kernel.target(target)?.serial))?;
            let mut stacks: Vec<(u32, Totals)> = account.stacks().collect();
            stacks.sort_unstable_by_key(|(id, _)| *id);
            let counters = vec![
                (Counter::UnmapsMissed, noted.missed_unmaps),
                (Counter::RemapsUnknown, noted.remaps_unknown + noted.breaks_unknown),
                (Counter::GivenBackBytes, account.given_back_bytes()),
            ];
            Some((stacks, account.totals(), counters))
        });
        let (stacks, totals, counters) = found.unwrap_or_default();
        let stacks = stacks.into_iter().map(|(id, totals)| kernel.mapping_stack(target, id, totals)).collect();
        Mapped { stacks, totals, counters }
    }
}

/// What a process has mapped.
pub(super) struct Mapped {
    /// By stack, in the order of their ids.
    pub(super) stacks: Vec<RawStack>,
    /// Their sum.
    pub(super) totals: Totals,
    /// What the model counts.
    pub(super) counters: Vec<(Counter, u64)>,
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
