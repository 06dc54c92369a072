//! TLS of a tunnel (2.1): who gets in, and certificates that change under open tunnels.

use std::time::{Duration, SystemTime};

use cairn_conformance::app::{BANNER, read_exactly};
use cairn_conformance::client;
use cairn_conformance::hbone::Tls;
use cairn_conformance::identities::{self, DAY, Identities, identity};
use cairn_conformance::process::until;
use cairn_waypoint::pki::{Issued, Leaf};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::certificates::{below_intermediate, dns_name, signed_by_root, uri_name};
use crate::mesh::{DEADLINE, MAIL, Mesh, WEB};

const VIEWER: &str = "spiffe://cluster.local/ns/shop/sa/viewer";
const WAYPOINT: &str = "spiffe://cluster.local/ns/shop/sa/waypoint";

fn leaf(uris: &[&str]) -> Leaf {
    Leaf {
        uris: uris.iter().map(ToString::to_string).collect(),
        ..Leaf::of(&identity("shop/viewer"), DAY)
    }
}

fn tls_of(issued: Issued) -> Tls {
    Tls::with(issued.cert_chain_pem, issued.key_pem)
}

/// The certificate that the server shows.
async fn server_certificate(mesh: &Mesh) -> Vec<u8> {
    let stream = mesh.tls().connect(mesh.cairn().hbone, mesh.source).await;
    let stream = stream.expect("a handshake");
    let (_, session) = stream.get_ref();
    session.peer_certificates().expect("a certificate")[0].to_vec()
}

fn names(certificate: &[u8], name: &str) -> bool {
    let mut windows = certificate.windows(name.len());
    windows.any(|bytes| bytes == name.as_bytes())
}

/// Exit code of curl, which speaks other versions of TLS and offers h2 and http/1.1.
async fn curl(mesh: &Mesh, options: &[&str]) -> Option<i32> {
    let folder = mesh.lab.identities.folder_of("shop/viewer");
    let file = |name: &str| folder.join(name).display().to_string();
    let url = format!("https://{}/", mesh.cairn().hbone);
    let (chain, key) = (file("cert-chain.pem"), file("key.pem"));
    let mut arguments = vec!["--insecure", "--cert", &chain, "--key", &key, &url];
    arguments.extend(options);
    client::curl(&arguments).await.0
}

#[tokio::test]
async fn tls_1_2_is_refused() {
    let mesh = Mesh::start().await;
    let handshake_failed = Some(35);
    assert_eq!(curl(&mesh, &["--tls-max", "1.2"]).await, handshake_failed);
    assert_eq!(curl(&mesh, &["--tlsv1.3", "--http2"]).await, Some(0));
}

#[tokio::test]
async fn only_alpn_h2_gets_in() {
    let mesh = Mesh::start().await;
    let alpn = |protocols: &[&str]| Tls {
        alpn: protocols.iter().map(|p| p.as_bytes().to_vec()).collect(),
        ..mesh.tls()
    };
    assert!(mesh.accepts(&alpn(&["h2"])).await);
    assert!(mesh.accepts(&alpn(&["http/1.1", "h2"])).await, "h2 too");
    assert!(!mesh.accepts(&alpn(&[])).await, "no ALPN");
    assert!(!mesh.accepts(&alpn(&["http/1.1"])).await, "HTTP/1.1");
    assert!(!mesh.accepts(&alpn(&["istio-http/1.1"])).await, "a sidecar");
}

#[tokio::test]
async fn a_client_without_certificate_is_refused() {
    let mesh = Mesh::start().await;
    let anonymous = Tls {
        identity: None,
        ..mesh.tls()
    };
    assert!(!mesh.accepts(&anonymous).await);
    let failed = mesh.cairn();
    failed
        .metric_reaches("cairn_handshake_failed_total", &["reason=\"tls\""], 1.0)
        .await;
}

#[tokio::test]
async fn a_client_of_another_authority_is_refused() {
    let mesh = Mesh::start().await;
    let elsewhere = Identities::new(&mesh.lab.folder().join("elsewhere"));
    assert!(!mesh.accepts(&tls_of(elsewhere.issue("shop/viewer"))).await);
}

