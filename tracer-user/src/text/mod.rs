//! Text that users type: patterns, and names that a mistyped one may have meant. Pure.

pub mod glob;
pub mod near;
