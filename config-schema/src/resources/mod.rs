//! Typed resources as the user wrote them, before any reference is followed.
//!
//! Kubernetes core kinds are reduced to what a waypoint needs as soon as they are read, because
//! ten thousand whole Pods would cost more memory than the rest of the process.

mod any;
pub mod authentication;
pub mod cairn;
pub mod calico;
pub mod cilium;
pub mod cilium_envoy;
pub mod destination_rule;
pub(crate) mod dry_run;
pub mod gateway_api;
pub mod istio;
pub mod kube;
mod place;
pub mod service_entry;
pub mod telemetry;
mod versions;
pub mod virtual_service;

pub use any::{AnyObject, Spec};
pub use place::{PathHasher, Place};
pub use versions::Version;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use rustc_hash::FxHashSet;

use crate::diagnostics::{Diagnostic, Location};
use crate::origin::{Kind, ObjectKey, Origin};

/// Metadata that matters to a waypoint.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Meta {
    /// `metadata.labels`: one copy for all objects that have the same.
    pub labels: Arc<BTreeMap<Arc<str>, Arc<str>>>,
    /// `metadata.annotations`: one copy for all objects that have the same.
    pub annotations: Arc<BTreeMap<Arc<str>, Arc<str>>>,
    /// `metadata.creationTimestamp`, seconds since 1970.
    pub created_s: Option<i64>,
    /// `metadata.generation`.
    pub generation: Option<i64>,
    /// Stands for `metadata.uid`, which the API server makes up: one made anew under the same name has another.
    pub uid: Option<u64>,
    /// Condition `Programmed` in the status of a Gateway. `None`: nobody has said.
    pub programmed: Option<bool>,
}

/// One object.
#[derive(Clone, Debug, PartialEq)]
pub struct Object<T> {
    /// Kind, namespace and name.
    pub origin: Origin,
    /// Metadata.
    pub meta: Meta,
    /// The specification.
    pub spec: T,
    /// Where it stands.
    pub place: Place,
}

impl<T> Object<T> {
    /// A diagnostic's object, path and location, for a path inside this object.
    pub fn mark(&self, diagnostic: Diagnostic, path: &str) -> Diagnostic {
        diagnostic
            .at(self.place.locate(path))
            .of(self.origin.clone(), path)
    }
}

/// The specification of a kind that lives in no namespace and is otherwise the same as another.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Clusterwide<T>(pub T);

/// The specification of a staged kind, which is tried and not enforced, and otherwise the same as
/// another.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Staged<T>(pub T);

/// An object as it is in force.
#[derive(Clone, Debug)]
pub enum Loaded<T> {
    /// As written.
    Good(Arc<Object<T>>),
    /// The present text is broken; the last good version stays in force.
    KeptLastGood(Arc<Object<T>>),
    /// Broken, and there never was a good version: what could be salvaged, to fail closed on.
    Broken(Arc<Broken>),
}

impl<T> Loaded<T> {
    /// The object in force, if there is one.
    pub fn object(&self) -> Option<&Arc<Object<T>>> {
        match self {
            Self::Good(o) | Self::KeptLastGood(o) => Some(o),
            Self::Broken(_) => None,
        }
    }
}

/// What is known of an object that could not be read.
#[derive(Clone, Debug, PartialEq)]
pub struct Broken {
    /// Kind, namespace and name.
    pub origin: Origin,
    /// Where it stands.
    pub location: Option<Location>,
    /// The first error, in words.
    pub reason: Arc<str>,
    /// `targetRefs` of a policy or `parentRefs` of a route that could be read all the same.
    /// `None`: not even that, so that the scope is everything the object could reach.
    pub targets: Option<Vec<TargetRef>>,
    /// Addresses of a Pod that could be read all the same: `status.podIPs`.
    pub pod_ips: Vec<IpAddr>,
    /// Whether it could be read all the same that a policy is only to be tried.
    pub dry_run: bool,
    /// What a network policy selects that could be read all the same. `None`: not even that, so that it
    /// may be all it could select.
    pub selection: Option<Box<Selection>>,
    /// See [`Meta::uid`], if it could be read all the same.
    pub uid: Option<u64>,
}

/// The part of a network policy that says what it selects, in which directions. Lists of rules are
/// empty where the policy has some.
#[derive(Clone, Debug, PartialEq)]
pub enum Selection {
    /// Of Cilium's policies: rules with the path of each.
    Cilium(Vec<(String, cilium::CiliumRule)>),
    /// Of Calico's.
    Calico(Box<calico::CalicoPolicySpec>),
}

/// A reference to another object: `targetRefs` of a policy, `parentRefs` of a route.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, serde::Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TargetRef {
    /// API group, empty for core.
    pub group: String,
    /// Kind.
    pub kind: String,
    /// Name.
    pub name: String,
    /// Namespace, that of the referring object when absent.
    pub namespace: Option<String>,
    /// Section name.
    pub section_name: Option<String>,
    /// Port; routes only.
    pub port: Option<u16>,
}

/// Group of parentRefs that name none.
const PARENT_GROUP: &str = "gateway.networking.k8s.io";

