//! BackendTLSPolicies: whom they are for, which of several counts, and what becomes of one that can not be
//! honoured (GEP-1897; issue 3 item 1).

use cairn_config_schema::diagnostics::{Code, Severity};
use cairn_config_schema::origin::Kind;
use cairn_config_schema::resolve::{Options, resolve};
use cairn_config_schema::snapshot::{ClusterKey, ClusterSettings, Snapshot, TlsTrust};

use crate::support::{Ask, break_object, key, load, shop, shop_with};

const CA: &str =
    "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: ca, namespace: shop}\ndata: {ca.crt: PEM}";

fn policy(name: &str, created: &str, target: &str, validation: &str) -> String {
    format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: BackendTLSPolicy\nmetadata: {{name: {name}, namespace: shop, creationTimestamp: '{created}T00:00:00Z'}}\nspec: {{targetRefs: [{target}], validation: {{{validation}}}}}"
    )
}

const WEB: &str = "{group: '', kind: Service, name: web}";
const HTTP: &str = "{group: '', kind: Service, name: web, sectionName: http}";
const OF_CA: &str = "caCertificateRefs: [{group: '', kind: ConfigMap, name: ca}]";

fn settings(snapshot: &Snapshot, port: u16) -> ClusterSettings {
    let settings = snapshot
        .cluster_settings
        .get(&ClusterKey::new(key("shop/web"), port));
    settings.map(|s| (**s).clone()).unwrap_or_default()
}

fn asked(snapshot: &Snapshot, port: u16) -> Option<String> {
    let tls = settings(snapshot, port).tls?;
    tls.server_name.as_deref().map(str::to_owned)
}

#[test]
fn a_policy_is_for_all_ports_or_for_the_one_it_names() {
    let whole = policy(
        "whole",
        "2024-01-01",
        WEB,
        &format!("hostname: web.example, {OF_CA}"),
    );
    let snapshot = shop_with(&[CA, &whole]);
    for port in [80, 8080, 9000] {
        let tls = settings(&snapshot, port).tls.unwrap();
        assert_eq!(tls.server_name.as_deref(), Some("web.example"));
        assert_eq!(tls.trust, TlsTrust::Certificates("PEM\n".into()));
        assert_eq!(tls.origin.to_string(), "BackendTLSPolicy/shop/whole");
    }
    assert!(snapshot.said().is_empty(), "{:?}", snapshot.said());
    // What names the port comes before what names none, however old it is.
    let one = policy(
        "one",
        "2025-01-01",
        HTTP,
        "hostname: one.example, wellKnownCACertificates: System",
    );
    let snapshot = shop_with(&[CA, &whole, &one]);
    assert_eq!(asked(&snapshot, 80).as_deref(), Some("one.example"));
    assert_eq!(asked(&snapshot, 8080).as_deref(), Some("web.example"));
}

#[test]
fn of_two_for_one_target_the_older_counts() {
    let system = |host: &str| format!("hostname: {host}, wellKnownCACertificates: System");
    let young = policy("a", "2025-01-01", WEB, &system("young.example"));
    let old = policy("b", "2024-01-01", WEB, &system("old.example"));
    let snapshot = shop_with(&[&young, &old]);
    assert_eq!(asked(&snapshot, 80).as_deref(), Some("old.example"));
    let finding = snapshot.finding(Code::Conflict);
    assert_eq!(
        finding.object.as_ref().unwrap().to_string(),
        "BackendTLSPolicy/shop/a"
    );
    assert_eq!(finding.path, "spec.targetRefs[0]");
}

#[test]
fn names_beside_the_hostname_count_in_its_place() {
    let sans = "subjectAltNames: [{type: Hostname, hostname: a.example}, {type: URI, uri: 'spiffe://x/y'}]";
    let text = policy(
        "p",
        "2024-01-01",
        WEB,
        &format!("hostname: web.example, wellKnownCACertificates: System, {sans}"),
    );
    let snapshot = shop_with(&[&text]);
    let tls = settings(&snapshot, 80).tls.unwrap();
    assert_eq!(
        (tls.trust.clone(), tls.server_name.as_deref()),
        (TlsTrust::System, Some("web.example"))
    );
    assert_eq!(*tls.names, ["a.example".into(), "spiffe://x/y".into()]);
}

