//! The calls of Hubble's observer API, of its peer API (which hubble-relay finds servers by) and of gRPC's
//! health check, over any HTTP/2 connection. What a client gets to see is `reader`'s; agent and debug events are Cilium's own and not implemented.

use std::future::{Future, ready};
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use futures::stream::{once, pending, unfold};
use futures::{FutureExt, Stream, StreamExt, TryFutureExt};
use http::HeaderValue;
use tonic::body::Body;
use tonic::server::{Grpc, ServerStreamingService, UnaryService};
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;

use super::flows::Teller;
use super::messages::{
    ChangeNotification, Empty, GetFlowsRequest, GetFlowsResponse, GetNamespacesResponse,
    GetNodesResponse, HealthCheckRequest, HealthCheckResponse, Namespace, Node, NodeState,
    PeerChange, PeerTls, ServerStatusResponse, ServingStatus, Tls,
};
use super::reader::Reader;
use super::{API_VERSION, HEALTH_SERVICE, filter, whole};
use crate::limits::HUBBLE_REQUEST_BYTES_MAX;
use crate::telemetry::flow::Ring;
use crate::tls::ApiTls;

/// The header that tells clients which version of the API is spoken.
const VERSION_HEADER: &str = "hubble-server-version";

/// Answers the calls.
#[derive(Clone, Debug)]
pub struct Observer {
    ring: Arc<Ring>,
    teller: Arc<Teller>,
    place: Arc<Place>,
    started: Instant,
}

/// Where and how it is served, as others are told.
#[derive(Debug, Default)]
pub struct Place {
    /// `HOST:PORT`.
    pub address: String,
    /// `None`: without.
    pub tls: Option<Arc<ApiTls>>,
}

impl Observer {
    /// For the records of a ring, served at a place.
    pub fn new(ring: Arc<Ring>, teller: Arc<Teller>, place: Place) -> Self {
        Self {
            ring,
            teller,
            place: Arc::new(place),
            started: Instant::now(),
        }
    }

    /// A client's walk through the ring.
    ///
    /// # Errors
    /// When the request means nothing.
    pub fn read(&self, request: &GetFlowsRequest) -> Result<Reader, filter::Invalid> {
        Reader::new(self.ring.clone(), self.teller.clone(), request)
    }

    /// Answers one call, of whatever method.
    pub async fn answer<B>(&self, request: http::Request<B>) -> http::Response<Body>
    where
        B: hyper::body::Body + Send + 'static,
        B::Error: Into<tonic::codegen::StdError> + Send,
    {
        let method = request.uri().path().to_owned();
        let observer = self.clone();
        let mut response = match method.as_str() {
            "/observer.Observer/GetFlows" => {
                let service = Call(observer);
                grpc().server_streaming(service, request).await
            }
            "/observer.Observer/ServerStatus" => {
                let answer = move |_: Empty| ready(Ok(observer.status()));
                grpc().unary(Unary(answer), request).await
            }
            "/observer.Observer/GetNodes" => {
                let answer = move |_: Empty| ready(Ok(observer.nodes()));
                grpc().unary(Unary(answer), request).await
            }
            "/observer.Observer/GetNamespaces" => {
                let answer = move |_: Empty| observer.clone().namespaces().map(Ok);
                grpc().unary(Unary(answer), request).await
            }
            "/peer.Peer/Notify" => {
                let service = Notify(observer);
                grpc().server_streaming(service, request).await
            }
            "/grpc.health.v1.Health/Check" => {
                let answer = |asked| ready(health(asked));
                grpc().unary(Unary(answer), request).await
            }
            _ => Status::unimplemented(format!("{method} is not served here")).into_http(),
        };
        let headers = response.headers_mut();
        headers.insert(VERSION_HEADER, HeaderValue::from_static(API_VERSION));
        response
    }

    fn status(&self) -> ServerStatusResponse {
        let counts = whole::counts(&self.ring);
        ServerStatusResponse {
            num_flows: counts.kept,
            max_flows: counts.max,
            seen_flows: counts.seen,
            uptime_ns: self.uptime_ns(),
            num_connected_nodes: Some(1),
            num_unavailable_nodes: Some(0),
            unavailable_nodes: Vec::new(),
            version: version(),
            flows_rate: whole::rate(&self.ring, SystemTime::now(), self.started.elapsed()),
        }
    }

