//! Matches the string forms of Istio (`abc`, `abc*`, `*abc`, `*`, globs) and path templates.
//! Knows no field: which string to look at is the business of `clause`.

use cairn_config_schema::snapshot::{PathPattern, PathTemplate, StringMatch, TemplateSegment};

/// Whether `value` matches; `*` needs at least one byte. This is the form of strings: principals,
/// namespaces, paths (specs/istio-waypoint.md 4.8, "`*` alone means non-empty").
pub(crate) fn matches(pattern: &StringMatch, value: &[u8]) -> bool {
    match pattern {
        StringMatch::Any => !value.is_empty(),
        StringMatch::Exact(text) => value == text.as_bytes(),
        StringMatch::Prefix(text) => value.starts_with(text.as_bytes()),
        StringMatch::Suffix(text) => value.ends_with(text.as_bytes()),
        StringMatch::Glob(text) => glob(text.as_bytes(), value),
    }
}

/// Whether something present matches; `*` also matches the empty string. This is the form of
/// hosts, methods and headers.
pub(crate) fn matches_present(pattern: &StringMatch, value: &[u8]) -> bool {
    matches!(pattern, StringMatch::Any) || matches(pattern, value)
}

/// [`matches_present`] without regard to ASCII case, for hosts.
pub(crate) fn matches_host(pattern: &StringMatch, host: &[u8]) -> bool {
    match pattern {
        StringMatch::Any => true,
        StringMatch::Exact(text) => host.eq_ignore_ascii_case(text.as_bytes()),
        StringMatch::Prefix(text) => host
            .get(..text.len())
            .is_some_and(|start| start.eq_ignore_ascii_case(text.as_bytes())),
        StringMatch::Suffix(text) => host
            .len()
            .checked_sub(text.len())
            .and_then(|start| host.get(start..))
            .is_some_and(|end| end.eq_ignore_ascii_case(text.as_bytes())),
        // No host has this form; it costs an allocation where it should never be seen.
        StringMatch::Glob(text) => glob(
            &text.as_bytes().to_ascii_lowercase(),
            &host.to_ascii_lowercase(),
        ),
    }
}

/// [`matches_present`] on the concatenation of what `pieces` yields each time, without building it.
pub(crate) fn matches_pieces<'a, I>(pattern: &StringMatch, pieces: impl Fn() -> I) -> bool
where
    I: Iterator<Item = &'a [u8]>,
{
    let mut bytes = pieces().flatten().copied();
    match pattern {
        StringMatch::Any => true,
        StringMatch::Exact(text) => bytes.eq(text.bytes()),
        StringMatch::Prefix(text) => text.bytes().all(|b| bytes.next() == Some(b)),
        StringMatch::Suffix(text) => {
            let length: usize = pieces().map(<[u8]>::len).sum();
            length
                .checked_sub(text.len())
                .is_some_and(|start| bytes.skip(start).eq(text.bytes()))
        }
        // Nothing made of pieces has this form; see `matches_host`.
        StringMatch::Glob(text) => glob(text.as_bytes(), &bytes.collect::<Vec<u8>>()),
    }
}

/// Stars anywhere, each for any number of bytes.
fn glob(pattern: &[u8], value: &[u8]) -> bool {
    let mut parts = pattern.split(|b| *b == b'*');
    let first = parts.next().unwrap_or_default();
    let Some(last) = parts.next_back() else {
        return first == value;
    };
    let Some(mut rest) = value
        .strip_prefix(first)
        .and_then(|rest| rest.strip_suffix(last))
    else {
        return false;
    };
    // The leftmost place for each part leaves the most for those after it, so no backtracking.
    for part in parts {
        match after(rest, part) {
            Some(end) => rest = end,
            None => return false,
        }
    }
    true
}

/// What follows the first `needle` in `hay`.
fn after<'a>(hay: &'a [u8], needle: &[u8]) -> Option<&'a [u8]> {
    if needle.is_empty() {
        return Some(hay);
    }
    let start = hay.windows(needle.len()).position(|w| w == needle)?;
    hay.get(start + needle.len()..)
}

/// Whether a normalised path matches a value of `paths`.
pub(crate) fn matches_path(pattern: &PathPattern, path: &str) -> bool {
    match pattern {
        PathPattern::Text(text) => matches(text, path.as_bytes()),
        PathPattern::Template(template) => matches_template(template, path),
    }
}

/// Whether a path matches a template (specs/istio-waypoint.md 4.8, path templates): `{*}` is one
/// non-empty segment, `{**}` any remainder including none, but the slash before it must be there.
fn matches_template(template: &PathTemplate, path: &str) -> bool {
    // `rest` is what is left after the slash before the current segment; `None` once no slash is.
    let mut rest = path.strip_prefix('/');
    let mut segments = template.segments().iter();
    while let Some(segment) = segments.next() {
        let Some(text) = rest else { return false };
        if *segment == TemplateSegment::Rest {
            return ends_with_segments(text, segments);
        }
        let (head, tail) = match text.split_once('/') {
            Some((head, tail)) => (head, Some(tail)),
            None => (text, None),
        };
        let matched = match segment {
            TemplateSegment::Literal(literal) => head == &**literal,
            TemplateSegment::One => !head.is_empty(),
            TemplateSegment::Rest => false,
        };
        if !matched {
            return false;
        }
        rest = tail;
    }
    rest.is_none()
}

/// Whether what `{**}` stands before ends with these segments, each with a slash in front. Only
/// literals can follow `{**}`.
fn ends_with_segments<'a>(
    mut text: &str,
    segments: impl DoubleEndedIterator<Item = &'a TemplateSegment>,
) -> bool {
    for segment in segments.rev() {
        let TemplateSegment::Literal(literal) = segment else {
            return false;
        };
        match text.rsplit_once('/') {
            Some((before, last)) if last == &**literal => text = before,
            _ => return false,
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn globs() {
        for (pattern, value, expected) in [
            ("a", "a", true),
            ("a", "ab", false),
            ("a*", "a", true),
            ("*a", "ba", true),
            ("a*b", "ab", true),
            ("a*b", "axxb", true),
            ("a*b", "a", false),
            ("aa*aa", "aaa", false),
            ("a*b*c", "a-b-b-c", true),
            ("a*b*c", "acb", false),
            ("*b*", "abc", true),
            ("*b*", "ac", false),
            ("**", "", true),
            ("a**c", "abc", true),
        ] {
            let pattern_bytes = pattern.as_bytes();
            assert_eq!(
                glob(pattern_bytes, value.as_bytes()),
                expected,
                "{pattern} {value}"
            );
        }
    }

    #[test]
    fn pieces_match_as_their_concatenation() {
        let pieces = ["ab", "/", "cd"];
        for (pattern, expected) in [
            ("ab/cd", true),
            ("ab/c", false),
            ("ab/cde", false),
            ("ab/*", true),
            ("ab/cd*", true),
            ("ab/cde*", false),
            ("*/cd", true),
            ("*ab/cd", true),
            ("*xab/cd", false),
            ("*", true),
        ] {
            let pattern_parsed = StringMatch::parse(pattern);
            assert_eq!(
                matches_pieces(&pattern_parsed, || pieces.iter().map(|p| p.as_bytes())),
                expected,
                "{pattern}"
            );
        }
    }
}
