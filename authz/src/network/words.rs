//! Who a rule of a network policy is for, in words.

use cairn_config_schema::origin::ObjectKey;
use cairn_config_schema::snapshot::{Criteria, Peer, Peers};

/// Peers of a rule that are written out; the rest is counted.
const PEERS_MAX: usize = 4;

/// Who a rule is for, in words.
pub(super) fn peers(sources: &Peers) -> String {
    let peers = match sources {
        Peers::Anybody => return "anybody".to_owned(),
        Peers::Criteria(criteria) => return criteria_words(criteria),
        Peers::AnyOf(peers) if peers.is_empty() => return "among its peers: none".to_owned(),
        Peers::AnyOf(peers) => peers,
    };
    let mut words: Vec<String> = peers.iter().take(PEERS_MAX).map(peer).collect();
    if peers.len() > PEERS_MAX {
        words.push(format!("{} more", peers.len() - PEERS_MAX));
    }
    format!("among {}", words.join(" or "))
}

fn criteria_words(criteria: &Criteria) -> String {
    let mut words = Vec::new();
    let named = [
        ("", &criteria.selector),
        ("not ", &criteria.not_selector),
        ("in namespaces with ", &criteria.namespace_selector),
    ];
    for (what, labels) in named {
        words.extend(labels.as_ref().map(|labels| format!("{what}{labels}")));
    }
    if let Some(names) = &criteria.service_accounts {
        words.push(format!("service account {}", names.join(" or ")));
    }
    if criteria.nets.is_some() || !criteria.not_nets.is_empty() {
        words.push("address in the rule's nets".to_owned());
    }
    words.extend(criteria.ip_version.map(|v| format!("IPv{v}")));
    if let Some(services) = &criteria.services {
        words.push(behind(services));
    }
    format!("one with {}", words.join(" and "))
}

fn peer(peer: &Peer) -> String {
    match peer {
        Peer::Endpoints(labels) => format!("endpoints with {labels}"),
        Peer::Entity(entity) => format!("the entity {}", entity.as_str()),
        Peer::Cidr { block, .. } => format!("addresses of {block}"),
        Peer::Name(name) => format!("hosts of the name {name}"),
        Peer::Services(services) => format!("what is {}", behind(services)),
        Peer::Unknowable(field) => format!("{field}, which a waypoint does not know"),
    }
}

fn behind(services: &[ObjectKey]) -> String {
    let names: Vec<String> = services
        .iter()
        .take(PEERS_MAX)
        .map(ObjectKey::to_string)
        .collect();
    match names.is_empty() {
        true => "behind no Service".to_owned(),
        false => format!("behind Service {}", names.join(" or ")),
    }
}
