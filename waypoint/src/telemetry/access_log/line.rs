//! What one line of the access log says. The keys are those of Istio's JSON log
//! (specs/istio-waypoint.md 5.5), then Cairn's. Of the headers, only those with a key of their own are
//! ever written.

use std::borrow::Cow;
use std::fmt::Display;
use std::time::Duration;

use cairn_authz::{Audited, DryRun, TrialOutcome, Verdict, Would};
use cairn_config_schema::origin::Origin;
use http::HeaderValue;
use serde::{Serialize, Serializer};

use super::address::Address;
use super::member::{Member, Members};
use super::names::{RouteName, UpstreamCluster, route_name, upstream_cluster};
use crate::limits::POLICY_RECORDS_PER_LINE_MAX;
use crate::telemetry::exchange::{Exchange, HttpExchange};
use crate::telemetry::labels::source_workload;
use crate::telemetry::text;
use crate::telemetry::trace::context::TraceId;

/// Declares the line, and how it is written. Most of the time that a derived `Serialize` takes for one goes
/// into escaping its names, which are constant, and texts, which need it seldom: [`Line::write`] copies both. Groups of
/// members that are `alike` are the same for all lines with the same key (`telemetry/alike`).
macro_rules! members {
    (@text $line:ident, $to:ident, $($key:ident)+) => {
        $(
            $to.extend_from_slice(concat!(",\"", stringify!($key), "\":").as_bytes());
            Member::write(&$line.$key, $to)?;
        )+
    };
    (@around own $line:ident, $alike:ident, $to:ident, $($key:ident)+) => {
        members!(@text $line, $to, $($key)+);
    };
    (@around alike $line:ident, $alike:ident, $to:ident, $($key:ident)+) => {
        $to.extend_from_slice($alike.next().unwrap_or_default());
    };
    (@alike own $line:ident, $alike:ident, $($key:ident)+) => {};
    (@alike alike $line:ident, $alike:ident, $($key:ident)+) => {
        let to = &mut $alike.text;
        members!(@text $line, to, $($key)+);
        $alike.ends.push($alike.text.len());
    };
    ($($kind:ident { $($(#[$doc:meta])* $key:ident: $of:ty,)+ })+) => {
        /// One line, borrowed from its exchange. `null` is what Envoy writes for `-`.
        #[derive(Serialize)]
        pub struct Line<'a> {
            $($($(#[$doc])* $key: $of,)+)+
        }

        impl Line<'_> {
            /// Appends it as one JSON object, byte by byte what its `Serialize` makes.
            ///
            /// # Errors
            /// None but serde_json's, which a line of texts and numbers does not give.
            pub fn write(&self, to: &mut Vec<u8>) -> serde_json::Result<()> {
                to.reserve(LINE_BYTES);
                let begin = to.len();
                $(members!(@text self, to, $($key)+);)+
                embrace(begin, to);
                Ok(())
            }

            /// The same, what is alike taken from a line with the same key.
            ///
            /// # Errors
            /// As [`Self::write`].
            pub fn write_around(&self, alike: &Alike, to: &mut Vec<u8>) -> serde_json::Result<()> {
                to.reserve(LINE_BYTES);
                let begin = to.len();
                let mut alike = alike.groups();
                $(members!(@around $kind self, alike, to, $($key)+);)+
                embrace(begin, to);
                Ok(())
            }

            /// What is the same for all lines with its key.
            ///
            /// # Errors
            /// As [`Self::write`].
            pub fn alike(&self) -> serde_json::Result<Alike> {
                let mut alike = Alike::default();
                $(members!(@alike $kind self, alike, $($key)+);)+
                Ok(alike)
            }

            /// Tells of its members that are there, one by one.
            pub fn tell(&self, to: &mut impl Members) {
                $($(Member::tell(&self.$key, stringify!($key), to);)+)+
            }
        }
    };
}

/// Members that are the same for many lines, as they are written.
#[derive(Debug, Default)]
pub struct Alike {
    text: Vec<u8>,
    /// Of each group.
    ends: Vec<usize>,
}

impl Alike {
    /// What it takes in memory.
    pub fn bytes(&self) -> usize {
        let ends = self.ends.capacity() * size_of::<usize>();
        size_of::<Self>() + self.text.capacity() + ends
    }

    fn groups(&self) -> impl Iterator<Item = &[u8]> {
        let mut begin = 0;
        self.ends.iter().map(move |end| {
            let group = self.text.get(begin..*end);
            begin = *end;
            group.unwrap_or_default()
        })
    }
}

/// Makes an object of members that each begin with a comma.
fn embrace(begin: usize, to: &mut Vec<u8>) {
    if let Some(first) = to.get_mut(begin) {
        *first = b'{';
    }
    to.push(b'}');
}

/// Room for a usual line.
const LINE_BYTES: usize = 1_536;

members! {
    own {
        start_time: &'a str,
    }
    alike {
        route_name: Option<Text<RouteName<'a>>>,
        method: Option<&'a str>,
    }
    own {
        path: Option<&'a str>,
    }
    alike {
        protocol: Option<&'a str>,
        response_code: u16,
        response_flags: &'a str,
        response_code_details: Option<&'a str>,
        connection_termination_details: Option<&'a str>,
    }
    own {
        bytes_received: u64,
        bytes_sent: u64,
        /// Milliseconds.
        duration: u64,
        /// Milliseconds, as text: Envoy takes it from a header.
        upstream_service_time: Option<Text<u64>>,
        x_forwarded_for: Option<Cow<'a, str>>,
        user_agent: Option<Cow<'a, str>>,
        request_id: Option<Cow<'a, str>>,
        authority: Option<&'a str>,
    }
    alike {
        upstream_host: Option<Address>,
        upstream_cluster: Option<Text<UpstreamCluster<'a>>>,
    }
    own {
        upstream_local_address: Option<Address>,
        downstream_local_address: Address,
        downstream_remote_address: Address,
    }
    alike {
        upstream_transport_failure_reason: Option<&'a str>,
        requested_server_name: Option<&'a str>,
    }
    own {
        source_principal: &'a str,
    }
    alike {
        destination_principal: Option<&'a str>,
        source_workload: Option<&'a str>,
        destination_workload: Option<&'a str>,
        destination_service: Option<&'a str>,
    }
    own {
        tunnel_authority: &'a str,
    }
    alike {
        attempts: u32,
        retry_denied: Option<&'static str>,
        verdict: Option<&'static str>,
        policy: Option<Text<&'a Origin>>,
        rule: Option<usize>,
        reason: Option<&'a str>,
        audit: Records<'a, Audited>,
        dry_run: Records<'a, TrialOutcome>,
        dry_run_verdict: Option<&'static str>,
        dry_run_policy: Option<Text<&'a Origin>>,
        dry_run_rule: Option<usize>,
        snapshot: u64,
    }
    own {
        trace_id: Option<Text<TraceId>>,
    }
}

impl<'a> Line<'a> {
    /// The line of an exchange that began at `start_time` (RFC 3339) and took `elapsed`.
    pub fn new(exchange: &'a Exchange, start_time: &'a str, elapsed: Duration) -> Self {
        let http = exchange.http.as_ref();
        let verdict = exchange.verdict.as_ref();
        let service = exchange.service.as_deref();
        let destination = exchange
            .endpoint
            .as_ref()
            .and_then(|e| e.workload.as_deref());
        let dry_run = verdict.and_then(|v| v.dry_run.as_deref());
        let details = some(&exchange.details);
        Self {
            start_time,
            route_name: route_name(exchange).map(Text),
            method: http.and_then(method),
            path: http.and_then(|h| some(&h.path)),
            protocol: http.and_then(|h| some(h.protocol)),
            response_code: http.and_then(|h| h.status).map_or(0, |s| s.as_u16()),
            response_flags: some(exchange.flags).unwrap_or("-"),
            // Envoy's TCP side reports its denials under the other key.
            response_code_details: http.and(details),
            connection_termination_details: details.filter(|_| http.is_none()),
            bytes_received: exchange.bytes_received,
            bytes_sent: exchange.bytes_sent,
            duration: u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX),
            upstream_service_time: http
                .and_then(|h| h.upstream_service_time)
                .map(|t| Text(u64::try_from(t.as_millis()).unwrap_or(u64::MAX))),
            x_forwarded_for: header(http, |h| h.forwarded_for.as_ref()),
            user_agent: header(http, |h| h.user_agent.as_ref()),
            request_id: header(http, |h| h.request_id.as_ref()),
            authority: http.and_then(|h| some(&h.authority)),
            upstream_host: exchange.endpoint.as_ref().map(|e| Address(e.address)),
            upstream_cluster: upstream_cluster(exchange).map(Text),
            upstream_local_address: exchange.upstream_local.map(Address),
            downstream_local_address: Address(exchange.origin.destination),
            downstream_remote_address: Address(exchange.origin.peer.address),
            upstream_transport_failure_reason: exchange.upstream_failure.as_deref(),
            requested_server_name: exchange.server_name.as_deref(),
            source_principal: exchange.origin.peer.identity.uri(),
            destination_principal: destination.map(|w| w.identity.uri()),
            source_workload: source_workload(exchange).map(|w| &*w.workload_name),
            destination_workload: destination.map(|w| &*w.workload_name),
            destination_service: service.map(|s| &*s.hostname),
            tunnel_authority: &exchange.origin.tunnel_authority,
            attempts: exchange.attempts,
            retry_denied: exchange.retry_denied,
            verdict: verdict.map(|v| verb(v.allowed)),
            policy: verdict.and_then(Verdict::origin).map(Text),
            rule: verdict.and_then(Verdict::rule_index),
            reason: exchange.reason.as_deref(),
            audit: Records(verdict.map_or(&[], |v| &v.audit)),
            dry_run: Records(dry_run.map_or(&[], |run| &run.outcomes)),
            dry_run_verdict: dry_run.map(|run| verb(run.allowed())),
            dry_run_policy: dry_run.and_then(DryRun::origin).map(Text),
            dry_run_rule: dry_run.and_then(DryRun::rule_index),
            snapshot: exchange.snapshot,
            trace_id: exchange.trace.id().map(Text),
        }
    }
}

fn verb(allowed: bool) -> &'static str {
    if allowed { "allow" } else { "deny" }
}

fn some(text: &str) -> Option<&str> {
    (!text.is_empty()).then_some(text)
}

/// A request that could not be read has neither method nor path.
pub(in crate::telemetry) fn method(http: &HttpExchange) -> Option<&str> {
    let unread = http.path.is_empty() && http.method == http::Method::GET;
    (!unread).then(|| http.method.as_str())
}

fn header<'a>(
    http: Option<&'a HttpExchange>,
    of: fn(&HttpExchange) -> Option<&HeaderValue>,
) -> Option<Cow<'a, str>> {
    let value = http.and_then(of)?;
    Some(text::of_bytes(value.as_bytes()))
}

/// Written into the JSON string as it displays, without a string in between.
pub(super) struct Text<T>(pub(super) T);

impl<T: Display> Serialize for Text<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

/// What policies recorded, up to a limit.
pub(super) struct Records<'a, T>(pub(super) &'a [T]);

#[derive(Serialize)]
struct Record<'a> {
    policy: Text<&'a Origin>,
    rule: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    would: Option<&'static str>,
}

impl Serialize for Records<'_, Audited> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let records = self.0.iter().take(POLICY_RECORDS_PER_LINE_MAX);
        serializer.collect_seq(records.map(|audited| Record {
            policy: Text(&audited.policy.origin),
            rule: audited.rule,
            would: None,
        }))
    }
}

/// Policies that say nothing are left out.
impl Serialize for Records<'_, TrialOutcome> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let told = self.0.iter().filter(|o| o.would != Would::Nothing);
        let records = told.take(POLICY_RECORDS_PER_LINE_MAX);
        serializer.collect_seq(records.map(|outcome| Record {
            policy: Text(&outcome.policy),
            rule: outcome.rule,
            would: Some(outcome.would.as_str()),
        }))
    }
}

#[cfg(test)]
mod tests;
