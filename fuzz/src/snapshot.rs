//! YAML to snapshot to verdict: whatever is written, something comes out, the same each time, and what
//! can not be read lets nobody in whom the configuration before did not.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use cairn_authz::Attestation;
use cairn_authz::jwt::{KeySets, Memory, Request};
use cairn_config_schema::identity::Identity;
use cairn_config_schema::resolve::{Options, resolve};
use cairn_config_schema::snapshot::{Binding, Snapshot};
use cairn_config_schema::store::{SourceFile, Store};
use cairn_filters::chain::{External, StreamView};
use cairn_filters::{Answer, PortChain, RequestView};
use http::{HeaderMap, Method};

/// A namespace with a waypoint and services: what the bytes can be about.
const MESH: &str = include_str!("../../conformance/golden/mesh/shop.yaml");

/// The bytes as a file beside the mesh: at once, and as a change of it.
pub fn snapshot(data: &[u8]) {
    let fresh = resolved(&mut Store::default(), data);
    let mut store = Store::default();
    resolved(&mut store, b"");
    let changed = resolved(&mut store, data);
    let verdicts = verdicts(&fresh);
    let again = self::verdicts(&resolved(&mut Store::default(), data));
    assert_eq!(verdicts, again, "the same text twice");
    // The order of reading must not matter, but for objects that are broken from the start.
    if fresh.diagnostics.is_empty() && changed.diagnostics.is_empty() {
        assert_eq!(verdicts, self::verdicts(&changed), "as a change");
    }
}

fn resolved(store: &mut Store, data: &[u8]) -> Snapshot {
    let file = |path: &str, content: &[u8]| SourceFile {
        path: path.into(),
        content: Ok(content.to_vec().into()),
    };
    let update = store.update(&[file("mesh.yaml", MESH.as_bytes()), file("f.yaml", data)]);
    let mut snapshot = resolve(&update.resources, &Options::default());
    snapshot.diagnostics.extend(update.diagnostics);
    snapshot
}

/// What every port of every service says to a few requests.
fn verdicts(snapshot: &Snapshot) -> Vec<String> {
    let mut said = Vec::new();
    let mut services: Vec<_> = snapshot.services.values().collect();
    services.sort_by_key(|service| service.key.clone());
    for service in services {
        if service.binding != Binding::Served {
            continue;
        }
        for port in &service.ports {
            let chain = PortChain::compile(snapshot, service, port);
            for path in ["/", "/admin/x?y=z"] {
                said.push(format!(
                    "{} {} {path} {}",
                    service.key,
                    port.number,
                    ask(&chain, path)
                ));
            }
        }
    }
    said
}

fn ask(chain: &PortChain, target: &str) -> String {
    let peer = Identity::of_workload("cluster.local", "shop", "viewer").ok();
    let headers = HeaderMap::new();
    let request = Request {
        method: &Method::GET,
        headers: &headers,
        query: None,
    };
    let keys = KeySets::default();
    let login = chain.authenticate(&request, &keys, &mut Memory::new(), 1_800_000_000);
    let destination = SocketAddr::from((Ipv4Addr::new(10, 96, 1, 1), 80));
    let source_ip = IpAddr::from([10, 0, 0, 9]);
    let view = RequestView {
        peer: peer.as_ref(),
        attested_by: Attestation::Certificate,
        source_ip,
        destination,
        method: &Method::GET,
        target,
        authority: "web.shop",
        headers: &headers,
        login: Some(&login),
        external: External::Unasked,
        trial: None,
    };
    let decision = chain.decide(&view);
    let tcp = chain.decide_tcp(&StreamView {
        peer: peer.as_ref(),
        attested_by: Attestation::Certificate,
        source_ip,
        destination,
        found: None,
    });
    if let Some(verdict) = &decision.verdict {
        let forwards = matches!(decision.answer, Answer::Forward | Answer::Redirect { .. });
        assert!(verdict.allowed || !forwards, "denied, and forwarded");
    }
    format!("{:?} {}", decision.answer, tcp.allowed)
}
