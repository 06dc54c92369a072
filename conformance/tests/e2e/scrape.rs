//! A scrape of many series beside traffic, and what operators are told of everything they asked for (issue 6
//! item 1).

use std::time::{Duration, Instant};

use cairn_conformance::app::App;
use cairn_conformance::client::{self, Connection};
use cairn_conformance::lab::{Client, Lab, Port, Reach};

/// Label sets: some 70 series each.
const CLIENTS: usize = 4;
const STATUSES: std::ops::Range<usize> = 200..560;

async fn started() -> (Lab, App) {
    let mut lab = Lab::new();
    lab.service("web", &[Port::new("http", 80)]);
    let app = lab.pod("web", "web-a", Reach::Hbone, |at| App::http("web", at));
    lab.start_with(&["--access-log", "off"]).await;
    (lab, app)
}

/// How long each of so many requests took, in order of time taken.
async fn times(client: &Client, count: usize) -> Vec<Duration> {
    let mut connection = Connection::http1(client.to("web", 80)).await;
    let mut times = Vec::with_capacity(count);
    for _ in 0..count {
        let began = Instant::now();
        assert_eq!(connection.get("/").await.unwrap().status(), 200);
        times.push(began.elapsed());
    }
    times.sort();
    times
}

fn p99(times: &mut [Duration]) -> Duration {
    times.sort();
    times[times.len() * 99 / 100]
}

/// Rounds with and without scrapes take turns, so that both see the same machine. The bound is for a loaded
/// machine and a debug build: a scrape that held a lock or a worker for as long as it takes would be far beyond.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_scrape_of_100_000_series_does_not_delay_requests() {
    let (lab, _app) = started().await;
    for number in 0..CLIENTS {
        let client = lab.client(&format!("shop/client-{number}")).await;
        let mut connection = Connection::http1(client.to("web", 80)).await;
        for status in STATUSES {
            let path = format!("/status/{status}");
            if connection.get(&path).await.is_err() {
                connection = Connection::http1(client.to("web", 80)).await;
            }
        }
    }
    let page = lab.cairn().metrics().await;
    let series = page.lines().filter(|line| !line.starts_with('#')).count();
    assert!(series >= 100_000, "{series} series");

    let client = lab.client("shop/viewer").await;
    let metrics = lab.cairn().metrics;
    let (mut quiet, mut scraped, mut scrapes) = (Vec::new(), Vec::new(), 0);
    for _ in 0..4 {
        quiet.extend(times(&client, 250).await);
        let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
        let stopped = stop.clone();
        let scraping = tokio::spawn(async move {
            let mut count = 0;
            while !stopped.load(std::sync::atomic::Ordering::Relaxed) {
                client::get(metrics, "/metrics").await;
                count += 1;
            }
            count
        });
        scraped.extend(times(&client, 250).await);
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        scrapes += scraping.await.unwrap();
    }
    let (quiet, scraped) = (p99(&mut quiet), p99(&mut scraped));
    println!("{series} series, {scrapes} scrapes: p99 {quiet:?} without, {scraped:?} with");
    assert!(scrapes >= 4);
    assert!(
        scraped < quiet * 5 + Duration::from_millis(50),
        "{quiet:?} without scrapes, {scraped:?} with"
    );
}

/// The metrics that the table in docs/telemetry.md answers an operator's questions with are all there after
/// a few requests, those that stay 0 too.
#[tokio::test]
async fn every_metric_that_operators_are_promised_is_there() {
    let mut lab = Lab::new();
    lab.service("web", &[Port::new("http", 80)]);
    let _app = lab.pod("web", "web-a", Reach::Hbone, |at| App::http("web", at));
    lab.write("objects", OBJECTS);
    lab.variable("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9");
    lab.start_with(&["--hubble-addr", "127.0.0.1:0"]).await;
    let client = lab.client("shop/viewer").await;
    let get = async |path: &str| client::get(client.to("web", 80), path).await.status();
    assert_eq!(get("/").await, 200);
    assert_eq!(get("/admin").await, 403);
    // Fails always: retried, then ejected.
    for _ in 0..3 {
        assert_eq!(get("/status/503").await, 503);
    }
    let page = lab.cairn().metrics().await;
    let docs =
        std::fs::read_to_string(cairn_conformance::workspace::root().join("docs/telemetry.md"));
    let docs = docs.unwrap();
    let table = docs.split("## Own metrics").nth(1).unwrap();
    let table = table.split("\n## ").next().unwrap();
    let promised: Vec<&str> = table
        .split('`')
        .filter(|w| w.starts_with("cairn_"))
        .collect();
    assert!(promised.len() >= 25, "{promised:?}");
    for name in promised {
        let has = |line: &str| {
            line.starts_with(&format!("{name}{{")) || line.starts_with(&format!("{name} "))
        };
        assert!(page.lines().any(has), "no {name} in\n{page}");
    }
}

const OBJECTS: &str = "\
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: web, namespace: shop}
spec:
  parentRefs: [{group: \"\", kind: Service, name: web}]
  rules:
  - retry: {attempts: 1, codes: [503]}
    backendRefs: [{name: web, port: 80}]
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: web, namespace: shop}
spec:
  host: web.shop.svc.cluster.local
  trafficPolicy:
    connectionPool: {http: {http2MaxRequests: 100}}
    outlierDetection: {consecutive5xxErrors: 2, interval: 10s, baseEjectionTime: 30s, maxEjectionPercent: 100}
---
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
metadata: {name: watched, namespace: shop}
spec:
  targetRefs: [{group: \"\", kind: Service, name: web}]
  action: AUDIT
  rules: [{}]
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: tried, namespace: shop, annotations: {istio.io/dry-run: \"true\"}}
spec:
  targetRefs: [{group: \"\", kind: Service, name: web}]
  action: DENY
  rules: [{to: [{operation: {paths: [/]}}]}]
";
