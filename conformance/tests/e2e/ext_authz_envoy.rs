//! CUSTOM policies beside real Envoy with its own ext_authz filter, and the same authorization service behind
//! both: what the service is asked, what the application and the client get. Differences are those that
//! docs/ext-authz.md lists. Envoy's messages are written and read by the protocol's own definitions, so
//! that agreement proves the field numbers of `cairn_waypoint::external::messages`.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use cairn_conformance::app::App;
use cairn_conformance::authorizer::{Authorizer, Question};
use cairn_conformance::client::{Answer, Connection};
use cairn_conformance::envoy::{CheckGate, ext_authz};
use cairn_conformance::hbone::Tls;
use cairn_conformance::lab::{Client, Lab, Port, Reach};
use cairn_conformance::process::Process;
use http::Request;
use http_body_util::Full;
use serde_json::{Value, json};

use crate::ext_authz::asking;

/// A waypoint and Envoy, with one authorization service and one application behind both.
struct Pair {
    lab: Lab,
    gate: Authorizer,
    client: Client,
    envoy: SocketAddr,
    _app: App,
    _process: Process,
}

/// What one of the two makes of a request, by names; what is random or of the way is left out.
type Seen = BTreeMap<String, String>;

impl Pair {
    async fn start(provider: &str, filter: Value) -> Self {
        let mut lab = Lab::new();
        lab.service("web", &[Port::new("http", 80)]);
        lab.service("gate", &[Port::new("http", 80), Port::new("grpc", 9000)]);
        let app = lab.pod("web", "web-a", Reach::Plain, |at| App::http("a", at));
        let address = lab.free_address();
        let gate = Authorizer::start(address).await;
        lab.pod_at("gate", "gate-a", Reach::Plain, address);
        lab.write("asking", &asking(provider));
        lab.start().await;
        let client = lab.client("shop/viewer").await;
        let check = CheckGate {
            identity: &lab.identities.folder_of("shop/web"),
            gate: address,
            app: app.address,
            filter: ext_authz(&filter),
            rate_limits: json!([]),
        };
        let (process, envoy) = check.start(lab.client_address(), lab.folder()).await;
        Self {
            lab,
            gate,
            client,
            envoy,
            _app: app,
            _process: process,
        }
    }

    async fn by_cairn(&self, sent: &Sent) -> Seen {
        let connection = Connection::http2(self.client.to("web", 80)).await;
        self.seen(connection, sent).await
    }

    async fn by_envoy(&self, sent: &Sent) -> Seen {
        let tls = Tls::of(&self.lab.identities.folder_of("shop/viewer"));
        let stream = tls.connect(self.envoy, self.lab.client_address()).await;
        let connection = Connection::http2_over(stream.expect("TLS")).await;
        self.seen(connection, sent).await
    }

    async fn seen(&self, mut connection: Connection, sent: &Sent) -> Seen {
        let asked = self.gate.questions().len();
        let answer = connection.send(sent.request()).await.expect("an answer");
        let mut seen = Seen::new();
        note_answer(&answer, &mut seen);
        let questions = self.gate.questions();
        for (index, question) in questions.iter().skip(asked).enumerate() {
            note_question(index, question, &mut seen);
        }
        seen
    }
}

/// A request.
struct Sent {
    path: &'static str,
    headers: &'static [(&'static str, &'static str)],
    body: &'static str,
}

impl Sent {
    fn request(&self) -> Request<Full<bytes::Bytes>> {
        let mut request = Request::post(format!("http://web.shop{}", self.path));
        for (name, value) in self.headers {
            request = request.header(*name, *value);
        }
        request.body(Full::from(self.body)).expect("a request")
    }
}

/// Of the way, or different each time: in no comparison.
const LEFT_OUT: [&str; 10] = [
    "x-forwarded-proto",
    "date",
    "server",
    "x-request-id",
    "x-envoy-upstream-service-time",
    "x-envoy-expected-rq-timeout-ms",
    "x-envoy-internal",
    "x-envoy-attempt-count",
    "x-envoy-decorator-operation",
    "x-forwarded-for",
];

