//! ServiceEntries as services: every host that may be declared here, with its addresses and ports
//! (specs/istio-waypoint.md 4.2). Where their endpoints are is `entry_endpoints`' business.
//!
//! A host of the cluster's own domain belongs to the Service of that name: who may write a ServiceEntry
//! in some namespace must not take over another's traffic (issue 3, bad input). The same holds for
//! addresses that a Service or a pod has.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use super::attachment::{Attachment, Traffic};
use super::entry_hosts;
use super::services::protocol_named;
use super::workloads::Pods;
use super::{Findings, unreadable};
use crate::diagnostics::{Code, Diagnostic, Severity};
use crate::origin::ObjectKey;
use crate::resources::service_entry::{EntryPort, ServiceEntrySpec};
use crate::resources::{Loaded, Object, Resources};
use crate::snapshot::{AppProtocol, Binding, Mesh, Service, ServicePort, Waypoint};

pub(super) type Written = Object<ServiceEntrySpec>;
type Services = BTreeMap<ObjectKey, Service>;

/// How endpoints are found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Resolution {
    Static,
    Dns,
    DnsRoundRobin,
    Dynamic,
    Dialled,
}

/// A ServiceEntry of which at least one host is in force.
pub(super) struct Entry<'r> {
    pub object: &'r Written,
    pub resolution: Resolution,
    /// Its hosts, as keys of services.
    pub hosts: Vec<ObjectKey>,
}

/// What hosts and addresses are judged by.
pub(super) struct Ground<'a> {
    pub mesh: &'a Mesh,
    pub attachment: &'a Attachment<'a>,
    pub waypoint: Option<&'a Waypoint>,
    pub pods: &'a Pods,
    /// The waypoint's own; empty: the default one.
    pub network: &'a str,
}

/// Adds the hosts of every ServiceEntry to the services, those of older objects first.
pub(super) fn resolve<'r>(
    resources: &'r Resources,
    ground: &Ground<'_>,
    services: &mut Services,
    findings: &mut Findings,
) -> Vec<Entry<'r>> {
    let mut objects: Vec<&Arc<Written>> = Vec::new();
    for loaded in resources.service_entries.values() {
        match loaded {
            Loaded::Good(object) | Loaded::KeptLastGood(object) => objects.push(object),
            Loaded::Broken(broken) => findings.push(unreadable(
                broken,
                "its hosts are not served, and routes that send to them answer 500 for their share",
            )),
        }
    }
    objects.sort_by_key(|object| (object.meta.created_s.is_none(), object.meta.created_s));
    let entries = objects.into_iter();
    entries
        .filter_map(|object| add(object, ground, services, findings))
        .collect()
}

fn add<'r>(
    object: &'r Written,
    ground: &Ground<'_>,
    services: &mut Services,
    findings: &mut Findings,
) -> Option<Entry<'r>> {
    let resolution = resolution(object, findings)?;
    check_location(object, findings);
    let hosts = entry_hosts::read(object, resolution, ground.mesh, services, findings);
    let binding = binding(object, ground, findings);
    let ports = ports(object, resolution, findings);
    let mut keys = Vec::with_capacity(hosts.len());
    for (index, host) in hosts.into_iter().enumerate() {
        let key = ObjectKey {
            namespace: object.origin.key.namespace.clone(),
            name: host.clone(),
        };
        let claims = Claims {
            object,
            key: &key,
            ground,
            services,
        };
        let (addresses, blocks) = claims.of_host(index == 0, findings);
        let service = Service {
            origin: object.origin.clone(),
            hostname: host,
            addresses,
            blocks,
            exported_to: exported_to(object),
            alt_names: alt_names(object),
            ports: ports.clone(),
            binding: binding.clone(),
            policies: Vec::new(),
            redirect_failure: Default::default(),
            key: key.clone(),
        };
        services.insert(key.clone(), service);
        keys.push(key);
    }
    (!keys.is_empty()).then_some(Entry {
        object,
        resolution,
        hosts: keys,
    })
}

fn resolution(object: &Written, findings: &mut Findings) -> Option<Resolution> {
    let written = object.spec.resolution.as_deref();
    match written.filter(|w| !w.is_empty()).unwrap_or("NONE") {
        "STATIC" => Some(Resolution::Static),
        "DNS" => Some(Resolution::Dns),
        "DNS_ROUND_ROBIN" => Some(Resolution::DnsRoundRobin),
        "DYNAMIC_DNS" => Some(Resolution::Dynamic),
        "NONE" => Some(Resolution::Dialled),
        other => {
            let message = format!("resolution '{other}' is not known");
            let finding = Diagnostic::error(Code::BadValue, message)
                .with_effect("its hosts are not served")
                .with_hint("NONE, STATIC, DNS, DNS_ROUND_ROBIN or DYNAMIC_DNS");
            findings.push(object.mark(finding, "spec.resolution"));
            None
        }
    }
}

