//! What a process' address space holds, by kind of mapping: `/proc/PID/smaps`
//! (Documentation/filesystems/proc.rst).
//!
//! The kernel walks the page tables for it and holds the target's mapping lock meanwhile, a handful of mappings at a
//! time: `mmap` and `munmap` of the target wait for as long. Measured (2-core VM, Linux 6.18): 21 ms for 1 GiB resident in pages
//! of 4 KiB, 4 µs a small mapping; again with `cargo test -p tracer-user --release --lib cost_of_a_read -- --ignored --nocapture`.

use std::{
    fs,
    io::{self, BufRead, BufReader},
};

use tracer_common::addr::UserAddr;

use super::maps::{self, MapEntry};
use crate::snapshot::{MappedBytes, ProcessMemory};

/// Most mappings read. The kernel's own limit is 65 530 unless the host raised it (`vm.max_map_count`).
const MAX_MAPPINGS: u64 = 1 << 20;
/// Longest line read in bytes: a path of 4096 bytes, each escaped to four, and what stands before it.
const MAX_LINE_BYTES: u64 = 20 * 1024;
/// Most threads whose stack pointers are read.
const MAX_THREADS: usize = 1 << 14;
/// glibc's `HEAP_MAX_SIZE` on 64-bit machines (malloc/arena.c, malloc.c: twice `DEFAULT_MMAP_THRESHOLD_MAX`): size and
/// alignment of each heap of an arena that is not the main one.
const ARENA_HEAP_BYTES: u64 = 64 << 20;
/// Go reserves its heap in areas of 64 MiB too, from here on (runtime/malloc.go, `mallocinit`); no C library maps there.
const GO_HEAPS: std::ops::Range<u64> = 0xc0_0000_0000..0x100_0000_0000;
/// Largest guard in front of a thread's stack.
const MAX_GUARD_BYTES: u64 = 1 << 20;
/// Largest mapping that is a stack because a stack pointer lies in it. Coroutines run on stacks in the midst of heaps.
const MAX_STACK_BYTES: u64 = 256 << 20;

/// What the address space of `pid` holds now.
///
/// # Errors
/// The process has ended, may not be read, or has more mappings than are read.
pub fn read(pid: u32) -> io::Result<ProcessMemory> {
    let threads = Threads::read(pid);
    parse(&mut BufReader::with_capacity(64 << 10, fs::File::open(format!("/proc/{pid}/smaps"))?), &threads)
}

/// Resident memory of `pid` in bytes (`/proc/PID/statm`): cheap, and off by up to some hundred KiB on many processors, where
/// the kernel sums its counters lazily.
///
/// # Errors
/// The process has ended.
pub fn rss_bytes(pid: u32) -> io::Result<u64> {
    let statm = fs::read_to_string(format!("/proc/{pid}/statm"))?;
    // SAFETY: a constant of the system.
    let page_bytes = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    let pages = statm.split_ascii_whitespace().nth(1).and_then(|pages| pages.parse::<u64>().ok());
    // A zombie's line is all zeroes.
    pages
        .zip(u64::try_from(page_bytes).ok())
        .map(|(pages, bytes)| pages.saturating_mul(bytes))
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "statm is not as documented"))
}

/// Where the stacks of threads are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Threads {
    /// Stack pointers of the threads that wait in a system call, ascending.
    stack_pointers: Vec<u64>,
    /// Threads that run: the kernel does not say where their stack pointer is. The first thread is not among them, its
    /// stack has a name.
    n_running: usize,
}

impl Threads {
    fn read(pid: u32) -> Self {
        let mut threads = Self::default();
        let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else { return threads };
        for task in tasks.take(MAX_THREADS).flatten() {
            match fs::read_to_string(task.path().join("syscall")).ok().as_deref().and_then(stack_pointer) {
                Some(pointer) => threads.stack_pointers.push(pointer),
                None if task.file_name().to_str() == Some(pid.to_string().as_str()) => {}
                None => threads.n_running += 1,
            }
        }
        threads.stack_pointers.sort_unstable();
        threads
    }

    /// Whether a stack pointer lies in `start..end`.
    fn any_in(&self, start: UserAddr, end: UserAddr) -> bool {
        let first = self.stack_pointers.partition_point(|&pointer| pointer < start.0);
        self.stack_pointers.get(first).is_some_and(|&pointer| pointer < end.0)
    }
}

