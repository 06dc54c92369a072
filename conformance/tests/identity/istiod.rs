//! An istiod that speaks delta discovery over TLS. Tells what a test wants told, only what is different, and keeps what
//! it was asked.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};

use cairn_conformance::process::until;
use cairn_waypoint::pki::Authority;
use cairn_waypoint::source::istiod::messages::{
    self, ADDRESS_TYPE, Address, AddressKind, Any, DeltaDiscoveryRequest, DeltaDiscoveryResponse,
    METHOD, Port, PortList, Resource, Workload,
};
use futures::StreamExt;
use futures::channel::mpsc::{UnboundedReceiver, UnboundedSender, unbounded};
use futures::future::BoxFuture;
use prost::Message;
use tonic::codegen::Service;
use tonic::{Request, Response, Status, Streaming};
use tonic_prost::ProstCodec;

use crate::ca::acceptor;
use crate::grpc;
use crate::listening::Listening;

/// An answer on its way.
type Told = Result<DeltaDiscoveryResponse, Status>;

#[derive(Default)]
struct State {
    /// Resources by name: version and message.
    resources: BTreeMap<String, (u64, Vec<u8>)>,
    version: u64,
    /// The token that is accepted. `None`: any.
    token: Option<String>,
    /// Metadata `authorization` and `clusterid` of each call.
    calls: Vec<(String, String)>,
    requests: Vec<DeltaDiscoveryRequest>,
    /// What the first answer of each stream told: how many resources, and what was gone.
    first: Vec<(usize, Vec<String>)>,
    streams: Vec<UnboundedSender<Told>>,
    nonce: u64,
}

/// A running istiod.
pub struct Istiod {
    /// Where it listens, or did.
    pub address: SocketAddr,
    authority: Arc<Authority>,
    state: Arc<Mutex<State>>,
    listening: Listening,
}

impl Istiod {
    /// One that tells nothing, once it is started.
    pub fn new(address: SocketAddr, authority: &Authority) -> Self {
        let authority = Authority::from_pem(authority.root_cert_pem(), authority.key_pem());
        Self {
            address,
            authority: Arc::new(authority.expect("an authority")),
            state: Arc::default(),
            listening: Listening::default(),
        }
    }

    /// Takes connections from now on.
    pub async fn start(&mut self) {
        let (state, acceptor) = (self.state.clone(), acceptor(&self.authority));
        let serve = move |tls| serve(tls, state.clone());
        let shown = move || acceptor.clone();
        self.listening.start(self.address, shown, serve).await;
    }

    /// Ends all connections, and takes no more.
    pub async fn stop(&mut self) {
        self.listening.stop().await;
        self.lock().streams.clear();
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Accepts this token alone.
    pub fn accepts(&self, token: &str) {
        self.lock().token = Some(format!("Bearer {token}"));
    }

    /// Tells these workloads, in one answer.
    pub fn tell(&self, workloads: &[Workload]) {
        let named = workloads.iter().map(|workload| {
            let address = Address {
                kind: Some(AddressKind::Workload(Box::new(workload.clone()))),
            };
            (workload.uid.clone(), address.encode_to_vec())
        });
        self.lock().tell(named.collect());
    }

    /// Tells a service.
    pub fn tell_service(&self, service: &messages::Service) {
        let address = Address {
            kind: Some(AddressKind::Service(service.clone())),
        };
        let name = format!("{}/{}", service.namespace, service.hostname);
        self.lock().tell(vec![(name, address.encode_to_vec())]);
    }

    /// Tells that these are gone.
    pub fn forget(&self, names: &[&str]) {
        let mut state = self.lock();
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        for name in &names {
            state.resources.remove(name);
        }
        state.send(Vec::new(), names);
    }

    /// Token and cluster of each call.
    pub fn calls(&self) -> Vec<(String, String)> {
        self.lock().calls.clone()
    }

    /// The first request of each stream.
    pub fn hellos(&self) -> Vec<DeltaDiscoveryRequest> {
        let state = self.lock();
        let hellos = state.requests.iter().filter(|r| r.node.is_some());
        hellos.cloned().collect()
    }

    /// What the first answer of each stream told: how many resources, and what was gone.
    pub fn first_answers(&self) -> Vec<(usize, Vec<String>)> {
        self.lock().first.clone()
    }

    /// Waits until as many answers were taken, wholly, as were sent.
    pub async fn all_taken(&self) {
        until("all answers are taken", async || {
            let state = self.lock();
            let last = state.nonce.to_string();
            let mut requests = state.requests.iter();
            requests.any(|r| r.response_nonce == last && r.error_detail.is_none())
        })
        .await;
    }

    /// Waits until the last answer was refused, and gives the reason.
    pub async fn refusal(&self) -> String {
        let mut reason = None;
        until("an answer is refused", async || {
            let state = self.lock();
            let last = state.nonce.to_string();
            let refused = state.requests.iter().filter(|r| r.response_nonce == last);
            reason = refused.filter_map(|r| r.error_detail.clone()).next();
            reason.is_some()
        })
        .await;
        reason.expect("a reason").message
    }
}

impl State {
    fn tell(&mut self, resources: Vec<(String, Vec<u8>)>) {
        self.version += 1;
        let version = self.version;
        let told = resources
            .iter()
            .map(|(name, value)| resource(name, version, value));
        let told = told.collect();
        for (name, value) in resources {
            self.resources.insert(name, (version, value));
        }
        self.send(told, Vec::new());
    }