/// `location` says whether sidecars are to expect mTLS. A waypoint goes by each endpoint: what is behind a
/// tunnel is labelled so.
fn check_location(object: &Written, findings: &mut Findings) {
    let written = object.spec.location.as_deref().unwrap_or_default();
    if !matches!(written, "" | "MESH_EXTERNAL" | "MESH_INTERNAL") {
        let message = format!("location '{written}' is not known");
        let finding = Diagnostic::warning(Code::BadValue, message)
            .with_effect("it changes nothing at a waypoint")
            .with_hint("MESH_EXTERNAL or MESH_INTERNAL");
        findings.push(object.mark(finding, "spec.location"));
    }
}

fn exported_to(object: &Written) -> Option<Arc<[Arc<str>]>> {
    let written = object.spec.export_to.as_deref().filter(|n| !n.is_empty())?;
    if written.iter().any(|namespace| namespace == "*") {
        return None;
    }
    let own = &object.origin.key.namespace;
    let namespaces = written.iter().map(|namespace| match namespace.as_str() {
        "." => own.clone(),
        // `~` is no namespace: it stays as it is and fits none.
        other => other.into(),
    });
    Some(namespaces.collect())
}

fn alt_names(object: &Written) -> Vec<Arc<str>> {
    let names = object.spec.subject_alt_names.iter().flatten();
    names.map(|name| name.as_str().into()).collect()
}

/// Who serves it. What is not exported to the waypoint's namespace is not for a waypoint there
/// (specs/istio-waypoint.md 1.3).
fn binding(object: &Written, ground: &Ground<'_>, findings: &mut Findings) -> Binding {
    let binding = ground.attachment.bind(object, Traffic::Service, findings);
    let (Binding::Served, Some(waypoint)) = (&binding, ground.waypoint) else {
        return binding;
    };
    let from = &waypoint.origin.key.namespace;
    let exported = exported_to(object);
    if exported.is_none_or(|namespaces| namespaces.contains(from)) {
        return binding;
    }
    let reason = format!("it is not exported to {from}, the namespace of the waypoint");
    let finding = Diagnostic::error(Code::AttachmentDenied, reason.clone())
        .with_effect("its hosts are not served here")
        .with_hint(format!(
            "add {from} to exportTo, or use a waypoint of its own namespace"
        ));
    findings.push(object.mark(finding, "spec.exportTo"));
    Binding::Refused(reason.into())
}

fn ports(object: &Written, resolution: Resolution, findings: &mut Findings) -> Vec<ServicePort> {
    let mut ports: Vec<ServicePort> = Vec::new();
    for (index, written) in object.spec.ports.iter().flatten().enumerate() {
        let at = format!("spec.ports[{index}]");
        match port(written, resolution, &ports) {
            Ok((port, finding)) => {
                findings.extend(finding.map(|f| object.mark(f, &format!("{at}.protocol"))));
                ports.push(port);
            }
            Err((field, finding)) => findings.push(object.mark(*finding, &format!("{at}.{field}"))),
        }
    }
    if object.spec.ports.iter().flatten().next().is_none() {
        let finding = Diagnostic::error(Code::MissingField, "a ServiceEntry needs ports")
            .with_effect("no connection to its hosts is taken")
            .with_hint("ports: [{number: 443, name: tls, protocol: TLS}]");
        findings.push(object.mark(finding, "spec.ports"));
    }
    ports
}

