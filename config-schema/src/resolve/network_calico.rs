//! What a NetworkPolicy or GlobalNetworkPolicy of Calico says of ingress, and in which order
//! (specs/policies.md 2.5).

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::network::Selecting;
use super::network_cilium::Reading;
use super::{Findings, calico_selector, unreadable};
use crate::diagnostics::{Code, Diagnostic};
use crate::origin::Origin;
use crate::resources::calico::{CalicoPolicySpec, CalicoRule, EntityRule, HttpMatch};
use crate::resources::{Broken, Loaded, Place, Resources};
use crate::snapshot::{
    CalicoHttp, CalicoPath, Criteria, HttpRules, LabelExpression, NetworkAction, NetworkPolicy,
    NetworkRule, NetworkTier, PortSet, Sources, Surface, calico_path,
};

const NAMESPACE_LABEL: &str = "projectcalico.org/namespace";
const DEFAULT_TIER: &str = "default";
/// Tiers that Calico makes itself: name, order, whether they pass by default.
const BUILT_IN: [(&str, f64, bool); 5] = [
    ("adminnetworkpolicy", 1_000.0, true),
    ("kube-admin", 1_000.0, true),
    (DEFAULT_TIER, 1_000_000.0, false),
    ("kube-baseline", 10_000_000.0, true),
    ("baselineadminnetworkpolicy", 10_000_000.0, true),
];

type Tiers = BTreeMap<String, Arc<NetworkTier>>;

/// Reads every policy, in the order of tiers and of policies in a tier.
pub(super) fn read_all(resources: &Resources, findings: &mut Findings) -> Vec<Selecting> {
    let tiers = tiers(resources, findings);
    let mut read: Vec<(Option<f64>, Selecting)> = Vec::new();
    let mut one = |origin: &Origin, place: &Place, spec: &CalicoPolicySpec, f: &mut Findings| {
        let mut reading = Reading {
            origin,
            place,
            broken: None,
            findings: f,
        };
        read.extend(policy(spec, &tiers, &mut reading).map(|s| (spec.order, s)));
    };
    let mut broken: Vec<&Broken> = Vec::new();
    for loaded in resources.calico_policies.values() {
        match loaded {
            Loaded::Good(o) | Loaded::KeptLastGood(o) => {
                one(&o.origin, &o.place, &o.spec, findings);
            }
            Loaded::Broken(unread) => broken.push(unread),
        }
    }
    for loaded in resources.calico_global_policies.values() {
        match loaded {
            Loaded::Good(o) | Loaded::KeptLastGood(o) => {
                one(&o.origin, &o.place, &o.spec.0, findings);
            }
            Loaded::Broken(unread) => broken.push(unread),
        }
    }
    for broken in broken {
        let namespace = &broken.origin.key.namespace;
        let what = match &**namespace {
            "" => "every workload".to_owned(),
            namespace => format!("workloads of {namespace}"),
        };
        findings.push(unreadable(
            broken,
            format!("everything for {what} is denied"),
        ));
        let policy = deny_all(&broken.origin, broken.reason.clone());
        read.push((None, selecting(policy, in_namespace(namespace))));
    }
    read.sort_by(|(a_order, a), (b_order, b)| {
        let tier = |s: &Selecting| match &s.policy.surface {
            Surface::Calico(tier) => (tier.order.unwrap_or(f64::INFINITY), tier.name.clone()),
            Surface::Cilium => (f64::INFINITY, "".into()),
        };
        let ((a_tier, a_name), (b_tier, b_name)) = (tier(a), tier(b));
        let order = |order: &Option<f64>| order.unwrap_or(f64::INFINITY);
        (a_tier.total_cmp(&b_tier))
            .then_with(|| a_name.cmp(&b_name))
            .then_with(|| order(a_order).total_cmp(&order(b_order)))
            .then_with(|| a.policy.origin.key.name.cmp(&b.policy.origin.key.name))
            .then_with(|| a.policy.origin.key.cmp(&b.policy.origin.key))
    });
    read.into_iter().map(|(_, selecting)| selecting).collect()
}

fn built_in(name: &str) -> Option<NetworkTier> {
    let (name, order, passes) = BUILT_IN.iter().find(|(n, _, _)| *n == name)?;
    Some(NetworkTier {
        name: (*name).into(),
        order: Some(*order),
        passes_by_default: *passes,
    })
}

