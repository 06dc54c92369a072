//! Whether a failed attempt is followed by another. Does not wait, pick or send.

/// How often and after what a request is tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryPolicy {
    /// Attempts after the first.
    pub retries_max: u32,
}

impl Default for RetryPolicy {
    /// Istio's default for a waypoint: two retries (specs/istio-waypoint.md 4.6).
    fn default() -> Self {
        Self { retries_max: 2 }
    }
}

/// How an attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttemptOutcome {
    /// The endpoint answered, with whatever status.
    Answered,
    /// No connection, tunnel or stream to the endpoint came to be.
    ConnectFailed,
    /// The connection was lost, or the stream reset, before any byte of the answer.
    Lost {
        /// Whether any byte of the request may have reached the endpoint.
        request_sent: bool,
    },
}

/// Whether to try again, and if not, why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RetryDecision {
    /// Try again, another endpoint if there is one.
    Again,
    /// The attempt was answered.
    Answered,
    /// The endpoint may have seen the request: doing it twice could do harm.
    Unsafe,
    /// No retries are left.
    Exhausted,
}

impl RetryPolicy {
    /// Decides after attempt number `attempt`, counted from 1.
    ///
    /// Narrower than Istio's conditions, which also retry a request that was sent but reset
    /// (`refused-stream`, `unavailable`, `cancelled`), POST or not: Cairn retries only while
    /// nothing was sent.
    pub fn decide(&self, attempt: u32, outcome: AttemptOutcome) -> RetryDecision {
        match outcome {
            AttemptOutcome::Answered => RetryDecision::Answered,
            AttemptOutcome::Lost { request_sent: true } => RetryDecision::Unsafe,
            _ if attempt > self.retries_max => RetryDecision::Exhausted,
            _ => RetryDecision::Again,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UNSENT: AttemptOutcome = AttemptOutcome::Lost {
        request_sent: false,
    };

    #[test]
    fn the_default_makes_three_attempts() {
        let policy = RetryPolicy::default();
        for failure in [AttemptOutcome::ConnectFailed, UNSENT] {
            assert_eq!(policy.decide(1, failure), RetryDecision::Again);
            assert_eq!(policy.decide(2, failure), RetryDecision::Again);
            assert_eq!(policy.decide(3, failure), RetryDecision::Exhausted);
        }
    }

    #[test]
    fn nothing_is_retried_once_sent_or_answered() {
        let policy = RetryPolicy { retries_max: 9 };
        let sent = AttemptOutcome::Lost { request_sent: true };
        assert_eq!(policy.decide(1, sent), RetryDecision::Unsafe);
        assert_eq!(
            policy.decide(1, AttemptOutcome::Answered),
            RetryDecision::Answered
        );
    }

    #[test]
    fn no_retries_means_one_attempt() {
        let policy = RetryPolicy { retries_max: 0 };
        assert_eq!(
            policy.decide(1, AttemptOutcome::ConnectFailed),
            RetryDecision::Exhausted
        );
    }
}
