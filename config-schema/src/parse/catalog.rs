//! Which kinds Cairn reads, which it knows and does not read, and what it means that it does not.

use super::fault::closest;
use crate::origin::Kind;

/// What to do with an object of some apiVersion and kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Class {
    /// Read it.
    Read(Kind),
    /// A kind of ours in a version or group that is not served.
    WrongVersion {
        /// The kind it is taken for.
        kind: Kind,
        /// The versions that are read.
        expected: &'static str,
    },
    /// Not read, and nothing on this path depends on it.
    NotRead,
    /// Not read, though it carries policy, routing or endpoints.
    NotEnforced {
        /// What therefore does not happen.
        effect: &'static str,
    },
    /// No kind of a group that Cairn reads, and so close to one that it must be a slip of the pen.
    Misspelt(Kind),
}

/// Group, versions and kind of what Cairn reads; `v1beta1` objects have the fields of `v1`.
const READ: [(&str, &[&str], Kind); 33] = [
    (GATEWAY_API, &["v1", "v1beta1"], Kind::GatewayClass),
    (GATEWAY_API, &["v1", "v1beta1"], Kind::Gateway),
    (GATEWAY_API, &["v1", "v1beta1"], Kind::HTTPRoute),
    (GATEWAY_API, &["v1", "v1alpha2"], Kind::GRPCRoute),
    (GATEWAY_API, &["v1", "v1alpha3", "v1alpha2"], Kind::TLSRoute),
    (GATEWAY_API, &["v1", "v1alpha2"], Kind::TCPRoute),
    (GATEWAY_API, &["v1"], Kind::BackendTLSPolicy),
    ("", &["v1"], Kind::Namespace),
    ("", &["v1"], Kind::Service),
    ("", &["v1"], Kind::Pod),
    ("", &["v1"], Kind::ConfigMap),
    ("discovery.k8s.io", &["v1"], Kind::EndpointSlice),
    (SECURITY, &["v1", "v1beta1"], Kind::AuthorizationPolicy),
    (SECURITY, &["v1", "v1beta1"], Kind::RequestAuthentication),
    (
        ISTIO_NETWORKING,
        &["v1", "v1beta1", "v1alpha3"],
        Kind::DestinationRule,
    ),
    (
        ISTIO_NETWORKING,
        &["v1", "v1beta1", "v1alpha3"],
        Kind::VirtualService,
    ),
    (
        ISTIO_NETWORKING,
        &["v1", "v1beta1", "v1alpha3"],
        Kind::ServiceEntry,
    ),
    (
        ISTIO_NETWORKING,
        &["v1", "v1beta1", "v1alpha3"],
        Kind::WorkloadEntry,
    ),
    (CAIRN, &["v1alpha1"], Kind::TrafficPolicy),
    (TELEMETRY, &["v1", "v1alpha1"], Kind::Telemetry),
    (GATEWAY_API_X, &["v1alpha1"], Kind::XBackendTrafficPolicy),
    (CILIUM, &["v2"], Kind::CiliumNetworkPolicy),
    (CILIUM, &["v2"], Kind::CiliumClusterwideNetworkPolicy),
    (CILIUM, &["v2"], Kind::CiliumEnvoyConfig),
    (CILIUM, &["v2"], Kind::CiliumClusterwideEnvoyConfig),
    (CALICO, &["v3"], Kind::NetworkPolicy),
    (KUBE_NETWORKING, &["v1"], Kind::KubeNetworkPolicy),
    (CALICO, &["v3"], Kind::GlobalNetworkPolicy),
    (CALICO, &["v3"], Kind::StagedNetworkPolicy),
    (CALICO, &["v3"], Kind::StagedGlobalNetworkPolicy),
    (CALICO, &["v3"], Kind::Tier),
    (CALICO, &["v3"], Kind::NetworkSet),
    (CALICO, &["v3"], Kind::GlobalNetworkSet),
];