#[tokio::test]
async fn the_identity_is_exactly_one_spiffe_id_of_the_trust_domain() {
    let mesh = Mesh::start().await;
    let table: [(&str, &[&str], bool); 13] = [
        ("one SPIFFE ID", &[VIEWER], true),
        ("no name", &[], false),
        (
            "another trust domain",
            &["spiffe://other.example/ns/shop/sa/viewer"],
            false,
        ),
        (
            "the trust domain as a prefix",
            &["spiffe://cluster.local.evil.example/ns/shop/sa/viewer"],
            false,
        ),
        (
            "the trust domain as a suffix",
            &["spiffe://evil.cluster.local/ns/shop/sa/viewer"],
            false,
        ),
        ("no trust domain", &["spiffe:///ns/shop/sa/viewer"], false),
        (
            "two SPIFFE IDs",
            &[VIEWER, "spiffe://cluster.local/ns/shop/sa/admin"],
            false,
        ),
        ("the same one twice", &[VIEWER, VIEWER], false),
        ("another URI too", &[VIEWER, "https://example.com/"], false),
        (
            "a URI that is no SPIFFE ID",
            &["https://cluster.local/ns/shop/sa/viewer"],
            false,
        ),
        (
            "a query",
            &["spiffe://cluster.local/ns/shop/sa/viewer?x"],
            false,
        ),
        (
            "a user part",
            &["spiffe://me@cluster.local/ns/shop/sa/viewer"],
            false,
        ),
        (
            "dots",
            &["spiffe://cluster.local/ns/shop/sa/../sa/viewer"],
            false,
        ),
    ];
    for (what, uris, accepted) in table {
        let tls = tls_of(mesh.lab.identities.issue_leaf(&leaf(uris)));
        assert_eq!(mesh.accepts(&tls).await, accepted, "{what}");
    }
}

#[tokio::test]
async fn a_dns_name_is_no_identity_but_does_not_spoil_one() {
    let mesh = Mesh::start().await;
    let authority = mesh.lab.identities.authority();
    let dns = dns_name("viewer.shop.svc.cluster.local");
    let alone = signed_by_root(authority, std::slice::from_ref(&dns));
    assert!(!mesh.accepts(&alone).await, "a DNS name alone");
    let both = signed_by_root(authority, &[dns, uri_name(VIEWER)]);
    assert!(mesh.accepts(&both).await, "a DNS name beside a SPIFFE ID");
}

#[tokio::test]
async fn a_certificate_counts_only_within_its_time() {
    let mesh = Mesh::start().await;
    let now = SystemTime::now();
    let hour = Duration::from_secs(3600);
    for (what, not_before, not_after, accepted) in [
        ("valid", now - hour, now + hour, true),
        ("expired", now - 2 * hour, now - hour, false),
        ("not yet valid", now + hour, now + 2 * hour, false),
    ] {
        let tls = tls_of(mesh.lab.identities.issue_leaf(&Leaf {
            not_before,
            not_after,
            ..leaf(&[VIEWER])
        }));
        assert_eq!(mesh.accepts(&tls).await, accepted, "{what}");
    }
}

#[tokio::test]
async fn a_chain_with_an_intermediate_is_accepted() {
    let mesh = Mesh::start().await;
    let (alone, intermediate) = below_intermediate(mesh.lab.identities.authority(), VIEWER);
    assert!(!mesh.accepts(&alone).await, "without the intermediate");
    let (leaf, key) = alone.identity.expect("an identity");
    assert!(mesh.accepts(&Tls::with(leaf + &intermediate, key)).await);
}

#[tokio::test]
async fn every_root_of_root_cert_pem_counts_and_none_that_has_left_it() {
    let mesh = Mesh::start().await;
    let folder = mesh.lab.waypoint_identity();
    let old = mesh.lab.identities.issue("shop/waypoint");
    let second = Identities::new(&mesh.lab.folder().join("second"));
    let viewer = tls_of(second.issue("shop/viewer"));
    assert!(!mesh.accepts(&viewer).await);
    let mut tunnel = mesh.tunnel().await;

    let both = Issued {
        root_cert_pem: old.root_cert_pem.clone() + second.authority().root_cert_pem(),
        ..old
    };
    identities::write(&folder, &both);
    until("the second root counts", async || {
        mesh.accepts(&viewer).await
    })
    .await;
    assert!(mesh.accepts(&mesh.tls()).await, "the first still does");

    identities::write(&folder, &second.issue("shop/waypoint"));
    until("the first root no longer counts", async || {
        !mesh.accepts(&mesh.tls()).await
    })
    .await;
    assert!(mesh.accepts(&viewer).await);
    assert!(tunnel.open(WEB).await.is_ok(), "an open tunnel goes on");
}

