//! Judges one HTTP request. `Gate::judge` states the order; what is decided is decided by
//! `cairn-filters`' chain. Sends nothing.
//!
//! - read the runtime, once;
//! - refuse what is malformed or framed ambiguously (`screen.rs`);
//! - clean the headers;
//! - ask the providers of CUSTOM policies (`external.rs`);
//! - authenticate: verify the token and take it out;
//! - judge: normalise, route, authorise;
//! - ask the service of the route's ExternalAuth filter (`external.rs`);
//! - answer here, or choose a backend, ask for room (`throttle.rs`) and change the request.

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use cairn_config_schema::snapshot::{AbortAnswer, ClusterKey, DirectResponse};
use cairn_filters::chain::{Answer, Authenticated, Decision, Destination, RequestView};
use cairn_filters::external::Changes;
use cairn_filters::fault::Faults;
use cairn_filters::outcome::Outcome;
use cairn_routing::{Cluster, Found, RuleRef};
use http::HeaderMap;
use http::header::HeaderValue;
use pingora_http::RequestHeader;
use pingora_proxy::Session;

use super::arrival::{begin, note_target, request_id, request_view, stream_context};
use super::balance::{self, HashKey, Keyed};
use super::context::{Plan, RequestContext};
use super::external::{Asked, Subject};
use super::headers::{self, RequestHeaders};
use super::http::Gate;
use super::refusal::{answered, denial, redirected, refused, told_why, unasked, unauthenticated};
use super::{attempt, body, fault, login, persistence, screen, throttle};
use crate::drain::Kind;
use crate::external::Denial;
use crate::recheck::UpgradeRequest;
use crate::runtime::{Runtime, Target};
use crate::telemetry::exchange::{Exchange, HttpExchange};
use crate::telemetry::trace::recording::What;

/// What `judge` found.
pub(super) enum Judged {
    /// The request goes on to an endpoint.
    Forward,
    /// The request is answered here.
    Answer(Outcome),
    /// Policy denied it, and the client is told why.
    Denied(Outcome, String),
    /// The request's token is refused: body and challenge say why.
    Unauthenticated(Outcome, &'static str, HeaderValue),
    /// An authorization service, or that there is none, decides what the client gets.
    External(Outcome, Denial),
    /// A rate limit has no token for the request until then.
    Throttled(Duration),
    /// A CORS preflight is answered with these headers.
    Preflight(HeaderMap),
    /// The route itself answers.
    Direct(Arc<DirectResponse>),
    /// The route fails it on purpose, with this answer.
    Fault(AbortAnswer),
    /// The request is redirected.
    Redirect(http::StatusCode, HeaderValue),
}

impl Gate {
    pub(super) async fn judge(&self, session: &mut Session, ctx: &mut RequestContext) -> Judged {
        let Some(stream) = stream_context(session) else {
            return Judged::Answer(Outcome::Internal);
        };
        stream.header_read(headers::has_stated_length(session));
        ctx.held = Some(self.worker.in_flight.hold(Kind::Request));
        let runtime = self.worker.runtime.load_full();
        let exchange = begin(session, &stream, &runtime);
        let exchange = ctx.exchange.insert(exchange);
        let runtime: &Runtime = ctx.runtime.insert(runtime);
        // The service may have changed, or gone, since the tunnel was opened.
        let target = runtime.find(&stream.asked, stream.origin.peer.identity.namespace());
        note_target(exchange, session, target.as_deref().ok());
        if let Some((outcome, reason)) = screen::refusal(session) {
            exchange.reason = Some(reason.to_owned());
            return refused(exchange, outcome);
        }
        let Ok(target) = target else {
            return refused(exchange, Outcome::NotServed);
        };
        let authority = match screen::authority_of(session) {
            Ok(authority) => authority,
            Err(error) => {
                exchange.reason = Some(error.to_string());
                return refused(exchange, Outcome::BadAuthority);
            }
        };
        let Some(http) = exchange.http.take() else {
            return Judged::Answer(Outcome::Internal);
        };
        let http = HttpExchange { authority, ..http };
        ctx.stacked = attempt::is_stacked(session);
        let subject = Subject {
            http: &http,
            target: &target,
            runtime,
        };
        let mut faults = Faults::default();
        let judged = match self.asked(session, exchange, subject).await {
            Err(judged) => judged,
            Ok(mut asked) => {
                let (plan, faults) = (&mut ctx.plan, &mut faults);
                let mut judged = self
                    .decide(session, exchange, subject, &mut asked, plan, faults)
                    .await;
                if let Some(plan) = &mut ctx.plan
                    && runtime.wildcard(plan.cluster.key()).is_some()
                {
                    let found = self.find_host(session, exchange, runtime, plan);
                    judged = Box::pin(found).await.unwrap_or(judged);
                }
                if let Some(plan) = &mut ctx.plan {
                    plan.external_headers = asked.response;
                }
                ctx.body_read = body::kept(session, asked.body, asked.body_place);
                judged
            }
        };
        let begun = fault::inject(faults, exchange).await;
        ctx.time = attempt::time_of(session, begun, http.grpc, ctx.plan.as_ref());
        let request_id = session.req_header().headers.get("x-request-id").cloned();
        let path = login::shown_path(&target.chain, http.path);
        exchange.http = Some(HttpExchange {
            request_id,
            path,
            ..http
        });
        judged
    }

