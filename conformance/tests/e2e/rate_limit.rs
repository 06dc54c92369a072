//! Limits that a service counts for all waypoints (issue 3, item 7): a real server of Envoy's rate limit
//! protocol, asked by Cairn and, the same, by real Envoy. What the service is told, what the client and
//! the application get, and what becomes of a request about which the service is silent.

use std::net::SocketAddr;

use cairn_conformance::app::{App, Echo};
use cairn_conformance::client::{Answer, Connection};
use cairn_conformance::envoy::CheckGate;
use cairn_conformance::hbone::Tls;
use cairn_conformance::lab::{Client, Lab, Port, Reach};
use cairn_conformance::process::Process;
use cairn_conformance::rate_limiter::RateLimiter;
use cairn_waypoint::external::limit_messages::RateLimitRequest;
use http::Request;
use http_body_util::Full;
use serde_json::json;

/// A waypoint with one application and one rate limit service behind it.
struct Limited {
    lab: Lab,
    service: RateLimiter,
    client: Client,
    app: App,
}

impl Limited {
    async fn start(more: &str) -> Self {
        let mut lab = Lab::new();
        lab.service("web", &[Port::new("http", 80)]);
        lab.service("limits", &[Port::new("grpc", 8081)]);
        let app = lab.pod("web", "web-a", Reach::Hbone, |at| App::http("a", at));
        let address = lab.free_address();
        let service = RateLimiter::start(address).await;
        lab.pod_at("limits", "limits-a", Reach::Plain, address);
        lab.write("limited", &policy(more));
        lab.start().await;
        let client = lab.client("shop/viewer").await;
        Self {
            lab,
            service,
            client,
            app,
        }
    }

    async fn get(&self, path: &str, tenant: &str) -> Answer {
        let mut connection = Connection::http2(self.client.to("web", 80)).await;
        connection.send(request(path, tenant)).await.unwrap()
    }
}

/// One descriptor with the tenant of the request, one that is always the same.
fn policy(more: &str) -> String {
    format!(
        "apiVersion: cairn.dev/v1alpha1
kind: TrafficPolicy
metadata: {{name: limited, namespace: shop}}
spec:
  targetRefs: [{{kind: Service, name: web}}]
  globalRateLimit:
    service: {{name: limits, port: 8081}}
    domain: shop
    descriptors:
    - entries:
      - {{key: tenant, from: {{type: Header, header: x-tenant}}}}
      - {{key: generic_key, value: web}}
{more}
"
    )
}

fn request(path: &str, tenant: &str) -> Request<Full<bytes::Bytes>> {
    let request = Request::get(format!("http://web.shop{path}"));
    let request = match tenant {
        "" => request,
        tenant => request.header("x-tenant", tenant),
    };
    request.body(Full::default()).unwrap()
}

/// Domain, and keys and values, as `shop: tenant=a generic_key=web`.
fn told(asked: &RateLimitRequest) -> String {
    let mut line = format!("{}:", asked.domain);
    for entry in asked.descriptors.iter().flat_map(|d| &d.entries) {
        line.push_str(&format!(" {}={}", entry.key, entry.value));
    }
    line
}

#[tokio::test]
async fn a_service_counts_and_its_answer_is_what_client_and_application_get() {
    let limited = Limited::start("    timeout: 10s").await;
    let within = limited.get("/within", "a").await;
    assert_eq!(within.status(), 200);
    assert_eq!(within.headers()["x-ratelimit-remaining"], "7");
    let echo: Echo = serde_json::from_slice(within.body()).unwrap();
    assert_eq!(echo.header("x-counted").as_deref(), Some("yes"));
    let asked = limited.service.asked();
    let asked: Vec<String> = asked.iter().map(told).collect();
    assert_eq!(asked, ["shop: tenant=a generic_key=web"]);

    let over = limited.get("/over", "over").await;
    assert_eq!(over.status(), 429);
    assert_eq!(over.headers()["x-envoy-ratelimited"], "true");
    assert_eq!(over.headers()["x-ratelimit-remaining"], "0");
    assert_eq!(over.body().as_ref(), b"come again");
    assert_eq!(limited.app.requests(), 1, "what is over reaches nobody");

    // Without the header there is nothing that is counted, and nobody is asked.
    assert_eq!(limited.get("/uncounted", "").await.status(), 200);
    assert_eq!(limited.service.asked().len(), 2);

    let cairn = limited.lab.cairn();
    let line = cairn.logged("/over", |line| line["path"] == "/over").await;
    assert_eq!(line["response_flags"], "RL");
    assert_eq!(line["response_code_details"], "request_rate_limited");
    assert_eq!(
        line["reason"],
        "TrafficPolicy/shop/limited: over a limit that shop/limits:8081 counts"
    );
    for (result, count) in [("ok", 1.0), ("over_limit", 1.0)] {
        let labels = [&*format!("result=\"{result}\"")];
        cairn
            .metric_reaches("cairn_rate_limit_service_checks_total", &labels, count)
            .await;
    }
}

