//! Gateway API kinds, from the crate `gateway-api` with its experimental fields: a field that Cairn
//! does not honour must be known, so that it can be refused by name.

pub use gateway_api::apis::experimental::gatewayclasses::GatewayClassSpec;
pub use gateway_api::apis::experimental::gateways::GatewaySpec;
pub use gateway_api::apis::experimental::grpcroutes::{
    GrpcRouteParentRefs, GrpcRouteRules, GrpcRouteRulesMatches, GrpcRouteRulesMatchesMethod,
    GrpcRouteRulesMatchesMethodType, GrpcRouteSpec,
};
pub use gateway_api::apis::experimental::httproutes::*;
pub use gateway_api::apis::experimental::xbackendtrafficpolicies::{
    XBackendTrafficPolicyRetryConstraint, XBackendTrafficPolicySpec,
    XBackendTrafficPolicyTargetRefs,
};
