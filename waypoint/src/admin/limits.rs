//! What a scrape and `/config_dump` show of TrafficPolicies: who passed, who did not, and what is taken.

use std::sync::Arc;

use prometheus::proto::{self, MetricFamily};
use serde::Serialize;

use super::state::AdminState;
use crate::telemetry::instruments::{family, sample};
use crate::telemetry::names::{self, Metric};
use crate::throttle::Limiter;

/// A TrafficPolicy as it is now.
#[derive(Serialize)]
pub struct LimiterState {
    policy: String,
    rate_limits: Vec<RateState>,
    #[serde(skip_serializing_if = "Option::is_none")]
    concurrency: Option<PlacesState>,
    #[serde(skip_serializing_if = "Option::is_none")]
    broken: Option<Arc<str>>,
}

#[derive(Serialize)]
struct RateState {
    name: Arc<str>,
    passed: u64,
    limited: u64,
    /// Keys with a bucket of their own that is not full.
    keys: usize,
    /// Requests that shared a bucket because there were too many keys.
    shared: u64,
}

#[derive(Serialize)]
struct PlacesState {
    taken: u32,
    max: u32,
    refused: u64,
}

/// All of them, by namespace and name.
pub fn list(state: &AdminState) -> Vec<LimiterState> {
    let limiters = (state.limiters)();
    limiters.iter().map(|limiter| describe(limiter)).collect()
}

fn describe(limiter: &Limiter) -> LimiterState {
    let rates = limiter.counters.iter().map(|counter| {
        let ((passed, limited), (keys, shared)) = (counter.tally(), counter.keys());
        RateState {
            name: counter.limit.name.clone(),
            passed,
            limited,
            keys,
            shared,
        }
    });
    let concurrency = limiter.limits.concurrency.map(|limit| PlacesState {
        taken: limiter.places.taken(),
        max: limit.requests_max,
        refused: limiter.places.refused(),
    });
    LimiterState {
        policy: limiter.limits.origin.key.to_string(),
        rate_limits: rates.collect(),
        concurrency,
        broken: limiter.limits.broken.clone(),
    }
}

/// What a scrape shows.
pub fn families(state: &AdminState) -> Vec<MetricFamily> {
    let all = list(state);
    let of_rates = |metric: &'static Metric, values: fn(&RateState) -> Vec<(&'static str, f64)>| {
        let mut samples: Vec<proto::Metric> = Vec::new();
        for limiter in &all {
            for rate in &limiter.rate_limits {
                for (outcome, value) in values(rate) {
                    let labels = [&*limiter.policy, &*rate.name, outcome];
                    let labels = labels.get(..metric.labels.len()).unwrap_or(&labels);
                    samples.push(sample(metric, labels, value));
                }
            }
        }
        (metric, samples)
    };
    let of_places = |metric: &'static Metric, value: fn(&PlacesState) -> f64| {
        let with = all
            .iter()
            .filter_map(|l| Some((l, l.concurrency.as_ref()?)));
        let samples =
            with.map(|(limiter, places)| sample(metric, &[&limiter.policy], value(places)));
        (metric, samples.collect())
    };
    let families = [
        of_rates(&names::RATE_LIMITED, |rate| {
            vec![
                ("passed", rate.passed as f64),
                ("limited", rate.limited as f64),
            ]
        }),
        of_rates(&names::RATE_LIMIT_KEYS, |rate| vec![("", rate.keys as f64)]),
        of_rates(&names::RATE_LIMIT_SHARED, |rate| {
            vec![("", rate.shared as f64)]
        }),
        of_places(&names::CONCURRENCY_TAKEN, |places| f64::from(places.taken)),
        of_places(&names::CONCURRENCY_MAX, |places| f64::from(places.max)),
        of_places(&names::CONCURRENCY_REFUSED, |places| places.refused as f64),
    ];
    let shown = families
        .into_iter()
        .filter(|(_, samples)| !samples.is_empty());
    shown
        .map(|(metric, samples)| family(metric, samples))
        .collect()
}
