//! ELF bytes → unwind rows (pure), and which modules' rows are in the kernel's tables.

mod derived;
mod image;
pub mod rows;
pub mod tables;
pub mod vdso;

pub use rows::{ModuleRows, Problem, Problems, RowsError, module_rows, module_rows_with};
pub use tables::{Added, RowRange, RowTables, RuleInterner};
