//! Whether an attempt is followed by another, and how soon: what the rule's policy, the destination's
//! budget and the request's deadline say together. Counts what it decides; waits and sends nothing.

use std::time::{Duration, Instant, SystemTime};

use cairn_routing::{
    Attempt, AttemptOutcome, Limited, RetryDecision, decide, delay_ms, http_status_of_grpc,
};
use http::header::RETRY_AFTER;
use pingora_error::ErrorType;
use pingora_http::ResponseHeader;
use pingora_proxy::Session;

use super::context::RequestContext;
use crate::clock::now_ms;
use crate::limits::RETRY_AFTER_MAX;
use crate::telemetry::counters;
use crate::telemetry::trace::recording::What;

/// Tells the engine's loop that an answer was taken for a failure.
pub(super) const RETRIED_ANSWER: ErrorType = ErrorType::Custom("RetriedAnswer");

const EXHAUSTED: &str = "exhausted";
const OVER_BUDGET: &str = "budget";
const OVER_LIMIT: &str = "limit";

/// Envoy's flags of a request that ended with this one and was not retried for this reason, in
/// Envoy's order.
pub(super) fn flags(flag: &'static str, denied: Option<&'static str>) -> &'static str {
    match (flag, denied) {
        ("", Some(EXHAUSTED)) => "URX",
        ("UF", Some(EXHAUSTED)) => "UF,URX",
        ("UT", Some(EXHAUSTED)) => "UT,URX",
        ("UC", Some(EXHAUSTED)) => "UC,URX",
        ("UR", Some(EXHAUSTED)) => "UR,URX",
        ("", Some(OVER_BUDGET | OVER_LIMIT)) => "UO",
        ("UT", Some(OVER_BUDGET | OVER_LIMIT)) => "UT,UO",
        ("UC", Some(OVER_BUDGET | OVER_LIMIT)) => "UC,UO",
        ("UR", Some(OVER_BUDGET | OVER_LIMIT)) => "UR,UO",
        (flag, _) => flag,
    }
}

/// Whether the policy looks at answers at all.
pub(super) fn concerns(response: &ResponseHeader, ctx: &RequestContext) -> bool {
    let grpc = is_grpc(ctx) && response.headers.contains_key("grpc-status");
    let failed = response.status.is_client_error() || response.status.is_server_error();
    let (Some(plan), Some(runtime)) = (&ctx.plan, &ctx.runtime) else {
        return false;
    };
    (failed || grpc) && !plan.retry(runtime).on.statuses.is_empty()
}

/// The status that conditions are about: for a gRPC call that failed at once, the one that its gRPC
/// status stands for.
pub(super) fn status_of(response: &ResponseHeader, ctx: &RequestContext) -> u16 {
    let grpc = response.headers.get("grpc-status").filter(|_| is_grpc(ctx));
    grpc.and_then(|status| status.to_str().ok()?.parse().ok())
        .and_then(http_status_of_grpc)
        .unwrap_or(response.status.as_u16())
}

/// Whether to try again after this; sets how long to wait. `answer` is what was answered.
pub(super) fn is_due(
    session: &Session,
    ctx: &mut RequestContext,
    outcome: AttemptOutcome,
    answer: Option<&ResponseHeader>,
) -> bool {
    let (Some(plan), Some(runtime)) = (&ctx.plan, &ctx.runtime) else {
        return false;
    };
    let policy = plan.retry(runtime);
    let attempt = Attempt {
        number: ctx.exchange.as_ref().map_or(1, |e| e.attempts),
        outcome,
        idempotent: session.req_header().method.is_idempotent(),
        // Trailers of a request are lost in the first attempt (`after_request_trailers`).
        replayable: !session.retry_buffer_truncated() && !ctx.request_trailers,
    };
    let denied = match decide(policy, &attempt) {
        RetryDecision::Final => return false,
        RetryDecision::Unsafe => "unsafe",
        RetryDecision::BodyGone => "body",
        RetryDecision::Exhausted => EXHAUSTED,
        RetryDecision::Again => {
            let delay = delay_ms(&policy.back_off, attempt.number, fastrand::u64(..));
            let wait = Duration::from_millis(delay);
            match leave(ctx, outcome, answer, wait) {
                Ok(wait) => {
                    let cause = word_of(outcome);
                    counters::RETRIES.inc(cause);
                    if let Some(exchange) = &mut ctx.exchange {
                        exchange.trace.event(|| What::Retry { cause, wait });
                    }
                    ctx.back_off = wait;
                    return true;
                }
                Err(denied) => denied,
            }
        }
    };
    counters::RETRIES_DENIED.inc(denied);
    if let Some(exchange) = &mut ctx.exchange {
        exchange.retry_denied = Some(denied);
    }
    false
}

/// Leave to try again, and after how long; or the word for why not.
fn leave(
    ctx: &mut RequestContext,
    outcome: AttemptOutcome,
    answer: Option<&ResponseHeader>,
    wait: Duration,
) -> Result<Duration, &'static str> {
    let wait = match answer.and_then(retry_after) {
        Some(asked) if asked > RETRY_AFTER_MAX => return Err("retry_after"),
        Some(asked) => wait.max(asked),
        None => wait,
    };
    if ctx.time.is_shorter_than(Instant::now(), wait) {
        return Err("deadline");
    }
    let reached_nobody = matches!(
        outcome,
        AttemptOutcome::ConnectFailed | AttemptOutcome::Lost { harmless: true }
    );
    // An attempt that reached nobody is no load, so that another one in its place is no more load
    // than the request itself.
    if reached_nobody {
        return Ok(wait);
    }
    if ctx.stacked {
        return Err("stacked");
    }
    let cluster = ctx.plan.as_ref().map(|plan| &plan.cluster);
    let place = cluster.and_then(|cluster| cluster.admit(Limited::Retries));
    let (Some(cluster), Some(place)) = (cluster, place) else {
        return Err(OVER_LIMIT);
    };
    ctx.retry_permit = Some(place);
    let settings = cluster.settings();
    let budget = &settings.retry_budget;
    match ctx
        .in_flight
        .as_mut()
        .map(|f| f.may_retry(budget, now_ms()))
    {
        Some(true) => Ok(wait),
        _ => Err(OVER_BUDGET),
    }
}

/// How long the endpoint asks to be left alone (RFC 9110 10.2.3): seconds, or a date.
fn retry_after(response: &ResponseHeader) -> Option<Duration> {
    let value = response.headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    match value.parse() {
        Ok(seconds) => Some(Duration::from_secs(seconds)),
        Err(_) => {
            let at = httpdate::parse_http_date(value).ok()?;
            Some(at.duration_since(SystemTime::now()).unwrap_or_default())
        }
    }
}

fn word_of(outcome: AttemptOutcome) -> &'static str {
    match outcome {
        AttemptOutcome::Answered(_) => "status",
        AttemptOutcome::ConnectFailed => "connect",
        AttemptOutcome::TimedOut => "timeout",
        AttemptOutcome::Lost { .. } | AttemptOutcome::PartlyAnswered => "reset",
    }
}

pub(super) fn is_grpc(ctx: &RequestContext) -> bool {
    let http = ctx.exchange.as_ref().and_then(|e| e.http.as_ref());
    http.is_some_and(|http| http.grpc)
}
