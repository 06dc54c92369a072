//! The kinds that are watched: every kind that Cairn's configuration has, and how the API server calls it.
//! What the objects mean is not known here.

/// How many of a kind's objects a waypoint needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// All of them.
    All,
    /// One of this name in Istio's namespace, and those that other objects name: ConfigMaps, of which a cluster has
    /// many and large ones that are nobody's business. Of that name in another namespace none is followed:
    /// whoever may write there would have his own settings of the mesh.
    OfIstio(&'static str),
}

/// Where Istio lives unless somebody says otherwise.
pub const ISTIO_NAMESPACE: &str = "istio-system";

/// A kind of object that is watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WatchedKind {
    /// API group, empty for core.
    pub group: &'static str,
    /// Versions that can be read, the best first.
    pub versions: &'static [&'static str],
    /// As in the field `kind`.
    pub kind: &'static str,
    /// As in URLs and RBAC.
    pub plural: &'static str,
    /// Whether its objects live in namespaces.
    pub namespaced: bool,
    /// What a waypoint needs of it.
    pub scope: Scope,
}

impl WatchedKind {
    /// The kind for people and in paths; with its group where two groups have the same
    /// (`cairn_config_schema::origin::Kind::as_str`).
    pub fn title(&self) -> String {
        match (self.kind, self.group) {
            ("NetworkPolicy", "networking.k8s.io") => format!("{}.{}", self.kind, self.group),
            _ => self.kind.to_owned(),
        }
    }

    /// The resource as RBAC names it: `httproutes.gateway.networking.k8s.io`.
    pub fn resource(&self) -> String {
        match self.group {
            "" => self.plural.to_owned(),
            group => format!("{}.{group}", self.plural),
        }
    }

    /// The field `apiVersion` of its objects in one of its versions.
    pub fn api_version(&self, version: &str) -> String {
        match self.group {
            "" => version.to_owned(),
            group => format!("{group}/{version}"),
        }
    }

    /// Where the API server has a version of it, in all namespaces or one.
    pub fn url(&self, version: &str, namespace: Option<&str>) -> String {
        let root = match self.group {
            "" => format!("/api/{version}"),
            group => format!("/apis/{group}/{version}"),
        };
        match namespace {
            Some(namespace) => format!("{root}/namespaces/{namespace}/{}", self.plural),
            None => format!("{root}/{}", self.plural),
        }
    }

    /// Whether one of this name may be followed because another object names it. A name that no object can have
    /// is none to ask for.
    pub fn can_be_named(&self, name: &str) -> bool {
        match self.scope {
            Scope::All => false,
            Scope::OfIstio(always) => name != always && is_object_name(name),
        }
    }

    /// What an object is called where a file would be: `kubernetes:KIND/NAMESPACE/NAME`, without the
    /// namespace if it has none. Diagnostics name it so.
    pub fn path(&self, namespace: &str, name: &str) -> String {
        let kind = self.title();
        match namespace {
            "" => format!("kubernetes:{kind}/{name}"),
            namespace => format!("kubernetes:{kind}/{namespace}/{name}"),
        }
    }
}

const GATEWAY_API: &str = "gateway.networking.k8s.io";
const GATEWAY_API_X: &str = "gateway.networking.x-k8s.io";
const SECURITY: &str = "security.istio.io";
const ISTIO_NETWORKING: &str = "networking.istio.io";
const CILIUM: &str = "cilium.io";
const CALICO: &str = "projectcalico.org";

const fn watched(
    group: &'static str,
    versions: &'static [&'static str],
    kind: &'static str,
    plural: &'static str,
    namespaced: bool,
) -> WatchedKind {
    WatchedKind {
        group,
        versions,
        kind,
        plural,
        namespaced,
        scope: Scope::All,
    }
}

