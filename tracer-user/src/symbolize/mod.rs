//! Addresses → names, after the snapshot. The only importer of blazesym.

pub mod attribute;
pub(crate) mod debug_file;
mod name;
mod symbolizer;

pub use attribute::Attribution;
pub use name::{FrameName, Names, NoSymbol, Place, module_name};
pub use symbolizer::{Progress, SymbolizeOptions, Symbolizer};
