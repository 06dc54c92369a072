//! What makes a network policy broken, what is only told, and what follows for the workloads it
//! selects (specs/policies.md 2.1.1). What a policy decides is in the golden cases.

use cairn_config_schema::diagnostics::Severity;
use cairn_config_schema::snapshot::{ClusterKey, NetworkPolicy};

use crate::support::{key, shop_with};

/// A pod behind `shop/web`.
const POD: &str = "
apiVersion: v1
kind: Pod
metadata: {name: web-1, namespace: shop, labels: {app: web}}
spec: {containers: [{name: app, image: app}]}
status: {podIPs: [{ip: 10.1.0.1}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: web, namespace: shop, labels: {kubernetes.io/service-name: web}}
addressType: IPv4
ports: [{name: http, port: 8080}, {name: http-admin, port: 8081}, {name: tcp, port: 9000}]
endpoints: [{addresses: [10.1.0.1]}]
";

fn policy(kind: &str, spec: &str) -> String {
    let namespace = match kind {
        "CiliumNetworkPolicy" => ", namespace: shop",
        _ => "",
    };
    format!(
        "apiVersion: cilium.io/v2\nkind: {kind}\nmetadata: {{name: p{namespace}}}\nspec: {spec}\n"
    )
}

/// The policies of the pod behind `shop/web:80`, and the errors and warnings.
fn read(kind: &str, spec: &str) -> (Vec<NetworkPolicy>, Vec<(Severity, String)>) {
    let snapshot = shop_with(&[POD, &policy(kind, spec)]);
    let cluster = ClusterKey::new(key("shop/web"), 80);
    let subjects = snapshot.network.clusters.get(&cluster);
    let policies = subjects.map_or(Vec::new(), |subjects| {
        subjects[0]
            .policies
            .iter()
            .map(|p| NetworkPolicy::clone(p))
            .collect()
    });
    let found = snapshot.diagnostics.iter();
    let found = found.filter(|d| d.severity != Severity::Info);
    let found = found.map(|d| (d.severity, format!("{} {}", d.path, d.message)));
    (policies, found.collect())
}

/// A policy for everything with one rule of ingress.
fn ingress(item: &str) -> String {
    format!("{{endpointSelector: {{}}, ingress: [{item}]}}")
}

fn ports(ports: &str) -> String {
    ingress(&format!("{{toPorts: [{ports}]}}"))
}

const TCP: &str = "{port: '80', protocol: TCP}";

/// Each of these specs has an error whose path and message begin so, and denies what it selects.
fn assert_refused(specs: &[(String, &str)]) {
    for (spec, at) in specs {
        let (policies, found) = read("CiliumNetworkPolicy", spec);
        let error = found
            .iter()
            .any(|(severity, text)| *severity == Severity::Error && text.starts_with(at));
        assert!(error, "{spec}: {found:?}");
        assert_eq!(policies.len(), 1, "{spec}");
        assert!(policies[0].broken.is_some(), "{spec}");
    }
}

#[test]
fn selectors_and_peers_that_ciliums_api_refuses() {
    assert_refused(&[
        (
            "{ingress: [{}]}".to_owned(),
            "spec `endpointSelector` is missing",
        ),
        (
            "{endpointSelector: {}, nodeSelector: {}, ingress: [{}]}".to_owned(),
            "spec.nodeSelector",
        ),
        (
            "{nodeSelector: {}, ingress: [{}]}".to_owned(),
            "spec.nodeSelector",
        ),
        (
            "{endpointSelector: {}}".to_owned(),
            "spec a rule must have at least one",
        ),
        (
            "{endpointSelector: {}, ingress: []}".to_owned(),
            "spec a rule must have at least one",
        ),
        (
            ingress("{fromEndpoints: [{}], fromEntities: [all]}"),
            "spec.ingress[0].fromEntities",
        ),
        (
            ingress("{fromEntities: [everyone]}"),
            "spec.ingress[0].fromEntities[0]",
        ),
        (
            ingress("{fromCIDR: [10.0.0.0/33]}"),
            "spec.ingress[0].fromCIDR[0]",
        ),
        (
            ingress("{fromCIDRSet: [{cidr: 10.0.0.0/8, except: [11.0.0.0/8]}]}"),
            "spec.ingress[0].fromCIDRSet[0].except[0]",
        ),
        (
            ingress("{fromCIDRSet: [{}]}"),
            "spec.ingress[0].fromCIDRSet[0]",
        ),
        (
            ingress("{fromRequires: [{}], fromEntities: [all]}"),
            "spec.ingress[0].fromRequires",
        ),
        (
            ingress("{fromEndpoints: [{matchExpressions: [{key: a, operator: Is}]}]}"),
            "spec.ingress[0].fromEndpoints[0].matchExpressions[0]",
        ),
    ]);
}

#[test]
fn ports_that_ciliums_api_refuses() {
    let forty_one = vec![TCP; 41].join(", ");
    assert_refused(&[
        (
            ingress("{authentication: {mode: maybe}}"),
            "spec.ingress[0].authentication.mode",
        ),
        (
            ingress(&format!("{{icmps: [{{}}], toPorts: [{{ports: [{TCP}]}}]}}")),
            "spec.ingress[0].icmps",
        ),
        (
            ports(&format!("{{ports: [{forty_one}]}}")),
            "spec.ingress[0].toPorts[0].ports",
        ),
        (
            ports("{ports: [{port: '70000'}]}"),
            "spec.ingress[0].toPorts[0].ports[0].port",
        ),
        (
            ports("{ports: [{port: '90', endPort: 80}]}"),
            "spec.ingress[0].toPorts[0].ports[0].port",
        ),
        (
            ports("{ports: [{port: '80', protocol: QUIC}]}"),
            "spec.ingress[0].toPorts[0].ports[0].protocol",
        ),
    ]);
}

#[test]
fn l7_rules_that_ciliums_api_refuses() {
    assert_refused(&[
        (
            ports("{ports: [{port: '80'}], rules: {http: [{}]}}"),
            "spec.ingress[0].toPorts[0].rules L7 rules need ports with protocol: TCP",
        ),
        (
            ports("{ports: [{port: '0', protocol: TCP}], rules: {http: [{}]}}"),
            "spec.ingress[0].toPorts[0].rules",
        ),
        (
            ports(&format!(
                "{{ports: [{TCP}], rules: {{http: [{{}}], l7proto: x}}}}"
            )),
            "spec.ingress[0].toPorts[0].rules a port has one kind",
        ),
        (
            ports(&format!(
                "{{ports: [{TCP}], rules: {{dns: [{{matchPattern: '*'}}]}}}}"
            )),
            "spec.ingress[0].toPorts[0].rules.dns",
        ),
        (
            ports(&format!("{{ports: [{TCP}], listener: {{}}}}")),
            "spec.ingress[0].toPorts[0].listener",
        ),
        (
            ports(&format!(
                "{{ports: [{TCP}], serverNames: [a.b], rules: {{http: [{{}}]}}}}"
            )),
            "spec.ingress[0].toPorts[0].serverNames",
        ),
        (
            format!(
                "{{endpointSelector: {{}}, ingressDeny: [{{toPorts: [{{ports: [{TCP}], rules: {{http: [{{}}]}}}}]}}]}}"
            ),
            "spec.ingressDeny[0].toPorts[0].rules a deny rule has no L7",
        ),
    ]);
}

#[test]
fn http_rules_that_ciliums_api_refuses() {
    let http = |rule: &str| ports(&format!("{{ports: [{TCP}], rules: {{http: [{rule}]}}}}"));
    assert_refused(&[
        (
            http("{path: '/a('}"),
            "spec.ingress[0].toPorts[0].rules.http[0].path",
        ),
        (
            http("{host: '['}"),
            "spec.ingress[0].toPorts[0].rules.http[0].host",
        ),
        (
            http("{headerMatches: [{value: x}]}"),
            "spec.ingress[0].toPorts[0].rules.http[0].headerMatches[0]",
        ),
        (
            http("{headerMatches: [{name: x, mismatch: SET}]}"),
            "spec.ingress[0].toPorts[0].rules.http[0].headerMatches[0].mismatch",
        ),
        (
            http("{headerMatches: [{name: x, secret: {namespace: a}}]}"),
            "spec.ingress[0].toPorts[0].rules.http[0].headerMatches[0].secret",
        ),
    ]);
}

#[test]
fn what_a_waypoint_can_not_judge_breaks_the_rule_alone() {
    for rule in [
        "{toPorts: [{ports: [{port: '80', protocol: TCP}], rules: {kafka: [{}]}}]}",
        "{toPorts: [{ports: [{port: '80', protocol: TCP}], rules: {l7proto: x}}]}",
        "{toPorts: [{ports: [{port: '80', protocol: TCP}], serverNames: [a.b]}]}",
        "{toPorts: [{ports: [{port: '80', protocol: TCP}], terminatingTLS: {}}]}",
    ] {
        let spec = format!("{{endpointSelector: {{}}, ingress: [{rule}]}}");
        let (policies, found) = read("CiliumNetworkPolicy", &spec);
        assert_eq!(found.len(), 1, "{rule}: {found:?}");
        assert_eq!(found[0].0, Severity::Warning, "{rule}");
        assert!(policies[0].broken.is_none(), "{rule}");
        assert!(policies[0].rules[0].broken.is_some(), "{rule}");
    }
}

#[test]
fn a_policy_selects_by_labels_in_its_own_namespace() {
    let selected = |kind: &str, selector: &str| {
        let spec = format!("{{endpointSelector: {selector}, ingress: [{{}}]}}");
        !read(kind, &spec).0.is_empty()
    };
    let (own, all) = ("CiliumNetworkPolicy", "CiliumClusterwideNetworkPolicy");
    assert!(selected(own, "{}"));
    assert!(selected(own, "{matchLabels: {app: web}}"));
    assert!(selected(own, "{matchLabels: {'k8s:app': web}}"));
    assert!(selected(own, "{matchLabels: {'any:app': web}}"));
    assert!(!selected(own, "{matchLabels: {'reserved:app': web}}"));
    assert!(!selected(own, "{matchLabels: {app: api}}"));
    assert!(!selected(
        own,
        "{matchLabels: {'io.kubernetes.pod.namespace': other}}"
    ));
    assert!(selected(
        all,
        "{matchLabels: {'io.kubernetes.pod.namespace': shop}}"
    ));
    assert!(!selected(
        all,
        "{matchLabels: {'io.kubernetes.pod.namespace': other}}"
    ));
}

#[test]
fn an_endpoint_without_a_pod_is_denied_where_a_policy_may_select_it() {
    let service = "
apiVersion: v1
kind: Service
metadata: {name: lost, namespace: shop}
spec: {clusterIP: 10.0.0.9, selector: {app: lost}, ports: [{name: http, port: 80}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: lost, namespace: shop, labels: {kubernetes.io/service-name: lost}}
addressType: IPv4
ports: [{name: http, port: 8080}]
endpoints: [{addresses: [10.1.0.9]}]
";
    let unknown = |selector: &str| {
        let spec = format!("{{endpointSelector: {selector}, ingress: [{{}}]}}");
        let snapshot = shop_with(&[service, &policy("CiliumNetworkPolicy", &spec)]);
        let cluster = ClusterKey::new(key("shop/lost"), 80);
        let subjects = snapshot.network.clusters.get(&cluster);
        subjects.is_some_and(|s| s[0].unknown.is_some())
    };
    assert!(unknown("{matchLabels: {app: web}}"));
    assert!(unknown("{}"));
    assert!(!unknown(
        "{matchLabels: {app: web, 'io.kubernetes.pod.namespace': other}}"
    ));
}