    fn send(&mut self, resources: Vec<Resource>, removed: Vec<String>) {
        let answer = self.answer(resources, removed);
        self.streams
            .retain(|stream| stream.unbounded_send(Ok(answer.clone())).is_ok());
    }

    fn answer(&mut self, resources: Vec<Resource>, removed: Vec<String>) -> DeltaDiscoveryResponse {
        self.nonce += 1;
        DeltaDiscoveryResponse {
            resources,
            type_url: ADDRESS_TYPE.to_owned(),
            nonce: self.nonce.to_string(),
            removed_resources: removed,
        }
    }

    /// What a client that has these versions is to be told.
    fn difference(&mut self, known: &HashMap<String, String>) -> DeltaDiscoveryResponse {
        let resources = self.resources.iter();
        let different = resources.filter(|(name, (version, _))| {
            known.get(*name).map(String::as_str) != Some(&version.to_string())
        });
        let different: Vec<Resource> = different
            .map(|(name, (version, value))| resource(name, *version, value))
            .collect();
        let gone = known
            .keys()
            .filter(|name| !self.resources.contains_key(*name));
        let gone: Vec<String> = gone.cloned().collect();
        self.first.push((different.len(), gone.clone()));
        self.answer(different, gone)
    }
}

fn resource(name: &str, version: u64, value: &[u8]) -> Resource {
    Resource {
        version: version.to_string(),
        name: name.to_owned(),
        resource: Some(Any {
            type_url: ADDRESS_TYPE.to_owned(),
            value: value.to_vec(),
        }),
    }
}

async fn serve<S>(stream: S, state: Arc<Mutex<State>>)
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    grpc::serve(stream, move |request| {
        let state = state.clone();
        Box::pin(async move {
            assert_eq!(request.uri().path(), METHOD);
            let codec: ProstCodec<DeltaDiscoveryResponse, DeltaDiscoveryRequest> =
                ProstCodec::default();
            let mut server = tonic::server::Grpc::new(codec);
            server.streaming(Discovery(state), request).await
        })
    })
    .await;
}

/// The method.
struct Discovery(Arc<Mutex<State>>);

impl Service<Request<Streaming<DeltaDiscoveryRequest>>> for Discovery {
    type Response = Response<UnboundedReceiver<Told>>;
    type Error = Status;
    type Future = BoxFuture<'static, Result<Self::Response, Status>>;

    fn poll_ready(
        &mut self,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Result<(), Status>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Streaming<DeltaDiscoveryRequest>>) -> Self::Future {
        let state = self.0.clone();
        Box::pin(async move {
            let text = |name: &str| {
                let value = request.metadata().get(name);
                value.map_or_else(String::new, |v| v.to_str().unwrap().to_owned())
            };
            let (token, cluster) = (text("authorization"), text("clusterid"));
            {
                let mut state = state.lock().unwrap();
                state.calls.push((token.clone(), cluster));
                if state
                    .token
                    .as_ref()
                    .is_some_and(|accepted| *accepted != token)
                {
                    return Err(Status::unauthenticated("token is not known"));
                }
            }
            let (told, answers) = unbounded();
            tokio::spawn(listen(request.into_inner(), told, state));
            Ok(Response::new(answers))
        })
    }
}

/// Reads the requests of a stream, and answers the first.
async fn listen(
    mut requests: Streaming<DeltaDiscoveryRequest>,
    told: UnboundedSender<Told>,
    state: Arc<Mutex<State>>,
) {
    while let Some(Ok(request)) = requests.next().await {
        let mut state = state.lock().unwrap();
        if request.node.is_some() {
            assert_eq!(request.resource_names_subscribe, ["*"]);
            let first = state.difference(&request.initial_resource_versions);
            let _ = told.unbounded_send(Ok(first));
            state.streams.push(told.clone());
        }
        state.requests.push(request);
    }
}

/// A captured workload of the cluster `east` and the service account `account`, at the address of an application that
/// is behind port 80 of `shop/web`.
pub fn workload(name: &str, account: &str, at: SocketAddr) -> Workload {
    let ports = PortList {
        ports: vec![Port {
            service_port: 80,
            target_port: at.port().into(),
        }],
    };
    let bytes = match at.ip() {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    };
    Workload {
        uid: uid(name),
        name: name.to_owned(),
        namespace: "shop".to_owned(),
        service_account: account.to_owned(),
        cluster_id: "east".to_owned(),
        addresses: vec![bytes],
        tunnel_protocol: 1,
        services: [("shop/web.shop.svc.cluster.local".to_owned(), ports)].into(),
        ..Workload::default()
    }
}

/// The uid of a pod of that cluster.
pub fn uid(name: &str) -> String {
    format!("east//Pod/shop/{name}")
}