    fn nodes(&self) -> GetNodesResponse {
        let counts = whole::counts(&self.ring);
        GetNodesResponse {
            nodes: vec![Node {
                name: self.teller.node.clone(),
                version: version(),
                address: self.place.address.clone(),
                state: NodeState::Connected as i32,
                tls: self.server_name().map(|server_name| Tls {
                    enabled: true,
                    server_name,
                }),
                uptime_ns: self.uptime_ns(),
                num_flows: counts.kept,
                max_flows: counts.max,
                seen_flows: counts.seen,
            }],
        }
    }

    async fn namespaces(self) -> GetNamespacesResponse {
        let found = whole::namespaces(&self.ring, SystemTime::now()).await;
        let namespaces = found.into_iter().map(|namespace| Namespace {
            cluster: self.teller.cluster.clone(),
            namespace,
        });
        GetNamespacesResponse {
            namespaces: namespaces.collect(),
        }
    }

    /// This server as hubble-relay gets to know it. Of another cluster than `default` the name says so.
    fn peer(&self) -> ChangeNotification {
        let Teller { cluster, node, .. } = &*self.teller;
        ChangeNotification {
            name: match cluster.as_str() {
                "" | "default" => node.clone(),
                cluster => format!("{cluster}/{node}"),
            },
            address: self.place.address.clone(),
            r#type: PeerChange::Added as i32,
            tls: self
                .server_name()
                .map(|server_name| PeerTls { server_name }),
        }
    }

    /// `None`: there is no TLS.
    fn server_name(&self) -> Option<String> {
        let tls = self.place.tls.as_ref()?;
        Some(tls.server_name(&self.teller.node))
    }

    fn uptime_ns(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }
}

fn version() -> String {
    format!("cairn {}", env!("CARGO_PKG_VERSION"))
}

fn health(request: HealthCheckRequest) -> Result<HealthCheckResponse, Status> {
    let served = ["", HEALTH_SERVICE, "observer.Observer"];
    if !served.contains(&request.service.as_str()) {
        return Err(Status::not_found("there is no such service here"));
    }
    Ok(HealthCheckResponse {
        status: ServingStatus::Serving as i32,
    })
}

fn grpc<I, O>() -> Grpc<ProstCodec<O, I>>
where
    I: prost::Message + Default + 'static,
    O: prost::Message + 'static,
{
    Grpc::new(ProstCodec::default()).max_decoding_message_size(HUBBLE_REQUEST_BYTES_MAX)
}

type Answer<T> = Pin<Box<dyn Future<Output = Result<Response<T>, Status>> + Send>>;

/// A call with one answer.
struct Unary<F>(F);

impl<F, I, A, O> UnaryService<I> for Unary<F>
where
    F: Fn(I) -> A,
    A: Future<Output = Result<O, Status>> + Send + 'static,
    O: Send + 'static,
{
    type Response = O;
    type Future = Answer<O>;

    fn call(&mut self, request: Request<I>) -> Self::Future {
        let answer = (self.0)(request.into_inner());
        Box::pin(answer.map_ok(Response::new))
    }
}

/// `GetFlows`.
struct Call(Observer);

type Flows = Pin<Box<dyn Stream<Item = Result<GetFlowsResponse, Status>> + Send>>;

impl ServerStreamingService<GetFlowsRequest> for Call {
    type Response = GetFlowsResponse;
    type ResponseStream = Flows;
    type Future = Answer<Flows>;

    fn call(&mut self, request: Request<GetFlowsRequest>) -> Self::Future {
        let reader = self.0.read(&request.into_inner());
        let answer = reader
            .map(|reader| {
                let next = |mut reader: Reader| async {
                    let next = reader.next().await?;
                    Some((Ok(next), reader))
                };
                Response::new(Box::pin(unfold(reader, next)) as Flows)
            })
            .map_err(|invalid| Status::invalid_argument(invalid.to_string()));
        Box::pin(ready(answer))
    }
}

/// `peer.Peer/Notify`.
struct Notify(Observer);

type Changes = Pin<Box<dyn Stream<Item = Result<ChangeNotification, Status>> + Send>>;

impl ServerStreamingService<Empty> for Notify {
    type Response = ChangeNotification;
    type ResponseStream = Changes;
    type Future = Answer<Changes>;

    /// This server, and then nothing more: it knows of no others.
    fn call(&mut self, _: Request<Empty>) -> Self::Future {
        let itself = once(ready(Ok(self.0.peer())));
        let changes = Box::pin(itself.chain(pending())) as Changes;
        Box::pin(ready(Ok(Response::new(changes))))
    }
}
