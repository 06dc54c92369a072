//! `cairn explain` and the data path give the same answers: random requests are explained first and
//! then sent through a running waypoint, and verdict, policy, rule, reason, route, status, path and
//! backend must agree.

#![allow(clippy::unwrap_used, clippy::panic)] // a failed step is a failed test

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;

use bytes::Bytes;
use cairn_config_schema::resolve::{Options, resolve};
use cairn_config_schema::snapshot::Snapshot;
use cairn_config_schema::store::{SourceFile, Store};
use cairn_waypoint::client::HttpClient;
use cairn_waypoint::demo::{Client, DB, Lab, Log, WEB};
use cairn_waypoint::explain::{self, Question, Report, Route};
use cairn_waypoint::source::Files;
use http::header::{CONTENT_TYPE, HOST};
use http::{HeaderMap, HeaderValue, Method, Request, Response};
use http_body_util::Full;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

#[derive(Clone, Debug)]
struct Asked {
    visitor: bool,
    method: &'static str,
    path: String,
    grpc: bool,
}

/// Requests that come near the rules of the demo's mesh: its paths, and the tricks with paths.
fn asked() -> impl Strategy<Value = Asked> {
    let plain = select(vec!["items", "canary", "legacy", "admin", "old", "users"]);
    let trick = select(vec![
        "", ".", "..", "%2e%2e", "a%2Fb", "a%5cb", "%61dmin", "..;", "x;y", "%25", "%zz", "%00",
        "ITEMS",
    ]);
    let segment = prop_oneof![4 => plain, 1 => trick];
    let query = select(vec!["", "?", "?full=1", "?a=/../b"]);
    let path = (prop::collection::vec(segment, 1..4), query)
        .prop_map(|(segments, query)| format!("/{}{query}", segments.join("/")));
    let method = select(vec!["GET", "GET", "GET", "POST", "HEAD", "PURGE"]);
    (any::<bool>(), method, path, prop::bool::weighted(0.1)).prop_map(
        |(visitor, method, path, grpc)| Asked {
            visitor,
            method,
            path,
            grpc,
        },
    )
}

impl Asked {
    /// `None`: the client's library can not send it.
    fn request(&self, id: &str) -> Option<Request<Full<Bytes>>> {
        let mut request = Request::new(Full::new(Bytes::new()));
        *request.method_mut() = self.method.parse().ok()?;
        *request.uri_mut() = self.path.parse().ok()?;
        // A library that repairs what it is given would send something else than was explained.
        if request.uri().path_and_query().map(|p| p.as_str()) != Some(self.path.as_str()) {
            return None;
        }
        *request.headers_mut() = self.headers();
        request
            .headers_mut()
            .insert("x-request-id", id.parse().ok()?);
        Some(request)
    }

    fn headers(&self) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(HOST, HeaderValue::from_static("web.shop"));
        if self.grpc {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        }
        headers
    }

    fn explain(&self, snapshot: &Snapshot) -> Report {
        let from = if self.visitor {
            "guest/visitor"
        } else {
            "shop/frontend"
        };
        let method: Method = self.method.parse().unwrap();
        let question = Question {
            from: explain::client(from, Some(IpAddr::V4(Ipv4Addr::LOCALHOST)), snapshot).unwrap(),
            to: WEB,
            method: &method,
            path: &self.path,
            headers: self.headers(),
            keys: Default::default(),
            now_s: 0,
            tcp: false,
            server_name: None,
        };
        explain::judge(snapshot.clone(), question).unwrap()
    }
}

/// The snapshot of the files, not of the process: what `cairn explain --config` would read.
fn snapshot_of(folder: PathBuf) -> Snapshot {
    let mut files = Files::new([folder]);
    files.refresh();
    let sources: Vec<SourceFile<'_>> = files
        .sources()
        .iter()
        .map(|file| SourceFile {
            path: file.path.clone(),
            content: Ok(file.text.as_ref().unwrap().as_bytes().into()),
        })
        .collect();
    resolve(
        &Store::default().update(&sources).resources,
        &Options::default(),
    )
}

#[tokio::test]
async fn explanation_and_data_path_agree() {
    let lab = Lab::start().await.unwrap();
    let mut log = Log::start(&lab.folder().join("access.log")).unwrap();
    let snapshot = snapshot_of(lab.folder().join("mesh"));
    assert!(
        snapshot.diagnostics.is_empty(),
        "{:?}",
        snapshot.diagnostics
    );
    let frontend = lab.client("shop", "frontend").await.unwrap();
    let visitor = lab.client("guest", "visitor").await.unwrap();
    let mut runner = TestRunner::default();
    // PROPTEST_CASES, 256 unless it is set; each takes some 20 ms, for its access log line.
    let requests = runner.config().cases as usize;
    let (mut sent, mut passed) = (0, 0);
    while sent < requests {
        let asked = asked().new_tree(&mut runner).unwrap().current();
        let id = format!("explain-{sent}");
        let Some(request) = asked.request(&id) else {
            continue;
        };
        sent += 1;
        let report = asked.explain(&snapshot);
        passed += usize::from(report.passes);
        let client = if asked.visitor { &visitor } else { &frontend };
        let response = send(client, request).await;
        let line = log
            .line("request_id", &id)
            .await
            .expect("an access log line");
        compare(&asked, &report, &response, &line);
    }
    assert!(
        passed > requests / 20,
        "the requests are too wild to mean anything: {passed} pass"
    );
}

