//! Tokens of sessions: what a client shows so that its requests go to one endpoint (GEP-1619). Reads and
//! writes them, and says whether one is still good; knows no headers and no clock.
//!
//! Rules share no session ("Two Routes Rules have Session Persistence to the Same Service"), whatever their
//! sessions are called: a token is good for its rule alone, and one cookie holds several of them.
//!
//! A token holds no address. It names a rule, a backend and an endpoint by hashes, which are looked up among the
//! backends of the rule and their endpoints: who makes up a token gets to no endpoint that the rule would
//! not have led him to, and no time in it opens anything. It is not signed, for replicas share no secret.

use cairn_config_schema::limits::SESSIONS_PER_NAME_MAX;
use cairn_config_schema::snapshot::{ClusterKey, Endpoint, SessionPersistence};

use crate::balance::key_hash;
use crate::table::RuleRef;

/// Length of a token in characters, always.
const LENGTH: usize = 48;

/// What is between the tokens of several rules.
const BETWEEN: u8 = b'.';

/// Clocks of replicas may differ by so many seconds.
const SKEW_S: u64 = 60;

/// A session, as its token tells of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Session {
    /// The rule whose session it is ([`rule_id`]).
    pub rule: u32,
    /// The backend ([`backend_id`]).
    pub backend: u32,
    /// The endpoint ([`endpoint_id`]).
    pub endpoint: u64,
    /// When it began, in seconds since 1970.
    pub begun_s: u32,
    /// When it was last used, as far as the token knows.
    pub used_s: u32,
}

/// What a rule is called in tokens: by its name if it has one, for its place may change. Without a rule 0, for
/// requests that go to the service itself.
pub fn rule_id(rule: Option<&RuleRef>) -> u32 {
    let Some(reference) = rule else { return 0 };
    let origin = &reference.route.origin;
    let name = reference.rule().and_then(|rule| rule.name.as_deref());
    let place = (reference.rule as u64).to_be_bytes();
    let parts = [
        origin.kind.bare().as_bytes(),
        origin.key.namespace.as_bytes(),
        origin.key.name.as_bytes(),
        name.map_or(&place[..], str::as_bytes),
    ];
    let hashes = parts.into_iter().map(key_hash);
    hashes.fold(0, |all: u64, part| all.rotate_left(17) ^ part) as u32
}

/// What a backend is called in tokens.
pub fn backend_id(key: &ClusterKey) -> u32 {
    key_hash(key.to_string().as_bytes()) as u32
}

/// What an endpoint is called in tokens: another pod at the same address is another one.
pub fn endpoint_id(endpoint: &Endpoint) -> u64 {
    let pod = endpoint.workload.as_ref().map(|w| w.key.to_string());
    let name = format!("{} {}", endpoint.address, pod.unwrap_or_default());
    key_hash(name.as_bytes())
}

impl Session {
    /// Reads a token. `None`: it is none of ours.
    pub fn read(token: &[u8]) -> Option<Self> {
        let digits = |b: &u8| b.is_ascii_digit() || matches!(b, b'a'..=b'f');
        if token.len() != LENGTH || !token.iter().all(digits) {
            return None;
        }
        let token = std::str::from_utf8(token).ok()?;
        let part = |from, to| u64::from_str_radix(token.get(from..to)?, 16).ok();
        Some(Self {
            rule: part(0, 8)? as u32,
            backend: part(8, 16)? as u32,
            endpoint: part(16, 32)?,
            begun_s: part(32, 40)? as u32,
            used_s: part(40, 48)? as u32,
        })
    }

    /// The sessions in a value, the one used last first.
    pub fn all(value: &[u8]) -> impl Iterator<Item = Self> {
        let tokens = value.split(|b| *b == BETWEEN);
        tokens.take(SESSIONS_PER_NAME_MAX).filter_map(Self::read)
    }

    /// The value with this session and those of other rules that the client has, the first of them.
    pub fn write_before(&self, others: &[Self]) -> String {
        let others = others.iter().filter(|other| other.rule != self.rule);
        let mut value = self.write();
        for other in others.take(SESSIONS_PER_NAME_MAX - 1) {
            value.push(char::from(BETWEEN));
            value.push_str(&other.write());
        }
        value
    }

    /// The token.
    pub fn write(&self) -> String {
        let Self {
            rule,
            backend,
            endpoint,
            begun_s,
            used_s,
        } = self;
        format!("{rule:08x}{backend:08x}{endpoint:016x}{begun_s:08x}{used_s:08x}")
    }

