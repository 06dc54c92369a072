//! A CA that speaks Istio's protocol over TLS. Says what a test wants it to say, and keeps what it was asked.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cairn_conformance::identities::{DAY, identity};
use cairn_conformance::process::until;
use cairn_waypoint::identity::messages::{CertificateRequest, CertificateResponse, METHOD};
use cairn_waypoint::pki::{Authority, Leaf, SigningRequest};
use rcgen::{CertificateParams, Issuer, KeyPair, SanType};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use tokio_rustls::TlsAcceptor;
use tonic::Status;
use tonic_prost::ProstCodec;

use crate::grpc::{self, Method};
use crate::listening::Listening;

/// The name in the CA's certificate.
pub const NAME: &str = "istiod.test";

/// What it hands out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mood {
    /// A certificate for the waypoint, and the root.
    Proper,
    /// One for somebody else of the same namespace.
    OtherIdentity,
    /// One of another trust domain.
    OtherTrustDomain,
    /// One for another key.
    OtherKey,
    /// One of an authority that nobody knows.
    OtherRoot,
    /// No certificate.
    Garbage,
    /// Nothing, for it does not know the token.
    Unauthenticated,
    /// Nothing, for its own reasons.
    Refuses,
}

/// What it was asked.
#[derive(Clone, Debug)]
pub struct Asked {
    /// Metadata `authorization`.
    pub authorization: String,
    /// Metadata `clusterid`.
    pub cluster: String,
    /// The message.
    pub request: CertificateRequest,
}

struct State {
    authority: Authority,
    mood: Mood,
    validity: Duration,
    asked: Vec<Asked>,
}

/// A running CA.
pub struct Ca {
    /// Where it listens, or did.
    pub address: SocketAddr,
    state: Arc<Mutex<State>>,
    listening: Listening,
}

impl Ca {
    /// One that hands out proper certificates once it is started.
    pub fn new(address: SocketAddr, authority: &Authority) -> Self {
        let state = State {
            authority: copy(authority),
            mood: Mood::Proper,
            validity: DAY,
            asked: Vec::new(),
        };
        Self {
            address,
            state: Arc::new(Mutex::new(state)),
            listening: Listening::default(),
        }
    }

    /// Takes connections from now on.
    pub async fn start(&mut self) {
        let (shown, state) = (self.state.clone(), self.state.clone());
        let acceptor = move || acceptor(&shown.lock().unwrap().authority);
        let serve = move |tls| serve(tls, state.clone());
        self.listening.start(self.address, acceptor, serve).await;
    }

    /// Ends all connections, and takes no more.
    pub async fn stop(&mut self) {
        self.listening.stop().await;
    }

    pub fn be(&self, mood: Mood) {
        self.state.lock().unwrap().mood = mood;
    }

    /// How long certificates are valid, whatever is asked for.
    pub fn caps_validity(&self, validity: Duration) {
        self.state.lock().unwrap().validity = validity;
    }

    /// Issues with another root from now on, and shows a certificate of it.
    pub fn changes_root(&self, authority: &Authority) {
        self.state.lock().unwrap().authority = copy(authority);
    }

    /// What it was asked so far.
    pub fn asked(&self) -> Vec<Asked> {
        self.state.lock().unwrap().asked.clone()
    }

    /// Waits until it was asked so often.
    pub async fn asked_times(&self, n: usize) {
        until(&format!("the CA is asked {n} times"), async || {
            self.asked().len() >= n
        })
        .await;
    }
}

fn copy(authority: &Authority) -> Authority {
    Authority::from_pem(authority.root_cert_pem(), authority.key_pem()).expect("an authority")
}

/// TLS with a server's certificate of the authority.
pub fn acceptor(authority: &Authority) -> TlsAcceptor {
    let key = KeyPair::from_pem(authority.key_pem()).expect("a key");
    let issuer = Issuer::from_ca_cert_pem(authority.root_cert_pem(), key).expect("a root");
    let key = KeyPair::generate().expect("a key");
    let mut params = CertificateParams::default();
    params.subject_alt_names = vec![SanType::DnsName(NAME.try_into().expect("a name"))];
    let certificate = params.signed_by(&key, &issuer).expect("a certificate");
    let chain = vec![certificate.der().clone()];
    let key = PrivateKeyDer::try_from(key.serialize_der()).expect("a key");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .expect("a certificate");
    config.alpn_protocols = vec![b"h2".to_vec()];
    TlsAcceptor::from(Arc::new(config))
}

async fn serve<S>(stream: S, state: Arc<Mutex<State>>)
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    grpc::serve(stream, move |request| {
        let state = state.clone();
        Box::pin(async move {
            assert_eq!(request.uri().path(), METHOD);
            let codec: ProstCodec<CertificateResponse, CertificateRequest> = ProstCodec::default();
            let method = Method(move |request: tonic::Request<CertificateRequest>| {
                state.lock().unwrap().answer(request)
            });
            tonic::server::Grpc::new(codec).unary(method, request).await
        })
    })
    .await;
}

impl State {
    fn answer(
        &mut self,
        request: tonic::Request<CertificateRequest>,
    ) -> Result<CertificateResponse, Status> {
        let text = |name: &str| {
            let value = request.metadata().get(name);
            value.map_or_else(String::new, |v| v.to_str().unwrap().to_owned())
        };
        let (authorization, cluster) = (text("authorization"), text("clusterid"));
        let csr = request.get_ref().csr.clone();
        self.asked.push(Asked {
            authorization,
            cluster,
            request: request.into_inner(),
        });
        let waypoint = identity("shop/waypoint");
        let sign = |authority: &Authority, csr: &str, leaf: &Leaf| {
            authority.sign(csr, leaf).expect("a certificate")
        };
        let proper = Leaf::of(&waypoint, self.validity);
        let leaf = match self.mood {
            Mood::Proper => sign(&self.authority, &csr, &proper),
            Mood::OtherIdentity => {
                let leaf = Leaf::of(&identity("shop/web"), DAY);
                sign(&self.authority, &csr, &leaf)
            }
            Mood::OtherTrustDomain => {
                let uris = vec!["spiffe://other.example/ns/shop/sa/waypoint".to_owned()];
                sign(&self.authority, &csr, &Leaf { uris, ..proper })
            }
            Mood::OtherKey => {
                let other = SigningRequest::new(&waypoint).expect("a request");
                sign(&self.authority, &other.csr_pem, &proper)
            }
            Mood::OtherRoot => {
                let stranger = Authority::generate(DAY).expect("a root");
                return Ok(CertificateResponse {
                    cert_chain: vec![sign(&stranger, &csr, &proper)],
                });
            }
            Mood::Garbage => "no certificate".to_owned(),
            Mood::Unauthenticated => return Err(Status::unauthenticated("token expired")),
            Mood::Refuses => return Err(Status::failed_precondition("no signer")),
        };
        let root = self.authority.root_cert_pem().to_owned();
        Ok(CertificateResponse {
            cert_chain: vec![leaf, root],
        })
    }
}
