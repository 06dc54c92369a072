//! Kubernetes core kinds but Pods: read whole and strictly, kept as the little a waypoint needs
//! (`resources::kube`). Decides nothing about what the values mean together.

use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::discovery::v1 as discovery;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde::de::DeserializeOwned;

use super::fault::Fault;
use super::names::Names;
use super::node::Node;
use super::path::{Path, find};
use super::read::read;
use super::subject::{optional_spec, required_spec};
use crate::diagnostics::{Code, Severity};
use crate::origin::{ObjectKey, Origin};
use crate::resources::Meta;
use crate::resources::kube::{
    EndpointPort, EndpointSliceSpec, NamespaceSpec, ServicePort, ServiceSpec, SliceEndpoint,
};

/// What a conversion needs: the tree to point into, and where to complain.
pub(super) struct Conversion<'c> {
    pub node: &'c Node<'c>,
    pub faults: &'c mut Vec<Fault>,
    pub names: &'c mut Names,
}

impl Conversion<'_> {
    fn complain(&mut self, path: &str, message: String, hint: &str) {
        let fault = Fault::error(Code::BadValue, message, path, find(self.node, path));
        self.faults.push(fault.with_hint(hint));
    }

    /// Fields that change how requests are spread, and do not here. Routing as such is right without
    /// them, so the Service stays in force.
    fn tell_what_is_not_honoured(&mut self, spec: &core::ServiceSpec) {
        let affinity = spec.session_affinity.as_deref().filter(|a| *a != "None");
        if let Some(value) = affinity {
            let path = "spec.sessionAffinity";
            let message = format!("{value} has no effect at this waypoint");
            let fault = Fault::error(Code::Unsupported, message, path, find(self.node, path))
                .with_severity(Severity::Warning)
                .with_effect("requests are spread over all endpoints by least requests")
                .with_hint(
                    "a DestinationRule with consistentHash, or sessionPersistence of a route",
                );
            self.faults.push(fault);
        }
    }

    /// Routes that lead to one say so themselves; here it is told before there are any.
    fn tell_of_external_name(&mut self, spec: &core::ServiceSpec) {
        if spec.type_.as_deref() == Some("ExternalName") && spec.external_name.is_some() {
            let path = "spec.externalName";
            let message = "a waypoint sends nothing to the name behind an ExternalName Service";
            let fault = Fault::error(Code::Unsupported, message, path, find(self.node, path))
                .with_severity(Severity::Info)
                .with_effect("routes that lead to this Service answer 500 for its share")
                .with_hint("a ServiceEntry of the name with `resolution: DNS`");
            self.faults.push(fault);
        }
    }

    /// Whether `addressType` is that of host names, which are not used as endpoints.
    fn is_of_host_names(&mut self) -> bool {
        const PATH: &str = "addressType";
        let written = self.node.get(PATH).and_then(Node::text);
        let at = find(self.node, PATH);
        match written.unwrap_or_default() {
            "" | "IPv4" | "IPv6" => false,
            "FQDN" => {
                let message = "endpoints that are host names are not supported";
                let fault = Fault::error(Code::Unsupported, message, PATH, at)
                    .with_severity(Severity::Warning)
                    .with_effect("the endpoints of this slice are not used");
                self.faults.push(fault);
                true
            }
            other => {
                let message = format!("addressType '{other}' is not known");
                let fault = Fault::error(Code::BadValue, message, PATH, at)
                    .with_severity(Severity::Warning)
                    .with_effect("its addresses are read as IP addresses")
                    .with_hint("IPv4, IPv6 or FQDN");
                self.faults.push(fault);
                false
            }
        }
    }

    /// `trafficDistribution`, or Istio's annotation for it: whether those of the same node go first.
    fn traffic_distribution(&mut self, written: Option<&str>) -> Option<bool> {
        const ANNOTATION: &str = "networking.istio.io/traffic-distribution";
        let annotations = self.node.get("metadata").and_then(|m| m.get("annotations"));
        let annotated = annotations
            .and_then(|a| a.get(ANNOTATION))
            .and_then(Node::text);
        match annotated.or(written)? {
            "PreferClose" | "PreferSameZone" => Some(false),
            "PreferSameNode" => Some(true),
            "Any" => None,
            other => {
                let path = "spec.trafficDistribution";
                let message = format!("there is no traffic distribution '{other}'");
                let fault = Fault::error(Code::BadValue, message, path, find(self.node, path))
                    .with_severity(Severity::Warning)
                    .with_effect("endpoints of all places receive traffic")
                    .with_hint("PreferSameZone, PreferSameNode or PreferClose");
                self.faults.push(fault);
                None
            }
        }
    }

    /// A port number; zero and what does not fit is complained about.
    fn port(&mut self, number: i32, path: &str) -> Option<u16> {
        let port = u16::try_from(number).ok().filter(|port| *port != 0);
        if port.is_none() {
            let message = format!("{number} is no port number");
            self.complain(path, message, "a number from 1 to 65535");
        }
        port
    }

    pub fn address(&mut self, text: &str, path: &str) -> Option<IpAddr> {
        let address = text.parse().ok();
        if address.is_none() {
            let message = format!("`{text}` is no IP address");
            self.complain(
                path,
                message,
                "an IPv4 or IPv6 address without a port or mask",
            );
        }
        address
    }

    pub fn share(&mut self, text: Option<&String>) -> Arc<str> {
        self.names.share(text.map_or("", String::as_str))
    }

    /// A part of an object that is a list; empty when absent.
    fn list<T: DeserializeOwned>(&mut self, key: &'static str) -> Option<Vec<T>> {
        let Some(entry) = self.node.entry(key).filter(|e| !e.value.is_null()) else {
            return Some(Vec::new());
        };
        let path = Path::ROOT.key(key);
        read(&entry.value, entry.at(), &path, &[], self.faults)
    }
}

