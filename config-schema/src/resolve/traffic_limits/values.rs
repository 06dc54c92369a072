//! Values of a TrafficPolicy, checked. What it is for is read elsewhere.

use std::sync::Arc;

use http::header::HeaderName;

use crate::diagnostics::{Code, Diagnostic};
use crate::resolve::Findings;
use crate::resolve::route_traffic::parse_duration;
use crate::resources::Object;
use crate::resources::cairn::{self, LimitKeySource, TrafficPolicySpec};
use crate::snapshot::{Concurrency, LimitKey, LimitTarget, RateLimit};

/// Values being read. The first that is wrong breaks the policy.
pub(super) struct Reading<'r, 'f> {
    pub object: &'r Object<TrafficPolicySpec>,
    pub broken: Option<Arc<str>>,
    pub findings: &'f mut Findings,
}

impl Reading<'_, '_> {
    pub fn wrong(&mut self, code: Code, path: &str, reason: String, hint: &str) {
        let finding = Diagnostic::error(code, reason.clone())
            .with_effect("every HTTP request that the policy is for is answered 500")
            .with_hint(hint);
        self.findings.push(self.object.mark(finding, path));
        self.broken.get_or_insert_with(|| reason.into());
    }

    /// Something that is needed is not there.
    pub fn missing<T>(&mut self, path: &str, reason: &str, hint: &str) -> Option<T> {
        self.wrong(Code::MissingField, path, reason.to_owned(), hint);
        None
    }

    pub fn rate(&mut self, rate: &cairn::RateLimit, path: &str) -> Option<RateLimit> {
        let spec = &self.object.spec;
        if spec
            .rate_limits
            .iter()
            .filter(|r| r.name == rate.name)
            .count()
            > 1
        {
            let reason = format!("two rate limits have the name '{}'", rate.name);
            self.wrong(
                Code::Conflict,
                &format!("{path}.name"),
                reason,
                "rename one",
            );
            return None;
        }
        if rate.name.is_empty() {
            let reason = "a rate limit needs a name".to_owned();
            self.wrong(
                Code::MissingField,
                &format!("{path}.name"),
                reason,
                "name: per-client",
            );
            return None;
        }
        if rate.requests == 0 {
            let reason = "a rate limit needs requests, at least 1".to_owned();
            self.wrong(
                Code::BadValue,
                &format!("{path}.requests"),
                reason,
                "requests: 100",
            );
            return None;
        }
        let interval_ms = self.duration(&rate.interval, &format!("{path}.interval"))?;
        if rate.burst == Some(0) {
            let reason = "a burst of 0 would let nothing pass".to_owned();
            self.wrong(
                Code::BadValue,
                &format!("{path}.burst"),
                reason,
                "burst: 10",
            );
            return None;
        }
        let by = rate.by.iter().enumerate();
        let by: Option<Vec<LimitKey>> = by
            .map(|(at, key)| self.key(key, &format!("{path}.by[{at}]")))
            .collect();
        Some(RateLimit {
            name: rate.name.as_str().into(),
            requests: rate.requests,
            interval_ms,
            burst: rate.burst.unwrap_or(rate.requests),
            by: by?,
        })
    }

    pub fn duration(&mut self, text: &str, path: &str) -> Option<u64> {
        let parsed = parse_duration(text).filter(|ms| *ms > 0);
        if parsed.is_none() {
            let reason = format!("'{text}' is not a duration of the Gateway API above 0");
            self.wrong(Code::BadValue, path, reason, "write 1s, 500ms, 1m or 1h");
        }
        parsed
    }

    pub fn key(&mut self, key: &cairn::LimitKey, path: &str) -> Option<LimitKey> {
        if key.source != LimitKeySource::Header {
            if key.header.is_some() {
                let reason = "a header needs the type Header".to_owned();
                self.wrong(
                    Code::Conflict,
                    &format!("{path}.header"),
                    reason,
                    "type: Header",
                );
                return None;
            }
            return Some(match key.source {
                LimitKeySource::PeerIdentity | LimitKeySource::Header => LimitKey::PeerIdentity,
                LimitKeySource::PeerNamespace => LimitKey::PeerNamespace,
                LimitKeySource::SourceAddress => LimitKey::SourceAddress,
                LimitKeySource::Service => LimitKey::Service,
            });
        }
        let written = key.header.as_deref().unwrap_or_default();
        match HeaderName::from_bytes(written.as_bytes()) {
            Ok(name) => Some(LimitKey::Header(name)),
            Err(_) => {
                let reason = format!("'{written}' is no name of a header");
                self.wrong(
                    Code::BadValue,
                    &format!("{path}.header"),
                    reason,
                    "header: x-tenant",
                );
                None
            }
        }
    }

    pub fn concurrency(
        &mut self,
        limit: &cairn::Concurrency,
        reached: &[LimitTarget],
    ) -> Option<Concurrency> {
        if limit.max_requests == 0 {
            let reason = "maxRequests of 0 would let nothing pass".to_owned();
            let path = "spec.concurrency.maxRequests";
            self.wrong(Code::BadValue, path, reason, "maxRequests: 1000");
            return None;
        }
        if limit.fair_share && !reached.contains(&LimitTarget::Waypoint) {
            let message = "shares are those of the services of a Gateway";
            let finding = Diagnostic::warning(Code::BadValue, message)
                .with_effect("fairShare makes no difference here")
                .with_hint("target the Gateway");
            let path = "spec.concurrency.fairShare";
            self.findings.push(self.object.mark(finding, path));
        }
        Some(Concurrency {
            requests_max: limit.max_requests,
            fair_share: limit.fair_share,
        })
    }
}
