//! `cairn translate` as a program: Istio's objects as Cilium's and back (specs/policies.md 1.7, Y28), what it says
//! is lost, and that what it writes judges requests as before.

// A panic here is a failed test.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

use std::fs;
use std::process::{Command, Output};

use cairn_conformance::workspace;
use serde_json::{Value, json};

/// Clients, and the Services `api` (80 and 9090 before 8080 and 9090), `orders` and `db` of namespace `shop`.
const MESH: &str = "conformance/golden/mesh/pods.yaml";

/// What the frontend and Prometheus may do; the same in both languages.
const ISTIO: &str = r#"
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: api, namespace: shop}
spec:
  targetRefs: [{group: "", kind: Service, name: api}]
  action: ALLOW
  rules:
  - from: [{source: {principals: [cluster.local/ns/shop/sa/frontend]}}]
    to: [{operation: {methods: [GET, POST], paths: [/api/v1/*, /healthz], ports: ["80"]}}]
  - from: [{source: {principals: [cluster.local/ns/monitoring/sa/prometheus]}}]
    to: [{operation: {methods: [GET], paths: [/metrics], ports: ["9090"]}}]
"#;

fn run(to: &str, objects: &str, format: &str) -> Output {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("objects.yaml");
    fs::write(&file, objects).unwrap();
    Command::new(workspace::cairn())
        .current_dir(workspace::root())
        .args(["translate", "--to", to, "-o", format, MESH])
        .arg(&file)
        .output()
        .unwrap()
}

/// Exit code and what `-o json` says.
fn translate(to: &str, objects: &str) -> (i32, Value) {
    let output = run(to, objects, "json");
    let report = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)));
    (output.status.code().unwrap(), report)
}

fn effects(report: &Value) -> Vec<(String, String)> {
    let losses = report["losses"].as_array().unwrap().iter();
    let text = |loss: &Value, key: &str| loss[key].as_str().unwrap().to_owned();
    losses
        .map(|loss| (text(loss, "effect"), text(loss, "path")))
        .collect()
}

fn as_text(objects: &Value) -> String {
    let documents = objects.as_array().unwrap().iter().map(Value::to_string);
    documents.collect::<Vec<String>>().join("\n---\n")
}

#[test]
fn an_authorization_policy_becomes_a_network_policy_that_judges_alike_and_back() {
    let (code, there) = translate("cilium", ISTIO);
    assert_eq!(there["losses"], json!([]));
    let policy = &there["objects"][0];
    assert_eq!(policy["kind"], "CiliumNetworkPolicy");
    assert_eq!(
        policy["spec"]["endpointSelector"],
        json!({"matchLabels": {"app": "api"}})
    );
    assert_eq!(
        policy["spec"]["ingress"][0],
        json!({
            "fromEndpoints": [{"matchLabels": {
                "k8s:io.kubernetes.pod.namespace": "shop",
                "k8s:io.cilium.k8s.policy.serviceaccount": "frontend",
            }}],
            "toPorts": [{
                "ports": [{"port": "8080", "protocol": "TCP"}],
                "rules": {"http": [
                    {"method": "GET|POST", "path": "/api/v1/.*"},
                    {"method": "GET|POST", "path": r"/healthz(\?.*)?"},
                ]},
            }],
        })
    );
    assert_eq!(there["replaced"], json!(["AuthorizationPolicy/shop/api"]));
    let comparison = &there["comparison"];
    assert!(
        comparison["compared"].as_u64().unwrap() > 50,
        "{comparison}"
    );
    assert_eq!(comparison["denied_now"], 0, "{comparison}");
    assert_eq!(comparison["allowed_now"], 0, "{comparison}");
    assert_eq!(code, 0);

    let (code, back) = translate("istio", &as_text(&there["objects"]));
    assert_eq!((code, &back["losses"]), (0, &json!([])));
    assert_eq!(
        back["objects"][0]["spec"]["rules"],
        json!([
            {
                "from": [{"source": {"principals": ["cluster.local/ns/shop/sa/frontend"]}}],
                "to": [
                    {"operation": {"methods": ["GET", "POST"], "paths": ["/api/v1/*"], "ports": ["80"]}},
                    {"operation": {"methods": ["GET", "POST"], "paths": ["/healthz"], "ports": ["80"]}},
                ],
            },
            {
                "from": [{"source": {"principals": ["cluster.local/ns/monitoring/sa/prometheus"]}}],
                "to": [{"operation": {"methods": ["GET"], "paths": ["/metrics"], "ports": ["9090"]}}],
            },
        ])
    );
}

/// Labels are no identities: they become the service account of the pods that have them, if all of its pods do.
#[test]
fn labels_of_peers_become_the_service_accounts_of_their_pods() {
    let policy = |label: &str| {
        format!(
            r#"{{apiVersion: cilium.io/v2, kind: CiliumNetworkPolicy, metadata: {{name: orders, namespace: shop}},
            spec: {{endpointSelector: {{matchLabels: {{app: orders}}}}, ingress: [
            {{fromEndpoints: [{{matchLabels: {{{label}}}}}], toPorts: [{{ports: [{{port: "8080", protocol: TCP}}]}}]}}]}}}}"#
        )
    };
    let (code, known) = translate("istio", &policy("app: frontend"));
    let rules = &known["objects"][0]["spec"]["rules"];
    assert_eq!(
        rules[0]["from"][0]["source"]["principals"],
        json!(["cluster.local/ns/shop/sa/frontend"])
    );
    assert_eq!(code, 0, "{known}");

    let (code, unknown) = translate("istio", &policy("app: stranger"));
    let at = "spec.ingress[0].fromEndpoints[0]".to_owned();
    assert_eq!(effects(&unknown), [("stricter".to_owned(), at)]);
    // Nobody, and not everybody.
    assert_eq!(unknown["objects"][0]["spec"].get("rules"), None);
    assert_eq!(unknown["comparison"]["allowed_now"], 0);
    assert_eq!(code, 1);
}

/// Cilium looks at the query and Istio does not (specs/policies.md 2.1.5), which is told, not hidden.
#[test]
fn what_would_allow_more_is_called_wider() {
    let policy = r#"{apiVersion: cilium.io/v2, kind: CiliumNetworkPolicy, metadata: {name: orders, namespace: shop},
        spec: {endpointSelector: {matchLabels: {app: orders}}, ingress: [
        {fromEndpoints: [{matchLabels: {app: frontend}}], toPorts: [{ports: [{port: "8080", protocol: TCP}],
        rules: {http: [{method: GET, path: /orders}, {method: GET, path: "/orders/[0-9]+"}]}}]}]}}"#;
    let (code, report) = translate("istio", policy);
    let at = |index| format!("spec.ingress[0].toPorts[0].rules.http[{index}].path");
    assert_eq!(
        effects(&report),
        [("stricter".to_owned(), at(1)), ("wider".to_owned(), at(0))]
    );
    assert_eq!(code, 1);
}

#[test]
fn what_can_not_be_left_out_stays() {
    for (objects, path) in [
        (
            "action: DENY, rules: [{to: [{operation: {paths: [/admin]}}]}]",
            "spec",
        ),
        ("action: AUDIT, rules: [{}]", "spec"),
    ] {
        let policy = format!(
            r#"{{apiVersion: security.istio.io/v1, kind: AuthorizationPolicy, metadata: {{name: p, namespace: shop}},
            spec: {{targetRefs: [{{group: "", kind: Service, name: api}}], {objects}}}}}"#
        );
        let (code, report) = translate("cilium", &policy);
        assert_eq!(report["objects"], json!([]), "{report}");
        assert_eq!(
            effects(&report),
            [("not-translated".to_owned(), path.to_owned())]
        );
        assert_eq!(code, 1);
    }
    // A rule that asks what Cilium can not ask allows nothing; the others hold.
    let partly = ISTIO.replace("metrics]", "metrics], notMethods: [PUT]");
    let (code, report) = translate("cilium", &partly);
    let at = "spec.rules[1].to[0].operation".to_owned();
    assert_eq!(effects(&report), [("stricter".to_owned(), at)]);
    assert_eq!(
        report["objects"][0]["spec"]["ingress"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
    assert_eq!(report["comparison"]["allowed_now"], 0);
    assert_ne!(report["comparison"]["denied_now"], 0);
    assert_eq!(code, 1);
}

#[test]
fn a_canary_keeps_its_weights_on_the_way_there_and_back() {
    let canary = r#"
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: canary, namespace: shop}
spec:
  hosts: [orders]
  http:
  - match: [{uri: {prefix: /old/}, headers: {x-user: {regex: "a.*"}}}]
    redirect: {uri: /new/, redirectCode: 308}
  - timeout: 2s
    retries: {attempts: 3, perTryTimeout: 500ms, retryOn: "5xx,reset"}
    route:
    - {destination: {host: orders, port: {number: 8080}}, weight: 90}
    - {destination: {host: api, port: {number: 80}}, weight: 10, headers: {request: {set: {x-canary: "1"}}}}
"#;
    let (code, there) = translate("cilium", canary);
    assert_eq!(there["losses"], json!([]));
    let config = &there["objects"][0];
    assert_eq!(config["kind"], "CiliumEnvoyConfig");
    let route = &config["spec"]["resources"][1]["virtualHosts"][0]["routes"][1]["route"];
    assert_eq!(route["weightedClusters"]["clusters"][0]["weight"], 90);
    assert_eq!(
        route["weightedClusters"]["clusters"][1]["name"],
        "shop/api:80"
    );
    assert_eq!(
        there["comparison"]["elsewhere"], 0,
        "{}",
        there["comparison"]
    );
    assert_eq!((code, &there["comparison"]["errors"]), (0, &json!([])));

    let (code, back) = translate("istio", &as_text(&there["objects"]));
    assert_eq!(
        (code, &back["losses"]),
        (0, &json!([])),
        "{}",
        back["comparison"]
    );
    let http = &back["objects"][0]["spec"]["http"];
    assert_eq!(
        http[0]["redirect"],
        json!({"uri": "/new/", "redirectCode": 308})
    );
    assert_eq!(http[1]["timeout"], "2000ms");
    assert_eq!(http[1]["route"][0]["weight"], 90);
    assert_eq!(
        http[1]["route"][1]["headers"],
        json!({"request": {"set": {"x-canary": "1"}}})
    );
}

/// Objects on stdout, ready for `kubectl apply`; all that is for people on stderr.
#[test]
fn what_is_printed_can_be_applied() {
    let output = run("cilium", ISTIO, "text");
    let text = String::from_utf8(output.stdout).unwrap();
    let object: Value = serde_saphyr::from_str(&text).unwrap();
    assert_eq!(object["apiVersion"], "cilium.io/v2");
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(
        told.starts_with("1 object written for 1 object; of "),
        "{told}"
    );
    assert!(
        told.ends_with("0 denied that were not, 0 allowed that were not, 0 led elsewhere\n"),
        "{told}"
    );
}
