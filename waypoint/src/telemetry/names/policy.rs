//! Cairn's own metrics of who may do what, and how much: policies, tokens, limits on traffic.

use super::{Metric, counter, gauge};

/// Verdicts of policy.
pub const VERDICTS: Metric = counter(
    "cairn_policy_verdicts_total",
    "Verdicts of policy, by the policy and rule that decided; policy is `default` where none did",
    &["policy", "rule", "outcome"],
);
/// What policies that are tried say.
pub const DRY_RUN: Metric = counter(
    "cairn_policy_dry_run_total",
    "Requests and streams on which a policy that is tried was judged, by what it says",
    &["policy", "rule", "outcome"],
);
/// What would have been answered with everything that is tried.
pub const DRY_RUN_VERDICTS: Metric = counter(
    "cairn_policy_dry_run_verdicts_total",
    "Verdicts there would be with the policies that are tried, beside the verdict that was enforced",
    &["outcome", "enforced"],
);
/// Matches of AUDIT policies.
pub const AUDIT: Metric = counter(
    "cairn_policy_audit_total",
    "Requests and streams that a rule of an AUDIT policy matched",
    &["policy", "rule"],
);
/// What was open and was closed because policy changed.
pub const CLOSED_BY_POLICY: Metric = counter(
    "cairn_closed_by_policy_total",
    "Open streams, upgraded connections and tunnels closed because a new configuration denies them",
    &["kind"],
);
/// What was open and was judged again.
pub const RECHECKED: Metric = counter(
    "cairn_rechecked_total",
    "Open streams, upgraded connections and tunnels judged again because the configuration changed",
    &[],
);
/// Duration of the last recheck.
pub const RECHECK_DURATION: Metric = gauge(
    "cairn_recheck_duration_seconds",
    "How long a worker took to judge again what is open, the last time",
    &[],
);
/// L7 policies not enforced as written.
pub const L7_POLICY_UNENFORCED: Metric = gauge(
    "cairn_l7_policy_unenforced",
    "L7 policies that are not enforced as they are written, by kind of the policy and why",
    &["kind", "reason"],
);
/// Requests that rate limits saw.
pub const RATE_LIMITED: Metric = counter(
    "cairn_rate_limit_requests_total",
    "Requests that a rate limit of a TrafficPolicy let pass, or limited",
    &["policy", "limit", "outcome"],
);
/// Buckets.
pub const RATE_LIMIT_KEYS: Metric = gauge(
    "cairn_rate_limit_keys",
    "Keys of a rate limit with a bucket of their own that is not full",
    &["policy", "limit"],
);
/// Requests without a bucket of their own.
pub const RATE_LIMIT_SHARED: Metric = counter(
    "cairn_rate_limit_shared_total",
    "Requests that shared a bucket because a rate limit had too many keys",
    &["policy", "limit"],
);
/// Questions to rate limit services.
pub const RATE_LIMIT_SERVICE_CHECKS: Metric = counter(
    "cairn_rate_limit_service_checks_total",
    "Questions to rate limit services",
    &["result"],
);
/// Those without an answer.
pub const RATE_LIMIT_SERVICE_ERRORS: Metric = counter(
    "cairn_rate_limit_service_errors_total",
    "Questions to rate limit services without a usable answer",
    &["reason"],
);
/// Those that wait.
pub const RATE_LIMIT_SERVICE_WAITING: Metric = gauge(
    "cairn_rate_limit_service_waiting",
    "Questions to rate limit services that wait for their answer",
    &[],
);
/// Requests in flight under a TrafficPolicy.
pub const CONCURRENCY_TAKEN: Metric = gauge(
    "cairn_concurrency_requests",
    "Requests being answered under the limit of a TrafficPolicy",
    &["policy"],
);
/// That limit.
pub const CONCURRENCY_MAX: Metric = gauge(
    "cairn_concurrency_requests_max",
    "Requests at once that a TrafficPolicy allows",
    &["policy"],
);
/// Refused for it.
pub const CONCURRENCY_REFUSED: Metric = counter(
    "cairn_concurrency_refused_total",
    "Requests refused because a TrafficPolicy allows no more at once",
    &["policy"],
);
/// Tokens found valid.
pub const JWT_VALID: Metric = counter(
    "cairn_jwt_valid_total",
    "HTTP requests with a valid JSON Web Token",
    &[],
);
/// Tokens refused.
pub const JWT_REFUSED: Metric = counter(
    "cairn_jwt_refused_total",
    "HTTP requests refused because of a JSON Web Token that is not valid",
    &[],
);
/// Signatures checked.
pub const JWT_SIGNATURES: Metric = counter(
    "cairn_jwt_signatures_total",
    "Signatures of JSON Web Tokens checked: tokens that are remembered need none",
    &[],
);
/// Fetches of keys.
pub const JWKS_FETCHES: Metric = counter(
    "cairn_jwks_fetches_total",
    "Times keys of token issuers were fetched",
    &["result"],
);
/// Checks by authorization services.
pub const EXT_AUTHZ_CHECKS: Metric = counter(
    "cairn_ext_authz_checks_total",
    "Questions to authorization services",
    &["result"],
);
/// Checks without an answer.
pub const EXT_AUTHZ_ERRORS: Metric = counter(
    "cairn_ext_authz_errors_total",
    "Questions to authorization services without a usable answer",
    &["reason"],
);
/// Checks that wait.
pub const EXT_AUTHZ_WAITING: Metric = gauge(
    "cairn_ext_authz_waiting",
    "Questions to authorization services that wait for their answer",
    &[],
);
/// Bodies held for checks.
pub const EXT_AUTHZ_BODIES: Metric = gauge(
    "cairn_ext_authz_bodies",
    "Bodies of requests that are read or held for authorization services",
    &[],
);
/// Keys in force.
pub const JWKS_KEYS: Metric = gauge(
    "cairn_jwks_keys",
    "Keys in force of a source; without any, every token of it is refused",
    &["source"],
);
/// Age of keys.
pub const JWKS_AGE: Metric = gauge(
    "cairn_jwks_age_seconds",
    "Time since the keys in force of a source were fetched",
    &["source"],
);
