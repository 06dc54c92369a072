//! Opens a TCP stream: the route, policy, the backend by weight, and a connection to an endpoint of it.
//! What passes over it afterwards is `tcp`'s.

use std::sync::Arc;
use std::time::{Duration, Instant};

use cairn_authz::Verdict;
use cairn_config_schema::snapshot::ExternalProvider;
use cairn_filters::Destination;
use cairn_filters::chain::StreamView;
use cairn_filters::outcome::Outcome;
use cairn_routing::{ActiveRequest, AnswerKind, Cluster, FoundStream, Limited, Permit, ServerName};

use super::{balance, external};
use crate::limits::CONNECT_ATTEMPTS_MAX;
use crate::listener::admit::{Asked, Refusal};
use crate::recheck::{Kept, KeptStream, Registered, tcp_denial};
use crate::runtime::{Runtime, Target};
use crate::telemetry;
use crate::telemetry::exchange::{Exchange, StreamOrigin};
use crate::telemetry::trace::Trace;
use crate::telemetry::trace::recording::{Attempt, What};
use crate::tls::Alpn;
use crate::upstream::{Carrier, Reach};
use crate::worker::Worker;

/// A stream whose endpoint is connected.
pub(super) struct Connected {
    pub carrier: Carrier,
    pub exchange: Exchange,
    pub open: Registered,
    pub active: ActiveRequest,
    pub permit: Permit,
}

/// Whether the route of a stream depends on the server name, which nobody has read yet.
pub fn asks_for_server_name(origin: &StreamOrigin, target: &Target) -> bool {
    target
        .chain
        .asks_for_server_name(Some(&origin.peer.identity))
}

/// What a stream that waits for its server name is refused for already, whatever it may be: so that a
/// denial is a refusal of its CONNECT. Policies that depend on where it goes, and providers, are asked
/// once that is known.
///
/// # Errors
/// [`Refusal::PolicyDenied`]; telemetry has been told.
pub fn refuse_early(
    origin: &Arc<StreamOrigin>,
    target: &Target,
    worker: &Worker,
) -> Result<(), Refusal> {
    let view = view(origin, None);
    let settled = matches!(target.chain.consult_tcp(&view), Ok(questions) if questions.is_empty());
    let verdict = target.chain.decide_tcp_settled(&view);
    if !settled || verdict.allowed || verdict.network.is_some() {
        return Ok(());
    }
    let runtime = worker.runtime.load();
    let mut exchange = begin(origin, &runtime);
    know(&mut exchange, target);
    Err(denied(exchange, target, &view, verdict))
}

/// Asks policy and connects to an endpoint, the next one if the first does not answer. What was asked
/// for is looked up again: a sniff may have taken a while, and policy may have changed.
///
/// # Errors
/// Why it is refused; telemetry has been told.
pub(super) async fn open(
    origin: &Arc<StreamOrigin>,
    asked: &Asked,
    server_name: ServerName,
    worker: &Worker,
) -> Result<Connected, Refusal> {
    let runtime = worker.runtime.load_full();
    let mut exchange = begin(origin, &runtime);
    if let ServerName::Named(name) = &server_name {
        exchange.server_name = Some(name.clone());
    }
    let target = match runtime.find(asked, origin.peer.identity.namespace()) {
        Ok(target) => target,
        Err(refusal) => {
            return Err(refused(exchange, Outcome::NotServed, refusal));
        }
    };
    know(&mut exchange, &target);
    let found = target.chain.route_stream(&view(origin, None), &server_name);
    if let FoundStream::Rule(rule) = &found {
        exchange.stream_rule = Some(rule.clone());
    }
    let view = view(origin, Some(&found));
    let (mut exchange, allowed_by) = judge(exchange, &target, &view, &runtime, worker).await?;
    let cluster = match cluster(&target, &found, &runtime, &mut exchange) {
        Ok(cluster) => cluster,
        Err((outcome, refusal)) => return Err(refused(exchange, outcome, refusal)),
    };
    let limit_ms = runtime.snapshot.mesh.connect_timeout_ms;
    match connect(&cluster, worker, limit_ms, &mut exchange).await {
        Ok((carrier, active, permit)) => {
            let kept = KeptStream {
                origin: origin.clone(),
                asked: asked.clone(),
                server_name,
                allowed_by,
            };
            Ok(Connected {
                open: worker.keep_judging(Kept::Tcp(kept), exchange.snapshot, Arc::default()),
                carrier,
                exchange,
                active,
                permit,
            })
        }
        Err(outcome) => Err(refused(exchange, outcome, Refusal::NoEndpoint)),
    }
}

fn begin(origin: &Arc<StreamOrigin>, runtime: &Runtime) -> Exchange {
    let mut exchange = Exchange::begin(origin.clone());
    exchange.snapshot = runtime.snapshot.version;
    exchange.source = runtime.source(origin);
    exchange.settings = runtime.telemetry.of_service(None).unusual();
    exchange
}

/// Notes what is known once it is found what was dialled.
fn know(exchange: &mut Exchange, target: &Target) {
    exchange.service.clone_from(&target.service);
    exchange.settings = target.telemetry.unusual();
    let tracing = target.telemetry.tracing.as_ref();
    exchange.trace = Trace::of_stream(tracing, || fastrand::u64(..));
}

fn view<'r>(origin: &'r StreamOrigin, found: Option<&'r FoundStream>) -> StreamView<'r> {
    StreamView {
        peer: Some(&origin.peer.identity),
        attested_by: origin.attested_by(),
        source_ip: origin.peer.address.ip(),
        destination: origin.destination,
        found,
    }
}

