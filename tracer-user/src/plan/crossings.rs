//! What jumps into the instructions between a function's entry and its site: the probe would fire again without a call.

use std::ops::RangeInclusive;

use iced_x86::{FlowControl, Instruction};
use tracer_common::addr::FileVaddr;

use super::prologue::decode;

/// Bytes of a function that are decoded in search of short jumps. A short jump spans at most 129 bytes, so those that
/// matter stand near the site.
const MAX_BODY_BYTES: usize = 64 * 1024;

/// Candidates checked against instruction boundaries in one module. Real modules have a few; past that, each counts as
/// a jump.
const MAX_CHECKS: usize = 256;

/// The addresses of one function that must not be jumped to: behind the entry, up to and including the site.
#[derive(Clone, Debug)]
pub struct Skipped<'code> {
    /// The function's entry.
    pub entry: FileVaddr,
    /// Where the probe is to sit.
    pub site: FileVaddr,
    /// The function's bytes from its entry to its end.
    pub body: &'code [u8],
}

impl Skipped<'_> {
    fn range(&self) -> RangeInclusive<u64> {
        self.entry.0.saturating_add(1)..=self.site.0
    }

    /// The first jump within the function itself, short or near, that leads in.
    fn jump_in_body(&self) -> Option<FileVaddr> {
        let body = &self.body[..self.body.len().min(MAX_BODY_BYTES)];
        decode(body, self.entry)
            .find(|instruction| target(instruction).is_some_and(|target| self.range().contains(&target)))
            .map(|instruction| FileVaddr(instruction.ip()))
    }
}

