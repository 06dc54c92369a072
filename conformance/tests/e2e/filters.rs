//! What filters do beyond changing headers: mirrors, CORS, filters of one backend (specs/gateway-api.md
//! 1.3, 1.4), and GRPCRoutes, over real sockets.

use cairn_conformance::app::App;
use cairn_conformance::client::{self, Answer, Connection};
use cairn_conformance::lab::{Client, Lab, Port, Reach};
use http::Method;
use http_body_util::Full;

const ROUTES: &str = concat!(
    http_route!(
        "web",
        "  - matches: [{path: {value: /mirrored}}]
    filters:
    - {type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: x-changed, value: \"1\"}]}}
    - {type: RequestMirror, requestMirror: {backendRef: {name: copy, port: 80}}}
    - {type: RequestMirror, requestMirror: {backendRef: {name: rpc, port: 80}}}
    - {type: RequestMirror, requestMirror: {backendRef: {name: copy, port: 80}, percent: 0}}
    - {type: RequestMirror, requestMirror: {backendRef: {name: empty, port: 80}}}
    backendRefs: [{name: web, port: 80}]
  - matches: [{path: {value: /backend}}]
    backendRefs:
    - name: web
      port: 80
      filters: [{type: URLRewrite, urlRewrite: {hostname: inner.example, path: {type: ReplacePrefixMatch, replacePrefixMatch: /x}}}]
  - matches: [{path: {value: /moved}}]
    backendRefs:
    - name: web
      port: 80
      filters: [{type: RequestRedirect, requestRedirect: {path: {type: ReplacePrefixMatch, replacePrefixMatch: /new}, statusCode: 308}}]
  - matches: [{path: {value: /cors}}]
    filters: [{type: CORS, cors: {allowOrigins: [\"https://a.example\"], allowMethods: [PUT]}}]
    backendRefs: [{name: web, port: 80}]
"
    ),
    "---\n",
    "\
apiVersion: gateway.networking.k8s.io/v1
kind: GRPCRoute
metadata: {name: rpc, namespace: shop}
spec:
  parentRefs: [{group: \"\", kind: Service, name: rpc}]
  rules:
  - matches: [{method: {service: shop.Orders, method: Place}}]
    filters: [{type: ResponseHeaderModifier, responseHeaderModifier: {set: [{name: x-rule, value: place}]}}]
    backendRefs: [{name: rpc, port: 80}]
"
);

const DENY_PUT: &str = "\
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: no-put, namespace: shop}
spec:
  targetRefs: [{group: \"\", kind: Service, name: web}]
  action: DENY
  rules: [{to: [{operation: {methods: [PUT, OPTIONS]}}]}]
";

async fn lab() -> (Lab, Client, [App; 3]) {
    let mut lab = Lab::new();
    for service in ["web", "copy", "empty"] {
        lab.service(service, &[Port::new("http", 80)]);
    }
    lab.service("rpc", &[Port::new("grpc", 80)]);
    let web = lab.pod("web", "web-a", Reach::Hbone, |at| App::http("web", at));
    let copy = lab.pod("copy", "copy-a", Reach::Hbone, |at| App::http("copy", at));
    let rpc = lab.pod("rpc", "rpc-a", Reach::Plain, |at| App::http("rpc", at));
    lab.write("routes", ROUTES);
    lab.write("policy", DENY_PUT);
    lab.start().await;
    let client = lab.client("shop/viewer").await;
    (lab, client, [web, copy, rpc])
}

async fn send(
    client: &Client,
    method: Method,
    path: &str,
    headers: &[(&str, &str)],
    body: &'static [u8],
) -> Answer {
    client::send(client.to("web", 80), method, path, headers, body).await
}

#[tokio::test]
async fn copies_go_to_every_mirror_and_their_answers_nowhere() {
    let (lab, client, [web, copy, rpc]) = lab().await;
    const BODY: &[u8] = &[b'x'; 100_000];
    // The mirrors answer 503, or not at all: nobody hears of it.
    for (method, body) in [(Method::GET, &b""[..]), (Method::POST, BODY)] {
        let answer = send(&client, method, "/mirrored/x?q=1", &[], body).await;
        assert_eq!(answer.status(), 200);
        let echo = client::echo(&answer);
        assert_eq!((echo.app.as_str(), echo.body_bytes), ("web", body.len()));
    }
    let cairn = lab.cairn();
    cairn
        .metric_reaches("cairn_mirrored_total", &["outcome=\"answered\""], 4.0)
        .await;
    cairn
        .metric_reaches("cairn_mirrored_total", &["outcome=\"failed\""], 2.0)
        .await;
    assert_eq!((web.requests(), copy.requests(), rpc.requests()), (2, 2, 2));
    for app in [&copy, &rpc] {
        let seen = app.seen();
        let bodies: Vec<_> = seen.iter().map(|echo| echo.body_bytes).collect();
        assert_eq!(bodies, [0, BODY.len()], "the body is copied as a whole");
        for echo in seen {
            assert_eq!(echo.path, "/mirrored/x?q=1");
            assert_eq!(echo.header("host").as_deref(), Some("web.shop"));
            assert_eq!(echo.header("x-changed").as_deref(), Some("1"));
        }
    }
}

#[tokio::test]
async fn a_backends_own_filters_change_what_goes_there() {
    let (_lab, client, _apps) = lab().await;
    let answer = send(&client, Method::GET, "/backend/a?q=1", &[], b"").await;
    let echo = client::echo(&answer);
    assert_eq!(echo.path, "/x/a?q=1");
    assert_eq!(echo.header("host").as_deref(), Some("inner.example"));
    let moved = send(&client, Method::POST, "/moved/a?q=1", &[], b"body").await;
    assert_eq!(moved.status(), 308);
    assert_eq!(moved.headers()["location"], "http://web.shop/new/a?q=1");
}

/// DESIGN 5, step 8: a preflight carries neither token nor cookie, so that policy is asked about the
/// request that follows it.
#[tokio::test]
async fn a_preflight_is_answered_before_policy_and_the_request_is_not() {
    let (_lab, client, [web, ..]) = lab().await;
    let origin = ("origin", "https://a.example");
    let asks = ("access-control-request-method", "PUT");
    let answer = send(&client, Method::OPTIONS, "/cors", &[origin, asks], b"").await;
    assert_eq!(answer.status(), 200);
    let headers = answer.headers();
    assert_eq!(headers["access-control-allow-origin"], "https://a.example");
    assert_eq!(
        headers["access-control-allow-methods"],
        "GET, HEAD, POST, PUT"
    );
    assert_eq!(web.requests(), 0, "the application was not asked");
    let answer = send(&client, Method::PUT, "/cors", &[origin], b"").await;
    assert_eq!(answer.status(), 403);
    let answer = send(&client, Method::GET, "/cors", &[origin], b"").await;
    assert_eq!(
        answer.headers()["access-control-allow-origin"],
        "https://a.example"
    );
    let other = ("origin", "https://b.example");
    let answer = send(&client, Method::GET, "/cors", &[other], b"").await;
    assert!(!answer.headers().contains_key("access-control-allow-origin"));
}

#[tokio::test]
async fn a_grpc_route_takes_its_methods_and_answers_unimplemented_for_others() {
    let (_lab, client, _apps) = lab().await;
    let mut connection = Connection::http2(client.to("rpc", 80)).await;
    let mut call = async |path: &str| {
        let request = http::Request::post(format!("http://rpc.shop{path}"))
            .header("content-type", "application/grpc")
            .body(Full::default())
            .unwrap();
        connection.send(request).await.expect("an answer")
    };
    let answer = call("/shop.Orders/Place").await;
    assert_eq!(client::echo(&answer).app, "rpc");
    assert_eq!(answer.headers()["x-rule"], "place");
    let answer = call("/shop.Orders/Cancel").await;
    assert_eq!(answer.headers()["grpc-status"], "12");
}
