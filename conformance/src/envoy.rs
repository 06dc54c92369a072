//! Real Envoy as ztunnel's stand-in: a client tunnel (TCP in, CONNECT over mTLS out) and a
//! destination tunnel (CONNECT over mTLS in, TCP out). Only their configuration and their start.

mod check_gate;

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::client;
use crate::net::free_address;
use crate::process::Process;
use crate::workspace;

pub use check_gate::{CheckGate, ext_authz};

/// A listener of the client side: what an application dials, and what becomes of it.
#[derive(Clone, Debug)]
pub struct Entrance {
    /// Where the application connects.
    pub listen: SocketAddr,
    /// Authority of the CONNECT: virtual IP and service port.
    pub authority: String,
}

/// Client side for one identity.
#[derive(Debug)]
pub struct ClientTunnel<'a> {
    /// Folder with the client's certificate.
    pub identity: &'a Path,
    /// Source address of the tunnels: the client pod's.
    pub source: IpAddr,
    /// The waypoint.
    pub waypoint: SocketAddr,
    /// SPIFFE ID that the waypoint must prove.
    pub waypoint_id: String,
    /// Listeners.
    pub entrances: Vec<Entrance>,
}

impl ClientTunnel<'_> {
    /// Starts Envoy and waits until it listens.
    pub async fn start(&self, name: &str, folder: &Path) -> Process {
        let listeners = self.entrances.iter().map(entrance).collect();
        let clusters = vec![self.cluster()];
        start(name, self.source, listeners, clusters, folder).await
    }

    fn cluster(&self) -> Value {
        json!({
            "name": "waypoint",
            "type": "STATIC",
            "connect_timeout": "10s",
            "load_assignment": assignment("waypoint", self.waypoint),
            "upstream_bind_config": {
                "source_address": { "address": self.source.to_string(), "port_value": 0 },
            },
            "circuit_breakers": { "thresholds": [{
                "max_connections": 100_000, "max_pending_requests": 100_000, "max_requests": 100_000,
            }]},
            "typed_extension_protocol_options": {
                "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                    "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                    "explicit_http_config": { "http2_protocol_options": {
                        "connection_keepalive": { "interval": "10s", "timeout": "20s" },
                    }},
                },
            },
            "transport_socket": {
                "name": "envoy.transport_sockets.tls",
                "typed_config": {
                    "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
                    "common_tls_context": tls(self.identity, Some(&self.waypoint_id)),
                },
            },
        })
    }
}

fn entrance(entrance: &Entrance) -> Value {
    json!({
        "name": entrance.authority,
        "address": address(entrance.listen),
        "filter_chains": [{ "filters": [{
            "name": "envoy.filters.network.tcp_proxy",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
                "stat_prefix": "entrance",
                "cluster": "waypoint",
                "max_connect_attempts": 1,
                "tunneling_config": { "hostname": entrance.authority },
            },
        }]}],
    })
}

/// Destination side: one listener per pod, with the pod's identity, on the same port.
#[derive(Debug)]
pub struct DestinationTunnel<'a> {
    /// The HBONE port.
    pub port: u16,
    /// Address and identity folder of each pod.
    pub pods: Vec<(IpAddr, &'a Path)>,
    /// Concurrent streams it allows on a connection: ztunnel's limit is 200.
    pub streams_max: u32,
}

impl DestinationTunnel<'_> {
    /// Starts Envoy and waits until it listens.
    pub async fn start(&self, name: &str, folder: &Path) -> Process {
        let listeners = self.pods.iter().map(|(ip, identity)| {
            let listen = SocketAddr::new(*ip, self.port);
            let manager = connection_manager(self.streams_max, "original");
            mtls_listener(listen, identity, manager)
        });
        let ip = self.pods.first().expect("a pod").0;
        start(
            name,
            ip,
            listeners.collect(),
            vec![original_destination()],
            folder,
        )
        .await
    }
}

/// A listener that asks clients for certificates.
fn mtls_listener(listen: SocketAddr, identity: &Path, manager: Value) -> Value {
    json!({
        "name": listen.to_string(),
        "address": address(listen),
        "filter_chains": [{
            "transport_socket": {
                "name": "envoy.transport_sockets.tls",
                "typed_config": {
                    "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
                    "require_client_certificate": true,
                    "common_tls_context": tls(identity, None),
                },
            },
            "filters": [{
                "name": "envoy.filters.network.http_connection_manager",
                "typed_config": manager,
            }],
        }],
    })
}

