//! URL rewrites, and the change of a path that redirects share. Does not decide whether to.

use std::borrow::Cow;

use cairn_config_schema::snapshot::{HttpMatch, PathMatch, PathRewrite, Rewrite};
use http::header::{HOST, HeaderName, HeaderValue};

use crate::header_change::Headers;

/// `x-envoy-original-path`: path and query before the rewrite.
pub const ORIGINAL_PATH: HeaderName = HeaderName::from_static("x-envoy-original-path");

/// Applies a rewrite: the host at once, the path as the returned new one. `path_and_query` is the
/// normalised target.
pub fn apply<'a>(
    rewrite: &Rewrite,
    matched: &HttpMatch,
    path_and_query: Cow<'a, str>,
    headers: &mut impl Headers,
) -> Cow<'a, str> {
    if let Some(hostname) = &rewrite.hostname {
        headers.set(&HOST, hostname.clone());
    }
    let Some(change) = &rewrite.path else {
        return path_and_query;
    };
    let (path, query) = match path_and_query.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (&*path_and_query, None),
    };
    let Some(mut rewritten) = change_path(change, matched, path) else {
        return path_and_query;
    };
    if let Some(query) = query {
        rewritten.push('?');
        rewritten.push_str(query);
    }
    if let Ok(original) = HeaderValue::from_bytes(path_and_query.as_bytes()) {
        headers.set(&ORIGINAL_PATH, original);
    }
    Cow::Owned(rewritten)
}

/// Whether the change can be made for this match at all: `ReplacePrefixMatch` needs a prefix.
pub fn is_possible(change: Option<&PathRewrite>, matched: &HttpMatch) -> bool {
    !matches!(change, Some(PathRewrite::Prefix(_))) || matches!(matched.path, PathMatch::Prefix(_))
}

/// The new path, without a query. `None` if the change is not possible for this match.
pub fn change_path(change: &PathRewrite, matched: &HttpMatch, path: &str) -> Option<String> {
    match (change, &matched.path) {
        (PathRewrite::Full(full), _) => Some(rooted(full, "")),
        (PathRewrite::Prefix(replacement), PathMatch::Prefix(prefix)) => {
            let rest = path.strip_prefix(&**prefix)?;
            let replacement = replacement.trim_end_matches('/');
            // The prefix `/` (kept as the empty text) is all of the path `/`, not its beginning.
            let rest = if prefix.is_empty() && rest == "/" {
                ""
            } else {
                rest
            };
            Some(rooted(replacement, rest))
        }
        (PathRewrite::Prefix(_), _) => None,
        (PathRewrite::Matched(replacement), PathMatch::Begins { text, .. }) => {
            Some(rooted(replacement, path.get(text.len()..)?))
        }
        (PathRewrite::Matched(full), _) => Some(rooted(full, "")),
        (PathRewrite::Regex(pattern, replacement), _) => {
            Some(rooted(&pattern.replace_all(path, replacement), ""))
        }
    }
}

/// `head` and `tail` joined, with exactly one slash in front.
fn rooted(head: &str, tail: &str) -> String {
    let mut path = String::with_capacity(head.len() + tail.len() + 1);
    let first = if head.is_empty() { tail } else { head };
    if !first.starts_with('/') {
        path.push('/');
    }
    path.push_str(head);
    path.push_str(tail);
    path
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;

    use super::*;

    fn on_prefix(prefix: &str) -> HttpMatch {
        HttpMatch {
            path: PathMatch::Prefix(prefix.into()),
            method: None,
            headers: Vec::new(),
            query: Vec::new(),
            more: None,
        }
    }

    #[test]
    fn the_prefix_that_matched_is_replaced_without_a_double_or_missing_slash() {
        for (path, prefix, replacement, expected) in [
            ("/foo/bar", "/foo", "/xyz", "/xyz/bar"),
            ("/foo/bar", "/foo", "/xyz/", "/xyz/bar"),
            ("/foo", "/foo", "/xyz", "/xyz"),
            ("/foo", "/foo", "/xyz/", "/xyz"),
            ("/foo/", "/foo", "/xyz", "/xyz/"),
            ("/foo/bar", "/foo", "", "/bar"),
            ("/foo/", "/foo", "", "/"),
            ("/foo", "/foo", "", "/"),
            ("/foo/", "/foo", "/", "/"),
            ("/foo", "/foo", "/", "/"),
            ("/foo/bar", "/foo", "/", "/bar"),
            ("/bar", "", "/xyz", "/xyz/bar"),
            ("/", "", "/xyz", "/xyz"),
            ("/", "", "/", "/"),
        ] {
            let change = PathRewrite::Prefix(replacement.into());
            assert_eq!(
                change_path(&change, &on_prefix(prefix), path).as_deref(),
                Some(expected),
                "{path}: {prefix} -> {replacement}"
            );
        }
    }

    #[test]
    fn a_prefix_can_be_replaced_only_where_a_prefix_matched() {
        let exact = HttpMatch {
            path: PathMatch::Exact("/foo".into()),
            ..on_prefix("")
        };
        let change = PathRewrite::Prefix("/bar".into());
        assert_eq!(change_path(&change, &exact, "/foo"), None);
        assert!(!is_possible(Some(&change), &exact));
        assert!(is_possible(Some(&PathRewrite::Full("/".into())), &exact));
    }

    #[test]
    fn host_and_path_change_and_the_original_path_is_told() {
        let rewrite = Rewrite {
            hostname: Some(HeaderValue::from_static("other.example")),
            path: Some(PathRewrite::Full("/new".into())),
        };
        let mut headers = HeaderMap::new();
        let path = apply(
            &rewrite,
            &on_prefix(""),
            Cow::Borrowed("/old?q=1"),
            &mut headers,
        );
        assert_eq!(path, "/new?q=1");
        assert_eq!(headers[HOST], "other.example");
        assert_eq!(headers[ORIGINAL_PATH], "/old?q=1");
    }

    #[test]
    fn a_rewrite_of_the_host_alone_leaves_the_path() {
        let rewrite = Rewrite {
            hostname: Some(HeaderValue::from_static("other.example")),
            path: None,
        };
        let mut headers = HeaderMap::new();
        let path = apply(
            &rewrite,
            &on_prefix(""),
            Cow::Borrowed("/old"),
            &mut headers,
        );
        assert!(matches!(path, Cow::Borrowed("/old")));
        assert!(!headers.contains_key(ORIGINAL_PATH));
    }
}