/// The tiers that can be read; a policy of any other is broken.
fn tiers(resources: &Resources, findings: &mut Findings) -> Tiers {
    let mut tiers = Tiers::new();
    for loaded in resources.calico_tiers.values() {
        let object = match loaded {
            Loaded::Good(object) | Loaded::KeptLastGood(object) => object,
            Loaded::Broken(broken) => {
                findings.push(unreadable(broken, "what its policies select is denied"));
                continue;
            }
        };
        let name = &object.origin.key.name;
        let passes_by_default = match object.spec.default_action.as_deref() {
            None | Some("Deny") => false,
            Some("Pass") => true,
            Some(unknown) => {
                let message = format!("unknown action '{unknown}'");
                let finding = Diagnostic::error(Code::BadValue, message)
                    .with_effect("what no rule of the tier decides is denied")
                    .with_hint("Deny or Pass");
                findings.push(object.mark(finding, "spec.defaultAction"));
                false
            }
        };
        let tier = NetworkTier {
            name: name.clone(),
            order: object.spec.order.or(built_in(name).and_then(|t| t.order)),
            passes_by_default,
        };
        tiers.insert(name.to_string(), Arc::new(tier));
    }
    for (name, _, _) in BUILT_IN {
        if !resources
            .calico_tiers
            .values()
            .any(|l| l.object().is_none())
            && let Some(tier) = built_in(name)
        {
            tiers.entry(name.to_owned()).or_insert(Arc::new(tier));
        }
    }
    tiers
}

fn in_namespace(namespace: &Arc<str>) -> LabelExpression {
    match &**namespace {
        "" => LabelExpression::everything(),
        _ => LabelExpression::equals(NAMESPACE_LABEL, namespace.clone()),
    }
}

fn deny_all(origin: &Origin, reason: Arc<str>) -> NetworkPolicy {
    NetworkPolicy {
        origin: origin.clone(),
        surface: Surface::Calico(Arc::new(NetworkTier {
            name: DEFAULT_TIER.into(),
            order: None,
            passes_by_default: false,
        })),
        staged: false,
        default_deny: true,
        rules: Vec::new(),
        broken: Some(reason),
    }
}

fn selecting(policy: NetworkPolicy, selector: LabelExpression) -> Selecting {
    Selecting {
        policy: Arc::new(policy),
        selector,
        namespace_selector: LabelExpression::everything(),
    }
}

/// `None`: it says nothing of ingress.
fn policy(spec: &CalicoPolicySpec, tiers: &Tiers, reading: &mut Reading<'_>) -> Option<Selecting> {
    let own = in_namespace(&reading.origin.key.namespace);
    let selector = expression(&spec.selector, "spec.selector", reading);
    let namespaces = expression(&spec.namespace_selector, "spec.namespaceSelector", reading);
    if spec.namespace_selector.is_some() && !reading.is_clusterwide() {
        let message = "only a GlobalNetworkPolicy has a namespaceSelector";
        reading.refuse("spec.namespaceSelector", message, "remove it");
    }
    if spec
        .service_account_selector
        .as_ref()
        .is_some_and(|s| !s.is_empty())
    {
        let message = "labels of service accounts are not known to a waypoint";
        let hint = "select by labels of the pods";
        reading.refuse("spec.serviceAccountSelector", message, hint);
    }
    let tier_name = spec.tier.as_deref().filter(|t| !t.is_empty());
    let tier = tiers.get(tier_name.unwrap_or(DEFAULT_TIER));
    if tier.is_none() {
        let message = format!("there is no Tier {}", tier_name.unwrap_or(DEFAULT_TIER));
        reading.refuse(
            "spec.tier",
            message,
            "have the Tier in the configuration, too",
        );
    }
    if !is_for_ingress(spec, reading) {
        return None;
    }
    let mut rules = Vec::new();
    for (index, rule) in spec.ingress.iter().flatten().enumerate() {
        rules.extend(self::rule(rule, index, reading));
    }
    let policy = match (reading.broken.take(), tier) {
        (None, Some(tier)) => NetworkPolicy {
            origin: reading.origin.clone(),
            surface: Surface::Calico(tier.clone()),
            staged: false,
            default_deny: !tier.passes_by_default,
            rules,
            broken: None,
        },
        (reason, _) => deny_all(reading.origin, reason.unwrap_or_default()),
    };
    let selector =
        LabelExpression::All(vec![own, selector.unwrap_or(LabelExpression::everything())]);
    Some(Selecting {
        namespace_selector: namespaces.unwrap_or(LabelExpression::everything()),
        ..selecting(policy, selector)
    })
}