#[test]
fn a_policy_that_can_not_be_honoured_closes_its_target() {
    for (validation, at) in [
        (
            "hostname: a.example, caCertificateRefs: [{group: '', kind: ConfigMap, name: gone}]",
            "spec.validation.caCertificateRefs",
        ),
        (
            "hostname: a.example, caCertificateRefs: [{group: '', kind: Secret, name: ca}]",
            "spec.validation.caCertificateRefs",
        ),
        (
            "hostname: a.example, wellKnownCACertificates: Mozilla",
            "spec.validation.wellKnownCACertificates",
        ),
        ("hostname: a.example", "spec.validation"),
    ] {
        let snapshot = shop_with(&[CA, &policy("p", "2024-01-01", WEB, validation)]);
        let settings = settings(&snapshot, 80);
        assert!(
            settings.refused.is_some() && settings.tls.is_none(),
            "{validation}"
        );
        let errors: Vec<_> = snapshot
            .diagnostics
            .iter()
            .filter(|d| d.severity == Severity::Error)
            .collect();
        assert!(
            errors.iter().any(|d| d.path == at),
            "{validation}: {errors:#?}"
        );
    }
    // One that leads to a certificate is enough.
    let some = "hostname: a.example, caCertificateRefs: [{group: '', kind: ConfigMap, name: gone}, {group: '', kind: ConfigMap, name: ca}]";
    let snapshot = shop_with(&[CA, &policy("p", "2024-01-01", WEB, some)]);
    assert_eq!(asked(&snapshot, 80).as_deref(), Some("a.example"));
    assert_eq!(
        snapshot.finding(Code::BackendNotFound).path,
        "spec.validation.caCertificateRefs[0]"
    );
}

#[test]
fn a_policy_that_can_not_be_read_closes_its_namespace() {
    let mut resources = load(&shop(&[]));
    break_object(
        &mut resources.backend_tls_policies,
        Kind::BackendTLSPolicy,
        "shop/p",
    );
    let snapshot = resolve(&resources, &Options::default());
    assert!(settings(&snapshot, 80).refused.is_some());
    let api = ClusterKey::new(key("shop/api"), 80);
    assert!(snapshot.cluster_settings[&api].refused.is_some());
}

#[test]
fn a_destination_rule_that_says_what_tls_there_is_comes_first() {
    let rule = "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: web, namespace: shop}\nspec: {host: web, trafficPolicy: {loadBalancer: {simple: RANDOM}, portLevelSettings: [{port: {number: 80}, tls: {mode: SIMPLE, sni: rule.example}}]}}";
    let text = policy(
        "p",
        "2024-01-01",
        WEB,
        "hostname: policy.example, wellKnownCACertificates: System",
    );
    let snapshot = shop_with(&[rule, &text]);
    assert_eq!(asked(&snapshot, 80).as_deref(), Some("rule.example"));
    assert_eq!(asked(&snapshot, 8080).as_deref(), Some("policy.example"));
    let finding = snapshot.finding(Code::Conflict);
    assert_eq!(
        finding.message,
        "DestinationRule/shop/web says what TLS there is to shop/web:80"
    );
}

#[test]
fn targets_that_are_none_are_told_apart() {
    for (target, code) in [
        (
            "{group: '', kind: Service, name: gone}",
            Code::TargetNotFound,
        ),
        (
            "{group: '', kind: Service, name: web, sectionName: gone}",
            Code::TargetNotFound,
        ),
        (
            "{group: apps, kind: Deployment, name: web}",
            Code::NotForWaypoint,
        ),
    ] {
        let text = policy(
            "p",
            "2024-01-01",
            target,
            "hostname: a.example, wellKnownCACertificates: System",
        );
        let snapshot = shop_with(&[&text]);
        assert_eq!(
            snapshot.finding(code).path,
            "spec.targetRefs[0]",
            "{target}"
        );
        assert_eq!(asked(&snapshot, 80), None);
    }
}
