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
//! - answer here, or choose a backend (`plan.rs`), ask for room (`throttle.rs`), ask rate limit services
//!   (`rate_limit.rs`) and change the request.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use cairn_config_schema::snapshot::{AbortAnswer, DirectResponse};
use cairn_filters::chain::{Answer, Authenticated, Decision, RequestView};
use cairn_filters::external::Changes;
use cairn_filters::fault::Faults;
use cairn_filters::outcome::Outcome;
use cairn_routing::Found;
use http::HeaderMap;
use http::header::HeaderValue;
use pingora_http::RequestHeader;
use pingora_proxy::Session;

use super::arrival::{begin, note_target, request_id, request_view, stream_context};
use super::context::{Plan, RequestContext};
use super::external::{Asked, Subject};
use super::headers::{self, RequestHeaders};
use super::http::Gate;
use super::plan::{chosen, is_upgrade, planned, upgrade_request};
use super::refusal::{answered, denial, refused, told_why, unasked, unauthenticated};
use super::{attempt, body, fault, login, screen};
use crate::drain::Kind;
use crate::external::Denial;
use crate::runtime::Runtime;
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
                let decided = self.decide(session, exchange, subject, &mut asked, plan, faults);
                let mut judged = decided.await.err().unwrap_or(Judged::Forward);
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

    /// Decides, and changes the request if it goes on.
    ///
    /// # Errors
    /// The answer for one that does not.
    async fn decide(
        &self,
        session: &mut Session,
        exchange: &mut Exchange,
        subject: Subject<'_>,
        asked: &mut Asked,
        plan: &mut Option<Plan>,
        faults: &mut Faults,
    ) -> Result<(), Judged> {
        let http = subject.http;
        let path = asked.target.take();
        let path = path.as_deref().unwrap_or(&http.path);
        let (decision, login) = self.authorise(session, exchange, subject, path, asked)?;
        *faults = decision.faults(|| fastrand::u64(..));
        if let Some(answer) = faults.abort {
            return Err(Judged::Fault(answer));
        }
        let changes = match decision.external_auth() {
            None => Changes::default(),
            Some(provider) => {
                // Boxed: as in `asked`.
                let judged = decision.judged_path().into_owned();
                let asking = self.filter(session, exchange, subject, provider, judged, asked);
                Box::pin(asking).await?
            }
        };
        let destination = chosen(session, subject, &decision)
            .map_err(|failure| answered(&decision, failure.outcome(), exchange))?;
        // As they were judged, for when policy changes.
        let headers = &session.req_header().headers;
        let as_judged = is_upgrade(headers).then(|| headers.clone());
        let mut changes = [changes, Changes::default()];
        let [of_rule, of_backend] = &mut changes;
        // Each service, and who counts, sees what the one before has changed.
        change_now(of_rule, session);
        if let Some(provider) = decision.external_auth_of(destination.backend()) {
            let judged = decision.judged_path();
            let changed = of_rule.change_target(&judged);
            let changed = changed.unwrap_or_else(|| judged.into_owned());
            let asking = self.filter(session, exchange, subject, provider, changed, asked);
            *of_backend = Box::pin(asking).await?;
            change_now(of_backend, session);
        }
        let mut planned = planned(session, exchange, subject, &decision, destination)?;
        planned.upgrade = as_judged.map(|headers| {
            let kept = upgrade_request(http, path, asked, headers, &login);
            Box::new(kept.towards(destination))
        });
        let mut limits = Vec::new();
        let route = planned.rule.as_ref().map(|rule| &rule.route.origin);
        let service = subject.target.service.as_ref().map(|service| &service.key);
        if subject.runtime.limiters().ask(service, route) {
            // Boxed: as in `asked`.
            limits = Box::pin(self.ask_limits(session, exchange, subject, route)).await?;
        }
        *plan = Some(planned);
        let request = session.req_header_mut();
        for counted in limits {
            counted.change_request(&mut RequestHeaders(request));
            asked.response.extend(counted.response);
        }
        let path = decision.change_request(destination.backend(), &mut RequestHeaders(request));
        let path = (changes.iter()).fold(path, |path, changes| {
            changes.change_target(&path).map_or(path, Cow::Owned)
        });
        exchange.trace.inject(&mut RequestHeaders(request));
        set_target(request, &path).map_err(|_| {
            exchange.reason = Some(format!("the rewritten path {path} is not valid"));
            Judged::Answer(Outcome::BrokenRule)
        })
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

/// Changes the headers of the request at once; what is left of the changes is for its path.
fn change_now(changes: &mut Changes, session: &mut Session) {
    changes.change_request(&mut RequestHeaders(session.req_header_mut()));
    (changes.request, changes.removed) = Default::default();
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
