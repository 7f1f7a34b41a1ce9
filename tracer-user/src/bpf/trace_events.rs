//! Probes for a changing set of processes: uprobe trace events, defined once a site and opened by perf for each process.
//!
//! Defining one takes 0.2 ms, opening it for a process 15 to 30 µs, closing it 5 µs (Linux 6.18), where a perf uprobe of its own takes
//! 0.1 s to close. They are defined through a tracefs of this process's own (fsmount), which no other process sees; they are gone
//! when it is dropped. What a killed tracer left is deleted by the next one.

use std::{
    collections::BTreeMap,
    ffi::CStr,
    fs::{self, File},
    io::{self, Read as _, Write as _},
    os::fd::{AsFd, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd},
    path::Path,
};

#[derive(Debug)]
struct DefinedEvent {
    /// In its group.
    name: String,
    /// The kernel's number of it.
    tracepoint: u64,
    /// Binds the program to the event, whoever opens it; on a perf event that never fires.
    _program: Bound,
}

/// A program bound to an event; closed in this order.
#[derive(Debug)]
struct Bound {
    _link: OwnedFd,
    _event: OwnedFd,
}

/// The trace events of one tracer.
#[derive(Debug)]
pub(super) struct TraceEvents {
    tracefs: OwnedFd,
    /// Group of all our events: tells who defined them.
    group: String,
    events: Vec<DefinedEvent>,
    processes: BTreeMap<u32, Opened>,
    /// Number of events ever defined.
    n_defined: u32,
}

/// The events of one process.
#[derive(Debug)]
struct Opened {
    heirs: Heirs,
    /// Its perf events, as the defined ones come; empty while paused.
    events: Vec<OwnedFd>,
}

/// Who else has a process's probes.
///
/// The kernel opens inherited events itself, before the child runs, and relies on the breakpoints that are in its copy of the memory
/// (`trace_uprobe_filter_add`, kernel/trace/trace_uprobe.c): nothing of it goes unseen. They are closed with their parent's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heirs {
    /// Nobody.
    None,
    /// Processes that its main thread forks, and those that threads fork which that makes from now on.
    Children,
}

/// Every group of ours: this, the process id and the start time of the tracer.
const GROUP_PREFIX: &str = "memtrace_bpf_";

/// `KTHREADD_PID`: the parent of all kernel threads is process 2 of the initial namespace (init/main.c).
const KTHREADD: u32 = 2;

impl TraceEvents {
    /// Opens tracefs and deletes what dead tracers left there.
    ///
    /// # Errors
    /// There is no tracefs, or it may not be used.
    pub(super) fn new() -> io::Result<Self> {
        let tracefs = private_tracefs().or_else(|error| {
            log::debug!("no tracefs of our own: {error}");
            mounted_tracefs().ok_or(error)
        })?;
        raise_open_files();
        let own = std::process::id();
        let started = start_ticks(own).unwrap_or(0);
        let events = Self {
            tracefs,
            group: format!("{GROUP_PREFIX}{own}_{started}"),
            events: Vec::new(),
            processes: BTreeMap::new(),
            n_defined: 0,
        };
        events.delete_stale();
        Ok(events)
    }

    /// Number of events.
    pub(super) fn len(&self) -> usize {
        self.events.len()
    }

