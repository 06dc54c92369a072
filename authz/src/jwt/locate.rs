//! Where tokens are in a request, and what is left of it without them. Verifies nothing.

use std::borrow::Cow;
use std::sync::Arc;

use cairn_config_schema::snapshot::{JwtRule, TokenHeader};
use http::HeaderMap;
use http::header::COOKIE;

/// A place that tokens are looked for in.
#[derive(Clone, Debug, PartialEq)]
pub enum Place {
    /// A header, perhaps after a prefix.
    Header(TokenHeader),
    /// A query parameter.
    Param(Arc<str>),
    /// A cookie.
    Cookie(Arc<str>),
}

/// A token, not yet looked at.
#[derive(Clone, Debug, PartialEq)]
pub struct Found<'a> {
    /// Index of the place.
    pub place: usize,
    /// Its text.
    pub text: Cow<'a, str>,
}

impl Place {
    /// The places of a rule.
    pub(super) fn of_rule(rule: &JwtRule) -> impl Iterator<Item = Self> {
        let headers = rule.from_headers.iter().cloned().map(Self::Header);
        let params = rule.from_params.iter().cloned().map(Self::Param);
        headers
            .chain(params)
            .chain(rule.from_cookies.iter().cloned().map(Self::Cookie))
    }

    /// Every token in this place.
    pub(super) fn find<'a>(
        &self,
        index: usize,
        headers: &'a HeaderMap,
        query: Option<&'a str>,
        found: &mut Vec<Found<'a>>,
    ) {
        let mut add = |text: Cow<'a, str>| found.push(Found { place: index, text });
        match self {
            Self::Header(header) => {
                for value in headers.get_all(&header.name) {
                    // What is no text is no token either, and must not pass for none.
                    let value = String::from_utf8_lossy(value.as_bytes());
                    if let Some(token) = after_prefix(header, value) {
                        add(token);
                    }
                }
            }
            Self::Param(name) => {
                let query = query.unwrap_or_default();
                for (key, value) in form_urlencoded::parse(query.as_bytes()) {
                    if key == **name {
                        add(value);
                    }
                }
            }
            Self::Cookie(name) => {
                for (key, value) in headers.get_all(COOKIE).iter().flat_map(cookies) {
                    if *key == **name {
                        add(value);
                    }
                }
            }
        }
    }
}

/// The token of a header's value. `None`: the value does not begin with the prefix, so that it is
/// something else (`Basic ...`).
fn after_prefix<'a>(header: &TokenHeader, value: Cow<'a, str>) -> Option<Cow<'a, str>> {
    let Some(prefix) = &header.prefix else {
        return Some(trimmed(value, 0));
    };
    let is = |text: &str, wanted: &str| match header.scheme {
        true => text.eq_ignore_ascii_case(wanted),
        false => text == wanted,
    };
    // Parsers of HTTP cut spaces at the end: `Bearer ` with nothing after it arrives as `Bearer`.
    if is(value.trim_end(), prefix.trim_end()) {
        return Some(Cow::Borrowed(""));
    }
    let begins = is(value.get(..prefix.len())?, prefix);
    begins.then(|| trimmed(value, prefix.len()))
}

fn trimmed(value: Cow<'_, str>, from: usize) -> Cow<'_, str> {
    match value {
        Cow::Borrowed(text) => Cow::Borrowed(text.get(from..).unwrap_or_default().trim()),
        Cow::Owned(text) => Cow::Owned(text.get(from..).unwrap_or_default().trim().to_owned()),
    }
}

/// Names and values of a Cookie header.
fn cookies(value: &http::HeaderValue) -> impl Iterator<Item = (&str, Cow<'_, str>)> {
    let pairs = value.as_bytes().split(|byte| *byte == b';');
    pairs.filter_map(|pair| {
        let pair = pair.trim_ascii();
        let equals = pair.iter().position(|byte| *byte == b'=')?;
        let (name, value) = pair.split_at_checked(equals)?;
        let name = std::str::from_utf8(name).ok()?.trim();
        let value = value.get(1..)?.trim_ascii();
        let quoted = value
            .strip_prefix(b"\"")
            .and_then(|value| value.strip_suffix(b"\""));
        Some((name, String::from_utf8_lossy(quoted.unwrap_or(value))))
    })
}

/// A path and query without these parameters. Nothing is allocated when none of them is there.
pub fn without_params<'a>(path_and_query: Cow<'a, str>, names: &[Arc<str>]) -> Cow<'a, str> {
    let Some((path, query)) = path_and_query.split_once('?') else {
        return path_and_query;
    };
    let is_named = |part: &&str| {
        form_urlencoded::parse(part.as_bytes())
            .any(|(key, _)| names.iter().any(|name| key == **name))
    };
    if names.is_empty() || !query.split('&').any(|part| is_named(&part)) {
        return path_and_query;
    }
    let kept: Vec<&str> = query.split('&').filter(|part| !is_named(part)).collect();
    Cow::Owned(match kept.as_slice() {
        [] => path.to_owned(),
        kept => format!("{path}?{}", kept.join("&")),
    })
}

