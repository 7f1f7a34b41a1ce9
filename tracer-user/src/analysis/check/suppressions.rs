//! Known leaks, in LeakSanitizer's syntax: `leak:PATTERN`, one a line, `#` begins a comment. A pattern is found anywhere in the
//! function, source file or module of any frame; `*` stands for any text, `^` and `$` hold it to the ends.

use std::str::FromStr;

use thiserror::Error;

use crate::symbolize::FrameName;

/// The lines of a suppressions file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Suppressions {
    /// In the order of the file: the first that matches counts.
    pub rules: Vec<Suppression>,
}

/// One line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Suppression {
    /// Line in the file, from 1.
    pub line: usize,
    /// What follows `leak:`.
    pub pattern: Pattern,
}

/// Text with `*`, `^` and `$`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern {
    text: String,
    at_start: bool,
    at_end: bool,
    pieces: Vec<String>,
}

/// A line that is no suppression.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("line {line}: {reason}")]
pub struct SuppressionError {
    /// Line in the file, from 1.
    pub line: usize,
    /// What is wrong with it.
    pub reason: String,
}

impl FromStr for Suppressions {
    type Err = SuppressionError;

    fn from_str(text: &str) -> Result<Self, SuppressionError> {
        let mut rules = Vec::new();
        for (line, text) in (1..).zip(text.lines()) {
            let text = text.trim();
            if text.is_empty() || text.starts_with('#') {
                continue;
            }
            let wrong = |reason: String| Err(SuppressionError { line, reason });
            match text.split_once(':') {
                Some(("leak", pattern)) => match Pattern::new(pattern.trim()) {
                    Some(pattern) => rules.push(Suppression { line, pattern }),
                    None => return wrong(format!("`{text}` matches every leak")),
                },
                Some((kind, _)) => return wrong(format!("`{kind}` is no suppression of leaks (try leak:PATTERN)")),
                None => return wrong(format!("`{text}` is no suppression (try leak:PATTERN)")),
            }
        }
        Ok(Self { rules })
    }
}

impl Suppressions {
    /// The rules that any of these frames matches, in order: names and module path of each, as the stack has them.
    pub fn find<'f>(
        &self,
        frames: &(impl Iterator<Item = (&'f [FrameName], Option<&'f str>)> + Clone),
    ) -> impl Iterator<Item = usize> {
        let is_match =
            move |rule: &Suppression| frames.clone().any(|(names, module)| rule.pattern.is_in(names, module));
        self.rules.iter().enumerate().filter(move |(_, rule)| is_match(rule)).map(|(at, _)| at)
    }
}

impl Pattern {
    /// `None`: nothing is left of it but wildcards.
    fn new(text: &str) -> Option<Self> {
        let rest = text.strip_prefix('^');
        let at_start = rest.is_some();
        let rest = rest.unwrap_or(text);
        let (rest, at_end) = rest.strip_suffix('$').map_or((rest, false), |rest| (rest, true));
        if rest.chars().all(|c| c == '*') {
            return None;
        }
        let pieces = rest.split('*').map(str::to_owned).collect();
        Some(Self { text: text.to_owned(), at_start, at_end, pieces })
    }

    /// As the file has it.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether a frame's module, or the function or file of any of its names, matches.
    fn is_in(&self, names: &[FrameName], module: Option<&str>) -> bool {
        module.is_some_and(|module| self.matches(module))
            || names.iter().any(|name| {
                name.function.as_deref().is_ok_and(|function| self.matches(function))
                    || name.file.as_ref().is_some_and(|file| self.matches(&file.to_string_lossy()))
            })
    }

