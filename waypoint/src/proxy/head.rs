//! What has come of the header of one HTTP/1.1 request: where it ends, how large it is, and its begin
//! for the log. Refuses nothing, and parses nothing but line ends.

use super::unread::{self, Unread};
use crate::limits::{HEAD_BYTES_KEPT, REQUEST_HEADERS_MAX};

/// The header of one request, as far as it has come.
#[derive(Debug, Default)]
pub struct Head {
    /// Its begin. The engine has all of it; keeping it twice would double what a header costs.
    begin: Vec<u8>,
    bytes: usize,
    lines: usize,
    /// Since the last line feed there was nothing but a carriage return.
    line_is_empty: bool,
    ended: bool,
}

impl Head {
    /// One of which nothing has come.
    pub fn new() -> Self {
        Self {
            line_is_empty: true,
            ..Self::default()
        }
    }

    /// Begins with the next request, in the same memory.
    pub fn clear(&mut self) {
        let mut begin = std::mem::take(&mut self.begin);
        begin.clear();
        // Idle connections wait with it.
        begin.shrink_to(HEAD_BYTES_KEPT);
        *self = Self {
            begin,
            ..Self::new()
        };
    }

    /// Takes what has come. What follows the end of the header in the same read is a body; another
    /// read counts as a whole, for then whoever reads the header sees its end elsewhere.
    pub fn take(&mut self, read: &[u8]) {
        let end = match self.ended {
            true => read.len(),
            false => self.find_end(read),
        };
        self.bytes = self.bytes.saturating_add(end);
        let header = read.get(..end).unwrap_or_default();
        let room = HEAD_BYTES_KEPT.saturating_sub(self.begin.len());
        let kept = header.get(..room.min(end)).unwrap_or_default();
        self.begin.extend_from_slice(kept);
    }

    /// Where the header ends in `read`: behind an empty line, whose line feed may stand alone, for so
    /// the engine's parser takes it. Empty lines before the request line are part of it.
    fn find_end(&mut self, read: &[u8]) -> usize {
        for (at, byte) in read.iter().enumerate() {
            match byte {
                b'\n' if self.line_is_empty && self.lines > 0 => {
                    self.ended = true;
                    return at + 1;
                }
                b'\n' => {
                    self.lines += usize::from(!self.line_is_empty);
                    self.line_is_empty = true;
                }
                b'\r' => {}
                _ => self.line_is_empty = false,
            }
        }
        read.len()
    }

    /// Bytes so far.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether nothing has come but line breaks, which some clients send after a body.
    pub fn is_blank(&self) -> bool {
        self.lines == 0 && self.line_is_empty
    }

    /// Why the engine did not take it.
    pub fn explain(&self) -> Unread {
        let begun = usize::from(!self.line_is_empty);
        if self.lines + begun > REQUEST_HEADERS_MAX + 1 {
            let (outcome, reason) = unread::too_many_headers();
            let unread = Unread::explain(&self.begin, unread::UNKNOWN);
            return Unread {
                outcome,
                reason,
                ..unread
            };
        }
        // What is wrong may be behind what was kept.
        Unread::explain(&self.begin, unread::UNKNOWN)
    }

    /// The client ended its stream here.
    pub fn cut_off(&self) -> Unread {
        Unread::explain(&self.begin, "the request ended before its header did")
    }
}

#[cfg(test)]
mod tests {
    use cairn_filters::outcome::Outcome;

    use super::*;

    const REQUEST: &str = "POST /a HTTP/1.1\r\nhost: web\r\ncontent-length: 5\r\n\r\n";

    fn taken(reads: &[&str]) -> Head {
        let mut head = Head::new();
        reads.iter().for_each(|read| head.take(read.as_bytes()));
        head
    }

    #[test]
    fn a_body_in_the_same_read_is_no_header() {
        let body = "x".repeat(100_000);
        for before in ["", "\r\n", "\n\r\n"] {
            for line_end in ["\r\n", "\n"] {
                let header = format!("{before}{}", REQUEST.replace("\r\n", line_end));
                let whole = taken(&[&format!("{header}{body}")]);
                assert_eq!(whole.bytes(), header.len(), "{header:?}");
            }
        }
    }

    #[test]
    fn the_end_is_found_wherever_reads_part() {
        let sent = format!("{REQUEST}hello");
        for at in 1..REQUEST.len() {
            let (first, rest) = sent.split_at(at);
            assert_eq!(taken(&[first, rest]).bytes(), REQUEST.len(), "{at}");
        }
    }

    #[test]
    fn who_reads_on_behind_the_end_is_counted() {
        let head = taken(&[REQUEST, &"x".repeat(100_000)]);
        assert_eq!(head.bytes(), REQUEST.len() + 100_000);
    }

    #[test]
    fn a_long_header_is_counted_but_not_kept() {
        let value = "x".repeat(50_000);
        let mut head = taken(&["PUT /a HTTP/1.1\r\nhost: web\r\nx-big: ", &value, "\r\n"]);
        assert_eq!(head.begin.len(), HEAD_BYTES_KEPT);
        assert!(head.begin.capacity() <= 2 * HEAD_BYTES_KEPT);
        let unread = head.cut_off();
        assert!(unread.reason.contains("ended before"), "{unread:?}");
        assert_eq!(
            (unread.method.as_str(), unread.path.as_str()),
            ("PUT", "/a")
        );
        head.take(b"y z: 1\r\n");
        let unread = head.explain();
        assert_eq!(unread.outcome, Outcome::BadRequest);
        assert!(unread.reason.contains("malformed"), "{unread:?}");
        head.clear();
        assert!(head.is_blank() && head.bytes() == 0);
    }

    #[test]
    fn lines_are_counted_beyond_what_is_kept() {
        let line = format!("x-a: {}\r\n", "b".repeat(50));
        let head = |lines| format!("GET / HTTP/1.1\r\n{}", line.repeat(lines));
        assert_eq!(
            taken(&[&head(257)]).explain().outcome,
            Outcome::HeadersTooLarge
        );
        // The engine refuses as soon as one more has begun.
        let begun = taken(&[&head(256), "x"]);
        assert_eq!(begun.explain().outcome, Outcome::HeadersTooLarge);
        assert_eq!(taken(&[&head(256)]).explain().outcome, Outcome::BadRequest);
    }

    #[test]
    fn line_breaks_alone_begin_nothing() {
        assert!(taken(&["\r\n", "\r\n"]).is_blank());
        assert!(!taken(&["\r\nG"]).is_blank());
    }
}
