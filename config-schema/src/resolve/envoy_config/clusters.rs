//! Where clusters of Envoy's configuration lead: the ports of services that the object lists, with the
//! settings of a Cluster resource (specs/policies.md 2.2).

use std::collections::BTreeMap;
use std::sync::Arc;

use super::message::{Message, Wrongs};
use crate::diagnostics::Code;
use crate::origin::ObjectKey;
use crate::snapshot::{
    Balancer, ClusterKey, ClusterSettings, ConnectionLimits, OutlierDetection, Service,
};

/// Most that a limit of Envoy may be: as good as none.
const UNLIMITED: u32 = u32::MAX;

/// A service that the object lists.
pub(super) struct Listed {
    pub key: ObjectKey,
    /// Numbers or names of its ports; none: all.
    pub ports: Vec<String>,
}

/// A Cluster resource.
pub(super) struct Declared {
    /// `namespace/service:port`.
    service: String,
    settings: Own,
}

/// What it says of balancing. `None`: as a DestinationRule has it.
#[derive(Default)]
struct Own {
    balancer: Option<Balancer>,
    outlier_detection: Option<OutlierDetection>,
    limits: Option<ConnectionLimits>,
    connect_timeout_ms: Option<u64>,
}

/// Reads a Cluster resource, with its name.
pub(super) fn read(mut written: Message<'_, '_>) -> Option<(String, Declared)> {
    let Some(name) = written.text("name") else {
        written.wrong(Code::MissingField, "name", "a Cluster needs a name");
        return None;
    };
    match written.text("type") {
        Some("EDS") => {}
        other => {
            let message = format!(
                "a Cluster of type {} is not supported",
                other.unwrap_or("STATIC")
            );
            written.wrong(Code::Unsupported, "type", message);
        }
    }
    let eds = written.message("eds_cluster_config");
    let service = eds.and_then(|mut eds| {
        eds.skip(&["eds_config"]);
        eds.text("service_name")
    });
    let balancer = written.text("lb_policy").map(|policy| match policy {
        "ROUND_ROBIN" => Balancer::RoundRobin,
        "LEAST_REQUEST" => Balancer::LeastRequest,
        "RANDOM" => Balancer::Random,
        other => {
            let message = format!("lbPolicy {other} is not supported");
            written.wrong(Code::Unsupported, "lbPolicy", message);
            Balancer::default()
        }
    });
    let settings = Own {
        balancer,
        outlier_detection: written.message("outlier_detection").map(outlier_detection),
        limits: written.message("circuit_breakers").map(limits),
        connect_timeout_ms: written.duration_ms("connect_timeout"),
    };
    let service = service.unwrap_or(name).to_owned();
    Some((name.to_owned(), Declared { service, settings }))
}

fn outlier_detection(mut written: Message<'_, '_>) -> OutlierDetection {
    let base_ejection_ms = written.duration_ms("base_ejection_time").unwrap_or(30_000);
    let ejection_max_ms = written.duration_ms("max_ejection_time").unwrap_or(300_000);
    let percent = written
        .number("max_ejection_percent")
        .unwrap_or(10)
        .min(100);
    OutlierDetection {
        consecutive_5xx: written.number("consecutive_5xx").unwrap_or(5),
        consecutive_gateway_errors: written.number("consecutive_gateway_failure").unwrap_or(0),
        split_local_origin: written.flag("split_external_local_origin_errors") == Some(true),
        consecutive_local_origin_failures: written
            .number("consecutive_local_origin_failure")
            .unwrap_or(5),
        success_rate: None,
        interval_ms: written.duration_ms("interval").unwrap_or(10_000),
        base_ejection_ms,
        ejection_max_ms: ejection_max_ms.max(base_ejection_ms),
        ejected_percent_max: u8::try_from(percent).unwrap_or(100),
    }
}

fn limits(mut written: Message<'_, '_>) -> ConnectionLimits {
    let mut limits = ConnectionLimits::default();
    for mut threshold in written.messages("thresholds") {
        if !matches!(threshold.text("priority"), None | Some("DEFAULT")) {
            let message = "requests have no priority here";
            threshold.wrong(Code::Unsupported, "priority", message);
        }
        let mut limit = |name| threshold.number(name).filter(|n| *n != UNLIMITED);
        limits.connections_max = limit("max_connections").or(limits.connections_max);
        limits.requests_max = limit("max_requests").or(limits.requests_max);
        limits.retries_max = limit("max_retries").or(limits.retries_max);
    }
    limits
}

/// Why a cluster leads nowhere, and what to do.
pub(super) struct Nowhere {
    pub reason: String,
    pub hint: String,
}

