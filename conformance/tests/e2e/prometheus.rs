//! A real Prometheus scrapes the waypoint, and the queries of Kiali's graph, of Istio's and Hubble's
//! dashboards find what they look for (specs/istio-waypoint.md 5.3, specs/policies.md 3.5, 3.6).

use std::io::Write as _;
use std::process::{Command, Stdio};

use cairn_conformance::app::App;
use cairn_conformance::client;
use cairn_conformance::lab::{Lab, Port, Reach};
use cairn_conformance::prometheus::{Prometheus, program};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const DENY_ADMIN: &str = "\
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: no-admin, namespace: shop}
spec:
  targetRefs: [{group: \"\", kind: Service, name: web}]
  action: DENY
  rules: [{to: [{operation: {paths: [/admin]}}]}]
";

/// What Kiali's graph groups requests by (specs/policies.md 3.6).
const KIALI: &str = "source_cluster,source_workload_namespace,source_workload,source_canonical_service,\
    source_canonical_revision,destination_cluster,destination_service_namespace,destination_service,\
    destination_service_name,destination_workload_namespace,destination_workload,\
    destination_canonical_service,destination_canonical_revision,request_protocol,response_code,\
    grpc_response_status,response_flags";

/// `web` answers, `/admin` is denied, `db` echoes; and the traffic of one round.
async fn mix(lab: &Lab, client: &cairn_conformance::lab::Client) {
    client::get(client.to("web", 80), "/fine").await;
    client::get(client.to("web", 80), "/admin").await;
    let mut stream = TcpStream::connect(client.to("db", 5432)).await.unwrap();
    stream.write_all(b"hello").await.unwrap();
    stream.read_exact(&mut [0; 5]).await.unwrap();
    drop(stream);
    let closed = "istio_tcp_connections_closed_total";
    let before = lab.cairn().metric(closed, &[]).await;
    lab.cairn()
        .metric_reaches(closed, &[], before.max(1.0))
        .await;
}

async fn started() -> (Lab, [App; 2]) {
    let mut lab = Lab::new();
    lab.service("web", &[Port::new("http", 80)]);
    lab.service("db", &[Port::new("tcp", 5432)]);
    let web = lab.pod("web", "web-a", Reach::Hbone, |at| App::http("a", at));
    let db = lab.pod("db", "db-a", Reach::Hbone, App::tcp_echo);
    lab.write("policy", DENY_ADMIN);
    lab.start().await;
    (lab, [web, db])
}

#[tokio::test]
async fn kialis_graph_and_the_stock_dashboards_find_their_series() {
    let (lab, _apps) = started().await;
    let client = lab.client("shop/viewer").await;
    mix(&lab, &client).await;
    let prometheus = Prometheus::start(lab.cairn().metrics, lab.folder()).await;
    let once = "istio_requests_total{reporter=\"waypoint\",response_code=\"200\"}";
    prometheus.shows(once, |found| !found.is_empty()).await;
    mix(&lab, &client).await;

    let graph = format!(
        "sum(rate(istio_requests_total{{reporter=~\"waypoint|source\",\
         destination_service_namespace=\"shop\"}}[60s])) by ({KIALI}) > 0"
    );
    let edges = prometheus.shows(&graph, |found| found.len() == 2).await;
    for (labels, _) in &edges {
        for label in KIALI
            .split(',')
            .filter(|label| *label != "grpc_response_status")
        {
            assert!(labels[label].is_string(), "no {label} in {labels}");
        }
        assert_eq!(labels["destination_service"], "web.shop.svc.cluster.local");
    }
    let denied = edges
        .iter()
        .find(|(labels, _)| labels["response_code"] == "403");
    assert_eq!(denied.unwrap().0["destination_workload"], "unknown");

    for query in [
        // Kiali's TCP edges; Istio's dashboards by service and workload.
        "sum(rate(istio_tcp_sent_bytes_total{reporter=~\"waypoint|source\",app!=\"ztunnel\"}[60s])) \
         by (source_workload,destination_service,destination_workload) > 0",
        "sum(rate(istio_tcp_connections_opened_total{reporter=\"waypoint\"}[60s])) by (destination_service) > 0",
        "sum(irate(istio_requests_total{reporter=~\"source|waypoint\",response_code!~\"5.*\",\
         destination_service=~\"web.*\"}[60s]))",
        "histogram_quantile(0.95, sum(rate(istio_request_duration_milliseconds_bucket{reporter=~\
         \"source|waypoint\"}[60s])) by (le, destination_service)) > 0",
        "sum(rate(istio_response_bytes_sum{connection_security_policy=\"mutual_tls\"}[60s])) > 0",
        // Hubble's dashboard of HTTP by workload.
        "sum(rate(hubble_http_requests_total{reporter=\"server\",status=\"200\"}[60s])) \
         by (method, source_workload, destination_workload) > 0",
        "histogram_quantile(0.99, sum(rate(hubble_http_request_duration_seconds_bucket[60s])) by (le)) > 0",
        "sum(rate(cairn_policy_verdicts_total{outcome=\"deny\",policy=\"AuthorizationPolicy/shop/no-admin\"}[60s])) > 0",
    ] {
        prometheus.shows(query, |found| !found.is_empty()).await;
    }
}

/// 3 is its status for names that it would have chosen otherwise, which are Istio's.
#[tokio::test]
async fn promtool_reads_every_line_of_a_scrape() {
    let (lab, _apps) = started().await;
    let client = lab.client("shop/viewer").await;
    mix(&lab, &client).await;
    let page = lab.cairn().metrics().await;
    let mut promtool = Command::new(program("promtool"))
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut to = promtool.stdin.take().unwrap();
    to.write_all(page.as_bytes()).unwrap();
    drop(to);
    let output = promtool.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(matches!(output.status.code(), Some(0 | 3)), "{said}");
    assert!(!said.contains("cairn_"), "of our own names: {said}");
}
