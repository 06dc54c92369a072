//! Services with their virtual IPs, ports and protocols (specs/istio-waypoint.md 2.5, 4.1).
//! Routes and policies are attached to them later, by `routes` and `policies`.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::attachment::{Attachment, Traffic};
use super::{Findings, unreadable};
use crate::diagnostics::{Code, Diagnostic, Severity};
use crate::origin::ObjectKey;
use crate::resources::kube::ServiceSpec;
use crate::resources::{Loaded, Object, Resources};
use crate::snapshot::{AppProtocol, Binding, Mesh, RedirectFailure, Service, ServicePort};

const GRPC_WEB: &str = "grpc-web";
const CILIUM_GLOBAL: &str = "service.cilium.io/global";
const REDIRECT_FAILURE: &str = "cairn.dev/redirect-failure";

/// Every Service that can be read, without routes and policies.
pub(super) fn resolve(
    resources: &Resources,
    mesh: &Mesh,
    attachment: &Attachment<'_>,
    findings: &mut Findings,
) -> BTreeMap<ObjectKey, Service> {
    let mut services = BTreeMap::new();
    for loaded in resources.services.values() {
        match loaded {
            Loaded::Good(object) | Loaded::KeptLastGood(object) => {
                let binding = attachment.bind(&**object, Traffic::Service, findings);
                tell_of_other_clusters(object, findings);
                let service = Service {
                    key: object.origin.key.clone(),
                    hostname: hostname(&object.origin.key, mesh),
                    addresses: object.spec.cluster_ips.clone(),
                    ports: ports(object, findings),
                    binding,
                    policies: Vec::new(),
                    redirect_failure: redirect_failure(object, findings),
                };
                services.insert(object.origin.key.clone(), service);
            }
            Loaded::Broken(broken) => findings.push(unreadable(
                broken,
                "it is not served, and routes that send to it answer 500 for its share",
            )),
        }
    }
    part_shared_addresses(resources, &mut services, findings);
    refuse_without_address(resources, &mut services, findings);
    services
}

/// Closed unless the annotation says `open`: whatever else it says is no wish to pass policy by.
fn redirect_failure(object: &Object<ServiceSpec>, findings: &mut Findings) -> RedirectFailure {
    let annotation = object.meta.annotations.get(REDIRECT_FAILURE);
    match annotation.map(|value| &**value) {
        Some("open") => RedirectFailure::Open,
        None | Some("closed") => RedirectFailure::Closed,
        Some(other) => {
            let finding = Diagnostic::warning(
                Code::BadValue,
                format!(
                    "annotation {REDIRECT_FAILURE} is '{other}', neither \"open\" nor \"closed\""
                ),
            )
            .with_effect("connections are refused while the node's proxy does not listen");
            findings.push(object.mark(
                finding,
                &format!("metadata.annotations[{REDIRECT_FAILURE}]"),
            ));
            RedirectFailure::Closed
        }
    }
}

/// Cilium's mesh of clusters: the endpoints of others are in no object of this cluster.
fn tell_of_other_clusters(object: &Object<ServiceSpec>, findings: &mut Findings) {
    let annotation = object.meta.annotations.get(CILIUM_GLOBAL);
    if annotation.is_some_and(|value| &**value == "true") {
        let message = format!("{CILIUM_GLOBAL}: endpoints of other clusters are not known here");
        let finding = Diagnostic::new(Severity::Info, Code::NotForWaypoint, message)
            .with_effect("requests go to the endpoints of this cluster alone");
        let path = format!("metadata.annotations[{CILIUM_GLOBAL}]");
        findings.push(object.mark(finding, &path));
    }
}

fn hostname(key: &ObjectKey, mesh: &Mesh) -> Arc<str> {
    format!("{}.{}.svc.{}", key.name, key.namespace, mesh.cluster_domain).into()
}

