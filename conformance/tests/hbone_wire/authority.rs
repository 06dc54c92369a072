//! How the authority of a CONNECT may be written (2.3, 2.5), and how not.

use cairn_conformance::client::{self, Connection};
use http::StatusCode;

use crate::connect::Tripwire;
use crate::frames::{Answered, Frames};
use crate::mesh::{Mesh, WEB, status_of};

/// None of these is `address:port` or `hostname:port`.
const MALFORMED: [&str; 57] = [
    "",
    ":",
    ":80",
    "10.96.1.1",
    "10.96.1.1:",
    "10.96.1.1:0",
    "10.96.1.1:080",
    "10.96.1.1:00080",
    "web.shop.svc.cluster.local:080",
    "10.96.1.1:65616",
    "10.96.1.1:99999",
    "10.96.1.1:+80",
    "10.96.1.1:-80",
    "10.96.1.1:0x50",
    "10.96.1.1:80 ",
    " 10.96.1.1:80",
    "10.96.1.1 :80",
    "10.96.1.1:8 0",
    "10.96.1.1:80:80",
    "10.96.1.1:80/",
    "10.96.1.1:80/path",
    "10.96.1.1:80?query",
    "10.96.1.1:80#fragment",
    "/10.96.1.1:80",
    "http://10.96.1.1:80",
    "user@10.96.1.1:80",
    "user:secret@10.96.1.1:80",
    "10.96.1.1,:80",
    "10.96.1.1:80,10.96.1.1:81",
    "10.96.257.1:80",
    "10.96.1:80",
    "10.96.1.1.1:80",
    "010.96.1.1:80",
    "0x0a600101:80",
    "0xa.0x60.1.1:80",
    "174063873:80",
    "10.96.1.%31:80",
    "%31%30.96.1.1:80",
    "fd00::1:80",
    "[10.96.1.1]:80",
    "[fd00::1",
    "fd00::1]:80",
    "[fd00::1]80",
    "[fd00::1%25lo]:80",
    "[fd00::1%lo]:80",
    "[]:80",
    "web.shop.svc.cluster.local",
    "web.shop.svc.cluster.local:",
    "web.shop.svc.cluster.local:http",
    "web..svc.cluster.local:80",
    ".web.shop.svc.cluster.local:80",
    "we\u{301}b.shop:80",
    "web.shop\u{0}.svc.cluster.local:80",
    "web\\shop:80",
    "*:80",
    "*.shop:80",
    "\"web\":80",
];

/// Sends a CONNECT by hand, in a connection of its own.
async fn raw_connect(mesh: &Mesh, fields: &[(&str, &str)]) -> Answered {
    let stream = mesh.tls().connect(mesh.cairn().hbone, mesh.source).await;
    let mut frames = Frames::open(stream.expect("a handshake")).await;
    frames.headers(1, 0, fields).await;
    frames.answer(1).await
}

fn is_refusal(answered: Answered) -> bool {
    matches!(
        answered,
        Answered::Status(400) | Answered::Reset(_) | Answered::GoAway(_)
    )
}

#[tokio::test]
async fn a_malformed_authority_is_refused_and_nothing_is_dialled() {
    let mesh = Mesh::start().await;
    let wire = Tripwire::new();
    let port = wire.port;
    let with_port = |host: &str| format!("{host}:{port}");
    let mut authorities: Vec<String> = MALFORMED.map(str::to_owned).into();
    authorities.extend(
        [
            "user@127.0.0.1",
            "127.1",
            "0x7f.1",
            "2130706433",
            "127.0.0.1.",
        ]
        .map(with_port),
    );
    for authority in &authorities {
        let fields = [(":method", "CONNECT"), (":authority", authority)];
        let answered = raw_connect(&mesh, &fields).await;
        assert!(is_refusal(answered), "{authority:?}: {answered:?}");
    }
    let none = raw_connect(&mesh, &[(":method", "CONNECT")]).await;
    assert!(is_refusal(none), "no authority: {none:?}");
    assert!(!wire.was_touched());
    assert_eq!(mesh.web.connections(), 0);
    assert!(mesh.refused("bad_authority").await >= 20.0);
}

#[tokio::test]
async fn an_extended_connect_is_refused() {
    let mesh = Mesh::start().await;
    let fields = [
        (":method", "CONNECT"),
        (":protocol", "websocket"),
        (":scheme", "https"),
        (":path", "/"),
        (":authority", WEB),
    ];
    let answered = raw_connect(&mesh, &fields).await;
    assert!(is_refusal(answered), "{answered:?}");
    // RFC 9113 8.5: a plain CONNECT has neither.
    let with_path = [
        (":method", "CONNECT"),
        (":scheme", "https"),
        (":path", "/"),
        (":authority", WEB),
    ];
    let answered = raw_connect(&mesh, &with_path).await;
    assert!(is_refusal(answered), "{answered:?}");
    assert_eq!(mesh.web.connections(), 0);
}

#[tokio::test]
async fn a_served_service_is_reached_by_its_hostname_too() {
    let mesh = Mesh::start().await;
    let mut tunnel = mesh.tunnel().await;
    for authority in [
        "web.shop.svc.cluster.local:80",
        "WEB.Shop.Svc.Cluster.Local:80",
        "web.shop.svc.cluster.local.:80",
    ] {
        let stream = tunnel.open(authority).await.expect("a stream");
        let mut connection = Connection::http1_over(stream).await;
        let answer = connection.get("/by-name").await.expect("an answer");
        assert_eq!(client::echo(&answer).path, "/by-name");
    }
}

#[tokio::test]
async fn an_ipv4_mapped_address_is_the_ipv4_address() {
    let mesh = Mesh::start().await;
    let mut tunnel = mesh.tunnel().await;
    let stream = tunnel.open("[::ffff:10.96.1.1]:80").await;
    let mut connection = Connection::http1_over(stream.expect("a stream")).await;
    let answer = connection.get("/mapped").await.expect("an answer");
    assert_eq!(client::echo(&answer).path, "/mapped");
    // And is refused as such.
    let undeclared = tunnel.open("[::ffff:10.96.1.1]:81").await;
    assert_eq!(status_of(undeclared), StatusCode::BAD_REQUEST);
    assert_eq!(mesh.refused("undeclared_port").await, 1.0);
}

#[tokio::test]
async fn an_ipv6_virtual_ip_stands_in_brackets() {
    let mesh = Mesh::start().await;
    let (ip, port) = (mesh.web.address.ip(), mesh.web.address.port());
    let six = format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: six, namespace: shop}}\n\
         spec: {{clusterIP: \"fd00:96::6\", clusterIPs: [\"fd00:96::6\"], ipFamilies: [IPv6], ports: [{{name: http, port: 80}}]}}\n\
         ---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\n\
         metadata: {{name: six-a, namespace: shop, labels: {{kubernetes.io/service-name: six}}}}\n\
         addressType: IPv4\nports: [{{name: http, port: {port}}}]\nendpoints: [{{addresses: [{ip}]}}]\n"
    );
    mesh.configure("six", &six).await;
    let mut tunnel = mesh.tunnel().await;
    for authority in ["[fd00:96::6]:80", "[FD00:0096:0:0::6]:80"] {
        let stream = tunnel.open(authority).await.expect("a stream");
        let mut connection = Connection::http1_over(stream).await;
        let answer = connection.get("/six").await.expect("an answer");
        assert_eq!(client::echo(&answer).path, "/six");
    }
    let bare = raw_connect(
        &mesh,
        &[(":method", "CONNECT"), (":authority", "fd00:96::6:80")],
    );
    assert!(is_refusal(bare.await), "without brackets it is ambiguous");
}