/// A parentRef with the API's defaults filled in.
macro_rules! target_of_parent {
    ($($parent:ty),*) => {
        $(impl From<&$parent> for TargetRef {
            fn from(parent: &$parent) -> Self {
                let group = parent.group.as_deref().unwrap_or(PARENT_GROUP);
                let kind = parent.kind.as_deref().unwrap_or("Gateway");
                Self {
                    group: group.to_owned(),
                    kind: kind.to_owned(),
                    name: parent.name.clone(),
                    namespace: parent.namespace.clone(),
                    section_name: parent.section_name.clone(),
                    port: parent.port.and_then(|port| u16::try_from(port).ok()),
                }
            }
        })*
    };
}

target_of_parent!(
    gateway_api::HttpRouteParentRefs,
    gateway_api::TcpRouteParentRefs
);

/// Every object in force, by kind.
#[derive(Clone, Debug, Default)]
pub struct Resources {
    /// GatewayClasses; cluster-scoped.
    pub gateway_classes: BTreeMap<ObjectKey, Loaded<gateway_api::GatewayClassSpec>>,
    /// Gateways.
    pub gateways: BTreeMap<ObjectKey, Loaded<gateway_api::GatewaySpec>>,
    /// HTTPRoutes.
    pub http_routes: BTreeMap<ObjectKey, Loaded<gateway_api::HttpRouteSpec>>,
    /// GRPCRoutes.
    pub grpc_routes: BTreeMap<ObjectKey, Loaded<gateway_api::GrpcRouteSpec>>,
    /// TLSRoutes.
    pub tls_routes: BTreeMap<ObjectKey, Loaded<gateway_api::TlsRouteSpec>>,
    /// TCPRoutes.
    pub tcp_routes: BTreeMap<ObjectKey, Loaded<gateway_api::TcpRouteSpec>>,
    /// Namespaces; cluster-scoped; only labels and annotations matter.
    pub namespaces: BTreeMap<ObjectKey, Loaded<kube::NamespaceSpec>>,
    /// Services.
    pub services: BTreeMap<ObjectKey, Loaded<kube::ServiceSpec>>,
    /// EndpointSlices.
    pub endpoint_slices: BTreeMap<ObjectKey, Loaded<kube::EndpointSliceSpec>>,
    /// Pods.
    pub pods: BTreeMap<ObjectKey, Loaded<kube::PodSpec>>,
    /// Addresses that Pods have by a text that is not in force: whose they are is not known.
    pub doubtful_pod_ips: BTreeSet<IpAddr>,
    /// Objects whose last good version is in force, and whose present text says that they are only to
    /// be tried.
    pub kept_to_be_tried: FxHashSet<Origin>,
    /// AuthorizationPolicies.
    pub authorization_policies: BTreeMap<ObjectKey, Loaded<istio::AuthorizationPolicySpec>>,
    /// CiliumNetworkPolicies.
    pub cilium_policies: BTreeMap<ObjectKey, Loaded<cilium::CiliumPolicySpec>>,
    /// CiliumClusterwideNetworkPolicies; cluster-scoped.
    pub cilium_clusterwide_policies:
        BTreeMap<ObjectKey, Loaded<Clusterwide<cilium::CiliumPolicySpec>>>,
    /// CiliumEnvoyConfigs.
    pub envoy_configs: BTreeMap<ObjectKey, Loaded<cilium_envoy::CiliumEnvoyConfigSpec>>,
    /// CiliumClusterwideEnvoyConfigs; cluster-scoped.
    pub envoy_clusterwide_configs:
        BTreeMap<ObjectKey, Loaded<Clusterwide<cilium_envoy::CiliumEnvoyConfigSpec>>>,
    /// RequestAuthentications.
    pub request_authentications:
        BTreeMap<ObjectKey, Loaded<authentication::RequestAuthenticationSpec>>,
    /// DestinationRules.
    pub destination_rules: BTreeMap<ObjectKey, Loaded<destination_rule::DestinationRuleSpec>>,
    /// XBackendTrafficPolicies.
    pub backend_traffic_policies:
        BTreeMap<ObjectKey, Loaded<gateway_api::XBackendTrafficPolicySpec>>,
    /// VirtualServices.
    pub virtual_services: BTreeMap<ObjectKey, Loaded<virtual_service::VirtualServiceSpec>>,
    /// ServiceEntries.
    pub service_entries: BTreeMap<ObjectKey, Loaded<service_entry::ServiceEntrySpec>>,
    /// WorkloadEntries.
    pub workload_entries: BTreeMap<ObjectKey, Loaded<service_entry::WorkloadEntrySpec>>,
    /// BackendTLSPolicies.
    pub backend_tls_policies: BTreeMap<ObjectKey, Loaded<gateway_api::BackendTlsPolicySpec>>,
    /// ConfigMaps with certificates.
    pub ca_bundles: BTreeMap<ObjectKey, Loaded<kube::CaBundleSpec>>,
    /// TrafficPolicies, Cairn's own.
    pub traffic_policies: BTreeMap<ObjectKey, Loaded<cairn::TrafficPolicySpec>>,
    /// Telemetries.
    pub telemetries: BTreeMap<ObjectKey, Loaded<telemetry::TelemetrySpec>>,
    /// NetworkPolicies of Calico.
    pub calico_policies: BTreeMap<ObjectKey, Loaded<calico::CalicoPolicySpec>>,
    /// NetworkPolicies of Kubernetes itself; the CNI's to enforce.
    pub kube_network_policies: BTreeMap<ObjectKey, Loaded<kube::NetworkPolicySpec>>,
    /// GlobalNetworkPolicies of Calico; cluster-scoped.
    pub calico_global_policies: BTreeMap<ObjectKey, Loaded<Clusterwide<calico::CalicoPolicySpec>>>,
    /// StagedNetworkPolicies of Calico.
    pub calico_staged_policies: BTreeMap<ObjectKey, Loaded<Staged<calico::CalicoPolicySpec>>>,
    /// StagedGlobalNetworkPolicies of Calico; cluster-scoped.
    pub calico_staged_global_policies:
        BTreeMap<ObjectKey, Loaded<Staged<Clusterwide<calico::CalicoPolicySpec>>>>,
    /// Tiers of Calico; cluster-scoped.
    pub calico_tiers: BTreeMap<ObjectKey, Loaded<calico::TierSpec>>,
    /// NetworkSets of Calico.
    pub calico_sets: BTreeMap<ObjectKey, Loaded<calico::NetworkSetSpec>>,
    /// GlobalNetworkSets of Calico; cluster-scoped.
    pub calico_global_sets: BTreeMap<ObjectKey, Loaded<Clusterwide<calico::NetworkSetSpec>>>,
    /// Where the first PeerAuthentication stands. They are ztunnel's, and not read; whoever takes pods out of
    /// the mesh has to know of them.
    pub peer_authentication: Option<Location>,
    /// The ConfigMap `istio` of the root namespace; other ConfigMaps are not read.
    pub mesh_config: BTreeMap<ObjectKey, Loaded<istio::MeshConfigSpec>>,
    /// Files that could not be read and documents whose kind or name could not be told: nothing can
    /// be known of their scope, so the waypoint refuses everything until they are mended. What is
    /// wrong, in a sentence, with its place; resolving makes findings of them.
    pub unreadable: Vec<(Arc<str>, Option<Location>)>,
}

