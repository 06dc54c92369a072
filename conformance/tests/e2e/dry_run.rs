//! What is tried and what is audited, over real sockets: told in the access log and in metrics, and
//! never a changed answer. And what a denial says to the client if it is asked for.

use cairn_conformance::app::App;
use cairn_conformance::client::{self, Connection};
use cairn_conformance::lab::{Lab, Port, Reach};

const POLICIES: &str = "\
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: readers, namespace: shop}
spec:
  targetRefs: [{group: \"\", kind: Service, name: web}]
  rules: [{to: [{operation: {methods: [GET]}}]}]
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: no-reports, namespace: shop, annotations: {cairn.dev/dry-run: \"true\"}}
spec:
  targetRefs: [{group: \"\", kind: Service, name: web}]
  action: DENY
  rules: [{to: [{operation: {paths: [\"/reports*\"]}}]}]
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: watch, namespace: shop}
spec:
  targetRefs: [{group: \"\", kind: Service, name: web}]
  action: AUDIT
  rules:
  - to: [{operation: {paths: [/nowhere]}}]
  - to: [{operation: {paths: [\"/reports*\"]}}]
";

async fn lab(flags: &[&str]) -> (Lab, App) {
    let mut lab = Lab::new();
    lab.service("web", &[Port::new("http", 80)]);
    let app = lab.pod("web", "web-a", Reach::Hbone, |at| App::http("a", at));
    lab.write("policies", POLICIES);
    lab.start_with(flags).await;
    (lab, app)
}

/// Status and body.
async fn curl(method: &str, url: &str) -> (String, String) {
    let arguments = ["--request", method, "--write-out", "\n%{http_code}", url];
    let (code, out, err) = client::curl(&arguments).await;
    assert_eq!(code, Some(0), "{out}{err}");
    let (body, status) = out.rsplit_once('\n').unwrap();
    (status.to_owned(), body.to_owned())
}

#[tokio::test]
async fn what_is_tried_and_audited_is_told_and_changes_no_answer() {
    let (lab, app) = lab(&[]).await;
    let client = lab.client("shop/client").await;
    let to = client.to("web", 80);
    let (status, _) = curl("GET", &format!("http://{to}/reports/1")).await;
    assert_eq!(status, "200");
    assert_eq!(app.requests(), 1);
    let cairn = lab.cairn();
    let line = cairn
        .logged("/reports/1", |line| line["path"] == "/reports/1")
        .await;
    assert_eq!(line["verdict"], "allow");
    assert_eq!(line["dry_run_verdict"], "deny");
    let policy = "AuthorizationPolicy/shop/no-reports";
    assert_eq!(line["dry_run_policy"], policy);
    assert_eq!(line["dry_run_rule"], 0);
    let said = serde_json::json!([{"policy": policy, "rule": 0, "would": "deny"}]);
    assert_eq!(line["dry_run"], said);
    let hit = serde_json::json!([{"policy": "AuthorizationPolicy/shop/watch", "rule": 1}]);
    assert_eq!(line["audit"], hit);

    let (status, body) = curl("PUT", &format!("http://{to}/")).await;
    assert_eq!((&*status, &*body), ("403", "RBAC: access denied"));
    for (name, labels, count) in [
        (
            "cairn_policy_verdicts_total",
            vec![
                r#"policy="AuthorizationPolicy/shop/readers""#,
                r#"rule="0""#,
                r#"outcome="allow""#,
            ],
            1.0,
        ),
        (
            "cairn_policy_verdicts_total",
            vec![r#"policy="default""#, r#"outcome="deny""#],
            1.0,
        ),
        (
            "cairn_policy_dry_run_total",
            vec![
                r#"policy="AuthorizationPolicy/shop/no-reports""#,
                r#"rule="0""#,
                r#"outcome="deny""#,
            ],
            1.0,
        ),
        (
            "cairn_policy_dry_run_verdicts_total",
            vec![r#"outcome="deny""#, r#"enforced="allow""#],
            1.0,
        ),
        (
            "cairn_policy_audit_total",
            vec![r#"policy="AuthorizationPolicy/shop/watch""#, r#"rule="1""#],
            1.0,
        ),
    ] {
        cairn.metric_reaches(name, &labels, count).await;
        assert_eq!(
            cairn.metric(name, &labels).await,
            count,
            "{name} {labels:?}"
        );
    }
}

#[tokio::test]
async fn a_denial_says_why_to_the_client_only_if_it_is_asked_to() {
    let (lab, _app) = lab(&["--explain-denials"]).await;
    let client = lab.client("shop/client").await;
    let to = client.to("web", 80);
    let (status, body) = curl("PUT", &format!("http://{to}/")).await;
    assert_eq!(status, "403");
    assert_eq!(
        body,
        "RBAC: access denied: by default: no ALLOW rule matches, nearest allow is \
         AuthorizationPolicy/shop/readers rule 0: method PUT is not GET\n"
    );
    let mut connection = Connection::http2(to).await;
    let request = http::Request::post("http://web.shop/pkg.Service/Call")
        .header("content-type", "application/grpc")
        .body(http_body_util::Full::default())
        .unwrap();
    let answer = connection.send(request).await.unwrap();
    assert_eq!(answer.headers()["grpc-status"], "7");
    let message = answer.headers()["grpc-message"].to_str().unwrap();
    // Clients undo the percent-encoding of a message.
    let message = message.replace("%20", " ");
    assert!(
        message.starts_with("RBAC: access denied: by default"),
        "{message}"
    );
    assert!(message.ends_with("method POST is not GET"), "{message}");
}
