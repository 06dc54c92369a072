//! Flow records over Hubble's API, asked by a client that was generated from the protocol's public
//! definition (specs/policies.md 3.2 to 3.4), and by `cairn observe`.

use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Command, Stdio};

use cairn_conformance::app::App;
use cairn_conformance::client;
use cairn_conformance::lab::{Lab, Port, Reach};
use cairn_conformance::{net, workspace};
use http::Method;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const POLICIES: &str = "\
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: no-admin, namespace: shop}
spec:
  targetRefs: [{group: \"\", kind: Service, name: web}]
  action: DENY
  rules: [{to: [{operation: {paths: [/admin]}}]}]
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: readers, namespace: shop}
spec:
  targetRefs: [{group: \"\", kind: Service, name: web}]
  rules: [{to: [{operation: {methods: [GET]}}]}]
";

/// A waypoint with a web service and a database, after: `GET /fine`, `GET /admin` (denied by a rule),
/// `POST /fine` (allowed by none), and a TCP stream.
struct Shop {
    lab: Lab,
    hubble: SocketAddr,
    _apps: Vec<App>,
}

impl Shop {
    async fn open() -> Self {
        let mut lab = Lab::new();
        lab.service("web", &[Port::new("http", 80)]);
        let web = lab.pod("web", "web-a", Reach::Hbone, |at| App::http("a", at));
        lab.service("db", &[Port::new("tcp", 5432)]);
        let db = lab.pod("db", "db-a", Reach::Hbone, App::tcp_echo);
        lab.write("policies", POLICIES);
        let hubble = net::free_address(Ipv4Addr::LOCALHOST.into());
        lab.start_with(&["--hubble-addr", &hubble.to_string()])
            .await;
        let shop = Self {
            lab,
            hubble,
            _apps: vec![web, db],
        };
        shop.visit().await;
        shop
    }

    async fn visit(&self) {
        let pod = self.lab.client("shop/viewer").await;
        let web = pod.to("web", 80);
        client::get(web, "/fine?a=1&access_token=s3cret").await;
        client::get(web, "/admin").await;
        client::send(web, Method::POST, "/fine", &[("x-request-id", "r-1")], b"").await;
        let mut stream = TcpStream::connect(pod.to("db", 5432)).await.unwrap();
        stream.write_all(b"hello").await.unwrap();
        stream.shutdown().await.unwrap();
        stream.read_to_end(&mut Vec::new()).await.unwrap();
        let closed = [("istio_tcp_connections_closed_total", 1.0)];
        for (metric, value) in closed {
            self.lab.cairn().metric_reaches(metric, &[], value).await;
        }
    }

    /// Makes calls with the generated client; `None` without one.
    fn call(&self, calls: &[Value]) -> Option<(Vec<String>, Vec<Value>)> {
        let Some((python, generated)) = workspace::hubble_client() else {
            eprintln!(
                "skipped: no client of Hubble's API was generated (see conformance/setup.sh)"
            );
            return None;
        };
        let mut process = Command::new(python)
            .arg(workspace::root().join("conformance/apps/flows_client.py"))
            .arg(self.hubble.to_string())
            .env("PYTHONPATH", generated)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = process.stdin.take().unwrap();
        stdin
            .write_all(json!({"calls": calls}).to_string().as_bytes())
            .unwrap();
        drop(stdin);
        let output = process.wait_with_output().unwrap();
        assert!(output.status.success());
        let mut answer: Value = serde_json::from_slice(&output.stdout).unwrap();
        let fields = serde_json::from_value(answer["fields"].take()).unwrap();
        let answers = serde_json::from_value(answer["answers"].take()).unwrap();
        Some((fields, answers))
    }

    /// Runs `cairn observe` and gives its exit code, stdout and stderr.
    fn observe(&self, flags: &[&str]) -> (Option<i32>, String, String) {
        let output = Command::new(workspace::cairn())
            .arg("observe")
            .args(flags)
            .env("HUBBLE_SERVER", self.hubble.to_string())
            .output()
            .unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (
            output.status.code(),
            text(output.stdout),
            text(output.stderr),
        )
    }
}

fn flows(filter: Value) -> Value {
    json!({"method": "GetFlows", "request": {"whitelist": [filter]}})
}

/// A field of a filter, a value that some flow has, and one that none has.
type Field = (&'static str, Value, Value);

/// The fields about ends, by values of this flow.
fn fields_of_ends(flow: &Value) -> Vec<Field> {
    let identity = |end: &str| flow[end]["identity"].clone();
    let text = |path: &str| flow.pointer(path).unwrap().as_str().unwrap().to_owned();
    let port = |end: &str| flow["l4"]["TCP"][end].to_string();
    vec![
        (
            "source_ip",
            json!([text("/IP/source")]),
            json!(["192.0.2.0/24"]),
        ),
        (
            "destination_ip",
            json!([text("/IP/destination")]),
            json!(["192.0.2.1"]),
        ),
        ("source_pod", json!(["shop/"]), json!(["other/"])),
        (
            "destination_pod",
            json!(["shop/web-"]),
            json!(["shop/nobody"]),
        ),
        ("source_fqdn", json!(["web.shop.*"]), json!(["*.com"])),
        ("destination_fqdn", json!(["web.shop.*"]), json!(["*.com"])),
        (
            "source_label",
            json!(["k8s:io.kubernetes.pod.namespace=shop"]),
            json!(["app=none"]),
        ),
        (
            "destination_label",
            json!(["io.kubernetes.pod.namespace in (shop)"]),
            json!(["!io.kubernetes.pod.namespace"]),
        ),
        (
            "source_service",
            json!(["shop/web"]),
            json!(["shop/nobody"]),
        ),
        ("destination_service", json!(["shop/we"]), json!(["other/"])),
        (
            "source_workload",
            json!([{"name": "web-a"}]),
            json!([{"name": "nobody"}]),
        ),
        (
            "destination_workload",
            json!([{"name": "web-a"}]),
            json!([{"kind": "Nothing"}]),
        ),
        (
            "source_cluster_name",
            json!(["default"]),
            json!(["elsewhere"]),
        ),
        (
            "destination_cluster_name",
            json!(["default"]),
            json!(["elsewhere"]),
        ),
        ("source_port", json!([port("source_port")]), json!(["1"])),
        (
            "destination_port",
            json!([port("destination_port")]),
            json!(["1"]),
        ),
        ("source_identity", json!([identity("source")]), json!([1])),
        (
            "destination_identity",
            json!([identity("destination")]),
            json!([1]),
        ),
        ("source_ip_xlated", Value::Null, json!(["10.0.0.1"])),
    ]
}

/// All others.
fn other_fields(flow: &Value) -> Vec<Field> {
    let text = |path: &str| flow.pointer(path).unwrap().as_str().unwrap().to_owned();
    vec![
        ("uuid", json!([text("/uuid")]), json!(["none"])),
        ("traffic_direction", json!(["INGRESS"]), json!(["EGRESS"])),
        ("verdict", json!(["DROPPED"]), json!(["TRACED"])),
        (
            "drop_reason_desc",
            json!(["POLICY_DENY"]),
            json!(["AUTH_REQUIRED"]),
        ),
        ("interface", Value::Null, json!([{"name": "eth0"}])),
        ("event_type", json!([{"type": 129}]), json!([{"type": 2}])),
        ("http_status_code", json!(["5xx", "40+"]), json!(["5+"])),
        ("protocol", json!(["http"]), json!(["udp"])),
        ("reply", json!([true]), Value::Null),
        ("dns_query", Value::Null, json!(["."])),
        ("http_method", json!(["post"]), json!(["PUT"])),
        ("http_path", json!(["^/adm"]), json!(["nothing"])),
        ("http_url", json!(["/fine\\?"]), json!(["^https"])),
        (
            "http_header",
            json!([{"key": "x-request-id", "value": "r-1"}]),
            json!([{"key": "cookie", "value": ""}]),
        ),
        ("tcp_flags", json!([{"SYN": true}]), json!([{"URG": true}])),
        ("node_name", json!([text("/node_name")]), json!(["nowhere"])),
        ("node_labels", Value::Null, json!(["a=b"])),
        ("ip_version", json!(["IPv4"]), json!(["IPv6"])),
        (
            "trace_id",
            Value::Null,
            json!(["0af7651916cd43dd8448eb211c80319c"]),
        ),
        ("ip_trace_id", Value::Null, json!(["1"])),
        ("encrypted", json!([true]), json!([false])),
    ]
}

/// Refused rather than half evaluated.
const NOT_EVALUATED: &str = "experimental";

#[tokio::test]
async fn a_generated_client_gets_flows_by_every_filter() {
    let shop = Shop::open().await;
    let everything = json!({"method": "GetFlows", "request": {}});
    let Some((names, answers)) = shop.call(&[everything]) else {
        return;
    };
    let all: Vec<Value> = messages(&answers[0]);
    let summary = |flow: &Value| {
        flow["flow"]["Summary"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    };
    let summaries: Vec<String> = all.iter().map(summary).collect();
    // Three flows for each request, and three for the stream.
    assert_eq!(all.len(), 12, "{summaries:#?}");
    let fine = "http://web.shop/fine?a=1&access_token=HUBBLE_REDACTED";
    assert_eq!(summaries[1], format!("HTTP/1.1 GET {fine}"));
    assert!(
        summaries[2].starts_with("HTTP/1.1 200 ")
            && summaries[2].ends_with(&format!("(GET {fine})"))
    );
    let denied = &all[4]["flow"];
    assert_eq!(denied["verdict"], "DROPPED");
    assert_eq!(denied["drop_reason_desc"], "POLICY_DENY");
    assert_eq!(denied["ingress_denied_by"][0]["name"], "no-admin");
    assert_eq!(
        denied["ingress_denied_by"][0]["kind"],
        "AuthorizationPolicy"
    );
    assert_eq!(all[7]["flow"]["drop_reason_desc"], "POLICY_DENIED");
    assert_eq!(all[9]["flow"]["event_type"]["type"], 5);
    assert_eq!(summaries[10], "TCP Flags: SYN");

    let mut fields = fields_of_ends(&all[1]["flow"]);
    fields.extend(other_fields(&all[1]["flow"]));
    for name in names.iter().filter(|name| *name != NOT_EVALUATED) {
        assert!(
            fields.iter().any(|(field, ..)| field == name),
            "{name} is not tried"
        );
    }
    let mut calls = Vec::new();
    let mut expected = Vec::new();
    for (field, some, none) in &fields {
        if !some.is_null() {
            calls.push(flows(json!({*field: some})));
            expected.push((field, true));
        }
        if !none.is_null() {
            calls.push(flows(json!({*field: none})));
            expected.push((field, false));
        }
    }
    let (_, answers) = shop.call(&calls).unwrap();
    for ((field, some), answer) in expected.iter().zip(&answers) {
        let got = messages(answer).len();
        assert_eq!(got > 0, *some, "{field}: {answer}");
        assert!(
            got < all.len()
                || [
                    "source_pod",
                    "source_label",
                    "source_cluster_name",
                    "traffic_direction",
                    "ip_version",
                    "encrypted",
                    "node_name",
                    "source_identity",
                    "destination_label",
                    "destination_cluster_name"
                ]
                .contains(field),
            "{field} leaves nothing out"
        );
    }
}

fn messages(answer: &Value) -> Vec<Value> {
    serde_json::from_value(answer["messages"].clone()).unwrap_or_else(|_| panic!("{answer}"))
}

#[tokio::test]
async fn status_nodes_namespaces_and_refusals() {
    let shop = Shop::open().await;
    let plain = |method: &str| json!({"method": method, "request": {}});
    let last =
        json!({"method": "GetFlows", "request": {"number": "2", "blacklist": [{"reply": [true]}]}});
    let both = json!({"method": "GetFlows", "request": {"first": true, "follow": true}});
    let cel = flows(json!({"experimental": {"cel_expression": ["true"]}}));
    let calls = [
        plain("ServerStatus"),
        plain("GetNodes"),
        plain("GetNamespaces"),
        last,
        both,
        flows(json!({"protocol": ["quic"]})),
        flows(json!({"http_method": ["GET"], "event_type": [{"type": 4}]})),
        cel,
        plain("GetDebugEvents"),
    ];
    let Some((_, answers)) = shop.call(&calls) else {
        return;
    };
    let status = &answers[0]["messages"][0];
    assert_eq!(status["num_flows"], "12");
    assert_eq!(status["seen_flows"], "12");
    assert_eq!(status["max_flows"], "12288");
    assert_eq!(status["num_connected_nodes"], 1);
    assert_eq!(answers[0]["metadata"]["hubble-server-version"], "1.19.4");
    assert_eq!(
        answers[1]["messages"][0]["nodes"][0]["state"],
        "NODE_CONNECTED"
    );
    assert_eq!(
        answers[2]["messages"][0]["namespaces"],
        json!([{"cluster": "default", "namespace": "shop"}])
    );
    assert_eq!(messages(&answers[3]).len(), 2);
    for refused in &answers[4..8] {
        assert_eq!(refused["code"], "INVALID_ARGUMENT", "{refused}");
    }
    assert_eq!(answers[8]["code"], "UNIMPLEMENTED");
}

#[tokio::test]
async fn cairn_observe_shows_who_denied() {
    let shop = Shop::open().await;
    let (code, shown, _) = shop.observe(&["--verdict", "DROPPED", "--type", "policy-verdict"]);
    assert_eq!(code, Some(0));
    let lines: Vec<&str> = shown.lines().collect();
    assert_eq!(lines.len(), 2, "{shown}");
    assert!(
        lines[0].contains(" DENIED BY shop/no-admin (AuthorizationPolicy) ("),
        "{shown}"
    );
    assert!(
        lines[1].contains("policy-verdict:none INGRESS DENIED ("),
        "{shown}"
    );

    let (_, shown, _) = shop.observe(&[
        "--http-status",
        "403",
        "-o",
        "json",
        "--to-port",
        "80",
        "--port",
        "80",
    ]);
    assert_eq!(shown, "", "responses come from the port");
    let (_, shown, _) = shop.observe(&["--http-status", "403", "-o", "json"]);
    for line in shown.lines() {
        let response: Value = serde_json::from_str(line).unwrap();
        assert_eq!(response["flow"]["l7"]["http"]["code"], 403);
    }
    assert_eq!(shown.lines().count(), 2);

    let (code, _, why) = shop.observe(&["--http-path", "("]);
    assert_eq!(code, Some(2), "{why}");
    let (code, _, why) = shop.observe(&["--server", "127.0.0.1:1"]);
    assert_eq!(code, Some(1));
    assert!(why.contains("--hubble-addr"), "{why}");
}
