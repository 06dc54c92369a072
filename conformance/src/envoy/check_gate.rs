//! Envoy that asks an authorization or rate limit service by itself, the former configured as Istio
//! configures it for a provider of the mesh (specs/istio-waypoint.md 4.8): what it asks and answers is the
//! yardstick.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use serde_json::{Value, json};

use super::{assignment, mtls_listener, router, start};
use crate::net::free_address;
use crate::process::Process;

const HTTP_OPTIONS: &str = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";

/// What stands in front of an application.
#[derive(Debug)]
pub struct CheckGate<'a> {
    /// Folder with the certificate of the service's pods, which clients see.
    pub identity: &'a Path,
    /// The service that is asked, both protocols on one port.
    pub gate: SocketAddr,
    /// The application.
    pub app: SocketAddr,
    /// The filter that asks it.
    pub filter: Value,
    /// What a rate limit service is told: `rate_limits` of the route.
    pub rate_limits: Value,
}

/// The filter `ext_authz`, with the fields that are not the same for all: the service and what is sent
/// to it.
pub fn ext_authz(own: &Value) -> Value {
    let mut filter = json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthz",
        "transport_api_version": "V3",
    });
    if let (Some(all), Some(own)) = (filter.as_object_mut(), own.as_object()) {
        all.extend(own.clone());
    }
    json!({ "name": "envoy.filters.http.ext_authz", "typed_config": filter })
}

impl CheckGate<'_> {
    /// Starts it; it takes HTTP/2 over mTLS.
    pub async fn start(&self, ip: IpAddr, folder: &Path) -> (Process, SocketAddr) {
        let listen = free_address(ip);
        let listener = mtls_listener(listen, self.identity, self.connection_manager());
        let clusters = vec![
            cluster("gate-http", self.gate, "http_protocol_options"),
            cluster("gate-grpc", self.gate, "http2_protocol_options"),
            cluster("app", self.app, "http_protocol_options"),
        ];
        let envoy = start("check-gate", ip, vec![listener], clusters, folder).await;
        (envoy, listen)
    }

    fn connection_manager(&self) -> Value {
        json!({
            "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
            "stat_prefix": "checks",
            "normalize_path": true,
            "merge_slashes": true,
            "http_filters": [
                self.filter,
                router(),
            ],
            "route_config": { "virtual_hosts": [{
                "name": "all",
                "domains": ["*"],
                "routes": [{
                    "match": { "prefix": "/" },
                    "route": { "cluster": "app", "rate_limits": self.rate_limits },
                }],
            }]},
        })
    }
}

fn cluster(name: &str, endpoint: SocketAddr, protocol: &str) -> Value {
    json!({
        "name": name,
        "type": "STATIC",
        "connect_timeout": "5s",
        "load_assignment": assignment(name, endpoint),
        "typed_extension_protocol_options": { HTTP_OPTIONS: {
            "@type": format!("type.googleapis.com/{HTTP_OPTIONS}"),
            "explicit_http_config": { protocol: {} },
        }},
    })
}
