//! What is kept of an exchange: its facts, moved out of it or shared with it. Nothing that keeps a
//! socket, a network namespace or more of an old snapshot than names and workloads alive.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use cairn_authz::{NetworkWhy, Verdict};
use cairn_config_schema::origin::{ObjectKey, Origin};
use cairn_config_schema::snapshot::{Action, Workload};
use http::HeaderValue;

use super::request::Request;
use crate::limits::{FLOW_TEXT_BYTES_MAX, POLICY_RECORDS_PER_LINE_MAX};
use crate::telemetry::exchange::{Exchange, Peer};
use crate::telemetry::labels::source_workload;
use crate::telemetry::trace::context::TraceId;

/// What a record tells of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// An HTTP exchange, from beginning to end.
    Http,
    /// A TCP stream that opened.
    Opened,
    /// A TCP stream that closed; its opening has a record of its own.
    Closed,
    /// A TCP stream that never opened.
    Refused,
}

/// Names of a service.
#[derive(Clone, Debug)]
pub struct ServiceName {
    /// Namespace and name; of a ServiceEntry the host is the name.
    pub key: ObjectKey,
    /// Its host.
    pub hostname: Arc<str>,
    /// It is one of the mesh, with pods behind it; `false`: a ServiceEntry.
    pub in_mesh: bool,
}

/// A verdict in names.
#[derive(Clone, Debug, PartialEq)]
pub struct Decision {
    /// Whether it could pass.
    pub allowed: bool,
    /// A rule denied it; `false` with a denial: no rule allowed it.
    pub denied_by_rule: bool,
    /// It was denied for want of an authentication.
    pub wants_authentication: bool,
    /// The object that decided; `None`: by default.
    pub policy: Option<Origin>,
    /// Its rule, from 0.
    pub rule: Option<usize>,
    /// AUDIT policies with a rule that matched.
    pub audit: Vec<(Origin, Option<usize>)>,
    /// What would have been decided with the policies that are tried, and by which.
    pub dry_run: Option<(bool, Option<Origin>, Option<usize>)>,
}

/// What is kept of one exchange.
#[derive(Debug)]
#[allow(missing_docs)] // as in Exchange
pub struct Record {
    pub part: Part,
    pub started_at: SystemTime,
    pub elapsed: Duration,
    pub peer: Arc<Peer>,
    /// It came in a tunnel of mTLS, not from a pod of this node.
    pub encrypted: bool,
    pub source: Option<Arc<Workload>>,
    /// Only where the client's workload is not known.
    pub baggage: Option<HeaderValue>,
    /// What was dialled.
    pub dialled: SocketAddr,
    pub service: Option<ServiceName>,
    pub endpoint: Option<(SocketAddr, Option<Arc<Workload>>)>,
    pub route: Option<(Origin, usize)>,
    pub http: Option<Request>,
    pub decision: Option<Decision>,
    pub reason: Option<String>,
    pub details: Cow<'static, str>,
    pub flags: &'static str,
    pub upstream_failure: Option<Cow<'static, str>>,
    pub attempts: u32,
    pub bytes_received: u64,
    pub bytes_sent: u64,
    pub snapshot: u64,
    /// The trace that the request is part of.
    pub trace: Option<TraceId>,
}

impl Record {
    /// Bytes of the texts that nobody else holds.
    pub fn text_bytes(&self) -> usize {
        let http = self.http.as_ref().map_or(0, Request::text_bytes);
        http + self.reason.as_ref().map_or(0, String::len)
    }

    /// Of an exchange that ended, with what nobody needs any more; `was_open`: it is a TCP stream whose opening was
    /// recorded.
    pub fn ended(exchange: &mut Exchange, elapsed: Duration, was_open: bool) -> Self {
        Self::ended_in(Vec::new(), exchange, elapsed, was_open)
    }

    /// The same with room for its texts.
    pub(super) fn ended_in(
        room: Vec<u8>,
        exchange: &mut Exchange,
        elapsed: Duration,
        was_open: bool,
    ) -> Self {
        let part = match (&exchange.http, was_open) {
            (Some(_), _) => Part::Http,
            (None, true) => Part::Closed,
            (None, false) => Part::Refused,
        };
        let mut record = Self::of(part, exchange);
        record.elapsed = elapsed;
        record.http = exchange.http.take().map(|http| Request::new(http, room));
        record.reason = exchange.reason.take();
        record.details.clone_from(&exchange.details);
        record.upstream_failure = exchange.upstream_failure.clone();
        if let Some(reason) = &mut record.reason {
            cut(reason);
        }
        record
    }

    /// Room for the texts of the record that comes after it.
    pub(super) fn take_room(&mut self) -> Vec<u8> {
        self.http.take().map(Request::into_room).unwrap_or_default()
    }

    /// Of a TCP stream that opens.
    pub fn opened(exchange: &Exchange) -> Self {
        Self::of(Part::Opened, exchange)
    }

