//! What a flow record keeps of a request: its texts in one piece of memory, which the next record in its place uses
//! again. With a piece for each text, all that thousands of records held was given back from where no cache had it.

use std::ops::Range;

use http::{HeaderValue, Method, StatusCode};

use crate::limits::{FLOW_ROOM_BYTES_MAX, FLOW_TEXT_BYTES_MAX};
use crate::telemetry::exchange::HttpExchange;

/// What a text that was cut ends with.
const ELLIPSIS: &str = "…";

/// A text that was cut.
const TEXT_BYTES_MAX: usize = FLOW_TEXT_BYTES_MAX + ELLIPSIS.len();

/// The HTTP part of a record.
#[derive(Debug, Default)]
pub struct Request {
    /// Method.
    pub method: Method,
    /// `HTTP/1.1` or `HTTP/2`, towards the client.
    pub protocol: &'static str,
    /// Status sent to the client; `None` when nothing was sent.
    pub status: Option<StatusCode>,
    texts: Vec<u8>,
    path: Range<u16>,
    authority: Range<u16>,
    user_agent: Option<Range<u16>>,
    request_id: Option<Range<u16>>,
}

impl Request {
    /// `room`: of a record that nobody needs any more.
    pub(super) fn new(http: HttpExchange, room: Vec<u8>) -> Self {
        let mut texts = room;
        if texts.capacity() > FLOW_ROOM_BYTES_MAX {
            texts = Vec::new();
        }
        texts.clear();
        let headers = [&http.user_agent, &http.request_id];
        let headers = headers.into_iter().flatten().map(HeaderValue::len);
        let lengths = [http.path.len(), http.authority.len()].into_iter();
        let lengths = lengths.chain(headers);
        // No more than is written: clients choose the lengths, and room that grows doubles.
        texts.reserve_exact(lengths.map(room_of).sum());
        Self {
            path: add_text(&http.path, &mut texts),
            authority: add_text(&http.authority, &mut texts),
            user_agent: http.user_agent.map(|value| add_header(&value, &mut texts)),
            request_id: http.request_id.map(|value| add_header(&value, &mut texts)),
            method: http.method,
            protocol: http.protocol,
            status: http.status,
            texts,
        }
    }

    /// Path and query as sent by the client.
    pub fn path(&self) -> &str {
        self.text(&self.path)
    }

    /// Host or `:authority` as sent.
    pub fn authority(&self) -> &str {
        self.text(&self.authority)
    }

    /// `user-agent`.
    pub fn user_agent(&self) -> Option<&[u8]> {
        self.user_agent.as_ref().map(|place| self.bytes(place))
    }

    /// `x-request-id` as forwarded.
    pub fn request_id(&self) -> Option<&[u8]> {
        self.request_id.as_ref().map(|place| self.bytes(place))
    }

    /// Bytes that its texts take.
    pub(super) fn text_bytes(&self) -> usize {
        self.texts.capacity()
    }

    /// Room for the texts of another.
    pub(super) fn into_room(self) -> Vec<u8> {
        self.texts
    }

    fn text(&self, place: &Range<u16>) -> &str {
        std::str::from_utf8(self.bytes(place)).unwrap_or_default()
    }

    fn bytes(&self, place: &Range<u16>) -> &[u8] {
        let place = usize::from(place.start)..usize::from(place.end);
        self.texts.get(place).unwrap_or_default()
    }
}

/// Room that a text of such a length takes at most.
fn room_of(length: usize) -> usize {
    match length > FLOW_TEXT_BYTES_MAX {
        true => TEXT_BYTES_MAX,
        false => length,
    }
}

/// Cuts what clients choose the length of: the ring is bounded by the number of records. What is cut ends with an
/// ellipsis.
fn add_text(text: &str, to: &mut Vec<u8>) -> Range<u16> {
    add(to, |to| match text.len() > FLOW_TEXT_BYTES_MAX {
        true => {
            let kept = text.floor_char_boundary(FLOW_TEXT_BYTES_MAX);
            to.extend_from_slice(text.as_bytes().get(..kept).unwrap_or_default());
            to.extend_from_slice(ELLIPSIS.as_bytes());
        }
        false => to.extend_from_slice(text.as_bytes()),
    })
}

/// The same of a header, without a mark, which it could not hold.
fn add_header(value: &HeaderValue, to: &mut Vec<u8>) -> Range<u16> {
    let bytes = value.as_bytes();
    let kept = bytes.get(..FLOW_TEXT_BYTES_MAX).unwrap_or(bytes);
    add(to, |to| to.extend_from_slice(kept))
}

/// Where it was added: four texts are at most some 4 KiB.
fn add(to: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) -> Range<u16> {
    let end = |to: &Vec<u8>| u16::try_from(to.len()).unwrap_or(u16::MAX);
    let start = end(to);
    write(to);
    start..end(to)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn http(path: &str, agent: Option<&str>) -> HttpExchange {
        HttpExchange {
            path: path.into(),
            authority: "web.shop".into(),
            user_agent: agent.map(|agent| agent.parse().unwrap()),
            request_id: Some(HeaderValue::from_static("id-1")),
            ..HttpExchange::default()
        }
    }

    #[test]
    fn texts_are_those_of_the_request_whatever_the_room_held_before() {
        let mut room = Vec::new();
        for (path, agent) in [
            ("/a?b=1", Some("curl/8")),
            ("/", None),
            ("/longer/than/before", Some("")),
        ] {
            let request = Request::new(http(path, agent), room);
            assert_eq!((request.path(), request.authority()), (path, "web.shop"));
            assert_eq!(request.user_agent(), agent.map(str::as_bytes));
            assert_eq!(request.request_id(), Some(&b"id-1"[..]));
            room = request.into_room();
        }
    }

    #[test]
    fn what_clients_make_long_is_cut() {
        let long = http(&"/ä".repeat(20_000), Some(&"x".repeat(60_000)));
        let request = Request::new(long, Vec::new());
        let path = request.path();
        assert!(path.ends_with("/ä…") || path.ends_with("/…"), "{path}");
        assert!(path.len() <= FLOW_TEXT_BYTES_MAX + '…'.len_utf8());
        assert_eq!(request.user_agent().unwrap().len(), FLOW_TEXT_BYTES_MAX);
        assert_eq!(request.authority(), "web.shop");
        let mut longest = http(&"/ä".repeat(20_000), Some(&"x".repeat(60_000)));
        longest.authority = "y".repeat(60_000);
        longest.request_id = longest.user_agent.clone();
        for room in [Vec::new(), Vec::with_capacity(FLOW_ROOM_BYTES_MAX)] {
            let request = Request::new(longest.clone(), room);
            // Of the memory that it has, used or not.
            assert!(request.text_bytes() <= 4 * (FLOW_TEXT_BYTES_MAX + 3));
        }
    }

    #[test]
    fn room_that_long_texts_took_is_given_back() {
        let long = Request::new(http(&"/a".repeat(20_000), None), Vec::new());
        assert!(long.text_bytes() > FLOW_ROOM_BYTES_MAX);
        let short = Request::new(http("/a", None), long.into_room());
        assert!(short.text_bytes() <= FLOW_ROOM_BYTES_MAX);
    }
}
