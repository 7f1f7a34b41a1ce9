//! The allocator functions that are probed, and the allocators that are told apart: one row each.

use tracer_common::cookie::{Reg, Shape};

/// The second argument's register and so on, for functions whose arguments are not the first ones.
const RSI: Reg = Reg(6);
const RDX: Reg = Reg(2);
const RCX: Reg = Reg(1);

/// Every traced function. A row's index is the `function` byte of the attach cookie, so rows are only ever appended.
///
/// Not here: `nallocx` and its like, which allocate nothing; functions that take a string (`mi_strdup`), whose size no argument tells.
pub const FUNCTIONS: [AllocatorFunction; 83] = [
    c_function("malloc", &["malloc", "__libc_malloc"], Shape::Size),
    c_function("calloc", &["calloc", "__libc_calloc"], Shape::CountSize),
    c_function("realloc", &["realloc", "__libc_realloc"], Shape::PointerSize),
    c_function("reallocarray", &["reallocarray", "__libc_reallocarray"], Shape::PointerCountSize),
    c_function("free", &["free", "cfree", "__libc_free", "__libc_cfree"], Shape::Pointer),
    c_function("posix_memalign", &["posix_memalign"], Shape::OutAlignSize),
    c_function("memalign", &["memalign", "__libc_memalign"], Shape::AlignSize),
    c_function("aligned_alloc", &["aligned_alloc"], Shape::AlignSize),
    c_function("valloc", &["valloc", "__libc_valloc"], Shape::Size),
    c_function("pvalloc", &["pvalloc", "__libc_pvalloc"], Shape::Size),
    // C23: sized frees.
    c_function("free_sized", &["free_sized", "free_aligned_sized"], Shape::Pointer),
    // jemalloc with a prefix: `je_` by hand, `_rjem_` by Rust's tikv-jemalloc-sys.
    own("je_malloc", &["je_malloc", "_rjem_malloc"], Shape::Size),
    own("je_calloc", &["je_calloc", "_rjem_calloc"], Shape::CountSize),
    own("je_realloc", &["je_realloc", "_rjem_realloc"], Shape::PointerSize),
    own("je_free", &["je_free", "_rjem_free", "je_free_sized", "_rjem_free_sized"], Shape::Pointer),
    own("je_free_aligned_sized", &["je_free_aligned_sized", "_rjem_free_aligned_sized"], Shape::Pointer),
    own("je_posix_memalign", &["je_posix_memalign", "_rjem_posix_memalign"], Shape::OutAlignSize),
    own("je_aligned_alloc", &["je_aligned_alloc", "_rjem_aligned_alloc"], Shape::AlignSize),
    own("je_memalign", &["je_memalign", "_rjem_memalign"], Shape::AlignSize),
    own("je_valloc", &["je_valloc", "_rjem_valloc", "je_pvalloc", "_rjem_pvalloc"], Shape::Size),
    // jemalloc's own interface, by whatever prefix.
    own("mallocx", &["mallocx", "je_mallocx", "_rjem_mallocx"], Shape::Size),
    own("rallocx", &["rallocx", "je_rallocx", "_rjem_rallocx"], Shape::PointerSize),
    own("dallocx", &["dallocx", "je_dallocx", "_rjem_dallocx"], Shape::Pointer),
    own("sdallocx", &["sdallocx", "je_sdallocx", "_rjem_sdallocx"], Shape::Pointer),
    // tcmalloc. Most are its malloc and so on at the same address.
    own("tc_malloc", &["tc_malloc", "tc_malloc_skip_new_handler", "TCMallocInternalMalloc"], Shape::Size),
    own("tc_calloc", &["tc_calloc", "TCMallocInternalCalloc"], Shape::CountSize),
    own("tc_realloc", &["tc_realloc", "TCMallocInternalRealloc"], Shape::PointerSize),
    own("tc_free", &["tc_free", "tc_cfree", "TCMallocInternalFree", "TCMallocInternalCfree"], Shape::Pointer),
    own("tc_free_sized", &["tc_free_sized", "TCMallocInternalFreeSized"], Shape::Pointer),
    own("tc_memalign", &["tc_memalign", "TCMallocInternalMemalign"], Shape::AlignSize),
    own("tc_aligned_alloc", &["TCMallocInternalAlignedAlloc"], Shape::AlignSize),
    own("tc_posix_memalign", &["tc_posix_memalign", "TCMallocInternalPosixMemalign"], Shape::OutAlignSize),
    own("tc_valloc", &["tc_valloc", "tc_pvalloc"], Shape::Size),
    // mimalloc.
    own("mi_malloc", &["mi_malloc", "mi_malloc_small", "mi_malloc_aligned", "mi_umalloc"], Shape::Size),
    own("mi_malloc_aligned_at", &["mi_malloc_aligned_at", "mi_umalloc_small", "mi_umalloc_aligned"], Shape::Size),
    own("mi_zalloc", &["mi_zalloc", "mi_zalloc_small", "mi_zalloc_aligned", "mi_zalloc_aligned_at"], Shape::Size),
    own("mi_calloc", &["mi_calloc", "mi_calloc_aligned", "mi_calloc_aligned_at", "mi_ucalloc"], Shape::CountSize),
    own("mi_mallocn", &["mi_mallocn"], Shape::CountSize),
    own("mi_realloc", &["mi_realloc", "mi_realloc_aligned", "mi_realloc_aligned_at"], Shape::PointerSize),
    own("mi_rezalloc", &["mi_rezalloc", "mi_rezalloc_aligned", "mi_rezalloc_aligned_at"], Shape::PointerSize),
    own("mi_reallocf", &["mi_reallocf", "mi_urealloc"], Shape::PointerSize),
    own("mi_expand", &["mi_expand"], Shape::PointerSize),
    own("mi_reallocn", &["mi_reallocn", "mi_reallocarray"], Shape::PointerCountSize),
    own("mi_recalloc", &["mi_recalloc", "mi_recalloc_aligned"], Shape::PointerCountSize),
    own("mi_free", &["mi_free", "mi_cfree", "mi_ufree", "mi_free_small"], Shape::Pointer),
    own("mi_free_size", &["mi_free_size", "mi_free_aligned", "mi_free_size_aligned"], Shape::Pointer),
    own("mi_posix_memalign", &["mi_posix_memalign"], Shape::OutAlignSize),
    own("mi_memalign", &["mi_memalign", "mi_aligned_alloc"], Shape::AlignSize),
    own("mi_valloc", &["mi_valloc", "mi_pvalloc"], Shape::Size),
    own("mi_heap_malloc", &["mi_heap_malloc", "mi_heap_malloc_small", "mi_theap_malloc"], Shape::Size)
        .reading([RSI, RSI, RDX]),
    own("mi_heap_malloc_aligned", &["mi_heap_malloc_aligned", "mi_heap_malloc_aligned_at"], Shape::Size)
        .reading([RSI, RSI, RDX]),
    own("mi_heap_zalloc", &["mi_heap_zalloc", "mi_heap_zalloc_aligned", "mi_heap_zalloc_aligned_at"], Shape::Size)
        .reading([RSI, RSI, RDX]),
    own("mi_heap_calloc", &["mi_heap_calloc", "mi_heap_calloc_aligned", "mi_heap_mallocn"], Shape::CountSize)
        .reading([RSI, RDX, RDX]),
    own("mi_heap_calloc_aligned_at", &["mi_heap_calloc_aligned_at"], Shape::CountSize).reading([RSI, RDX, RDX]),
    own("mi_heap_realloc", &["mi_heap_realloc", "mi_heap_realloc_aligned", "mi_heap_reallocf"], Shape::PointerSize)
        .reading([RSI, RDX, RDX]),
    own("mi_heap_realloc_aligned_at", &["mi_heap_realloc_aligned_at"], Shape::PointerSize).reading([RSI, RDX, RDX]),
    own("mi_heap_rezalloc", &["mi_heap_rezalloc", "mi_heap_rezalloc_aligned"], Shape::PointerSize)
        .reading([RSI, RDX, RDX]),
    own("mi_heap_rezalloc_aligned_at", &["mi_heap_rezalloc_aligned_at"], Shape::PointerSize).reading([RSI, RDX, RDX]),
    own("mi_heap_reallocn", &["mi_heap_reallocn"], Shape::PointerCountSize).reading([RSI, RDX, RCX]),
    own("mi_heap_recalloc", &["mi_heap_recalloc", "mi_heap_recalloc_aligned"], Shape::PointerCountSize)
        .reading([RSI, RDX, RCX]),
    // snmalloc, as its crate names it.
    own("sn_malloc", &["sn_malloc"], Shape::Size),
    own("sn_calloc", &["sn_calloc"], Shape::CountSize),
    own("sn_realloc", &["sn_realloc"], Shape::PointerSize),
    own("sn_free", &["sn_free"], Shape::Pointer),
    own("sn_rust_alloc", &["sn_rust_alloc", "sn_rust_alloc_zeroed"], Shape::AlignSize),
    own("sn_rust_realloc", &["sn_rust_realloc"], Shape::PointerSize).reading([Reg(7), RCX, RDX]),
    own("sn_rust_dealloc", &["sn_rust_dealloc"], Shape::Pointer),
    // C++, all forms; and what some allocators call theirs. `operator new` throws when it fails.
    own("operator new", &OPERATOR_NEW, Shape::Size).throwing().wrapper(),
    own("operator new nothrow", &OPERATOR_NEW_NOTHROW, Shape::Size).wrapper(),
    own("operator delete", &OPERATOR_DELETE, Shape::Pointer).wrapper(),
    own("tc_new", &["tc_new", "tc_newarray", "tc_new_aligned", "tc_newarray_aligned"], Shape::Size).throwing(),
    own("tc_new_nothrow", &["tc_new_nothrow", "tc_newarray_nothrow", "tc_new_aligned_nothrow"], Shape::Size),
    own("tc_delete", &TC_DELETE, Shape::Pointer),
    own("mi_new", &["mi_new", "mi_new_aligned"], Shape::Size).throwing(),
    own("mi_new_nothrow", &["mi_new_nothrow", "mi_new_aligned_nothrow"], Shape::Size),
    own("mi_new_n", &["mi_new_n"], Shape::CountSize).throwing(),
    own("mi_new_realloc", &["mi_new_realloc"], Shape::PointerSize).throwing(),
    own("mi_new_reallocn", &["mi_new_reallocn"], Shape::PointerCountSize).throwing(),
    own("mi_heap_new", &["mi_heap_alloc_new"], Shape::Size).reading([RSI, RSI, RDX]).throwing(),
    // Rust's global allocator, which most programs set to one of the above, or leave at malloc.
    own("__rust_alloc", &RUST_ALLOC, Shape::Size).wrapper(),
    own("__rust_realloc", &RUST_REALLOC, Shape::PointerSize).reading([Reg(7), RCX, RDX]).wrapper(),
    own("__rust_dealloc", &RUST_DEALLOC, Shape::Pointer).wrapper(),
    own("xallocx", &["xallocx", "je_xallocx", "_rjem_xallocx"], Shape::PointerSizeInPlace),
];