/// Every kind of `cairn_config_schema`'s catalog, in no order that matters.
#[rustfmt::skip]
pub const WATCHED: &[WatchedKind] = &[
    watched(GATEWAY_API, &["v1", "v1beta1"], "GatewayClass", "gatewayclasses", false),
    watched(GATEWAY_API, &["v1", "v1beta1"], "Gateway", "gateways", true),
    watched(GATEWAY_API, &["v1", "v1beta1"], "HTTPRoute", "httproutes", true),
    watched(GATEWAY_API, &["v1", "v1alpha2"], "GRPCRoute", "grpcroutes", true),
    watched(GATEWAY_API, &["v1", "v1alpha3", "v1alpha2"], "TLSRoute", "tlsroutes", true),
    watched(GATEWAY_API, &["v1", "v1alpha2"], "TCPRoute", "tcproutes", true),
    watched(GATEWAY_API, &["v1"], "BackendTLSPolicy", "backendtlspolicies", true),
    watched(GATEWAY_API_X, &["v1alpha1"], "XBackendTrafficPolicy", "xbackendtrafficpolicies", true),
    watched("", &["v1"], "Namespace", "namespaces", false),
    watched("", &["v1"], "Service", "services", true),
    watched("", &["v1"], "Pod", "pods", true),
    WatchedKind { scope: Scope::OfIstio("istio"), ..watched("", &["v1"], "ConfigMap", "configmaps", true) },
    watched("discovery.k8s.io", &["v1"], "EndpointSlice", "endpointslices", true),
    watched("networking.k8s.io", &["v1"], "NetworkPolicy", "networkpolicies", true),
    watched(SECURITY, &["v1", "v1beta1"], "AuthorizationPolicy", "authorizationpolicies", true),
    watched(SECURITY, &["v1", "v1beta1"], "RequestAuthentication", "requestauthentications", true),
    watched(ISTIO_NETWORKING, &["v1", "v1beta1", "v1alpha3"], "DestinationRule", "destinationrules", true),
    watched(ISTIO_NETWORKING, &["v1", "v1beta1", "v1alpha3"], "VirtualService", "virtualservices", true),
    watched(ISTIO_NETWORKING, &["v1", "v1beta1", "v1alpha3"], "ServiceEntry", "serviceentries", true),
    watched(ISTIO_NETWORKING, &["v1", "v1beta1", "v1alpha3"], "WorkloadEntry", "workloadentries", true),
    watched("telemetry.istio.io", &["v1", "v1alpha1"], "Telemetry", "telemetries", true),
    watched("cairn.dev", &["v1alpha1"], "TrafficPolicy", "trafficpolicies", true),
    watched(CILIUM, &["v2"], "CiliumNetworkPolicy", "ciliumnetworkpolicies", true),
    watched(CILIUM, &["v2"], "CiliumClusterwideNetworkPolicy", "ciliumclusterwidenetworkpolicies", false),
    watched(CILIUM, &["v2"], "CiliumEnvoyConfig", "ciliumenvoyconfigs", true),
    watched(CILIUM, &["v2"], "CiliumClusterwideEnvoyConfig", "ciliumclusterwideenvoyconfigs", false),
    watched(CALICO, &["v3"], "NetworkPolicy", "networkpolicies", true),
    watched(CALICO, &["v3"], "GlobalNetworkPolicy", "globalnetworkpolicies", false),
    watched(CALICO, &["v3"], "StagedNetworkPolicy", "stagednetworkpolicies", true),
    watched(CALICO, &["v3"], "StagedGlobalNetworkPolicy", "stagedglobalnetworkpolicies", false),
    watched(CALICO, &["v3"], "Tier", "tiers", false),
    watched(CALICO, &["v3"], "NetworkSet", "networksets", true),
    watched(CALICO, &["v3"], "GlobalNetworkSet", "globalnetworksets", false),
];

/// A DNS subdomain (RFC 1123), as names of objects are.
fn is_object_name(name: &str) -> bool {
    let is_end = |c: Option<char>| c.is_some_and(|c| c != '-');
    let is_label = |label: &str| {
        let is_legal = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        let mut chars = label.chars();
        label.chars().all(is_legal) && is_end(label.chars().next()) && is_end(chars.next_back())
    };
    name.len() <= 253 && name.split('.').all(is_label)
}

/// The kind with this name for people.
pub fn watched_kind(title: &str) -> Option<&'static WatchedKind> {
    WATCHED.iter().find(|kind| kind.title() == title)
}

#[cfg(test)]
mod tests {
    use super::*;
    use cairn_config_schema::parse::kinds_read;

    /// What the parser reads and nobody watches would be in force from files alone.
    #[test]
    fn every_kind_that_is_read_is_watched_and_no_other() {
        let mut read: Vec<_> = kinds_read()
            .map(|k| {
                (
                    k.group,
                    k.versions.to_vec(),
                    k.kind.as_str().to_owned(),
                    k.namespaced,
                )
            })
            .collect();
        let mut watched: Vec<_> = WATCHED
            .iter()
            .map(|k| (k.group, k.versions.to_vec(), k.title(), k.namespaced))
            .collect();
        read.sort();
        watched.sort();
        assert_eq!(watched, read);
    }

    #[test]
    fn only_what_an_object_can_be_called_is_followed_by_name() {
        let maps = watched_kind("ConfigMap").unwrap();
        for name in ["a", "ca-1.shop", "0"] {
            assert!(maps.can_be_named(name), "{name}");
        }
        let long = "a".repeat(254);
        for name in [
            "", "a,b", "a/b", "A", "-a", "a.", "a..b", "ä", "istio", &long,
        ] {
            assert!(!maps.can_be_named(name), "{name}");
        }
        assert!(!watched_kind("Pod").unwrap().can_be_named("a"));
    }

    #[test]
    fn objects_and_collections_have_the_names_of_the_api() {
        let route = watched_kind("HTTPRoute").unwrap();
        assert_eq!(
            route.url("v1", Some("shop")),
            "/apis/gateway.networking.k8s.io/v1/namespaces/shop/httproutes"
        );
        assert_eq!(route.path("shop", "cart"), "kubernetes:HTTPRoute/shop/cart");
        assert_eq!(route.resource(), "httproutes.gateway.networking.k8s.io");
        let pod = watched_kind("Pod").unwrap();
        assert_eq!(pod.url("v1", None), "/api/v1/pods");
        assert_eq!(pod.api_version("v1"), "v1");
        let namespace = watched_kind("Namespace").unwrap();
        assert_eq!(namespace.path("", "shop"), "kubernetes:Namespace/shop");
        let policy = watched_kind("NetworkPolicy.networking.k8s.io").unwrap();
        assert_eq!(policy.api_version("v1"), "networking.k8s.io/v1");
    }
}