#[tokio::test]
async fn an_alias_of_the_trust_domain_counts_while_it_is_configured() {
    let mesh = Mesh::start().await;
    let old = "spiffe://old.example/ns/shop/sa/viewer";
    let tls = tls_of(mesh.lab.identities.issue_leaf(&leaf(&[old])));
    assert!(!mesh.accepts(&tls).await);
    let aliases = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: istio, namespace: istio-system}\n\
                   data:\n  mesh: |\n    trustDomainAliases: [old.example]\n";
    mesh.configure("mesh-config", aliases).await;
    let mut tunnel = mesh.tunnel_with(&tls).await.expect("accepted now");
    assert!(tunnel.open(WEB).await.is_ok());

    let before = mesh.cairn().metric("cairn_snapshot_version", &[]).await;
    mesh.lab.remove("mesh-config");
    mesh.cairn()
        .metric_reaches("cairn_snapshot_version", &[], before + 1.0)
        .await;
    assert!(!mesh.accepts(&tls).await, "no longer for new connections");
    let ended = tokio::time::timeout(DEADLINE, tunnel.ended).await;
    ended
        .expect("an open tunnel is closed too")
        .expect("a task")
        .ok();
    let label = &["kind=\"tunnel\""];
    let cairn = mesh.cairn();
    assert_eq!(
        cairn.metric("cairn_closed_by_policy_total", label).await,
        1.0
    );
}

#[tokio::test]
async fn the_server_shows_its_own_spiffe_id_over_tls_1_3() {
    let mesh = Mesh::start().await;
    let stream = mesh.tls().connect(mesh.cairn().hbone, mesh.source).await;
    let stream = stream.expect("a handshake");
    let (_, session) = stream.get_ref();
    assert_eq!(session.alpn_protocol(), Some(&b"h2"[..]));
    let version = session.protocol_version();
    assert_eq!(version, Some(rustls::ProtocolVersion::TLSv1_3));
    assert!(names(&server_certificate(&mesh).await, WAYPOINT));
}

#[tokio::test]
async fn new_handshakes_see_a_rotated_certificate_and_open_tunnels_go_on() {
    let mesh = Mesh::start().await;
    let folder = mesh.lab.waypoint_identity();
    let before = server_certificate(&mesh).await;
    let mut tunnel = mesh.tunnel().await;
    let mut stream = tunnel.open(MAIL).await.expect("a stream");
    assert_eq!(read_exactly(&mut stream, BANNER.len()).await, BANNER);

    identities::write(&folder, &mesh.lab.identities.issue("shop/waypoint"));
    until("a new certificate is shown", async || {
        server_certificate(&mesh).await != before
    })
    .await;
    assert!(names(&server_certificate(&mesh).await, WAYPOINT));
    stream.write_all(b"still here").await.expect("a write");
    assert_eq!(read_exactly(&mut stream, 10).await, b"still here");
    assert!(tunnel.open(WEB).await.is_ok(), "and takes new streams");
}

#[tokio::test]
async fn certificate_files_that_can_not_be_read_leave_the_last_good_in_force() {
    let mesh = Mesh::start().await;
    let before = server_certificate(&mesh).await;
    let key = mesh.lab.waypoint_identity().join("key.pem");
    std::fs::write(&key, "no key").expect("a file");
    let said = "last good ones stay in force";
    until("it is said", async || {
        mesh.cairn().process.stderr().contains(said)
    })
    .await;
    assert_eq!(server_certificate(&mesh).await, before);
    assert!(mesh.accepts(&mesh.tls()).await);
}

#[tokio::test]
async fn a_handshake_that_is_not_finished_within_10_s_is_cut() {
    let mesh = Mesh::start().await;
    let hbone = mesh.cairn().hbone;
    let mut silent = TcpStream::connect(hbone).await.expect("a connection");
    let mut after_tls = mesh.tls().connect(hbone, mesh.source).await.expect("TLS");
    let mut bytes = Vec::new();
    let cut = async {
        let _ = silent.read_to_end(&mut bytes).await;
        // TLS done, but no HTTP/2 preface: its own deadline begins only now.
        let _ = after_tls.read_to_end(&mut bytes).await;
    };
    let in_time = tokio::time::timeout(Duration::from_secs(25), cut).await;
    assert!(in_time.is_ok(), "still open");
    let timeout = &["reason=\"timeout\""];
    let failed = mesh.cairn();
    let counted = failed.metric("cairn_handshake_failed_total", timeout).await;
    assert_eq!(counted, 1.0);
}
