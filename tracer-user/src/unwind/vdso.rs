//! The vdso: code that the kernel maps into each process, without a file.

use super::rows::{ModuleRows, RowsError, module_rows};

/// Bytes of a vdso that are looked at: two pages of code on Linux 6.1 to 7.2, more on others.
pub const MAX_VDSO_BYTES: usize = 64 * 1024;

/// The rows of the vdso out of `image`, the bytes of its mapping: the kernel maps the whole ELF file, page-aligned, so
/// addresses, file offsets and offsets into the mapping are the same numbers.
///
/// # Errors
/// As [`module_rows`].
pub fn vdso_rows(image: &[u8]) -> Result<ModuleRows, RowsError> {
    module_rows(&image[..image.len().min(MAX_VDSO_BYTES)])
}