/// Mangled by the Itanium C++ ABI: `nw`/`na` new and new[], `m` size_t, then std::align_val_t, std::nothrow_t, and the
/// hot/cold hint of newer tcmalloc.
const OPERATOR_NEW: [&str; 8] = [
    "_Znwm",
    "_Znam",
    "_ZnwmSt11align_val_t",
    "_ZnamSt11align_val_t",
    "_Znwm12__hot_cold_t",
    "_Znam12__hot_cold_t",
    "_ZnwmSt11align_val_t12__hot_cold_t",
    "_ZnamSt11align_val_t12__hot_cold_t",
];
const OPERATOR_NEW_NOTHROW: [&str; 6] = [
    "_ZnwmRKSt9nothrow_t",
    "_ZnamRKSt9nothrow_t",
    "_ZnwmSt11align_val_tRKSt9nothrow_t",
    "_ZnamSt11align_val_tRKSt9nothrow_t",
    "_ZnwmRKSt9nothrow_t12__hot_cold_t",
    "_ZnamRKSt9nothrow_t12__hot_cold_t",
];
const OPERATOR_DELETE: [&str; 12] = [
    "_ZdlPv",
    "_ZdaPv",
    "_ZdlPvm",
    "_ZdaPvm",
    "_ZdlPvRKSt9nothrow_t",
    "_ZdaPvRKSt9nothrow_t",
    "_ZdlPvSt11align_val_t",
    "_ZdaPvSt11align_val_t",
    "_ZdlPvmSt11align_val_t",
    "_ZdaPvmSt11align_val_t",
    "_ZdlPvSt11align_val_tRKSt9nothrow_t",
    "_ZdaPvSt11align_val_tRKSt9nothrow_t",
];
const TC_DELETE: [&str; 8] = [
    "tc_delete",
    "tc_deletearray",
    "tc_delete_sized",
    "tc_deletearray_sized",
    "tc_delete_nothrow",
    "tc_deletearray_nothrow",
    "tc_delete_aligned",
    "tc_delete_sized_aligned",
];
/// `__rust_` is what alloc calls; `__rg_` the program's own allocator behind it, `__rdl_` the default one. Newer compilers mangle
/// them ([`plain_name`]).
const RUST_ALLOC: [&str; 6] =
    ["__rust_alloc", "__rust_alloc_zeroed", "__rg_alloc", "__rg_alloc_zeroed", "__rdl_alloc", "__rdl_alloc_zeroed"];