    fn matches(&self, text: &str) -> bool {
        let (last, before) = self.pieces.split_last().expect("split gives one piece at least");
        let mut rest = text;
        for (at, piece) in before.iter().enumerate() {
            if at == 0 && self.at_start {
                match rest.strip_prefix(piece.as_str()) {
                    Some(after) => rest = after,
                    None => return false,
                }
            } else {
                match rest.find(piece.as_str()) {
                    Some(found) => rest = &rest[found + piece.len()..],
                    None => return false,
                }
            }
        }
        match (before.is_empty() && self.at_start, self.at_end) {
            (true, true) => rest == last,
            (true, false) => rest.starts_with(last.as_str()),
            (false, true) => rest.ends_with(last.as_str()),
            (false, false) => rest.contains(last.as_str()),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn matches(pattern: &str, text: &str) -> bool {
        Pattern::new(pattern).expect("a pattern").matches(text)
    }

    #[test]
    fn a_pattern_is_found_anywhere_unless_it_is_held_to_an_end() {
        assert!(matches("add", "cache_add_all") && !matches("add", "cache"));
        assert!(matches("^cache", "cache_add") && !matches("^cache", "a_cache"));
        assert!(matches("add$", "cache_add") && !matches("add$", "cache_added"));
        assert!(matches("^cache_add$", "cache_add") && !matches("^cache_add$", "cache_add2"));
        // The first `foo` is not at the end, the second is.
        assert!(matches("foo$", "foofoo"));
    }

    #[test]
    fn a_star_stands_for_any_text() {
        assert!(matches("ca*add", "my_cache_add_all") && !matches("ca*add", "add_cache"));
        assert!(matches("^*add$", "cache_add") && matches("^ca*$", "cache"));
        assert!(matches("a**b", "a1b") && matches("*.so$", "/x/libfoo.so") && !matches("*.so$", "/x/libfoo.so.1"));
        assert!(!matches("^a*a$", "a"));
        // In the middle they are themselves.
        assert!(matches("a$b^c", "xa$b^cx"));
    }

    #[test]
    fn comments_and_blank_lines_are_skipped_and_lines_are_numbered() {
        let parsed: Suppressions = "# known\n\n leak:cache_add \r\n#leak:x\nleak:libfoo.so\n".parse().expect("valid");
        let rules: Vec<_> = parsed.rules.iter().map(|rule| (rule.line, rule.pattern.as_str())).collect();
        assert_eq!(rules, [(3, "cache_add"), (5, "libfoo.so")]);
    }

    #[test]
    fn a_broken_line_is_named() {
        let error = |text: &str| text.parse::<Suppressions>().expect_err("broken").to_string();
        assert_eq!(error("leak:a\nrace:b"), "line 2: `race` is no suppression of leaks (try leak:PATTERN)");
        assert_eq!(error("cache_add"), "line 1: `cache_add` is no suppression (try leak:PATTERN)");
        assert_eq!(error("#\nleak:"), "line 2: `leak:` matches every leak");
        assert_eq!(error("leak:^*$"), "line 1: `leak:^*$` matches every leak");
    }

    /// What the pattern means, the slow way: `None` is the end.
    fn oracle(pattern: &[char], text: &[char]) -> bool {
        match pattern.split_first() {
            None => text.is_empty(),
            Some(('*', rest)) => (0..=text.len()).any(|at| oracle(rest, &text[at..])),
            Some((c, rest)) => text.first() == Some(c) && oracle(rest, &text[1..]),
        }
    }

    proptest! {
        #[test]
        fn it_agrees_with_a_search_of_all_ways(pattern in r"\^?[ab*]{1,6}\$?", text in "[ab]{0,8}") {
            if let Some(compiled) = Pattern::new(&pattern) {
                let open = |held: bool| if held { "" } else { "*" };
                let middle = pattern.trim_start_matches('^').trim_end_matches('$');
                let whole = format!("{}{middle}{}", open(pattern.starts_with('^')), open(pattern.ends_with('$')));
                let expected = oracle(&whole.chars().collect::<Vec<_>>(), &text.chars().collect::<Vec<_>>());
                prop_assert_eq!(compiled.matches(&text), expected);
            }
        }
    }
}
