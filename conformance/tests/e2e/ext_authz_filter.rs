//! Routes that ask an authorization service, HTTP and gRPC (specs/gateway-api.md 3), alone and beside a policy that
//! asks one.

use cairn_conformance::client;
use cairn_conformance::lab::Reach;
use cairn_conformance::process::until;
use http::Request;

use crate::ext_authz::{HTTP, Mesh};

/// Routes with an ExternalAuth filter (specs/gateway-api.md 3).
fn filtered(protocol: &str) -> String {
    format!(
        "apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{name: web, namespace: shop}}
spec:
  parentRefs: [{{group: \"\", kind: Service, name: web}}]
  rules:
  - matches: [{{path: {{value: /public}}}}]
    backendRefs: [{{name: web, port: 80}}]
  - filters:
    - {{type: RequestHeaderModifier, requestHeaderModifier: {{set: [{{name: x-late, value: set}}]}}}}
    - type: ExternalAuth
      externalAuth:
{protocol}    backendRefs: [{{name: web, port: 80}}]
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {{name: no-deletes, namespace: shop}}
spec:
  targetRefs: [{{group: \"\", kind: Service, name: web}}]
  action: DENY
  rules: [{{to: [{{operation: {{methods: [DELETE]}}}}]}}]
"
    )
}

const HTTP_FILTER: &str = "        protocol: HTTP
        backendRef: {name: gate, port: 80}
        http: {path: /check, allowedHeaders: [cookie], allowedResponseHeaders: [x-user]}
        forwardBody: {maxSize: 1000}
";

const GRPC_FILTER: &str = "        protocol: GRPC
        backendRef: {name: gate, port: 9000}
        grpc: {allowedHeaders: [cookie]}
        forwardBody: {maxSize: 1000}
";

/// Puts a route with the filter into force.
async fn put_route(mesh: &Mesh, name: &str, filter: &str) {
    mesh.lab.write(name, &filtered(filter));
    until("the route is in force", async || {
        let dump = mesh.lab.cairn().config_dump().await.to_string();
        dump.contains("ExternalAuth shop/gate") && dump.contains("no-deletes")
    })
    .await;
}

#[tokio::test]
async fn a_route_asks_for_one_rule_after_policy_and_before_its_other_filters() {
    for (filter, prefix) in [(HTTP_FILTER, "/check"), (GRPC_FILTER, "")] {
        let mesh = Mesh::start(HTTP, Reach::Plain).await;
        put_route(&mesh, "asking", filter).await;
        let request = Request::post("/a/../b?c=d")
            .header("cookie", "session=1")
            .header("x-other", "no")
            .header("x-user", "mallory");
        let answer = mesh.send(request, b"some").await;
        assert_eq!(answer.status(), 200, "{}", client::text(&answer));
        let echo = client::echo(&answer);
        let user = echo.header("x-user").unwrap();
        assert!(user.starts_with("alice"), "{user}");
        assert_eq!(echo.header("x-late").as_deref(), Some("set"));
        assert_eq!((&*echo.path, echo.body_bytes), ("/b?c=d", 4));
        let question = mesh.gate.last();
        assert_eq!(question.path, format!("{prefix}/b?c=d"));
        assert_eq!(question.body, b"some");
        let asked = |name| question.header(name);
        assert_eq!(asked("cookie").as_deref(), Some("session=1"));
        assert_eq!(asked("host").as_deref(), Some("web.shop"));
        assert_eq!((asked("x-other"), asked("x-late")), (None, None));

        let answer = mesh.get("/deny").await;
        assert_eq!(answer.status(), 401);
        assert_eq!(answer.headers()["x-why"], "because");
        let denied = |line: &serde_json::Value| line["path"] == "/deny";
        let line = mesh.lab.cairn().logged("the denial", denied).await;
        assert_eq!(line["response_flags"], "UAEX");
        assert_eq!(line["response_code_details"], "ext_authz_denied");

        let asked = mesh.gate.questions().len();
        assert_eq!(mesh.get("/public").await.status(), 200);
        let answer = mesh.send(Request::delete("/b"), b"").await;
        assert_eq!(answer.status(), 403);
        assert_eq!(mesh.gate.questions().len(), asked, "nobody is asked");

        let large: &'static [u8] = vec![b'a'; 1001].leak();
        assert_eq!(mesh.send(Request::post("/b"), large).await.status(), 413);
        for path in ["/error", "/cut", "/huge"] {
            assert_eq!(
                mesh.get(path).await.status(),
                403,
                "{path}: it never fails open"
            );
        }
        assert_eq!(mesh.app.requests(), 2);
    }
}

/// A policy and a route that ask about the same request, and want different parts of its body.
#[tokio::test]
async fn a_policy_and_a_route_each_get_their_part_of_a_body() {
    let provider = format!(
        "{HTTP}  includeRequestBodyInCheck: {{maxRequestBytes: 10, allowPartialMessage: true}}\n"
    );
    let mesh = Mesh::start(&provider, Reach::Plain).await;
    put_route(&mesh, "route", GRPC_FILTER).await;
    for size in [5, 10, 11, 1000, 1001] {
        let asked = mesh.gate.questions().len();
        let body: &'static [u8] = vec![b'a'; size].leak();
        let request = Request::post("/b").header("content-length", size.to_string());
        let answer = mesh.send(request, body).await;
        let questions: Vec<usize> = (mesh.gate.questions().iter().skip(asked))
            .map(|question| question.body.len())
            .collect();
        if size > 1000 {
            assert_eq!(answer.status(), 413, "{size}");
            assert_eq!(questions, [10]);
            continue;
        }
        assert_eq!(answer.status(), 200, "{size}: {}", client::text(&answer));
        assert_eq!(client::echo(&answer).body_bytes, size);
        assert_eq!(questions, [size.min(10), size]);
    }
}
