//! Patterns with the meaning of Python's `fnmatch` (CPython, Lib/fnmatch.py), which `tracemalloc.Filter` compares with: `*` is
//! any text, `/` included; `?` one character; `[seq]` and `[!seq]` one character in or not in a set. Nothing else is special, and
//! every text is a pattern: a `[` that is never closed stands for itself.

/// A compiled pattern.
#[derive(Clone, Debug)]
pub struct Glob(Vec<Token>);

#[derive(Clone, Debug)]
enum Token {
    Any,
    One,
    Literal(char),
    /// Ranges of characters, their ends included; an empty range matches nothing.
    Set {
        negated: bool,
        ranges: Vec<(char, char)>,
    },
}

impl Glob {
    /// Compiles a pattern.
    pub fn new(pattern: &str) -> Self {
        let chars: Vec<char> = pattern.chars().collect();
        let mut tokens = Vec::new();
        let mut at = 0;
        while let Some(&c) = chars.get(at) {
            at += 1;
            match c {
                '*' => {
                    if !matches!(tokens.last(), Some(Token::Any)) {
                        tokens.push(Token::Any);
                    }
                }
                '?' => tokens.push(Token::One),
                '[' => match set(&chars[at..]) {
                    Some((token, len)) => {
                        tokens.push(token);
                        at += len;
                    }
                    None => tokens.push(Token::Literal('[')),
                },
                c => tokens.push(Token::Literal(c)),
            }
        }
        Self(tokens)
    }

    /// Whether the whole text matches. Takes at most the product of both lengths.
    pub fn is_match(&self, text: &str) -> bool {
        let tokens = &self.0;
        let mut rest = text.chars();
        let mut token = 0;
        // Where to go on when a comparison fails: after the last `*`, with that one taking a character more.
        let mut retry: Option<(usize, std::str::Chars<'_>)> = None;
        loop {
            if matches!(tokens.get(token), Some(Token::Any)) {
                token += 1;
                retry = Some((token, rest.clone()));
                continue;
            }
            match (tokens.get(token), rest.next()) {
                (None, None) => return true,
                (Some(wanted), Some(c)) if wanted.takes(c) => {
                    token += 1;
                    continue;
                }
                // The text has ended: a longer `*` leaves even less.
                (Some(_), None) => return false,
                _ => {}
            }
            let Some((after_star, from)) = &mut retry else { return false };
            if from.next().is_none() {
                return false;
            }
            token = *after_star;
            rest = from.clone();
        }
    }
}

impl Token {
    fn takes(&self, c: char) -> bool {
        match self {
            Self::Any => false,
            Self::One => true,
            Self::Literal(wanted) => *wanted == c,
            Self::Set { negated, ranges } => ranges.iter().any(|&(low, high)| (low..=high).contains(&c)) != *negated,
        }
    }
}

/// The set after a `[`, and how many characters it takes with its `]`; `None`: it is never closed.
fn set(chars: &[char]) -> Option<(Token, usize)> {
    let negated = chars.first() == Some(&'!');
    let first = usize::from(negated);
    // A `]` right at the start is a member.
    let close = first + 1 + chars.get(first + 1..)?.iter().position(|&c| c == ']')?;
    let members = &chars[first..close];
    let mut ranges = Vec::new();
    let mut at = 0;
    while at < members.len() {
        let low = members[at];
        if let (Some('-'), Some(&high)) = (members.get(at + 1), members.get(at + 2)) {
            ranges.push((low, high));
            at += 3;
        } else {
            ranges.push((low, low));
            at += 1;
        }
    }
    Some((Token::Set { negated, ranges }, close + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_as_fnmatch_does() {
        for (pattern, text, expected) in [
            ("", "", true),
            ("", "a", false),
            ("*", "", true),
            ("*", "a/b/c.c", true),
            ("*.c", "src/cache.c", true),
            ("*.c", "src/cache.cc", false),
            ("src/*/a*b*c", "src/x/y/aabxcbc", true),
            ("src/*/a*b*c", "src/x/y/aabxcbd", false),
            ("?", "ö", true),
            ("?", "/", true),
            ("a?c", "ac", false),
            ("[a-c]x", "bx", true),
            ("[!a-c]x", "bx", false),
            ("[!a-c]x", "dx", true),
            ("[]]", "]", true),
            ("[!]]", "]", false),
            ("[a", "[a", true),
            ("[", "[", true),
            ("[!", "[!", true),
            ("[]", "[]", true),
            ("[a-]", "-", true),
            ("[z-a]", "m", false),
            ("{a,b}", "a", false),
            ("a\\*", "a\\b", true),
            ("<*>", "<unknown>", true),
        ] {
            assert_eq!(Glob::new(pattern).is_match(text), expected, "{pattern} on {text}");
        }
    }
}