/// The stack pointer in `/proc/PID/task/TID/syscall`: the last but one field, or none (`running`).
fn stack_pointer(line: &str) -> Option<u64> {
    let mut fields = line.split_ascii_whitespace().rev();
    let _program_counter = fields.next()?;
    u64::from_str_radix(fields.next()?.strip_prefix("0x")?, 16).ok()
}

/// Sums smaps up. Lines of an unknown form are left out.
fn parse(smaps: &mut impl BufRead, threads: &Threads) -> io::Result<ProcessMemory> {
    let mut sums = Sums { n_guessed_left: threads.n_running, ..Sums::default() };
    let mut mapping: Option<(MapEntry, MappedBytes)> = None;
    let mut n_mappings = 0;
    let mut line = Vec::new();
    loop {
        line.clear();
        let n_read = io::Read::take(&mut *smaps, MAX_LINE_BYTES).read_until(b'\n', &mut line)?;
        if n_read == 0 {
            break;
        }
        if line.pop_if(|last| *last == b'\n').is_none() && n_read as u64 == MAX_LINE_BYTES {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "smaps has a line that is too long"));
        }
        if let Some(entry) = maps::parse_line(&line) {
            n_mappings += 1;
            if n_mappings > MAX_MAPPINGS {
                return Err(io::Error::new(io::ErrorKind::InvalidData, format!("more than {MAX_MAPPINGS} mappings")));
            }
            let size_bytes = entry.end.0.saturating_sub(entry.start.0);
            let done = mapping.replace((entry, MappedBytes { size_bytes, n_mappings: 1, ..MappedBytes::default() }));
            if let Some((entry, bytes)) = done {
                sums.add(&entry, bytes, threads);
            }
        } else if let Some((_, bytes)) = &mut mapping {
            if let Some(rss_bytes) = kilobytes(&line, b"Rss:") {
                bytes.rss_bytes = rss_bytes;
            } else if let Some(pss_bytes) = kilobytes(&line, b"Pss:") {
                bytes.pss_bytes = pss_bytes;
            }
        }
    }
    if let Some((entry, bytes)) = mapping {
        sums.add(&entry, bytes, threads);
    }
    if n_mappings == 0 {
        return Err(io::Error::new(io::ErrorKind::NotFound, "no memory: the process has ended"));
    }
    Ok(sums.finish())
}

/// `Rss:      132 kB` → bytes.
fn kilobytes(line: &[u8], name: &[u8]) -> Option<u64> {
    let value = std::str::from_utf8(line.strip_prefix(name)?).ok()?;
    value.trim().strip_suffix(" kB")?.trim_end().parse::<u64>().ok()?.checked_mul(1024)
}

/// What was summed up so far.
#[derive(Debug, Default)]
struct Sums {
    memory: ProcessMemory,
    /// What may be a heap of an arena: what follows tells.
    pending: Option<Heap>,
    /// Mappings that are arena heaps in use from end to end, if this process has arenas: nothing else tells them from
    /// other aligned memory.
    full_heaps: MappedBytes,
    /// Where an inaccessible mapping small enough to be a guard ended.
    guard_end: Option<UserAddr>,
    /// Threads whose stack is still to be guessed by its guard.
    n_guessed_left: usize,
}

/// Adjacent anonymous mappings, the first at a multiple of [`ARENA_HEAP_BYTES`].
#[derive(Debug)]
struct Heap {
    end: UserAddr,
    /// Up to the last that ended at a multiple.
    full: MappedBytes,
    /// After it.
    rest: MappedBytes,
}