/// `types`, or what they are when absent: ingress unless there are egress rules alone.
fn is_for_ingress(spec: &CalicoPolicySpec, reading: &mut Reading<'_>) -> bool {
    let types = spec.types.as_deref().unwrap_or_default();
    for (index, unknown) in types.iter().enumerate() {
        if !matches!(unknown.as_str(), "Ingress" | "Egress") {
            let path = format!("spec.types[{index}]");
            let message = format!("unknown type '{unknown}'");
            reading.refuse(&path, message, "Ingress or Egress");
        }
    }
    let has = |rules: &Option<Vec<CalicoRule>>| rules.as_ref().is_some_and(|r| !r.is_empty());
    match types {
        [] => has(&spec.ingress) || !has(&spec.egress),
        types => types.iter().any(|t| t != "Egress"),
    }
}

/// `None`: it can not be read, and the policy is broken.
fn expression(
    text: &Option<String>,
    path: &str,
    reading: &mut Reading<'_>,
) -> Option<LabelExpression> {
    let text = text.as_deref().unwrap_or_default();
    match calico_selector::parse(text) {
        Ok(expression) => Some(expression),
        Err(reason) => {
            let message = format!("'{text}' is no selector: {reason}");
            reading.refuse(path, message, "app == 'web' && has(tier), or all()");
            None
        }
    }
}

/// `None`: it is never about TCP.
fn rule(rule: &CalicoRule, index: usize, reading: &mut Reading<'_>) -> Option<NetworkRule> {
    let path = format!("spec.ingress[{index}]");
    let action = match rule.action.to_ascii_lowercase().as_str() {
        "allow" => NetworkAction::Allow,
        "deny" => NetworkAction::Deny,
        "pass" => NetworkAction::Pass,
        "log" => NetworkAction::Log,
        _ => {
            let message = format!("unknown action '{}'", rule.action);
            reading.refuse(
                &format!("{path}.action"),
                message,
                "Allow, Deny, Pass or Log",
            );
            return None;
        }
    };
    let is_tcp = |p: &IntOrString| match p {
        IntOrString::Int(number) => *number == 6,
        IntOrString::String(name) => name.eq_ignore_ascii_case("TCP"),
    };
    let never = rule.protocol.as_ref().is_some_and(|p| !is_tcp(p))
        || rule.not_protocol.as_ref().is_some_and(is_tcp)
        || rule.icmp.is_some();
    let mut broken = None;
    let from = source(rule, &path, &mut broken, reading);
    let ports = destination(rule.destination.as_ref(), &path, &mut broken, reading);
    let http = match &rule.http {
        Some(http) => HttpRules::Calico(self::http(http, &path, reading)),
        None => HttpRules::NotAsked,
    };
    (!never).then(|| NetworkRule {
        index,
        path: path.into(),
        action,
        from,
        ports,
        http,
        authentication: None,
        broken,
    })
}

/// A criterion that a waypoint can not judge: the rule fails on the safe side.
fn can_not(what: &str, path: &str, broken: &mut Option<Arc<str>>, reading: &mut Reading<'_>) {
    let message = format!("{what}: a waypoint can not evaluate this");
    let effect = "an allow by it allows nothing, a deny or pass denies everything";
    reading.warn(Code::Unsupported, path, message.clone(), effect);
    broken.get_or_insert(message.into());
}

