//! Who is at the other end of a Calico rule (specs/policies.md 2.5): the source at ingress, the
//! destination at egress. What is said of the policy's own end can not be evaluated, but for ports.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use super::calico_rules::{can_not, expression};
use super::network_calico::in_namespace;
use super::network_cilium::Reading;
use crate::origin::ObjectKey;
use crate::resources::calico::{CalicoRule, EntityRule, ServiceAccounts, ServiceMatch};
use crate::snapshot::{Criteria, Direction, LabelExpression, Peers};

/// Whether a list is there and has something in it: an empty one is as good as none.
fn has_items<T>(list: &Option<Vec<T>>) -> bool {
    list.as_ref().is_some_and(|list| !list.is_empty())
}

fn has_text(text: &Option<String>) -> bool {
    text.as_ref().is_some_and(|text| !text.is_empty())
}

fn has_accounts(accounts: &Option<ServiceAccounts>) -> bool {
    let accounts = accounts.as_ref();
    accounts.is_some_and(|a| has_items(&a.names) || has_text(&a.selector))
}

/// What is said of the end whose policy it is, and of the source's ports at either end.
pub(super) fn check_own_end(
    rule: &CalicoRule,
    direction: Direction,
    path: &str,
    broken: &mut Option<Arc<str>>,
    reading: &mut Reading<'_>,
) {
    let (own, field) = match direction {
        Direction::Ingress => (&rule.destination, "destination"),
        Direction::Egress => (&rule.source, "source"),
    };
    let mut refuse = |there: bool, end: &str, field: &str| {
        if there {
            can_not(field, &format!("{path}.{end}.{field}"), broken, reading);
        }
    };
    if let Some(source) = &rule.source {
        let there = has_items(&source.ports) || has_items(&source.not_ports);
        refuse(there, "source", "ports");
    }
    let Some(own) = own else { return };
    for (there, name) in [
        (has_items(&own.nets), "nets"),
        (has_items(&own.not_nets), "notNets"),
        (has_text(&own.selector), "selector"),
        (has_text(&own.not_selector), "notSelector"),
        (has_text(&own.namespace_selector), "namespaceSelector"),
        (has_accounts(&own.service_accounts), "serviceAccounts"),
        (own.services.is_some(), "services"),
        (has_items(&own.domains), "domains"),
    ] {
        refuse(there, field, name);
    }
}

/// The other end.
pub(super) fn peers(
    rule: &CalicoRule,
    direction: Direction,
    path: &str,
    broken: &mut Option<Arc<str>>,
    reading: &mut Reading<'_>,
) -> Peers {
    let (written, path) = match direction {
        Direction::Ingress => (&rule.source, format!("{path}.source")),
        Direction::Egress => (&rule.destination, format!("{path}.destination")),
    };
    let none = EntityRule::default();
    let written = written.as_ref().unwrap_or(&none);
    let mut unknown = vec![(has_items(&written.domains), "domains")];
    if direction == Direction::Ingress {
        unknown.push((written.services.is_some(), "services"));
    }
    for (_, field) in unknown.into_iter().filter(|(there, _)| *there) {
        can_not(field, &format!("{path}.{field}"), broken, reading);
    }
    let accounts = written.service_accounts.as_ref();
    if accounts.is_some_and(|a| has_text(&a.selector)) {
        let path = format!("{path}.serviceAccounts.selector");
        can_not("serviceAccounts.selector", &path, broken, reading);
    }
    let ip_version = rule.ip_version.map(|version| match version {
        4 => 4,
        6 => 6,
        other => {
            let message = format!("there is no IP version {other}");
            reading.refuse(&path, message, "4 or 6");
            4
        }
    });
    let services = written.services.as_ref();
    let services = services.filter(|_| direction == Direction::Egress);
    let services = services.map(|services| vec![self::services(services, &path, reading)]);
    let criteria = Criteria {
        ip_version,
        services,
        ..criteria(written, &path, reading)
    };
    match criteria == Criteria::default() {
        true => Peers::Anybody,
        false => Peers::Criteria(Box::new(criteria)),
    }
}

/// Labels, accounts and addresses.
fn criteria(written: &EntityRule, path: &str, reading: &mut Reading<'_>) -> Criteria {
    let read = |text: &Option<String>, field: &str, reading: &mut Reading<'_>| {
        has_text(text).then(|| expression(text, &format!("{path}.{field}"), reading))?
    };
    let mut selector = read(&written.selector, "selector", reading);
    let not_selector = read(&written.not_selector, "notSelector", reading);
    let namespace_selector = read(&written.namespace_selector, "namespaceSelector", reading);
    let accounts = written.service_accounts.as_ref();
    let names = accounts
        .and_then(|a| a.names.as_ref())
        .filter(|n| !n.is_empty());
    // A selector of a namespaced policy is for its own namespace unless it says where, and so is
    // what is said only of those that it is not for (specs/policies.md 2.5).
    let narrowed = selector.is_some() || not_selector.is_some() || names.is_some();
    if narrowed && namespace_selector.is_none() && !reading.is_clusterwide() {
        let own = in_namespace(&reading.origin.key.namespace);
        let inner = selector.unwrap_or(LabelExpression::everything());
        selector = Some(LabelExpression::All(vec![own, inner]));
    }
    let nets = nets(&written.nets, &format!("{path}.nets"), reading);
    let not_nets = self::nets(&written.not_nets, &format!("{path}.notNets"), reading);
    let sets = reading.sets;
    Criteria {
        sets: sets.selected(selector.as_ref(), namespace_selector.as_ref()),
        not_sets: sets.selected(not_selector.as_ref(), None),
        nets,
        not_nets: not_nets.unwrap_or_default(),
        selector,
        not_selector,
        namespace_selector,
        service_accounts: names.map(|n| n.iter().map(|n| n.as_str().into()).collect()),
        ..Criteria::default()
    }
}

fn services(written: &ServiceMatch, path: &str, reading: &mut Reading<'_>) -> ObjectKey {
    let path = format!("{path}.services");
    let own = &reading.origin.key.namespace;
    let namespace = written.namespace.as_deref().filter(|n| !n.is_empty());
    let key = ObjectKey::new(namespace.unwrap_or(own), written.name.as_str());
    if key.name.is_empty() || key.namespace.is_empty() {
        let message = "services needs the name of a Service, and its namespace";
        reading.refuse(&path, message, "services: {name: api, namespace: shop}");
    }
    key
}

/// `None`: any.
fn nets(
    written: &Option<Vec<String>>,
    path: &str,
    reading: &mut Reading<'_>,
) -> Option<Vec<IpNet>> {
    let written = written.as_ref().filter(|nets| !nets.is_empty())?;
    let mut nets = Vec::new();
    for (index, text) in written.iter().enumerate() {
        let address = || text.parse::<IpAddr>().ok().map(IpNet::from);
        match text.parse().ok().or_else(address) {
            Some(net) => nets.push(net),
            None => {
                let message = format!("'{text}' is no block of addresses");
                reading.refuse(&format!("{path}[{index}]"), message, "10.0.0.0/8");
            }
        }
    }
    Some(nets)
}
