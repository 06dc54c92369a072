//! What Envoy's command operators give for an exchange. An operator whose value a waypoint never has
//! is refused when the format is read, with the reason.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::time::SystemTime;

use http::header::HeaderName;
use http::{HeaderMap, HeaderValue};
use jiff::Timestamp;

use super::line::method;
use super::names::{route_name, upstream_cluster};
use super::time::TimeText;
use crate::telemetry::exchange::{Exchange, HttpExchange, Seen};
use crate::telemetry::expression::{Compiled, Doubt};
use crate::telemetry::text;

/// An operator, and how many bytes of its value are written.
#[derive(Debug)]
pub struct Operator {
    what: What,
    max: Option<usize>,
}

/// A value.
#[derive(Debug, PartialEq, Eq)]
pub enum Given<'a> {
    /// Text.
    Text(Cow<'a, str>),
    /// A number, in JSON too.
    Number(u64),
}

/// What is asked for.
#[derive(Debug)]
enum What {
    Nothing,
    Fixed(String),
    Start(Option<String>),
    End(Option<String>),
    Request(Named),
    RequestWithoutQuery(Named),
    Response(Named),
    Address(fn(&Exchange) -> Option<SocketAddr>, Shown),
    Text(fn(&Exchange) -> Option<Cow<'_, str>>),
    Number(fn(&Seen<'_>) -> Option<u64>),
    GrpcStatus,
    Expression(Box<Compiled>),
}

/// A header, and another for when it is not there.
#[derive(Debug)]
struct Named(Header, Option<Header>);

/// A header, or what HTTP/2 calls a pseudo-header.
#[derive(Debug)]
enum Header {
    Method,
    Path,
    Authority,
    Scheme,
    Status,
    Name(HeaderName),
}

/// Which part of an address is written.
#[derive(Clone, Copy, Debug)]
enum Shown {
    Whole,
    Ip,
    Port,
}

impl Operator {
    /// The one that never has a value.
    pub fn missing() -> Self {
        Self {
            what: What::Nothing,
            max: None,
        }
    }

    /// Reads an operator.
    ///
    /// # Errors
    /// Why it can not be given, in a sentence.
    pub fn read(name: &str, arguments: Option<&str>, max: Option<usize>) -> Result<Self, String> {
        let what = match (name, arguments) {
            ("START_TIME", format) => What::Start(time_format(format)?),
            ("EMIT_TIME", format) => What::End(time_format(format)?),
            ("REQ", Some(names)) => What::Request(named(names)?),
            ("REQ_WITHOUT_QUERY", Some(names)) => What::RequestWithoutQuery(named(names)?),
            ("RESP", Some(names)) => What::Response(named(names)?),
            ("ENVIRONMENT", Some(name)) => std::env::var(name).map_or(What::Nothing, What::Fixed),
            ("HOSTNAME", None) => std::env::var("HOSTNAME").map_or(What::Nothing, What::Fixed),
            ("CEL", Some(text)) => {
                let compiled = Compiled::value(text);
                What::Expression(Box::new(compiled.map_err(|why| of_cel(text, &why))?))
            }
            ("GRPC_STATUS", _) => What::GrpcStatus,
            ("RESPONSE_CODE_DETAILS", _) => What::Text(|e| e.http.as_ref().and(some(&e.details))),
            (name, None) => match text_of(name)
                .or_else(|| number_of(name))
                .or_else(|| address_of(name))
            {
                Some(what) => what,
                None => return Err(refusal(name)),
            },
            (name, Some(_)) => return Err(refusal(name)),
        };
        Ok(Self { what, max })
    }

    /// What of its expression can not be right; it is evaluated all the same.
    pub fn doubts(&self) -> impl Iterator<Item = Doubt> {
        let compiled = match &self.what {
            What::Expression(compiled) => Some(compiled),
            _ => None,
        };
        compiled.into_iter().flat_map(|compiled| {
            compiled.doubts().iter().map(move |doubt| Doubt {
                words: of_cel(compiled.source(), &doubt.words),
                outcome: doubt.outcome,
            })
        })
    }

    /// Its value; `None`: there is none of this exchange.
    pub fn give<'s>(&'s self, seen: &Seen<'s>, time: &mut TimeText) -> Option<Given<'s>> {
        let exchange = seen.exchange;
        let text: Cow<'s, str> = match &self.what {
            What::Nothing => return None,
            What::Number(number) => return number(seen).map(Given::Number),
            What::Address(of, Shown::Port) => {
                return of(exchange).map(|address| Given::Number(u64::from(address.port())));
            }
            What::Address(of, Shown::Ip) => of(exchange)?.ip().to_string().into(),
            What::Address(of, Shown::Whole) => of(exchange)?.to_string().into(),
            What::Fixed(text) => text.as_str().into(),
            What::Start(format) => at(exchange.started_at, format.as_deref(), time)?,
            What::End(format) => at(exchange.started_at + seen.elapsed, format.as_deref(), time)?,
            What::Request(named) => named.of(|header| request(seen, header))?,
            What::RequestWithoutQuery(named) => {
                let value = named.of(|header| request(seen, header))?;
                match value.find('?') {
                    Some(end) => value.get(..end)?.to_owned().into(),
                    None => value,
                }
            }
            What::Response(named) => named.of(|header| response(seen, header))?,
            What::Text(text) => text(exchange)?,
            What::GrpcStatus => {
                let code = exchange.http.as_ref()?.grpc_status?;
                grpc_name(code).map_or_else(|| code.to_string().into(), Cow::Borrowed)
            }
            What::Expression(compiled) => compiled.text(seen)?.into(),
        };
        Some(Given::Text(match self.max {
            Some(max) => cut(text, max),
            None => text,
        }))
    }
}

fn of_cel(text: &str, why: &str) -> String {
    format!("`%CEL({text})%`: {why}")
}

/// At most so many bytes, whole characters.
fn cut(text: Cow<'_, str>, max: usize) -> Cow<'_, str> {
    let end = text.char_indices().map(|(at, c)| at + c.len_utf8());
    let end = end.take_while(|end| *end <= max).last().unwrap_or(0);
    match (end < text.len(), text) {
        (false, text) => text,
        (true, Cow::Borrowed(text)) => text.get(..end).unwrap_or_default().into(),
        (true, Cow::Owned(mut text)) => {
            text.truncate(end);
            text.into()
        }
    }
}

impl Named {
    fn of<'s>(&self, get: impl Fn(&Header) -> Option<Cow<'s, str>>) -> Option<Cow<'s, str>> {
        get(&self.0).or_else(|| self.1.as_ref().and_then(get))
    }
}

fn named(names: &str) -> Result<Named, String> {
    let (first, second) = match names.split_once('?') {
        Some((first, second)) => (first, Some(second)),
        None => (names, None),
    };
    let second = second.map(header).transpose()?;
    Ok(Named(header(first)?, second))
}

fn header(name: &str) -> Result<Header, String> {
    let lower = name.trim().to_ascii_lowercase();
    Ok(match lower.as_str() {
        ":method" => Header::Method,
        ":path" => Header::Path,
        ":authority" | "host" => Header::Authority,
        ":scheme" => Header::Scheme,
        ":status" => Header::Status,
        name => Header::Name(
            HeaderName::from_bytes(name.as_bytes())
                .map_err(|_| format!("`{name}` is no header"))?,
        ),
    })
}

/// What a client sent, and what was sent on for it under the names that Cairn sets.
fn request<'s>(seen: &Seen<'s>, header: &Header) -> Option<Cow<'s, str>> {
    let http: &'s HttpExchange = seen.exchange.http.as_ref()?;
    match header {
        Header::Method => method(http).map(Cow::Borrowed),
        Header::Path => some(&http.path),
        Header::Authority => some(&http.authority),
        Header::Scheme => Some("http".into()),
        Header::Status => None,
        Header::Name(name) => match name.as_str() {
            "user-agent" => lossy(http.user_agent.as_ref()?),
            "x-request-id" => lossy(http.request_id.as_ref()?),
            "x-forwarded-for" => lossy(http.forwarded_for.as_ref()?),
            _ => of_map(seen.headers.request, name),
        },
    }
}