fn source(
    rule: &CalicoRule,
    path: &str,
    broken: &mut Option<Arc<str>>,
    reading: &mut Reading<'_>,
) -> Sources {
    let path = format!("{path}.source");
    let none = EntityRule::default();
    let source = rule.source.as_ref().unwrap_or(&none);
    for (there, field) in [
        (
            source.ports.is_some() || source.not_ports.is_some(),
            "ports",
        ),
        (source.services.is_some(), "services"),
        (source.domains.is_some(), "domains"),
    ] {
        if there {
            can_not(field, &format!("{path}.{field}"), broken, reading);
        }
    }
    let accounts = source.service_accounts.as_ref();
    if accounts.is_some_and(|a| a.selector.as_ref().is_some_and(|s| !s.is_empty())) {
        let path = format!("{path}.serviceAccounts.selector");
        can_not("serviceAccounts.selector", &path, broken, reading);
    }
    let written = |text: &Option<String>| text.as_ref().is_some_and(|t| !t.is_empty());
    let read = |text: &Option<String>, field: &str, reading: &mut Reading<'_>| {
        written(text).then(|| expression(text, &format!("{path}.{field}"), reading))?
    };
    let mut selector = read(&source.selector, "selector", reading);
    let not_selector = read(&source.not_selector, "notSelector", reading);
    let namespace_selector = read(&source.namespace_selector, "namespaceSelector", reading);
    let names = accounts
        .and_then(|a| a.names.as_ref())
        .filter(|n| !n.is_empty());
    // A selector of a namespaced policy is for its own namespace unless it says where.
    let narrowed = selector.is_some() || names.is_some();
    if narrowed && namespace_selector.is_none() && !reading.is_clusterwide() {
        let own = in_namespace(&reading.origin.key.namespace);
        let inner = selector.unwrap_or(LabelExpression::everything());
        selector = Some(LabelExpression::All(vec![own, inner]));
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
    let nets = nets(&source.nets, &format!("{path}.nets"), reading);
    let not_nets = self::nets(&source.not_nets, &format!("{path}.notNets"), reading);
    let criteria = Criteria {
        nets,
        not_nets: not_nets.unwrap_or_default(),
        selector,
        not_selector,
        namespace_selector,
        service_accounts: names.map(|n| n.iter().map(|n| n.as_str().into()).collect()),
        ip_version,
    };
    match criteria == Criteria::default() {
        true => Sources::Anybody,
        false => Sources::Criteria(Box::new(criteria)),
    }
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

/// The ports; what else is said of the destination can not be evaluated.
fn destination(
    destination: Option<&EntityRule>,
    path: &str,
    broken: &mut Option<Arc<str>>,
    reading: &mut Reading<'_>,
) -> Option<Vec<PortSet>> {
    let destination = destination?;
    let path = format!("{path}.destination");
    for (there, field) in [
        (destination.nets.is_some(), "nets"),
        (destination.not_nets.is_some(), "notNets"),
        (destination.selector.is_some(), "selector"),
        (destination.not_selector.is_some(), "notSelector"),
        (
            destination.namespace_selector.is_some(),
            "namespaceSelector",
        ),
        (destination.service_accounts.is_some(), "serviceAccounts"),
        (destination.services.is_some(), "services"),
        (destination.domains.is_some(), "domains"),
    ] {
        if there {
            can_not(field, &format!("{path}.{field}"), broken, reading);
        }
    }
    let mut read = |list: &Option<Vec<IntOrString>>, field: &str| {
        let list = list.as_ref().filter(|list| !list.is_empty())?;
        let mut sets = Vec::new();
        for (index, port) in list.iter().enumerate() {
            match port_set(port) {
                Some(set) => sets.push(set),
                None => {
                    let path = format!("{path}.{field}[{index}]");
                    reading.refuse(&path, "this is no port", "80, 8000:8100 or a name");
                }
            }
        }
        Some(sets)
    };
    let ports = read(&destination.ports, "ports");
    match (ports, read(&destination.not_ports, "notPorts")) {
        (ports, None) => ports,
        (None, Some(not)) => Some(vec![PortSet::Not(not)]),
        (Some(_), Some(_)) => {
            can_not(
                "ports with notPorts",
                &format!("{path}.notPorts"),
                broken,
                reading,
            );
            None
        }
    }
}

fn port_set(port: &IntOrString) -> Option<PortSet> {
    match port {
        IntOrString::Int(number) => {
            let port = u16::try_from(*number).ok()?;
            Some(PortSet::Range(port, port))
        }
        IntOrString::String(text) => {
            if let Some((first, last)) = text.split_once(':') {
                let (first, last) = (first.parse().ok()?, last.parse().ok()?);
                return (first <= last).then_some(PortSet::Range(first, last));
            }
            if let Ok(port) = text.parse() {
                return Some(PortSet::Range(port, port));
            }
            let is_name = text.bytes().any(|c| c.is_ascii_alphabetic());
            is_name.then(|| PortSet::Named(text.to_ascii_lowercase().into()))
        }
    }
}

fn http(http: &HttpMatch, path: &str, reading: &mut Reading<'_>) -> CalicoHttp {
    let methods = http.methods.iter().flatten();
    let mut paths = Vec::new();
    for (index, written) in http.paths.iter().flatten().enumerate() {
        let path = format!("{path}.http.paths[{index}]");
        let normal = |text: &str| calico_path(text).map(|path| Arc::from(&*path));
        let read = match (&written.exact, &written.prefix) {
            (Some(exact), None) => normal(exact).map(CalicoPath::Exact),
            (None, Some(prefix)) => normal(prefix).map(CalicoPath::Prefix),
            _ => None,
        };
        match read {
            Some(read) => paths.push(read),
            None => {
                let message = "a path is either exact or a prefix, and hides nothing in escapes";
                reading.refuse(&path, message, "exact: /a, or prefix: /a");
            }
        }
    }
    CalicoHttp {
        methods: methods.map(|m| m.as_str().into()).collect(),
        paths,
    }
}
