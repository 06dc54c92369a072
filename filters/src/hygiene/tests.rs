//! What a client may not say, and what every request gets.

use http::HeaderMap;

use super::*;

fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in pairs {
        headers.append(*name, HeaderValue::from_static(value));
    }
    headers
}

fn cleaned(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
    let mut headers = headers(pairs);
    clean_request(&mut headers, None, || HeaderValue::from_static("fresh"));
    headers
}

fn names(headers: &HeaderMap) -> Vec<&str> {
    let mut names: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
    names.sort_unstable();
    names
}

#[test]
fn a_client_can_not_speak_as_a_proxy() {
    let clean = cleaned(&[
        ("x-forwarded-client-cert", "By=spiffe://a;URI=spiffe://b"),
        ("x-forwarded-client-cert", "By=spiffe://c"),
        ("x_forwarded_client_cert", "By=spiffe://d"),
        ("x-forwarded_client-cert", "By=spiffe://e"),
        ("x-envoy-original-path", "/admin"),
        ("x-envoy-retry-on", "5xx"),
        ("x-envoy-peer-metadata", "abc"),
        ("x-envoyed", "mine"),
        ("accept", "*/*"),
    ]);
    let expected = ["accept", "x-envoyed", "x-forwarded-proto", "x-request-id"];
    assert_eq!(names(&clean), expected);
}

#[test]
fn a_request_without_an_id_gets_one_and_its_own_is_kept() {
    assert_eq!(cleaned(&[])[X_REQUEST_ID], "fresh");
    assert_eq!(cleaned(&[("x-request-id", "")])[X_REQUEST_ID], "fresh");
    assert_eq!(cleaned(&[("x-request-id", "mine")])[X_REQUEST_ID], "mine");
}

#[test]
fn the_protocol_is_told_unless_someone_did() {
    assert_eq!(cleaned(&[])[X_FORWARDED_PROTO], "http");
    let sent = [("x-forwarded-proto", "https")];
    assert_eq!(cleaned(&sent)[X_FORWARDED_PROTO], "https");
}

#[test]
fn forwarded_for_is_neither_removed_nor_appended() {
    let sent = [("x-forwarded-for", "10.1.2.3")];
    assert_eq!(cleaned(&sent)["x-forwarded-for"], "10.1.2.3");
}

#[test]
fn the_clients_certificate_is_told_as_istio_does() {
    let identity = |name| Identity::of_workload("cluster.local", "default", name).unwrap();
    let value = client_cert(&identity("waypoint"), Some(&identity("client"))).unwrap();
    let mut headers = headers(&[("x-forwarded-client-cert", "By=spiffe://forged")]);
    clean_request(&mut headers, Some(value), || HeaderValue::from_static("x"));
    let values: Vec<_> = headers.get_all(X_FORWARDED_CLIENT_CERT).iter().collect();
    assert_eq!(
        values,
        [
            "By=spiffe://cluster.local/ns/default/sa/waypoint;URI=spiffe://cluster.local/ns/default/sa/client"
        ]
    );
    assert_eq!(client_cert(&identity("waypoint"), None), None);
}

#[test]
fn what_connection_names_is_gone_before_policy_looks() {
    let clean = cleaned(&[
        ("connection", "x-role, close"),
        ("connection", "X-Team ,, keep-alive"),
        ("x-role", "admin"),
        ("x-team", "a"),
        ("x-other", "b"),
    ]);
    let expected = ["connection", "x-forwarded-proto", "x-other", "x-request-id"];
    assert_eq!(names(&clean), expected);
}

#[test]
fn framing_and_what_honest_hops_said_can_not_be_named_away() {
    let sent = [
        (
            "connection",
            "host, content-length, transfer-encoding, x-forwarded-for, x-request-id, upgrade",
        ),
        ("host", "foo"),
        ("content-length", "1"),
        ("transfer-encoding", "chunked"),
        ("x-forwarded-for", "10.1.2.3"),
        ("x-request-id", "mine"),
        ("upgrade", "websocket"),
    ];
    let clean = cleaned(&sent);
    for (name, value) in &sent[1..] {
        assert_eq!(clean[*name], value);
    }
    // Nor by a later hop, which would take Connection at its word.
    assert_eq!(clean["connection"], "upgrade");
}

#[test]
fn connection_keeps_what_steers_the_connection() {
    let connection = |sent: &'static str| {
        let clean = cleaned(&[("connection", sent)]);
        clean
            .get("connection")
            .map(|v| v.to_str().unwrap().to_owned())
    };
    for sent in ["close", "Keep-Alive", "Upgrade", "te, close"] {
        assert_eq!(connection(sent).as_deref(), Some(sent), "as it was");
    }
    assert_eq!(connection("x-a,Close , x-b").as_deref(), Some("Close"));
    assert_eq!(connection("x-forwarded-client-cert"), None);
}

#[test]
fn hop_by_hop_headers_end_here() {
    let sent = [
        ("connection", "keep-alive"),
        ("keep-alive", "timeout=5"),
        ("proxy-connection", "keep-alive"),
        ("upgrade", "h2c"),
        ("te", "gzip"),
        ("accept", "*/*"),
    ];
    let mut stripped = headers(&sent);
    strip_hop_by_hop(&mut stripped, false);
    assert_eq!(names(&stripped), ["accept"]);
}

#[test]
fn a_change_of_protocol_and_grpcs_trailers_are_kept() {
    let mut kept = headers(&[
        ("connection", "upgrade"),
        ("upgrade", "websocket"),
        ("te", "trailers"),
    ]);
    strip_hop_by_hop(&mut kept, true);
    assert_eq!(names(&kept), ["connection", "te", "upgrade"]);
}

#[test]
fn cookies_in_fields_of_their_own_become_one_field() {
    let crumbs = [("cookie", "a=1"), ("accept", "*/*"), ("cookie", "b=2; c")];
    let clean = cleaned(&crumbs);
    assert_eq!(clean.get_all("cookie").iter().count(), 1);
    assert_eq!(clean["cookie"], "a=1; b=2; c");
    assert_eq!(cleaned(&[("cookie", "a=1;b")])["cookie"], "a=1;b");
    assert_eq!(cleaned(&[]).get("cookie"), None);
}
