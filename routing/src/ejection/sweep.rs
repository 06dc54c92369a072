//! Who is ejected, for how long, and who comes back: what needs all endpoints of a cluster.

use std::sync::Arc;

use cairn_config_schema::snapshot::OutlierDetection;

use super::{AnswerKind, EjectionCause, EjectionEvent, success_rate};
use crate::endpoint::LiveEndpoint;

/// Puts an answer to an endpoint's record, and ejects it if it has failed once too often.
pub(crate) fn record(
    rules: &OutlierDetection,
    endpoints: &[Arc<LiveEndpoint>],
    endpoint: &Arc<LiveEndpoint>,
    answer: AnswerKind,
    now_ms: u64,
) -> Option<EjectionEvent> {
    let cause = endpoint.health().record(rules, answer)?;
    eject(rules, endpoints, endpoint, cause, now_ms)
}

/// Every `interval_ms`: readmits those whose time is over, then judges the success rates.
pub(crate) fn sweep(
    rules: &OutlierDetection,
    endpoints: &[Arc<LiveEndpoint>],
    now_ms: u64,
) -> Vec<EjectionEvent> {
    let mut events = Vec::new();
    for endpoint in endpoints {
        let health = endpoint.health();
        match health.ejected_at_ms() {
            Some(at) if now_ms.saturating_sub(at) >= ejection_ms(rules, health.times_ejected()) => {
                events.push(readmit(endpoint, now_ms));
            }
            Some(_) => {}
            // An interval without ejection takes one off the next one's length.
            None => health.forgive(),
        }
    }
    for endpoint in success_rate::outliers(rules, endpoints) {
        let cause = EjectionCause::SuccessRate;
        events.extend(eject(rules, endpoints, endpoint, cause, now_ms));
    }
    events
}

/// Where outlier detection was switched off: nobody stays out.
pub(crate) fn readmit_all(endpoints: &[Arc<LiveEndpoint>], now_ms: u64) -> Vec<EjectionEvent> {
    let out = endpoints.iter().filter(|e| e.health().is_ejected());
    out.map(|endpoint| readmit(endpoint, now_ms)).collect()
}

fn readmit(endpoint: &Arc<LiveEndpoint>, now_ms: u64) -> EjectionEvent {
    endpoint.health().readmit();
    endpoint.restart(now_ms);
    EjectionEvent::Returned {
        endpoint: endpoint.clone(),
    }
}

/// How long an ejection takes that is the `times`th in a row, in milliseconds.
pub(crate) fn ejection_ms(rules: &OutlierDetection, times: u32) -> u64 {
    rules
        .base_ejection_ms
        .saturating_mul(u64::from(times.max(1)))
        .min(rules.ejection_max_ms.max(rules.base_ejection_ms))
}

fn eject(
    rules: &OutlierDetection,
    endpoints: &[Arc<LiveEndpoint>],
    endpoint: &Arc<LiveEndpoint>,
    cause: EjectionCause,
    now_ms: u64,
) -> Option<EjectionEvent> {
    if endpoint.health().is_ejected() {
        return None;
    }
    if !has_room(rules, endpoints) {
        let endpoint = endpoint.clone();
        return Some(EjectionEvent::Spared { endpoint, cause });
    }
    endpoint
        .health()
        .eject(now_ms)
        .then(|| EjectionEvent::Ejected {
            endpoint: endpoint.clone(),
            cause,
            for_ms: ejection_ms(rules, endpoint.health().times_ejected()),
        })
}

/// Whether one more may be out. The first always may: with ten per cent and fewer than ten endpoints
/// there would otherwise be no ejection at all (specs/policies.md 2.7).
fn has_room(rules: &OutlierDetection, endpoints: &[Arc<LiveEndpoint>]) -> bool {
    let out = endpoints.iter().filter(|e| e.health().is_ejected()).count();
    let allowed = endpoints.len() * usize::from(rules.ejected_percent_max) / 100;
    out == 0 || out < allowed
}