pub(super) fn is_tcp(protocol: Option<&String>) -> bool {
    protocol.is_none_or(|p| p.is_empty() || p == "TCP")
}

/// A Namespace.
pub(super) fn namespace(node: &Node<'_>, faults: &mut Vec<Fault>) -> Option<NamespaceSpec> {
    optional_spec::<core::NamespaceSpec>(node, faults).map(|_| NamespaceSpec {})
}

/// A Service.
pub(super) fn service(
    node: &Node<'_>,
    faults: &mut Vec<Fault>,
    names: &mut Names,
) -> Option<ServiceSpec> {
    let spec: core::ServiceSpec = required_spec(node, faults)?;
    let mut conversion = Conversion {
        node,
        faults,
        names,
    };
    let cluster_ips = cluster_ips(&spec, &mut conversion);
    conversion.tell_what_is_not_honoured(&spec);
    conversion.tell_of_external_name(&spec);
    let distribution = spec.traffic_distribution.as_deref();
    let traffic_distribution = conversion.traffic_distribution(distribution);
    let is_none = |ip: &String| ip == "None";
    let ports = spec.ports.unwrap_or_default();
    let selector = spec.selector.unwrap_or_default();
    let selector = selector
        .iter()
        .map(|(key, value)| (conversion.names.share(key), conversion.names.share(value)))
        .collect();
    Some(ServiceSpec {
        headless: spec.cluster_ip.iter().any(is_none)
            || spec.cluster_ips.iter().flatten().any(is_none),
        cluster_ips,
        external_name: spec.type_.as_deref() == Some("ExternalName"),
        selector,
        ports: ports
            .iter()
            .enumerate()
            .filter(|(_, port)| is_tcp(port.protocol.as_ref()))
            .filter_map(|(index, port)| service_port(index, port, &mut conversion))
            .collect(),
        publish_not_ready_addresses: spec.publish_not_ready_addresses.unwrap_or_default(),
        internal_traffic_policy_local: spec.internal_traffic_policy.as_deref() == Some("Local"),
        traffic_distribution,
    })
}

fn cluster_ips(spec: &core::ServiceSpec, conversion: &mut Conversion<'_>) -> Vec<IpAddr> {
    let mut found = Vec::new();
    let all = spec.cluster_ips.as_deref().unwrap_or_default();
    for (index, text) in all.iter().enumerate() {
        if text != "None" && !text.is_empty() {
            let path = format!("spec.clusterIPs[{index}]");
            found.extend(conversion.address(text, &path));
        }
    }
    if let Some(text) = &spec.cluster_ip
        && text != "None"
        && !text.is_empty()
    {
        let first = conversion.address(text, "spec.clusterIP");
        match (first, found.first()) {
            (Some(first), None) => found.push(first),
            (Some(first), Some(other)) if first != *other => {
                let message =
                    format!("clusterIP is {first}, but the first of clusterIPs is {other}");
                conversion.complain("spec.clusterIP", message, "make them equal, or remove one");
            }
            _ => {}
        }
    }
    found
}

