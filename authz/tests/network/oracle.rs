//! What specs/policies.md 2.1 and 2.5 say, written down as plainly as possible, for a source of which
//! everything is known: no truth between yes and no, no order but the spec's, nothing skipped.

use cairn_config_schema::snapshot::{
    AuthenticationMode, CalicoPath, CiliumHttpRule, Entity, HttpRules, LabelExpression, Mismatch,
    NetSets, NetworkAction, NetworkPolicy, NetworkRule, Peer, Peers, PortSet, Surface,
};

use std::net::IpAddr;

use crate::generate::{PATTERNS, Request, World};

/// Headers as lines.
pub type Lines = Vec<(String, String)>;

pub fn holds(labels: &LabelExpression, world: &World) -> bool {
    let value = |key: &str| match key {
        "io.kubernetes.pod.namespace" => Some(world.namespace.as_str()),
        key => world.labels.get(key).map(String::as_str),
    };
    match labels {
        LabelExpression::In(key, values) => {
            value(key).is_some_and(|found| values.iter().any(|v| **v == *found))
        }
        LabelExpression::Has(key) => value(key).is_some(),
        LabelExpression::Not(inner) => !holds(inner, world),
        LabelExpression::All(inner) => inner.iter().all(|e| holds(e, world)),
        LabelExpression::Any(inner) => inner.iter().any(|e| holds(e, world)),
        other => panic!("not generated: {other:?}"),
    }
}

fn is_among(sources: &Peers, world: &World, address: IpAddr) -> bool {
    match sources {
        Peers::Anybody => true,
        Peers::AnyOf(peers) => peers.iter().any(|peer| match peer {
            Peer::Endpoints(labels) => holds(labels, world),
            Peer::Entity(Entity::World) => world.outside,
            Peer::Entity(entity) => matches!(entity, Entity::All | Entity::Cluster),
            // Endpoints of the cluster are never matched by their addresses.
            Peer::Cidr { block, .. } => world.outside && block.contains(&address),
            Peer::Name(_) | Peer::Services(_) | Peer::Unknowable(_) => panic!("not generated"),
        }),
        Peers::Criteria(c) => {
            let is_in = |sets: &NetSets| sets.nets.iter().any(|net| net.contains(&address));
            let nets = c.nets.iter().flatten().any(|net| net.contains(&address));
            let account = |names: &Vec<_>| {
                names
                    .iter()
                    .any(|n: &std::sync::Arc<str>| **n == *world.account)
            };
            (c.nets.is_none() || nets)
                && c.selector
                    .as_ref()
                    .is_none_or(|s| holds(s, world) || is_in(&c.sets))
                && c.not_selector
                    .as_ref()
                    .is_none_or(|s| !(holds(s, world) || is_in(&c.not_sets)))
                && c.service_accounts.as_ref().is_none_or(account)
        }
    }
}

fn has_port(ports: &Option<Vec<PortSet>>, port: u16) -> bool {
    fn is_in(set: &PortSet, port: u16) -> bool {
        match set {
            PortSet::Range(first, last) => port >= *first && port <= *last,
            PortSet::Not(sets) => sets.iter().all(|set| !is_in(set, port)),
            PortSet::Named(_) => panic!("not generated"),
        }
    }
    match ports {
        None => true,
        Some(sets) => sets.iter().any(|set| is_in(set, port)),
    }
}

fn matches_pattern(source: &str, value: &str) -> bool {
    match source {
        "GET" => value == "GET",
        "GET|POST" => value == "GET" || value == "POST",
        source => PATTERNS.iter().find(|(s, _)| *s == source).unwrap().1(value),
    }
}

fn joined(lines: &Lines, name: &str) -> Option<String> {
    let values: Vec<&str> = lines
        .iter()
        .filter(|(n, _)| n == name)
        .map(|(_, v)| v.as_str())
        .collect();
    (!values.is_empty()).then(|| values.join(","))
}

fn matches_cilium(rule: &CiliumHttpRule, method: &str, target: &str, lines: &mut Lines) -> bool {
    let plain = rule
        .method
        .as_ref()
        .is_none_or(|p| matches_pattern(p.source(), method))
        && rule
            .path
            .as_ref()
            .is_none_or(|p| matches_pattern(p.source(), target))
        && rule.headers.iter().all(|(name, value)| {
            let found = joined(lines, name.as_str());
            match value {
                None => found.is_some(),
                Some(value) => found.as_deref() == Some(value.to_str().unwrap()),
            }
        });
    if !plain {
        return false;
    }
    let mut matched = true;
    for expected in &rule.header_matches {
        let name = expected.name.as_str();
        let found = joined(lines, name);
        let value = expected
            .value
            .as_ref()
            .map(|v| v.to_str().unwrap().to_owned());
        let holds = match &value {
            None => found.is_some(),
            Some(_) => found == value,
        };
        if holds {
            continue;
        }
        match (expected.mismatch, value) {
            (Mismatch::Fail, _) => matched = false,
            (Mismatch::Add, Some(value)) => lines.push((name.to_owned(), value)),
            (Mismatch::Replace, Some(value)) => {
                lines.retain(|(n, _)| n != name);
                lines.push((name.to_owned(), value));
            }
            (Mismatch::Delete, Some(_)) => lines.retain(|(n, _)| n != name),
            _ => {}
        }
    }
    matched
}

