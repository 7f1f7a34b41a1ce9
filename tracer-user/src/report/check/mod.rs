//! What a check found: text on one screen, markdown for a pull request or a job summary, JUnit XML for what shows test results.

mod junit;
mod markdown;
mod text;
mod words;

pub use junit::render as junit;
pub use markdown::render as markdown;
pub use text::render as text;
