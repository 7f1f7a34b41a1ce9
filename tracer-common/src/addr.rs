//! Typed addresses: mixing up a run-time address, an ELF virtual address and a file offset is a type error.

macro_rules! address {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[repr(transparent)]
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub u64);

        impl core::fmt::LowerHex for $name {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                core::fmt::LowerHex::fmt(&self.0, f)
            }
        }
    };
}

address! {
    /// An address in the target's address space, as its instructions see it.
    UserAddr
}
address! {
    /// A virtual address as the ELF file's program headers state it (before the load bias).
    FileVaddr
}
address! {
    /// A byte offset into the file; what the kernel's uprobes are registered by.
    FileOffset
}

/// One frame's program counter as the unwinder reports it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FrameAddr {
    /// A return address: the instruction *after* the call.
    Return(UserAddr),
    /// The exact instruction (a frame interrupted by a signal).
    Exact(UserAddr),
}

impl FrameAddr {
    /// The address to look names up by: inside the call instruction for return addresses.
    pub const fn lookup(self) -> UserAddr {
        match self {
            Self::Return(UserAddr(addr)) => UserAddr(addr.wrapping_sub(1)),
            Self::Exact(addr) => addr,
        }
    }

    /// The address as it stood on the stack or in the register.
    pub const fn raw(self) -> UserAddr {
        match self {
            Self::Return(addr) | Self::Exact(addr) => addr,
        }
    }
}