/// Whether Cilium lets it pass, and the headers it leaves.
pub fn cilium(policies: &[NetworkPolicy], request: &Request, world: &World) -> (bool, Lines) {
    let lines = request.headers.iter();
    let mut lines: Lines = lines
        .map(|(n, v)| (n.to_string(), v.to_str().unwrap().to_owned()))
        .collect();
    let rules = || policies.iter().flat_map(|p| &p.rules);
    let is_for = |r: &NetworkRule| {
        has_port(&r.ports, request.port) && is_among(&r.peers, world, request.address())
    };
    let denied = rules().any(|r| {
        r.action == NetworkAction::Deny
            && has_port(&r.ports, request.port)
            && (r.broken.is_some() || is_among(&r.peers, world, request.address()))
    });
    if denied {
        return (false, lines);
    }
    let mut allowed = false;
    let mut mode = None;
    for rule in rules().filter(|r| r.action == NetworkAction::Allow && r.broken.is_none()) {
        if !is_for(rule) {
            continue;
        }
        mode = mode.max(rule.authentication);
        allowed |= match (&rule.http, &request.http) {
            (HttpRules::NotAsked, _) => true,
            (HttpRules::Cilium(http), Some((method, path, query))) => {
                let query = query.as_ref().map(|q| format!("?{q}"));
                let target = format!("{path}{}", query.unwrap_or_default());
                let changes = http.iter().any(|rule| !rule.header_matches.is_empty());
                let mut any = false;
                for rule in http {
                    // Without side effects the first that matches is enough, and it makes no difference.
                    if any && !changes {
                        break;
                    }
                    any |= matches_cilium(rule, method, &target, &mut lines);
                }
                any
            }
            _ => false,
        };
    }
    // L7 rules deny what they do not allow even where nothing is denied by default. A rule is broken
    // by its L7 part.
    let is_l7 = |r: &NetworkRule| r.broken.is_some() || r.http != HttpRules::NotAsked;
    let on_l7 = rules().any(|r| r.action == NetworkAction::Allow && is_l7(r) && is_for(r));
    let by_default = !on_l7 && !policies.iter().any(|p| p.default_deny);
    let authentic = mode != Some(AuthenticationMode::TestAlwaysFail);
    ((allowed || by_default) && authentic, lines)
}

/// Whether Calico lets it pass.
pub fn calico(policies: &[NetworkPolicy], request: &Request, world: &World) -> bool {
    let mut tiers: Vec<&str> = Vec::new();
    for policy in policies {
        let name = tier(policy).0;
        if !tiers.contains(&name) {
            tiers.push(name);
        }
    }
    'tiers: for name in tiers {
        let of_tier = policies.iter().filter(|p| tier(p).0 == name);
        for rule in of_tier.clone().flat_map(|p| &p.rules) {
            match (matches_calico(rule, request, world), rule.action) {
                (Some(true), NetworkAction::Allow) => return true,
                (Some(true), NetworkAction::Deny) => return false,
                (Some(true), NetworkAction::Pass) => continue 'tiers,
                // What can not be judged denies, unless it would have allowed.
                (None, NetworkAction::Deny | NetworkAction::Pass) => return false,
                _ => {}
            }
        }
        if of_tier.clone().any(|p| !tier(p).1) {
            return false;
        }
    }
    true
}

fn tier(policy: &NetworkPolicy) -> (&str, bool) {
    match &policy.surface {
        Surface::Calico(tier) => (&tier.name, tier.passes_by_default),
        Surface::Cilium => panic!("not generated"),
    }
}

/// `None`: it can not be judged.
fn matches_calico(rule: &NetworkRule, request: &Request, world: &World) -> Option<bool> {
    if !has_port(&rule.ports, request.port) {
        return Some(false);
    }
    let http = match (&rule.http, &request.http) {
        (HttpRules::Calico(http), Some((method, path, _))) => {
            let path = path.replace("%20", " ");
            let by_path = http.paths.iter().any(|p| match p {
                CalicoPath::Exact(exact) => path == **exact,
                CalicoPath::Prefix(prefix) if **prefix == *"/" => true,
                CalicoPath::Prefix(prefix) => {
                    path == **prefix || path.starts_with(&format!("{prefix}/"))
                }
            });
            let by_method = http.methods.iter().any(|m| **m == *"*" || **m == **method);
            let method = http.methods.is_empty() || by_method;
            Some(method && (http.paths.is_empty() || by_path))
        }
        (HttpRules::Calico(_), None) => None,
        _ => Some(true),
    };
    let from = match rule.broken {
        Some(_) => None,
        None => Some(is_among(&rule.peers, world, request.address())),
    };
    match (http, from) {
        (Some(false), _) | (_, Some(false)) => Some(false),
        (Some(true), Some(true)) => Some(true),
        _ => None,
    }
}
