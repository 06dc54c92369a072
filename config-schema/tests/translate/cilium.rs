//! CiliumNetworkPolicies to AuthorizationPolicies.

use cairn_config_schema::translate::Target;
use serde_json::json;

use crate::support::{Written, backdoor, written, written_wider};

/// A policy of the pods of `api` with these items of `ingress`, and these other fields.
fn policy_with(ingress: &str, more: &str) -> String {
    format!(
        "{{apiVersion: cilium.io/v2, kind: CiliumNetworkPolicy, metadata: {{name: p, namespace: shop}}, spec: {{\
         endpointSelector: {{matchLabels: {{app: api}}}}, ingress: [{ingress}]{more}}}}}"
    )
}

fn policy(ingress: &str) -> String {
    policy_with(ingress, "")
}

/// Whoever has the account `web` of `shop`.
const WEB: &str = "fromEndpoints: [{matchLabels: {\"io.cilium.k8s.policy.serviceaccount\": web}}]";

fn of(ingress: &str) -> Written {
    written(Target::Istio, &[&policy(ingress)])
}

#[test]
fn accounts_and_expressions_that_istio_can_say_are_replaced() {
    let text = format!(
        r#"{{{WEB}, toPorts: [{{ports: [{{port: "8080", protocol: TCP}}], rules: {{http: [
        {{method: GET|POST, path: "/api/v1/.*"}}, {{method: GET, path: "/healthz(\\?.*)?"}}]}}}}]}},
        {{fromEntities: [cluster], toPorts: [{{ports: [{{port: "9090", protocol: TCP}}]}}]}}"#
    );
    let found = of(&text);
    found.is_whole();
    let web = json!([{"source": {"principals": ["cluster.local/ns/shop/sa/web"]}}]);
    assert_eq!(
        found.named("api")["spec"],
        json!({
            "targetRefs": [{"group": "", "kind": "Service", "name": "api"}],
            "action": "ALLOW",
            "rules": [
                {"from": web, "to": [{"operation": {"methods": ["GET", "POST"], "paths": ["/api/v1/*"], "ports": ["80"]}}]},
                {"from": web, "to": [{"operation": {"methods": ["GET"], "paths": ["/healthz"], "ports": ["80"]}}]},
                {"from": [{"source": {"principals": ["*"]}}], "to": [{"operation": {"ports": ["9090"]}}]},
            ],
        })
    );
    // The pods let in nobody but the waypoint, where the policy above is asked.
    assert_eq!(
        found.named("p-by-waypoint")["spec"],
        json!({
            "selector": {"matchLabels": {"app": "api"}},
            "action": "ALLOW",
            "rules": [{"from": [{"source": {"principals": ["cluster.local/ns/shop/sa/waypoint"]}}]}],
        })
    );
    let at = found.0.parts[0].location.as_ref().unwrap();
    assert_eq!((&*at.file, at.line), ("policy.yaml", 1));
}

/// An AuthorizationPolicy looks at no query, Cilium does (specs/policies.md 2.1.5); and it knows no labels.
#[test]
fn what_would_allow_more_is_written_only_if_asked_for() {
    let by_query = policy(&format!(
        r#"{{{WEB}, toPorts: [{{ports: [{{port: "8080", protocol: TCP}}], rules: {{http: [{{path: /a}}]}}}}]}}"#
    ));
    let by_label = policy("{fromEndpoints: [{matchLabels: {app: web}}]}");
    for (text, path) in [
        (
            &by_query,
            "wider spec.ingress[0].toPorts[0].rules.http[0].path",
        ),
        (&by_label, "wider spec.ingress[0]"),
    ] {
        let found = written(Target::Istio, &[text]);
        found.is_refused(&["--allow-wider"]);
        assert!(found.lost().contains(path), "{:?}", found.lost());
        let found = written_wider(Target::Istio, &[text]);
        assert_eq!(found.all("AuthorizationPolicy").len(), 2);
        assert_eq!(found.lost().into_iter().collect::<Vec<_>>(), [path]);
    }
}

