//! The ConfigMap `istio` and the flags that override it (specs/istio-waypoint.md 3, 4.8).

use cairn_config_schema::diagnostics::Code;
use cairn_config_schema::origin::Kind;
use cairn_config_schema::resolve::{Options, resolve};
use cairn_config_schema::snapshot::{Mesh, PathNormalization, RetryPolicy};

use super::support::{Ask, GATEWAY, break_object, documents, load, resolved};

pub fn mesh_config(namespace: &str, lines: &str) -> String {
    let indented = lines.replace('\n', "\n    ");
    format!(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: istio, namespace: {namespace}}}\ndata:\n  mesh: |-\n    {indented}"
    )
}

fn mesh(lines: &str) -> Mesh {
    let config = mesh_config("istio-system", lines);
    resolved(&documents(&[GATEWAY, &config])).mesh
}

#[test]
fn without_a_config_map_the_defaults_of_istio_hold_but_paths_are_strict() {
    let mesh = resolved(GATEWAY).mesh;
    assert_eq!(&*mesh.trust_domain, "cluster.local");
    assert_eq!(&*mesh.root_namespace, "istio-system");
    assert_eq!(mesh.path_normalization, PathNormalization::Strict);
    assert_eq!(mesh.connect_timeout_ms, 10_000);
}

#[test]
fn the_config_map_sets_trust_domain_aliases_and_timeout() {
    let mesh = mesh("trustDomain: prod\ntrustDomainAliases: [old, older]\nconnectTimeout: 3s");
    assert_eq!(&*mesh.trust_domain, "prod");
    assert!(mesh.accepts_trust_domain("older"));
    assert!(!mesh.accepts_trust_domain("cluster.local"));
    assert_eq!(mesh.connect_timeout_ms, 3_000);
}

#[test]
fn the_root_namespace_is_where_the_config_map_lives_unless_it_says_otherwise() {
    let elsewhere = mesh_config("mesh", "trustDomain: td");
    let snapshot = resolved(&documents(&[GATEWAY, &elsewhere]));
    assert_eq!(&*snapshot.mesh.root_namespace, "mesh");
    assert_eq!(&*mesh("rootNamespace: roots").root_namespace, "roots");
}

#[test]
fn path_normalization_has_istios_names() {
    for (written, expected) in [
        ("NONE", PathNormalization::None),
        ("BASE", PathNormalization::Base),
        ("DEFAULT", PathNormalization::Base),
        ("MERGE_SLASHES", PathNormalization::MergeSlashes),
        (
            "DECODE_AND_MERGE_SLASHES",
            PathNormalization::DecodeAndMergeSlashes,
        ),
    ] {
        let mesh = mesh(&format!("pathNormalization: {{normalization: {written}}}"));
        assert_eq!(mesh.path_normalization, expected);
    }
}

/// specs/istio-waypoint.md 4.6: what holds for a rule that says nothing of retries.
#[test]
fn the_mesh_says_when_requests_are_retried_whose_rule_does_not() {
    assert_eq!(mesh("trustDomain: lab").retry, RetryPolicy::DEFAULT);
    let written =
        "defaultHttpRetryPolicy: {attempts: 4, retryOn: \"5xx,unavailable\", backoff: 50ms}";
    let config = mesh_config("istio-system", written);
    let snapshot = resolved(&documents(&[GATEWAY, &config]));
    let retry = &snapshot.mesh.retry;
    assert_eq!((retry.retries_max, retry.back_off.spread_ms), (4, 50));
    assert!(retry.on.status(503) && retry.on.reset && !retry.on.any_method);
    assert_eq!(
        snapshot.said(),
        [
            "warning unsupported ConfigMap/istio-system/istio data.mesh.defaultHttpRetryPolicy.retryOn"
        ]
    );
    let off = mesh("defaultHttpRetryPolicy: {attempts: 0}");
    assert_eq!(off.retry.retries_max, 0);
}

#[test]
fn the_flag_beats_the_config_map_and_says_so() {
    let config = mesh_config("istio-system", "trustDomain: prod");
    let options = Options {
        trust_domain: Some("lab".into()),
        ..Options::default()
    };
    let snapshot = resolve(&load(&documents(&[GATEWAY, &config])), &options);
    assert_eq!(&*snapshot.mesh.trust_domain, "lab");
    assert_eq!(
        snapshot.said(),
        ["warning conflict ConfigMap/istio-system/istio data.mesh.trustDomain"]
    );
}

#[test]
fn an_impossible_trust_domain_refuses_everything() {
    let config = mesh_config("istio-system", "trustDomain: \"not a domain\"");
    let snapshot = resolved(&documents(&[GATEWAY, &config]));
    assert!(snapshot.way().blocked.is_some());
    assert_eq!(
        snapshot.finding(Code::BadValue).path,
        "data.mesh.trustDomain"
    );
}

#[test]
fn an_impossible_trust_domain_does_no_harm_when_the_flag_names_another() {
    let config = mesh_config("istio-system", "trustDomain: \"not a domain\"");
    let options = Options {
        trust_domain: Some("lab".into()),
        ..Options::default()
    };
    let snapshot = resolve(&load(&documents(&[GATEWAY, &config])), &options);
    assert!(snapshot.way().blocked.is_none());
    assert_eq!(&*snapshot.mesh.trust_domain, "lab");

    let options = Options {
        trust_domain: Some("not a domain".into()),
        ..Options::default()
    };
    let snapshot = resolve(&load(GATEWAY), &options);
    assert!(snapshot.way().blocked.is_some());
}

#[test]
fn an_unreadable_config_map_refuses_everything() {
    let mut resources = load(GATEWAY);
    break_object(
        &mut resources.mesh_config,
        Kind::ConfigMap,
        "istio-system/istio",
    );
    let snapshot = resolve(&resources, &Options::default());
    let blocked = snapshot.way().blocked.as_deref().unwrap();
    assert!(blocked.contains("line 3 is nonsense"), "{blocked}");
    let effect = snapshot.finding(Code::Unreadable).effect.as_deref();
    assert!(effect.unwrap().contains("every tunnel is refused"));
}

#[test]
fn of_several_config_maps_that_of_istio_system_counts() {
    let both = [
        mesh_config("istio-system", "trustDomain: prod"),
        mesh_config("other", "trustDomain: lab"),
    ];
    let snapshot = resolved(&documents(&[GATEWAY, &both[0], &both[1]]));
    assert_eq!(&*snapshot.mesh.trust_domain, "prod");
    assert!(snapshot.way().blocked.is_none());
    assert_eq!(snapshot.said(), ["error conflict"]);
}
