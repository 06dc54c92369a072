//! The three listeners of a waypoint: tunnels in, dispatch by address, tunnels out.

use serde_json::{Value, json};

use super::chain::{HTTP_CONNECTION_MANAGER, router, service_chain};
use super::{TYPE, cluster_name, common_tls, socket_address};
use crate::proxy::mesh::Mesh;
use crate::proxy::{Launch, Listeners};

/// Ends the tunnels and hands each stream to the internal listener, address and identity along.
pub(super) fn connect_terminate(launch: &Launch, listeners: &Listeners) -> Value {
    json!({
        "name": "connect_terminate",
        "address": socket_address(&listeners.tunnel),
        "connection_balance_config": {"exact_balance": {}},
        "filter_chains": [{
            "transport_socket": {
                "name": "tls",
                "typed_config": {
                    "@type": format!("{TYPE}.extensions.transport_sockets.tls.v3.DownstreamTlsContext"),
                    "common_tls_context": common_tls(launch),
                    "require_client_certificate": true,
                },
            },
            "filters": [{
                "name": "envoy.filters.network.http_connection_manager",
                "typed_config": {
                    "@type": HTTP_CONNECTION_MANAGER,
                    "stat_prefix": "connect_terminate",
                    "server_name": "istio-envoy",
                    "use_remote_address": false,
                    "stream_idle_timeout": "0s",
                    "upgrade_configs": [{"upgrade_type": "CONNECT"}],
                    "http2_protocol_options": {
                        "allow_connect": true,
                        "max_concurrent_streams": 100,
                        "connection_keepalive": {"interval": "10s", "timeout": "20s"},
                    },
                    "route_config": {"name": "default", "virtual_hosts": [{
                        "name": "default",
                        "domains": ["*"],
                        "routes": [{
                            "match": {"connect_matcher": {}},
                            "route": {
                                "cluster": "main_internal",
                                "upgrade_configs": [{
                                    "upgrade_type": "CONNECT",
                                    "connect_config": {},
                                }],
                            },
                        }],
                    }]},
                    "http_filters": [connect_authority(), router()],
                },
            }],
        }],
    })
}

fn connect_authority() -> Value {
    let state = |key: &str, factory: Option<&str>, format: &str| {
        let mut value = json!({
            "object_key": key,
            "format_string": {"text_format_source": {"inline_string": format}},
            "shared_with_upstream": "ONCE",
        });
        if let (Some(factory), Some(fields)) = (factory, value.as_object_mut()) {
            fields.insert("factory_key".to_owned(), json!(factory));
        }
        value
    };
    json!({
        "name": "connect_authority",
        "typed_config": {
            "@type": format!("{TYPE}.extensions.filters.http.set_filter_state.v3.Config"),
            "on_request_headers": [
                state("envoy.filters.listener.original_dst.local_ip", None, "%REQ(:AUTHORITY)%"),
                state("envoy.filters.listener.original_dst.remote_ip", None, "%DOWNSTREAM_REMOTE_ADDRESS%"),
                state("io.istio.peer_principal", Some("envoy.string"), "%DOWNSTREAM_PEER_URI_SAN%"),
                state("io.istio.local_principal", Some("envoy.string"), "%DOWNSTREAM_LOCAL_URI_SAN%"),
            ],
        },
    })
}

/// Finds the chain by the address and port that CONNECT asked for.
pub(super) fn main_internal(mesh: &Mesh, access_log: bool) -> Value {
    let mut ranges = Vec::new();
    let mut chains = Vec::new();
    for service in &mesh.services {
        let mut by_port = serde_json::Map::new();
        for port in &service.ports {
            let name = cluster_name(service, port);
            by_port.insert(
                port.number.to_string(),
                json!({"action": {"name": &name, "typed_config": {
                    "@type": "type.googleapis.com/google.protobuf.StringValue",
                    "value": &name,
                }}}),
            );
            chains.push(json!({
                "name": name,
                "filters": [service_chain(service, port, access_log)],
            }));
        }
        ranges.push(json!({
            "ranges": [{"address_prefix": service.vip.to_string(), "prefix_len": 32}],
            "on_match": {"matcher": {"matcher_tree": {
                "input": matching_input("port", "DestinationPortInput"),
                "exact_match_map": {"map": by_port},
            }}},
        }));
    }
    json!({
        "name": "main_internal",
        "internal_listener": {},
        "traffic_direction": "INBOUND",
        // Every port here is declared HTTP, so istiod leaves the protocol inspector out.
        "listener_filters": [original_dst_filter()],
        "filter_chains": chains,
        "filter_chain_matcher": {"matcher_tree": {
            "input": matching_input("ip", "DestinationIPInput"),
            "custom_match": {"name": "ip", "typed_config": {
                "@type": "type.googleapis.com/xds.type.matcher.v3.IPMatcher",
                "range_matchers": ranges,
            }},
        }},
    })
}

fn matching_input(name: &str, kind: &str) -> Value {
    json!({"name": name, "typed_config": {
        "@type": format!("{TYPE}.extensions.matching.common_inputs.network.v3.{kind}"),
    }})
}

fn original_dst_filter() -> Value {
    json!({
        "name": "envoy.filters.listener.original_dst",
        "typed_config": {
            "@type": format!("{TYPE}.extensions.filters.listener.original_dst.v3.OriginalDst"),
        },
    })
}

/// Puts each upstream connection into a CONNECT stream of a pooled tunnel.
pub(super) fn connect_originate() -> Value {
    json!({
        "name": "connect_originate",
        "internal_listener": {},
        "use_original_dst": false,
        "listener_filters": [original_dst_filter()],
        "filter_chains": [{"filters": [{
            "name": "envoy.filters.network.tcp_proxy",
            "typed_config": {
                "@type": format!("{TYPE}.extensions.filters.network.tcp_proxy.v3.TcpProxy"),
                "stat_prefix": "connect_originate",
                "cluster": "connect_originate",
                "tunneling_config": {"hostname": "%DOWNSTREAM_LOCAL_ADDRESS%"},
            },
        }]}],
    })
}
