//! What rules ask of a request and a line of the access log does not tell: headers and tokens. It is
//! said for each line, and never assumed in silence.

use std::collections::{BTreeSet, HashMap};
use std::net::SocketAddr;

use cairn_config_schema::snapshot::{
    ClusterKey, Condition, HttpRules, Policy, Service, ServicePort, Snapshot,
};

/// Headers that a line tells.
const TOLD: [&str; 4] = ["host", "x-forwarded-for", "user-agent", "x-request-id"];

/// A token, among the names of headers.
const TOKEN: &str = "the token";

/// By what is dialled, what is asked for and not told.
pub struct Untold {
    by_address: HashMap<SocketAddr, BTreeSet<String>>,
    /// Of what is dialled otherwise: addresses of workloads.
    of_waypoint: BTreeSet<String>,
}

impl Untold {
    /// What the rules of either configuration ask for.
    pub fn new(old: &Snapshot, new: &Snapshot) -> Self {
        let mut untold = Self {
            by_address: HashMap::new(),
            of_waypoint: BTreeSet::new(),
        };
        for snapshot in [old, new] {
            let waypoint = snapshot.waypoint.as_ref();
            for policy in waypoint.into_iter().flat_map(|w| &w.policies) {
                asked_by_policy(policy, &mut untold.of_waypoint);
            }
            if !snapshot.authentications.waypoint.is_empty() {
                untold.of_waypoint.insert(TOKEN.to_owned());
            }
            for service in snapshot.served() {
                for port in &service.ports {
                    let asked = asked(snapshot, service, port);
                    for ip in &service.addresses {
                        let address = SocketAddr::new(*ip, port.number);
                        let there = untold.by_address.entry(address).or_default();
                        there.extend(asked.iter().cloned());
                    }
                }
            }
        }
        untold
    }

    /// What is asked of requests to an address and not told of them.
    pub fn of(&self, to: &str) -> &BTreeSet<String> {
        let address = to.parse().ok();
        let found = address.and_then(|address: SocketAddr| self.by_address.get(&address));
        found.unwrap_or(&self.of_waypoint)
    }
}

fn asked(snapshot: &Snapshot, service: &Service, port: &ServicePort) -> BTreeSet<String> {
    let mut asked = BTreeSet::new();
    for policy in &service.policies {
        asked_by_policy(policy, &mut asked);
    }
    if !snapshot.authentications.of_service(&service.key).is_empty() {
        asked.insert(TOKEN.to_owned());
    }
    let rules = port.routes.iter().flat_map(|route| &route.rules);
    let matches = rules.flat_map(|rule| &rule.matches);
    for matched in matches {
        let absent = matched.more.iter().flat_map(|more| &more.without_headers);
        for header in matched.headers.iter().chain(absent) {
            add(header.name.as_str(), &mut asked);
        }
    }
    let key = ClusterKey::new(service.key.clone(), port.number);
    let policies = snapshot.network.about(&key);
    for rule in policies.flat_map(|policy| &policy.rules) {
        if let HttpRules::Cilium(rules) = &rule.http {
            for rule in rules {
                let plain = rule.headers.iter().map(|(name, _)| name);
                let matched = rule.header_matches.iter().map(|expected| &expected.name);
                plain
                    .chain(matched)
                    .for_each(|name| add(name.as_str(), &mut asked));
            }
        }
    }
    asked
}

fn asked_by_policy(policy: &Policy, asked: &mut BTreeSet<String>) {
    for rule in &policy.rules {
        if rule.from.iter().any(|s| !s.request_principals.is_empty()) {
            asked.insert(TOKEN.to_owned());
        }
        for condition in &rule.when {
            match condition {
                Condition::RequestHeader { name, .. } => add(name.as_str(), asked),
                Condition::RequestPrincipal(_)
                | Condition::Audience(_)
                | Condition::Presenter(_)
                | Condition::Claim { .. } => {
                    asked.insert(TOKEN.to_owned());
                }
                _ => {}
            }
        }
    }
}

fn add(name: &str, asked: &mut BTreeSet<String>) {
    if !TOLD.contains(&name) {
        asked.insert(format!("header {name}"));
    }
}