    fn of(part: Part, exchange: &Exchange) -> Self {
        let origin = &exchange.origin;
        let source = source_workload(exchange).cloned();
        let baggage = match source {
            Some(_) => None,
            None => origin.baggage.as_ref().and_then(own),
        };
        let route = exchange.route.as_ref();
        let route = route.map(|(route, rule)| (route.origin.clone(), *rule));
        let stream_rule = exchange.stream_rule.as_ref();
        let route = route.or_else(|| stream_rule.map(|r| (r.route.origin.clone(), r.rule)));
        Self {
            part,
            started_at: exchange.started_at,
            elapsed: Duration::ZERO,
            peer: origin.peer.clone(),
            encrypted: origin.pod.is_none(),
            source,
            baggage,
            dialled: origin.destination,
            service: exchange.service.as_ref().map(|service| ServiceName {
                key: service.key.clone(),
                hostname: service.hostname.clone(),
                in_mesh: !service.is_entry(),
            }),
            endpoint: exchange
                .endpoint
                .as_ref()
                .map(|e| (e.address, e.workload.clone())),
            route,
            http: None,
            decision: exchange.verdict.as_ref().map(Decision::of),
            reason: None,
            details: Cow::Borrowed(""),
            flags: exchange.flags,
            upstream_failure: None,
            attempts: exchange.attempts,
            bytes_received: exchange.bytes_received,
            bytes_sent: exchange.bytes_sent,
            snapshot: exchange.snapshot,
            trace: exchange.trace.id(),
        }
    }

    /// How many flows it is told as: what `hubble::flows` makes of it.
    pub fn flows(&self) -> u64 {
        let (verdict, traced) = match (&self.part, &self.http) {
            (Part::Http, Some(http)) => (self.is_judged(), 1 + u64::from(http.status.is_some())),
            (Part::Closed, _) => (self.was_cut(), 1),
            (Part::Http | Part::Opened | Part::Refused, _) => (self.is_judged(), 1),
        };
        let audit = self.would_be_denied() && self.part != Part::Closed;
        u64::from(verdict) + u64::from(audit) + traced
    }

    /// Whether there is a verdict to tell of, be it that the caller's token was refused.
    pub fn is_judged(&self) -> bool {
        self.decision.is_some() || self.lacks_authentication()
    }

    /// Whether it was allowed, and closed later because another snapshot denies it.
    pub fn was_cut(&self) -> bool {
        self.part == Part::Closed && self.is_denied()
    }

    /// Whether policy, or the lack of a good token, kept it out.
    pub fn is_denied(&self) -> bool {
        let denied = self.decision.as_ref().is_some_and(|d| !d.allowed);
        denied || self.lacks_authentication() || self.details.starts_with("ext_authz_denied")
    }

    /// Whether it was refused for its token, or for want of one.
    pub fn lacks_authentication(&self) -> bool {
        let network = self.decision.as_ref();
        network.is_some_and(|d| !d.allowed && d.wants_authentication)
            || self.details.starts_with("jwt_authn_access_denied")
    }

    /// Whether it passed and would not have, if the policies that are tried were in force.
    pub fn would_be_denied(&self) -> bool {
        let decision = self.decision.as_ref();
        decision.is_some_and(|d| d.allowed && d.dry_run.as_ref().is_some_and(|run| !run.0))
            && !self.is_denied()
    }
}

/// Cuts what clients choose the length of. What is cut ends with an ellipsis.
fn cut(text: &mut String) {
    if text.len() > FLOW_TEXT_BYTES_MAX {
        text.truncate(text.floor_char_boundary(FLOW_TEXT_BYTES_MAX));
        text.push('…');
        text.shrink_to_fit();
    }
}

/// A copy, cut like [`cut`] but without a mark, which a header could not hold: the value itself keeps the header block
/// that it lies in.
fn own(value: &HeaderValue) -> Option<HeaderValue> {
    let bytes = value.as_bytes();
    HeaderValue::from_bytes(bytes.get(..FLOW_TEXT_BYTES_MAX).unwrap_or(bytes)).ok()
}

impl Decision {
    fn of(verdict: &Verdict) -> Self {
        let network = verdict.network.as_ref().filter(|network| !network.allowed);
        let policy = verdict.policy.as_ref();
        let denied_by_rule = match network {
            Some(network) => network.why == NetworkWhy::Denied,
            None => policy.is_some_and(|p| p.action == Action::Deny && verdict.rule.is_some()),
        };
        let audit = verdict.audit.iter().take(POLICY_RECORDS_PER_LINE_MAX);
        let dry_run = verdict.dry_run.as_ref();
        Self {
            allowed: verdict.allowed,
            denied_by_rule: !verdict.allowed && denied_by_rule,
            wants_authentication: network
                .is_some_and(|network| network.why == NetworkWhy::Authentication),
            policy: verdict.origin().cloned(),
            rule: verdict.rule_index(),
            audit: audit
                .map(|audited| (audited.policy.origin.clone(), audited.rule))
                .collect(),
            dry_run: dry_run.map(|run| (run.allowed(), run.origin().cloned(), run.rule_index())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::fixtures;

    #[test]
    fn what_clients_make_long_is_cut() {
        let mut exchange = fixtures::http();
        exchange.reason = Some("y".repeat(60_000));
        let record = Record::ended(&mut exchange, Duration::ZERO, false);
        assert_eq!(record.reason.unwrap().len(), FLOW_TEXT_BYTES_MAX + 3);
    }
}
