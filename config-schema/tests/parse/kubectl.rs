//! What `kubectl get ... -o yaml` prints loads as it is: managedFields, status, server-set fields.

use cairn_config_schema::origin::ObjectKey;

use crate::support::load;

/// One object of every kind that is read, as a cluster prints them.
pub const EVERY_KIND: &str = include_str!("kubectl.yaml");

#[test]
fn every_kind_loads_as_the_cluster_prints_it() {
    let (resources, found) = load(EVERY_KIND);
    assert_eq!(
        found,
        ["461:7 info unsupported data.mesh.defaultConfig: \
             `defaultConfig` of the mesh configuration is not honoured",]
    );
    for (kind, count) in resources.counts() {
        assert_eq!(count, 1, "{kind}");
    }
}

#[test]
fn services_and_endpoints_are_reduced_to_what_counts() {
    let (resources, _) = load(EVERY_KIND);
    let service = resources.services[&ObjectKey::new("shop", "reviews")]
        .object()
        .unwrap()
        .clone();
    assert_eq!(
        service.spec.cluster_ips,
        ["10.96.13.7".parse::<std::net::IpAddr>().unwrap()]
    );
    let ports: Vec<_> = service
        .spec
        .ports
        .iter()
        .map(|p| (&*p.name, p.port))
        .collect();
    assert_eq!(ports, [("http", 9080), ("metrics", 9090)]);
    assert_eq!(service.meta.created_s, Some(1_700_000_000));
    assert!(
        !service
            .meta
            .annotations
            .keys()
            .any(|k| k.contains("last-applied")),
        "a copy of the object is not worth its memory"
    );
    let slices = &resources.endpoint_slices;
    let slice = slices[&ObjectKey::new("shop", "reviews-x7k2p")]
        .object()
        .unwrap()
        .clone();
    assert_eq!(&*slice.spec.service_name, "reviews");
    assert_eq!(
        slice.spec.ports.iter().map(|p| p.port).collect::<Vec<_>>(),
        [Some(9080), Some(9090)]
    );
    let ready: Vec<_> = slice.spec.endpoints.iter().map(|e| e.ready).collect();
    assert_eq!(ready, [true, false]);
    let pod = slice.spec.endpoints[0].pod.clone().unwrap();
    assert_eq!(pod, ObjectKey::new("shop", "reviews-v1-5d8f"));
}

#[test]
fn a_pod_keeps_its_identity_and_addresses() {
    let (resources, _) = load(EVERY_KIND);
    let pod = resources.pods[&ObjectKey::new("shop", "reviews-v1-5d8f")]
        .object()
        .unwrap()
        .clone();
    assert_eq!(
        (&*pod.spec.service_account, &*pod.spec.node),
        ("reviews", "node-1")
    );
    assert_eq!(pod.spec.pod_ips.len(), 2);
    assert!(!pod.spec.finished && !pod.spec.host_network);
    assert_eq!(
        pod.spec.owner,
        Some(("ReplicaSet".into(), "reviews-v1".into()))
    );
    assert_eq!(
        &*pod.meta.annotations["ambient.istio.io/redirection"],
        "enabled"
    );
}
