//! What the proxies are told to do is what the README says: Cairn's side is read back as Cairn
//! reads it, Envoy's side is held against the same mesh.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)] // what a test calls is a test

use std::borrow::Cow;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;

use cairn_benches::backend::Addresses;
use cairn_benches::proxy::mesh::Mesh;
use cairn_benches::proxy::{Launch, Listeners, cairn, envoy};
use cairn_config_schema::resolve::{Options, resolve};
use cairn_config_schema::snapshot::Snapshot;
use cairn_config_schema::store::{SourceFile, Store};

fn crowded_mesh() -> Mesh {
    let backend = Addresses {
        plain_http: "127.0.0.1:1001".parse().unwrap(),
        plain_grpc: "127.0.0.1:1002".parse().unwrap(),
        tunnel: "127.0.0.2:1003".parse().unwrap(),
    };
    Mesh::of_table(&backend, true).with_crowd(300, 10, 2)
}

fn launch(folder: &Path) -> Launch {
    Launch {
        variables: Vec::new(),
        program: "proxy".into(),
        workers: 1,
        cpus: None,
        access_log: false,
        identity_folder: folder.join("waypoint"),
        work_folder: folder.to_owned(),
        upstream_tunnel_port: 1003,
    }
}

fn listeners() -> Listeners {
    let address = "127.0.0.1:1".parse().unwrap();
    Listeners {
        tunnel: address,
        admin: address,
        ready: address,
        metrics: address,
    }
}

fn snapshot(folder: &Path) -> Snapshot {
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| SourceFile {
            path: path.to_string_lossy().into(),
            content: Ok(Cow::Owned(std::fs::read(path).unwrap())),
        })
        .collect();
    files.sort_by(|a, b| a.path.cmp(&b.path));
    let update = Store::default().update(&files);
    assert_eq!(update.diagnostics, [], "Cairn's YAML is not clean");
    resolve(&update.resources, &Options::default())
}

#[test]
fn cairn_serves_the_whole_mesh_and_finds_nothing_to_complain_of() {
    let folder = tempfile::tempdir().unwrap();
    let mesh = crowded_mesh();
    cairn::configure(&launch(folder.path()), &mesh, &listeners()).unwrap();
    let snapshot = snapshot(&folder.path().join(cairn::CONFIG_FOLDER));

    assert_eq!(snapshot.diagnostics, []);
    assert_eq!(snapshot.served().count(), mesh.services.len());
    for service in snapshot.served() {
        assert_eq!(service.policies.len(), 1, "{}", service.hostname);
    }
    let routes = |name: &str| {
        let service = snapshot.served().find(|s| &*s.key.name == name).unwrap();
        service.ports[0].routes.len()
    };
    assert_eq!((routes("plain"), routes("crowd-7")), (1, 2));
    // Only the tunnelled workloads are reached by HBONE.
    let hbone = |ip: [u8; 4]| snapshot.workloads[&IpAddr::V4(Ipv4Addr::from(ip))].hbone;
    assert!(!hbone([127, 0, 0, 1]) && hbone([127, 0, 0, 2]) && hbone([10, 137, 0, 7]));
}

#[test]
fn splitting_routes_over_files_changes_nothing() {
    let (one, many) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mesh = crowded_mesh();
    cairn::write(&mesh, one.path(), usize::MAX).unwrap();
    // As a reload starts: the one file is there first.
    cairn::write(&mesh, many.path(), usize::MAX).unwrap();
    cairn::write(&mesh, many.path(), 100).unwrap();
    assert!(many.path().join(cairn::routes_file(6)).exists());
    let (one, many) = (snapshot(one.path()), snapshot(many.path()));
    let json =
        |s: &Snapshot| serde_json::to_value(s.services.values().collect::<Vec<_>>()).unwrap();
    assert_eq!(json(&one), json(&many));
}

#[test]
fn envoy_has_a_chain_and_a_cluster_for_every_service_port() {
    let folder = tempfile::tempdir().unwrap();
    let mesh = crowded_mesh();
    envoy::configure(&launch(folder.path()), &mesh, &listeners()).unwrap();
    let text = std::fs::read(folder.path().join("envoy.json")).unwrap();
    let bootstrap: serde_json::Value = serde_json::from_slice(&text).unwrap();
    let resources = &bootstrap["static_resources"];

    let ports: usize = mesh.services.iter().map(|s| s.ports.len()).sum();
    let length = |value: &serde_json::Value| value.as_array().unwrap().len();
    assert_eq!(length(&resources["listeners"][1]["filter_chains"]), ports);
    // And two more: towards the dispatching listener, and the tunnels out.
    assert_eq!(length(&resources["clusters"]), ports + 2);
    let endpoints = &resources["clusters"][4]["load_assignment"]["endpoints"][0]["lb_endpoints"];
    assert_eq!(length(endpoints), 10);
}
