//! Who a Cilium rule is about: label selectors, entities, address blocks (specs/policies.md 2.1.2).

use std::net::IpAddr;

use ipnet::IpNet;

use super::network_cilium::Reading;
use crate::diagnostics::Code;
use crate::resources::cilium::{CidrRule, IngressRule, LabelRequirement, LabelSelector};
use crate::snapshot::{Entity, LabelExpression, Peer, Sources};

const NAMESPACE_LABEL: &str = "io.kubernetes.pod.namespace";
const NAMESPACE_LABELS: &str = "io.cilium.k8s.namespace.labels.";
const ALLOWS_NOBODY: &str = "an allow by it matches nobody, a deny everybody it may be";

/// The selector of a rule's subject, without the namespace, which is always the policy's own.
/// `None`: it can not be read.
pub(super) fn subject(
    selector: &LabelSelector,
    path: &str,
    reading: &mut Reading<'_>,
) -> Option<LabelExpression> {
    if reading.is_clusterwide() || !names(selector, |key| key == NAMESPACE_LABEL) {
        return expression(selector, path, reading);
    }
    let message = "a policy selects workloads of its own namespace only";
    let effect = "workloads that the selector places elsewhere are not selected";
    reading.warn(Code::BadValue, path, message, effect);
    // Cilium replaces what `matchLabels` says with this very key, and leaves all else that is said
    // of the namespace as one more condition.
    let mut selector = selector.clone();
    for labels in selector.match_labels.iter_mut() {
        labels.retain(|key, _| key.strip_prefix("k8s:") != Some(NAMESPACE_LABEL));
    }
    expression(&selector, path, reading)
}

/// `from...` of a rule. The fields exclude each other; one that is there and empty is nobody.
pub(super) fn sources(rule: &IngressRule, path: &str, reading: &mut Reading<'_>) -> Sources {
    let mut fields = Vec::new();
    let mut peers = Vec::new();
    if let Some(list) = &rule.from_endpoints {
        fields.push(("fromEndpoints", list.len()));
        for (index, selector) in list.iter().enumerate() {
            let path = format!("{path}.fromEndpoints[{index}]");
            peers.extend(endpoints(selector, &path, reading).map(Peer::Endpoints));
        }
    }
    if let Some(list) = &rule.from_cidr {
        fields.push(("fromCIDR", list.len()));
        for (index, text) in list.iter().enumerate() {
            let block = block(text, &format!("{path}.fromCIDR[{index}]"), reading);
            let except = Vec::new();
            peers.extend(block.map(|block| Peer::Cidr { block, except }));
        }
    }
    if let Some(list) = &rule.from_cidr_set {
        fields.push(("fromCIDRSet", list.len()));
        for (index, set) in list.iter().enumerate() {
            peers.extend(cidr_set(
                set,
                &format!("{path}.fromCIDRSet[{index}]"),
                reading,
            ));
        }
    }
    if let Some(list) = &rule.from_entities {
        fields.push(("fromEntities", list.len()));
        for (index, name) in list.iter().enumerate() {
            peers.extend(entity(
                name,
                &format!("{path}.fromEntities[{index}]"),
                reading,
            ));
        }
    }
    for (field, length) in [
        ("fromGroups", rule.from_groups.as_ref().map(Vec::len)),
        ("fromNodes", rule.from_nodes.as_ref().map(Vec::len)),
    ] {
        if let Some(length) = length {
            fields.push((field, length));
            if length > 0 {
                let path = format!("{path}.{field}");
                let message = format!("{field} is not known to a waypoint");
                reading.warn(Code::Unsupported, &path, message, ALLOWS_NOBODY);
                peers.push(Peer::Unknowable(field.into()));
            }
        }
    }
    if rule.from_requires.as_ref().is_some_and(|r| !r.is_empty()) {
        let message = "fromRequires is no longer part of Cilium";
        reading.refuse(&format!("{path}.fromRequires"), message, "remove it");
    }
    tell_of_fields(&fields, path, reading);
    match fields.is_empty() {
        true => Sources::Anybody,
        false => Sources::AnyOf(peers),
    }
}

fn tell_of_fields(fields: &[(&str, usize)], path: &str, reading: &mut Reading<'_>) {
    let mut used = fields.iter().filter(|(_, length)| *length > 0);
    if let (Some((first, _)), Some((second, _))) = (used.next(), used.next()) {
        let message = format!("a rule has either {first} or {second}");
        reading.refuse(&format!("{path}.{second}"), message, "write two rules");
    }
    if let Some((field, _)) = fields.iter().find(|(_, length)| *length == 0) {
        let message = format!("an empty {field} selects nobody");
        let path = format!("{path}.{field}");
        reading.warn(
            Code::BadValue,
            &path,
            message,
            "the rule matches nobody by it",
        );
    }
    if fields
        .iter()
        .any(|(f, n)| f.starts_with("fromCIDR") && *n > 0)
    {
        let message = "address blocks are for sources outside the cluster";
        let effect = "an allow by them allows no client of the mesh, a deny denies those of which no \
                      Pod is known";
        let (field, _) = fields
            .iter()
            .find(|(f, _)| f.starts_with("fromCIDR"))
            .unwrap_or(&("", 0));
        reading.warn(
            Code::NotForWaypoint,
            &format!("{path}.{field}"),
            message,
            effect,
        );
    }
}

/// One item of `fromEndpoints`, in the policy's namespace unless it names one itself.
fn endpoints(
    selector: &LabelSelector,
    path: &str,
    reading: &mut Reading<'_>,
) -> Option<LabelExpression> {
    let labels = expression(selector, path, reading)?;
    let of_namespace = |key: &str| key == NAMESPACE_LABEL || key.starts_with(NAMESPACE_LABELS);
    if reading.is_clusterwide() || names(selector, of_namespace) {
        return Some(labels);
    }
    let own = reading.origin.key.namespace.clone();
    let own = LabelExpression::equals(NAMESPACE_LABEL, own);
    Some(LabelExpression::All(vec![own, labels]))
}

