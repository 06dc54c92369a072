//! Asks the authorization services of CUSTOM policies about a request, and applies what they change
//! (specs/istio-waypoint.md 4.8). The order it is in, and what else decides, is in `judge.rs`.

use std::sync::Arc;

use cairn_authz::{Question, Verdict};
use cairn_config_schema::snapshot::ExternalProvider;
use cairn_filters::chain::External;
use cairn_filters::external::{Changes, HeaderMutation};
use cairn_filters::outcome::Outcome;
use cairn_routing::Found;
use http::StatusCode;
use pingora_proxy::Session;

use super::arrival::request_view;
use super::headers::RequestHeaders;
use super::http::Gate;
use super::judge::Judged;
use super::{body, login};
use crate::external::{
    Answer, AskError, Check, CheckedBody, Denial, Place, REASONS, RequestInCheck,
};
use crate::runtime::{Runtime, Target};
use crate::telemetry::counters::{EXT_AUTHZ_CHECKS, EXT_AUTHZ_ERRORS};
use crate::telemetry::exchange::{Exchange, HttpExchange};
use crate::worker::Worker;

/// What the providers of CUSTOM policies left of a request that may go on.
#[derive(Default)]
pub(super) struct Asked {
    /// The route it had before they changed it, when that one is to stay.
    pub route: Option<Found>,
    /// The target with its query changed.
    pub target: Option<String>,
    /// Headers for the response.
    pub response: Vec<HeaderMutation>,
    /// Those who were asked.
    pub allowed_by: Vec<Arc<ExternalProvider>>,
    /// What was read of the body.
    pub body: Option<CheckedBody>,
    /// Its place among those that are held.
    pub body_place: Option<Place>,
}

impl Asked {
    /// For the chain.
    pub fn external(&self) -> External<'_> {
        External::Settled(self.route.as_ref())
    }
}

/// Results that a metric counts.
const RESULTS: [&str; 4] = ["allowed", "denied", "error", "failed_open"];

/// A request, as far as it is known before it is decided.
#[derive(Clone, Copy)]
pub(super) struct Subject<'a> {
    /// As it came.
    pub http: &'a HttpExchange,
    /// What it is for.
    pub target: &'a Target,
    /// What decides it.
    pub runtime: &'a Runtime,
}

/// Why a request does not go on: the answer, and the reason.
type Ended = (Judged, String);

impl Gate {
    /// Asks everybody whom CUSTOM policies want asked, one after the other: each sees what the one before
    /// has changed.
    ///
    /// # Errors
    /// The answer for a request that does not go on; telemetry's exchange says why.
    pub(super) async fn consult(
        &self,
        session: &mut Session,
        exchange: &mut Exchange,
        subject: Subject<'_>,
    ) -> Result<Asked, Judged> {
        let mut asked = Asked::default();
        let consultation = {
            let request = session.req_header();
            let http = subject.http;
            let (chain, jwks) = (&subject.target.chain, &self.worker.jwks);
            let login = login::verify(chain, jwks, request, &http.method, &http.path).login;
            let origin = &exchange.origin;
            let view = request_view(
                subject.target,
                subject.http,
                origin,
                &request.headers,
                login.as_ref(),
            );
            subject.target.chain.consult(&view)
        };
        asked.target = consultation.target;
        let wants_body = |question: &&Question| question.provider.body.is_some();
        if let Some(first) = consultation.questions.iter().find(wants_body) {
            let providers = consultation.questions.iter().map(|q| &q.provider);
            let wanted = providers.filter_map(|p| p.body).map(|b| b.max_bytes).max();
            let read = self.read_body(
                session,
                &first.provider,
                wanted.unwrap_or_default(),
                &mut asked,
            );
            if let Err((judged, reason)) = read.await {
                if matches!(judged, Judged::External(..)) {
                    exchange.verdict = Some(first.denied());
                }
                exchange.reason = Some(reason);
                return Err(judged);
            }
        }
        for question in &consultation.questions {
            let provider = &question.provider;
            match self.ask(session, exchange, subject, provider, &asked).await {
                Ok(changes) => {
                    asked.apply(changes, session, subject.http);
                    asked.allowed_by.push(provider.clone());
                }
                Err((judged, reason)) => {
                    exchange.verdict = Some(question.denied());
                    exchange.reason = Some(reason);
                    return Err(judged);
                }
            }
        }
        asked.route = consultation.route;
        Ok(asked)
    }

