//! What is known of a name: addresses that may be used, or why there are none. Looks nothing up.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use cairn_config_schema::snapshot::{Discovery, Endpoint, NamedEndpoint, Snapshot};
use rustc_hash::FxHashSet;

use crate::limits::{DNS_ADDRESSES_MAX, DNS_STALE_MAX};

/// How every reason begins that is about names.
pub const DNS: &str = "DNS: ";

/// What is known of a name.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Its addresses, in the order of the answer; none that no name may lead to.
    pub addresses: Vec<IpAddr>,
    /// Why there are none, or no newer ones.
    pub reason: Option<Arc<str>>,
    /// When the addresses were answered.
    pub answered: Instant,
}

/// How a lookup ended.
#[derive(Clone, Debug)]
pub enum Looked {
    /// With addresses, which hold for so long.
    Found(Vec<IpAddr>, Duration),
    /// The name has none, says who must know; which holds for so long.
    Nothing(String, Duration),
    /// Nobody said.
    Failed(String),
}

impl Answer {
    /// After a lookup. Without an answer the last one holds, to a limit of age.
    pub fn after(
        looked: Looked,
        before: Option<&Answer>,
        forbidden: impl Fn(IpAddr) -> Option<&'static str>,
        now: Instant,
    ) -> Self {
        match looked {
            Looked::Found(addresses, _) => Self::of(addresses, forbidden, now),
            Looked::Nothing(reason, _) => Self {
                addresses: Vec::new(),
                reason: Some(reason.into()),
                answered: now,
            },
            Looked::Failed(reason) => {
                let young = before.filter(|b| now.duration_since(b.answered) < DNS_STALE_MAX);
                Self {
                    addresses: young.map(|b| b.addresses.clone()).unwrap_or_default(),
                    reason: Some(reason.into()),
                    answered: before.map_or(now, |b| b.answered),
                }
            }
        }
    }

    fn of(
        found: Vec<IpAddr>,
        forbidden: impl Fn(IpAddr) -> Option<&'static str>,
        now: Instant,
    ) -> Self {
        let mut addresses: Vec<IpAddr> = Vec::new();
        let mut reason = None;
        for address in found.iter().map(IpAddr::to_canonical) {
            match forbidden(address) {
                Some(why) => {
                    let words =
                        format!("it leads to {address}, {why}, where nothing is sent by name");
                    reason.get_or_insert(words);
                }
                None if addresses.len() >= DNS_ADDRESSES_MAX => {
                    let words = format!(
                        "of {} addresses the first {DNS_ADDRESSES_MAX} are used",
                        found.len()
                    );
                    reason.get_or_insert(words);
                }
                None if !addresses.contains(&address) => addresses.push(address),
                None => {}
            }
        }
        Self {
            addresses,
            reason: reason.map(Into::into),
            answered: now,
        }
    }

    /// Whether both lead to the same.
    pub fn is_like(&self, other: &Self) -> bool {
        self.addresses == other.addresses && self.reason == other.reason
    }
}

/// Addresses of the mesh, which no name may lead to: of Services, of workloads, and of pods that are
/// none, for they can not be read.
#[derive(Debug, Default)]
pub struct MeshAddresses(FxHashSet<IpAddr>);

impl MeshAddresses {
    /// Those of a snapshot.
    pub fn of(snapshot: &Snapshot) -> Self {
        let services = snapshot.services.values();
        let of_services = services.flat_map(|service| service.addresses.iter());
        let of_pods = snapshot.workloads.keys().chain(&snapshot.unidentified);
        Self(
            of_pods
                .chain(of_services)
                .map(IpAddr::to_canonical)
                .collect(),
        )
    }

    /// Whether an address is one of them.
    pub fn contains(&self, ip: IpAddr) -> bool {
        self.0.contains(&ip.to_canonical())
    }
}

/// The endpoints of a cluster: those the configuration lists, and the addresses of its names. An address
/// of the mesh is that of whoever has it there, whatever DNS says: policy for it would be passed by. And
/// why there are none.
pub fn endpoints(
    listed: &[Endpoint],
    discovery: &Discovery,
    mesh: &MeshAddresses,
    known: impl Fn(&str) -> Option<Arc<Answer>>,
) -> (Vec<Endpoint>, Option<Arc<str>>) {
    let mut endpoints = listed.to_vec();
    let mut reason = None;
    if let Discovery::Names { names, first_only } = discovery {
        for named in names {
            match known(&named.name) {
                Some(answer) => {
                    let taken = if *first_only { 1 } else { usize::MAX };
                    let free = answer.addresses.iter().filter(|ip| !mesh.contains(**ip));
                    endpoints.extend(free.take(taken).map(|ip| endpoint(*ip, named)));
                    let why = answer.reason.as_ref();
                    let why = why.map_or(
                        "its addresses are those of workloads or Services of the mesh",
                        |why| why,
                    );
                    reason.get_or_insert_with(|| format!("{DNS}{}: {why}", named.name));
                }
                None => {
                    reason.get_or_insert_with(|| {
                        format!("{DNS}{} was not looked up yet", named.name)
                    });
                }
            }
        }
    }
    endpoints.sort_by_key(|endpoint| endpoint.address);
    endpoints.dedup_by_key(|endpoint| endpoint.address);
    let reason = reason.filter(|_| endpoints.is_empty());
    (endpoints, reason.map(Into::into))
}