    /// Defines an event, binds `program` to it and opens it for all processes.
    ///
    /// # Errors
    /// The kernel refused the place or the program; then there is no such event. That a process could not be opened is no error: it
    /// has ended.
    pub(super) fn define(
        &mut self,
        path: &Path,
        offset: u64,
        is_return: bool,
        program: BorrowedFd<'_>,
        cookie: u64,
    ) -> io::Result<()> {
        // By descriptor: a path with a space or a colon cannot be written there.
        let file = File::open(path)?;
        let kind = if is_return { 'r' } else { 'p' };
        let name = format!("{kind}{}", self.n_defined);
        self.command(&format!("{kind}:{}/{name} /proc/self/fd/{}:{offset:#x}", self.group, file.as_raw_fd()))?;
        self.n_defined += 1;
        let bound =
            self.tracepoint_of(&name).and_then(|tracepoint| Ok((tracepoint, bind(tracepoint, program, cookie)?)));
        let (tracepoint, bound) = bound.inspect_err(|_| self.delete(&name))?;
        for (pid, opened) in &mut self.processes {
            match open_event(tracepoint, *pid, opened.heirs) {
                Ok(event) => opened.events.push(event),
                Err(error) => log::debug!("pid {pid} is not probed at {}+{offset:#x}: {error}", path.display()),
            }
        }
        self.events.push(DefinedEvent { name, tracepoint, _program: bound });
        Ok(())
    }

    /// Opens all events for a process (unless `open` is false: until [`Self::open_all`]), returns first.
    ///
    /// # Errors
    /// One could not be opened; then none is.
    pub(super) fn add_process(&mut self, pid: u32, heirs: Heirs, open: bool) -> io::Result<()> {
        if self.processes.contains_key(&pid) {
            return Ok(());
        }
        let events = if open { self.open_for(pid, heirs)? } else { Vec::new() };
        self.processes.insert(pid, Opened { heirs, events });
        Ok(())
    }

    /// Opens all events of a process anew, before those that it had are closed: its first thread is another.
    ///
    /// # Errors
    /// One could not be opened; then it has those that it had.
    pub(super) fn renew_process(&mut self, pid: u32, open: bool) -> io::Result<()> {
        let Some(heirs) = self.processes.get(&pid).map(|opened| opened.heirs).filter(|_| open) else { return Ok(()) };
        let events = self.open_for(pid, heirs)?;
        if let Some(earlier) = self.processes.insert(pid, Opened { heirs, events }) {
            close_in_order(earlier.events);
        }
        Ok(())
    }

    /// Closes all events of a process.
    pub(super) fn remove_process(&mut self, pid: u32) {
        self.processes.remove(&pid).into_iter().for_each(|opened| close_in_order(opened.events));
    }

    /// Deletes all events; the processes are remembered.
    pub(super) fn clear(&mut self) {
        self.processes.values_mut().map(|opened| std::mem::take(&mut opened.events)).for_each(close_in_order);
        for event in std::mem::take(&mut self.events) {
            let DefinedEvent { name, _program: bound, .. } = event;
            drop(bound);
            self.delete(&name);
        }
    }

    /// Opens what [`Self::clear`] closed and [`Self::define`] brought again.
    pub(super) fn open_all(&mut self) {
        let processes: Vec<(u32, Heirs)> = self.processes.iter().map(|(pid, opened)| (*pid, opened.heirs)).collect();
        for (pid, heirs) in processes {
            match self.open_for(pid, heirs) {
                Ok(events) => {
                    self.processes.insert(pid, Opened { heirs, events });
                }
                Err(error) => log::debug!("pid {pid} is not probed again: {error}"),
            }
        }
    }

    fn open_for(&self, pid: u32, heirs: Heirs) -> io::Result<Vec<OwnedFd>> {
        self.events.iter().map(|event| open_event(event.tracepoint, pid, heirs)).collect()
    }

    /// Deletes an event that nobody has open.
    fn delete(&self, name: &str) {
        if let Err(error) = self.command(&format!("-:{}/{name}", self.group)) {
            log::warn!("failed to delete trace event `{}/{name}`: {error}", self.group);
        }
    }

    /// The groups of tracers that have ended. Events that are in use cannot be deleted, so that a mistake does no harm.
    fn delete_stale(&self) {
        let Ok(list) = self.read(c"uprobe_events") else { return };
        for line in list.lines() {
            let Some(event) = line.split([' ', ':']).nth(1).filter(|event| event.starts_with(GROUP_PREFIX)) else {
                continue;
            };
            let is_stale = event.split('/').next().is_some_and(|group| group != self.group && !is_alive(group));
            if is_stale && let Err(error) = self.command(&format!("-:{event}")) {
                log::debug!("failed to delete trace event `{event}`: {error}");
            }
        }
    }

