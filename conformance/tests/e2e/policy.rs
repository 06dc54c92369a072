//! Policies over real sockets: one kind of rule after the other, HTTP and TCP.

use cairn_conformance::app::{App, BANNER, read_exactly};
use cairn_conformance::client::{self, Connection};
use cairn_conformance::lab::{Lab, Port, Reach};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const POLICIES: &str = "\
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: allow, namespace: shop}
spec:
  targetRefs: [{group: \"\", kind: Service, name: web}]
  rules:
  - from: [{source: {principals: [cluster.local/ns/shop/sa/viewer]}}]
    to: [{operation: {methods: [GET, HEAD]}}]
  - from: [{source: {namespaces: [partner]}}]
    to: [{operation: {paths: [\"/shared/{*}\"]}}]
  - when: [{key: \"request.headers[x-pass]\", values: [let-me-in]}]
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: deny, namespace: shop}
spec:
  targetRefs: [{group: \"\", kind: Service, name: web}]
  action: DENY
  rules:
  - to: [{operation: {paths: [\"/admin*\"]}}]
  - to: [{operation: {hosts: [\"forbidden.example\"]}}]
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: clerks, namespace: shop}
spec:
  targetRefs: [{group: \"\", kind: Service, name: db}]
  rules:
  - from: [{source: {serviceAccounts: [clerk]}}]
";

#[tokio::test]
async fn each_kind_of_rule_decides_and_is_named() {
    let mut lab = Lab::new();
    lab.service("web", &[Port::new("http", 80)]);
    let app = lab.pod("web", "web-a", Reach::Hbone, |at| App::http("a", at));
    lab.service("db", &[Port::new("tcp", 5432)]);
    lab.write("policies", POLICIES);
    lab.start().await;
    let viewer_pod = lab.client("shop/viewer").await;
    let partner_pod = lab.client("partner/sync").await;
    let viewer = viewer_pod.to("web", 80);
    let partner = partner_pod.to("web", 80);

    let table = [
        // (client, method, path, header, status, rule that decided)
        (viewer, "GET", "/x", "", 200, "allow"),
        (viewer, "POST", "/x", "", 403, ""),
        (viewer, "GET", "/admin/x", "", 403, "deny"),
        (viewer, "GET", "/%61dmin", "", 403, "deny"),
        (viewer, "GET", "//admin", "", 403, "deny"),
        (viewer, "GET", "/a/../admin", "", 403, "deny"),
        (viewer, "GET", "/a%2fadmin", "", 400, ""),
        (viewer, "POST", "/x", "x-pass: let-me-in", 200, "allow"),
        (viewer, "GET", "/x", "host: forbidden.example", 403, "deny"),
        (partner, "GET", "/shared/1", "", 200, "allow"),
        (partner, "GET", "/shared/1/2", "", 403, ""),
    ];
    for (to, method, path, header, status, policy) in table {
        let url = format!("http://{to}{path}");
        let mut arguments = vec![
            "--path-as-is",
            "--request",
            method,
            "--write-out",
            "\n%{http_code}",
        ];
        if !header.is_empty() {
            arguments.extend(["--header", header]);
        }
        arguments.push(&url);
        let (code, out, err) = client::curl(&arguments).await;
        let shown = format!("{method} {path} {header}: {out}{err}");
        assert_eq!(code, Some(0), "{shown}");
        let (body, found) = out.rsplit_once('\n').unwrap();
        assert_eq!(found, status.to_string(), "{shown}");
        if status == 403 {
            assert_eq!(body, "RBAC: access denied", "{shown}");
        }
        if !policy.is_empty() {
            let name = format!("AuthorizationPolicy/shop/{policy}");
            lab.cairn()
                .logged(&shown, |line| {
                    line["path"] == path
                        && line["method"] == method
                        && line["policy"] == name.as_str()
                })
                .await;
        }
    }
    assert_eq!(app.requests(), 3, "a denied request reaches no application");
}

#[tokio::test]
async fn a_denied_tcp_client_gets_no_byte() {
    let mut lab = Lab::new();
    lab.service("web", &[Port::new("http", 80)]);
    lab.service("db", &[Port::new("tcp", 5432)]);
    let app = lab.pod("db", "db-a", Reach::Hbone, App::server_first);
    lab.write("policies", POLICIES);
    lab.start().await;

    let clerk = lab.client("shop/clerk").await;
    let mut stream = TcpStream::connect(clerk.to("db", 5432)).await.unwrap();
    assert_eq!(read_exactly(&mut stream, BANNER.len()).await, BANNER);
    stream.write_all(b"select 1").await.unwrap();
    assert_eq!(read_exactly(&mut stream, 8).await, b"select 1");

    let intern = lab.client("shop/intern").await;
    let mut stream = TcpStream::connect(intern.to("db", 5432)).await.unwrap();
    let mut bytes = Vec::new();
    // Envoy resets or closes the application's connection; either way without a byte.
    let _ = stream.read_to_end(&mut bytes).await;
    assert_eq!(bytes, b"");
    assert_eq!(
        app.connections(),
        1,
        "the denied stream reaches no application"
    );
}

#[tokio::test]
async fn a_denied_grpc_call_gets_status_7() {
    let mut lab = Lab::new();
    lab.service("web", &[Port::new("http", 80)]);
    lab.service("db", &[Port::new("tcp", 5432)]);
    let _app = lab.pod("web", "web-a", Reach::Hbone, |at| App::http("a", at));
    lab.write("policies", POLICIES);
    lab.start().await;
    let client = lab.client("shop/viewer").await;
    let mut connection = Connection::http2(client.to("web", 80)).await;
    let request = http::Request::post("http://web.shop/pkg.Service/Call")
        .header("content-type", "application/grpc")
        .body(http_body_util::Full::default())
        .unwrap();
    let answer = connection.send(request).await.unwrap();
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.headers()["grpc-status"], "7");
}
