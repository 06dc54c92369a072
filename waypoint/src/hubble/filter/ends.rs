//! Filters on who talks to whom: addresses, ports, pods, services, workloads, labels, names.

use std::net::IpAddr;

use ipnet::IpNet;

use super::pattern::Pattern;
use super::selector::Selector;
use super::{Filter, Invalid, Test};
use crate::hubble::messages::{Endpoint, Flow, FlowFilter, Workload, layer4};

/// Which end of a flow.
#[derive(Clone, Copy, Debug)]
pub enum End {
    Source,
    Destination,
}

/// Which of its names.
#[derive(Clone, Copy, Debug)]
pub enum Of {
    Pod,
    Service,
}

/// `shop/web-`: the namespace, and how the name begins; empty: any.
#[derive(Debug)]
pub struct NamePrefix {
    namespace: String,
    prefix: String,
}

/// Addresses and blocks of them.
#[derive(Debug)]
pub struct AddressSet {
    addresses: Vec<IpAddr>,
    blocks: Vec<IpNet>,
}

impl End {
    /// This end of a flow.
    pub fn of(self, flow: &Flow) -> Option<&Endpoint> {
        match self {
            Self::Source => flow.source.as_ref(),
            Self::Destination => flow.destination.as_ref(),
        }
    }

    /// Its address; empty if there is none.
    pub fn address(self, flow: &Flow) -> &str {
        let ip = flow.ip.as_ref();
        ip.map_or("", |ip| match self {
            Self::Source => &ip.source,
            Self::Destination => &ip.destination,
        })
    }

    /// Its port.
    pub fn port(self, flow: &Flow) -> Option<u16> {
        let layer4::Protocol::Tcp(tcp) = flow.l4.as_ref()?.protocol.as_ref()?;
        let port = match self {
            Self::Source => tcp.source_port,
            Self::Destination => tcp.destination_port,
        };
        u16::try_from(port).ok()
    }
}

/// Reads the fields that are about ends.
pub fn read(from: &FlowFilter, tests: &mut Filter) -> Result<(), Invalid> {
    let ends = [
        (End::Source, Fields::source(from)),
        (End::Destination, Fields::destination(from)),
    ];
    for (end, fields) in ends {
        fields.read(end, tests)?;
    }
    if !from.source_ip_xlated.is_empty() {
        tests.push(Test::Translated(AddressSet::read(&from.source_ip_xlated)?));
    }
    Ok(())
}

/// The fields of one end.
struct Fields<'a> {
    ip: &'a [String],
    pod: &'a [String],
    service: &'a [String],
    fqdn: &'a [String],
    label: &'a [String],
    workload: &'a [Workload],
    cluster: &'a [String],
    port: &'a [String],
    identity: &'a [u32],
}

impl<'a> Fields<'a> {
    fn source(from: &'a FlowFilter) -> Self {
        Self {
            ip: &from.source_ip,
            pod: &from.source_pod,
            service: &from.source_service,
            fqdn: &from.source_fqdn,
            label: &from.source_label,
            workload: &from.source_workload,
            cluster: &from.source_cluster_name,
            port: &from.source_port,
            identity: &from.source_identity,
        }
    }

    fn destination(from: &'a FlowFilter) -> Self {
        Self {
            ip: &from.destination_ip,
            pod: &from.destination_pod,
            service: &from.destination_service,
            fqdn: &from.destination_fqdn,
            label: &from.destination_label,
            workload: &from.destination_workload,
            cluster: &from.destination_cluster_name,
            port: &from.destination_port,
            identity: &from.destination_identity,
        }
    }

    fn read(&self, end: End, tests: &mut Filter) -> Result<(), Invalid> {
        if !self.ip.is_empty() {
            tests.push(Test::Address(end, AddressSet::read(self.ip)?));
        }
        if !self.pod.is_empty() {
            tests.push(Test::Name(end, Of::Pod, names(self.pod)?));
        }
        if !self.service.is_empty() {
            tests.push(Test::Name(end, Of::Service, names(self.service)?));
        }
        if !self.fqdn.is_empty() {
            let patterns = self.fqdn.iter().map(|text| Pattern::read(text));
            tests.push(Test::Fqdn(end, patterns.collect::<Result<_, _>>()?));
        }
        if !self.label.is_empty() {
            let selectors = self.label.iter().map(|text| Selector::read(text));
            tests.push(Test::Label(end, selectors.collect::<Result<_, _>>()?));
        }
        if !self.workload.is_empty() {
            tests.push(Test::Workload(end, self.workload.to_vec()));
        }
        if !self.cluster.is_empty() {
            if self.cluster.iter().any(String::is_empty) {
                return Err(Invalid::new("the name of a cluster must not be empty"));
            }
            tests.push(Test::Cluster(end, self.cluster.to_vec()));
        }
        if !self.port.is_empty() {
            let ports = self.port.iter().map(port);
            tests.push(Test::Port(end, ports.collect::<Result<_, _>>()?));
        }
        if !self.identity.is_empty() {
            tests.push(Test::Identity(end, self.identity.to_vec()));
        }
        Ok(())
    }
}