    fn tracepoint_of(&self, name: &str) -> io::Result<u64> {
        let path = format!("events/{}/{name}/id\0", self.group);
        let path = CStr::from_bytes_with_nul(path.as_bytes()).map_err(io::Error::other)?;
        self.read(path)?.trim().parse().map_err(io::Error::other)
    }

    fn command(&self, command: &str) -> io::Result<()> {
        // Appending: an open that truncates deletes everybody's events.
        let mut file = self.open(c"uprobe_events", libc::O_WRONLY | libc::O_APPEND)?;
        file.write_all(command.as_bytes())
    }

    fn read(&self, path: &CStr) -> io::Result<String> {
        let mut text = String::new();
        self.open(path, libc::O_RDONLY)?.read_to_string(&mut text)?;
        Ok(text)
    }

    fn open(&self, path: &CStr, flags: i32) -> io::Result<File> {
        // SAFETY: the path ends in a 0; the descriptor that comes back is ours alone.
        unsafe { owned(libc::openat(self.tracefs.as_raw_fd(), path.as_ptr(), flags | libc::O_CLOEXEC)) }.map(File::from)
    }
}

impl Drop for TraceEvents {
    fn drop(&mut self) {
        self.clear();
    }
}

/// Entries before returns: an entry whose return is not probed would leave a call in flight. They came returns first.
fn close_in_order(mut opened: Vec<OwnedFd>) {
    while opened.pop().is_some() {}
}

/// Whether the tracer that a group belongs to still runs.
fn is_alive(group: &str) -> bool {
    let mut parts = group.trim_start_matches(GROUP_PREFIX).split('_').map(str::parse);
    let (Some(Ok(pid)), Some(Ok(started))) = (parts.next(), parts.next()) else { return false };
    let pid: u64 = pid;
    start_ticks(pid as u32) == Some(started)
}

/// Field 22 of `/proc/PID/stat` (proc(5)): clock ticks from the boot to its start.
fn start_ticks(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let after_comm = stat.rsplit_once(')')?.1;
    after_comm.split_ascii_whitespace().nth(19)?.parse().ok()
}

/// An instance of tracefs that is mounted nowhere.
fn private_tracefs() -> io::Result<OwnedFd> {
    const FSOPEN_CLOEXEC: u32 = 1;
    const FSCONFIG_CMD_CREATE: u32 = 6;
    const FSMOUNT_CLOEXEC: u32 = 1;
    // SAFETY: system calls on a name that ends in a 0, null pointers where none is wanted, and descriptors of ours.
    unsafe {
        let context = owned(libc::syscall(libc::SYS_fsopen, c"tracefs".as_ptr(), FSOPEN_CLOEXEC) as RawFd)?;
        let null = std::ptr::null::<libc::c_char>();
        if libc::syscall(libc::SYS_fsconfig, context.as_raw_fd(), FSCONFIG_CMD_CREATE, null, null, 0) != 0 {
            return Err(io::Error::last_os_error());
        }
        owned(libc::syscall(libc::SYS_fsmount, context.as_raw_fd(), FSMOUNT_CLOEXEC, 0) as RawFd)
    }
}

/// The host's own, where it is mounted.
fn mounted_tracefs() -> Option<OwnedFd> {
    ["/sys/kernel/tracing", "/sys/kernel/debug/tracing"]
        .into_iter()
        .find(|path| Path::new(path).join("uprobe_events").exists())
        .and_then(|path| File::open(path).ok())
        .map(OwnedFd::from)
}