    /// Cleans the headers, and asks whoever CUSTOM policies want asked.
    async fn asked(
        &self,
        session: &mut Session,
        exchange: &mut Exchange,
        subject: Subject<'_>,
    ) -> Result<Asked, Judged> {
        let own = self.worker.identity.current();
        subject.target.chain.clean(
            &mut RequestHeaders(session.req_header_mut()),
            Some(&own.identity),
            Some(&exchange.origin.peer.identity),
            request_id,
        );
        match subject.target.chain.asks() {
            false => Ok(Asked::default()),
            true => {
                self.note_request(exchange, subject);
                // Boxed: requests that nobody is asked about are not to carry its state.
                Box::pin(self.consult(session, exchange, subject)).await
            }
        }
    }

    /// Who it is from, and what policy and routes say of it.
    ///
    /// # Errors
    /// The answer when they refuse it.
    fn authorise<'t>(
        &self,
        session: &mut Session,
        exchange: &mut Exchange,
        subject: Subject<'_>,
        path: &'t str,
        asked: &Asked,
    ) -> Result<(Decision<'t>, Option<Authenticated>), Judged> {
        let Subject { http, target, .. } = subject;
        let request = session.req_header_mut();
        let jwks = &self.worker.jwks;
        let login::Logins { login, trial } =
            login::authenticate(&target.chain, jwks, request, &http.method, path);
        let view = RequestView {
            target: path,
            external: asked.external(),
            trial: trial.as_ref(),
            ..request_view(
                target,
                http,
                &exchange.origin,
                &request.headers,
                login.as_ref(),
            )
        };
        if let Some(question) = target.chain.unasked(&view, &asked.allowed_by) {
            return Err(unasked(exchange, &question));
        }
        let decision = target.chain.decide(&view);
        let why = denial(target, &decision, &view);
        if let Some(judged) = self.refuse(&decision, why, &request.headers, http, exchange) {
            return Err(judged);
        }
        Ok((decision, login))
    }

    async fn decide(
        &self,
        session: &mut Session,
        exchange: &mut Exchange,
        subject: Subject<'_>,
        asked: &mut Asked,
        plan: &mut Option<Plan>,
        faults: &mut Faults,
    ) -> Judged {
        let Subject {
            http,
            target,
            runtime,
        } = subject;
        let path = asked.target.take();
        let path = path.as_deref().unwrap_or(&http.path);
        let judged = self.authorise(session, exchange, subject, path, asked);
        let (decision, login) = match judged {
            Ok(judged) => judged,
            Err(refused) => return refused,
        };
        *faults = decision.faults(|| fastrand::u64(..));
        if let Some(answer) = faults.abort {
            return Judged::Fault(answer);
        }
        let changes = match decision.external_auth() {
            None => Changes::default(),
            Some(provider) => {
                // Boxed: as in `asked`.
                let asking = self.filter(session, exchange, subject, provider, &decision, asked);
                match Box::pin(asking).await {
                    Ok(changes) => changes,
                    Err(judged) => return judged,
                }
            }
        };
        let request = session.req_header();
        let destination = match persistence::held(&decision, runtime, &request.headers) {
            Some(index) => target.chain.backend_at(&decision, index),
            None => target.chain.backend(&decision, fastrand::u64(..)),
        };
        let destination = match destination {
            Ok(destination) => destination,
            Err(failure) => {
                return answered(&decision, failure.outcome(), exchange);
            }
        };
        match planned(session, exchange, subject, &decision, destination) {
            Ok(planned) => {
                let plan = plan.insert(planned);
                let headers = &session.req_header().headers;
                plan.upgrade = is_upgrade(headers)
                    .then(|| Box::new(upgrade_request(http, path, asked, headers, &login)));
            }
            Err(judged) => return judged,
        }
        let request = session.req_header_mut();
        changes.change_request(&mut RequestHeaders(request));
        let path = decision.change_request(destination.backend(), &mut RequestHeaders(request));
        let path = changes.change_target(&path).map_or(path, Cow::Owned);
        if set_target(request, &path).is_err() {
            exchange.reason = Some(format!("the rewritten path {path} is not valid"));
            return Judged::Answer(Outcome::BrokenRule);
        }
        exchange.trace.inject(&mut RequestHeaders(request));
        Judged::Forward
    }
}

impl Gate {
    /// Tells telemetry of the decision. The answer of one that policy denies and whose client is to know
    /// why, or whose token is not valid.
    fn refuse(
        &self,
        decision: &Decision<'_>,
        why: Option<String>,
        headers: &HeaderMap,
        http: &HttpExchange,
        exchange: &mut Exchange,
    ) -> Option<Judged> {
        if why.is_some() {
            exchange.reason = why;
        }
        note_decision(exchange, decision);
        if decision.answer.is_denial() && self.worker.explain_denials {
            return Some(told_why(decision, exchange));
        }
        let Answer::Unauthenticated(failure) = &decision.answer else {
            return None;
        };
        let refused = unauthenticated(decision, failure, headers, http, exchange);
        Some(refused)
    }
}

