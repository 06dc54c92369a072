//! Why the engine could not take the header of a request. The engine answers such a request by itself,
//! and tells only its debug log why; so what it read is looked at once more. Refuses nothing: it runs
//! once a request is refused.

use std::borrow::Cow;

use cairn_filters::authority::{self, AuthorityError};
use cairn_filters::outcome::Outcome;
use http::header::{CONTENT_LENGTH, HOST, HeaderName, HeaderValue, TRANSFER_ENCODING};
use http::{HeaderMap, Method, Uri};
use httparse::{Error, Header, Request, Status};

use crate::limits::REQUEST_HEADERS_MAX;

/// The reason when what is wrong is not at hand.
pub const UNKNOWN: &str =
    "the request line or a header is malformed, or Host or Content-Length contradict";

/// A request that never became one, and as much of it as could be read.
#[derive(Debug, PartialEq, Eq)]
pub struct Unread {
    /// What it is answered with.
    pub outcome: Outcome,
    /// Why, in words.
    pub reason: Cow<'static, str>,
    /// GET, as long as there is no path.
    pub method: Method,
    /// As sent, without the query: nobody looked whether a token is in it. Empty if unknown.
    pub path: String,
    /// Host as sent; empty if unknown.
    pub authority: String,
}

impl Unread {
    /// One of which nothing is known but this.
    pub fn because(outcome: Outcome, reason: impl Into<Cow<'static, str>>) -> Self {
        Self {
            outcome,
            reason: reason.into(),
            method: Method::GET,
            path: String::new(),
            authority: String::new(),
        }
    }

    /// A request of which only the begin came, or of which a part passed the guard unseen.
    pub fn unknown() -> Self {
        Self::because(Outcome::BadRequest, UNKNOWN)
    }

