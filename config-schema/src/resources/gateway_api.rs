//! Gateway API kinds, from the crate `gateway-api` with its experimental fields: a field that Cairn
//! does not honour must be known, so that it can be refused by name.

use serde::Deserialize;

pub use gateway_api::apis::experimental::gatewayclasses::GatewayClassSpec;
pub use gateway_api::apis::experimental::gateways::GatewaySpec;
pub use gateway_api::apis::experimental::grpcroutes::{
    GrpcRouteParentRefs, GrpcRouteRules, GrpcRouteRulesMatches, GrpcRouteRulesMatchesMethod,
    GrpcRouteRulesMatchesMethodType, GrpcRouteSpec,
};
pub use gateway_api::apis::experimental::httproutes::*;
pub use gateway_api::apis::experimental::tcproutes::{
    TcpRouteParentRefs, TcpRouteRules, TcpRouteRulesBackendRefs, TcpRouteSpec,
    TcpRouteUseDefaultGateways,
};
pub use gateway_api::apis::experimental::xbackendtrafficpolicies::{
    XBackendTrafficPolicyRetryConstraint, XBackendTrafficPolicySpec,
    XBackendTrafficPolicyTargetRefs,
};
pub use gateway_api::apis::standard::backendtlspolicies::{
    BackendTlsPolicySpec, BackendTlsPolicyTargetRefs, BackendTlsPolicyValidationCaCertificateRefs,
};

/// `TLSRoute.spec`, of all its versions: v1alpha2 may leave out the hostnames, which the crate's type
/// asks for.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TlsRouteSpec {
    /// Server names; a leading `*.` stands for one label or more. Absent: any.
    #[serde(default)]
    pub hostnames: Option<Vec<String>>,
    /// What the route is attached to.
    #[serde(default)]
    pub parent_refs: Option<Vec<TcpRouteParentRefs>>,
    /// As those of a TCPRoute.
    pub rules: Vec<TcpRouteRules>,
    /// Gateways only.
    #[serde(default)]
    pub use_default_gateways: Option<TcpRouteUseDefaultGateways>,
}
