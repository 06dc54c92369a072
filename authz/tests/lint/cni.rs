//! What the CNI makes of NetworkPolicies (specs/policies.md 2.3, 1.7 Y15 and Y20 to Y22).

use cairn_authz::cni::{Connection, Direction, End, Passage};
use cairn_config_schema::snapshot::{LabelView, Transport, Truth};

use crate::support::load;

const PODS: &str = "
apiVersion: v1
kind: Namespace
metadata: {name: production, labels: {team: shop}}
---
apiVersion: v1
kind: Namespace
metadata: {name: monitoring, labels: {team: monitoring}}
---
apiVersion: v1
kind: Pod
metadata: {name: backend, namespace: production, labels: {app: backend}}
spec: {containers: [{name: c, image: i, ports: [{name: metrics, containerPort: 9090}]}]}
status: {podIP: 10.0.0.1}
---
apiVersion: v1
kind: Pod
metadata: {name: frontend, namespace: production, labels: {app: frontend}}
spec: {containers: [{name: c, image: i}]}
status: {podIP: 10.0.0.2}
---
apiVersion: v1
kind: Pod
metadata: {name: prometheus, namespace: monitoring, labels: {app: prometheus}}
spec: {containers: [{name: c, image: i}]}
status: {podIP: 10.0.0.3}
---
apiVersion: v1
kind: Pod
metadata: {name: grafana, namespace: monitoring, labels: {app: grafana}}
spec: {containers: [{name: c, image: i}]}
status: {podIP: 10.0.0.4}
---
";

/// A policy for the backend.
fn policy(spec: &str) -> String {
    format!(
        "apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {{name: p, namespace: production}}
spec: {{podSelector: {{matchLabels: {{app: backend}}}}, {spec}}}
"
    )
}

/// Whether a pod passes to a port of the backend.
fn passage(policies: &str, from: &str, port: u16) -> Passage {
    let (_, snapshot) = load(&format!("{PODS}{policies}"));
    let wrong = snapshot.diagnostics.iter().filter(|d| d.object.is_some());
    assert_eq!(wrong.count(), 0, "{:?}", snapshot.diagnostics);
    let pod = |name: &str| {
        let mut pods = snapshot.workloads.values();
        pods.find(|w| *w.key.name == *name).unwrap()
    };
    let connection = Connection {
        from: End::of(pod(from)),
        to: End::of(pod("backend")),
        port,
        transport: Transport::Tcp,
    };
    let policies = snapshot.kube_network.iter().map(AsRef::as_ref);
    connection.passage(policies, Direction::Ingress)
}

fn passes(policies: &str, from: &str, port: u16) -> Truth {
    passage(policies, from, port).passes
}

#[test]
fn a_pod_that_no_policy_selects_is_open_and_one_that_is_selected_closed() {
    assert_eq!(passes("", "frontend", 80), Truth::Yes);
    assert_eq!(passes(&policy("ingress: []"), "frontend", 80), Truth::No);
    assert_eq!(passes(&policy("ingress: [{}]"), "frontend", 80), Truth::Yes);
    // A policy for egress alone says nothing of ingress.
    assert_eq!(
        passes(&policy("policyTypes: [Egress]"), "frontend", 80),
        Truth::Yes
    );
}

#[test]
fn policies_add_up_and_the_rule_that_lets_it_through_is_named() {
    let two = format!(
        "{}---\n{}",
        policy("ingress: []"),
        policy("ingress: [{from: [{podSelector: {matchLabels: {app: frontend}}}], ports: [{port: 8080}]}]")
            .replace("name: p,", "name: q,")
    );
    let found = passage(&two, "frontend", 8080);
    assert_eq!(found.passes, Truth::Yes);
    assert_eq!(found.policies[0].key.name.as_ref(), "q");
    assert_eq!(found.rule.as_deref(), Some("spec.ingress[0]"));
    assert_eq!(passes(&two, "frontend", 8081), Truth::No);
    assert_eq!(passage(&two, "prometheus", 8080).policies.len(), 2);
}

#[test]
fn selectors_in_one_item_are_both_meant_and_in_two_either() {
    let both = policy(
        "ingress: [{from: [{namespaceSelector: {matchLabels: {team: monitoring}}, podSelector: {matchLabels: {app: prometheus}}}]}]",
    );
    assert_eq!(passes(&both, "prometheus", 9090), Truth::Yes);
    assert_eq!(passes(&both, "grafana", 9090), Truth::No);
    let either = policy(
        "ingress: [{from: [{namespaceSelector: {matchLabels: {team: monitoring}}}, {podSelector: {matchLabels: {app: frontend}}}]}]",
    );
    for pod in ["prometheus", "grafana", "frontend"] {
        assert_eq!(passes(&either, pod, 9090), Truth::Yes, "{pod}");
    }
    // A podSelector alone is about the policy's own namespace.
    let own = policy("ingress: [{from: [{podSelector: {matchLabels: {app: prometheus}}}]}]");
    assert_eq!(passes(&own, "prometheus", 9090), Truth::No);
}

#[test]
fn ports_have_names_ranges_and_a_protocol() {
    let by = |ports: &str, port: u16| {
        passes(
            &policy(&format!("ingress: [{{ports: [{ports}]}}]")),
            "frontend",
            port,
        )
    };
    assert_eq!(by("{port: metrics}", 9090), Truth::Yes);
    assert_eq!(by("{port: metrics}", 80), Truth::No);
    assert_eq!(by("{port: 8000, endPort: 8010}", 8005), Truth::Yes);
    assert_eq!(by("{port: 8000, endPort: 8010}", 8011), Truth::No);
    assert_eq!(by("{port: 80, protocol: UDP}", 80), Truth::No);
}

#[test]
fn what_is_not_known_is_neither_let_through_nor_refused() {
    let (_, snapshot) = load(&format!(
        "{PODS}{}",
        policy("ingress: [{from: [{podSelector: {matchLabels: {app: frontend}}}]}]")
    ));
    let backend = &snapshot.workloads[&"10.0.0.1".parse().unwrap()];
    let somebody = End {
        view: LabelView {
            namespace: Some("production"),
            ..LabelView::default()
        },
        ..End::default()
    };
    let connection = Connection {
        from: somebody,
        to: End::of(backend),
        port: 80,
        transport: Transport::Tcp,
    };
    let policies = || snapshot.kube_network.iter().map(AsRef::as_ref);
    let found = connection.passage(policies(), Direction::Ingress);
    assert_eq!(
        (found.passes, found.unknown),
        (Truth::Unknown, Some("the other end"))
    );
    // Whether an address block is for pods is up to the CNI; one that does not have it is not.
    let block = |cidr: &str| {
        policy(&format!(
            "ingress: [{{from: [{{ipBlock: {{cidr: {cidr}}}}}]}}]"
        ))
    };
    assert_eq!(passes(&block("10.0.0.0/8"), "frontend", 80), Truth::Unknown);
    assert_eq!(passes(&block("192.168.0.0/16"), "frontend", 80), Truth::No);
}

#[test]
fn a_policy_that_can_not_be_read_leaves_its_namespace_in_doubt() {
    let broken = policy("ingres: []");
    let (_, snapshot) = load(&format!("{PODS}{broken}"));
    let backend = &snapshot.workloads[&"10.0.0.1".parse().unwrap()];
    let connection = Connection {
        from: End::default(),
        to: End::of(backend),
        port: 80,
        transport: Transport::Tcp,
    };
    let policies = snapshot.kube_network.iter().map(AsRef::as_ref);
    let found = connection.passage(policies, Direction::Ingress);
    assert_eq!(found.passes, Truth::Unknown);
}