const GATEWAY_API: &str = "gateway.networking.k8s.io";
const GATEWAY_API_X: &str = "gateway.networking.x-k8s.io";
const SECURITY: &str = "security.istio.io";
const CAIRN: &str = "cairn.dev";
const TELEMETRY: &str = "telemetry.istio.io";
const CILIUM: &str = "cilium.io";
const CALICO: &str = "projectcalico.org";
const KUBE_NETWORKING: &str = "networking.k8s.io";

/// Group, kind and effect of what is not enforced. An empty kind stands for every kind of the
/// group that is not listed otherwise.
const NOT_ENFORCED: [(&str, &str, &str); 10] = [
    (
        ISTIO_NETWORKING,
        "EnvoyFilter",
        "there is no Envoy to patch",
    ),
    (
        ISTIO_NETWORKING,
        "ProxyConfig",
        "its settings are not in force",
    ),
    ("extensions.istio.io", "", "the extension does not run"),
    (
        GATEWAY_API,
        "ReferenceGrant",
        "references to other namespaces are judged without it",
    ),
    (GATEWAY_API, "", "what it asks for is not in force"),
    (GATEWAY_API_X, "", "what it asks for is not in force"),
    (
        "inference.networking.k8s.io",
        "",
        "the pool is no backend here",
    ),
    (
        "inference.networking.x-k8s.io",
        "",
        "the pool is no backend here",
    ),
    (
        CALICO,
        "StagedKubernetesNetworkPolicy",
        "it is not tried: what it would change is the CNI's alone to enforce",
    ),
    (
        "crd.projectcalico.org",
        "",
        "its HTTP rules are not enforced",
    ),
];

const ISTIO_NETWORKING: &str = "networking.istio.io";

/// Other kinds of the groups that Cairn reads: not for a waypoint.
const NOT_READ: [(&str, &str); 25] = [
    (ISTIO_NETWORKING, "Gateway"),
    (ISTIO_NETWORKING, "Sidecar"),
    (ISTIO_NETWORKING, "WorkloadGroup"),
    (SECURITY, "PeerAuthentication"),
    ("", "Binding"),
    ("", "ComponentStatus"),
    ("", "Endpoints"),
    ("", "Event"),
    ("", "LimitRange"),
    ("", "Node"),
    ("", "PersistentVolume"),
    ("", "PersistentVolumeClaim"),
    ("", "PodTemplate"),
    ("", "ReplicationController"),
    ("", "ResourceQuota"),
    ("", "Secret"),
    ("", "ServiceAccount"),
    ("", "Status"),
    ("", "APIService"),
    ("", "DeleteOptions"),
    ("", "Table"),
    ("", "Eviction"),
    ("", "Scale"),
    ("", "TokenRequest"),
    ("", "PodStatusResult"),
];

/// Sorts an object by its apiVersion and kind.
pub(crate) fn classify(api_version: &str, kind: &str) -> Class {
    let (group, version) = api_version.rsplit_once('/').unwrap_or(("", api_version));
    if NOT_READ.contains(&(group, kind)) {
        return Class::NotRead;
    }
    // Two groups may have a kind of the same name: the one of this group, else the first.
    let same_name = || READ.iter().filter(|(_, _, k)| k.bare() == kind);
    let of_group = same_name().find(|(g, _, _)| *g == group);
    if let Some((of, versions, known)) = of_group.or_else(|| same_name().next()) {
        if *of == group && versions.contains(&version) {
            return Class::Read(*known);
        }
        // The same kind in a group Cairn reads nothing of is somebody else's kind (a Knative
        // Service, an Istio Gateway), unless the group is this one with a slip in it.
        let is_near = closest(group, std::iter::once(*of)).is_some() && !is_foreign(group);
        let is_core = group.is_empty() || of.is_empty() && !group.contains('.');
        if *of == group || is_near || is_core || READ.iter().any(|(g, _, _)| *g == group) {
            return Class::WrongVersion {
                kind: *known,
                expected: expected_versions(*known),
            };
        }
    }
    let in_group = |(g, k, _): &&(&str, &str, &str)| *g == group && *k == kind;
    let whole_group = |(g, k, _): &&(&str, &str, &str)| *g == group && k.is_empty();
    if let Some((_, _, effect)) = NOT_ENFORCED.iter().find(in_group) {
        return Class::NotEnforced { effect };
    }
    if let Some(kind) = misspelt(group, kind) {
        return Class::Misspelt(kind);
    }
    match NOT_ENFORCED.iter().find(whole_group) {
        Some((_, _, effect)) => Class::NotEnforced { effect },
        None => Class::NotRead,
    }
}

