//! Destinations by number: the engine names a peer by an address and a few strings, and the number stands
//! for all that a destination is. Bounded, for each client is a destination of its own where endpoints
//! are told of it. Connects to nothing.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use pingora_core::protocols::ALPN;
use pingora_core::protocols::tls::CustomALPN;
use pingora_core::upstreams::peer::{HttpPeer, PeerOptions};

use super::connector::HttpVersion;
use crate::limits::{
    UPSTREAM_DESTINATIONS_MAX, UPSTREAM_IDLE_STREAM_TIMEOUT, UPSTREAM_TUNNEL_IDLE_TIMEOUT,
};
use crate::telemetry::counters;
use crate::upstream::Destination;

/// A destination and the version spoken to it: what a pooled connection belongs to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Route {
    pub destination: Destination,
    pub version: HttpVersion,
}

/// A route with its number and the peer that stands for it.
pub(super) struct Named {
    pub number: u64,
    pub route: Route,
    pub template: HttpPeer,
}

/// Destinations by number, and numbers by destination.
#[derive(Default)]
pub(super) struct Routes {
    by_route: HashMap<Route, u64>,
    by_number: HashMap<u64, Used>,
    next: u64,
}

/// A name, and when it was last given out.
struct Used {
    named: Arc<Named>,
    at: Instant,
}

impl Routes {
    /// The name of a route, and the numbers of those that were given up for it. `next_hop`: the TCP
    /// address it is reached through.
    pub fn name(
        &mut self,
        route: Route,
        next_hop: SocketAddr,
        now: Instant,
    ) -> (Arc<Named>, Vec<u64>) {
        let known = self.by_route.get(&route);
        if let Some(used) = known.and_then(|number| self.by_number.get_mut(number)) {
            used.at = now;
            return (used.named.clone(), Vec::new());
        }
        let crowded_out = match self.by_number.len() >= UPSTREAM_DESTINATIONS_MAX {
            true => self.crowd_out(),
            false => Vec::new(),
        };
        self.next += 1;
        let number = self.next;
        let named = Arc::new(Named {
            number,
            template: template(number, next_hop),
            route: route.clone(),
        });
        self.by_route.insert(route, number);
        let used = Used {
            named: named.clone(),
            at: now,
        };
        self.by_number.insert(number, used);
        counters::UPSTREAM_DESTINATIONS.add(1);
        (named, crowded_out)
    }

    /// Gives up the eighth that was not used for longest: not one by one, for each time all are looked at.
    fn crowd_out(&mut self) -> Vec<u64> {
        let mut by_age: Vec<(Instant, u64)> = self
            .by_number
            .iter()
            .map(|(number, used)| (used.at, *number))
            .collect();
        by_age.sort_unstable();
        by_age.truncate(UPSTREAM_DESTINATIONS_MAX / 8);
        let numbers: Vec<u64> = by_age.into_iter().map(|(_, number)| number).collect();
        for number in &numbers {
            self.forget(*number);
        }
        numbers
    }

    fn forget(&mut self, number: u64) {
        if let Some(used) = self.by_number.remove(&number) {
            self.by_route.remove(&used.named.route);
            counters::UPSTREAM_DESTINATIONS.add(-1);
        }
    }

    /// What a number stands for. `None`: it was forgotten.
    pub fn named(&self, number: u64) -> Option<Arc<Named>> {
        self.by_number.get(&number).map(|used| used.named.clone())
    }

    /// Whether a number stands for anything.
    pub fn has(&self, number: u64) -> bool {
        self.by_number.contains_key(&number)
    }

    /// Forgets destinations that `alive` does not know any more, and those that were not used for so long
    /// that no connection to them is kept.
    pub fn retain(&mut self, alive: impl Fn(&Destination) -> bool, now: Instant) {
        let gone = |used: &Used| {
            let unused = now.duration_since(used.at) > UPSTREAM_TUNNEL_IDLE_TIMEOUT;
            unused || !alive(&used.named.route.destination)
        };
        let gone: Vec<u64> = self
            .by_number
            .iter()
            .filter(|(_, used)| gone(used))
            .map(|(number, _)| *number)
            .collect();
        for number in gone {
            self.forget(number);
        }
    }
}

/// The engine's peer for a route. Its address is the next hop, because the engine asks the kernel
/// whether a pooled descriptor is still connected there; its number stands in `sni`, unused without
/// TLS, and in `group_key`, which is part of the pool key.
fn template(number: u64, next_hop: SocketAddr) -> HttpPeer {
    let mut options = PeerOptions::new();
    options.alpn = ALPN::Custom(CustomALPN::new(b"cairn".to_vec()));
    options.idle_timeout = Some(UPSTREAM_IDLE_STREAM_TIMEOUT);
    let mut peer = HttpPeer::new(next_hop, false, number.to_string());
    peer.group_key = number;
    peer.options = options;
    peer
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use cairn_config_schema::snapshot::ProxyProtocol;

    use super::*;
    use crate::upstream::ProxyHeader;

    fn endpoint() -> SocketAddr {
        "10.0.0.1:80".parse().unwrap()
    }

    /// The same endpoint, told of another client.
    fn of_client(port: u16) -> Route {
        Route {
            destination: Destination {
                address: endpoint(),
                identity: None,
                gateway: None,
                tunnel_only: false,
                epoch: 1,
                egress: None,
                proxy: Some(ProxyHeader {
                    version: ProxyProtocol::V2,
                    client: Some((SocketAddr::from(([10, 0, 0, 9], port)), endpoint())),
                }),
                tls: None,
            },
            version: HttpVersion::Http1,
        }
    }

    /// With `proxyProtocol` each connection of a client is a destination of its own.
    #[test]
    fn clients_that_come_and_go_do_not_pile_up() {
        let (mut routes, start) = (Routes::default(), Instant::now());
        let (first, _) = routes.name(of_client(0), endpoint(), start);
        let mut given_up = Vec::new();
        for n in 1..40_000u16 {
            let now = start + Duration::from_millis(n.into());
            let (named, gone) = routes.name(of_client(n), endpoint(), now);
            given_up.extend(gone);
            assert!(routes.by_number.len() <= UPSTREAM_DESTINATIONS_MAX);
            assert_eq!(routes.by_number.len(), routes.by_route.len());
            // It is used all the time.
            let (again, _) = routes.name(of_client(0), endpoint(), now);
            assert_eq!(again.number, first.number, "{n}");
            assert!(routes.has(named.number));
        }
        let known = (1..40_000).filter(|number| routes.has(*number)).count();
        assert_eq!(known + given_up.len(), 39_999);
        assert!(!given_up.contains(&first.number));
    }

    #[test]
    fn what_nobody_used_for_long_is_forgotten() {
        let (mut routes, start) = (Routes::default(), Instant::now());
        let (old, _) = routes.name(of_client(1), endpoint(), start);
        let later = start + UPSTREAM_TUNNEL_IDLE_TIMEOUT + Duration::from_secs(1);
        let (new, _) = routes.name(of_client(2), endpoint(), later);
        routes.retain(|_| true, later);
        assert_eq!(
            (routes.has(old.number), routes.has(new.number)),
            (false, true)
        );
        routes.retain(|_| false, later);
        assert!(!routes.has(new.number));
    }
}