/// The broken objects of every kind, for summaries.
impl Resources {
    /// Number of objects in force, by kind.
    pub fn counts(&self) -> [(Kind, usize); 34] {
        [
            (Kind::GatewayClass, self.gateway_classes.len()),
            (Kind::Gateway, self.gateways.len()),
            (Kind::HTTPRoute, self.http_routes.len()),
            (Kind::GRPCRoute, self.grpc_routes.len()),
            (Kind::TLSRoute, self.tls_routes.len()),
            (Kind::TCPRoute, self.tcp_routes.len()),
            (Kind::Namespace, self.namespaces.len()),
            (Kind::Service, self.services.len()),
            (Kind::EndpointSlice, self.endpoint_slices.len()),
            (Kind::Pod, self.pods.len()),
            (Kind::AuthorizationPolicy, self.authorization_policies.len()),
            (Kind::CiliumNetworkPolicy, self.cilium_policies.len()),
            (
                Kind::CiliumClusterwideNetworkPolicy,
                self.cilium_clusterwide_policies.len(),
            ),
            (Kind::CiliumEnvoyConfig, self.envoy_configs.len()),
            (
                Kind::CiliumClusterwideEnvoyConfig,
                self.envoy_clusterwide_configs.len(),
            ),
            (
                Kind::RequestAuthentication,
                self.request_authentications.len(),
            ),
            (Kind::DestinationRule, self.destination_rules.len()),
            (
                Kind::XBackendTrafficPolicy,
                self.backend_traffic_policies.len(),
            ),
            (Kind::VirtualService, self.virtual_services.len()),
            (Kind::ServiceEntry, self.service_entries.len()),
            (Kind::BackendTLSPolicy, self.backend_tls_policies.len()),
            (Kind::CaBundle, self.ca_bundles.len()),
            (Kind::WorkloadEntry, self.workload_entries.len()),
            (Kind::TrafficPolicy, self.traffic_policies.len()),
            (Kind::Telemetry, self.telemetries.len()),
            (Kind::NetworkPolicy, self.calico_policies.len()),
            (Kind::KubeNetworkPolicy, self.kube_network_policies.len()),
            (Kind::GlobalNetworkPolicy, self.calico_global_policies.len()),
            (Kind::StagedNetworkPolicy, self.calico_staged_policies.len()),
            (
                Kind::StagedGlobalNetworkPolicy,
                self.calico_staged_global_policies.len(),
            ),
            (Kind::Tier, self.calico_tiers.len()),
            (Kind::NetworkSet, self.calico_sets.len()),
            (Kind::GlobalNetworkSet, self.calico_global_sets.len()),
            (Kind::ConfigMap, self.mesh_config.len()),
        ]
    }
}
