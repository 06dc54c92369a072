//! The tunnel to an endpoint, its other end in the test's hands: what an endpoint sees of a client that
//! breaks off, and a client of a tunnel that dies (2.6; RFC 9113 8.5).

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cairn_conformance::hbone::Stream;
use cairn_conformance::lab::Reach;
use cairn_conformance::process::until;
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use http::{Request, Response};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

use crate::mesh::{Mesh, QUIET, RAW, read_until};

/// A CONNECT, and where its tunnel comes from.
type Connect = (Request<RecvStream>, SendResponse<Bytes>, SocketAddr);

/// The ztunnel of one pod.
struct Destination {
    connects: mpsc::Receiver<Connect>,
    /// The other end of the tunnel, once a CONNECT was accepted.
    waypoint: Option<SocketAddr>,
    task: JoinHandle<()>,
}

impl Destination {
    /// Listens for one tunnel, with the identity in `folder`.
    async fn listen(address: SocketAddr, folder: &Path) -> Self {
        let read = |name: &str| std::fs::read(folder.join(name)).expect("an identity");
        let chain = CertificateDer::pem_slice_iter(&read("cert-chain.pem"))
            .collect::<Result<Vec<_>, _>>()
            .expect("certificates");
        let key = PrivateKeyDer::from_pem_slice(&read("key.pem")).expect("a key");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .expect("an identity");
        config.alpn_protocols = vec![b"h2".to_vec()];
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind(address).await.expect("a listener");
        let (sender, connects) = mpsc::channel(8);
        let task = tokio::spawn(async move {
            let (stream, waypoint) = listener.accept().await.expect("a connection");
            let tls = acceptor.accept(stream).await.expect("TLS");
            let mut connection = h2::server::handshake(tls).await.expect("HTTP/2");
            while let Some(Ok((request, respond))) = connection.accept().await {
                let connect = (request, respond, waypoint);
                sender.send(connect).await.expect("a test that listens");
            }
        });
        Self {
            connects,
            waypoint: None,
            task,
        }
    }

    /// The next CONNECT, answered 200.
    async fn accept(&mut self) -> (RecvStream, SendStream<Bytes>) {
        let (request, mut respond, waypoint) = self.connects.recv().await.expect("a CONNECT");
        self.waypoint = Some(waypoint);
        let send = respond.send_response(Response::new(()), false);
        (request.into_body(), send.expect("a 200"))
    }

    /// The connection is gone, as that of a killed ztunnel.
    async fn die(self) {
        self.task.abort();
        let _ = self.task.await;
    }
}

/// Puts a tunnel in the test's hands in front of the one endpoint of a service.
async fn destination_of(mesh: &mut Mesh, service: &str) -> Destination {
    let pod = format!("{service}-test");
    let address = mesh.lab.free_address();
    mesh.lab.remove_pod(&format!("{service}-a"));
    mesh.lab.pod_at(service, &pod, Reach::Hbone, address);
    until("the endpoint is in force", async || {
        let dump = mesh.cairn().config_dump().await.to_string();
        dump.contains(&address.to_string())
    })
    .await;
    let folder = mesh.lab.identities.folder_of(&format!("shop/{service}"));
    Destination::listen(mesh.lab.pod_hbone(&pod), &folder).await
}

/// A TCP stream of the client and its other end.
async fn both_ends(
    mesh: &Mesh,
    destination: &mut Destination,
) -> (Stream, (RecvStream, SendStream<Bytes>)) {
    // Cairn waits for the endpoint's 200 before it gives its own.
    tokio::join!(mesh.stream(QUIET), destination.accept())
}

async fn next(receive: &mut RecvStream) -> Option<Result<Bytes, h2::Error>> {
    let next = tokio::time::timeout(Duration::from_secs(10), receive.data());
    let data = next.await.expect("the endpoint is left waiting")?;
    Some(data.inspect(|data| {
        let flow = receive.flow_control();
        flow.release_capacity(data.len()).expect("a window");
    }))
}

