//! Bounds that both sides rely on. Each is a named cap that a length from a target meets first.

/// Frames kept of one stack (the acceptance floor is 127; the frame walk stops here with `TruncatedDepth`).
pub const MAX_FRAMES: usize = 128;

/// Bytes of the user stack read at once into a thread's buffer. A larger read costs by its size, a smaller one
/// is repeated more often; see bench/.
pub const STACK_CHUNK_BYTES: usize = 2048;

/// Executable mappings of one target that the kernel can search (a power of two: 2^12 search steps suffice).
pub const MAX_MAPPINGS: u32 = 4096;

/// Executable mappings of all targets together.
pub const MAX_POOLED_MAPPINGS: u32 = 1 << 16;

/// Target numbers, 0 (none) included: processes that are counted at one time, or have ended and are not retired yet.
pub const MAX_TARGETS: u32 = 8192;

/// Cgroups that a scope names.
pub const MAX_CGROUPS: u32 = 1024;

/// Levels below the root of the cgroup hierarchy on which a scope's cgroups may lie.
pub const MAX_CGROUP_LEVELS: u32 = 32;

/// Distinct unwind rules. Rules repeat: libc has about 300, all of Debian's python3 with its modules under 2 000.
pub const MAX_RULES: u32 = 65_536;

/// Slots probed for a thread or a stack hash before the table counts as full.
pub const TABLE_PROBES: u32 = 32;

/// Bytes of the ring buffer for rare events (library opened, fork, exec, exit), 40 each. A power of two and a multiple of the page.
pub const EVENTS_BYTES: u32 = 512 * 1024;

const _: () = assert!(MAX_FRAMES.is_power_of_two() && MAX_FRAMES > 127);
const _: () = assert!(MAX_MAPPINGS.is_power_of_two());
const _: () = assert!(STACK_CHUNK_BYTES.is_multiple_of(8) && (STACK_CHUNK_BYTES / 8).is_power_of_two());
