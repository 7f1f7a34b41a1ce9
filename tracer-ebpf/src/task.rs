//! What is read of the kernel's tasks, at the offsets that the loader took from the kernel's type information.

use core::ffi::c_void;

use aya_ebpf::helpers::generated;
use tracer_common::abi::TaskLayout;

use crate::maps::control;

/// A `struct task_struct`.
#[derive(Clone, Copy)]
pub struct Task(pub u64);

impl Task {
    /// The task that runs.
    #[inline(always)]
    pub fn current() -> Self {
        // SAFETY: a helper without arguments.
        Self(unsafe { generated::bpf_get_current_task() })
    }

    /// Id of its process in the initial namespace.
    #[inline(always)]
    pub fn tgid(self) -> u32 {
        read(self.0, layout().tgid)
    }

    /// Its memory: two tasks with the same one share it. 0 = a kernel thread.
    #[inline(always)]
    pub fn memory(self) -> u64 {
        read(self.0, layout().mm)
    }

    /// The first thread of its process.
    #[inline(always)]
    pub fn leader(self) -> Self {
        Self(read(self.0, layout().group_leader))
    }

    /// When it started: CLOCK_BOOTTIME, ns.
    #[inline(always)]
    pub fn start_ns(self) -> u64 {
        read(self.0, layout().start_boottime)
    }

    /// As `wait` tells it.
    #[inline(always)]
    pub fn exit_code(self) -> u32 {
        read(self.0, layout().exit_code)
    }

    /// Whether all threads of its process have ended, the one that is just ending included.
    #[inline(always)]
    pub fn is_last(self) -> bool {
        let signal: u64 = read(self.0, layout().signal);
        let live: u32 = read(signal, layout().live);
        signal != 0 && live == 0
    }
}

/// Whether the loader has told where the fields lie.
#[inline(always)]
pub fn is_layout_known() -> bool {
    layout().tgid != 0
}

#[inline(always)]
fn layout() -> TaskLayout {
    control().map_or(TaskLayout::default(), |control| control.task)
}

/// The field at `offset`; 0 where it cannot be read.
#[inline(always)]
fn read<T: Copy + Default>(base: u64, offset: u32) -> T {
    let mut value = T::default();
    if offset != 0 {
        // SAFETY: the destination is a local of the size that is told; the helper checks the address.
        let _failed = unsafe {
            generated::bpf_probe_read_kernel(
                (&raw mut value).cast(),
                size_of::<T>() as u32,
                base.wrapping_add(u64::from(offset)) as *const c_void,
            )
        };
    }
    value
}
