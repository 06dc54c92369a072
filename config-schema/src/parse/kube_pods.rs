//! Pods: read whole and strictly, kept as the little a waypoint needs (`resources::kube`). Who is a workload
//! is decided in `resolve`.

use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::core::v1 as core;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::fault::Fault;
use super::kube::{Conversion, is_tcp};
use super::names::Names;
use super::node::Node;
use super::subject::required_spec;
use crate::resources::kube::{HttpProbe, PodSpec};

/// A Pod, its addresses from the status. Whether it is ready is the EndpointSlice's to say.
pub(super) fn pod(node: &Node<'_>, faults: &mut Vec<Fault>, names: &mut Names) -> Option<PodSpec> {
    let spec: core::PodSpec = required_spec(node, faults)?;
    let mut conversion = Conversion {
        node,
        faults,
        names,
    };
    let account = spec
        .service_account_name
        .as_ref()
        .or(spec.service_account.as_ref());
    let account = account.filter(|a| !a.is_empty());
    let phase = status_text(node, "phase").unwrap_or_default();
    Some(PodSpec {
        service_account: conversion
            .names
            .share(account.map_or("default", String::as_str)),
        node: conversion.share(spec.node_name.as_ref()),
        host_network: spec.host_network.unwrap_or_default(),
        pod_ips: pod_ips(&mut conversion),
        finished: matches!(phase, "Succeeded" | "Failed"),
        named_ports: named_ports(&spec, conversion.names),
        probes: probes(&spec, conversion.names),
        owner: owner(node, conversion.names),
    })
}

fn named_ports(spec: &core::PodSpec, names: &mut Names) -> Box<[(Arc<str>, u16)]> {
    let init = spec.init_containers.iter().flatten();
    let ports = init.chain(&spec.containers).flat_map(|c| c.ports.iter());
    let tcp = ports.flatten().filter(|p| is_tcp(p.protocol.as_ref()));
    let named = tcp.filter_map(|port| {
        let name = port.name.as_ref()?.to_ascii_lowercase();
        Some((names.share(&name), u16::try_from(port.container_port).ok()?))
    });
    named.collect()
}

/// The HTTP probes of all containers; a probe of another kind has no path.
fn probes(spec: &core::PodSpec, names: &mut Names) -> Box<[HttpProbe]> {
    let mut found = Vec::new();
    for container in spec
        .init_containers
        .iter()
        .flatten()
        .chain(&spec.containers)
    {
        for (kind, probe) in [
            ("livenessProbe", &container.liveness_probe),
            ("readinessProbe", &container.readiness_probe),
            ("startupProbe", &container.startup_probe),
        ] {
            let Some(get) = probe.as_ref().and_then(|p| p.http_get.as_ref()) else {
                continue;
            };
            let port = match &get.port {
                IntOrString::Int(number) => u16::try_from(*number).ok(),
                IntOrString::String(name) => {
                    let ports = container.ports.iter().flatten();
                    let mut named = ports.filter(|p| p.name.as_ref() == Some(name));
                    let port = named.next().map(|p| p.container_port);
                    port.and_then(|p| u16::try_from(p).ok())
                }
            };
            let path = get.path.as_deref().filter(|p| !p.is_empty());
            let path = names.share(path.unwrap_or("/"));
            found.push(HttpProbe { kind, path, port });
        }
    }
    found.into()
}

/// The text of a field of the status, which is read leniently: it is the cluster's, not the user's.
fn status_text<'n>(node: &'n Node<'_>, key: &str) -> Option<&'n str> {
    let value = node.get("status")?.get(key)?;
    value.text().filter(|t| !t.is_empty() && !value.is_null())
}

fn pod_ips(conversion: &mut Conversion<'_>) -> Box<[IpAddr]> {
    let node = conversion.node;
    let listed = node.get("status").and_then(|s| s.get("podIPs"));
    let mut found = Vec::new();
    for (index, item) in listed.map_or(&[][..], Node::items).iter().enumerate() {
        let path = format!("status.podIPs[{index}].ip");
        let text = item.get("ip").and_then(Node::text).unwrap_or_default();
        found.extend(conversion.address(text, &path));
    }
    if found.is_empty()
        && let Some(text) = status_text(node, "podIP")
    {
        found.extend(conversion.address(text, "status.podIP"));
    }
    found.into()
}

fn owner(node: &Node<'_>, names: &mut Names) -> Option<(Arc<str>, Arc<str>)> {
    let owners = node.get("metadata")?.get("ownerReferences")?;
    let is_controller = |o: &&Node<'_>| o.get("controller").and_then(Node::text) == Some("true");
    let owner = owners.items().iter().find(is_controller)?;
    let kind = owner.get("kind")?.text()?;
    let name = owner.get("name")?.text()?;
    Some((names.share(kind), names.share(name)))
}