fn ports(object: &Object<ServiceSpec>, findings: &mut Findings) -> Vec<ServicePort> {
    let mut ports: Vec<ServicePort> = Vec::with_capacity(object.spec.ports.len());
    for (index, port) in object.spec.ports.iter().enumerate() {
        if ports.iter().any(|earlier| earlier.number == port.port) {
            let finding = Diagnostic::error(
                Code::Conflict,
                format!("port {} is declared twice", port.port),
            )
            .with_effect("the first declaration is in force");
            findings.push(object.mark(finding, &format!("spec.ports[{index}].port")));
            continue;
        }
        let (protocol, finding) = app_protocol(port.app_protocol.as_deref(), &port.name, port.port);
        if let Some(finding) = finding {
            let field = match port.app_protocol {
                Some(_) => "appProtocol",
                None => "name",
            };
            findings.push(object.mark(finding, &format!("spec.ports[{index}].{field}")));
        }
        ports.push(ServicePort {
            number: port.port,
            name: port.name.clone(),
            protocol,
            routes: Vec::new(),
            stream_routes: Vec::new(),
        });
    }
    ports
}

/// What a port speaks: `appProtocol`, then the port's name up to the first dash, else the first
/// bytes decide (specs/istio-waypoint.md 2.5); and what there is to say about it.
fn app_protocol(
    declared: Option<&str>,
    name: &str,
    port: u16,
) -> (AppProtocol, Option<Diagnostic>) {
    let word = match declared.filter(|declared| !declared.is_empty()) {
        Some(declared) => declared.to_ascii_lowercase(),
        None => {
            let name = name.to_ascii_lowercase();
            match name.strip_prefix(GRPC_WEB) {
                Some(rest) if rest.is_empty() || rest.starts_with('-') => GRPC_WEB.to_owned(),
                _ => name.split('-').next().unwrap_or_default().to_owned(),
            }
        }
    };
    let protocol = protocol_named(&word);
    let finding = match (protocol, declared) {
        // Istio's waypoint makes gRPC of it. To the wire it is POST with a body like any other.
        (Some(_), _) if word == GRPC_WEB => Some(
            Diagnostic::warning(Code::Unsupported, "gRPC-Web is not translated to gRPC yet")
                .with_effect(format!(
                    "port {port} is served as http: an endpoint gets gRPC-Web as the client sent it"
                ))
                .with_hint("write http if the application speaks gRPC-Web, grpc if it is gRPC"),
        ),
        (None, Some(written)) if !written.is_empty() => Some(
            Diagnostic::new(
                Severity::Info,
                Code::BadValue,
                format!("appProtocol '{written}' is not known"),
            )
            .with_effect(format!(
                "the protocol on port {port} is told from the first bytes of a connection"
            ))
            .with_hint("http, http2, grpc or tcp"),
        ),
        _ => None,
    };
    (protocol.unwrap_or(AppProtocol::Sniff), finding)
}

fn protocol_named(word: &str) -> Option<AppProtocol> {
    match word {
        "http" | "kubernetes.io/ws" | GRPC_WEB => Some(AppProtocol::Http),
        "http2" | "h2c" | "kubernetes.io/h2c" => Some(AppProtocol::Http2),
        "grpc" => Some(AppProtocol::Grpc),
        // Encrypted by the application, so that there is no HTTP to be seen here.
        "https" | "tls" | "kubernetes.io/wss" => Some(AppProtocol::Tcp),
        "tcp" | "mongo" | "mysql" | "redis" | "hbone" => Some(AppProtocol::Tcp),
        _ => None,
    }
}

/// A virtual IP says which service is meant, so two services can not have the same: it stays with
/// the older one, or with the first by name.
fn part_shared_addresses(
    resources: &Resources,
    services: &mut BTreeMap<ObjectKey, Service>,
    findings: &mut Findings,
) {
    let mut by_age: Vec<&Arc<Object<ServiceSpec>>> = resources
        .services
        .values()
        .filter_map(Loaded::object)
        .collect();
    by_age.sort_by_key(|object| {
        let created_s = object.meta.created_s;
        (created_s.is_none(), created_s)
    });
    let mut owners: FxHashMap<IpAddr, &ObjectKey> = FxHashMap::default();
    for object in by_age {
        let key = &object.origin.key;
        let Some(service) = services.get_mut(key) else {
            continue;
        };
        service.addresses.retain(|address| {
            let owner = *owners.entry(*address).or_insert(key);
            if owner != key {
                let finding = Diagnostic::error(
                    Code::Conflict,
                    format!("address {address} already belongs to Service {owner}"),
                )
                .with_effect(format!(
                    "tunnels to {address} go to {owner}; {key} is not served on it"
                ));
                findings.push(object.mark(finding, "spec.clusterIPs"));
            }
            owner == key
        });
        let mut unique = Vec::with_capacity(service.addresses.len());
        for address in service.addresses.drain(..) {
            if !unique.contains(&address) {
                unique.push(address);
            }
        }
        service.addresses = unique;
    }
}