    /// What is wrong with a header that the engine refused. `unfinished`: the reason if `head` is in
    /// order as far as it goes.
    pub fn explain(head: &[u8], unfinished: &'static str) -> Self {
        let mut headers = [httparse::EMPTY_HEADER; REQUEST_HEADERS_MAX];
        let mut request = Request::new(&mut headers);
        let parsed = request.parse(head);
        let headers: &[Header<'_>] = request.headers;
        let (outcome, reason) = match parsed {
            Err(error) => of_syntax(error),
            Ok(Status::Partial) => (Outcome::BadRequest, unfinished.into()),
            Ok(Status::Complete(_)) => of_content(request.path, headers),
        };
        let method = request.method.and_then(|m| m.parse().ok());
        // Without a target the method is no method either, but the begin of something else.
        let method = method.filter(|_| request.path.is_some());
        Self {
            method: method.unwrap_or(Method::GET),
            path: without_query(request.path.unwrap_or_default()).to_owned(),
            authority: values(headers, &HOST)
                .next()
                .map(|host| String::from_utf8_lossy(host).into_owned())
                .unwrap_or_default(),
            ..Self::because(outcome, reason)
        }
    }

    /// The answer, for a stream on which the engine has written nothing.
    pub fn answer(&self) -> Vec<u8> {
        let reply = self.outcome.reply(false);
        format!(
            "HTTP/1.1 {} {}\r\ncontent-type: text/plain\r\nconnection: close\r\n\
             content-length: {}\r\n\r\n{}",
            reply.status.as_u16(),
            reply.status.canonical_reason().unwrap_or_default(),
            reply.body.len(),
            reply.body,
        )
        .into_bytes()
    }
}

fn without_query(target: &str) -> &str {
    target.split_once('?').map_or(target, |(path, _)| path)
}

/// What is answered, and why.
pub type Why = (Outcome, Cow<'static, str>);

/// More header lines than [`REQUEST_HEADERS_MAX`].
pub fn too_many_headers() -> Why {
    let reason = format!("the request has more than {REQUEST_HEADERS_MAX} header lines");
    (Outcome::HeadersTooLarge, reason.into())
}

fn of_syntax(error: Error) -> Why {
    let reason = match error {
        Error::TooManyHeaders => return too_many_headers(),
        Error::HeaderName => "a header name has a character that no name has",
        Error::HeaderValue => "a header value has a control character",
        Error::Version => "the request line does not end with HTTP/1.1",
        Error::NewLine => "a line does not end with CR and LF",
        Error::Token | Error::Status => "the request line is malformed",
    };
    (Outcome::BadRequest, reason.into())
}

/// The syntax is in order: what it says is not.
fn of_content(path: Option<&str>, headers: &[Header<'_>]) -> Why {
    if let Some(error) = authority_error(path, headers) {
        return (Outcome::BadAuthority, error.to_string().into());
    }
    let has = |name| values(headers, name).next().is_some();
    let reason = if has(&TRANSFER_ENCODING) {
        "Transfer-Encoding is something else than chunked"
    } else if has(&CONTENT_LENGTH) {
        "Content-Length is not one plain number"
    } else {
        "the request target is malformed"
    };
    (Outcome::BadRequest, reason.into())
}

fn authority_error(path: Option<&str>, headers: &[Header<'_>]) -> Option<AuthorityError> {
    let mut hosts = HeaderMap::new();
    for host in values(headers, &HOST) {
        match HeaderValue::from_bytes(host) {
            Ok(host) => hosts.append(HOST, host),
            Err(_) => return Some(AuthorityError::Host),
        };
    }
    let uri: Option<Uri> = path.and_then(|p| p.parse().ok());
    let in_target = uri.as_ref().and_then(Uri::authority).map(|a| a.as_str());
    match authority::of_request(in_target, &hosts) {
        // The engine takes a request without Host; that is refused later.
        Err(AuthorityError::Missing) => None,
        Err(error) => Some(error),
        // It compares byte by byte.
        Ok(_) => in_target
            .zip(hosts.get(HOST))
            .is_some_and(|(a, h)| a.as_bytes() != h.as_bytes())
            .then_some(AuthorityError::Contradiction),
    }
}

fn values<'h>(headers: &'h [Header<'_>], name: &HeaderName) -> impl Iterator<Item = &'h [u8]> {
    let named = headers
        .iter()
        .filter(move |h| h.name.eq_ignore_ascii_case(name.as_str()));
    named.map(|h| h.value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_with_a_header_is_said_in_words() {
        let many = format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(257));
        for (head, reason) in [
            (
                "GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n",
                "more than one Host",
            ),
            ("GET / HTTP/1.1\r\nhost: me@a\r\n\r\n", "a user part"),
            ("GET http://b/ HTTP/1.1\r\nhost: a\r\n\r\n", "differ"),
            ("GET http://A/ HTTP/1.1\r\nhost: a\r\n\r\n", "differ"),
            ("GET /\r\n\r\n", "request line"),
            ("\u{16}\u{3}\u{1}\r\n\r\n", "request line is malformed"),
            ("GET / HTTP/3.0\r\n\r\n", "HTTP/1.1"),
            ("GET / HTTP/1.1\r\nx y: z\r\n\r\n", "header name"),
            ("GET / HTTP/1.1\r\nx: y\u{1}z\r\n\r\n", "header value"),
            (
                "GET / HTTP/1.1\r\nhost: a\r\ncontent-length: x\r\n\r\n",
                "Content-Length",
            ),
            (
                "GET / HTTP/1.1\r\ntransfer-encoding: gzip\r\n\r\n",
                "Transfer-Encoding",
            ),
            ("GET / HTTP/1.1\r\nhost: a\r\n", "ended before its header"),
            (&many, "more than 256 header lines"),
        ] {
            let why = Unread::explain(head.as_bytes(), "ended before its header");
            assert!(why.reason.contains(reason), "{head:?}: {why:?}");
            assert!(why.outcome.refusal().is_some(), "{why:?}");
        }
    }

    #[test]
    fn what_could_be_read_is_told() {
        let why = Unread::explain(
            b"PUT /a?b HTTP/1.1\r\nhost: one\r\nHost: two\r\n\r\n",
            UNKNOWN,
        );
        assert_eq!((why.method.as_str(), why.path.as_str()), ("PUT", "/a"));
        assert_eq!(
            (why.outcome, why.authority.as_str()),
            (Outcome::BadAuthority, "one")
        );
        let why = Unread::explain(b"\x16\x03\x01\r\n\r\n", UNKNOWN);
        assert_eq!((why.method.as_str(), why.path.as_str()), ("GET", ""));
    }

    #[test]
    fn an_answer_says_its_own_length() {
        for outcome in [
            Outcome::HeadersTooLarge,
            Outcome::HeadersTooSlow,
            Outcome::BadRequest,
        ] {
            let answer = Unread::because(outcome, "").answer();
            let text = String::from_utf8(answer).unwrap();
            let (head, body) = text.split_once("\r\n\r\n").unwrap();
            let stated = head.split("content-length: ").nth(1).unwrap();
            assert_eq!(stated.parse::<usize>().unwrap(), body.len());
            assert!(!body.is_empty());
        }
    }
}
