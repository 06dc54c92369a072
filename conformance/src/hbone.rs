//! A client tunnel in the test's own hands: TLS and HTTP/2 as raw as a test needs them.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use h2::client::SendRequest;
use h2::{RecvStream, SendStream};
use http::{Method, Request, Response, StatusCode};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// How to open TLS.
#[derive(Clone, Debug)]
pub struct Tls {
    /// Certificate chain and key, PEM; `None` to present none.
    pub identity: Option<(String, String)>,
    /// ALPN protocols offered.
    pub alpn: Vec<Vec<u8>>,
}

impl Tls {
    /// As ztunnel: TLS 1.3, h2, the identity in `folder`.
    pub fn of(folder: &Path) -> Self {
        let read = |name: &str| std::fs::read_to_string(folder.join(name)).expect("an identity");
        Self::with(read("cert-chain.pem"), read("key.pem"))
    }

    /// As ztunnel, with this certificate chain and key.
    pub fn with(chain_pem: String, key_pem: String) -> Self {
        Self {
            identity: Some((chain_pem, key_pem)),
            alpn: vec![b"h2".to_vec()],
        }
    }

    /// Connects and shakes hands. TLS 1.3 tells a client of a refused certificate only when it
    /// reads, so success here proves nothing yet.
    pub async fn connect(&self, to: SocketAddr, from: IpAddr) -> io::Result<TlsStream<TcpStream>> {
        let socket = match from {
            IpAddr::V4(_) => TcpSocket::new_v4(),
            IpAddr::V6(_) => TcpSocket::new_v6(),
        }?;
        socket.bind(SocketAddr::new(from, 0))?;
        let stream = socket.connect(to).await?;
        stream.set_nodelay(true)?;
        let connector = TlsConnector::from(Arc::new(self.config()));
        let name = ServerName::try_from("waypoint.invalid").expect("a name");
        connector.connect(name, stream).await
    }

    fn config(&self) -> ClientConfig {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("versions")
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(AnyServer));
        let mut config = match &self.identity {
            None => builder.with_no_client_auth(),
            Some((chain, key)) => {
                let chain: Result<Vec<_>, _> =
                    CertificateDer::pem_slice_iter(chain.as_bytes()).collect();
                let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).expect("a key");
                builder
                    .with_client_auth_cert(chain.expect("certificates"), key)
                    .expect("an identity")
            }
        };
        config.alpn_protocols.clone_from(&self.alpn);
        config.enable_sni = false;
        config
    }
}

/// Accepts whatever the server shows: these tests are about what the server accepts. What it shows
/// is looked at by the tests that care.
#[derive(Debug)]
struct AnyServer;

impl ServerCertVerifier for AnyServer {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        rustls::crypto::aws_lc_rs::default_provider()
            .signature_verification_algorithms
            .supported_schemes()
    }
}

/// One HBONE connection.
pub struct Tunnel {
    send: SendRequest<Bytes>,
    /// Ends when the connection does, with the error if there was one.
    pub ended: tokio::task::JoinHandle<Result<(), h2::Error>>,
}

impl Tunnel {
    /// Opens one.
    pub async fn connect(tls: &Tls, to: SocketAddr, from: IpAddr) -> Result<Self, String> {
        let stream = tls.connect(to, from).await.map_err(|e| e.to_string())?;
        Self::over(stream).await.map_err(|e| e.to_string())
    }

    /// HTTP/2 over a stream that is there. Waits for the server's SETTINGS, the first thing that
    /// tells whether the server accepted the certificate.
    pub async fn over<S>(stream: S) -> Result<Self, h2::Error>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let (send, connection) = h2::client::Builder::new()
            .initial_window_size(4 * 1024 * 1024)
            .initial_connection_window_size(16 * 1024 * 1024)
            .enable_push(false)
            .handshake(stream)
            .await?;
        let ended = tokio::spawn(connection);
        Ok(Self { send, ended })
    }

    /// Streams the server allows at once; the library's default before its SETTINGS came.
    pub fn streams_max(&self) -> usize {
        self.send.current_max_send_streams()
    }

    /// Sends any request and gives the answer's head with both halves of the stream.
    pub async fn request(
        &mut self,
        request: Request<()>,
        end: bool,
    ) -> Result<(Response<RecvStream>, SendStream<Bytes>), h2::Error> {
        let mut send = self.send.clone().ready().await?;
        let (response, stream) = send.send_request(request, end)?;
        Ok((response.await?, stream))
    }

    /// CONNECT to an authority: the stream, or the status that refused it.
    pub async fn open(&mut self, authority: &str) -> Result<Stream, Refused> {
        let request = Request::builder()
            .method(Method::CONNECT)
            .uri(authority)
            .body(())
            .expect("a CONNECT");
        let (response, send) = self.request(request, false).await.map_err(Refused::Reset)?;
        if response.status() != StatusCode::OK {
            return Err(Refused::Status(response.status()));
        }
        Ok(Stream {
            send,
            receive: response.into_body(),
            rest: Bytes::new(),
        })
    }
}

/// Why a CONNECT was not accepted.
#[derive(Debug)]
pub enum Refused {
    /// With a status.
    Status(StatusCode),
    /// Without.
    Reset(h2::Error),
}

/// A tunnelled stream of bytes.
pub struct Stream {
    send: SendStream<Bytes>,
    receive: RecvStream,
    rest: Bytes,
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        while self.rest.is_empty() {
            match ready!(self.receive.poll_data(context)) {
                None => return Poll::Ready(Ok(())),
                Some(Ok(data)) => self.rest = data,
                Some(Err(error)) => return Poll::Ready(Err(io::Error::other(error))),
            }
        }
        let n = self.rest.len().min(buffer.remaining());
        buffer.put_slice(&self.rest[..n]);
        self.rest.advance(n);
        let _ = self.receive.flow_control().release_capacity(n);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.send.reserve_capacity(bytes.len());
        let n = match ready!(self.send.poll_capacity(context)) {
            Some(Ok(n)) => n.min(bytes.len()),
            Some(Err(error)) => return Poll::Ready(Err(io::Error::other(error))),
            None => return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
        };
        let data = Bytes::copy_from_slice(&bytes[..n]);
        let sent = self.send.send_data(data, false);
        Poll::Ready(sent.map(|()| n).map_err(io::Error::other))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let sent = self.send.send_data(Bytes::new(), true);
        Poll::Ready(sent.map_err(io::Error::other))
    }
}