/// Takes CONNECTs and leads all to a cluster; so many streams may be open on a connection.
fn connection_manager(streams_max: u32, cluster: &str) -> Value {
    json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "destination",
        "codec_type": "HTTP2",
        "stream_idle_timeout": "0s",
        "http2_protocol_options": {
            "allow_connect": true,
            "max_concurrent_streams": streams_max,
            "initial_stream_window_size": 4 * 1024 * 1024,
            "initial_connection_window_size": 16 * 1024 * 1024,
        },
        "upgrade_configs": [{ "upgrade_type": "CONNECT" }],
        // Who came and where to, as each stream begins.
        "access_log": [{
            "name": "envoy.access_loggers.stdout",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.access_loggers.stream.v3.StdoutAccessLog",
                "log_format": { "text_format_source": {
                    "inline_string": "%DOWNSTREAM_PEER_URI_SAN% %DOWNSTREAM_REMOTE_ADDRESS% %REQ(:AUTHORITY)%\n",
                }},
            },
        }],
        "access_log_options": { "flush_access_log_on_new_request": true },
        "http_filters": [router()],
        "route_config": { "virtual_hosts": [{
            "name": "all",
            "domains": ["*"],
            "routes": [{
                "match": { "connect_matcher": {} },
                "route": {
                    "cluster": cluster,
                    "timeout": "0s",
                    "upgrade_configs": [{ "upgrade_type": "CONNECT", "connect_config": {} }],
                },
            }],
        }]},
    })
}

/// A tunnel for one service, whose streams all lead to one address: the east-west gateway of a network, or what is behind
/// it (specs/istio-waypoint.md 2.6).
#[derive(Debug)]
pub struct ServiceTunnel<'a> {
    /// Folder with its certificate.
    pub identity: &'a Path,
    /// Where it takes tunnels.
    pub listen: SocketAddr,
    /// What alone is served: host and port.
    pub authority: &'a str,
    /// Where all of it goes.
    pub to: SocketAddr,
}

impl ServiceTunnel<'_> {
    /// Starts Envoy and waits until it listens. Its standard output has a line for each stream, as it begins: who came,
    /// for what, from what, and from which network.
    pub async fn start(&self, name: &str, folder: &Path) -> Process {
        let mut manager = connection_manager(200, "service");
        manager["route_config"]["virtual_hosts"][0]["domains"] = json!([self.authority]);
        manager["access_log"][0]["typed_config"]["log_format"]["text_format_source"]["inline_string"] = json!(
            "%DOWNSTREAM_PEER_URI_SAN% %REQ(:AUTHORITY)% %REQ(X-ISTIO-SOURCE)% %REQ(X-FORWARDED-NETWORK)%\n"
        );
        let listeners = vec![mtls_listener(self.listen, self.identity, manager)];
        let cluster = json!({
            "name": "service",
            "type": "STATIC",
            "connect_timeout": "5s",
            "load_assignment": assignment("service", self.to),
        });
        start(name, self.listen.ip(), listeners, vec![cluster], folder).await
    }
}

/// Envoy with its own check of tokens, as Istio configures it: what it answers is the yardstick.
#[derive(Debug)]
pub struct TokenGate<'a> {
    /// `iss`.
    pub issuer: &'a str,
    /// `aud`.
    pub audience: &'a str,
    /// JSON Web Key Set.
    pub jwks: &'a str,
}

