//! The kinds that have a table, and the types their fields are known from: those that the strict parser
//! reads them into.

use cairn_config_schema::parse::{mesh_fields, other_providers};
use cairn_config_schema::resources::{
    authentication, cairn, calico, cilium, cilium_envoy, destination_rule, gateway_api, istio,
    service_entry, telemetry, virtual_service,
};
use k8s_openapi::api::{
    core::v1 as core, discovery::v1 as discovery, networking::v1 as networking,
};

use serde::de::DeserializeOwned;

use super::trace::fields;

/// One table of the page.
pub struct Table {
    /// Kinds with the same fields.
    pub kinds: &'static [&'static str],
    /// What their apiVersion begins with.
    pub group: &'static str,
    /// Paths of all fields, sorted: `spec.rules[].name`.
    pub fields: Vec<String>,
}

impl Table {
    fn new(
        kinds: &'static [&'static str],
        group: &'static str,
        parts: &[(&str, Vec<String>)],
    ) -> Self {
        let mut all: Vec<String> = parts
            .iter()
            .flat_map(|(at, fields)| {
                let below = move |field: &String| match *at {
                    "" => field.clone(),
                    at => format!("{at}.{field}"),
                };
                let itself = (!at.is_empty()).then(|| (*at).trim_end_matches("[]").to_owned());
                itself.into_iter().chain(fields.iter().map(below))
            })
            .collect();
        all.sort();
        all.dedup();
        Self {
            kinds,
            group,
            fields: all,
        }
    }

    /// Of kinds that have nothing but a `spec`.
    fn of_spec<T: DeserializeOwned>(kinds: &'static [&'static str], group: &'static str) -> Self {
        Self::new(kinds, group, &[("spec", fields::<T>())])
    }

    /// Whether an object is one of these.
    pub fn has(&self, api_version: &str, kind: &str) -> bool {
        let group = api_version.rsplit_once('/').map_or("", |(group, _)| group);
        group == self.group && self.kinds.contains(&kind)
    }
}

const GATEWAY_API: &str = "gateway.networking.k8s.io";
const ISTIO: &str = "networking.istio.io";
const SECURITY: &str = "security.istio.io";
const CALICO: &str = "projectcalico.org";
const CILIUM: &str = "cilium.io";

/// Every table, in the order of the page.
pub fn tables() -> Vec<Table> {
    let mut tables = of_gateway_api();
    tables.extend(of_istio());
    tables.push(Table::of_spec::<cairn::TrafficPolicySpec>(
        &["TrafficPolicy"],
        "cairn.dev",
    ));
    tables.extend(of_network_policies());
    tables.extend(of_kubernetes());
    tables
}

fn of_gateway_api() -> Vec<Table> {
    use gateway_api as api;
    const X: &str = "gateway.networking.x-k8s.io";
    vec![
        Table::of_spec::<api::GatewayClassSpec>(&["GatewayClass"], GATEWAY_API),
        Table::new(
            &["Gateway"],
            GATEWAY_API,
            &[
                ("spec", fields::<api::GatewaySpec>()),
                ("status.conditions", Vec::new()),
            ],
        ),
        Table::of_spec::<api::HttpRouteSpec>(&["HTTPRoute"], GATEWAY_API),
        Table::of_spec::<api::GrpcRouteSpec>(&["GRPCRoute"], GATEWAY_API),
        Table::of_spec::<api::TlsRouteSpec>(&["TLSRoute"], GATEWAY_API),
        Table::of_spec::<api::TcpRouteSpec>(&["TCPRoute"], GATEWAY_API),
        Table::of_spec::<api::BackendTlsPolicySpec>(&["BackendTLSPolicy"], GATEWAY_API),
        Table::of_spec::<api::XBackendTrafficPolicySpec>(&["XBackendTrafficPolicy"], X),
    ]
}

fn of_istio() -> Vec<Table> {
    use authentication::RequestAuthenticationSpec;
    let service_entry = [
        ("spec", fields::<service_entry::ServiceEntrySpec>()),
        ("status.addresses", Vec::new()),
    ];
    vec![
        Table::of_spec::<istio::AuthorizationPolicySpec>(&["AuthorizationPolicy"], SECURITY),
        Table::of_spec::<RequestAuthenticationSpec>(&["RequestAuthentication"], SECURITY),
        Table::of_spec::<virtual_service::VirtualServiceSpec>(&["VirtualService"], ISTIO),
        Table::of_spec::<destination_rule::DestinationRuleSpec>(&["DestinationRule"], ISTIO),
        Table::new(&["ServiceEntry"], ISTIO, &service_entry),
        Table::of_spec::<service_entry::WorkloadEntrySpec>(&["WorkloadEntry"], ISTIO),
        Table::of_spec::<telemetry::TelemetrySpec>(&["Telemetry"], "telemetry.istio.io"),
    ]
}

