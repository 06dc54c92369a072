//! Cairn's own counters and gauges, those that are not per exchange. Whoever causes an event counts
//! it here; nothing here is read by a decision.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use cairn_config_schema::diagnostics::Severity;
use cairn_config_schema::origin::Kind;
use cairn_config_schema::snapshot::{self, Snapshot, UnenforcedReason};
use prometheus::proto::MetricFamily;

use super::instruments::{ByLabel, Gauge, Instrument, Value, family, sample};
use super::names;

/// CONNECT requests refused, by reason.
pub static TUNNEL_REFUSED: ByLabel = ByLabel::new(&names::TUNNEL_REFUSED);
/// HTTP requests refused for what they are, by reason.
pub static REQUEST_REFUSED: ByLabel = ByLabel::new(&names::REQUEST_REFUSED);
/// Connections that did not become a tunnel, by reason.
pub static HANDSHAKE_FAILED: ByLabel = ByLabel::new(&names::HANDSHAKE_FAILED);
/// What was open and was closed because policy changed, by kind.
pub static CLOSED_BY_POLICY: ByLabel = ByLabel::new(&names::CLOSED_BY_POLICY);
/// Accepted TCP connections.
pub static CONNECTIONS: Gauge = Gauge::new(&names::CONNECTIONS);
/// Client tunnels.
pub static TUNNELS: Gauge = Gauge::new(&names::TUNNELS);
/// Client streams.
pub static STREAMS: Gauge = Gauge::new(&names::STREAMS);
/// Upstream tunnels.
pub static UPSTREAM_TUNNELS: Gauge = Gauge::new(&names::UPSTREAM_TUNNELS);
/// Tunnels inside of streams to gateways of other networks.
pub static INNER_TUNNELS: Gauge = Gauge::new(&names::INNER_TUNNELS);
/// Streams to endpoints.
pub static UPSTREAM_STREAMS: Gauge = Gauge::new(&names::UPSTREAM_STREAMS);
/// What connections to endpoints are kept by.
pub static UPSTREAM_DESTINATIONS: Gauge = Gauge::new(&names::UPSTREAM_DESTINATIONS);
/// Access log lines dropped.
pub static ACCESS_LOG_DROPPED: Gauge = Gauge::new(&names::ACCESS_LOG_DROPPED);
/// Flows overwritten before a reader got them.
pub static FLOWS_LOST: Gauge = Gauge::new(&names::FLOWS_LOST);
/// Lines of the process's own log dropped.
pub static LOG_DROPPED: Gauge = Gauge::new(&names::LOG_DROPPED);

/// Retries made, by cause.
pub static RETRIES: ByLabel = ByLabel::new(&names::RETRIES);
/// Retries not made, by reason.
pub static RETRIES_DENIED: ByLabel = ByLabel::new(&names::RETRIES_DENIED);
/// Requests delayed or aborted on purpose, by kind.
pub static FAULTS: ByLabel = ByLabel::new(&names::FAULTS);
/// Copies of requests, by what became of them.
pub static MIRRORED: ByLabel = ByLabel::new(&names::MIRRORED);
/// Requests with a valid token.
pub static JWT_VALID: Gauge = Gauge::new(&names::JWT_VALID);
/// Requests refused because of their token.
pub static JWT_REFUSED: Gauge = Gauge::new(&names::JWT_REFUSED);
/// Signatures of tokens checked.
pub static JWT_SIGNATURES: Gauge = Gauge::new(&names::JWT_SIGNATURES);
/// Fetches of keys, by result.
pub static JWKS_FETCHES: ByLabel = ByLabel::new(&names::JWKS_FETCHES);
/// Attempts to get an identity, by outcome.
pub static IDENTITY_ATTEMPTS: ByLabel = ByLabel::new(&names::IDENTITY_ATTEMPTS);
/// How it stands with the identity, by state.
pub static IDENTITY_STATE: ByLabel = ByLabel::new(&names::IDENTITY_STATE);
/// Files for TLS towards endpoints, read anew, by result.
pub static TLS_FILES: ByLabel = ByLabel::new(&names::TLS_FILES);
/// Names of endpoints looked up, by result.
pub static DNS_LOOKUPS: ByLabel = ByLabel::new(&names::DNS_LOOKUPS);
/// Names of endpoints that are followed.
pub static DNS_NAMES: Gauge = Gauge::new(&names::DNS_NAMES);
/// Names that requests asked for and that had to go, by state.
pub static DNS_CROWDED_OUT: ByLabel = ByLabel::new(&names::DNS_CROWDED_OUT);

