//! Where requests go: the endpoints of a service port, and the tunnels to them.

use std::net::{IpAddr, SocketAddr};

use serde_json::{Value, json};

use super::{TYPE, cluster_name, common_tls, socket_address};
use crate::proxy::Launch;
use crate::proxy::mesh::{Port, Service};

/// Tunnelled endpoints are addresses of the `connect_originate` listener; the real one is metadata.
pub(super) fn service(service: &Service, port: &Port) -> Value {
    let name = cluster_name(service, port);
    let endpoint = |ip: &IpAddr| {
        let address = SocketAddr::new(*ip, port.target);
        if !service.tunnelled {
            return json!({"endpoint": {"address": socket_address(&address)}});
        }
        json!({
            "endpoint": {"address": {"envoy_internal_address": {
                "server_listener_name": "connect_originate",
                "endpoint_id": address.to_string(),
            }}},
            "metadata": {"filter_metadata": {
                "envoy.filters.listener.original_dst": {"local": address.to_string()},
            }},
        })
    };
    let endpoints: Vec<Value> = service.endpoints.iter().map(endpoint).collect();
    let mut cluster = json!({
        "name": name,
        "type": "STATIC",
        "lb_policy": "LEAST_REQUEST",
        "connect_timeout": "10s",
        "circuit_breakers": unlimited(),
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [{"lb_endpoints": endpoints}],
        },
        "transport_socket": internal_upstream(&json!([
            {"name": "envoy.filters.listener.original_dst", "kind": {"host": {}}},
            {"name": "istio", "kind": {"cluster": {}}},
            {"name": "istio", "kind": {"host": {}}},
        ])),
    });
    if let (true, Some(fields)) = (port.grpc, cluster.as_object_mut()) {
        fields.insert(
            "typed_extension_protocol_options".to_owned(),
            http2_upstream(&json!({})),
        );
    }
    cluster
}

pub(super) fn main_internal() -> Value {
    json!({
        "name": "main_internal",
        "type": "STATIC",
        "circuit_breakers": unlimited(),
        "load_assignment": {"cluster_name": "main_internal", "endpoints": [{"lb_endpoints": [{
            "endpoint": {"address": {"envoy_internal_address": {
                "server_listener_name": "main_internal",
            }}},
        }]}]},
        "transport_socket": internal_upstream(&json!([])),
    })
}

pub(super) fn connect_originate(launch: &Launch) -> Value {
    json!({
        "name": "connect_originate",
        "type": "ORIGINAL_DST",
        "lb_policy": "CLUSTER_PROVIDED",
        "connect_timeout": "10s",
        "cleanup_interval": "60s",
        "circuit_breakers": unlimited(),
        "original_dst_lb_config": {"upstream_port_override": launch.upstream_tunnel_port},
        "typed_extension_protocol_options": http2_upstream(&json!({"allow_connect": true})),
        "transport_socket": {
            "name": "tls",
            "typed_config": {
                "@type": format!("{TYPE}.extensions.transport_sockets.tls.v3.UpstreamTlsContext"),
                "common_tls_context": common_tls(launch),
            },
        },
    })
}

fn internal_upstream(passthrough: &Value) -> Value {
    json!({
        "name": "internal_upstream",
        "typed_config": {
            "@type": format!("{TYPE}.extensions.transport_sockets.internal_upstream.v3.InternalUpstreamTransport"),
            "passthrough_metadata": passthrough,
            "transport_socket": {
                "name": "envoy.transport_sockets.raw_buffer",
                "typed_config": {
                    "@type": format!("{TYPE}.extensions.transport_sockets.raw_buffer.v3.RawBuffer"),
                },
            },
        },
    })
}

fn http2_upstream(options: &Value) -> Value {
    json!({"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
        "@type": format!("{TYPE}.extensions.upstreams.http.v3.HttpProtocolOptions"),
        "explicit_http_config": {"http2_protocol_options": options},
    }})
}

fn unlimited() -> Value {
    let most = u32::MAX;
    json!({"thresholds": [{
        "max_connections": most,
        "max_pending_requests": most,
        "max_requests": most,
        "max_retries": most,
        "track_remaining": true,
    }]})
}