type PortFault = (&'static str, Box<Diagnostic>);

fn port(
    written: &EntryPort,
    resolution: Resolution,
    earlier: &[ServicePort],
) -> Result<(ServicePort, Option<Diagnostic>), PortFault> {
    let refused = |field, code, message: String| {
        let finding = Diagnostic::error(code, message).with_effect("this port is not served");
        Err((field, Box::new(finding)))
    };
    let Some(number) = port_number(written.number) else {
        let message = format!("{} is no port number", written.number);
        return refused("number", Code::BadValue, message);
    };
    if written
        .target_port
        .is_some_and(|port| port_number(port).is_none())
    {
        let message = "targetPort is no port number".to_owned();
        return refused("targetPort", Code::BadValue, message);
    }
    if earlier.iter().any(|port| port.number == number) {
        let message = format!("port {number} is declared twice");
        return refused("number", Code::Conflict, message);
    }
    let word = written.protocol.to_ascii_lowercase();
    let protocol = match word.as_str() {
        "" => Some(AppProtocol::Sniff),
        "udp" => {
            return refused(
                "protocol",
                Code::Unsupported,
                "UDP passes no waypoint".into(),
            );
        }
        word => protocol_named(word),
    };
    let finding = protocol.is_none().then(|| {
        let message = format!("protocol '{}' is not known", written.protocol);
        Diagnostic::warning(Code::BadValue, message)
            .with_effect(format!(
                "the first bytes decide what is spoken on port {number}"
            ))
            .with_hint("HTTP, HTTP2, GRPC, TLS, HTTPS or TCP")
    });
    let protocol = protocol.unwrap_or(AppProtocol::Sniff);
    if resolution == Resolution::Dynamic && protocol == AppProtocol::Tcp {
        let message = format!(
            "DYNAMIC_DNS needs a request's host, which {} hides",
            written.protocol
        );
        return refused("protocol", Code::Unsupported, message);
    }
    let port = ServicePort {
        number,
        name: written.name.as_str().into(),
        protocol,
        routes: Vec::new(),
        stream_routes: Vec::new(),
    };
    Ok((port, finding))
}

/// A port, if it is one.
pub(super) fn port_number(number: u32) -> Option<u16> {
    u16::try_from(number).ok().filter(|number| *number != 0)
}

/// What addresses a host of an object may have.
struct Claims<'a> {
    object: &'a Written,
    key: &'a ObjectKey,
    ground: &'a Ground<'a>,
    services: &'a Services,
}

impl Claims<'_> {
    /// Those written, which are the first host's alone because an address says which host is meant; else
    /// those that the cluster allocated.
    fn of_host(&self, is_first: bool, findings: &mut Findings) -> (Vec<IpAddr>, Vec<IpNet>) {
        let (mut addresses, mut blocks) = (Vec::new(), Vec::new());
        let spec = &self.object.spec;
        let written = spec.addresses.as_deref().filter(|a| !a.is_empty());
        for (index, text) in written.unwrap_or_default().iter().enumerate() {
            let path = format!("spec.addresses[{index}]");
            match (text.parse::<IpAddr>(), text.parse::<IpNet>()) {
                _ if !is_first => {}
                (Ok(address), _) => addresses.push((address, path)),
                (_, Ok(block)) if block.prefix_len() == block.max_prefix_len() => {
                    addresses.push((block.addr(), path));
                }
                (_, Ok(block)) => blocks.push(block.trunc()),
                _ => {
                    let message = format!("'{text}' is no IP address and no block of them");
                    let finding = Diagnostic::error(Code::BadValue, message)
                        .with_effect("nothing is served at it");
                    findings.push(self.object.mark(finding, &path));
                }
            }
        }
        if written.is_some() && !is_first {
            self.tell_of_later_host(findings);
        }
        if written.is_none() {
            let allocated = spec.allocated.iter();
            let of_host = allocated
                .filter(|(host, _)| host.is_empty() && is_first || **host == *self.key.name);
            addresses.extend(of_host.map(|(_, address)| (*address, "status.addresses".to_owned())));
        }
        let mut own: Vec<IpAddr> = Vec::new();
        for (address, path) in addresses {
            if !own.contains(&address) && self.may_have(address, &path, findings) {
                own.push(address);
            }
        }
        (own, blocks)
    }

    fn may_have(&self, address: IpAddr, path: &str, findings: &mut Findings) -> bool {
        let mut services = self.services.values();
        let of_service = services.find(|service| service.addresses.contains(&address));
        let of_pod = self.ground.pods.by_address.get(&address);
        let owner = match (of_service, of_pod) {
            (Some(service), _) => service.origin.to_string(),
            (None, Some(pod)) if pod.key.namespace != self.key.namespace => {
                format!("Pod {}", pod.key)
            }
            _ => return true,
        };
        let message = format!("address {address} already belongs to {owner}");
        let finding = Diagnostic::error(Code::Conflict, message).with_effect(format!(
            "tunnels to {address} go there; {} is not served on it",
            self.key.name
        ));
        findings.push(self.object.mark(finding, path));
        false
    }

    fn tell_of_later_host(&self, findings: &mut Findings) {
        let message = format!(
            "the addresses are those of the first host; {} is served by name alone",
            self.key.name
        );
        let finding = Diagnostic::new(Severity::Info, Code::Unsupported, message)
            .with_effect("a connection to one of the addresses is for the first host")
            .with_hint("write a ServiceEntry for each host, or leave the addresses to the cluster");
        findings.push(self.object.mark(finding, "spec.addresses"));
    }
}
