//! The BPF programs of `memtrace-bpf`, one object. Entry points only; each hands over to the module that knows the matter.
//!
//! A hit is told whose it is in [`threads`] and [`targets`], a call is paired in [`alloc`], its stack walked and stored in [`stack`], its
//! bytes counted in [`account`].
#![no_std]
#![no_main]
#![feature(asm_experimental_arch, core_intrinsics)]
#![allow(internal_features, reason = "BPF atomics that return the old value exist as intrinsics only")]

mod account;
mod alloc;
mod atomic;
mod blocks;
mod bound;
mod counters;
mod maps;
mod process;
mod ranges;
mod regs;
mod stack;
mod targets;
mod task;
mod threads;

use aya_ebpf::{
    macros::{raw_tracepoint, uprobe, uretprobe},
    programs::{ProbeContext, RawTracePointContext, RetProbeContext},
};
use tracer_common::cookie::Shape;

/// `malloc(size)`, `valloc(size)`, `pvalloc(size)`.
#[uprobe]
pub fn enter_size(ctx: ProbeContext) -> u32 {
    alloc::enter(&ctx, Shape::Size)
}

/// `calloc(count, size)`.
#[uprobe]
pub fn enter_count_size(ctx: ProbeContext) -> u32 {
    alloc::enter(&ctx, Shape::CountSize)
}

/// `memalign(align, size)`, `aligned_alloc(align, size)`.
#[uprobe]
pub fn enter_align_size(ctx: ProbeContext) -> u32 {
    alloc::enter(&ctx, Shape::AlignSize)
}

/// `posix_memalign(&out, align, size)`.
#[uprobe]
pub fn enter_out_align_size(ctx: ProbeContext) -> u32 {
    alloc::enter(&ctx, Shape::OutAlignSize)
}

/// `realloc(ptr, size)`.
#[uprobe]
pub fn enter_pointer_size(ctx: ProbeContext) -> u32 {
    alloc::enter(&ctx, Shape::PointerSize)
}

/// `reallocarray(ptr, count, size)`.
#[uprobe]
pub fn enter_pointer_count_size(ctx: ProbeContext) -> u32 {
    alloc::enter(&ctx, Shape::PointerCountSize)
}

/// `free(ptr)`.
#[uprobe]
pub fn enter_pointer(ctx: ProbeContext) -> u32 {
    alloc::free(&ctx)
}

/// The return of every function that allocates.
#[uretprobe]
pub fn leave(ctx: RetProbeContext) -> u32 {
    alloc::leave(&ctx)
}

/// `mmap`, `munmap`, `mremap`, `brk`, `madvise`: which, the cookie tells.
#[uprobe]
pub fn enter_mapping(ctx: ProbeContext) -> u32 {
    ranges::enter(&ctx)
}

/// The return of these.
#[uretprobe]
pub fn leave_mapping(ctx: RetProbeContext) -> u32 {
    ranges::leave(&ctx)
}

/// `_dl_debug_state` of the dynamic loader: the list of libraries has changed.
#[uprobe]
pub fn libraries_changed(ctx: ProbeContext) -> u32 {
    process::libraries_changed(&ctx)
}

/// A process or a thread is made.
#[raw_tracepoint(tracepoint = "sched_process_fork")]
pub fn process_fork(ctx: RawTracePointContext) -> i32 {
    process::fork(&ctx)
}

/// A thread ends: its slot is free again.
#[raw_tracepoint(tracepoint = "sched_process_exit")]
pub fn thread_exit(_ctx: RawTracePointContext) -> i32 {
    process::thread_exit()
}

/// A process calls exec.
#[raw_tracepoint(tracepoint = "sched_process_exec")]
pub fn process_exec(ctx: RawTracePointContext) -> i32 {
    process::exec(&ctx)
}

/// Does nothing: the benchmark's floor and the calibration of a trap's cost.
#[uprobe]
pub fn empty(_ctx: ProbeContext) -> u32 {
    0
}

/// As [`empty`], for returns.
#[uretprobe]
pub fn empty_return(_ctx: RetProbeContext) -> u32 {
    0
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // No program contains a panicking path (the verifier would refuse the endless loop).
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
