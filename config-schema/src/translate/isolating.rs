//! The CiliumNetworkPolicy of the pods of a Service, from what is said of each of their ports.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::istio_rules::Said;
use super::report::Writing;
use super::who::{self, Who};
use crate::origin::Kind;
use crate::snapshot::{Action, Service, ServicePort};

/// Ports of one item of `toPorts`, as Cilium's API limits them.
const PORTS_MAX: usize = 40;

/// What is allowed on a port of the pods, or denied: by whom, and which requests.
pub(super) type Item = (Vec<Who>, Option<Vec<Value>>);

/// What is said of a port of the pods.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct OnPort {
    /// Whether only that is allowed.
    pub isolates: bool,
    pub allow: Vec<Item>,
    pub deny: Vec<Item>,
}

/// The policy of the pods of a Service.
pub(super) fn written(
    service: &Service,
    selector: &[(Arc<str>, Arc<str>)],
    said: &BTreeMap<u16, OnPort>,
    out: &mut Writing<'_, '_>,
) -> Value {
    let labels: Map<String, Value> = selector
        .iter()
        .map(|(k, v)| (k.to_string(), json!(v)))
        .collect();
    let mut spec = Map::new();
    spec.insert("endpointSelector".into(), json!({"matchLabels": labels}));
    let isolates = said.values().any(|on_port| on_port.isolates);
    let mut ingress = items(said.iter().map(|(port, on_port)| (*port, &on_port.allow)));
    if ingress.is_empty() {
        // It selects nobody, and yet isolates (specs/policies.md 2.1.3).
        ingress.push(json!({}));
    }
    if !isolates {
        spec.insert("enableDefaultDeny".into(), json!({"ingress": false}));
    }
    spec.insert("ingress".into(), json!(ingress));
    let deny = items(said.iter().map(|(port, on_port)| (*port, &on_port.deny)));
    if !deny.is_empty() {
        spec.insert("ingressDeny".into(), json!(deny));
    }
    let (namespace, name) = (&service.key.namespace, &service.key.name);
    json!({
        "apiVersion": "cilium.io/v2",
        "kind": "CiliumNetworkPolicy",
        "metadata": {
            "name": out.fresh_name(Kind::CiliumNetworkPolicy, namespace, name),
            "namespace": namespace,
        },
        "spec": spec,
    })
}

/// What rules say of a port of the Service.
pub(super) fn on_port(rules: &[(Action, Said)], port: &ServicePort, isolates: bool) -> OnPort {
    let mut on_port = OnPort {
        isolates,
        ..OnPort::default()
    };
    for (action, said) in rules.iter().filter(|(_, said)| !said.who.is_empty()) {
        let Some(http) = said.on(port) else { continue };
        let item = (said.who.clone(), http);
        match action {
            Action::Allow => on_port.allow.push(item),
            Action::Deny => on_port.deny.push(item),
            Action::Custom | Action::Audit => {}
        }
    }
    if !isolates {
        on_port.allow.push((vec![Who::Anybody], None));
    }
    on_port
}

/// Items of `ingress`, those that say the same of several ports together.
fn items<'s>(ports: impl Iterator<Item = (u16, &'s Vec<Item>)>) -> Vec<Value> {
    let mut together: Vec<(&Item, Vec<u16>)> = Vec::new();
    for (port, items) in ports {
        for item in items {
            match together.iter_mut().find(|(there, _)| *there == item) {
                Some((_, ports)) if ports.contains(&port) => {}
                Some((_, ports)) => ports.push(port),
                None => together.push((item, vec![port])),
            }
        }
    }
    let mut written = Vec::new();
    for ((who, http), ports) in together {
        let to_ports: Vec<Value> = ports
            .chunks(PORTS_MAX)
            .map(|ports| to_ports(ports, http.as_deref()))
            .collect();
        for mut item in who::ingress_peers(who) {
            if let Some(fields) = item.as_object_mut() {
                fields.insert("toPorts".into(), json!(to_ports));
            }
            written.push(item);
        }
    }
    written
}

fn to_ports(ports: &[u16], http: Option<&[Value]>) -> Value {
    let ports = ports
        .iter()
        .map(|port| json!({"port": port.to_string(), "protocol": "TCP"}));
    let ports: Vec<Value> = ports.collect();
    match http {
        None => json!({"ports": ports}),
        Some(http) => json!({"ports": ports, "rules": {"http": http}}),
    }
}
