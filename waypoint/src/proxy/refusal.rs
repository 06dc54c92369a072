//! What becomes of a request that goes to no endpoint, and what telemetry is told of it. Decides nothing
//! and sends nothing: that is `judge.rs` and `reply.rs`.

use cairn_authz::jwt::Failure;
use cairn_authz::{Question, Verdict};
use cairn_filters::chain::{Answer, Decision, RequestView};
use cairn_filters::login::challenge;
use cairn_filters::outcome::Outcome;
use http::HeaderMap;

use super::judge::Judged;
use crate::runtime::Target;
use crate::telemetry::exchange::{Exchange, HttpExchange};

/// The answer of a backend that redirects.
pub(super) fn redirected(answer: Answer) -> Judged {
    match answer {
        Answer::Redirect { status, location } => Judged::Redirect(status, location),
        _ => Judged::Answer(Outcome::BrokenRule),
    }
}

/// The answer to a token that is not valid.
pub(super) fn unauthenticated(
    decision: &Decision<'_>,
    failure: &Failure,
    headers: &HeaderMap,
    http: &HttpExchange,
    exchange: &mut Exchange,
) -> Judged {
    let path = decision.target.as_ref().map_or("/", |t| &*t.path);
    let challenge = challenge(headers, &http.authority, path);
    let _ = answered(decision, Outcome::Unauthenticated, exchange);
    let outcome = cairn_filters::login::outcome(failure);
    Judged::Unauthenticated(outcome, failure.status.message(), challenge)
}

/// The answer for a request about which somebody should have been asked.
pub(super) fn unasked(exchange: &mut Exchange, question: &Question) -> Judged {
    let verdict = question.denied();
    if let Some(details) = verdict.response_code_details() {
        exchange.details = details.into();
    }
    exchange.verdict = Some(verdict);
    exchange.reason = Some(question.too_late());
    Judged::Answer(Outcome::Denied)
}

/// The answer for a request at which nobody looked for tokens. One may be in its query, which is not
/// for the log therefore.
pub(super) fn refused(exchange: &mut Exchange, outcome: Outcome) -> Judged {
    if let Some(http) = &mut exchange.http {
        let path = http.path.find('?').unwrap_or(http.path.len());
        http.path.truncate(path);
    }
    Judged::Answer(outcome)
}

/// The answer for a request that has nowhere to go.
pub(super) fn answered(
    decision: &Decision<'_>,
    failure: Outcome,
    exchange: &mut Exchange,
) -> Judged {
    if let Answer::Redirect { status, location } = &decision.answer {
        return Judged::Redirect(*status, location.clone());
    }
    if let Answer::Preflight(headers) = &decision.answer {
        return Judged::Preflight(headers.clone());
    }
    if let Answer::Direct(direct) = &decision.answer {
        return Judged::Direct(direct.clone());
    }
    let outcome = decision.answer.outcome().unwrap_or(failure);
    if let Some(details) = decision.details() {
        exchange.details = details;
    }
    if exchange.reason.is_none() {
        exchange.reason = decision.reason().map(|r| r.into_owned());
    }
    Judged::Answer(outcome)
}

/// The answer for a request that policy denied, with the reason.
pub(super) fn told_why(decision: &Decision<'_>, exchange: &mut Exchange) -> Judged {
    let _ = answered(decision, Outcome::Denied, exchange);
    let outcome = decision.answer.outcome().unwrap_or(Outcome::Denied);
    Judged::Denied(outcome, told(decision, exchange))
}

/// What decided, and why, for a client that is to know.
fn told(decision: &Decision<'_>, exchange: &Exchange) -> String {
    let verdict = decision.verdict.as_ref();
    let policy = verdict.and_then(Verdict::origin);
    let rule = verdict.and_then(Verdict::rule_index);
    let by = match (policy, rule) {
        (Some(policy), Some(rule)) => format!("by {policy} rule {rule}"),
        (Some(policy), None) => format!("by {policy}"),
        (None, _) => "by default".to_owned(),
    };
    format!("{by}: {}", exchange.reason.as_deref().unwrap_or_default())
}

/// Why policy denied it: the deciding rule, or the nearest allow and what it lacks. `None`: it did not.
pub(super) fn denial(
    target: &Target,
    decision: &Decision<'_>,
    view: &RequestView<'_, '_>,
) -> Option<String> {
    if !decision.answer.is_denial() {
        return None;
    }
    let normalised = decision.target.as_ref()?;
    let facts = cairn_filters::chain::facts(view, normalised, decision.found.as_ref());
    let verdict = decision.verdict.as_ref()?;
    Some(verdict.reason(target.chain.policies(), &facts))
}
