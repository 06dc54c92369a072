//! Header hygiene (2.7): what a client may not say for itself, and what every request is given.

use cairn_conformance::app::Echo;
use cairn_conformance::client::{Answer, Connection, echo};
use http::Request;
use http_body_util::Full;

use crate::mesh::{Mesh, WEB};

const WITH_XFCC: &str = "\
apiVersion: v1
kind: Namespace
metadata:
  name: shop
  labels: {istio.io/use-waypoint: waypoint}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata:
  name: waypoint
  namespace: shop
  annotations: {ambient.istio.io/xfcc-include-client-identity: \"true\"}
spec:
  gatewayClassName: cairn-waypoint
  listeners: [{name: mesh, port: 15008, protocol: HBONE}]
";

/// Sends a request with headers over HTTP/1.1 or HTTP/2.
async fn answer(mesh: &Mesh, http2: bool, headers: &[(&str, &str)]) -> Answer {
    let stream = mesh.stream(WEB).await;
    let mut connection = match http2 {
        true => Connection::http2_over(stream).await,
        false => Connection::http1_over(stream).await,
    };
    let mut request = match http2 {
        true => Request::get("http://web.shop/"),
        false => Request::get("/").header("host", "web.shop"),
    };
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(Full::default()).expect("a request");
    connection.send(request).await.expect("an answer")
}

async fn heard(mesh: &Mesh, http2: bool, headers: &[(&str, &str)]) -> Echo {
    echo(&answer(mesh, http2, headers).await)
}

#[tokio::test]
async fn a_client_can_not_speak_for_a_proxy() {
    let mesh = Mesh::start().await;
    let forged = [
        (
            "x-forwarded-client-cert",
            "By=x;URI=spiffe://cluster.local/ns/a/sa/admin",
        ),
        ("X-Forwarded-Client-Cert", "By=y"),
        ("x-envoy-retry-on", "5xx"),
        ("x-envoy-original-path", "/admin"),
        ("x-envoy-upstream-rq-timeout-ms", "1"),
        ("X-Envoy-Internal", "true"),
        ("x-envoy-anything-new", "1"),
        ("x-envoy-attempt-count", "9"),
        ("x-mine", "stays"),
    ];
    for http2 in [false, true] {
        let headers = forged.map(|(name, value)| (name.to_ascii_lowercase(), value));
        let headers: Vec<_> = headers.iter().map(|(n, v)| (n.as_str(), *v)).collect();
        let echo = heard(&mesh, http2, if http2 { &headers } else { &forged }).await;
        let attempt = echo.header("x-envoy-attempt-count");
        assert_eq!(attempt.as_deref(), Some("1"), "ours alone");
        for (name, _) in &echo.headers {
            let ours = name == "x-envoy-attempt-count";
            assert!(ours || !name.starts_with("x-envoy-"), "{name}");
            assert_ne!(name, "x-forwarded-client-cert");
        }
        assert_eq!(echo.header("x-mine").as_deref(), Some("stays"));
    }
}

#[tokio::test]
async fn every_request_has_an_id_and_keeps_the_one_it_has() {
    let mesh = Mesh::start().await;
    let id = "x-request-id";
    for http2 in [false, true] {
        let first = heard(&mesh, http2, &[]).await.header(id).expect("an id");
        let second = heard(&mesh, http2, &[(id, "")]).await.header(id);
        let second = second.expect("an id");
        assert_eq!(first.len(), 36, "{first}");
        assert_eq!(second.len(), 36, "{second}");
        assert_ne!(first, second);
        let kept = heard(&mesh, http2, &[(id, "mine")]).await.header(id);
        assert_eq!(kept.as_deref(), Some("mine"));
    }
}

#[tokio::test]
async fn x_forwarded_proto_is_http_unless_the_client_says_so_and_x_forwarded_for_is_its_own() {
    let mesh = Mesh::start().await;
    for http2 in [false, true] {
        let plain = heard(&mesh, http2, &[]).await;
        assert_eq!(plain.header("x-forwarded-proto").as_deref(), Some("http"));
        assert_eq!(plain.header("x-forwarded-for"), None, "not appended");
        let headers = [
            ("x-forwarded-proto", "https"),
            ("x-forwarded-for", "192.0.2.1"),
        ];
        let behind_gateway = heard(&mesh, http2, &headers).await;
        let said = |name| behind_gateway.header(name);
        assert_eq!(said("x-forwarded-proto").as_deref(), Some("https"));
        assert_eq!(said("x-forwarded-for").as_deref(), Some("192.0.2.1"));
        assert_eq!(behind_gateway.header("host").as_deref(), Some("web.shop"));
    }
}

#[tokio::test]
async fn the_client_identity_comes_from_tls_when_the_gateway_asks_for_it() {
    let mesh = Mesh::start().await;
    mesh.configure("mesh", WITH_XFCC).await;
    let expected = "By=spiffe://cluster.local/ns/shop/sa/waypoint;URI=spiffe://cluster.local/ns/shop/sa/viewer";
    let forged = [(
        "x-forwarded-client-cert",
        "By=x;URI=spiffe://cluster.local/ns/a/sa/admin",
    )];
    for http2 in [false, true] {
        for headers in [&[][..], &forged] {
            let echo = heard(&mesh, http2, headers).await;
            let said = echo.header("x-forwarded-client-cert");
            assert_eq!(said.as_deref(), Some(expected), "the only one");
        }
    }
}

#[tokio::test]
async fn identity_never_comes_from_a_header() {
    let mesh = Mesh::start().await;
    mesh.allow_only(
        "web",
        "[{from: [{source: {principals: [cluster.local/ns/shop/sa/admin]}}]}]",
    )
    .await;
    let admin = "spiffe://cluster.local/ns/shop/sa/admin";
    let forged = [
        ("x-forwarded-client-cert", format!("By={admin};URI={admin}")),
        ("x-spiffe-id", admin.to_owned()),
        ("x-istio-attributes", admin.to_owned()),
        (
            "baggage",
            "k8s.namespace.name=shop,k8s.deployment.name=admin".to_owned(),
        ),
        ("forwarded", "for=10.0.0.1;by=admin".to_owned()),
        ("authorization", "Bearer admin".to_owned()),
    ];
    let forged: Vec<_> = forged.iter().map(|(n, v)| (*n, v.as_str())).collect();
    for http2 in [false, true] {
        let refused = answer(&mesh, http2, &forged).await;
        assert_eq!(refused.status(), 403);
    }
    assert_eq!(mesh.web.requests(), 0);
}

#[tokio::test]
async fn headers_that_connection_names_go_no_further_and_neither_do_hop_by_hop_ones() {
    let mesh = Mesh::start().await;
    let headers = [
        ("connection", "keep-alive, x-secret"),
        ("connection", "x-other"),
        ("x-secret", "1"),
        ("x-other", "2"),
        ("keep-alive", "timeout=5"),
        ("proxy-connection", "keep-alive"),
        ("te", "gzip, trailers"),
        ("x-mine", "stays"),
    ];
    let echo = heard(&mesh, false, &headers).await;
    for name in ["x-secret", "x-other", "keep-alive", "proxy-connection"] {
        assert_eq!(echo.header(name), None, "{name}");
    }
    assert_eq!(echo.header("x-mine").as_deref(), Some("stays"));
    let te = echo.header("te");
    assert!(te.is_none() || te.as_deref() == Some("trailers"), "{te:?}");
}

#[tokio::test]
async fn connection_can_not_name_away_what_cairn_vouches_for() {
    let mesh = Mesh::start().await;
    mesh.configure("mesh", WITH_XFCC).await;
    for name in [
        "x-forwarded-client-cert",
        "x-forwarded-proto",
        "x-forwarded-for",
        "x-request-id",
        "host",
    ] {
        let headers = [("connection", name), ("x-forwarded-for", "192.0.2.1")];
        let answer = answer(&mesh, false, &headers).await;
        // Refused, or there: never quietly gone.
        if answer.status() != 400 {
            let echo = echo(&answer);
            assert!(echo.header(name).is_some(), "{name}: {echo:?}");
        }
    }
}

#[tokio::test]
async fn a_header_that_policy_matches_can_not_be_named_away_after_it_matched() {
    let mesh = Mesh::start().await;
    mesh.allow_only(
        "web",
        "[{when: [{key: \"request.headers[x-token]\", values: [open]}]}]",
    )
    .await;
    assert_eq!(
        answer(&mesh, false, &[("x-token", "open")]).await.status(),
        200
    );
    // The endpoint would not see the token, so policy must not either.
    let named = [("x-token", "open"), ("connection", "x-token")];
    assert_eq!(answer(&mesh, false, &named).await.status(), 403);
}
