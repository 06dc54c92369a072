//! TrafficPolicies over real sockets (issue 3, item 7): who is limited and who is not, what the client
//! and the log are told, and that one service can not take the places of the others.

use cairn_conformance::app::App;
use cairn_conformance::client::{Answer, Connection};
use cairn_conformance::lab::{Lab, Port, Reach};
use http::Request;
use http_body_util::Full;

async fn lab(policy: &str) -> (Lab, App) {
    let mut lab = Lab::new();
    lab.service("web", &[Port::new("http", 80)]);
    lab.service("api", &[Port::new("http", 80)]);
    let app = lab.pod("web", "web-a", Reach::Hbone, |at| App::http("a", at));
    // An application lives as long as the process here.
    std::mem::forget(lab.pod("api", "api-a", Reach::Hbone, |at| App::http("b", at)));
    lab.write("limits", policy);
    lab.start().await;
    (lab, app)
}

fn policy(target: &str, spec: &str) -> String {
    format!(
        "apiVersion: cairn.dev/v1alpha1\nkind: TrafficPolicy\nmetadata: {{name: limits, namespace: shop}}\n\
         spec:\n  targetRefs: [{target}]\n{spec}\n"
    )
}

const WEB: &str = "{kind: Service, name: web}";
const GATEWAY: &str = "{group: gateway.networking.k8s.io, kind: Gateway, name: waypoint}";

async fn get(connection: &mut Connection, path: &str, tenant: &str) -> Answer {
    let request = Request::get(path)
        .header("host", "web.shop")
        .header("x-tenant", tenant)
        .body(Full::default())
        .unwrap();
    connection.send(request).await.unwrap()
}

#[tokio::test]
async fn a_client_over_its_limit_is_told_when_to_come_again_and_the_others_pass() {
    let spec = "  rateLimits:\n  - name: per-tenant\n    requests: 2\n    interval: 1h\n    \
                by: [{type: PeerIdentity}, {type: Header, header: x-tenant}]";
    let (lab, app) = lab(&policy(WEB, spec)).await;
    let client = lab.client("shop/client").await;
    let mut own = Connection::http1(client.to("web", 80)).await;
    for _ in 0..2 {
        assert_eq!(get(&mut own, "/", "a").await.status(), 200);
    }
    let limited = get(&mut own, "/third", "a").await;
    assert_eq!(limited.status(), 429);
    assert_eq!(limited.headers()["x-envoy-ratelimited"], "true");
    let wait: u32 = limited.headers()["retry-after"]
        .to_str()
        .unwrap()
        .parse()
        .unwrap();
    assert!(
        (1_790..=1_800).contains(&wait),
        "half an hour for one token: {wait}"
    );
    // Another tenant, another identity: buckets of their own.
    let mut own = Connection::http1(client.to("web", 80)).await;
    assert_eq!(get(&mut own, "/", "b").await.status(), 200);
    let other = lab.client("shop/viewer").await;
    let mut other = Connection::http1(other.to("web", 80)).await;
    assert_eq!(get(&mut other, "/", "a").await.status(), 200);
    assert_eq!(app.requests(), 4, "what is limited reaches nobody");

    let cairn = lab.cairn();
    let line = cairn
        .logged("/third", |line| line["path"] == "/third")
        .await;
    assert_eq!(line["response_flags"], "RL");
    assert_eq!(line["response_code_details"], "local_rate_limited");
    let reason = line["reason"].as_str().unwrap();
    assert!(
        reason.starts_with("TrafficPolicy/shop/limits: rate limit per-tenant"),
        "{reason}"
    );
    for (outcome, count) in [("passed", 4.0), ("limited", 1.0)] {
        let outcome = format!("outcome=\"{outcome}\"");
        let labels = [r#"policy="shop/limits""#, r#"limit="per-tenant""#, &outcome];
        cairn
            .metric_reaches("cairn_rate_limit_requests_total", &labels, count)
            .await;
    }
}

#[tokio::test]
async fn grpc_is_limited_in_grpc_and_a_policy_that_is_wrong_refuses_what_it_is_for() {
    let spec = "  rateLimits: [{name: one, requests: 1, interval: 1h}]";
    let (lab, _app) = lab(&policy(WEB, spec)).await;
    let client = lab.client("shop/client").await;
    let mut own = Connection::http2(client.to("web", 80)).await;
    let call = || {
        Request::post("http://web.shop/pkg.Service/Call")
            .header("content-type", "application/grpc")
            .body(Full::default())
            .unwrap()
    };
    let _ = own.send(call()).await.unwrap();
    let limited = own.send(call()).await.unwrap();
    assert_eq!(
        (limited.status().as_u16(), &limited.headers()["grpc-status"]),
        (200, &"14".parse().unwrap())
    );
    assert_eq!(limited.headers()["x-envoy-ratelimited"], "true");

    lab.write(
        "limits",
        &policy(
            WEB,
            "  rateLimits: [{name: one, requests: 0, interval: 1h}]",
        ),
    );
    let cairn = lab.cairn();
    cairn
        .metric_reaches("cairn_config_diagnostics", &[r#"severity="error""#], 1.0)
        .await;
    let mut own = Connection::http1(client.to("web", 80)).await;
    assert_eq!(get(&mut own, "/broken", "a").await.status(), 500);
    let line = cairn
        .logged("/broken", |line| line["path"] == "/broken")
        .await;
    assert_eq!(line["response_code_details"], "limits_not_in_force");
    let mut api = Connection::http1(client.to("api", 80)).await;
    assert_eq!(get(&mut api, "/", "a").await.status(), 200);
}

#[tokio::test]
async fn a_service_that_takes_all_places_leaves_the_others_their_share() {
    let spec = "  concurrency: {maxRequests: 4, fairShare: true}";
    let (lab, _app) = lab(&policy(GATEWAY, spec)).await;
    let client = lab.client("shop/client").await;
    let (web, api) = (client.to("web", 80), client.to("api", 80));
    let mut slow = Vec::new();
    for _ in 0..4 {
        let mut connection = Connection::http1(web).await;
        let pending =
            tokio::spawn(async move { get(&mut connection, "/wait/600000", "a").await.status() });
        slow.push(pending);
    }
    let cairn = lab.cairn();
    cairn
        .metric_reaches(
            "cairn_concurrency_requests",
            &[r#"policy="shop/limits""#],
            4.0,
        )
        .await;
    let mut more = Connection::http1(web).await;
    let refused = get(&mut more, "/more", "a").await;
    assert_eq!(refused.status(), 503);
    assert_eq!(refused.headers()["x-envoy-overloaded"], "true");
    let mut other = Connection::http1(api).await;
    assert_eq!(get(&mut other, "/", "a").await.status(), 200);
    let line = cairn.logged("/more", |line| line["path"] == "/more").await;
    assert_eq!(line["response_flags"], "UO");
    drop(slow);
}
