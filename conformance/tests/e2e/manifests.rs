//! Kubernetes objects that several tests start from. Those of one test alone stand beside it.

/// An HTTPRoute of a service of `shop`, with the rules that follow.
macro_rules! http_route {
    ($service:literal, $rules:literal) => {
        concat!(
            "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: ",
            $service,
            ", namespace: shop}\nspec:\n  parentRefs: [{group: \"\", kind: Service, name: ",
            $service,
            "}]\n  rules:\n",
            $rules
        )
    };
}

/// Denies `/admin` of the service `web`.
pub const DENY_ADMIN: &str = "\
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: no-admin, namespace: shop}
spec:
  targetRefs: [{group: \"\", kind: Service, name: web}]
  action: DENY
  rules: [{to: [{operation: {paths: [/admin]}}]}]
";
