//! AuthorizationPolicies to CiliumNetworkPolicies.

use cairn_config_schema::translate::Target;
use serde_json::json;

use crate::support::{Written, backdoor, written};

/// A policy for Service `api` with the rest of its `spec`.
fn policy(name: &str, service: &str, spec: &str) -> String {
    format!(
        "{{apiVersion: security.istio.io/v1, kind: AuthorizationPolicy, metadata: {{name: {name}, namespace: shop}}, \
         spec: {{targetRefs: [{{group: '', kind: Service, name: {service}}}], {spec}}}}}"
    )
}

fn of(spec: &str) -> Written {
    written(Target::Cilium, &[&policy("p", "api", spec)])
}

const WEB: &str = "from: [{source: {principals: [cluster.local/ns/shop/sa/web]}}]";

#[test]
fn rules_become_items_on_the_ports_of_the_pods() {
    let found = of(&format!(
        "rules: [{{{WEB}, to: [{{operation: {{methods: [GET, POST], paths: [/api/*, /healthz], ports: ['80']}}}}]}}, \
         {{from: [{{source: {{namespaces: [monitoring]}}}}], to: [{{operation: {{ports: ['9090']}}}}]}}]"
    ));
    found.is_whole();
    let policy = found.only("CiliumNetworkPolicy");
    assert_eq!(
        policy["metadata"],
        json!({"name": "api", "namespace": "shop"})
    );
    assert_eq!(
        policy["spec"],
        json!({
            "endpointSelector": {"matchLabels": {"app": "api"}},
            "ingress": [
                {
                    "fromEndpoints": [{"matchLabels": {
                        "k8s:io.kubernetes.pod.namespace": "shop",
                        "k8s:io.cilium.k8s.policy.serviceaccount": "web",
                    }}],
                    "toPorts": [{
                        "ports": [{"port": "8080", "protocol": "TCP"}],
                        "rules": {"http": [
                            {"method": "GET|POST", "path": "/api/.*"},
                            {"method": "GET|POST", "path": r"/healthz(\?.*)?"},
                        ]},
                    }],
                },
                {
                    "fromEndpoints": [{"matchLabels": {"k8s:io.kubernetes.pod.namespace": "monitoring"}}],
                    "toPorts": [{"ports": [{"port": "9090", "protocol": "TCP"}]}],
                },
            ],
        })
    );
}

#[test]
fn a_policy_that_allows_nothing_isolates() {
    let found = of("action: ALLOW");
    assert_eq!(
        found.only("CiliumNetworkPolicy")["spec"]["ingress"],
        json!([{}])
    );
    found.is_whole();
}

/// A denial of connections is one at Cilium, and what nobody denies stays allowed.
#[test]
fn a_denial_of_connections_is_denied_and_nothing_else() {
    let found = of(&format!("action: DENY, rules: [{{{WEB}}}]"));
    found.is_whole();
    let spec = &found.only("CiliumNetworkPolicy")["spec"];
    assert_eq!(spec["enableDefaultDeny"], json!({"ingress": false}));
    let ports = json!([{"ports": [{"port": "8080", "protocol": "TCP"}, {"port": "9090", "protocol": "TCP"}]}]);
    assert_eq!(spec["ingressDeny"][0]["toPorts"], ports);
    assert_eq!(spec["ingress"], json!([{"toPorts": ports}]));
}

#[test]
fn what_can_not_be_left_out_is_not_written_at_all() {
    for (spec, words) in [
        (
            format!("action: DENY, rules: [{{{WEB}, to: [{{operation: {{paths: [/a]}}}}]}}]"),
            "denies connections",
        ),
        (
            "action: DENY, rules: [{from: [{source: {notPrincipals: ['*']}}]}]".to_owned(),
            "this of principals",
        ),
        (
            "action: CUSTOM, provider: {name: x}, rules: [{}]".to_owned(),
            "asks no provider",
        ),
    ] {
        let allow = policy("q", "api", &format!("rules: [{{{WEB}}}]"));
        let found = written(Target::Cilium, &[&policy("p", "api", &spec), &allow]);
        found.is_refused(&[words, "belongs together"]);
    }
    // A record is no verdict: the others are written, and it stays.
    let audit = policy("p", "api", "action: AUDIT, rules: [{}]");
    let allow = policy("q", "api", &format!("rules: [{{{WEB}}}]"));
    let found = written(Target::Cilium, &[&audit, &allow]);
    assert_eq!(
        found.lost().into_iter().collect::<Vec<_>>(),
        ["not translated spec.action"]
    );
    assert_eq!(found.0.replaced.len(), 1);
}

