//! Headers that a client may not set for itself, and those every request gets
//! (specs/istio-waypoint.md 2.7). Runs before routing and policy, so that neither can be fooled by
//! them. Frames nothing: Content-Length and Transfer-Encoding are the HTTP engine's.
//!
//! The application's `server` header in a response is left alone, where Envoy would overwrite it with
//! `istio-envoy`: it is the application's to say. `x-forwarded-for` is neither appended nor removed, as
//! at Istio's waypoint, and therefore worth only what the client is worth.

use cairn_config_schema::identity::Identity;
use http::header::{CONNECTION, COOKIE, HeaderName, HeaderValue, TE, UPGRADE};

use crate::header_change::Headers;

/// `x-forwarded-client-cert`.
pub const X_FORWARDED_CLIENT_CERT: HeaderName = HeaderName::from_static("x-forwarded-client-cert");
/// `x-request-id`.
pub const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// `x-forwarded-proto`.
pub const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");

/// All of Envoy's own namespace: every header in it is an order to a proxy (`x-envoy-retry-on`,
/// `x-envoy-upstream-alt-stat-name`, ...) or a statement by one, and no client gives us either.
/// Exceptions: none.
pub(crate) const ENVOY_PREFIX: &str = "x-envoy-";

/// Cleans a request's headers before anything looks at them.
///
/// `forwarded_client_cert` is [`client_cert`]'s value when the waypoint's option is on.
/// `request_id` is asked for only when the request has none.
pub fn clean_request(
    headers: &mut impl Headers,
    forwarded_client_cert: Option<HeaderValue>,
    request_id: impl FnOnce() -> HeaderValue,
) {
    remove_nominated(headers);
    join_cookies(headers);
    let forbidden = |name: &&HeaderName| {
        name.as_str().starts_with(ENVOY_PREFIX) || reads_as(name, &X_FORWARDED_CLIENT_CERT)
    };
    // An empty Vec does not allocate, and it is empty for an honest client.
    let found: Vec<HeaderName> = headers.names().filter(forbidden).cloned().collect();
    for name in &found {
        headers.remove(name);
    }
    if let Some(value) = forwarded_client_cert {
        headers.set(&X_FORWARDED_CLIENT_CERT, value);
    }
    if headers.get(&X_REQUEST_ID).is_none_or(HeaderValue::is_empty) {
        headers.set(&X_REQUEST_ID, request_id());
    }
    if headers.get(&X_FORWARDED_PROTO).is_none() {
        headers.set(&X_FORWARDED_PROTO, HeaderValue::from_static("http"));
    }
}

/// Whether an application may take one header for the other: CGI and its heirs (WSGI, PHP, Rack) make
/// one variable of `x-user` and `x_user` (RFC 3875 4.1.18).
pub(crate) fn reads_as(name: &HeaderName, other: &HeaderName) -> bool {
    let (name, other) = (name.as_str().bytes(), other.as_str().bytes());
    let plain = |byte| if byte == b'_' { b'-' } else { byte };
    name.len() == other.len() && name.map(plain).eq(other.map(plain))
}

/// `By=<own>;URI=<peer>`: the form Istio's waypoint writes. `None` for a peer without identity.
pub fn client_cert(own: &Identity, peer: Option<&Identity>) -> Option<HeaderValue> {
    // A SPIFFE ID has no character that would need quoting here.
    HeaderValue::try_from(format!("By={};URI={}", own.uri(), peer?.uri())).ok()
}

/// Removes what concerns one hop only, before a request or response is sent on (RFC 9110 7.6.1).
/// `upgrade` keeps Connection and Upgrade, for a connection that does change protocols. `te: trailers`
/// stays, because gRPC asks for it end to end.
pub fn strip_hop_by_hop(headers: &mut impl Headers, upgrade: bool) {
    for name in [&KEEP_ALIVE, &PROXY_CONNECTION] {
        headers.remove(name);
    }
    if !upgrade {
        headers.remove(&CONNECTION);
        headers.remove(&UPGRADE);
    }
    if headers.get_all(&TE).any(|value| value != "trailers") {
        headers.remove(&TE);
    }
}

/// HTTP/2 clients send each cookie in a field of its own; anything but HTTP/2 gets one field (RFC 9113
/// 8.2.3), and policy must see the one that an endpoint will read.
fn join_cookies(headers: &mut impl Headers) {
    if headers.get_all(&COOKIE).nth(1).is_none() {
        return;
    }
    let values: Vec<&[u8]> = headers
        .get_all(&COOKIE)
        .map(HeaderValue::as_bytes)
        .collect();
    // Header values stay one when they are joined by a legal text.
    if let Ok(joined) = HeaderValue::from_bytes(&values.join(&b"; "[..])) {
        headers.set(&COOKIE, joined);
    }
}

/// Removes the headers that Connection names, so that policy sees what the backend will see, and
/// leaves in Connection only what steers the connection itself: a later hop, the engine included,
/// would remove what it names, the headers that frame the message or that we vouch for among them.
fn remove_nominated(headers: &mut impl Headers) {
    // The usual value is left as it is, without an allocation.
    if connection_tokens(headers).all(steers_connection) {
        return;
    }
    let nominated: Vec<HeaderName> = connection_tokens(headers)
        .filter_map(|token| HeaderName::from_bytes(token).ok())
        .filter(|name| !is_end_to_end(name.as_str()))
        .collect();
    let kept: Vec<&[u8]> = connection_tokens(headers)
        .filter(|token| steers_connection(token))
        .collect();
    let kept = HeaderValue::from_bytes(&kept.join(&b", "[..]));
    for name in &nominated {
        headers.remove(name);
    }
    match kept {
        Ok(kept) if !kept.is_empty() => headers.set(&CONNECTION, kept),
        _ => headers.remove(&CONNECTION),
    }
}

fn connection_tokens(headers: &impl Headers) -> impl Iterator<Item = &[u8]> {
    let values = headers.get_all(&CONNECTION);
    values.flat_map(|value| {
        value
            .as_bytes()
            .split(|b| *b == b',')
            .map(<[u8]>::trim_ascii)
    })
}

/// Options of the connection, and `te`, whose header is looked at where it is sent on.
fn steers_connection(token: &[u8]) -> bool {
    let options: [&[u8]; 4] = [b"close", b"keep-alive", b"upgrade", b"te"];
    options.iter().any(|o| token.eq_ignore_ascii_case(o))
}

fn is_end_to_end(name: &str) -> bool {
    const KEPT: [&str; 9] = [
        // The engine needs these to frame the message and to keep or upgrade the connection.
        "connection",
        "content-length",
        "transfer-encoding",
        "upgrade",
        "te",
        "trailer",
        "keep-alive",
        // These may come from an honest hop before the client's, which the client may not undo.
        "host",
        "x-request-id",
    ];
    KEPT.contains(&name) || name.starts_with("x-forwarded-")
}

#[cfg(test)]
mod tests;
