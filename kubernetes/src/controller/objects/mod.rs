//! What is made for a Gateway: ServiceAccount, Service, Deployment, HorizontalPodAutoscaler, PodDisruptionBudget
//! (specs/istio-waypoint.md 1.5), as JSON for server-side apply. Asks nobody and applies nothing.

mod deployment;
mod scaling;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use cairn_config_schema::origin::ObjectKey;
use serde_json::{Map, Value, json};

use super::gateways::Managed;
use super::overlay::{self, Overlays};

/// `gateway.istio.io/managed` of what is ours: the controller's name, as a label value.
pub const MANAGED: &str = "gateway.istio.io/managed";
/// Its value.
pub const MANAGED_BY: &str = "cairn.dev-waypoint-controller";
/// Name of the Gateway, on its Service, Deployment and pods.
pub const GATEWAY_NAME: &str = "gateway.networking.k8s.io/gateway-name";
const GATEWAY_CLASS_NAME: &str = "gateway.networking.k8s.io/gateway-class-name";
const GATEWAY_PREFIX: &str = "gateway.networking.k8s.io/";

/// The tunnel port.
pub const HBONE_PORT: u16 = 15008;
/// The port of readiness and of acknowledgements.
pub const STATUS_PORT: u16 = 15021;

/// What all waypoints of this controller have in common.
#[derive(Clone, Debug)]
pub struct PodSettings {
    /// Image of the pods.
    pub image: String,
    /// Where certificates come from (`CA_ADDR`). `None`: from the SPIFFE Workload API.
    pub ca_address: Option<String>,
    /// Trust domain, if not that of the mesh's configuration.
    pub trust_domain: Option<String>,
    /// Domain that hostnames of Services end in.
    pub cluster_domain: String,
    /// Name of the cluster, for the CA and telemetry.
    pub cluster_id: String,
    /// Network of the cluster (`topology.istio.io/network`).
    pub network: Option<String>,
    /// Namespace of Istio's ConfigMap, if it is not the usual one.
    pub istio_namespace: Option<String>,
    /// Who tells of workloads of other clusters (`--discovery`). `None`: nobody.
    pub discovery: Option<String>,
    /// Where that is asked, if not in the usual place.
    pub xds_address: Option<String>,
    /// How long a waypoint drains, in seconds.
    pub drain_s: u32,
}

/// The kinds that are made, in the order they are applied: an account before the pods that use it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MadeKind {
    /// ServiceAccount.
    ServiceAccount,
    /// Service.
    Service,
    /// Deployment.
    Deployment,
    /// HorizontalPodAutoscaler.
    HorizontalPodAutoscaler,
    /// PodDisruptionBudget.
    PodDisruptionBudget,
}

impl MadeKind {
    /// All.
    pub const ALL: [Self; 5] = [
        Self::ServiceAccount,
        Self::Service,
        Self::Deployment,
        Self::HorizontalPodAutoscaler,
        Self::PodDisruptionBudget,
    ];

    /// Group, version, kind and plural.
    pub fn resource(self) -> (&'static str, &'static str, &'static str, &'static str) {
        match self {
            Self::ServiceAccount => ("", "v1", "ServiceAccount", "serviceaccounts"),
            Self::Service => ("", "v1", "Service", "services"),
            Self::Deployment => ("apps", "v1", "Deployment", "deployments"),
            Self::HorizontalPodAutoscaler => (
                "autoscaling",
                "v2",
                "HorizontalPodAutoscaler",
                "horizontalpodautoscalers",
            ),
            Self::PodDisruptionBudget => (
                "policy",
                "v1",
                "PodDisruptionBudget",
                "poddisruptionbudgets",
            ),
        }
    }

    /// Key of its overlay in a ConfigMap (specs/istio-waypoint.md 1.7).
    pub fn overlay_key(self) -> &'static str {
        match self {
            Self::ServiceAccount => "serviceAccount",
            Self::Service => "service",
            Self::Deployment => "deployment",
            Self::HorizontalPodAutoscaler => "horizontalPodAutoscaler",
            Self::PodDisruptionBudget => "podDisruptionBudget",
        }
    }
}

/// One object to apply.
#[derive(Clone, Debug, PartialEq)]
pub struct Made {
    /// Its kind.
    pub kind: MadeKind,
    /// Namespace and name.
    pub key: ObjectKey,
    /// The whole of it that is ours to say.
    pub object: Value,
}

/// Names of what is made for a Gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Names {
    /// Of Service, Deployment, autoscaler and budget.
    pub name: String,
    /// Of the ServiceAccount.
    pub service_account: String,
}