#[tokio::test]
async fn a_stream_that_the_client_resets_is_reset_to_the_endpoint_too() {
    let mut mesh = Mesh::start().await;
    let mut destination = destination_of(&mut mesh, "quiet").await;
    let (mut client, (mut receive, _send)) = both_ends(&mesh, &mut destination).await;
    client.write_all(b"half of a").await.expect("a write");
    let half = next(&mut receive).await.expect("data").expect("data");
    assert_eq!(half, "half of a");
    drop(client);
    let error = match next(&mut receive).await {
        Some(Err(error)) => error,
        other => panic!("a truncated stream looks complete: {other:?}"),
    };
    assert_eq!(error.reason(), Some(Reason::CONNECT_ERROR));
    mesh.no_stream_is_left().await;
}

#[tokio::test]
async fn a_stream_whose_upstream_tunnel_dies_does_not_look_like_a_proper_end() {
    let mut mesh = Mesh::start().await;
    let mut destination = destination_of(&mut mesh, "quiet").await;
    let (mut client, (_receive, mut send)) = both_ends(&mesh, &mut destination).await;
    let half = Bytes::from_static(b"half of it");
    send.send_data(half, false).expect("data");
    read_until(&mut client, "half of it").await;
    let waypoint = destination.waypoint.expect("a tunnel").to_string();
    destination.die().await;
    let mut rest = Vec::new();
    let ended = tokio::time::timeout(Duration::from_secs(10), client.read_to_end(&mut rest));
    let ended = ended.await.expect("the client is left waiting");
    assert!(ended.is_err(), "a truncated stream looks complete");
    assert_eq!(rest, b"");
    let broken = |line: &serde_json::Value| line["response_flags"] == "UC";
    let line = mesh.cairn().logged("the broken stream", broken).await;
    assert_eq!(line["bytes_sent"], 10, "{line}");
    assert_eq!(line["upstream_local_address"], waypoint, "{line}");
}

#[tokio::test]
async fn a_response_whose_tunnel_dies_within_its_body_is_cut_off_and_told_as_such() {
    for (framing, begin) in [
        ("content-length: 20", "half of it"),
        ("transfer-encoding: chunked", "a\r\nhalf of it\r\n"),
        ("connection: close", "half of it"),
    ] {
        let mut mesh = Mesh::start().await;
        let mut destination = destination_of(&mut mesh, "raw").await;
        let mut client = mesh.stream(RAW).await;
        let request = b"GET /half HTTP/1.1\r\nhost: raw.shop\r\n\r\n";
        client.write_all(request).await.expect("a write");
        let (_receive, mut send) = destination.accept().await;
        let answer = format!("HTTP/1.1 200 OK\r\n{framing}\r\n\r\n{begin}");
        send.send_data(answer.into(), false).expect("data");
        read_until(&mut client, "half of it").await;
        let waypoint = destination.waypoint.expect("a tunnel").to_string();
        destination.die().await;
        let mut rest = Vec::new();
        let ended = tokio::time::timeout(Duration::from_secs(10), client.read_to_end(&mut rest));
        // With a length or in chunks an early end is an error to every client.
        let _ = ended.await.expect("the client is left waiting");
        let rest = String::from_utf8_lossy(&rest);
        assert!(
            !rest.contains("0\r\n\r\n"),
            "{framing}: looks complete: {rest:?}"
        );
        let half = |line: &serde_json::Value| line["path"] == "/half";
        let line = mesh.cairn().logged("the cut response", half).await;
        assert_eq!(line["response_flags"], "UC", "{framing}: {line}");
        assert_eq!(line["response_code"], 200, "{framing}: {line}");
        assert!(line["reason"].is_string(), "{framing}: {line}");
        assert_eq!(line["upstream_local_address"], waypoint, "{line}");
    }
}
