//! The allocator functions that are probed, and the allocators that are told apart: one row each.

use tracer_common::cookie::Shape;

/// Every traced function. A row's index is the `function` byte of the attach cookie, so rows are only ever appended.
pub const FUNCTIONS: [AllocatorFunction; 10] = [
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
];

/// The known allocators, most specific first: replacements of malloc also define glibc's internal names.
pub const FAMILIES: [Family; 5] = [
    Family { name: "jemalloc", any_of: &["mallctl", "je_mallctl", "_rjem_mallctl"] },
    Family { name: "tcmalloc", any_of: &["tc_malloc", "TCMallocInternalMalloc"] },
    Family { name: "mimalloc", any_of: &["mi_malloc"] },
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
    /// Only a module that defines all of these functions is taken to be this kind of allocator: a lone `free` or
    /// `valloc` may be anything.
    pub needs: &'static [&'static str],
}

const fn c_function(name: &'static str, symbols: &'static [&'static str], shape: Shape) -> AllocatorFunction {
    AllocatorFunction { name, symbols, shape, needs: &["malloc", "free"] }
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
        Shape::PointerSize => ["ptr", "size", ""],
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
        assert_eq!(function_name(FUNCTIONS.len() as u8), None);
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
