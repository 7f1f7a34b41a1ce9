//! What `/proc` tells of a process that scopes and reports ask for. A few small files are read; its memory is not.

use std::{
    ffi::OsStr,
    fs::{self, File},
    io,
    os::{fd::AsRawFd as _, unix::ffi::OsStrExt as _},
    path::{Path, PathBuf},
};

use super::{files, users};

/// Bytes taken of a file below `/proc/PID`: the longest is `cgroup`, with up to a path (4 KiB) a hierarchy.
const MAX_FILE_BYTES: u64 = 256 << 10;

/// Longest name of a process (TASK_COMM_LEN less its end, include/linux/sched.h): the kernel cuts what is longer.
const MAX_COMM_BYTES: usize = 15;

/// What a scope decides by, and reports name a process by. All strings are the process's: hostile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Process id as this process sees it.
    pub pid: u32,
    /// When it started, in clock ticks since boot (proc_pid_stat(5), field 22): with the pid its identity.
    pub start_time_ticks: u64,
    /// The process that started it, or the one that adopted it.
    pub parent: u32,
    /// Its name, at most 15 bytes: of the executable, unless it gave itself another.
    pub comm: String,
    /// Its executable as seen from its own root, without ` (deleted)`; `None`: it may not be read, or there is none.
    pub exe: Option<PathBuf>,
    /// Its effective user.
    pub uid: u32,
    /// That user's name on this host.
    pub user: Option<String>,
    /// Its v2 control group, `/docker/<id>`, as seen from this process's cgroup namespace; `None`: no such hierarchy.
    pub cgroup: Option<PathBuf>,
    /// Its id in its own pid namespace: another than `pid` within a container.
    pub pid_inside: u32,
    /// It has no user-space memory and never had.
    pub is_kernel_thread: bool,
    /// It has ended, all of its threads, and is not reaped yet.
    pub is_zombie: bool,
}

impl Facts {
    /// Asks `/proc`. What is told is of one process, even if its id is reused meanwhile.
    ///
    /// # Errors
    /// There is no such process (`NotFound`), or `/proc` is not as documented (`InvalidData`).
    pub fn read(pid: u32) -> io::Result<Self> {
        let dir = ProcessDir::open(pid)?;
        let stat = Stat::parse(&dir.read("stat")?).ok_or_else(|| {
            io::Error::new(io::ErrorKind::InvalidData, format!("/proc/{pid}/stat is of no known form"))
        })?;
        let status = Status::parse(&String::from_utf8_lossy(&dir.read("status")?));
        Ok(Self {
            pid,
            start_time_ticks: stat.start_time_ticks,
            parent: stat.parent,
            comm: stat.comm,
            exe: fs::read_link(dir.path("exe")).ok().map(without_deleted),
            uid: status.uid,
            user: users::name_of(status.uid),
            cgroup: cgroup_of(&dir.read("cgroup").unwrap_or_default()),
            pid_inside: status.pid_inside.unwrap_or(pid),
            is_kernel_thread: stat.is_kernel_thread,
            is_zombie: stat.is_zombie,
        })
    }

    /// The name of its executable, where the process still has it and it was cut short in `comm`.
    pub fn whole_name(&self) -> Option<&str> {
        let name = self.exe.as_ref()?.file_name()?.to_str()?;
        (self.comm.len() >= MAX_COMM_BYTES && name.starts_with(&self.comm)).then_some(name)
    }

    /// Every process there is now, as far as it can be read.
    pub fn of_all() -> Vec<Self> {
        let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
        let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        pids.filter_map(|pid| Self::read(pid).ok()).collect()
    }
}

/// `/proc/PID`, held open: it belongs to its process. Once that is reaped, nothing is found in it.
struct ProcessDir(File);

impl ProcessDir {
    fn open(pid: u32) -> io::Result<Self> {
        File::open(format!("/proc/{pid}")).map(Self)
    }

    fn path(&self, file: &str) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}/{file}", self.0.as_raw_fd()))
    }

    fn read(&self, file: &str) -> io::Result<Vec<u8>> {
        files::read(&self.path(file), MAX_FILE_BYTES)
    }
}

/// The kernel marks the path of a file that was replaced or removed.
fn without_deleted(path: PathBuf) -> PathBuf {
    match path.as_os_str().as_bytes().strip_suffix(b" (deleted)") {
        Some(path) => PathBuf::from(OsStr::from_bytes(path)),
        None => path,
    }
}

/// What of `/proc/PID/stat` matters here (proc_pid_stat(5)).
#[derive(Debug, PartialEq, Eq)]
struct Stat {
    comm: String,
    parent: u32,
    start_time_ticks: u64,
    is_kernel_thread: bool,
    is_zombie: bool,
}

