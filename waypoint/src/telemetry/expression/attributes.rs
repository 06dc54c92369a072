//! The attributes of an exchange by Envoy's names. An attribute that is not known of this exchange is
//! absent, so that `has()` can ask for it.

use std::collections::HashMap;

use cairn_config_schema::snapshot::Workload;
use cel::Value;
use http::HeaderMap;
use http::header::{HeaderName, REFERER, USER_AGENT};

use crate::telemetry::access_log::{route_name, upstream_cluster};
use crate::telemetry::exchange::{HttpExchange, Seen};
use crate::telemetry::labels::{cluster_of, source_workload, type_of};
use crate::telemetry::metrics;

/// An attribute; `None` if there is none of this exchange.
pub(super) fn attribute(seen: &Seen<'_>, root: &str, field: &str) -> Option<Value> {
    let exchange = seen.exchange;
    match root {
        "request" => request(seen, exchange.http.as_ref()?, field),
        "response" => response(seen, exchange.http.as_ref(), field),
        "source" => source(seen, field),
        "destination" => destination(seen, field),
        "connection" => match field {
            "mtls" => Some(Value::Bool(true)),
            "requested_server_name" => text(exchange.server_name.as_deref()),
            // Tunnels are never older (specs/istio-waypoint.md 2.1); a steered connection has no TLS.
            "tls_version" => text(exchange.origin.pod.is_none().then_some("TLSv1.3")),
            "uri_san_peer_certificate" => text(Some(exchange.origin.peer.identity.uri())),
            "termination_details" if exchange.http.is_none() => text(Some(&*exchange.details)),
            _ => None,
        },
        "upstream" => upstream(seen, field),
        "xds" => match field {
            "cluster_name" => Some(upstream_cluster(exchange)?.to_string().into()),
            "route_name" => Some(route_name(exchange)?.to_string().into()),
            _ => None,
        },
        "filter_state" => match field {
            "downstream_peer" => source_workload(exchange).map(|w| peer(w)),
            "upstream_peer" => exchange.endpoint.as_ref()?.workload.as_deref().map(peer),
            _ => None,
        },
        _ => None,
    }
}

fn request(seen: &Seen<'_>, http: &HttpExchange, field: &str) -> Option<Value> {
    let exchange = seen.exchange;
    let (path, query) = http.path.split_once('?').unwrap_or((&http.path, ""));
    let header = |name: HeaderName| {
        let value = seen.headers.request?.get(name)?;
        text(value.to_str().ok())
    };
    match field {
        "path" => text(Some(&http.path)),
        "url_path" => text(Some(path)),
        "query" => text(Some(query)),
        "host" => text(Some(&http.authority)),
        "scheme" => text(Some("http")),
        "method" => text(Some(http.method.as_str())),
        "protocol" => text(Some(http.protocol)),
        "headers" => seen.headers.request.map(headers),
        "referer" => header(REFERER),
        "useragent" => header(USER_AGENT),
        "id" => text(http.request_id.as_ref()?.to_str().ok()),
        // Without the crate's dates: milliseconds since 1970.
        "time" => {
            let since = exchange
                .started_at
                .duration_since(std::time::UNIX_EPOCH)
                .ok()?;
            Some(Value::Int(i64::try_from(since.as_millis()).ok()?))
        }
        "duration" => Some(Value::Int(i64::try_from(seen.elapsed.as_millis()).ok()?)),
        "size" => integer(exchange.bytes_received),
        "total_size" => integer(exchange.bytes_received + http.request_header_bytes),
        _ => None,
    }
}

fn response(seen: &Seen<'_>, http: Option<&HttpExchange>, field: &str) -> Option<Value> {
    let exchange = seen.exchange;
    match field {
        "flags" => return text(Some(exchange.flags).filter(|f| !f.is_empty()).or(Some("-"))),
        "size" => return integer(exchange.bytes_sent),
        _ => {}
    }
    let http = http?;
    match field {
        "code" => integer(http.status.map_or(0, |status| u64::from(status.as_u16()))),
        "code_details" => text(Some(&*exchange.details)),
        "grpc_status" => integer(u64::from(http.grpc_status?)),
        "headers" => seen.headers.response.map(headers),
        "total_size" => integer(exchange.bytes_sent + http.response_header_bytes),
        "backend_latency" => integer(u64::try_from(http.upstream_service_time?.as_millis()).ok()?),
        _ => None,
    }
}

fn source(seen: &Seen<'_>, field: &str) -> Option<Value> {
    let peer = &seen.exchange.origin.peer;
    match field {
        "address" => Some(peer.address.to_string().into()),
        "port" => integer(u64::from(peer.address.port())),
        "principal" => text(Some(peer.identity.uri())),
        "namespace" => text(peer.identity.namespace()),
        "workload" => text(source_workload(seen.exchange).map(|w| &*w.workload_name)),
        _ => None,
    }
}

fn destination(seen: &Seen<'_>, field: &str) -> Option<Value> {
    let exchange = seen.exchange;
    let workload = || exchange.endpoint.as_ref()?.workload.as_deref();
    match field {
        "address" => Some(exchange.origin.destination.to_string().into()),
        "port" => integer(u64::from(exchange.origin.destination.port())),
        "service" => text(exchange.service.as_ref().map(|s| &*s.hostname)),
        "namespace" => text(exchange.service.as_ref().map(|s| &*s.key.namespace)),
        "workload" => text(workload().map(|w| &*w.workload_name)),
        "principal" => text(workload().map(|w| w.identity.uri())),
        _ => None,
    }
}

fn upstream(seen: &Seen<'_>, field: &str) -> Option<Value> {
    let exchange = seen.exchange;
    let endpoint = exchange.endpoint.as_ref();
    match field {
        "address" => Some(endpoint?.address.to_string().into()),
        "port" => integer(u64::from(endpoint?.address.port())),
        "local_address" => Some(exchange.upstream_local?.to_string().into()),
        "transport_failure_reason" => text(exchange.upstream_failure.as_deref()),
        "request_attempt_count" => integer(u64::from(exchange.attempts)),
        _ => None,
    }
}

/// A workload as Istio's peer metadata has it.
fn peer(workload: &Workload) -> Value {
    let labels = workload.labels.iter().flat_map(|labels| labels.iter());
    let labels: HashMap<String, Value> = labels
        .map(|(key, value)| (key.to_string(), Value::from(&**value)))
        .collect();
    let (name, _) = workload.name_and_cluster();
    let cluster = cluster_of(workload, &metrics::registry().cluster);
    let fields: [(&str, &str); 9] = [
        ("name", name),
        ("namespace", &workload.key.namespace),
        ("workload", &workload.workload_name),
        ("service", &workload.canonical_name),
        ("revision", &workload.canonical_revision),
        ("app", &workload.app),
        ("version", &workload.version),
        ("cluster", cluster),
        ("type", type_of(workload)),
    ];
    let fields = fields.map(|(key, value)| (key.to_owned(), Value::from(value)));
    let mut all: HashMap<String, Value> = fields.into();
    all.insert("labels".to_owned(), labels.into());
    all.into()
}

fn headers(map: &HeaderMap) -> Value {
    let known = map.iter().filter_map(|(name, value)| {
        Some((name.as_str().to_owned(), Value::from(value.to_str().ok()?)))
    });
    known.collect::<HashMap<String, Value>>().into()
}

fn text(text: Option<&str>) -> Option<Value> {
    text.map(Value::from)
}

fn integer(n: u64) -> Option<Value> {
    i64::try_from(n).ok().map(Value::Int)
}
