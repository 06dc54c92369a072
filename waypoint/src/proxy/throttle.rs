//! Applies TrafficPolicies to a request that policy allows and that has somewhere to go: places first,
//! for they come back, then tokens. Counts nothing itself.

use std::time::Duration;

use cairn_config_schema::origin::Origin;
use cairn_filters::outcome::Outcome;
use cairn_routing::Place;
use http::HeaderMap;

use super::external::Subject;
use super::judge::Judged;
use crate::clock::now_ns;
use crate::telemetry::exchange::Exchange;
use crate::throttle::{Counted, Refusal};

/// The request's places under limits of requests at once, held until it is over.
///
/// # Errors
/// The answer when there is no room or no token; telemetry's exchange says which limit it was.
pub(super) fn admit(
    subject: Subject<'_>,
    route: Option<&Origin>,
    headers: &HeaderMap,
    exchange: &mut Exchange,
) -> Result<Vec<Place>, Judged> {
    let limiters = subject.runtime.limiters();
    if limiters.is_empty() {
        return Ok(Vec::new());
    }
    let counted = counted(subject, headers, exchange);
    let service = subject.target.service.as_ref().map(|service| &service.key);
    let mut places = Vec::new();
    let mut refused = None;
    for limiter in limiters.of(service, route) {
        match limiter.enter(service) {
            Ok(place) => places.extend(place),
            Err(refusal) => refused = refused.or(Some((limiter, refusal))),
        }
    }
    let now_ns = now_ns();
    let mut limiters = limiters.of(service, route);
    let refused = refused.or_else(|| {
        limiters.find_map(|limiter| Some((limiter, limiter.take(&counted, now_ns).err()?)))
    });
    match refused {
        None => Ok(places),
        Some((limiter, refusal)) => Err(answer(&limiter.limits.origin, refusal, exchange)),
    }
}

/// By what a request is counted.
pub(super) fn counted<'r>(
    subject: Subject<'r>,
    headers: &'r HeaderMap,
    exchange: &'r Exchange,
) -> Counted<'r> {
    let peer = &exchange.origin.peer;
    Counted {
        peer: &peer.identity,
        source: peer.address.ip(),
        service: subject.target.service.as_ref().map(|service| &service.key),
        headers,
    }
}

fn answer(policy: &Origin, refusal: Refusal, exchange: &mut Exchange) -> Judged {
    match refusal {
        Refusal::Broken(reason) => {
            exchange.reason = Some(format!("{policy} is not in force: {reason}"));
            Judged::Answer(Outcome::BrokenLimit)
        }
        Refusal::Places(most) => {
            exchange.reason = Some(format!("{policy}: {most} requests are being answered"));
            Judged::Answer(Outcome::TooManyRequests)
        }
        Refusal::Rate { name, wait_ns } => {
            let wait = Duration::from_nanos(wait_ns);
            exchange.reason = Some(format!(
                "{policy}: rate limit {name} lets the next one pass in {} ms",
                wait.as_millis()
            ));
            Judged::Throttled(wait)
        }
    }
}