/// For each of `skipped` the jump, call or function symbol that leads into it, if any.
///
/// `segments` is the module's code: parts split off from a function (`malloc.cold`) may jump back from anywhere, by
/// relative 32-bit branches. `functions` are the addresses of all known functions, ascending.
pub fn find(skipped: &[Skipped<'_>], segments: &[(FileVaddr, &[u8])], functions: &[u64]) -> Vec<Option<FileVaddr>> {
    let mut found: Vec<_> = skipped
        .iter()
        .map(|skipped| {
            let next = functions.partition_point(|address| address < skipped.range().start());
            let inner = functions.get(next).filter(|address| skipped.range().contains(address));
            inner.map(|address| FileVaddr(*address)).or_else(|| skipped.jump_in_body())
        })
        .collect();
    let (Some(lowest), Some(highest)) =
        (skipped.iter().map(|s| *s.range().start()).min(), skipped.iter().map(|s| *s.range().end()).max())
    else {
        return found;
    };
    let mut n_checks = 0;
    for &(vaddr, bytes) in segments {
        for (at, target) in near_branches(vaddr, bytes).filter(|(_, target)| (lowest..=highest).contains(target)) {
            for (skipped, found) in skipped.iter().zip(&mut found) {
                if found.is_some() || !skipped.range().contains(&target) {
                    continue;
                }
                n_checks += 1;
                if n_checks > MAX_CHECKS || may_be_instruction(at, (vaddr, bytes), functions) {
                    *found = Some(at);
                }
            }
        }
    }
    found
}

/// Everything that reads as a relative 32-bit jmp, call or conditional jump, at whatever byte: where its last opcode byte
/// stands and where it leads.
fn near_branches(vaddr: FileVaddr, bytes: &[u8]) -> impl Iterator<Item = (FileVaddr, u64)> {
    bytes.windows(5).enumerate().filter_map(move |(n, window)| {
        let is_conditional = || matches!(window[0], 0x80..=0x8f) && n > 0 && bytes[n - 1] == 0x0f;
        let is_branch = matches!(window[0], 0xe8 | 0xe9) || is_conditional();
        let displacement = i32::from_le_bytes([window[1], window[2], window[3], window[4]]);
        let at = vaddr.0.wrapping_add(n as u64);
        is_branch.then(|| (FileVaddr(at), at.wrapping_add(5).wrapping_add_signed(i64::from(displacement))))
    })
}

/// Whether the branch whose last opcode byte is at `at` is one, not a part of other instructions (`mov ecx, ebp` ends
/// in e9, and small constants behind it make a near target: met in glibc 2.43). When it cannot be told, it may be.
fn may_be_instruction(at: FileVaddr, (vaddr, bytes): (FileVaddr, &[u8]), functions: &[u64]) -> bool {
    let known = functions.partition_point(|address| *address <= at.0);
    let Some(start) = known.checked_sub(1).map(|n| functions[n]).filter(|start| *start >= vaddr.0) else {
        return true;
    };
    let before = (at.0 - start) as usize;
    let code = usize::try_from(start - vaddr.0).ok().and_then(|start| bytes.get(start..)).unwrap_or_default();
    before > MAX_BODY_BYTES
        || decode(code, FileVaddr(start))
            .take_while(|instruction| instruction.ip() <= at.0)
            .last()
            .is_none_or(|instruction| instruction.is_invalid() || target(&instruction).is_some())
}

fn target(instruction: &Instruction) -> Option<u64> {
    let is_direct = matches!(
        instruction.flow_control(),
        FlowControl::UnconditionalBranch | FlowControl::ConditionalBranch | FlowControl::Call
    );
    is_direct.then(|| instruction.near_branch_target()).filter(|target| *target != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENTRY: FileVaddr = FileVaddr(0x1000);

    fn crossing(body: &[u8], site: u64, segments: &[(FileVaddr, &[u8])], functions: &[u64]) -> Option<FileVaddr> {
        find(&[Skipped { entry: ENTRY, site: FileVaddr(site), body }], segments, functions)[0]
    }

    #[test]
    fn loop_over_the_site_is_found() {
        // 1000: 48 85 ff  test rdi,rdi
        // 1003: 74 02     je   0x1007       (the site)
        // 1005: eb fc     jmp  0x1003
        let body = [0x48, 0x85, 0xff, 0x74, 0x02, 0xeb, 0xfc];
        assert_eq!(crossing(&body, 0x1003, &[], &[]), Some(FileVaddr(0x1005)));
    }

    #[test]
    fn loop_to_the_entry_or_behind_the_site_is_harmless() {
        // 1000: 48 85 ff  test rdi,rdi
        // 1003: 74 04     je   0x1009       (the site)
        // 1005: eb fe     jmp  0x1005
        // 1007: eb f7     jmp  0x1000
        let body = [0x48, 0x85, 0xff, 0x74, 0x04, 0xeb, 0xfe, 0xeb, 0xf7];
        assert_eq!(crossing(&body, 0x1003, &[], &[ENTRY.0, 0x1005]), None);
    }

    #[test]
    fn part_split_off_may_jump_back() {
        // 9000: e9 fe 7f ff ff        jmp 0x1003
        let jump = [0xe9, 0xfe, 0x7f, 0xff, 0xff];
        assert_eq!(crossing(&[], 0x1003, &[(FileVaddr(0x9000), &jump)], &[]), Some(FileVaddr(0x9000)));
        // 9000: 0f 84 fd 7f ff ff     je  0x1003
        let jump = [0x0f, 0x84, 0xfd, 0x7f, 0xff, 0xff];
        assert_eq!(crossing(&[], 0x1003, &[(FileVaddr(0x9000), &jump)], &[]), Some(FileVaddr(0x9001)));
        assert_eq!(crossing(&[], 0x1002, &[(FileVaddr(0x9000), &jump)], &[]), None);
    }

    #[test]
    fn bytes_that_only_look_like_a_jump_are_none() {
        // glibc 2.43, malloc_stats: the bytes from e9 on read as a jmp to 0x12c5
        // 1000: 89 e9           mov  ecx,ebp
        // 1002: be 02 00 00 00  mov  esi,2
        // 1007: c3              ret
        let code = [0x89, 0xe9, 0xbe, 0x02, 0x00, 0x00, 0x00, 0xc3];
        let skipped = Skipped { entry: FileVaddr(0x12c0), site: FileVaddr(0x12d0), body: &[] };
        let found = |functions: &[u64]| find(std::slice::from_ref(&skipped), &[(ENTRY, &code)], functions)[0];
        assert_eq!(found(&[0x1000, 0x12c0]), None);
        assert_eq!(found(&[0x12c0]), Some(FileVaddr(0x1001)), "without a symbol before it, it may be one");
    }

    #[test]
    fn function_that_begins_within_is_found() {
        assert_eq!(crossing(&[], 0x1003, &[], &[0xfff, 0x1000, 0x1003, 0x2000]), Some(FileVaddr(0x1003)));
    }

    #[test]
    fn entry_itself_skips_nothing() {
        // 1000: eb fe  jmp 0x1000
        assert_eq!(crossing(&[0xeb, 0xfe], 0x1000, &[], &[0x1000]), None);
    }
}
