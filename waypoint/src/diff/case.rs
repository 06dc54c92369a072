//! One request or TCP stream to be judged under two configurations. Judges nothing itself.

use std::fmt;
use std::net::IpAddr;

use http::header::{HeaderName, HeaderValue};
use http::{HeaderMap, Method};
use serde::{Serialize, Serializer};

/// A request or TCP stream. Equal ones are judged once.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Case {
    /// SPIFFE ID of the client.
    pub from: String,
    /// Address of the client; unspecified when it does not matter.
    pub ip: IpAddr,
    /// Address and port that are dialled.
    pub to: String,
    /// Spoken is no HTTP, whatever the port declares; what follows is empty then. Otherwise it is in what the port
    /// declares: to one of TCP it is a stream, of which what follows says nothing.
    pub tcp: bool,
    /// Method.
    #[serde(serialize_with = "as_text")]
    pub method: Method,
    /// Path and query as the client sends them.
    pub path: String,
    /// Headers, `host` among them.
    #[serde(serialize_with = "as_lines")]
    pub headers: Vec<(HeaderName, HeaderValue)>,
}

fn as_text<S: Serializer>(method: &Method, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(method.as_str())
}

fn as_lines<S: Serializer>(
    headers: &[(HeaderName, HeaderValue)],
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(headers.iter().map(line))
}

fn line((name, value): &(HeaderName, HeaderValue)) -> String {
    format!("{name}: {}", String::from_utf8_lossy(value.as_bytes()))
}

impl Case {
    /// The headers as a request has them.
    pub(super) fn header_map(&self) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in &self.headers {
            headers.append(name, value.clone());
        }
        headers
    }
}

impl fmt::Display for Case {
    /// `GET /items from spiffe://... to 10.96.1.1:80 (host: web.shop)`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.tcp {
            true => f.write_str("TCP")?,
            false => write!(f, "{} {}", self.method, self.path)?,
        }
        write!(f, " from {}", self.from)?;
        if !self.ip.is_unspecified() {
            write!(f, " at {}", self.ip)?;
        }
        write!(f, " to {}", self.to)?;
        let headers: Vec<String> = self.headers.iter().map(line).collect();
        match headers.is_empty() {
            true => Ok(()),
            false => write!(f, " ({})", headers.join(", ")),
        }
    }
}