    /// Whether it is not over yet. `now_s` is in seconds since 1970.
    pub fn lasts(&self, rules: &SessionPersistence, now_s: u64) -> bool {
        let (begun_s, used_s) = (u64::from(self.begun_s), u64::from(self.used_s));
        let within = |from_s: u64, most_s: Option<u64>| {
            most_s.is_none_or(|most_s| now_s < from_s.saturating_add(most_s))
        };
        // A time that is still to come is nobody's.
        begun_s.max(used_s) <= now_s.saturating_add(SKEW_S)
            && within(begun_s, rules.absolute_timeout_s)
            && within(used_s, rules.idle_timeout_s)
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use cairn_config_schema::snapshot::SessionCarrier;
    use proptest::prelude::*;

    use super::*;

    fn rules(absolute_timeout_s: Option<u64>, idle_timeout_s: Option<u64>) -> SessionPersistence {
        SessionPersistence {
            carrier: SessionCarrier::Cookie {
                name: "s".into(),
                permanent: false,
            },
            absolute_timeout_s,
            idle_timeout_s,
        }
    }

    #[test]
    fn a_session_ends_by_age_or_by_idleness() {
        let session = Session {
            rule: 3,
            backend: 1,
            endpoint: 2,
            begun_s: 1_000,
            used_s: 1_500,
        };
        for (absolute, idle, now_s, lasts) in [
            (None, None, 9_999_999, true),
            (Some(600), None, 1_599, true),
            (Some(600), None, 1_600, false),
            (None, Some(100), 1_599, true),
            (None, Some(100), 1_600, false),
            (Some(10), Some(100), 1_510, false),
            // From a replica whose clock is ahead; from nowhere.
            (None, None, 1_450, true),
            (None, None, 1_400, false),
        ] {
            let rules = rules(absolute, idle);
            assert_eq!(session.lasts(&rules, now_s), lasts, "{rules:?} {now_s}");
        }
    }

    #[test]
    fn another_pod_at_an_address_is_another_endpoint() {
        let at = |last| Endpoint::new((Ipv4Addr::new(10, 0, 0, last), 80).into(), None);
        assert_eq!(endpoint_id(&at(1)), endpoint_id(&at(1)));
        assert_ne!(endpoint_id(&at(1)), endpoint_id(&at(2)));
        // `cluster::tests` has pods.
    }

    #[test]
    fn a_value_holds_a_session_of_each_rule_and_no_more_than_fit() {
        let of_rule = |rule| Session {
            rule,
            backend: 1,
            endpoint: 2,
            begun_s: 3,
            used_s: 4,
        };
        let mut value = String::new();
        for rule in 0..20 {
            let others: Vec<_> = Session::all(value.as_bytes()).collect();
            value = of_rule(rule).write_before(&others);
        }
        let rules: Vec<u32> = Session::all(value.as_bytes()).map(|s| s.rule).collect();
        assert_eq!(
            rules,
            [19, 18, 17, 16, 15, 14, 13, 12],
            "the last used stay"
        );
        // The rule's own is replaced, not added.
        let others: Vec<_> = Session::all(value.as_bytes()).collect();
        let renewed = Session {
            endpoint: 9,
            ..of_rule(15)
        }
        .write_before(&others);
        let all: Vec<_> = Session::all(renewed.as_bytes()).collect();
        assert_eq!((all.len(), all[0].rule, all[0].endpoint), (8, 15, 9));
        assert_eq!(all.iter().filter(|s| s.rule == 15).count(), 1);
        // What is none of ours among them is left out.
        assert_eq!(Session::all(b"abc..x").count(), 0);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            (rule, backend, endpoint, begun_s, used_s) in any::<(u32, u32, u64, u32, u32)>(),
        ) {
            let session = Session { rule, backend, endpoint, begun_s, used_s };
            prop_assert_eq!(Session::read(session.write().as_bytes()), Some(session));
        }

        /// One text for each session: what is read is what would be written.
        #[test]
        fn nothing_else_is_read(token in prop::collection::vec(any::<u8>(), 0..60)) {
            if let Some(session) = Session::read(&token) {
                prop_assert_eq!(session.write().into_bytes(), token);
            }
        }

        #[test]
        fn a_token_with_a_wrong_character_is_none(at in 0..LENGTH, wrong in any::<u8>()) {
            let session = Session { rule: 6, backend: 7, endpoint: 8, begun_s: 9, used_s: 10 };
            let mut token = session.write().into_bytes();
            token[at] = wrong;
            let legal = wrong.is_ascii_digit() || (b'a'..=b'f').contains(&wrong);
            prop_assert_eq!(Session::read(&token).is_some(), legal);
        }
    }
}