fn note_headers(place: &str, headers: impl Iterator<Item = (String, String)>, seen: &mut Seen) {
    for (name, value) in headers {
        // Nothing more is said by an empty body's length in HTTP/2.
        if LEFT_OUT.contains(&&*name) || (&*name, &*value) == ("content-length", "0") {
            continue;
        }
        let values = seen.entry(format!("{place} {name}")).or_default();
        if !values.is_empty() {
            values.push(',');
        }
        values.push_str(&value);
    }
}

fn note_answer(answer: &Answer, seen: &mut Seen) {
    seen.insert("status".to_owned(), answer.status().as_u16().to_string());
    let text = |v: &http::HeaderValue| String::from_utf8_lossy(v.as_bytes()).into_owned();
    let headers = answer.headers().iter();
    let headers = headers.map(|(name, value)| (name.to_string(), text(value)));
    match serde_json::from_slice::<cairn_conformance::app::Echo>(answer.body()) {
        Ok(echo) => {
            let of_app = headers.filter(|(name, _)| name != "content-length");
            note_headers("answer", of_app, seen);
            seen.insert("app path".to_owned(), echo.path);
            seen.insert("app body".to_owned(), echo.body_bytes.to_string());
            note_headers("app", echo.headers.into_iter(), seen);
        }
        Err(_) => {
            note_headers("answer", headers, seen);
            let body = String::from_utf8_lossy(answer.body()).into_owned();
            seen.insert("answer body".to_owned(), body);
        }
    }
}

fn note_question(index: usize, question: &Question, seen: &mut Seen) {
    let at = format!("asked {index}");
    seen.insert(format!("{at} method"), question.method.clone());
    seen.insert(format!("{at} path"), question.path.clone());
    let body = String::from_utf8_lossy(&question.body).into_owned();
    seen.insert(format!("{at} body"), body);
    note_headers(
        &format!("{at} header"),
        question.headers.iter().cloned(),
        seen,
    );
    let Some(attributes) = question.check.as_ref().and_then(|c| c.attributes.as_ref()) else {
        return;
    };
    for (end, peer) in [
        ("source", &attributes.source),
        ("destination", &attributes.destination),
    ] {
        let peer = peer.clone().unwrap_or_default();
        seen.insert(format!("{at} {end}.principal"), peer.principal);
        let socket = peer.address.and_then(|address| address.socket_address);
        let socket = socket.map(|s| !s.address.is_empty() && s.port_value > 0);
        seen.insert(
            format!("{at} {end}.address is there"),
            format!("{socket:?}"),
        );
    }
    let request = attributes.request.clone().unwrap_or_default();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let age_s = request
        .time
        .map(|time| now.expect("a time").as_secs() as i64 - time.seconds);
    seen.insert(
        format!("{at} time"),
        format!("{}", age_s.is_some_and(|s| (0..60).contains(&s))),
    );
    let http = request.http.unwrap_or_default();
    seen.insert(
        format!("{at} id is there"),
        (!http.id.is_empty()).to_string(),
    );
    seen.insert(format!("{at} scheme"), http.scheme);
    seen.insert(format!("{at} size"), http.size.to_string());
    seen.insert(format!("{at} protocol"), http.protocol);
    seen.insert(format!("{at} text body"), http.body);
    seen.insert(
        format!("{at} raw body"),
        String::from_utf8_lossy(&http.raw_body).into_owned(),
    );
}

/// `path: name: Envoy's, Cairn's` for all that differs but what is known.
async fn differences(pair: &Pair, all: &[Sent], known: &[(&str, &str)]) -> Vec<String> {
    let mut found = Vec::new();
    for sent in all {
        let (envoy, cairn) = (pair.by_envoy(sent).await, pair.by_cairn(sent).await);
        let mut names: Vec<&String> = envoy.keys().chain(cairn.keys()).collect();
        names.sort();
        names.dedup();
        for name in names {
            let (envoy, cairn) = (envoy.get(name), cairn.get(name));
            let is_known = known
                .iter()
                .any(|(path, part)| sent.path.starts_with(path) && name.ends_with(part));
            if envoy != cairn && !is_known {
                found.push(format!(
                    "{}: {name}: Envoy {envoy:?}, Cairn {cairn:?}",
                    sent.path
                ));
            }
        }
    }
    found
}

