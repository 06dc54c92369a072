//! Pods: identity, reachability, names for telemetry (specs/istio-waypoint.md 2.6, 3, 4.1).

use std::sync::Arc;

use cairn_config_schema::diagnostics::Code;
use cairn_config_schema::snapshot::{Snapshot, Workload, WorkloadType};

use super::support::{Ask, documents, resolved};

fn pod(name: &str, metadata: &str, spec: &str, ip: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: shop{metadata}}}\nspec: {{{spec}}}\nstatus: {{podIPs: [{{ip: {ip}}}]}}"
    )
}

fn at<'a>(snapshot: &'a Snapshot, ip: &str) -> &'a Arc<Workload> {
    snapshot.workloads.get(&ip.parse().unwrap()).unwrap()
}

fn one(metadata: &str, spec: &str) -> Workload {
    let snapshot = resolved(&pod("web-1", metadata, spec, "10.1.0.1"));
    Workload::clone(at(&snapshot, "10.1.0.1"))
}

#[test]
fn the_identity_is_the_service_accounts() {
    let with = one("", "serviceAccountName: web");
    assert_eq!(with.identity.uri(), "spiffe://cluster.local/ns/shop/sa/web");
    let without = one("", "nodeName: n1");
    assert_eq!(
        without.identity.uri(),
        "spiffe://cluster.local/ns/shop/sa/default"
    );
    assert_eq!(&*without.node, "n1");
}

#[test]
fn hbone_is_declared_by_annotation_or_label() {
    for (metadata, expected) in [
        (
            ", annotations: {ambient.istio.io/redirection: enabled}",
            true,
        ),
        (
            ", annotations: {ambient.istio.io/redirection: disabled}",
            false,
        ),
        (", labels: {networking.istio.io/tunnel: http}", true),
        (", labels: {networking.istio.io/tunnel: none}", false),
        ("", false),
    ] {
        assert_eq!(one(metadata, "").hbone, expected, "{metadata}");
    }
}

#[test]
fn the_owner_gives_name_and_type() {
    let owned = |kind: &str, name: &str, labels: &str| {
        let metadata = format!(
            ", labels: {{{labels}}}, ownerReferences: [{{apiVersion: v1, kind: {kind}, name: {name}, uid: u, controller: true}}]"
        );
        let workload = one(&metadata, "");
        (workload.workload_name.to_string(), workload.workload_type)
    };
    let hash = "pod-template-hash: 6d4cf56db6";
    let expect = |name: &str, kind| (name.to_owned(), kind);
    assert_eq!(
        owned("ReplicaSet", "web-6d4cf56db6", hash),
        expect("web", WorkloadType::Deployment)
    );
    // Without the label, by the look of a hash.
    assert_eq!(
        owned("ReplicaSet", "web-6d4cf56db6", ""),
        expect("web", WorkloadType::Deployment)
    );
    assert_eq!(
        owned("ReplicaSet", "web-main", ""),
        expect("web-main", WorkloadType::Pod)
    );
    assert_eq!(
        owned("Job", "report-28473920", ""),
        expect("report", WorkloadType::CronJob)
    );
    assert_eq!(
        owned("Job", "migrate-7", ""),
        expect("migrate-7", WorkloadType::Job)
    );
    assert_eq!(
        owned("StatefulSet", "db", ""),
        expect("db", WorkloadType::Pod)
    );
    let alone = one("", "");
    assert_eq!(&*alone.workload_name, "web-1");
}

#[test]
fn canonical_name_and_revision_fall_back_label_by_label() {
    let canonical = |labels: &str| {
        let workload = one(&format!(", labels: {{{labels}}}"), "");
        (
            workload.canonical_name.to_string(),
            workload.canonical_revision.to_string(),
        )
    };
    let mut labels = String::new();
    let mut expected = ("web-1".to_owned(), "latest".to_owned());
    assert_eq!(canonical(&labels), expected);
    for (name, revision) in [
        ("app: a1", "version: r1"),
        (
            "app.kubernetes.io/name: a2",
            "app.kubernetes.io/version: r2",
        ),
        (
            "service.istio.io/canonical-name: a3",
            "service.istio.io/canonical-revision: r3",
        ),
    ] {
        labels = format!("{labels}{name}, {revision}, ");
        expected = (
            name[name.len() - 2..].to_owned(),
            revision[revision.len() - 2..].to_owned(),
        );
        assert_eq!(canonical(&labels), expected);
    }
}

#[test]
fn an_address_claimed_twice_is_the_younger_pods() {
    let old = pod(
        "old",
        ", creationTimestamp: \"2026-01-01T00:00:00Z\"",
        "",
        "10.1.0.1",
    );
    let young = pod(
        "young",
        ", creationTimestamp: \"2026-02-01T00:00:00Z\"",
        "",
        "10.1.0.1",
    );
    let snapshot = resolved(&documents(&[&young, &old]));
    assert_eq!(&*at(&snapshot, "10.1.0.1").key.name, "young");
    assert!(
        snapshot
            .diagnostics
            .iter()
            .any(|d| d.code == Code::Conflict)
    );
}

#[test]
fn finished_pods_have_no_address_any_more_and_host_network_pods_none_of_their_own() {
    let finished =
        pod("job", "", "", "10.1.0.1").replace("status: {", "status: {phase: Succeeded, ");
    let on_host = pod("agent", "", "hostNetwork: true", "192.168.0.1");
    let snapshot = resolved(&documents(&[&finished, &on_host]));
    assert!(snapshot.workloads.is_empty());
    assert_eq!(snapshot.said(), ["error no-gateway"]);
}
