//! IPv6 from end to end: the client's tunnel, the authority of its CONNECT, the endpoint behind. Does
//! nothing on a machine without an IPv6 loopback address.

use cairn_conformance::app::{App, BANNER, read_exactly};
use cairn_conformance::client::{self, Connection};
use cairn_conformance::hbone::{Refused, Tls, Tunnel};
use cairn_conformance::lab::{Lab, Port, Reach};
use http::StatusCode;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

const POLICY: &str = "\
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: deny, namespace: shop}
spec:
  targetRefs: [{group: \"\", kind: Service, name: web}]
  action: DENY
  rules:
  - from: [{source: {ipBlocks: [\"::1/128\"]}}]
    to: [{operation: {paths: [/not-from-loopback]}}]
  - from: [{source: {ipBlocks: [0.0.0.0/0]}}]
    to: [{operation: {paths: [/not-from-ipv4]}}]
";

fn ipv6_lab() -> Option<Lab> {
    let lab = Lab::new_ipv6();
    if lab.is_none() {
        println!("not tested: no IPv6 loopback address here");
    }
    lab
}

#[tokio::test]
async fn http_goes_through_tunnels_over_ipv6() {
    let Some(mut lab) = ipv6_lab() else { return };
    lab.service("web", &[Port::new("http", 80)]);
    let app = lab.pod("web", "web-a", Reach::Hbone, |at| App::http("a", at));
    lab.write("policy", POLICY);
    lab.start().await;
    let viewer = lab.client("shop/viewer").await;
    let mut connection = Connection::http1(viewer.to("web", 80)).await;
    for (path, status) in [
        ("/open", 200),
        ("/not-from-loopback", 403),
        ("/not-from-ipv4", 200),
    ] {
        let answer = connection.get(path).await.unwrap();
        assert_eq!(answer.status(), status, "{path}");
    }
    assert_eq!(app.requests(), 2);

    // HBONE to the endpoint, and its address is written as IPv6 is.
    let line = lab.cairn().logged("/open", |l| l["path"] == "/open").await;
    assert_eq!(line["upstream_host"], app.address.to_string());
    assert_eq!(line["downstream_local_address"], "[fd00::1]:80");
    assert_eq!(line["tunnel_authority"], "[fd00::1]:80");
    let from = line["downstream_remote_address"].as_str().unwrap();
    assert!(from.starts_with("[::1]:"), "{from}");
    let tunnels = lab.cairn().metric("cairn_upstream_tunnels", &[]).await;
    assert!(tunnels >= 1.0, "the endpoint is reached by HBONE");
}

#[tokio::test]
async fn tcp_goes_to_a_plain_endpoint_over_ipv6() {
    let Some(mut lab) = ipv6_lab() else { return };
    lab.service("mail", &[Port::new("tcp", 25)]);
    let _mail = lab.pod("mail", "mail-a", Reach::Plain, App::server_first);
    lab.start().await;
    let viewer = lab.client("shop/viewer").await;
    let mut stream = TcpStream::connect(viewer.to("mail", 25)).await.unwrap();
    assert_eq!(read_exactly(&mut stream, BANNER.len()).await, BANNER);
    stream.write_all(b"helo").await.unwrap();
    assert_eq!(read_exactly(&mut stream, 4).await, b"helo");
}

#[tokio::test]
async fn an_ipv6_address_that_is_not_declared_is_refused() {
    let Some(mut lab) = ipv6_lab() else { return };
    lab.service("web", &[Port::new("http", 80)]);
    let app = lab.pod("web", "web-a", Reach::Plain, |at| App::http("a", at));
    lab.start().await;
    let tls = Tls::of(&lab.identities.folder_of("shop/viewer"));
    let (to, from) = (lab.cairn().hbone, lab.client_address());
    let mut tunnel = Tunnel::connect(&tls, to, from).await.unwrap();
    let own_ports = [lab.cairn().admin, lab.cairn().hbone];
    let undeclared = [
        "[fd00::1]:81".to_owned(),
        "[fd00::2]:80".to_owned(),
        "[fe80::1]:80".to_owned(),
        "[::]:80".to_owned(),
        "[::1]:80".to_owned(),
        "[::ffff:127.0.0.1]:80".to_owned(),
        // An endpoint of a Service is not an address of this waypoint's, which is for Services.
        app.address.to_string(),
    ];
    let own_ports = own_ports.map(|own| own.to_string());
    for authority in undeclared.iter().chain(&own_ports) {
        match tunnel.open(authority).await {
            Err(Refused::Status(StatusCode::BAD_REQUEST)) => {}
            Err(other) => panic!("{authority}: {other:?}"),
            Ok(_) => panic!("{authority} is taken"),
        }
    }
    assert_eq!(app.connections(), 0);
    // The longest way to write the virtual IP is the same address.
    let declared = "[fd00:0000:0000:0000:0000:0000:0000:0001]:80";
    let stream = tunnel.open(declared).await.unwrap();
    let mut connection = Connection::http1_over(stream).await;
    let answer = connection.get("/declared").await.unwrap();
    assert_eq!(client::echo(&answer).path, "/declared");
}
