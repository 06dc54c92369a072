//! `fault` of a VirtualService's rule (specs/policies.md 2.6): a share that is not written is no share.

use std::sync::Arc;

use http::StatusCode;

use super::virtual_rules::Reading;
use super::virtual_traffic::duration_ms;
use crate::diagnostics::Code;
use crate::limits::FAULT_DELAY_MAX_MS;
use crate::resources::virtual_service::{
    Abort as WrittenAbort, Delay as WrittenDelay, HttpRoute, Percent,
};
use crate::snapshot::{Abort, AbortAnswer, Delay, Fault, SHARE_PARTS};

/// gRPC's words for its statuses, by number.
const GRPC_STATUSES: [&str; 17] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];

/// What a rule does to requests on purpose. `None`: nothing.
pub(super) fn read(written: &HttpRoute, reading: &mut Reading<'_>) -> Option<Arc<Fault>> {
    let fault = written.fault.as_ref()?;
    let at = format!("{}.fault", reading.path);
    if written.redirect.is_some() || written.direct_response.is_some() {
        let message = "a rule that answers by itself can not have a fault";
        reading.fail(Code::Conflict, &at, message);
        return None;
    }
    if fault.delay.is_none() && fault.abort.is_none() {
        let message = "a fault needs a delay or an abort";
        reading.fail(Code::MissingField, &at, message);
        return None;
    }
    let delay = (fault.delay.as_ref()).and_then(|d| delay(d, &format!("{at}.delay"), reading));
    let abort = (fault.abort.as_ref()).and_then(|a| abort(a, &format!("{at}.abort"), reading));
    (delay.is_some() || abort.is_some()).then(|| Arc::new(Fault { delay, abort }))
}

fn delay(written: &WrittenDelay, at: &str, reading: &mut Reading<'_>) -> Option<Delay> {
    if written.exponential_delay.is_some() {
        let at = format!("{at}.exponentialDelay");
        reading.fail(Code::Unsupported, &at, "exponentialDelay is not supported");
        return None;
    }
    let fixed = format!("{at}.fixedDelay");
    let Some(text) = written.fixed_delay.as_deref() else {
        reading.fail(Code::MissingField, &fixed, "a delay needs a fixedDelay");
        return None;
    };
    let delay_ms = duration_ms(text, &fixed, reading)?;
    if delay_ms > FAULT_DELAY_MAX_MS {
        let message = format!("a delay of {text} is longer than {FAULT_DELAY_MAX_MS} ms");
        reading.fail(Code::LimitExceeded, &fixed, message);
        return None;
    }
    let old = written.percent.map(|percent| percent as f64);
    let share = share(written.percentage, old, at, reading)?;
    Some(Delay { share, delay_ms })
}

fn abort(written: &WrittenAbort, at: &str, reading: &mut Reading<'_>) -> Option<Abort> {
    let answer = match (
        written.http_status,
        written.grpc_status.as_deref(),
        written.http2_error.as_deref(),
    ) {
        (Some(status), None, None) => http_answer(status, at, reading)?,
        (None, Some(word), None) => grpc_answer(word, at, reading)?,
        (None, None, Some(_)) => {
            let at = format!("{at}.http2Error");
            reading.fail(Code::Unsupported, &at, "http2Error is not supported");
            return None;
        }
        (None, None, None) => {
            let message = "an abort needs a httpStatus or a grpcStatus";
            reading.fail(Code::MissingField, at, message);
            return None;
        }
        _ => {
            let message = "an abort has one of httpStatus, grpcStatus and http2Error";
            reading.fail(Code::Conflict, at, message);
            return None;
        }
    };
    let share = share(written.percentage, None, at, reading)?;
    Some(Abort { share, answer })
}

fn http_answer(status: u16, at: &str, reading: &mut Reading<'_>) -> Option<AbortAnswer> {
    let found = StatusCode::from_u16(status).ok();
    let found = found.filter(|_| (200..600).contains(&status));
    if found.is_none() {
        let message = format!("{status} is not a status from 200 to 599");
        reading.fail(Code::BadValue, &format!("{at}.httpStatus"), message);
    }
    found.map(AbortAnswer::Http)
}

fn grpc_answer(word: &str, at: &str, reading: &mut Reading<'_>) -> Option<AbortAnswer> {
    let by_name = GRPC_STATUSES.iter().position(|name| *name == word);
    let by_number = || word.parse().ok().filter(|n| *n < GRPC_STATUSES.len());
    let found = by_name.or_else(by_number);
    if found.is_none() {
        let message = format!("there is no gRPC status '{word}'; UNAVAILABLE is one");
        reading.fail(Code::BadValue, &format!("{at}.grpcStatus"), message);
    }
    found
        .and_then(|n| u8::try_from(n).ok())
        .map(AbortAnswer::Grpc)
}

/// A share in parts of [`SHARE_PARTS`]. `None`: none, which is said, or no share at all.
fn share(
    written: Option<Percent>,
    old: Option<f64>,
    at: &str,
    reading: &mut Reading<'_>,
) -> Option<u32> {
    let percent = written.map(|percent| percent.value).or(old);
    let Some(percent) = percent else {
        let message = "without a percentage no request is meant";
        let effect = "no fault is injected";
        reading.warn(Code::MissingField, at, message, effect);
        return None;
    };
    if !(0.0..=100.0).contains(&percent) {
        let message = format!("{percent} is no share between 0 and 100");
        reading.fail(Code::BadValue, &format!("{at}.percentage"), message);
        return None;
    }
    let share = (percent * f64::from(SHARE_PARTS) / 100.0).round() as u32;
    (share > 0).then_some(share)
}
