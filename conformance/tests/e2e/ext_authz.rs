//! CUSTOM policies with real authorization services, HTTP and gRPC, that say yes or no (specs/istio-waypoint.md 4.8).

use std::net::SocketAddr;

use cairn_conformance::app::{App, BANNER};
use cairn_conformance::authorizer::Authorizer;
use cairn_conformance::client::{self, Answer, Connection};
use cairn_conformance::lab::{Client, Lab, Port, Reach};
use cairn_conformance::process::until;
use http::Request;
use http_body_util::Full;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

/// The mesh configuration with one provider, and a policy that asks it about `web`.
pub fn asking(provider: &str) -> String {
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

/// A provider that speaks HTTP.
pub const HTTP: &str = "\
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
pub struct Mesh {
    pub lab: Lab,
    pub app: App,
    pub gate: Authorizer,
    client: Client,
}

impl Mesh {
    pub async fn start(provider: &str, reach: Reach) -> Self {
        Self::start_with(provider, reach, Authorizer::start).await
    }

    /// With another authorization service.
    pub async fn start_with(
        provider: &str,
        reach: Reach,
        gate: impl AsyncFnOnce(SocketAddr) -> Authorizer,
    ) -> Self {
        let mut lab = Lab::new();
        lab.service("web", &[Port::new("http", 80)]);
        lab.service("gate", &[Port::new("http", 80), Port::new("grpc", 9000)]);
        let app = lab.pod("web", "web-a", Reach::Hbone, |at| App::http("a", at));
        let address = lab.free_address();
        let gate = gate(address).await;
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

    pub async fn send(&self, request: http::request::Builder, body: &'static [u8]) -> Answer {
        let mut connection = Connection::http1(self.client.to("web", 80)).await;
        let request = request.header("host", "web.shop").body(Full::from(body));
        connection.send(request.unwrap()).await.unwrap()
    }

    pub async fn get(&self, path: &str) -> Answer {
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

/// A provider that speaks gRPC.
pub const GRPC: &str = "\
envoyExtAuthzGrpc:
  service: shop/gate.shop.svc.cluster.local
  port: 9000
  timeout: 3s
";

#[tokio::test]
async fn a_grpc_service_is_told_who_asks_and_changes_the_request() {
    for reach in [Reach::Plain, Reach::Hbone] {
        let mesh = Mesh::start(GRPC, reach).await;
        let request = Request::get("/a//b?c=d")
            .header("x-many", "1")
            .header("x-many", "2")
            .header("x-user", "mallory");
        let answer = mesh.send(request, b"").await;
        assert_eq!(answer.status(), 200, "{}", client::text(&answer));
        let user = client::echo(&answer).header("x-user");
        assert_eq!(user.as_deref(), Some("alice"));

        let question = mesh.gate.last();
        assert_eq!((&*question.method, &*question.path), ("GET", "/a/b?c=d"));
        assert_eq!(question.header("host").as_deref(), Some("web.shop"));
        assert_eq!(question.header("x-many").as_deref(), Some("1,2"));
        assert_eq!(question.header(":path").as_deref(), Some("/a/b?c=d"));
        let attributes = question.check.unwrap().attributes.unwrap();
        let (source, destination) = (attributes.source.unwrap(), attributes.destination.unwrap());
        assert_eq!(source.principal, "spiffe://cluster.local/ns/shop/sa/viewer");
        assert_eq!(
            destination.principal,
            "spiffe://cluster.local/ns/shop/sa/web"
        );
        assert_eq!(destination.service, "web.shop.svc.cluster.local");
        let address = |peer: Option<cairn_waypoint::external::messages::Address>| {
            let socket = peer.unwrap().socket_address.unwrap();
            (socket.address, socket.port_value)
        };
        let client_ip = mesh.client.address.to_string();
        assert_eq!(address(source.address).0, client_ip);
        let virtual_ip = mesh.lab.virtual_ip("web").to_string();
        assert_eq!(address(destination.address), (virtual_ip, 80));

        let answer = mesh.get("/deny").await;
        assert_eq!(
            (answer.status().as_u16(), &*client::text(&answer)),
            (401, "no, 100%")
        );
        assert_eq!(answer.headers()["x-why"], "because");
        assert_eq!(mesh.get("/bare").await.status(), 403);
        assert_eq!(
            mesh.gate.connections(),
            1,
            "one connection carries all checks"
        );
    }
}

#[tokio::test]
async fn each_change_by_grpc_is_made_as_it_is_meant() {
    let mesh = Mesh::start(GRPC, Reach::Plain).await;
    let mut request = Request::get("/append");
    for name in [
        "default", "append", "set", "kept", "replace", "there", "gone",
    ] {
        request = request.header(format!("x-{name}"), "old");
    }
    let echo = client::echo(&mesh.send(request, b"").await);
    for (name, value) in [
        ("x-default", Some("new")),
        ("x-append", Some("old,new")),
        ("x-set", Some("new")),
        ("x-absent", Some("new")),
        ("x-kept", Some("old")),
        ("x-replace", Some("new")),
        ("x-there", Some("new")),
        ("x-not-there", None),
        ("x-gone", None),
    ] {
        assert_eq!(echo.header(name).as_deref(), value, "{name}");
    }
    let answer = mesh.get("/query?secret=1&x=%20&user=eve").await;
    assert_eq!(client::echo(&answer).path, "/query?x=%20&user=alice");
    let answer = mesh.get("/response").await;
    assert_eq!(answer.headers()["x-seen"], "1");
    assert_eq!(answer.headers()["server"], "mine");
}

#[tokio::test]
async fn grpc_requests_are_denied_in_grpc() {
    let mesh = Mesh::start(GRPC, Reach::Plain).await;
    let mut connection = Connection::http2(mesh.client.to("web", 80)).await;
    for (path, status, message) in [
        ("/deny/Call", "16", "no,%20100%25"),
        ("/error/Call", "7", ""),
        ("/bare/Call", "7", ""),
    ] {
        let request = Request::post(format!("http://web.shop{path}"))
            .header("content-type", "application/grpc")
            .body(Full::default())
            .unwrap();
        let answer = connection.send(request).await.unwrap();
        assert_eq!(answer.status(), 200, "{path}");
        assert_eq!(answer.headers()["grpc-status"], status, "{path}");
        let said = answer.headers().get("grpc-message");
        assert_eq!(said.map_or("", |m| m.to_str().unwrap()), message, "{path}");
    }
}

/// A header that one service sets may bring the request under the policy of another, which was not asked.
#[tokio::test]
async fn a_request_that_comes_under_another_policy_by_an_answer_is_denied() {
    let mesh = Mesh::start(HTTP, Reach::Plain).await;
    assert_eq!(mesh.get("/").await.status(), 200);
    let more = asking(HTTP).replace(
        "    - name: gate\n",
        "    - name: later\n      envoyExtAuthzHttp: {service: gate.shop.svc.cluster.local, port: 80}\n    \
         - name: gate\n",
    );
    let of_alice = "---\napiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n\
                    metadata: {name: ask-of-alice, namespace: shop}\nspec:\n  \
                    targetRefs: [{group: \"\", kind: Service, name: web}]\n  action: CUSTOM\n  \
                    provider: {name: later}\n  rules:\n  \
                    - when: [{key: 'request.headers[x-user]', values: [alice*]}]\n";
    mesh.lab.write("asking", &format!("{more}{of_alice}"));
    until("the policy is in force", async || {
        mesh.get("/other").await.status() == 403
    })
    .await;
    let line = mesh
        .lab
        .cairn()
        .logged("the denial", |line| line["verdict"] == "deny")
        .await;
    assert_eq!(line["policy"], "AuthorizationPolicy/shop/ask-of-alice");
    assert_eq!(line["rule"], 0, "{line}");
    let reason = "AuthorizationPolicy/shop/ask-of-alice rule 0 matches since the request was changed, \
                  and provider later was not asked";
    assert_eq!(line["reason"], reason);
    // Asked before anybody changed it, both allow.
    let request = Request::get("/both-know").header("x-user", "alice");
    assert_eq!(mesh.send(request, b"").await.status(), 200);
}

#[tokio::test]
async fn a_service_gets_as_much_of_a_body_as_it_wants_and_the_app_all_of_it() {
    for (partial, provider) in [(false, HTTP), (true, HTTP), (false, GRPC), (true, GRPC)] {
        let provider = format!(
            "{provider}  includeRequestBodyInCheck: {{maxRequestBytes: 1000, allowPartialMessage: {partial}}}\n"
        );
        let mesh = Mesh::start(&provider, Reach::Plain).await;
        for size in [0, 10, 1000, 1001, 50_000, 70_000, 300_000] {
            let body: &'static [u8] = vec![b'a'; size].leak();
            let length = size.to_string();
            let request = Request::post("/body").header("content-length", length);
            let answer = mesh.send(request, body).await;
            if size > 1000 && !partial {
                assert_eq!(answer.status(), 413, "{size}");
                continue;
            }
            assert_eq!(answer.status(), 200, "{size}: {}", client::text(&answer));
            assert_eq!(client::echo(&answer).body_bytes, size);
            let question = mesh.gate.last();
            assert_eq!(question.body.len(), size.min(1000));
            let cut = question.header("x-envoy-auth-partial-body");
            assert_eq!(
                cut.as_deref(),
                Some(if size > 1000 { "true" } else { "false" })
            );
        }
        let mut connection = Connection::http2(mesh.client.to("web", 80)).await;
        for size in [10, 70_000] {
            let request = Request::post("http://web.shop/body");
            let request = request.body(Full::from(vec![b'a'; size])).unwrap();
            let answer = connection.send(request).await.unwrap();
            let expected = if size > 1000 && !partial { 413 } else { 200 };
            assert_eq!(answer.status(), expected, "HTTP/2, {size}");
        }
    }
}

/// On TCP a gRPC service is asked before the endpoint is connected; an HTTP one can not be.
#[tokio::test]
async fn tcp_streams_are_asked_about_over_grpc() {
    let mut lab = Lab::new();
    lab.service("web", &[Port::new("tcp", 5432), Port::new("tcp-echo", 7)]);
    lab.service("gate", &[Port::new("http", 80), Port::new("grpc", 9000)]);
    let app = lab.pod("web", "web-a", Reach::Hbone, App::server_first);
    let address = lab.free_address();
    let gate = Authorizer::start(address).await;
    lab.pod_at("gate", "gate-a", Reach::Plain, address);
    lab.write("asking", &asking(GRPC));
    lab.start().await;
    let client = lab.client("shop/viewer").await;
    let read = async |port| {
        let mut stream = TcpStream::connect(client.to("web", port)).await.unwrap();
        let mut bytes = vec![0; BANNER.len()];
        let read = stream.read_exact(&mut bytes).await;
        read.is_ok().then_some((stream, bytes))
    };
    let (_open, banner) = read(5432).await.unwrap();
    assert_eq!(banner, BANNER);
    let attributes = gate.last().check.unwrap().attributes.unwrap();
    assert_eq!(
        attributes.source.unwrap().principal,
        "spiffe://cluster.local/ns/shop/sa/viewer"
    );
    assert!(attributes.request.unwrap().http.is_none());
    assert!(read(7).await.is_none(), "the service denies port 7");
    let line = lab
        .cairn()
        .logged("the denial", |l| {
            l["connection_termination_details"] == "ext_authz_denied"
        })
        .await;
    assert_eq!(line["policy"], "AuthorizationPolicy/shop/ask");
    assert_eq!(app.connections(), 1);
}