/// Kinds of Kubernetes and its friends whose names are close to one of ours, and which are not it.
const REAL_NEIGHBOURS: [&str; 3] = ["UDPRoute", "XListenerSet", "ListenerSet"];

fn misspelt(group: &str, kind: &str) -> Option<Kind> {
    if REAL_NEIGHBOURS.contains(&kind) {
        return None;
    }
    let of_group = READ.iter().filter(|(g, _, _)| *g == group);
    let close = closest(kind, of_group.clone().map(|(_, _, k)| k.bare()))?;
    of_group
        .into_iter()
        .find(|(_, _, k)| k.bare() == close)
        .map(|(_, _, k)| *k)
}

/// Groups that exist and are near to one of ours by name only.
fn is_foreign(group: &str) -> bool {
    const FOREIGN: [&str; 8] = [
        ISTIO_NETWORKING,
        TELEMETRY,
        "extensions.istio.io",
        "install.istio.io",
        GATEWAY_API_X,
        KUBE_NETWORKING,
        "policy.networking.k8s.io",
        "inference.networking.k8s.io",
    ];
    FOREIGN.contains(&group)
}

fn expected_versions(kind: Kind) -> &'static str {
    match kind {
        Kind::NetworkPolicy
        | Kind::GlobalNetworkPolicy
        | Kind::StagedNetworkPolicy
        | Kind::StagedGlobalNetworkPolicy
        | Kind::Tier
        | Kind::NetworkSet
        | Kind::GlobalNetworkSet => "projectcalico.org/v3",
        Kind::KubeNetworkPolicy => "networking.k8s.io/v1",
        Kind::GatewayClass | Kind::Gateway | Kind::HTTPRoute => {
            "gateway.networking.k8s.io/v1 or gateway.networking.k8s.io/v1beta1"
        }
        Kind::TrafficPolicy => "cairn.dev/v1alpha1",
        Kind::Telemetry => "telemetry.istio.io/v1 or telemetry.istio.io/v1alpha1",
        Kind::XBackendTrafficPolicy => "gateway.networking.x-k8s.io/v1alpha1",
        Kind::DestinationRule | Kind::VirtualService | Kind::ServiceEntry | Kind::WorkloadEntry => {
            "networking.istio.io/v1, v1beta1 or v1alpha3"
        }
        Kind::BackendTLSPolicy => "gateway.networking.k8s.io/v1",
        Kind::GRPCRoute | Kind::TCPRoute => {
            "gateway.networking.k8s.io/v1 or gateway.networking.k8s.io/v1alpha2"
        }
        Kind::TLSRoute => "gateway.networking.k8s.io/v1, v1alpha3 or v1alpha2",
        Kind::Namespace | Kind::Service | Kind::Pod | Kind::ConfigMap | Kind::CaBundle => "v1",
        Kind::EndpointSlice => "discovery.k8s.io/v1",
        Kind::CiliumNetworkPolicy
        | Kind::CiliumClusterwideNetworkPolicy
        | Kind::CiliumEnvoyConfig
        | Kind::CiliumClusterwideEnvoyConfig => "cilium.io/v2",
        Kind::AuthorizationPolicy | Kind::RequestAuthentication => {
            "security.istio.io/v1 or security.istio.io/v1beta1"
        }
    }
}

