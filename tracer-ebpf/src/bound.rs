//! Bounds that the verifier must see. The compiler knows them from the context and would drop a plain mask.

use core::arch::asm;

/// `value & MASK`, as an instruction that the compiler cannot drop.
#[inline(always)]
pub fn mask<const MASK: u64>(value: u64) -> u64 {
    let mut masked = value;
    // SAFETY: one ALU instruction on a register.
    unsafe { asm!("{0} &= {1}", inout(reg) masked, const MASK, options(pure, nomem, nostack)) };
    masked
}