/// Questions to authorization services, by result.
pub static EXT_AUTHZ_CHECKS: ByLabel = ByLabel::new(&names::EXT_AUTHZ_CHECKS);
/// Questions to authorization services without a usable answer, by reason.
pub static EXT_AUTHZ_ERRORS: ByLabel = ByLabel::new(&names::EXT_AUTHZ_ERRORS);
/// Questions to authorization services that wait for their answer.
pub static EXT_AUTHZ_WAITING: Gauge = Gauge::new(&names::EXT_AUTHZ_WAITING);
/// Bodies held for them.
pub static EXT_AUTHZ_BODIES: Gauge = Gauge::new(&names::EXT_AUTHZ_BODIES);

/// Questions to rate limit services, by result.
pub static RATE_LIMIT_SERVICE_CHECKS: ByLabel = ByLabel::new(&names::RATE_LIMIT_SERVICE_CHECKS);
/// Questions to rate limit services without a usable answer, by reason.
pub static RATE_LIMIT_SERVICE_ERRORS: ByLabel = ByLabel::new(&names::RATE_LIMIT_SERVICE_ERRORS);
/// Questions to rate limit services that wait for their answer.
pub static RATE_LIMIT_SERVICE_WAITING: Gauge = Gauge::new(&names::RATE_LIMIT_SERVICE_WAITING);
/// Records that a collector took, by signal.
pub static OTLP_EXPORTED: ByLabel = ByLabel::new(&names::OTLP_EXPORTED);
/// Records handed to streams that are not answered, by signal.
pub static OTLP_STREAMED: ByLabel = ByLabel::new(&names::OTLP_STREAMED);
/// Records for which no queue had room, by signal.
pub static OTLP_DROPPED: ByLabel = ByLabel::new(&names::OTLP_DROPPED);
/// Records that a collector did not take, by signal.
pub static OTLP_FAILED: ByLabel = ByLabel::new(&names::OTLP_FAILED);

static RECHECKED: Gauge = Gauge::new(&names::RECHECKED);
static RECHECK_DURATION: Value = Value::new(&names::RECHECK_DURATION);
static RELOADS: ByLabel = ByLabel::new(&names::RELOADS);
static RELOAD_DURATION: Value = Value::new(&names::RELOAD_DURATION);
static SNAPSHOT_VERSION: Value = Value::new(&names::SNAPSHOT_VERSION);
static DIAGNOSTICS: ByLabel = ByLabel::new(&names::DIAGNOSTICS);
static CERTIFICATE_EXPIRY: Value = Value::new(&names::CERTIFICATE_EXPIRY);

const RELOAD_OK: &str = "success";
const RELOAD_FAILED: &str = "failure";

/// A snapshot came into force, `took` after the change was noticed. One with errors counts as a
/// failed reload: something is not in force as written.
pub fn config_published(snapshot: &Snapshot, took: Duration) {
    RELOADS.preset([RELOAD_OK, RELOAD_FAILED]);
    RELOAD_DURATION.set(took.as_secs_f64());
    SNAPSHOT_VERSION.set(snapshot.version as f64);
    let count = |severity| {
        let findings = snapshot.diagnostics.iter();
        findings.filter(|d| d.severity == severity).count() as u64
    };
    let errors = count(Severity::Error);
    DIAGNOSTICS.set("error", errors);
    DIAGNOSTICS.set("warning", count(Severity::Warning));
    DIAGNOSTICS.set("info", count(Severity::Info));
    UNENFORCED.set(&snapshot.unenforced);
    RELOADS.inc(if errors == 0 {
        RELOAD_OK
    } else {
        RELOAD_FAILED
    });
}

/// How many L7 policies are not enforced as written, by kind and reason. Behind a lock, for it changes
/// with the configuration alone.
struct Unenforced(Mutex<BTreeMap<(&'static str, &'static str), u64>>);

static UNENFORCED: Unenforced = Unenforced(Mutex::new(BTreeMap::new()));

impl Unenforced {
    fn set(&self, policies: &[snapshot::Unenforced]) {
        let mut counts = BTreeMap::new();
        for kind in POLICY_KINDS {
            for reason in UnenforcedReason::ALL {
                counts.insert((kind.as_str(), reason.as_str()), 0);
            }
        }
        for policy in policies {
            let of = (policy.origin.kind.as_str(), policy.reason.as_str());
            *counts.entry(of).or_insert(0) += 1;
        }
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = counts;
    }
}