fn exact(names: &[&str]) -> Value {
    let patterns = names.iter();
    let patterns = patterns.map(|name| json!({ "exact": name, "ignore_case": true }));
    json!({ "patterns": patterns.collect::<Vec<_>>() })
}

const HEADERS: &[(&str, &str)] = &[
    ("cookie", "session=1"),
    ("x-ask-who", "mallory"),
    ("x-many", "1"),
    ("x-many", "2"),
    ("x-user", "mallory"),
    ("authorization", "Basic YTpi"),
];

fn sent(path: &'static str) -> Sent {
    Sent {
        path,
        headers: HEADERS,
        body: "some",
    }
}

#[tokio::test]
async fn over_http_the_service_the_app_and_the_client_get_what_envoy_gives_them() {
    let provider = "\
envoyExtAuthzHttp:
  service: gate.shop.svc.cluster.local
  port: 80
  timeout: 1s
  statusOnError: \"503\"
  pathPrefix: /check
  includeRequestBodyInCheck: {maxRequestBytes: 1000, allowPartialMessage: true}
  includeRequestHeadersInCheck: [cookie, x-ask-who, x-many]
  includeAdditionalHeadersInCheck: {x-extra: more}
  headersToUpstreamOnAllow: [x-user]
  headersToDownstreamOnAllow: [set-cookie]
  headersToDownstreamOnDeny: [x-why]
";
    let filter = json!({
        "status_on_error": { "code": "ServiceUnavailable" },
        "with_request_body": { "max_request_bytes": 1000, "allow_partial_message": true },
        "allowed_headers": exact(&["cookie", "x-ask-who", "x-many"]),
        "http_service": {
            "server_uri": { "uri": "http://gate.shop", "cluster": "gate-http", "timeout": "1s" },
            "path_prefix": "/check",
            "authorization_request": { "headers_to_add": [{ "key": "x-extra", "value": "more" }] },
            "authorization_response": {
                "allowed_upstream_headers": exact(&["x-user"]),
                "allowed_client_headers_on_success": exact(&["set-cookie"]),
                "allowed_client_headers": exact(&["x-why"]),
            },
        },
    });
    let pair = Pair::start(provider, filter).await;
    let all = [
        "/fine?a=b",
        "/a/../b//c",
        "/deny",
        "/moved",
        "/error",
        "/wait",
        "/cut",
    ]
    .map(sent);
    // A header that the service sends twice: Envoy keeps the last.
    let found = differences(&pair, &all, &[("/", "app x-user")]).await;
    assert!(found.is_empty(), "{found:#?}");
}

/// What docs/ext-authz.md lists under "Differences from Envoy".
const KNOWN_OVER_GRPC: &[(&str, &str)] = &[
    ("/append", "app x-append"),
    ("/append", "app x-not-there"),
    ("/append", "app x-there"),
    ("/query", "app path"),
];

#[tokio::test]
async fn over_grpc_the_service_the_app_and_the_client_get_what_envoy_gives_them() {
    for pack_as_bytes in [false, true] {
        let provider = format!(
            "\
envoyExtAuthzGrpc:
  service: gate.shop.svc.cluster.local
  port: 9000
  timeout: 1s
  statusOnError: \"503\"
  includeRequestBodyInCheck: {{maxRequestBytes: 3, allowPartialMessage: true, packAsBytes: {pack_as_bytes}}}
"
        );
        let filter = json!({
            "status_on_error": { "code": "ServiceUnavailable" },
            "with_request_body": {
                "max_request_bytes": 3, "allow_partial_message": true, "pack_as_bytes": pack_as_bytes,
            },
            "grpc_service": { "envoy_grpc": { "cluster_name": "gate-grpc" }, "timeout": "1s" },
        });
        let pair = Pair::start(&provider, filter).await;
        let all = [
            "/fine?a=b",
            "/deny",
            "/bare",
            "/error",
            "/undecided",
            "/wait",
            "/append",
            "/query?secret=1&x=%20&user=eve",
            "/response",
            "/busy",
            "/page",
        ];
        let found = differences(&pair, &all.map(sent), KNOWN_OVER_GRPC).await;
        assert!(found.is_empty(), "{found:#?}");
    }
}
