//! One answer, or its absence, put to an endpoint's record. Does not look at other endpoints' records.

use std::sync::atomic::{AtomicU32, Ordering};

use cairn_config_schema::snapshot::OutlierDetection;

use super::{EjectionCause, Health};

/// How an attempt ended, as outlier detection sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AnswerKind {
    /// The endpoint answered with this status; gRPC failures as the HTTP status they stand for.
    Status(u16),
    /// No connection, a reset, or no answer in time: nothing that the endpoint said.
    LocalFailure,
}

impl Health {
    /// Counts an answer. `Some`: the endpoint has failed once too often now, and that row starts
    /// again from nothing.
    pub(super) fn record(
        &self,
        rules: &OutlierDetection,
        answer: AnswerKind,
    ) -> Option<EjectionCause> {
        match answer {
            AnswerKind::LocalFailure if rules.split_local_origin => {
                self.count(false);
                let most = rules.consecutive_local_origin_failures;
                one_more(&self.row_local, most)
                    .then_some(EjectionCause::ConsecutiveLocalOriginFailures)
            }
            // Without a status of its own a failure counts as Envoy's 503.
            AnswerKind::LocalFailure => self.server_error(rules, true),
            AnswerKind::Status(status) => {
                clear(&self.row_local);
                match status {
                    502..=504 => self.server_error(rules, true),
                    500..=599 => self.server_error(rules, false),
                    _ => {
                        self.count(true);
                        clear(&self.row_5xx);
                        clear(&self.row_gateway);
                        None
                    }
                }
            }
        }
    }

    fn server_error(&self, rules: &OutlierDetection, gateway: bool) -> Option<EjectionCause> {
        self.count(false);
        let by_gateway = if gateway {
            one_more(&self.row_gateway, rules.consecutive_gateway_errors)
        } else {
            clear(&self.row_gateway);
            false
        };
        let by_5xx = one_more(&self.row_5xx, rules.consecutive_5xx);
        match (by_gateway, by_5xx) {
            (true, _) => Some(EjectionCause::ConsecutiveGatewayErrors),
            (false, true) => Some(EjectionCause::Consecutive5xx),
            (false, false) => None,
        }
    }

    fn count(&self, good: bool) {
        self.seen.fetch_add(1, Ordering::Relaxed);
        self.good.fetch_add(u32::from(good), Ordering::Relaxed);
    }
}

/// Adds one to a row; `true` when it is `most` long, and starts again. A `most` of 0 is never reached.
fn one_more(row: &AtomicU32, most: u32) -> bool {
    let reached = most > 0 && row.fetch_add(1, Ordering::Relaxed).saturating_add(1) >= most;
    if reached {
        clear(row);
    }
    reached
}

/// Starts a row again. Mostly there is nothing to clear, and a read leaves the cache line shared.
fn clear(row: &AtomicU32) {
    if row.load(Ordering::Relaxed) != 0 {
        row.store(0, Ordering::Relaxed);
    }
}
