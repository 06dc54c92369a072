//! The calls of Hubble's observer API and of gRPC's health check, over any HTTP/2 connection. What a client
//! gets to see is `reader`'s; agent and debug events are Cilium's own and not implemented.

use std::collections::BTreeSet;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use futures::Stream;
use futures::stream::unfold;
use http::HeaderValue;
use tonic::body::Body;
use tonic::server::{Grpc, ServerStreamingService, UnaryService};
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;

use super::flows::Teller;
use super::messages::{
    Empty, GetFlowsRequest, GetFlowsResponse, GetNamespacesResponse, GetNodesResponse,
    HealthCheckRequest, HealthCheckResponse, Namespace, Node, NodeState, ServerStatusResponse,
    ServingStatus,
};
use super::reader::Reader;
use super::{API_VERSION, HEALTH_SERVICE, filter};
use crate::limits::HUBBLE_REQUEST_BYTES_MAX;
use crate::telemetry::flow::{Read, Ring};

/// The header that tells clients which version of the API is spoken.
const VERSION_HEADER: &str = "hubble-server-version";

/// What the rate of flows is an average over.
const RATE_SPAN: Duration = Duration::from_secs(60);

/// A namespace that nothing came from or went to for this long is not listed.
const NAMESPACE_SPAN: Duration = Duration::from_secs(3_600);

/// Answers the calls.
#[derive(Clone, Debug)]
pub struct Observer {
    ring: Arc<Ring>,
    teller: Arc<Teller>,
    /// Where it is served, for `GetNodes`.
    address: Arc<str>,
    started: Instant,
}

impl Observer {
    /// For the records of a ring, served at an address.
    pub fn new(ring: Arc<Ring>, teller: Arc<Teller>, address: &str) -> Self {
        Self {
            ring,
            teller,
            address: address.into(),
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
                let answer = move |_: Empty| Ok(observer.status());
                grpc().unary(Unary(answer), request).await
            }
            "/observer.Observer/GetNodes" => {
                let answer = move |_: Empty| Ok(observer.nodes());
                grpc().unary(Unary(answer), request).await
            }
            "/observer.Observer/GetNamespaces" => {
                let answer = move |_: Empty| Ok(observer.namespaces());
                grpc().unary(Unary(answer), request).await
            }
            "/grpc.health.v1.Health/Check" => grpc().unary(Unary(health), request).await,
            _ => Status::unimplemented(format!("{method} is not served here")).into_http(),
        };
        let headers = response.headers_mut();
        headers.insert(VERSION_HEADER, HeaderValue::from_static(API_VERSION));
        response
    }

    fn status(&self) -> ServerStatusResponse {
        let counts = self.counts();
        ServerStatusResponse {
            num_flows: counts.kept,
            max_flows: counts.max,
            seen_flows: counts.seen,
            uptime_ns: counts.uptime_ns,
            num_connected_nodes: Some(1),
            num_unavailable_nodes: Some(0),
            unavailable_nodes: Vec::new(),
            version: version(),
            flows_rate: self.rate(),
        }
    }

    fn nodes(&self) -> GetNodesResponse {
        let counts = self.counts();
        GetNodesResponse {
            nodes: vec![Node {
                name: self.teller.node.clone(),
                version: version(),
                address: self.address.to_string(),
                state: NodeState::Connected as i32,
                tls: None,
                uptime_ns: counts.uptime_ns,
                num_flows: counts.kept,
                max_flows: counts.max,
                seen_flows: counts.seen,
            }],
        }
    }

    /// As far as the ring reaches back.
    fn namespaces(&self) -> GetNamespacesResponse {
        let oldest = SystemTime::now().checked_sub(NAMESPACE_SPAN);
        let mut found = BTreeSet::new();
        for number in self.ring.oldest()..self.ring.next() {
            let Read::Record(kept) = self.ring.read(number) else {
                continue;
            };
            let record = &kept.record;
            let ended = record.started_at.checked_add(record.elapsed);
            if ended < oldest {
                continue;
            }
            let workload = record.endpoint.as_ref().and_then(|(_, w)| w.as_ref());
            let names = [
                record.peer.identity.namespace(),
                record.service.as_ref().map(|s| &*s.key.namespace),
                workload.map(|w| &*w.key.namespace),
            ];
            found.extend(names.into_iter().flatten().map(str::to_owned));
        }
        let namespaces = found.into_iter().map(|namespace| Namespace {
            cluster: self.teller.cluster.clone(),
            namespace,
        });
        GetNamespacesResponse {
            namespaces: namespaces.collect(),
        }
    }

    fn counts(&self) -> Counts {
        let seen = self.ring.flows_seen();
        let before = match self.ring.read(self.ring.oldest()) {
            Read::Record(kept) => kept.flows_before,
            Read::Overwritten | Read::NotYet => 0,
        };
        let uptime = self.started.elapsed().as_nanos();
        Counts {
            kept: seen.saturating_sub(before),
            // Three flows an exchange; it can be more.
            max: (self.ring.capacity() * 3).max(seen.saturating_sub(before)),
            seen,
            uptime_ns: u64::try_from(uptime).unwrap_or(u64::MAX),
        }
    }

    /// Flows a second, over the last minute or as far as the ring reaches back.
    fn rate(&self) -> f64 {
        let now = SystemTime::now();
        let (mut flows, mut span) = (0, Duration::ZERO);
        for number in (self.ring.oldest()..self.ring.next()).rev() {
            let Read::Record(kept) = self.ring.read(number) else {
                continue;
            };
            let ended = kept.record.started_at.checked_add(kept.record.elapsed);
            let age = ended.and_then(|ended| now.duration_since(ended).ok());
            let age = age.unwrap_or_default();
            if age > RATE_SPAN {
                span = RATE_SPAN;
                break;
            }
            (flows, span) = (flows + kept.record.flows(), span.max(age));
        }
        if self.ring.oldest() == 0 {
            span = RATE_SPAN.min(self.started.elapsed());
        }
        match span.as_secs_f64() {
            seconds if seconds > 0.0 => flows as f64 / seconds,
            _ => 0.0,
        }
    }
}

struct Counts {
    kept: u64,
    max: u64,
    seen: u64,
    uptime_ns: u64,
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

impl<F, I, O> UnaryService<I> for Unary<F>
where
    F: Fn(I) -> Result<O, Status>,
    O: Send + 'static,
{
    type Response = O;
    type Future = Answer<O>;

    fn call(&mut self, request: Request<I>) -> Self::Future {
        let answer = (self.0)(request.into_inner());
        Box::pin(std::future::ready(answer.map(Response::new)))
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
        Box::pin(std::future::ready(answer))
    }
}
