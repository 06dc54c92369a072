//! The engine's header types as `cairn-filters` wants them, and the header checks that need raw
//! bytes.

use cairn_filters::header_change::Headers;
use cairn_filters::hygiene;
use http::Version;
use http::header::{CONTENT_LENGTH, EXPECT, HOST, HeaderName, HeaderValue, TRANSFER_ENCODING};
use pingora_error::{ErrorType, OkOrErr, OrErr, Result};
use pingora_http::{RequestHeader, ResponseHeader};
use pingora_proxy::Session;

/// A request header under change. `host` stands for `:authority` as well.
pub struct RequestHeaders<'a>(pub &'a mut RequestHeader);

impl Headers for RequestHeaders<'_> {
    fn get(&self, name: &HeaderName) -> Option<&HeaderValue> {
        self.0.headers.get(name)
    }

    fn get_all(&self, name: &HeaderName) -> impl Iterator<Item = &HeaderValue> {
        self.0.headers.get_all(name).iter()
    }

    fn names(&self) -> impl Iterator<Item = &HeaderName> {
        self.0.headers.keys()
    }

    fn set(&mut self, name: &HeaderName, value: HeaderValue) {
        if name == HOST {
            set_authority(self.0, &value);
        }
        // Fails only for a name that is no header name, which `HeaderName` rules out.
        let _ = self.0.insert_header(name.clone(), value);
    }

    fn set_known(&mut self, name: &'static str, value: HeaderValue) {
        if name == HOST {
            set_authority(self.0, &value);
        }
        let _ = self.0.insert_header(name, value);
    }

    fn append(&mut self, name: &HeaderName, value: HeaderValue) {
        let _ = self.0.append_header(name.clone(), value);
    }

    fn remove(&mut self, name: &HeaderName) {
        self.0.remove_header(name);
    }
}

/// Makes a request fit for HTTP/2: nothing that concerns one hop, and the authority in the URI
/// (RFC 9113 8.2.2, 8.3.1).
pub fn for_http2(request: &mut RequestHeader) -> Result<()> {
    hygiene::strip_hop_by_hop(&mut RequestHeaders(request), false);
    request.remove_header(&TRANSFER_ENCODING);
    let host = request.remove_header(&HOST);
    let mut parts = request.uri.clone().into_parts();
    if parts.authority.is_none() {
        let host = host.or_err(ErrorType::InvalidHTTPHeader, "a request without Host")?;
        let authority = http::uri::Authority::try_from(host.as_bytes());
        parts.authority = Some(authority.or_err(ErrorType::InvalidHTTPHeader, "the Host")?);
    }
    parts.scheme = Some(http::uri::Scheme::HTTP);
    let uri = http::Uri::from_parts(parts).or_err(ErrorType::InvalidHTTPHeader, "the URI")?;
    request.set_uri(uri);
    request.set_version(Version::HTTP_2);
    Ok(())
}

/// Makes a request of our own fit for HTTP/1.1: Host as a header, a body that ends. The engine does so
/// for its own.
pub fn for_http1(request: &mut RequestHeader, has_body: bool) -> Result<()> {
    hygiene::strip_hop_by_hop(&mut RequestHeaders(request), false);
    // Nobody waits for leave to send the body.
    request.remove_header(&EXPECT);
    if !request.headers.contains_key(HOST) {
        let authority = request.uri.authority().map(|a| a.as_str().to_owned());
        let host = authority.or_err(ErrorType::InvalidHTTPHeader, "a request without Host")?;
        request.insert_header(HOST, host)?;
    }
    let path = request.uri.path_and_query().map_or("/", |p| p.as_str());
    let uri = http::Uri::try_from(path).or_err(ErrorType::InvalidHTTPHeader, "the path")?;
    request.set_uri(uri);
    request.set_version(Version::HTTP_11);
    let framed = |name| request.headers.contains_key(name);
    if has_body && !framed(CONTENT_LENGTH) && !framed(TRANSFER_ENCODING) {
        let chunked = HeaderValue::from_static("chunked");
        request.insert_header(TRANSFER_ENCODING, chunked)?;
    }
    Ok(())
}

/// HTTP/2 carries the authority in the URI; the engine makes Host from it and back.
fn set_authority(request: &mut RequestHeader, value: &HeaderValue) {
    if request.uri.authority().is_none() {
        return;
    }
    let mut parts = request.uri.clone().into_parts();
    if let Ok(authority) = http::uri::Authority::try_from(value.as_bytes()) {
        parts.authority = Some(authority);
        if let Ok(uri) = http::Uri::from_parts(parts) {
            request.set_uri(uri);
        }
    }
}

/// A response header under change.
pub struct ResponseHeaders<'a>(pub &'a mut ResponseHeader);