fn response<'s>(seen: &Seen<'s>, header: &Header) -> Option<Cow<'s, str>> {
    let http = seen.exchange.http.as_ref()?;
    match header {
        Header::Status => Some(http.status?.as_u16().to_string().into()),
        Header::Name(name) if name.as_str() == "x-envoy-upstream-service-time" => {
            Some(http.upstream_service_time?.as_millis().to_string().into())
        }
        Header::Name(name) => of_map(seen.headers.response, name),
        _ => None,
    }
}

fn of_map<'s>(map: Option<&'s HeaderMap>, name: &HeaderName) -> Option<Cow<'s, str>> {
    lossy(map?.get(name)?)
}

fn lossy(value: &HeaderValue) -> Option<Cow<'_, str>> {
    Some(text::of_bytes(value.as_bytes()))
}

fn some(text: &str) -> Option<Cow<'_, str>> {
    (!text.is_empty()).then_some(Cow::Borrowed(text))
}

/// Operators with a text; names are Envoy's.
fn text_of(name: &str) -> Option<What> {
    Some(What::Text(match name {
        "PROTOCOL" => |e| e.http.as_ref().and_then(|h| some(h.protocol)),
        "RESPONSE_FLAGS" => |e| some(e.flags).or(Some("-".into())),
        "CONNECTION_TERMINATION_DETAILS" => |e| match e.http {
            None => some(&e.details),
            Some(_) => None,
        },
        "UPSTREAM_TRANSPORT_FAILURE_REASON" => |e| e.upstream_failure.as_deref().and_then(some),
        "UPSTREAM_CLUSTER" | "UPSTREAM_CLUSTER_RAW" => {
            |e| Some(upstream_cluster(e)?.to_string().into())
        }
        "REQUESTED_SERVER_NAME" => |e| e.server_name.as_deref().and_then(some),
        "ROUTE_NAME" => |e| Some(route_name(e)?.to_string().into()),
        "DOWNSTREAM_PEER_URI_SAN" => |e| some(e.origin.peer.identity.uri()),
        "DOWNSTREAM_TLS_VERSION" => |e| e.origin.pod.is_none().then_some("TLSv1.3".into()),
        "UPSTREAM_PEER_URI_SAN" => |e| {
            let workload = e.endpoint.as_ref()?.workload.as_ref()?;
            some(workload.identity.uri())
        },
        // Nothing of Cairn has these, and Istio's waypoint has none of them either.
        "VIRTUAL_CLUSTER_NAME" | "UPSTREAM_FILTER_CHAIN_NAME" => |_| None,
        _ => return None,
    }))
}

