//! Single values of a traffic policy, each with what is said about a bad one. A bad value is an error
//! and leaves the default in force: balancing carries no permission.

use std::sync::Arc;

use http::header::HeaderName;

use super::Findings;
use crate::diagnostics::{Code, Diagnostic};
use crate::duration;
use crate::limits::{MAGLEV_SIZE_MAX, RING_POINTS_MAX};
use crate::resources::Object;
use crate::resources::destination_rule::{
    ConsistentHash, DestinationRuleSpec, HttpCookie, LoadBalancer, RetryBudget, Warmup,
};
use crate::snapshot::{self, Balancer, HashBy, HashTable, LoadBalancing};

/// A rule that is being read.
pub(super) struct Reading<'r> {
    pub(super) object: &'r Object<DestinationRuleSpec>,
    pub(super) findings: &'r mut Findings,
}

impl Reading<'_> {
    pub(super) fn find(&mut self, finding: Diagnostic, path: &str) {
        self.findings.push(self.object.mark(finding, path));
    }

    /// A field of the API that is read and has no effect yet.
    pub(super) fn unsupported(&mut self, path: &str, effect: &str) {
        let name = path.strip_prefix("spec.").unwrap_or(path);
        let finding =
            Diagnostic::warning(Code::Unsupported, format!("{name} is not supported yet"))
                .with_effect(effect);
        self.find(finding, path);
    }

    fn bad(&mut self, message: String, effect: &str, path: &str) {
        let finding = Diagnostic::error(Code::BadValue, message).with_effect(effect);
        self.find(finding, path);
    }

    /// A duration above zero, in milliseconds.
    pub(super) fn duration_ms(&mut self, text: &str, path: &str) -> Option<u64> {
        let ms = duration::go_ms(text).filter(|ms| *ms > 0);
        if ms.is_none() {
            let message = format!("'{text}' is no duration like 10s or 500ms");
            self.bad(message, "the default is in force", path);
        }
        ms
    }

    pub(super) fn percent(&mut self, number: i64, path: &str) -> Option<u8> {
        let percent = u8::try_from(number).ok().filter(|n| *n <= 100);
        if percent.is_none() {
            let message = format!("{number} is no share between 0 and 100");
            self.bad(message, "the default is in force", path);
        }
        percent
    }

    /// A limit; 0 stands for none, as in Istio.
    pub(super) fn limit(&mut self, number: Option<i64>, path: &str) -> Option<u32> {
        let number = number.filter(|n| *n != 0)?;
        let limit = u32::try_from(number).ok();
        if limit.is_none() {
            let message = format!("{number} is no limit between 0 and {}", u32::MAX);
            self.bad(message, "there is no limit", path);
        }
        limit
    }

    /// Of the requests in flight: intervals are XBackendTrafficPolicy's.
    pub(super) fn retry_budget(
        &mut self,
        written: &RetryBudget,
        path: &str,
    ) -> snapshot::RetryBudget {
        let default = snapshot::RetryBudget::DEFAULT;
        let percent = written.percent.unwrap_or(20.0);
        let basis_points = if (0.0..=100.0).contains(&percent) {
            (percent * 100.0).round() as u32
        } else {
            let message = format!("{percent} is no share between 0 and 100");
            self.bad(
                message,
                "the default is in force",
                &format!("{path}.percent"),
            );
            default.basis_points
        };
        let interval = written.budget_interval.as_ref();
        let interval_ms = interval
            .filter(|text| duration::go_ms(text) != Some(0))
            .and_then(|text| self.duration_ms(text, &format!("{path}.budgetInterval")));
        snapshot::RetryBudget {
            basis_points,
            concurrency_min: (written.min_retry_concurrency).unwrap_or(default.concurrency_min),
            // Without one those in flight are counted (specs/policies.md 2.7).
            window: interval_ms.map(|interval_ms| snapshot::RetryWindow {
                interval_ms,
                least_count: 0,
                least_interval_ms: interval_ms,
            }),
        }
    }

    pub(super) fn load_balancing(&mut self, written: &LoadBalancer, path: &str) -> LoadBalancing {
        let balancer = match (&written.consistent_hash, &written.simple) {
            (Some(hash), simple) => {
                if simple.is_some() {
                    let message = "loadBalancer has either simple or consistentHash".to_owned();
                    self.bad(
                        message,
                        "consistentHash is in force",
                        &format!("{path}.simple"),
                    );
                }
                self.consistent_hash(hash, &format!("{path}.consistentHash"))
            }
            (None, Some(simple)) => self.simple(simple, &format!("{path}.simple")),
            (None, None) => Balancer::default(),
        };
        let warmup = self.warmup(written, path).filter(|_| {
            let honoured = matches!(balancer, Balancer::LeastRequest | Balancer::RoundRobin);
            if !honoured {
                let effect = "only LEAST_REQUEST and ROUND_ROBIN warm up";
                self.unsupported(&format!("{path}.warmup"), effect);
            }
            honoured
        });
        LoadBalancing {
            balancer,
            warmup,
            ..LoadBalancing::default()
        }
    }

    fn simple(&mut self, name: &str, path: &str) -> Balancer {
        match name {
            "UNSPECIFIED" | "LEAST_REQUEST" | "LEAST_CONN" => Balancer::LeastRequest,
            "ROUND_ROBIN" => Balancer::RoundRobin,
            "RANDOM" => Balancer::Random,
            // The address that was dialled is the service's own: nobody is there to pass through to.
            "PASSTHROUGH" => {
                self.unsupported(path, "requests go to the endpoint with the fewest of two");
                Balancer::default()
            }
            other => {
                let message = format!("there is no algorithm '{other}'");
                let finding = Diagnostic::error(Code::BadValue, message)
                    .with_effect("LEAST_REQUEST is in force")
                    .with_hint("LEAST_REQUEST, ROUND_ROBIN or RANDOM");
                self.find(finding, path);
                Balancer::default()
            }
        }
    }

    fn consistent_hash(&mut self, written: &ConsistentHash, path: &str) -> Balancer {
        let mut keys = Vec::new();
        if let Some(name) = &written.http_header_name {
            keys.extend(self.header(name, &format!("{path}.httpHeaderName")));
        }
        if let Some(cookie) = &written.http_cookie {
            keys.extend(self.cookie(cookie, &format!("{path}.httpCookie")));
        }
        if written.use_source_ip == Some(true) {
            keys.push(HashBy::SourceIp);
        }
        if let Some(name) = &written.http_query_parameter_name {
            keys.push(HashBy::Query(name.as_str().into()));
        }
        let count = keys.len();
        let Some(by) = keys.into_iter().next() else {
            let message = "consistentHash needs a key".to_owned();
            self.bad(message, "LEAST_REQUEST is in force", path);
            return Balancer::default();
        };
        if count > 1 {
            let message = "consistentHash has one key".to_owned();
            self.bad(
                message,
                "the first of header, cookie, address and parameter is in force",
                path,
            );
        }
        Balancer::Hash(snapshot::ConsistentHash {
            by,
            table: self.table(written, path),
            load_bound_percent: None,
        })
    }

    fn header(&mut self, name: &str, path: &str) -> Option<HashBy> {
        let header = HeaderName::from_bytes(name.as_bytes()).ok();
        if header.is_none() {
            self.bad(format!("'{name}' is no header name"), "it is no key", path);
        }
        header.map(HashBy::Header)
    }

    fn cookie(&mut self, written: &HttpCookie, path: &str) -> Option<HashBy> {
        if written.attributes.as_ref().is_some_and(|a| !a.is_empty()) {
            let effect = "a cookie that is made has its path and age alone";
            self.unsupported(&format!("{path}.attributes"), effect);
        }
        // The name and path go into a header as they are.
        let is_token = |text: &str| {
            let mut bytes = text.bytes();
            bytes.all(|b| b.is_ascii_graphic() && !matches!(b, b';' | b',' | b'=' | b'"'))
        };
        let wrong_path = written.path.as_deref().is_some_and(|path| !is_token(path));
        if written.name.is_empty() || !is_token(&written.name) || wrong_path {
            let message = format!("'{}' is no cookie with a name and a path", written.name);
            self.bad(message, "it is no key", path);
            return None;
        }
        let ttl_ms = written.ttl.as_ref().and_then(|text| {
            let ms = duration::go_ms(text);
            if ms.is_none() {
                let message = format!("'{text}' is no duration like 10s");
                self.bad(message, "no cookie is made", &format!("{path}.ttl"));
            }
            ms
        });
        Some(HashBy::Cookie {
            name: written.name.as_str().into(),
            path: written.path.as_deref().map(Arc::from),
            ttl_s: ttl_ms.map(|ms| ms.div_ceil(1_000)),
        })
    }

    fn table(&mut self, written: &ConsistentHash, path: &str) -> HashTable {
        if let Some(maglev) = &written.maglev {
            let size = maglev.table_size.unwrap_or(MAGLEV_SIZE);
            let good = u32::try_from(size)
                .ok()
                .filter(|n| *n <= MAGLEV_SIZE_MAX && is_prime(*n));
            if good.is_none() {
                let message = format!("{size} is no prime up to {MAGLEV_SIZE_MAX}");
                let effect = format!("the table has {MAGLEV_SIZE} entries");
                self.bad(message, &effect, &format!("{path}.maglev.tableSize"));
            }
            let size = good.unwrap_or(MAGLEV_SIZE as u32);
            return HashTable::Maglev { size };
        }
        let of_ring = written.ring_hash.as_ref().and_then(|r| r.minimum_ring_size);
        let (points, field) = match (of_ring, written.minimum_ring_size) {
            (Some(points), _) => (points, "ringHash.minimumRingSize"),
            (None, Some(points)) => (points, "minimumRingSize"),
            (None, None) => (RING_POINTS, "ringHash.minimumRingSize"),
        };
        if points > u64::from(RING_POINTS_MAX) {
            let message = format!("a ring of {points} points is larger than {RING_POINTS_MAX}");
            let effect = format!("it has {RING_POINTS_MAX} points");
            self.bad(message, &effect, &format!("{path}.{field}"));
        }
        let points_min = u32::try_from(points)
            .unwrap_or(u32::MAX)
            .clamp(1, RING_POINTS_MAX);
        HashTable::Ring { points_min }
    }

    fn warmup(&mut self, written: &LoadBalancer, path: &str) -> Option<snapshot::Warmup> {
        let of_seconds = written
            .warmup_duration_secs
            .as_ref()
            .map(|duration| Warmup {
                duration: duration.clone(),
                ..Warmup::default()
            });
        let (warmup, path) = match (&written.warmup, of_seconds) {
            (Some(warmup), _) => (warmup.clone(), format!("{path}.warmup.duration")),
            (None, Some(warmup)) => (warmup, format!("{path}.warmupDurationSecs")),
            (None, None) => return None,
        };
        let duration_ms = self.duration_ms(&warmup.duration, &path)?;
        let minimum = warmup.minimum_percent.unwrap_or(10.0);
        let aggression = warmup.aggression.unwrap_or(1.0);
        if !(0.0..=100.0).contains(&minimum) || !aggression.is_finite() || aggression <= 0.0 {
            let message =
                "minimumPercent is a share up to 100, aggression a number above 0".to_owned();
            self.bad(message, "new endpoints get a whole share at once", &path);
            return None;
        }
        Some(snapshot::Warmup {
            duration_ms,
            minimum_percent: (minimum.round() as u8).max(1),
            aggression,
        })
    }
}

/// Istio's defaults (specs/policies.md 2.7).
const RING_POINTS: u64 = 1_024;
const MAGLEV_SIZE: u64 = 65_537;

fn is_prime(number: u32) -> bool {
    number >= 2
        && (2..)
            .take_while(|n| n * n <= number)
            .all(|n| !number.is_multiple_of(n))
}
