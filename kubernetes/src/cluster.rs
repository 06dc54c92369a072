//! Everything of a cluster that configures waypoints, read once: for people who ask, and for tests from files.
//! What it means is the resolver's to say; nothing here judges.

mod owners;
mod read;

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use cairn_config_schema::diagnostics::Diagnostic;
use cairn_config_schema::origin::ObjectKey;
use cairn_config_schema::resolve::{self, Options};
use cairn_config_schema::resources::{Loaded, Resources};
use cairn_config_schema::snapshot::Snapshot;
use cairn_config_schema::store::{SourceFile, Store};
use serde_json::Value;

pub(crate) use read::read_again;
pub use read::{read, read_with_agents};

use crate::attach::CLASS;
use crate::json;
use crate::kinds::{WATCHED, WatchedKind};
use crate::objects::{label, name_of, namespace_of, text};

/// `controllerName` of classes whose Gateways are Cairn's.
const CONTROLLER: &str = cairn_config_schema::status::CONTROLLER;
/// Label of the pods and the Deployment of a Gateway (specs/istio-waypoint.md 1.5).
pub(crate) const GATEWAY_NAME: &str = "gateway.networking.k8s.io/gateway-name";
/// Environment of a waypoint that says its trust domain; the first counts, as for `cairn run`.
const TRUST_DOMAIN: [&str; 2] = ["CAIRN_TRUST_DOMAIN", "TRUST_DOMAIN"];
/// The same of its network.
const NETWORK: [&str; 3] = ["CAIRN_NETWORK", "ISTIO_META_NETWORK", "NETWORK"];

/// Kinds that people are told about and no waypoint reads: group, version, kind, plural.
const BESIDE: [(&str, &str, &str, &str); 3] = [
    ("apps", "v1", "Deployment", "deployments"),
    ("apps", "v1", REPLICA_SET, "replicasets"),
    (
        "security.istio.io",
        "v1",
        "PeerAuthentication",
        "peerauthentications",
    ),
];

/// Of these, those with a Gateway's label are read: a Deployment leaves ten behind.
const REPLICA_SET: &str = "ReplicaSet";

/// Who may be an agent of a node: the subjects of this ClusterRoleBinding of the chart. Read by its name, for labels
/// may be set by whoever runs pods, and this object by administrators alone.
pub(crate) const AGENTS_BINDING: &str = "cairn-node";
const BINDING: &str = "ClusterRoleBinding";

/// A cluster at one moment, as far as it could be read.
#[derive(Debug, Default)]
pub struct Cluster {
    /// The objects that configure waypoints, parsed.
    pub resources: Resources,
    /// What is wrong with them.
    pub findings: Vec<Diagnostic>,
    /// What could not be read, and why: whatever is concluded without it may be wrong.
    pub unread: Vec<String>,
    /// Kinds that may not be listed.
    refused: BTreeSet<String>,
    /// All objects as the API server has them, by kind, key and group.
    objects: BTreeMap<(String, ObjectKey, String), Value>,
}

impl Cluster {
    /// From objects, each with its `apiVersion` and `kind`.
    pub fn of(objects: Vec<Value>, unread: Vec<String>) -> Self {
        let sources: Vec<SourceFile<'_>> = objects
            .iter()
            .filter(|object| is_configuration(object))
            .map(|object| SourceFile {
                path: path(object),
                content: Ok(Cow::Owned(json_text(object).into_bytes())),
            })
            .collect();
        let update = Store::default().update(&sources);
        let keyed = objects.into_iter().map(|object| {
            let kind = text(&object, "/kind").unwrap_or("").to_owned();
            let key = ObjectKey::new(namespace_of(&object), name_of(&object));
            let group = group(&object).to_owned();
            ((kind, key, group), object)
        });
        Self {
            resources: update.resources,
            findings: update.diagnostics,
            unread,
            refused: BTreeSet::new(),
            objects: keyed.collect(),
        }
    }

    /// An object as the API server has it.
    pub fn object(&self, kind: &str, key: &ObjectKey) -> Option<&Value> {
        let from = (kind.to_owned(), key.clone(), String::new());
        let (at, object) = self.objects.range(from..).next()?;
        (at.0 == kind && at.1 == *key).then_some(object)
    }

    /// The same cluster with what was read again: `looked` is what was asked for, and is gone if it is not there.
    fn with(
        mut self,
        looked: &BTreeSet<(&str, ObjectKey)>,
        again: Vec<Value>,
        unread: Vec<String>,
    ) -> Self {
        self.objects
            .retain(|(kind, key, _), _| !looked.contains(&(kind.as_str(), key.clone())));
        let objects = self.objects.into_values().chain(again).collect();
        self.unread.extend(unread);
        Self {
            refused: self.refused,
            ..Self::of(objects, self.unread)
        }
    }