/// Operators with a number: statuses, bytes, milliseconds.
fn number_of(name: &str) -> Option<What> {
    Some(What::Number(match name {
        "RESPONSE_CODE" => |s| {
            let status = s.exchange.http.as_ref().and_then(|http| http.status);
            Some(status.map_or(0, |status| u64::from(status.as_u16())))
        },
        "BYTES_RECEIVED" => |s| Some(s.exchange.bytes_received),
        "BYTES_SENT" => |s| Some(s.exchange.bytes_sent),
        "DURATION" => |s| u64::try_from(s.elapsed.as_millis()).ok(),
        "UPSTREAM_REQUEST_ATTEMPT_COUNT" => |s| Some(u64::from(s.exchange.attempts)),
        "GRPC_STATUS_NUMBER" => |s| Some(u64::from(s.exchange.http.as_ref()?.grpc_status?)),
        "REQUEST_HEADERS_BYTES" => |s| Some(s.exchange.http.as_ref()?.request_header_bytes),
        "RESPONSE_HEADERS_BYTES" => |s| Some(s.exchange.http.as_ref()?.response_header_bytes),
        "UPSTREAM_SERVICE_TIME" => |s| {
            let time = s.exchange.http.as_ref()?.upstream_service_time?;
            u64::try_from(time.as_millis()).ok()
        },
        _ => return None,
    }))
}

