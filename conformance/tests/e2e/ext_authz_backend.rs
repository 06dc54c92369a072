//! ExternalAuth filters on the backends of a route (specs/gateway-api.md 3): asked about the requests that
//! are to go there, after the filter of the rule.

use std::collections::BTreeSet;

use cairn_conformance::app::App;
use cairn_conformance::authorizer::Authorizer;
use cairn_conformance::client::{self, Connection};
use cairn_conformance::lab::{Lab, Port, Reach};
use cairn_conformance::process::until;
use cairn_conformance::rate_limiter::RateLimiter;
use http::Request;
use http_body_util::Full;

const ROUTE: &str = http_route!(
    "web",
    "  - matches: [{path: {value: /public}}]
    backendRefs: [{name: web, port: 80}]
  - matches: [{path: {value: /in-turn}}]
    filters:
    - type: ExternalAuth
      externalAuth: {protocol: HTTP, backendRef: {name: gate, port: 80}, http: {path: /check, allowedResponseHeaders: [x-user]}}
    backendRefs:
    - name: web
      port: 80
      filters: [{type: ExternalAuth, externalAuth: {protocol: GRPC, backendRef: {name: gate, port: 9000}}}]
  - matches: [{path: {value: /turned}}]
    filters: [{type: ExternalAuth, externalAuth: {protocol: GRPC, backendRef: {name: gate, port: 9000}}}]
    backendRefs:
    - name: web
      port: 80
      filters: [{type: ExternalAuth, externalAuth: {protocol: HTTP, backendRef: {name: gate, port: 80}}}]
  - backendRefs:
    - name: web
      port: 80
      filters: [{type: ExternalAuth, externalAuth: {protocol: GRPC, backendRef: {name: gate, port: 9000}}}]
"
);

/// Whatever a client says it is: the header that balances and that limits count by is the service's.
const BY_USER: &str = "\
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: web, namespace: shop}
spec:
  parentRefs: [{group: \"\", kind: Service, name: web}]
  rules:
  - filters: [{type: ExternalAuth, externalAuth: {protocol: GRPC, backendRef: {name: gate, port: 9000}}}]
    backendRefs: [{name: web, port: 80}]
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: web, namespace: shop}
spec: {host: web, trafficPolicy: {loadBalancer: {consistentHash: {httpHeaderName: x-user}}}}
---
apiVersion: cairn.dev/v1alpha1
kind: TrafficPolicy
metadata: {name: limited, namespace: shop}
spec:
  targetRefs: [{kind: Service, name: web}]
  globalRateLimit:
    service: {name: limits, port: 8081}
    domain: shop
    timeout: 10s
    descriptors: [{entries: [{key: user, from: {type: Header, header: x-user}}]}]
";

#[tokio::test]
async fn balancing_and_rate_limits_go_by_what_the_service_has_set() {
    let mut lab = Lab::new();
    lab.service("web", &[Port::new("http", 80)]);
    lab.service("gate", &[Port::new("grpc", 9000)]);
    lab.service("limits", &[Port::new("grpc", 8081)]);
    let _apps = ["a", "b", "c", "d"].map(|name| {
        let pod = format!("web-{name}");
        lab.pod("web", &pod, Reach::Hbone, |at| App::http(name, at))
    });
    let address = lab.free_address();
    let _gate = Authorizer::start(address).await;
    lab.pod_at("gate", "gate-a", Reach::Plain, address);
    let address = lab.free_address();
    let limits = RateLimiter::start(address).await;
    lab.pod_at("limits", "limits-a", Reach::Plain, address);
    lab.write("route", BY_USER);
    lab.start().await;
    let client = lab.client("shop/viewer").await;
    let mut pods = BTreeSet::new();
    for user in 0..16 {
        let mut connection = Connection::http1(client.to("web", 80)).await;
        let request = Request::get("/").header("host", "web.shop");
        let request = request.header("x-user", format!("user-{user}"));
        let request = request.body(Full::default()).unwrap();
        let answer = connection.send(request).await.unwrap();
        assert_eq!(answer.status(), 200, "{}", client::text(&answer));
        pods.insert(client::echo(&answer).app);
    }
    assert_eq!(pods.len(), 1, "all of them are alice: {pods:?}");
    let asked = limits.asked();
    let entries = asked.iter().flat_map(|asked| &asked.descriptors);
    let users: BTreeSet<&str> = entries
        .flat_map(|descriptor| &descriptor.entries)
        .map(|entry| &*entry.value)
        .collect();
    assert_eq!((asked.len(), users), (16, BTreeSet::from(["alice"])));
}

#[tokio::test]
async fn a_backend_has_its_own_service_asked_after_that_of_the_rule() {
    let mut lab = Lab::new();
    lab.service("web", &[Port::new("http", 80)]);
    lab.service("gate", &[Port::new("http", 80), Port::new("grpc", 9000)]);
    let app = lab.pod("web", "web-a", Reach::Hbone, |at| App::http("a", at));
    let address = lab.free_address();
    let gate = Authorizer::start(address).await;
    lab.pod_at("gate", "gate-a", Reach::Plain, address);
    lab.write("route", ROUTE);
    lab.start().await;
    until("the route is in force", async || {
        let dump = lab.cairn().config_dump().await.to_string();
        dump.contains("ExternalAuth shop/gate")
    })
    .await;
    let client = lab.client("shop/viewer").await;
    let get = async |path: &str| {
        let mut connection = Connection::http1(client.to("web", 80)).await;
        let request = Request::get(path).header("host", "web.shop");
        let request = request.header("x-user", "mallory").body(Full::default());
        connection.send(request.unwrap()).await.unwrap()
    };

    let answer = get("/in-turn").await;
    assert_eq!(answer.status(), 200, "{}", client::text(&answer));
    let asked = gate.questions();
    let paths: Vec<&str> = asked.iter().map(|question| &*question.path).collect();
    assert_eq!(paths, ["/check/in-turn", "/in-turn"]);
    let seen = asked[1].header("x-user").unwrap();
    assert!(
        seen.starts_with("alice"),
        "what the first has changed: {seen}"
    );

    let before = gate.questions().len();
    let answer = get("/turned/query?secret=1&x=%20&user=eve").await;
    assert_eq!(client::echo(&answer).path, "/turned/query?x=%20&user=alice");
    let asked = gate.questions().split_off(before);
    let paths: Vec<&str> = asked.iter().map(|question| &*question.path).collect();
    let (sent, changed) = (
        "/turned/query?secret=1&x=%20&user=eve",
        "/turned/query?x=%20&user=alice",
    );
    assert_eq!(paths, [sent, changed], "the second sees the first one's");

    let denied = get("/deny").await;
    assert_eq!(denied.status(), 401);
    assert_eq!(denied.headers()["x-why"], "because");
    assert_eq!(app.requests(), 2);

    let questions = gate.questions().len();
    assert_eq!(get("/public").await.status(), 200);
    assert_eq!(gate.questions().len(), questions, "nobody is asked");
}