impl Sums {
    /// Adds the next mapping; they come in the order of their addresses.
    fn add(&mut self, entry: &MapEntry, bytes: MappedBytes, threads: &Threads) {
        let guard_end = self.guard_end.take();
        let is_private_anonymous = !entry.is_file() && entry.permissions[3] == b'p';
        let path = entry.path.as_os_str().as_encoded_bytes();
        let unnamed = is_private_anonymous && path.is_empty();
        if unnamed && entry.permissions.starts_with(b"---") {
            self.close_heap(Some(entry));
            self.guard_end = (bytes.size_bytes <= MAX_GUARD_BYTES).then_some(entry.end);
            add(&mut self.memory.other, bytes);
            return;
        }
        let is_stack = unnamed && bytes.size_bytes <= MAX_STACK_BYTES && threads.any_in(entry.start, entry.end);
        if unnamed && !is_stack && entry.permissions.starts_with(b"rw-") && self.extend_heap(entry, bytes) {
            return;
        }
        self.close_heap(None);
        let is_guarded = unnamed && guard_end == Some(entry.start);
        let memory = &mut self.memory;
        let kind = if path == b"[heap]" {
            &mut memory.heap
        } else if is_stack || path == b"[stack]" || path.starts_with(b"[anon: glibc: pthread stack") {
            &mut memory.stacks
        } else if path == b"[anon: glibc: malloc arena]" {
            &mut memory.arenas
        } else if is_guarded && self.n_guessed_left > 0 {
            self.n_guessed_left -= 1;
            &mut memory.stacks
        } else if is_private_anonymous && (path.is_empty() || path.starts_with(b"[anon:")) {
            &mut memory.anonymous
        } else if entry.is_file() && !is_shared_memory(path) {
            &mut memory.files
        } else {
            &mut memory.other
        };
        add(kind, bytes);
    }

    /// Whether the mapping begins or goes on what may be a heap of an arena.
    fn extend_heap(&mut self, entry: &MapEntry, bytes: MappedBytes) -> bool {
        if self.pending.as_ref().is_none_or(|heap| heap.end != entry.start) {
            self.close_heap(None);
            if !entry.start.0.is_multiple_of(ARENA_HEAP_BYTES) || GO_HEAPS.contains(&entry.start.0) {
                return false;
            }
        }
        let heap = self.pending.get_or_insert(Heap {
            end: entry.end,
            full: MappedBytes::default(),
            rest: MappedBytes::default(),
        });
        heap.end = entry.end;
        add(&mut heap.rest, bytes);
        if entry.end.0.is_multiple_of(ARENA_HEAP_BYTES) {
            add(&mut heap.full, std::mem::take(&mut heap.rest));
        }
        true
    }

    /// Judges the pending heap by what follows it: an arena's heap is followed by the rest of its 64 MiB, inaccessible.
    fn close_heap(&mut self, inaccessible: Option<&MapEntry>) {
        let Some(heap) = self.pending.take() else { return };
        let limit = heap.end.0.next_multiple_of(ARENA_HEAP_BYTES);
        if inaccessible.is_some_and(|next| next.start == heap.end && next.end.0 >= limit && limit > heap.end.0) {
            add(&mut self.memory.arenas, heap.full);
            add(&mut self.memory.arenas, heap.rest);
        } else {
            add(&mut self.full_heaps, heap.full);
            add(&mut self.memory.anonymous, heap.rest);
        }
    }

    fn finish(mut self) -> ProcessMemory {
        self.close_heap(None);
        let has_arenas = self.memory.arenas.n_mappings > 0;
        let kind = if has_arenas { &mut self.memory.arenas } else { &mut self.memory.anonymous };
        add(kind, self.full_heaps);
        self.memory
    }
}

/// Memory that is a file in name only.
fn is_shared_memory(path: &[u8]) -> bool {
    [b"/memfd:".as_slice(), b"/dev/shm/", b"/SYSV", b"/dev/zero"].iter().any(|prefix| path.starts_with(prefix))
}

const fn add(sum: &mut MappedBytes, other: MappedBytes) {
    sum.size_bytes = sum.size_bytes.saturating_add(other.size_bytes);
    sum.rss_bytes = sum.rss_bytes.saturating_add(other.rss_bytes);
    sum.pss_bytes = sum.pss_bytes.saturating_add(other.pss_bytes);
    sum.n_mappings += other.n_mappings;
}

#[cfg(test)]
mod tests {
    use super::*;

    /// glibc 2.36 on Linux 6.18, fields that are not read left out. Three threads: the first has next to nothing in
    /// `[heap]`, the second 200 000 × 1000 B in its arena (heaps at 7fe71c…, twice 64 MiB full, and 7fe714…, one full and merged with
    /// one begun), the third little (7fe724…).
    const THREE_ARENAS: &str = include_str!("smaps_of_three_arenas.txt");
    /// The stack pointers of the same process.
    const STACK_POINTERS: [u64; 3] = [0x7fe7_2a2e_6ea0, 0x7fe7_2aae_7ea0, 0x7ffe_7010_1cf0];

    fn parsed(smaps: &str, threads: &Threads) -> ProcessMemory {
        parse(&mut smaps.as_bytes(), threads).expect("bytes in memory can be read")
    }

