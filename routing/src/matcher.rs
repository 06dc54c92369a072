//! Whether the method, headers and query of one match hold. Paths are found by `table`.

use std::borrow::Cow;

use cairn_config_schema::snapshot::{
    ClaimMatch, HeaderMatch, HttpMatch, MoreConditions, QueryMatch, TextMatch,
};
use http::HeaderMap;
use http::header::{COOKIE, HOST};

use crate::request::{RequestParts, labels_hold};

/// Whether everything but the path holds.
pub(crate) fn conditions_hold(wanted: &HttpMatch, request: &RequestParts<'_>) -> bool {
    wanted.method.as_ref().is_none_or(|m| m == request.method)
        && wanted.headers.iter().all(|h| header_holds(h, request))
        && wanted.query.iter().all(|q| query_holds(q, request.query))
        && wanted
            .more
            .as_deref()
            .is_none_or(|more| more_hold(more, request))
}

/// What only a VirtualService asks for.
fn more_hold(wanted: &MoreConditions, request: &RequestParts<'_>) -> bool {
    let method = request.method.as_str().as_bytes();
    let caller = wanted.caller_namespace.as_deref();
    (wanted.method.as_ref()).is_none_or(|m| text_holds(m, method))
        && !(wanted.without_headers.iter()).any(|h| header_holds(h, request))
        && caller.is_none_or(|namespace| request.caller_namespace == Some(namespace))
        && labels_hold(&wanted.caller_labels, request.caller_labels)
        && (wanted.claims.iter()).all(|c| claim_holds(c, request))
        && !(wanted.without_claims.iter()).any(|c| claim_holds(c, request))
}

fn claim_holds(wanted: &ClaimMatch, request: &RequestParts<'_>) -> bool {
    let Some(claims) = request.claims else {
        return false;
    };
    match &wanted.value {
        TextMatch::Present => claims.has(&wanted.path),
        value => claims.any(&wanted.path, &|text| text_holds(value, text.as_bytes())),
    }
}

fn header_holds(wanted: &HeaderMatch, request: &RequestParts<'_>) -> bool {
    if wanted.name == HOST {
        return text_holds(&wanted.value, request.authority.as_bytes());
    }
    match joined(wanted, request.headers) {
        Some(value) => text_holds(&wanted.value, &value),
        None => false,
    }
}

/// The values of a header as one. Several are joined by a comma without a space, as Envoy does;
/// those of `cookie` by "; " (RFC 9113 8.2.3), for HTTP/2 clients split it. Allocates only then.
fn joined<'a>(wanted: &HeaderMatch, headers: &'a HeaderMap) -> Option<Cow<'a, [u8]>> {
    let mut values = headers.get_all(&wanted.name).iter();
    let first = values.next()?;
    let mut joined = Cow::Borrowed(first.as_bytes());
    for value in values {
        let separator: &[u8] = if wanted.name == COOKIE { b"; " } else { b"," };
        let text = joined.to_mut();
        text.extend_from_slice(separator);
        text.extend_from_slice(value.as_bytes());
    }
    Some(joined)
}

/// Looks at the first parameter of the name only (specs/gateway-api.md 1.4).
fn query_holds(wanted: &QueryMatch, query: Option<&str>) -> bool {
    query
        .unwrap_or_default()
        .split('&')
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .find(|(name, _)| *percent_decoded(name) == *wanted.name.as_bytes())
        .is_some_and(|(_, value)| text_holds(&wanted.value, &percent_decoded(value)))
}

fn text_holds(wanted: &TextMatch, value: &[u8]) -> bool {
    match wanted {
        TextMatch::Exact(text) => text.as_bytes() == value,
        TextMatch::Prefix(text) => value.starts_with(text.as_bytes()),
        TextMatch::Present => true,
        TextMatch::Regex(pattern) => std::str::from_utf8(value).is_ok_and(|v| pattern.matches(v)),
    }
}

/// Decodes percent-escapes; malformed ones stay, and `+` is a plus. Allocates only for escapes.
fn percent_decoded(text: &str) -> Cow<'_, [u8]> {
    if !text.contains('%') {
        return Cow::Borrowed(text.as_bytes());
    }
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        match (first, tail) {
            (b'%', [high, low, after @ ..]) => match (hex(*high), hex(*low)) {
                (Some(high), Some(low)) => {
                    decoded.push(high << 4 | low);
                    rest = after;
                }
                _ => {
                    decoded.push(b'%');
                    rest = tail;
                }
            },
            (other, _) => {
                decoded.push(*other);
                rest = tail;
            }
        }
    }
    Cow::Owned(decoded)
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).map(|d| d as u8)
}

#[cfg(test)]
mod tests;