#[tokio::test]
async fn grpc_is_told_in_grpc_that_it_is_over() {
    let limited = Limited::start("    timeout: 10s").await;
    let mut connection = Connection::http2(limited.client.to("web", 80)).await;
    let call = Request::post("http://web.shop/pkg.Service/Call")
        .header("content-type", "application/grpc")
        .header("x-tenant", "over")
        .body(Full::default())
        .unwrap();
    let over = connection.send(call).await.unwrap();
    assert_eq!(
        (over.status().as_u16(), &over.headers()["grpc-status"]),
        (200, &"14".parse().unwrap())
    );
    assert_eq!(over.headers()["x-envoy-ratelimited"], "true");
}

#[tokio::test]
async fn silence_passes_unless_the_policy_says_otherwise_and_an_unusable_answer_never_does() {
    let mut limited = Limited::start("    timeout: 300ms").await;
    for (tenant, status) in [
        ("silent", 200),
        ("error", 200),
        ("empty", 500),
        ("mine", 500),
    ] {
        let path = format!("/open-{tenant}");
        assert_eq!(limited.get(&path, tenant).await.status(), status, "{path}");
    }
    let cairn = limited.lab.cairn();
    let line = cairn
        .logged("/open-silent", |line| line["path"] == "/open-silent")
        .await;
    let reason = line["reason"].as_str().unwrap();
    assert!(
        reason.ends_with("it did not answer within 300 ms"),
        "{reason}"
    );
    let line = cairn
        .logged("/open-empty", |line| line["path"] == "/open-empty")
        .await;
    assert_eq!(line["response_flags"], "RLSE");
    assert_eq!(line["response_code_details"], "rate_limiter_error");
    let labels = [r#"result="failed_open""#];
    cairn
        .metric_reaches("cairn_rate_limit_service_checks_total", &labels, 2.0)
        .await;

    let closed = policy("    timeout: 300ms\n    failOpen: false");
    changed(&mut limited.lab, |lab| lab.write("limited", &closed)).await;
    for tenant in ["silent", "error"] {
        let path = format!("/closed-{tenant}");
        assert_eq!(limited.get(&path, tenant).await.status(), 500, "{path}");
    }
    // Nobody is there at all.
    changed(&mut limited.lab, |lab| lab.remove_pod("limits-a")).await;
    assert_eq!(limited.get("/gone", "a").await.status(), 500);
}

/// Changes the configuration, and waits until it is in force.
async fn changed(lab: &mut Lab, change: impl FnOnce(&mut Lab)) {
    let version = lab.cairn().metric("cairn_snapshot_version", &[]).await;
    change(lab);
    let cairn = lab.cairn();
    cairn
        .metric_reaches("cairn_snapshot_version", &[], version + 1.0)
        .await;
}

#[tokio::test]
async fn envoy_asks_and_answers_the_same() {
    let limited = Limited::start("    timeout: 10s").await;
    let lab = &limited.lab;
    let gate = CheckGate {
        identity: &lab.identities.folder_of("shop/web"),
        gate: limited.service.address,
        app: limited.app.address,
        filter: json!({
            "name": "envoy.filters.http.ratelimit",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.filters.http.ratelimit.v3.RateLimit",
                "domain": "shop",
                "timeout": "10s",
                "rate_limit_service": {
                    "grpc_service": { "envoy_grpc": { "cluster_name": "gate-grpc" } },
                    "transport_api_version": "V3",
                },
            },
        }),
        rate_limits: json!([{ "actions": [
            { "request_headers": { "header_name": "x-tenant", "descriptor_key": "tenant" } },
            { "generic_key": { "descriptor_value": "web" } },
        ]}]),
    };
    let (_process, envoy): (Process, SocketAddr) =
        gate.start(lab.client_address(), lab.folder()).await;
    let tls = Tls::of(&lab.identities.folder_of("shop/viewer"));
    for tenant in ["a", "over", ""] {
        let before = limited.service.asked().len();
        let cairn = limited.get("/same", tenant).await;
        let between = limited.service.asked().len();
        let stream = tls.connect(envoy, lab.client_address()).await;
        let mut connection = Connection::http2_over(stream.expect("TLS")).await;
        let envoy = connection.send(request("/same", tenant)).await.unwrap();
        let asked = limited.service.asked();
        let (by_cairn, by_envoy) = (&asked[before..between], &asked[between..]);
        assert_eq!(by_cairn, by_envoy, "{tenant}: what the service is told");
        assert_eq!(cairn.status(), envoy.status(), "{tenant}");
        for name in ["x-envoy-ratelimited", "x-ratelimit-remaining"] {
            assert_eq!(
                cairn.headers().get(name),
                envoy.headers().get(name),
                "{name}"
            );
        }
        let counted = |answer: &Answer| {
            let echo: Option<Echo> = serde_json::from_slice(answer.body()).ok();
            let header = echo.and_then(|echo| echo.header("x-counted"));
            header.ok_or_else(|| answer.body().clone())
        };
        match tenant {
            // The application says which way it was asked.
            "" => {}
            _ => assert_eq!(counted(&cairn), counted(&envoy), "{tenant}"),
        }
    }
}
