//! What the lints cost on large input.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use cairn_authz::lint::lint;
use cairn_config_schema::diagnostics::Code;

use crate::support::load;

const POLICIES: usize = 1_000;

/// A service with a pod, and policies on it of ten rules each, half of them DENY.
fn mesh() -> String {
    let mut yaml = "
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: waypoint, namespace: shop}
spec: {gatewayClassName: cairn-waypoint, listeners: [{name: mesh, port: 15008, protocol: HBONE}]}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop, labels: {istio.io/use-waypoint: waypoint}}
spec: {clusterIP: 10.96.1.1, selector: {app: web}, ports: [{name: http, port: 80}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: web-1, namespace: shop, labels: {kubernetes.io/service-name: web}}
addressType: IPv4
ports: [{name: http, port: 8080}]
endpoints: [{addresses: [10.244.1.7]}]
---
apiVersion: v1
kind: Pod
metadata: {name: web-1, namespace: shop, labels: {app: web}, annotations: {ambient.istio.io/redirection: enabled}}
spec: {containers: [{name: web, image: web, readinessProbe: {httpGet: {path: /healthz, port: 8080}}}]}
status: {podIP: 10.244.1.7}
".to_owned();
    for p in 0..POLICIES {
        let action = if p % 2 == 0 { "ALLOW" } else { "DENY" };
        let rules: Vec<String> = (0..10)
            .map(|r| format!("{{to: [{{operation: {{paths: [/p{p}/r{r}]}}}}]}}"))
            .collect();
        let rules = rules.join(", ");
        let _ = write!(
            yaml,
            "---\napiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {{name: p{p}, namespace: shop}}\nspec: {{action: {action}, targetRefs: [{{kind: Service, group: \"\", name: web}}], rules: [{rules}]}}\n"
        );
        let _ = write!(
            yaml,
            "---\napiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{name: n{p}, namespace: shop}}\nspec: {{podSelector: {{matchLabels: {{app: a{p}}}}}, policyTypes: [Egress]}}\n"
        );
    }
    yaml
}

/// A tenth of it in a release build; a debug build on a busy machine is allowed more.
#[test]
fn a_thousand_policies_of_ten_rules_are_linted_in_bounded_time() {
    let (resources, snapshot) = load(&mesh());
    let start = Instant::now();
    let found = lint(&resources, &snapshot);
    let taken = start.elapsed();
    assert!(taken < Duration::from_secs(20), "{taken:?}");
    let count = |code| found.iter().filter(|f| f.code == code).count();
    assert_eq!(count(Code::EgressWithoutDns), POLICIES);
    assert_eq!(count(Code::ProbeDenied), 1);
    // 25 million pairs of rules are more than are compared, which is said.
    let stopped = found
        .iter()
        .find(|f| f.code == Code::LimitExceeded)
        .unwrap();
    assert!(
        stopped.message.contains("shadowed-rule"),
        "{}",
        stopped.message
    );
}
