//! Paths as Calico compares them (specs/policies.md 2.5): decoded once, without parameters, slashes
//! merged and dot segments resolved, on both sides; a prefix ends where a segment does.

use std::borrow::Cow;

use super::CalicoPath;

/// A path in the form that is compared. `None`: after decoding it still hides a dot, a slash or a
/// NUL, so that nobody knows what it will be taken for.
pub fn calico_path(path: &str) -> Option<Cow<'_, str>> {
    let plain = !path.contains(['%', ';', '\\'])
        && !path.contains("//")
        && !path.contains("/.")
        && path.starts_with('/');
    if plain {
        return Some(Cow::Borrowed(path));
    }
    let decoded = decode(path)?;
    let lower = decoded.to_ascii_lowercase();
    if ["%2e", "%2f", "%5c", "\0"]
        .iter()
        .any(|hidden| lower.contains(hidden))
    {
        return None;
    }
    let folded = decoded.replace('\\', "/");
    let mut segments: Vec<&str> = Vec::new();
    let mut ends_in_slash = false;
    for segment in folded.split('/') {
        let name = segment.split(';').next().unwrap_or_default();
        ends_in_slash = matches!(name, "" | "." | "..");
        match name {
            "" | "." => {}
            ".." => {
                segments.pop();
            }
            name => segments.push(name),
        }
    }
    let mut normal = String::with_capacity(folded.len());
    for segment in &segments {
        normal.push('/');
        normal.push_str(segment);
    }
    if ends_in_slash || segments.is_empty() {
        normal.push('/');
    }
    Some(Cow::Owned(normal))
}

/// Decodes every escape once. `None`: what comes out is no text.
fn decode(path: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(path.len());
    let mut rest = path.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let escape = after.get(..2).filter(|_| *first == b'%');
        let value = escape.and_then(|e| u8::from_str_radix(std::str::from_utf8(e).ok()?, 16).ok());
        match value {
            Some(value) => {
                bytes.push(value);
                rest = after.get(2..).unwrap_or_default();
            }
            None => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8(bytes).ok()
}

impl CalicoPath {
    /// Whether a path, in the form that is compared, is one of these.
    pub fn matches(&self, path: &str) -> bool {
        match self {
            Self::Exact(exact) => path == &**exact,
            Self::Prefix(prefix) => path.strip_prefix(&**prefix).is_some_and(|rest| {
                rest.is_empty() || rest.starts_with('/') || prefix.ends_with('/')
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_decoded_once_and_resolved() {
        for (path, normal) in [
            ("/a/b", Some("/a/b")),
            ("/a//b/./c/../d", Some("/a/b/d")),
            ("/a;x=1/b;y", Some("/a/b")),
            ("/%61/b%20c", Some("/a/b c")),
            ("/a\\b", Some("/a/b")),
            ("/a/%2e%2e/b", Some("/b")),
            ("/a/%252e%252e/b", None),
            ("/a%00", None),
            ("/a/", Some("/a/")),
            ("/../..", Some("/")),
        ] {
            assert_eq!(calico_path(path).as_deref(), normal, "{path}");
        }
    }

    #[test]
    fn a_prefix_ends_where_a_segment_does() {
        let prefix = CalicoPath::Prefix("/pub".into());
        for (path, matches) in [
            ("/pub", true),
            ("/pub/", true),
            ("/pub/a", true),
            ("/public", false),
            ("/", false),
        ] {
            assert_eq!(prefix.matches(path), matches, "{path}");
        }
        assert!(CalicoPath::Prefix("/".into()).matches("/anything"));
        assert!(!CalicoPath::Exact("/pub".into()).matches("/pub/"));
    }
}