fn address_of(name: &str) -> Option<What> {
    let (name, shown) = match name.strip_suffix("_WITHOUT_PORT") {
        Some(name) => (name.to_owned(), Shown::Ip),
        None => match name.strip_suffix("_PORT") {
            Some(name) => (format!("{name}_ADDRESS"), Shown::Port),
            None => (name.to_owned(), Shown::Whole),
        },
    };
    let of: fn(&Exchange) -> Option<SocketAddr> = match name.as_str() {
        "UPSTREAM_HOST" | "UPSTREAM_REMOTE_ADDRESS" => |e| e.endpoint.as_ref().map(|e| e.address),
        "UPSTREAM_LOCAL_ADDRESS" => |e| e.upstream_local,
        "DOWNSTREAM_LOCAL_ADDRESS" => |e| Some(e.origin.destination),
        "DOWNSTREAM_REMOTE_ADDRESS" | "DOWNSTREAM_DIRECT_REMOTE_ADDRESS" => {
            |e| Some(e.origin.peer.address)
        }
        _ => return None,
    };
    Some(What::Address(of, shown))
}

/// Why an operator can not be given.
fn refusal(name: &str) -> String {
    let why = match name {
        "TRAILER" => "trailers are not kept for the log",
        "DYNAMIC_METADATA"
        | "CLUSTER_METADATA"
        | "UPSTREAM_METADATA"
        | "FILTER_STATE"
        | "UPSTREAM_FILTER_STATE" => "there is no Envoy whose filters leave metadata",
        "REQ" | "RESP" | "REQ_WITHOUT_QUERY" | "ENVIRONMENT" | "CEL" => {
            return format!("`%{name}%` needs an argument: %{name}(...)%");
        }
        name if text_of(name).or_else(|| number_of(name)).is_some() => {
            return format!("`%{name}%` takes no argument");
        }
        _ => "Cairn does not know it",
    };
    format!("`%{name}%` can not be written: {why}")
}

/// Checks a format of times: that of strftime, with `%3f` and Envoy's `%E3S` for parts of a second.
fn time_format(written: Option<&str>) -> Result<Option<String>, String> {
    let Some(written) = written.filter(|format| !format.is_empty()) else {
        return Ok(None);
    };
    let mut format = written.replace("%E*S", "%S.%f");
    for digits in 1..=9 {
        format = format.replace(&format!("%E{digits}S"), &format!("%S.%{digits}f"));
    }
    match jiff::fmt::strtime::format(&format, Timestamp::UNIX_EPOCH) {
        Ok(_) => Ok(Some(format)),
        Err(error) => Err(format!("`{written}` is no format of times: {error}")),
    }
}

fn at(time: SystemTime, format: Option<&str>, text: &mut TimeText) -> Option<Cow<'static, str>> {
    let Some(format) = format else {
        return Some(text.text(time).to_owned().into());
    };
    let time = Timestamp::try_from(time).ok()?;
    Some(jiff::fmt::strtime::format(format, time).ok()?.into())
}

/// As gRPC names its codes, in Envoy's spelling.
fn grpc_name(code: u32) -> Option<&'static str> {
    const NAMES: [&str; 17] = [
        "OK",
        "Canceled",
        "Unknown",
        "InvalidArgument",
        "DeadlineExceeded",
        "NotFound",
        "AlreadyExists",
        "PermissionDenied",
        "ResourceExhausted",
        "FailedPrecondition",
        "Aborted",
        "OutOfRange",
        "Unimplemented",
        "Internal",
        "Unavailable",
        "DataLoss",
        "Unauthenticated",
    ];
    NAMES.get(usize::try_from(code).ok()?).copied()
}
