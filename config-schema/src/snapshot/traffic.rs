//! What a rule says about time and failure: timeouts, retries, and how many retries a destination
//! bears. The same for HTTPRoute, GRPCRoute and VirtualService, so that one attempt loop runs them all
//! (specs/gateway-api.md 1.4, specs/policies.md 2.6). What a cluster does with its endpoints is in
//! `balancing`.

use std::ops::RangeInclusive;
use std::sync::Arc;

use serde::Serialize;

use super::Fault;
use super::SessionPersistence;

/// Time, failure and sessions, for the requests of one rule.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct RuleTraffic {
    /// How long it may take.
    pub timeouts: Timeouts,
    /// `None`: what holds without routes, as the mesh has it.
    pub retry: Option<RetryPolicy>,
    /// Failures made on purpose.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fault: Option<Arc<Fault>>,
    /// Requests of one session go to one endpoint. `None`: as the backend's own policy says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session: Option<Arc<SessionPersistence>>,
}

/// How long a request may take, in milliseconds. `None`: as long as it likes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Timeouts {
    /// From its header to the end of the response, all attempts included.
    pub request_ms: Option<u64>,
    /// One attempt, from its begin to the end of the response.
    pub attempt_ms: Option<u64>,
}

/// When a request is tried again, how often and how soon.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RetryPolicy {
    /// Attempts after the first.
    pub retries_max: u32,
    /// After what.
    pub on: RetryConditions,
    /// How soon.
    pub back_off: BackOff,
}

/// After what an attempt is followed by another. An endpoint that could not be reached, or that said
/// that it did not look, is always followed by another.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct RetryConditions {
    /// Statuses of answers, whatever the method: who lists a status says that it is safe.
    pub statuses: Vec<RangeInclusive<u16>>,
    /// The connection broke, or the stream was reset, before a byte of the answer.
    pub reset: bool,
    /// The attempt took longer than [`Timeouts::attempt_ms`].
    pub timeout: bool,
    /// `reset` and `timeout` hold for methods that are not idempotent, too: the endpoint may do twice
    /// what it was asked once.
    pub any_method: bool,
}

/// How long to wait before a retry: `at_least_ms`, and a random time on top, which may be up to
/// `spread_ms` before the first retry and twice as long before each further one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct BackOff {
    /// Never sooner, in milliseconds.
    pub at_least_ms: u64,
    /// The random part before the first retry, in milliseconds.
    pub spread_ms: u64,
    /// Never later, in milliseconds; not below `at_least_ms`.
    pub at_most_ms: u64,
}

/// How many retries a destination bears, shared by all that is sent to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct RetryBudget {
    /// Of the requests in flight, in hundredths of a percent.
    pub basis_points: u32,
    /// So many at once are always allowed.
    pub concurrency_min: u32,
    /// Retries and requests are counted over an interval instead of those in flight.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub window: Option<RetryWindow>,
}

/// The intervals of a retry budget (GEP-3388).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct RetryWindow {
    /// Over which the share counts, in milliseconds; at least 1.
    pub interval_ms: u64,
    /// So many retries are always allowed ...
    pub least_count: u32,
    /// ... in this interval, in milliseconds; at least 1.
    pub least_interval_ms: u64,
}

impl RetryBudget {
    /// Istio's (specs/policies.md 2.7), and on unless a policy says otherwise.
    pub const DEFAULT: Self = Self {
        basis_points: 2_000,
        concurrency_min: 3,
        window: None,
    };

    /// Its share of so many requests.
    pub fn share_of(&self, requests: u64) -> u64 {
        requests * u64::from(self.basis_points) / 10_000
    }
}

impl RetryPolicy {
    /// What holds without routes: two retries, of requests that no endpoint can have acted on
    /// (specs/istio-waypoint.md 4.6). At once, for an unreachable endpoint is not an overloaded one.
    pub const DEFAULT: Self = Self {
        retries_max: 2,
        on: RetryConditions {
            statuses: Vec::new(),
            reset: false,
            timeout: false,
            any_method: false,
        },
        back_off: BackOff {
            at_least_ms: 0,
            spread_ms: 0,
            at_most_ms: 0,
        },
    };
}

impl RetryConditions {
    /// Whether an answer of this status is followed by another attempt.
    pub fn status(&self, status: u16) -> bool {
        self.statuses.iter().any(|range| range.contains(&status))
    }
}

impl Default for BackOff {
    /// Envoy's: up to 25 ms, doubled, at most 250 ms.
    fn default() -> Self {
        Self {
            at_least_ms: 0,
            spread_ms: 25,
            at_most_ms: 250,
        }
    }
}

impl BackOff {
    /// Istio's: up to the base, doubled, at most ten times as long. No base is shorter than 25 ms.
    pub(crate) fn from_base(base_ms: u64) -> Self {
        let base_ms = base_ms.max(25);
        Self {
            at_least_ms: 0,
            spread_ms: base_ms,
            at_most_ms: base_ms.saturating_mul(10),
        }
    }

    /// Never sooner than `at_least_ms`, and at most ten times as late.
    pub fn at_least(at_least_ms: u64) -> Self {
        Self {
            at_least_ms,
            spread_ms: at_least_ms.min(Self::default().spread_ms),
            at_most_ms: at_least_ms.saturating_mul(10),
        }
    }
}

impl Default for RetryBudget {
    fn default() -> Self {
        Self::DEFAULT
    }
}