impl Headers for ResponseHeaders<'_> {
    fn get(&self, name: &HeaderName) -> Option<&HeaderValue> {
        self.0.headers.get(name)
    }

    fn get_all(&self, name: &HeaderName) -> impl Iterator<Item = &HeaderValue> {
        self.0.headers.get_all(name).iter()
    }

    fn names(&self) -> impl Iterator<Item = &HeaderName> {
        self.0.headers.keys()
    }

    fn set(&mut self, name: &HeaderName, value: HeaderValue) {
        let _ = self.0.insert_header(name.clone(), value);
    }

    fn set_known(&mut self, name: &'static str, value: HeaderValue) {
        let _ = self.0.insert_header(name, value);
    }

    fn append(&mut self, name: &HeaderName, value: HeaderValue) {
        let _ = self.0.append_header(name.clone(), value);
    }

    fn remove(&mut self, name: &HeaderName) {
        self.0.remove_header(name);
    }
}

/// Whether an HTTP/1.1 request came with both Content-Length and Transfer-Encoding, with a
/// Content-Length that is no plain number (`3, 3`, which the engine would send on as it is), or with
/// a Transfer-Encoding other than one `chunked`. The
/// engine drops the former before anybody can see it, so only the raw bytes can tell; two parsers
/// that choose differently are how requests are smuggled.
pub fn has_ambiguous_length(session: &Session) -> bool {
    let Some(http1) = session.as_http1() else {
        return false;
    };
    let mut lengths = http1.req_header().headers.get_all(CONTENT_LENGTH).iter();
    let is_plain = |v: &HeaderValue| v.as_bytes().iter().all(u8::is_ascii_digit);
    if lengths.next().is_some_and(|first| !is_plain(first)) || lengths.next().is_some() {
        return true;
    }
    let mut encodings = http1.req_header().headers.get_all(TRANSFER_ENCODING).iter();
    let Some(encoding) = encodings.next() else {
        return false;
    };
    // `gzip, chunked` is legal, and so rare that parsers disagree about it; Envoy refuses it too.
    if !encoding.as_bytes().eq_ignore_ascii_case(b"chunked") || encodings.next().is_some() {
        return true;
    }
    let raw = http1.get_headers_raw_bytes();
    raw.split(|c| *c == b'\n').any(|line| {
        let name = line.split(|c| *c == b':').next().unwrap_or_default();
        name.trim_ascii().eq_ignore_ascii_case(b"content-length")
    })
}

/// Whether the request has a body that ends by its Content-Length.
pub fn has_stated_length(session: &Session) -> bool {
    let length = session.req_header().headers.get(CONTENT_LENGTH);
    length.is_some_and(|length| length != "0")
}

/// Whether the request line of an HTTP/1.1 request has a `#`. The engine drops a fragment before
/// anybody can see it; a client that sends one is wrong about where its path ends.
pub fn has_fragment(session: &Session) -> bool {
    session.as_http1().is_some_and(|http1| {
        // A line break before the request line is no part of it (RFC 9112 2.2).
        let raw = http1.get_headers_raw_bytes();
        let lines = raw.trim_ascii_start();
        lines
            .iter()
            .take_while(|b| **b != b'\n')
            .any(|b| *b == b'#')
    })
}

/// About the size of headers on the wire: names, values, and what separates them in HTTP/1.1.
pub fn wire_bytes(headers: &http::HeaderMap) -> u64 {
    let line = |(name, value): (&HeaderName, &HeaderValue)| name.as_str().len() + value.len() + 4;
    headers.iter().map(line).sum::<usize>() as u64
}

/// Size of the header block of an HTTP/1.1 request in bytes; 0 for HTTP/2, whose limit is in the
/// engine's options.
pub fn block_bytes(session: &Session) -> usize {
    session
        .as_http1()
        .map_or(0, |s| s.get_headers_raw_bytes().len())
}

/// What a gRPC call ended with, in a header or in trailers.
pub(super) fn grpc_status(headers: &http::HeaderMap) -> Option<u32> {
    headers.get("grpc-status")?.to_str().ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_is_known_goes_out_as_any_other() {
        let value = || HeaderValue::from_static("v");
        let mut requests = ["/a", "/a"].map(|path| {
            let mut request = RequestHeader::build("GET", path.as_bytes(), None).unwrap();
            request
                .insert_header("traceparent", "of the client")
                .unwrap();
            request
        });
        let [known, any] = &mut requests;
        RequestHeaders(known).set_known("traceparent", value());
        RequestHeaders(known).set_known("x-b3-sampled", value());
        RequestHeaders(any).set(&HeaderName::from_static("traceparent"), value());
        RequestHeaders(any).set(&HeaderName::from_static("x-b3-sampled"), value());
        let [known, any] = requests.map(|request| {
            let mut wire = Vec::new();
            request.header_to_h1_wire(&mut wire);
            assert_eq!(request.headers.get_all("traceparent").iter().count(), 1);
            String::from_utf8(wire).unwrap()
        });
        assert_eq!(known, any);
    }
}