impl Names {
    /// As the Gateway is called, unless its annotations say otherwise.
    pub fn of(gateway: &Managed) -> Self {
        let name = &*gateway.key.name;
        let annotated = |key: &str| gateway.annotation(key).filter(|name| !name.is_empty());
        let name = annotated("gateway.istio.io/name-override").unwrap_or(name);
        let account = annotated("gateway.istio.io/service-account").unwrap_or(name);
        Self {
            name: name.to_owned(),
            service_account: account.to_owned(),
        }
    }
}

/// Everything that is made for a Gateway, overlays applied.
///
/// # Errors
/// What is wrong with an overlay, in words for the Gateway's status.
pub fn make(
    gateway: &Managed,
    settings: &PodSettings,
    overlays: &[Overlays],
) -> Result<Vec<Made>, String> {
    let names = Names::of(gateway);
    let labels = labels(gateway, &names, settings);
    let scaled = is_made(MadeKind::HorizontalPodAutoscaler, overlays);
    let mut all = Vec::new();
    for kind in MadeKind::ALL {
        if !is_made(kind, overlays) {
            continue;
        }
        let parts = Parts {
            gateway,
            names: &names,
            settings,
            labels: &labels,
        };
        let body = match kind {
            MadeKind::ServiceAccount => json!({}),
            MadeKind::Service => service(&parts),
            MadeKind::Deployment => deployment::deployment(&parts, scaled),
            MadeKind::HorizontalPodAutoscaler => scaling::autoscaler(&names),
            MadeKind::PodDisruptionBudget => scaling::disruption_budget(gateway),
        };
        let name = match kind {
            MadeKind::ServiceAccount => &names.service_account,
            _ => &names.name,
        };
        let mut object = parts.object(kind, name, body);
        for overlays in overlays {
            // A class's wish that there be none, which the Gateway has overruled.
            if let Some(overlay) = overlays.of.get(&kind).filter(|o| !overlay::deletes(o)) {
                let said = |why| format!("{}: {}: {why}", overlays.from, kind.overlay_key());
                overlay::apply(&mut object, overlay).map_err(said)?;
            }
        }
        check(kind, &object)?;
        all.push(Made {
            kind,
            key: ObjectKey::new(&*gateway.key.namespace, name.as_str()),
            object,
        });
    }
    Ok(all)
}

/// Whether the last overlay that says anything of it does not delete it.
fn is_made(kind: MadeKind, overlays: &[Overlays]) -> bool {
    let mut said = overlays.iter().rev().filter_map(|o| o.of.get(&kind));
    said.next().is_none_or(|overlay| !overlay::deletes(overlay))
}

/// What objects are made of.
struct Parts<'a> {
    gateway: &'a Managed,
    names: &'a Names,
    settings: &'a PodSettings,
    labels: &'a BTreeMap<String, String>,
}

impl Parts<'_> {
    fn object(&self, kind: MadeKind, name: &str, body: Value) -> Value {
        let (group, version, kind, _) = kind.resource();
        let api_version = match group {
            "" => version.to_owned(),
            group => format!("{group}/{version}"),
        };
        let mut object = json!({
            "apiVersion": api_version,
            "kind": kind,
            "metadata": {
                "name": name,
                "namespace": &*self.gateway.key.namespace,
                "labels": self.labels,
                "annotations": self.annotations(),
                "ownerReferences": [{
                    "apiVersion": "gateway.networking.k8s.io/v1",
                    "kind": "Gateway",
                    "name": &*self.gateway.key.name,
                    "uid": self.gateway.uid,
                    "controller": true,
                }],
            },
        });
        if let (Some(object), Value::Object(body)) = (object.as_object_mut(), body) {
            for (key, value) in body {
                if let (Some(Value::Object(into)), Value::Object(from)) =
                    (object.get_mut(&key), &value)
                {
                    into.extend(from.clone());
                    continue;
                }
                object.insert(key, value);
            }
        }
        object
    }

    fn annotations(&self) -> BTreeMap<String, String> {
        own_and_infrastructure(self.gateway, "annotations")
    }
}