const RUST_REALLOC: [&str; 3] = ["__rust_realloc", "__rg_realloc", "__rdl_realloc"];
const RUST_DEALLOC: [&str; 3] = ["__rust_dealloc", "__rg_dealloc", "__rdl_dealloc"];

/// The known allocators, most specific first: replacements of malloc also define glibc's internal names.
pub const FAMILIES: [Family; 7] = [
    Family { name: "jemalloc", any_of: &["mallctl", "je_mallctl", "_rjem_mallctl"] },
    Family { name: "tcmalloc", any_of: &["tc_malloc", "TCMallocInternalMalloc"] },
    Family { name: "mimalloc", any_of: &["mi_malloc"] },
    Family { name: "snmalloc", any_of: &["sn_malloc", "sn_rust_alloc"] },
    Family { name: "scudo", any_of: &["__scudo_print_stats", "__scudo_get_error_info"] },
    Family { name: "musl", any_of: &["__dls3", "__init_libc"] },
    Family { name: "glibc", any_of: &["gnu_get_libc_version", "_IO_2_1_stdout_"] },
];

/// What the dynamic loader defines. glibc's up to 2.34 also exports a minimal malloc for its own start-up.
pub const LOADER_MARKERS: [&str; 3] = ["_r_debug", "_rtld_global", "_dl_mcount"];