    fn at(stack_pointers: &[u64]) -> Threads {
        Threads { stack_pointers: stack_pointers.to_vec(), n_running: 0 }
    }

    fn kib(bytes: MappedBytes) -> (u64, u64, u64) {
        (bytes.size_bytes >> 10, bytes.rss_bytes >> 10, bytes.n_mappings)
    }

    /// One mapping, wholly resident.
    fn mapping(range: &str, permissions: &str, path: &str) -> String {
        let (start, end) = range.split_once('-').expect("a range");
        let address = |text| u64::from_str_radix(text, 16).expect("hexadecimal");
        let inode = if path.starts_with('/') { 7 } else { 0 };
        let kib = (address(end) - address(start)) >> 10;
        let rss = if permissions.starts_with("---") { 0 } else { kib };
        format!("{range} {permissions} 00000000 00:00 {inode} {path}\nSize: {kib} kB\nRss: {rss} kB\nPss: {rss} kB\n")
    }

    #[test]
    fn each_mapping_of_a_threaded_program_is_of_one_kind() {
        let memory = parsed(THREE_ARENAS, &at(&STACK_POINTERS));
        let all = [memory.heap, memory.arenas, memory.anonymous, memory.stacks, memory.files, memory.other];
        assert_eq!(all.map(|kind| kind.n_mappings).iter().sum::<u64>(), 33);
        assert_eq!(kib(memory.heap), (132, 8, 1));
        // 7fe714…: 65 808 KiB, 7fe71c…: 131 072, 7fe724…: 132.
        assert_eq!(memory.arenas.size_bytes >> 10, 65_808 + 131_072 + 132);
        assert_eq!(memory.arenas.n_mappings, 3);
        // 200 000 chunks of 1008 B, 100 more of the third thread, and a page or two a heap.
        assert!((memory.arenas.rss_bytes >> 10).abs_diff((200_100 * 1008) >> 10) < 64, "{:?}", memory.arenas);
        assert_eq!((memory.stacks.n_mappings, memory.stacks.size_bytes >> 10), (3, 8192 + 8192 + 132));
        // Three pages after libc's stack, libc's own zeroed memory, the loader's.
        assert_eq!((memory.anonymous.n_mappings, memory.anonymous.size_bytes >> 10), (3, 12 + 52 + 8));
        assert_eq!(memory.files.n_mappings, 5 + 5 + 5);
    }

    #[test]
    fn stacks_of_running_threads_are_told_by_their_guards() {
        let running = Threads { stack_pointers: vec![STACK_POINTERS[2]], n_running: 2 };
        assert_eq!(parsed(THREE_ARENAS, &running), parsed(THREE_ARENAS, &at(&STACK_POINTERS)));
        let gone = parsed(THREE_ARENAS, &Threads::default());
        assert_eq!(gone.stacks.n_mappings, 1, "without such threads a guarded mapping is anonymous");
    }

    #[test]
    fn a_stack_pointer_in_a_heap_makes_it_no_stack() {
        let heap = mapping("550000000000-550020000000", "rw-p", "[heap]");
        let coroutines = mapping("7f0000001000-7f0020001000", "rw-p", "");
        let memory = parsed(&(heap + &coroutines), &at(&[0x5500_0000_1000, 0x7f00_0000_2000]));
        assert_eq!(memory.stacks, MappedBytes::default());
        assert_eq!((memory.heap.n_mappings, memory.anonymous.n_mappings), (1, 1));
    }

    #[test]
    fn aligned_memory_without_an_arenas_reserve_is_anonymous() {
        let block = mapping("7f0000000000-7f0008000000", "rw-p", "");
        assert_eq!(kib(parsed(&block, &Threads::default()).anonymous), (131_072, 131_072, 1));
        // A guard behind it that ends before the 64 MiB do.
        let short =
            mapping("7f0000000000-7f0000001000", "rw-p", "") + &mapping("7f0000001000-7f0000002000", "---p", "");
        assert_eq!(kib(parsed(&short, &Threads::default()).anonymous), (4, 4, 1));
        // Go 1.22: its first area of 64 MiB.
        let go = mapping("c000000000-c000400000", "rw-p", "") + &mapping("c000400000-c004000000", "---p", "");
        assert_eq!(kib(parsed(&go, &Threads::default()).anonymous), (4096, 4096, 1));
    }