impl AddressSet {
    fn read(values: &[String]) -> Result<Self, Invalid> {
        let mut set = Self {
            addresses: Vec::new(),
            blocks: Vec::new(),
        };
        for text in values {
            let invalid = || Invalid::new(format!("{text:?} is neither an address nor a block"));
            match text.contains('/') {
                true => set.blocks.push(text.parse().map_err(|_| invalid())?),
                false => set.addresses.push(text.parse().map_err(|_| invalid())?),
            }
        }
        Ok(set)
    }

    /// Whether an address, as text, is among them.
    pub fn contain(&self, address: &str) -> bool {
        let Ok(address) = address.parse::<IpAddr>() else {
            return false;
        };
        self.addresses.contains(&address)
            || self.blocks.iter().any(|block| block.contains(&address))
    }
}

/// `ns/prefix`; without a namespace that is `default`, as with the `hubble` command.
fn names(values: &[String]) -> Result<Vec<NamePrefix>, Invalid> {
    let read = |text: &String| {
        if text.is_empty() {
            return Err(Invalid::new("a name to filter by must not be empty"));
        }
        let mut parts = text.split('/');
        let first = parts.next().unwrap_or_default();
        let (namespace, prefix) = match parts.next() {
            Some(prefix) => (first, prefix),
            None => ("default", first),
        };
        Ok(NamePrefix {
            namespace: namespace.to_owned(),
            prefix: prefix.to_owned(),
        })
    };
    values.iter().map(read).collect()
}

fn port(text: &String) -> Result<u16, Invalid> {
    text.parse()
        .map_err(|_| Invalid::new(format!("{text:?} is not a port")))
}

/// Pods and services by their beginnings.
pub fn name(end: End, of: Of, wanted: &[NamePrefix], flow: &Flow) -> bool {
    let (namespace, name) = match (of, end) {
        (Of::Pod, end) => end
            .of(flow)
            .map_or(("", ""), |e| (&*e.namespace, &*e.pod_name)),
        (Of::Service, End::Source) => service(flow.source_service.as_ref()),
        (Of::Service, End::Destination) => service(flow.destination_service.as_ref()),
    };
    if namespace.is_empty() && name.is_empty() {
        return false;
    }
    wanted.iter().any(|wanted| {
        name.starts_with(&wanted.prefix)
            && (wanted.namespace.is_empty() || wanted.namespace == namespace)
    })
}

fn service(service: Option<&crate::hubble::messages::Service>) -> (&str, &str) {
    service.map_or(("", ""), |s| (&s.namespace, &s.name))
}

/// Workloads by name, kind or both.
pub fn workload(end: End, wanted: &[Workload], flow: &Flow) -> bool {
    let workloads = end.of(flow).map_or(&[][..], |e| &e.workloads);
    workloads.iter().any(|workload| {
        wanted.iter().any(|wanted| {
            (wanted.name.is_empty() || wanted.name == workload.name)
                && (wanted.kind.is_empty() || wanted.kind == workload.kind)
        })
    })
}

/// Names of DNS, by patterns.
pub fn fqdn(end: End, wanted: &[Pattern], flow: &Flow) -> bool {
    let names = match end {
        End::Source => &flow.source_names,
        End::Destination => &flow.destination_names,
    };
    names
        .iter()
        .any(|name| wanted.iter().any(|pattern| pattern.matches(name)))
}

/// Labels, by selectors.
pub fn label(end: End, wanted: &[Selector], flow: &Flow) -> bool {
    let labels = end.of(flow).map_or(&[][..], |e| &e.labels);
    wanted.iter().any(|selector| selector.selects(labels))
}

/// Clusters by name.
pub fn cluster(end: End, wanted: &[String], flow: &Flow) -> bool {
    let name = end.of(flow).map_or("", |e| &e.cluster_name);
    wanted.iter().any(|wanted| wanted == name)
}

/// The address that the source's was translated to.
pub fn translated(flow: &Flow) -> &str {
    flow.ip.as_ref().map_or("", |ip| &ip.source_xlated)
}