/// No workload: whoever answers for a name is shown no identity of the mesh, and reached in plain text or
/// by TLS of a DestinationRule.
fn endpoint(address: IpAddr, named: &NamedEndpoint) -> Endpoint {
    Endpoint {
        weight: named.weight,
        ..Endpoint::new(SocketAddr::new(address, named.port), None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guarded::forbidden;

    fn found(addresses: &[&str]) -> Looked {
        let addresses = addresses.iter().map(|a| a.parse().unwrap());
        Looked::Found(addresses.collect(), Duration::from_secs(60))
    }

    fn after(looked: Looked, before: Option<&Answer>, now: Instant) -> Answer {
        Answer::after(looked, before, |ip| forbidden(ip, false), now)
    }

    #[test]
    fn an_answer_leads_nowhere_it_must_not_lead() {
        let now = Instant::now();
        let answer = after(
            found(&["192.0.2.1", "169.254.169.254", "::ffff:127.0.0.1"]),
            None,
            now,
        );
        assert_eq!(answer.addresses, ["192.0.2.1".parse::<IpAddr>().unwrap()]);
        let answer = after(found(&["169.254.169.254"]), None, now);
        assert!(answer.addresses.is_empty());
        let reason = answer.reason.unwrap();
        assert_eq!(
            &*reason,
            "it leads to 169.254.169.254, a metadata address, where nothing is sent by name"
        );
    }

    #[test]
    fn a_failed_lookup_keeps_the_last_answer_to_a_limit_of_age() {
        let start = Instant::now();
        let first = after(found(&["192.0.2.1"]), None, start);
        let failed = || Looked::Failed("timed out".into());
        let second = after(failed(), Some(&first), start + DNS_STALE_MAX / 2);
        assert_eq!(second.addresses, first.addresses);
        assert_eq!(second.answered, start, "it grows no younger");
        let third = after(failed(), Some(&second), start + DNS_STALE_MAX);
        assert!(third.addresses.is_empty());
        assert_eq!(third.reason.as_deref(), Some("timed out"));
    }

    #[test]
    fn that_a_name_has_no_address_is_an_answer() {
        let now = Instant::now();
        let first = after(found(&["192.0.2.1"]), None, now);
        let gone = Looked::Nothing("there is no such name".into(), Duration::ZERO);
        let second = after(gone, Some(&first), now);
        assert!(second.addresses.is_empty());
    }

    #[test]
    fn of_many_addresses_the_first_are_used() {
        let many: Vec<String> = (0..1_000)
            .map(|n| format!("198.51.{}.{}", n / 250, n % 250))
            .collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        let answer = after(found(&many), None, Instant::now());
        assert_eq!(answer.addresses.len(), DNS_ADDRESSES_MAX);
        assert!(
            answer
                .reason
                .unwrap()
                .starts_with("of 1000 addresses the first")
        );
    }

    /// specs/istio-waypoint.md 4.2: a pod whose identity is unknown would get it in plain text, and past
    /// its policies.
    #[test]
    fn no_name_leads_to_an_address_of_the_mesh() {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let snapshot = Snapshot {
            unidentified: [ip("10.0.0.5")].into(),
            ..Snapshot::default()
        };
        let mesh = MeshAddresses::of(&snapshot);
        let answer = Arc::new(after(
            found(&["10.0.0.5", "192.0.2.1"]),
            None,
            Instant::now(),
        ));
        let discovery = Discovery::Names {
            names: vec![NamedEndpoint {
                name: "api.example.com".into(),
                port: 443,
                weight: 1,
                labels: Arc::default(),
            }],
            first_only: false,
        };
        let (endpoints, _) = endpoints(&[], &discovery, &mesh, |_| Some(answer.clone()));
        let addresses: Vec<_> = endpoints.iter().map(|e| e.address.to_string()).collect();
        assert_eq!(addresses, ["192.0.2.1:443"]);
        assert!(mesh.contains(ip("::ffff:10.0.0.5")));
    }
}
