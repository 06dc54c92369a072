//! The access log as entries of Envoy's Access Log Service: of requests or of TCP streams, with what Envoy says of them as
//! far as a waypoint knows it. How they are sent is said in `stream`.

pub mod messages;
mod stream;
pub(super) mod streams;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, UNIX_EPOCH};

use cairn_config_schema::snapshot::{EntryKind, EntryLog};
use http::{HeaderMap, HeaderValue, Method};
use prost::Message;

use self::messages::{
    AccessLogCommon, Address, CertificateProperties, ConnectionProperties, HttpAccessLogEntry,
    HttpRequestProperties, HttpResponseProperties, Identifier, Node, Number, ResponseFlags,
    Seconds, SocketAddress, SubjectAltName, TcpAccessLogEntry, TlsProperties, Unauthorized,
};
use super::pack::Pack;
use super::pairs::message;
use super::process::Process;
use crate::telemetry::access_log::{TimeText, method, route_name, upstream_cluster};
use crate::telemetry::exchange::{Exchange, HttpExchange, Seen};
use crate::telemetry::settings::{Entered, NamedHeader};
use crate::telemetry::text;

/// Fields of `StreamAccessLogsMessage`.
const IDENTIFIER: u32 = 1;
const HTTP_LOGS: u32 = 2;
const TCP_LOGS: u32 = 3;

/// Of `AccessLogType`.
const DOWNSTREAM_END: i32 = 6;
const TCP_CONNECTION_END: i32 = 3;

/// Of `TLSVersion`.
const TLS_1_3: i32 = 4;

/// Of `Unauthorized.Reason`.
const EXTERNAL_SERVICE: i32 = 1;

/// The field of a message that holds the entries of a log.
pub(super) fn field(log: &EntryLog) -> u32 {
    match log.kind {
        EntryKind::Http { .. } => HTTP_LOGS,
        EntryKind::Tcp => TCP_LOGS,
    }
}

/// What begins a stream: the first of its messages begins with it.
pub(super) fn identifier(log: &EntryLog, process: &Process) -> Vec<u8> {
    let node = &process.node;
    let identifier = Identifier {
        node: Some(Node {
            id: node.id.clone(),
            cluster: node.cluster.clone(),
            user_agent_name: "cairn".to_owned(),
            user_agent_version: env!("CARGO_PKG_VERSION").to_owned(),
        }),
        log_name: log.log_name.to_string(),
    };
    let mut begin = Vec::new();
    message(IDENTIFIER, &identifier, &mut begin);
    begin
}

/// The logs that are to have an entry of an exchange.
pub(super) fn entered<'s>(seen: &Seen<'s>) -> impl Iterator<Item = &'s Entered> {
    let settings = seen.exchange.settings.as_ref();
    let logs = settings.map(|settings| &*settings.entered);
    let seen = *seen;
    logs.unwrap_or_default().iter().filter(move |log| {
        let is_http = matches!(log.to.kind, EntryKind::Http { .. });
        let filter = log.filter.as_ref();
        is_http == seen.exchange.http.is_some() && filter.is_none_or(|filter| filter.is_true(&seen))
    })
}

/// Adds the entry of an exchange.
pub(super) fn add(seen: &Seen<'_>, log: &Entered, time: &mut TimeText, pack: &mut Pack) {
    let entry = match &seen.exchange.http {
        Some(http) => request(seen, http, log, time).encode_to_vec(),
        None => tcp(seen).encode_to_vec(),
    };
    pack.add(&entry);
}

fn tcp(seen: &Seen<'_>) -> TcpAccessLogEntry {
    let exchange = seen.exchange;
    TcpAccessLogEntry {
        common_properties: Some(AccessLogCommon {
            connection_termination_details: exchange.details.to_string(),
            access_log_type: TCP_CONNECTION_END,
            ..common(seen)
        }),
        connection_properties: Some(ConnectionProperties {
            received_bytes: exchange.bytes_received,
            sent_bytes: exchange.bytes_sent,
        }),
    }
}

fn request(
    seen: &Seen<'_>,
    http: &HttpExchange,
    log: &Entered,
    time: &mut TimeText,
) -> HttpAccessLogEntry {
    let exchange = seen.exchange;
    let of_request = |name| named(seen.headers.request, name);
    HttpAccessLogEntry {
        common_properties: Some(AccessLogCommon {
            stream_id: text_of(http.request_id.as_ref()),
            // Nothing was sent to a client that left before.
            time_to_last_downstream_tx_byte: http.status.map(|_| duration(seen.elapsed)),
            access_log_type: DOWNSTREAM_END,
            ..common(seen)
        }),
        protocol_version: match http.protocol {
            "HTTP/1.0" => 1,
            "HTTP/1.1" => 2,
            "HTTP/2" => 3,
            _ => 0,
        },
        request: Some(HttpRequestProperties {
            request_method: method(http).map_or(0, |_| number_of(&http.method)),
            scheme: "http".to_owned(),
            authority: http.authority.clone(),
            path: http.path.clone(),
            user_agent: text_of(http.user_agent.as_ref()),
            referer: of_request("referer"),
            forwarded_for: text_of(http.forwarded_for.as_ref()),
            request_id: text_of(http.request_id.as_ref()),
            original_path: of_request("x-envoy-original-path"),
            request_headers_bytes: http.request_header_bytes,
            request_body_bytes: exchange.bytes_received,
            request_headers: told(&log.request_headers, seen, time),
        }),
        response: Some(HttpResponseProperties {
            response_code: http.status.map(|status| Number {
                value: u32::from(status.as_u16()),
            }),
            response_headers_bytes: http.response_header_bytes,
            response_body_bytes: exchange.bytes_sent,
            response_headers: told(&log.response_headers, seen, time),
            response_code_details: exchange.details.to_string(),
        }),
    }
}

