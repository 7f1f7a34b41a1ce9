//! The attach cookie of a probe site: which function, where its arguments live at the site, how far rsp has moved.

/// The shape of an allocator function's arguments and result. Each has a BPF entry program, but for the last, which shares
/// [`Self::PointerSize`]'s and is told by a bit of the cookie.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Shape {
    /// `f(size) -> ptr`: malloc, valloc, pvalloc.
    Size = 0,
    /// `f(count, size) -> ptr`: calloc.
    CountSize = 1,
    /// `f(align, size) -> ptr`: memalign, aligned_alloc.
    AlignSize = 2,
    /// `f(&out, align, size) -> errno`: posix_memalign.
    OutAlignSize = 3,
    /// `f(ptr, size) -> ptr`: realloc.
    PointerSize = 4,
    /// `f(ptr, count, size) -> ptr`: reallocarray.
    PointerCountSize = 5,
    /// `f(ptr)`: free.
    Pointer = 6,
    /// `f(ptr, size) -> usable size`, at least `size` unless it failed: jemalloc's xallocx.
    PointerSizeInPlace = 7,
}

impl Shape {
    /// Every shape, in the order of their numbers.
    pub const ALL: [Self; 8] = [
        Self::Size,
        Self::CountSize,
        Self::AlignSize,
        Self::OutAlignSize,
        Self::PointerSize,
        Self::PointerCountSize,
        Self::Pointer,
        Self::PointerSizeInPlace,
    ];

    /// How many integer arguments (rdi, rsi, rdx) the entry program reads.
    pub const fn n_args(self) -> usize {
        match self {
            Self::Size | Self::Pointer => 1,
            Self::CountSize | Self::AlignSize | Self::PointerSize | Self::PointerSizeInPlace => 2,
            Self::OutAlignSize | Self::PointerCountSize => 3,
        }
    }

    /// Whether argument `n` is read at all (an alignment is not).
    pub const fn reads_arg(self, n: usize) -> bool {
        match self {
            Self::AlignSize => n == 1,
            Self::OutAlignSize => n == 0 || n == 2,
            _ => n < self.n_args(),
        }
    }

    /// Whether the call's result is needed, so that the function gets a return probe.
    pub const fn returns(self) -> bool {
        !matches!(self, Self::Pointer)
    }
}

/// A general-purpose register by its number in x86 instruction encodings (0 = rax, 1 = rcx, 2 = rdx, 3 = rbx, 4 = rsp, 5 = rbp,
/// 6 = rsi, 7 = rdi, 8–15 = r8–r15).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Reg(pub u8);

impl Reg {
    /// Registers of the first three integer arguments (System V ABI).
    pub const ARGS: [Self; 3] = [Self(7), Self(6), Self(2)];
}

/// What the kernel hands the BPF program with each hit.
///
/// Bits 0–7 the function's index in the table of allocator functions, 8–11, 12–15, 16–19 the registers that hold arguments 0,
/// 1, 2 at the site, 20 set when all arguments are where the ABI puts them and rsp is at the return address, 21 set for
/// [`Shape::PointerSizeInPlace`], 32–47 bytes that rsp lies below the return address.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SiteCookie(pub u64);

impl SiteCookie {
    const STANDARD: u64 = 1 << 20;
    const IN_PLACE: u64 = 1 << 21;

    /// Packs a site's facts.
    pub fn new(function: u8, args: [Reg; 3], rsp_moved_bytes: u16) -> Self {
        let mut bits = u64::from(function) | (u64::from(rsp_moved_bytes) << 32);
        for (n, reg) in args.iter().enumerate() {
            bits |= u64::from(reg.0 & 15) << (8 + 4 * n);
        }
        if args == Reg::ARGS && rsp_moved_bytes == 0 {
            bits |= Self::STANDARD;
        }
        Self(bits)
    }

    /// The same for a function of [`Shape::PointerSizeInPlace`].
    #[must_use]
    pub const fn in_place(self) -> Self {
        Self(self.0 | Self::IN_PLACE)
    }

    /// Whether the function is of [`Shape::PointerSizeInPlace`].
    #[inline(always)]
    pub const fn is_in_place(self) -> bool {
        self.0 & Self::IN_PLACE != 0
    }

    /// Index of the function in the table of allocator functions.
    pub const fn function(self) -> u8 {
        self.0 as u8
    }

    /// Whether arguments and rsp are as at the function's entry.
    #[inline(always)]
    pub const fn is_standard(self) -> bool {
        self.0 & Self::STANDARD != 0
    }

    /// Number of the register that holds argument `n` (0–2).
    #[inline(always)]
    pub const fn arg_register(self, n: u32) -> u64 {
        (self.0 >> (8 + 4 * n)) & 15
    }

    /// Bytes that rsp lies below the return address at the site.
    #[inline(always)]
    pub const fn rsp_moved_bytes(self) -> u64 {
        (self.0 >> 32) & 0xffff
    }
}
