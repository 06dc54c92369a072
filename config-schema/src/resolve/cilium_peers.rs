//! Who a Cilium rule is about: label selectors, entities, address blocks (specs/policies.md 2.1.2).

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use super::network_cilium::{Reading, is_empty};
use crate::diagnostics::Code;
use crate::origin::ObjectKey;
use crate::resources::Loaded;
use crate::resources::cilium::{
    CidrRule, EgressRule, FqdnSelector, IngressRule, LabelRequirement, LabelSelector,
    ServiceSelector,
};
use crate::snapshot::{DnsPattern, Entity, Label, LabelExpression, Peer, Peers, Truth};

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

/// `from...` or `to...` of a rule.
pub(super) struct WrittenPeers<'a> {
    /// `from` or `to`.
    way: &'static str,
    endpoints: Option<&'a [LabelSelector]>,
    cidr: Option<&'a [String]>,
    cidr_set: Option<&'a [CidrRule]>,
    entities: Option<&'a [String]>,
    names: Option<&'a [FqdnSelector]>,
    services: Option<&'a [ServiceSelector]>,
    groups: Option<usize>,
    nodes: Option<usize>,
    requires: bool,
}

impl<'a> WrittenPeers<'a> {
    /// Of a rule for ingress.
    pub(super) fn from_rule(rule: &'a IngressRule) -> Self {
        Self {
            way: "from",
            endpoints: rule.from_endpoints.as_deref(),
            cidr: rule.from_cidr.as_deref(),
            cidr_set: rule.from_cidr_set.as_deref(),
            entities: rule.from_entities.as_deref(),
            names: None,
            services: None,
            groups: rule.from_groups.as_ref().map(Vec::len),
            nodes: rule.from_nodes.as_ref().map(Vec::len),
            requires: !is_empty(&rule.from_requires),
        }
    }

    /// Of a rule for egress.
    pub(super) fn to_rule(rule: &'a EgressRule) -> Self {
        Self {
            way: "to",
            endpoints: rule.to_endpoints.as_deref(),
            cidr: rule.to_cidr.as_deref(),
            cidr_set: rule.to_cidr_set.as_deref(),
            entities: rule.to_entities.as_deref(),
            names: rule.to_fqdns.as_deref(),
            services: rule.to_services.as_deref(),
            groups: rule.to_groups.as_ref().map(Vec::len),
            nodes: rule.to_nodes.as_ref().map(Vec::len),
            requires: !is_empty(&rule.to_requires),
        }
    }

    fn is_egress(&self) -> bool {
        self.way == "to"
    }

    /// The peers of one list, each with its path.
    fn each<T>(
        &self,
        list: Option<&'a [T]>,
        field: &str,
        path: &str,
    ) -> impl Iterator<Item = (&'a T, String)> {
        let path = format!("{path}.{}{field}", self.way);
        let items = list.unwrap_or_default().iter().enumerate();
        items.map(move |(index, item)| (item, format!("{path}[{index}]")))
    }

    /// The lists that are there, and how long they are.
    fn fields(&self) -> Vec<(String, usize)> {
        let fields = [
            ("Endpoints", self.endpoints.map(<[_]>::len)),
            ("CIDR", self.cidr.map(<[_]>::len)),
            ("CIDRSet", self.cidr_set.map(<[_]>::len)),
            ("Entities", self.entities.map(<[_]>::len)),
            ("FQDNs", self.names.map(<[_]>::len)),
            ("Services", self.services.map(<[_]>::len)),
            ("Groups", self.groups),
            ("Nodes", self.nodes),
        ];
        let there = fields.into_iter();
        there
            .filter_map(|(field, length)| Some((format!("{}{field}", self.way), length?)))
            .collect()
    }
}

/// The peers of a rule. The fields exclude each other; one that is there and empty is nobody.
pub(super) fn peers(written: &WrittenPeers<'_>, path: &str, reading: &mut Reading<'_>) -> Peers {
    let mut peers = Vec::new();
    for (selector, path) in written.each(written.endpoints, "Endpoints", path) {
        peers.extend(endpoints(selector, &path, reading).map(Peer::Endpoints));
    }
    for (text, path) in written.each(written.cidr, "CIDR", path) {
        let block = block(text, &path, reading);
        let except = Vec::new();
        peers.extend(block.map(|block| Peer::Cidr { block, except }));
    }
    for (set, path) in written.each(written.cidr_set, "CIDRSet", path) {
        peers.extend(cidr_set(set, &path, reading));
    }
    for (name, path) in written.each(written.entities, "Entities", path) {
        peers.extend(entity(name, written.is_egress(), &path, reading));
    }
    for (name, path) in written.each(written.names, "FQDNs", path) {
        peers.extend(host_name(name, &path, reading));
    }
    for (service, path) in written.each(written.services, "Services", path) {
        peers.extend(services(service, &path, reading));
    }
    for (field, length) in [("Groups", written.groups), ("Nodes", written.nodes)] {
        if length.is_some_and(|length| length > 0) {
            let field = format!("{}{field}", written.way);
            let path = format!("{path}.{field}");
            let message = format!("{field} is not known to a waypoint");
            match written.is_egress() {
                true => reading.not_here(&path, &message),
                false => reading.warn(Code::Unsupported, &path, message, ALLOWS_NOBODY),
            }
            peers.push(Peer::Unknowable(field.into()));
        }
    }
    if written.requires {
        let field = format!("{}Requires", written.way);
        let message = format!("{field} is no longer part of Cilium");
        reading.refuse(&format!("{path}.{field}"), message, "remove it");
    }
    let fields = written.fields();
    tell_of_fields(&fields, written.is_egress(), path, reading);
    match fields.is_empty() {
        true => Peers::Anybody,
        false => Peers::AnyOf(peers),
    }
}