impl TokenGate<'_> {
    /// Starts it; HTTP requests with a valid token, or with none, are answered 200.
    pub async fn start(&self, ip: IpAddr, folder: &Path) -> (Process, SocketAddr) {
        let listen = free_address(ip);
        let listener = json!({
            "name": "tokens",
            "address": address(listen),
            "filter_chains": [{ "filters": [{
                "name": "envoy.filters.network.http_connection_manager",
                "typed_config": self.connection_manager(),
            }]}],
        });
        let unused = vec![original_destination()];
        let envoy = start("token-gate", ip, vec![listener], unused, folder).await;
        (envoy, listen)
    }

    fn connection_manager(&self) -> Value {
        json!({
            "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
            "stat_prefix": "tokens",
            "http_filters": [
                {
                    "name": "envoy.filters.http.jwt_authn",
                    "typed_config": {
                        "@type": "type.googleapis.com/envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication",
                        "providers": { "issuer": {
                            "issuer": self.issuer,
                            "audiences": [self.audience],
                            "local_jwks": { "inline_string": self.jwks },
                        }},
                        "rules": [{
                            "match": { "prefix": "/" },
                            "requires": { "requires_any": { "requirements": [
                                { "provider_name": "issuer" },
                                { "allow_missing": {} },
                            ]}},
                        }],
                    },
                },
                router(),
            ],
            "route_config": { "virtual_hosts": [{
                "name": "all",
                "domains": ["*"],
                "routes": [{
                    "match": { "prefix": "/" },
                    "direct_response": { "status": 200 },
                }],
            }]},
        })
    }
}

/// Whatever `ip:port` the authority of the CONNECT says.
fn original_destination() -> Value {
    json!({
        "name": "original",
        "type": "ORIGINAL_DST",
        "lb_policy": "CLUSTER_PROVIDED",
        "connect_timeout": "5s",
        "circuit_breakers": { "thresholds": [{
            "max_connections": 100_000, "max_pending_requests": 100_000, "max_requests": 100_000,
        }]},
        "original_dst_lb_config": { "use_http_header": true, "http_header_name": ":authority" },
    })
}

/// TLS 1.3 and ALPN h2, with the peer's SPIFFE ID when one is demanded.
fn tls(identity: &Path, peer: Option<&str>) -> Value {
    let file = |name: &str| json!({ "filename": identity.join(name) });
    let names: Vec<Value> = peer
        .iter()
        .map(|id| json!({ "san_type": "URI", "matcher": { "exact": id } }))
        .collect();
    json!({
        "tls_params": {
            "tls_minimum_protocol_version": "TLSv1_3",
            "tls_maximum_protocol_version": "TLSv1_3",
        },
        "alpn_protocols": ["h2"],
        "tls_certificates": [{
            "certificate_chain": file("cert-chain.pem"),
            "private_key": file("key.pem"),
        }],
        "validation_context": {
            "trusted_ca": file("root-cert.pem"),
            "match_typed_subject_alt_names": names,
        },
    })
}

fn assignment(cluster: &str, endpoint: SocketAddr) -> Value {
    json!({
        "cluster_name": cluster,
        "endpoints": [{ "lb_endpoints": [{ "endpoint": { "address": address(endpoint) } }] }],
    })
}

/// The filter that every chain of HTTP filters ends with.
fn router() -> Value {
    json!({
        "name": "envoy.filters.http.router",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router",
        },
    })
}

fn address(address: SocketAddr) -> Value {
    json!({ "socket_address": {
        "address": address.ip().to_string(),
        "port_value": address.port(),
    }})
}

/// Starts Envoy, its admin on `ip`, and waits until it is live. Its listeners are not dialled to find
/// out, for that would open a stream to the waypoint.
async fn start(
    name: &str,
    ip: IpAddr,
    listeners: Vec<Value>,
    clusters: Vec<Value>,
    folder: &Path,
) -> Process {
    let admin = free_address(ip);
    let config = json!({
        "admin": { "address": address(admin) },
        "static_resources": { "listeners": listeners, "clusters": clusters },
    });
    let file = folder.join(format!("{name}.json"));
    std::fs::write(&file, config.to_string()).expect("a configuration file");
    let mut command = Command::new(workspace::envoy());
    command
        .arg("--config-path")
        .arg(&file)
        .args(["--concurrency", "1", "--disable-hot-restart"])
        .args(["--file-flush-interval-msec", "100"])
        .args(["--log-level", &log_level()]);
    let mut process = Process::start(name, command, folder);
    process
        .until(&format!("{name} is live"), async || {
            client::answers_200(&format!("http://{admin}/ready")).await
        })
        .await;
    process
}

/// `ENVOY_LOG_LEVEL=debug` for whoever has to look into a failed test.
fn log_level() -> String {
    std::env::var("ENVOY_LOG_LEVEL").unwrap_or_else(|_| "warning".into())
}
