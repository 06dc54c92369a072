//! A SPIFFE Workload API on a socket, as SPIRE's agent has it: a stream of updates for each client. Sends what a
//! test wants sent. Field numbers are those of the SPIFFE standard.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::task::{Context, Poll};

use cairn_config_schema::identity::Identity;
use cairn_conformance::identities::DAY;
use cairn_waypoint::pki::{Authority, Leaf};
use futures::future::{Ready, ready};
use futures::stream::{BoxStream, unfold};
use futures::{Stream, StreamExt};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::UnixListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tonic::Status;
use tonic::codegen::Service;
use tonic_prost::ProstCodec;

use crate::grpc;

const FETCH: &str = "/SpiffeWorkloadAPI/FetchX509SVID";

/// What a client sends.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct Request {}

/// One update.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Update {
    /// Identities of the pod; the first is the default.
    #[prost(message, repeated, tag = "1")]
    pub svids: Vec<Svid>,
    /// Roots of partners, by `spiffe://` and the trust domain.
    #[prost(map = "string, bytes", tag = "3")]
    pub federated_bundles: HashMap<String, Vec<u8>>,
}

/// One identity, DER.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Svid {
    #[prost(string, tag = "1")]
    pub spiffe_id: String,
    #[prost(bytes = "vec", tag = "2")]
    pub x509_svid: Vec<u8>,
    #[prost(bytes = "vec", tag = "3")]
    pub x509_svid_key: Vec<u8>,
    #[prost(bytes = "vec", tag = "4")]
    pub bundle: Vec<u8>,
}

/// An update with an identity of this authority.
pub fn update(authority: &Authority, id: &str) -> Update {
    let identity = Identity::parse(id).expect("a SPIFFE ID");
    let issued = authority.issue_leaf(&Leaf::of(&identity, DAY));
    let issued = issued.expect("a leaf");
    let key = PrivateKeyDer::from_pem_slice(issued.key_pem.as_bytes()).expect("a key");
    let svid = Svid {
        spiffe_id: id.to_owned(),
        x509_svid: der(&issued.cert_chain_pem),
        x509_svid_key: key.secret_der().to_vec(),
        bundle: der(authority.root_cert_pem()),
    };
    Update {
        svids: vec![svid],
        federated_bundles: HashMap::new(),
    }
}

impl Update {
    /// With the roots of a partner.
    pub fn federated_with(mut self, trust_domain: &str, authority: &Authority) -> Self {
        let roots = der(authority.root_cert_pem());
        let name = format!("spiffe://{trust_domain}");
        self.federated_bundles.insert(name, roots);
        self
    }
}

fn der(pem: &str) -> Vec<u8> {
    let certificate = CertificateDer::from_pem_slice(pem.as_bytes());
    certificate.expect("a certificate").to_vec()
}

/// What it says: an update, or that it has nothing for the pod.
type Said = Result<Update, Status>;

/// The method, as tonic wants it.
struct Fetch(watch::Receiver<Said>);

impl Service<tonic::Request<Request>> for Fetch {
    type Response = tonic::Response<BoxStream<'static, Said>>;
    type Error = Status;
    type Future = Ready<Result<Self::Response, Status>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Status>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: tonic::Request<Request>) -> Self::Future {
        ready(Ok(tonic::Response::new(updates(self.0.clone()).boxed())))
    }
}

/// A running agent; gone, with its socket, when dropped.
pub struct Agent {
    socket: PathBuf,
    says: watch::Sender<Said>,
    _task: JoinSet<()>,
}

impl Agent {
    pub fn start(socket: &Path, says: Said) -> Self {
        let listener = UnixListener::bind(socket).expect("a socket");
        let says = watch::Sender::new(says);
        let said = says.subscribe();
        let mut task = JoinSet::new();
        task.spawn(async move {
            // Connections end with the agent.
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let said = said.clone();
                connections.spawn(grpc::serve(stream, move |request| {
                    let said = said.clone();
                    Box::pin(async move {
                        assert_eq!(request.uri().path(), FETCH);
                        let security = request.headers().get("workload.spiffe.io");
                        assert_eq!(security.expect("a header"), "true");
                        let codec: ProstCodec<Update, Request> = ProstCodec::default();
                        let mut server = tonic::server::Grpc::new(codec);
                        server.server_streaming(Fetch(said), request).await
                    })
                }));
            }
        });
        Self {
            socket: socket.to_owned(),
            says,
            _task: task,
        }
    }

    /// Sends something else, to those who listen and those who come.
    pub fn says(&self, said: Said) {
        let _before = self.says.send_replace(said);
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.socket);
    }
}

type Updates = Pin<Box<dyn Stream<Item = Said> + Send>>;

/// What is said now, and whatever is said later; ends after an error.
fn updates(mut said: watch::Receiver<Said>) -> Updates {
    said.mark_changed();
    Box::pin(unfold(Some(said), |said| async move {
        let mut said = said?;
        said.changed().await.ok()?;
        let now = said.borrow_and_update().clone();
        let goes_on = now.is_ok();
        Some((now, goes_on.then_some(said)))
    }))
}