/// Policies of Cilium and Calico, and Cilium's routes.
fn of_network_policies() -> Vec<Table> {
    let cilium = [
        ("spec", fields::<cilium::CiliumRule>()),
        ("spec.egress[]", fields::<cilium::EgressRule>()),
        ("spec.egressDeny[]", fields::<cilium::EgressRule>()),
        ("specs", Vec::new()),
    ];
    let calico = [
        ("spec", fields::<calico::CalicoPolicySpec>()),
        ("spec.egress[]", fields::<calico::CalicoRule>()),
    ];
    let calico_kinds = &[
        "NetworkPolicy",
        "GlobalNetworkPolicy",
        "StagedNetworkPolicy",
        "StagedGlobalNetworkPolicy",
    ];
    vec![
        Table::new(
            &["CiliumNetworkPolicy", "CiliumClusterwideNetworkPolicy"],
            CILIUM,
            &cilium,
        ),
        Table::of_spec::<cilium_envoy::CiliumEnvoyConfigSpec>(
            &["CiliumEnvoyConfig", "CiliumClusterwideEnvoyConfig"],
            CILIUM,
        ),
        Table::new(calico_kinds, CALICO, &calico),
        Table::of_spec::<calico::TierSpec>(&["Tier"], CALICO),
        Table::of_spec::<calico::NetworkSetSpec>(&["NetworkSet", "GlobalNetworkSet"], CALICO),
    ]
}

/// Their types have every field that Kubernetes knows. Of the status of a Pod the rest is not looked at.
fn of_kubernetes() -> Vec<Table> {
    let mesh = config_map();
    let mesh: Vec<(&str, Vec<String>)> = mesh
        .iter()
        .map(|(at, f)| (at.as_str(), f.clone()))
        .collect();
    vec![
        Table::new(
            &["Namespace"],
            "",
            &[("spec", fields::<core::NamespaceSpec>())],
        ),
        Table::new(&["Service"], "", &[("spec", fields::<core::ServiceSpec>())]),
        Table::new(
            &["EndpointSlice"],
            "discovery.k8s.io",
            &[
                ("addressType", Vec::new()),
                ("endpoints[]", fields::<discovery::Endpoint>()),
                ("ports[]", fields::<discovery::EndpointPort>()),
            ],
        ),
        Table::new(
            &["Pod"],
            "",
            &[
                ("spec", fields::<core::PodSpec>()),
                ("status.phase", Vec::new()),
                ("status.podIP", Vec::new()),
                ("status.podIPs", Vec::new()),
                ("status.podIPs[].ip", Vec::new()),
            ],
        ),
        Table::new(
            &["NetworkPolicy"],
            "networking.k8s.io",
            &[("spec", fields::<networking::NetworkPolicySpec>())],
        ),
        Table::new(&["ConfigMap"], "", &mesh),
    ]
}

/// The mesh configuration, and certificates.
fn config_map() -> Vec<(String, Vec<String>)> {
    let at = |field: &str| format!("data.mesh.{field}");
    let mut parts = vec![
        (CA.to_owned(), Vec::new()),
        ("data.mesh".to_owned(), Vec::new()),
    ];
    let known = mesh_fields().into_iter().flatten();
    parts.extend(known.map(|field| (at(field), Vec::new())));
    let provider = |field: &str| at(&format!("extensionProviders[].{field}"));
    parts.extend(
        other_providers()
            .iter()
            .map(|field| (provider(field), Vec::new())),
    );
    parts.extend([
        (provider("name"), Vec::new()),
        (provider("prometheus"), Vec::new()),
        (
            provider("envoyExtAuthzHttp"),
            fields::<istio::ExtAuthzHttpSpec>(),
        ),
        (
            provider("envoyExtAuthzGrpc"),
            fields::<istio::ExtAuthzGrpcSpec>(),
        ),
        (
            provider("opentelemetry"),
            fields::<telemetry::OpenTelemetrySpec>(),
        ),
        (
            provider("envoyFileAccessLog"),
            fields::<telemetry::FileLogSpec>(),
        ),
        (provider("envoyOtelAls"), fields::<telemetry::OtelLogSpec>()),
        (
            provider("envoyHttpAls"),
            fields::<telemetry::HttpEntryLogSpec>(),
        ),
        (
            provider("envoyTcpAls"),
            fields::<telemetry::TcpEntryLogSpec>(),
        ),
        (
            at("defaultProviders"),
            fields::<telemetry::DefaultProvidersSpec>(),
        ),
        (
            at("defaultHttpRetryPolicy"),
            fields::<virtual_service::Retries>(),
        ),
        (at("pathNormalization"), vec!["normalization".to_owned()]),
    ]);
    parts
}

/// Its key has a dot.
const CA: &str = "data[ca.crt]";
