//! What collectors are told of this process: its resource, and Istio's tags of it.

use opentelemetry_proto::tonic::common::v1::InstrumentationScope;
use opentelemetry_proto::tonic::resource::v1::Resource;

use super::attributes::Attributes;
use super::environment::Environment;
use super::pairs::Pairs;
use crate::telemetry::trace::settings::Receiver;

/// This process, as every message and span tells of it.
#[derive(Debug, Default)]
pub struct Process {
    pub(super) resource: Resource,
    pub(super) scope: InstrumentationScope,
    /// Istio's tags (specs/istio-waypoint.md 5.4).
    pub(super) tags: Pairs,
    pub(super) cluster: String,
    pub(super) node: Node,
}

/// As Envoy's node is called at Istio.
#[derive(Debug, Default)]
pub(super) struct Node {
    pub id: String,
    pub cluster: String,
}

/// What this process is called where.
#[derive(Debug, Default)]
pub struct Names<'a> {
    /// Of the Gateway that it serves.
    pub gateway: Option<(&'a str, &'a str)>,
    /// `cluster.local` or what it is here.
    pub trust_domain: &'a str,
    /// As in the labels of metrics.
    pub cluster: &'a str,
    /// Of the pod.
    pub pod: Option<&'a str>,
    /// Of the node.
    pub node: Option<&'a str>,
    /// Of the pod.
    pub ip: Option<&'a str>,
    /// DNS suffix of services.
    pub domain: &'a str,
}

impl Process {
    /// Put together of names and what the environment says. Without a name of its own the service is
    /// called NAME.NAMESPACE after its Gateway, as Istio's proxies are after their workload.
    pub fn new(names: &Names<'_>, environment: &Environment) -> Self {
        let version = env!("CARGO_PKG_VERSION");
        let (namespace, name) = names.gateway.unwrap_or(("", "cairn"));
        let own = match names.gateway {
            Some((namespace, name)) => format!("{name}.{namespace}"),
            None => name.to_owned(),
        };
        let said = |key: &str| {
            let mut attributes = environment.resource.iter();
            attributes.any(|(said, _)| said == key)
        };
        let mut resource = Attributes::default();
        match &environment.service_name {
            Some(name) => resource.text("service.name", name.as_str()),
            None if said("service.name") => {}
            None => resource.text("service.name", own.as_str()),
        }
        let known = [
            ("service.version", Some(version)),
            ("telemetry.sdk.name", Some("cairn")),
            ("telemetry.sdk.language", Some("rust")),
            ("telemetry.sdk.version", Some(version)),
            (
                "k8s.namespace.name",
                names.gateway.map(|(namespace, _)| namespace),
            ),
            ("k8s.pod.name", names.pod),
            ("service.instance.id", names.pod),
            ("k8s.node.name", names.node),
        ];
        for (key, value) in known {
            if let Some(value) = value.filter(|_| !said(key)) {
                resource.text(key, value);
            }
        }
        for (key, value) in &environment.resource {
            // The variable made for it counts more.
            if key != "service.name" || environment.service_name.is_none() {
                resource.text(key.clone(), value.as_str());
            }
        }
        let mut tags = Pairs::default();
        tags.text("istio.canonical_service", name);
        tags.text("istio.canonical_revision", "latest");
        tags.text("istio.mesh_id", names.trust_domain);
        tags.text("istio.namespace", namespace);
        tags.text("istio.cluster_id", names.cluster);
        let (pod, ip) = (names.pod.unwrap_or(name), names.ip.unwrap_or("127.0.0.1"));
        Self {
            node: Node {
                id: format!(
                    "waypoint~{ip}~{pod}.{namespace}~{namespace}.svc.{}",
                    names.domain
                ),
                cluster: own.clone(),
            },
            resource: Resource {
                attributes: resource.take(),
                ..Resource::default()
            },
            scope: InstrumentationScope {
                name: "cairn".to_owned(),
                version: version.to_owned(),
                ..InstrumentationScope::default()
            },
            tags,
            cluster: names.cluster.to_owned(),
        }
    }
}

impl Process {
    /// Its resource, as a receiver is told of it: one of access logs by the name of the log, too.
    pub(super) fn resource_for(&self, receiver: &Receiver) -> Resource {
        let mut resource = self.resource.clone();
        if let Receiver::Log(log) = receiver {
            let mut name = Attributes::default();
            name.text("log_name", &*log.log_name);
            resource.attributes.extend(name.take());
        }
        resource
    }
}

#[cfg(test)]
mod tests {
    use super::super::attributes::find;
    use super::*;

    fn names() -> Names<'static> {
        Names {
            gateway: Some(("shop", "waypoint")),
            trust_domain: "cluster.local",
            cluster: "Kubernetes",
            ..Names::default()
        }
    }

    #[test]
    fn the_service_is_called_after_the_gateway_unless_it_has_a_name() {
        let name = |environment: &Environment| {
            let process = Process::new(&names(), environment);
            find(&process.resource.attributes, "service.name").unwrap()
        };
        let mut environment = Environment::default();
        assert_eq!(name(&environment), "waypoint.shop");
        environment.resource = vec![("service.name".into(), "edge".into())];
        assert_eq!(name(&environment), "edge");
        environment.service_name = Some("front".into());
        assert_eq!(name(&environment), "front");
    }

    #[test]
    fn no_attribute_is_there_twice() {
        let environment = Environment {
            service_name: Some("front".into()),
            resource: vec![
                ("service.name".into(), "edge".into()),
                ("k8s.namespace.name".into(), "other".into()),
            ],
            ..Environment::default()
        };
        let process = Process::new(&names(), &environment);
        let mut keys: Vec<_> = process.resource.attributes.iter().map(|a| &a.key).collect();
        let all = keys.len();
        keys.sort();
        keys.dedup();
        assert_eq!(keys.len(), all);
    }
}