/// A Cookie header's value without these cookies. `None`: nothing is left.
pub fn without_cookies(value: &[u8], names: &[Arc<str>]) -> Option<Vec<u8>> {
    let is_named = |pair: &&[u8]| {
        let name = pair.split(|byte| *byte == b'=').next().unwrap_or_default();
        names.iter().any(|n| name.trim_ascii() == n.as_bytes())
    };
    let pairs = value.split(|byte| *byte == b';').map(<[u8]>::trim_ascii);
    let kept: Vec<&[u8]> = pairs.filter(|pair| !is_named(pair)).collect();
    let left = kept.join(&b"; "[..]);
    (!left.is_empty()).then_some(left)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use http::header::HeaderName;

    use super::*;

    fn found(place: &Place, headers: &HeaderMap, query: Option<&str>) -> Vec<String> {
        let mut found = Vec::new();
        place.find(0, headers, query, &mut found);
        found.into_iter().map(|f| f.text.into_owned()).collect()
    }

    fn headers(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, HeaderValue::from_static(value));
        }
        headers
    }

    #[test]
    fn a_header_with_a_prefix_and_without() {
        let place = |prefix: Option<&str>, scheme| {
            Place::Header(TokenHeader {
                name: HeaderName::from_static("x-jwt"),
                prefix: prefix.map(Arc::from),
                scheme,
            })
        };
        let sent = headers(&[
            ("x-jwt", "Bearer a"),
            ("x-jwt", "bearer b"),
            ("x-jwt", "Basic c"),
        ]);
        assert_eq!(found(&place(Some("Bearer "), false), &sent, None), ["a"]);
        assert_eq!(
            found(&place(Some("Bearer "), true), &sent, None),
            ["a", "b"]
        );
        let all = ["Bearer a", "bearer b", "Basic c"];
        assert_eq!(found(&place(None, false), &sent, None), all);
        assert_eq!(found(&place(None, false), &HeaderMap::new(), None), [""; 0]);
    }

    #[test]
    fn parameters_are_found_however_they_are_escaped() {
        let place = Place::Param("access_token".into());
        let none = HeaderMap::new();
        let query = Some("a=1&access_token=x.y&access%5Ftoken=z&access_token");
        assert_eq!(found(&place, &none, query), ["x.y", "z", ""]);
        let names = [Arc::from("access_token")];
        for (sent, left) in [
            ("/p?a=1&access_token=x&b=2", "/p?a=1&b=2"),
            ("/p?access%5Ftoken=x", "/p"),
            ("/p?a=1&&b", "/p?a=1&&b"),
            ("/p", "/p"),
        ] {
            assert_eq!(without_params(Cow::Borrowed(sent), &names), left, "{sent}");
        }
    }

    #[test]
    fn cookies_are_found_in_every_cookie_header() {
        let place = Place::Cookie("session".into());
        let sent = headers(&[
            ("cookie", "a=1; session=x.y=="),
            ("cookie", " session=\"z\" "),
        ]);
        assert_eq!(found(&place, &sent, None), ["x.y==", "z"]);
        let names = [Arc::from("session")];
        let left = without_cookies(b"a=1; session=x; b=2", &names);
        assert_eq!(left.as_deref(), Some(&b"a=1; b=2"[..]));
        assert_eq!(without_cookies(b"session=x", &names), None);
    }
}
