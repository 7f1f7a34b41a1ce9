//! Output as documented against output as it is.

use anyhow::{Result, bail};

/// Whether the output is what the document shows. A line `...` stands for any lines, `...` in a line for any text; unless
/// `exact`, any number stands for any other, any unit of bytes for any other, and columns may be set otherwise.
///
/// # Errors
/// It is not; both are shown.
pub fn compare(shown: &[String], printed: &str, exact: bool) -> Result<()> {
    let form = |line: &str| if exact { line.trim_end().to_owned() } else { without_figures(line) };
    let expected: Vec<String> = shown.iter().map(|line| form(line)).collect();
    let found: Vec<String> = printed.trim_end().lines().map(form).collect();
    if lines_match(&expected, &found) {
        return Ok(());
    }
    bail!("the document shows\n{}\nand it prints\n{}", shown.join("\n"), printed.trim_end());
}

fn lines_match(expected: &[String], found: &[String]) -> bool {
    match expected.split_first() {
        None => found.is_empty(),
        Some((first, rest)) if first == "..." => (0..=found.len()).any(|at| lines_match(rest, &found[at..])),
        Some((first, rest)) => {
            found.split_first().is_some_and(|(line, found)| line_matches(first, line) && lines_match(rest, found))
        }
    }
}

/// `...` stands for any text.
fn line_matches(expected: &str, found: &str) -> bool {
    let Some((head, tail)) = expected.split_once("...") else { return expected == found };
    let Some(rest) = found.strip_prefix(head) else { return false };
    let starts = rest.char_indices().map(|(at, _)| at).chain([rest.len()]);
    starts.into_iter().any(|at| line_matches(tail, &rest[at..]))
}

/// `size=776 KiB, count=5 000` → `size=N, count=N`.
fn without_figures(line: &str) -> String {
    let mut out = String::new();
    let mut rest = line.trim_end();
    while let Some(c) = rest.chars().next() {
        if c.is_ascii_digit() {
            rest = without_unit(after_number(rest));
            out.push('N');
        } else if c.is_whitespace() {
            rest = rest.trim_start();
            out.push(' ');
        } else {
            // A small share is `<0.1 %`.
            if !(c == '<' && rest[1..].starts_with(|next: char| next.is_ascii_digit())) {
                out.push(c);
            }
            rest = &rest[c.len_utf8()..];
        }
    }
    out
}

/// What follows `1 203 441`, `15.2`, `0x1f30` or `1.5e3`.
fn after_number(text: &str) -> &str {
    if let Some(hex) = text.strip_prefix("0x") {
        return hex.trim_start_matches(|c: char| c.is_ascii_hexdigit());
    }
    let digits = |text: &str| text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let mut rest = &text[digits(text)..];
    loop {
        match rest.chars().next() {
            Some(' ') if digits(&rest[1..]) == 3 => rest = &rest[4..],
            Some('.') if digits(&rest[1..]) > 0 => rest = &rest[1 + digits(&rest[1..])..],
            _ => return rest,
        }
    }
}

fn without_unit(text: &str) -> &str {
    let ends = |rest: &str| !rest.starts_with(|c: char| c.is_alphanumeric());
    let unit = text.strip_prefix(' ').unwrap_or(text);
    let units = ["KiB", "MiB", "GiB", "TiB", "B"];
    units.iter().find_map(|name| unit.strip_prefix(name).filter(|rest| ends(rest))).unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn same(shown: &str, printed: &str, exact: bool) -> bool {
        compare(&shown.lines().map(str::to_owned).collect::<Vec<_>>(), printed, exact).is_ok()
    }

    #[test]
    fn figures_differ_and_words_do_not() {
        let shown = "pid 4711 (srv)  5.1 s  current 1011 KiB in 10 000 blocks  ~<0.1 % at 0x1f";
        assert!(same(shown, "pid 7 (srv) 61.0 s  current 7 B in 3 blocks  ~30 % at 0xabc\n", false));
        assert!(!same(shown, "pid 7 (srv) 61.0 s  current 7 B in 3 leaks  ~30 % at 0xabc\n", false));
        assert!(!same("a.c:22: size=1 B", "a.c:22: size=2 B", true) && same("a  1 B", "a  1 B\n", true));
        assert!(same("#1 a.c:22: size=8173 KiB (+4428 KiB)", "#1 a.c:22: size=1.0 MiB (+3 B)", false));
        assert!(!same("(+1 B)", "(-1 B)", false));
        assert!(!same("3 Bytes", "3 KiB", false));
    }

    #[test]
    fn dots_stand_for_lines_or_text() {
        assert!(same("a\n...\nz", "a\nb\nc\nz\n", true) && same("a\n...\nz", "a\nz", true));
        assert!(!same("a\n...\nz", "a\nb", true) && !same("a", "a\nb", true) && !same("a\nb", "a", true));
        assert!(same("tracing ... of x", "tracing 3 probes of x", true) && !same("a...z", "ab", true));
        assert!(same("... 3 more lines: size=1 B", "... 14 more lines: size=6 KiB", false));
    }
}