impl Instrument for Unenforced {
    fn family(&self) -> Option<MetricFamily> {
        let metric = &names::L7_POLICY_UNENFORCED;
        let counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let samples = counts.iter();
        let samples = samples.map(|((kind, reason), n)| sample(metric, &[kind, reason], *n as f64));
        (!counts.is_empty()).then(|| family(metric, samples.collect()))
    }
}

/// Kinds that say who may do what at L7.
const POLICY_KINDS: [Kind; 6] = [
    Kind::AuthorizationPolicy,
    Kind::RequestAuthentication,
    Kind::CiliumNetworkPolicy,
    Kind::CiliumClusterwideNetworkPolicy,
    Kind::NetworkPolicy,
    Kind::GlobalNetworkPolicy,
];

/// A worker judged `count` open things again.
pub fn rechecked(count: usize) {
    RECHECKED.add(i64::try_from(count).unwrap_or(i64::MAX));
}

/// A worker judged all that was open again.
pub fn recheck_took(took: Duration) {
    RECHECK_DURATION.set(took.as_secs_f64());
}

/// The certificate in use expires then.
pub fn certificate_expires(at: SystemTime) {
    let since_1970 = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    CERTIFICATE_EXPIRY.set(since_1970.as_secs() as f64);
}

/// Asked for at a scrape: the exporters' queue counts them anyway.
struct OtlpWaitingBytes;

impl Instrument for OtlpWaitingBytes {
    fn family(&self) -> Option<MetricFamily> {
        let metric = &names::OTLP_WAITING_BYTES;
        let (_, bytes) = super::otlp::waiting();
        Some(family(metric, vec![sample(metric, &[], bytes as f64)]))
    }
}

/// Asked for at a scrape, too.
struct AccessLogKeptBytes;

impl Instrument for AccessLogKeptBytes {
    fn family(&self) -> Option<MetricFamily> {
        let metric = &names::ACCESS_LOG_KEPT_BYTES;
        let (_, bytes) = super::access_log::kept();
        Some(family(metric, vec![sample(metric, &[], bytes as f64)]))
    }
}

/// Everything above, as a scrape shows it.
pub fn families() -> Vec<MetricFamily> {
    let instruments: &[&dyn Instrument] = &[
        &TUNNEL_REFUSED,
        &REQUEST_REFUSED,
        &HANDSHAKE_FAILED,
        &CLOSED_BY_POLICY,
        &RECHECKED,
        &RECHECK_DURATION,
        &CONNECTIONS,
        &TUNNELS,
        &STREAMS,
        &UPSTREAM_TUNNELS,
        &INNER_TUNNELS,
        &UPSTREAM_STREAMS,
        &UPSTREAM_DESTINATIONS,
        &ACCESS_LOG_DROPPED,
        &FLOWS_LOST,
        &LOG_DROPPED,
        &RELOADS,
        &RELOAD_DURATION,
        &SNAPSHOT_VERSION,
        &DIAGNOSTICS,
        &UNENFORCED,
        &CERTIFICATE_EXPIRY,
        &IDENTITY_ATTEMPTS,
        &IDENTITY_STATE,
        &RETRIES,
        &RETRIES_DENIED,
        &FAULTS,
        &MIRRORED,
        &JWT_VALID,
        &JWT_REFUSED,
        &JWT_SIGNATURES,
        &JWKS_FETCHES,
        &TLS_FILES,
        &DNS_LOOKUPS,
        &DNS_NAMES,
        &DNS_CROWDED_OUT,
        &EXT_AUTHZ_CHECKS,
        &EXT_AUTHZ_ERRORS,
        &EXT_AUTHZ_WAITING,
        &EXT_AUTHZ_BODIES,
        &RATE_LIMIT_SERVICE_CHECKS,
        &RATE_LIMIT_SERVICE_ERRORS,
        &RATE_LIMIT_SERVICE_WAITING,
        &OTLP_EXPORTED,
        &OTLP_STREAMED,
        &OTLP_DROPPED,
        &OTLP_FAILED,
        &OtlpWaitingBytes,
        &AccessLogKeptBytes,
    ];
    let own = instruments.iter().filter_map(|i| i.family());
    own.chain(super::node::families())
        .chain(super::kubernetes::families())
        .chain(super::discovery::families())
        .collect()
}

/// `istio_build` and `cairn_build_info`.
pub fn build_families(version: &str) -> [MetricFamily; 2] {
    let build = |metric: &'static names::Metric, values: &[&str]| {
        family(metric, vec![sample(metric, values, 1.0)])
    };
    [
        build(&names::ISTIO_BUILD, &["proxy", version]),
        build(&names::BUILD_INFO, &[version]),
    ]
}
