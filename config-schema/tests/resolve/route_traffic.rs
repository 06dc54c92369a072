//! What the rules of an HTTPRoute say about time and failure (specs/gateway-api.md 1.4, "Timeouts",
//! "Retries").

use cairn_config_schema::snapshot::{BackOff, RetryPolicy, Timeouts};

use super::route_rules::{BACKEND, breaks, good, rule};

#[test]
fn timeouts_are_durations_and_zero_is_none() {
    for (written, request_ms, attempt_ms) in [
        ("request: 1m30s", Some(90_000), None),
        ("backendRequest: 10ms", None, Some(10)),
        ("request: 1s, backendRequest: 1s", Some(1_000), Some(1_000)),
        ("request: 0s, backendRequest: 0h0m", None, None),
        ("request: 0s, backendRequest: 5s", None, Some(5_000)),
    ] {
        let rule = good(&format!("timeouts: {{{written}}}, {BACKEND}"));
        let expected = Timeouts {
            request_ms,
            attempt_ms,
        };
        assert_eq!(rule.traffic.timeouts, expected, "{written}");
    }
}

#[test]
fn a_timeout_that_makes_no_sense_breaks_the_rule() {
    for (written, code, at) in [
        ("request: 10x", "bad-value", "timeouts.request"),
        (
            "backendRequest: 1.5s",
            "bad-value",
            "timeouts.backendRequest",
        ),
        (
            "request: 1s, backendRequest: 2s",
            "conflict",
            "timeouts.backendRequest",
        ),
    ] {
        breaks(&format!("timeouts: {{{written}}}, {BACKEND}"), code, at);
    }
}

fn retry(written: &str) -> RetryPolicy {
    let rule = good(&format!("retry: {{{written}}}, {BACKEND}"));
    rule.traffic.retry.unwrap()
}

#[test]
fn a_rule_without_retry_has_no_policy_of_its_own() {
    assert_eq!(good(BACKEND).traffic.retry, None);
}

#[test]
fn a_retry_lists_statuses_and_counts_retries() {
    let policy = retry("attempts: 3, codes: [503, 429], backoff: 100ms");
    assert_eq!(policy.retries_max, 3);
    for (status, again) in [(503, true), (429, true), (500, false), (200, false)] {
        assert_eq!(policy.on.status(status), again, "{status}");
    }
    assert_eq!(policy.back_off, BackOff::at_least(100));
    assert_eq!(policy.back_off.at_least_ms, 100);
}

/// Connection errors and per-try timeouts are retried as soon as there is a stanza; an endpoint that
/// may have acted on a POST is not asked again.
#[test]
fn a_retry_without_fields_is_about_connections_and_timeouts() {
    let policy = retry("");
    assert_eq!(policy.retries_max, 2);
    assert!(policy.on.statuses.is_empty());
    assert!(policy.on.reset && policy.on.timeout && !policy.on.any_method);
    assert_eq!(policy.back_off, BackOff::default());
}

#[test]
fn a_retry_that_makes_no_sense_breaks_the_rule() {
    for (written, at) in [
        ("attempts: -1", "retry.attempts"),
        ("codes: [200]", "retry.codes[0]"),
        ("codes: [503, 600]", "retry.codes[1]"),
        ("backoff: soon", "retry.backoff"),
    ] {
        breaks(&format!("retry: {{{written}}}, {BACKEND}"), "bad-value", at);
    }
}

#[test]
fn more_retries_than_a_request_ever_gets_are_cut_and_warned_of() {
    let (found, said) = rule(&format!("retry: {{attempts: 21}}, {BACKEND}"));
    assert_eq!(found.traffic.retry.unwrap().retries_max, 20);
    assert_eq!(
        said,
        ["warning bad-value HTTPRoute/shop/r spec.rules[0].retry.attempts"]
    );
}
