//! Telemetry objects in the running waypoint: access logs that are filtered and formatted, metrics with
//! other labels, changed while it runs (specs/istio-waypoint.md 4.11, 5.1, 5.5).

use cairn_conformance::app::App;
use cairn_conformance::client;
use cairn_conformance::lab::{Lab, Port, Reach};
use cairn_conformance::process;

const MESH: &str = "\
apiVersion: v1
kind: ConfigMap
metadata: {name: istio, namespace: istio-system}
data:
  mesh: |-
    extensionProviders:
    - name: short
      envoyFileAccessLog:
        path: /dev/stdout
        logFormat: {labels: {code: '%RESPONSE_CODE%', what: '%REQ(:METHOD)% %REQ(:PATH)%', tenant: '%REQ(X-TENANT)%'}}
";

const TELEMETRY: &str = "\
apiVersion: telemetry.istio.io/v1
kind: Telemetry
metadata: {name: web, namespace: shop}
spec:
  targetRefs: [{group: '', kind: Service, name: web}]
  accessLogging:
  - providers: [{name: short}]
    filter: {expression: 'response.code >= 400'}
  metrics:
  - overrides:
    - match: {metric: REQUEST_COUNT}
      tagOverrides:
        request_host: {value: request.host}
        source_app: {operation: REMOVE}
    - match: {metric: REQUEST_SIZE}
      disabled: true
";

const DENY_ADMIN: &str = "\
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: no-admin, namespace: shop}
spec:
  targetRefs: [{group: '', kind: Service, name: web}]
  action: DENY
  rules: [{to: [{operation: {paths: [/admin]}}]}]
";

#[tokio::test]
async fn a_telemetry_is_in_force_as_written_and_no_longer_than_it_is_there() {
    let mut lab = Lab::new();
    lab.service("web", &[Port::new("http", 80)]);
    let _app = lab.pod("web", "web-a", Reach::Hbone, |at| App::http("a", at));
    lab.write("providers", MESH);
    lab.write("policy", DENY_ADMIN);
    lab.write("telemetry", TELEMETRY);
    lab.start_with(&["--workers", "1"]).await;
    let client = lab.client("shop/viewer").await;
    client::get(client.to("web", 80), "/fine").await;
    client::get(client.to("web", 80), "/admin").await;
    let cairn = lab.cairn();
    let denied = cairn.logged("the denied one", |l| l["code"] == 403).await;
    assert_eq!(denied["what"], "GET /admin");
    assert!(denied["tenant"].is_null(), "{denied}");
    // One worker writes them in order, and the other one ended first.
    assert_eq!(cairn.access_log().len(), 1);

    let labels = ["request_host=\"web.shop\"", "response_code=\"200\""];
    cairn
        .metric_reaches("istio_requests_total", &labels, 1.0)
        .await;
    let page = cairn.metrics().await;
    let counted: Vec<&str> = page
        .lines()
        .filter(|l| l.starts_with("istio_requests_total{"))
        .collect();
    assert!(
        counted.iter().all(|line| !line.contains("source_app=")),
        "{counted:?}"
    );
    assert!(!page.contains("istio_request_bytes_count{"));
    assert!(page.contains("istio_response_bytes_count{"));

    let version = cairn.metric("cairn_snapshot_version", &[]).await;
    lab.remove("telemetry");
    let cairn = lab.cairn();
    process::until("the change is in force", async || {
        cairn.metric("cairn_snapshot_version", &[]).await > version
    })
    .await;
    client::get(client.to("web", 80), "/again").await;
    let line = cairn
        .logged("as by default", |l| l["path"] == "/again")
        .await;
    assert_eq!(line["verdict"], "allow");
}