/// A waypoint knows a service by its address, so one without any can not be served
/// (specs/istio-waypoint.md 2.5 item 6).
fn refuse_without_address(
    resources: &Resources,
    services: &mut BTreeMap<ObjectKey, Service>,
    findings: &mut Findings,
) {
    for (key, service) in services.iter_mut() {
        if service.binding != Binding::Served || !service.addresses.is_empty() {
            continue;
        }
        let Some(object) = resources.services.get(key).and_then(Loaded::object) else {
            continue;
        };
        let reason = match &object.spec {
            spec if spec.headless => "a headless Service has no virtual IP to be served by",
            spec if spec.external_name => "an ExternalName Service has no virtual IP",
            spec if spec.cluster_ips.is_empty() => "the Service has no clusterIP",
            _ => "every clusterIP of the Service belongs to another one",
        };
        // Headless services in an enrolled namespace are common and harmless; one that asks for
        // the waypoint itself is a mistake.
        let own_label = object.meta.labels.contains_key("istio.io/use-waypoint");
        let severity = match own_label {
            true => Severity::Warning,
            false => Severity::Info,
        };
        let finding = Diagnostic::new(severity, Code::NotAttached, reason)
            .with_effect("what clients send to it meets no policy and no route of this waypoint");
        findings.push(object.mark(finding, ""));
        service.binding = Binding::Refused(reason.into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn app_protocol_comes_before_the_port_name() {
        for (declared, name, expected) in [
            (Some("http"), "tcp-x", AppProtocol::Http),
            (Some("HTTP2"), "", AppProtocol::Http2),
            (Some("kubernetes.io/h2c"), "", AppProtocol::Http2),
            (Some("kubernetes.io/ws"), "", AppProtocol::Http),
            (Some("https"), "http", AppProtocol::Tcp),
            (Some("mysql"), "http", AppProtocol::Tcp),
            (Some(""), "http", AppProtocol::Http),
            (None, "http", AppProtocol::Http),
            (None, "http-admin", AppProtocol::Http),
            (None, "grpc", AppProtocol::Grpc),
            (None, "grpc-website", AppProtocol::Grpc),
            (None, "http2-x", AppProtocol::Http2),
            (None, "redis", AppProtocol::Tcp),
            (None, "tls-x", AppProtocol::Tcp),
            (None, "httpx", AppProtocol::Sniff),
            (None, "web", AppProtocol::Sniff),
            (None, "", AppProtocol::Sniff),
        ] {
            let told = app_protocol(declared, name, 80);
            assert_eq!(told, (expected, None), "{declared:?} {name}");
        }
    }

    #[test]
    fn an_unknown_app_protocol_is_sniffed_whatever_the_port_name() {
        let (protocol, finding) = app_protocol(Some("example.com/own"), "http", 80);
        let finding = finding.unwrap();
        assert_eq!(protocol, AppProtocol::Sniff);
        assert_eq!(
            finding.message,
            "appProtocol 'example.com/own' is not known"
        );
    }

    /// As gRPC, an endpoint that speaks it would be sent HTTP/2 that it does not understand.
    #[test]
    fn grpc_web_passes_as_plain_http_with_a_warning() {
        for (declared, name) in [
            (Some("grpc-web"), "http2"),
            (None, "grpc-web"),
            (None, "grpc-web-a"),
        ] {
            let (protocol, finding) = app_protocol(declared, name, 80);
            assert_eq!(protocol, AppProtocol::Http, "{declared:?} {name}");
            assert_eq!(finding.unwrap().severity, Severity::Warning);
        }
    }
}
