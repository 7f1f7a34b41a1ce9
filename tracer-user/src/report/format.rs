//! Numbers and hostile strings in the form of the text report.

use std::{borrow::Cow, ffi::OsStr, fmt::Write, path::Path};

use tracer_common::counters::Counter;

use crate::analysis::filter::last_names;

/// Longest function name printed in one line, in characters. C++ names run to thousands.
const MAX_SHOWN_CHARS: usize = 120;

/// Bytes as tracemalloc's `_format_size` prints them (CPython, Lib/tracemalloc.py): one decimal below 100 of a unit, none
/// above; the next unit from 10 240 on.
pub fn size(bytes: u64) -> String {
    size_f64(bytes as f64)
}

/// The same for averages.
pub fn size_f64(bytes: f64) -> String {
    with_unit(bytes, |value, decimals| format!("{value:.decimals$}"))
}

/// The same for differences, always with a sign.
pub fn signed_size(bytes: i128) -> String {
    with_unit(bytes as f64, |value, decimals| format!("{value:+.decimals$}"))
}

fn with_unit(bytes: f64, format: impl Fn(f64, usize) -> String) -> String {
    let mut value = bytes;
    for unit in ["B", "KiB", "MiB", "GiB"] {
        if value.abs() < 100.0 && unit != "B" {
            return format!("{} {unit}", format(value, 1));
        }
        if value.abs() < 10.0 * 1024.0 {
            return format!("{} {unit}", format(value, 0));
        }
        value /= 1024.0;
    }
    let decimals = usize::from(value.abs() < 100.0);
    format!("{} TiB", format(value, decimals))
}

/// `1203441` → `1 203 441`.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() * 4 / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(' ');
        }
        out.push(digit);
    }
    out
}

/// A counter's value with what it counts: `2 calls that returned NULL or an error`, `1 call that …`.
pub fn counted(amount: u64, counter: Counter) -> String {
    let sentence = counter.sentence();
    let (things, rest) = sentence.split_once(' ').unwrap_or((sentence, ""));
    let thing = match things {
        _ if amount != 1 => things,
        "addresses" | "processes" => things.trim_end_matches("es"),
        things => things.trim_end_matches('s'),
    };
    format!("{} {thing} {rest}", grouped(amount))
}

/// A share (0–1) in percent: two digits or one decimal, never a false zero.
pub fn percent(share: f64) -> String {
    match share * 100.0 {
        p if p > 0.0 && p < 0.1 => "<0.1 %".to_owned(),
        p if p < 10.0 => format!("{p:.1} %"),
        p => format!("{p:.0} %"),
    }
}

/// Whether a character could move the cursor, reorder text, break a line or hide.
pub fn is_hazard(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{feff}')
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}')
        || matches!(c, '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e0fff}')
}

/// A string of the target's, safe to print in one line.
pub fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            c if is_hazard(c) && (c as u32) < 0x100 => {
                let _infallible = write!(out, "\\x{:02x}", c as u32);
            }
            c if is_hazard(c) => {
                let _infallible = write!(out, "\\u{{{:x}}}", c as u32);
            }
            c => out.push(c),
        }
    }
    out
}

/// The same, cut to what a line can bear.
pub fn shortened(text: &str) -> String {
    let text = escaped(text);
    match text.char_indices().nth(MAX_SHOWN_CHARS) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text,
    }
}

/// A path as valid text: bytes that are no UTF-8 stand as `\xNN`.
pub fn path_text(path: &Path) -> Cow<'_, str> {
    if let Some(text) = path.to_str() {
        return Cow::Borrowed(text);
    }
    let mut out = String::new();
    for chunk in path.as_os_str().as_encoded_bytes().utf8_chunks() {
        out.push_str(chunk.valid());
        for byte in chunk.invalid() {
            let _infallible = write!(out, "\\x{byte:02x}");
        }
    }
    Cow::Owned(out)
}

/// A path's last two components, as tracemalloc's examples show them: `/home/u/proj/src/cache.c` → `src/cache.c`.
pub fn short_path(path: &Path) -> String {
    let name = |name: &OsStr| shortened(&path_text(Path::new(name)));
    match last_names(path) {
        (Some(dir), Some(file)) => format!("{}/{}", name(dir), name(file)),
        (None, Some(file)) => name(file),
        _ => shortened(&path_text(path)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_those_of_tracemalloc() {
        // Made with CPython 3.11: [tracemalloc._format_size(n, False) for n in …].
        for (bytes, expected) in [
            (0, "0 B"),
            (99, "99 B"),
            (10_239, "10239 B"),
            (10_240, "10.0 KiB"),
            (102_399, "100.0 KiB"),
            (102_400, "100 KiB"),
            (10_485_759, "10240 KiB"),
            (10_485_760, "10.0 MiB"),
            (15_938_355, "15.2 MiB"),
            (1 << 40, "1024 GiB"),
            (u64::MAX, "16777216 TiB"),
        ] {
            assert_eq!(size(bytes), expected, "{bytes}");
        }
        for (bytes, expected) in
            [(0, "+0 B"), (-1, "-1 B"), (4_534_272, "+4428 KiB"), (-10_240, "-10.0 KiB"), (-102_400, "-100 KiB")]
        {
            assert_eq!(signed_size(bytes), expected, "{bytes}");
        }
        assert_eq!(size_f64(159.38), "159 B");
        assert_eq!(size_f64(2.5), "2 B");
    }

    #[test]
    fn numbers_are_grouped_in_threes() {
        for (number, expected) in
            [(0, "0"), (999, "999"), (1000, "1 000"), (100_042, "100 042"), (1_203_441, "1 203 441")]
        {
            assert_eq!(grouped(number), expected);
        }
    }

    #[test]
    fn a_small_share_is_not_shown_as_zero() {
        assert_eq!(percent(0.0), "0.0 %");
        assert_eq!(percent(0.000_01), "<0.1 %");
        assert_eq!(percent(0.031), "3.1 %");
        assert_eq!(percent(0.5), "50 %");
    }

    #[test]
    fn hazardous_characters_are_spelled_out() {
        assert_eq!(escaped("a\x1b[2J\n\u{202e}b\u{9b}\u{7f}"), "a\\x1b[2J\\n\\u{202e}b\\x9b\\x7f");
        assert_eq!(escaped("größe→x"), "größe→x");
    }

    #[test]
    fn paths_keep_their_last_two_components() {
        use std::{ffi::OsStr, os::unix::ffi::OsStrExt};
        for (path, expected) in [
            ("/home/u/src/cache.c", "src/cache.c"),
            ("cache.c", "cache.c"),
            ("./cache.c", "cache.c"),
            ("../src/./cache.c", "src/cache.c"),
            ("/", "/"),
            ("", ""),
            ("/a\n/b\x1b.c", "a\\n/b\\x1b.c"),
        ] {
            assert_eq!(short_path(Path::new(path)), expected, "{path:?}");
        }
        assert_eq!(short_path(Path::new(OsStr::from_bytes(b"a/\xff\xfe.c"))), "a/\\xff\\xfe.c");
    }
}
