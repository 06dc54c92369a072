//! Paths of routes and policies in the form that requests have when they are compared with them:
//! requests are normalised once, before policy and routing (specs/istio-waypoint.md 4.8). Normalising
//! requests is not done here.

use std::borrow::Cow;

use crate::snapshot::PathNormalization;

/// A path with its escapes as normalised requests have them: unreserved characters decoded, other
/// escapes in upper case, characters beyond ASCII escaped. So `/%7euser` means `/~user` to a
/// policy as it does to the application, and does not sit there matching nothing.
pub(crate) fn canonical(path: &str, mode: PathNormalization) -> Cow<'_, str> {
    if mode == PathNormalization::None || (path.is_ascii() && !path.contains('%')) {
        return Cow::Borrowed(path);
    }
    let mut canonical = String::with_capacity(path.len());
    let mut rest = path.as_bytes();
    while let [byte, tail @ ..] = rest {
        rest = tail;
        match (byte, tail) {
            (b'%', [high, low, after @ ..])
                if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() =>
            {
                rest = after;
                push_octet(value_of(*high) << 4 | value_of(*low), &mut canonical);
            }
            (0x80.., _) => push_octet(*byte, &mut canonical),
            (byte, _) => canonical.push(char::from(*byte)),
        }
    }
    Cow::Owned(canonical)
}

/// What an escape or a byte beyond ASCII stands for.
fn push_octet(octet: u8, path: &mut String) {
    if octet.is_ascii_alphanumeric() || b"-._~".contains(&octet) {
        path.push(char::from(octet));
    } else {
        path.push('%');
        for digit in [octet >> 4, octet & 15] {
            let digit = char::from_digit(digit.into(), 16).unwrap_or('0');
            path.push(digit.to_ascii_uppercase());
        }
    }
}

fn value_of(hex_digit: u8) -> u8 {
    let digit = char::from(hex_digit).to_digit(16).unwrap_or(0);
    u8::try_from(digit).unwrap_or(0)
}

/// Why no normalised request has a path with this text in it, if that is so.
pub(super) fn never_seen(path: &str, mode: PathNormalization) -> Option<&'static str> {
    use PathNormalization as Mode;
    if path.contains(['?', '#']) {
        return Some("a path has no query and no fragment");
    }
    if mode == Mode::None {
        return None;
    }
    if path.contains("/./") || path.contains("/../") {
        return Some("dot segments are resolved before paths are compared");
    }
    if path.contains('\\') {
        return Some("a backslash is refused, or becomes '/', before paths are compared");
    }
    if mode != Mode::Base && path.contains("//") {
        return Some("repeated slashes become one before paths are compared");
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_are_as_in_normalised_requests() {
        for (written, expected) in [
            ("/a", "/a"),
            ("/%7Euser", "/~user"),
            ("/%61%2d", "/a-"),
            ("/caf%c3%a9", "/caf%C3%A9"),
            ("/café", "/caf%C3%A9"),
            ("/a%2fb", "/a%2Fb"),
            ("/a b%20c", "/a b%20c"),
            ("/100%", "/100%"),
            ("/%zz", "/%zz"),
        ] {
            assert_eq!(canonical(written, PathNormalization::Strict), expected);
            assert_eq!(canonical(written, PathNormalization::None), written);
        }
    }

    #[test]
    fn what_normalisation_removes_is_never_seen() {
        use PathNormalization as Mode;
        for (path, modes_that_never_see_it) in [
            ("/a?b", vec![Mode::None, Mode::Base, Mode::Strict]),
            ("/a/../b", vec![Mode::Base, Mode::Strict]),
            ("/a\\b", vec![Mode::Base, Mode::Strict]),
            ("/a//b", vec![Mode::Strict]),
            ("/a", vec![]),
        ] {
            for mode in [Mode::None, Mode::Base, Mode::Strict] {
                let expected = modes_that_never_see_it.contains(&mode);
                assert_eq!(
                    never_seen(path, mode).is_some(),
                    expected,
                    "{path} {mode:?}"
                );
            }
        }
    }
}
