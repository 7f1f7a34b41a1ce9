//! Folded stacks: `outermost;…;innermost bytes`, one stack a line, as stack collapsers for flame graphs print them. With a base
//! the older bytes stand before the newer, as `inferno-diff-folded` prints them.

use std::io::{self, Write};

use super::{
    Source,
    labels::{Labelled, LabelledStack, labelled},
};

/// Writes all stacks.
pub(super) fn write(source: &Source<'_>, out: &mut dyn Write) -> io::Result<()> {
    let Labelled { labels, stacks } = labelled(source);
    let labels: Vec<String> = labels.iter().map(|label| field(label)).collect();
    stacks.iter().try_for_each(|stack| line(&labels, stack, source.base.is_some(), out))
}

/// Writes one stack.
pub(super) fn line(labels: &[String], stack: &LabelledStack, differs: bool, out: &mut dyn Write) -> io::Result<()> {
    for (at, frame) in stack.frames.iter().enumerate() {
        let separator = if at > 0 { ";" } else { "" };
        write!(out, "{separator}{}", labels[*frame as usize])?;
    }
    if differs {
        write!(out, " {}", stack.base_bytes)?;
    }
    writeln!(out, " {}", stack.bytes)
}

/// A label without what separates frames or columns. Readers look for columns from the right, so that a last word that is a
/// number would be one.
pub(super) fn field(label: &str) -> String {
    let mut label = label.trim().replace(';', ":");
    if label.is_empty() {
        return "[no name]".to_owned();
    }
    if let Some(at) = label.rfind(' ')
        && label[at + 1..].bytes().all(|byte| byte.is_ascii_digit() || byte == b'.')
    {
        label.replace_range(at..=at, "_");
    }
    label
}

#[cfg(test)]
mod tests {
    use super::field;

    #[test]
    fn no_label_holds_a_separator_or_ends_in_a_column() {
        for (label, expected) in [
            ("main", "main"),
            ("operator new(unsigned long)", "operator new(unsigned long)"),
            ("a;b", "a:b"),
            ("evil 10 20", "evil 10_20"),
            ("evil 1.5", "evil_1.5"),
            (" ", "[no name]"),
            ("f(int) [clone .part.0]", "f(int) [clone .part.0]"),
        ] {
            assert_eq!(field(label), expected, "{label:?}");
        }
    }
}