fn common(seen: &Seen<'_>) -> AccessLogCommon {
    let exchange = seen.exchange;
    let peer = &exchange.origin.peer;
    let since_1970 = exchange.started_at.duration_since(UNIX_EPOCH);
    AccessLogCommon {
        downstream_remote_address: address(peer.address),
        downstream_direct_remote_address: address(peer.address),
        downstream_local_address: address(exchange.origin.destination),
        tls_properties: tls(exchange),
        start_time: Some(duration(since_1970.unwrap_or_default())),
        duration: Some(duration(seen.elapsed)),
        upstream_remote_address: exchange.endpoint.as_ref().and_then(|e| address(e.address)),
        upstream_local_address: exchange.upstream_local.and_then(address),
        upstream_cluster: shown(upstream_cluster(exchange)),
        response_flags: flags(exchange.flags),
        upstream_transport_failure_reason: exchange
            .upstream_failure
            .as_deref()
            .unwrap_or_default()
            .to_owned(),
        route_name: shown(route_name(exchange)),
        upstream_request_attempt_count: exchange.attempts,
        ..AccessLogCommon::default()
    }
}

/// A steered connection is plain, as its pod made it.
fn tls(exchange: &Exchange) -> Option<TlsProperties> {
    let origin = &exchange.origin;
    origin.pod.is_none().then(|| TlsProperties {
        tls_version: TLS_1_3,
        tls_sni_hostname: exchange.server_name.as_deref().unwrap_or_default().into(),
        peer_certificate_properties: Some(CertificateProperties {
            subject_alt_name: vec![SubjectAltName {
                uri: origin.peer.identity.uri().to_owned(),
            }],
        }),
    })
}

fn address(of: SocketAddr) -> Option<Address> {
    Some(Address {
        socket_address: Some(SocketAddress {
            address: of.ip().to_string(),
            port_value: u32::from(of.port()),
        }),
    })
}

fn duration(time: Duration) -> Seconds {
    Seconds {
        seconds: i64::try_from(time.as_secs()).unwrap_or(i64::MAX),
        nanos: i32::try_from(time.subsec_nanos()).unwrap_or_default(),
    }
}

fn shown(value: Option<impl std::fmt::Display>) -> String {
    value.map(|value| value.to_string()).unwrap_or_default()
}

fn text_of(value: Option<&HeaderValue>) -> String {
    let value = value.map(|value| text::of_bytes(value.as_bytes()));
    value.unwrap_or_default().into_owned()
}

fn named(headers: Option<&HeaderMap>, name: &str) -> String {
    text_of(headers.and_then(|headers| headers.get(name)))
}

/// Headers that the log is to have, as far as they are there; the same that a format may name.
fn told(headers: &[NamedHeader], seen: &Seen<'_>, time: &mut TimeText) -> BTreeMap<String, String> {
    let told = headers.iter().filter_map(|header| {
        let value = header.value(seen, time)?;
        Some((header.name.to_string(), value))
    });
    told.collect()
}

/// Of `RequestMethod`; 0 for others.
fn number_of(method: &Method) -> i32 {
    match method.as_str() {
        "GET" => 1,
        "HEAD" => 2,
        "POST" => 3,
        "PUT" => 4,
        "DELETE" => 5,
        "CONNECT" => 6,
        "OPTIONS" => 7,
        "TRACE" => 8,
        "PATCH" => 9,
        _ => 0,
    }
}

/// By their short names, as Envoy has both (source/common/stream_info/utility.cc). `None`: nothing happened.
fn flags(short: &str) -> Option<ResponseFlags> {
    let mut all = ResponseFlags::default();
    for name in short.split(',') {
        let flag = match name {
            "LH" => &mut all.failed_local_healthcheck,
            "UH" => &mut all.no_healthy_upstream,
            "UT" => &mut all.upstream_request_timeout,
            "LR" => &mut all.local_reset,
            "UR" => &mut all.upstream_remote_reset,
            "UF" => &mut all.upstream_connection_failure,
            "UC" => &mut all.upstream_connection_termination,
            "UO" => &mut all.upstream_overflow,
            "NR" => &mut all.no_route_found,
            "DI" => &mut all.delay_injected,
            "FI" => &mut all.fault_injected,
            "RL" => &mut all.rate_limited,
            "UAEX" => {
                all.unauthorized_details = Some(Unauthorized {
                    reason: EXTERNAL_SERVICE,
                });
                continue;
            }
            "RLSE" => &mut all.rate_limit_service_error,
            "DC" => &mut all.downstream_connection_termination,
            "URX" => &mut all.upstream_retry_limit_exceeded,
            "SI" => &mut all.stream_idle_timeout,
            "IH" => &mut all.invalid_envoy_request_headers,
            "DPE" => &mut all.downstream_protocol_error,
            "UMSDR" => &mut all.upstream_max_stream_duration_reached,
            "RFCF" => &mut all.response_from_cache_filter,
            "NFCF" => &mut all.no_filter_config_found,
            "DT" => &mut all.duration_timeout,
            "UPE" => &mut all.upstream_protocol_error,
            "NC" => &mut all.no_cluster_found,
            "OM" => &mut all.overload_manager,
            "DF" => &mut all.dns_resolution_failure,
            "DR" => &mut all.downstream_remote_reset,
            _ => continue,
        };
        *flag = true;
    }
    (all != ResponseFlags::default()).then_some(all)
}

#[cfg(test)]
mod tests;
