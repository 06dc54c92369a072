//! Asks the rate limit services of TrafficPolicies about a request that policy allows, that has somewhere
//! to go and that the limits counted here let pass (`throttle.rs`). Counts nothing itself.

use cairn_config_schema::origin::Origin;
use cairn_config_schema::snapshot::GlobalRateLimit;
use cairn_filters::external::Changes;
use cairn_filters::outcome::Outcome;
use http::StatusCode;
use pingora_proxy::Session;

use super::external::Subject;
use super::http::Gate;
use super::judge::Judged;
use super::throttle::counted;
use crate::external::{Answer, AskError, Denial, REASONS};
use crate::telemetry::counters::{RATE_LIMIT_SERVICE_CHECKS, RATE_LIMIT_SERVICE_ERRORS};
use crate::telemetry::exchange::Exchange;
use crate::throttle;

/// Results that a metric counts.
const RESULTS: [&str; 4] = ["ok", "over_limit", "error", "failed_open"];

impl Gate {
    /// Asks them one after the other. Gives what each of them changes.
    ///
    /// # Errors
    /// The answer for a request that does not go on; telemetry's exchange says why.
    pub(super) async fn ask_limits(
        &self,
        session: &Session,
        exchange: &mut Exchange,
        subject: Subject<'_>,
        route: Option<&Origin>,
    ) -> Result<Vec<Changes>, Judged> {
        self.note_request(exchange, subject);
        let service = subject.target.service.as_ref().map(|service| &service.key);
        let mut all = Vec::new();
        for limiter in subject.runtime.limiters().of(service, route) {
            let Some(limit) = &limiter.limits.global else {
                continue;
            };
            let counted = counted(subject, &session.req_header().headers, exchange);
            let Some(request) = throttle::request(limit, &counted) else {
                continue;
            };
            let (external, dialer) = (&self.worker.external, self.connections.dialer());
            let asking = external.ask_limit(dialer, subject.runtime, limit, request);
            match settle(asking.await, limit, &limiter.limits.origin) {
                Settled::Passes(changes, note) => {
                    exchange.reason = note.or(exchange.reason.take());
                    all.push(changes);
                }
                Settled::Refused(outcome, denial, reason) => {
                    exchange.reason = Some(reason);
                    return Err(Judged::External(outcome, denial));
                }
            }
        }
        Ok(all)
    }
}

/// What an answer, or none, means for a request.
enum Settled {
    /// It passes; with a note for the log when there was no answer.
    Passes(Changes, Option<String>),
    /// It does not, for this reason.
    Refused(Outcome, Denial, String),
}

fn settle(answer: Result<Answer, AskError>, limit: &GlobalRateLimit, policy: &Origin) -> Settled {
    let service = &limit.cluster;
    RATE_LIMIT_SERVICE_CHECKS.preset(RESULTS);
    RATE_LIMIT_SERVICE_ERRORS.preset(REASONS);
    let error = match answer {
        Ok(Answer::Allow(changes)) => {
            RATE_LIMIT_SERVICE_CHECKS.inc("ok");
            return Settled::Passes(changes, None);
        }
        Ok(Answer::Deny(denial)) => {
            RATE_LIMIT_SERVICE_CHECKS.inc("over_limit");
            let reason = format!("{policy}: over a limit that {service} counts");
            return Settled::Refused(Outcome::RateLimitedByService, denial, reason);
        }
        Err(error) => error,
    };
    RATE_LIMIT_SERVICE_ERRORS.inc(error.reason());
    if limit.fail_open && error.fails_open() {
        RATE_LIMIT_SERVICE_CHECKS.inc("failed_open");
        let note = format!("{policy}: {service} did not count it: {error}");
        return Settled::Passes(Changes::default(), Some(note));
    }
    RATE_LIMIT_SERVICE_CHECKS.inc("error");
    let status = match &error {
        // The limit is Cairn's own, and later is another matter.
        AskError::Full(_) => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    };
    let reason = format!("{policy}: {service} gave no usable answer: {error}");
    Settled::Refused(Outcome::RateLimitError, Denial::bare(status), reason)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use cairn_config_schema::origin::{Kind, ObjectKey};
    use cairn_config_schema::snapshot::ClusterKey;

    use super::*;

    /// The status of a request about which there is no answer. `None`: it passes.
    fn status(error: AskError, fail_open: bool) -> Option<u16> {
        let limit = GlobalRateLimit {
            cluster: ClusterKey::new(ObjectKey::new("shop", "limits"), 8081),
            domain: "shop".into(),
            timeout_ms: 20,
            fail_open,
            descriptors: Vec::new(),
        };
        let policy = Origin {
            kind: Kind::TrafficPolicy,
            key: ObjectKey::new("shop", "limits"),
        };
        match settle(Err(error), &limit, &policy) {
            Settled::Passes(changes, note) => {
                assert_eq!(changes, Changes::default());
                assert!(note.unwrap().contains("did not count it"));
                None
            }
            Settled::Refused(outcome, denial, reason) => {
                assert_eq!(outcome, Outcome::RateLimitError);
                assert!(reason.contains("gave no usable answer"), "{reason}");
                Some(denial.status.as_u16())
            }
        }
    }

    #[test]
    fn silence_passes_only_where_the_policy_fails_open() {
        let silences = || {
            [
                AskError::NoEndpoint,
                AskError::Timeout(Duration::from_millis(20)),
                AskError::Grpc(14, "gone".to_owned()),
            ]
        };
        for error in silences() {
            assert_eq!(status(error, true), None);
        }
        for error in silences() {
            assert_eq!(status(error, false), Some(500));
        }
    }

    #[test]
    fn what_can_not_be_used_and_what_clients_bring_about_never_pass() {
        assert_eq!(status(AskError::Contradiction, true), Some(500));
        assert_eq!(status(AskError::Full(1_024), true), Some(503));
    }
}
