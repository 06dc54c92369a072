//! Authorization services that are slow, dead, or say what can not be used: who passes then (specs/istio-waypoint.md 4.8).

use cairn_conformance::authorizer::Authorizer;
use cairn_conformance::client;
use cairn_conformance::lab::Reach;
use cairn_conformance::process::until;

use crate::ext_authz::{GRPC, HTTP, Mesh};

/// What a provider may not change, and answers that are neither yes nor no: refused, and not passed even
/// when the provider fails open, for it did answer.
#[tokio::test]
async fn an_answer_that_can_not_be_used_never_lets_anybody_pass() {
    let open = format!("{GRPC}  failOpen: true\n  statusOnError: \"503\"\n");
    let mesh = Mesh::start(&open, Reach::Plain).await;
    for path in [
        "/pseudo", "/host", "/xfcc", "/framing", "/newline", "/empty", "/both", "/huge",
        "/garbled", "/nothing", "/page",
    ] {
        let answer = mesh.get(path).await;
        assert_eq!(answer.status(), 503, "{path}: {}", client::text(&answer));
        let line = mesh
            .lab
            .cairn()
            .logged(path, |line| line["path"] == path)
            .await;
        assert_eq!(line["response_flags"], "UAEX", "{path}");
        assert_eq!(line["response_code_details"], "ext_authz_error", "{path}");
    }
    assert_eq!(mesh.app.requests(), 0);
    // Silence is another thing.
    for path in ["/error", "/undecided", "/busy", "/cut"] {
        assert_eq!(mesh.get(path).await.status(), 200, "{path}");
    }
}

/// Slow, dead and lying services, open and closed, many requests at once.
#[tokio::test]
async fn a_service_that_does_not_answer_is_open_or_closed_as_configured() {
    for (fail_open, silent) in [(false, 503), (true, 200)] {
        let provider =
            format!("{HTTP}  timeout: 1s\n  failOpen: {fail_open}\n  statusOnError: \"503\"\n");
        let mut mesh = Mesh::start(&provider, Reach::Plain).await;
        let paths = [
            ("/wait", silent),
            ("/error", silent),
            ("/cut", silent),
            // It did answer, and nobody can read it.
            ("/huge", 503),
            // It did say no; the rest of the answer is its own business.
            ("/endless", 403),
            ("/fine", 200),
        ];
        let asks = (0..60).map(|n| {
            let (path, status) = paths[n % paths.len()];
            let mesh = &mesh;
            async move { (path, mesh.get(path).await.status().as_u16(), status) }
        });
        for (path, found, expected) in futures::future::join_all(asks).await {
            assert_eq!(found, expected, "{path}, failOpen {fail_open}");
        }
        mesh.lab.remove_pod("gate-a");
        until("the service has no endpoint", async || {
            mesh.get("/fine").await;
            let (name, labels) = ("cairn_ext_authz_errors_total", ["reason=\"no_endpoint\""]);
            mesh.lab.cairn().metric(name, &labels).await > 0.0
        })
        .await;
        assert_eq!(mesh.get("/fine").await.status(), silent);
    }
}

/// What clients could bring about is no reason to let them in: a provider that fails open is one that is
/// not there, and not one that says what nobody understands.
#[tokio::test]
async fn a_service_that_speaks_no_http_lets_nobody_pass_though_it_fails_open() {
    for (provider, port) in [(HTTP, 80), (GRPC, 9000)] {
        let open = format!("{provider}  failOpen: true\n  statusOnError: \"503\"\n");
        let mesh = Mesh::start_with(&open, Reach::Plain, Authorizer::babbling).await;
        let answer = mesh.get("/").await;
        assert_eq!(answer.status(), 503, "port {port}");
        let unusable = ["reason=\"unusable\""];
        let errors = mesh
            .lab
            .cairn()
            .metric("cairn_ext_authz_errors_total", &unusable);
        assert_eq!(errors.await, 1.0, "port {port}");
        assert_eq!((mesh.app.requests(), mesh.gate.connections()), (0, 1));
    }
}

/// What is the matter on the waypoint's own side, here a file that is not there, is no silence of the
/// service.
#[tokio::test]
async fn a_file_that_can_not_be_read_lets_nobody_pass_though_the_provider_fails_open() {
    let open = format!("{HTTP}  failOpen: true\n  statusOnError: \"503\"\n");
    let mesh = Mesh::start(&open, Reach::Plain).await;
    assert_eq!(mesh.get("/before").await.status(), 200);
    let tls = "apiVersion: networking.istio.io/v1\nkind: DestinationRule\n\
               metadata: {name: gate, namespace: shop}\n\
               spec: {host: gate.shop.svc.cluster.local, trafficPolicy: {tls: {mode: SIMPLE, caCertificates: /nowhere/ca.pem}}}";
    mesh.lab.write("rule", tls);
    until("the rule is in force", async || {
        let answer = mesh.get("/after").await;
        assert!([200, 503].contains(&answer.status().as_u16()));
        answer.status() == 503
    })
    .await;
    let says_why = |line: &serde_json::Value| {
        let reason = line["reason"].as_str();
        reason.is_some_and(|r| r.contains("no usable answer") && r.contains("/nowhere/ca.pem"))
    };
    mesh.lab.cairn().logged("why", says_why).await;
    let opened = ["result=\"failed_open\""];
    let opened = mesh
        .lab
        .cairn()
        .metric("cairn_ext_authz_checks_total", &opened);
    assert_eq!(opened.await, 0.0);
}