fn names(selector: &LabelSelector, is: impl Fn(&str) -> bool) -> bool {
    let labels = selector.match_labels.iter().flat_map(|l| l.keys());
    let expressions = selector.match_expressions.iter().flatten().map(|e| &e.key);
    labels.chain(expressions).any(|key| is(key_of(key)))
}

/// The key without the prefix that names where Kubernetes' labels come from; other sources stay.
fn key_of(key: &str) -> &str {
    key.strip_prefix("k8s:")
        .or_else(|| key.strip_prefix("any:"))
        .unwrap_or(key)
}

fn expression(
    selector: &LabelSelector,
    path: &str,
    reading: &mut Reading<'_>,
) -> Option<LabelExpression> {
    let mut all = Vec::new();
    for (key, value) in selector.match_labels.iter().flatten() {
        all.push(LabelExpression::equals(key_of(key), value.as_str()));
    }
    let mut whole = true;
    for (index, requirement) in selector.match_expressions.iter().flatten().enumerate() {
        match self::requirement(requirement) {
            Ok(expression) => all.push(expression),
            Err((message, hint)) => {
                let path = format!("{path}.matchExpressions[{index}]");
                reading.refuse(&path, message, hint);
                whole = false;
            }
        }
    }
    whole.then_some(LabelExpression::All(all))
}

fn requirement(requirement: &LabelRequirement) -> Result<LabelExpression, (String, &'static str)> {
    let key = key_of(&requirement.key);
    let values = requirement.values.as_deref().unwrap_or_default();
    let among = || {
        LabelExpression::In(
            key.into(),
            values.iter().map(|v| v.as_str().into()).collect(),
        )
    };
    let has = || LabelExpression::Has(key.into());
    if key.is_empty() {
        return Err(("`key` is missing".to_owned(), "the key of a label"));
    }
    match (requirement.operator.as_str(), values.is_empty()) {
        ("In", false) => Ok(among()),
        ("NotIn", false) => Ok(among().negated()),
        ("Exists", true) => Ok(has()),
        ("DoesNotExist", true) => Ok(has().negated()),
        ("In" | "NotIn", true) => Err((
            format!("{} needs values", requirement.operator),
            "one value or more",
        )),
        ("Exists" | "DoesNotExist", false) => Err((
            format!("{} has no values", requirement.operator),
            "remove the values",
        )),
        (unknown, _) => Err((
            format!("unknown operator '{unknown}'"),
            "In, NotIn, Exists or DoesNotExist",
        )),
    }
}

fn entity(name: &str, path: &str, reading: &mut Reading<'_>) -> Option<Peer> {
    let Some(entity) = Entity::parse(name) else {
        let message = format!("unknown entity '{name}'");
        let hint = "all, world, cluster, host, remote-node, kube-apiserver, ingress, init, health, unmanaged or none";
        reading.refuse(path, message, hint);
        return None;
    };
    match entity {
        Entity::All | Entity::Cluster | Entity::None => {}
        Entity::World | Entity::WorldIpv4 | Entity::WorldIpv6 => {
            let message = format!("no workload of the mesh is of the entity {name}");
            let effect = "an allow by it allows no client of the mesh, a deny denies those of which \
                          no Pod is known";
            reading.warn(Code::NotForWaypoint, path, message, effect);
        }
        _ => {
            let message = format!("a waypoint can not tell who is of the entity {name}");
            reading.warn(Code::Unsupported, path, message, ALLOWS_NOBODY);
        }
    }
    Some(Peer::Entity(entity))
}

fn cidr_set(set: &CidrRule, path: &str, reading: &mut Reading<'_>) -> Option<Peer> {
    let group = set.cidr_group_ref.is_some() || set.cidr_group_selector.is_some();
    let given = [
        set.cidr.is_some(),
        set.cidr_group_ref.is_some(),
        set.cidr_group_selector.is_some(),
    ];
    if given.iter().filter(|there| **there).count() != 1 {
        let message = "one of cidr, cidrGroupRef and cidrGroupSelector is needed";
        reading.refuse(path, message, "write one of them");
        return None;
    }
    if group {
        let message = "CiliumCIDRGroups are not read";
        reading.warn(Code::Unsupported, path, message, ALLOWS_NOBODY);
        return Some(Peer::Unknowable("fromCIDRSet".into()));
    }
    let outer = block(set.cidr.as_deref()?, &format!("{path}.cidr"), reading)?;
    let mut except = Vec::new();
    for (index, text) in set.except.iter().flatten().enumerate() {
        let path = format!("{path}.except[{index}]");
        let inner = block(text, &path, reading)?;
        if !outer.contains(&inner) {
            let message = format!("{inner} is not inside {outer}");
            reading.refuse(&path, message, "an exception is a part of the block");
            return None;
        }
        except.push(inner);
    }
    Some(Peer::Cidr {
        block: outer,
        except,
    })
}

fn block(text: &str, path: &str, reading: &mut Reading<'_>) -> Option<IpNet> {
    let address = || text.parse::<IpAddr>().ok().map(IpNet::from);
    let block = text.parse::<IpNet>().ok().or_else(address);
    if block.is_none() {
        let message = format!("'{text}' is no address or block of addresses");
        reading.refuse(path, message, "10.0.0.0/8, fd00::/8 or 10.0.0.1");
    }
    block.map(|block| block.trunc())
}