fn tell_of_fields(
    fields: &[(String, usize)],
    is_egress: bool,
    path: &str,
    reading: &mut Reading<'_>,
) {
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
    let is_cidr = |(field, length): &&(String, usize)| field.contains("CIDR") && *length > 0;
    if let Some((field, _)) = fields.iter().find(is_cidr) {
        let path = format!("{path}.{field}");
        if is_egress {
            let message = "address blocks are for what is outside the cluster: behind a waypoint, for \
                           Services without a selector and hosts of ServiceEntries";
            return reading.inform(&path, message, "no workload of the mesh is in them");
        }
        let message = "address blocks are for sources outside the cluster";
        let effect = "an allow by them allows no client of the mesh, a deny denies those of which no \
                      Pod is known";
        reading.warn(Code::NotForWaypoint, &path, message, effect);
    }
}

/// One item of `toFQDNs` (specs/policies.md 2.1.7).
fn host_name(written: &FqdnSelector, path: &str, reading: &mut Reading<'_>) -> Option<Peer> {
    let given = |text: &'_ Option<String>| text.clone().filter(|text| !text.is_empty());
    let read = match (given(&written.match_name), given(&written.match_pattern)) {
        (Some(name), None) => DnsPattern::name(&name),
        (None, Some(pattern)) => DnsPattern::pattern(&pattern),
        _ => None,
    };
    if read.is_none() {
        let message = "one of matchName and matchPattern is needed, of letters, digits, - and _";
        reading.refuse(path, message, "matchName: api.example.com");
    }
    let entries = reading.resources.service_entries.values();
    let mut hosts = entries
        .filter_map(Loaded::object)
        .flat_map(|e| &e.spec.hosts);
    // Of a wildcard some names may be meant.
    let mut is_meant = |name: &DnsPattern| hosts.any(|h| h.starts_with('*') || name.matches(h));
    if read.as_ref().is_some_and(|name| !is_meant(name)) {
        let message = "names are matched with hosts of ServiceEntries, and none is called so";
        reading.not_here(path, message);
    }
    read.map(Peer::Name)
}

/// One item of `toServices`: a Service by its name, or all with some labels.
fn services(written: &ServiceSelector, path: &str, reading: &mut Reading<'_>) -> Option<Peer> {
    let own = reading.origin.key.namespace.clone();
    let namespace = |written: &Option<String>| -> Arc<str> {
        let written = written.as_deref().filter(|text| !text.is_empty());
        written.map_or_else(|| own.clone(), Into::into)
    };
    let by_labels = written.k8s_service_selector.as_ref();
    match (&written.k8s_service, by_labels) {
        (Some(service), None) if !service.service_name.is_empty() => {
            let namespace = namespace(&service.namespace);
            let key = ObjectKey::new(namespace, service.service_name.as_str());
            Some(Peer::Services(vec![key]))
        }
        (None, Some(by_labels)) => {
            let path = format!("{path}.k8sServiceSelector.selector");
            let labels = expression(&by_labels.selector, &path, reading)?;
            let namespace = namespace(&by_labels.namespace);
            let all = reading
                .resources
                .services
                .values()
                .filter_map(Loaded::object);
            let selected = all.filter(|service| {
                let own = &service.meta.labels;
                let of = |key: &str| own.get(key).map_or(Label::Absent, |v| Label::Value(v));
                let in_namespace =
                    namespace.is_empty() || service.origin.key.namespace == namespace;
                in_namespace && labels.holds(&of) == Truth::Yes
            });
            Some(Peer::Services(
                selected.map(|s| s.origin.key.clone()).collect(),
            ))
        }
        _ => {
            let message = "one of k8sService and k8sServiceSelector is needed";
            reading.refuse(path, message, "k8sService: {serviceName: api}");
            None
        }
    }
}

/// One item of `fromEndpoints` or `toEndpoints`, in the policy's namespace unless it names one itself.
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

fn entity(name: &str, is_egress: bool, path: &str, reading: &mut Reading<'_>) -> Option<Peer> {
    let Some(entity) = Entity::parse(name) else {
        let message = format!("unknown entity '{name}'");
        let hint = "all, world, cluster, host, remote-node, kube-apiserver, ingress, init, health, unmanaged or none";
        reading.refuse(path, message, hint);
        return None;
    };
    match entity {
        Entity::All | Entity::Cluster | Entity::None => {}
        _ if is_egress => {
            let message = format!("no Pod that a waypoint forwards to is of the entity {name}");
            reading.not_here(path, &message);
        }
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
        return Some(Peer::Unknowable("a CIDR group".into()));
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