    /// All objects of a kind.
    pub fn objects<'c>(&'c self, kind: &str) -> impl Iterator<Item = &'c Value> + 'c {
        let kind = kind.to_owned();
        let from = (kind.clone(), ObjectKey::new("", ""), String::new());
        let rest = self.objects.range(from..);
        rest.take_while(move |((k, _, _), _)| *k == kind)
            .map(|(_, object)| object)
    }

    /// The Gateways that are Cairn's: of its class, or of one with its controller.
    pub fn waypoints(&self) -> Vec<ObjectKey> {
        let gateways = self.resources.gateways.iter();
        let ours = gateways.filter(|(_, loaded)| match loaded {
            Loaded::Good(gateway) | Loaded::KeptLastGood(gateway) => {
                self.is_ours(&gateway.spec.gateway_class_name)
            }
            Loaded::Broken(broken) => {
                let object = self.object("Gateway", &broken.origin.key);
                object
                    .and_then(|o| text(o, "/spec/gatewayClassName"))
                    .is_some_and(|c| self.is_ours(c))
            }
        });
        ours.map(|(key, _)| key.clone()).collect()
    }

    fn is_ours(&self, class: &str) -> bool {
        let object = self.object("GatewayClass", &ObjectKey::new("", class));
        let controller = object.and_then(|o| text(o, "/spec/controllerName"));
        class == CLASS && controller.is_none() || controller == Some(CONTROLLER)
    }

    /// ServiceAccounts that agents of nodes have.
    pub(crate) fn agents_accounts(&self) -> Vec<ObjectKey> {
        let binding = self.object(BINDING, &ObjectKey::new("", AGENTS_BINDING));
        let subjects = binding.and_then(|b| b.pointer("/subjects")?.as_array());
        let account = |subject: &Value| {
            let is_account = text(subject, "/kind") == Some("ServiceAccount");
            let (namespace, name) = (text(subject, "/namespace")?, text(subject, "/name")?);
            is_account.then(|| ObjectKey::new(namespace, name))
        };
        subjects.into_iter().flatten().filter_map(account).collect()
    }

    /// What the waypoint of a Gateway is told by the first of these variables: its pods, or else its Deployment.
    fn environment(&self, gateway: &ObjectKey, names: &[&str]) -> Option<String> {
        let of_pods = self.pods_of(gateway);
        let of_pods = of_pods.filter_map(|pod| pod.pointer("/spec/containers")?.as_array());
        let deployment = self.deployment_of(gateway).into_iter();
        let template = "/spec/template/spec/containers";
        let wanted = deployment.filter_map(|d| d.pointer(template)?.as_array());
        let mut containers = of_pods.chain(wanted);
        containers.find_map(|list| {
            let variables = list.iter().filter_map(|c| c.pointer("/env")?.as_array());
            let variables: Vec<&Value> = variables.flatten().collect();
            names.iter().find_map(|name| {
                let of_name = |v: &&&Value| text(v, "/name") == Some(*name);
                let variable = variables.iter().find(of_name)?;
                text(variable, "/value").map(str::to_owned)
            })
        })
    }

    /// What the objects mean for a waypoint; its diagnostics are the resolver's and the lints', as
    /// `cairn check` has them.
    pub fn resolve(&self, gateway: Option<&ObjectKey>) -> Snapshot {
        let options = Options {
            gateway: gateway.cloned(),
            trust_domain: gateway.and_then(|g| self.environment(g, &TRUST_DOMAIN)),
            network: gateway.and_then(|g| self.environment(g, &NETWORK)),
            is_elsewhere: true,
            version: 1,
            ..Options::default()
        };
        let mut snapshot = resolve::resolve(&self.resources, &options);
        let lints = cairn_authz::lint::lint(&self.resources, &snapshot);
        snapshot.diagnostics.extend(lints);
        snapshot.diagnostics.extend(self.findings.iter().cloned());
        resolve::worst_first(&mut snapshot.diagnostics);
        snapshot
    }
}

fn is_configuration(object: &Value) -> bool {
    let (kind, group) = (text(object, "/kind"), group(object));
    let beside = BESIDE
        .iter()
        .any(|(g, _, k, _)| *g == group && Some(*k) == kind);
    !beside && kind != Some(BINDING)
}

fn group(object: &Value) -> &str {
    let version = text(object, "/apiVersion").unwrap_or("");
    version.rsplit_once('/').map_or("", |(group, _)| group)
}

/// What diagnostics name, as the watch does.
fn path(object: &Value) -> Arc<str> {
    let (kind, group) = (text(object, "/kind").unwrap_or(""), group(object));
    let (namespace, name) = (namespace_of(object), name_of(object));
    let of_kind = |watched: &&WatchedKind| watched.kind == kind && watched.group == group;
    match WATCHED.iter().find(of_kind) {
        Some(watched) => watched.path(namespace, name).into(),
        None => format!("kubernetes:{kind}/{namespace}/{name}").into(),
    }
}

