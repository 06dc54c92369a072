//! Timeouts and retries of a VirtualService's rule (specs/policies.md 2.6, specs/istio-waypoint.md 4.6).

use std::ops::RangeInclusive;

use super::virtual_faults;
use super::virtual_rules::Reading;
use crate::diagnostics::Code;
use crate::duration;
use crate::limits::RETRIES_PER_REQUEST_MAX;
use crate::resources::virtual_service::{HttpRoute, Retries};
use crate::snapshot::{BackOff, RetryConditions, RetryPolicy, RuleTraffic, Timeouts};

/// What a rule says about time and failure.
pub(super) fn read(written: &HttpRoute, reading: &mut Reading<'_>) -> RuleTraffic {
    let base = reading.path.clone();
    let mut timeouts = Timeouts {
        request_ms: (written.timeout.as_deref())
            .and_then(|text| duration_ms(text, &format!("{base}.timeout"), reading)),
        attempt_ms: None,
    };
    let retry = written.retries.as_ref().map(|written| {
        let at = format!("{base}.retries");
        timeouts.attempt_ms = (written.per_try_timeout.as_deref())
            .and_then(|text| duration_ms(text, &format!("{at}.perTryTimeout"), reading));
        retry(written, &at, reading)
    });
    RuleTraffic {
        timeouts,
        retry,
        fault: virtual_faults::read(written, reading),
        session: None,
    }
}

/// A duration; zero means without limit.
pub(super) fn duration_ms(text: &str, at: &str, reading: &mut Reading<'_>) -> Option<u64> {
    match duration::go_ms(text) {
        Some(ms) => (ms > 0).then_some(ms),
        None => {
            let message = format!("'{text}' is not a duration such as 10s or 500ms");
            reading.fail(Code::BadValue, at, message);
            None
        }
    }
}

fn retry(written: &Retries, at: &str, reading: &mut Reading<'_>) -> RetryPolicy {
    if written.retry_ignore_previous_hosts == Some(false) {
        let at = format!("{at}.retryIgnorePreviousHosts");
        let message = "a retry always goes to another endpoint while there is one";
        let effect = "it is as if it were true";
        reading.warn(Code::Unsupported, &at, message, effect);
    }
    if written.retry_remote_localities.is_some() {
        let at = format!("{at}.retryRemoteLocalities");
        let message = "endpoints are picked wherever they are";
        let effect = "retries go to any locality";
        reading.warn(Code::Unsupported, &at, message, effect);
    }
    let back_off = (written.backoff.as_deref())
        .and_then(|text| duration_ms(text, &format!("{at}.backoff"), reading))
        .map_or_else(BackOff::default, BackOff::from_base);
    RetryPolicy {
        retries_max: attempts(written.attempts, &format!("{at}.attempts"), reading),
        on: conditions(
            written.retry_on.as_deref(),
            &format!("{at}.retryOn"),
            reading,
        ),
        back_off,
    }
}

fn attempts(written: i64, at: &str, reading: &mut Reading<'_>) -> u32 {
    match u32::try_from(written) {
        Ok(attempts) if attempts <= RETRIES_PER_REQUEST_MAX => attempts,
        Ok(_) => {
            let message = format!("{written} retries of one request are more than it ever gets");
            let effect = format!("a request is retried {RETRIES_PER_REQUEST_MAX} times at most");
            reading.warn(Code::BadValue, at, message, &effect);
            RETRIES_PER_REQUEST_MAX
        }
        Err(_) => {
            let message = format!("{written} is not a number of retries");
            reading.fail(Code::BadValue, at, message);
            0
        }
    }
}

/// `retryOn`: Envoy's words and statuses. Without it, what is retried in any case: an endpoint that
/// could not be reached, or that said that it did not look.
fn conditions(written: Option<&str>, at: &str, reading: &mut Reading<'_>) -> RetryConditions {
    let mut on = RetryConditions::default();
    for word in retry_words(written.unwrap_or_default()) {
        if retry_condition(word, &mut on) {
            continue;
        }
        match word {
            "unavailable" | "cancelled" | "deadline-exceeded" | "internal"
            | "resource-exhausted" => {
                let message = format!("answers are not retried by their gRPC status ({word}) yet");
                let effect = "requests that an endpoint refused to look at are retried";
                reading.warn(Code::Unsupported, at, message, effect);
            }
            other => {
                let message = format!("there is no condition '{other}'");
                let effect = "the other conditions are in force";
                reading.warn(Code::BadValue, at, message, effect);
            }
        }
    }
    on
}

/// The words of `retryOn`.
pub(super) fn retry_words(written: &str) -> impl Iterator<Item = &str> {
    let words = written.split(',').map(str::trim);
    words.filter(|word| !word.is_empty())
}

/// Adds what a word stands for. False: it is none that can be honoured.
pub(super) fn retry_condition(word: &str, on: &mut RetryConditions) -> bool {
    match word {
        "connect-failure" | "refused-stream" | "retriable-status-codes" => {}
        "5xx" => {
            on.statuses.push(500..=599);
            on.reset = true;
            on.timeout = true;
        }
        "gateway-error" => on.statuses.push(502..=504),
        "retriable-4xx" => on.statuses.push(409..=409),
        "reset" | "reset-before-request" => {
            on.reset = true;
            on.timeout = true;
        }
        other => match status(other) {
            Some(statuses) => on.statuses.push(statuses),
            None => return false,
        },
    }
    true
}

fn status(word: &str) -> Option<RangeInclusive<u16>> {
    let status = word.parse().ok()?;
    (100..=599).contains(&status).then_some(status..=status)
}
