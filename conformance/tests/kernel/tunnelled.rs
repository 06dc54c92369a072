//! A steered connection whose endpoint is behind a tunnel: the waypoint opens the tunnel from the
//! node's network, and the destination sees the waypoint's identity and not the pod's.

use std::fs;

use cairn_conformance::envoy::DestinationTunnel;
use cairn_conformance::process::Process;

use crate::mesh::{DEADLINE, Mesh, curl, log_lines, until};

/// The endpoint of `open` as a pod that is in the mesh.
const IN_MESH: &str = "---
apiVersion: v1
kind: Pod
metadata:
  name: open-1
  namespace: shop
  annotations: {ambient.istio.io/redirection: enabled}
spec: {serviceAccountName: open, nodeName: node-2, containers: [{name: app}]}
status: {phase: Running, podIP: 10.97.0.3, podIPs: [{ip: 10.97.0.3}]}
";

/// A real destination tunnel in the hub, for the pod of `open`.
fn tunnel(mesh: &Mesh) -> Process {
    let identity = mesh.identities.folder_of("shop/open");
    let tunnel = DestinationTunnel {
        port: 15008,
        pods: vec![("10.97.0.3".parse().unwrap(), &identity)],
        streams_max: 200,
    };
    let folder = mesh.path("destination");
    fs::create_dir(&folder).unwrap();
    mesh.lab.hub().within(|| {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(tunnel.start("destination", &folder))
    })
}

/// specs/istio-waypoint.md 4: behind a waypoint the destination's peer is the waypoint.
#[test]
fn an_endpoint_in_the_mesh_is_reached_by_its_tunnel_under_the_waypoints_identity() {
    let Some(mesh) = Mesh::new() else { return };
    let destination = tunnel(&mesh);
    let plain = fs::read_to_string(mesh.path("mesh.yaml")).unwrap();
    mesh.configure(&format!("{plain}{IN_MESH}"));
    let agent = mesh.agent_in_hub(&[]);

    let (_, text) = curl(&mesh.client, &["http://10.96.0.12/items"]);
    assert!(
        text.contains("\"app\":\"open\"") && text.ends_with(" 200\n"),
        "{text} {}",
        agent.stderr()
    );
    until("the destination logs the stream", DEADLINE, || {
        destination.stdout().ends_with('\n')
    });
    let seen = destination.stdout();
    let peer = "spiffe://cluster.local/ns/shop/sa/waypoint 10.97.0.3:";
    assert!(
        seen.starts_with(peer) && seen.contains(" 10.97.0.3:8080"),
        "from the node, for the endpoint: {seen}"
    );
    // Whom the waypoint served is in its own log.
    let logged = || log_lines(&agent).pop();
    until("the request is logged", DEADLINE, || logged().is_some());
    assert_eq!(
        logged().unwrap()["source_principal"],
        "spiffe://cluster.local/ns/shop/sa/client"
    );

    // Without the tunnel nobody falls back to plain TCP, although the port is open.
    drop(destination);
    let (_, text) = curl(&mesh.client, &["http://10.96.0.12/items"]);
    assert!(text.ends_with(" 503\n"), "{text}");
}