/// Where a request goes, and what is done to its response.
///
/// # Errors
/// The answer of one that goes nowhere after all: its backend redirects, is not there, or has no room.
fn planned(
    session: &Session,
    exchange: &mut Exchange,
    subject: Subject<'_>,
    decision: &Decision<'_>,
    destination: Destination<'_>,
) -> Result<Plan, Judged> {
    let Subject {
        http,
        target,
        runtime,
    } = subject;
    let backend = destination.backend();
    let port = target.destination.port();
    if let Some(answer) = decision.backend_redirect(backend, &http.authority, port) {
        return Err(redirected(answer));
    }
    let Some(cluster) = cluster_of(destination, runtime, target) else {
        return Err(Judged::Answer(Outcome::InvalidBackend));
    };
    note_destination(exchange, runtime, destination);
    let headers = &session.req_header().headers;
    let rule = rule_of(decision);
    let route = rule.map(|rule| &rule.route.origin);
    let places = throttle::admit(subject, route, headers, exchange)?;
    let upgrade = is_upgrade(headers);
    let http2 = session.is_http2() && !upgrade;
    let source_ip = exchange.origin.peer.address.ip();
    let mirrors = decision.mirrors(backend, || fastrand::u64(..));
    Ok(Plan {
        mirrors: clusters(mirrors, runtime),
        rule: rule.cloned(),
        response_changes: decision.response_changes(backend),
        external_headers: Vec::new(),
        host: None,
        _places: places,
        version: attempt::version(runtime, destination, target, http2, upgrade),
        key: key_of(&cluster, http, headers, source_ip),
        sticky: persistence::sticky(rule, &cluster, runtime, headers),
        cluster,
        upgrade: None,
    })
}

fn is_upgrade(headers: &HeaderMap) -> bool {
    headers.contains_key(http::header::UPGRADE)
}

/// The cluster that a request goes to.
fn cluster_of(
    destination: Destination<'_>,
    runtime: &Runtime,
    target: &Target,
) -> Option<Arc<Cluster>> {
    match destination {
        Destination::Cluster {
            key,
            backend: Some(_),
        } => runtime.cluster(key).cloned(),
        // The service's own: for one without listed endpoints it is the address that was dialled.
        Destination::Cluster { backend: None, .. } | Destination::Dialled => {
            Some(target.cluster.clone())
        }
    }
}

/// What the request is balanced by.
fn key_of(
    cluster: &Cluster,
    http: &HttpExchange,
    headers: &HeaderMap,
    source_ip: IpAddr,
) -> HashKey {
    let query = http.path.split_once('?').map(|(_, query)| query);
    let request = Keyed {
        headers,
        query,
        source_ip,
    };
    balance::hash_key(cluster, &request)
}

/// What is judged again when policy changes, should the endpoint agree to the upgrade.
fn upgrade_request(
    http: &HttpExchange,
    target: &str,
    asked: &Asked,
    headers: &HeaderMap,
    login: &Option<Authenticated>,
) -> UpgradeRequest {
    UpgradeRequest {
        method: http.method.clone(),
        target: target.to_owned(),
        authority: http.authority.clone(),
        headers: headers.clone(),
        login: login.clone(),
        allowed_by: asked.allowed_by.clone(),
    }
}

/// Where the chosen backend leads, for telemetry.
fn note_destination(exchange: &mut Exchange, runtime: &Runtime, destination: Destination<'_>) {
    if let Destination::Cluster {
        key,
        backend: Some(_),
    } = destination
    {
        let service = runtime.snapshot.services.get(&key.service);
        exchange.service = service.cloned().or(exchange.service.take());
        exchange.service_port = key.port;
    }
}

fn clusters<'k>(
    keys: impl Iterator<Item = &'k ClusterKey>,
    runtime: &Runtime,
) -> Vec<Arc<Cluster>> {
    keys.filter_map(|key| runtime.cluster(key).cloned())
        .collect()
}

fn rule_of<'d>(decision: &'d Decision<'_>) -> Option<&'d RuleRef> {
    match &decision.found {
        Some(Found::Rule(rule)) => Some(rule),
        _ => None,
    }
}

fn note_decision(exchange: &mut Exchange, decision: &Decision<'_>) {
    exchange.verdict.clone_from(&decision.verdict);
    exchange.trace.event(|| What::Verdict);
    if let Some(Found::Rule(rule)) = &decision.found {
        exchange.route = Some((rule.route.clone(), rule.rule));
    }
}

/// Puts the normalised, perhaps rewritten, path and query into the request.
fn set_target(request: &mut RequestHeader, path: &str) -> Result<(), http::Error> {
    if request.raw_path() == path.as_bytes() {
        return Ok(());
    }
    let mut parts = request.uri.clone().into_parts();
    parts.path_and_query = Some(http::uri::PathAndQuery::try_from(path)?);
    request.set_uri(http::Uri::from_parts(parts)?);
    Ok(())
}
