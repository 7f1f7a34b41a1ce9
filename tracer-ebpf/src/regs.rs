//! Registers at a probe site: where the cookie says that the arguments live.

use aya_ebpf::{bindings::pt_regs, programs::ProbeContext};
use tracer_common::cookie::SiteCookie;

/// What an entry program needs of the registers, as they were at the function's entry.
pub struct Entry {
    /// Stack pointer at the entry: its word is the return address.
    pub sp: u64,
    /// Frame pointer register.
    pub bp: u64,
    /// The first three integer arguments; those that the shape does not read are arbitrary.
    pub args: [u64; 3],
}

/// Reads the entry's registers through the site's cookie.
#[inline(always)]
pub fn entry(ctx: &ProbeContext, cookie: SiteCookie) -> Entry {
    // SAFETY: the context of a uprobe program is the `pt_regs` of the interrupted thread.
    let regs = unsafe { &*ctx.regs };
    let args = if cookie.is_standard() {
        [regs.rdi, regs.rsi, regs.rdx]
    } else {
        [pick(regs, cookie.arg_register(0)), pick(regs, cookie.arg_register(1)), pick(regs, cookie.arg_register(2))]
    };
    Entry { sp: regs.rsp.wrapping_add(cookie.rsp_moved_bytes()), bp: regs.rbp, args }
}

/// The general-purpose register with encoding number `n`.
///
/// The context cannot be indexed by a variable, and a `match` of loads would be turned into just that: all candidates are
/// read first and stored where a variable index is allowed, the program's stack.
#[inline(never)]
fn pick(regs: &pt_regs, n: u64) -> u64 {
    // SAFETY: plain volatile reads of fields of a valid reference.
    unsafe {
        let read = |field: *const u64| core::ptr::read_volatile(field);
        let all = [
            read(&raw const regs.rax),
            read(&raw const regs.rcx),
            read(&raw const regs.rdx),
            read(&raw const regs.rbx),
            read(&raw const regs.rsp),
            read(&raw const regs.rbp),
            read(&raw const regs.rsi),
            read(&raw const regs.rdi),
            read(&raw const regs.r8),
            read(&raw const regs.r9),
            read(&raw const regs.r10),
            read(&raw const regs.r11),
            read(&raw const regs.r12),
            read(&raw const regs.r13),
            read(&raw const regs.r14),
            read(&raw const regs.r15),
        ];
        core::ptr::read_volatile(&raw const all[(n & 15) as usize])
    }
}
