//! ExternalAuth filters on the backends of a route (specs/gateway-api.md 3): asked about the requests that
//! are to go there, after the filter of the rule.

use cairn_conformance::app::App;
use cairn_conformance::authorizer::Authorizer;
use cairn_conformance::client::{self, Connection};
use cairn_conformance::lab::{Lab, Port, Reach};
use cairn_conformance::process::until;
use http::Request;
use http_body_util::Full;

const ROUTE: &str = "\
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: web, namespace: shop}
spec:
  parentRefs: [{group: \"\", kind: Service, name: web}]
  rules:
  - matches: [{path: {value: /public}}]
    backendRefs: [{name: web, port: 80}]
  - matches: [{path: {value: /in-turn}}]
    filters:
    - type: ExternalAuth
      externalAuth: {protocol: HTTP, backendRef: {name: gate, port: 80}, http: {path: /check, allowedResponseHeaders: [x-user]}}
    backendRefs:
    - name: web
      port: 80
      filters: [{type: ExternalAuth, externalAuth: {protocol: GRPC, backendRef: {name: gate, port: 9000}}}]
  - backendRefs:
    - name: web
      port: 80
      filters: [{type: ExternalAuth, externalAuth: {protocol: GRPC, backendRef: {name: gate, port: 9000}}}]
";

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

    let denied = get("/deny").await;
    assert_eq!(denied.status(), 401);
    assert_eq!(denied.headers()["x-why"], "because");
    assert_eq!(app.requests(), 1);

    let questions = gate.questions().len();
    assert_eq!(get("/public").await.status(), 200);
    assert_eq!(gate.questions().len(), questions, "nobody is asked");
}
