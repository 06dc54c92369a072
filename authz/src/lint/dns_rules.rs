//! What policies of Kubernetes, Cilium and Calico say of DNS at egress. Where it goes is not judged: a
//! rule on port 53 is taken to mean the cluster's DNS.

use std::sync::Arc;

use cairn_config_schema::origin::Origin;
use cairn_config_schema::resources::calico::{CalicoPolicySpec, CalicoRule, written};
use cairn_config_schema::resources::cilium::{CiliumRule, EgressRule, LabelSelector, PortProtocol};
use cairn_config_schema::resources::{Loaded, Object};
use cairn_config_schema::snapshot::{
    KubeNetworkPolicy, KubePeer, KubePort, KubeRule, Label, LabelExpression, PortSet, Transport,
    Truth,
};

use super::dns::{Dns, Egress};
use super::ground::Ground;

const DNS: u16 = 53;
const SYSTEM: &str = "kube-system";

/// Every policy that says something of egress.
pub(super) fn read<'a>(ground: &Ground<'a>) -> Vec<Egress<'a>> {
    let resources = ground.resources;
    let kube = ground.snapshot.kube_network.iter();
    let mut found: Vec<Egress<'a>> = kube.filter_map(|p| of_kube(p)).collect();
    for object in objects(resources.cilium_policies.values()) {
        found.extend(of_cilium(&object.origin, &object.spec.rules));
    }
    for object in objects(resources.cilium_clusterwide_policies.values()) {
        found.extend(of_cilium(&object.origin, &object.spec.0.rules));
    }
    for object in objects(resources.calico_policies.values()) {
        found.extend(of_calico(&object.origin, &object.spec));
    }
    for object in objects(resources.calico_global_policies.values()) {
        found.extend(of_calico(&object.origin, &object.spec.0));
    }
    found
}

fn objects<'a, T: 'a>(
    loaded: impl Iterator<Item = &'a Loaded<T>>,
) -> impl Iterator<Item = &'a Arc<Object<T>>> {
    loaded.filter_map(Loaded::object)
}

fn of_kube(policy: &KubeNetworkPolicy) -> Option<Egress<'_>> {
    let rules = policy.egress.as_ref()?;
    let everything = matches!(&policy.selector, LabelExpression::All(of) if of.is_empty());
    let dns = rules.iter().map(kube_rule);
    policy.broken.is_none().then(|| Egress {
        origin: &policy.origin,
        path: match rules.is_empty() {
            true => "spec".to_owned(),
            false => "spec.egress".to_owned(),
        },
        selector: (!everything).then(|| policy.selector.to_string()),
        isolates: true,
        fqdns: false,
        dns: dns.fold(Dns::default(), |all, one| all | one),
        kube: Some(policy),
    })
}

fn kube_rule(rule: &KubeRule) -> Dns {
    let Some(ports) = &rule.ports else {
        // Without ports it is about whom it names: DNS, if that may be the system's namespace.
        let peers = rule.peers.as_ref();
        let system = peers.is_none_or(|peers| peers.iter().any(may_be_system));
        return if system { Dns::ALL } else { Dns::default() };
    };
    let by = |transport| ports.iter().any(|port| is_dns(port, transport));
    Dns {
        udp: by(Transport::Udp),
        tcp: by(Transport::Tcp),
    }
}

fn is_dns(port: &KubePort, transport: Transport) -> bool {
    let number = match &port.port {
        None => true,
        Some(PortSet::Range(first, last)) => (*first..=*last).contains(&DNS),
        Some(PortSet::Named(name)) => name.starts_with("dns"),
        Some(PortSet::Not(_)) => false,
    };
    port.protocol == transport && number
}

fn may_be_system(peer: &KubePeer) -> bool {
    match peer {
        KubePeer::Block { block, .. } => block.prefix_len() == 0,
        KubePeer::Pods { namespaces, .. } => namespaces.as_ref().is_some_and(|namespaces| {
            let label = |key: &str| match key {
                "kubernetes.io/metadata.name" => Label::Value(SYSTEM),
                _ => Label::Unknown,
            };
            namespaces.holds(&label) != Truth::No
        }),
    }
}

fn of_cilium<'a>(origin: &'a Origin, rules: &'a [(String, CiliumRule)]) -> Vec<Egress<'a>> {
    let of_rule = |(path, rule): &'a (String, CiliumRule)| {
        let egress = rule.egress.as_deref().unwrap_or_default();
        let denied = rule.egress_deny.as_deref().unwrap_or_default();
        let asked = rule.enable_default_deny.as_ref().and_then(|d| d.egress);
        let isolates = asked.unwrap_or(!egress.is_empty() || !denied.is_empty());
        let dns = egress.iter().map(cilium_rule);
        let empty = |s: &LabelSelector| s.match_labels.is_none() && s.match_expressions.is_none();
        let selector = rule.endpoint_selector.as_ref().filter(|s| !empty(s));
        (isolates || !egress.is_empty()).then(|| Egress {
            origin,
            path: format!("{path}.egress"),
            selector: selector.map(|s| format!("{s:?}")),
            isolates,
            fqdns: egress.iter().any(|r| r.to_fqdns.is_some()),
            dns: dns.fold(Dns::default(), |all, one| all | one),
            kube: None,
        })
    };
    rules.iter().filter_map(of_rule).collect()
}

