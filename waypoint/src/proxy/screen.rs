//! What is refused before anything looks at a request: whatever two parsers could read as two
//! different messages, and what is no business of a waypoint. Does not look at paths; the chain does.

use cairn_filters::authority;
use cairn_filters::header_change::Headers as _;
use cairn_filters::outcome::Outcome;
use http::header::{HOST, HeaderValue};
use http::{Method, Version};
use pingora_http::RequestHeader;
use pingora_proxy::Session;

use super::headers::{self, RequestHeaders};
use crate::limits::REQUEST_HEADER_BYTES_MAX;

/// Why a request is refused as it stands, in the table's terms and in words.
pub(super) fn refusal(session: &mut Session) -> Option<(Outcome, &'static str)> {
    if headers::block_bytes(session) > REQUEST_HEADER_BYTES_MAX {
        return Some((Outcome::HeadersTooLarge, "the header is larger than 60 KiB"));
    }
    if session.req_header().method == Method::CONNECT {
        return Some((Outcome::ConnectInside, "CONNECT inside a tunnel"));
    }
    if headers::has_ambiguous_length(session) {
        let reason = "Content-Length and Transfer-Encoding can be read in two ways";
        return Some((Outcome::BadRequest, reason));
    }
    if !session.req_header().raw_path_is_utf8() {
        return Some((Outcome::BadRequest, "the request target is not UTF-8"));
    }
    if !session.is_http2() && session.req_header().version != Version::HTTP_11 {
        return Some((Outcome::LowVersion, "the request is older than HTTP/1.1"));
    }
    if headers::has_fragment(session) {
        return Some((Outcome::BadPath, "the request target has a fragment"));
    }
    refuse_upgrade(session.req_header_mut())
}

/// WebSocket passes. An offer to switch to HTTP/2 is ignored, as RFC 9113 3.1 allows and Envoy
/// does; any other upgrade is refused.
fn refuse_upgrade(request: &mut RequestHeader) -> Option<(Outcome, &'static str)> {
    let upgrade = request.headers.get(http::header::UPGRADE)?;
    if upgrade.as_bytes().eq_ignore_ascii_case(b"websocket") {
        return None;
    }
    if upgrade.as_bytes().eq_ignore_ascii_case(b"h2c") {
        for name in ["upgrade", "http2-settings", "connection"] {
            request.remove_header(name);
        }
        return None;
    }
    let reason = "an upgrade to something else than WebSocket";
    Some((Outcome::BadUpgrade, reason))
}

/// The authority of a request, which is put back if it was sent with a dot at its end: the endpoint
/// must see the name that policy saw.
pub(super) fn authority_of(session: &mut Session) -> Result<String, authority::AuthorityError> {
    let request = session.req_header_mut();
    let in_uri = request.uri.authority().map(|a| a.as_str());
    let sent = in_uri.map(str::len).or_else(|| {
        let host = request.headers.get(HOST);
        host.map(HeaderValue::len)
    });
    let authority = authority::of_request(in_uri, &request.headers)?.into_owned();
    if sent != Some(authority.len()) {
        let value = HeaderValue::from_str(&authority);
        let value = value.map_err(|_| authority::AuthorityError::Host)?;
        RequestHeaders(request).set(&HOST, value);
    }
    Ok(authority)
}
