//! Where a process's data segment ends, as far as `/proc` tells: what `brk` moves.

use std::{fs, io, path::Path};

use super::maps;

/// What the kernel calls the mapping that `brk` makes (fs/proc/task_mmu.c).
const HEAP: &str = "[heap]";

/// Fields of `/proc/PID/stat` behind the name, from `state` (field 3) to `start_brk` (field 47, proc(5)).
const START_BRK: usize = 47 - 3;

/// The first address past the data segment, rounded up to a page.
///
/// # Errors
/// `/proc/PID` cannot be read, or does not tell.
pub fn data_segment_end(pid: u32) -> io::Result<u64> {
    let maps = maps::parse(&fs::read(format!("/proc/{pid}/maps"))?);
    // Parts of it may have been unmapped or been given another protection: it is several mappings then.
    if let Some(end) = maps.iter().filter(|map| map.path == Path::new(HEAP)).map(|map| map.end.0).max() {
        return Ok(end);
    }
    let stat = fs::read(format!("/proc/{pid}/stat"))?;
    start_brk(&stat).ok_or_else(|| io::Error::other("no start of the data segment in /proc/PID/stat"))
}

/// The name, in parentheses, may hold anything, parentheses included.
fn start_brk(stat: &[u8]) -> Option<u64> {
    const PAGE_BYTES: u64 = 4096;
    let name_end = stat.iter().rposition(|byte| *byte == b')')?;
    let fields = str::from_utf8(&stat[name_end + 1..]).ok()?;
    let start: u64 = fields.split_whitespace().nth(START_BRK)?.parse().ok()?;
    (start > 0).then(|| start.next_multiple_of(PAGE_BYTES))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_has_a_data_segment() {
        let end = data_segment_end(std::process::id()).expect("this process may be read");
        assert!(end > 0 && end.is_multiple_of(4096));
    }

    #[test]
    fn the_start_is_the_47th_field_whatever_the_name_is() {
        let fields: Vec<String> = (3..=52).map(|n| if n == 3 { "S".into() } else { (n * 1000).to_string() }).collect();
        let stat = format!("4711 (a) (b 1 2) {}\n", fields.join(" "));
        assert_eq!(start_brk(stat.as_bytes()), Some(49_152), "47000, rounded up");
        assert_eq!(start_brk(b"4711 (cut) S 1"), None);
    }
}
