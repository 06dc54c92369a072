//! The GatewayClass that users name: made if it is not there, and what it is said to support.

use cairn_config_schema::status::CONTROLLER;
use serde_json::{Value, json};

use super::api::{Api, Failure, Place};
use super::gateways::text;

/// Features of the mesh profiles (specs/gateway-api.md 1.1, 1.2) and the route kinds, sorted as the API wants them.
/// The golden cases under `routing` and `streams` hold each of them.
pub const FEATURES: [&str; 13] = [
    "GRPCRoute",
    "HTTPRoute",
    "Mesh",
    "MeshClusterIPMatching",
    "MeshConsumerRoute",
    "MeshHTTPRouteBackendRequestHeaderModification",
    "MeshHTTPRouteNamedRouteRule",
    "MeshHTTPRouteQueryParamMatching",
    "MeshHTTPRouteRedirectPath",
    "MeshHTTPRouteRedirectPort",
    "MeshHTTPRouteRewritePath",
    "MeshHTTPRouteSchemeRedirect",
    "TLSRoute",
];

/// `status.supportedFeatures`.
pub fn features() -> Value {
    FEATURES.iter().map(|name| json!({"name": name})).collect()
}

/// Makes the class if it is not there. One of the name that is another controller's is left alone, and its Gateways
/// are that controller's.
///
/// # Errors
/// When the API server did not do it; 404: it knows no GatewayClasses.
pub async fn ensure(api: &Api, name: &str) -> Result<(), Failure> {
    let place = Place::new("gateway.networking.k8s.io", "v1", "gatewayclasses", None);
    if let Some(class) = api.get(&place, name).await? {
        let controller = text(&class, "/spec/controllerName").unwrap_or_default();
        if controller != CONTROLLER {
            tracing::error!(
                class = name,
                controller,
                "this GatewayClass is another controller's; name another one with --gateway-class"
            );
        }
        return Ok(());
    }
    let class = json!({
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "GatewayClass",
        "metadata": {"name": name},
        "spec": {
            "controllerName": CONTROLLER,
            "description": "L7 waypoints for a sidecarless mesh, by Cairn",
        },
    });
    api.apply(&place, name, &class, false).await?;
    tracing::info!(class = name, "made the GatewayClass");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn features_are_sorted_and_there_once() {
        assert!(FEATURES.is_sorted_by(|a, b| a < b));
    }
}
