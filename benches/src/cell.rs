//! What one measurement is: path, exchange, connections, mode. Measures nothing itself.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use clap::ValueEnum;
use http::Method;
use serde::Serialize;

/// How the proxy reaches the application.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Path {
    /// HBONE in, plain TCP out.
    Plain,
    /// HBONE in, HBONE out.
    Hbone,
}

/// One request and its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Exchange {
    /// HTTP/1.1 GET, 1 KiB answered.
    #[value(name = "get-1k")]
    #[serde(rename = "get-1k")]
    Get1k,
    /// HTTP/1.1 GET, 64 KiB answered.
    #[value(name = "get-64k")]
    #[serde(rename = "get-64k")]
    Get64k,
    /// HTTP/1.1 POST of 16 KiB, 2 bytes answered.
    #[value(name = "post-16k")]
    #[serde(rename = "post-16k")]
    Post16k,
    /// HTTP/2 with prior knowledge, unary call of 128 bytes, 128 bytes and trailers answered.
    Grpc,
}

/// When requests are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Closed loop: each lane sends as soon as it has its answer.
    Saturated,
    /// Open loop at a fixed rate, whatever the answers do.
    Rate,
    /// Closed loop, and every request on a new TCP and mTLS connection.
    Fresh,
}

/// One cell of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Cell {
    /// How the proxy reaches the application.
    pub path: Path,
    /// What is sent.
    pub exchange: Exchange,
    /// Client connections (tunnels); in mode `fresh`, connections open at once.
    pub connections: usize,
    /// When it is sent.
    pub mode: Mode,
}

/// Bytes of a gRPC message, without its 5-byte prefix.
pub const GRPC_MESSAGE_BYTES: usize = 128;

impl Cell {
    /// Requests in flight at once on each connection, so that `in_flight` are under way in all.
    pub fn lanes_per_connection(&self, in_flight: usize) -> usize {
        match self.mode {
            Mode::Fresh => 1,
            Mode::Saturated | Mode::Rate => (in_flight / self.connections.max(1)).max(1),
        }
    }
}

impl Exchange {
    /// Whether it is spoken over HTTP/2.
    pub fn is_http2(self) -> bool {
        matches!(self, Self::Grpc)
    }

    /// The service port it is sent to.
    pub fn service_port(self) -> u16 {
        if self.is_http2() {
            GRPC_PORT
        } else {
            HTTP_PORT
        }
    }

    /// Method and path of the request.
    pub fn target(self) -> (Method, &'static str) {
        match self {
            Self::Get1k => (Method::GET, "/bytes/1024"),
            Self::Get64k => (Method::GET, "/bytes/65536"),
            Self::Post16k => (Method::POST, "/sink"),
            Self::Grpc => (Method::POST, "/bench.Echo/Unary"),
        }
    }

    /// Body of the request.
    pub fn request_body(self) -> Bytes {
        match self {
            Self::Get1k | Self::Get64k => Bytes::new(),
            Self::Post16k => Bytes::from(vec![b'x'; 16 * 1024]),
            Self::Grpc => grpc_message(),
        }
    }

    /// Bytes the answer's body must have.
    pub fn answer_bytes(self) -> usize {
        match self {
            Self::Get1k => 1024,
            Self::Get64k => 65536,
            Self::Post16k => 2,
            Self::Grpc => GRPC_MESSAGE_BYTES + 5,
        }
    }
}

/// Service port that speaks HTTP/1.1.
pub const HTTP_PORT: u16 = 80;
/// Service port that speaks gRPC.
pub const GRPC_PORT: u16 = 9090;

/// One uncompressed gRPC message of zeros: flag, length, payload.
pub fn grpc_message() -> Bytes {
    let mut message = vec![0; 5 + GRPC_MESSAGE_BYTES];
    if let Some(length) = message.get_mut(1..5) {
        length.copy_from_slice(&(GRPC_MESSAGE_BYTES as u32).to_be_bytes());
    }
    Bytes::from(message)
}

/// How long and how fast a cell runs.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Load before anything is counted.
    pub warm_up: Duration,
    /// Load that is counted.
    pub measure: Duration,
    /// Requests a second in mode `rate`.
    pub rate: u32,
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_value(self, f)
    }
}

impl fmt::Display for Exchange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_value(self, f)
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_value(self, f)
    }
}

fn write_value(value: &impl ValueEnum, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    value
        .to_possible_value()
        .map_or(Ok(()), |v| f.pad(v.get_name()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lanes_share_the_requests_in_flight() {
        let cell = |connections, mode| Cell {
            path: Path::Plain,
            exchange: Exchange::Get1k,
            connections,
            mode,
        };
        assert_eq!(cell(1, Mode::Saturated).lanes_per_connection(64), 64);
        assert_eq!(cell(16, Mode::Rate).lanes_per_connection(64), 4);
        assert_eq!(cell(256, Mode::Saturated).lanes_per_connection(64), 1);
        assert_eq!(cell(16, Mode::Fresh).lanes_per_connection(64), 1);
    }

    #[test]
    fn grpc_message_carries_its_length() {
        assert_eq!(grpc_message().len(), Exchange::Grpc.answer_bytes());
        assert_eq!(&grpc_message()[..5], &[0, 0, 0, 0, 128]);
    }
}