fn service_port(
    index: usize,
    port: &core::ServicePort,
    conversion: &mut Conversion<'_>,
) -> Option<ServicePort> {
    let number = conversion.port(port.port, &format!("spec.ports[{index}].port"))?;
    check_target_port(index, port.target_port.as_ref(), conversion)?;
    let app_protocol = port.app_protocol.as_ref().filter(|p| !p.is_empty());
    Some(ServicePort {
        name: conversion.share(port.name.as_ref()),
        port: number,
        app_protocol: app_protocol.map(|p| conversion.names.share(p)),
    })
}

/// Whether `targetPort` is one: its value is not kept, for EndpointSlices have it resolved.
fn check_target_port(
    index: usize,
    target: Option<&IntOrString>,
    conversion: &mut Conversion<'_>,
) -> Option<()> {
    let path = || format!("spec.ports[{index}].targetPort");
    match target {
        // Kubernetes takes 0 for "not set".
        Some(IntOrString::Int(number)) if *number != 0 => {
            conversion.port(*number, &path())?;
        }
        Some(IntOrString::String(name))
            if !name.is_empty() && name.bytes().all(|c| c.is_ascii_digit()) =>
        {
            let message = format!("the string {name:?} is no name of a port");
            conversion.complain(&path(), message, "remove the quotes");
            return None;
        }
        _ => {}
    }
    Some(())
}

/// An EndpointSlice.
pub(super) fn endpoint_slice(
    node: &Node<'_>,
    origin: &Origin,
    meta: Option<&Meta>,
    faults: &mut Vec<Fault>,
    names: &mut Names,
) -> Option<EndpointSliceSpec> {
    let mut conversion = Conversion {
        node,
        faults,
        names,
    };
    let endpoints: Option<Vec<discovery::Endpoint>> = conversion.list("endpoints");
    let ports: Option<Vec<discovery::EndpointPort>> = conversion.list("ports");
    let (endpoints, ports) = (endpoints?, ports?);
    let service_name = meta
        .and_then(|m| m.labels.get("kubernetes.io/service-name"))
        .map_or_else(|| "".into(), Arc::clone);
    if conversion.is_of_host_names() {
        return Some(EndpointSliceSpec {
            service_name,
            ..EndpointSliceSpec::default()
        });
    }
    let mut converted = Vec::with_capacity(endpoints.len());
    for (index, endpoint) in endpoints.iter().enumerate() {
        converted.push(slice_endpoint(index, endpoint, origin, &mut conversion));
    }
    let tcp = ports
        .iter()
        .enumerate()
        .filter(|(_, p)| is_tcp(p.protocol.as_ref()));
    let ports = tcp
        .map(|(index, port)| EndpointPort {
            name: conversion.share(port.name.as_ref()),
            port: port
                .port
                .and_then(|p| conversion.port(p, &format!("ports[{index}].port"))),
        })
        .collect();
    Some(EndpointSliceSpec {
        service_name,
        ports,
        endpoints: converted.into(),
    })
}

fn slice_endpoint(
    index: usize,
    endpoint: &discovery::Endpoint,
    origin: &Origin,
    conversion: &mut Conversion<'_>,
) -> SliceEndpoint {
    let mut addresses = Vec::with_capacity(endpoint.addresses.len());
    for (item, text) in endpoint.addresses.iter().enumerate() {
        let path = format!("endpoints[{index}].addresses[{item}]");
        addresses.extend(conversion.address(text, &path));
    }
    let target = endpoint.target_ref.as_ref();
    let target = target.filter(|t| t.kind.as_deref() == Some("Pod"));
    let pod = target.and_then(|t| t.name.as_ref().map(|name| (t.namespace.as_ref(), name)));
    SliceEndpoint {
        addresses: addresses.into(),
        ready: endpoint.conditions.as_ref().and_then(|c| c.ready) != Some(false),
        pod: pod.map(|(namespace, name)| {
            let own = || origin.key.namespace.clone();
            let namespace = namespace.map_or_else(own, |n| conversion.names.share(n));
            ObjectKey::new(namespace, conversion.names.share(name))
        }),
        node: endpoint
            .node_name
            .as_ref()
            .map(|n| conversion.names.share(n)),
        zone: endpoint.zone.as_ref().map(|z| conversion.names.share(z)),
        for_zones: (endpoint.hints.as_ref())
            .and_then(|hints| hints.for_zones.as_ref())
            .into_iter()
            .flatten()
            .map(|zone| conversion.names.share(&zone.name))
            .collect(),
    }
}