    /// Leaves with telemetry what is known of a request: its client may go away while others are asked.
    pub(super) fn note_request(&self, exchange: &mut Exchange, subject: Subject<'_>) {
        let mut http = subject.http.clone();
        http.path = login::shown_path(&subject.target.chain, http.path);
        exchange.http = Some(http);
    }

    /// Asks the service of an ExternalAuth filter, of a rule or backend: after policy, and before the other
    /// filters. `path` is what it is told of path and query. Gives what it changes in the request.
    ///
    /// # Errors
    /// The answer for a request that does not go on; telemetry's exchange says why.
    pub(super) async fn filter(
        &self,
        session: &mut Session,
        exchange: &mut Exchange,
        subject: Subject<'_>,
        provider: &Arc<ExternalProvider>,
        path: String,
        asked: &mut Asked,
    ) -> Result<Changes, Judged> {
        self.note_request(exchange, subject);
        asked.target = Some(path);
        let answer = match provider.body {
            None => Ok(()),
            Some(limit) => {
                let read = self.read_body(session, provider, limit.max_bytes, asked);
                read.await
            }
        };
        let answer = match answer {
            Ok(()) => self.ask(session, exchange, subject, provider, asked).await,
            Err(ended) => Err(ended),
        };
        match answer {
            Ok(mut changes) => {
                asked.response.append(&mut changes.response);
                asked.allowed_by.push(provider.clone());
                Ok(changes)
            }
            Err((judged, reason)) => {
                exchange.reason = Some(reason);
                Err(judged)
            }
        }
    }

    /// Reads as much of the body as is wanted, if there is a place for it.
    async fn read_body(
        &self,
        session: &mut Session,
        provider: &ExternalProvider,
        max_bytes: usize,
        asked: &mut Asked,
    ) -> Result<(), Ended> {
        if asked.body_place.is_none() {
            match self.worker.external.place_for_body() {
                Ok(place) => asked.body_place = Some(place),
                Err(error) => return settled(settle(Err(error), provider)).map(drop),
            }
        }
        let read = body::read(session, asked.body.take(), max_bytes).await;
        let read =
            read.map_err(|(outcome, reason)| (Judged::Answer(outcome), reason.to_owned()))?;
        asked.body = Some(read);
        Ok(())
    }

    async fn ask(
        &self,
        session: &Session,
        exchange: &mut Exchange,
        subject: Subject<'_>,
        provider: &ExternalProvider,
        asked: &Asked,
    ) -> Result<Changes, Ended> {
        if let (Some(limit), Some(body)) = (provider.body, &asked.body)
            && !limit.allow_partial
            && body.first(limit.max_bytes).1
        {
            let (name, max) = (&provider.name, limit.max_bytes);
            let reason = format!("provider {name} gets whole bodies of at most {max} bytes");
            return Err((Judged::Answer(Outcome::BodyTooLarge), reason));
        }
        let Subject {
            http,
            target,
            runtime,
        } = subject;
        let own = self.worker.identity.current();
        let shared = target.shared_identity();
        let check = Check {
            source: &exchange.origin.peer,
            destination: target.destination,
            destination_identity: shared.as_ref().unwrap_or(&own.identity),
            destination_service: target.service.as_ref().map_or("", |s| &s.hostname),
            started_at: exchange.started_at,
            request: Some(RequestInCheck {
                method: &http.method,
                target: asked.target.as_deref().unwrap_or(&http.path),
                authority: &http.authority,
                headers: &session.req_header().headers,
                protocol: http.protocol,
                body: asked.body.as_ref(),
            }),
        };
        let dialer = self.connections.dialer();
        let answer = self
            .worker
            .external
            .ask(dialer, runtime, provider, &check)
            .await;
        let (changes, note) = settled(settle(answer, provider))?;
        exchange.reason = note.or(exchange.reason.take());
        Ok(changes)
    }
}

/// What a settled answer means for a request.
fn settled(settled: Settled) -> Result<(Changes, Option<String>), Ended> {
    let reply = |outcome, denial| Judged::External(outcome, denial);
    match settled {
        Settled::Passes(changes, note) => Ok((changes, note)),
        Settled::Denied(denial, reason) => Err((reply(Outcome::ExternalDenied, denial), reason)),
        Settled::Failed(denial, reason) => Err((reply(Outcome::ExternalError, denial), reason)),
    }
}

