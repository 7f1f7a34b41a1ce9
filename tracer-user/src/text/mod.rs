//! Text that users type and read: patterns, names that a mistyped one may have meant, errors in one line. Pure.

use std::error::Error;

pub mod glob;
pub mod near;

/// An error and its causes in one line.
pub fn chain(error: &(dyn Error + 'static)) -> String {
    causes(error).skip(1).fold(error.to_string(), |text, source| format!("{text}: {source}"))
}

/// An error, its cause, that one's cause and so on.
pub fn causes<'e>(error: &'e (dyn Error + 'static)) -> impl Iterator<Item = &'e (dyn Error + 'static)> {
    std::iter::successors(Some(error), |error| (*error).source())
}