fn cilium_rule(rule: &EgressRule) -> Dns {
    let Some(ports) = &rule.to_ports else {
        let entities = rule.to_entities.iter().flatten();
        let mut entities = entities.filter(|e| matches!(e.as_str(), "all" | "cluster"));
        let endpoints = rule.to_endpoints.iter().flatten();
        let system = endpoints.flat_map(|s| s.match_labels.iter().flatten());
        let mut system = system.filter(|(_, value)| matches!(value.as_str(), SYSTEM | "kube-dns"));
        return match entities.next().is_some() || system.next().is_some() {
            true => Dns::ALL,
            false => Dns::default(),
        };
    };
    let by = |protocol: &str| {
        let ports = ports.iter().flat_map(|rule| rule.ports.iter().flatten());
        ports.into_iter().any(|port| is_cilium_dns(port, protocol))
    };
    Dns {
        udp: by("UDP"),
        tcp: by("TCP"),
    }
}

fn is_cilium_dns(port: &PortProtocol, protocol: &str) -> bool {
    let written = port.protocol.as_deref().unwrap_or_default();
    let is_meant = written.is_empty() || written == "ANY" || written == protocol;
    let text = port.port.as_deref().unwrap_or_default();
    let number = match (text.parse::<i64>(), port.end_port) {
        (Ok(0), _) => true,
        (Ok(first), Some(last)) => (first..=last).contains(&i64::from(DNS)),
        (Ok(first), None) => first == i64::from(DNS),
        (Err(_), _) => text.starts_with("dns") || text == "domain",
    };
    is_meant && number
}

fn of_calico<'a>(origin: &'a Origin, spec: &'a CalicoPolicySpec) -> Option<Egress<'a>> {
    let egress = spec.egress.as_deref().unwrap_or_default();
    let types = spec.types.as_deref().unwrap_or_default();
    let isolates = match types {
        [] => !egress.is_empty(),
        types => types.iter().any(|t| t == "Egress"),
    };
    let selectors = [
        &spec.selector,
        &spec.namespace_selector,
        &spec.service_account_selector,
    ];
    let narrowing = selectors.into_iter().flatten().map(|s| s.trim());
    let narrowing: Vec<&str> = (narrowing.filter(|s| !s.is_empty() && *s != "all()")).collect();
    let dns = egress.iter().map(calico_rule);
    isolates.then(|| Egress {
        origin,
        path: match egress.is_empty() {
            true => "spec".to_owned(),
            false => "spec.egress".to_owned(),
        },
        selector: (!narrowing.is_empty()).then(|| narrowing.join(" and ")),
        isolates,
        fqdns: false,
        dns: dns.fold(Dns::default(), |all, one| all | one),
        kube: None,
    })
}

fn calico_rule(rule: &CalicoRule) -> Dns {
    // Pass leaves it to what comes after the tier, which may allow it.
    if !matches!(rule.action.as_str(), "Allow" | "Pass") {
        return Dns::default();
    }
    let destination = rule.destination.as_ref();
    let ports = destination.and_then(|d| d.ports.as_ref());
    let number = match ports {
        Some(ports) => ports.iter().any(|port| is_calico_dns(&written(port))),
        None => destination.is_none_or(|d| {
            let named = [&d.selector, &d.namespace_selector];
            let mut named = named.into_iter().flatten();
            let nowhere = d.nets.is_none() && d.services.is_none() && d.domains.is_none();
            nowhere && named.all(|s| s.contains("kube-dns") || s.contains(SYSTEM))
        }),
    };
    let protocol = rule.protocol.as_ref().map(written);
    let by = |name: &str, value: &str| {
        let protocol = protocol.as_deref();
        number && protocol.is_none_or(|p| p.eq_ignore_ascii_case(name) || p == value)
    };
    Dns {
        udp: by("UDP", "17"),
        tcp: by("TCP", "6"),
    }
}

fn is_calico_dns(text: &str) -> bool {
    match text.split_once(':') {
        Some((first, last)) => {
            let range = first.parse::<u16>().ok().zip(last.parse::<u16>().ok());
            range.is_some_and(|(first, last)| (first..=last).contains(&DNS))
        }
        None => text == "53" || text.starts_with("dns"),
    }
}