impl Stat {
    fn parse(stat: &[u8]) -> Option<Self> {
        /// A flag of the kernel's own threads (include/linux/sched.h).
        const PF_KTHREAD: u64 = 0x0020_0000;
        // The name may hold anything, brackets too; no field after it does.
        let open = stat.iter().position(|&byte| byte == b'(')?;
        let close = stat.iter().rposition(|&byte| byte == b')')?;
        let comm = String::from_utf8_lossy(stat.get(open + 1..close)?).into_owned();
        let rest = std::str::from_utf8(&stat[close + 1..]).ok()?;
        let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
        // The first field after the name is the third.
        let field = |number: usize| fields.get(number - 3).copied();
        let number = |at: usize| field(at)?.parse::<u64>().ok();
        // A first thread that has ended is shown as a zombie, however many others run.
        let is_zombie = matches!(field(3)?, "Z" | "X") && number(20)? <= 1;
        Some(Self {
            comm,
            parent: u32::try_from(number(4)?).ok()?,
            start_time_ticks: number(22)?,
            is_kernel_thread: number(9)? & PF_KTHREAD != 0,
            is_zombie,
        })
    }
}

/// What of `/proc/PID/status` matters here.
#[derive(Debug, PartialEq, Eq)]
struct Status {
    uid: u32,
    /// The last of `NSpid`, which lists the ids from this namespace to its own.
    pid_inside: Option<u32>,
}

impl Status {
    fn parse(text: &str) -> Self {
        let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
        // Real, effective, saved, file system.
        let uid = field("Uid:").split_ascii_whitespace().nth(1).and_then(|uid| uid.parse().ok());
        let pid_inside = field("NSpid:").split_ascii_whitespace().last().and_then(|pid| pid.parse().ok());
        Self { uid: uid.unwrap_or(u32::MAX), pid_inside }
    }
}

/// The line of the v2 hierarchy in `/proc/PID/cgroup` (cgroups(7)).
fn cgroup_of(text: &[u8]) -> Option<PathBuf> {
    let path = text.split(|&byte| byte == b'\n').find_map(|line| line.strip_prefix(b"0::"))?;
    Some(without_deleted(Path::new(OsStr::from_bytes(path)).to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_may_look_like_the_fields_behind_it() {
        let stat = b"77 (a) R 1 (b)) S 42 77 77 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 3 0 9876 1 2 3\n";
        let expected = Stat {
            comm: "a) R 1 (b)".to_owned(),
            parent: 42,
            start_time_ticks: 9876,
            is_kernel_thread: false,
            is_zombie: false,
        };
        assert_eq!(Stat::parse(stat), Some(expected));
    }

    #[test]
    fn a_process_whose_first_thread_has_ended_is_no_zombie() {
        let stat = |state: &str, threads: u32, flags: u64| {
            let text = format!("2 (x) {state} 0 0 0 0 -1 {flags} 0 0 0 0 0 0 0 0 20 0 {threads} 0 5 0 0");
            Stat::parse(text.as_bytes()).expect("well-formed")
        };
        assert!(stat("Z", 1, 0).is_zombie && !stat("Z", 3, 0).is_zombie && !stat("S", 1, 0).is_zombie);
        assert!(stat("I", 1, 0x0020_8040).is_kernel_thread && !stat("I", 1, 0x8040).is_kernel_thread);
    }

    #[test]
    fn what_is_cut_short_is_no_stat() {
        for text in ["", "1", "1 (x", "1 x) S", ")(", "1 (x) S 1 2", "1 (x)"] {
            assert_eq!(Stat::parse(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn rights_are_the_effective_ones_and_the_last_pid_is_the_own() {
        let status = "Name:\tx\\nUid:\t7\nUid:\t1000\t0\t0\t0\nNSpid:\t4711\t12\t1\n";
        assert_eq!(Status::parse(status), Status { uid: 0, pid_inside: Some(1) });
        assert_eq!(Status::parse(""), Status { uid: u32::MAX, pid_inside: None });
    }

    #[test]
    fn the_v2_group_is_the_one_without_a_controller() {
        let hybrid = b"4:memory:/docker/x\n1:name=systemd:/a\n0::/docker/y\n";
        assert_eq!(cgroup_of(hybrid).as_deref(), Some(Path::new("/docker/y")));
        assert_eq!(cgroup_of(b"0::/docker/y (deleted)\n").as_deref(), Some(Path::new("/docker/y")));
        assert_eq!(cgroup_of(b"4:memory:/docker/x\n"), None);
    }

    #[test]
    fn facts_of_this_process_are_its_own() {
        let facts = Facts::read(std::process::id()).expect("it runs");
        assert_eq!((facts.pid, facts.parent), (std::process::id(), std::os::unix::process::parent_id()));
        assert_eq!(facts.exe, std::env::current_exe().ok());
        assert_eq!(facts.uid, nix::unistd::geteuid().as_raw());
        assert!(facts.start_time_ticks > 0 && !facts.is_kernel_thread && !facts.is_zombie);
        assert_eq!(Facts::read(u32::MAX / 2).expect_err("none").kind(), io::ErrorKind::NotFound);
        assert!(Facts::of_all().contains(&facts));
    }
}
