//! Circuit breaking: how much a cluster takes at once (specs/policies.md 2.7, connectionPool). Counts;
//! what is refused is answered elsewhere.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use cairn_config_schema::snapshot::ConnectionLimits;

/// What is limited.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Limited {
    /// TCP streams to the endpoints.
    Connections,
    /// Requests in flight.
    Requests,
    /// Retries in flight.
    Retries,
}

impl Limited {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Connections, Self::Requests, Self::Retries];

    /// For logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Connections => "connections",
            Self::Requests => "requests",
            Self::Retries => "retries",
        }
    }

    /// The limit in force. `None`: none.
    pub fn most(self, limits: &ConnectionLimits) -> Option<u32> {
        match self {
            Self::Connections => limits.connections_max,
            Self::Requests => limits.requests_max,
            Self::Retries => limits.retries_max,
        }
    }
}

/// What a cluster is taking, shared by all workers.
#[derive(Debug, Default)]
pub struct Breaker([Gauge; 3]);

#[derive(Debug, Default)]
struct Gauge {
    taken: AtomicU32,
    overflows: AtomicU64,
}

/// One place taken, until dropped.
#[derive(Debug)]
pub struct Permit {
    breaker: Arc<Breaker>,
    kind: Limited,
}

impl Breaker {
    /// Takes a place. `None`: there is none left, which is counted.
    pub fn take(self: &Arc<Self>, kind: Limited, limits: &ConnectionLimits) -> Option<Permit> {
        let gauge = self.gauge(kind);
        let most = kind.most(limits).unwrap_or(u32::MAX);
        let next = |taken: u32| (taken < most).then_some(taken + 1);
        // Who is refused took nothing, not for a moment: another worker may be looking.
        match (gauge.taken).fetch_update(Ordering::Relaxed, Ordering::Relaxed, next) {
            Ok(_) => Some(Permit {
                breaker: self.clone(),
                kind,
            }),
            Err(_) => {
                gauge.overflows.fetch_add(1, Ordering::Relaxed);
                None
            }
        }
    }

    /// Places taken now.
    pub fn taken(&self, kind: Limited) -> u32 {
        self.gauge(kind).taken.load(Ordering::Relaxed)
    }

    /// How often there was none left.
    pub fn overflows(&self, kind: Limited) -> u64 {
        self.gauge(kind).overflows.load(Ordering::Relaxed)
    }

    fn gauge(&self, kind: Limited) -> &Gauge {
        let [connections, requests, retries] = &self.0;
        match kind {
            Limited::Connections => connections,
            Limited::Requests => requests,
            Limited::Retries => retries,
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let gauge = self.breaker.gauge(self.kind);
        gauge.taken.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// The oracle: a set of places, one after the other.
        #[test]
        fn never_more_than_the_limit_is_let_in(
            most in prop::option::of(0..5u32),
            steps in prop::collection::vec(prop::option::of(0..8usize), 0..60),
        ) {
            let limits = ConnectionLimits { requests_max: most, ..Default::default() };
            let breaker = Arc::new(Breaker::default());
            let mut held = Vec::new();
            let mut refused = 0;
            for step in steps {
                match step {
                    None => {
                        let room = most.is_none_or(|most| (held.len() as u32) < most);
                        let permit = breaker.take(Limited::Requests, &limits);
                        prop_assert_eq!(permit.is_some(), room);
                        refused += u64::from(!room);
                        held.extend(permit);
                    }
                    Some(at) if at < held.len() => drop(held.swap_remove(at)),
                    Some(_) => {}
                }
                prop_assert_eq!(breaker.taken(Limited::Requests) as usize, held.len());
            }
            prop_assert_eq!(breaker.overflows(Limited::Requests), refused);
            prop_assert_eq!(breaker.taken(Limited::Retries), 0);
        }
    }
}
