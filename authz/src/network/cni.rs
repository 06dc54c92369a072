//! What the CNI makes of a connection by the policies of Cilium and Calico (specs/policies.md 2.4), for
//! `explain`. It sees pods and ports; what is inside of a tunnel it does not, and what its own proxy
//! would make of HTTP is not worked out here.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use cairn_config_schema::origin::{ObjectKey, Origin};
use cairn_config_schema::snapshot::{
    Direction, HttpRules, NetworkAction, NetworkPolicy, NetworkRule, NetworkSubject, Selecting,
    Surface, Truth, World,
};

use super::party::Party;
use super::verdict::NetworkWhy;
use super::{Port, Subject};
use crate::cni::{Connection, Passage};
use crate::facts::{Attestation, Facts};

/// What these policies make of a connection at one end. Those that do not select the end say nothing.
pub(crate) fn passage(
    connection: &Connection<'_>,
    policies: &[Selecting],
    direction: Direction,
) -> Passage {
    let (own, other) = match direction {
        Direction::Ingress => (&connection.to, &connection.from),
        Direction::Egress => (&connection.from, &connection.to),
    };
    let in_force =
        |s: &&Selecting| s.policy.direction == direction && s.policy.standing.is_in(World::InForce);
    let (mut selected, mut doubtful) = (Vec::new(), Vec::new());
    // A pod in the network of its node is the node (specs/policies.md 2.1.2).
    for selecting in policies
        .iter()
        .filter(in_force)
        .filter(|_| !own.host_network)
    {
        match selecting.selects(&own.view) {
            Truth::Yes => selected.push(selecting.policy.clone()),
            Truth::Unknown => doubtful.push(selecting.policy.clone()),
            Truth::No => {}
        }
    }
    if !doubtful.is_empty() {
        return unknown(&doubtful, "whether the policy selects the pod");
    }
    let asked = Asked {
        party: Party::of_end(other, direction == Direction::Ingress),
        port: Port {
            number: connection.port,
            names: connection.to.named_ports.unwrap_or_default(),
        },
        in_tunnel: connection.port == HBONE,
    };
    asked.of(selected)
}

/// Where tunnels come in: what is spoken there is no HTTP that a CNI could read.
const HBONE: u16 = 15008;

struct Asked<'a> {
    party: Party<'a>,
    port: Port<'a>,
    in_tunnel: bool,
}

impl Asked<'_> {
    fn of(&self, policies: Vec<Arc<NetworkPolicy>>) -> Passage {
        let subject = NetworkSubject {
            workload: ObjectKey::new("", ""),
            port: Some(self.port.number),
            policies,
            unknown: None,
            unknown_in_trial: None,
        };
        let all = &subject.policies;
        let through = |policies: Vec<_>, rule| Passage {
            passes: Truth::Yes,
            policies,
            rule,
            unknown: None,
        };
        // The rules of named ports are found by the names, so that the port is not said beforehand.
        let by_name = NetworkSubject {
            port: None,
            ..subject.clone()
        };
        let Some(compiled) = Subject::compile(&by_name, World::InForce) else {
            return through(Vec::new(), None);
        };
        let verdict = compiled.decide(&facts(), &self.party, self.port);
        let rule = verdict.rule().map(|rule| rule.path.clone());
        let deciding = || verdict.origin().cloned().into_iter().collect();
        match verdict.why {
            NetworkWhy::Allowed => through(deciding(), rule),
            NetworkWhy::NothingDenies => through(Vec::new(), None),
            NetworkWhy::Authentication => {
                unknown(all, "whether Cilium has authenticated both ends")
            }
            NetworkWhy::Broken | NetworkWhy::Unknown(_) => {
                unknown(all, "what a policy says that can not be evaluated")
            }
            NetworkWhy::Denied | NetworkWhy::NoRule => {
                let is_settled = verdict.rule().is_some_and(|rule| self.is_settled_by(rule))
                    && verdict
                        .policy
                        .as_ref()
                        .is_some_and(|p| p.surface == Surface::Cilium);
                match self.doubt(all).filter(|_| !is_settled) {
                    Some(what) => unknown(all, what),
                    None => Passage {
                        passes: Truth::No,
                        policies: match &verdict.policy {
                            Some(_) => deciding(),
                            None => origins(all),
                        },
                        rule,
                        unknown: None,
                    },
                }
            }
        }
    }

    /// Whether a rule is certainly for the connection: of Cilium's, one that denies settles it.
    fn is_settled_by(&self, rule: &NetworkRule) -> bool {
        rule.broken.is_none() && self.party.is_among(&rule.peers) == Truth::Yes
    }

    /// Why a denial may be none: a rule may be for the connection of which that is not known.
    fn doubt(&self, policies: &[Arc<NetworkPolicy>]) -> Option<&'static str> {
        let rules = policies.iter().flat_map(|policy| &policy.rules);
        let mut there = rules.filter(|rule| self.port.is_among(rule.ports.as_deref()));
        there.find_map(|rule| self.doubt_of(rule))
    }

    fn doubt_of(&self, rule: &NetworkRule) -> Option<&'static str> {
        if rule.action == NetworkAction::Log {
            return None;
        }
        match self.party.is_among(&rule.peers) {
            Truth::No => None,
            Truth::Unknown => Some("the other end"),
            Truth::Yes if rule.broken.is_some() => {
                Some("what a policy says that can not be evaluated")
            }
            Truth::Yes if rule.http != HttpRules::NotAsked && !self.in_tunnel => {
                Some("what the CNI's own proxy makes of the request")
            }
            Truth::Yes => None,
        }
    }
}

fn unknown(policies: &[Arc<NetworkPolicy>], what: &'static str) -> Passage {
    Passage {
        passes: Truth::Unknown,
        policies: origins(policies),
        rule: None,
        unknown: Some(what),
    }
}

/// Each object once; one may hold several policies (Cilium's `specs`).
fn origins(policies: &[Arc<NetworkPolicy>]) -> Vec<Origin> {
    let mut origins: Vec<Origin> = policies.iter().map(|p| p.origin.clone()).collect();
    origins.dedup();
    origins
}

/// Nothing but that it is no HTTP: all else is asked of the party.
fn facts() -> Facts<'static> {
    let nowhere = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
    Facts {
        peer: None,
        attested_by: Attestation::Certificate,
        source_ip: nowhere,
        remote_ip: nowhere,
        destination_ip: nowhere,
        destination_port: 0,
        backends: &[],
        http: None,
    }
}
