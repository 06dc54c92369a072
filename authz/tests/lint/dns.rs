//! `egress-without-dns` (specs/policies.md 1.7, Y1 and Y18 to Y21).

use cairn_config_schema::diagnostics::Code;

use crate::support::said;

const DEFAULT_DENY: &str = "
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: default-deny-all, namespace: production}
spec: {podSelector: {}, policyTypes: [Ingress, Egress]}
";

/// DNS for pods that a selector selects, by these ports.
fn allow_dns(selector: &str, ports: &str) -> String {
    format!(
        "{DEFAULT_DENY}---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {{name: allow-dns, namespace: production}}
spec:
  podSelector: {selector}
  policyTypes: [Egress]
  egress:
  - to: [{{namespaceSelector: {{matchLabels: {{kubernetes.io/metadata.name: kube-system}}}}}}]
    ports: {ports}
"
    )
}

fn lint(yaml: &str) -> Vec<String> {
    said(yaml, Code::EgressWithoutDns)
}

const BOTH: &str = "[{protocol: UDP, port: 53}, {protocol: TCP, port: 53}]";

#[test]
fn a_default_deny_alone_denies_dns_and_a_policy_for_all_pods_clears_it() {
    assert_eq!(
        lint(DEFAULT_DENY),
        [
            "NetworkPolicy.networking.k8s.io/production/default-deny-all denies what its pods send, and no policy allows them DNS"
        ]
    );
    assert!(lint(&allow_dns("{}", BOTH)).is_empty());
}

#[test]
fn dns_for_some_pods_leaves_the_others_without() {
    let some = allow_dns("{matchLabels: {app: web}}", BOTH);
    assert_eq!(lint(&some).len(), 1);
    // Unless those are all there are.
    let pod = "---
apiVersion: v1
kind: Pod
metadata: {name: web-1, namespace: production, labels: {app: web}}
spec: {containers: [{name: web, image: web}]}
status: {podIP: 10.244.0.7}
";
    assert!(lint(&format!("{some}{pod}")).is_empty());
}

#[test]
fn udp_alone_is_not_enough() {
    let udp = allow_dns("{}", "[{protocol: UDP, port: 53}]");
    // Said of both: neither the one nor the other opens TCP.
    let said = lint(&udp);
    assert_eq!(said.len(), 2);
    assert!(
        said.iter().all(|m| m.contains("denies DNS by TCP")),
        "{said:?}"
    );
}

#[test]
fn a_rule_for_other_pods_without_ports_is_no_rule_for_dns() {
    let redis = format!(
        "{DEFAULT_DENY}---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {{name: redis, namespace: production}}
spec: {{podSelector: {{}}, policyTypes: [Egress], egress: [{{to: [{{podSelector: {{matchLabels: {{app: redis}}}}}}]}}]}}
"
    );
    assert_eq!(lint(&redis).len(), 2);
    let everywhere = redis.replace("{to: [{podSelector: {matchLabels: {app: redis}}}]}", "{}");
    assert!(lint(&everywhere).is_empty());
}

#[test]
fn names_of_cilium_need_their_questions_answered() {
    let egress = |more: &str| {
        format!(
            "
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {{name: billing, namespace: production}}
spec:
  endpointSelector: {{matchLabels: {{app: billing}}}}
  egress:
  - toFQDNs: [{{matchName: api.stripe.com}}]
{more}"
        )
    };
    let said = lint(&egress(""));
    assert!(
        said[0].contains("no rule allows its pods to ask"),
        "{said:?}"
    );
    let dns = "  - toPorts: [{ports: [{port: '53', protocol: ANY}], rules: {dns: [{matchPattern: '*'}]}}]\n";
    assert!(lint(&egress(dns)).is_empty());
    let adds_only = format!("{}  enableDefaultDeny: {{egress: false}}\n", egress(""));
    assert!(lint(&adds_only).is_empty());
}

#[test]
fn calico_denies_egress_by_its_types() {
    let calico = |spec: &str| {
        format!(
            "
apiVersion: projectcalico.org/v3
kind: NetworkPolicy
metadata: {{name: default.out, namespace: production}}
spec: {spec}
"
        )
    };
    assert_eq!(lint(&calico("{types: [Egress]}")).len(), 1);
    assert!(lint(&calico("{types: [Ingress]}")).is_empty());
    let open = calico(
        "{types: [Egress], egress: [{action: Allow, protocol: UDP, destination: {ports: [53]}}, {action: Allow, protocol: TCP, destination: {ports: ['50:60']}}]}",
    );
    assert!(lint(&open).is_empty());
}