/// What a libc defines and a mere loader does not. musl's libc and loader are one file.
pub const LIBC_MARKER: &str = "__libc_start_main";

/// One row of [`FUNCTIONS`].
#[derive(Clone, Copy, Debug)]
pub struct AllocatorFunction {
    /// The name in reports.
    pub name: &'static str,
    /// Symbols that implement it, the one to show first; versions (`@@GLIBC_2.2.5`) are not part of them.
    pub symbols: &'static [&'static str],
    /// How its arguments are read.
    pub shape: Shape,
    /// Registers of the shape's arguments at the entry.
    pub args: [Reg; 3],
    /// Only a module that defines all of these functions is taken to be this kind of allocator: a lone `free` or
    /// `valloc` may be anything. Other names tell enough, and a static link keeps only those functions that are called: there
    /// one that allocates and one that frees will do.
    pub needs: &'static [&'static str],
    /// Whether the names are so common that a source file's local function may have one by chance.
    pub is_common_name: bool,
    /// Whether it reports failure by a C++ exception, which a replaced return address would turn into std::terminate.
    pub throws: bool,
    /// Whether it mostly hands over to another traced function; where it does, it is not probed.
    pub is_wrapper: bool,
}

const fn c_function(name: &'static str, symbols: &'static [&'static str], shape: Shape) -> AllocatorFunction {
    AllocatorFunction { needs: &["malloc", "free"], is_common_name: true, ..own(name, symbols, shape) }
}

/// A function that nobody else calls by this name.
const fn own(name: &'static str, symbols: &'static [&'static str], shape: Shape) -> AllocatorFunction {
    AllocatorFunction {
        name,
        symbols,
        shape,
        args: Reg::ARGS,
        needs: &[],
        is_common_name: false,
        throws: false,
        is_wrapper: false,
    }
}

impl AllocatorFunction {
    const fn reading(self, args: [Reg; 3]) -> Self {
        Self { args, ..self }
    }

    const fn throwing(self) -> Self {
        Self { throws: true, ..self }
    }

    const fn wrapper(self) -> Self {
        Self { is_wrapper: true, ..self }
    }
}

/// The name under which the table has a symbol: Rust's `_RNvCs…_7___rustc12___rust_alloc` is `__rust_alloc`
/// (the `v0` mangling of a path in the crate `__rustc`; an identifier that begins with `_` has one more before it).
pub fn plain_name(symbol: &[u8]) -> &[u8] {
    const CRATE: &[u8] = b"_7___rustc";
    let Some(path) = symbol.strip_prefix(b"_R") else { return symbol };
    let Some(at) = path.windows(CRATE.len()).position(|window| window == CRATE) else { return symbol };
    let identifier = &path[at + CRATE.len()..];
    let n_digits = identifier.iter().take_while(|byte| byte.is_ascii_digit()).count();
    identifier[n_digits..].strip_prefix(b"_").unwrap_or(symbol)
}

/// An allocator implementation, recognised by what a module defines, never by the file's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Family {
    /// The name in reports.
    pub name: &'static str,
    /// Symbols of which one is enough.
    pub any_of: &'static [&'static str],
}