/// Tells telemetry, and gives the refusal back.
fn refused(mut exchange: Exchange, outcome: Outcome, refusal: Refusal) -> Refusal {
    let row = outcome.row();
    (exchange.flags, exchange.details) = (row.flag, row.details.into());
    telemetry::finish(exchange);
    refusal
}

fn denied(
    mut exchange: Exchange,
    target: &Target,
    view: &StreamView<'_>,
    verdict: Verdict,
) -> Refusal {
    let (reason, details) = tcp_denial(&target.chain, view, &verdict);
    (exchange.reason, exchange.details) = (Some(reason), details.into());
    decided(&mut exchange, verdict);
    telemetry::finish(exchange);
    Refusal::PolicyDenied
}

/// Asks policy, and whoever it wants asked; gives who was.
async fn judge(
    mut exchange: Exchange,
    target: &Target,
    view: &StreamView<'_>,
    runtime: &Runtime,
    worker: &Worker,
) -> Result<(Exchange, Vec<Arc<ExternalProvider>>), Refusal> {
    let mut allowed_by = Vec::new();
    let verdict = match target.chain.consult_tcp(view) {
        Err(question) => question.denied(),
        Ok(questions) => {
            let asked = external::consult_tcp(worker, &mut exchange, target, runtime, questions);
            match asked.await {
                Ok(providers) => {
                    allowed_by = providers;
                    target.chain.decide_tcp_settled(view)
                }
                Err(why) => {
                    exchange.reason = Some(why.reason);
                    decided(&mut exchange, why.verdict);
                    return Err(refused(exchange, why.outcome, Refusal::PolicyDenied));
                }
            }
        }
    };
    if !verdict.allowed {
        return Err(denied(exchange, target, view, verdict));
    }
    decided(&mut exchange, verdict);
    Ok((exchange, allowed_by))
}

/// Notes what policy said.
fn decided(exchange: &mut Exchange, verdict: Verdict) {
    exchange.verdict = Some(verdict);
    exchange.trace.event(|| What::Verdict);
}

/// The cluster that a stream goes to, by its route and the weights.
fn cluster(
    target: &Target,
    found: &FoundStream,
    runtime: &Runtime,
    exchange: &mut Exchange,
) -> Result<Arc<Cluster>, (Outcome, Refusal)> {
    let destination = match target.chain.stream_backend(found, fastrand::u64(..)) {
        Ok(destination) => destination,
        Err(failure) => {
            exchange.reason = Some(failure.reason().to_owned());
            return Err((failure.outcome(), Refusal::NoRoute));
        }
    };
    let Destination::Cluster {
        key,
        backend: Some(_),
    } = destination
    else {
        return Ok(target.cluster.clone());
    };
    let service = runtime.snapshot.services.get(&key.service);
    exchange.service = service.cloned().or(exchange.service.take());
    exchange.service_port = key.port;
    let cluster = runtime.cluster(key).cloned();
    cluster.ok_or((Outcome::InvalidBackend, Refusal::NoRoute))
}

async fn connect(
    cluster: &Cluster,
    worker: &Worker,
    mesh_timeout_ms: u64,
    exchange: &mut Exchange,
) -> Result<(Carrier, ActiveRequest, Permit), Outcome> {
    let connections = worker.engine().ok_or(Outcome::Internal)?.connections();
    let settings = cluster.settings();
    if let Some(reason) = &settings.refused {
        exchange.reason = Some(reason.to_string());
        return Err(Outcome::NotServed);
    }
    let permit = cluster.admit(Limited::Connections);
    let permit = permit.ok_or(Outcome::UpstreamOverflow)?;
    let limit = Duration::from_millis(settings.connect_timeout_ms.unwrap_or(mesh_timeout_ms));
    let egress = exchange.origin.egress().cloned();
    let hash = balance::address_key(cluster, exchange.origin.peer.address.ip());
    let mut tried = Vec::new();
    let mut outcome = Outcome::NoEndpoint;
    while tried.len() < CONNECT_ATTEMPTS_MAX as usize {
        let Some(live) = balance::pick(cluster, hash, None, &tried) else {
            exchange.reason = Some(balance::no_endpoint(cluster));
            break;
        };
        if !tried.is_empty() {
            exchange.trace.event(|| What::Retry {
                cause: "connect",
                wait: Duration::ZERO,
            });
        }
        tried.push(live.endpoint.address);
        exchange.attempts += 1;
        exchange.endpoint = Some(live.endpoint.clone());
        let random = || fastrand::u64(..);
        exchange.trace.begin_attempt(&live.endpoint, random);
        let dialer = connections.dialer();
        let reach = Reach {
            egress: egress.as_ref(),
            settings: &settings,
            alpn: Alpn::Unsaid,
            client: Some(exchange.origin.client_towards(live.endpoint.address)),
            host: None,
        };
        let destination = dialer.destination(&live.endpoint, &reach);
        match dialer.dial(&destination, limit).await {
            Ok(carrier) => {
                exchange.upstream_local = carrier.local_address();
                let connected = |attempt: &mut Attempt| attempt.connected = Some(Instant::now());
                exchange.trace.note_attempt(connected);
                return Ok((carrier, live.begin(), permit));
            }
            Err(error) => {
                let words = error.to_string();
                let failed = |attempt: &mut Attempt| attempt.fail("connect", &words);
                exchange.trace.end_attempt(failed);
                exchange.upstream_failure = Some(words.into());
                outcome = Outcome::ConnectFailed;
                if !error.is_ours() {
                    let failed = AnswerKind::LocalFailure;
                    balance::record_for(cluster, &live, failed, Some(exchange));
                }
            }
        }
    }
    Err(outcome)
}