/// Each event of each process is an open file.
fn raise_open_files() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let raised =
        getrlimit(Resource::RLIMIT_NOFILE).and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard));
    if let Err(error) = raised {
        log::debug!("failed to raise the number of open files: {error}");
    }
}

/// Opens the event on a process that it never fires in (a kernel thread has no user memory) and binds the program to it: whoever else
/// has the event open runs the program then (kernel/trace/bpf_trace.c, `perf_event_attach_bpf_prog`: the programs are the event's).
fn bind(tracepoint: u64, program: BorrowedFd<'_>, cookie: u64) -> io::Result<Bound> {
    let is_kernel_thread = fs::read(format!("/proc/{KTHREADD}/cmdline")).is_ok_and(|line| line.is_empty())
        && fs::read_to_string(format!("/proc/{KTHREADD}/comm")).is_ok_and(|comm| comm.trim_end() == "kthreadd");
    // In another PID namespace than the initial one there is none: then in this process, which pays for it.
    let event = open_event(tracepoint, if is_kernel_thread { KTHREADD } else { std::process::id() }, Heirs::None)?;
    let link = create_link(event.as_fd(), program, cookie)?;
    Ok(Bound { _link: link, _event: event })
}

/// `perf_event_open` of a tracepoint for one process, on all CPUs.
fn open_event(tracepoint: u64, pid: u32, heirs: Heirs) -> io::Result<OwnedFd> {
    const PERF_TYPE_TRACEPOINT: u32 = 2;
    const PERF_FLAG_FD_CLOEXEC: libc::c_ulong = 1 << 3;
    /// `struct perf_event_attr` up to `PERF_ATTR_SIZE_VER0` (include/uapi/linux/perf_event.h).
    #[repr(C)]
    #[derive(Default)]
    struct Attributes {
        kind: u32,
        size: u32,
        config: u64,
        period_and_formats: [u64; 3],
        /// Bit 0 `disabled`, bit 1 `inherit`.
        bits: u64,
        rest: [u64; 2],
    }
    const _: () = assert!(size_of::<Attributes>() == 64);
    let attributes = Attributes {
        kind: PERF_TYPE_TRACEPOINT,
        size: size_of::<Attributes>() as u32,
        config: tracepoint,
        bits: if heirs == Heirs::Children { 1 << 1 } else { 0 },
        ..Attributes::default()
    };
    // SAFETY: the attributes live through the call and are as long as they say; the descriptor that comes back is ours alone.
    unsafe {
        owned(
            libc::syscall(libc::SYS_perf_event_open, &raw const attributes, pid, -1, -1, PERF_FLAG_FD_CLOEXEC) as RawFd
        )
    }
}

/// `BPF_LINK_CREATE` of a program to a perf event, with a cookie.
fn create_link(event: BorrowedFd<'_>, program: BorrowedFd<'_>, cookie: u64) -> io::Result<OwnedFd> {
    const BPF_LINK_CREATE: libc::c_long = 28;
    const BPF_PERF_EVENT: u32 = 41;
    /// `union bpf_attr`, `link_create` with `perf_event` (include/uapi/linux/bpf.h).
    #[repr(C)]
    struct Attributes {
        program: u32,
        target: u32,
        attach_type: u32,
        flags: u32,
        cookie: u64,
    }
    let attributes = Attributes {
        program: program.as_raw_fd() as u32,
        target: event.as_raw_fd() as u32,
        attach_type: BPF_PERF_EVENT,
        flags: 0,
        cookie,
    };
    // SAFETY: the attributes live through the call and are as long as it is told; the descriptor that comes back is ours alone.
    unsafe {
        owned(libc::syscall(libc::SYS_bpf, BPF_LINK_CREATE, &raw const attributes, size_of::<Attributes>()) as RawFd)
    }
}

/// The descriptor that a system call returned.
///
/// # Safety
/// Nobody else owns it.
unsafe fn owned(fd: RawFd) -> io::Result<OwnedFd> {
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: by this function's contract.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
