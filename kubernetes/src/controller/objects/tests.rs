//! What is made for a Gateway, as YAML to be read (`golden/*.yaml`), and what changes it. After a wanted change:
//! `CAIRN_BLESS=1 cargo test -p cairn-kubernetes objects`.

use std::path::Path;

use cairn_config_schema::status::CONTROLLER;
use serde_json::Value;

use super::*;
use crate::controller::gateways::find;
use crate::controller::gateways::tests::{class, gateway, objects};

fn settings() -> PodSettings {
    PodSettings {
        image: "registry.example/cairn:0.1".to_owned(),
        ca_address: Some("istiod.istio-system.svc:15012".to_owned()),
        trust_domain: None,
        cluster_domain: "cluster.local".to_owned(),
        cluster_id: "Kubernetes".to_owned(),
        network: None,
        istio_namespace: None,
        discovery: None,
        xds_address: None,
        drain_s: 25,
    }
}

fn managed(more: Value) -> Managed {
    let mut gateway = gateway("waypoint", "cairn-waypoint", json!({}));
    merge(&mut gateway, more);
    let all = objects(&[class("cairn-waypoint", CONTROLLER), gateway]);
    find(&all, "default").managed.into_values().next().unwrap()
}

fn merge(into: &mut Value, more: Value) {
    match more {
        Value::Object(more) => {
            for (key, value) in more {
                merge(&mut into[key], value);
            }
        }
        value => *into = value,
    }
}

fn overlays(kind: MadeKind, yaml: &str) -> Vec<Overlays> {
    let data = json!({kind.overlay_key(): yaml});
    vec![Overlays::read("ConfigMap shop/o".to_owned(), data.as_object().unwrap()).unwrap()]
}

#[track_caller]
fn made(gateway: &Managed, overlays: &[Overlays]) -> BTreeMap<MadeKind, Value> {
    let all = make(gateway, &settings(), overlays).unwrap();
    all.into_iter()
        .map(|made| (made.kind, made.object))
        .collect()
}

#[track_caller]
fn compare(name: &str, all: &BTreeMap<MadeKind, Value>) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join(format!("src/controller/objects/golden/{name}.yaml"));
    let texts = all
        .values()
        .map(|object| serde_saphyr::to_string(object).unwrap());
    let text = texts.collect::<Vec<_>>().join("---\n");
    if std::env::var_os("CAIRN_BLESS").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, &text).unwrap();
    }
    let kept = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(kept, text, "{}", path.display());
}

#[test]
fn a_plain_gateway() {
    compare("plain", &made(&managed(json!({})), &[]));
}

/// Names, labels, annotations and a second listener by the Gateway; the rest by overlays
/// (specs/istio-waypoint.md 1.7).
#[test]
fn a_customised_gateway() {
    let gateway = managed(json!({
        "metadata": {"annotations": {"gateway.istio.io/name-override": "edge", "gateway.istio.io/service-account": "edge-sa"}},
        "spec": {"infrastructure": {
            "labels": {"team": "shop", "gateway.networking.k8s.io/not": "copied"},
            "annotations": {"note": "a"},
        }},
    }));
    let overlay = "
spec:
  replicas: 3
  template:
    spec:
      nodeSelector: {disk: fast}
      containers:
      - name: waypoint
        image: registry.example/other:1
        env: [{name: RUST_LOG, value: debug}]
        resources: {limits: {memory: 2Gi}}
";
    let mut all = overlays(MadeKind::Deployment, overlay);
    all.extend(overlays(
        MadeKind::HorizontalPodAutoscaler,
        "$patch: delete",
    ));
    all.extend(overlays(MadeKind::Service, "{spec: {type: LoadBalancer}}"));
    compare("customised", &made(&gateway, &all));
}

/// specs/istio-waypoint.md 1.9, self-capture: neither the Service nor the pods may be bound to a waypoint.
#[test]
fn nothing_that_is_made_uses_a_waypoint() {
    let gateway = managed(json!({"metadata": {"labels": {"istio.io/use-waypoint": "waypoint"}}}));
    let all = made(&gateway, &[]);
    for object in all.values() {
        assert_eq!(
            object["metadata"]["labels"]["istio.io/use-waypoint"],
            "none"
        );
    }
    let pod = &all[&MadeKind::Deployment]["spec"]["template"]["metadata"]["labels"];
    assert_eq!(pod["istio.io/use-waypoint"], "none");
}