/// Labels of everything that is made.
fn labels(gateway: &Managed, names: &Names, settings: &PodSettings) -> BTreeMap<String, String> {
    let mut labels = own_and_infrastructure(gateway, "labels");
    let ours = [
        (MANAGED, MANAGED_BY),
        (GATEWAY_NAME, &*gateway.key.name),
        (GATEWAY_CLASS_NAME, &*gateway.class),
        ("service.istio.io/canonical-name", &*names.name),
        ("service.istio.io/canonical-revision", "latest"),
        ("istio.io/dataplane-mode", "none"),
        ("sidecar.istio.io/inject", "false"),
        // Or a waypoint in a namespace that uses it would be bound to itself (1.9, self-capture).
        ("istio.io/use-waypoint", "none"),
    ];
    labels.extend(ours.map(|(key, value)| (key.to_owned(), value.to_owned())));
    if let Some(network) = &settings.network {
        labels.insert("topology.istio.io/network".to_owned(), network.clone());
    }
    labels
}

/// `spec.infrastructure.labels` or `annotations`; without the block the Gateway's own (1.7).
fn own_and_infrastructure(gateway: &Managed, which: &str) -> BTreeMap<String, String> {
    let from = match gateway.object.pointer("/spec/infrastructure") {
        Some(infrastructure) => infrastructure.get(which),
        None => gateway
            .object
            .pointer("/metadata")
            .and_then(|m| m.get(which)),
    };
    let given = from.and_then(Value::as_object).cloned().unwrap_or_default();
    let is_copied = |key: &str| {
        let not = [
            GATEWAY_PREFIX,
            "gateway.istio.io/",
            "kubectl.kubernetes.io/",
        ];
        !not.iter().any(|prefix| key.starts_with(prefix))
    };
    let texts = given.into_iter().filter(|(key, _)| is_copied(key));
    texts
        .filter_map(|(key, value)| Some((key, value.as_str()?.to_owned())))
        .collect()
}

fn service(parts: &Parts<'_>) -> Value {
    let listeners = parts.gateway.listeners();
    let mut ports = vec![json!({
        "name": "status-port", "port": STATUS_PORT, "targetPort": STATUS_PORT, "protocol": "TCP",
    })];
    let is_hbone = |protocol: &str| protocol == "HBONE";
    for (name, port, protocol) in &listeners {
        if *port == STATUS_PORT {
            continue;
        }
        let mut entry = Map::new();
        entry.insert("name".into(), json!(name));
        entry.insert("port".into(), json!(port));
        entry.insert("protocol".into(), json!("TCP"));
        if is_hbone(protocol) {
            // Clients' ztunnels always dial 15008; the pods listen there, too.
            entry.insert("targetPort".into(), json!(HBONE_PORT));
            entry.insert("appProtocol".into(), json!("hbone"));
        }
        ports.push(Value::Object(entry));
    }
    // ztunnel looks the waypoint's port up by its number (1.9).
    if !listeners.iter().any(|(_, port, _)| *port == HBONE_PORT) {
        ports.push(json!({
            "name": "hbone", "port": HBONE_PORT, "targetPort": HBONE_PORT, "protocol": "TCP", "appProtocol": "hbone",
        }));
    }
    let service_type = parts.gateway.annotation("networking.istio.io/service-type");
    let mut annotations = parts.annotations();
    annotations.insert(
        "networking.istio.io/traffic-distribution".to_owned(),
        "PreferClose".to_owned(),
    );
    json!({
        "metadata": {"annotations": annotations},
        "spec": {
            "type": service_type.unwrap_or("ClusterIP"),
            "ipFamilyPolicy": "PreferDualStack",
            "selector": {GATEWAY_NAME: &*parts.gateway.key.name},
            "ports": ports,
        },
    })
}

/// Whether what came of the overlays is an object of its kind: the API server would refuse it for less, and with
/// what runs half changed.
fn check(kind: MadeKind, object: &Value) -> Result<(), String> {
    use k8s_openapi::api::apps::v1::Deployment;
    use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
    use k8s_openapi::api::core::v1::{Service, ServiceAccount};
    use k8s_openapi::api::policy::v1::PodDisruptionBudget;
    use serde::Deserialize;
    let read = match kind {
        MadeKind::ServiceAccount => ServiceAccount::deserialize(object).map(drop),
        MadeKind::Service => Service::deserialize(object).map(drop),
        MadeKind::Deployment => Deployment::deserialize(object).map(drop),
        MadeKind::HorizontalPodAutoscaler => HorizontalPodAutoscaler::deserialize(object).map(drop),
        MadeKind::PodDisruptionBudget => PodDisruptionBudget::deserialize(object).map(drop),
    };
    read.map_err(|error| {
        format!(
            "with its overlays {} is no {kind:?}: {error}",
            kind.overlay_key()
        )
    })
}
