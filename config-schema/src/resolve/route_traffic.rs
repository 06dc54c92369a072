//! Timeouts, retries and sessions of HTTPRoute rules (specs/gateway-api.md 1.4, "Timeouts", "Retries").

use std::ops::RangeInclusive;
use std::sync::Arc;

use super::route_rules::Reading;
use super::session_persistence;
use crate::diagnostics::Code;
use crate::limits::RETRIES_PER_REQUEST_MAX;
use crate::resources::gateway_api::{
    HttpRouteRules, HttpRouteRulesRetry, HttpRouteRulesSessionPersistence, HttpRouteRulesTimeouts,
};
use crate::snapshot::{
    BackOff, RetryConditions, RetryPolicy, RuleTraffic, SessionPersistence, Timeouts,
};

/// Retries of a rule that does not say how many, as at Istio's waypoint (specs/istio-waypoint.md 4.3).
const ATTEMPTS_DEFAULT: i64 = 2;

/// Statuses that the API allows in `retry.codes`.
const CODES: RangeInclusive<i64> = 400..=599;

/// What a rule says about time and failure.
pub(super) fn read(written: &HttpRouteRules, reading: &mut Reading<'_>) -> RuleTraffic {
    RuleTraffic {
        timeouts: (written.timeouts.as_ref())
            .map_or_else(Timeouts::default, |written| timeouts(written, reading)),
        retry: (written.retry.as_ref()).map(|written| retry(written, reading)),
        fault: None,
        session: (written.session_persistence.as_ref())
            .and_then(|written| session(written, reading)),
    }
}

fn timeouts(written: &HttpRouteRulesTimeouts, reading: &mut Reading<'_>) -> Timeouts {
    let base = format!("{}.timeouts", reading.path);
    let read = |text: &Option<String>, field: &str, reading: &mut Reading<'_>| {
        let ms = duration(text.as_deref()?, &format!("{base}.{field}"), reading)?;
        // Zero means without limit.
        (ms > 0).then_some(ms)
    };
    let request_ms = read(&written.request, "request", reading);
    let attempt_ms = read(&written.backend_request, "backendRequest", reading);
    if let (Some(request_ms), Some(attempt_ms)) = (request_ms, attempt_ms)
        && attempt_ms > request_ms
    {
        let message = "backendRequest is longer than request, which contains it";
        reading.fail(Code::Conflict, &format!("{base}.backendRequest"), message);
    }
    Timeouts {
        request_ms,
        attempt_ms,
    }
}

fn retry(written: &HttpRouteRulesRetry, reading: &mut Reading<'_>) -> RetryPolicy {
    let base = format!("{}.retry", reading.path);
    let back_off = (written.backoff.as_deref())
        .and_then(|text| duration(text, &format!("{base}.backoff"), reading))
        .map_or_else(BackOff::default, BackOff::at_least);
    RetryPolicy {
        retries_max: attempts(written, &format!("{base}.attempts"), reading),
        on: RetryConditions {
            statuses: codes(written, &format!("{base}.codes"), reading),
            reset: true,
            timeout: true,
            any_method: false,
        },
        back_off,
    }
}

fn session(
    written: &HttpRouteRulesSessionPersistence,
    reading: &mut Reading<'_>,
) -> Option<Arc<SessionPersistence>> {
    let base = format!("{}.sessionPersistence", reading.path);
    match session_persistence::read(written, &reading.name()) {
        Ok(session) => Some(Arc::new(session)),
        Err(fault) => {
            reading.fail(
                fault.code,
                &format!("{base}.{}", fault.field),
                fault.message,
            );
            None
        }
    }
}

fn attempts(written: &HttpRouteRulesRetry, at: &str, reading: &mut Reading<'_>) -> u32 {
    let wanted = written.attempts.unwrap_or(ATTEMPTS_DEFAULT);
    match u32::try_from(wanted) {
        Ok(attempts) if attempts <= RETRIES_PER_REQUEST_MAX => attempts,
        Ok(_) => {
            let message = format!("{wanted} retries of one request are more than it ever gets");
            let effect = format!("a request is retried {RETRIES_PER_REQUEST_MAX} times at most");
            reading.warn(Code::BadValue, at, message, &effect);
            RETRIES_PER_REQUEST_MAX
        }
        Err(_) => {
            let message = format!("{wanted} is not a number of retries");
            reading.fail(Code::BadValue, at, message);
            0
        }
    }
}

fn codes(
    written: &HttpRouteRulesRetry,
    at: &str,
    reading: &mut Reading<'_>,
) -> Vec<RangeInclusive<u16>> {
    let mut statuses = Vec::new();
    for (index, code) in written.codes.iter().flatten().enumerate() {
        match u16::try_from(*code) {
            Ok(status) if CODES.contains(code) => statuses.push(status..=status),
            _ => {
                let message = format!("{code} is not a status from 400 to 599");
                reading.fail(Code::BadValue, &format!("{at}[{index}]"), message);
            }
        }
    }
    statuses
}

/// A duration as the Gateway API writes it, in milliseconds: `1h30m`, `10s`, `250ms`.
fn duration(text: &str, at: &str, reading: &mut Reading<'_>) -> Option<u64> {
    let parsed = parse_duration(text);
    if parsed.is_none() {
        let message = format!("'{text}' is not a duration such as 1h, 30s or 250ms");
        reading.fail(Code::BadValue, at, message);
    }
    parsed
}

/// One to four numbers of one to five digits, each with its unit (GEP-2257).
pub(super) fn parse_duration(text: &str) -> Option<u64> {
    let mut rest = text;
    let mut total: u64 = 0;
    let mut parts = 0;
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let (number, tail) = rest.split_at_checked(digits)?;
        let letters = tail.bytes().take_while(u8::is_ascii_lowercase).count();
        let (unit, tail) = tail.split_at_checked(letters)?;
        let factor = match unit {
            "h" => 3_600_000,
            "m" => 60_000,
            "s" => 1_000,
            "ms" => 1,
            _ => return None,
        };
        if digits > 5 {
            return None;
        }
        total += number.parse::<u64>().ok()? * factor;
        parts += 1;
        rest = tail;
    }
    (1..=4).contains(&parts).then_some(total)
}

#[cfg(test)]
mod tests {
    use super::parse_duration;

    #[test]
    fn durations_are_the_gateway_apis() {
        for (text, expected) in [
            ("0s", 0),
            ("250ms", 250),
            ("10s", 10_000),
            ("1h30m", 5_400_000),
            ("1h1m1s1ms", 3_661_001),
            ("99999h", 359_996_400_000),
        ] {
            assert_eq!(parse_duration(text), Some(expected), "{text}");
        }
        for text in [
            "",
            "10",
            "s",
            "1d",
            "1.5s",
            "-1s",
            "100000s",
            "1s ",
            "1h1m1s1ms1s",
            "1S",
        ] {
            assert_eq!(parse_duration(text), None, "{text}");
        }
    }
}
