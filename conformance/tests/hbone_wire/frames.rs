//! HTTP/2 frames by hand, for what no library sends: odd authorities, odd streams. Knows of HPACK
//! only how to send literals and how to read a status.

use tokio::io::{AsyncReadExt, AsyncWriteExt};

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;

pub const END_STREAM: u8 = 1;
pub const ACK: u8 = 1;
pub const END_HEADERS: u8 = 4;

/// One frame.
#[derive(Debug)]
pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

/// How a stream was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answered {
    Status(u16),
    Reset(u32),
    GoAway(u32),
    Closed,
}

/// An HTTP/2 connection whose frames the test writes and reads.
pub struct Frames<S> {
    stream: S,
}

impl<S: AsyncReadExt + AsyncWriteExt + Unpin> Frames<S> {
    /// Sends the preface and empty SETTINGS.
    pub async fn open(mut stream: S) -> Self {
        let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
        stream.write_all(preface).await.expect("a write");
        let mut frames = Self { stream };
        frames.send(SETTINGS, 0, 0, &[]).await;
        frames
    }

    /// Sends one frame.
    pub async fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        let length = u32::try_from(payload.len()).expect("a frame").to_be_bytes();
        let mut frame = length[1..].to_vec();
        frame.extend([kind, flags]);
        frame.extend(stream.to_be_bytes());
        frame.extend(payload);
        // The other side may have closed: what it answered is what the test looks at.
        let _ = self.stream.write_all(&frame).await;
    }

    /// Sends a header block on a stream.
    pub async fn headers(&mut self, stream: u32, flags: u8, fields: &[(&str, &str)]) {
        let block = header_block(fields);
        self.send(HEADERS, flags | END_HEADERS, stream, &block)
            .await;
    }

    /// The next frame; `None` at the end of the connection.
    pub async fn next(&mut self) -> Option<Frame> {
        let mut head = [0; 9];
        self.stream.read_exact(&mut head).await.ok()?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let mut payload = vec![0; length];
        self.stream.read_exact(&mut payload).await.ok()?;
        Some(Frame {
            kind: head[3],
            flags: head[4],
            stream: u32::from_be_bytes([head[5] & 0x7f, head[6], head[7], head[8]]),
            payload,
        })
    }

    /// The next frame of a kind; panics when the connection ends first.
    pub async fn next_of(&mut self, kind: u8) -> Frame {
        loop {
            let frame = self.next().await.expect("the connection has ended");
            if frame.kind == kind {
                return frame;
            }
        }
    }

    /// How a stream is answered.
    pub async fn answer(&mut self, stream: u32) -> Answered {
        loop {
            let Some(frame) = self.next().await else {
                return Answered::Closed;
            };
            match frame.kind {
                HEADERS if frame.stream == stream => {
                    return Answered::Status(status(&frame.payload));
                }
                RST_STREAM if frame.stream == stream => {
                    return Answered::Reset(word(&frame.payload));
                }
                GOAWAY => return Answered::GoAway(word(&frame.payload[4..])),
                _ => {}
            }
        }
    }
}

/// Four bytes as a number.
pub fn word(bytes: &[u8]) -> u32 {
    u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
}

/// RFC 7541 6.2.2, literals without indexing, names new, nothing compressed.
pub fn header_block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for text in [name, value] {
            integer(text.len(), &mut block);
            block.extend_from_slice(text.as_bytes());
        }
    }
    block
}

/// RFC 7541 5.1 with a prefix of seven bits.
fn integer(mut value: usize, block: &mut Vec<u8>) {
    if value < 127 {
        block.push(value as u8);
        return;
    }
    block.push(127);
    value -= 127;
    while value >= 128 {
        block.push((value % 128 + 128) as u8);
        value /= 128;
    }
    block.push(value as u8);
}

/// The status of a header block: one of RFC 7541 appendix A, or `:status` with a Huffman string.
fn status(block: &[u8]) -> u16 {
    match block[0] {
        0x88 => 200,
        0x89 => 204,
        0x8b => 304,
        0x8c => 400,
        0x8d => 404,
        0x8e => 500,
        0x48 => three_digits(&block[2..]),
        other => panic!("not a status: {other:#x}"),
    }
}

/// Three digits in the Huffman code of RFC 7541 appendix B: 0 to 2 have five bits, 3 to 9 six.
fn three_digits(coded: &[u8]) -> u16 {
    let mut bits = coded
        .iter()
        .flat_map(|byte| (0..8).rev().map(move |bit| u16::from(byte >> bit & 1)));
    let mut take = |n: usize| bits.by_ref().take(n).fold(0, |code, bit| code << 1 | bit);
    let mut digit = || match take(5) {
        code @ 0..=2 => code,
        code => (code << 1 | take(1)) - 0x19 + 3,
    };
    digit() * 100 + digit() * 10 + digit()
}
