//! Words of engines, as far as they are believed.

use super::ID_DIGITS;

/// Longest name of a container, an image or a pod: engines allow up to 255 bytes, image names some more.
const MAX_NAME_BYTES: usize = 512;

/// Whether it is an id as every engine makes them.
pub(super) fn is_id(text: &str) -> bool {
    text.len() == ID_DIGITS && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// A name, if it is one; hostile still.
pub(super) fn name_of_others(text: &str) -> Option<String> {
    (!text.is_empty() && text.len() <= MAX_NAME_BYTES).then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_64_lower_case_digits() {
        assert!(is_id(&"0a".repeat(32)));
        for wrong in ["", "0a", &"0A".repeat(32), &"0g".repeat(32), &"0a".repeat(33), &"é".repeat(32)] {
            assert!(!is_id(wrong), "{wrong}");
        }
        assert_eq!((name_of_others(""), name_of_others(&"x".repeat(513))), (None, None));
    }
}
