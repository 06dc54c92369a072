//! Strict mode over real sockets: a Service whose L7 policy nobody enforces refuses traffic, says why,
//! and counts; the waypoint stays ready, and other Services are served.

use cairn_conformance::app::App;
use cairn_conformance::client;
use cairn_conformance::lab::{Lab, Port, Reach};
use cairn_conformance::process;

use crate::manifests::DENY_ADMIN;

/// A policy on HTTP for pods: at L7 neither ztunnel nor a waypoint enforces it.
const BY_SELECTOR: &str = "\
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: no-admin, namespace: shop}
spec:
  action: DENY
  rules: [{to: [{operation: {paths: [/admin]}}]}]
";

const METRIC: &str = "cairn_l7_policy_unenforced";
const LABELS: &[&str] = &[
    "kind=\"AuthorizationPolicy\"",
    "reason=\"not_for_waypoint\"",
];

#[tokio::test]
async fn a_service_with_a_policy_that_nobody_enforces_refuses_in_strict_mode() {
    let mut lab = Lab::new();
    lab.service("web", &[Port::new("http", 80)]);
    let app = lab.pod("web", "web-a", Reach::Hbone, |at| App::http("a", at));
    lab.write("policy", BY_SELECTOR);
    lab.start_with(&["--strict"]).await;
    let pod = lab.client("shop/viewer").await;
    let web = pod.to("web", 80);

    let refused = client::get(web, "/").await;
    assert_eq!(refused.status(), 403);
    assert_eq!(app.requests(), 0);
    let cairn = lab.cairn();
    assert!(cairn.is_ready().await);
    let line = cairn
        .logged("the refusal", |line| line["path"] == "/")
        .await;
    assert_eq!(line["policy"], "AuthorizationPolicy/shop/no-admin");
    let reason = line["reason"].as_str().unwrap_or_default();
    assert!(reason.contains("strict mode"), "{line}");
    cairn.metric_reaches(METRIC, LABELS, 1.0).await;

    // Once it is written so that it is enforced, the service is served.
    lab.write("policy", DENY_ADMIN);
    process::until("the policy is enforced", async || {
        lab.cairn().metric(METRIC, LABELS).await == 0.0
    })
    .await;
    assert_eq!(client::get(web, "/").await.status(), 200);
    assert_eq!(client::get(web, "/admin").await.status(), 403);
}

#[tokio::test]
async fn without_strict_mode_it_goes_on_and_is_counted() {
    let mut lab = Lab::new();
    lab.service("web", &[Port::new("http", 80)]);
    let _app = lab.pod("web", "web-a", Reach::Hbone, |at| App::http("a", at));
    lab.write("policy", BY_SELECTOR);
    lab.start().await;
    let pod = lab.client("shop/viewer").await;
    assert_eq!(client::get(pod.to("web", 80), "/admin").await.status(), 200);
    lab.cairn().metric_reaches(METRIC, LABELS, 1.0).await;
}