/// What comes back for bytes that are sent in a stream, and nothing after them.
async fn answered(client: &Client, to: &str, bytes: &[u8]) -> String {
    let mut stream = client.open(to).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn a_stream_without_http_is_explained_as_the_port_takes_it() {
    // A ClientHello as far as its version, a line of SMTP, a message that no line ends.
    const STREAMS: [(&[u8], Option<&str>); 3] = [
        (
            b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x03",
            Some("web.shop"),
        ),
        (b"EHLO mail.shop\r\n", None),
        (b"hello", None),
    ];
    let lab = Lab::start().await.unwrap();
    let snapshot = snapshot_of(lab.folder().join("mesh"));
    let frontend = lab.client("shop", "frontend").await.unwrap();
    for (bytes, server_name) in STREAMS {
        let explain = |to| {
            let local = Some(IpAddr::V4(Ipv4Addr::LOCALHOST));
            let question = Question {
                from: explain::client("shop/frontend", local, &snapshot).unwrap(),
                to,
                method: &Method::GET,
                path: "/",
                headers: HeaderMap::new(),
                keys: Default::default(),
                now_s: 0,
                tcp: server_name.is_none(),
                server_name,
            };
            explain::judge(snapshot.clone(), question).unwrap()
        };
        let context = String::from_utf8_lossy(bytes);
        // The port declares HTTP: what is none is answered as a request that can not be read.
        let report = explain(WEB);
        let given = answered(&frontend, WEB, bytes).await;
        let answer = report
            .answer
            .as_ref()
            .unwrap_or_else(|| panic!("{report:#?}"));
        let status = given.split(' ').nth(1).unwrap_or_default();
        assert_eq!(status, answer.status.to_string(), "{context}: {given:?}");
        let body = given.split("\r\n\r\n").nth(1);
        assert_eq!(body, Some(&*answer.body), "{context}: {given:?}");
        let taken_as = report.destination.as_ref().map(|d| d.taken_as);
        assert_eq!(
            (report.passes, taken_as),
            (false, Some("http")),
            "{context}"
        );
        assert!(report.verdict.is_none(), "no policy is asked: {context}");
        // The port declares TCP: the same bytes arrive.
        let report = explain(DB);
        let given = answered(&frontend, DB, bytes).await;
        let arrived = given.ends_with(&*context);
        assert_eq!(report.passes, arrived, "{context}: {given:?} {report:#?}");
    }
}

async fn send(client: &Client, request: Request<Full<Bytes>>) -> Response<Bytes> {
    let mut http: HttpClient = client.http(WEB, false).await.unwrap();
    http.fetch(request).await.unwrap()
}

fn compare(asked: &Asked, report: &Report, response: &Response<Bytes>, line: &Value) {
    let context = format!("{asked:?}\nexplained {report:#?}\nlogged {line}");
    let logged = |key: &str| line.get(key).cloned().unwrap_or_default();
    let text = |value: Option<String>| value.map_or(Value::Null, Value::String);

    let verdict = report.verdict.as_ref();
    let words = verdict.map(|v| if v.allowed { "allow" } else { "deny" }.to_owned());
    assert_eq!(logged("verdict"), text(words), "verdict: {context}");
    let policy = verdict
        .and_then(|v| v.policy.as_ref())
        .map(ToString::to_string);
    assert_eq!(logged("policy"), text(policy), "policy: {context}");
    let rule = verdict
        .and_then(|v| v.rule)
        .map_or(Value::Null, |r| r.into());
    assert_eq!(logged("rule"), rule, "rule: {context}");
    if let Some(verdict) = verdict.filter(|v| !v.allowed) {
        assert_eq!(
            logged("reason"),
            Value::String(verdict.reason.clone()),
            "reason: {context}"
        );
    }
    if let Some(Route::Rule { route, .. }) = &report.route {
        let name = logged("route_name").as_str().unwrap_or_default().to_owned();
        assert!(name.contains(&*route.key.name), "route: {context}");
    }

    let status = report.answer.as_ref().map_or(200, |a| a.status);
    assert_eq!(response.status().as_u16(), status, "status: {context}");
    let body = String::from_utf8_lossy(response.body()).into_owned();
    match &report.answer {
        Some(answer) if asked.method != "HEAD" && answer.grpc_status.is_none() => {
            assert_eq!(body, answer.body, "body: {context}");
        }
        Some(answer) => {
            let grpc = response
                .headers()
                .get("grpc-status")
                .and_then(|v| v.to_str().ok());
            assert_eq!(
                grpc,
                answer.grpc_status.map(|s| s.to_string()).as_deref(),
                "{context}"
            );
        }
        None if asked.method != "HEAD" => {
            let mut lines = body.lines();
            let app = format!("shop/{}:80", lines.next().unwrap_or_default());
            let backend = report.backends.iter().find(|b| b.name == app);
            let backend = backend.unwrap_or_else(|| panic!("{app} is not expected: {context}"));
            let target = format!(
                "{} {} HTTP/1.1",
                asked.method,
                backend.path.as_deref().unwrap_or("-")
            );
            assert_eq!(lines.next(), Some(target.as_str()), "path: {context}");
            for change in &backend.request_headers {
                if let Some(added) = change.strip_prefix("+ ") {
                    assert!(
                        body.lines().any(|l| l == added),
                        "{added} is missing: {body}\n{context}"
                    );
                }
            }
        }
        None => {}
    }
}