/// Whether a Pod has the labels of the chart's agents. Anybody's may.
pub(crate) fn looks_like_agent(object: &Value) -> bool {
    text(object, "/kind") == Some("Pod")
        && label(object, "app.kubernetes.io/name") == Some("cairn")
        && label(object, "app.kubernetes.io/component") == Some("node")
}

fn json_text(object: &Value) -> String {
    json::text(object).unwrap_or_else(|_| object.to_string())
}

/// A namespace with a waypoint that runs, for tests.
#[cfg(test)]
pub(crate) const SHOP: &str = "
apiVersion: v1
kind: Namespace
metadata: {name: shop, labels: {istio.io/use-waypoint: waypoint}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: waypoint, namespace: shop, uid: gateway-1, generation: 2}
spec:
  gatewayClassName: cairn-waypoint
  listeners: [{name: mesh, port: 15008, protocol: HBONE}]
status:
  addresses: [{type: IPAddress, value: 10.96.1.9}]
  conditions: [{type: Programmed, status: 'True', message: it serves}]
---
apiVersion: apps/v1
kind: Deployment
metadata:
  {name: waypoint, namespace: shop, uid: deployment-1, labels: {gateway.networking.k8s.io/gateway-name: waypoint},
   ownerReferences: [{kind: Gateway, name: waypoint, uid: gateway-1, controller: true}]}
spec: {replicas: 2}
---
apiVersion: apps/v1
kind: ReplicaSet
metadata:
  {name: waypoint-1, namespace: shop, uid: set-1, labels: {gateway.networking.k8s.io/gateway-name: waypoint},
   ownerReferences: [{kind: Deployment, name: waypoint, uid: deployment-1, controller: true}]}
---
apiVersion: v1
kind: Pod
metadata:
  {name: waypoint-1, namespace: shop, labels: {gateway.networking.k8s.io/gateway-name: waypoint},
   ownerReferences: [{kind: ReplicaSet, name: waypoint-1, uid: set-1, controller: true}]}
spec: {serviceAccountName: waypoint, containers: [{name: cairn, image: cairn}]}
status: {podIP: 10.244.1.9, phase: Running, conditions: [{type: Ready, status: 'True'}]}
";

/// Objects of YAML documents, for tests.
#[cfg(test)]
pub(crate) fn documents(yaml: &str) -> Vec<Value> {
    serde_saphyr::from_multiple(yaml).unwrap()
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLASSES: &str = "
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {name: mine}
spec: {controllerName: cairn.dev/waypoint-controller}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: a, namespace: shop}
spec: {gatewayClassName: mine, listeners: [{name: mesh, port: 15008, protocol: HBONE}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: b, namespace: shop}
spec: {gatewayClassName: cairn-waypoint, listeners: [{name: mesh, port: 15008, protocol: HBONE}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: c, namespace: shop}
spec: {gatewayClassName: istio-waypoint, listeners: [{name: mesh, port: 15008, protocol: HBONE}]}
";

    #[test]
    fn gateways_are_ours_by_their_class() {
        let cluster = Cluster::of(documents(CLASSES), Vec::new());
        let keys: Vec<String> = cluster
            .waypoints()
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(keys, ["shop/a", "shop/b"], "whatever others call theirs");
        assert_eq!(cluster.objects("Gateway").count(), 3);
        assert_eq!(cluster.objects("Gate").count(), 0);
    }

    /// Each pod of the waypoint knows, by NODE_NAME; who asks from elsewhere does not.
    #[test]
    fn where_the_waypoint_is_need_not_be_known_here() {
        let service = "
apiVersion: v1
kind: Service
metadata: {name: a, namespace: shop}
spec: {clusterIP: 10.0.0.9, trafficDistribution: PreferSameZone, ports: [{port: 15008}]}
---";
        let yaml = format!("{service}{CLASSES}");
        let cluster = Cluster::of(documents(&yaml), Vec::new());
        let gateway = cluster.waypoints().into_iter().next();
        let snapshot = cluster.resolve(gateway.as_ref());
        let said: Vec<_> = snapshot.diagnostics.iter().map(|d| &d.message).collect();
        let of_places = said.iter().filter(|said| said.contains("by place"));
        assert_eq!(of_places.count(), 0, "{said:?}");
        let clusters: Vec<_> = snapshot.clusters.keys().map(ToString::to_string).collect();
        assert_eq!(clusters.len(), 1, "{clusters:?}");
    }

    #[test]
    fn what_is_wrong_names_the_object_as_the_watch_does() {
        let yaml = CLASSES.replace("listeners:", "listenerz:");
        let cluster = Cluster::of(documents(&yaml), Vec::new());
        let place = cluster.findings[0].location.as_ref().unwrap();
        assert!(
            place.file.starts_with("kubernetes:Gateway/shop/"),
            "{place}"
        );
    }
}
