//! An object of any kind, and where each kind is kept in [`Resources`].

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{
    Clusterwide, Loaded, Object, Resources, Staged, authentication, cairn, calico, cilium,
    cilium_envoy, destination_rule, gateway_api, istio, kube, service_entry, telemetry,
    virtual_service,
};
use crate::origin::{ObjectKey, Origin};

/// A specification that [`Resources`] keeps.
pub trait Spec: Clone + PartialEq + Sized {
    /// The objects with such a specification.
    fn kept_in(resources: &mut Resources) -> &mut BTreeMap<ObjectKey, Loaded<Self>>;

    /// An object with such a specification among those of any kind.
    fn any(object: Arc<Object<Self>>) -> AnyObject;
}

macro_rules! kinds {
    ($($kind:ident: $spec:ty => $field:ident),* $(,)?) => {
        /// An object of any kind.
        #[derive(Clone, Debug, PartialEq)]
        #[allow(missing_docs)] // the variants are the Kubernetes kinds themselves
        pub enum AnyObject {
            $($kind(Arc<Object<$spec>>),)*
        }

        impl AnyObject {
            /// Kind, namespace and name.
            pub fn origin(&self) -> &Origin {
                match self { $(Self::$kind(object) => &object.origin,)* }
            }

            /// Whether it is a policy that is only to be tried.
            pub fn is_dry_run(&self) -> bool {
                match self {
                    $(Self::$kind(object) => {
                        super::dry_run::asked(object.origin.kind, &object.meta)
                            == super::dry_run::Asked::Yes
                    })*
                }
            }

            /// Where the object stands.
            pub fn place(&self) -> &super::Place {
                match self { $(Self::$kind(object) => &object.place,)* }
            }

            /// When the object was made, seconds since 1970.
            pub fn created_s(&self) -> Option<i64> {
                match self { $(Self::$kind(object) => object.meta.created_s,)* }
            }

            /// See [`Meta::uid`](super::Meta::uid).
            pub fn uid(&self) -> Option<u64> {
                match self { $(Self::$kind(object) => object.meta.uid,)* }
            }

            /// Corrects the place after lines were added or removed before the object's document.
            pub fn set_lines_before(&mut self, lines_before: u32) {
                match self {
                    $(Self::$kind(object) => {
                        if object.place.lines_before != lines_before {
                            Arc::make_mut(object).place.lines_before = lines_before;
                        }
                    })*
                }
            }

            /// Whether both say the same, wherever they stand and whenever they were made.
            pub fn says_the_same_as(&self, other: &Self) -> bool {
                match (self, other) {
                    $((Self::$kind(a), Self::$kind(b)) => {
                        a.origin == b.origin
                            && a.meta.labels == b.meta.labels
                            && a.meta.annotations == b.meta.annotations
                            && a.spec == b.spec
                    })*
                    _ => false,
                }
            }

            /// Puts the object into the resources, in place of one with the same key.
            pub fn put(&self, into: &mut Resources, kept_last_good: bool) {
                match self {
                    $(Self::$kind(object) => {
                        let loaded = if kept_last_good {
                            Loaded::KeptLastGood(object.clone())
                        } else {
                            Loaded::Good(object.clone())
                        };
                        into.$field.insert(object.origin.key.clone(), loaded);
                    })*
                }
            }
        }

        impl AnyObject {
            /// Takes the object with this key out of the resources.
            pub fn take_out(&self, of: &mut Resources) {
                match self {
                    $(Self::$kind(object) => drop(of.$field.remove(&object.origin.key)),)*
                }
            }
        }

        impl super::Broken {
            /// Puts the broken object into the resources, in place of one with the same key.
            pub fn put(self: &Arc<Self>, into: &mut Resources) {
                let key = self.origin.key.clone();
                match self.origin.kind {
                    $(crate::origin::Kind::$kind => {
                        into.$field.insert(key, Loaded::Broken(self.clone()));
                    })*
                }
            }
        }

        $(
            impl Spec for $spec {
                fn kept_in(resources: &mut Resources) -> &mut BTreeMap<ObjectKey, Loaded<Self>> {
                    &mut resources.$field
                }

                fn any(object: Arc<Object<Self>>) -> AnyObject {
                    AnyObject::$kind(object)
                }
            }
        )*
    };
}

kinds! {
    GatewayClass: gateway_api::GatewayClassSpec => gateway_classes,
    Gateway: gateway_api::GatewaySpec => gateways,
    HTTPRoute: gateway_api::HttpRouteSpec => http_routes,
    GRPCRoute: gateway_api::GrpcRouteSpec => grpc_routes,
    TLSRoute: gateway_api::TlsRouteSpec => tls_routes,
    TCPRoute: gateway_api::TcpRouteSpec => tcp_routes,
    Namespace: kube::NamespaceSpec => namespaces,
    Service: kube::ServiceSpec => services,
    EndpointSlice: kube::EndpointSliceSpec => endpoint_slices,
    Pod: kube::PodSpec => pods,
    AuthorizationPolicy: istio::AuthorizationPolicySpec => authorization_policies,
    RequestAuthentication: authentication::RequestAuthenticationSpec => request_authentications,
    DestinationRule: destination_rule::DestinationRuleSpec => destination_rules,
    XBackendTrafficPolicy: gateway_api::XBackendTrafficPolicySpec => backend_traffic_policies,
    VirtualService: virtual_service::VirtualServiceSpec => virtual_services,
    ServiceEntry: service_entry::ServiceEntrySpec => service_entries,
    BackendTLSPolicy: gateway_api::BackendTlsPolicySpec => backend_tls_policies,
    CaBundle: kube::CaBundleSpec => ca_bundles,
    WorkloadEntry: service_entry::WorkloadEntrySpec => workload_entries,
    TrafficPolicy: cairn::TrafficPolicySpec => traffic_policies,
    Telemetry: telemetry::TelemetrySpec => telemetries,
    CiliumNetworkPolicy: cilium::CiliumPolicySpec => cilium_policies,
    CiliumClusterwideNetworkPolicy: Clusterwide<cilium::CiliumPolicySpec> => cilium_clusterwide_policies,
    CiliumEnvoyConfig: cilium_envoy::CiliumEnvoyConfigSpec => envoy_configs,
    CiliumClusterwideEnvoyConfig: Clusterwide<cilium_envoy::CiliumEnvoyConfigSpec> => envoy_clusterwide_configs,
    NetworkPolicy: calico::CalicoPolicySpec => calico_policies,
    KubeNetworkPolicy: kube::NetworkPolicySpec => kube_network_policies,
    GlobalNetworkPolicy: Clusterwide<calico::CalicoPolicySpec> => calico_global_policies,
    StagedNetworkPolicy: Staged<calico::CalicoPolicySpec> => calico_staged_policies,
    StagedGlobalNetworkPolicy: Staged<Clusterwide<calico::CalicoPolicySpec>> => calico_staged_global_policies,
    Tier: calico::TierSpec => calico_tiers,
    NetworkSet: calico::NetworkSetSpec => calico_sets,
    GlobalNetworkSet: Clusterwide<calico::NetworkSetSpec> => calico_global_sets,
    ConfigMap: istio::MeshConfigSpec => mesh_config,
}
