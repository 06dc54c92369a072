//! CUSTOM policies with real authorization services, HTTP and gRPC (specs/istio-waypoint.md 4.8).

use cairn_conformance::app::App;
use cairn_conformance::authorizer::Authorizer;
use cairn_conformance::client::{self, Answer, Connection};
use cairn_conformance::lab::{Client, Lab, Port, Reach};
use http::Request;
use http_body_util::Full;

/// The mesh configuration with one provider, and a policy that asks it about `web`.
fn asking(provider: &str) -> String {
    let provider: String = provider.lines().map(|l| format!("      {l}\n")).collect();
    format!(
        "apiVersion: v1
kind: ConfigMap
metadata: {{name: istio, namespace: istio-system}}
data:
  mesh: |
    extensionProviders:
    - name: gate
{provider}---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {{name: ask, namespace: shop}}
spec:
  targetRefs: [{{group: \"\", kind: Service, name: web}}]
  action: CUSTOM
  provider: {{name: gate}}
  rules:
  - to: [{{operation: {{notPaths: [/public]}}}}]
"
    )
}

const HTTP: &str = "\
envoyExtAuthzHttp:
  service: gate.shop.svc.cluster.local
  port: 80
  pathPrefix: /check/
  includeRequestHeadersInCheck: [cookie, x-ask-*]
  includeAdditionalHeadersInCheck: {x-extra: more, x-ask-who: us}
  headersToUpstreamOnAllow: [x-user]
  headersToDownstreamOnAllow: [set-cookie]
  headersToDownstreamOnDeny: [x-why]
";

/// A waypoint with services `web` and `gate`, an application and an authorization service.
struct Mesh {
    lab: Lab,
    app: App,
    gate: Authorizer,
    client: Client,
}

impl Mesh {
    async fn start(provider: &str, reach: Reach) -> Self {
        let mut lab = Lab::new();
        lab.service("web", &[Port::new("http", 80)]);
        lab.service("gate", &[Port::new("http", 80), Port::new("grpc", 9000)]);
        let app = lab.pod("web", "web-a", Reach::Hbone, |at| App::http("a", at));
        let address = lab.free_address();
        let gate = Authorizer::start(address).await;
        lab.pod_at("gate", "gate-a", reach, address);
        lab.write("asking", &asking(provider));
        lab.start().await;
        let client = lab.client("shop/viewer").await;
        Self {
            lab,
            app,
            gate,
            client,
        }
    }

    async fn send(&self, request: http::request::Builder, body: &'static [u8]) -> Answer {
        let mut connection = Connection::http1(self.client.to("web", 80)).await;
        let request = request.header("host", "web.shop").body(Full::from(body));
        connection.send(request.unwrap()).await.unwrap()
    }

    async fn get(&self, path: &str) -> Answer {
        self.send(Request::get(path), b"").await
    }
}

#[tokio::test]
async fn an_http_service_allows_with_headers_and_denies_with_its_words() {
    for reach in [Reach::Plain, Reach::Hbone] {
        let mesh = Mesh::start(HTTP, reach).await;
        let request = Request::get("/a/../b?c=d")
            .header("cookie", "session=1")
            .header("x-ask-who", "mallory")
            .header("x-ask-what", "it")
            .header("x-other", "no")
            .header("x-user", "mallory")
            .header("authorization", "Basic YTpi");
        let answer = mesh.send(request, b"").await;
        assert_eq!(answer.status(), 200);
        let echo = client::echo(&answer);
        assert_eq!(echo.header("x-user").as_deref(), Some("alice,bob"));
        assert_eq!(echo.header("x-secret"), None);
        assert_eq!(answer.headers()["set-cookie"], "seen=1");

        let question = mesh.gate.last();
        assert_eq!(question.method, "GET");
        assert_eq!(question.path, "/check/b?c=d", "what policy and app see");
        let asked = |name| question.header(name);
        assert_eq!(asked("host").as_deref(), Some("web.shop"));
        assert_eq!(asked("cookie").as_deref(), Some("session=1"));
        assert_eq!(asked("authorization").as_deref(), Some("Basic YTpi"));
        assert_eq!(asked("x-ask-what").as_deref(), Some("it"));
        assert_eq!(asked("x-ask-who").as_deref(), Some("us"));
        assert_eq!(asked("x-extra").as_deref(), Some("more"));
        assert_eq!(asked("content-length").as_deref(), Some("0"));
        assert_eq!(asked("x-other"), None);

        let answer = mesh.get("/deny").await;
        assert_eq!(answer.status(), 401);
        assert_eq!(client::text(&answer), "<b>no</b>");
        assert_eq!(answer.headers()["x-why"], "because");
        assert_eq!(answer.headers()["www-authenticate"], "Basic");
        let line = mesh
            .lab
            .cairn()
            .logged("the denial", |line| line["path"] == "/deny")
            .await;
        assert_eq!(line["response_flags"], "UAEX");
        assert_eq!(line["response_code_details"], "ext_authz_denied");
        assert_eq!(line["verdict"], "deny");
        assert_eq!(line["policy"], "AuthorizationPolicy/shop/ask");
        assert_eq!(line["reason"], "provider gate denied it with 401");

        let asked = mesh.gate.questions().len();
        assert_eq!(mesh.get("/public").await.status(), 200);
        assert_eq!(mesh.gate.questions().len(), asked, "no rule matches");
        assert_eq!(mesh.app.requests(), 2, "what is denied reaches nobody");
    }
}