    #[test]
    fn a_heap_split_by_advice_is_still_an_arena() {
        let split = mapping("7f0000000000-7f0000200000", "rw-p", "")
            + &mapping("7f0000200000-7f0000300000", "rw-p", "")
            + &mapping("7f0000300000-7f0004000000", "---p", "");
        assert_eq!(kib(parsed(&split, &Threads::default()).arenas), (3072, 3072, 2));
    }

    #[test]
    fn names_that_glibc_and_others_give_are_known() {
        let named = mapping("7f0000000000-7f0000021000", "rw-p", "[anon: glibc: malloc arena]")
            + &mapping("7f0010001000-7f0010002000", "rw-p", "[anon: glibc: pthread stack: 12]")
            + &mapping("7f0020001000-7f0020002000", "rw-p", "[anon: glibc: malloc]")
            + &mapping("7f0030001000-7f0030002000", "rw-s", "/memfd:pool (deleted)")
            + &mapping("7f0040001000-7f0040002000", "rw-p", "/usr/lib/[heap]");
        let memory = parsed(&named, &Threads::default());
        let all = [memory.heap, memory.arenas, memory.anonymous, memory.stacks, memory.files, memory.other];
        assert_eq!(all.map(|kind| kind.n_mappings), [0, 1, 1, 1, 1, 1]);
    }

    #[test]
    fn broken_text_is_left_out_and_endless_lines_are_refused() {
        let broken = "Rss: 4 kB\n0-zz rw-p 0 0:0 0\n1000-2000 rw-p 00000000 00:00 0 \nRss: many kB\nRss: 99999999999999999999 kB\n";
        assert_eq!(kib(parsed(broken, &Threads::default()).anonymous), (4, 0, 1));
        let backwards = "ffffffffffffffff-0 rw-p 00000000 00:00 0 \nRss: 18014398509481983 kB\n".repeat(3);
        assert_eq!(parsed(&backwards, &Threads::default()).anonymous.rss_bytes, u64::MAX);
        let endless = vec![b'a'; MAX_LINE_BYTES as usize + 1];
        assert!(parse(&mut endless.as_slice(), &Threads::default()).is_err());
    }

    #[test]
    fn a_thread_says_where_its_stack_is_only_while_it_waits() {
        assert_eq!(
            stack_pointer("202 0x1 0x2 0x3 0x0 0x0 0x0 0x7fe72a2e6ea0 0x7fe72abbfdf2\n"),
            Some(STACK_POINTERS[0])
        );
        assert_eq!(stack_pointer("-1 0x7fe72a2e6ea0 0x7fe72abbfdf2\n"), Some(STACK_POINTERS[0]), "blocked, no call");
        for line in ["running\n", "", "-1", "0x1 0xzz 0x2"] {
            assert_eq!(stack_pointer(line), None, "{line:?}");
        }
    }

    #[test]
    fn this_process_has_files_stacks_and_anonymous_memory() {
        let memory = read(std::process::id()).expect("one's own smaps can be read");
        let rss = rss_bytes(std::process::id()).expect("one's own statm can be read");
        assert!(memory.files.rss_bytes > 0 && memory.stacks.rss_bytes > 0, "{memory:?}");
        assert!(rss > 0 && rss < 1 << 40, "{rss}");
        let zombie: &[u8] = b"";
        assert!(parse(&mut &*zombie, &Threads::default()).is_err(), "its file is there, and empty");
        assert!(read(u32::MAX / 2).is_err() && rss_bytes(u32::MAX / 2).is_err());
    }

    /// Prints what a read costs; run by hand, the figures stand in docs/analysis.md.
    #[test]
    #[ignore = "a measurement"]
    fn cost_of_a_read() {
        let map = |bytes| memmap2::MmapOptions::new().len(bytes).populate().map_anon().expect("memory");
        let time = |what: &str| {
            let mut times: Vec<_> = (0..9)
                .map(|_| {
                    let before = std::time::Instant::now();
                    read(std::process::id()).expect("one's own smaps can be read");
                    before.elapsed()
                })
                .collect();
            times.sort_unstable();
            println!("{what}: {:?}", times[4]);
        };
        time("as it is");
        let _large = map(1 << 30);
        time("1 GiB resident");
        // Neighbours of different rights stay apart.
        let _small: Vec<_> = (0..2500).map(|_| (map(4096), map(4096).make_read_only())).collect();
        time("and 5000 mappings");
    }
}
