//! Bytes of headers as text.

use std::borrow::Cow;

/// As text. Bytes that are no UTF-8 are replaced. Nearly all headers are UTF-8, and `from_utf8_lossy` looks at one byte
/// after the other.
pub(crate) fn of_bytes(bytes: &[u8]) -> Cow<'_, str> {
    match std::str::from_utf8(bytes) {
        Ok(text) => Cow::Borrowed(text),
        Err(_) => String::from_utf8_lossy(bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_borrowed_and_what_is_none_is_replaced() {
        assert!(matches!(of_bytes("ä/1".as_bytes()), Cow::Borrowed("ä/1")));
        assert_eq!(of_bytes(b"a\xffb"), "a\u{fffd}b");
    }
}