/// The kind of ours with this name, whatever the apiVersion.
pub(crate) fn named(kind: &str) -> Option<Kind> {
    READ.iter()
        .find(|(_, _, k)| k.bare() == kind)
        .map(|(_, _, k)| *k)
}

/// Whether objects of the kind live in a namespace.
pub(crate) fn is_namespaced(kind: Kind) -> bool {
    !matches!(
        kind,
        Kind::GatewayClass
            | Kind::Namespace
            | Kind::CiliumClusterwideNetworkPolicy
            | Kind::CiliumClusterwideEnvoyConfig
            | Kind::GlobalNetworkPolicy
            | Kind::StagedGlobalNetworkPolicy
            | Kind::Tier
            | Kind::GlobalNetworkSet
    )
}

/// Whether objects of the kind say who may do what in their namespace: a namespace that can not be
/// told must not be guessed.
pub(crate) fn is_policy(kind: Kind) -> bool {
    matches!(
        kind,
        Kind::AuthorizationPolicy
            | Kind::RequestAuthentication
            | Kind::CiliumNetworkPolicy
            | Kind::NetworkPolicy
            | Kind::StagedNetworkPolicy
            | Kind::NetworkSet
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_sorted_by_group_and_version() {
        let enforced = |api, kind| !matches!(classify(api, kind), Class::NotEnforced { .. });
        assert_eq!(
            classify("gateway.networking.k8s.io/v1beta1", "HTTPRoute"),
            Class::Read(Kind::HTTPRoute)
        );
        assert_eq!(classify("apps/v1", "Deployment"), Class::NotRead);
        assert_eq!(classify("v1", "Secret"), Class::NotRead);
        assert_eq!(classify("example.com/v1", "Widget"), Class::NotRead);
        assert_eq!(
            classify("security.istio.io/v1", "RequestAuthentication"),
            Class::Read(Kind::RequestAuthentication)
        );
        assert!(!enforced("gateway.networking.k8s.io/v1", "UDPRoute"));
        for version in ["v1", "v1alpha2"] {
            let api = format!("gateway.networking.k8s.io/{version}");
            for kind in [Kind::GRPCRoute, Kind::TLSRoute, Kind::TCPRoute] {
                assert_eq!(classify(&api, kind.bare()), Class::Read(kind), "{api}");
            }
        }
        assert!(!enforced("networking.istio.io/v1", "EnvoyFilter"));
        assert!(enforced("security.istio.io/v1", "PeerAuthentication"));
    }

    #[test]
    fn a_known_kind_in_a_wrong_version_is_still_that_kind() {
        for (api, kind) in [
            ("gateway.networking.k8s.io/v1alpha2", Kind::HTTPRoute),
            ("v1", Kind::AuthorizationPolicy),
            ("security.istio.oi/v1", Kind::AuthorizationPolicy),
            ("v2", Kind::Service),
            ("apps/v1", Kind::Pod),
            ("discovery.k8s.io/v1beta1", Kind::EndpointSlice),
        ] {
            let class = classify(api, kind.bare());
            assert!(
                matches!(class, Class::WrongVersion { kind: k, .. } if k == kind),
                "{api} {kind}: {class:?}"
            );
        }
    }

    #[test]
    fn the_same_name_in_a_foreign_group_is_another_kind() {
        assert_eq!(
            classify("serving.knative.dev/v1", "Service"),
            Class::NotRead
        );
        assert_eq!(
            classify("networking.istio.io/v1", "Gateway"),
            Class::NotRead
        );
    }

    #[test]
    fn a_misspelt_kind_is_not_passed_over() {
        assert_eq!(
            classify("security.istio.io/v1", "AuthorisationPolicy"),
            Class::Misspelt(Kind::AuthorizationPolicy)
        );
        assert_eq!(
            classify("gateway.networking.k8s.io/v1", "HttpRoute"),
            Class::Misspelt(Kind::HTTPRoute)
        );
        assert_eq!(classify("v1", "Pods"), Class::Misspelt(Kind::Pod));
    }
}
