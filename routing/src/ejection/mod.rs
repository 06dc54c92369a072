//! Outlier detection (specs/policies.md 2.7): which endpoints are left out for a while, because of
//! what they answered. Counts and decides; does not pick, and has no clock: times are arguments, in
//! milliseconds of one clock that never goes back.
//!
//! Outcomes are recorded by the workers, which share the counters and take no lock. Two workers
//! that find two endpoints guilty at the same instant may eject both where the share allows one.

mod record;
mod success_rate;
mod sweep;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crate::endpoint::LiveEndpoint;

pub use record::AnswerKind;
pub(crate) use sweep::{readmit_all, record, sweep};

/// The record of one endpoint.
#[derive(Debug, Default)]
pub struct Health {
    /// When it was ejected, plus one; 0: it is in.
    ejected_at: AtomicU64,
    /// How often it was ejected lately: an ejection takes this many times the base time.
    times: AtomicU32,
    row_5xx: AtomicU32,
    row_gateway: AtomicU32,
    row_local: AtomicU32,
    /// Answers since the last sweep, and how many of them were good.
    seen: AtomicU32,
    good: AtomicU32,
}

/// Why an endpoint was ejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EjectionCause {
    /// Too many 5xx in a row.
    Consecutive5xx,
    /// Too many of 502, 503, 504 in a row.
    ConsecutiveGatewayErrors,
    /// Too many connections in a row that failed.
    ConsecutiveLocalOriginFailures,
    /// Far fewer good answers than the others.
    SuccessRate,
}

impl EjectionCause {
    /// All of them.
    pub const ALL: [Self; 4] = [
        Self::Consecutive5xx,
        Self::ConsecutiveGatewayErrors,
        Self::ConsecutiveLocalOriginFailures,
        Self::SuccessRate,
    ];

    /// As in Envoy's outlier event log, for logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Consecutive5xx => "consecutive_5xx",
            Self::ConsecutiveGatewayErrors => "consecutive_gateway_failure",
            Self::ConsecutiveLocalOriginFailures => "consecutive_local_origin_failure",
            Self::SuccessRate => "success_rate",
        }
    }
}

/// How often endpoints of a cluster were ejected, by cause.
#[derive(Debug, Default)]
pub struct Ejections([AtomicU64; 4]);

impl Ejections {
    /// Ejections for a cause so far.
    pub fn of(&self, cause: EjectionCause) -> u64 {
        self.counter(cause).load(Ordering::Relaxed)
    }

    pub(crate) fn count(&self, event: &EjectionEvent) {
        if let EjectionEvent::Ejected { cause, .. } = event {
            self.counter(*cause).fetch_add(1, Ordering::Relaxed);
        }
    }

    fn counter(&self, cause: EjectionCause) -> &AtomicU64 {
        let [errors, gateway, local, rate] = &self.0;
        match cause {
            EjectionCause::Consecutive5xx => errors,
            EjectionCause::ConsecutiveGatewayErrors => gateway,
            EjectionCause::ConsecutiveLocalOriginFailures => local,
            EjectionCause::SuccessRate => rate,
        }
    }
}

/// What became of an endpoint; to be logged and counted.
#[derive(Clone, Debug)]
pub enum EjectionEvent {
    /// It is left out from now on.
    Ejected {
        /// Which.
        endpoint: Arc<LiveEndpoint>,
        /// Why.
        cause: EjectionCause,
        /// How long at least, in milliseconds.
        for_ms: u64,
    },
    /// It was guilty, but too many are out already.
    Spared {
        /// Which.
        endpoint: Arc<LiveEndpoint>,
        /// Of what.
        cause: EjectionCause,
    },
    /// It is back.
    Returned {
        /// Which.
        endpoint: Arc<LiveEndpoint>,
    },
}

impl Health {
    /// Whether it is left out.
    pub fn is_ejected(&self) -> bool {
        self.ejected_at.load(Ordering::Relaxed) != 0
    }

    /// When it was ejected, in milliseconds of the caller's clock. `None`: it is in.
    pub fn ejected_at_ms(&self) -> Option<u64> {
        self.ejected_at.load(Ordering::Relaxed).checked_sub(1)
    }

    /// How often it was ejected lately.
    pub fn times_ejected(&self) -> u32 {
        self.times.load(Ordering::Relaxed)
    }

    /// Marks it ejected; `false`: another worker did so before.
    fn eject(&self, now_ms: u64) -> bool {
        let marked = self.ejected_at.compare_exchange(
            0,
            now_ms.saturating_add(1),
            Ordering::Relaxed,
            Ordering::Relaxed,
        );
        if marked.is_ok() {
            self.times.fetch_add(1, Ordering::Relaxed);
        }
        marked.is_ok()
    }

    fn readmit(&self) {
        self.reset_rows();
        self.ejected_at.store(0, Ordering::Relaxed);
    }

    fn reset_rows(&self) {
        for row in [&self.row_5xx, &self.row_gateway, &self.row_local] {
            row.store(0, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests;