/// specs/istio-waypoint.md 1.9: ztunnels look for 15008 in the Service, whatever the listener says.
#[test]
fn the_service_always_has_the_tunnel_port() {
    for port in [15008, 15443] {
        let listener = json!({"name": "mesh", "port": port, "protocol": "HBONE"});
        let gateway = managed(json!({"spec": {"listeners": [listener]}}));
        let all = made(&gateway, &[]);
        let ports = all[&MadeKind::Service]["spec"]["ports"].as_array().unwrap();
        assert!(
            ports
                .iter()
                .any(|p| p["port"] == 15008 && p["targetPort"] == 15008),
            "{ports:?}"
        );
        assert!(ports.iter().any(|p| p["port"] == port));
    }
}

#[test]
fn replicas_are_said_only_where_no_autoscaler_says_them() {
    let gateway = managed(json!({}));
    assert!(
        made(&gateway, &[])[&MadeKind::Deployment]["spec"]
            .get("replicas")
            .is_none()
    );
    let without = overlays(MadeKind::HorizontalPodAutoscaler, "{$patch: delete}");
    let all = made(&gateway, &without);
    assert_eq!(all[&MadeKind::Deployment]["spec"]["replicas"], 1);
    assert!(!all.contains_key(&MadeKind::HorizontalPodAutoscaler));
}

/// A pod is given the time to drain, and some more to end.
#[test]
fn the_grace_period_covers_the_drain() {
    let all = made(&managed(json!({})), &[]);
    let pod = &all[&MadeKind::Deployment]["spec"]["template"]["spec"];
    assert_eq!(pod["terminationGracePeriodSeconds"], 30);
    assert!(
        pod["containers"][0]["args"]
            .as_array()
            .unwrap()
            .contains(&json!("--drain-seconds=25"))
    );
}

/// Each row: an overlay, and what is said of it; nothing is made then.
#[test]
fn a_broken_overlay_makes_nothing() {
    let rows = [
        (
            MadeKind::Deployment,
            "{spec: {replicas: many}}",
            "is no Deployment",
        ),
        (
            MadeKind::Deployment,
            "{metadata: {name: other}}",
            "metadata.name can not be overlaid",
        ),
        (
            MadeKind::Service,
            "{spec: {selector: {a: b}}}",
            "spec.selector can not be overlaid",
        ),
        (
            MadeKind::Service,
            "{spec: {ports: [{name: x}]}}",
            "has no `port`",
        ),
    ];
    for (kind, yaml, said) in rows {
        let why = make(&managed(json!({})), &settings(), &overlays(kind, yaml)).unwrap_err();
        assert!(why.contains(said), "{yaml}: {why}");
    }
}

/// The flags of `cairn run` for which Istio's pods have no variable.
#[test]
fn what_is_said_of_istio_the_waypoints_are_told() {
    let settings = PodSettings {
        istio_namespace: Some("mesh".to_owned()),
        discovery: Some("istiod".to_owned()),
        xds_address: Some("pilot.mesh.svc:15012".to_owned()),
        ..settings()
    };
    let all = make(&managed(json!({})), &settings, &[]).unwrap();
    let deployment = all.iter().find(|made| made.kind == MadeKind::Deployment);
    let env = deployment
        .unwrap()
        .object
        .pointer("/spec/template/spec/containers/0/env");
    let env = env.and_then(Value::as_array).unwrap();
    let told = |name: &str| {
        let variable = env.iter().find(|variable| variable["name"] == name);
        variable.and_then(|variable| variable["value"].as_str())
    };
    assert_eq!(told("CAIRN_ISTIO_NAMESPACE"), Some("mesh"));
    assert_eq!(told("CAIRN_DISCOVERY"), Some("istiod"));
    assert_eq!(told("CAIRN_XDS_ADDRESS"), Some("pilot.mesh.svc:15012"));
}