/// Looks up where clusters lead.
pub(super) struct Clusters<'a> {
    pub services: &'a BTreeMap<ObjectKey, Service>,
    /// What the object lists under `services` and `backendServices`.
    pub listed: Vec<Listed>,
    /// Cluster resources by name.
    pub declared: BTreeMap<String, Declared>,
    /// `namespace/name/` of the object, which names may have in front.
    pub prefix: String,
    /// Namespace of services that are named without one.
    pub namespace: Arc<str>,
}

impl Clusters<'_> {
    /// The cluster of this name, for requests that came to `dialled_port`.
    pub fn find(&self, name: &str, dialled_port: u16) -> Result<ClusterKey, Nowhere> {
        let (declared, own) = self.declared(name);
        let service = declared.map_or(own, |declared| declared.service.as_str());
        let (path, port) = match service.rsplit_once(':') {
            Some((path, port)) => (path, Some(port)),
            None => (service, None),
        };
        let (namespace, service) = path.split_once('/').unwrap_or((&*self.namespace, path));
        let key = ObjectKey::new(namespace, service);
        let Some(listed) = self.listed.iter().find(|listed| listed.key == key) else {
            return Err(Nowhere {
                reason: format!("cluster '{name}' is neither in services nor in backendServices"),
                hint: format!("list {key} in backendServices, or correct the name"),
            });
        };
        let Some(found) = self.services.get(&key) else {
            return Err(Nowhere {
                reason: format!("cluster '{name}': there is no Service {key}"),
                hint: "create it, or correct the name".to_owned(),
            });
        };
        let is_listed = |p: &&crate::snapshot::ServicePort| {
            let names = |written: &String| is_port(p, written);
            listed.ports.is_empty() || listed.ports.iter().any(names)
        };
        let mut ports = found.ports.iter().filter(is_listed);
        let number = match port {
            Some(port) => ports.find(|p| is_port(p, port)).map(|p| p.number),
            None => {
                let all: Vec<u16> = ports.map(|p| p.number).collect();
                let dialled = all.iter().find(|number| **number == dialled_port);
                dialled.or(all.first()).copied()
            }
        };
        let Some(number) = number else {
            let port = port.map_or_else(String::new, |port| format!(" {port}"));
            return Err(Nowhere {
                reason: format!("cluster '{name}': Service {key} has no port{port} that is listed"),
                hint: "correct the port, or the number in backendServices".to_owned(),
            });
        };
        let whole = ClusterKey::new(key, number);
        Ok(match declared {
            Some(declared) if declared.settings.any() => {
                whole.with_subset(format!("{}{own}", self.prefix).into())
            }
            _ => whole,
        })
    }

    /// The resource of this name, and the name without the object's own in front.
    fn declared<'n>(&self, name: &'n str) -> (Option<&Declared>, &'n str) {
        let own = name.strip_prefix(&*self.prefix).unwrap_or(name);
        (
            self.declared.get(name).or_else(|| self.declared.get(own)),
            own,
        )
    }

    /// What holds for a cluster with settings of its own: those of its service, but for what it says
    /// itself.
    pub fn settings(&self, key: &ClusterKey, of_service: &ClusterSettings) -> ClusterSettings {
        let mut settings = of_service.clone();
        let own = key
            .subset
            .as_deref()
            .and_then(|s| s.strip_prefix(&*self.prefix));
        let Some(declared) = own.and_then(|own| self.declared(own).0) else {
            return settings;
        };
        let own = &declared.settings;
        if let Some(balancer) = &own.balancer {
            settings.balancing.balancer = balancer.clone();
        }
        settings.outlier_detection = own.outlier_detection.or(settings.outlier_detection);
        settings.limits = own.limits.unwrap_or(settings.limits);
        settings.connect_timeout_ms = own.connect_timeout_ms.or(settings.connect_timeout_ms);
        settings
    }
}

fn is_port(port: &crate::snapshot::ServicePort, written: &str) -> bool {
    *port.name == *written || port.number.to_string() == written
}

impl Own {
    fn any(&self) -> bool {
        self.balancer.is_some()
            || self.outlier_detection.is_some()
            || self.limits.is_some()
            || self.connect_timeout_ms.is_some()
    }
}

/// Adds a Cluster to those there are.
pub(super) fn declare(
    written: Message<'_, '_>,
    into: &mut BTreeMap<String, Declared>,
    wrongs: &Wrongs,
) {
    let path = written.path.clone();
    if let Some((name, declared)) = read(written)
        && into.insert(name.clone(), declared).is_some()
    {
        let message = format!("there are two Clusters '{name}'");
        wrongs.say(Code::Conflict, path, message);
    }
}
