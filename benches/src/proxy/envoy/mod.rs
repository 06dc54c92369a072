//! Envoy's bootstrap for a mesh, as istiod configures a waypoint: CONNECT termination, an internal
//! listener with a chain for each service port, CONNECT origination. All of it is static, there
//! is no xDS. Stock Envoy lacks Istio's own filters (stats, peer metadata), so its stock stats stay
//! on in their place; a real waypoint does more work for each request.

mod chain;
mod clusters;
mod listeners;

use std::net::SocketAddr;

use anyhow::Context;
use serde_json::{Value, json};

use super::mesh::{Mesh, Port, Service};
use super::{Launch, Listeners};
use crate::pki::TRUST_DOMAIN;

/// Where Envoy's own message types live.
const TYPE: &str = "type.googleapis.com/envoy";

/// Writes the bootstrap and returns the arguments to start with.
pub fn configure(
    launch: &Launch,
    mesh: &Mesh,
    listeners: &Listeners,
) -> anyhow::Result<Vec<String>> {
    let file = launch.work_folder.join("envoy.json");
    let text = serde_json::to_vec(&bootstrap(launch, mesh, listeners))?;
    std::fs::write(&file, text).context("can not write Envoy's configuration")?;
    Ok([
        "-c",
        &file.to_string_lossy(),
        "--concurrency",
        &launch.workers.to_string(),
        "--log-level",
        "warning",
        "--disable-hot-restart",
    ]
    .map(str::to_owned)
    .to_vec())
}

fn bootstrap(launch: &Launch, mesh: &Mesh, addresses: &Listeners) -> Value {
    let ports = || {
        mesh.services
            .iter()
            .flat_map(|s| s.ports.iter().map(move |p| (s, p)))
    };
    let mut clusters: Vec<Value> = ports().map(|(s, p)| clusters::service(s, p)).collect();
    clusters.push(clusters::main_internal());
    clusters.push(clusters::connect_originate(launch));
    json!({
        "node": {"id": "waypoint", "cluster": "waypoint"},
        "admin": {"address": socket_address(&addresses.admin)},
        "layered_runtime": {"layers": [{"name": "static", "static_layer": {
            "overload.global_downstream_max_connections": "2147483647",
        }}]},
        "bootstrap_extensions": [{
            "name": "envoy.bootstrap.internal_listener",
            "typed_config": {
                "@type": format!("{TYPE}.extensions.bootstrap.internal_listener.v3.InternalListener"),
                "buffer_size_kb": 64,
            },
        }],
        "static_resources": {
            "listeners": [
                listeners::connect_terminate(launch, addresses),
                listeners::main_internal(mesh, launch.access_log),
                listeners::connect_originate(),
            ],
            "clusters": clusters,
        },
    })
}

fn socket_address(address: &SocketAddr) -> Value {
    json!({"socket_address": {"address": address.ip().to_string(), "port_value": address.port()}})
}

fn common_tls(launch: &Launch) -> Value {
    let file = |name: &str| json!({"filename": launch.identity_folder.join(name)});
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
            "match_typed_subject_alt_names": [{
                "san_type": "URI",
                "matcher": {"prefix": format!("spiffe://{TRUST_DOMAIN}/")},
            }],
        },
    })
}

fn cluster_name(service: &Service, port: &Port) -> String {
    format!("inbound-vip|{}|http|{}", port.number, service.hostname())
}