#[test]
fn what_a_resolved_rule_does_not_hold_is_refused_by_how_it_is_written() {
    let ports = |inner: &str| format!(r#"{{{WEB}, toPorts: [{{{inner}}}]}}"#);
    let tcp = r#"ports: [{port: "8080", protocol: TCP}]"#;
    for (ingress, words) in [
        (
            format!("{{{WEB}, icmps: [{{fields: [{{type: 8}}]}}]}}"),
            "ICMP",
        ),
        (
            ports(r#"ports: [{port: "8080", protocol: UDP}]"#),
            "TCP alone",
        ),
        (ports("ports: []"), "an empty list"),
        (format!("{{{WEB}, toPorts: []}}"), "an empty list"),
        (
            ports(&format!("{tcp}, serverNames: [a.example]")),
            "server names",
        ),
        (
            ports(&format!(
                "{tcp}, terminatingTLS: {{secret: {{name: s}}}}, rules: {{http: [{{}}]}}"
            )),
            "end TLS",
        ),
        (
            ports(&format!(
                "{tcp}, listener: {{envoyConfig: {{name: l}}, name: l}}"
            )),
            "other proxy",
        ),
        (
            ports(&format!("{tcp}, rules: {{l7proto: kafka}}")),
            "only those of HTTP",
        ),
        (format!("{{{WEB}, fromEntities: [cluster]}}"), "two kinds"),
        (
            format!("{{{WEB}, authentication: {{mode: test-always-fail}}}}"),
            "whatever else",
        ),
        (
            ports(&format!(
                "{tcp}, rules: {{http: [{{headerMatches: [{{name: a, mismatch: ADD, value: b}}]}}]}}"
            )),
            "changes no headers",
        ),
    ] {
        of(&ingress).is_refused(&[words]);
    }
}

#[test]
fn the_half_for_egress_stays_and_the_object_with_it() {
    let text = policy_with(&format!("{{{WEB}}}"), ", egress: [{toEntities: [cluster]}]");
    written(Target::Istio, &[&text]).is_refused(&["write it as an object of its own"]);
    let text = policy_with(
        &format!("{{{WEB}}}"),
        ", ingressDeny: [{fromEntities: [cluster]}]",
    );
    written(Target::Istio, &[&text]).is_refused(&["whoever is known to be"]);
    let text = policy_with(
        &format!("{{{WEB}}}"),
        ", enableDefaultDeny: {ingress: false}",
    );
    written(Target::Istio, &[&text]).is_refused(&["denies all else"]);
}

/// Even of a rule that is for nobody here: whom Cilium can not tell from nobody it leaves in doubt.
#[test]
fn header_matches_of_a_rule_for_nobody_are_refused_too() {
    let world = r#"{fromEntities: [world], toPorts: [{ports: [{port: "8080", protocol: TCP}], rules: {http: [{headerMatches: [{name: a, value: b}]}]}}]}"#;
    of(&format!("{world}, {{{WEB}}}")).is_refused(&["changes no headers"]);
}

/// A policy that is united with another in Cilium is not written without it.
#[test]
fn policies_of_the_same_pods_are_written_together_or_not_at_all() {
    let good = policy(&format!("{{{WEB}}}"));
    let bad = policy(&format!("{{{WEB}, icmps: []}}")).replace("name: p,", "name: q,");
    let found = written(Target::Istio, &[&good, &bad]);
    found.is_refused(&["belongs together with CiliumNetworkPolicy/shop/q"]);
}

#[test]
fn other_ways_to_the_same_pods_keep_a_policy_from_being_replaced() {
    let text = policy(&format!("{{{WEB}}}"));
    // Another Service that the waypoint serves gets the same policy, for its own ports.
    let found = written(Target::Istio, &[&text, &backdoor("{}", 9090)]);
    found.is_whole();
    let rules = &found.named("backdoor")["spec"]["rules"];
    assert_eq!(rules[0]["to"][0]["operation"]["ports"], json!(["8000"]));
    // Whoever uses one that goes past the waypoint would be denied.
    let past = backdoor("{istio.io/use-waypoint: none}", 9090);
    written(Target::Istio, &[&text, &past]).is_refused(&["whoever uses it would be denied"]);
    // What ztunnel already lets in goes past every policy of the Service.
    let let_in = "{apiVersion: security.istio.io/v1, kind: AuthorizationPolicy, metadata: {name: z, namespace: shop}, \
                  spec: {selector: {matchLabels: {app: api}}, rules: [{}]}}";
    written(Target::Istio, &[&text, let_in]).is_refused(&["past the waypoint"]);
    // An ALLOW policy beside another allows what either does.
    let allows = "{apiVersion: security.istio.io/v1, kind: AuthorizationPolicy, metadata: {name: a, namespace: shop}, \
                  spec: {targetRefs: [{group: '', kind: Service, name: api}], rules: [{}]}}";
    written(Target::Istio, &[&text, allows]).is_refused(&["one more ALLOW policy"]);
    // Requests of other Services that routes send there.
    let route = "{apiVersion: gateway.networking.k8s.io/v1, kind: HTTPRoute, metadata: {name: r, namespace: shop}, \
                 spec: {parentRefs: [{group: '', kind: Service, name: orders}], rules: [{backendRefs: [{name: api, port: 80}]}]}}";
    written(Target::Istio, &[&text, route]).is_refused(&["HTTPRoute/shop/r"]);
}

#[test]
fn what_is_left_out_is_told() {
    let ports = r#"toPorts: [{ports: [{port: "8080", protocol: TCP}], rules: {http: [
        {path: "/a/.*"}, {path: "/v[0-9]"}, {path: "/a\\*"}, {path: "/a$b"}, {method: "G.T"}]}}]"#;
    let found = of(&format!("{{{WEB}, {ports}}}, {{fromCIDR: [10.0.0.0/8]}}"));
    let rules = found.named("api")["spec"]["rules"].as_array().unwrap();
    assert_eq!(rules.len(), 1);
    let at = |rest: &str| format!("narrower spec.ingress[0].toPorts[0].rules.http{rest}");
    let wanted = [
        at("[1].path"),
        at("[2].path"),
        at("[3].path"),
        at("[4].method"),
        "narrower spec.ingress[1]".to_owned(),
    ];
    assert_eq!(found.lost().into_iter().collect::<Vec<_>>(), wanted);
    assert!(!found.0.replaced.is_empty());
}

#[test]
fn a_name_that_is_taken_is_not_taken_again() {
    let taken = "{apiVersion: security.istio.io/v1, kind: AuthorizationPolicy, metadata: {name: api, namespace: shop}, \
                 spec: {targetRefs: [{group: '', kind: Service, name: api}], action: DENY, rules: [{to: [{operation: {methods: [PUT]}}]}]}}";
    let found = written(Target::Istio, &[&policy(&format!("{{{WEB}}}")), taken]);
    assert_eq!(found.named("api-2")["spec"]["action"], "ALLOW");
}

#[test]
fn a_policy_that_is_tried_stays() {
    let text = policy(&format!("{{{WEB}}}")).replace(
        "namespace: shop}",
        "namespace: shop, annotations: {cairn.dev/dry-run: 'true'}}",
    );
    written(Target::Istio, &[&text]).is_refused(&["only tried"]);
}
