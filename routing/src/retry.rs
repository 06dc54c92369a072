//! Whether a failed attempt is followed by another. Does not wait, pick, send or ask the budget.

use cairn_config_schema::snapshot::RetryPolicy;

/// One attempt that has ended, and what is known of its request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// Which one, counted from 1.
    pub number: u32,
    /// How it ended.
    pub outcome: AttemptOutcome,
    /// Its method is idempotent (RFC 9110 9.2.2).
    pub idempotent: bool,
    /// All that was sent of its body is still there to be sent again.
    pub replayable: bool,
}

/// How an attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttemptOutcome {
    /// The endpoint answered; for gRPC, the HTTP status that its gRPC status stands for.
    Answered(u16),
    /// A part of the answer has been passed on.
    PartlyAnswered,
    /// No connection, tunnel or stream to the endpoint came to be.
    ConnectFailed,
    /// The connection was lost, or the stream reset, before any byte of the answer.
    Lost {
        /// The endpoint said that it did not look, or the loss is the race that a kept connection
        /// has at its end and the request is idempotent.
        harmless: bool,
    },
    /// It took longer than an attempt may.
    TimedOut,
}

/// Whether to try again, and if not, why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RetryDecision {
    /// Try again, another endpoint if there is one.
    Again,
    /// The outcome is none that the policy retries.
    Final,
    /// The endpoint may have acted on the request: doing it twice could do harm.
    Unsafe,
    /// What was sent of the body is not there any more.
    BodyGone,
    /// No retries are left.
    Exhausted,
}

/// Decides after an attempt.
///
/// Narrower than Istio's defaults, which also retry a request that was sent but reset
/// (`unavailable`, `cancelled`), POST or not: unless the policy says otherwise, what an endpoint may
/// have acted on is repeated only if it is idempotent (specs/istio-waypoint.md 4.6).
pub fn decide(policy: &RetryPolicy, attempt: &Attempt) -> RetryDecision {
    let on = &policy.on;
    let (retried, harmless) = match attempt.outcome {
        AttemptOutcome::PartlyAnswered => (false, false),
        AttemptOutcome::ConnectFailed => (true, true),
        AttemptOutcome::Lost { harmless: true } => (true, true),
        AttemptOutcome::Answered(status) => (on.status(status), true),
        AttemptOutcome::Lost { harmless: false } => (on.reset, false),
        AttemptOutcome::TimedOut => (on.timeout, false),
    };
    if !retried {
        RetryDecision::Final
    } else if !(harmless || attempt.idempotent || on.any_method) {
        RetryDecision::Unsafe
    } else if attempt.number > policy.retries_max {
        RetryDecision::Exhausted
    } else if !attempt.replayable {
        RetryDecision::BodyGone
    } else {
        RetryDecision::Again
    }
}

/// The HTTP status that a gRPC status stands for when conditions speak of HTTP statuses (the mapping
/// in google/rpc/code.proto). `None`: it is no failure, or no gRPC status.
pub fn http_status_of_grpc(status: u32) -> Option<u16> {
    Some(match status {
        1 => 499,
        2 | 13 | 15 => 500,
        3 | 9 | 11 => 400,
        4 => 504,
        5 => 404,
        6 | 10 => 409,
        7 => 403,
        8 => 429,
        12 => 501,
        14 => 503,
        16 => 401,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use cairn_config_schema::snapshot::{BackOff, RetryConditions};
    use proptest::prelude::*;

    use super::*;

    fn attempt(number: u32, outcome: AttemptOutcome) -> Attempt {
        Attempt {
            number,
            outcome,
            idempotent: false,
            replayable: true,
        }
    }

    const LOST: AttemptOutcome = AttemptOutcome::Lost { harmless: false };

    #[test]
    fn the_default_makes_three_attempts_of_what_nobody_acted_on() {
        for outcome in [
            AttemptOutcome::ConnectFailed,
            AttemptOutcome::Lost { harmless: true },
        ] {
            let of = |number| decide(&RetryPolicy::DEFAULT, &attempt(number, outcome));
            assert_eq!(of(1), RetryDecision::Again);
            assert_eq!(of(2), RetryDecision::Again);
            assert_eq!(of(3), RetryDecision::Exhausted);
        }
    }

    #[test]
    fn the_default_repeats_nothing_else() {
        for outcome in [
            LOST,
            AttemptOutcome::TimedOut,
            AttemptOutcome::Answered(503),
        ] {
            let attempt = Attempt {
                idempotent: true,
                ..attempt(1, outcome)
            };
            let decision = decide(&RetryPolicy::DEFAULT, &attempt);
            assert_eq!(decision, RetryDecision::Final, "{outcome:?}");
        }
    }

    #[test]
    fn a_listed_status_is_retried_whatever_the_method_and_a_lost_post_is_not() {
        let policy = RetryPolicy {
            retries_max: 1,
            on: RetryConditions {
                statuses: vec![503..=503],
                reset: true,
                timeout: true,
                any_method: false,
            },
            back_off: BackOff::default(),
        };
        let answered = |status| decide(&policy, &attempt(1, AttemptOutcome::Answered(status)));
        assert_eq!(answered(503), RetryDecision::Again);
        assert_eq!(answered(500), RetryDecision::Final);
        for outcome in [LOST, AttemptOutcome::TimedOut] {
            let post = attempt(1, outcome);
            let get = Attempt {
                idempotent: true,
                ..post
            };
            assert_eq!(decide(&policy, &post), RetryDecision::Unsafe);
            assert_eq!(decide(&policy, &get), RetryDecision::Again);
        }
        let gone = Attempt {
            replayable: false,
            ..attempt(1, AttemptOutcome::Answered(503))
        };
        assert_eq!(decide(&policy, &gone), RetryDecision::BodyGone);
    }

    fn outcome() -> impl Strategy<Value = AttemptOutcome> {
        prop_oneof![
            (400..600u16).prop_map(AttemptOutcome::Answered),
            Just(AttemptOutcome::PartlyAnswered),
            Just(AttemptOutcome::ConnectFailed),
            any::<bool>().prop_map(|harmless| AttemptOutcome::Lost { harmless }),
            Just(AttemptOutcome::TimedOut),
        ]
    }

    proptest! {
        /// What must never happen, whatever the policy says (issue 3, item 5).
        #[test]
        fn nothing_is_repeated_that_must_not_be(
            outcome in outcome(),
            (number, retries_max) in (1..9u32, 0..9u32),
            (idempotent, replayable) in any::<(bool, bool)>(),
            (reset, timeout, any_method) in any::<(bool, bool, bool)>(),
            from in 400..600u16,
        ) {
            let on = RetryConditions { statuses: vec![from..=599], reset, timeout, any_method };
            let policy = RetryPolicy { retries_max, on, back_off: BackOff::default() };
            let attempt = Attempt { number, outcome, idempotent, replayable };
            let again = decide(&policy, &attempt) == RetryDecision::Again;
            if again {
                prop_assert!(replayable && number <= retries_max);
                prop_assert!(outcome != AttemptOutcome::PartlyAnswered);
            }
            let may_have_acted = matches!(outcome, LOST | AttemptOutcome::TimedOut);
            if may_have_acted && !idempotent && !any_method {
                prop_assert!(!again);
            }
            if let AttemptOutcome::Answered(status) = outcome {
                let expected = status >= from && replayable && number <= retries_max;
                prop_assert_eq!(again, expected);
            }
        }
    }
}
