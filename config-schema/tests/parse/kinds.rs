//! Which kinds are read, and what is said about the others.

use cairn_config_schema::origin::ObjectKey;
use cairn_config_schema::resources::Loaded;

use crate::support::{findings, load};

#[test]
fn kinds_that_are_not_read_are_mentioned_once_a_file() {
    let deployment = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: a}\n---\n";
    assert_eq!(
        findings(&format!(
            "{deployment}{deployment}apiVersion: example.com/v1\nkind: Widget\n"
        )),
        [
            "2:7 info unknown-kind : Deployment (apps/v1) is not read by this version",
            "10:7 info unknown-kind : Widget (example.com/v1) is not read by this version",
        ]
    );
}

#[test]
fn kinds_with_policy_or_routes_that_nobody_enforces_are_named() {
    assert_eq!(
        findings(
            "apiVersion: networking.istio.io/v1
kind: EnvoyFilter
metadata: {name: web, namespace: shop}
---
apiVersion: extensions.istio.io/v1alpha1
kind: WasmPlugin
metadata: {name: l7}
"
        ),
        [
            "2:7 warning not-enforced : EnvoyFilter shop/web has no effect: \
             Cairn does not read this kind yet",
            "6:7 warning not-enforced : WasmPlugin l7 has no effect: \
             Cairn does not read this kind yet",
        ]
    );
}

#[test]
fn a_version_that_is_not_read_breaks_the_object() {
    let (resources, found) = load(
        "apiVersion: gateway.networking.k8s.io/v1alpha2
kind: HTTPRoute
metadata: {name: web, namespace: shop}
spec: {parentRefs: [{kind: Service, group: '', name: web}]}
",
    );
    assert_eq!(
        found,
        [
            "1:13 error bad-value apiVersion: HTTPRoute is not read from apiVersion \
             gateway.networking.k8s.io/v1alpha2 | write gateway.networking.k8s.io/v1 or \
             gateway.networking.k8s.io/v1beta1"
        ]
    );
    let Loaded::Broken(broken) = &resources.http_routes[&ObjectKey::new("shop", "web")] else {
        panic!("the route is broken");
    };
    assert_eq!(broken.targets.as_ref().unwrap()[0].name, "web");
    assert_eq!(
        findings("kind: AuthorizationPolicy\nmetadata: {name: a}\n"),
        ["1:1 error missing-field apiVersion: `apiVersion` is missing"]
    );
}

#[test]
fn a_misspelt_kind_is_unreadable_not_unknown() {
    let (resources, found) =
        load("apiVersion: security.istio.io/v1\nkind: AuthorisationPolicy\nmetadata: {name: a}\n");
    assert_eq!(
        found,
        [
            "2:7 error unknown-kind : there is no kind `AuthorisationPolicy` in \
             security.istio.io/v1 | did you mean `AuthorizationPolicy`?"
        ]
    );
    assert_eq!(resources.unreadable.len(), 1);
}

#[test]
fn objects_without_namespace_are_in_default_and_cluster_scoped_ones_in_none() {
    let (resources, found) = load(
        "apiVersion: v1
kind: Service
metadata: {name: web}
spec: {ports: [{port: 80}]}
---
apiVersion: v1
kind: Namespace
metadata: {name: shop, namespace: shop}
",
    );
    assert_eq!(
        found,
        [
            "8:35 warning bad-value metadata.namespace: a Namespace is in no namespace | \
             remove it"
        ]
    );
    assert!(
        resources
            .services
            .contains_key(&ObjectKey::new("default", "web"))
    );
    assert!(
        resources
            .namespaces
            .contains_key(&ObjectKey::new("", "shop"))
    );
}

#[test]
fn config_maps_of_others_are_not_looked_at() {
    let (resources, found) = load(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: app, bogus: 1}\ndata: [not, a, map]\n",
    );
    assert_eq!(found, Vec::<String>::new());
    assert!(resources.mesh_config.is_empty());
}

#[test]
fn places_of_endpoints_are_kept() {
    let (resources, found) = load(
        "apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: web-1}
addressType: IPv4
endpoints: [{addresses: [10.1.2.4], zone: a, hints: {forZones: [{name: b}]}}]
ports: [{port: 80}]
",
    );
    assert_eq!(found, Vec::<String>::new());
    let slice = resources.endpoint_slices[&ObjectKey::new("default", "web-1")]
        .object()
        .unwrap();
    let endpoint = &slice.spec.endpoints[0];
    assert_eq!(endpoint.zone.as_deref(), Some("a"));
    assert_eq!(endpoint.for_zones.as_ref(), ["b".into()]);
}

#[test]
fn values_of_core_kinds_are_checked() {
    assert_eq!(
        findings(
            "apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  clusterIP: 10.0.0.300
  ports:
  - {name: a, port: 0}
  - {name: b, port: 80, targetPort: 70000}
  - {name: c, port: 81, targetPort: \"8080\"}
  - {name: d, port: 99999, protocol: UDP}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: web-1}
addressType: IPv4
endpoints:
- addresses: [10.1.2.3, web.example]
ports: [{port: -1}]
---
apiVersion: v1
kind: Pod
metadata: {name: web}
spec: {containers: [{name: a}]}
status: {podIPs: [{ip: nowhere}]}
"
        ),
        [
            "5:14 error bad-value spec.clusterIP: `10.0.0.300` is no IP address | \
             an IPv4 or IPv6 address without a port or mask",
            "7:21 error bad-value spec.ports[0].port: 0 is no port number | \
             a number from 1 to 65535",
            "8:37 error bad-value spec.ports[1].targetPort: 70000 is no port number | \
             a number from 1 to 65535",
            "9:37 error bad-value spec.ports[2].targetPort: the string \"8080\" is no name of a \
             port | remove the quotes",
            "17:25 error bad-value endpoints[0].addresses[1]: `web.example` is no IP address | \
             an IPv4 or IPv6 address without a port or mask",
            "18:16 error bad-value ports[0].port: -1 is no port number | \
             a number from 1 to 65535",
            "24:24 error bad-value status.podIPs[0].ip: `nowhere` is no IP address | \
             an IPv4 or IPv6 address without a port or mask",
        ]
    );
}

#[test]
fn names_in_place_of_addresses_are_told() {
    let slice = |kind: &str, address: &str| {
        findings(&format!(
            "apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: web-1}}
addressType: {kind}
endpoints: [{{addresses: [{address}]}}]
"
        ))
    };
    assert_eq!(slice("IPv6", "\"fd00::1\""), Vec::<String>::new());
    assert_eq!(
        slice("FQDN", "a.example"),
        ["4:14 warning unsupported addressType: endpoints that are host names are not supported"]
    );
    assert_eq!(
        slice("IPv5", "10.1.2.3"),
        [
            "4:14 warning bad-value addressType: addressType 'IPv5' is not known | \
             IPv4, IPv6 or FQDN"
        ]
    );
    assert_eq!(
        findings(
            "apiVersion: v1
kind: Service
metadata: {name: outside}
spec: {type: ExternalName, externalName: a.example}
"
        ),
        [
            "4:42 info unsupported spec.externalName: a waypoint sends nothing to the name behind \
             an ExternalName Service | a ServiceEntry of the name with `resolution: DNS`"
        ]
    );
}
