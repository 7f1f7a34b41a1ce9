//! From registers at an allocator's entry to a stack id: walk, then store.

mod code;
mod store;
mod walk;

pub use store::id_of;
pub use walk::walk;