impl Asked {
    fn apply(&mut self, changes: Changes, session: &mut Session, http: &HttpExchange) {
        changes.change_request(&mut RequestHeaders(session.req_header_mut()));
        let present = self.target.as_deref().unwrap_or(&http.path);
        if let Some(changed) = changes.change_target(present) {
            self.target = Some(changed);
        }
        self.response.extend(changes.response);
    }
}

/// Why a TCP stream is not let through: the verdict, the reason, and the row of outcomes.
pub(super) struct Refused {
    pub verdict: Verdict,
    pub reason: String,
    pub outcome: Outcome,
}

/// Asks everybody whom CUSTOM policies want asked about a TCP stream; gives who they are.
///
/// # Errors
/// The first that does not allow it.
pub(super) async fn consult_tcp(
    worker: &Worker,
    exchange: &mut Exchange,
    target: &Target,
    runtime: &Runtime,
    questions: Vec<Question>,
) -> Result<Vec<Arc<ExternalProvider>>, Refused> {
    let mut allowed_by = Vec::new();
    for question in questions {
        let provider = question.provider.clone();
        let own = worker.identity.current();
        let shared = target.shared_identity();
        let check = Check {
            source: &exchange.origin.peer,
            destination: exchange.origin.destination,
            destination_identity: shared.as_ref().unwrap_or(&own.identity),
            destination_service: target.service.as_ref().map_or("", |s| &s.hostname),
            started_at: exchange.started_at,
            request: None,
        };
        let answer = match worker.engine() {
            Some(engine) => {
                let dialer = engine.connections().dialer();
                worker
                    .external
                    .ask(dialer, runtime, &provider, &check)
                    .await
            }
            None => Err(AskError::NoEndpoint),
        };
        let (outcome, reason) = match settle(answer, &provider) {
            Settled::Passes(_, note) => {
                exchange.reason = note.or(exchange.reason.take());
                allowed_by.push(provider);
                continue;
            }
            Settled::Denied(_, reason) => (Outcome::ExternalDenied, reason),
            Settled::Failed(_, reason) => (Outcome::ExternalError, reason),
        };
        return Err(Refused {
            verdict: question.denied(),
            reason,
            outcome,
        });
    }
    Ok(allowed_by)
}

/// What an answer, or none, means; metrics are told.
pub(super) enum Settled {
    /// It passes; with a note for the log when there was no answer.
    Passes(Changes, Option<String>),
    /// It does not, for this reason.
    Denied(Denial, String),
    /// Nothing usable was said, and so it is answered with this.
    Failed(Denial, String),
}

/// Metrics show their labels before the first question.
pub(super) fn preset_metrics() {
    EXT_AUTHZ_CHECKS.preset(RESULTS);
    EXT_AUTHZ_ERRORS.preset(REASONS);
}

/// Settles an answer.
pub(super) fn settle(answer: Result<Answer, AskError>, provider: &ExternalProvider) -> Settled {
    let name = &provider.name;
    let error = match answer {
        Ok(Answer::Allow(changes)) => {
            EXT_AUTHZ_CHECKS.inc("allowed");
            return Settled::Passes(changes, None);
        }
        Ok(Answer::Deny(denial)) => {
            EXT_AUTHZ_CHECKS.inc("denied");
            let reason = format!("provider {name} denied it with {}", denial.status.as_u16());
            return Settled::Denied(denial, reason);
        }
        Err(error) => error,
    };
    EXT_AUTHZ_ERRORS.inc(error.reason());
    if provider.fail_open && error.fails_open() {
        EXT_AUTHZ_CHECKS.inc("failed_open");
        let note = format!("provider {name} fails open: {error}");
        return Settled::Passes(Changes::default(), Some(note));
    }
    EXT_AUTHZ_CHECKS.inc("error");
    let reason = format!("provider {name} gave no usable answer: {error}");
    let status_on_error = StatusCode::from_u16(provider.status_on_error);
    let denial = match error {
        AskError::Undecided(Some(reply)) => *reply,
        // The limit is Cairn's own, and later is another matter.
        AskError::Full(_) | AskError::FullOfBodies(_) => {
            Denial::bare(StatusCode::SERVICE_UNAVAILABLE)
        }
        _ => Denial::bare(status_on_error.unwrap_or(StatusCode::FORBIDDEN)),
    };
    Settled::Failed(denial, reason)
}

#[cfg(test)]
mod tests;