#[test]
fn of_a_rule_that_allows_what_can_not_be_said_is_left_out() {
    let found = of(&format!(
        "rules: [{{{WEB}, to: [{{operation: {{notPaths: [/a]}}}}, {{operation: {{paths: [/b]}}}}]}}, \
         {{from: [{{source: {{ipBlocks: [10.0.0.0/8]}}}}]}}, \
         {{{WEB}, when: [{{key: 'request.auth.claims[a]', values: [b]}}]}}, \
         {{{WEB}, when: [{{key: 'request.headers[cookie]', values: [b]}}]}}]"
    ));
    let ingress = found.only("CiliumNetworkPolicy")["spec"]["ingress"]
        .as_array()
        .unwrap();
    assert_eq!(ingress.len(), 1);
    let wanted = [
        "narrower spec.rules[0].to[0].operation.notPaths",
        "narrower spec.rules[1].from[0].source",
        "narrower spec.rules[2].when[0]",
        "narrower spec.rules[3].when[0]",
    ];
    assert_eq!(found.lost().into_iter().collect::<Vec<_>>(), wanted);
}

#[test]
fn every_target_has_to_be_written() {
    let rules = format!("rules: [{{{WEB}}}]");
    let target = |target: &str| {
        policy("p", "api", &rules).replace("targetRefs: [", &format!("targetRefs: [{target}, "))
    };
    for (other, words) in [
        (
            "{group: '', kind: Service, name: gone}",
            "does not apply to Service shop/gone",
        ),
        (
            "{group: gateway.networking.k8s.io, kind: Gateway, name: other}",
            "is not the waypoint",
        ),
        (
            "{group: gateway.networking.k8s.io, kind: GatewayClass, name: cairn-waypoint}",
            "GatewayClass",
        ),
    ] {
        written(Target::Cilium, &[&target(other)]).is_refused(&[words]);
    }
    let both = target("{group: '', kind: Service, name: orders}");
    let found = written(Target::Cilium, &[&both]);
    found.is_whole();
    assert_eq!(found.all("CiliumNetworkPolicy").len(), 2);
    // Without targetRefs it is ztunnel's.
    let of_ztunnel = policy("p", "api", &rules).replace(
        "targetRefs: [{group: '', kind: Service, name: api}]",
        "selector: {matchLabels: {app: api}}",
    );
    written(Target::Cilium, &[&of_ztunnel]).is_refused(&["ztunnel"]);
}

/// Cilium unites what selects the same pods, and Istio asks policies of the Service alone.
#[test]
fn services_with_the_same_pods_are_told_apart_or_refused() {
    let api = policy("p", "api", &format!("rules: [{{{WEB}}}]"));
    let other = policy(
        "q",
        "backdoor",
        "rules: [{from: [{source: {namespaces: [other]}}]}]",
    );
    let shares = backdoor("{}", 8080);
    written(Target::Cilium, &[&api, &other, &shares]).is_refused(&["with different policies"]);
    // On another port of the pods they do not meet.
    let apart = backdoor("{}", 7000);
    let found = written(Target::Cilium, &[&api, &other, &apart]);
    found.is_whole();
    // One without a policy would be restricted, which is told.
    let found = written(Target::Cilium, &[&api, &shares]);
    assert!(found.says("would be denied what these policies do not allow"));
    assert_eq!(found.all("CiliumNetworkPolicy").len(), 1);
}

#[test]
fn policies_of_the_cni_that_are_there_would_be_united_with_it() {
    let api = policy("p", "api", &format!("rules: [{{{WEB}}}]"));
    let cilium = "{apiVersion: cilium.io/v2, kind: CiliumNetworkPolicy, metadata: {name: c, namespace: shop}, \
                  spec: {endpointSelector: {}, ingress: [{fromEntities: [cluster]}]}}";
    let kube = "{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: k, namespace: shop}, \
                spec: {podSelector: {}, policyTypes: [Ingress]}}";
    for there in [cilium, kube] {
        written(Target::Cilium, &[&api, there]).is_refused(&["would be united"]);
    }
}

#[test]
fn requests_that_routes_lead_elsewhere_are_not_judged_at_the_pods() {
    let api = policy("p", "api", &format!("rules: [{{{WEB}}}]"));
    let route = |backend: &str| {
        format!(
            "{{apiVersion: gateway.networking.k8s.io/v1, kind: HTTPRoute, metadata: {{name: r, namespace: shop}}, \
             spec: {{parentRefs: [{{group: '', kind: Service, name: api, port: 80}}], rules: [{{backendRefs: [{backend}]}}]}}}}"
        )
    };
    let elsewhere = route("{name: orders, port: 8080}");
    written(Target::Cilium, &[&api, &elsewhere]).is_refused(&["HTTPRoute/shop/r"]);
    let own = route("{name: api, port: 80}");
    written(Target::Cilium, &[&api, &own]).is_whole();
}

#[test]
fn a_mesh_of_the_gateway_api_has_no_policies() {
    let api = policy("p", "api", &format!("rules: [{{{WEB}}}]"));
    written(Target::Gateway, &[&api]).is_refused(&["has no policies"]);
}