/// The name of the function that a cookie's `function` byte stands for.
pub fn function_name(index: u8) -> Option<&'static str> {
    FUNCTIONS.get(usize::from(index)).map(|function| function.name)
}

/// What argument `n` is called for this shape; the empty string where there is none.
pub const fn arg_name(shape: Shape, n: usize) -> &'static str {
    let names: [&'static str; 3] = match shape {
        Shape::Size => ["size", "", ""],
        Shape::CountSize => ["count", "size", ""],
        Shape::AlignSize => ["align", "size", ""],
        Shape::OutAlignSize => ["out", "align", "size"],
        Shape::PointerSize | Shape::PointerSizeInPlace => ["ptr", "size", ""],
        Shape::PointerCountSize => ["ptr", "count", "size"],
        Shape::Pointer => ["ptr", "", ""],
    };
    names[n]
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_symbol_belongs_to_one_function() {
        let mut seen = HashSet::new();
        for symbol in FUNCTIONS.iter().flat_map(|function| function.symbols) {
            assert!(seen.insert(symbol), "{symbol} is in two rows");
        }
    }

    #[test]
    fn index_is_the_cookie_byte() {
        assert_eq!(function_name(0), Some("malloc"));
        assert_eq!(function_name(4), Some("free"));
        assert!(u8::try_from(FUNCTIONS.len()).is_ok());
        assert_eq!(function_name(FUNCTIONS.len() as u8), None);
    }

    #[test]
    fn every_need_is_a_row() {
        for need in FUNCTIONS.iter().flat_map(|function| function.needs) {
            assert!(FUNCTIONS.iter().any(|function| function.name == *need), "{need}");
        }
    }

    #[test]
    fn mangled_names_of_rust_are_told() {
        // rustc 1.89 to 1.95
        assert_eq!(plain_name(b"_RNvCs2kPXOe3rE5Z_7___rustc12___rust_alloc"), b"__rust_alloc");
        assert_eq!(plain_name(b"_RNvCsdBezzDwma51_7___rustc19___rust_alloc_zeroed"), b"__rust_alloc_zeroed");
        assert_eq!(plain_name(b"_RNvCsdBezzDwma51_7___rustc11___rdl_alloc"), b"__rdl_alloc");
        for other in [&b"malloc"[..], b"_R", b"_RNvC5crate5alloc", b"_RNvCs_7___rustc", b""] {
            assert_eq!(plain_name(other), other);
        }
    }

    #[test]
    fn arguments_that_are_read_have_names() {
        for shape in Shape::ALL {
            for n in 0..3 {
                assert_eq!(n < shape.n_args(), !arg_name(shape, n).is_empty(), "{shape:?} argument {n}");
            }
        }
    }
}
